"""A trained run over a split: official results files, accuracies beside floor and ceiling, and the report.

Legend: `N` questions, `K` best answers, `H` hops, `R` regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import Protocol, score
from vqa.evaluation.figures import square_grid
from vqa.evaluation.floors import prior_choice_per_question_type, prior_per_question_type, vocabulary_ceiling
from vqa.evaluation.report import (
    Curve,
    Example,
    Guess,
    Report,
    confusions,
    example_rows,
    human_answers,
    write_report,
)
from vqa.evaluation.results import Task, write_results
from vqa.evaluation.tables import Kind, Scored, Table, accuracy_table, question_type_table
from vqa.features.cache import IDENTITY
from vqa.features.residency import FeatureTable
from vqa.files import sha256_file, write_json
from vqa.progress import console
from vqa.text.vocabulary import AnswerVocabulary
from vqa.training.batches import EncodedQuestions, encode_questions
from vqa.training.checkpoint import RunFolder, read_metrics
from vqa.training.predict import Predicted, attend, predict
from vqa.training.prepare import load_features, open_caches, read_split
from vqa.training.run import TrainedRun, load_run

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
    """

    run: TrainedRun
    dataset: QADataset
    questions: EncodedQuestions
    features: FeatureTable
    predicted: Predicted
    answers: dict[Task, Strings]
    scored: tuple[Scored, ...]
    protocol: Protocol

    def tables(self) -> tuple[Table, ...]:
        """The accuracy table, then one by question type for each task."""
        if not self.scored:
            return ()
        found = [accuracy_table(self.scored, data=self.dataset.name)]
        if self.dataset.question_type is not None:
            found += [question_type_table(self.scored, task, data=self.dataset.name) for task in self.answers]
        return tuple(found)

    def summary(self) -> dict[str, Any]:
        """The numbers for `evaluation_<split>.json`, percent, with protocol and seed."""
        return {
            "run": str(self.run.folder.path),
            "experiment": self.run.experiment.name,
            "seed": self.run.experiment.seed,
            "data": self.dataset.name,
            "questions": len(self.dataset),
            "protocol": self.protocol,
            "accuracy": _numbers(self.scored, "run"),
            "floor": _numbers(self.scored, "floor"),
            "ceiling": _numbers(self.scored, "ceiling"),
        }


def evaluate_run(
    path: Path,
    split: str = "val",
    *,
    task: Literal["open-ended", "multiple-choice", "both"] = "both",
    protocol: Protocol = "2021",
    caches: Sequence[Path] = (),
    report: bool = True,
    json_file: Path | None = None,
) -> Evaluation:
    """Evaluate a run folder on a split; writes results files, `evaluation_<split>.json` and `report.html` into it.

    A split without answers gets its results files only.

    Args:
        split: "train", "val", "test" of the experiment, or another official split name.
        task: which task; "both" takes multiple choice where the split has choices.
        caches: feature caches instead of the experiment's, for a split that was extracted to another file.
        report: also write `report.html` (only where there are answers).
        json_file: another place for the numbers.

    Raises:
        InputError: naming the file and item; among others when the split has no choices and multiple choice is asked.
    """
    run = load_run(path)
    evaluation = evaluate_loaded(run, split, task=task, protocol=protocol, caches=caches)
    for name, answers in evaluation.answers.items():
        write_results(run.folder.results(split, name), evaluation.dataset, answers)
    if evaluation.scored:
        summary = evaluation.summary() | {"task": task, "weights_sha256": sha256_file(run.folder.model)}
        write_json(run.folder.evaluation(split), summary)
        if json_file is not None:
            write_json(json_file, summary)
        if report:
            write_report(run.folder.path / "report.html", run_report(evaluation))
    return evaluation


def evaluate_loaded(
    run: TrainedRun, split: str, *, task: str = "both", protocol: Protocol = "2021", caches: Sequence[Path] = ()
) -> Evaluation:
    """Predict and score, writing nothing; the arguments are those of `evaluate_run`."""
    dataset = read_split(run.experiment, split)
    if task == "multiple-choice" and dataset.choices is None:
        raise InputError(f"{dataset.name}: has no multiple-choice questions; choose --task open-ended")
    experiment = run.experiment
    if caches:
        section = experiment.features.model_copy(update={"cache": [str(path) for path in caches]})
        experiment = experiment.model_copy(update={"features": section})
    opened = open_caches(experiment)
    stated = {key: run.recorded["features"][key] for key in IDENTITY}
    wrong = [line for cache in opened for line in cache.contradictions(stated)]
    if wrong:
        raise InputError("\n".join(["these are not the features that the run was trained on:", *wrong]))
    features, (rows,) = load_features(experiment, opened, [dataset], run.machine)
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
    return Evaluation(run, dataset, questions, features, predicted, answers, scored, protocol)


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


def run_report(evaluation: Evaluation) -> Report:
    """The page of one run."""
    run, dataset = evaluation.run, evaluation.dataset
    own = evaluation.scored[0]
    headline = [
        f"{task} {found.overall:.2f}%"
        for task, found in (("open-ended", own.open_ended), ("multiple-choice", own.multiple_choice))
        if found is not None
    ]
    predictions = next(iter(evaluation.answers.values()))
    return Report(
        title=f"{run.experiment.name} on {dataset.name}",
        summary=(f"{run.name}: {', '.join(headline)} (VQA accuracy, protocol {evaluation.protocol}).",),
        facts=facts(evaluation),
        tables=evaluation.tables(),
        curves=(learning_curve(run.experiment.name, run.folder),),
        confusions=tuple(confusions(dataset, predictions)),
        examples=examples(evaluation),
        subject=f"{run.name}, {dataset.name}, {next(iter(evaluation.answers))}",
        accuracy_name=f"open-ended VQA accuracy, protocol {evaluation.protocol}",
    )


def facts(evaluation: Evaluation) -> tuple[tuple[str, str], ...]:
    """How the numbers were made."""
    run, features = evaluation.run, evaluation.run.recorded["features"]
    shown = ", ".join(f"{key} {value}" for key, value in run.experiment.fusion.items() if key != "name")
    return (
        ("seed", str(run.experiment.seed)),
        ("protocol", f"official VQA metric, version {evaluation.protocol}"),
        ("data", f"{evaluation.dataset.name}, {len(evaluation.dataset):,} questions"),
        ("answer vocabulary", f"{len(run.answers):,} answers of the training split"),
        ("fusion", f"{run.experiment.fusion['name']}{f' ({shown})' if shown else ''}"),
        ("image features", f"{features['encoder']} {features['layer']} at {features['image_size']} px"),
        ("encoder weights", str(features["weights_origin"])),
        ("machine", str(run.recorded["machine"])),
    )


def learning_curve(name: str, folder: RunFolder) -> Curve:
    """A run's accuracy and loss by epoch, from metrics.jsonl."""
    rows = read_metrics(folder.metrics)
    return Curve(
        name,
        tuple(row["epoch"] for row in rows),
        tuple(row["val/open_ended/overall"] for row in rows),
        tuple(row["train/loss"] for row in rows),
    )


def examples(evaluation: Evaluation, count: int = 12, others: Sequence[Evaluation] = ()) -> tuple[Example, ...]:
    """Questions drawn by lot, with the run's best answers and where it looked.

    Args:
        others: more runs on the same split, whose answers are shown too.
    """
    dataset, predicted = evaluation.dataset, evaluation.predicted
    rows = example_rows(dataset, count)
    maps = attend(
        evaluation.run.model, evaluation.questions, evaluation.features, evaluation.run.machine, rows.tolist()
    )
    accuracy_N = open_ended_accuracy(evaluation)
    vocabulary = evaluation.run.answers.answers
    found = []
    for row, attention_HR in zip(rows.tolist(), maps, strict=True):
        guesses = zip(predicted.answer_NK[row], predicted.probability_NK[row], strict=True)
        found.append(
            Example(
                picture=dataset.images.paths[dataset.image_row_N[row]],
                question=dataset.question.at(row),
                guesses=tuple(Guess(vocabulary[answer], float(probability)) for answer, probability in guesses),
                humans=human_answers(dataset, row),
                accuracy=float(accuracy_N[row]),
                attention_HR=attention_HR,
                grid=None if attention_HR is None else square_grid(attention_HR.shape[1]),
                question_type="" if dataset.question_type is None else dataset.question_type.at(row),
                other_runs=tuple(_said(other, row) for other in others),
            )
        )
    return tuple(found)


def open_ended_accuracy(evaluation: Evaluation) -> np.ndarray:
    """float64 `[N]`, 0..1: the open-ended accuracy of each question, whichever tasks were asked for."""
    return score(evaluation.dataset, evaluation.predicted.open_ended(evaluation.run.answers)).accuracy_N


def _said(evaluation: Evaluation, row: int) -> tuple[str, str, float]:
    answer = evaluation.run.answers.answers[evaluation.predicted.answer_NK[row, 0]]
    return evaluation.run.experiment.name.rsplit("/", 1)[-1], answer, float(open_ended_accuracy(evaluation)[row])


def print_evaluation(evaluation: Evaluation) -> None:
    """The tables, and where the files are."""
    from vqa.evaluation.terminal import print_table

    for table in evaluation.tables():
        print_table(table)
    if not evaluation.scored:
        console.print(f"{evaluation.dataset.name} has no answers: results files only, no accuracy")
    console.print(f"results, numbers and report.html: {evaluation.run.folder.path}")
