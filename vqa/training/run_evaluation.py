"""What a trained run says of a split, and how good that is: predictions, scores, bounds.

Legend: `N` questions, `K` best answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import Protocol, score
from vqa.evaluation.floors import prior_choice_per_question_type, prior_per_question_type, vocabulary_ceiling
from vqa.evaluation.results import Task
from vqa.evaluation.tables import Kind, Scored, Table, accuracy_table, question_type_table
from vqa.features.cache import IDENTITY, FeatureCache
from vqa.features.residency import FeatureTable
from vqa.text.vocabulary import AnswerVocabulary
from vqa.training.batches import EncodedQuestions, encode_questions
from vqa.training.predict import Predicted, predict
from vqa.training.prepare import load_features, open_caches, read_split
from vqa.training.run import TrainedRun
from vqa.training.seen import Overlap, load_seen, overlap

BEST_ANSWERS = 5
FLOOR = "most frequent answer per question type"
CEILING = "best the answer vocabulary allows"


@dataclass(frozen=True)
class Evaluation:
    """What a run says of a split, and how good that is.

    Attributes:
        run: the trained run.
        dataset: the split.
        questions: the split as tensors.
        features: its pictures' features.
        predicted: best answers and choices' scores.
        answers: the predictions by task; only the tasks asked for that the split has.
        scored: the run, then floor and ceiling; empty where the answers are hidden.
        protocol: of every score.
        overlap: what of the split the run was trained or chosen on.
    """

    run: TrainedRun
    dataset: QADataset
    questions: EncodedQuestions
    features: FeatureTable
    predicted: Predicted
    answers: dict[Task, Strings]
    scored: tuple[Scored, ...]
    protocol: Protocol
    overlap: Overlap

    def tables(self) -> tuple[Table, ...]:
        """The accuracy table, then one by question type for each task; stamped where the split was trained on."""
        if not self.scored:
            return ()
        found = [accuracy_table(self.scored, data=self.dataset.name)]
        if self.dataset.question_type is not None:
            found += [question_type_table(self.scored, task, data=self.dataset.name) for task in self.answers]
        return tuple(stamped(table, self.overlap) for table in found)

    def summary(self) -> dict[str, Any]:
        """The numbers for `evaluation_<split>.json`, percent, with protocol and seed."""
        return {
            "run": str(self.run.folder.path),
            "experiment": self.run.experiment.name,
            "seed": self.run.experiment.seed,
            "data": self.dataset.name,
            "questions": len(self.dataset),
            "protocol": self.protocol,
            **self.overlap.as_json(),
            "accuracy": _numbers(self.scored, "run"),
            "floor": _numbers(self.scored, "floor"),
            "ceiling": _numbers(self.scored, "ceiling"),
        }


def stamped(table: Table, overlap: Overlap) -> Table:
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
) -> Evaluation:
    """Predict and score, writing nothing; the arguments are those of `evaluate_run`."""
    dataset = read_split(run.experiment, split)
    if task == "multiple-choice" and dataset.choices is None:
        raise InputError(f"{dataset.name}: has no multiple-choice questions; choose --task open-ended")
    opened = open_run_caches(run, caches)
    common = check_seen(run, dataset, opened, allow_seen)
    features, (rows,) = load_features(run.experiment, opened, [dataset], run.machine)
    questions = encode_questions(dataset, run.words, run.answers, rows).to(run.machine.device)
    predicted = predict(run.model, questions, features, run.machine, best=min(BEST_ANSWERS, len(run.answers)))
    answers: dict[Task, Strings] = {}
    if task != "multiple-choice":
        answers["open-ended"] = predicted.open_ended(run.answers)
    chosen = predicted.multiple_choice(dataset)
    if task != "open-ended" and chosen is not None:
        answers["multiple-choice"] = chosen
    scored: tuple[Scored, ...] = ()
    if dataset.answers is not None:
        train = read_split(run.experiment, "train")
        scored = score_with_bounds(run.name, answers, train, dataset, run.answers, protocol)
    return Evaluation(run, dataset, questions, features, predicted, answers, scored, protocol, common)


def open_run_caches(run: TrainedRun, caches: Sequence[Path] = ()) -> list[FeatureCache]:
    """Open the experiment's caches, or others, and check that they hold the features that the run was trained on."""
    experiment = run.experiment
    if caches:
        section = experiment.features.model_copy(update={"cache": [str(path) for path in caches]})
        experiment = experiment.model_copy(update={"features": section})
    opened = open_caches(experiment)
    stated = {key: run.recorded["features"][key] for key in IDENTITY}
    wrong = [line for cache in opened for line in cache.contradictions(stated)]
    if wrong:
        raise InputError("\n".join(["these are not the features that the run was trained on:", *wrong]))
    return opened


def check_seen(run: TrainedRun, dataset: QADataset, caches: Sequence[FeatureCache], allow_seen: bool) -> Overlap:
    """What of a split the run was trained or chosen on; raises InputError unless nothing was, or it is allowed."""
    try:
        common = overlap(load_seen(run.folder, run.experiment, run.recorded), dataset, caches)
    except InputError:
        if not allow_seen:
            raise
        return Overlap(dataset.name, unknown=True)
    if not allow_seen:
        common.refuse()
    return common


def score_with_bounds(
    name: str,
    answers: dict[Task, Strings],
    train: QADataset,
    dataset: QADataset,
    vocabulary: AnswerVocabulary,
    protocol: Protocol,
) -> tuple[Scored, ...]:
    """The run's scores, then the floor (prior per question type) and the ceiling of the vocabulary."""
    prior: dict[Task, Strings] = {}
    best: dict[Task, Strings] = {}
    if "open-ended" in answers:
        prior["open-ended"] = prior_per_question_type(train, dataset)
        best["open-ended"] = vocabulary_ceiling(dataset, vocabulary, protocol)
    if "multiple-choice" in answers:
        prior["multiple-choice"] = prior_choice_per_question_type(train, dataset)

    def scored(name: str, given: dict[Task, Strings], kind: Kind) -> Scored:
        found = {task: score(dataset, predictions, protocol) for task, predictions in given.items()}
        return Scored(name, found.get("open-ended"), found.get("multiple-choice"), kind)

    return scored(name, answers, "run"), scored(FLOOR, prior, "floor"), scored(CEILING, best, "ceiling")


def _numbers(scored: Sequence[Scored], kind: str) -> dict[str, Any]:
    """One kind of row as plain numbers by task."""
    one = next((row for row in scored if row.kind == kind), None)
    if one is None:
        return {}
    return {
        key: {
            "overall": found.overall,
            "per_answer_type": found.per_answer_type,
            "per_question_type": found.per_question_type,
        }
        for key, found in (("open_ended", one.open_ended), ("multiple_choice", one.multiple_choice))
        if found is not None
    }
