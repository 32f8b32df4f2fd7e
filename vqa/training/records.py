"""What the files of a run folder must hold, and the one way in which they are held against it.

Values are held against the schemas below, tensors against a model's own (`vqa.training.checkpoint`). Keys that a schema
does not name are left alone, so that an older version reads what a newer one adds.
"""

import math
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from vqa.errors import InputError
from vqa.features.cache.attributes import preprocessing_faults
from vqa.parts import Origin

T = TypeVar("T")
LONGEST_SIDE = 1 << 14  # pixels of an image that an encoder takes
LONGEST_TEXT = 4096  # letters of a name or a path
MOST_NUMBERS = 1 << 24  # regions times channels: 32 MiB an image in float16, far above any that is published

Count = Annotated[int, Meta(ge=0, lt=1 << 53)]
Number = Annotated[int, Meta(ge=1, lt=1 << 53)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Text = Annotated[str, Meta(max_length=LONGEST_TEXT)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Preprocessing(msgspec.Struct):
    """How an encoder prepares images; what its own kind adds is compared with the encoder's."""

    resize: Text = ""
    scaled_decoding: bool = False


class Features(msgspec.Struct, kw_only=True):
    """`recorded.features` of experiment.yaml: the shape of the features and what made them."""

    regions: Number
    channels: Number
    encoder: Annotated[str, Meta(min_length=1, max_length=LONGEST_TEXT)]
    layer: Text
    image_size: Annotated[int, Meta(ge=0, le=LONGEST_SIDE)]  # 0: of features that were imported
    weights_sha256: Text
    preprocessing: Preprocessing
    weights: Text | None = None
    weights_origin: Text | None
    arithmetic: Text | None = None


class CachedFeatures(Features, kw_only=True):
    """The same of features that a cache holds; an encoder that is tuned has none."""

    format_version: Number


class Questions(msgspec.Struct):
    """`recorded.questions`: how many questions there were, and which."""

    train: Number
    trained_on: Number
    train_ids_sha256: Digest
    val_ids_sha256: Digest | None  # None: of a run that was not validated


class WordVectors(msgspec.Struct):
    """`recorded.word_vectors`: the file that the words started from."""

    file: str
    found: Count
    covered: float
    sha256: Digest


class TextEncoderRecord(msgspec.Struct):
    """`recorded.question_encoder`: a pretrained model."""

    weights_sha256: str
    tokenizer_sha256: str
    longest: Number
    transformers: str


class Recorded(msgspec.Struct):
    """`recorded` of experiment.yaml: the facts that training writes at its start."""

    data: dict[str, Digest]
    features: dict[str, Any]  # held against `Features` or `CachedFeatures`
    machine: str
    questions: Questions | None = None
    word_vectors: WordVectors | None = None
    question_encoder: TextEncoderRecord | None = None
    residency: str = ""
    parts: dict[str, Origin] = {}


class Tracking(msgspec.Struct, omit_defaults=True):
    """tracking.json.

    Attributes:
        wandb_id: of the run, in W&B and in Trackio.
        complete: the last step of the last part of it that was closed in order, so that W&B has every row up to there.
        facts: sizes, digests and code that the run began with, as trackers show them.
    """

    wandb_id: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    complete: Annotated[int, Meta(ge=-1, lt=1 << 53)] = -1
    facts: dict[str, Any] = {}


class Row(msgspec.Struct):
    """What every line of metrics.jsonl holds."""

    step: Count


class EpochRow(Row):
    """What the line of an epoch holds for the learning curve; no accuracy where there was no validation."""

    epoch: Number
    loss: float = msgspec.field(name="train/loss")
    accuracy: float = msgspec.field(name="val/open_ended/overall", default=math.nan)


class Scores(msgspec.Struct):
    """Accuracies of one task, in percent."""

    overall: Percent
    per_answer_type: dict[str, Percent]


class Slice(msgspec.Struct):
    """A kind of questions."""

    name: str
    count: Count
    accuracy: Percent | None
    pattern: str | None = None


class Beyond(msgspec.Struct):
    """What an evaluation found beside accuracies."""

    slices: list[Slice] = []


class NearAnswers(msgspec.Struct):
    """Lists in any order, and WUPS by threshold where it was measured."""

    list_accuracy: Percent
    wups: dict[str, Percent] = {}
    wordnet: str | None = None


class Seen(msgspec.Struct):
    """What of a split the run was trained on."""

    stamp: str
    contaminated: bool | None = None


class EvaluationRecord(msgspec.Struct):
    """What is read back of evaluation_<split>.json."""

    seed: Count
    data: str
    questions: Number
    protocol: str
    seen_in_training: Seen
    model_choice: str
    accuracy: dict[str, Scores | None]
    unrounded: dict[str, Scores] = {}
    floors: dict[str, dict[str, Scores]] = {}
    ceilings: dict[str, dict[str, Scores]] = {}
    beyond_accuracy: Beyond | None = None
    near_answers: NearAnswers | None = None
    task: str | None = None
    choices_outside: bool | None = None
    weights_sha256: str | None = None


def is_finite_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def fitting(value: Any, kind: type[T], where: str) -> T:
    """A value as what it must be.

    Args:
        kind: a schema.
        where: file and item, for the message.

    Raises:
        InputError: it is not; says what of it.
    """
    try:
        return msgspec.convert(value, kind, strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InputError(f"{where}: {error}; the file is damaged or not of a run") from None


def check_recorded_facts(recorded: Any, where: str, *, tuned: bool, pretrained: bool) -> None:
    """Hold the facts that a run records at its start against what is read of them later.

    Args:
        where: the file, for messages.
        tuned: whether its image encoder was trained.
        pretrained: whether its question encoder is a pretrained model, whose digests must be there.

    Raises:
        InputError: naming the file and the item.
    """
    where = f"{where}: recorded"
    if not isinstance(recorded, dict):
        raise InputError(f"{where}: lacks the facts that vqa train writes at its start; the file is damaged")
    facts = fitting(recorded, Recorded, where)
    features = fitting(facts.features, Features if tuned else CachedFeatures, f"{where}.features")
    if wrong := preprocessing_faults(facts.features["preprocessing"]):
        raise InputError(f"{where}.features.preprocessing: {wrong[0]}; the file is damaged or not of a run")
    if features.regions * features.channels > MOST_NUMBERS:
        shape = f"{features.regions:,} regions of {features.channels:,} channels"
        raise InputError(f"{where}.features: {shape} are no features of an image")
    if pretrained and facts.question_encoder is None:
        raise InputError(f"{where}.question_encoder: lacks what the pretrained question encoder was")
