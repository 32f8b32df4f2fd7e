"""Several processes share one table; the last one removes it, and what killed ones left is removed too."""

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.features import numbered_cache
from helpers.training import PROJECT

from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.tables import residency
from vqa.features.tables import shared_memory as shared
from vqa.features.tables.feature_table import FeatureTable
from vqa.locks import hold

CPU = torch.device("cpu")
IDS = [f"a{number}" for number in range(40)]
CHILD = """
import sys, torch
from pathlib import Path
from vqa.features.tables import shared_memory as shared
from vqa.features.cache.reader import FeatureCache
from vqa.features.tables.feature_table import FeatureTable
shared.SHARED_MEMORY = Path(sys.argv[2])
ids = [f"a{number}" for number in range(40)]
table = FeatureTable.load([FeatureCache(Path(sys.argv[1]))], ids, torch.device("cpu"), "auto", torch.bfloat16)
print(table.reason, "|", float(table.gather(torch.arange(40)).regions_IRC.double().sum()), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return numbered_cache(tmp_path / "a.h5", "a", 40, 40)[0]


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(shared, "SHARED_MEMORY", folder)
    return folder


def tables(memory: Path) -> list[Path]:
    return sorted(memory.glob("*.table"))


def start(cache: FeatureCache, memory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(cache.path), str(memory)], text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env={"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip


def said(process: subprocess.Popen[str]) -> tuple[str, float]:
    assert process.stdout is not None
    reason, total = process.stdout.readline().split("|")
    return reason, float(total)


def test_two_processes_have_one_table_and_the_last_removes_it(cache: FeatureCache, memory: Path) -> None:
    processes = [start(cache, memory) for _ in range(2)]
    (reason, total), (other_reason, other_total) = (said(process) for process in processes)
    assert "one copy for all processes" in reason and "one copy for all processes" in other_reason
    plain = FeatureTable.load([cache], IDS, CPU, "host", torch.bfloat16)
    assert total == other_total == float(plain.gather(torch.arange(40)).regions_IRC.double().sum())
    (table,) = tables(memory)
    assert table.stat().st_size == 40 * 3 * 4 * 2
    for process in processes:
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert str(table) in maps  # the very file, no copy
    processes[0].communicate("\n")
    assert tables(memory) == [table]
    processes[1].communicate("\n")
    assert tables(memory) == [] and [process.returncode for process in processes] == [0, 0]


def test_what_a_killed_process_left_is_removed_by_the_next(cache: FeatureCache, memory: Path) -> None:
    process = start(cache, memory)
    said(process)
    process.kill()
    process.communicate()
    assert len(tables(memory)) == 1
    other = FeatureTable.load([cache], IDS[:7], CPU, "host", torch.bfloat16, share=True)
    (table,) = tables(memory)
    assert table.stat().st_size == 7 * 3 * 4 * 2
    del other
    gc.collect()
    assert tables(memory) == []


def test_a_shared_table_is_the_same_and_a_changed_cache_another(cache: FeatureCache, memory: Path) -> None:
    one = FeatureTable.load([cache], IDS, CPU, "auto", torch.float32, share=True)
    two = FeatureTable.load([cache], IDS, CPU, "auto", torch.float32, share=True)
    plain = FeatureTable.load([cache], IDS, CPU, "auto", torch.float32, share=False)
    assert len(tables(memory)) == 1 and "one copy" in one.reason and "one copy" not in plain.reason
    rows = [torch.tensor([3, 39, 0]), torch.tensor([5])]
    for batches in zip(one.stream(rows), two.stream(rows), plain.stream(rows), strict=True):
        first, second, third = (batch.regions_IRC for batch in batches)
        assert torch.equal(first, third) and torch.equal(second, third)
    cache.path.touch()
    FeatureTable.load([cache], IDS, CPU, "auto", torch.float32, share=True)
    assert len(tables(memory)) == 1  # the other was let go at once
    assert len({table.name for table in tables(memory)}) == 1


def test_the_second_process_counts_the_table_that_is_there_as_free(
    cache: FeatureCache, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FeatureTable.load([cache], IDS, CPU, "auto", share=True)
    monkeypatch.setattr(residency, "available_memory", lambda: 40 * 3 * 4)  # half of what a second one would take
    assert FeatureTable.load([cache], IDS, CPU, "auto", share=True).residency == first.residency == "host"
    assert FeatureTable.load([cache], IDS, CPU, "auto", share=False).residency == "disk"


class WatchedCache(FeatureCache):
    """Notes whether another process could enter while its rows are read."""

    kept_out: list[bool]

    def read_into(self, *arguments: Any) -> None:
        path = next(shared.SHARED_MEMORY.glob("*.lock"))
        with path.open() as file:
            self.kept_out.append(not hold(file.fileno()))
        super().read_into(*arguments)


@pytest.mark.parametrize(("room", "alone"), [(1 << 60, False), (0, True)])
def test_only_a_shared_table_is_made_by_one_process_at_a_time(
    cache: FeatureCache, memory: Path, monkeypatch: pytest.MonkeyPatch, room: int, alone: bool
) -> None:
    """Processes that have a table each, such as eight that fill eight GPUs, do not wait for each other."""
    monkeypatch.setattr(shared, "SPARE_BYTES", room)
    watched = WatchedCache(cache.path)
    watched.kept_out = []
    table = FeatureTable.load([watched], IDS, CPU, "host", share=True)
    assert watched.kept_out == [alone] and ("one copy" in table.reason) == alone


def test_too_little_shared_memory_means_a_copy_each_and_says_so(
    cache: FeatureCache, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(shared, "SPARE_BYTES", 1 << 60)
    size = 40 * 3 * 4 * 2
    monkeypatch.setattr(residency, "available_memory", lambda: 3 * size)
    table = FeatureTable.load([cache], IDS, CPU)
    assert table.residency == "host" and tables(memory) == []
    assert "for each of 2 processes" in table.reason and "GB free" in table.reason
    monkeypatch.setattr(residency, "available_memory", lambda: 2 * size)  # two do not fit into 80% of that
    assert FeatureTable.load([cache], IDS, CPU).residency == "disk"
    with pytest.raises(InputError, match=r"needs .* for each of 2 processes"):
        FeatureTable.load([cache], IDS, CPU, "host")
