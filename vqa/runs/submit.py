"""`vqa submit`: a run's answers to a split, packed as the challenge's server wants them."""

from dataclasses import replace
from pathlib import Path

from vqa.errors import InputError
from vqa.evaluation.contamination import SEEN_NAME
from vqa.evaluation.submission import SubmissionCheck, check_submission, pack_submission
from vqa.progress import console
from vqa.runs.evaluate import DEFAULTS, EvaluationOptions, evaluate_loaded, load_asked


def submit(
    run: Path | None,
    split: str = "test",
    options: EvaluationOptions = DEFAULTS,
    *,
    check: Path | None = None,
    questions: Path | None = None,
) -> None:
    """Pack a run's answers, or check a results file made elsewhere, and say what was done.

    Args:
        run: the run folder; not needed with `check`.
        check: a results file or zip to check instead, with `questions`, the official questions file.

    Raises:
        InputError: what the server would refuse, naming the file and the item.
    """
    if check is not None:
        if questions is None:
            raise InputError(f"--check {check} needs --questions, the official questions file that it answers")
        _say(check_submission(check, questions))
    elif run is None:
        raise InputError("give a run folder, or --check FILE with --questions Q.json for a file made elsewhere")
    else:
        for packed in submit_run(run, split, options):
            console.print(f"ready to send: {packed}")


def submit_run(path: Path, split: str = "test", options: EvaluationOptions = DEFAULTS) -> list[Path]:
    """Write `submission/vqa_<task>_…_results.json` and the zip of it for each task; returns the zips."""
    run = load_asked(path, options)
    answers = evaluate_loaded(run, split, replace(options, image_matters=False)).judgement.answers
    common, name = answers.contamination, f"{run.experiment.name}-seed{run.experiment.seed}"
    if common and common.contaminated:
        console.print(f"{answers.dataset.name}: {common.stamp}", style="bold red")
        name += f"-{SEEN_NAME}"
    folder = run.folder.path / "submission"
    folder.mkdir(exist_ok=True)
    return [pack_submission(folder, answers.dataset, task, found, name) for task, found in answers.by_task.items()]


def _say(checked: SubmissionCheck) -> None:
    console.print(
        f"{checked.file}: fit to send: {checked.task}, {checked.split}, {checked.questions:,} questions each answered "
        f"once, {checked.distinct_answers:,} different answers",
    )
    for note in checked.notes:
        console.print(f"note: {note}")
