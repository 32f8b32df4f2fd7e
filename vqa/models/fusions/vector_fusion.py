"""`VectorFusion`: fusions of one image vector and one question vector, which join a question with many regions cheaply.

Legend: `B` batch, `I` distinct images of a batch, `R` regions, `C` channels, `S` a side, `D` fusion.
"""

import torch
from torch import Tensor, nn

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.layers import once_an_image, pool_regions, unit_length


class VectorFusion(Fusion):
    """Joins one vector of an image with the question's; of an image with many regions, their mean.

    What each side needs alone is apart from what joins them. So `attended` computes the image side once an image, the
    question side once a question, and only the rest for every pair of them.

    Attributes:
        normalise_image: whether every image vector is scaled to length 1.
        image, question: the layers of either side.
    """

    reads = "mean"
    normalise_image: bool
    image: nn.Module
    question: nn.Module

    def image_side(self, image: Image) -> Tensor:
        """What every region gives without the question, `[B, R, ...]`; computed once an image."""
        return once_an_image(self.image, self.vectors(image), image)

    def question_side(self, sentence_BD: Tensor) -> Tensor:
        """What a question gives without the image, `[B, ...]`."""
        side_BS: Tensor = self.question(sentence_BD)
        return side_BS

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        """Each question joined with every one of its image's regions apart, `[B, R, out_dim]`."""
        raise NotImplementedError

    def vectors(self, image: Image) -> Tensor:
        """The regions as they are joined, `[I, R, C]`."""
        return unit_length(image.regions_IRC) if self.normalise_image else image.regions_IRC

    def forward(self, image: Image, question: Question) -> Fused:
        mean = Image(pool_regions(image)[:, None], image.row_B)
        joint_B1D = self.join_sides(self.image_side(mean), self.question_side(question.sentence_BD))
        return Fused(joint_B1D[:, 0], None)


def join_single_regions(fusion: Fusion, image: Image, question: Question) -> Tensor:
    """What a `VectorFusion` gives of its two sides, with any fusion: `[B, R, out_dim]`.

    Every region is an image of its own, about which every question is asked again. A mask is not looked at.
    """
    regions = image.regions_IRC.shape[1]
    row_B = image.row_B
    if row_B is not None:
        place_R = torch.arange(regions, device=row_B.device)
        row_B = (row_B[:, None] * regions + place_R).flatten()
    boxes_IR4 = image.boxes_IR4
    singles = Image(
        image.regions_IRC.flatten(0, 1)[:, None],
        row_B,
        boxes_IR4=None if boxes_IR4 is None else boxes_IR4.flatten(0, 1)[:, None],
    )
    repeated = Question(*(_repeated(values_B, regions) for values_B in question))
    vector_BRD: Tensor = fusion(singles, repeated).vector_BD.unflatten(0, (-1, regions))
    return vector_BRD


def _repeated(values_B: Tensor, times: int) -> Tensor:
    """Every row so many times, one behind the other."""
    return values_B[:, None].expand(-1, times, *values_B.shape[1:]).flatten(0, 1)
