"""The reading benchmark: its files are read by the reader, its ratios hold, and the promise on memory is kept."""

from pathlib import Path

import pytest

from vqa.bench.gate import Ratio
from vqa.bench.memory import Cost
from vqa.bench.reading import (
    READ_AGAIN,
    READING_BARS,
    bench_reading,
    cost_report,
    image_numbers,
    write_v2_sized_files,
)
from vqa.data.formats import read_dataset


def test_files_have_the_shape_of_the_published_ones(tmp_path: Path) -> None:
    write_v2_sized_files(tmp_path, questions=300)
    dataset = read_dataset("vqa_v2", tmp_path, "train")
    assert len(dataset) == 300 and dataset.answers is not None and dataset.answers.codes.shape == (300, 10)
    assert dataset.answer_type is not None and set(dataset.answer_type.distinct) == {"yes/no", "number", "other"}


def test_the_splits_ask_about_different_images() -> None:
    train, val = (set(image_numbers(count, val=val).tolist()) for count, val in ((82_783, False), (40_504, True)))
    assert len(train) == 82_783 and len(val) == 40_504 and not train & val
    train, val = (set(image_numbers(10**7, val=val).tolist()) for val in (False, True))
    assert len(train) == len(val) == 290_964 and not train & val


def test_ratios_are_of_the_first_way_over_ours() -> None:
    costs = {"json.load": Cost(2.0, 1.5, 400_000_000), READ_AGAIN: Cost(0.5, 0.4, 100_000_000)}
    report = cost_report("Reading", costs, 1000, READING_BARS)
    assert report.ratios == {f"{READ_AGAIN}: time": Ratio(4.0, 10.0), f"{READ_AGAIN}: peak memory": Ratio(4.0, 3.0)}
    assert report.figures[f"{READ_AGAIN}: peak memory"].value == 100 and "`json.load` over" in report.note


@pytest.mark.slow
def test_reading_takes_less_than_a_third_of_the_memory_of_json_load() -> None:
    ratios = bench_reading(repeat=1).ratios
    assert all(ratio.value > 3 for name, ratio in ratios.items() if name.endswith("peak memory"))
