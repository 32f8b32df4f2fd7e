"""Any results file against any question and annotation file: what `vqa score` calls."""

from pathlib import Path

from vqa.data.formats.official import read_official
from vqa.evaluation.accuracy import Protocol, Score, score
from vqa.evaluation.results import Task, read_results
from vqa.evaluation.scores import ModelScores, accuracy_table, question_type_table
from vqa.files import write_json
from vqa.tables import print_table


def score_files(
    results: Path, questions: Path, annotations: Path, protocol: Protocol = "2021", *, json_file: Path | None = None
) -> Score:
    """Score a results file by the official metric.

    A multiple-choice question file makes the answers obey the choices, as the official loader does.

    Args:
        json_file: where to write the official program's own structure, with "protocol" added.

    Raises:
        InputError: naming the file and the item.
    """
    return read_scored(results, questions, annotations, protocol, json_file=json_file)[0]


def read_scored(
    results: Path, questions: Path, annotations: Path, protocol: Protocol, *, json_file: Path | None = None
) -> tuple[Score, Task, str]:
    """As `score_files`, with the task that the questions are of and the name of the split."""
    dataset = read_official(questions, annotations, as_annotated=True)
    task: Task = "open-ended" if dataset.choices is None else "multiple-choice"
    found = score(dataset, read_results(results, dataset, task), protocol)
    if json_file is not None:
        write_json(json_file, found.official())
    return found, task, dataset.split


def print_score(
    results: Path, questions: Path, annotations: Path, protocol: Protocol, *, json_file: Path | None = None
) -> None:
    """Score a results file as `score_files` does, and print the accuracy table and the one by question type."""
    found, task, data = read_scored(results, questions, annotations, protocol, json_file=json_file)
    rows = [ModelScores(results.name, open_ended=found)]
    if task == "multiple-choice":
        rows = [ModelScores(results.name, multiple_choice=found)]
    print_table(accuracy_table(rows, data=data))
    if found.per_question_type:
        print_table(question_type_table(rows, task, data=data))
