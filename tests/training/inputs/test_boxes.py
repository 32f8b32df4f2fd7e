"""Runs over regions that lie somewhere and are not all there: trained, evaluated, and refused where boxes lack."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import small_options
from helpers.training import CHANNELS, REGIONS, all_images, attributes, experiment, make_world, timeless_metrics

from vqa.errors import InputError
from vqa.features.cache.writer import CacheWriter
from vqa.features.tables.feature_table import FeatureTable
from vqa.models import FUSIONS
from vqa.runs.evaluate import evaluate_run
from vqa.testing.batches import random_boxes
from vqa.training.inputs.prepare import prepare
from vqa.training.model import make_model
from vqa.training.train import train

WHERE = ["region_count", "boxes"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two caches with counts and boxes that differ in their padded regions alone, and one without either."""
    folder = make_world(tmp_path_factory.mktemp("world"))
    images = all_images(folder / "data")
    count_N = torch.randint(1, REGIONS + 1, (len(images.ids),), generator=torch.Generator().manual_seed(1))
    feature_NRC = torch.randn(len(images.ids), REGIONS, CHANNELS, generator=torch.Generator().manual_seed(0))
    padded_NR = torch.arange(REGIONS) >= count_N[:, None]
    box_NR4 = random_boxes(len(images.ids), REGIONS)
    for name, filled in (("boxes", 0.0), ("other", 9.0)):
        rows = np.arange(len(images.ids))
        with CacheWriter(folder / f"{name}.h5", images, attributes(), REGIONS, CHANNELS, where=WHERE) as writer:
            features = feature_NRC.masked_fill(padded_NR[..., None], filled)
            boxes_NR4 = box_NR4.masked_fill(padded_NR[..., None], 0.0)
            writer.write(rows, features, ["0" * 64] * len(rows), count_N, boxes_NR4)
    return folder


@pytest.mark.parametrize("name", ["stacked_attention", "product", "graph", "counter"])
def test_what_pads_an_image_changes_no_run(world: Path, tmp_path: Path, name: str) -> None:
    runs: list[object] = []
    for cache in ("boxes", "other"):
        setup = experiment(
            world,
            tmp_path / cache,
            features={"cache": str(world / f"{cache}.h5")},
            fusion={"name": name, **small_options(name)},
            training={"epochs": 1, "batches": "by_image"},
        )
        folder = train(setup)
        judgement = evaluate_run(folder.path, report=False).judgement
        assert judgement.accuracy_N is not None
        runs.append((timeless_metrics(folder), judgement.accuracy_N.tolist()))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", ["stacked_attention", "product", "graph"])
@pytest.mark.parametrize("filler", [float("nan"), float("inf")])
def test_padding_that_is_no_number_reaches_no_answer(world: Path, tmp_path: Path, name: str, filler: float) -> None:
    features = {"cache": str(world / "boxes.h5"), "residency": "disk", "standardise": True}
    plan = experiment(world, tmp_path, features=features, fusion={"name": name, **small_options(name)})
    prepared = prepare(plan)
    assert isinstance(prepared.features, FeatureTable)
    model = make_model(plan, prepared.words, prepared.answers, REGIONS, CHANNELS).eval()
    image = prepared.features.gather(torch.arange(6))
    assert image.mask_IR is not None and not image.mask_IR.all()
    filled = image._replace(regions_IRC=image.regions_IRC.masked_fill(~image.mask_IR[..., None], filler))
    tokens_BT, length_B = torch.full((6, 3), 2), torch.full((6,), 3)
    with torch.no_grad():
        found, expected = (model(one, tokens_BT, length_B).logits_BA for one in (filled, image))
    assert torch.equal(found, expected) and found.isfinite().all()


@pytest.mark.parametrize("name", [name for name, fusion in FUSIONS.items() if fusion.needs_boxes])
def test_without_boxes_it_is_refused_before_it_trains(world: Path, tmp_path: Path, name: str) -> None:
    setup = experiment(world, tmp_path, fusion={"name": name, **small_options(name)})
    with pytest.raises(InputError, match=r"cache\.h5: this fusion asks where the regions.*detector:NAME"):
        train(setup)
    assert not setup.folder.exists()
