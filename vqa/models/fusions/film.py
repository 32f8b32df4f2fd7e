"""`film`: the question scales and shifts every channel of the image, block after block.

Source: Perez et al. 2018, "FiLM: Visual Reasoning with a General Conditioning Layer" (arXiv 1709.07871), equations 1
and 2, and its residual blocks. With x_r^0 = ReLU(W f_r + b), block n = 1 ... N is

    a_r = ReLU(A^n x_r^(n-1) + a^n)
    c_r = BatchNorm(C^n a_r)
    x_r^n = a_r + ReLU((1 + gamma^n) * c_r + beta^n),  gamma^n and beta^n linear in the question
    z = max_r ReLU(P x_r^N + p)

So a region is seen alone, without its place, and any number of regions in any order works. `grid: true` is the
released code instead, for regions on a square grid: W and C are convolutions of 3x3, the columns and rows of the
regions, from -1 to 1, stand beside the channels before W, every A and P, and batch normalisation follows W and P:

    x^0 = ReLU(BatchNorm(W * [f, place])),  z = max_r ReLU(BatchNorm(P [x_r^N, place_r]))

Legend: `B` batch, `I` distinct images of a batch, `R` regions, `C` channels, `D` hidden, `N` blocks, `S` side of the
grid.
"""

import math

import torch
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.layers import BatchNorm, cells
from vqa.models.options import Count


class GridConvolution(nn.Module):
    """A convolution of 3x3 over regions that lie on a square grid, zeros around it."""

    def __init__(self, in_dim: int, out_dim: int, *, bias: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_dim, out_dim, 3, padding=1, bias=bias)

    def forward(self, region_BRC: Tensor) -> Tensor:
        """`[B, R, C]` to `[B, R, D]`."""
        side = math.isqrt(region_BRC.shape[1])
        map_BDSS: Tensor = self.convolution(region_BRC.transpose(1, 2).unflatten(2, (side, side)))
        return map_BDSS.flatten(2).transpose(1, 2)


class FiLMBlock(nn.Module):
    """One residual block; the batch normalisation has no scale and shift of its own, and takes a bias before it away.

    Args:
        place_dim: numbers beside the channels that say where a region is; with some of them regions are a grid.
    """

    def __init__(self, dim: int, place_dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim + place_dim, dim)
        self.second = GridConvolution(dim, dim, bias=False) if place_dim else nn.Linear(dim, dim, bias=False)
        self.norm = BatchNorm(dim, affine=False)

    def forward(self, region_BRC: Tensor, gamma_B1D: Tensor, beta_B1D: Tensor, mask_BR: Tensor | None) -> Tensor:
        kept_BRD = torch.relu(self.first(region_BRC))
        normed_ND = self.norm(self.second(kept_BRD).flatten(0, 1), None if mask_BR is None else mask_BR.flatten())
        return kept_BRD + torch.relu((1 + gamma_B1D) * normed_ND.view_as(kept_BRD) + beta_B1D)


class FiLM(Fusion):
    """Residual blocks over the regions, each modulated by the question, then the maximum over the regions.

    Args:
        image_dim: channels of a region.
        regions: regions an image; any number works, with `grid` the cells of a square in row order.
        question_dim: width of the question vector.
        blocks: residual blocks.
        hidden_dim: width of a region inside them (the paper: 128).
        fusion_dim: width of the result (the paper: 512).
        grid: convolutions of 3x3, places and more batch normalisation, as in the released code.

    Raises:
        InputError: with `grid` the regions are no square grid; when called, some of them are padding.

    Attributes:
        out_dim: fusion_dim.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        blocks: Count = 4,
        hidden_dim: Count = 128,
        fusion_dim: Count = 512,
        grid: bool = False,
    ) -> None:
        super().__init__()
        side = math.isqrt(regions)
        if grid and side * side != regions:
            raise InputError(f"fusion 'film': `grid` needs a square grid of regions, not {regions} regions")
        self.out_dim = fusion_dim
        self.place_RC: Tensor
        places = cells(side).flip(1) if grid else torch.zeros(regions, 0)  # columns first, as released
        self.register_buffer("place_RC", places, persistent=False)
        extra = places.shape[1]
        self.project = (
            GridConvolution(image_dim + extra, hidden_dim, bias=True) if grid else nn.Linear(image_dim, hidden_dim)
        )
        self.project_norm = BatchNorm(hidden_dim) if grid else None
        self.modulation = nn.Linear(question_dim, blocks * 2 * hidden_dim)
        self.blocks = nn.ModuleList(FiLMBlock(hidden_dim, extra) for _ in range(blocks))
        self.output = nn.Linear(hidden_dim + extra, fusion_dim)
        self.output_norm = BatchNorm(fusion_dim) if grid else None

    def forward(self, image: Image, question: Question) -> Fused:
        mask_BR = image.mask_BR
        if self.project_norm is not None and mask_BR is not None:
            raise InputError("fusion 'film': `grid` needs all regions of the grid, and some of these are padding")
        projected_BRD = image.of(self.project(self._placed(image.regions_IRC)))
        # statistics are over the questions, as everywhere, so an image counts as often as it is asked about
        region_BRD = torch.relu(normed(self.project_norm, projected_BRD))
        modulation_BN = self.modulation(question.sentence_BD)[:, None].chunk(2 * len(self.blocks), dim=-1)
        for index, block in enumerate(self.blocks):
            gamma_B1D, beta_B1D = modulation_BN[2 * index], modulation_BN[2 * index + 1]
            region_BRD = block(self._placed(region_BRD), gamma_B1D, beta_B1D, mask_BR)
        output_BRD = torch.relu(normed(self.output_norm, self.output(self._placed(region_BRD))))
        if mask_BR is not None:
            output_BRD = output_BRD.masked_fill(~mask_BR[:, :, None], 0)  # the least that ReLU gives
        return Fused(output_BRD.amax(dim=1), None)

    def _placed(self, region_BRC: Tensor) -> Tensor:
        """The regions with their places beside the channels, if they have some."""
        if not self.place_RC.shape[1]:
            return region_BRC
        place_BRC = self.place_RC.to(region_BRC.dtype).expand(len(region_BRC), -1, -1)
        return torch.cat([region_BRC, place_BRC], dim=-1)


def normed(norm: BatchNorm | None, region_BRD: Tensor) -> Tensor:
    """Every region of every question normalised together, where there is a normalisation."""
    if norm is None:
        return region_BRD
    normed_ND: Tensor = norm(region_BRD.flatten(0, 1))
    return normed_ND.view_as(region_BRD)
