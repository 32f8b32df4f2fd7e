"""Batches one after another, fetched ahead or not, are those that the table holds."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.features import numbered_cache

from vqa.features.cache.reader import FeatureCache
from vqa.features.tables import prefetch as streams
from vqa.features.tables.feature_table import FeatureTable
from vqa.features.tables.prefetch import ahead, in_turn
from vqa.features.tables.stored_rows import MappedRows, MemoryRows, Source

CPU = torch.device("cpu")
TABLE_NRC = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0))
ROWS = [torch.randint(0, 50, (size,), generator=torch.Generator().manual_seed(size)) for size in (7, 7, 3, 1, 7, 5)]


class Watched(MemoryRows):
    """Counts its reads and says which thread made them."""

    def __init__(self) -> None:
        super().__init__(TABLE_NRC)
        self.read_by: list[int] = []
        self.expected: list[torch.Tensor] = []
        self.fail_at = -1

    def read(self, row_B: torch.Tensor, out_BRC: torch.Tensor) -> None:
        if len(self.read_by) == self.fail_at:
            raise OSError("the disk is gone")
        super().read(row_B, out_BRC)
        self.read_by.append(threading.get_ident())

    def expect(self, row_M: torch.Tensor) -> None:
        self.expected.append(row_M)


@pytest.mark.parametrize("group_bytes", [1, 400, 1 << 30])
@pytest.mark.parametrize("inference", [False, True])
def test_batches_fetched_ahead_are_those_of_the_table(
    inference: bool, group_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "EXPECTED_BYTES", group_bytes)
    source = Watched()
    with torch.inference_mode(inference):
        plain = [batch_BRC.clone() for batch_BRC in in_turn(source, ROWS, (3, 4))]
        early = [batch_BRC.clone() for batch_BRC in ahead(source, ROWS, (3, 4), CPU)]
    for row_B, one, other in zip(ROWS, plain, early, strict=True):
        assert torch.equal(one, TABLE_NRC[row_B]) and torch.equal(other, TABLE_NRC[row_B])
    assert torch.equal(torch.cat(source.expected), torch.cat(ROWS))  # each row is announced once, in order


def test_the_next_batch_is_read_by_a_thread_while_this_one_is_in_use() -> None:
    source = Watched()
    stream = ahead(source, ROWS, (3, 4), CPU)
    for number, batch_BRC in enumerate(stream):
        for _ in range(500):  # up to 5 s for the thread to have read one more, and it must not read two
            if len(source.read_by) == min(number + 2, len(ROWS)):
                break
            threading.Event().wait(0.01)
        assert len(source.read_by) == min(number + 2, len(ROWS))
        assert torch.equal(batch_BRC, TABLE_NRC[ROWS[number]])  # still untouched
    assert threading.get_ident() not in source.read_by


def test_gradients_through_reused_memory_are_right() -> None:
    weight = torch.randn(4, 2, requires_grad=True)
    for stream in (in_turn(MemoryRows(TABLE_NRC), ROWS, (3, 4)), ahead(MemoryRows(TABLE_NRC), ROWS, (3, 4), CPU)):
        weight.grad = None
        for batch_BRC in stream:
            (batch_BRC @ weight).square().sum().backward()
        expected = 2 * sum(
            (TABLE_NRC[row_B] @ weight).flatten(0, 1).T @ TABLE_NRC[row_B].flatten(0, 1) for row_B in ROWS
        )
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, expected.T.detach())


def test_memory_that_backward_still_needs_is_not_overwritten_unnoticed() -> None:
    weight = torch.randn(4, 2, requires_grad=True)
    stream = in_turn(MemoryRows(TABLE_NRC), ROWS, (3, 4))
    loss = (next(stream) @ weight).sum()
    next(stream)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_abandoned_stream_ends_its_thread_and_an_error_comes_out() -> None:
    before = threading.active_count()
    stream = ahead(Watched(), ROWS, (3, 4), CPU)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    source = Watched()
    source.fail_at = 2
    with pytest.raises(OSError, match="the disk is gone"):
        list(ahead(source, ROWS, (3, 4), CPU))
    assert threading.active_count() == before
    assert list(ahead(source, [], (3, 4), CPU)) == []


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", ["float16", "int8"])
@pytest.mark.parametrize("where", ["device", "host", "disk"])
def test_every_residency_streams_what_it_gathers(
    tmp_path: Path, where: str, stored: str, dtype: torch.dtype | None
) -> None:
    caches = [numbered_cache(tmp_path / f"{prefix}.h5", prefix, 25, 25, stored=stored)[0] for prefix in ("a", "b")]
    ids = [f"{prefix}{number}" for number in range(25) for prefix in ("b", "a")]
    table = FeatureTable.load(caches, ids, CPU, where, dtype)
    host = FeatureTable.load(caches, ids, CPU, "host", dtype)
    for row_B, batch in zip(ROWS, table.stream(ROWS), strict=True):
        assert torch.equal(batch.regions_IRC, host.gather(row_B).regions_IRC) and batch.regions_IRC.dtype == table.dtype
    assert table.block_N.tolist() == [0] * 50


def test_what_is_expected_of_a_map_is_asked_for_in_long_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, feature_IRC = numbered_cache(tmp_path / "a.h5", "a", 2000, 2000)
    rows = MappedRows([cache], Source(np.zeros(2000, dtype=np.int64), np.arange(2000)))
    asked: list[tuple[int, int]] = []

    class Mapped:
        def madvise(self, option: int, start: int, length: int) -> None:
            asked.append((start, start + length))

    monkeypatch.setattr(rows, "maps", [Mapped()])
    monkeypatch.setattr("vqa.features.tables.stored_rows.NEAR_BYTES", 100 * cache.row_bytes)
    rows.expect(torch.tensor([1999, 5, 80, 5, 180, 900]))
    wanted = [(5, 180), (900, 900), (1999, 1999)]
    assert len(asked) == len(wanted)
    for (start, stop), (first, last) in zip(asked, wanted, strict=True):
        assert start <= cache.offset + first * cache.row_bytes < start + 65536 and start % 4096 == 0
        assert stop == cache.offset + (last + 1) * cache.row_bytes
    out_BRC = torch.empty(2, 3, 4, dtype=torch.float16)
    rows.read(torch.tensor([1999, 0]), out_BRC)
    assert torch.equal(out_BRC, torch.from_numpy(feature_IRC[[1999, 0]]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_that_is_behind_never_sees_a_later_batch() -> None:
    device = torch.device("cuda")
    table_NRC = torch.randn(20_000, 49, 64)
    rows = [torch.randint(0, 20_000, (512,)) for _ in range(40)]
    busy = torch.randn(4096, 4096, device=device)
    sums = []
    for batch_BRC in ahead(MemoryRows(table_NRC), rows, (49, 64), device):
        for _ in range(5):  # the GPU falls behind the host, so that a missing wait would show
            busy = (busy @ busy).clamp(-1, 1)
        sums.append(batch_BRC.double().sum(dim=(1, 2)))
    for row_B, found in zip(rows, sums, strict=True):
        assert torch.equal(found.cpu(), table_NRC[row_B].to(device).double().sum(dim=(1, 2)).cpu())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("where", ["device", "host", "disk"])
def test_streams_to_a_gpu_hold_what_the_cache_holds(tmp_path: Path, where: str) -> None:
    cache: FeatureCache
    cache, feature_IRC = numbered_cache(tmp_path / "a.h5", "a", 50, 50)
    table = FeatureTable.load([cache], [f"a{i}" for i in range(50)], torch.device("cuda"), where, torch.float32)
    for row_B, batch in zip(ROWS, table.stream(ROWS), strict=True):
        assert torch.equal(batch.regions_IRC.cpu(), torch.from_numpy(feature_IRC)[row_B].float())
