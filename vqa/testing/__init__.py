"""Tests of the promises that parts keep, for classes of your own; they need no pytest.

    from vqa.testing import check_fusion
    from mine import Mine

    check_fusion(Mine, fusion_dim=16)

Each function returns when every promise is kept, and raises AssertionError with one sentence that says which is not.
The package's own tests hold every class of its tables to the same promises (`FUSION_PROMISES` and the like).
"""

from vqa.testing.formats import check_dataset, check_format
from vqa.testing.fusions import FUSION_PROMISES, FusionCase, check_fusion
from vqa.testing.image_encoders import IMAGE_ENCODER_PROMISES, check_image_encoder
from vqa.testing.question_encoders import QUESTION_ENCODER_PROMISES, QuestionEncoderCase, check_question_encoder
from vqa.testing.tiny import tiny_experiment

__all__ = [
    "FUSION_PROMISES",
    "IMAGE_ENCODER_PROMISES",
    "QUESTION_ENCODER_PROMISES",
    "FusionCase",
    "QuestionEncoderCase",
    "check_dataset",
    "check_format",
    "check_fusion",
    "check_image_encoder",
    "check_question_encoder",
    "tiny_experiment",
]
