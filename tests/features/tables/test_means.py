"""A table that holds what a fusion reads: means of real regions, against numpy in float64, or nothing."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from helpers.features import ATTRIBUTES, numbered_cache
from helpers.regions import CHANNELS, HOMES, REGIONS, load, written
from hypothesis import given
from hypothesis import strategies as st

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.cache.writer import CacheWriter
from vqa.features.tables import means, residency
from vqa.features.tables import shared_memory as shared
from vqa.training import model
from vqa.training.model import channel_statistics, statistics_of_moments

COUNTS = {"a": [5, 1, 3, 5], "b": [2, 5, 4]}
IDS = ["b0", "a2", "a0", "b2", "a1", "a3"]


def caches(folder: Path, dtype: str = "float16") -> list[FeatureCache]:
    return [written(folder / f"{name}.h5", name, counts, dtype=dtype) for name, counts in COUNTS.items()]


def maps(files: list[FeatureCache], ids: list[str] = IDS) -> list[np.ndarray]:
    """The real regions of each image, float64."""
    found = []
    for name in ids:
        cache = files["ab".index(name[0])]
        row = int(name[1:])
        with h5py.File(cache.path) as file:
            scale = float(file["scale"][row]) if "scale" in file else 1.0
            found.append(scale * file["features"][row].astype(np.float64)[: COUNTS[name[0]][row]])
    return found


@pytest.mark.parametrize("home", ["device", "host", "shared", "auto"])
@pytest.mark.parametrize("stored", ["float16", "int8"])
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_batches_are_the_means_of_real_regions(
    home: str, stored: str, dtype: torch.dtype | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(means, "NUMBERS_AT_ONCE", 2 * REGIONS * CHANNELS)  # several blocks of a file
    files = caches(tmp_path, stored)
    table = load(files, IDS, home, dtype=dtype, reads="mean")
    assert (table.holds, table.regions, table.batch_regions, len(table)) == ("mean", REGIONS, 1, len(IDS))
    assert f"the mean of each image's {REGIONS} regions in main memory" in table.reason
    expected_NC = torch.from_numpy(np.stack([image.mean(axis=0) for image in maps(files)]))
    batches = [torch.tensor([5, 0, 0, 3]), torch.tensor([2]), torch.tensor([1, 4])]
    for rows, image in zip(batches, table.stream(batches), strict=True):
        for found in (image, table.gather(rows)):
            assert found.regions_IRC.shape == (len(rows), 1, CHANNELS) and found[1:] == (None, None, None)
            assert found.regions_IRC.dtype == (dtype or torch.float16)
            precise = dtype is torch.float32
            torch.testing.assert_close(
                found.regions_IRC[:, 0].double(), expected_NC[rows], rtol=1e-6 if precise else 1e-2,
                atol=1e-6 if precise else 1e-2,
            )  # fmt: skip


def test_the_disk_keeps_the_maps_and_says_so(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = caches(tmp_path)
    asked = load(files, IDS, "disk", reads="mean")
    monkeypatch.setattr(residency, "available_memory", lambda: 0)
    crowded = load(files, IDS, "auto", reads="mean")
    for table in (asked, crowded):
        assert (table.residency, table.holds, table.batch_regions) == ("disk", "map", REGIONS)
        assert table.reason.endswith("each batch has the whole maps, of which the fusion takes the mean")
        assert table.gather(torch.tensor([0])).mask_IR is not None
    assert "as asked" in asked.reason and "too large to be held whole" in crowded.reason
    int8 = load(caches(Path(tmp_path_factory.mktemp("int8")), "int8"), IDS, "disk", reads="mean", dtype=torch.float32)
    image = int8.gather(torch.tensor([3]))
    real = image.regions_IRC[image.mask_IR].double()
    torch.testing.assert_close(real, torch.from_numpy(maps(int8.rows.caches)[3]), rtol=1e-5, atol=1e-5)  # type: ignore[attr-defined]


def test_auto_goes_by_the_size_of_the_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, _ = numbered_cache(tmp_path / "a.h5", "a", 20, 20)
    size = 20 * 4 * 4  # of float32; the maps have 20 * 3 * 4 * 2
    monkeypatch.setattr(residency, "available_memory", lambda: int(size / 0.8) + 1)
    assert load([cache], ["a1"] * 20, "auto", reads="mean").residency == "host"
    assert load([cache], ["a1"] * 20, "auto").residency == "disk"
    with pytest.raises(InputError, match="residency: host needs"):
        load([cache], ["a1"] * 20, "host", reads="mean", variance=True)


def test_one_region_is_held_as_it_is_stored(tmp_path: Path) -> None:
    images = ImageTable(("x", "y"), (Path("x.jpg"), Path("y.jpg")))
    with CacheWriter(tmp_path / "c.h5", images, ATTRIBUTES, 1, 4) as writer:
        writer.write(np.arange(2), torch.randn(2, 1, 4), ["0" * 64] * 2)
    cache = FeatureCache(tmp_path / "c.h5")
    for where in ("host", "disk"):
        mean, whole = (load([cache], ["y", "x"], where, reads=reads, variance=True) for reads in ("mean", "map"))
        rows = torch.tensor([1, 0, 1])
        assert torch.equal(mean.gather(rows).regions_IRC, whole.gather(rows).regions_IRC)
        assert mean.reason.split("GB")[0] == whole.reason.split("GB")[0] and mean.batch_regions == 1


def test_nothing_is_read_and_nothing_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = caches(tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("features were read")

    monkeypatch.setattr(FeatureCache, "read_into", refuse)
    monkeypatch.setattr(FeatureCache, "read_boxes", refuse)
    table = load(files, IDS, "disk", dtype=torch.bfloat16, reads="nothing", variance=True)
    assert (len(table), table.holds, table.batch_regions, table.residency) == (6, "nothing", 1, "device")
    image = table.gather(torch.tensor([3, 1]))
    assert image.regions_IRC.shape == (2, 1, CHANNELS) and image.regions_IRC.dtype == torch.bfloat16
    assert image.regions_IRC.untyped_storage().nbytes() == CHANNELS * 2  # one image's, whatever the batch
    assert not image.regions_IRC.any() and image[1:] == (None, None, None)
    shared_out = image._replace(row_B=torch.tensor([0, 1, 1, 0, 1]))
    assert shared_out.regions_BRC.shape == (5, 1, CHANNELS)
    assert [len(one.regions_IRC) for one in table.stream([torch.tensor([1]), torch.tensor([2, 3])])] == [1, 2]
    with pytest.raises(InputError, match="are in none of the feature caches"):
        load(files, [*IDS, "z9"], "host", reads="nothing")


def test_a_shared_table_is_one_only_for_the_same_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "shm"
    memory.mkdir()
    monkeypatch.setattr(shared, "SHARED_MEMORY", memory)
    files, kept = caches(tmp_path), []
    kinds: tuple[dict[str, Any], ...] = ({}, {"reads": "mean"}, {"reads": "mean", "variance": True})
    for number, options in enumerate(kinds, start=1):
        kept += [load(files, IDS, "shared", **options), load(files, IDS, "shared", **options)]
        assert len(list(memory.glob("*.table"))) == number
    load(files, IDS, "shared", reads="nothing")
    assert len(list(memory.glob("*.table"))) == 3
    assert torch.equal(kept[2].gather(torch.tensor([2])).regions_IRC, kept[4].gather(torch.tensor([2])).regions_IRC)


@given(
    counts=st.lists(st.integers(1, REGIONS), min_size=2, max_size=6), seed=st.integers(0, 100),
    offset=st.sampled_from([0.0, 7.0, 500.0]), home=st.sampled_from(HOMES[:2]),
)  # fmt: skip
def test_statistics_of_moments_are_those_of_all_real_regions(
    counts: list[int], seed: int, offset: float, home: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    feature_IRC = np.random.default_rng(seed).normal(offset, 1, (len(counts), REGIONS, CHANNELS)).astype(np.float16)
    cache = written(
        tmp_path_factory.mktemp("c") / "a.h5", "a", counts, feature_IRC=torch.from_numpy(feature_IRC).float()
    )
    ids = [f"a{row}" for row in range(len(counts))]
    rows = torch.arange(len(counts))[:: 1 + seed % 2]
    real_MC = np.concatenate([feature_IRC[row, : counts[row]] for row in rows.tolist()]).astype(np.float64)
    held = {
        reads: load([cache], ids, home, reads=reads, variance=True, dtype=torch.float32) for reads in ("map", "mean")
    }
    for mean_C, deviation_C in (
        channel_statistics(held["map"], rows), statistics_of_moments(held["mean"], rows)
    ):  # fmt: skip
        np.testing.assert_allclose(mean_C, real_MC.mean(axis=0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(deviation_C, real_MC.std(axis=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("at_a_time", [1, 50, 1 << 23])
def test_a_channel_that_never_changes_has_deviation_zero_in_both(
    at_a_time: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "NUMBERS_AT_A_TIME", at_a_time)
    constant = torch.tensor([0.1, 12.34, 333.3]).expand(40, REGIONS, CHANNELS)
    counts = [1 + row % REGIONS for row in range(40)]
    cache = written(tmp_path / "a.h5", "a", counts, feature_IRC=constant)
    table = load([cache], [f"a{row}" for row in range(40)], "host", reads="mean", variance=True)
    mean_C, deviation_C = statistics_of_moments(table, torch.arange(40))
    assert torch.equal(mean_C, constant[0, 0].half().float()) and deviation_C.tolist() == [0] * CHANNELS
