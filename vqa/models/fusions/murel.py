"""`murel`: every region is fused with the question and told of every other, again and again.

Source: Cadene et al. 2019, "MUREL: Multimodal Relational Reasoning for Visual Question Answering" (arXiv 1902.09487).
B(x, y) is the bilinear fusion of `block`, with signed square root and length 1, and an output layer. With regions
s_i^0 = v_i, boxes b_i and the question's vector q, cell t = 1 ... T, all with the same weights, is

    m_i = B_1(q, s_i^(t-1))
    e_i = max_j B_2(b_i, b_j) + B_3(m_i, m_j)
    s_i^t = s_i^(t-1) + m_i + e_i

    z = the fusion `block` of q and max_i s_i^T

whose output layer is the classifier. The attention returned is the share of the numbers of max_i that come from each
region, as the paper draws it; it gets no gradient. The released question encoder, attention in two glimpses over the
words, is not in here. Memory grows with regions^2.

Legend: `B` batch, `I` distinct images, `R` regions, `C` channels, `X` rows of a fusion, `G` chunks, `S` width of a
chunk, `K` rank, `D` fusion.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.boxes import known_boxes
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.fusions.block import Block
from vqa.models.layers import in_turns, once_an_image, power_normalise
from vqa.models.options import Count, Rate

PAIR_CHUNKS, PAIR_RANK, ANSWER_RANK = 5, 5, 10  # as released
PAIRS_AT_ONCE = 2**15  # how many pairs, as wide as a region, exist at a time; more questions are done in turns
CPU_PAIRS_AT_ONCE = 2**11


class Side(nn.Module):
    """One side of a block fusion: a projection, cut into chunks, and each chunk's factors."""

    def __init__(self, in_dim: int, dim: int, chunks: int, rank: int, dropout: float = 0.0) -> None:
        super().__init__()
        width = dim // chunks
        limit = width**-0.5
        self.rank = rank
        self.project = nn.Sequential(nn.Linear(in_dim, dim), FastDropout(dropout))
        self.weight_GSK = nn.Parameter(torch.empty(chunks, width, rank * width).uniform_(-limit, limit))
        self.bias_GK = nn.Parameter(torch.empty(chunks, rank * width).uniform_(-limit, limit))

    def forward(self, values: Tensor) -> Tensor:
        """`[..., in_dim]` to `[..., G, K, S]`."""
        chunked = self.project(values).unflatten(-1, (len(self.weight_GSK), -1))
        factors = torch.einsum("...gs,gsk->...gk", chunked, self.weight_GSK) + self.bias_GK
        return factors.unflatten(-1, (self.rank, -1))


def joined(factors: Tensor) -> Tensor:
    """Products of the factors of both sides `[..., G, K, S]`, added over the ranks and normalised: `[..., D]`."""
    return power_normalise(factors.sum(dim=-2)).flatten(-2)


def joined_pairs(left_BRGKS: Tensor, right_BRGKS: Tensor) -> Tensor:
    """The same of every two regions, `[B, R, R, D]`."""
    pair_BRRGS = torch.einsum("bigks,bjgks->bijgs", left_BRGKS, right_BRGKS)
    return power_normalise(pair_BRRGS).flatten(3)


class MuRel(Fusion):
    """Cells that fuse each region with the question and with the other regions, then a maximum over the regions.

    Args:
        image_dim: channels of a region, and so the width of its state.
        regions: regions an image; any number works.
        question_dim: width of the question vector.
        cells: how often the cell is applied.
        cell_dim: width of the fusion of a region with the question, a multiple of chunks.
        pair_dim: width of the two fusions of a pair, a multiple of 5.
        fusion_dim: width of the last fusion and of the result, a multiple of chunks.
        chunks: of the fusions with the question.
        rank: of the fusion of a region with the question.
        dropout: on both projected sides there, and on the input of the last fusion.

    Raises:
        InputError: a width is no multiple of its chunks.

    Attributes:
        out_dim: fusion_dim.
    """

    needs_boxes = True

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        cells: Literal[1, 2, 3, 4, 5] = 3,
        cell_dim: Count = 1000,
        pair_dim: Count = 200,
        fusion_dim: Count = 1600,
        chunks: Count = 20,
        rank: Count = 15,
        dropout: Rate = 0.1,
    ) -> None:
        super().__init__()
        for key, dim, parts in (
            ("cell_dim", cell_dim, chunks),
            ("pair_dim", pair_dim, PAIR_CHUNKS),
            ("fusion_dim", fusion_dim, chunks),
        ):
            if dim % parts:
                raise InputError(f"fusion 'murel': {key} ({dim}) must be a multiple of its {parts} chunks")
        self.out_dim = fusion_dim
        self.cells = cells
        self.query = Side(question_dim, cell_dim, chunks, rank, dropout)
        self.state = Side(image_dim, cell_dim, chunks, rank, dropout)
        self.fused = nn.Linear(cell_dim, image_dim)
        self.box_left, self.box_right, self.left, self.right = (
            Side(in_dim, pair_dim, PAIR_CHUNKS, PAIR_RANK) for in_dim in (4, 4, image_dim, image_dim)
        )
        self.pair = nn.Linear(2 * pair_dim, image_dim)  # both fusions of a pair end in it
        self.answer = Block(
            image_dim=image_dim, regions=1, question_dim=question_dim, chunks=chunks, rank=ANSWER_RANK,
            fusion_dim=fusion_dim, normalise_image=False, dropout=dropout,
        )  # fmt: skip

    def forward(self, image: Image, question: Question) -> Fused:
        boxes_IR4 = known_boxes(image).to(self.pair.weight.dtype)
        sides = self.box_left(boxes_IR4), self.box_right(boxes_IR4)
        boxes_IRRD = in_turns(joined_pairs, rows_at_once(boxes_IR4), *sides)  # the same for all cells
        row_B = torch.arange(len(boxes_IR4), device=boxes_IR4.device) if image.row_B is None else image.row_B
        query_B1GKS = self.query(question.sentence_BD)[:, None]
        state_BRC, side_BRGKS = image.regions_BRC, once_an_image(self.state, image.regions_IRC, image)
        for cell in range(self.cells):
            if cell:
                side_BRGKS = self.state(state_BRC)
            fused_BRC = self.fused(joined(query_B1GKS * side_BRGKS))
            state_BRC = state_BRC + fused_BRC + self._told(fused_BRC, boxes_IRRD, row_B, image.mask_BR)
        if image.mask_BR is not None:
            state_BRC = state_BRC.masked_fill(~image.mask_BR[:, :, None], -torch.inf)
        best_B1C = state_BRC.max(dim=1, keepdim=True).values
        won_BRC = (state_BRC == best_B1C).float()
        share_B1R = (won_BRC / won_BRC.sum(dim=1, keepdim=True)).mean(dim=2)[:, None]
        return Fused(self.answer(Image(best_B1C), question).vector_BD, share_B1R)

    def _told(self, fused_BRC: Tensor, boxes_IRRD: Tensor, row_B: Tensor, mask_BR: Tensor | None) -> Tensor:
        """What each region learns of the others, `[B, R, C]`."""

        def largest(left_BRGKS: Tensor, right_BRGKS: Tensor, row_B: Tensor, mask_BR: Tensor | None = None) -> Tensor:
            """The largest over j of every number of the pairs i, j, for some questions."""
            pair_BRRD = torch.cat([boxes_IRRD.index_select(0, row_B), joined_pairs(left_BRGKS, right_BRGKS)], dim=3)
            pair_BRRC = self.pair(pair_BRRD)
            if mask_BR is not None:
                pair_BRRC = pair_BRRC.masked_fill(~mask_BR[:, None, :, None], -torch.inf)
            largest_BRC: Tensor = pair_BRRC.max(dim=2).values
            return largest_BRC

        sides = [self.left(fused_BRC), self.right(fused_BRC), row_B] + ([] if mask_BR is None else [mask_BR])
        return in_turns(largest, rows_at_once(fused_BRC), *sides)


def rows_at_once(regions_BRC: Tensor) -> int:
    """How many rows have as many pairs of regions as may exist at a time."""
    pairs = CPU_PAIRS_AT_ONCE if regions_BRC.device.type == "cpu" else PAIRS_AT_ONCE
    return max(1, pairs // regions_BRC.shape[1] ** 2)
