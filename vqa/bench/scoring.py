"""`vqa bench score`: scoring a results file of the size of the VQA v2 validation split; and, of
`vqa bench data` too, the report.

Each way of scoring runs in a process of its own, on files made for the time of the call.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vqa.bench.gate import BenchReport, Figure, Ratio, conclude
from vqa.bench.reading import (
    ANNOTATIONS,
    QUESTIONS,
    READ_AGAIN,
    READ_FIRST,
    ReadMeasurement,
    bench_reading,
    medians,
    run_alone,
    write_v2_sized_files,
)
from vqa.data.dataset import Strings
from vqa.data.formats.official import read_official
from vqa.evaluation.results import write_results
from vqa.progress import progress_bar

V2_VAL_QUESTIONS = 214_354
RESULTS = "results.json"
BASE = "json.load of the annotations"
FIRST = "vqa score, files read the first time"
AGAIN = "vqa score, files read before"
LOADED = "vqa score, from loaded arrays"
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
    FIRST: (_LOAD, "s = score_files(results, questions, annotations)"),
    AGAIN: (_LOAD, "s = score_files(results, questions, annotations)"),
    LOADED: (_LOADED, "s = score(d, p)"),
}
# How many times less time and peak memory than the first way's a way should take; None where nothing is promised.
Bars = Mapping[str, tuple[float | None, float | None]]
READING_BARS: Bars = {READ_FIRST: (1.0, 3.0), READ_AGAIN: (10.0, 3.0)}
SCORING_BARS: Bars = {FIRST: (1.0, None), AGAIN: (1.0, None), LOADED: (None, None)}


def bench_scoring(questions: int = V2_VAL_QUESTIONS, repeat: int = 3) -> list[ReadMeasurement]:
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


def reading_report(readings: Sequence[ReadMeasurement], title: str, questions: int, bars: Bars) -> BenchReport:
    """Time and memory of each way; for those in `bars`, the first way's over theirs."""
    note = (
        f"{questions:,} questions of ten answers, each way in a process of its own: median times, greatest memory. "
        f"Ratios are `{readings[0].way}` over the way named."
    )
    report = BenchReport(title, note)
    for one in readings:
        report.figures[f"{one.way}: time"] = Figure(one.seconds, "s")
        report.figures[f"{one.way}: processor time"] = Figure(one.cpu_seconds, "s")
        report.figures[f"{one.way}: peak memory"] = Figure(one.peak_bytes / 1e6, "MB")
        if one.way in bars:
            time_bar, memory_bar = bars[one.way]
            report.ratios[f"{one.way}: time"] = Ratio(readings[0].seconds / one.seconds, time_bar)
            report.ratios[f"{one.way}: peak memory"] = Ratio(readings[0].peak_bytes / one.peak_bytes, memory_bar)
    return report


def print_reading_bench(
    questions: int, repeat: int, *, json_file: Path | None = None, against: Path | None = None
) -> None:
    """`vqa bench data`: measure, print, keep and compare."""
    readings = bench_reading(questions=questions, repeat=repeat)
    conclude(reading_report(readings, "Reading", questions, READING_BARS), json_file=json_file, against=against)


def print_scoring_bench(
    questions: int, repeat: int, *, json_file: Path | None = None, against: Path | None = None
) -> None:
    """`vqa bench score`: measure, print, keep and compare."""
    readings = bench_scoring(questions, repeat)
    conclude(reading_report(readings, "Scoring", questions, SCORING_BARS), json_file=json_file, against=against)
