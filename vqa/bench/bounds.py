"""What the machine allows: measured rates of multiplying matrices and of copying memory."""

import time
from collections.abc import Callable

import torch

SECONDS = 0.6  # spent on measuring each rate, once at least


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, the device waited for."""
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    """Until a GPU has done everything that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The fastest of several calls: what the machine can do when nothing disturbs it."""
    timed(work, device)
    best, spent = float("inf"), 0.0
    while not spent or spent < SECONDS:
        seconds = timed(work, device)
        best, spent = min(best, seconds), spent + seconds
    return best


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a large square matrix product."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return 2 * side**3 / best_seconds(lambda: torch.matmul(left, right, out=out), device)


def copy_rate(device: torch.device, *, size: int = 1 << 28) -> float:
    """Bytes/s of copying within the device's memory (each byte is read once and written once)."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    into = torch.empty_like(source)
    return size / best_seconds(lambda: into.copy_(source), device)
