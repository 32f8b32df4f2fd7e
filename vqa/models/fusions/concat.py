"""`concat`: image and question projected, then side by side.

Source: Antol et al. 2015, "VQA: Visual Question Answering" (arXiv 1505.00468), the concatenation variant of its
released code (each side: dropout, linear, tanh).

    z = [tanh(W_i i / |i| + b_i), tanh(W_q q + b_q)],  i the mean region

Without the projections, z = [i / |i|, q], it is the model of Zhou et al. 2015, "Simple Baseline for Visual Question
Answering" (arXiv 1512.02167).

Legend: `B` batch, `R` regions, `C` channels, `D` fusion.
"""

import torch
from torch import Tensor

from vqa.models.dropout import FastDropout
from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.layers import projection
from vqa.models.options import Count, Rate


class Concat(VectorFusion):
    """Both sides projected and tanh'd (or left as they are), then concatenated.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        fusion_dim: width of each projected side; None joins both as they are.
        normalise_image: scale the image vector to length 1 ("norm I").
        dropout: on both sides, before their projections.

    Attributes:
        out_dim: 2 * fusion_dim, or image_dim + question_dim.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        fusion_dim: Count | None = 1024,
        normalise_image: bool = True,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.out_dim = 2 * fusion_dim if fusion_dim else image_dim + question_dim
        self.normalise_image = normalise_image
        self.image, self.question = (
            projection(width, fusion_dim, dropout) if fusion_dim else FastDropout(dropout)
            for width in (image_dim, question_dim)
        )

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        question_BRS = question_BS[:, None].expand(-1, image_BRS.shape[1], -1)
        return torch.cat([image_BRS.to(question_BS.dtype), question_BRS], dim=-1)
