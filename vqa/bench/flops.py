"""The arithmetic of a training step: what torch's own counter counts, and the recurrent layers that it does not know.

A GPU runs a whole LSTM or GRU as one cuDNN operation, which torch counts as no FLOPs at all. Its matrix products follow
from its sizes: every token meets every weight matrix of every layer and direction once.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

Shape = Sequence[int]


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


RECURRENT = {
    torch.ops.aten._cudnn_rnn: _cudnn_forward,
    torch.ops.aten._cudnn_rnn_backward: _cudnn_backward,
}


def flop_counter() -> FlopCounterMode:
    """Counts what torch's own counter counts, and cuDNN's recurrent layers."""
    return FlopCounterMode(display=False, custom_mapping=RECURRENT)


def step_flops(forward_loss: Callable[[], Tensor]) -> int:
    """FLOPs of one forward and backward pass.

    oneDNN's LSTM counts as no FLOPs at all, so on a CPU it is taken apart into matrix products for counting.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration")  # said wherever oneDNN is switched
        with torch.backends.mkldnn.flags(enabled=False), flop_counter() as counter:
            forward_loss().backward()
    return int(counter.get_total_flops())
