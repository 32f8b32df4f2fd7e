"""Models: question encoders, fusions, classifier and losses. They know tensors and integers, nothing else."""

from vqa.models.contracts import Fused, Fusion, Image, Prediction, Question, QuestionEncoder
from vqa.models.fusions import FUSIONS, LANGUAGE_FUSIONS
from vqa.models.losses import LOSSES, Loss, Target
from vqa.models.model import (
    CLASSIFIERS,
    VQAModel,
    build_model,
    check_part,
    check_parts_fit,
    initialise_uniform,
    is_outside,
    names_inside,
    outside_names,
    reads_of,
    resolve_part,
    table_of,
    tuned_share,
)
from vqa.models.options import check_options
from vqa.models.question_encoders import QUESTION_ENCODERS, is_precomputed, is_pretrained

__all__ = [
    "CLASSIFIERS",
    "FUSIONS",
    "LANGUAGE_FUSIONS",
    "LOSSES",
    "QUESTION_ENCODERS",
    "Fused",
    "Fusion",
    "Image",
    "Loss",
    "Prediction",
    "Question",
    "QuestionEncoder",
    "Target",
    "VQAModel",
    "build_model",
    "check_options",
    "check_part",
    "check_parts_fit",
    "initialise_uniform",
    "is_outside",
    "is_precomputed",
    "is_pretrained",
    "names_inside",
    "outside_names",
    "reads_of",
    "resolve_part",
    "table_of",
    "tuned_share",
]
