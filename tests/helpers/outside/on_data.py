"""Fusions from outside that cannot be run without data, each in a way of its own."""

import torch
from torch import nn

from vqa.models import Fused, Image, Question
from vqa.models.fusions.product import Product


class LooksAtNumbers(Product):
    """Refuses features that are not finite."""

    def forward(self, image: Image, question: Question) -> Fused:
        if not torch.isfinite(image.regions_IRC).all():
            raise ValueError("features are not finite")
        return super().forward(image, question)


class MakesTensors(Product):
    """Adds a tensor that is made where torch makes them by default."""

    def forward(self, image: Image, question: Question) -> Fused:
        regions_IRC = image.regions_IRC
        moved_IRC = regions_IRC + torch.linspace(0, 1, regions_IRC.shape[1])[:, None]
        return super().forward(image._replace(regions_IRC=moved_IRC), question)


class NeedsSeveral(Product):
    """Normalises over the questions of a batch, of which there must be two."""

    def __init__(self, *, image_dim: int, regions: int, question_dim: int, fusion_dim: int = 16) -> None:
        super().__init__(image_dim=image_dim, regions=regions, question_dim=question_dim, fusion_dim=fusion_dim)
        self.norm = nn.BatchNorm1d(self.out_dim)

    def forward(self, image: Image, question: Question) -> Fused:
        return Fused(self.norm(super().forward(image, question).vector_BD), None)
