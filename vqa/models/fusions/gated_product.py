"""`gated_product`: each side through a gated tanh, then multiplied.

Source: the multimodal fusion of Teney et al. 2018, "Tips and Tricks for Visual Question Answering" (arXiv 1708.02711),
without its attention (which is in `top_down`).

    f(x) = tanh(W x + b) * sigmoid(W' x + b')
    z = f_i(i / |i|) * f_q(q),  i the mean region

Legend: `B` batch, `R` regions, `C` channels, `D` fusion.
"""

from torch import Tensor

from vqa.models.contracts import Image
from vqa.models.dropout import FastDropout
from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.layers import GatedTanh, once_an_image
from vqa.models.options import Count, Rate


class GatedProduct(VectorFusion):
    """Both sides through gated tanh layers, then multiplied.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        fusion_dim: width of the product.
        normalise_image: scale the image vector to length 1.
        dropout: on the input of both gated layers.

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
        self.dropout = FastDropout(dropout)
        self.image = GatedTanh(image_dim, fusion_dim)
        self.question = GatedTanh(question_dim, fusion_dim)

    def image_side(self, image: Image) -> Tensor:
        return once_an_image(lambda v_IRC: self.image(self.dropout(v_IRC)), self.vectors(image), image, self.dropout)

    def question_side(self, sentence_BD: Tensor) -> Tensor:
        question_BD: Tensor = self.question(self.dropout(sentence_BD))
        return question_BD

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        return image_BRS * question_BS[:, None]
