"""`mmnasnet`: the units of `mcan` and an attention that knows where regions lie, in an order that a search has found.

Source: Yu et al. 2020, "Deep Multimodal Neural Architecture Search" (arXiv 2004.12070), in the order that the authors
released. Words X go through the units of `encoder`, regions Y through those of `decoder`, each followed by
LN(y + dropout(unit)), LN layer normalisation:

    SA:  multi-head self-attention
    GA:  multi-head attention to the encoded words
    FFN: W' ReLU(W y + b) + b'
    RSA: self-attention with softmax_j(q_i . k_j / sqrt(E) + log max(r_ij, 1e-6)), r a number a head,
         r_ij = ReLU(w_h . ReLU(W g_ij + b) + b_h), and of boxes with centre (x, y), width w and height h
         g_ij = (log max(|x_i - x_j| / w_i, 1e-3), log max(|y_i - y_j| / h_i, 1e-3), log(w_i / w_j), log(h_i / h_j))

The end is that of `mcan`: a = softmax(MLP(Y)), y = sum_r a_r Y_r, x likewise, z = LN(W x + b + W' y + b'). The
attention returned is a.
Where no boxes are known, every two regions count as of one size and one width and height apart: an RSA then tells a
region from the others, and no more. Memory for relations grows with regions^2: of 36 regions a step keeps 1.3 MB an
image for them, of 196 regions 38 MB (float32). Departures: positions are shares of the image's sides and 1/1000 of a
side is added to width and height, where the released code adds a pixel; the words are first projected to hidden_dim;
layer normalisation is torch's; key projections have no bias, which softmax would ignore. The sentence vector is not
used.

Legend: `B` batch, `I` distinct images, `T` tokens, `R` regions, `C` channels, `D` hidden, `H` heads, `E` width of a
head, `G` relation.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.boxes import NEAREST, relative_geometry
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.fusions.mcan import Reduction
from vqa.models.layers import at_least_float32
from vqa.models.options import Count, Rate
from vqa.models.transformers.attention import MultiHeadAttention, Residual, feed_forward

Encoding = Literal["SA", "FFN"]
Decoding = Literal["SA", "RSA", "GA", "FFN"]
ENCODER: tuple[Encoding, ...] = ("SA", "SA", "SA", "SA", "FFN", "FFN", "FFN", "FFN", "SA", "FFN", "FFN", "FFN")
DECODER: tuple[Decoding, ...] = (
    "GA", "GA", "FFN", "FFN", "GA", "FFN", "RSA", "GA", "FFN",
    "GA", "RSA", "FFN", "RSA", "SA", "FFN", "RSA", "GA", "FFN",
)  # fmt: skip
PIXEL = 1e-3  # of a side of the image
LEAST = 1e-6  # the least r


class RelationAttention(nn.Module):
    """Self-attention of several heads whose logits have the logarithm of a learned relation added."""

    def __init__(self, dim: int, heads: int, relation_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.relation = nn.Linear(relation_dim, heads)

    def forward(self, values_BRD: Tensor, relation_IRRG: Tensor, image: Image) -> Tensor:
        """`[B, R, D]`; the relation is one an image, or one for all."""
        query_BHRE, key_BHRE, value_BHRE = (
            project(values_BRD).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        related_IHRR = at_least_float32(self.relation(relation_IRRG)).clamp(min=LEAST).log().permute(0, 3, 1, 2)
        bias_BHRR = related_IHRR if image.boxes_IR4 is None else image.of(related_IHRR)
        if (mask_BR := image.mask_BR) is not None:
            bias_BHRR = bias_BHRR.masked_fill(~mask_BR[:, None, None], -torch.inf)
        dropout = self.dropout if self.training else 0.0
        bias_BHRR = bias_BHRR.to(query_BHRE.dtype)
        found_BHRE = F.scaled_dot_product_attention(query_BHRE, key_BHRE, value_BHRE, bias_BHRR, dropout_p=dropout)
        found_BRD: Tensor = self.output(found_BHRE.transpose(1, 2).flatten(2))
        return found_BRD


class Unit(nn.Module):
    """One operation and LN(x + dropout(operation)).

    Args:
        kind: which operation.
        dim: width.
        heads: attention heads.
        relation_dim: width of a relation.
        dropout: of the result, of attention weights and inside feed-forward layers.
    """

    def __init__(self, kind: Decoding, dim: int, heads: int, relation_dim: int, dropout: float) -> None:
        super().__init__()
        self.kind = kind
        self.operation: nn.Module
        if kind == "FFN":
            self.operation = feed_forward(dim, 4 * dim, dropout)
        elif kind == "RSA":
            self.operation = RelationAttention(dim, heads, relation_dim, dropout)
        else:
            self.operation = MultiHeadAttention(dim, heads, dropout)
        self.after = Residual(dim, dropout)

    def forward(self, values_BTD: Tensor, *context: Tensor | Image | None) -> Tensor:
        """`[B, T, D]`; the context is what the operation takes besides."""
        result_BTD: Tensor = self.after(values_BTD, self.operation(values_BTD, *context))
        return result_BTD


class MMNasNet(Fusion):
    """The units of mcan and attention that knows where regions lie, in the order found by a search.

    Args:
        image_dim: channels of a region.
        word_dim: width of a word vector.
        encoder: the units that the words go through, from SA and FFN.
        decoder: the units that the regions go through, from SA, RSA, GA and FFN.
        heads: attention heads; hidden_dim must be a multiple of it.
        hidden_dim: width of words and regions inside, four times as wide in an FFN. The released large model: 1024.
        relation_dim: width of a relation.
        reduction_dim: width inside the two reductions; null: hidden_dim, as released.
        fusion_dim: width of the result. The released large model: 2048.
        dropout: after every unit, on attention weights and inside feed-forward layers.

    Raises:
        InputError: hidden_dim is not a multiple of heads.

    Attributes:
        out_dim: fusion_dim.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        word_dim: int,
        encoder: tuple[Encoding, ...] = ENCODER,
        decoder: tuple[Decoding, ...] = DECODER,
        heads: Count = 8,
        hidden_dim: Count = 512,
        relation_dim: Count = 64,
        reduction_dim: Count | None = None,
        fusion_dim: Count = 1024,
        dropout: Rate = 0.1,
    ) -> None:
        super().__init__()
        if hidden_dim % heads:
            raise InputError(
                f"a width of {hidden_dim} cannot be shared evenly by {heads} attention heads; hidden_dim must be a "
                "multiple of heads"
            )
        self.out_dim = fusion_dim
        sizes = (hidden_dim, heads, relation_dim, dropout)
        self.words = nn.Linear(word_dim, hidden_dim)
        self.regions = nn.Linear(image_dim, hidden_dim)
        self.relation = nn.Sequential(nn.Linear(4, relation_dim), nn.ReLU()) if "RSA" in decoder else None
        self.encoder = nn.ModuleList(Unit(kind, *sizes) for kind in encoder)
        self.decoder = nn.ModuleList(Unit(kind, *sizes) for kind in decoder)
        self.reduce_words = Reduction(hidden_dim, reduction_dim or hidden_dim, dropout)
        self.reduce_regions = Reduction(hidden_dim, reduction_dim or hidden_dim, dropout)
        self.from_words = nn.Linear(hidden_dim, fusion_dim)
        self.from_regions = nn.Linear(hidden_dim, fusion_dim)
        self.norm = nn.LayerNorm(fusion_dim)

    def forward(self, image: Image, question: Question) -> Fused:
        words_BTD, regions_BRD = self.words(question.words_BTD), image.of(self.regions(image.regions_IRC))
        relation_IRRG = None if self.relation is None else self.relation(geometry(image).to(self.words.weight.dtype))
        mask_BT, mask_BR = question.mask_BT, image.mask_BR
        for unit in self.encoder:
            words_BTD = unit(words_BTD) if unit.kind == "FFN" else unit(words_BTD, words_BTD, mask_BT)
        for unit in self.decoder:
            if unit.kind == "GA":
                regions_BRD = unit(regions_BRD, words_BTD, mask_BT)
            elif unit.kind == "RSA":
                regions_BRD = unit(regions_BRD, relation_IRRG, image)
            else:
                regions_BRD = unit(regions_BRD) if unit.kind == "FFN" else unit(regions_BRD, regions_BRD, mask_BR)
        word_BD, _ = self.reduce_words(words_BTD, mask_BT)
        region_BD, attention_B1R = self.reduce_regions(regions_BRD, mask_BR)
        return Fused(self.norm(self.from_regions(region_BD) + self.from_words(word_BD)), attention_B1R)


def geometry(image: Image) -> Tensor:
    """How every two regions lie to each other, `[I, R, R, 4]`; `[1, R, R, 4]` where no boxes are known."""
    if image.boxes_IR4 is None:
        values_IRC = at_least_float32(image.regions_IRC[:, :, :1])
        self_1RR = torch.eye(values_IRC.shape[1], dtype=values_IRC.dtype, device=values_IRC.device)[None]
        near_1RR, same_1RR = self_1RR * math.log(NEAREST), torch.zeros_like(self_1RR)
        return torch.stack([near_1RR, near_1RR, same_1RR, same_1RR], dim=-1)
    boxes_IR4 = at_least_float32(image.boxes_IR4)
    return relative_geometry(boxes_IR4, (boxes_IR4[..., 2:] - boxes_IR4[..., :2]).clamp(min=0) + PIXEL)
