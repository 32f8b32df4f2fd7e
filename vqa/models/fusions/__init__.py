"""Fusions: how a picture and a question become one vector. One file each; a new one is one line more here."""

from vqa.models.contracts import Fusion
from vqa.models.fusions.concat import Concat
from vqa.models.fusions.image_only import ImageOnly
from vqa.models.fusions.product import Product
from vqa.models.fusions.question_only import QuestionOnly
from vqa.models.fusions.stacked_attention import StackedAttention

FUSIONS: dict[str, type[Fusion]] = {
    "question_only": QuestionOnly,
    "image_only": ImageOnly,
    "concat": Concat,
    "product": Product,
    "stacked_attention": StackedAttention,
}
