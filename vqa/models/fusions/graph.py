"""`graph`: every region looks at the others, by what they are and how they lie; then the question looks at them.

Source: Li et al. 2019, "Relation-Aware Graph Attention Network for Visual Question Answering" (ReGAT, arXiv
1903.12314), its implicit and its spatial relation, followed by its simplest way to answer, which is `top_down`. With
v'_i = ReLU(W_v v_i), q the question's vector and heads h = 1 ... H:

    x_i = W [v'_i, q]
    implicit:  a^h_ij = max(0, w^h . e(b_i, b_j) + c^h) exp(Q^h x_i . K^h x_j / sqrt(d)),  over all j
    spatial:  a^h_ij = exp(Q^h x_i . K^h x_j / sqrt(d) + c_class(i, j)),  over the j that have a class
    u_i = v'_i + ReLU(dropout(x_i + [..., sum_j a^h_ij (V^h x_j) / sum_j a^h_ij + d^h, ...]))
    p = softmax_i(w . dropout(g_a(u_i) * g_b(q))),  z = g_q(q) * g_v(sum_i p_i u_i)

e is the relative geometry of two boxes (`vqa.models.boxes.relative_geometry`) as sines and cosines of several wave
lengths. A spatial class is one of 11 (`vqa.models.boxes.spatial_classes`): inside, covers, overlaps, or one of eight
directions. The spatial relation has a second sum in u_i, with weights of its own, over class(j, i). As in the released
code, c_class is the same for all heads and both sums, max(0, .) is at least 1e-6, dropout stands before W, Q and K, and
all matrices are weight-normalised (Salimans and Kingma 2016, arXiv 1602.07868; one length for the whole matrix).

Departures: every region is a neighbour, not the 20 most certain; the question's vector is used, not a self-attention
over its words; boxes are shares of the image, so that angles and distances are those of a square image; a region that
no other has a class with gets no sum, where the released code gives it the mean; its angles, of which some are
mirrored, are put right; there is no dropout on e, and no ReLU on the logit of p. The semantic relation, which needs a
classifier of relations, is left out.

Legend: `B` batch, `I` distinct images, `R` regions, `C` channels, `D` relation, `H` heads, `E` width of a head,
`G` geometry, `L` classes.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vqa.errors import InputError
from vqa.models.boxes import SPATIAL_CLASSES, known_boxes, relative_geometry, spatial_classes
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.fusions.top_down import TopDown, normed_relu
from vqa.models.layers import at_least_float32, once_an_image
from vqa.models.options import Count, Rate

WAVES = 1000  # the longest wave length over the shortest
LEAST_SIDE = 1e-3  # of a box, in sides of the image
LEAST_GEOMETRY = 1e-6


def normed(in_dim: int, out_dim: int, *, bias: bool = True) -> nn.Linear:
    """A weight-normalised linear layer; one length for the whole matrix."""
    layer = nn.Linear(in_dim, out_dim, bias=bias)
    weight_norm(layer, dim=-1)
    return layer


class ImplicitRelation(nn.Module):
    """How much the geometry of two boxes lets each head look from one to the other, in logarithms."""

    directions = 1

    def __init__(self, heads: int, geometry_dim: int) -> None:
        super().__init__()
        if geometry_dim % 8:
            raise InputError(
                f"fusion 'graph': geometry_dim ({geometry_dim}) must be a multiple of 8: sines and cosines of 4 numbers"
            )
        self.waves = geometry_dim // 8
        self.output = normed(geometry_dim, heads)

    def forward(self, boxes_IR4: Tensor) -> tuple[list[Tensor], None]:
        """What is added to the logits, `[I, H, R, R]`, for the single direction; all regions are neighbours."""
        number_G = torch.arange(self.waves, device=boxes_IR4.device, dtype=boxes_IR4.dtype)
        side_IR2 = (boxes_IR4[..., 2:] - boxes_IR4[..., :2]).clamp(min=LEAST_SIDE)
        wave_IRR4G = 100 * relative_geometry(boxes_IR4, side_IR2)[..., None] / WAVES ** (number_G / self.waves)
        embedded_IRRG = torch.cat([wave_IRR4G.sin(), wave_IRR4G.cos()], dim=-1).flatten(3)
        open_IRRH = at_least_float32(self.output(embedded_IRRG.to(self.output.bias.dtype))).clamp(min=LEAST_GEOMETRY)
        return [open_IRRH.log().permute(0, 3, 1, 2)], None


class SpatialRelation(nn.Module):
    """Which spatial class two boxes have to each other, and a number that each class adds to the logits."""

    directions = 2

    def __init__(self) -> None:
        super().__init__()
        limit = SPATIAL_CLASSES**-0.5
        self.class_L = nn.Parameter(torch.empty(SPATIAL_CLASSES).uniform_(-limit, limit))

    def forward(self, boxes_IR4: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What is added to the logits, and who are neighbours (bool), both `[I, 1, R, R]`, from i to j and back."""
        class_IRR = spatial_classes(boxes_IR4)
        number_L = torch.arange(1, SPATIAL_CLASSES + 1, device=class_IRR.device)
        added_IRR = ((class_IRR[..., None] == number_L) * at_least_float32(self.class_L)).sum(dim=-1)
        added_I1RR, edge_I1RR = added_IRR[:, None], (class_IRR > 0)[:, None]
        return [added_I1RR, added_I1RR.mT], [edge_I1RR, edge_I1RR.mT]


class Neighbours(nn.Module):
    """Attention of every region over its neighbours, in several heads."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = FastDropout(dropout)
        self.query = normed(dim, dim)
        self.key = normed(dim, dim, bias=False)  # softmax would ignore it
        self.value = normed(dim, dim, bias=False)
        self.bias_D = nn.Parameter(torch.empty(dim).uniform_(-(dim**-0.5), dim**-0.5))

    def forward(self, values_BRD: Tensor, added_BHRR: Tensor, edge_BHRR: Tensor | None) -> Tensor:
        """`[B, R, D]`; where the mask is False nothing is looked at, and a region without neighbours finds zeros."""
        query_BHRE, key_BHRE, value_BHRE = (
            side_BRD.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for side_BRD in (
                self.query(self.dropout(values_BRD)),
                self.key(self.dropout(values_BRD)),
                self.value(values_BRD),
            )
        )
        logit_BHRR = at_least_float32(query_BHRE @ key_BHRE.mT) / math.sqrt(query_BHRE.shape[3]) + added_BHRR
        if edge_BHRR is None:
            share_BHRR = logit_BHRR.softmax(dim=-1)
        else:  # -inf would give no numbers where there is no neighbour at all
            least = torch.finfo(logit_BHRR.dtype).min
            share_BHRR = logit_BHRR.masked_fill(~edge_BHRR, least).softmax(dim=-1).masked_fill(~edge_BHRR, 0)
        found_BRD = (share_BHRR.to(value_BHRE.dtype) @ value_BHRE).transpose(1, 2).flatten(2)
        return found_BRD + self.bias_D


class Graph(Fusion):
    """Graph attention over the regions, then one attention map of the question.

    Args:
        image_dim: channels of a region.
        regions: regions an image; any number works.
        question_dim: width of the question vector.
        relation: "implicit" or "spatial".
        relation_dim: width of a region in the graph.
        heads: heads of the graph attention; relation_dim must be a multiple of it.
        geometry_dim: width of e, a multiple of 8; for the implicit relation.
        fusion_dim: width of the layers behind the graph.
        dropout: before W, Q and K, on what a region adds to itself, and on the hidden layer of the last attention.

    Raises:
        InputError: relation_dim is not a multiple of heads, or geometry_dim of 8.

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
        relation: Literal["implicit", "spatial"] = "implicit",
        relation_dim: Count = 1024,
        heads: Count = 16,
        geometry_dim: Count = 64,
        fusion_dim: Count = 1024,
        dropout: Rate = 0.2,
    ) -> None:
        super().__init__()
        if relation_dim % heads:
            raise InputError(
                f"fusion 'graph': relation_dim ({relation_dim}) must be a multiple of heads ({heads}), which share it"
            )
        self.out_dim = fusion_dim
        self.dropout = FastDropout(dropout)
        self.region = normed_relu(image_dim, relation_dim)
        self.joint = normed(relation_dim + question_dim, relation_dim)
        self.relation = ImplicitRelation(heads, geometry_dim) if relation == "implicit" else SpatialRelation()
        self.neighbours = nn.ModuleList(
            Neighbours(relation_dim, heads, dropout) for _ in range(self.relation.directions)
        )
        self.answer = TopDown(
            image_dim=relation_dim, regions=regions, question_dim=question_dim, fusion_dim=fusion_dim, dropout=dropout
        )

    def forward(self, image: Image, question: Question) -> Fused:
        region_IRD, mask_BR = self.region(image.regions_IRC), image.mask_BR
        values_BRD = self._joint(region_IRD, image, question.sentence_BD)
        added, edges = self.relation(known_boxes(image))
        change_BRD = values_BRD
        for number, neighbours in enumerate(self.neighbours):
            edge_BHRR = None if edges is None else image.of(edges[number])
            if mask_BR is not None:
                real_B11R = mask_BR[:, None, None]
                edge_BHRR = real_B11R if edge_BHRR is None else edge_BHRR & real_B11R
            change_BRD = change_BRD + neighbours(values_BRD, image.of(added[number]), edge_BHRR)
        related_BRD = image.of(region_IRD) + torch.relu(self.dropout(change_BRD))
        fused: Fused = self.answer(Image(related_BRD, None, mask_BR), question)
        return fused

    def _joint(self, region_IRD: Tensor, image: Image, sentence_BD: Tensor) -> Tensor:
        """W [v', q], its two halves apart: that of the regions is computed once an image."""
        weight: Tensor = self.joint.weight  # normalised anew whenever it is read
        region_weight, query_weight = weight.split([region_IRD.shape[2], sentence_BD.shape[1]], dim=1)
        region_BRD = once_an_image(
            lambda values_IRD: F.linear(self.dropout(values_IRD), region_weight), region_IRD, image, self.dropout
        )
        return region_BRD + F.linear(self.dropout(sentence_BD), query_weight, self.joint.bias)[:, None]
