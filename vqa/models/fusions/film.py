"""`film`: the question scales and shifts every channel of the image, block after block.

Source: Perez et al. 2018, "FiLM: Visual Reasoning with a General Conditioning Layer" (arXiv 1709.07871), equations 1
and 2, and its residual blocks. With x_r^0 = ReLU(W f_r + b), block n = 1 ... N is

    a_r = ReLU(A^n x_r^(n-1) + a^n)
    c_r = BatchNorm(C^n a_r)
    x_r^n = a_r + ReLU((1 + gamma^n) * c_r + beta^n),  gamma^n and beta^n linear in the question
    z = max_r ReLU(P x_r^N + p)

Departures: a region is seen alone (1x1, where the paper's second convolution is 3x3), without coordinates, so that any
number of regions in any order works.

Legend: `B` batch, `R` regions, `C` channels, `D` hidden, `N` blocks.
"""

import torch
from torch import Tensor, nn

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.layers import BatchNorm
from vqa.models.options import Count


class FiLMBlock(nn.Module):
    """One residual block; the batch normalisation has no scale and shift of its own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, dim)
        self.second = nn.Linear(dim, dim, bias=False)  # batch normalisation would take a bias away
        self.norm = BatchNorm(dim, affine=False)

    def forward(self, region_BRD: Tensor, gamma_B1D: Tensor, beta_B1D: Tensor, mask_BR: Tensor | None) -> Tensor:
        kept_BRD = torch.relu(self.first(region_BRD))
        normed_ND = self.norm(self.second(kept_BRD).flatten(0, 1), None if mask_BR is None else mask_BR.flatten())
        return kept_BRD + torch.relu((1 + gamma_B1D) * normed_ND.view_as(kept_BRD) + beta_B1D)


class FiLM(Fusion):
    """Residual blocks over the regions, each modulated by the question, then the maximum over the regions.

    Args:
        image_dim: channels of a region.
        regions: regions an image; any number works.
        question_dim: width of the question vector.
        blocks: residual blocks.
        hidden_dim: width of a region inside them (the paper: 128).
        fusion_dim: width of the result (the paper: 512).

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
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.project = nn.Linear(image_dim, hidden_dim)
        self.modulation = nn.Linear(question_dim, blocks * 2 * hidden_dim)
        self.blocks = nn.ModuleList(FiLMBlock(hidden_dim) for _ in range(blocks))
        self.output = nn.Linear(hidden_dim, fusion_dim)

    def forward(self, image: Image, question: Question) -> Fused:
        region_BRD, mask_BR = image.of(torch.relu(self.project(image.regions_IRC))), image.mask_BR
        modulation_BN = self.modulation(question.sentence_BD)[:, None].chunk(2 * len(self.blocks), dim=-1)
        for index, block in enumerate(self.blocks):
            region_BRD = block(region_BRD, modulation_BN[2 * index], modulation_BN[2 * index + 1], mask_BR)
        output_BRD = torch.relu(self.output(region_BRD))
        if mask_BR is not None:
            output_BRD = output_BRD.masked_fill(~mask_BR[:, :, None], 0)  # the least that ReLU gives
        return Fused(output_BRD.amax(dim=1), None)
