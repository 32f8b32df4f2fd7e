"""What a run records of its parts from outside the package, and how they are found again."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vqa.errors import InputError
from vqa.experiment import Experiment, outside_parts
from vqa.parts import find_origin, is_code

RECORDED_AS = "parts"  # their key among the recorded facts


def recorded_parts(experiment: Experiment) -> dict[str, Any]:
    """For the facts that a run records at its start: where each part from outside comes from, by its kind."""
    origins = {path: asdict(find_origin(kind_of(path), name)) for path, name in outside_parts(experiment).items()}
    return {RECORDED_AS: origins} if origins else {}


def kind_of(path: str) -> str:
    """The kind of the part at a path: "fusion" of "fusion.score"."""
    return path.partition(".")[0]


def code_of_run(experiment: Experiment) -> dict[str, str]:
    """The parts from outside that evaluating a run of this experiment imports as `module:Class`, by their kind."""
    named = outside_parts(experiment)
    named.pop("loss", None)  # which nothing but training needs
    if experiment.features.tune and experiment.features.encoder is not None:
        named["image encoder"] = experiment.features.encoder
    return {kind: name for kind, name in named.items() if is_code(name)}


def find_again(folder: Path, experiment: Experiment, recorded: Mapping[str, Any]) -> list[str]:
    """Import the parts from outside that a run was trained with.

    Returns:
        A sentence for each whose source has changed since.

    Raises:
        InputError: one is not there any more, or cannot be imported; names what the run was trained with.
    """
    notes = []
    for kind, name in outside_parts(experiment).items():
        if kind == "loss":  # which nothing but training needs
            continue
        made = recorded.get(RECORDED_AS, {}).get(kind, {})
        where = " in ".join(str(made[key]) for key in ("distribution", "file") if made.get(key))
        try:
            now = find_origin(kind_of(kind), name)
        except InputError as error:
            raise InputError(f"{folder}: was trained with {kind} {name!r}{where and f' ({where})'}: {error}") from None
        if made.get("sha256") not in (None, now.sha256):
            notes.append(
                f"note: {now.file}, the source of {kind} {name!r}, is not what the run was trained with (sha256 "
                f"{made['sha256'][:12]} then, {str(now.sha256)[:12]} now)"
            )
    return notes
