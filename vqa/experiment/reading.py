"""What an experiment file says: strict, complete and written back with every default filled in.

An experiment is one YAML file. Unknown keys, wrong types and unknown names fail before anything runs, naming the file,
the key and the right choices. The sections `question_encoder`, `fusion`, `classifier` and `loss` are checked against
the constructor of the class that their `name` selects (`vqa.models.options`), which may be one from outside the
package (`vqa.parts`); the rest is in `vqa.experiment.sections`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
)

from vqa.data.formats import FORMATS
from vqa.errors import LISTED, InputError, first_of, quoted, unknown_name
from vqa.experiment.files import files_of, read_values
from vqa.experiment.sections import (
    AnswersSection,
    DataSection,
    FeaturesSection,
    HoldoutSection,
    Section,
    Seed,
    TrackingSection,
    TrainingSection,
    WordsSection,
)
from vqa.models import check_parts_fit, is_outside, is_pretrained, outside_names, resolve_part
from vqa.overrides import Assignment, as_section, assign, parse_assignments
from vqa.text.cutters import KIND, is_own_cutter
from vqa.text.vocabulary import MOST_WORDS

TAGS = ("<share>", "<section>")  # of what `data.holdout` may be, which pydantic puts into the place of an error
BESIDE_MODEL = frozenset({"data format", KIND})  # parts from outside that are none of the model
MODEL_PARTS = ("question_encoder", "fusion", "classifier", "loss")  # sections that are held against a constructor


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
    question_encoder: Part = Field(default={"name": "lstm"})
    fusion: Part
    classifier: dict[str, Any] = Field(default={})
    loss: Part = Field(default={"name": "cross_entropy"})
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
    path, values = read_values(named)
    if "base" in values:
        raise InputError(f"{path}: an ablation file (it names a base); `vqa ablate {named}` runs it")
    others = files_of(path)[1:]
    source = f"{path} (extends {', '.join(map(str, others))})" if others else str(path)
    return check_overridden(lambda given: assign(values, given), parse_assignments(overrides), source)


def keys_of(section: type[Section] = Experiment, where: str = "") -> list[str]:
    """Every key of the sections that are no parts of a model, with its path: "training.epochs"."""
    keys = []
    for name, field in section.model_fields.items():
        path = f"{where}{field.alias or name}"
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            keys += keys_of(inner, f"{path}.")
        else:
            keys.append(path)
    return keys


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
    """The names of the parts that an experiment takes from outside the package (`vqa.parts`), by `outside_names`."""
    every = [outside_names(kind, getattr(experiment, kind)) for kind in MODEL_PARTS]
    named = {path: name for one in every for path, name in one.items()}
    if experiment.data.format not in FORMATS:
        named["data format"] = experiment.data.format
    if not is_own_cutter(experiment.words.tokenizer):
        named[KIND] = experiment.words.tokenizer
    return named


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
        if own_only and is_outside(kind, section):
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
    if not own_only and experiment.training.keep == "best" and not experiment.data.validates:
        problems.append(
            "data.val: null leaves nothing to choose the epoch by; give a val split, or `data.holdout: 0.2` to keep "
            "that share of the training images for it, or `training.keep: last` to take the last epoch's weights"
        )
    if problems:
        return None, problems
    if experiment.words.vectors is not None and is_pretrained(experiment.question_encoder):
        return None, ["words.vectors: a pretrained question encoder has word vectors of its own"]
    if experiment.words.longest != MOST_WORDS and is_pretrained(experiment.question_encoder):
        return None, ["words.longest: a pretrained question encoder has a longest question of its own"]
    return experiment.model_copy(update=parts), []


def _explain(item: Any) -> str:
    """One pydantic error in words: where, what is wrong, what would be right."""
    item = item | {"loc": tuple(part for part in item["loc"] if part not in TAGS)}
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        *parents, key = [str(part) for part in item["loc"]]
        section: Any = Experiment
        for name in parents:
            fields = getattr(section, "model_fields", None)
            section = get_args(section)[1] if fields is None else fields[name].annotation  # a dict of sections
            section = HoldoutSection if name == "holdout" else section  # or a number
        known = [field.alias or name for name, field in section.model_fields.items()]
        return f"{where}: {unknown_name('key', key, known)}"
    if item["type"] == "missing":
        return f"{where}: missing"
    message = item["msg"].removeprefix("Value error, ")
    shown = f" (it is {quoted(item['input'])})" if not isinstance(item["input"], dict) else ""
    return f"{where}: {message}{shown}"
