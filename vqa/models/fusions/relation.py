"""`relation`: every ordered pair of regions is asked the question, and the answers are added.

Source: Santoro et al. 2017, "A simple neural network module for relational reasoning" (arXiv 1706.01427), equation 1:

    z = f(sum_ij g(o_i, o_j, q))

with g and f ReLU networks (the paper: g four layers of 256, f two of 256, dropout and its last layer, the classifier).
The first layer of g is linear in o_i, o_j and q apart, so it is computed once a region and once a question and then
added. Memory and time grow with regions^2: 49 regions are 2,401 pairs a question, 196 are 38,416.

Legend: `B` batch, `R` regions, `C` channels, `D` hidden.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import cells, in_turns
from vqa.models.options import Count, Rate

PAIRS_AT_ONCE = 2**17  # how many pairs exist at a time; more questions are done in turns
CPU_PAIRS_AT_ONCE = 2**13  # on a CPU: so few stay in its cache, which takes half the time


class Relation(Fusion):
    """A network over all ordered pairs of regions together with the question.

    Args:
        image_dim: channels of a region.
        regions: regions an image; any number works.
        question_dim: width of the question vector.
        layers: layers of g.
        hidden_dim: width of g and f.
        coordinates: add each region's row and column, from -1 to 1, as the paper does; the regions must then be a
            square grid in row order.
        reduce: "sum" over the pairs (the paper), or "mean", whose scale does not depend on the number of regions.
        dropout: between the two layers of f; the paper's, after the second, is `classifier: {dropout: 0.5}`.

    Raises:
        InputError: coordinates are asked for, but the number of regions is no square.

    Attributes:
        out_dim: hidden_dim.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        layers: Count = 4,
        hidden_dim: Count = 256,
        coordinates: bool = False,
        reduce: Literal["sum", "mean"] = "sum",
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        side = math.isqrt(regions)
        if coordinates and side * side != regions:
            raise InputError(f"fusion 'relation': coordinates need a square grid of regions, not {regions} regions")
        self.out_dim = hidden_dim
        self.reduce = reduce
        self.grid_RC: Tensor
        self.register_buffer("grid_RC", cells(side) if coordinates else torch.zeros(regions, 0), persistent=False)
        object_dim = image_dim + self.grid_RC.shape[1]
        self.left = nn.Linear(object_dim, hidden_dim, bias=False)
        self.right = nn.Linear(object_dim, hidden_dim, bias=False)
        self.query = nn.Linear(question_dim, hidden_dim)
        deeper = [
            part for _ in range(layers - 1) for part in (nn.Linear(hidden_dim, hidden_dim), nn.ReLU(inplace=True))
        ]
        self.pair = nn.Sequential(nn.ReLU(inplace=True), *deeper)
        self.output = nn.Sequential(
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            FastDropout(dropout),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
        )

    def forward(self, image: Image, question: Question) -> Fused:
        grid_IRC = self.grid_RC.expand(len(image.regions_IRC), -1, -1)
        object_IRC = torch.cat([image.regions_IRC.to(grid_IRC.dtype), grid_IRC], dim=-1)
        mask_BR = image.mask_BR
        sides = [image.of(self.left(object_IRC)), image.of(self.right(object_IRC)), self.query(question.sentence_BD)]
        sides += [] if mask_BR is None else [mask_BR]
        pairs = CPU_PAIRS_AT_ONCE if object_IRC.device.type == "cpu" else PAIRS_AT_ONCE
        rows = max(1, pairs // object_IRC.shape[1] ** 2)
        return Fused(self.output(in_turns(self._pairs, rows, *sides)), None)

    def _pairs(self, left_BRD: Tensor, right_BRD: Tensor, query_BD: Tensor, mask_BR: Tensor | None = None) -> Tensor:
        """g over all pairs of some questions, reduced to `[B, D]`."""
        asked_BRD = left_BRD + query_BD[:, None]  # the small sum first
        pair_BRRD = self.pair(asked_BRD[:, :, None] + right_BRD[:, None])
        if mask_BR is None:
            return pair_BRRD.sum(dim=(1, 2)) if self.reduce == "sum" else pair_BRRD.mean(dim=(1, 2))
        real_BRR = mask_BR[:, :, None] & mask_BR[:, None]
        sum_BD = pair_BRRD.masked_fill(~real_BRR[..., None], 0).sum(dim=(1, 2))
        return sum_BD if self.reduce == "sum" else sum_BD / real_BRR.sum(dim=(1, 2))[:, None]
