"""Free memory as control groups and containers show it, in both of their layouts; and what allocators say."""

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vqa.errors import InputError
from vqa.runtime import memory
from vqa.runtime.device import require_memory
from vqa.runtime.memory import available_memory, human_bytes, memory_errors_named, memory_sentence, total_memory

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "meminfo").write_text(f"MemTotal: {8 * 1024 * 1024} kB\nMemAvailable: {1024 * 1024} kB\n")
    for name, file in (("CONTROL_GROUPS", "groups"), ("OWN_GROUPS", "own"), ("MEMORY", "meminfo")):
        monkeypatch.setattr(memory, name, tmp_path / file)
    (tmp_path / "groups").mkdir()
    return tmp_path


def limit(folder: Path, names: tuple[str, str], most: str, used: int, statistics: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((names[0], most), (names[1], str(used)), ("memory.stat", statistics)):
        (folder / name).write_text(text + "\n")


NEW, OLD = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_without_limits_it_is_what_the_system_says(machine: Path) -> None:
    assert available_memory() == 1024 * MIB
    limit(machine / "groups", NEW, "max", 0, "")
    assert available_memory() == 1024 * MIB


@pytest.mark.parametrize(
    ("own", "folder", "names", "prefix"),
    [("0::/", "", NEW, ""), ("0::/a/b", "a/b", NEW, ""), ("7:memory:/job", "memory/job", OLD, "total_")],
)
def test_pages_of_files_do_not_count_against_a_limit(
    machine: Path, own: str, folder: str, names: tuple[str, str], prefix: str
) -> None:
    (machine / "own").write_text(f"3:cpu:/x\n{own}\n")
    statistics = f"{prefix}active_file {100 * MIB}\n{prefix}inactive_file {200 * MIB}\nanon 5"
    limit(machine / "groups" / folder, names, str(500 * MIB), 450 * MIB, statistics)
    assert available_memory() == 350 * MIB
    assert total_memory() == 500 * MIB


def test_the_smallest_limit_holds_and_nothing_is_negative(machine: Path) -> None:
    (machine / "own").write_text("0::/a\n")
    limit(machine / "groups", NEW, str(900 * MIB), 100 * MIB, "inactive_file 0")
    limit(machine / "groups" / "a", NEW, str(50 * MIB), 60 * MIB, "inactive_file 0")
    assert available_memory() == 0 and total_memory() == 50 * MIB


def test_a_limit_around_the_own_group_holds(machine: Path) -> None:
    """A batch system limits the job; the group of the process in it has no limit of its own."""
    (machine / "own").write_text("0::/jobs/7/task\n")
    limit(machine / "groups" / "jobs" / "7" / "task", NEW, "max", 10 * MIB, "")
    limit(machine / "groups" / "jobs" / "7", NEW, str(300 * MIB), 100 * MIB, "inactive_file 0")
    assert available_memory() == 200 * MIB
    assert total_memory() == 300 * MIB


HUGE = 10**13
FAILING: dict[str, Callable[[], object]] = {
    "torch's main memory": lambda: torch.empty(HUGE),
    "a tensor of numbers": lambda: torch.arange(HUGE),
    "a copy": lambda: torch.zeros(1).expand(HUGE).contiguous(),
    "a matrix product": lambda: torch.ones(10**6, 1) @ torch.ones(1, 10**8),
    "numpy": lambda: np.empty(HUGE),
    "a product of numpy": lambda: np.ones((10**6, 1)) @ np.ones((1, 10**8)),
    "python": lambda: bytearray(10**16),
    "a list": lambda: [0] * 10**17,
    "a storage that overflows": lambda: torch.empty(10**12, 10**12),
    "the same without data": lambda: torch.empty(10**12, 10**12, device="meta"),
    "a layer": lambda: torch.nn.Linear(10**10, 10**10, device="meta"),
    "a number beyond 64 bits": lambda: torch.empty(10**30),
    "an array that overflows": lambda: np.empty((10**12, 10**12)),
    "a dimension beyond 64 bits": lambda: np.empty(10**30),
    "bytes beyond 64 bits": lambda: bytes(10**30),
}


@pytest.mark.parametrize("what", FAILING)
def test_every_allocator_that_says_no_is_understood(what: str) -> None:
    with pytest.raises(InputError, match=r"^out of memory.*; take less$") as caught, memory_errors_named("take less"):
        FAILING[what]()
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to "
                      "allocate 4096000000000000 bytes. Error code 12"), "out of memory: 4.1 PB more were asked for"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79 GiB "
                                "of which 1.00 GiB is free."), "out of GPU memory: 21.5 GB more were asked for"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out of GPU memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
         "out of GPU memory"),
        (RuntimeError("CUDA error: out of memory"), "out of GPU memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (MemoryError(), "out of memory"),
    ],
)  # fmt: skip
def test_what_was_asked_for_is_said(error: BaseException, sentence: str) -> None:
    assert memory_sentence(error) == sentence


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape '[2]' is invalid for input of size 3"), ValueError("wrong"), KeyError("memory"),
        OSError(errno.ENOENT, "no such file"), TypeError("expected int"), IndexError(""),
    ],
)  # fmt: skip
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    assert memory_sentence(error) is None
    with pytest.raises(type(error)) as caught, memory_errors_named("take less"):
        raise error
    assert caught.value is error


def test_sizes_have_units_that_people_read() -> None:
    sizes = (999, 2_500, 24_700_000_000, 2_284_000 * 10**9, 3 * 10**18, 4 * 10**21)
    assert [human_bytes(size) for size in sizes] == [
        "999 B", "2.5 kB", "24.7 GB", "2.3 PB", "3.0 EB", "4,000.0 EB",
    ]  # fmt: skip


def test_what_does_not_fit_a_device_is_refused_with_both_numbers(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_memory(1024 * MIB, torch.device("cpu"), "this", "lower that")
    with pytest.raises(InputError, match=r"^this needs 1\.1 GB, and 1\.1 GB of main memory are free; lower that$"):
        require_memory(1024 * MIB + 1, torch.device("cpu"), "this", "lower that")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"536\.9 MB of main memory"):
        require_memory(1024 * MIB, torch.device("cpu"), "this", "lower that")
    gpu = {"mem_get_info": (5 * MIB, 9 * MIB), "memory_reserved": 4 * MIB, "memory_allocated": MIB}
    for name, value in gpu.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    require_memory(8 * MIB, torch.device("cuda", 0), "this", "lower that")
    with pytest.raises(InputError, match=r"8\.4 MB of GPU memory are free"):
        require_memory(8 * MIB + 1, torch.device("cuda", 0), "this", "lower that")
