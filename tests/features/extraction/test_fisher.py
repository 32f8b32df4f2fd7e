"""Fisher vectors against the published formula and scikit-image alone; all that a second-stage cache must do."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from helpers.features import render_images, small_encoder
from helpers.training import SUBPROCESS, all_images, experiment, make_world
from numpy.typing import NDArray

from vqa.data.dataset import ImageTable
from vqa.data.formats import read_dataset
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.cache.writer import CacheWriter
from vqa.features.extraction.check import check_cache, describe_cache
from vqa.features.extraction.dataset import encoder_of
from vqa.features.extraction.extract import extract
from vqa.features.extraction.fisher import FisherCode, fit_code, read_code
from vqa.features.extraction.fisher_cache import FisherSettings, fisher_cache
from vqa.features.precision import Precision
from vqa.runs.answerer import Answerer
from vqa.training.train import train

SETTINGS = FisherSettings(components=3, dimensions=4, sample=300)
LENGTH = 3 + 2 * 3 * 4


def make_maps(path: Path, count: int = 40, seed: int = 0, weights: str = "a" * 64) -> Path:
    """A cache of maps whose descriptors come from a few clusters."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(5, 8, generator=random) * 3
    which = torch.randint(0, 5, (count, 9), generator=random)
    feature_NRC = centres[which] + torch.randn(count, 9, 8, generator=random)
    attributes = {
        "encoder": "noise", "layer": "map", "image_size": 64, "weights_sha256": weights, "weights": "none",
        "weights_origin": "made up", "preprocessing": {"resize": "squash"}, "command": "none",
    }  # fmt: skip
    images = ImageTable(tuple(str(i) for i in range(count)), tuple(Path(f"{i}.png") for i in range(count)))
    with CacheWriter(path, images, attributes, 9, 8) as writer:
        writer.write(np.arange(count), feature_NRC, [f"{i:064d}" for i in range(count)])
    return path


def by_the_paper(code: FisherCode, descriptor_RC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Perronnin et al. 2010, number by number; the weights' part as Sanchez et al. 2013 have it."""
    points = [[sum(axis * (x - code.mean_C)) for axis in code.axis_DC] for x in descriptor_RC]
    components, dimensions = code.mean_KD.shape
    posteriors = []
    for x in points:
        density = [
            code.weight_K[k]
            * math.prod(
                math.exp(-((x[d] - code.mean_KD[k, d]) ** 2) / (2 * code.variance_KD[k, d]))
                / math.sqrt(2 * math.pi * code.variance_KD[k, d])
                for d in range(dimensions)
            )
            for k in range(components)
        ]
        posteriors.append([value / sum(density) for value in density])
    weights, means, deviations = [], [], []
    count = len(points)
    for k in range(components):
        root = math.sqrt(code.weight_K[k])
        weights.append(sum(g[k] - code.weight_K[k] for g in posteriors) / (count * root))
        for d in range(dimensions):
            z = [(x[d] - code.mean_KD[k, d]) / math.sqrt(code.variance_KD[k, d]) for x in points]
            means.append(sum(g[k] * u for g, u in zip(posteriors, z, strict=True)) / (count * root))
            pull = sum(g[k] * (u * u - 1) for g, u in zip(posteriors, z, strict=True))
            deviations.append(-pull / (count * root * math.sqrt(2)))  # scikit-image's sign
    vector = np.array(weights + means + deviations)
    vector = np.sign(vector) * np.sqrt(np.abs(vector))
    return vector / np.sqrt((vector**2).sum())


def test_vectors_are_the_papers_formula(tmp_path: Path) -> None:
    source = make_maps(tmp_path / "maps.h5")
    assert fisher_cache(source, tmp_path / "f.h5", SETTINGS) == 40
    made = FeatureCache(tmp_path / "f.h5")
    assert (made.regions, made.channels) == (1, LENGTH)
    code, _ = read_code(tmp_path / "f.h5")
    maps = FeatureCache(source).read(np.arange(40)).double().numpy()
    for row in (0, 17, 39):
        found = made.read(np.array([row]))[0, 0].numpy()
        np.testing.assert_allclose(found, by_the_paper(code, maps[row]), atol=2e-3)
        np.testing.assert_allclose(
            code.encode(torch.from_numpy(maps[row : row + 1]))[0, 0], by_the_paper(code, maps[row]), atol=1e-6
        )
        assert np.linalg.norm(found) == pytest.approx(1, abs=2e-3)
    assert made.image_digests == FeatureCache(source).image_digests


def test_fit_is_scikit_learns_and_scikit_images() -> None:
    from skimage.feature import fisher_vector, learn_gmm

    descriptor_PC = np.random.default_rng(3).normal(size=(400, 8)) * np.arange(1, 9)
    code = fit_code(descriptor_PC, 3, 4, 7, {})
    centred = descriptor_PC - descriptor_PC.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:4]
    np.testing.assert_allclose(np.abs(axes @ code.axis_DC.T), np.eye(4), atol=1e-6)
    mixture = learn_gmm(centred @ code.axis_DC.T, n_modes=3, gm_args={"covariance_type": "diag", "random_state": 7})
    np.testing.assert_allclose(code.mean_KD, mixture.means_, rtol=1e-3, atol=1e-3)
    wanted = fisher_vector(code.project(descriptor_PC[:9]), mixture, improved=True)
    np.testing.assert_allclose(code.encode(torch.from_numpy(descriptor_PC[None, :9]))[0, 0], wanted, atol=1e-3)


@pytest.mark.parametrize("missing", ["skimage", "sklearn"])
def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    train, val = make_maps(tmp_path / "train.h5"), make_maps(tmp_path / "val.h5", seed=5)
    fisher_cache(train, tmp_path / "there.h5", SETTINGS)
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    said = rf"^Fisher vectors need {missing}, which is not installed: pip install 'vqa\[fisher\]'$"
    with pytest.raises(InputError, match=said):
        fisher_cache(train, tmp_path / "new.h5", SETTINGS)
    with pytest.raises(InputError, match=said):
        fisher_cache(val, tmp_path / "other.h5", SETTINGS, like=tmp_path / "there.h5")


def test_repeatable_to_the_bit_and_the_seed_counts(tmp_path: Path) -> None:
    source = make_maps(tmp_path / "maps.h5")
    other = FisherSettings(components=3, dimensions=4, sample=300, seed=1)
    for name, settings in {"a": SETTINGS, "b": SETTINGS, "c": other}.items():
        fisher_cache(source, tmp_path / name, settings)
    content = {name: h5py.File(tmp_path / name)["features"][:].tobytes() for name in "abc"}
    assert content["a"] == content["b"] != content["c"]
    digests = {name: FeatureCache(tmp_path / name).attributes["weights_sha256"] for name in "abc"}
    assert digests["a"] == digests["b"] != digests["c"]
    make_maps(tmp_path / "other_weights.h5", weights="b" * 64)
    fisher_cache(tmp_path / "other_weights.h5", tmp_path / "d", SETTINGS)
    assert FeatureCache(tmp_path / "d").attributes["weights_sha256"] != digests["a"]


def test_goes_on_after_a_kill(tmp_path: Path) -> None:
    make_maps(tmp_path / "maps.h5", count=3000)
    arguments = [sys.executable, "-m", "vqa", "features", "fisher", "maps.h5", "--out", "k.h5", "--sample", "2000"]
    arguments += ["--components", "8", "--dimensions", "6"]
    killed = subprocess.Popen(arguments, cwd=tmp_path, env=os.environ | SUBPROCESS, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "k.h5").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    settings = FisherSettings(components=8, dimensions=6, sample=2000)
    fisher_cache(tmp_path / "maps.h5", tmp_path / "k.h5", settings)
    fisher_cache(tmp_path / "maps.h5", tmp_path / "whole.h5", settings)
    with h5py.File(tmp_path / "k.h5") as one, h5py.File(tmp_path / "whole.h5") as two:
        assert one["done"][:].all()
        assert one["features"][:].tobytes() == two["features"][:].tobytes()
    assert fisher_cache(tmp_path / "maps.h5", tmp_path / "k.h5", settings) == 0


def test_another_split_takes_the_parameters_of_the_first(tmp_path: Path) -> None:
    fisher_cache(make_maps(tmp_path / "train.h5"), tmp_path / "ft.h5", SETTINGS)
    make_maps(tmp_path / "val.h5", seed=5)
    fisher_cache(tmp_path / "val.h5", tmp_path / "fv.h5", FisherSettings(), like=tmp_path / "ft.h5")
    one, two = (FeatureCache(tmp_path / name).attributes for name in ("ft.h5", "fv.h5"))
    assert one["weights_sha256"] == two["weights_sha256"] and one["preprocessing"] == two["preprocessing"]
    code, _ = read_code(tmp_path / "ft.h5")
    first = FeatureCache(tmp_path / "val.h5").read(np.array([0]))
    assert torch.equal(FeatureCache(tmp_path / "fv.h5").read(np.array([0])), code.encode(first).half())


def test_the_fit_sees_the_images_that_are_named_alone(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    settings = FisherSettings(3, 4, 0, 50, world / "data", "vqa_v2", ("train",))
    fisher_cache(world / "cache.h5", tmp_path / "a.h5", settings)
    train_ids = set(read_dataset("vqa_v2", world / "data", "train").images.ids)
    with h5py.File(world / "cache.h5", "r+") as file:
        other = [row for row, name in enumerate(file["image_id"].asstr()[:]) if name not in train_ids]
        file["features"][other] = file["features"][other] * 5
    fisher_cache(world / "cache.h5", tmp_path / "b.h5", settings)
    one, two = (read_code(tmp_path / name)[0] for name in ("a.h5", "b.h5"))
    assert one.digest("") == two.digest("")
    fisher_cache(world / "cache.h5", tmp_path / "all.h5", FisherSettings(3, 4, 0, 50))
    assert read_code(tmp_path / "all.h5")[0].digest("") != one.digest("")


@pytest.mark.parametrize("number_type", ["float32", "bfloat16"])
def test_new_images_are_encoded_as_the_cache_was(tmp_path: Path, number_type: str) -> None:
    images = render_images(tmp_path / "images", 8)
    extract(images, small_encoder(), tmp_path / "maps.h5", batch_size=4, precision=Precision(number_type))
    fisher_cache(tmp_path / "maps.h5", tmp_path / "f.h5", FisherSettings(2, 4, 0, 100))
    said = describe_cache(tmp_path / "f.h5")
    assert said["encoder"] == "fisher:squeezenet1_1" and said["preprocessing"]["fisher"]["components"] == 2
    assert said["base"]["encoder"] == "squeezenet1_1" and said["base"]["preprocessing"]["resize"] == "squash"
    encoder = encoder_of(FeatureCache(tmp_path / "f.h5").attributes, None, tmp_path / "f.h5")
    assert encoder.weights_sha256 == said["weights_sha256"]
    assert encoder.precision == Precision(number_type)
    assert not any(row.problem for row in check_cache(tmp_path / "f.h5", images, encoder))


def test_predict_on_a_run_of_fisher_vectors(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    (world / "cache.h5").unlink()
    images = all_images(world / "data")
    extract(images, small_encoder(), world / "maps.h5")
    fisher_cache(world / "maps.h5", world / "cache.h5", FisherSettings(2, 4, 0, 500))
    run = train(experiment(world, tmp_path / "runs", fusion={"name": "product"}, training={"epochs": 1}))
    answer = Answerer.load(run.path).answer(images.paths[0], "what color is it?")
    assert len(answer.best) > 1 and answer.grid is None
    (world / "cache.h5").rename(world / "moved.h5")
    with pytest.raises(InputError, match=r"cache\.h5: no such feature cache"):
        Answerer.load(run.path)
    moved = Answerer.load(run.path, weights=str(world / "moved.h5")).answer(images.paths[0], "what color is it?")
    assert moved.best == answer.best


def test_wrong_choices_are_named(tmp_path: Path) -> None:
    source = make_maps(tmp_path / "maps.h5")
    fisher_cache(source, tmp_path / "f.h5", SETTINGS)

    def refused(message: str, path: Path = source, out: str = "new.h5", **options: Any) -> None:
        like = options.pop("like", None)
        with pytest.raises(InputError, match=message):
            fisher_cache(path, tmp_path / out, replace(SETTINGS, **options), like=like)

    refused("needs a map of several", path=tmp_path / "f.h5")
    refused("9 dimensions: must be 1 to 8", dimensions=9)
    refused("2 descriptors are too few for 3 components", sample=2)
    refused("give --data, --format and --split together", format="vqa_v2")
    refused("components is 3, expected 5", out="f.h5", components=5)
    refused("maps.h5: holds noise features, no Fisher vectors", like=source)
    make_maps(tmp_path / "other.h5", weights="c" * 64)
    refused(r"weights_sha256 is .*\n.*made of other features", path=tmp_path / "other.h5", like=tmp_path / "f.h5")
    with h5py.File(make_maps(tmp_path / "white.h5"), "r+") as file:
        file.attrs["preprocessing"] = '{"resize": "squash", "background": "white"}'
    refused("background is 'white', expected None", path=tmp_path / "white.h5", like=tmp_path / "f.h5")
    with h5py.File(source, "r+") as file:
        file["image_digest"][3] = b"f" * 64
    refused("image 3 has changed", out="f.h5")
    with h5py.File(source, "r+") as file:
        file["done"][5] = 0
    refused("1 of 40 images are not extracted yet, first: 5")
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        del file["fisher/mean_C"]
    refused("parameters of its Fisher vectors are damaged", like=tmp_path / "f.h5")
