"""`product`: image and question projected, then multiplied element by element.

Source: "deeper LSTM Q + norm I" of Antol et al. 2015, "VQA: Visual Question Answering" (arXiv 1505.00468) and its
released code (each side: dropout, linear, tanh).

    z = tanh(W_i i / |i| + b_i) * tanh(W_q q + b_q),  i the mean region

Legend: `B` batch, `R` regions, `C` channels, `D` fusion.
"""

from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.layers import projection
from vqa.models.options import Count, Rate


class Product(VectorFusion):
    """Both sides projected and tanh'd, then multiplied.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        fusion_dim: width of the product.
        normalise_image: scale the image vector to length 1 ("norm I").
        project_image: without it the image vector is multiplied as it is.
        dropout: on the input of both projections.

    Raises:
        InputError: an image vector that is multiplied as it is has another width than fusion_dim.

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
        project_image: bool = True,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        if not project_image and image_dim != fusion_dim:
            raise InputError(
                f"fusion 'product': without project_image the image vector has to be as wide as fusion_dim "
                f"({fusion_dim}), and it is {image_dim} wide"
            )
        self.out_dim = fusion_dim
        self.normalise_image = normalise_image
        self.image = projection(image_dim, fusion_dim, dropout) if project_image else nn.Identity()
        self.question = projection(question_dim, fusion_dim, dropout)

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        return image_BRS * question_BS[:, None]
