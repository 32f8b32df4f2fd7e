"""`sum`: image and question projected, then added.

Source: the element-wise sum that Fukui et al. 2016, "Multimodal Compact Bilinear Pooling" (arXiv 1606.01847), compare
with; each side as in `product`.

    z = tanh(W_i i / |i| + b_i) + tanh(W_q q + b_q),  i the mean region

Legend: `B` batch, `R` regions, `C` channels, `D` fusion.
"""

from torch import Tensor

from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.layers import projection
from vqa.models.options import Count, Rate


class Sum(VectorFusion):
    """Both sides projected and tanh'd, then added.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        fusion_dim: width of the sum.
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
        fusion_dim: Count = 1024,
        normalise_image: bool = True,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.normalise_image = normalise_image
        self.image = projection(image_dim, fusion_dim, dropout)
        self.question = projection(question_dim, fusion_dim, dropout)

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        return image_BRS + question_BS[:, None]
