"""`co_attention`: regions attend to words while words attend to regions, on one or more levels of the question.

Source: Lu et al. 2016, "Hierarchical Question-Image Co-Attention for Visual Question Answering" (arXiv 1606.00061), the
parallel form (equations 3 to 5), the alternating form (equation 6), and the recursive encoding of the answer (equation
7). With regions V and words Q^l:

    parallel:  C = tanh(Q^l W_b V)
    H_v = tanh(W_v V + (W_q Q^l) C),  H_q = tanh(W_q Q^l + (W_v V) C^T)
    v^l = sum_r softmax_r(w_v . H_v) v_r,  q^l = sum_t softmax_t(w_q . H_q) q_t

    alternating, with A(X; g) = sum_n softmax_n(w . tanh(W_x x_n + W_g g)) x_n and weights of its own for each A:
    s^l = A_1(Q^l; 0),  v^l = A_2(V; s^l),  q^l = A_3(Q^l; v^l)

    h^l = tanh(W^l [q^l + v^l, h^(l-1)])

and the result is the h of the last level. The question encoder `hierarchical` gives the paper's three levels (word,
phrase, question) side by side: use `levels: 3` with it. The sentence vector is not used. The released code, whose
default is the alternating form, has biases in all these layers; the equations have none inside the attention.

Legend: `B` batch, `T` tokens, `R` regions, `C` channels, `D` a level of a word, `A` attention, `L` levels.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import attend, drops_out
from vqa.models.options import Count, Rate


class ParallelCoAttention(nn.Module):
    """Attention over regions and over words at once."""

    def __init__(self, dim: int, attention_dim: int, dropout: float) -> None:
        super().__init__()
        self.affinity = nn.Linear(dim, dim, bias=False)
        self.image = nn.Linear(dim, attention_dim, bias=False)
        self.words = nn.Linear(dim, attention_dim, bias=False)
        self.image_logit = nn.Linear(attention_dim, 1, bias=False)
        self.words_logit = nn.Linear(attention_dim, 1, bias=False)
        self.dropout = FastDropout(dropout)

    def forward(self, image: Image, words_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The found region and word `[B, D]`, and the weights `[B, 1, R]`."""
        image_BRD, mask_BR = image.regions_BRC, image.mask_BR
        affinity_BTR = torch.tanh(self.affinity(words_BTD) @ image_BRD.transpose(1, 2))
        image_BRA, words_BTA = image.of(self.image(image.regions_IRC)), self.words(words_BTD)
        image_hidden_BRA = torch.tanh(image_BRA + affinity_BTR.transpose(1, 2) @ words_BTA)
        words_hidden_BTA = torch.tanh(words_BTA + affinity_BTR @ image_BRA)
        image_logit_B1R = self.image_logit(self.dropout(image_hidden_BRA)).transpose(1, 2)
        found_B1D, attention_B1R = attend(image_logit_B1R, image_BRD, mask_BR)
        words_logit_B1T = self.words_logit(self.dropout(words_hidden_BTA)).transpose(1, 2)
        word_B1D, _ = attend(words_logit_B1T, words_BTD, mask_BT)
        return found_B1D[:, 0], word_B1D[:, 0], attention_B1R


class GuidedAttention(nn.Module):
    """The operator A(X; g) of the alternating form: attention over a list of vectors, with or without a guide."""

    def __init__(self, dim: int, attention_dim: int, dropout: float, *, guided: bool) -> None:
        super().__init__()
        self.values = nn.Linear(dim, attention_dim, bias=False)
        self.guide = nn.Linear(dim, attention_dim, bias=False) if guided else None
        self.logit = nn.Sequential(FastDropout(dropout), nn.Linear(attention_dim, 1, bias=False))

    def forward(self, image: Image, guide_BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The found vector `[B, D]`, and the weights `[B, 1, R]`; words take the place of regions, too."""
        values_BRA = image.of(self.values(image.regions_IRC))
        if self.guide is not None:
            values_BRA = values_BRA + self.guide(guide_BD)[:, None]
        logit_B1R = self.logit(torch.tanh(values_BRA)).transpose(1, 2)
        found_B1D, attention_B1R = attend(logit_B1R, image.regions_BRC, image.mask_BR)
        return found_B1D[:, 0], attention_B1R


class AlternatingCoAttention(nn.Module):
    """Attention over words, then over regions, then over words again, each guided by what was found before."""

    def __init__(self, dim: int, attention_dim: int, dropout: float) -> None:
        super().__init__()
        self.first_words = GuidedAttention(dim, attention_dim, dropout, guided=False)
        self.image = GuidedAttention(dim, attention_dim, dropout, guided=True)
        self.words = GuidedAttention(dim, attention_dim, dropout, guided=True)

    def forward(self, image: Image, words_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The found region and word `[B, D]`, and the weights `[B, 1, R]`."""
        words = Image(words_BTD, None, mask_BT)
        summary_BD, _ = self.first_words(words)
        found_BD, attention_B1R = self.image(image, summary_BD)
        word_BD, _ = self.words(words, found_BD)
        return found_BD, word_BD, attention_B1R


class CoAttention(Fusion):
    """Co-attention on each level of the question, combined from words up.

    Args:
        image_dim: channels of a region.
        regions: regions an image; any number works.
        question_dim: width of the question vector, not used.
        word_dim: width of a word vector; a level takes word_dim / levels of it.
        form: "parallel" or "alternating".
        levels: levels that lie side by side in a word vector.
        attention_dim: width of the hidden layers of the attention.
        fusion_dim: width of every h.
        dropout: on the projected regions, on the hidden layers of the attention and on the input of every h.

    Raises:
        InputError: word_dim is not a multiple of levels.

    Attributes:
        out_dim: fusion_dim.
    """

    attention_name = "level"

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        word_dim: int,
        form: Literal["parallel", "alternating"] = "parallel",
        levels: Count = 1,
        attention_dim: Count = 512,
        fusion_dim: Count = 512,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        if word_dim % levels:
            raise InputError(
                f"fusion 'co_attention': {levels} levels do not share word vectors of width {word_dim} evenly; "
                "levels: 3 goes with the question encoder 'hierarchical'"
            )
        dim = word_dim // levels
        self.out_dim = fusion_dim
        self.dropout = FastDropout(dropout)
        self.project = nn.Linear(image_dim, dim)
        level_of = ParallelCoAttention if form == "parallel" else AlternatingCoAttention
        self.levels = nn.ModuleList(level_of(dim, attention_dim, dropout) for _ in range(levels))
        self.combine = nn.ModuleList(
            nn.Linear(dim + fusion_dim if level else dim, fusion_dim) for level in range(levels)
        )

    def forward(self, image: Image, question: Question) -> Fused:
        region_IRD = torch.tanh(self.project(image.regions_IRC))
        if image.mask_IR is not None:
            region_IRD = region_IRD.masked_fill(~image.mask_IR[:, :, None], 0)  # the words add up over the regions
        if drops_out(self.dropout):  # a question's own regions from here on
            projected = Image(self.dropout(image.of(region_IRD)), None, image.mask_BR)
        else:
            projected = Image(region_IRD, image.row_B, image.mask_IR)
        combined: list[Tensor] = []
        looked: list[Tensor] = []
        levels = question.words_BTD.chunk(len(self.levels), dim=-1)
        for words_BTD, co_attention, combine in zip(levels, self.levels, self.combine, strict=True):
            found_BD, word_BD, attention_B1R = co_attention(projected, words_BTD, question.mask_BT)
            below = torch.cat([found_BD + word_BD, *combined[-1:]], dim=1)
            combined.append(torch.tanh(combine(self.dropout(below))))
            looked.append(attention_B1R)
        return Fused(combined[-1], torch.cat(looked, dim=1))
