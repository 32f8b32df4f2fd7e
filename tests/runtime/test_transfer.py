"""Copies to a device, and the threads that make them."""

import pytest
import torch
from helpers.gpu import GPU, fake_gpu

from vqa.runtime.transfer import thread_for, to_device
from vqa.training.run_folder import random_states


def test_a_copy_to_a_gpu_is_from_pinned_memory_and_does_not_wait() -> None:
    with fake_gpu() as gpu:
        gpu.strict = True  # which refuses anything else
        assert to_device(torch.arange(3), GPU).device == GPU
        pinned = torch.arange(3).pin_memory()
        assert to_device(pinned[1:], GPU).shape == (2,) and len(gpu.pinned) == 2


def test_on_a_cpu_nothing_is_copied() -> None:
    values = torch.arange(3)
    assert to_device(values, torch.device("cpu")) is values


@pytest.mark.parametrize(("device", "settled"), [("cuda:1", ["cuda:1"]), ("cpu", [])])
def test_a_thread_settles_on_its_device_before_it_works(
    monkeypatch: pytest.MonkeyPatch, device: str, settled: list[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda chosen: said.append(str(chosen)))
    with thread_for(torch.device(device), "features") as thread:
        assert thread.submit(said.copy).result() == settled


def test_random_states_make_no_context_where_no_gpu_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: pytest.fail("made a context"))
    assert list(random_states()) == ["cpu"]
