"""What a trained run says of a split, and how good that is: predictions, scores, bounds.

Legend: `N` questions, `K` best answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vqa.data.dataset import ImageDigests, QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import Protocol, Score, score
from vqa.evaluation.bounds import CEILING, PRIOR, find_row, type_rows, with_bounds
from vqa.evaluation.contamination import Contamination, overlap
from vqa.evaluation.report.beyond import Diagnostics, diagnose
from vqa.evaluation.results import Task
from vqa.evaluation.scores import ModelScores, accuracy_table, question_type_table
from vqa.evaluation.wups import WordNet
from vqa.evaluation.wups_report import LIST_FORMATS, WupsReport, wups_report
from vqa.features.tables.feature_table import FeatureTable
from vqa.features.tables.pixel_table import PixelTable
from vqa.runs.load import TrainedRun, load_seen, open_run_caches
from vqa.tables import Table
from vqa.training.inputs.batches import EncodedQuestions
from vqa.training.inputs.choices import ChoiceTable
from vqa.training.inputs.prepare import load_features, read_split
from vqa.training.inputs.questions import encode_split
from vqa.training.model import TunedModel
from vqa.training.predict import Predictions, predict

BEST_ANSWERS = 5


@dataclass(frozen=True)
class Evaluation:
    """What a run says of a split, and how good that is.

    Attributes:
        run: the trained run.
        dataset: the split.
        questions: the split as tensors.
        features: its images' features.
        predicted: best answers and choices' scores.
        answers: the predictions by task; only the tasks asked for that the split has.
        scored: the run, then floors and ceilings; empty where the answers are hidden.
        protocol: of every score.
        overlap: what of the split the run was trained or chosen on.
        other_choices: the multiple-choice score with choices outside the answer vocabulary treated the other way.
        choices_outside: whether `answers` come from scoring those choices too.
        beyond: what one accuracy hides, of the open-ended answers; None where the answers are hidden.
        wups: WUPS and list accuracy, for data sets judged by them.
    """

    run: TrainedRun
    dataset: QADataset
    questions: EncodedQuestions
    features: FeatureTable | PixelTable
    predicted: Predictions
    answers: dict[Task, Strings]
    scored: tuple[ModelScores, ...]
    protocol: Protocol
    overlap: Contamination
    other_choices: Score | None = None
    choices_outside: bool = True
    beyond: Diagnostics | None = None
    wups: WupsReport | None = None

    def tables(self) -> tuple[Table, ...]:
        """The accuracy table, then one by question type for each task; stamped where the split was trained on."""
        if not self.scored:
            return ()
        found = [accuracy_table(self.scored, data=self.dataset.name, note=self._choices_note())]
        found += [self.wups.table()] if self.wups else []
        if self.dataset.question_type is not None:
            rows = type_rows(self.scored)
            found += [question_type_table(rows, task, data=self.dataset.name) for task in self.answers]
        return tuple(stamped(table, self.overlap) for table in found)

    def beyond_tables(self) -> tuple[Table, ...]:
        """What one accuracy hides; empty where the answers are hidden."""
        found = () if self.beyond is None else self.beyond.tables()
        return tuple(stamped(table, self.overlap) for table in found)

    def _choices_note(self) -> str:
        """What the other treatment of choices outside the vocabulary gives."""
        if self.other_choices is None:
            return ""
        here = "are scored by the answers whose words they share" if self.choices_outside else "are never picked"
        other = "never picking them" if self.choices_outside else "scoring them by the answers whose words they share"
        return (
            f"Choices outside the answer vocabulary {here}; {other}, multiple choice is "
            f"{self.other_choices.overall:.2f}%."
        )

    def summary(self) -> dict[str, Any]:
        """The numbers for `evaluation_<split>.json`, percent, with protocol and seed."""
        return {
            "run": str(self.run.folder.path),
            "experiment": self.run.experiment.name,
            "seed": self.run.experiment.seed,
            "data": self.dataset.name,
            "questions": len(self.dataset),
            "protocol": self.protocol,
            "choices_outside": self.choices_outside,
            **self.overlap.as_json(),
            "accuracy": numbers(find_row(self.scored, self.run.name)),
            "multiple_choice_by_rule": self._choices_by_rule(),
            "floor": numbers(find_row(self.scored, PRIOR)),
            "ceiling": numbers(find_row(self.scored, CEILING)),
            "floors": {row.name: numbers(row) for row in self.scored if row.kind == "floor"},
            "ceilings": {row.name: numbers(row) for row in self.scored if row.kind == "ceiling"},
            "beyond_accuracy": None if self.beyond is None else self.beyond.as_json(),
            "near_answers": None if self.wups is None else self.wups.as_json(),
        }

    def _choices_by_rule(self) -> dict[str, float] | None:
        """Multiple choice with choices outside the vocabulary scored, and restricted to it; `accuracy` has one."""
        own = find_row(self.scored, self.run.name)
        if self.other_choices is None or own is None or own.multiple_choice is None:
            return None
        both = (own.multiple_choice.overall, self.other_choices.overall)
        return dict(zip(("scored", "within_vocabulary"), both if self.choices_outside else both[::-1], strict=True))


def stamped(table: Table, overlap: Contamination) -> Table:
    """The table with what it must say of a split that the run was trained or chosen on."""
    if overlap.contaminated:
        table = replace(table, title=f"{table.title} ({overlap.stamp})")
    return replace(table, caption=f"{table.caption} {overlap.choice()}.") if overlap.choice() else table


def evaluate_loaded(
    run: TrainedRun,
    split: str,
    *,
    task: Literal["open-ended", "multiple-choice", "both"] = "both",
    protocol: Protocol = "2021",
    caches: Sequence[Path] = (),
    allow_seen: bool = False,
    choices_outside: bool = True,
    slices: Mapping[str, str] | None = None,
    wordnet: WordNet | None = None,
) -> Evaluation:
    """Predict and score, writing nothing; the arguments are those of `evaluate_run`. Only the first process scores."""
    dataset = read_split(run.experiment, split)
    if task == "multiple-choice" and dataset.choices is None:
        raise InputError(f"{dataset.name}: has no multiple-choice questions; choose --task open-ended")
    opened = open_run_caches(run, caches)
    encoder = run.model.image_encoder if isinstance(run.model, TunedModel) else None
    if encoder is None:  # what takes long comes last
        common = check_seen(run, dataset, opened, allow_seen)
    features, (rows,) = load_features(run.experiment, opened, [dataset], run.machine, encoder)
    if isinstance(features, PixelTable):
        common = check_seen(run, dataset, [features], allow_seen)
    questions = encode_split(
        dataset, run.tokenizer, run.answers, rows, experiment=run.experiment, caches=opened, device=run.machine.device
    ).to(run.machine.device)
    nearest = ChoiceTable.of(dataset, run.answers, run.machine.device) if task != "open-ended" else None
    best = min(BEST_ANSWERS, len(run.answers))
    predicted = predict(run.model, questions, features, run.machine, best=best, nearest=nearest)
    answers: dict[Task, Strings] = {}
    if task != "multiple-choice":
        answers["open-ended"] = predicted.open_ended(run.answers)
    chosen = predicted.multiple_choice(dataset, outside=choices_outside)
    if task != "open-ended" and chosen is not None:
        answers["multiple-choice"] = chosen
    evaluation = Evaluation(
        run, dataset, questions, features, predicted, answers, (), protocol, common, choices_outside=choices_outside
    )
    judged = dataset.answers is not None and run.machine.group.is_first
    return _judged(evaluation, slices, wordnet) if judged else evaluation


def _judged(evaluation: Evaluation, slices: Mapping[str, str] | None, wordnet: WordNet | None) -> Evaluation:
    """The same with scores, bounds and what lies beyond one accuracy."""
    run, dataset, protocol = evaluation.run, evaluation.dataset, evaluation.protocol
    train = read_split(run.experiment, "train")
    open_ended = evaluation.predicted.open_ended(run.answers)
    other = None
    if "multiple-choice" in evaluation.answers:
        other = evaluation.predicted.multiple_choice(dataset, outside=not evaluation.choices_outside)
    accuracy_N = score(dataset, open_ended, protocol).accuracy_N
    confidence_N: np.ndarray = evaluation.predicted.probability_NK[:, 0]
    near = wordnet is not None or dataset.format in LIST_FORMATS
    return replace(
        evaluation,
        scored=with_bounds(run.name, evaluation.answers, train, dataset, run.answers, protocol),
        other_choices=None if other is None else score(dataset, other, protocol),
        beyond=diagnose(run.name, dataset, open_ended, confidence_N, accuracy_N, protocol, slices),
        wups=wups_report(run.name, dataset, open_ended, wordnet) if near else None,
    )


def check_seen(run: TrainedRun, dataset: QADataset, caches: Sequence[ImageDigests], allow_seen: bool) -> Contamination:
    """What of a split the run was trained or chosen on; raises InputError unless nothing was, or it is allowed."""
    try:
        common = overlap(load_seen(run.folder, run.experiment, run.recorded), dataset, caches)
    except InputError:
        if not allow_seen:
            raise
        return Contamination(dataset.name, unknown=True)
    if not allow_seen:
        common.refuse()
    return common


def numbers(scored: ModelScores | None) -> dict[str, Any]:
    """One row as plain numbers by task."""
    if scored is None:
        return {}
    pairs = (("open_ended", scored.open_ended), ("multiple_choice", scored.multiple_choice))
    return {
        key: {
            "overall": found.overall,
            "per_answer_type": found.per_answer_type,
            "per_question_type": found.per_question_type,
        }
        for key, found in pairs
        if found is not None
    }
