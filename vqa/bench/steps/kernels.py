"""What training steps make a device do: where their time goes, kernels and launches, waits of the host, peak memory.

On a CPU there are no kernels, launches or waits for a device; there they are None, never 0.
"""

import os
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from vqa.bench.bounds import wait

COSTLIEST = 5
COPIES = ("Memcpy", "Memset")  # beside the kernels, on the device
# The calls that give a device something to do, as the profiler names them; one launch of a graph is one call.
LAUNCHES = (
    "cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cuGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync",
)  # fmt: skip
WAITED = "called a synchronizing CUDA operation"  # torch's warning in sync debug mode


class ProfiledEvent(Protocol):
    """What is read of one row of torch's profiler."""

    key: str
    count: int
    is_user_annotation: bool
    device_type: DeviceType
    self_cpu_time_total: float
    self_device_time_total: float


class TimeShares(NamedTuple):
    """Shares of the time from the first to the last step.

    Attributes:
        busy: in which kernels ran (on a CPU: operators); the rest is waiting, launching and Python.
        costliest: of the kernels (operators) that took most, most first.
        kernels: how many ran; None on a CPU.
        launches: calls of the host that started kernels, copies or graphs; None on a CPU.
    """

    busy: float
    costliest: dict[str, float]
    kernels: int | None = None
    launches: int | None = None


def time_spent(work: Callable[[], object], device: torch.device) -> TimeShares:
    """Run the work under torch's profiler, which makes many small operators look a little slower than they are."""
    gpu = device.type == "cuda"
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or it writes to the terminal when it begins and ends
    wait(device)
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as seen:
        started = time.perf_counter()
        work()
        wait(device)
        took = time.perf_counter() - started
    return shares(seen.key_averages(), took, gpu=gpu)


def shares(events: Iterable[ProfiledEvent], took: float, *, gpu: bool) -> TimeShares:
    """What the profiler's rows say of so many seconds."""
    microseconds: dict[str, float] = defaultdict(float)
    kernels = launches = 0
    for event in events:
        name = kernel_family(event.key)
        if gpu and event.device_type != DeviceType.CUDA:
            launches += event.count * name.startswith(LAUNCHES)
            continue
        # a span of ours or torch's covers kernels that are listed themselves; copies run beside the kernels
        if event.is_user_annotation or name.startswith(COPIES):
            continue
        kernels += event.count
        microseconds[name] += event.self_device_time_total if gpu else event.self_cpu_time_total
    most = sorted(microseconds.items(), key=lambda one: -one[1])[:COSTLIEST]
    costliest = {name: spent / 1e6 / took for name, spent in most}
    busy = sum(microseconds.values()) / 1e6 / took
    return TimeShares(busy, costliest, kernels, launches) if gpu else TimeShares(busy, costliest)


def kernel_family(name: str) -> str:
    """A kernel's name without its C++ template and arguments: `void at::native::reduce<512, …>(…)` is one `reduce`."""
    short = name.replace("(anonymous namespace)::", "").removeprefix("void ")
    return short.split("<")[0].split("(")[0].strip()


def count_waits(work: Callable[[], object], device: torch.device) -> int | None:
    """How often the work made the host wait for the device, as far as torch notices it; None, and not run, on a CPU.

    Torch notices copies to the host and operations whose result's size depends on values, but not the waits that a
    program asks for by name (`torch.cuda.synchronize`, events).
    """
    if device.type != "cuda":
        return None
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        return count_warnings(work)
    finally:
        torch.cuda.set_sync_debug_mode(before)


def count_warnings(work: Callable[[], object]) -> int:
    """How many of torch's warnings about waits the work raised; other warnings are raised again."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        work()
    for one in seen:
        if WAITED not in str(one.message):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return sum(WAITED in str(one.message) for one in seen)


def peak_device_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """Run the work; the most bytes of tensors on a GPU meanwhile, what lay there before included; None on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    work()
    wait(device)
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
