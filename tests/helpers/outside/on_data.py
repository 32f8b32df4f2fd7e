"""Fusions from outside that cannot be run without data, each in a way of its own."""

import torch
from torch import Tensor, nn

from vqa.models import Fused, Question
from vqa.models.fusions.product import Product


class LooksAtNumbers(Product):
    """Refuses features that are not finite."""

    def forward(self, image_BRC: Tensor, question: Question) -> Fused:
        if not torch.isfinite(image_BRC).all():
            raise ValueError("features are not finite")
        return super().forward(image_BRC, question)


class MakesTensors(Product):
    """Adds a tensor that is made where torch makes them by default."""

    def forward(self, image_BRC: Tensor, question: Question) -> Fused:
        return super().forward(image_BRC + torch.linspace(0, 1, image_BRC.shape[1])[:, None], question)


class NeedsSeveral(Product):
    """Normalises over the questions of a batch, of which there must be two."""

    def __init__(self, *, image_dim: int, regions: int, question_dim: int, fusion_dim: int = 16) -> None:
        super().__init__(image_dim=image_dim, regions=regions, question_dim=question_dim, fusion_dim=fusion_dim)
        self.norm = nn.BatchNorm1d(self.out_dim)

    def forward(self, image_BRC: Tensor, question: Question) -> Fused:
        return Fused(self.norm(super().forward(image_BRC, question).vector_BD), None)
