"""What an experiment file says: strict, complete and written back with every default filled in.

An experiment is one YAML file. Unknown keys, wrong types and unknown names fail before anything runs, naming the file,
the key and the right choices. The sections `question_encoder`, `fusion`, `classifier` and `loss` are checked against
the constructor of the class that their `name` selects (`vqa.models.options`), which may be one from outside the
package (`vqa.parts`); the rest is below.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from vqa.data.formats import FORMATS, find_format
from vqa.errors import LISTED, InputError, first_of, quoted, unknown_name
from vqa.models import check_parts_fit, is_pretrained, names_inside, resolve_part, table_of
from vqa.models.options import LARGEST_FLOAT, is_number
from vqa.overrides import Assignment, as_section, assign, parse_assignments, read_yaml
from vqa.recipes import experiment_file
from vqa.text.vocabulary import MOST_WORDS

MODEL_PARTS = ("question_encoder", "fusion", "classifier", "loss")  # sections that are held against a constructor


class Section(BaseModel):
    """A section of the file: no unknown keys, no silent conversions, never changed after reading.

    Every whole number fits into 64 bits, every other one is finite and fits into 32.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _is_number(cls, value: Any) -> Any:
        for one in value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]:
            if type(one) is int and not is_number(one):
                raise ValueError(f"whole numbers go from {-(2**63)} to {2**63 - 1}")
            if type(one) is float and not is_number(one):
                raise ValueError(f"numbers go up to {LARGEST_FLOAT:.3g}, the largest float of 32 bits")
        return value


Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what torch's generators take, and NumPy's


class DataSection(Section):
    """Which questions to train on and to validate on."""

    format: str
    root: str
    train: str = "train"
    val: str | None = "val"
    test: str | None = "test"
    holdout: float | None = Field(default=None, gt=0, lt=1)  # share of the training images kept for validation
    holdout_seed: Seed = 0

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> "DataSection":
        if not (info.context or {}).get("own_only"):
            try:
                find_format(self.format)
            except InputError as error:
                raise ValueError(str(error)) from None
        if self.holdout is None and self.val is None:
            raise ValueError("needs a val split, or `holdout: 0.2` to keep that share of the training images for it")
        return self


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class FeaturesSection(Section):
    """Where the image features are, and (optional, checked against the cache) what they must be.

    With `tune` there is no cache: the image encoder is part of the model and trained from the part of it that
    `tune_from` names on, "all" of it or a module such as "features.9" (`vqa.training.inputs.tuned_encoder`).
    """

    cache: Annotated[list[str], BeforeValidator(_as_list)] = []
    encoder: str | None = None
    layer: str | None = None
    image_size: int | None = Field(default=None, ge=1)
    weights: str | None = None
    residency: Literal["auto", "device", "host", "disk"] = "auto"
    share: bool | None = None  # one table in main memory for all processes of the machine; None: under torchrun
    standardise: bool = False  # each channel to mean 0 and deviation 1, by the training images
    tune: bool = False
    tune_from: str = "all"

    @model_validator(mode="after")
    def _check(self) -> "FeaturesSection":
        if not self.tune and not self.cache:
            raise ValueError("needs features.cache with at least 1 item, or `tune: true` and the encoder to tune")
        if not self.tune and self.tune_from != "all":
            raise ValueError("tune_from is for `tune: true`; features of a cache cannot be trained")
        if self.tune and self.cache:
            raise ValueError("has a cache and `tune: true`; a tuned encoder reads images, so leave out the cache")
        if self.tune and self.encoder is None:
            raise ValueError("`tune: true` needs the encoder to train, e.g. `encoder: resnet50`")
        if self.tune and self.standardise:
            raise ValueError("standardise is for cached features: those of a tuned encoder change as it is trained")
        return self


class WordsSection(Section):
    """The question vocabulary, from the training split alone.

    A question's words after the first `longest` are not read. `vectors` names a file of GloVe, fastText or word2vec
    vectors that its words start from.
    """

    min_count: int = Field(default=1, ge=1)
    longest: int = Field(default=MOST_WORDS, ge=1)
    vectors: str | None = None


class AnswersSection(Section):
    """The answer vocabulary: the most frequent answers of the training split.

    `from: majority` counts each question's published answer, `from: all` every human's.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)
    size: int | None = Field(default=1000, ge=1)
    min_count: int = Field(default=1, ge=1)
    count_from: Literal["majority", "all"] = Field(default="majority", alias="from")


class PartSection(Section):
    """What the optimiser does otherwise for one part of the model; what is left out is as for the rest."""

    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)


# which optimisers know an option that is not everyone's
OPTIMIZER_OPTIONS = {
    "momentum": ("sgd", "rmsprop"),
    "alpha": ("rmsprop",),
    "betas": ("adam", "adamw", "adamax"),
    "epsilon": ("adam", "adamw", "adamax", "rmsprop"),
    "decoupled": ("sgd",),
    "clip_decay": ("adam", "adamax", "rmsprop", "sgd"),
}


class OptimizerSection(Section):
    """A torch optimiser.

    `momentum` is for sgd and rmsprop, `alpha` for rmsprop, `betas` for adam, adamw and adamax; `epsilon` for all but
    sgd. `decoupled` takes sgd's weight decay out of the momentum, as adamw always does; `clip_decay` adds it to the
    gradient before that is clipped. `parts` gives parts of the model, named as in the saved weights (`classifier`), a
    rate or a decay of their own; the longest name that fits a weight counts.
    """

    name: Literal["adam", "adamw", "adamax", "rmsprop", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    decoupled: bool = False
    clip_decay: bool = False
    momentum: float = Field(default=0.0, ge=0, lt=1)
    alpha: float = Field(default=0.99, ge=0, lt=1)
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(default=[0.9, 0.999], min_length=2, max_length=2)
    epsilon: float = Field(default=1e-8, gt=0)
    parts: dict[str, PartSection] = {}

    @model_validator(mode="after")
    def _check(self) -> "OptimizerSection":
        for option, takers in OPTIMIZER_OPTIONS.items():
            changed = getattr(self, option) != type(self).model_fields[option].default
            if changed and self.name not in takers:
                raise ValueError(f"{option}: {self.name} takes none; it is for {' and '.join(takers)}")
        if self.decoupled and self.clip_decay:
            raise ValueError("decoupled and clip_decay: only a decay inside the gradient is clipped with it")
        return self


SCHEDULE_OPTIONS = {"factor": ("exponential", "step"), "every": ("step",), "at": ("step",)}


class ScheduleSection(Section):
    """How the learning rate changes: every step for warm-up, exponential and cosine, every epoch for step.

    `exponential` multiplies by `factor` each step, `step` by `factor` every `every` epochs, or where `at` is given
    after that many epochs, `cosine` falls to zero at the last step. `warmup` is a number of epochs, fractions allowed,
    over which the rate rises linearly from zero.
    """

    name: Literal["constant", "exponential", "step", "cosine"] = "constant"
    factor: float = Field(default=1.0, gt=0, le=1)
    every: int = Field(default=1, ge=1)
    at: list[Annotated[int, Field(ge=1)]] = []
    warmup: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> "ScheduleSection":
        for option, takers in SCHEDULE_OPTIONS.items():
            changed = getattr(self, option) != type(self).model_fields[option].default
            if changed and self.name not in takers:
                raise ValueError(f"`{option}` is for the schedule {' or '.join(takers)}, not for {self.name}")
        if self.name in SCHEDULE_OPTIONS["factor"] and "factor" not in self.model_fields_set:
            raise ValueError(f"the schedule {self.name} needs a `factor`; without one the rate would never fall")
        if self.at and self.every != type(self).model_fields["every"].default:
            raise ValueError("`every` and `at`: the schedule step takes one of them")
        return self


class TrainingSection(Section):
    """The loop.

    Gradients are first clipped to [-clip_value, clip_value] one by one, then to the Euclidean norm clip_norm: all
    together, those of each part (question encoder, fusion, classifier), or each tensor, as `clip_norm_over` says.
    `patience` stops after so many epochs without a better validation accuracy. `batches: by_image` keeps an image's
    questions together, so that what depends on the image alone is computed once (always so where the image encoder is
    tuned). `shuffle: blocks` takes questions about
    neighbouring images together, for features that are read from the disk; `auto` does so only where the files are
    larger than the main memory (what it chose is kept with the run). `deterministic` makes runs of one seed on a GPU
    equal bit for bit, or refuses what cannot be made so; on a CPU they are equal anyway. `cuda_graphs: auto` records
    steps of whole batches of one question length and plays them again (`vqa.training.graphs`), where a run allows it.
    """

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=256, ge=1)
    order_seed: Seed | None = None  # of the order of the questions; None: the experiment's seed
    batches: Literal["random", "by_image"] = "random"
    shuffle: Literal["auto", "full", "blocks"] = "auto"
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    clip_norm: float | None = Field(default=None, gt=0)
    clip_norm_over: Literal["model", "part", "tensor"] = "model"
    clip_value: float | None = Field(default=None, gt=0)
    initial_range: float | None = Field(default=None, gt=0)  # all weights from U(-range, range); None: torch's own
    initial_embedding_range: float | None = Field(default=None, gt=0)  # the same for word vectors alone
    initial_bias: dict[str, float] = {}  # of parts of the model (`vqa.models.parameters`)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    recurrent_precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of LSTMs and GRUs; auto: float32 on a GPU
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False  # fusion and classifier by torch.compile, which needs a C++ compiler; little gain on a CPU
    deterministic: bool = False
    cuda_graphs: Literal["auto", "off"] = "off"
    patience: int | None = Field(default=None, ge=1)


class TrackingSection(Section):
    """Weights & Biases; the same numbers go to metrics.jsonl whatever this says."""

    wandb: Literal["online", "offline", "disabled"] = "disabled"
    project: str = "vqa"
    group: str | None = None
    tags: list[str] = []


Part = Annotated[dict[str, Any], BeforeValidator(as_section)]  # a class and its options, or its name alone


class Experiment(Section):
    """One training run, resolved: every option has its value."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")
    seed: Seed = 0
    runs: str = "experiments/runs"
    data: DataSection
    features: FeaturesSection
    words: WordsSection = WordsSection()
    answers: AnswersSection = AnswersSection()
    question_encoder: Part = {"name": "lstm"}
    fusion: Part
    classifier: dict[str, Any] = {}
    loss: Part = {"name": "cross_entropy"}
    training: TrainingSection = TrainingSection()
    tracking: TrackingSection = TrackingSection()

    @property
    def folder(self) -> Path:
        """Where the run lands: `experiments/runs/<name>/<seed>`."""
        return Path(self.runs) / self.name / str(self.seed)

    @property
    def order_seed(self) -> int:
        """The seed of the order of the questions."""
        own = self.training.order_seed
        return self.seed if own is None else own

    def resolved(self) -> dict[str, Any]:
        """Everything as plain values, ready for YAML; reading it back gives an equal experiment."""
        return self.model_dump(mode="json", by_alias=True)


def read_experiment(named: Path, overrides: Sequence[str | Assignment] = ()) -> Experiment:
    """Read and check an experiment file, or a recipe by its name, with `key.path=value` overrides."""
    path = experiment_file(named)
    values = read_yaml(path)
    if "base" in values:
        raise InputError(f"{path}: an ablation file (it names a base); `vqa ablate {named}` runs it")
    return check_overridden(lambda given: assign(values, given), parse_assignments(overrides), str(path))


def check_experiment(values: Mapping[str, Any], source: str) -> Experiment:
    """Check plain values; raises InputError with every wrong key at once, each with its right choices."""
    return check_overridden(lambda _: values, (), source)


def check_recorded(values: Mapping[str, Any], source: str) -> Experiment:
    """Check the values that a run has recorded, without importing anything from outside the package.

    Sections that name a class which is not the package's own stay as they are: they were checked when the run began.
    """
    experiment, problems = _check(values, own_only=True)
    if experiment is None:
        raise InputError(first_of(f"{source}: {problem}" for problem in problems))
    return experiment


def outside_parts(experiment: Experiment) -> dict[str, str]:
    """The names of the parts that an experiment takes from outside the package (`vqa.parts`), by their kind.

    A part of a section inside another one goes by its path, "fusion.score".
    """
    named: dict[str, str] = {}
    for kind in MODEL_PARTS:
        section = getattr(experiment, kind)
        table = table_of(kind, section)
        here = {kind: section.get("name")} | {f"{kind}.{key}": one for key, one in names_inside(kind, section).items()}
        named |= {path: name for path, name in here.items() if isinstance(name, str) and name not in table}
    return named if experiment.data.format in FORMATS else named | {"data format": experiment.data.format}


def _is_outside(kind: str, section: Mapping[str, Any]) -> bool:
    """Whether a section's class, or one inside it, is not the package's own; imports none of them."""
    name, table = section.get("name"), table_of(kind, section)
    if isinstance(name, str) and name not in table:
        return True
    return any(inner not in table for inner in names_inside(kind, section).values())


def check_overridden(
    values_with: Callable[[Sequence[Assignment]], Mapping[str, Any]], overrides: Sequence[Assignment], source: str
) -> Experiment:
    """Check plain values as overrides have changed them, and blame each mistake on what made it.

    Args:
        values_with: the values with some of the overrides applied.
        overrides: what the command line changed.
        source: where the other values come from, for messages.

    Raises:
        InputError: every wrong key at once, each with its right choices, begun with `source` or with the overrides
            without which the mistake would not be there.
    """
    experiment, problems = _check(values_with(overrides))
    if experiment is None:
        blamed = {problem: _blame(problem, values_with, overrides) for problem in problems[:LISTED]}
        raise InputError(first_of(f"{blamed.get(problem) or source}: {problem}" for problem in problems))
    return experiment


def _blame(
    problem: str,
    values_with: Callable[[Sequence[Assignment]], Mapping[str, Any]],
    overrides: Sequence[Assignment],
) -> str:
    """The overrides that made a problem, for its message; "" where it is there without them."""

    def persists(given: Sequence[Assignment]) -> bool:
        try:
            return problem in _check(values_with(given))[1]
        except InputError:  # without one of them another cannot be applied
            return False

    if not overrides or persists(()):
        return ""
    made = [one for place, one in enumerate(overrides) if not persists([*overrides[:place], *overrides[place + 1 :]])]
    named = [repr(one.text) for one in made or overrides]
    return f"override{'s' if len(named) > 1 else ''} {', '.join(named)}"


def _check(values: Mapping[str, Any], own_only: bool = False) -> tuple[Experiment | None, list[str]]:
    """The experiment, or None and all that is wrong with it; with `own_only` parts from outside are left unchecked."""
    try:
        experiment = Experiment.model_validate(values, context={"own_only": own_only})
    except ValidationError as error:
        return None, [_explain(item) for item in error.errors()]
    parts, problems = {}, []
    for kind in MODEL_PARTS:
        section = getattr(experiment, kind)
        if own_only and _is_outside(kind, section):
            continue
        try:
            parts[kind] = resolve_part(kind, section)
        except InputError as error:
            problems.append(str(error))
    if not problems and {"question_encoder", "fusion"} <= parts.keys():
        try:
            check_parts_fit(parts["question_encoder"], parts["fusion"])
        except InputError as error:
            problems.append(str(error))
    if problems:
        return None, problems
    if experiment.words.vectors is not None and is_pretrained(experiment.question_encoder):
        return None, ["words.vectors: a pretrained question encoder has word vectors of its own"]
    if experiment.words.longest != MOST_WORDS and is_pretrained(experiment.question_encoder):
        return None, ["words.longest: a pretrained question encoder has a longest question of its own"]
    return experiment.model_copy(update=parts), []


def _explain(item: Any) -> str:
    """One pydantic error in words: where, what is wrong, what would be right."""
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        *parents, key = [str(part) for part in item["loc"]]
        section: Any = Experiment
        for name in parents:
            fields = getattr(section, "model_fields", None)
            section = get_args(section)[1] if fields is None else fields[name].annotation  # a dict of sections
        known = [field.alias or name for name, field in section.model_fields.items()]
        return f"{where}: {unknown_name('key', key, known)}"
    if item["type"] == "missing":
        return f"{where}: missing"
    message = item["msg"].removeprefix("Value error, ")
    shown = f" (it is {quoted(item['input'])})" if not isinstance(item["input"], dict) else ""
    return f"{where}: {message}{shown}"
