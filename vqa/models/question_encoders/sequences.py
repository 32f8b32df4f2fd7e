"""Masks, pooling over real tokens, windows and recurrent layers: what several question encoders share.

Legend: `B` batch, `T` tokens, `D` any width, `N` width of a window.
"""

from itertools import chain, repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from vqa.models.dropout import FastDropout
from vqa.models.precision import run_recurrent
from vqa.runtime.transfer import to_device


def token_mask(tokens_BT: Tensor, length_B: Tensor) -> Tensor:
    """bool `[B, T]`, True on the first `length_B` tokens; lengths in host memory make nothing wait."""
    rows, tokens = tokens_BT.shape[:2]
    if known_full(length_B, tokens):  # nothing to copy
        return torch.ones(rows, tokens, dtype=torch.bool, device=tokens_BT.device)
    places_T = torch.arange(tokens, device=tokens_BT.device)
    return places_T < to_device(length_B, tokens_BT.device)[:, None]


def known_full(length_B: Tensor, tokens: int) -> bool:
    """Whether the host knows, without asking a GPU, that no question of a batch is padded to so many tokens."""
    return length_B.device.type == "cpu" and len(length_B) > 0 and int(length_B.min()) >= tokens


def padded(tokens_BT: Tensor, length_B: Tensor, to: int, front: bool) -> tuple[Tensor, Tensor]:
    """Questions of exactly `to` tokens, the padding counted as words: int64 `[B, to]`, and lengths that are all `to`.

    Longer questions are cut.

    Args:
        front: the padding stands before the words, else behind them.
    """
    length_B = length_B.clamp(max=to)
    whole_B = torch.full_like(length_B, to)
    tokens_BT = F.pad(tokens_BT[:, :to], (0, max(0, to - tokens_BT.shape[1])))
    if front and length_B.device.type == "cpu" and bool((length_B == length_B[:1]).all()):  # nothing to copy
        tokens_BT = tokens_BT.roll(to - int(length_B[0]), dims=1)
    elif front:
        shift_B1 = to_device(to - length_B, tokens_BT.device)[:, None]
        # where a question's token now is; its padding, which is behind it, comes round to the front
        place_BT = (torch.arange(to, device=tokens_BT.device) - shift_B1) % to
        tokens_BT = tokens_BT.gather(1, place_BT)
    return tokens_BT, whole_B


def keep(values_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Zeros where the mask is False."""
    return values_BTD.masked_fill(~mask_BT[:, :, None], 0.0)


def masked_mean(values_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean over the tokens where the mask is True, `[B, D]`."""
    return keep(values_BTD, mask_BT).sum(dim=1) / mask_BT.sum(dim=1, keepdim=True).to(values_BTD.dtype)


def masked_max(values_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The maximum over the tokens where the mask is True, `[B, D]`."""
    return values_BTD.masked_fill(~mask_BT[:, :, None], -torch.inf).amax(dim=1)


def windows(values_BTD: Tensor, width: int) -> Tensor:
    """For every token the `width` tokens from it on side by side, zeros after the end, `[B, T, width * D]`."""
    tokens, dim = values_BTD.shape[1:]
    reached = min(width, tokens)  # from there on all is after the end
    padded_BTD = F.pad(values_BTD, (0, 0, 0, reached - 1))
    inside_BTD = torch.cat([padded_BTD[:, start : start + tokens] for start in range(reached)], dim=-1)
    return inside_BTD if reached == width else F.pad(inside_BTD, (0, (width - reached) * dim))


def pack(values_BTD: Tensor, length_B: Tensor) -> PackedSequence:
    """`pack_padded_sequence` for any order of lengths (in host memory), without making the host wait for a GPU."""
    length_B, order_B = length_B.sort(descending=True)
    order_B, place_B = to_device(torch.stack([order_B, order_B.argsort()]), values_BTD.device).unbind()
    packed = pack_padded_sequence(values_BTD.index_select(0, order_B), length_B, batch_first=True)
    return PackedSequence(packed.data, packed.batch_sizes, order_B, place_B)


def unpack(packed: PackedSequence) -> Tensor:
    """What `pack` has packed, `[B, T, D]`, zeros where padded; torch's own unpacking reads the order from the GPU."""
    assert packed.unsorted_indices is not None
    sorted_BTD, _ = pad_packed_sequence(PackedSequence(packed.data, packed.batch_sizes), batch_first=True)
    return sorted_BTD.index_select(0, packed.unsorted_indices)


class Recurrent(nn.Module):
    """A stack of LSTM or GRU layers that padding cannot disturb.

    Columns that are padding for the whole batch are cut off first, and questions of different lengths run packed.
    Where all lengths are equal, as in length-bucketed batches, the layers run plain, which is faster. Which of the two
    it is depends on the lengths, so they are read on the host: lengths in host memory spare a wait for the GPU.

    Args:
        kind: torch.nn.LSTM or torch.nn.GRU.
        in_dim: width of the input.
        hidden_dim: width of each layer and direction.
        layers: number of layers.
        dropout: between layers.
        bidirectional: run in both directions; outputs and states are twice as wide.
    """

    def __init__(
        self,
        kind: type[nn.LSTM] | type[nn.GRU],
        in_dim: int,
        hidden_dim: int,
        layers: int,
        dropout: float = 0.0,
        *,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        widths = chain([in_dim], repeat(hidden_dim * (2 if bidirectional else 1), layers - 1))
        # single layers, not one module of all: its dropout between layers is slow on a CPU
        self.layers = nn.ModuleList(
            kind(width, hidden_dim, batch_first=True, bidirectional=bidirectional) for width in widths
        )
        self.dropout = FastDropout(dropout)

    @torch.compiler.disable  # the branch depends on the data, and a compiled LSTM is no faster
    def forward(self, values_BTD: Tensor, length_B: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Run over right-padded values.

        Returns:
            The top layer's outputs `[B, T, D]`, zeros where padded, and each layer's final states `[B, D]`: for an LSTM
            hidden, cell, hidden, cell, ... from the bottom up; for a GRU hidden, hidden, ...
        """
        length_B = length_B.cpu()
        tokens, longest = values_BTD.shape[1], int(length_B.max())
        values_BTD = values_BTD[:, :longest]
        packed = pack(values_BTD, length_B) if bool((length_B < longest).any()) else None
        states: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, nn.LSTM | nn.GRU)
            if packed is None:
                values_BTD, finals = run_recurrent(layer, self.dropout(values_BTD) if index else values_BTD)
            else:
                dropped = packed._replace(data=self.dropout(packed.data)) if index else packed
                packed, finals = run_recurrent(layer, dropped)
            states += [torch.cat(directions.unbind(), dim=-1) for directions in finals]
        if packed is not None:
            values_BTD = unpack(packed)
        return F.pad(values_BTD, (0, 0, 0, tokens - longest)), states
