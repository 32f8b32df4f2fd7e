"""cuDNN's recurrent layers count as the same layers do when they are written out in matrix products."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode

from vqa.bench.bounds import CUDNN_RNN, CUDNN_RNN_BACKWARD, flop_counter, step_flops

KINDS: dict[str, tuple[Callable[..., nn.RNNBase], int]] = {"lstm": (nn.LSTM, 2), "gru": (nn.GRU, 3), "rnn": (nn.RNN, 1)}


class CuDNNShapes(TorchDispatchMode):
    """Answers cuDNN's two operations with tensors of the right shapes, without a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is CUDNN_RNN.default:
            values, weights, hidden, cell, both = args[0], args[1], args[4], args[5], 1 + args[13]
            width = (args[8] or args[7]) * both
            output, reserve = values.new_empty(*values.shape[:-1], width), values.new_empty(1)
            return output, hidden.clone(), values.new_empty(0) if cell is None else cell.clone(), reserve, reserve
        if func is CUDNN_RNN_BACKWARD.default:
            values, weights, hidden, cell = args[0], args[1], args[4], args[5]
            return values.clone(), hidden.clone(), cell, [one.clone() for one in weights]
        return func(*args, **(kwargs or {}))


def cudnn_flops(layer: nn.RNNBase, values: Tensor, batch_sizes: list[int], questions: int, mode: int) -> int:
    """Of a forward and backward pass through cuDNN's operations, on the meta device."""
    layer, values = layer.to("meta"), values.to("meta").requires_grad_()
    both = 1 + layer.bidirectional
    hidden = torch.zeros(layer.num_layers * both, questions, layer.proj_size or layer.hidden_size, device="meta")
    cell = torch.zeros(layer.num_layers * both, questions, layer.hidden_size, device="meta") if mode == 2 else None
    weights = list(layer.parameters())
    with CuDNNShapes(), flop_counter() as counter:
        output, *_ = CUDNN_RNN(
            values, weights, len(weights) // (layer.num_layers * both), torch.empty(0, device="meta"), hidden, cell,
            mode, layer.hidden_size, layer.proj_size, layer.num_layers, True, 0.0, True, layer.bidirectional,
            batch_sizes, None,
        )  # fmt: skip
        output.sum().backward()
    return int(counter.get_total_flops())


def states(layer: nn.RNNBase, questions: int) -> Any:
    """First states that want a gradient, as every later one does."""
    both = 1 + layer.bidirectional
    hidden = torch.zeros(layer.num_layers * both, questions, layer.proj_size or layer.hidden_size, requires_grad=True)
    cell = torch.zeros(layer.num_layers * both, questions, layer.hidden_size, requires_grad=True)
    return (hidden, cell) if isinstance(layer, nn.LSTM) else hidden


@given(
    kind=st.sampled_from(sorted(KINDS)),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    packed=st.booleans(),
    layers=st.integers(1, 3),
    both=st.booleans(),
    widths=st.tuples(st.integers(1, 9), st.integers(2, 9)),
    projected=st.booleans(),
)
@settings(max_examples=30)
def test_cudnn_counts_as_the_same_layer_in_matrix_products(
    kind: str, lengths: list[int], packed: bool, layers: int, both: bool, widths: tuple[int, int], projected: bool
) -> None:
    make, mode = KINDS[kind]
    options = {"proj_size": widths[1] - 1} if projected and kind == "lstm" else {}
    layer = make(*widths, layers, batch_first=True, bidirectional=both, **options)
    values_BTD = torch.randn(len(lengths), max(lengths), widths[0], requires_grad=True)
    given: Tensor | PackedSequence = values_BTD
    flat, batch_sizes = values_BTD, []
    if packed:
        given = pack_padded_sequence(values_BTD, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        flat, batch_sizes = given.data, given.batch_sizes.tolist()

    def loss() -> Tensor:
        output = layer(given, states(layer, len(lengths)))[0]
        return (output.data if packed else output).sum()

    expected = step_flops(loss)
    assert expected > 0
    assert cudnn_flops(layer, flat.detach(), batch_sizes, len(lengths), mode) == expected


def test_frozen_weights_cost_no_gradient_of_theirs() -> None:
    layer = nn.LSTM(8, 16, batch_first=True)
    values = torch.randn(4, 5, 8)
    whole = cudnn_flops(layer, values, [], 4, 2)
    assert cudnn_flops(layer.requires_grad_(False), values, [], 4, 2) * 3 == whole * 2


def test_flops_of_an_lstm_step_are_those_of_its_matrix_products() -> None:
    lstm, values = nn.LSTM(8, 16, batch_first=True), torch.randn(4, 5, 8, requires_grad=True)
    forward = 2 * 4 * 5 * (8 + 16) * 4 * 16
    assert step_flops(lambda: lstm(values)[0].sum()) == pytest.approx(3 * forward, rel=0.1)  # twice as much backward
