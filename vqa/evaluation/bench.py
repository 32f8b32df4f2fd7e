"""`vqa bench score`: scoring a results file of the size of the VQA v2 validation split; and both benches' tables.

Each way of scoring runs in a process of its own, on files made for the time of the call.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vqa.data.bench import ANNOTATIONS, QUESTIONS, Reading, bench_reading, medians, run_alone, write_v2_sized_files
from vqa.data.dataset import Strings
from vqa.data.formats.official import read_official
from vqa.evaluation.results import write_results
from vqa.evaluation.tables import Column, Row, Table
from vqa.evaluation.terminal import print_table
from vqa.files import write_json
from vqa.progress import progress_bar

V2_VAL_QUESTIONS = 214_354
RESULTS = "results.json"
BASE = "json.load of the annotations"
_LOAD = f"""
from vqa.data.formats.official import read_official
from vqa.evaluation.accuracy import score
from vqa.evaluation.results import read_results
from vqa.evaluation.score_files import score_files
results = folder / {RESULTS!r}
"""
_LOADED = _LOAD + "d = read_official(questions, annotations); p = read_results(results, d)"
# What runs before the clock starts, and what is measured; in this order, so that the third finds the second's cache.
WAYS = {
    BASE: ("", "a = json.load(open(annotations))"),
    "vqa score, files read the first time": (_LOAD, "s = score_files(results, questions, annotations)"),
    "vqa score, files read before": (_LOAD, "s = score_files(results, questions, annotations)"),
    "vqa score, from loaded arrays": (_LOADED, "s = score(d, p)"),
}


def bench_scoring(questions: int = V2_VAL_QUESTIONS, repeat: int = 3) -> list[Reading]:
    """Score made-up answers in each of `WAYS`.

    Args:
        questions: how many.
        repeat: how often each way is measured; each first time has an empty cache.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_v2_sized_files(folder, questions)
        dataset = read_official(folder / QUESTIONS, folder / ANNOTATIONS)
        answered = np.random.default_rng(0).zipf(1.4, questions).clip(max=3000)
        predictions = Strings.of([f"answer {code}" for code in answered.tolist()])
        write_results(folder / RESULTS, dataset, predictions)
        measured: dict[str, list[tuple[float, float, int]]] = {way: [] for way in WAYS}
        with progress_bar() as bar:
            task = bar.add_task("scoring", total=repeat * len(WAYS), note="")
            for turn in range(repeat):
                for way, (setup, code) in WAYS.items():
                    bar.update(task, note=way)
                    measured[way].append(run_alone(setup, code, folder, folder / f"cache-{turn}"))
                    bar.advance(task)
    return medians(measured)


def bench_table(readings: Sequence[Reading], title: str, questions: int) -> Table:
    """Seconds and memory of each way beside the first's."""
    first = readings[0]
    rows = tuple(
        Row(
            one.way,
            (
                one.seconds,
                one.seconds / first.seconds,
                one.cpu_seconds,
                one.peak_bytes / 1e6,
                one.peak_bytes / first.peak_bytes,
            ),
        )
        for one in readings
    )
    columns = (
        Column("seconds"),
        Column("of the first row", "time", decimals=3),
        Column("processor seconds"),
        Column("peak MB", decimals=0),
        Column("of the first row", "memory"),
    )
    caption = f"{questions:,} questions of ten answers, each way in a process of its own (median, greatest memory)."
    return Table(title, caption, columns, rows, row_heading="Way", best="none")


def print_reading_bench(questions: int, repeat: int, *, json_file: Path | None = None) -> None:
    """`vqa bench data`: measure, print the table, write the numbers."""
    _show(bench_reading(questions=questions, repeat=repeat), "Reading", questions, json_file)


def print_scoring_bench(questions: int, repeat: int, *, json_file: Path | None = None) -> None:
    """`vqa bench score`: measure, print the table, write the numbers."""
    _show(bench_scoring(questions, repeat), "Scoring", questions, json_file)


def _show(readings: list[Reading], title: str, questions: int, json_file: Path | None) -> None:
    print_table(bench_table(readings, title, questions))
    if json_file is not None:
        write_json(json_file, {"questions": questions, "ways": [one.as_json() for one in readings]})
