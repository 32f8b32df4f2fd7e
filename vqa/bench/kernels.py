"""What the time of training steps is spent on: kernels of a GPU, operators of a CPU."""

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from vqa.bench.bounds import wait

COSTLIEST = 5


class TimeShares(NamedTuple):
    """Shares of the time from the first to the last step.

    Attributes:
        busy: in which kernels ran (on a CPU: operators); the rest is waiting, launching and Python.
        costliest: of the kernels (operators) that took most, most first.
    """

    busy: float
    costliest: dict[str, float]


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
    microseconds: Counter[str] = Counter()
    for event in seen.key_averages():
        name = kernel_family(event.key)
        # a span of ours or torch's covers kernels that are listed themselves; copies run beside the kernels
        if event.is_user_annotation or name.startswith(("Memcpy", "Memset")):
            continue
        if not gpu:
            microseconds[name] += event.self_cpu_time_total
        elif event.device_type == DeviceType.CUDA:
            microseconds[name] += event.self_device_time_total
    costliest = {name: spent / 1e6 / took for name, spent in microseconds.most_common(COSTLIEST)}
    return TimeShares(microseconds.total() / 1e6 / took, costliest)


def kernel_family(name: str) -> str:
    """A kernel's name without its C++ template and arguments: `void at::native::reduce<512, …>(…)` is one `reduce`."""
    short = name.replace("(anonymous namespace)::", "").removeprefix("void ")
    return short.split("<")[0].split("(")[0].strip()
