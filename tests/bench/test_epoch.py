"""`vqa bench epoch`: its files train by the ordinary commands, and its figures follow from what was measured."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vqa.bench.epoch import (
    EpochOptions,
    EpochTimes,
    Model,
    epoch_report,
    epoch_times,
    questions_to_learn,
    usual_rate,
    write_inputs,
)
from vqa.bench.memory import Cost
from vqa.data.formats import read_dataset
from vqa.experiment import read_experiment
from vqa.files import read_json
from vqa.training.run_folder import RunFolder, read_metrics
from vqa.training.train import train

CPU = torch.device("cpu")
TINY = EpochOptions(questions=120, val_questions=40, regions=2, channels=6, batch_size=32, workers=0, seconds=0.01)


@pytest.mark.parametrize("model", ["product", pytest.param("san", marks=pytest.mark.slow)])
def test_what_is_written_trains_as_real_files_do(tmp_path: Path, model: Model) -> None:
    options = replace(TINY, model=model, regions=1 if model == "product" else 2, epochs=2)
    cache = write_inputs(tmp_path, options)
    splits = {name: read_dataset("vqa_v2", tmp_path / "data", name) for name in ("train", "val")}
    assert [len(one) for one in splits.values()] == [120, 40]
    images = [set(one.images.ids) for one in splits.values()]
    assert not images[0] & images[1] and images[0] | images[1] == set(cache.image_ids)
    assert len(images[0]) == round(120 * 82_783 / 443_757)
    lengths = [len(text.split()) for text in splits["train"].question.distinct]
    assert np.mean(lengths) == pytest.approx(6.1, abs=0.6)
    experiment = read_experiment(tmp_path / "experiment.yaml")
    train(experiment)
    questions = questions_to_learn(experiment, cache)
    rows = read_metrics(RunFolder(experiment.folder).metrics)
    times = epoch_times(rows, len(questions))
    assert len(rows) == 2 and times.rate > 0 and times.validation >= 0
    rate = usual_rate(options, cache.path, questions, CPU)
    assert rate > 0
    report = epoch_report(options, len(questions), cache, Cost(9.0, 9.0, 2 * 10**9), times, rate, CPU)
    assert report.ratios["training / usual way"].value == pytest.approx(times.rate / rate)
    assert report.figures["peak memory"].value == 2 and "peak GPU memory" not in report.figures


def test_the_last_epoch_counts() -> None:
    rows = [
        {"seconds": 100.0, "questions_per_second": 10.0},
        {"seconds": 160.0, "questions_per_second": 20.0},
    ]
    assert epoch_times(rows, 1000) == EpochTimes(20.0, 10.0, 160.0)  # 60 s, of which 1000 / 20 were training
    assert epoch_times(rows[:1], 900) == EpochTimes(10.0, 10.0, 100.0)


def test_memory_of_a_gpu_is_reported_where_there_was_one(tmp_path: Path) -> None:
    cache = write_inputs(tmp_path, TINY)
    cost = Cost(170.0, 9.0, 2 * 10**9, 3 * 10**9)
    report = epoch_report(TINY, 100, cache, cost, EpochTimes(50.0, 10.0, 160.0), 25.0, torch.device("cuda"))
    found = {name: one.value for name, one in report.figures.items()}
    assert found["peak GPU memory"] == 3 and found["epoch of training"] == 2 and found["whole command"] == 170
    assert found["epoch of training, usual way"] == 4 and found["reading, encoding and saving"] == 10


@pytest.mark.slow
def test_the_command_measures_a_process_of_its_own(tmp_path: Path) -> None:
    sizes = [
        "--questions",
        "200",
        "--val-questions",
        "60",
        "--channels",
        "8",
        "--batch-size",
        "32",
        "--seconds",
        "0.1",
        "--device",
        "cpu",
    ]
    command = [sys.executable, "-m", "vqa", "bench", "epoch", *sizes, "--json", str(tmp_path / "e.json")]
    subprocess.run(command, check=True)
    stored = read_json(tmp_path / "e.json")
    assert stored["figures"]["peak memory"]["value"] > 0.2 and stored["ratios"]["training / usual way"]["value"] > 0
