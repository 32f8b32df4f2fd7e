"""Number types inside a model: what recurrent layers compute in, and one 16-bit type under autocast.

On CUDA torch's autocast runs every LSTM and GRU of cuDNN in float16, whatever type it was asked for, and their small
gradients vanish there without loss scaling. So a recurrent layer leaves autocast and computes in a type that is stated.

Legend: `B` batch, `T` tokens, `D` any width.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence

Sequences = TypeVar("Sequences", Tensor, PackedSequence)
HALVES = (torch.float16, torch.bfloat16)


def autocast_type(values: Tensor) -> torch.dtype | None:
    """What autocast computes in where the values are; None where it is off."""
    kind = values.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def in_autocast_type(values: Tensor) -> Tensor:
    """Values of another 16-bit type than autocast's made its own; the two together would become float32 in silence."""
    kind = autocast_type(values)
    return values.to(kind) if kind is not None and values.dtype in HALVES else values


def set_recurrent_type(model: nn.Module, kind: torch.dtype | None) -> None:
    """State what every LSTM and GRU of a model computes in; None leaves it to `run_recurrent`."""
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.number_type = kind


def run_recurrent(layer: nn.LSTM | nn.GRU, values: Sequences) -> tuple[Sequences, tuple[Tensor, ...]]:
    """Run a recurrent layer in its stated type (`set_recurrent_type`), by default on CUDA in that of its weights.

    On a CPU the default is whatever autocast says.

    Args:
        values: float `[B, T, D]`, or packed.

    Returns:
        The outputs and the final states, in the type that other layers give: autocast's, or else that of `values`.
    """
    data = values.data if isinstance(values, PackedSequence) else values
    around, weights = autocast_type(data), layer.get_parameter("weight_ih_l0").dtype
    kind: torch.dtype | None = getattr(layer, "number_type", None)
    if kind is None and around is not None and data.device.type == "cuda":
        kind = weights
    if kind is None:
        output, final = layer(values)
        return output, _states(final)
    outside: AbstractContextManager[Any] = nullcontext()
    if around is not None:
        outside = torch.autocast(data.device.type, enabled=False)
    with outside:
        if kind == weights:
            output, final = layer(_as(values, kind))
        else:
            converted = {name: weight.to(kind) for name, weight in layer.named_parameters()}
            output, final = functional_call(layer, converted, (_as(values, kind),))
    given = around or data.dtype
    return _as(output, given), tuple(state.to(given) for state in _states(final))


def _as(values: Sequences, kind: torch.dtype) -> Sequences:
    if isinstance(values, PackedSequence):
        return values._replace(data=values.data.to(kind))
    return values.to(kind)


def _states(final: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    return final if isinstance(final, tuple) else (final,)
