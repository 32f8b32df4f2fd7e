"""The files that experiments are written in: one may extend another, `extends: san`, and say only what is different."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vqa.errors import InputError, quoted
from vqa.overrides import NAMED_PARTS, Assignment, as_section, assign, read_yaml
from vqa.recipes import experiment_file

RECORDED = "recorded"  # what a run writes beside its experiment, into the same file


def read_values(named: Path) -> tuple[Path, dict[str, Any]]:
    """The file of an experiment, or of a recipe by its name, and the plain values in it and in those it extends.

    A file that extends another changes single keys of it, as the command line does: other options of a section stay,
    unless it names another part (`fusion: product`), whose options are its own. The facts that a run has recorded in
    its `experiment.yaml` are left out, so that the file repeats the run.

    Raises:
        InputError: naming the file and what is wrong with it; files that extend each other in a circle, too.
    """
    path = experiment_file(named)
    return path, _read(path, ())


def files_of(named: Path) -> list[Path]:
    """The file of an experiment, and those that it extends, one after the other."""
    path, found = experiment_file(named), list[Path]()
    while True:
        found.append(path)
        values = read_yaml(path)
        if "extends" not in values:
            return found
        path = _extended(path, values["extends"])
        if path in found:
            return found


def _read(path: Path, before: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in [one.resolve() for one in before]:
        circle = " extends ".join(map(str, [*before, path]))
        raise InputError(f"{path}: extends itself: {circle}")
    values = read_yaml(path)
    values.pop(RECORDED, None)
    if "extends" not in values:
        return values
    base = _read(_extended(path, values.pop("extends")), (*before, path))
    if "base" in base:
        raise InputError(f"{path}: extends an ablation file, which is no experiment")
    try:
        return assign(base, _changes(values))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _extended(path: Path, named: Any) -> Path:
    """The file that another one extends: beside it, or a recipe."""
    if not isinstance(named, str):
        raise InputError(f"{path}: extends: write a file or the name of a recipe, not {quoted(named)}")
    beside = path.parent / named
    try:
        return experiment_file(beside if beside.is_file() else Path(named))
    except InputError as error:
        raise InputError(f"{path}: extends: {error}") from None


def _changes(values: Mapping[str, Any], where: tuple[str, ...] = ()) -> Iterator[Assignment]:
    """Every key of nested mappings as an assignment, a part's name before its options."""
    for key, value in sorted(values.items(), key=lambda one: one[0] != "name") if where else values.items():
        path = (*where, str(key))
        if path[0] in NAMED_PARTS and len(path) == 1:
            value = as_section(value)
        if isinstance(value, Mapping):
            yield from _changes(value, path)
        else:
            yield Assignment(path, value, f"{'.'.join(path)}={value}")
