"""A fusion that reads less than the map is trained from a table of just that, with the results of the whole map."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import small_options
from helpers.training import CHANNELS, REGIONS, all_images, attributes, experiment, make_world, timeless_metrics
from safetensors.torch import load_file

from vqa.experiment import Experiment
from vqa.features.cache.reader import FeatureCache
from vqa.features.cache.writer import CacheWriter
from vqa.models import FUSIONS, Fusion, Image, reads_of
from vqa.runs.evaluate import evaluate_run
from vqa.testing.batches import QUESTION_DIM, WORD_DIM, random_question
from vqa.training.inputs.prepare import prepare
from vqa.training.run import build
from vqa.training.train import train

LESS = [name for name, kind in FUSIONS.items() if kind.reads != "map"]
SMALL: dict[str, dict[str, Any]] = {
    "product": {"name": "product", "fusion_dim": 16},
    "mutan": {"name": "mutan", **small_options("mutan")},
    "question_only": {"name": "question_only", "fusion_dim": 16},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With two caches more: of images that differ in their regions, in float16 and in int8."""
    folder = make_world(tmp_path_factory.mktemp("world"))
    images = all_images(folder / "data")
    count, random = len(images.ids), torch.Generator().manual_seed(4)
    offset_C = torch.tensor([0.0, 3.0, -20.0, 100.0, 0.0, 1.0])
    feature_NRC = torch.randn(count, REGIONS, CHANNELS, generator=random) + offset_C
    real_N = torch.randint(1, REGIONS + 1, (count,), generator=random)
    for dtype in ("float16", "int8"):
        path = folder / f"ragged_{dtype}.h5"
        with CacheWriter(path, images, attributes(), REGIONS, CHANNELS, dtype, where=["region_count"]) as writer:
            writer.write(np.arange(count), feature_NRC, ["0" * 64] * count, real_N)
    return folder


def both(world: Path, runs: Path, cache: str, fusion: str, standardise: bool) -> list[Experiment]:
    """The same experiment with what the fusion reads held in memory, and with whole maps from the disk."""
    return [
        experiment(
            world, runs / residency, fusion=SMALL[fusion], training={"epochs": 3},
            features={"cache": str(world / f"{cache}.h5"), "standardise": standardise, "residency": residency},
        )
        for residency in ("host", "disk")
    ]  # fmt: skip


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize(
    ("cache", "fusion"),
    [("cache", "product"), ("ragged_float16", "product"), ("ragged_int8", "mutan"), ("cache", "question_only")],
)
def test_runs_are_those_of_the_whole_map(
    world: Path, tmp_path: Path, cache: str, fusion: str, standardise: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    own, whole = (train(plan) for plan in both(world, tmp_path, cache, fusion, standardise))
    said = " ".join(capsys.readouterr().out.split())
    assert {"product": "of each image's 4 regions in main memory", "mutan": "of each image's 4 regions in main memory",
            "question_only": "no features are held"}[fusion] in said  # fmt: skip
    for row, other in zip(timeless_metrics(own), timeless_metrics(whole), strict=True):
        assert row.keys() == other.keys()
        for key, value in row.items():
            expected = other[key] if isinstance(value, str) else pytest.approx(other[key], rel=2e-4, abs=1e-5)
            assert value == expected, key
    weights, others = load_file(own.model), load_file(whole.model)
    for name, value in weights.items():
        if name.startswith("standardise") and fusion == "question_only":
            continue  # what it never reads has no statistics
        torch.testing.assert_close(value, others[name], rtol=1e-3, atol=2e-5, msg=name)
    one, two = (evaluate_run(run.path, report=False) for run in (own, whole))
    np.testing.assert_allclose(one.predicted.probability_NK, two.predicted.probability_NK, rtol=2e-3, atol=1e-4)
    assert (one.predicted.answer_NK[:, 0] == two.predicted.answer_NK[:, 0]).mean() > 0.98


@pytest.mark.parametrize("cache", ["cache", "ragged_float16", "ragged_int8"])
def test_statistics_are_those_of_real_regions(world: Path, tmp_path: Path, cache: str) -> None:
    """Over the training images, against numpy."""
    plans = both(world, tmp_path, cache, "product", standardise=True)
    file = FeatureCache(world / f"{cache}.h5")
    for plan in plans:
        prepared = prepare(plan)
        images = [prepared.train.images.ids[row] for row in np.unique(prepared.train.image_row_N)]
        rows = file.rows(images)
        feature_NRC = file.read(rows).double().numpy()
        count_N = np.full(len(rows), REGIONS) if file.count_I is None else file.count_I.numpy()[rows]
        real = np.concatenate([one[:count] for one, count in zip(feature_NRC, count_N, strict=True)])
        standardise = build(plan, prepared).model.standardise
        assert standardise is not None
        # int8 is rounded to float16 on the way to numpy
        rounded = 5e-3 if cache.endswith("int8") else 1e-5
        np.testing.assert_allclose(standardise.mean_C, real.mean(axis=0), rtol=rounded, atol=rounded)
        np.testing.assert_allclose(1 / standardise.scale_C, real.std(axis=0), rtol=rounded)


@pytest.mark.parametrize("name", LESS)
@pytest.mark.parametrize("padded", [False, True])
def test_what_it_reads_is_all_that_a_fusion_needs(name: str, padded: bool) -> None:
    torch.manual_seed(0)
    sizes = {"image_dim": 6, "regions": 5, "question_dim": QUESTION_DIM} | (
        {"word_dim": WORD_DIM} if name == "vis_lstm" else {}
    )
    fusion: Fusion = FUSIONS[name](**sizes, **small_options(name)).eval()
    question = random_question((3, 1, 6, 4, 2, 5, 1))
    regions_IRC, row_B = torch.randn(3, 5, 6), torch.tensor([0, 2, 2, 1, 0, 1, 1])
    mask_IR = torch.arange(5) < torch.tensor([5, 1, 3])[:, None] if padded else None
    weights_IR1 = (torch.ones(3, 5) if mask_IR is None else mask_IR.float())[:, :, None]
    mean_I1C = (regions_IRC * weights_IR1).sum(dim=1, keepdim=True) / weights_IR1.sum(dim=1, keepdim=True)
    instead = torch.zeros(1, 1, 6).expand(3, -1, -1) if fusion.reads == "nothing" else mean_I1C
    with torch.no_grad():
        whole, less = (fusion(image, question) for image in (Image(regions_IRC, row_B, mask_IR), Image(instead, row_B)))
    torch.testing.assert_close(less.vector_BD, whole.vector_BD, rtol=1e-4, atol=1e-5)
    assert whole.attention_BHR is None and less.attention_BHR is None


def test_what_a_section_reads_is_known_before_its_model(world: Path) -> None:
    found = {name: reads_of({"name": name}) for name in FUSIONS}
    assert found["question_only"] == "nothing" and found["product"] == "mean" and found["stacked_attention"] == "map"
    assert reads_of({"name": "helpers.outside.fusion:Mine"}) == "map"
