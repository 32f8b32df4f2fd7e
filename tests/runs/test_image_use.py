"""What remains of an accuracy without the image: a blank one, other questions' images, a run without any."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.training import experiment, make_world, write_cache
from hypothesis import given
from hypothesis import strategies as st

from vqa.data.formats import read_dataset
from vqa.features.cache.reader import FeatureCache
from vqa.features.tables.feature_table import FeatureTable
from vqa.runs.evaluate import EvaluationOptions, evaluate_run
from vqa.runs.image_use import blank_of, exchanged
from vqa.training.train import train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(0, 5))
def test_no_question_keeps_its_image_and_no_image_is_lost(rows: list[int], seed: int) -> None:
    row_N = torch.tensor(rows)
    other_N = exchanged(row_N, seed)
    if len(set(rows)) == 1:
        assert other_N is None
        return
    assert other_N is not None and (other_N != row_N).all()
    pairs = set(zip(rows, other_N.tolist(), strict=True))
    assert len(pairs) == len(set(rows)) == len({other for _, other in pairs})  # the same for all questions of an image
    again = exchanged(row_N, seed)
    assert again is not None and (again == other_N).all()


@pytest.mark.parametrize("boxes", [False, True])
def test_a_blank_image_is_the_mean_of_the_real_regions(world: Path, tmp_path: Path, boxes: bool) -> None:
    images = read_dataset("vqa_v2", world / "data", "val").images
    write_cache(tmp_path / "cache.h5", images, boxes=boxes)
    table = FeatureTable.load([FeatureCache(tmp_path / "cache.h5")], images.ids, torch.device("cpu"))
    found = blank_of(table, torch.arange(len(images.ids)))
    image = table.gather(torch.arange(len(images.ids)))
    real = np.ones(image.regions_IRC.shape[:2], bool) if image.mask_IR is None else image.mask_IR.numpy()
    np.testing.assert_allclose(
        found.numpy(), image.regions_IRC.double().numpy()[real].mean(axis=0), rtol=1e-5, atol=1e-6
    )


def test_it_is_measured_shown_and_written_beside_the_question_only_run(world: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"training": {"epochs": 2}}
    blind = train(experiment(world, tmp_path, name="blind", fusion={"name": "question_only"}, **changes))
    without = evaluate_run(blind.path, report=False)
    assert without.judgement.image_use is None  # it reads none of the image
    run = train(experiment(world, tmp_path, name="seeing", **changes))
    evaluation = evaluate_run(run.path)
    written = json.loads(run.evaluation("val").read_text())
    shown = written["image_matters"]
    assert list(shown) == [
        "its own images",
        "a blank image",
        "images of other questions",
        "none: the run blind, seed 0",
    ]
    assert shown["its own images"]["open_ended"] == written["accuracy"]["open_ended"]["overall"]
    blind_numbers = json.loads(blind.evaluation("val").read_text())["accuracy"]
    assert shown["none: the run blind, seed 0"]["multiple_choice"] == blind_numbers["multiple_choice"]["overall"]
    assert all(0 <= shown[name]["same_answer"] <= 100 for name in ("a blank image", "images of other questions"))
    assert "Does the image matter" in (run.path / "report.html").read_text()
    assert evaluation.judgement.beyond_tables()[0].title == "Does the image matter"
    off = evaluate_run(run.path, "val", EvaluationOptions(image_matters=False), report=False)
    assert off.judgement.image_use is None
    assert off.judgement.own.as_json() == evaluation.judgement.own.as_json()
