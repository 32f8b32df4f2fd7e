"""Small pieces that several fusions share.

Legend: `B` batch, `R` regions, `C` channels, `D` any width, `H` hops, heads or glimpses.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vqa.models.dropout import FastDropout


def projection(in_dim: int, out_dim: int, dropout: float) -> nn.Sequential:
    """Dropout, linear, tanh: one side of the plain fusions."""
    return nn.Sequential(FastDropout(dropout), nn.Linear(in_dim, out_dim), nn.Tanh())


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision made float32; float32 and float64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def pool_regions(image_BRC: Tensor, *, normalise: bool = False) -> Tensor:
    """The mean region, `[B, C]`; with `normalise` scaled to length 1 (an image of zeros stays zeros)."""
    image_BC = image_BRC.mean(dim=1)
    return unit_length(image_BC) if normalise else image_BC


def unit_length(values: Tensor) -> Tensor:
    """Scaled to length 1 over the last dimension; zeros stay zeros."""
    # a sum of thousands of squares overflows float16
    precise = torch.promote_types(values.dtype, torch.float32)
    return values / torch.linalg.vector_norm(values, dim=-1, keepdim=True, dtype=precise).clamp(min=1e-6).to(
        values.dtype
    )


def attend(logit_BHR: Tensor, image_BRD: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the regions, then the weighted sum of the regions.

    Returns:
        The sums `[B, H, D]` in the type of the image, and the weights `[B, H, R]` in float32 or better.
    """
    attention_BHR = at_least_float32(logit_BHR).softmax(dim=-1)
    return attention_BHR.to(image_BRD.dtype) @ image_BRD, attention_BHR


class GatedTanh(nn.Module):
    """Gated tanh of Teney et al. 2018 (arXiv 1708.02711): tanh(W x + b) * sigmoid(W' x + b')."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.value = nn.Linear(in_dim, out_dim)
        self.gate = nn.Linear(in_dim, out_dim)

    def forward(self, values: Tensor) -> Tensor:
        return torch.tanh(self.value(values)) * torch.sigmoid(self.gate(values))


def in_turns(function: Callable[..., Tensor], rows: int, *values_BD: Tensor) -> Tensor:
    """`function` on `rows` rows of every tensor at a time, the results one below another.

    With more than one turn, each is computed again when going backward, so that what one turn needs inside exists for
    one turn only.
    """
    if len(values_BD[0]) <= rows:
        return function(*values_BD)
    turns = zip(*(values.split(rows) for values in values_BD), strict=True)
    return torch.cat([checkpoint(function, *turn, use_reentrant=False) for turn in turns])


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of `[N, D]` that takes its running statistics where a training batch has a single row."""

    def forward(self, values_ND: Tensor) -> Tensor:
        if self.training and len(values_ND) == 1:
            return F.batch_norm(values_ND, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(values_ND)


def power_normalise(values: Tensor) -> Tensor:
    """Signed square root, then scaled to length 1 over the last dimension, as bilinear pooling ends.

    The root is z / sqrt(|z| + 1e-8): at zero sign(z) sqrt(|z|) has no finite gradient.
    """
    precise = at_least_float32(values)
    rooted = precise / (precise.abs() + 1e-8).sqrt()
    return F.normalize(rooted, dim=-1, eps=1e-6).to(values.dtype)
