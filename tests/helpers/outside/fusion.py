"""`mine`: image and question side by side, then one layer.

With the mean region v and the question q:

    z = tanh(W [v; q])
"""

import torch
from torch import nn

from vqa.models import Fused, Fusion, Image, Question
from vqa.models.layers import pool_regions
from vqa.models.options import Count


class Mine(Fusion):
    """One layer over the mean region and the question."""

    def __init__(self, *, image_dim: int, question_dim: int, width: Count = 6, scale: float = 1.0) -> None:
        super().__init__()
        self.out_dim, self.scale = width, scale
        self.layer = nn.Linear(image_dim + question_dim, width)

    def forward(self, image: Image, question: Question) -> Fused:
        image_BC = image.of(pool_regions(image)).to(question.sentence_BD)  # which may be of other types under autocast
        both_BD = torch.cat([image_BC, question.sentence_BD], dim=1)
        return Fused(self.scale * torch.tanh(self.layer(both_BD)), None)
