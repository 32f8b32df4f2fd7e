"""`vqa evaluate --hf`: a model of transformers over a split, into the same files and tables as a trained run.

What such a model was trained on is not known here: its numbers say so, everywhere.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vqa.data.dataset import QADataset
from vqa.data.formats import read_dataset
from vqa.errors import InputError
from vqa.evaluation.accuracy import Protocol, score
from vqa.evaluation.bounds import CEILING, PRIOR, find_row, type_rows, with_bounds
from vqa.evaluation.report.beyond import Diagnostics, diagnose, parse_slices
from vqa.evaluation.report.page import Example, Guess, Report, confusions, example_rows, human_answers, write_report
from vqa.evaluation.results import Task, write_results
from vqa.evaluation.scores import ModelScores, accuracy_table, question_type_table
from vqa.evaluation.wups import WordNet, open_wordnet
from vqa.evaluation.wups_report import LIST_FORMATS, WupsReport, wups_report
from vqa.external.ask import ModelAnswers, ask, identity
from vqa.external.contracts import ExternalModel
from vqa.external.load import load_external
from vqa.files import write_json
from vqa.progress import console
from vqa.runs.predictions import numbers
from vqa.tables import Table
from vqa.training.run_folder import RunFolder, write_environment

RUNS = Path("experiments/runs/external")
UNKNOWN_TRAINING = "What this model was trained on is not known here: it may have seen these questions and images."


@dataclass(frozen=True)
class ExternalEvaluation:
    """What an external model says of a split, and how good that is.

    Attributes:
        folder: where the files are.
        model: as it was asked.
        dataset: the split, or the part that was asked.
        given: its answers.
        scored: the model, then floors and ceilings; empty where the answers are hidden.
        protocol: of every score.
        limit: how many questions were drawn by lot, or None for all.
        beyond: what one accuracy hides; None where the answers are hidden.
        wups: WUPS and list accuracy, for data sets judged by them.
    """

    folder: RunFolder
    model: ExternalModel
    dataset: QADataset
    given: ModelAnswers
    scored: tuple[ModelScores, ...]
    protocol: Protocol
    limit: int | None
    beyond: Diagnostics | None = None
    wups: WupsReport | None = None

    def tables(self) -> tuple[Table, ...]:
        """The accuracy table, then one by question type for each task."""
        if not self.scored:
            return ()
        found = [accuracy_table(self.scored, data=self.dataset.name, note=UNKNOWN_TRAINING)]
        found += [self.wups.table()] if self.wups else []
        if self.dataset.question_type is not None:
            rows = type_rows(self.scored)
            found += [question_type_table(rows, task, data=self.dataset.name) for task in self.given.answers]
        return tuple(found)

    def beyond_tables(self) -> tuple[Table, ...]:
        """What one accuracy hides; empty where the answers are hidden."""
        return () if self.beyond is None else self.beyond.tables()

    def summary(self) -> dict[str, Any]:
        """The numbers for `evaluation_<split>.json`, with the keys of a trained run's."""
        unknown = {"questions": None, "images": None, "contaminated": None, "stamp": UNKNOWN_TRAINING}
        return {
            "run": str(self.folder.path),
            "experiment": self.model.title,
            "seed": None,
            "data": self.dataset.name,
            "questions": len(self.dataset),
            "limit": self.limit,
            "protocol": self.protocol,
            "choices_outside": True,
            "seen_in_training": unknown,
            "accuracy": numbers(find_row(self.scored, self.model.title)),
            "floor": numbers(find_row(self.scored, PRIOR)),
            "ceiling": numbers(find_row(self.scored, CEILING)),
            "floors": {row.name: numbers(row) for row in self.scored if row.kind == "floor"},
            "ceilings": {row.name: numbers(row) for row in self.scored if row.kind == "ceiling"},
            "beyond_accuracy": None if self.beyond is None else self.beyond.as_json(),
            "near_answers": None if self.wups is None else self.wups.as_json(),
            "asked": {"kind": self.model.kind, **identity(self.model, self.dataset, list(self.given.answers))},
        }


def evaluate_external(
    name: str,
    data: Path | None,
    format: str | None,
    split: str = "val",
    *,
    task: Literal["open-ended", "multiple-choice", "both"] = "both",
    protocol: Protocol = "2021",
    prompt: str | None = None,
    batch_size: int = 16,
    max_new_tokens: int = 16,
    limit: int | None = None,
    out: Path | None = None,
    slices: Sequence[str] = (),
    wordnet: Path | None = None,
    workers: int = 4,
    json_file: Path | None = None,
    command: str = "the same command",
) -> ExternalEvaluation:
    """Ask a model every question of a split; writes results files, `evaluation_<split>.json` and `report.html`.

    Args:
        name: of a model on the hub, or its folder.
        data: the data set's folder.
        format: how it is laid out.
        prompt: what the model reads, with `{question}` in it; None takes the published one of its kind.
        limit: ask only so many questions, drawn by lot, the same ones every time.
        out: the folder of the files, by default one for the model in `experiments/runs/external`.
        workers: threads that prepare images ahead.
        command: what the user runs to go on after an interruption.

    The other arguments are those of `vqa.runs.evaluate.evaluate_run`.

    Raises:
        InputError: naming the file and item.
        InterruptedRunError: after Ctrl-C or SIGTERM, with the answers saved.
    """
    if data is None or format is None:
        raise InputError("--hf needs --data and --format: the data set that the model is asked about")
    patterns, corpus = parse_slices(slices), None if wordnet is None else open_wordnet(wordnet)
    dataset = drawn(read_dataset(format, data, split), limit)
    tasks = wanted_tasks(dataset, task)
    model = load_external(name, prompt=prompt, batch_size=batch_size, max_new_tokens=max_new_tokens)
    settings = model.settings
    console.print(
        f"{name}: {model.kind} model, revision {model.revision[:12]}, on {settings.device.type} in "
        f"{str(settings.dtype).removeprefix('torch.')}\nprompt: {settings.prompt!r}\n{UNKNOWN_TRAINING}",
        markup=False,
    )
    folder = RunFolder(out or RUNS / re.sub(r"[^A-Za-z0-9._-]+", "-", name.strip("/")).strip("-."))
    given = ask(model, dataset, tasks, folder.path, workers=workers, command=command)
    evaluation = ExternalEvaluation(folder, model, dataset, given, (), protocol, limit)
    if dataset.answers is not None:
        evaluation = _judged(evaluation, _train_split(format, data), patterns, corpus)
    _write(evaluation, split, json_file)
    return evaluation


def drawn(dataset: QADataset, limit: int | None) -> QADataset:
    """So many questions drawn by lot, in the data set's order; all of them where there are no more."""
    if limit is None or limit >= len(dataset):
        return dataset
    return dataset.take(np.sort(np.random.default_rng(0).permutation(len(dataset))[:limit]))


def wanted_tasks(dataset: QADataset, task: Literal["open-ended", "multiple-choice", "both"]) -> list[Task]:
    """The tasks asked for that the split has; raises InputError where it lacks the one asked for."""
    if task == "multiple-choice" and dataset.choices is None:
        raise InputError(f"{dataset.name}: has no multiple-choice questions; choose --task open-ended")
    found: list[Task] = [] if task == "multiple-choice" else ["open-ended"]
    return found + (["multiple-choice"] if task != "open-ended" and dataset.choices is not None else [])


def _train_split(format: str, data: Path) -> QADataset | None:
    """What the floors are learned from, or None, which is printed, where there is none beside the split."""
    try:
        return read_dataset(format, data, "train")
    except InputError as error:
        console.print(f"no training split, so no floors of most frequent answers: {error}", markup=False)
        return None


def _judged(
    evaluation: ExternalEvaluation, train: QADataset | None, slices: Mapping[str, str], wordnet: WordNet | None
) -> ExternalEvaluation:
    """The same with scores, bounds and what lies beyond one accuracy."""
    model, dataset, given, protocol = evaluation.model, evaluation.dataset, evaluation.given, evaluation.protocol
    accuracy_N = score(dataset, given.written, protocol).accuracy_N
    near = wordnet is not None or dataset.format in LIST_FORMATS
    return ExternalEvaluation(
        evaluation.folder, model, dataset, given,
        scored=with_bounds(model.title, given.answers, train, dataset, model.answers, protocol),
        protocol=protocol,
        limit=evaluation.limit,
        beyond=diagnose(model.title, dataset, given.written, given.confidence_N, accuracy_N, protocol, slices),
        wups=wups_report(model.title, dataset, given.written, wordnet) if near else None,
    )  # fmt: skip


def _write(evaluation: ExternalEvaluation, split: str, json_file: Path | None) -> None:
    """Results files, and where there are scores the numbers and the page."""
    folder = evaluation.folder
    for task, answers in evaluation.given.answers.items():
        write_results(folder.results(split, task), evaluation.dataset, answers)
    write_environment(folder.path / "environment.json", evaluation.model.settings.device)
    if not evaluation.scored:
        return
    summary = evaluation.summary()
    for path in filter(None, (folder.evaluation(split), json_file)):
        write_json(path, summary)
    write_report(folder.path / "report.html", _report(evaluation))


def _report(evaluation: ExternalEvaluation) -> Report:
    """The page of one model."""
    model, dataset, own = evaluation.model, evaluation.dataset, evaluation.scored[0]
    headline = [
        f"{task} {found.overall:.2f}%"
        for task, found in (("open-ended", own.open_ended), ("multiple-choice", own.multiple_choice))
        if found is not None
    ]
    settings = model.settings
    tasks = evaluation.given.answers
    part = "" if evaluation.limit is None else ", drawn by lot"
    return Report(
        title=f"{model.title} on {dataset.name}",
        summary=(
            f"{model.title}: {', '.join(headline)} (VQA accuracy, protocol {evaluation.protocol}).",
            UNKNOWN_TRAINING,
        ),
        facts=(
            ("model", f"{model.name}, {model.kind}, revision {model.revision}"),
            ("prompt", settings.prompt),
            ("protocol", f"official VQA metric, version {evaluation.protocol}"),
            ("data", f"{dataset.name}, {len(dataset):,} questions{part}"),
            ("answers", f"{len(model.answers):,} labels" if model.answers else "written, decoded greedily"),
            ("machine", f"{settings.device.type}, {settings.dtype}, batches of {settings.batch_size}"),
        ),
        tables=evaluation.tables(),
        beyond=evaluation.beyond_tables(),
        charts=() if evaluation.beyond is None else evaluation.beyond.charts(),
        confusions=tuple(confusions(dataset, next(iter(tasks.values())))),
        examples=_examples(evaluation),
        subject=f"{model.title}, {dataset.name}, {next(iter(tasks))}",
        accuracy_name=f"open-ended VQA accuracy, protocol {evaluation.protocol}",
    )


def _examples(evaluation: ExternalEvaluation) -> tuple[Example, ...]:
    """Questions drawn by lot with the model's answer and its probability."""
    dataset, given = evaluation.dataset, evaluation.given
    accuracy_N = score(dataset, given.written, evaluation.protocol).accuracy_N
    return tuple(
        Example(
            image=dataset.images.paths[dataset.image_row_N[row]],
            question=dataset.question.at(row),
            guesses=(Guess(given.written.at(row), float(given.confidence_N[row])),),
            humans=human_answers(dataset, row),
            accuracy=float(accuracy_N[row]),
            question_type="" if dataset.question_type is None else dataset.question_type.at(row),
        )
        for row in example_rows(dataset).tolist()
    )


def print_external(evaluation: ExternalEvaluation) -> None:
    """The tables, and where the files are."""
    from vqa.tables import print_table

    for table in (*evaluation.tables(), *evaluation.beyond_tables()):
        print_table(table)
    if not evaluation.scored:
        console.print(f"{evaluation.dataset.name} has no answers: results files only, no accuracy")
    given = evaluation.given
    if given.asked_now:
        rate = given.asked_now / max(given.seconds, 1e-9)
        console.print(f"{given.asked_now:,} questions in {given.seconds:.1f} s ({rate:.1f} questions/s)")
    console.print(f"results, numbers and report.html: {evaluation.folder.path}", markup=False)
