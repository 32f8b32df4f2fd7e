"""Small pieces that several fusions share.

Legend: `B` batch, `I` distinct images of a batch, `R` regions, `C` channels, `D` any width, `H` hops, heads or
glimpses.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vqa.models.contracts import Image
from vqa.models.dropout import FastDropout

MOST_EMPTY = 8  # places for questions, to one question: beyond that a product an image does not pay


def projection(in_dim: int, out_dim: int, dropout: float) -> nn.Sequential:
    """Dropout, linear, tanh: one side of the plain fusions."""
    return nn.Sequential(FastDropout(dropout), nn.Linear(in_dim, out_dim), nn.Tanh())


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision made float32; float32 and float64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def pool_regions(image: Image, *, normalise: bool = False) -> Tensor:
    """The mean real region of each image, `[I, C]`; with `normalise` scaled to length 1 (zeros stay zeros)."""
    image_IC = mean_region(image.regions_IRC, image.mask_IR)
    return unit_length(image_IC) if normalise else image_IC


def mean_region(image_IRC: Tensor, mask_IR: Tensor | None) -> Tensor:
    """The mean real region, `[I, C]`."""
    if mask_IR is None:
        return image_IRC.mean(dim=1)
    real_IR1 = mask_IR[:, :, None]
    total_IC = at_least_float32(image_IRC.masked_fill(~real_IR1, 0)).sum(dim=1)
    return (total_IC / real_IR1.sum(dim=1)).to(image_IRC.dtype)


def once_an_image(
    compute: Callable[[Tensor], Tensor], values_I: Tensor, image: Image, dropout: nn.Module | None = None
) -> Tensor:
    """`compute` on what each image has, `[I, ...]`, as each question's, `[B, ...]`: computed once an image.

    Dropout masks are a question's own: where they are made, it is computed for each question.

    Args:
        dropout: the module of `compute` that drops out, where `compute` is none itself.
    """
    module = compute if isinstance(compute, nn.Module) else dropout
    if image.row_B is not None and module is not None and drops_out(module):
        return compute(image.of(values_I))
    return image.of(compute(values_I))


def drops_out(module: nn.Module) -> bool:
    """Whether it makes dropout masks now."""
    return any(
        isinstance(layer, FastDropout) and layer.training and layer.dropped_of_256 > 0 for layer in module.modules()
    )


def unit_length(values: Tensor) -> Tensor:
    """Scaled to length 1 over the last dimension; zeros stay zeros."""
    # a sum of thousands of squares overflows float16
    precise = torch.promote_types(values.dtype, torch.float32)
    return values / torch.linalg.vector_norm(values, dim=-1, keepdim=True, dtype=precise).clamp(min=1e-6).to(
        values.dtype
    )


def attend(logit_BHR: Tensor, image_BRD: Tensor, mask_BR: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Softmax over the regions, then the weighted sum of the regions.

    Args:
        mask_BR: bool, True on what may be looked at; None: all.

    Returns:
        The sums `[B, H, D]` in the type of the image, and the weights `[B, H, R]` in float32 or better.
    """
    attention_BHR = masked_softmax(logit_BHR, mask_BR)
    return attention_BHR.to(image_BRD.dtype) @ image_BRD, attention_BHR


def attend_image(logit_BHR: Tensor, values_IRD: Tensor, image: Image) -> tuple[Tensor, Tensor]:
    """`attend` where the questions' regions are those of the images: none of `values_IRD` is copied to each question.

    Returns:
        The sums `[B, H, D]` in the type of the values, and the weights `[B, H, R]` in float32 or better.
    """
    attention_BHR = masked_softmax(logit_BHR, image.mask_BR)
    weight_BHR = attention_BHR.to(values_IRD.dtype)
    if image.row_B is None or image.row_B.device.type != "cpu" or torch.compiler.is_compiling():
        return weight_BHR @ image.of(values_IRD), attention_BHR
    return _sums_by_image(weight_BHR, values_IRD, image.row_B), attention_BHR


def _sums_by_image(weight_BHR: Tensor, values_IRD: Tensor, row_B: Tensor) -> Tensor:
    """One product an image, for all its questions: `[B, H, D]`. It reads counts back, which a GPU would wait for."""
    count_I = row_B.bincount(minlength=len(values_IRD))
    most = int(count_I.max())
    if most * len(count_I) > MOST_EMPTY * len(row_B):  # one image has most of the questions
        return weight_BHR @ values_IRD.index_select(0, row_B)
    order_B = row_B.argsort(stable=True)
    start_I = count_I.cumsum(0) - count_I
    place_B = torch.empty_like(row_B)  # each question's number among those of its image
    place_B[order_B] = torch.arange(len(row_B)) - start_I[row_B[order_B]]
    slot_B = row_B * most + place_B
    weight_NHR = weight_BHR.new_zeros(len(count_I) * most, *weight_BHR.shape[1:]).index_copy(0, slot_B, weight_BHR)
    sum_INHD = weight_NHR.view(len(count_I), -1, weight_BHR.shape[2]) @ values_IRD
    return sum_INHD.view(len(weight_NHR), weight_BHR.shape[1], -1).index_select(0, slot_B)


def masked_softmax(logit_BHR: Tensor, mask_BR: Tensor | None) -> Tensor:
    """Shares of 1 over the regions that the mask lets through, in float32 or better."""
    logit_BHR = at_least_float32(logit_BHR)
    if mask_BR is not None:
        logit_BHR = logit_BHR.masked_fill(~mask_BR[:, None], -torch.inf)
    return logit_BHR.softmax(dim=-1)


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

    def forward(self, values_ND: Tensor, mask_N: Tensor | None = None) -> Tensor:
        """`[N, D]`; rows where the mask is False take no part in the statistics."""
        if self.training and len(values_ND) == 1:
            return F.batch_norm(values_ND, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        if self.training and mask_N is not None:
            return self.normalised(values_ND, mask_N)
        return super().forward(values_ND)

    def total(self, values: Tensor) -> Tensor:
        """A sum over rows as the sum over all rows of a step; more than these where processes share a step."""
        return values

    def normalised(self, values_ND: Tensor, mask_N: Tensor | None) -> Tensor:
        """With the mean and variance of the rows that are not masked out, which also move the running statistics."""
        precise_ND = at_least_float32(values_ND)
        real_N1 = torch.ones_like(precise_ND[:, :1]) if mask_N is None else mask_N[:, None].to(precise_ND.dtype)
        count = self.total(real_N1.sum()).detach().clamp(min=1)
        mean_D = self.total((precise_ND * real_N1).sum(dim=0)) / count
        centred_ND = precise_ND - mean_D
        variance_D = self.total((centred_ND.square() * real_N1).sum(dim=0)) / count
        self._count_in(mean_D.detach(), (variance_D * count / (count - 1).clamp(min=1)).detach())
        normed_ND = centred_ND * (variance_D + self.eps).rsqrt()
        if self.affine:
            normed_ND = normed_ND * self.weight + self.bias
        return normed_ND.to(values_ND.dtype)

    def _count_in(self, mean_D: Tensor, variance_D: Tensor) -> None:
        """Move the running statistics, as torch does."""
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        self.running_mean.lerp_(mean_D.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance_D.to(self.running_var.dtype), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def power_normalise(values: Tensor) -> Tensor:
    """Signed square root, then scaled to length 1 over the last dimension, as bilinear pooling ends.

    The root is z / sqrt(|z| + 1e-8): at zero sign(z) sqrt(|z|) has no finite gradient.
    """
    precise = at_least_float32(values)
    rooted = precise / (precise.abs() + 1e-8).sqrt()
    return F.normalize(rooted, dim=-1, eps=1e-6).to(values.dtype)


def cells(side: int) -> Tensor:
    """Row and column of every cell of a square grid in row order, from -1 to 1, `[side * side, 2]`."""
    steps = torch.linspace(-1, 1, side)
    return torch.cartesian_prod(steps, steps).view(side * side, 2)
