"""`top_down`: one attention map, then a product of the found region and the question.

Source: Anderson et al. 2018, "Bottom-Up and Top-Down Attention for Image Captioning and Visual Question Answering"
(arXiv 1707.07998), and Teney et al. 2018, "Tips and Tricks for Visual Question Answering" (arXiv 1708.02711), in two
forms. `gated_tanh` is the papers', with f(x) = tanh(W x + b) * sigmoid(W' x + b'):

    gated_tanh:  p = softmax_r(w . f_a([v_r, q])),  z = f_q(q) * f_v(sum_r p_r v_r)

`relu` is that of a well-known re-implementation, with g(x) = ReLU(W x + b) and weight normalisation (Salimans and
Kingma 2016, arXiv 1602.07868; one length for the whole matrix):

    relu:  p = softmax_r(w . dropout(g_a(v_r) * g_b(q))),  z = g_q(q) * g_v(sum_r p_r v_r)

Legend: `B` batch, `R` regions, `C` channels, `D` fusion.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import GatedTanh, attend_image
from vqa.models.options import Count, Rate


class GatedTanhScore(nn.Module):
    """w . f_a([v_r, q]); the layer on [v_r, q] is the sum of one on v_r and one on q."""

    def __init__(self, image_dim: int, question_dim: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.region = nn.Linear(image_dim, 2 * dim)
        self.query = nn.Linear(question_dim, 2 * dim, bias=False)
        self.logit = nn.Sequential(FastDropout(dropout), nn.Linear(dim, 1, bias=False))

    def forward(self, image: Image, sentence_BD: Tensor) -> Tensor:
        value_BRD, gate_BRD = (image.of(self.region(image.regions_IRC)) + self.query(sentence_BD)[:, None]).chunk(
            2, dim=-1
        )
        logit_BR1: Tensor = self.logit(torch.tanh(value_BRD) * torch.sigmoid(gate_BRD))
        return logit_BR1


class ReLUScore(nn.Module):
    """w . dropout(g_a(v_r) * g_b(q)), all weight-normalised."""

    def __init__(self, image_dim: int, question_dim: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.region = normed_relu(image_dim, dim)
        self.query = normed_relu(question_dim, dim)
        self.logit = nn.Sequential(FastDropout(dropout), weight_norm(nn.Linear(dim, 1, bias=False), dim=-1))

    def forward(self, image: Image, sentence_BD: Tensor) -> Tensor:
        logit_BR1: Tensor = self.logit(image.of(self.region(image.regions_IRC)) * self.query(sentence_BD)[:, None])
        return logit_BR1


def normed_relu(in_dim: int, out_dim: int) -> nn.Sequential:
    """A weight-normalised linear layer (-1: one length for the whole matrix) and ReLU."""
    return nn.Sequential(weight_norm(nn.Linear(in_dim, out_dim), dim=-1), nn.ReLU())


class TopDown(Fusion):
    """Top-down attention over the regions, then a product.

    Args:
        image_dim: channels of a region.
        regions: regions an image; any number works.
        question_dim: width of the question vector.
        form: "gated_tanh" (the papers) or "relu" (weight-normalised).
        fusion_dim: width of every hidden layer.
        dropout: on the hidden layer of the attention.

    Attributes:
        out_dim: fusion_dim.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        form: Literal["gated_tanh", "relu"] = "relu",
        fusion_dim: Count = 1024,
        dropout: Rate = 0.2,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        gated = form == "gated_tanh"
        self.score = (GatedTanhScore if gated else ReLUScore)(image_dim, question_dim, fusion_dim, dropout)
        layer = GatedTanh if gated else normed_relu
        self.image = layer(image_dim, fusion_dim)
        self.question = layer(question_dim, fusion_dim)

    def forward(self, image: Image, question: Question) -> Fused:
        logit_B1R = self.score(image, question.sentence_BD).transpose(1, 2)
        found_B1C, attention_B1R = attend_image(logit_B1R, image.regions_IRC, image)
        return Fused(self.question(question.sentence_BD) * self.image(found_B1C[:, 0]), attention_B1R)
