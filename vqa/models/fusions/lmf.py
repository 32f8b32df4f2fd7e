"""`lmf`: the outer product of both sides, each with a 1 beside it, through a weight tensor of low rank.

Source: Liu et al. 2018, "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors" (arXiv 1806.00064),
for two modalities. The 1 keeps what a side says alone beside what both say together. As in the released code the ranks
are added with weights s_r of their own:

    i' = [ReLU(W_i i / |i| + b_i), 1],  q' = [ReLU(W_q q + b_q), 1],  i the mean region
    z = sum_r s_r (M_r q') * (N_r i') + b

The released subnetworks of a side have batch normalisation and three layers, or an LSTM and one; here they are one
layer, the question encoder being there already.

Legend: `B` batch, `R` regions, `C` channels, `S` side, `K` rank, `D` fusion.
"""

import torch
from torch import Tensor, nn

from vqa.models.contracts import Image
from vqa.models.dropout import FastDropout
from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.layers import once_an_image
from vqa.models.options import Count, Rate


class LMF(VectorFusion):
    """A weighted sum of `rank` products of affine maps of the sides.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        rank: rank of the weight tensor (the paper: 4 is enough).
        side_dim: width of each side.
        fusion_dim: width of the result.
        normalise_image: scale the image vector to length 1.
        dropout: on the input of both sides.

    Attributes:
        out_dim: fusion_dim.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        rank: Count = 4,
        side_dim: Count = 512,
        fusion_dim: Count = 512,
        normalise_image: bool = True,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.rank = rank
        self.normalise_image = normalise_image
        self.image = nn.Sequential(FastDropout(dropout), nn.Linear(image_dim, side_dim), nn.ReLU())
        self.question = nn.Sequential(FastDropout(dropout), nn.Linear(question_dim, side_dim), nn.ReLU())
        # the 1 beside a side is the bias; all ranks below one another: one matrix product
        self.image_factors = nn.Linear(side_dim, rank * fusion_dim)
        self.question_factors = nn.Linear(side_dim, rank * fusion_dim)
        self.rank_weight_K = nn.Parameter(torch.empty(rank))
        nn.init.xavier_normal_(self.rank_weight_K[None])
        self.bias_D = nn.Parameter(torch.zeros(fusion_dim))

    def image_side(self, image: Image) -> Tensor:
        return once_an_image(
            lambda v_IRC: self.image_factors(self.image(v_IRC)), self.vectors(image), image, self.image
        )

    def question_side(self, sentence_BD: Tensor) -> Tensor:
        question_BE: Tensor = self.question_factors(self.question(sentence_BD))
        return question_BE

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        joint_BRKD = (image_BRS * question_BS[:, None]).unflatten(-1, (self.rank, -1))
        return (joint_BRKD * self.rank_weight_K[:, None]).sum(dim=-2) + self.bias_D
