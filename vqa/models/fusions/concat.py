"""`concat`: image and question projected, then side by side.

Source: Antol et al. 2015, "VQA: Visual Question Answering" (arXiv 1505.00468), the concatenation variant of its
released code (each side: dropout, linear, tanh).

    z = [tanh(W_i i / |i| + b_i), tanh(W_q q + b_q)],  i the mean region

Legend: `B` batch, `R` regions, `C` channels, `D` fusion.
"""

import torch
from torch import Tensor

from vqa.models.contracts import Fused, Fusion, Question
from vqa.models.layers import pool_regions, projection
from vqa.models.options import Count, Rate


class Concat(Fusion):
    """Both sides projected and tanh'd, then concatenated.

    Args:
        image_dim: channels of a region.
        regions: regions a picture; they are averaged.
        question_dim: width of the question vector.
        fusion_dim: width of each projected side.
        normalise_image: scale the image vector to length 1 ("norm I").
        dropout: on the input of both projections.

    Attributes:
        out_dim: 2 * fusion_dim.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        fusion_dim: Count = 1024,
        normalise_image: bool = True,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.out_dim = 2 * fusion_dim
        self.normalise_image = normalise_image
        self.image = projection(image_dim, fusion_dim, dropout)
        self.question = projection(question_dim, fusion_dim, dropout)

    def forward(self, image_BRC: Tensor, question: Question) -> Fused:
        image_BD = self.image(pool_regions(image_BRC, normalise=self.normalise_image))
        return Fused(torch.cat([image_BD, self.question(question.sentence_BD)], dim=-1), None)
