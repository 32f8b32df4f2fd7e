"""The reading benchmark: its files are read by the reader, its rows hold, and the promise on speed is kept."""

from pathlib import Path

import pytest

from vqa.data.bench import WAYS, bench_reading, write_v2_sized_files
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
    assert all(row.cpu_seconds >= 0 and 0 < row.seconds < 60 and row.peak_bytes > 10_000_000 for row in rows)
    with pytest.raises(InputError, match="no such file"):
        bench_reading(tmp_path / "nowhere")


@pytest.mark.slow
def test_the_first_reading_beats_json_load_and_the_second_takes_a_tenth() -> None:
    plain, _, first, second = bench_reading(repeat=1)
    assert first.cpu_seconds < plain.cpu_seconds
    assert second.cpu_seconds < plain.cpu_seconds / 9  # a tenth on an idle machine
    assert max(first.peak_bytes, second.peak_bytes) < plain.peak_bytes / 3
