"""The reading benchmark: its files are read by the reader, its rows hold, and the promise on memory is kept."""

from pathlib import Path

import numpy as np
import pytest

from vqa.bench.gate import Ratio
from vqa.bench.reading import READ_AGAIN, WAYS, ReadMeasurement, bench_reading, run_alone, write_v2_sized_files
from vqa.bench.scoring import READING_BARS, reading_report
from vqa.data.formats import read_dataset
from vqa.errors import InputError


def test_files_have_the_shape_of_the_published_ones(tmp_path: Path) -> None:
    write_v2_sized_files(tmp_path, questions=300)
    dataset = read_dataset("vqa_v2", tmp_path, "train")
    assert len(dataset) == 300 and dataset.answers is not None and dataset.answers.codes.shape == (300, 10)
    assert dataset.answer_type is not None and set(dataset.answer_type.distinct) == {"yes/no", "number", "other"}


def test_each_way_is_measured_in_its_own_process(tmp_path: Path) -> None:
    write_v2_sized_files(tmp_path, questions=300)
    rows = bench_reading(tmp_path, repeat=1)
    assert [row.way for row in rows] == list(WAYS)
    assert all(row.cpu_seconds >= 0 and row.seconds > 0 and row.peak_bytes > 10_000_000 for row in rows)
    with pytest.raises(InputError, match="no such file"):
        bench_reading(tmp_path / "nowhere")


def test_memory_of_the_process_that_starts_it_is_not_counted(tmp_path: Path) -> None:
    mine = np.ones(400_000_000, dtype=np.uint8)
    _, _, peak = run_alone("", "pass", tmp_path, tmp_path)
    assert peak < 100_000_000 < len(mine)


def test_ratios_are_of_the_first_way_over_ours() -> None:
    rows = [ReadMeasurement("json.load", 2.0, 1.5, 400_000_000), ReadMeasurement(READ_AGAIN, 0.5, 0.4, 100_000_000)]
    report = reading_report(rows, "Reading", 1000, READING_BARS)
    assert report.ratios == {f"{READ_AGAIN}: time": Ratio(4.0, 10.0), f"{READ_AGAIN}: peak memory": Ratio(4.0, 3.0)}
    assert report.figures[f"{READ_AGAIN}: peak memory"].value == 100 and "`json.load` over" in report.note


@pytest.mark.slow
def test_reading_takes_less_than_a_third_of_the_memory_of_json_load() -> None:
    plain, _, first, second = bench_reading(repeat=1)
    assert max(first.peak_bytes, second.peak_bytes) < plain.peak_bytes / 3
