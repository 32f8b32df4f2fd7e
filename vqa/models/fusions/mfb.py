"""`mfb`: factorised bilinear pooling: both sides expanded and multiplied, every few products added up.

Source: Yu et al. 2017, "Multi-modal Factorized Bilinear Pooling with Co-Attention Learning for Visual Question
Answering" (arXiv 1708.01471), without its co-attention. Each output sums `factors` products:

    e = dropout((U i / |i| + u) * (V q + v)),  i the mean region
    z_k = sum_{f < factors} e[k * factors + f],  then signed square root and length 1

Legend: `B` batch, `R` regions, `C` channels, `E` expanded, `D` fusion.
"""

from torch import Tensor, nn

from vqa.models.dropout import FastDropout
from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.layers import power_normalise
from vqa.models.options import Count, Rate


class MFB(VectorFusion):
    """Expand both sides, multiply, sum-pool, normalise.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        factors: products that one output sums (the paper's k).
        fusion_dim: width of the result (the paper's o).
        normalise_image: scale the image vector to length 1.
        dropout: on the expanded product (the paper: 0.1).

    Attributes:
        out_dim: fusion_dim.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        factors: Count = 5,
        fusion_dim: Count = 1000,
        normalise_image: bool = True,
        dropout: Rate = 0.1,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.factors = factors
        self.normalise_image = normalise_image
        self.image = nn.Linear(image_dim, fusion_dim * factors)
        self.question = nn.Linear(question_dim, fusion_dim * factors)
        self.dropout = FastDropout(dropout)

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        joint_BRE = self.dropout(image_BRS * question_BS[:, None])
        return power_normalise(joint_BRE.unflatten(-1, (-1, self.factors)).sum(dim=-1))
