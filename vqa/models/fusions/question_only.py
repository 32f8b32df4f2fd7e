"""`question_only`: the baseline that never sees the image; what it scores is what the questions give away.

Source: the "LSTM Q" row of Antol et al. 2015, "VQA: Visual Question Answering" (arXiv 1505.00468).

    z = tanh(W_q q + b_q)
"""

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.layers import projection
from vqa.models.options import Count, Rate


class QuestionOnly(Fusion):
    """The question vector projected and tanh'd; the image is ignored.

    Args:
        image_dim: channels of a region, not used.
        regions: regions an image, not used.
        question_dim: width of the question vector.
        fusion_dim: width of the result.
        dropout: on the input of the projection.

    Attributes:
        out_dim: fusion_dim.
    """

    reads = "nothing"

    def __init__(
        self, *, image_dim: int, regions: int, question_dim: int, fusion_dim: Count = 1024, dropout: Rate = 0.5
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.question = projection(question_dim, fusion_dim, dropout)

    def forward(self, image: Image, question: Question) -> Fused:
        return Fused(self.question(question.sentence_BD), None)
