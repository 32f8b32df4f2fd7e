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

from vqa.models.contracts import Image
from vqa.models.dropout import FastDropout
from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.layers import power_normalise
from vqa.models.options import Count, Rate


class MFH(VectorFusion):
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

    image: nn.ModuleList
    question: nn.ModuleList

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

    def image_side(self, image: Image) -> Tensor:
        vectors_IRC = self.vectors(image)
        return image.of(torch.cat([project(vectors_IRC) for project in self.image], dim=-1))

    def question_side(self, sentence_BD: Tensor) -> Tensor:
        return torch.cat([query(sentence_BD) for query in self.question], dim=-1)

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        pooled: list[Tensor] = []
        expanded_BRE: Tensor | None = None
        blocks = (sides.chunk(len(self.image), dim=-1) for sides in (image_BRS, question_BS[:, None]))
        for image_BRE, question_B1E in zip(*blocks, strict=True):
            joint_BRE = self.dropout(image_BRE * question_B1E)
            expanded_BRE = joint_BRE if expanded_BRE is None else expanded_BRE * joint_BRE
            pooled.append(power_normalise(expanded_BRE.unflatten(-1, (-1, self.factors)).sum(dim=-1)))
        return torch.cat(pooled, dim=-1)
