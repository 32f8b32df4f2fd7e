"""The sections of an experiment file that are not parts of a model: every key, its type and its default."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from vqa.data.formats import find_format, require_table
from vqa.data.formats.table import TableOptions
from vqa.data.holdout import IMAGE, OWN, WORD, Holdout, compile_groups
from vqa.errors import InputError
from vqa.models.options import LARGEST_FLOAT, is_number
from vqa.text.cutters import require_cutter
from vqa.text.normalise import Spelling
from vqa.text.vocabulary import MOST_WORDS


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


class HoldoutSection(Section):
    """Which training questions are kept for validation: a share of the images, or one of several folds.

    `by` says what stays whole: each image, images whose ids count on without a gap ("consecutive"), a column (question,
    question_type, answer_type, or one of a table), or what a regular expression's group finds in the images' ids.
    """

    share: float | None = Field(default=None, gt=0, lt=1)
    by: str = IMAGE
    folds: int | None = Field(default=None, ge=2)
    fold: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> "HoldoutSection":
        if self.share is None and self.folds is None:
            raise ValueError("needs a share, such as 0.2, or folds, such as 5")
        if self.folds is None and self.fold:
            raise ValueError("fold says which of several folds is held out; give folds, too")
        if self.folds is not None:
            if self.fold >= self.folds:
                raise ValueError(f"fold: {self.folds} folds are numbered 0 to {self.folds - 1}")
            if self.share is not None and abs(self.share - 1 / self.folds) > 1e-9:
                raise ValueError(f"share and folds: one of {self.folds} folds is a share of {1 / self.folds:g}")
        if self.by not in OWN and not WORD.fullmatch(self.by):
            compile_groups(self.by)
        return self


def _one_or_several(value: Any) -> Any:
    """One split by its name, several as a list; a list of one is that one."""
    if isinstance(value, list | tuple):
        if not value or not all(isinstance(one, str) for one in value) or len(set(value)) < len(value):
            raise ValueError("takes a split's name, or a list of different ones, [train, val]")
        return value[0] if len(value) == 1 else list(value)
    if not isinstance(value, str):
        raise ValueError("takes a split's name, or a list of them, [train, val]")
    return value


def _texts(value: Any) -> Any:
    """The texts that a column of a table may have; numbers as their digits."""
    for one in value if isinstance(value, list) and value else [value]:
        if isinstance(one, bool):
            raise ValueError(
                f"in YAML yes and no are true and false; write '{'yes' if one else 'no'}' in quotation marks"
            )
        if not isinstance(one, str | int | float):
            raise ValueError("takes a text, or a list of them")
    return [str(one) for one in value] if isinstance(value, list) else str(value)


Number = int | float
Texts = Annotated[str | list[str], BeforeValidator(_texts, json_schema_input_type=str | Number | list[str | Number])]


def _kind_of_holdout(value: Any) -> str:
    return "<section>" if isinstance(value, dict | HoldoutSection) else "<share>"


ShareOrSection = Annotated[
    Annotated[float, Field(gt=0, lt=1), Tag("<share>")] | Annotated[HoldoutSection, Tag("<section>")],
    Discriminator(_kind_of_holdout),
]


class DataSection(Section):
    """Which questions to train on and to validate on.

    `train` may be a list of splits, which are trained on as one. `holdout` keeps a part of them for validation: a share
    of the images, or as `HoldoutSection` says. Of a table, `columns` says what is in which column, and `where` which
    rows are read. `shares_images: published` declares that the published splits share images by design, with other
    questions about them (VQA-RAD): they are evaluated, and every number says so.
    """

    format: str
    root: str
    columns: dict[str, str | list[str] | None] = {}
    where: dict[str, Texts] = {}
    train: Annotated[str | list[str], BeforeValidator(_one_or_several)] = "train"
    val: str | None = "val"
    test: str | None = "test"
    holdout: ShareOrSection | None = None
    holdout_seed: Seed = 0
    shares_images: Literal["published"] | None = None

    @property
    def train_splits(self) -> tuple[str, ...]:
        """The splits that are trained on, as one."""
        return (self.train,) if isinstance(self.train, str) else tuple(self.train)

    @property
    def held_out(self) -> Holdout | None:
        """How validation questions are kept out of the training splits, or None."""
        section, seed = self.holdout, self.holdout_seed
        if isinstance(section, HoldoutSection):
            share = section.share if section.folds is None else None
            return Holdout(share, seed, section.by, section.folds, section.fold)
        return None if section is None else Holdout(section, seed)

    @property
    def table(self) -> TableOptions:
        """How a table is read."""
        return TableOptions.of(self.columns, self.where)

    @property
    def validates(self) -> bool:
        """Whether there is anything to validate on."""
        return self.holdout is not None or self.val is not None

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> "DataSection":
        if (info.context or {}).get("own_only"):
            return self  # what an older version has trained is read as it was
        try:
            splits = find_format(self.format).splits
            if self.table:
                require_table(self.format)
        except InputError as error:
            raise ValueError(str(error)) from None
        trained = [splits.get(one, one) for one in self.train_splits]
        if len(set(trained)) < len(trained):
            raise ValueError(f"train: {', '.join(self.train_splits)} names a split twice")
        if self.holdout is None and self.val is not None and splits.get(self.val, self.val) in trained:
            raise ValueError(
                f"val: split {self.val} is trained on, so its accuracy says nothing; to train on all there is, write "
                f"`train: [train, val]` and `val: null` with `training.keep: last`, or keep a part of it for "
                f"validation with `holdout: 0.2`"
            )
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

    `tokenizer` says how questions are cut into words: "unicode", "jieba" (Chinese), "hf:NAME_OR_PATH" (the pieces of a
    tokenizer of the hub) or "module:function". A question's words after the first `longest` are not read. `vectors`
    names a file of GloVe, fastText or word2vec vectors that its words start from.
    """

    tokenizer: str = "unicode"
    min_count: int = Field(default=1, ge=1)
    longest: int = Field(default=MOST_WORDS, ge=1)
    vectors: str | None = None

    @field_validator("tokenizer")
    @classmethod
    def _is_there(cls, value: str) -> str:
        try:
            require_cutter(value)
        except InputError as error:
            raise ValueError(str(error)) from None
        return value


class AnswersSection(Section):
    """The answer vocabulary: the most frequent answers of the training split.

    `from: majority` counts each question's published answer, `from: all` every human's. `normalise` joins answers that
    differ only in capitals (`lower`) or in what the official normalisation takes away (`official`) into one class,
    called by its most frequent spelling.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)
    size: int | None = Field(default=1000, ge=1)
    min_count: int = Field(default=1, ge=1)
    count_from: Literal["majority", "all"] = Field(default="majority", alias="from")
    normalise: Spelling = "none"


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
    `keep` says which weights are the model: those of the epoch with the best validation accuracy, or the last, which
    need no validation. `patience` stops after so many epochs without a better validation accuracy.
    `batches: by_image` keeps an image's questions together, so that what depends on the image alone is computed once
    (always so where the image encoder is tuned). `shuffle: blocks` takes questions about neighbouring images together,
    for features that are read from the disk; `auto` does so only where the files are larger than the main memory (what
    it chose is kept with the run).
    `deterministic` makes runs of one seed on a GPU equal bit for bit, or refuses what cannot be made so; on a CPU they
    are equal anyway. `cuda_graphs: auto` records steps of whole batches of one question length and plays them again
    (`vqa.training.graphs`), where a run allows it.
    """

    epochs: int = Field(default=20, ge=1)
    keep: Literal["best", "last"] = "best"
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

    @model_validator(mode="after")
    def _check(self) -> "TrainingSection":
        if self.keep == "last" and self.patience is not None:
            raise ValueError("patience is for `keep: best`; with `keep: last` the number of epochs is fixed")
        return self


class TrackingSection(Section):
    """Where numbers go besides metrics.jsonl, which has them whatever this says (docs/tracking.md).

    Weights & Biases, Trackio (local, without an account) and TensorBoard, as many of them as wanted. `every` is the
    number of steps between two rows within an epoch, null for none. `examples` is how many questions of an evaluation
    are shown with image, answers and attention. `artifacts` uploads weights, results and report to W&B: off, so that
    nothing large leaves the machine unless it is asked for. `project`, `entity`, `group`, `tags` and `notes` file the
    run; W&B's own environment variables go before them.
    """

    wandb: Literal["online", "offline", "disabled"] = "disabled"
    trackio: bool = False
    tensorboard: bool = False
    every: int | None = Field(default=100, ge=1)
    examples: int = Field(default=64, ge=0, le=1000)
    artifacts: bool = False
    project: str = "vqa"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = []
    notes: str | None = None
