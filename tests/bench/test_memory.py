"""Time and memory of work in a process of its own: the process that starts it has no part in them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vqa.bench.child import COMMAND, WAYS
from vqa.bench.memory import measure_alone, measure_ways, peak_of_training
from vqa.bench.reading import READING_WAYS, write_v2_sized_files
from vqa.bench.scoring import SCORING_WAYS
from vqa.bench.synthetic import Shape, make_features
from vqa.errors import InputError
from vqa.files import write_json


def test_each_way_is_measured_in_its_own_process(tmp_path: Path) -> None:
    write_v2_sized_files(tmp_path, questions=300)
    costs = measure_ways(READING_WAYS, tmp_path, repeat=1)
    assert list(costs) == list(READING_WAYS)
    assert all(cost.cpu_seconds >= 0 and cost.seconds > 0 and cost.peak_bytes > 10_000_000 for cost in costs.values())
    with pytest.raises(InputError, match=r"nowhere: .*vqa\.bench\.child load_json. failed: .*No such file"):
        measure_ways(READING_WAYS, tmp_path / "nowhere", repeat=1)


def test_memory_of_the_process_that_starts_it_is_not_counted(tmp_path: Path) -> None:
    write_v2_sized_files(tmp_path, questions=3)
    mine = np.ones(400_000_000, dtype=np.uint8)
    assert measure_alone("load_json", tmp_path).peak_bytes < 100_000_000 < len(mine)


def test_a_command_of_the_console_is_measured_and_its_failure_is_said(tmp_path: Path) -> None:
    write_json(tmp_path / COMMAND, ["recipes", "--help"])
    assert measure_alone("command", tmp_path).peak_bytes > 10_000_000
    write_json(tmp_path / COMMAND, ["recipes", "copy", "none"])
    with pytest.raises(InputError, match=r"child command. failed: .*none"):
        measure_alone("command", tmp_path)


def test_what_is_asked_for_wrongly_is_answered_with_the_ways() -> None:
    assert {*READING_WAYS.values(), *SCORING_WAYS.values(), "train", "command"} == set(WAYS)
    for arguments in ([], ["load_json"], ["fly", "."]):
        done = subprocess.run([sys.executable, "-m", "vqa.bench.child", *arguments], capture_output=True, text=True)
        assert done.returncode == 1 and "WAY is one of load_json, index_json" in done.stderr


@pytest.mark.slow
def test_the_peak_of_training_is_that_of_its_own_process(tmp_path: Path) -> None:
    mine = np.ones(3 << 30, dtype=np.uint8)
    make_features(tmp_path / "c.h5", Shape("grid", 4, 8), 70)
    cost = peak_of_training(tmp_path / "c.h5", "cpu", 300, 8)
    assert 200 << 20 < cost.peak_bytes < len(mine) and cost.device_peak_bytes is None
    with pytest.raises(InputError, match=r"child train. failed: .*none\.h5"):
        peak_of_training(tmp_path / "none.h5", "cpu", 300, 8)
