"""What the machine allows, measured rates of multiplying matrices and of copying memory; and the work of a model.

A GPU runs a whole LSTM or GRU as one cuDNN operation, which torch counts as no FLOPs at all. Its matrix products follow
from its sizes: every token meets every weight matrix of every layer and direction once.
"""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

SECONDS = 0.6  # spent on measuring each rate, once at least
CUDNN_RNN, CUDNN_RNN_BACKWARD = torch.ops.aten._cudnn_rnn, torch.ops.aten._cudnn_rnn_backward

Shape = Sequence[int]


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


def recurrent_flops(tokens: int, weights: Sequence[Shape]) -> int:
    """FLOPs of a recurrent layer's forward pass, a multiplication and an addition counted as two.

    Args:
        tokens: of all questions, padding included where it is computed.
        weights: the shapes of its parameters; biases, which have one dimension, count nothing.
    """
    return sum(2 * tokens * math.prod(shape) for shape in weights if len(shape) > 1)


def _cudnn_forward(input_shape: Shape, weights: Sequence[Shape], *_: Any, out_shape: Any = None) -> int:
    """The arguments are those of `aten::_cudnn_rnn`; a packed batch comes as one row a token."""
    return recurrent_flops(math.prod(input_shape[:-1]), weights)


def _cudnn_backward(input_shape: Shape, weights: Sequence[Shape], *rest: Any, out_shape: Any = None) -> int:
    """Once more for the gradients of inputs and states, and again for those of the weights where they are wanted."""
    output_mask = rest[-1]  # of input, first hidden and cell states, weights
    return (1 + bool(output_mask[3])) * recurrent_flops(math.prod(input_shape[:-1]), weights)


def flop_counter() -> FlopCounterMode:
    """Counts what torch's own counter counts, and cuDNN's recurrent layers."""
    return FlopCounterMode(
        display=False, custom_mapping={CUDNN_RNN: _cudnn_forward, CUDNN_RNN_BACKWARD: _cudnn_backward}
    )


def step_flops(forward_loss: Callable[[], Tensor]) -> int:
    """FLOPs of one forward and backward pass.

    oneDNN's LSTM counts as no FLOPs at all, so on a CPU it is taken apart into matrix products for counting.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration")  # said wherever oneDNN is switched
        with torch.backends.mkldnn.flags(enabled=False), flop_counter() as counter:
            forward_loss().backward()
    return int(counter.get_total_flops())
