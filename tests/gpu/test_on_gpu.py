"""What the benchmarks count on a GPU is what it did; skipped without one."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from gpu.checks import waits_are_errors
from vqa.bench.bounds import step_flops
from vqa.bench.steps.kernels import count_waits, peak_device_memory, time_spent

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU, CPU = torch.device("cuda"), torch.device("cpu")


def test_kernels_and_launches_of_a_gpu_are_counted() -> None:
    values = torch.ones(1000, device=GPU)

    def work() -> None:
        for _ in range(5):
            values.add_(1)

    work()
    spent = time_spent(work, GPU)
    assert spent.kernels == 5 and spent.launches == 5
    assert 0 < spent.busy < 1


def test_waits_for_a_gpu_are_counted_and_raise_where_they_are_errors() -> None:
    values = torch.ones(1000, device=GPU)
    assert count_waits(lambda: values.add_(1), GPU) == 0
    assert count_waits(lambda: [values.sum().item() for _ in range(3)], GPU) == 3
    with pytest.raises(RuntimeError, match="synchronizing"), waits_are_errors(GPU):
        values.sum().item()
    assert torch.cuda.get_sync_debug_mode() == 0


def test_peak_memory_of_a_gpu_is_that_of_the_work() -> None:
    before = torch.cuda.memory_allocated()
    peak = peak_device_memory(lambda: torch.ones(64 << 20, dtype=torch.uint8, device=GPU).sum(), GPU)
    assert peak is not None and 64 << 20 <= peak - before < 96 << 20


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_flops_of_a_gpu_are_those_of_the_cpu(kind: Callable[..., nn.RNNBase], packed: bool) -> None:
    lengths = [5, 3, 2, 5]

    def flops(device: torch.device) -> int:
        layer = kind(8, 16, 2, batch_first=True).to(device)
        values_BTD = torch.randn(4, 5, 8, device=device, requires_grad=True)
        given: Tensor | PackedSequence = values_BTD
        if packed:
            given = pack_padded_sequence(values_BTD, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        first = torch.zeros(2, 4, 16, device=device, requires_grad=True)
        states = (first, first.detach().clone().requires_grad_()) if kind is nn.LSTM else first

        def loss() -> Tensor:
            output = layer(given, states)[0]
            return (output.data if packed else output).sum()

        return step_flops(loss)

    assert flops(GPU) == flops(CPU) > 0
