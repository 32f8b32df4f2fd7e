"""`vqa ensemble`: the mean of several runs' probabilities, judged as any model is.

Legend: `N` questions, `M` members, `U` answers of any member.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import AnswerKeys, accuracy, summarise
from vqa.evaluation.contamination import question_digests, seen_by_any
from vqa.evaluation.judge import Judgement, JudgeOptions, SplitAnswers, judge
from vqa.evaluation.report.page import Guess, Report, example_rows
from vqa.evaluation.results import Task
from vqa.evaluation.scores import ModelScores, accuracy_table
from vqa.files import atomic_write
from vqa.progress import console
from vqa.runs.evaluate import write_judgement
from vqa.studies.comparison.scores import Mean, Member, mean_of, own_answers, score_member, select_greedily
from vqa.studies.comparison.systems import SystemOptions, sources_of
from vqa.tables import Column, Row, Table, print_table
from vqa.training.inputs.splits import read_split
from vqa.training.run_folder import RunFolder, open_run

ENSEMBLES = Path("experiments/runs/ensembles")
ORACLE = "best member for every question"
EXAMPLES_SHOWN = 5


@dataclass(frozen=True)
class EnsembleOptions(SystemOptions):
    """How an ensemble is made.

    Attributes:
        tasks: which tasks are judged.
        select_on: a split of its own on which members are chosen greedily; None lets each count once.
    """

    tasks: Task | Literal["both"] = "both"
    select_on: str | None = None


@dataclass(frozen=True)
class Ensemble:
    """Runs that answer together.

    Attributes:
        members: with their scores of the split.
        weights: how often each counts.
        mean: what they answer together.
        judgement: of the ensemble.
        member_answers: `[N]` each.
        agreement_MM: percent of questions that two members answer alike.
        member_scores: each member's, then the best of them question by question; empty where answers are hidden.
    """

    members: tuple[Member, ...]
    weights: tuple[int, ...]
    mean: Mean
    judgement: Judgement
    member_answers: tuple[Strings, ...]
    agreement_MM: NDArray[np.float64]
    member_scores: tuple[ModelScores, ...] = ()

    def tables(self) -> tuple[Table, ...]:
        """The members' accuracies, where there are some, and how far they agree."""
        data = self.judgement.dataset.name
        scores = [accuracy_table(self.member_scores, data=data, title="Members")] if self.member_scores else []
        return (*scores, self.agreement_table())

    def agreement_table(self) -> Table:
        """Which members answer alike."""
        columns = tuple(Column(str(number), decimals=1) for number in range(1, len(self.members) + 1))
        rows = tuple(
            Row(f"{number}: {member.name}", tuple(agreeing.tolist()))
            for number, (member, agreeing) in enumerate(zip(self.members, self.agreement_MM, strict=True), start=1)
        )
        caption = "Percent of questions that two members answer alike, open-ended. The less, the more a mean can help."
        return Table("Agreement of members", caption, columns, rows, row_heading="Member", best="none")

    def summary(self, folder: Path, options: EnsembleOptions) -> dict[str, Any]:
        """The numbers for `evaluation_<split>.json`: those of a run, and the members."""
        scored = {row.name: row for row in self.member_scores}
        members = [
            {
                "run": str(member.path),
                "seed": member.seed,
                "weights_sha256": member.weights_sha256,
                "counts": weight,
                "accuracy": scored[member.name].as_json() if member.name in scored else None,
            }
            for member, weight in zip(self.members, self.weights, strict=True)
        ]
        return {
            **self.judgement.summary(folder, self.judgement.answers.name),
            "members": members,
            "selected_on": options.select_on,
            "agreement": self.agreement_MM.tolist(),
            "oracle": scored[ORACLE].as_json() if ORACLE in scored else None,
        }

    def report(self, options: EnsembleOptions) -> Report:
        """The page of the ensemble."""
        judgement, mean = self.judgement, self.mean
        counted = (f"{m.path} x {w}" for m, w in zip(self.members, self.weights, strict=True) if w)
        facts = (
            *judgement.facts(),
            ("members", ", ".join(counted)),
            ("selected on", options.select_on or "nothing: every run counts once"),
            ("answer vocabulary", f"{len(mean.vocabulary):,} answers of any member"),
        )
        examples = []
        for row in example_rows(judgement.dataset).tolist():
            best = zip(mean.best_NK[row].tolist(), mean.probability_NK[row].tolist(), strict=True)
            examples.append(judgement.example(row, [Guess(mean.vocabulary.answers[a], p) for a, p in best]))
        report = judgement.report(judgement.answers.name, facts, examples)
        return replace(report, tables=(*report.tables, *self.tables()))


def ensemble(
    paths: Sequence[Path],
    options: EnsembleOptions,
    *,
    out: Path | None = None,
    json_file: Path | None = None,
    keep_scores: Path | None = None,
) -> Ensemble:
    """Average runs, judge the mean, print tables, and write results files, numbers and page.

    Args:
        paths: run folders, or folders of several seeds.
        out: the folder of the files; by default one for these weights in `experiments/runs/ensembles`.
        json_file: another place for the numbers.
        keep_scores: an .npz file of the mean probabilities, float16 `[N, U]`, with `answers` and `question_id`.

    Raises:
        InputError: a run was trained on the split, splits differ, or the split for selection is not one of its own.
    """
    runs = [source for path in paths for source in sources_of(path)]
    if wrong := [path for path in runs if path.is_file()]:
        raise InputError(f"{wrong[0]}: a results file has no probabilities; an ensemble is made of run folders")
    _, experiment, recorded = open_run(runs[0])
    dataset = read_split(experiment, options.split, recorded)
    judging = JudgeOptions(options.tasks, options.protocol)
    tasks = judging.tasks(dataset)
    folder = RunFolder(out or ENSEMBLES / _folder_name(runs))
    folder.path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".scores-", dir=folder.path) as scratch:
        weights = _weights(runs, dataset, options, Path(scratch))
        members = [
            score_member(path, dataset, options.split, options, Path(scratch) / str(number))
            for number, path in enumerate(runs)
        ]
        mean = _mean(members, weights, dataset, tasks, Path(scratch), keep_scores)
        answers = tuple(own_answers(member) for member in members)
    answered = _answers(members, weights, dataset, tasks, mean, options)
    if dataset.answers is None:
        judgement = Judgement(answered, judging)
    else:
        judgement = judge(answered, judging, read_split(experiment, "train", recorded))
    own = _member_scores(members, answers, dataset, options)
    found = Ensemble(tuple(members), tuple(weights), mean, judgement, answers, _agreement(answers), own)
    scored = bool(judgement.scored)
    write_judgement(
        judgement, folder, options.split,
        summary=found.summary(folder.path, options) if scored else None,
        page=found.report(options) if scored else None, json_file=json_file,
    )  # fmt: skip
    for table in found.tables():
        print_table(table)
    judgement.print(folder.path)
    return found


def _folder_name(runs: Sequence[Path]) -> str:
    """A name that says which runs these are: the first, how many more, and a digest of all weights."""
    digest = hashlib.sha256("".join(str(path.resolve()) for path in runs).encode()).hexdigest()[:8]
    first = f"{runs[0].resolve().parent.name}-{runs[0].name}"
    return f"{first}-and-{len(runs) - 1}-more-{digest}"


def _weights(runs: Sequence[Path], dataset: QADataset, options: EnsembleOptions, scratch: Path) -> list[int]:
    """How often each run counts: once, or as chosen on a split of its own."""
    if options.select_on is None:
        return [1] * len(runs)
    _, experiment, recorded = open_run(runs[0])
    chooser = read_split(experiment, options.select_on, recorded)
    common = np.isin(question_digests(chooser), question_digests(dataset))
    if common.any():
        raise InputError(
            f"--select-on {options.select_on}: {int(common.sum()):,} of its {len(chooser):,} questions are in "
            f"{dataset.name}, too, so the choice would be made on the test; choose a split of its own"
        )
    keys = AnswerKeys.of(chooser, options.protocol)
    members = [
        score_member(path, chooser, options.select_on, options, scratch / f"select-{number}")
        for number, path in enumerate(runs)
    ]
    counts = select_greedily(members, chooser, lambda said: float(accuracy(keys, said).mean()), 2 * len(members))
    named = ", ".join(f"{m.name} x {count}" for m, count in zip(members, counts, strict=True) if count)
    console.print(f"selected on {chooser.name}: {named}")
    for number in range(len(runs)):
        (scratch / f"select-{number}").unlink()
    return counts


def _mean(
    members: Sequence[Member],
    weights: Sequence[int],
    dataset: QADataset,
    tasks: Sequence[Task],
    scratch: Path,
    keep_scores: Path | None,
) -> Mean:
    kept: NDArray[np.float16] | None = None
    if keep_scores is not None:
        width = len({text for member in members for text in member.vocabulary.answers})
        kept = np.memmap(scratch / "kept", np.float16, "w+", shape=(len(dataset), width))
    mean = mean_of(members, weights, dataset, choosing="multiple-choice" in tasks, best=EXAMPLES_SHOWN, kept=kept)
    if keep_scores is not None and kept is not None:
        arrays = {"probability": kept, "answers": np.array(mean.vocabulary.answers)}
        with atomic_write(keep_scores, "wb") as file:
            np.savez(file, allow_pickle=False, question_id=dataset.question_id_N, **arrays)
        console.print(f"mean probabilities: {keep_scores}")
    return mean


def _answers(
    members: Sequence[Member],
    weights: Sequence[int],
    dataset: QADataset,
    tasks: Sequence[Task],
    mean: Mean,
    options: EnsembleOptions,
) -> SplitAnswers:
    """What the judge takes."""
    by_task: dict[Task, Strings] = {"open-ended": mean.open_ended} if "open-ended" in tasks else {}
    if mean.choices is not None:
        by_task["multiple-choice"] = mean.choices
    counted = sum(map(bool, weights))
    chosen = "; ".join(dict.fromkeys(member.weights for member in members))
    note = f"Members were chosen greedily on {options.select_on}." if options.select_on else ""
    return SplitAnswers(
        name=f"ensemble of {counted} run{'s' if counted > 1 else ''}",
        dataset=dataset,
        by_task=by_task,
        open_ended=mean.open_ended,
        confidence_N=np.minimum(mean.confidence_N, 1.0),
        vocabulary=mean.vocabulary,
        other_choices=mean.choices_within,
        contamination=seen_by_any([member.contamination for member in members]),
        note=note,
        weights=chosen,
        weights_of_any=chosen,
    )


def _member_scores(
    members: Sequence[Member], answers: Sequence[Strings], dataset: QADataset, options: EnsembleOptions
) -> tuple[ModelScores, ...]:
    """Each member's open-ended score, and that of the best of them question by question."""
    if dataset.answers is None:
        return ()
    keys = AnswerKeys.of(dataset, options.protocol)
    accuracy_MN = np.stack([accuracy(keys, said) for said in answers])
    scores = [summarise(dataset, accuracy_N, options.protocol) for accuracy_N in accuracy_MN]
    rows = [ModelScores(member.name, score) for member, score in zip(members, scores, strict=True)]
    oracle = summarise(dataset, accuracy_MN.max(axis=0), options.protocol)
    return (*rows, ModelScores(ORACLE, oracle, None, "ceiling"))


def _agreement(answers: Sequence[Strings]) -> NDArray[np.float64]:
    index: dict[str, int] = {}
    code_MN = np.stack([np.array([index.setdefault(t, len(index)) for t in a.distinct])[a.codes] for a in answers])
    return np.array([[100 * float((one == other).mean()) for other in code_MN] for one in code_MN])
