"""`mfh`: high-order factorised pooling: a cascade of `mfb` blocks, each multiplied by the expanded product before it.

Source: Yu et al. 2018, "Beyond Bilinear: Generalized Multi-modal Factorized High-order Pooling for Visual Question
Answering" (arXiv 1708.03619), without its co-attention. With e^0 = 1, block p = 1 ... P is

    e^p = e^(p-1) * dropout((U^p i / |i| + u^p) * (V^p q + v^p)),  i the mean region
    z^p_k = sum_{f < factors} e^p[k * factors + f],  then signed square root and length 1

and the result is [z^1, ..., z^P].

Legend: `B` batch, `R` regions, `C` channels, `E` expanded, `D` fusion.
"""

import torch
from torch import Tensor, nn

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import pool_regions, power_normalise
from vqa.models.options import Count, Rate


class MFH(Fusion):
    """A cascade of factorised bilinear blocks; their results side by side.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        order: number of blocks (the paper's p).
        factors: products that one output sums (the paper's k).
        fusion_dim: width of each block's result (the paper's o).
        normalise_image: scale the image vector to length 1.
        dropout: on each expanded product (the paper: 0.1).

    Attributes:
        out_dim: order * fusion_dim.
    """

    reads = "mean"

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        order: Count = 2,
        factors: Count = 5,
        fusion_dim: Count = 1000,
        normalise_image: bool = True,
        dropout: Rate = 0.1,
    ) -> None:
        super().__init__()
        self.out_dim = order * fusion_dim
        self.factors = factors
        self.normalise_image = normalise_image
        self.image = nn.ModuleList(nn.Linear(image_dim, fusion_dim * factors) for _ in range(order))
        self.question = nn.ModuleList(nn.Linear(question_dim, fusion_dim * factors) for _ in range(order))
        self.dropout = FastDropout(dropout)

    def forward(self, image: Image, question: Question) -> Fused:
        image_IC = pool_regions(image, normalise=self.normalise_image)
        pooled: list[Tensor] = []
        expanded_BE: Tensor | None = None
        for project, query in zip(self.image, self.question, strict=True):
            joint_BE = self.dropout(image.of(project(image_IC)) * query(question.sentence_BD))
            expanded_BE = joint_BE if expanded_BE is None else expanded_BE * joint_BE
            pooled.append(power_normalise(expanded_BE.unflatten(1, (-1, self.factors)).sum(dim=2)))
        return Fused(torch.cat(pooled, dim=1), None)
