"""`ban`: attention over every pair of a word and a region, glimpse after glimpse.

Source: Kim et al. 2018, "Bilinear Attention Networks" (arXiv 1805.07932): low-rank bilinear attention maps, bilinear
joint vectors and multimodal residual networks over the glimpses, without the counting module. With words x_t, regions
y_r, s the ReLU and F^0 = X, glimpse g = 1 ... G is

    A^g = softmax_tr(p^g . (s(U x_t) * s(V y_r)))
    f_k = sum_tr A^g_tr s(U^g F^(g-1)_t)_k s(V^g y_r)_k
    F^g_t = P^g f + F^(g-1)_t

and z = sum_t F^G_t. The attention returned is A^g summed over the words. The sentence vector is not used.

Legend: `B` batch, `T` tokens, `R` regions, `C` channels, `D` word, `K` rank, `H` glimpses, `N` glimpses x tokens.
"""

import torch
from torch import Tensor, nn

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import at_least_float32, once_an_image
from vqa.models.options import Count, Rate


def relu_projection(in_dim: int, out_dim: int, dropout: float) -> nn.Sequential:
    """Dropout, linear, ReLU."""
    return nn.Sequential(FastDropout(dropout), nn.Linear(in_dim, out_dim), nn.ReLU())


class BAN(Fusion):
    """Bilinear attention maps, read one after another into residual word vectors.

    Args:
        image_dim: channels of a region.
        regions: regions an image; any number works.
        question_dim: width of the question vector, not used.
        word_dim: width of a word vector.
        glimpses: attention maps (the paper: 8).
        rank: rank of the bilinear forms.
        dropout: on words and regions before each of their projections, not on f before P.

    Attributes:
        out_dim: word_dim.
    """

    attention_name = "glimpse"

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        word_dim: int,
        glimpses: Count = 4,
        rank: Count = 1024,
        dropout: Rate = 0.2,
    ) -> None:
        super().__init__()
        self.out_dim = word_dim
        self.word = relu_projection(word_dim, rank, dropout)
        self.region = relu_projection(image_dim, rank, dropout)
        self.pattern_HK = nn.Parameter(torch.randn(glimpses, rank) * rank**-0.5)
        self.glimpse_word = nn.ModuleList(relu_projection(word_dim, rank, dropout) for _ in range(glimpses))
        self.glimpse_region = nn.ModuleList(relu_projection(image_dim, rank, dropout) for _ in range(glimpses))
        self.output = nn.ModuleList(nn.Linear(rank, word_dim) for _ in range(glimpses))

    def forward(self, image: Image, question: Question) -> Fused:
        attention_BHTR = self._maps(image, question)
        words_BTD = question.words_BTD
        glimpses = zip(attention_BHTR.unbind(dim=1), self.glimpse_word, self.glimpse_region, self.output, strict=True)
        for attention_BTR, word, region, output in glimpses:
            region_BRK = once_an_image(region, image.regions_IRC, image)
            found_BTK = attention_BTR.to(region_BRK.dtype) @ region_BRK
            joint_B1K = (word(words_BTD) * found_BTK).sum(dim=1, keepdim=True)
            words_BTD = words_BTD + output(joint_B1K)
        vector_BD = (words_BTD * question.mask_BT[:, :, None]).sum(dim=1)
        return Fused(vector_BD, attention_BHTR.sum(dim=2))

    def _maps(self, image: Image, question: Question) -> Tensor:
        """Attention over words and regions together, `[B, H, T, R]`; padding gets none."""
        word_BHTK = self.word(question.words_BTD)[:, None] * self.pattern_HK[:, None]
        region_BKR = once_an_image(self.region, image.regions_IRC, image).transpose(1, 2)
        # glimpses and words side by side: one product a question, without a copy of the regions for each glimpse
        logit_BNR = at_least_float32(word_BHTK.to(region_BKR.dtype).flatten(1, 2) @ region_BKR)
        logit_BHTR = logit_BNR.unflatten(1, word_BHTK.shape[1:3])
        looked_BTR, mask_BR = question.mask_BT[:, :, None], image.mask_BR
        if mask_BR is not None:
            looked_BTR = looked_BTR & mask_BR[:, None]
        logit_BHTR = logit_BHTR.masked_fill(~looked_BTR[:, None], -torch.inf)
        return logit_BHTR.flatten(2).softmax(dim=-1).view_as(logit_BHTR)
