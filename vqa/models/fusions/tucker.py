"""`tucker`: the full bilinear form between two narrow projections.

Source: the Tucker decomposition of Ben-younes et al. 2017, "MUTAN" (arXiv 1705.06676), without its rank constraint:
with a core tensor T_c [question side, image side, fusion]

    q' = tanh(W_q q + b_q),  i' = tanh(W_i i / |i| + b_i),  i the mean region
    z_k = sum_mn T_c[m, n, k] q'_m i'_n

and the paper's output factor W_o is the classifier.

Legend: `B` batch, `R` regions, `C` channels, `M` question side, `N` image side, `D` fusion.
"""

import torch
from torch import Tensor, nn

from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.layers import projection
from vqa.models.options import Count, Rate


class Tucker(VectorFusion):
    """A full core tensor between the projected sides; it has side_dim^2 * fusion_dim weights.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        side_dim: width of each projected side (the paper: 160).
        fusion_dim: width of the result.
        normalise_image: scale the image vector to length 1.
        dropout: on the input of both projections.

    Attributes:
        out_dim: fusion_dim.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        side_dim: Count = 160,
        fusion_dim: Count = 160,
        normalise_image: bool = True,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.normalise_image = normalise_image
        self.image = projection(image_dim, side_dim, dropout)
        self.question = projection(question_dim, side_dim, dropout)
        self.core = nn.Linear(side_dim * side_dim, fusion_dim, bias=False)

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        if image_BRS.shape[1] == 1:
            outer_BMN = question_BS[:, :, None] * image_BRS
            return self.core(torch.flatten(outer_BMN, 1))[:, None]
        # the question's own matrix from image side to result is cheaper than an outer product a region
        core_DMN = self.core.weight.unflatten(1, (question_BS.shape[1], -1))
        return image_BRS @ torch.einsum("bm,dmn->bnd", question_BS, core_DMN)
