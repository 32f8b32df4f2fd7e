"""`mutan`: the Tucker fusion whose core tensor has slices of low rank.

Source: Ben-younes et al. 2017, "MUTAN: Multimodal Tucker Fusion for Visual Question Answering" (arXiv 1705.06676).
Each slice of the core is a sum of `rank` outer products, so that

    q' = tanh(W_q q + b_q),  i' = tanh(W_i i / |i| + b_i),  i the mean region
    z = sum_r (M_r q') * (N_r i')

and the paper's output factor W_o is the classifier.

Legend: `B` batch, `R` regions, `C` channels, `S` side, `K` rank, `D` fusion.
"""

from torch import nn

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.layers import once_an_image, pool_regions, projection
from vqa.models.options import Count, Rate


class MUTAN(Fusion):
    """A sum of `rank` products of projections of the projected sides.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        rank: rank of each slice of the core tensor.
        side_dim: width of each projected side.
        fusion_dim: width of the result.
        normalise_image: scale the image vector to length 1.
        dropout: on the input of both projections.

    Attributes:
        out_dim: fusion_dim.
    """

    reads = "mean"

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
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.rank = rank
        self.normalise_image = normalise_image
        self.image = projection(image_dim, side_dim, dropout)
        self.question = projection(question_dim, side_dim, dropout)
        # all M_r (and all N_r) below one another: one matrix product for every rank
        self.image_factors = nn.Linear(side_dim, rank * fusion_dim, bias=False)
        self.question_factors = nn.Linear(side_dim, rank * fusion_dim, bias=False)

    def forward(self, image: Image, question: Question) -> Fused:
        image_BS = once_an_image(self.image, pool_regions(image, normalise=self.normalise_image), image)
        question_BS = self.question(question.sentence_BD)
        joint_BKD = self.image_factors(image_BS) * self.question_factors(question_BS)
        return Fused(joint_BKD.view(-1, self.rank, self.out_dim).sum(dim=1), None)
