"""What an ablation file says: a grid of cells over a base experiment, several seeds each.

An ablation file:

    name: fusion
    base: experiments/demo/stacked_attention.yaml
    set: [training.epochs=5]              # optional: overrides for every run
    grid:
      fusion: [{name: concat}, {name: product}, {name: stacked_attention, hops: 1}]
    seeds: [0, 1, 2]
    baseline: concat                      # optional: the cell that the others are compared with, with interval and p
    split: val                            # optional: what the runs are evaluated on
    ranges: {training.optimizer.learning_rate: {min: 1e-4, max: 1e-2, distribution: log_uniform_values}}  # for --sweep
    allow_seen: false                     # optional: also on questions or images they were trained on, stamped
    exclude_seen: false                   # optional: without those, which every table says
    metrics: [wups]                       # optional: further metrics in the tables; wups reads the corpus `wordnet`
    wordnet: data/wordnet
    slices: ["count=^how many"]           # optional: kinds of questions (name=REGEX) for a second table

Where models need different settings, `cells` instead of `grid` names each one with its own overrides:

    cells:
      product: ["fusion={name: product}", training.optimizer.learning_rate=0.0003]
      attention: ["fusion={name: stacked_attention}"]
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from vqa.errors import InputError, first_of, quoted, unknown_name
from vqa.evaluation.report.diagnostics import parse_slices
from vqa.experiment import Experiment, Section, Seed, check_overridden, read_values
from vqa.overrides import Assignment, assign, override, parse_assignments, read_yaml
from vqa.recipes import ABLATIONS_FIRST, experiment_file
from vqa.studies.ranges import Range
from vqa.training.run_folder import RunFolder


class AblationFile(Section):
    """What an ablation file may say."""

    model_config = ConfigDict(populate_by_name=True)
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")
    base: str
    overrides: list[str] = Field(default=[], alias="set")
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default={})
    cells: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], list[str]] = Field(default={})
    ranges: dict[str, Range] = Field(default={})
    seeds: list[Seed] = Field(default=[0], min_length=1)
    baseline: str | None = None
    split: str = "val"
    allow_seen: bool = False
    exclude_seen: bool = False
    metrics: list[Literal["wups"]] = Field(default=[])
    wordnet: str | None = None
    slices: list[str] = Field(default=[])


@dataclass(frozen=True)
class Cell:
    """One point of the grid: its label and one experiment a seed."""

    label: str
    experiments: tuple[Experiment, ...]


@dataclass(frozen=True)
class CellRun:
    """One run of a grid: a cell with one seed."""

    label: str
    experiment: Experiment

    @property
    def folder(self) -> RunFolder:
        """Where it lands."""
        return RunFolder(self.experiment.folder)

    @property
    def name(self) -> str:
        """How messages call it: "product, seed 1"."""
        return f"{self.label}, seed {self.experiment.seed}"


@dataclass(frozen=True)
class Ablation:
    """An ablation file and every experiment that it names.

    Attributes:
        path: the file, for messages.
    """

    path: Path
    file: AblationFile
    cells: tuple[Cell, ...]

    @property
    def folder(self) -> Path:
        """Where the tables land, above the folders of the runs."""
        return Path(self.cells[0].experiments[0].runs) / self.file.name

    @property
    def runs(self) -> list[CellRun]:
        """Every run, seeds outermost: all cells of the first seed, then of the second, …"""
        seeds = range(len(self.file.seeds))
        return [CellRun(cell.label, cell.experiments[number]) for number in seeds for cell in self.cells]

    @property
    def slices(self) -> dict[str, str]:
        """The kinds of questions of the second table, each with its regular expression."""
        return parse_slices(self.file.slices)


def open_ablation(path: Path, overrides: Sequence[str] = ()) -> Ablation:
    """What `read_ablation` reads, as one record."""
    file, cells = read_ablation(path, overrides)
    return Ablation(path, file, tuple(cells))


def read_ablation(named: Path, overrides: Sequence[str | Assignment] = ()) -> tuple[AblationFile, list[Cell]]:
    """Read an ablation and check every experiment of its grid before the first one runs.

    Args:
        named: a file, or the name of a recipe; so is the base that it names.
        overrides: `key.path=value` for the base experiment, after the file's own `set`.

    Raises:
        InputError: naming the file, the cell and the key.
    """
    path = experiment_file(named, ABLATIONS_FIRST)
    values = read_yaml(path)
    if "base" not in values and "fusion" in values:
        raise InputError(f"{path}: an experiment, not an ablation file (it names no base); `vqa train {named}` runs it")
    try:
        ablation = AblationFile.model_validate(values)
    except ValidationError as error:
        raise InputError(first_of(f"{path}: {_explain(item)}" for item in error.errors())) from None
    _check_grid(path, ablation)
    try:
        parse_slices(ablation.slices)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    base, given = (
        override(read_values(Path(ablation.base))[1], ablation.overrides),
        parse_assignments(overrides),
    )

    cells = []
    for label, changed in _cells(ablation, assign(base, given)):

        def with_overrides(some: Sequence[Assignment], seed: int, label: str = label, all_given: Any = changed) -> Any:
            cell = all_given if some is given else dict(_cells(ablation, assign(base, some)))[label]
            return cell | {"name": f"{ablation.name}/{label}", "seed": seed}

        seeds = [partial(with_overrides, seed=seed) for seed in ablation.seeds]
        checked = [check_overridden(values_with, given, f"{path} ({label})") for values_with in seeds]
        cells.append(Cell(label, tuple(checked)))
    labels = [cell.label for cell in cells]
    if ablation.baseline is not None and ablation.baseline not in labels:
        raise InputError(f"{path}: {unknown_name('baseline', ablation.baseline, labels)}")
    return ablation, cells


def ablate_command(
    path: Path, overrides: Sequence[str] = (), *, together: bool = False, wait: bool = True
) -> tuple[str, ...]:
    """The words of the command that runs an ablation, and goes on with it."""
    options = [*(["--together"] if together else []), *([] if wait else ["--no-wait"])]
    return ("vqa", "ablate", str(path), *overrides, *options)


def _explain(item: Any) -> str:
    """One pydantic error in words."""
    where = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return unknown_name("key", where, [field.alias or name for name, field in AblationFile.model_fields.items()])
    return (
        f"{where}: missing" if item["type"] == "missing" else f"{where}: {item['msg']} (it is {quoted(item['input'])})"
    )


def _cells(ablation: AblationFile, base: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each cell's label and its values, without name and seed."""
    for label, assignments in ablation.cells.items():
        yield label, override(base, assignments)
    if not ablation.grid and not ablation.cells:
        yield "base", base  # whose keys a sweep chooses from ranges
    labels: set[str] = set()
    for values in itertools.product(*ablation.grid.values()) if ablation.grid else ():
        label = _label(values)
        label = f"{label}_{len(labels)}" if label in labels else label
        labels.add(label)
        changed = dict(base)
        for key, value in zip(ablation.grid, values, strict=True):
            whole = "." not in key  # `fusion: [product]` stands for it with its default options
            changed = {**changed, key: value} if whole else assign(changed, [_assigned(key, value)])
        yield label, changed


def _assigned(key: str, value: Any) -> Assignment:
    return Assignment(tuple(key.split(".")), value, f"{key}={value}")


def _check_grid(path: Path, ablation: AblationFile) -> None:
    if bool(ablation.grid) == bool(ablation.cells) and not (ablation.ranges and not ablation.grid):
        raise InputError(f"{path}: an ablation has either a grid or cells")
    if ablation.allow_seen and ablation.exclude_seen:
        raise InputError(f"{path}: allow_seen evaluates on what was seen in training, exclude_seen without: take one")
    if ablation.metrics and ablation.wordnet is None:
        raise InputError(f"{path}: metrics: wups needs the folder of nltk's WordNet corpus, wordnet: FOLDER")
    if ablation.wordnet is not None and not ablation.metrics:
        raise InputError(f"{path}: wordnet: is read for metrics: [wups] alone; add that, or leave it out")
    if twice := [key for key in ablation.ranges if key in ablation.grid]:
        raise InputError(f"{path}: ranges.{twice[0]}: is a key of the grid, too")
    if len(set(ablation.seeds)) < len(ablation.seeds):
        raise InputError(f"{path}: seeds: {ablation.seeds} names a seed twice; the same seed gives the same run")
    for key in ("name", "seed", "runs"):
        if key in ablation.grid or key in ablation.ranges:
            section = "grid" if key in ablation.grid else "ranges"
            raise InputError(
                f"{path}: {section}.{key}: cannot be a part of the {section}; every run gets its own name and seed"
            )


def _label(values: Sequence[Any]) -> str:
    """A cell's folder name: the names of its parts, with the options that were given."""
    parts = []
    for value in values:
        if isinstance(value, dict):
            options = [f"{key}{_plain(option)}" for key, option in value.items() if key != "name"]
            name = _plain(str(value.get("name", "")).replace("/", "_"))  # "hf:org/model" among them
            parts.append("_".join([name, *options]).strip("_"))
        else:
            parts.append(_plain(value))
    return "-".join(parts)


def _plain(value: Any) -> str:
    return "".join(letter if letter.isalnum() or letter in "._" else "" for letter in str(value))
