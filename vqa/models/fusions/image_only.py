"""`image_only`: the baseline that never reads the question.

Source: the "I" row of Antol et al. 2015, "VQA: Visual Question Answering" (arXiv 1505.00468).

    z = tanh(W_i i / |i| + b_i),  i the mean region
"""

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.layers import once_an_image, pool_regions, projection
from vqa.models.options import Count, Rate


class ImageOnly(Fusion):
    """The mean region projected and tanh'd; the question is ignored, so the question encoder gets no gradient.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector, not used.
        fusion_dim: width of the result.
        normalise_image: scale the image vector to length 1.
        dropout: on the input of the projection.

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
        fusion_dim: Count = 1024,
        normalise_image: bool = True,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.normalise_image = normalise_image
        self.image = projection(image_dim, fusion_dim, dropout)

    def forward(self, image: Image, question: Question) -> Fused:
        return Fused(once_an_image(self.image, pool_regions(image, normalise=self.normalise_image), image), None)
