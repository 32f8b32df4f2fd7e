"""`co_attention`: regions attend to words while words attend to regions, on one or more levels of the question.

Source: Lu et al. 2016, "Hierarchical Question-Image Co-Attention for Visual Question Answering" (arXiv 1606.00061), the
parallel form (equations 3 to 5) and the recursive encoding of its answer (equation 7). With regions V and words Q^l:

    C = tanh(Q^l W_b V)
    H_v = tanh(W_v V + (W_q Q^l) C),  H_q = tanh(W_q Q^l + (W_v V) C^T)
    v^l = sum_r softmax_r(w_v . H_v) v_r,  q^l = sum_t softmax_t(w_q . H_q) q_t
    h^l = tanh(W^l [q^l + v^l, h^(l-1)])

and the result is the h of the last level. The question encoder `hierarchical` gives the paper's three levels (word,
phrase, question) side by side: use `levels: 3` with it. The sentence vector is not used.

Legend: `B` batch, `T` tokens, `R` regions, `C` channels, `D` a level of a word, `A` attention, `L` levels.
"""

import torch
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import attend
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

    def forward(
        self, image_BRD: Tensor, words_BTD: Tensor, mask_BT: Tensor, mask_BR: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The found region and word `[B, D]`, and the weights `[B, 1, R]`."""
        affinity_BTR = torch.tanh(self.affinity(words_BTD) @ image_BRD.transpose(1, 2))
        image_BRA, words_BTA = self.image(image_BRD), self.words(words_BTD)
        image_hidden_BRA = torch.tanh(image_BRA + affinity_BTR.transpose(1, 2) @ words_BTA)
        words_hidden_BTA = torch.tanh(words_BTA + affinity_BTR @ image_BRA)
        image_logit_B1R = self.image_logit(self.dropout(image_hidden_BRA)).transpose(1, 2)
        found_B1D, attention_B1R = attend(image_logit_B1R, image_BRD, mask_BR)
        words_logit_B1T = self.words_logit(self.dropout(words_hidden_BTA)).transpose(1, 2)
        word_B1D, _ = attend(words_logit_B1T, words_BTD, mask_BT)
        return found_B1D[:, 0], word_B1D[:, 0], attention_B1R


class CoAttention(Fusion):
    """Parallel co-attention on each level of the question, combined from words up.

    Args:
        image_dim: channels of a region.
        regions: regions an image; any number works.
        question_dim: width of the question vector, not used.
        word_dim: width of a word vector; a level takes word_dim / levels of it.
        levels: levels that lie side by side in a word vector.
        attention_dim: width of the hidden layers H.
        fusion_dim: width of every h.
        dropout: on the projected regions, on H and on the input of every h.

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
        self.levels = nn.ModuleList(ParallelCoAttention(dim, attention_dim, dropout) for _ in range(levels))
        self.combine = nn.ModuleList(
            nn.Linear(dim + fusion_dim if level else dim, fusion_dim) for level in range(levels)
        )

    def forward(self, image: Image, question: Question) -> Fused:
        image_BRD = self.dropout(image.of(torch.tanh(self.project(image.regions_IRC))))
        mask_BR = image.mask_BR
        if mask_BR is not None:
            image_BRD = image_BRD.masked_fill(~mask_BR[:, :, None], 0)  # the words add up over the regions
        combined: list[Tensor] = []
        looked: list[Tensor] = []
        levels = question.words_BTD.chunk(len(self.levels), dim=-1)
        for words_BTD, co_attention, combine in zip(levels, self.levels, self.combine, strict=True):
            found_BD, word_BD, attention_B1R = co_attention(image_BRD, words_BTD, question.mask_BT, mask_BR)
            below = torch.cat([found_BD + word_BD, *combined[-1:]], dim=1)
            combined.append(torch.tanh(combine(self.dropout(below))))
            looked.append(attention_B1R)
        return Fused(combined[-1], torch.cat(looked, dim=1))
