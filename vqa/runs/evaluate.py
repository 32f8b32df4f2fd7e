"""`vqa evaluate`: a trained run over a split, as official results files, numbers, tables and the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vqa.evaluation.accuracy import Protocol
from vqa.evaluation.contamination import SEEN_NAME
from vqa.evaluation.report.beyond import parse_slices
from vqa.evaluation.report.page import write_report
from vqa.evaluation.results import write_results
from vqa.evaluation.wups import open_wordnet
from vqa.files import sha256_file, write_json
from vqa.progress import console
from vqa.runs.load import load_run
from vqa.runs.predictions import Evaluation, evaluate_loaded
from vqa.runs.report import run_report
from vqa.runtime.distributed import joined


def evaluate_run(
    path: Path,
    split: str = "val",
    *,
    task: Literal["open-ended", "multiple-choice", "both"] = "both",
    protocol: Protocol = "2021",
    caches: Sequence[Path] = (),
    allow_seen: bool = False,
    allow_code: bool = False,
    choices_outside: bool = True,
    slices: Sequence[str] = (),
    wordnet: Path | None = None,
    report: bool = True,
    json_file: Path | None = None,
) -> Evaluation:
    """Evaluate a run folder on a split; writes results files, `evaluation_<split>.json` and `report.html` into it.

    A split without answers gets its results files only. Under torchrun every process answers some of the questions, and
    the first one scores and writes; the others return an evaluation without scores.

    Args:
        split: "train", "val", "test" of the experiment, or another official split name.
        task: which task; "both" takes multiple choice where the split has choices.
        caches: feature caches instead of the experiment's, for a split that was extracted to another file.
        allow_seen: evaluate on questions and images that the run was trained on, and stamp every number with it.
        allow_code: see `load_run`.
        choices_outside: in multiple choice, score choices outside the answer vocabulary too; both numbers are reported.
        slices: "name=REGEX" each, kinds of questions to report on their own.
        wordnet: the folder of a WordNet corpus, for WUPS on data sets with one answer a question.
        report: also write `report.html` (only where there are answers).
        json_file: another place for the numbers.

    Raises:
        InputError: naming the file and item; among others when the split has no choices and multiple choice is asked,
            and when the run was trained on any of it.
    """
    patterns, corpus = parse_slices(slices), None if wordnet is None else open_wordnet(wordnet)
    with joined() as group:
        run = group.agree(lambda: load_run(path, allow_code=allow_code))
        evaluation = evaluate_loaded(
            run, split, task=task, protocol=protocol, caches=caches, allow_seen=allow_seen,
            choices_outside=choices_outside, slices=patterns, wordnet=corpus,
        )  # fmt: skip
        if group.is_first:
            _write(evaluation, split, task, report, json_file)
        group.wait()  # until everything is written
    return evaluation


def _write(evaluation: Evaluation, split: str, task: str, report: bool, json_file: Path | None) -> None:
    """The files of `evaluate_run`."""
    folder = evaluation.run.folder
    for name, answers in evaluation.answers.items():
        results = folder.results(split, name)
        if evaluation.overlap.contaminated:
            results = results.with_stem(f"{results.stem}_{SEEN_NAME}")
        write_results(results, evaluation.dataset, answers)
    if not evaluation.scored:
        return
    summary = evaluation.summary() | {"task": task, "weights_sha256": sha256_file(folder.model)}
    for target in [folder.evaluation(split), *([json_file] if json_file else [])]:
        write_json(target, summary)
    if report:
        write_report(folder.path / "report.html", run_report(evaluation))


def print_evaluation(evaluation: Evaluation) -> None:
    """The tables, and where the files are."""
    from vqa.tables import print_table

    if evaluation.overlap.contaminated:
        console.print(f"{evaluation.dataset.name}: {evaluation.overlap.stamp}; no test of this run", style="bold red")
    for table in (*evaluation.tables(), *evaluation.beyond_tables()):
        print_table(table)
    if not evaluation.scored:
        console.print(f"{evaluation.dataset.no_answers}: results files only, no accuracy, report or JSON", markup=False)
    made = "results, numbers and report.html" if evaluation.scored else "results"
    console.print(f"{made}: {evaluation.run.folder.path}", markup=False)
