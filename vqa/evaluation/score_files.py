"""Results files of anyone, scored: `vqa score` and `vqa score-wups`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset, Strings
from vqa.data.formats import official_split, read_dataset
from vqa.data.formats.find import MissingSplitError
from vqa.data.formats.table import PLAIN, TableOptions
from vqa.errors import InputError, unknown_name
from vqa.evaluation.accuracy import Protocol, Score, is_exact_match, metric_name, score
from vqa.evaluation.layouts.fields import ANSWERABLE
from vqa.evaluation.layouts.match import Matched, match
from vqa.evaluation.layouts.read import ResultsFile, read_file
from vqa.evaluation.layouts.truth import read_truth
from vqa.evaluation.layouts.write import WriteTo, write_layout
from vqa.evaluation.metrics import METRICS, Metric, default_metric, find_metric, measure
from vqa.evaluation.metrics.bounds import bounds
from vqa.evaluation.metrics.remarks import remark
from vqa.evaluation.metrics.suites import SUITES, Suite, SuiteFiles
from vqa.evaluation.results import Task, check_choices, read_results
from vqa.evaluation.scoreboard import Scoreboard
from vqa.evaluation.wups import WordNet, WupsReport, open_wordnet, wups_report
from vqa.files import write_json
from vqa.progress import console
from vqa.tables import print_table


@dataclass(frozen=True)
class Against:
    """What results are scored against: a data set's split, or files.

    Attributes:
        data, format, split: the data set, as `read_dataset` takes them.
        questions, annotations: official files; or one file that holds both, as `questions` alone.
        train_questions, train_annotations: those of the training split; of a data set, its split "train" where that is
            there.
        reading: how the data set is read, where it is a table.
    """

    data: Path | None = None
    format: str | None = None
    split: str | None = None
    questions: Path | None = None
    annotations: Path | None = None
    train_questions: Path | None = None
    train_annotations: Path | None = None
    reading: TableOptions = PLAIN

    def check(self) -> None:
        """Raise InputError where the command line says half of something, or two things."""
        if self.train_annotations is not None and self.train_questions is None:
            raise InputError("--train-annotations needs the question file, too: --train-questions FILE")
        if (self.data is None) != (self.format is None) or (self.data is not None and self.questions is not None):
            raise InputError(
                "say what results answer by --data and --format, both of them, or by --questions and --annotations"
            )
        if self.annotations is not None and self.questions is None:
            raise InputError("--annotations needs the question file, too: --questions FILE")

    def read(self, *, hidden: bool = False) -> QADataset:
        """The questions and answers, or questions whose answers are hidden; raises InputError naming what is wrong."""
        if self.data is not None and self.format is not None:
            return read_dataset(self.format, self.data, self.split or "val", self.reading)
        if self.questions is None:
            raise InputError(
                "say what the results answer: --data FOLDER --format NAME --split SPLIT, or --questions FILE "
                "--annotations FILE, or --questions FILE alone where it holds the answers, too"
            )
        return read_truth(self.questions, self.annotations, self.split, hidden=hidden)

    def read_train(self, dataset: QADataset) -> QADataset | None:
        """What floors are learned from, or None where it is not there."""
        if self.train_questions is not None:
            return read_truth(self.train_questions, self.train_annotations)
        if self.data is None or self.format is None:
            return None
        try:
            if official_split(self.format, "train") == dataset.split:
                return None
            train = read_dataset(self.format, self.data, "train", self.reading)
        except MissingSplitError:
            return None
        return None if train.majority is None else train


@dataclass(frozen=True)
class ScoreOptions:
    """How results are scored.

    Attributes:
        metrics: names in `METRICS` and `SUITES`; empty for the data set's own.
        part: score what is answered, by all files, though that is not every question.
        task: multiple choice allows only the choices; None takes it where the question file is a multiple-choice one.
        wordnet: for WUPS.
        choices: GQA's choices file, for its suite.
    """

    metrics: tuple[str, ...] = ()
    part: bool = False
    task: Task | None = None
    wordnet: WordNet | None = None
    choices: Path | None = None


def score_results(results: Sequence[Path], against: Against, options: ScoreOptions) -> Scoreboard:
    """Score results files in any layout by one or more metrics, beside floors, ceilings and each other.

    Raises:
        InputError: naming the file, the item and the right choices.
    """
    wrong = next((name for name in options.metrics if name not in METRICS and name not in SUITES), None)
    if wrong is not None:
        raise InputError(unknown_name("metric", wrong, [*METRICS, *SUITES]))
    whole = against.read()
    files = [read_file(path) for path in results]
    matched = [match(found, whole, part=options.part) for found in files]
    answered_N = np.logical_and.reduce([one.answered_N for one in matched])
    if not answered_N.any():
        raise InputError(f"{', '.join(map(str, results))}: no question is answered by all of these files")
    rows = np.flatnonzero(answered_N)
    dataset = whole if len(rows) == len(whole) else whole.take(rows)
    task = options.task or ("open-ended" if against.data or whole.choices is None else "multiple-choice")
    named = _names(results)
    answers = {name: one.predictions.take(rows) for name, one in zip(named, matched, strict=True)}
    answerable = {name: one.answerable_N for name, one in zip(named, matched, strict=True)}
    for path, given in zip(results, answers.values(), strict=True):
        if task == "multiple-choice":
            check_choices(path, dataset, given)
    names = [name for name in options.metrics if name in METRICS] or [default_metric(dataset)]
    if options.wordnet is not None and not options.metrics:
        names += ["wups", "wups-0.0"]  # what else would WordNet be given for
    metrics = [_named(find_metric(name, options.wordnet), dataset) for name in dict.fromkeys(names)]
    values = {
        name: {metric.name: measure(metric, dataset, given) for metric in metrics} for name, given in answers.items()
    }
    lead = metrics[0]
    remarks = [
        sentence for name, given in answers.items()
        for sentence in remark(name, lead, dataset, given, values[name][lead.name])
    ]  # fmt: skip
    return Scoreboard(
        dataset,
        tuple(metrics),
        values,
        tuple(bounds(metrics, dataset, against.read_train(whole), task)),
        task,
        share=len(dataset) / len(whole),
        remarks=(*_read_as(files, matched), *remarks),
        suites=_suites(options, dataset, answers, answerable, rows),
    )


def _named(metric: Metric, dataset: QADataset) -> Metric:
    """VQA accuracy under the name that it has where every question has one answer: exact match."""
    if metric.protocol is None or not is_exact_match(dataset):
        return metric
    return replace(metric, title=metric_name(dataset, metric.protocol))


def _suites(
    options: ScoreOptions,
    dataset: QADataset,
    answers: Mapping[str, Strings],
    answerable: Mapping[str, NDArray[np.float64] | None],
    rows: NDArray[np.intp],
) -> dict[str, tuple[Suite, ...]]:
    """Each file's suites; `rows` are those of the split that were scored."""
    chosen = [SUITES[name] for name in dict.fromkeys(options.metrics) if name in SUITES]
    found = {}
    for name, given in answers.items():
        score_N = answerable[name]
        files = SuiteFiles(options.choices, None if score_N is None else score_N[rows])
        found[name] = tuple(suite(dataset, given, files) for suite in chosen)
    return found


def _names(results: Sequence[Path]) -> list[str]:
    """What the files are called in tables: their names, or as much of their paths as tells them apart."""
    names = [path.name for path in results]
    if len(set(names)) == len(names):
        return names
    whole = [str(path) for path in results]
    if len(set(whole)) < len(whole):
        raise InputError(f"{max(whole, key=whole.count)} is given twice")
    return whole


def _read_as(files: Sequence[ResultsFile], matched: Sequence[Matched]) -> list[str]:
    """What is said of how a file was read, where that is not the official layout."""
    said = []
    for found, one in zip(files, matched, strict=True):
        if found.answer_field in ANSWERABLE:
            said.append(f"{found.path.name} has no answers, only {found.answer_field!r}: each counts as empty.")
        plain = found.answer_field in ("answer", "prediction", *ANSWERABLE)
        how = [] if plain else [f"{found.answer_field!r} as the answer"]
        how += [] if one.by in ("question_id", "questionid", "id", "qid", "image") else [one.by]
        if how:
            said.append(f"{found.path.name} was read with {' and '.join(how)}.")
        if one.letters:
            said.append(f"{found.path.name} answers by letters: they were read as choices, A as a question's first.")
        if one.unknown:
            said.append(f"{found.path.name}: {one.unknown:,} answers to other questions were left out.")
    return said


def score_files(results: Path, questions: Path, annotations: Path, protocol: Protocol = "2021") -> Score:
    """The official score of one results file, in any layout, against official files.

    Raises:
        InputError: naming the file and the item.
    """
    dataset = read_truth(questions, annotations)
    predictions = match(read_file(results), dataset).predictions
    if dataset.choices is not None:
        check_choices(results, dataset, predictions)
    return score(dataset, predictions, protocol)


def print_score(board: Scoreboard, json_file: Path | None = None) -> None:
    """Print the tables and what is to be said of them, and write the numbers."""
    if json_file is not None:
        write_json(json_file, board.as_json())
    if board.stamp:
        console.print(f"{board.dataset.name}: {board.stamp}", style="bold red")
    for table in board.tables():
        print_table(table)
    for sentence in board.sentences():
        console.print(sentence, style="bold", highlight=False)


def rewrite(results: Path, against: Against, to: Sequence[WriteTo], *, part: bool = False) -> bool:
    """Write a results file anew in other layouts; returns whether it can be scored, too.

    Raises:
        InputError: naming the file and the item; or the layout cannot hold it.
    """
    dataset = against.read(hidden=True)
    predictions = match(read_file(results), dataset, part=part).predictions
    for one in to:
        write_layout(one, dataset, predictions)
        console.print(f"{one.layout}: {one.path}", highlight=False)
    if dataset.answers is None:
        console.print(f"{dataset.no_answers}: written, not scored", highlight=False)
    return dataset.answers is not None


def score_wups(
    results: Path, root: Path, format: str, split: str, wordnet: Path | None, *, json_file: Path | None = None
) -> WupsReport:
    """WUPS of an official-format results file for any data set with one answer a question.

    Args:
        results: `[{"question_id": 1, "answer": "knife, fork"}, …]`, with the ids of vqa's reader.
        root, format, split: the data set, as `read_dataset` takes them.
        wordnet: the folder of nltk's WordNet corpus; None measures list accuracy only.
        json_file: where to write the numbers too.

    Raises:
        InputError: naming the file and the item.
    """
    corpus = None if wordnet is None else open_wordnet(wordnet)
    dataset = read_dataset(format, root, split)
    found = wups_report(results.name, dataset, read_results(results, dataset), corpus)
    if json_file is not None:
        write_json(json_file, found.as_json())
    return found
