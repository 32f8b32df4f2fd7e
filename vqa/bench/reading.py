"""`vqa bench data`: reading files of the size of the VQA v2 training split, beside what others do with them."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from vqa.bench.child import ANNOTATIONS, QUESTIONS
from vqa.bench.gate import BenchReport, Figure, Ratio
from vqa.bench.memory import Cost, measure_ways
from vqa.bench.synthetic import random_lengths
from vqa.files import atomic_write

V2_QUESTIONS = 443_757
V2_IMAGES = 82_783
MOST_IMAGE_IDS = 581_929
READ_FIRST, READ_AGAIN = "vqa, first time", "vqa, from its cache"
# The child's ways by name, in this order: the last finds what the one before has kept.
READING_WAYS = {
    "json.load": "load_json",
    "json.load, then dictionaries by id": "index_json",
    READ_FIRST: "read",
    READ_AGAIN: "read",
}
# How many times less time and peak memory than the first way's a way should take; None where nothing is promised.
Bars = Mapping[str, tuple[float | None, float | None]]
READING_BARS: Bars = {READ_FIRST: (1.0, 3.0), READ_AGAIN: (10.0, 3.0)}


def bench_reading(questions: int = V2_QUESTIONS, repeat: int = 3) -> BenchReport:
    """Read files of so many questions in each of `READING_WAYS`; the median of `repeat` times counts."""
    with TemporaryDirectory(prefix="vqa-bench-") as folder:
        write_v2_sized_files(Path(folder), questions)
        costs = measure_ways(READING_WAYS, Path(folder), repeat)
    return cost_report("Reading", costs, questions, READING_BARS)


def cost_report(title: str, costs: Mapping[str, Cost], questions: int, bars: Bars) -> BenchReport:
    """Time and memory of each way; for those in `bars`, the first way's over theirs."""
    first, base = next(iter(costs.items()))
    note = (
        f"{questions:,} questions of ten answers, each way in a process of its own: median times, greatest memory. "
        f"Ratios are `{first}` over the way named."
    )
    report = BenchReport(title, note)
    for way, cost in costs.items():
        report.figures[f"{way}: time"] = Figure(cost.seconds, "s")
        report.figures[f"{way}: processor time"] = Figure(cost.cpu_seconds, "s")
        report.figures[f"{way}: peak memory"] = Figure(cost.peak_bytes / 1e6, "MB")
        if way in bars:
            time_bar, memory_bar = bars[way]
            report.ratios[f"{way}: time"] = Ratio(base.seconds / cost.seconds, time_bar)
            report.ratios[f"{way}: peak memory"] = Ratio(base.peak_bytes / cost.peak_bytes, memory_bar)
    return report


def image_numbers(count: int, *, val: bool) -> NDArray[np.int64]:
    """Numbers of different images; those of the two splits are from the two ends of one random order, half at most."""
    order = np.random.default_rng(0).permutation(MOST_IMAGE_IDS) + 1
    return (order[::-1] if val else order)[: min(count, MOST_IMAGE_IDS // 2)]


def write_v2_sized_files(
    folder: Path, questions: int = V2_QUESTIONS, seed: int = 0, *, val: bool = False, images: int = V2_IMAGES
) -> list[str]:
    """Write a questions and an annotations file shaped as those of VQA v2: ten answers a question, long tails.

    Args:
        folder: where they go.
        questions: how many.
        seed: of the text.
        val: name the files as those of the validation split, and ask about other images than the training split does.
        images: how many different ones are asked about, one after another.

    Returns:
        The ids of the images, as a feature cache names them.
    """
    random = np.random.default_rng(seed)
    image_I = image_numbers(images, val=val)
    words = [f"word{number}" for number in range(12_000)]
    length_N = random_lengths(random, questions)
    word_NT = np.minimum(random.zipf(1.3, (questions, int(length_N.max(initial=1)))), len(words)) - 1
    answer_NA = np.minimum(random.zipf(1.4, (questions, 1)), 22_000) + np.zeros((1, 10), dtype=np.int64)
    differs_NA = random.random((questions, 10)) < 0.3
    answer_NA[differs_NA] = np.minimum(random.zipf(1.2, int(differs_NA.sum())), 120_000)
    head = '{"info": {}, "data_type": "mscoco", "data_subtype": "train2014", "license": {}, '
    names = [name.replace("train2014", "val2014") if val else name for name in (QUESTIONS, ANNOTATIONS)]
    with atomic_write(folder / names[0]) as asked, atomic_write(folder / names[1]) as answered:
        asked.write(head + '"task_type": "Open-Ended", "questions": [')
        answered.write(head + '"annotations": [')
        for row in range(questions):
            image = int(image_I[row % len(image_I)])
            ids = {"image_id": image, "question_id": image * 1000 + row // len(image_I)}
            text = " ".join(words[word] for word in word_NT[row, : length_N[row]]).capitalize() + "?"
            answers = [
                {"answer": f"answer {code}", "answer_confidence": "yes", "answer_id": place}
                for place, code in enumerate(answer_NA[row].tolist(), start=1)
            ]
            annotation = {
                "question_type": f"what {row % 65}",
                "multiple_choice_answer": answers[0]["answer"],
                "answers": answers,
                "answer_type": ("yes/no", "number", "other")[row % 3],
                **ids,
            }
            comma = ", " if row else ""
            asked.write(comma + json.dumps({**ids, "question": text}))
            answered.write(comma + json.dumps(annotation))
        asked.write("]}")
        answered.write("]}")
    return [str(image) for image in image_I[:questions].tolist()]
