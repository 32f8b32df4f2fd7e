"""`mine`: image and question side by side, then one layer.

With the mean region v and the question q:

    z = tanh(W [v; q])
"""

import torch
from torch import Tensor, nn

from vqa.models import Fused, Fusion, Question
from vqa.models.options import Count


class Mine(Fusion):
    """One layer over the mean region and the question."""

    def __init__(self, *, image_dim: int, question_dim: int, width: Count = 6, scale: float = 1.0) -> None:
        super().__init__()
        self.out_dim, self.scale = width, scale
        self.layer = nn.Linear(image_dim + question_dim, width)

    def forward(self, image_BRC: Tensor, question: Question) -> Fused:
        image_BC = image_BRC.mean(dim=1).to(question.sentence_BD)  # which may be of other types under autocast
        both_BD = torch.cat([image_BC, question.sentence_BD], dim=1)
        return Fused(self.scale * torch.tanh(self.layer(both_BD)), None)
