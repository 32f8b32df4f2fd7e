"""Results files of anyone, judged: `vqa score` and `vqa score-wups`."""

from pathlib import Path

from vqa.data.formats import read_dataset
from vqa.data.formats.official import read_official
from vqa.evaluation.accuracy import Protocol, Score
from vqa.evaluation.judge import Judgement, JudgeOptions, SplitAnswers
from vqa.evaluation.results import Task, read_results
from vqa.evaluation.scores import floor_above, with_bounds
from vqa.evaluation.wups import WupsReport, open_wordnet, wups_report
from vqa.files import write_json
from vqa.progress import console
from vqa.tables import print_table


def judge_files(
    results: Path,
    questions: Path,
    annotations: Path,
    protocol: Protocol = "2021",
    *,
    train: tuple[Path, Path] | None = None,
    json_file: Path | None = None,
) -> Judgement:
    """Judge a results file by the official metric, beside the floors and ceilings that the files at hand give.

    A multiple-choice question file makes the answers obey the choices; the official loader does so only where the
    file's `task_type` is "Multiple Choice".

    Args:
        train: question and annotation file of the training split, which most floors are learned from.
        json_file: where to write the official program's own structure, with "protocol" and "floors" added.

    Raises:
        InputError: naming the file and the item.
    """
    dataset = read_official(questions, annotations, as_annotated=True)
    task: Task = "open-ended" if dataset.choices is None else "multiple-choice"
    answers = SplitAnswers(results.name, dataset, {task: read_results(results, dataset, task)})
    learned = None if train is None else read_official(*train, as_annotated=True)
    scored = with_bounds(results.name, answers.by_task, learned, dataset, None, protocol)
    if json_file is not None:
        found = scored[0].of(task)
        assert found is not None
        floors = {row.name: of.overall for row in scored if row.kind == "floor" and (of := row.of(task)) is not None}
        write_json(json_file, {**found.official(), "floors": floors, "below_floor": floor_above(scored, task)})
    return Judgement(answers, JudgeOptions(task, protocol), scored)


def score_files(results: Path, questions: Path, annotations: Path, protocol: Protocol = "2021") -> Score:
    """The score that `judge_files` finds."""
    own = judge_files(results, questions, annotations, protocol).own
    found = own.open_ended or own.multiple_choice
    assert found is not None
    return found


def print_score(
    results: Path,
    questions: Path,
    annotations: Path,
    protocol: Protocol,
    *,
    train: tuple[Path, Path] | None = None,
    json_file: Path | None = None,
) -> None:
    """Judge a results file, and print the accuracy table and the one by question type."""
    judged = judge_files(results, questions, annotations, protocol, train=train, json_file=json_file)
    for table in judged.tables(data=judged.dataset.split):
        print_table(table)
    for sentence in judged.below_floors():
        console.print(sentence, style="bold")


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
