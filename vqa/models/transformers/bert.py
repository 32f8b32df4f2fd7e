"""What the descendants of BERT share that read words and regions: `single_stream` and `two_stream`.

Sources: Devlin et al. 2019, "BERT" (arXiv 1810.04805), whose layer is that of Vaswani et al. 2017 with GELU and without
dropout inside the feed-forward network; Chen et al. 2020, "UNITER" (arXiv 1909.11740), section 3.1, for the embeddings:

    words:    LN(W w_t + e_word), behind LN([CLS] + e_word) with a learned [CLS]
    regions:  LN(LN(W v_r + b) + LN(W' g_r + b') + e_region),  g = (x1, y1, x2, y2, w, h, w h)

Positions are shares of the image's width and height. Where it is not known where regions lie, each counts as the whole
image: a constant, that says nothing.

Legend: `B` batch, `I` distinct images, `T` tokens, `R` regions, `S` what is looked at, `D` width.
"""

import torch
from torch import Tensor, nn

from vqa.models.contracts import Image, Question
from vqa.models.transformers.attention import MultiHeadAttention, Residual

SPREAD = 0.02  # standard deviation of BERT's first embeddings
WHOLE = (0.0, 0.0, 1.0, 1.0)  # the box of a whole image


class Block(nn.Module):
    """Attention to a memory, then feed-forward: u = LN(x + attention(x, memory)), LN(u + W' GELU(W u))."""

    def __init__(self, dim: int, heads: int, feed_forward_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads, dropout)
        self.after_attention = Residual(dim, dropout)
        self.feed_forward = nn.Sequential(nn.Linear(dim, feed_forward_dim), nn.GELU(), nn.Linear(feed_forward_dim, dim))
        self.after_feed_forward = Residual(dim, dropout)

    def forward(self, values_BTD: Tensor, memory_BSD: Tensor, mask_BS: Tensor | None) -> Tensor:
        """`[B, T, D]`; where the mask is False nothing is looked at."""
        values_BTD = self.after_attention(values_BTD, self.attention(values_BTD, memory_BSD, mask_BS))
        result_BTD: Tensor = self.after_feed_forward(values_BTD, self.feed_forward(values_BTD))
        return result_BTD


class WordEmbedding(nn.Module):
    """The words of a question behind a learned [CLS]."""

    def __init__(self, word_dim: int, dim: int) -> None:
        super().__init__()
        self.first_D = nn.Parameter(SPREAD * torch.randn(dim))
        self.word = nn.Linear(word_dim, dim, bias=False)
        self.type_D = nn.Parameter(SPREAD * torch.randn(dim))
        self.norm = nn.LayerNorm(dim)

    def forward(self, question: Question) -> tuple[Tensor, Tensor]:
        """`[B, 1 + T, D]`, and which of them are real."""
        words_BTD, mask_BT = self.word(question.words_BTD), question.mask_BT
        first_B1D = self.first_D.to(words_BTD.dtype).expand(len(words_BTD), 1, -1)
        words_BTD = self.norm(torch.cat([first_B1D, words_BTD], dim=1) + self.type_D)
        return words_BTD, torch.cat([torch.ones_like(mask_BT[:, :1]), mask_BT], dim=1)


class RegionEmbedding(nn.Module):
    """What regions show and where they lie."""

    def __init__(self, image_dim: int, dim: int) -> None:
        super().__init__()
        self.region = nn.Linear(image_dim, dim)
        self.region_norm = nn.LayerNorm(dim)
        self.box = nn.Linear(7, dim)
        self.box_norm = nn.LayerNorm(dim)
        self.type_D = nn.Parameter(SPREAD * torch.randn(dim))
        self.norm = nn.LayerNorm(dim)
        self.whole_4: Tensor
        self.register_buffer("whole_4", torch.tensor(WHOLE), persistent=False)

    def forward(self, image: Image) -> Tensor:
        """`[I, R, D]`."""
        boxes_IR4 = self.whole_4[None, None] if image.boxes_IR4 is None else image.boxes_IR4.to(self.whole_4.dtype)
        place_IRD = self.box_norm(self.box(box_numbers(boxes_IR4)))
        regions_IRD: Tensor = self.norm(self.region_norm(self.region(image.regions_IRC)) + place_IRD + self.type_D)
        return regions_IRD


def box_numbers(boxes_IR4: Tensor) -> Tensor:
    """x1, y1, x2, y2, width, height and area of boxes, `[I, R, 7]`."""
    size_IR2 = boxes_IR4[..., 2:] - boxes_IR4[..., :2]
    return torch.cat([boxes_IR4, size_IR2, size_IR2.prod(dim=-1, keepdim=True)], dim=-1)


def real_regions(image: Image, values_BRD: Tensor) -> Tensor:
    """Which regions are real, one row a question; all where the image has no mask."""
    mask_BR = image.mask_BR
    return values_BRD.new_ones(values_BRD.shape[:2], dtype=torch.bool) if mask_BR is None else mask_BR
