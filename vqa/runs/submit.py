"""`vqa submit`: a run's answers to a split, packed as the challenge's server wants them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vqa.errors import InputError
from vqa.evaluation.contamination import SEEN_NAME
from vqa.evaluation.submission import SubmissionCheck, check_submission, pack_submission
from vqa.progress import console
from vqa.runs.load import load_run
from vqa.runs.predictions import evaluate_loaded


def submit(
    run: Path | None,
    split: str = "test",
    *,
    task: Literal["open-ended", "multiple-choice", "both"] = "both",
    caches: Sequence[Path] = (),
    allow_seen: bool = False,
    allow_code: bool = False,
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
        for packed in submit_run(run, split, task=task, caches=caches, allow_seen=allow_seen, allow_code=allow_code):
            console.print(f"ready to send: {packed}", markup=False)


def submit_run(
    path: Path,
    split: str = "test",
    *,
    task: Literal["open-ended", "multiple-choice", "both"] = "both",
    caches: Sequence[Path] = (),
    allow_seen: bool = False,
    allow_code: bool = False,
) -> list[Path]:
    """Write `submission/vqa_<task>_…_results.json` and the zip of it for each task; returns the zips."""
    run = load_run(path, allow_code=allow_code)
    evaluation = evaluate_loaded(run, split, task=task, caches=caches, allow_seen=allow_seen)
    if evaluation.overlap.contaminated:
        console.print(f"{evaluation.dataset.name}: {evaluation.overlap.stamp}", style="bold red")
    folder = run.folder.path / "submission"
    folder.mkdir(exist_ok=True)
    name = f"{run.experiment.name}-seed{run.experiment.seed}"
    name += f"-{SEEN_NAME}" if evaluation.overlap.contaminated else ""
    return [pack_submission(folder, evaluation.dataset, t, given, name) for t, given in evaluation.answers.items()]


def _say(checked: SubmissionCheck) -> None:
    console.print(
        f"{checked.file}: fit to send: {checked.task}, {checked.split}, {checked.questions:,} questions each answered "
        f"once, {checked.distinct_answers:,} different answers",
        markup=False,
    )
    for note in checked.notes:
        console.print(f"note: {note}", markup=False)
