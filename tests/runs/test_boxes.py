"""A run on a detector's boxes: mask and boxes reach the report and new images, and attention is drawn on the boxes."""

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torchvision
from features.encoders.test_detector import NAME, SIDE, tiny_detector
from helpers.training import all_images, experiment, make_world
from PIL import Image

from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders import detector
from vqa.features.encoders.registry import build_image_encoder
from vqa.features.extraction.extract import extract
from vqa.runs.answerer import Answerer, write_attention
from vqa.runs.evaluate import EvaluationOptions, evaluate_loaded
from vqa.runs.load import load_run
from vqa.training.train import train

BOXES = 70


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def get_model(name: str, *, num_classes: int, **options: Any) -> Any:
        return tiny_detector(4 if num_classes == detector.COCO_CLASSES else num_classes)

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    world = make_world(tmp_path)
    encoder = build_image_encoder(
        NAME, layer=f"box_head:{BOXES}", image_size=SIDE, weights="random", resize="letterbox"
    )
    extract(all_images(world / "data"), encoder, tmp_path / "boxes.h5")
    plan = experiment(world, tmp_path / "runs", features={"cache": str(tmp_path / "boxes.h5")}, training={"epochs": 1})
    return train(plan).path


def test_attention_is_that_of_real_boxes_and_drawn_there(run: Path, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "boxes.h5")
    assert cache.count_I is not None
    evaluation = evaluate_loaded(load_run(run), "val")
    examples = evaluation.examples()
    count_of = dict(zip(map(Path, cache.image_paths), cache.count_I.tolist(), strict=True))
    assert examples and min(count_of[example.image] for example in examples) < BOXES
    for example in examples:
        assert example.attention_HR is not None and example.box_R4 is not None and example.grid is None
        assert example.attention_HR.shape[1] == len(example.box_R4) == count_of[example.image]
        np.testing.assert_allclose(example.attention_HR.sum(axis=1), 1, rtol=1e-4)

    answerer = Answerer.load(run)
    wide = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 200, 3), dtype=np.uint8)).save(wide)
    row = 3
    paths = [wide, Path(cache.image_paths[row])]
    for answer, path in zip(answerer.answer_all(paths, ["what is this?"] * 2), paths, strict=True):
        assert answer.attention_HR is not None and answer.box_R4 is not None
        assert answer.attention_HR.shape[1] == len(answer.box_R4) <= BOXES
        np.testing.assert_allclose(answer.attention_HR.sum(axis=1), 1, rtol=1e-4)
        if path != wide:
            stored = cache.read_boxes(np.array([row]))[0, : len(answer.box_R4)].numpy()
            np.testing.assert_allclose(answer.box_R4, stored, atol=1e-4)
        write_attention(answer, tmp_path / "where.png")
        with Image.open(tmp_path / "where.png") as sheet:
            assert sheet.size[0] > sheet.size[1]


def test_features_of_another_meaning_are_refused(run: Path, tmp_path: Path) -> None:
    loaded = load_run(run)
    loaded.recorded["features"].pop("region_count")  # as a run that was trained before there were counts
    with pytest.raises(InputError, match="says which regions are real, which the run was trained without"):
        evaluate_loaded(loaded, "val")
    shutil.copy(tmp_path / "boxes.h5", tmp_path / "uncounted.h5")  # its rows of zeros would count as regions
    with h5py.File(tmp_path / "uncounted.h5", "a") as file:
        del file["region_count"]
    with pytest.raises(InputError, match="does not say which regions are real, which the run was trained with"):
        evaluate_loaded(load_run(run), "val", EvaluationOptions(caches=[tmp_path / "uncounted.h5"]))
    with h5py.File(tmp_path / "boxes.h5", "a") as file:
        del file["boxes"]
    with pytest.raises(InputError, match="does not say where regions lie, which the run was trained with"):
        evaluate_loaded(load_run(run), "val")
