"""`VQAModel`: a question encoder, a fusion and a classifier; and how to build one from an experiment's sections.

Legend: `B` batch, `I` distinct images of a batch, `T` tokens, `R` regions, `C` channels, `A` answers.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.classifier import Classifier
from vqa.models.contracts import Fusion, Image, Prediction, QuestionEncoder, Reads
from vqa.models.fusions import FUSIONS, LANGUAGE_FUSIONS
from vqa.models.losses import LOSSES, Loss
from vqa.models.options import as_section, check_options, inner_keys, takes
from vqa.models.precision import in_autocast_type
from vqa.models.question_encoders import encoders_for, is_pretrained
from vqa.models.question_encoders.pretrained import TextTransformer
from vqa.models.standardise import Standardisation
from vqa.models.transformers.language import LanguageModel
from vqa.parts import find_part, is_code

CLASSIFIERS: dict[str, type[Classifier]] = {"mlp": Classifier}

# sizes that only the data, or the part before, knows: `given` to check_options
SIZES: dict[str, tuple[str, ...]] = {
    "question_encoder": ("vocab_size", "transformer"),
    "fusion": ("image_dim", "regions", "question_dim", "word_dim", "transformer"),
    "classifier": ("in_dim", "answers"),
    "loss": (),
}
# what the class of a section is a subclass of
BASES: dict[str, type[nn.Module]] = {
    "question_encoder": QuestionEncoder,
    "fusion": Fusion,
    "classifier": Classifier,
    "loss": Loss,
}


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

    def forward(self, image: Image, tokens_BT: Tensor, length_B: Tensor) -> Prediction:
        """Answer a batch of questions.

        Args:
            image: features of the parameters' type (any floating type under autocast).
            tokens_BT: int64, right-padded with 0.
            length_B: int64, real tokens a question, at least 1; best left in host memory (see `QstEncoder`).
        """
        regions_IRC = image.regions_IRC if self.standardise is None else self.standardise(image.regions_IRC)
        regions_IRC = in_autocast_type(regions_IRC)
        if image.mask_IR is not None:  # no weight of 0 hides a NaN, or what standardising takes beyond all bounds
            regions_IRC = regions_IRC.masked_fill(~image.mask_IR[:, :, None], 0)
        fused = self.fusion(image._replace(regions_IRC=regions_IRC), self.question_encoder(tokens_BT, length_B))
        return Prediction(self.classifier(fused.vector_BD), fused.attention_BHR)


def table_of(kind: str, section: Mapping[str, Any]) -> Mapping[str, type[nn.Module]]:
    """The classes that the package itself has for a section, by name.

    Args:
        kind: "question_encoder", "fusion", "classifier" or "loss".
        section: as in the experiment; it gives a pretrained question encoder its name.
    """
    tables: dict[str, Mapping[str, type[nn.Module]]] = {
        "fusion": {**FUSIONS, **LANGUAGE_FUSIONS},
        "classifier": CLASSIFIERS,
        "loss": LOSSES,
    }
    return encoders_for(section) if kind == "question_encoder" else tables[kind]


def check_part(kind: str, section: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The class that a section names, of the package or from outside (`vqa.parts`), and all its options.

    Raises:
        InputError: what `check_options` finds.
    """
    return check_options(kind, table_of(kind, section), section, given=SIZES[kind], base=BASES[kind])


def reads_of(section: Mapping[str, Any]) -> Reads:
    """What the fusion of a section takes of an image (`Fusion.reads`); raises InputError as `check_part`."""
    reads: Reads = check_part("fusion", section)[0].reads
    return reads


def resolve_part(kind: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """A section of an experiment, checked, with every option and default written out, ready for `build_model`.

    Raises:
        InputError: what `check_options` finds.
    """
    _, options = check_part(kind, section)
    return {"name": section.get("name", next(iter(table_of(kind, section)))), **options}


def names_inside(kind: str, section: Mapping[str, Any]) -> dict[str, str]:
    """The names of the parts in the sections inside a section, by their key: `{"score": "mutan", "join": "mine:Mine"}`.

    Nothing is imported that only a file names: of a class written as `module:Class` whatever looks like such a section
    counts.
    """
    name, table = section.get("name"), table_of(kind, section)
    if not isinstance(name, str):
        return {}
    if is_code(name) and name not in table:
        keys = [key for key, value in section.items() if isinstance(value, Mapping)]
    else:
        try:
            keys = inner_keys(find_part(kind, table, name))
        except InputError:  # a package that is gone is missed elsewhere
            return {}
    named = {key: as_section(section[key]).get("name") for key in keys if isinstance(section.get(key), str | Mapping)}
    return {key: name for key, name in named.items() if isinstance(name, str)}


def outside_names(kind: str, section: Mapping[str, Any]) -> dict[str, str]:
    """The names of a section that are not the package's own, by kind; of one inside it by its path, "fusion.score"."""
    here = {kind: section.get("name")} | {f"{kind}.{key}": one for key, one in names_inside(kind, section).items()}
    return {path: name for path, name in here.items() if isinstance(name, str) and name not in table_of(kind, section)}


def is_outside(kind: str, section: Mapping[str, Any]) -> bool:
    """Whether a section's class, or one inside it, is not the package's own; imports none of them."""
    name = section.get("name")
    return (isinstance(name, str) and name not in table_of(kind, section)) or bool(outside_names(kind, section))


def check_parts_fit(question_encoder: Mapping[str, Any], fusion: Mapping[str, Any]) -> None:
    """Raise InputError where a fusion runs the question encoder's language model, and the section gives it none.

    One inside another fusion is given none either.

    Args:
        question_encoder: the section, resolved.
        fusion: the same.
    """
    for key, name in names_inside("fusion", fusion).items():
        if name in LANGUAGE_FUSIONS:
            raise InputError(f"fusion {fusion['name']!r}: {key} cannot be {name!r}, which runs a language model itself")
    part, _ = check_part("fusion", fusion)
    if takes(part, {"transformer": None}) and question_encoder.get("words") != "embeddings":
        now = f"{{name: {question_encoder['name']}" + (
            "}" if not is_pretrained(question_encoder) else ", words: outputs}"
        )
        raise InputError(
            f"fusion {fusion['name']!r} runs the language model of the question encoder, which must be "
            f"{{name: hf:NAME_OR_PATH, words: embeddings}}, not {now}"
        )


def tuned_share(question_encoder: Mapping[str, Any], fusion: Mapping[str, Any]) -> Literal["none", "some", "all"]:
    """How much of the language model of two resolved sections is trained; the weights of a run hold that much of it."""
    if not is_pretrained(question_encoder):
        return "none"
    tuned = fusion.get("tuned", False) if question_encoder.get("words") == "embeddings" else question_encoder["tuned"]
    return "all" if tuned is True else "some" if tuned else "none"


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
        transformer: what the name "hf:..." of a pretrained question encoder stands for; what of it is tuned changes in
            place.

    Raises:
        InputError: what `check_options` finds, or an option that does not fit the sizes.
    """
    pretrained = {} if transformer is None else {"transformer": transformer}
    encoder_class, options = check_part("question_encoder", question_encoder)
    encoder = encoder_class(**takes(encoder_class, {"vocab_size": vocab_size}), **pretrained, **options)
    fusion_class, options = check_part("fusion", fusion)
    check_parts_fit(resolve_part("question_encoder", question_encoder), fusion)
    sizes = {"image_dim": image_dim, "regions": regions}
    sizes |= {"question_dim": _width(encoder, "sentence_dim"), "word_dim": _width(encoder, "word_dim")}
    joined = fusion_class(**takes(fusion_class, sizes | pretrained), **options)
    classifier_class, options = check_part("classifier", classifier)
    return VQAModel(
        encoder,
        joined,
        classifier_class(in_dim=_width(joined, "out_dim"), answers=answers, **options),
        Standardisation(image_dim) if standardise else None,
    )


def _width(part: nn.Module, name: str) -> int:
    """A width that a part states of itself; raises InputError where it does not, which a class from outside may."""
    width = getattr(part, name, None)
    if not isinstance(width, int):
        raise InputError(f"{type(part).__name__}: its constructor must set self.{name}, the width of what it returns")
    return width


@torch.no_grad()
def initialise_uniform(model: nn.Module, limit: float | None, embedding_limit: float | None = None) -> None:
    """Set every parameter, biases included, to random numbers from U(-limit, limit).

    The padding row of an embedding stays zero, and a pretrained language model stays as it is.

    Args:
        limit: None leaves the parameters as they are.
        embedding_limit: the same for embeddings; None takes `limit`.
    """
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    tables = {id(embedding.weight) for embedding in embeddings}
    pretrained = [module for module in model.modules() if isinstance(module, TextTransformer | LanguageModel)]
    kept = {id(parameter) for module in pretrained for parameter in module.parameters()}
    for parameter in model.parameters():
        own = embedding_limit if id(parameter) in tables and embedding_limit is not None else limit
        if own is not None and id(parameter) not in kept:
            parameter.uniform_(-own, own)
    for embedding in embeddings:
        if embedding.padding_idx is not None and id(embedding.weight) not in kept:
            embedding.weight[embedding.padding_idx].zero_()
