"""`mutan`: the Tucker fusion whose core tensor has slices of low rank.

Source: Ben-younes et al. 2017, "MUTAN: Multimodal Tucker Fusion for Visual Question Answering" (arXiv 1705.06676).
Each slice of the core is a sum of `rank` outer products, so that

    q' = tanh(W_q q + b_q),  i' = tanh(W_i i / |i| + b_i),  i the mean region
    z = sum_r (M_r q') * (N_r i')

and the paper's output factor W_o is the classifier.

Legend: `B` batch, `R` regions, `C` channels, `S` side, `K` rank, `D` fusion.
"""

from torch import Tensor, nn

from vqa.models.contracts import Image
from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.layers import once_an_image, projection
from vqa.models.options import Count, Rate


class MUTAN(VectorFusion):
    """A sum of `rank` products of projections of the projected sides.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        rank: rank of each slice of the core tensor.
        side_dim: width of each projected side.
        fusion_dim: width of the result.
        normalise_image: scale the image vector to length 1.
        project_image: without it i' is the image vector as it is.
        factor_biases: biases beside M_r and N_r (the released code).
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
        rank: Count = 5,
        side_dim: Count = 310,
        fusion_dim: Count = 510,
        normalise_image: bool = True,
        project_image: bool = True,
        factor_biases: bool = False,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.rank = rank
        self.normalise_image = normalise_image
        self.image = projection(image_dim, side_dim, dropout) if project_image else nn.Identity()
        self.question = projection(question_dim, side_dim, dropout)
        # all M_r (and all N_r) below one another: one matrix product for every rank
        image_side_dim = side_dim if project_image else image_dim
        self.image_factors = nn.Linear(image_side_dim, rank * fusion_dim, bias=factor_biases)
        self.question_factors = nn.Linear(side_dim, rank * fusion_dim, bias=factor_biases)

    def image_side(self, image: Image) -> Tensor:
        return once_an_image(
            lambda v_IRC: self.image_factors(self.image(v_IRC)), self.vectors(image), image, self.image
        )

    def question_side(self, sentence_BD: Tensor) -> Tensor:
        question_BE: Tensor = self.question_factors(self.question(sentence_BD))
        return question_BE

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        joint_BRE = image_BRS * question_BS[:, None]
        return joint_BRE.unflatten(-1, (self.rank, self.out_dim)).sum(dim=-2)
