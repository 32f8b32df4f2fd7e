"""`VQAModel`: a question encoder, a fusion and a classifier; and how to build one from an experiment's sections.

Legend: `B` batch, `T` tokens, `R` regions, `C` channels, `A` answers.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vqa.models.classifier import Classifier
from vqa.models.contracts import Fusion, Prediction, QuestionEncoder
from vqa.models.fusions import FUSIONS
from vqa.models.options import check_options
from vqa.models.question_encoders import encoders_for
from vqa.models.question_encoders.pretrained import TextTransformer
from vqa.models.standardise import Standardisation

CLASSIFIERS: dict[str, type[Classifier]] = {"mlp": Classifier}

# sizes that only the data, or the part before, knows: `given` to check_options
QUESTION_ENCODER_SIZES = ("vocab_size", "transformer")
FUSION_SIZES = ("image_dim", "regions", "question_dim", "word_dim")
CLASSIFIER_SIZES = ("in_dim", "answers")


class VQAModel(nn.Module):
    """Question and image in, one score an answer out.

    Args:
        standardise: applied to the image features first; None leaves them as they are.
    """

    def __init__(
        self,
        question_encoder: QuestionEncoder,
        fusion: Fusion,
        classifier: nn.Module,
        standardise: Standardisation | None = None,
    ) -> None:
        super().__init__()
        self.standardise = standardise
        self.question_encoder = question_encoder
        self.fusion = fusion
        self.classifier = classifier

    def forward(self, image_BRC: Tensor, tokens_BT: Tensor, length_B: Tensor) -> Prediction:
        """Answer a batch of questions.

        Args:
            image_BRC: float, one row a question, of the parameters' type (any floating type under autocast).
            tokens_BT: int64, right-padded with 0.
            length_B: int64, real tokens a question, at least 1; best left in host memory (see `QstEncoder`).
        """
        if self.standardise is not None:
            image_BRC = self.standardise(image_BRC)
        fused = self.fusion(image_BRC, self.question_encoder(tokens_BT, length_B))
        return Prediction(self.classifier(fused.vector_BD), fused.attention_BHR)


def resolve_model(
    *, question_encoder: Mapping[str, Any], fusion: Mapping[str, Any], classifier: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The three sections of an experiment, checked, with every option and default written out.

    Returns:
        `{"question_encoder": {"name": ..., **options}, "fusion": ..., "classifier": ...}`, ready for `build_model`.

    Raises:
        InputError: what `check_options` finds.
    """
    resolved = {}
    for kind, table, section, sizes in (
        ("question_encoder", encoders_for(question_encoder), question_encoder, QUESTION_ENCODER_SIZES),
        ("fusion", FUSIONS, fusion, FUSION_SIZES),
        ("classifier", CLASSIFIERS, classifier, CLASSIFIER_SIZES),
    ):
        chosen, options = check_options(kind, table, section, given=sizes)
        name = next(name for name, entry in table.items() if entry is chosen)
        resolved[kind] = {"name": name, **options}
    return resolved


def build_model(
    *,
    question_encoder: Mapping[str, Any],
    fusion: Mapping[str, Any],
    classifier: Mapping[str, Any],
    vocab_size: int,
    image_dim: int,
    regions: int,
    answers: int,
    standardise: bool = False,
    transformer: TextTransformer | None = None,
) -> VQAModel:
    """Build a model from the sections of an experiment and the sizes of its data.

    Args:
        question_encoder: `{"name": ..., option: value, ...}`; options left out take their defaults.
        fusion: the same.
        classifier: the same; `name` may be left out.
        vocab_size: tokens, padding and unknown included.
        image_dim: channels of a region.
        regions: regions an image.
        answers: size of the answer vocabulary.
        standardise: begin with a `Standardisation` of the image features, whose statistics the training sets.
        transformer: what the name "hf:..." of a pretrained question encoder stands for.

    Raises:
        InputError: what `check_options` finds, or an option that does not fit the sizes.
    """
    encoder_class, options = check_options(
        "question_encoder", encoders_for(question_encoder), question_encoder, given=QUESTION_ENCODER_SIZES
    )
    pretrained = {} if transformer is None else {"transformer": transformer}
    encoder = encoder_class(vocab_size=vocab_size, **pretrained, **options)
    fusion_class, options = check_options("fusion", FUSIONS, fusion, given=FUSION_SIZES)
    sizes = {"image_dim": image_dim, "regions": regions, "question_dim": encoder.sentence_dim}
    if "word_dim" in inspect.signature(fusion_class).parameters:
        sizes["word_dim"] = encoder.word_dim
    joined = fusion_class(**sizes, **options)
    classifier_class, options = check_options("classifier", CLASSIFIERS, classifier, given=CLASSIFIER_SIZES)
    return VQAModel(
        encoder,
        joined,
        classifier_class(in_dim=joined.out_dim, answers=answers, **options),
        Standardisation(image_dim) if standardise else None,
    )


@torch.no_grad()
def initialise_uniform(model: nn.Module, limit: float | None, embedding_limit: float | None = None) -> None:
    """Draw every parameter, biases included, from U(-limit, limit).

    The padding row of an embedding stays zero, and a pretrained question encoder stays as it is.

    Args:
        limit: None leaves the parameters as they are.
        embedding_limit: the same for embeddings; None takes `limit`.
    """
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    tables = {id(embedding.weight) for embedding in embeddings}
    kept = {id(p) for module in model.modules() if isinstance(module, TextTransformer) for p in module.parameters()}
    for parameter in model.parameters():
        own = embedding_limit if id(parameter) in tables and embedding_limit is not None else limit
        if own is not None and id(parameter) not in kept:
            parameter.uniform_(-own, own)
    for embedding in embeddings:
        if embedding.padding_idx is not None and id(embedding.weight) not in kept:
            embedding.weight[embedding.padding_idx].zero_()
