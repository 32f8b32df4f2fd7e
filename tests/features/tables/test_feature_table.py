"""Every residency gives the same batches, and the choice is explained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.features import numbered_cache

from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.tables import residency
from vqa.features.tables.feature_table import FeatureTable
from vqa.features.tables.residency import Layout, SharedTable, choose_residency

CPU = torch.device("cpu")


@pytest.fixture
def caches(tmp_path: Path) -> tuple[list[FeatureCache], dict[str, np.ndarray]]:
    train, train_feature = numbered_cache(tmp_path / "train.h5", "train/", 20, 20)
    val, val_feature = numbered_cache(tmp_path / "val.h5", "val/", 9, 9)
    features = {f"train/{i}": train_feature[i] for i in range(20)} | {f"val/{i}": val_feature[i] for i in range(9)}
    return [train, val], features


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("where", ["auto", "device", "host", "disk"])
def test_every_residency_gives_the_same_batches(
    caches: tuple[list[FeatureCache], dict[str, np.ndarray]], where: str, dtype: torch.dtype | None
) -> None:
    files, features = caches
    ids = ["val/3", "train/19", "train/0", "val/0", "train/7"]
    table = FeatureTable.load(files, ids, CPU, where, dtype)
    rows = torch.tensor([4, 0, 0, 3, 2, 1])
    batch_BRC = table.gather(rows).regions_IRC
    expected = torch.from_numpy(np.stack([features[ids[row]] for row in rows.tolist()]))
    assert torch.equal(batch_BRC, expected.to(dtype or torch.float16))
    assert batch_BRC.dtype == table.dtype == (dtype or torch.float16)
    assert (len(table), table.regions, table.channels) == (5, 3, 4)
    assert table.residency == {"auto": "host"}.get(where, where)
    assert "GB" in table.reason


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_int8_caches_give_the_same_batches_everywhere(
    tmp_path: Path, dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[FeatureCache] = []
    features: dict[str, np.ndarray] = {}
    for prefix, count in (("a", 7), ("b", 5)):
        cache, feature_IRC = numbered_cache(tmp_path / f"{prefix}.h5", prefix, count, count, stored="int8")
        files.append(cache)
        features |= {f"{prefix}{i}": feature_IRC[i] for i in range(count)}
    ids = ["b4", "a0", "a6", "b1"]
    rows = torch.tensor([3, 0, 0, 1, 2])
    batches = [
        FeatureTable.load(files, ids, CPU, where, dtype).gather(rows).regions_IRC
        for where in ("device", "host", "disk")
    ]
    monkeypatch.setattr(residency, "available_memory", lambda: 4 * 3 * 4 * 3 // 2)
    tight = FeatureTable.load(files, ids, CPU, "auto", dtype)  # room for one byte a number, not for two
    assert (tight.residency, tight.rows.dtype) == ("host", torch.int8)  # type: ignore[attr-defined]
    batches.append(tight.gather(rows).regions_IRC)
    assert all(torch.equal(batch_BRC, batches[0]) for batch_BRC in batches)
    expected = torch.from_numpy(np.stack([features[ids[row]] for row in rows.tolist()])).float()
    torch.testing.assert_close(batches[0].float(), expected, rtol=0.01, atol=float(expected.abs().max()) / 127)
    with pytest.raises(InputError, match="holds 3 x 4 float16, expected 3 x 4 int8"):
        FeatureTable.load([files[0], numbered_cache(tmp_path / "c.h5", "c", 2, 2)[0]], ["a0"], CPU)


def test_auto_goes_where_there_is_room(
    caches: tuple[list[FeatureCache], dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _ = caches
    ids = [f"train/{i}" for i in range(20)]
    stored = 20 * 3 * 4 * 2
    for free, dtype, expected in (
        (2 * stored, torch.bfloat16, ("host", torch.bfloat16)),  # of the stored size: converted once
        (2 * stored, torch.float32, ("host", torch.float16)),  # twice the size: each batch is converted
        (stored, torch.float32, ("disk", torch.float16)),
    ):
        monkeypatch.setattr(residency, "available_memory", lambda free=free: free)
        table = FeatureTable.load(files, ids, CPU, "auto", dtype)
        assert (table.residency, table.rows.dtype) == expected  # type: ignore[attr-defined]
        assert (
            table.gather(torch.tensor([1])).regions_IRC.dtype
            == next(table.stream([torch.tensor([1])])).regions_IRC.dtype
            == dtype
        )
        if expected[0] == "disk":
            assert "too large" in table.reason
    with pytest.raises(InputError, match=r"residency: host needs .* take residency: auto or disk"):
        FeatureTable.load(files, ids, CPU, "host", torch.float32)


def test_images_that_no_cache_has_are_named(tmp_path: Path) -> None:
    train, _ = numbered_cache(tmp_path / "train.h5", "train/", 5, 3)
    val, _ = numbered_cache(tmp_path / "val.h5", "val/", 2, 2)
    with pytest.raises(
        InputError, match=r"2 of 3 images are in none of the feature caches, first: train/4, x"
    ) as error:
        FeatureTable.load([train, val], ["val/1", "train/4", "x"], CPU)
    assert "make train/" in str(error.value) and "make val/" in str(error.value)
    with pytest.raises(InputError, match="1 of 2 images are not extracted yet, first: train/4"):
        FeatureTable.load([train], ["train/0", "train/4"], CPU)
    with pytest.raises(InputError, match="no feature cache"):
        FeatureTable.load([], ["1"], CPU)


def test_a_second_cache_fills_what_the_first_has_not_done(tmp_path: Path) -> None:
    part, _ = numbered_cache(tmp_path / "part.h5", "p", 6, 2)
    whole, feature_IRC = numbered_cache(tmp_path / "whole.h5", "p", 6, 6)
    table = FeatureTable.load([part, whole], ["p5", "p0"], CPU)
    assert torch.equal(table.gather(torch.tensor([0, 1])).regions_IRC, torch.from_numpy(feature_IRC[[5, 0]]))


def test_caches_of_different_encoders_are_never_mixed(tmp_path: Path) -> None:
    one, _ = numbered_cache(tmp_path / "one.h5", "a", 2, 2)
    other, _ = numbered_cache(tmp_path / "other.h5", "b", 2, 2, weights_sha256="1")
    with pytest.raises(InputError, match=r"other\.h5: weights_sha256 is '1', expected '0'"):
        FeatureTable.load([one, other], ["a0", "b0"], CPU)
    with pytest.raises(InputError, match="unknown residency 'gpu'"):
        FeatureTable.load([one], ["a0"], CPU, "gpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("where", ["auto", "device", "host", "disk"])
def test_batches_arrive_on_the_gpu(caches: tuple[list[FeatureCache], dict[str, np.ndarray]], where: str) -> None:
    files, features = caches
    ids = list(features)[::-1]
    table = FeatureTable.load(files, ids, torch.device("cuda"), where, torch.bfloat16)
    rows = torch.randint(0, len(ids), (64,), generator=torch.Generator().manual_seed(0))
    batch_BRC = table.gather(rows).regions_IRC
    expected = torch.from_numpy(np.stack([features[ids[row]] for row in rows.tolist()])).to(torch.bfloat16)
    assert batch_BRC.is_cuda
    assert torch.equal(batch_BRC.cpu(), expected)
    assert table.residency == {"auto": "device"}.get(where, where)


@pytest.mark.parametrize(
    ("asked", "gpu_free", "host_free", "expected"),
    [
        ("auto", 2000, 0, ("device", "features in cuda: 0.00 GB as float16")),
        ("auto", 1600, 2000, ("host", "features in main memory: 0.00 GB as float16")),  # 60% of 1600 is too little
        ("auto", 0, 1200, ("disk", "too large to be held whole")),
        ("host", 2000, 2000, ("host", "features in main memory")),
        ("disk", 2000, 2000, ("disk", "as asked")),
        ("device", 1600, 2000, "residency: device needs 0.00 GB, but cuda has 0.00 GB free, of which 60% may be used"),
        ("host", 2000, 1200, "residency: host needs 0.00 GB, but main memory has 0.00 GB free, of which 80%"),
    ],
)
def test_the_choice_beside_a_gpu(
    asked: str, gpu_free: int, host_free: int, expected: tuple[str, str] | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gpu_free, 10**6))
    monkeypatch.setattr(residency, "available_memory", lambda: host_free)
    layout = Layout("map", (1, 5, 100), torch.float16, "features", 1000)
    arguments = (layout, torch.device("cuda"), asked, SharedTable(None, 1000, asked=False))
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            choose_residency(*arguments)
        return
    plan = choose_residency(*arguments)
    assert plan.residency == expected[0] and expected[1] in plan.reason
