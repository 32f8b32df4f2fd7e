"""Transformer layers: multi-head attention, and the layers that `mcan` and the question encoder `transformer` stack.

Source: Vaswani et al. 2017, "Attention Is All You Need" (arXiv 1706.03762): equation 1, multi-head attention, the
position-wise feed-forward network of equation 2, each sublayer followed by LayerNorm(x + dropout(sublayer(x))).

Legend: `B` batch, `T` queries, `S` keys, `D` width, `H` heads, `E` width of a head.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.dropout import FastDropout
from vqa.models.layers import at_least_float32


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention of several heads; the key projection has no bias, softmax would ignore it.

    Raises:
        InputError: dim is not a multiple of heads.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise InputError(
                f"a width of {dim} cannot be shared evenly by {heads} attention heads; hidden_dim must be a "
                "multiple of heads"
            )
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, query_BTD: Tensor, memory_BSD: Tensor, mask_BS: Tensor | None = None) -> Tensor:
        """`[B, T, D]`; where the mask is False nothing is looked at."""
        query_BHTE, key_BHSE, value_BHSE = (
            values.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for values in (self.query(query_BTD), self.key(memory_BSD), self.value(memory_BSD))
        )
        mask_B11S = None if mask_BS is None else mask_BS[:, None, None]
        dropout = self.dropout if self.training else 0.0
        found_BHTE = F.scaled_dot_product_attention(query_BHTE, key_BHSE, value_BHSE, mask_B11S, dropout_p=dropout)
        found_BTD: Tensor = self.output(found_BHTE.transpose(1, 2).flatten(2))
        return found_BTD

    def look(self, query_BTD: Tensor, memory_BSD: Tensor, mask_BS: Tensor | None = None) -> Tensor:
        """Where each head looks, without dropout: `[B, H, T, S]`, in float32 or better.

        Where only a part of the memory is given, it is the attention renormalised over that part.
        """
        query_BHTE, key_BHSE = (
            values.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for values in (self.query(query_BTD), self.key(memory_BSD))
        )
        logit_BHTS = at_least_float32(query_BHTE @ key_BHSE.mT) / query_BHTE.shape[-1] ** 0.5
        if mask_BS is not None:
            logit_BHTS = logit_BHTS.masked_fill(~mask_BS[:, None, None], -torch.inf)
        return logit_BHTS.softmax(dim=-1)


class DeviationNorm(nn.Module):
    """Layer normalisation as MCAN's released code has it: w (x - mean) / (s + 1e-6) + b, s of N - 1.

    torch's own divides by sqrt(variance + 1e-5) instead, the variance of N.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, values: Tensor) -> Tensor:
        """Of any shape, normalised over the last dimension."""
        precise = values.to(torch.promote_types(values.dtype, torch.float32))
        centred = precise - precise.mean(dim=-1, keepdim=True)
        # of equal numbers the root has no finite gradient; 1e-24 changes no s that counts beside 1e-6
        variance = centred.square().sum(dim=-1, keepdim=True) / (values.shape[-1] - 1)
        return (self.weight * centred / ((variance + 1e-24).sqrt() + 1e-6) + self.bias).to(values.dtype)


Norm = Callable[[int], nn.Module]  # a normalisation of so many numbers


class Residual(nn.Module):
    """Norm(x + dropout(sublayer output))."""

    def __init__(self, dim: int, dropout: float, norm: Norm = nn.LayerNorm) -> None:
        super().__init__()
        self.dropout = FastDropout(dropout)
        self.norm = norm(dim)

    def forward(self, values_BTD: Tensor, change_BTD: Tensor) -> Tensor:
        normed_BTD: Tensor = self.norm(values_BTD + self.dropout(change_BTD))
        return normed_BTD


def feed_forward(dim: int, hidden_dim: int, dropout: float) -> nn.Sequential:
    """Linear, ReLU, dropout, linear."""
    return nn.Sequential(nn.Linear(dim, hidden_dim), nn.ReLU(), FastDropout(dropout), nn.Linear(hidden_dim, dim))


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward (the SA unit of MCAN)."""

    def __init__(self, dim: int, heads: int, feed_forward_dim: int, dropout: float, norm: Norm = nn.LayerNorm) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads, dropout)
        self.after_attention = Residual(dim, dropout, norm)
        self.feed_forward = feed_forward(dim, feed_forward_dim, dropout)
        self.after_feed_forward = Residual(dim, dropout, norm)

    def forward(self, values_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        values_BTD = self.after_attention(values_BTD, self.attention(values_BTD, values_BTD, mask_BT))
        result_BTD: Tensor = self.after_feed_forward(values_BTD, self.feed_forward(values_BTD))
        return result_BTD


class DecoderLayer(nn.Module):
    """Self-attention, attention to a memory, then feed-forward (the SGA unit of MCAN)."""

    def __init__(self, dim: int, heads: int, feed_forward_dim: int, dropout: float, norm: Norm = nn.LayerNorm) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads, dropout)
        self.after_attention = Residual(dim, dropout, norm)
        self.guided = MultiHeadAttention(dim, heads, dropout)
        self.after_guided = Residual(dim, dropout, norm)
        self.feed_forward = feed_forward(dim, feed_forward_dim, dropout)
        self.after_feed_forward = Residual(dim, dropout, norm)

    def forward(
        self, values_BTD: Tensor, memory_BSD: Tensor, mask_BS: Tensor | None, mask_BT: Tensor | None = None
    ) -> Tensor:
        """`[B, T, D]`; where a mask is False nothing is looked at."""
        values_BTD = self.after_attention(values_BTD, self.attention(values_BTD, values_BTD, mask_BT))
        values_BTD = self.after_guided(values_BTD, self.guided(values_BTD, memory_BSD, mask_BS))
        result_BTD: Tensor = self.after_feed_forward(values_BTD, self.feed_forward(values_BTD))
        return result_BTD
