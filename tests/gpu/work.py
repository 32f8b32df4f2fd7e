"""Small trainings for the checks: a tiny synthetic data set, and steps taken as the loop takes them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, get_args

import torch
from helpers.training import make_world, values

from vqa.experiment import Experiment, TrainingSection, check_experiment
from vqa.training.inputs.prepare import prepare
from vqa.training.run import Run, build, epoch_batches
from vqa.training.step import Tally, stream
from vqa.training.train import step_once


def known(**asked: Any) -> dict[str, Any]:
    """Those keys of the section `training` that this version of the experiment has."""
    return {key: value for key, value in asked.items() if key in TrainingSection.model_fields}


def on_and_off(key: str) -> tuple[Any, Any]:
    """The values of a key of `training` that switch something on and off, whatever they are called."""
    choices = get_args(TrainingSection.model_fields[key].annotation) or (True, False)
    off = next(one for one in choices if one in (False, "off", "never", "no"))
    return next(one for one in choices if one in (True, "on", "always", "auto")), off


def world(folder: Path) -> Path:
    """The data set with its features, made when it is first asked for."""
    return folder if (folder / "cache.h5").is_file() else make_world(folder)


def plan(folder: Path, device: torch.device, training: dict[str, Any] | None = None, **parts: Any) -> Experiment:
    """An experiment over the world of a folder.

    Args:
        training: keys of that section that are not the small one's.
        parts: sections that take the place of the small ones; those of `features` are merged into it.
    """
    base = values(world(folder / "world"), folder / "runs", training={"device": device.type} | (training or {}))
    parts = parts | {"features": base["features"] | parts.get("features", {})}
    return check_experiment(base | parts, "make gpu")


def take_steps(what: Experiment, count: int, guard: Callable[[], AbstractContextManager[object]] = nullcontext) -> Run:
    """A new model's first steps, its sums in its tally.

    Args:
        what: the experiment.
        count: of steps; the first one, which allocates and chooses algorithms, is taken outside of `guard`.
        guard: makes what the other steps are taken within.
    """
    prepared = prepare(what)
    run = build(what, prepared)
    run.tally = Tally(run.state.sums, prepared.machine.device, prepared.machine.group)
    run.model.train()
    epoch = epoch_batches(run)
    todo = (epoch * (1 + count // len(epoch)))[:count]
    batches = stream(prepared, todo)
    step_once(run, next(batches), len(epoch))
    with guard():
        for inputs in batches:
            step_once(run, inputs, len(epoch))
    return run
