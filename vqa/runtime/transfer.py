"""Copies from host memory to a device that make nothing wait, and threads that make them."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """The same numbers on a device; to a GPU from pinned memory, so that the host does not wait for its queue.

    A copy from ordinary memory waits, or may wait, even where it was asked not to.
    """
    if device.type == "cuda" and values.device.type == "cpu" and not values.is_pinned():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def thread_for(device: torch.device, name: str) -> ThreadPoolExecutor:
    """One thread that works for a device.

    A new thread begins on GPU 0, where pinning memory alone would make a context of half a gigabyte.
    """
    return ThreadPoolExecutor(1, thread_name_prefix=name, initializer=_settle, initargs=(device,))


def _settle(device: torch.device) -> None:
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
