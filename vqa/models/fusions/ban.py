"""`ban`: attention over every pair of a word and a region, glimpse after glimpse.

Source: Kim et al. 2018, "Bilinear Attention Networks" (arXiv 1805.07932): low-rank bilinear attention maps, bilinear
joint vectors and multimodal residual networks over the glimpses. With words x_t, regions y_r, s the ReLU and F^0 = X,
glimpse g = 1 ... G is

    A^g = softmax_tr(p^g . (s(U x_t) * s(V y_r)))
    f_k = sum_tr A^g_tr s(U^g F^(g-1)_t)_k s(V^g y_r)_k
    F^g_t = P^g f + F^(g-1)_t

and z = sum_t F^G_t. The attention returned is A^g summed over the words. The sentence vector is not used. With `pool`,
f is sum-pooled: U^g and V^g are `pool` times as wide, and so many neighbouring numbers are added up.

The released code differs in what `attention_rank`, `attention_dropout` and `released` choose: its maps have three times
the rank, drop out regions after their projection, and begin far from uniform, because p^g starts from N(0, 1) (here
from N(0, 1 / rank), where softmax starts exactly uniform); all its matrices are weight-normalised (Salimans and Kingma
2016, arXiv 1602.07868; one length for the whole matrix), and f is dropped out before P^g. It reads padding as words:
`padded_to` of the question encoder `gru`.

With `counter` each glimpse adds what the component of the fusion `counter` counts, from the largest logit of each
region, as in the paper's best model. With a^g_tr the logits of A^g:

    counter:  F^g_t = P^g f + s(C^g count(max_t a_tr + h^g)) + F^(g-1)_t

Legend: `B` batch, `T` tokens, `R` regions, `C` channels, `D` word, `K` rank, `H` glimpses, `N` glimpses x tokens,
`X` questions x glimpses.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vqa.models.boxes import known_boxes
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.fusions.counter import Counter
from vqa.models.layers import at_least_float32, once_an_image
from vqa.models.options import Count, Rate, Size


def linear(in_dim: int, out_dim: int, normed: bool) -> nn.Module:
    """A linear layer, `normed` by one length for its whole matrix."""
    layer = nn.Linear(in_dim, out_dim)
    return weight_norm(layer, dim=-1) if normed else layer


def relu_projection(in_dim: int, out_dim: int, dropout: float, normed: bool) -> nn.Sequential:
    """Dropout, linear, ReLU."""
    return nn.Sequential(FastDropout(dropout), linear(in_dim, out_dim, normed), nn.ReLU())


class BAN(Fusion):
    """Bilinear attention maps, read one after another into residual word vectors.

    Args:
        image_dim: channels of a region.
        word_dim: width of a word vector.
        glimpses: attention maps (the paper: 8).
        rank: rank of the bilinear forms.
        attention_rank: rank of those of the maps; None is `rank`.
        pool: neighbouring numbers of f that are added up.
        dropout: on words and regions before each of their projections; with `released` on f before P, too.
        attention_dropout: on the projected regions of the maps.
        released: first patterns from N(0, 1), weight normalisation, and dropout before P, as in the released code.
        counter: regions that may count, and the largest count (the paper: 10); 0 counts nothing. It needs boxes.

    Attributes:
        out_dim: word_dim.
    """

    attention_name = "glimpse"

    def __init__(
        self,
        *,
        image_dim: int,
        word_dim: int,
        glimpses: Count = 4,
        rank: Count = 1024,
        attention_rank: Count | None = None,
        pool: Count = 1,
        dropout: Rate = 0.2,
        attention_dropout: Rate = 0.0,
        released: bool = False,
        counter: Size = 0,
    ) -> None:
        super().__init__()
        self.out_dim = word_dim
        self.pool = pool
        wide = rank * pool
        maps = rank if attention_rank is None else attention_rank
        self.word = relu_projection(word_dim, maps, dropout, released)
        self.region = relu_projection(image_dim, maps, dropout, released)
        if attention_dropout:
            self.region.append(FastDropout(attention_dropout))
        self.pattern_HK: Tensor = nn.Parameter(torch.randn(glimpses, maps) * (1.0 if released else maps**-0.5))
        if released:
            weight_norm(self, "pattern_HK", dim=-1)
        projections = [(word_dim, wide, dropout, released), (image_dim, wide, dropout, released)]
        self.glimpse_word = nn.ModuleList(relu_projection(*projections[0]) for _ in range(glimpses))
        self.glimpse_region = nn.ModuleList(relu_projection(*projections[1]) for _ in range(glimpses))
        outputs = [linear(rank, word_dim, released) for _ in range(glimpses)]
        self.output = nn.ModuleList(
            [nn.Sequential(FastDropout(dropout), output) for output in outputs] if released else outputs
        )
        self.needs_boxes = counter > 0
        self.counts = GlimpseCounts(counter, glimpses, word_dim, released) if counter else None

    def forward(self, image: Image, question: Question) -> Fused:
        logit_BHTR = self._logits(image, question)
        attention_BHTR = logit_BHTR.flatten(2).softmax(dim=-1).view_as(logit_BHTR)
        counts = [] if self.counts is None else self.counts(logit_BHTR.amax(dim=2), image)
        words_BTD = question.words_BTD
        glimpses = zip(attention_BHTR.unbind(dim=1), self.glimpse_word, self.glimpse_region, self.output, strict=True)
        for number, (attention_BTR, word, region, output) in enumerate(glimpses):
            region_BRK = once_an_image(region, image.regions_IRC, image)
            found_BTK = attention_BTR.to(region_BRK.dtype) @ region_BRK
            joint_B1K = (word(words_BTD) * found_BTK).sum(dim=1, keepdim=True)
            if self.pool > 1:
                joint_B1K = joint_B1K.unflatten(2, (-1, self.pool)).sum(dim=3)
            words_BTD = words_BTD + output(joint_B1K)
            if counts:
                words_BTD = words_BTD + counts[number]
        vector_BD = (words_BTD * question.mask_BT[:, :, None]).sum(dim=1)
        return Fused(vector_BD, attention_BHTR.sum(dim=2))

    def _logits(self, image: Image, question: Question) -> Tensor:
        """Of the attention over words and regions together, `[B, H, T, R]`; padding has -inf."""
        word_BHTK = self.word(question.words_BTD)[:, None] * self.pattern_HK[:, None]
        region_BKR = once_an_image(self.region, image.regions_IRC, image).transpose(1, 2)
        # glimpses and words side by side: one product a question, without a copy of the regions for each glimpse
        logit_BNR = at_least_float32(word_BHTK.to(region_BKR.dtype).flatten(1, 2) @ region_BKR)
        logit_BHTR = logit_BNR.unflatten(1, word_BHTK.shape[1:3])
        looked_BTR, mask_BR = question.mask_BT[:, :, None], image.mask_BR
        if mask_BR is not None:
            looked_BTR = looked_BTR & mask_BR[:, None]
        return logit_BHTR.masked_fill(~looked_BTR[:, None], -torch.inf)


class GlimpseCounts(nn.Module):
    """What each glimpse counts, as a change of every word; the glimpses share the counting component."""

    def __init__(self, objects: int, glimpses: int, word_dim: int, normed: bool) -> None:
        super().__init__()
        self.counter = Counter(objects)
        self.shift_H = nn.Parameter(torch.randn(glimpses))  # softmax ignores it, the counter does not
        self.output = nn.ModuleList(linear(objects + 1, word_dim, normed) for _ in range(glimpses))

    def forward(self, logit_BHR: Tensor, image: Image) -> list[Tensor]:
        """`[B, 1, D]` for each glimpse.

        Args:
            logit_BHR: the largest logit of each region; -inf where padded.
        """
        logit_BHR = logit_BHR + self.shift_H[:, None]
        boxes_BHR4 = image.of(known_boxes(image))[:, None].expand(*logit_BHR.shape, 4)
        sure_XN = self.counter(logit_BHR.flatten(0, 1), boxes_BHR4.flatten(0, 1), None)
        sure_BHN = sure_XN.unflatten(0, logit_BHR.shape[:2]).to(self.shift_H.dtype)
        return [torch.relu(output(sure_BHN[:, g : g + 1])) for g, output in enumerate(self.output)]
