"""Which run of a tracker a folder's numbers belong to: `tracking.json`, and what files the run there."""

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vqa.experiment import Experiment, TrackingSection
from vqa.files import read_json, write_json
from vqa.training.records import Tracking, fitting

TRIAL = re.compile(r"/sweep-[^/]+/[^/]+$")  # what `vqa.studies.sweep` adds to a trial's name

# the folder that took an id of the environment; such an id is one run's, so the next one in this process makes its own
_taken: dict[str, Path] = {}


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers know it.

    Attributes:
        folder: where its files are.
        tracking: what tracking.json says.
        resumed: whether tracking.json was there before.
        section: how it is tracked.
        name: in lists of runs.
        group: of runs that belong together, or None.
        job_type: "train" or "ablation".
        config: experiment and facts.
        training: whether it is being trained; else something is added to what was trained.
    """

    folder: Path
    tracking: Tracking
    resumed: bool
    section: TrackingSection
    name: str
    group: str | None
    job_type: str
    config: Mapping[str, Any]
    training: bool = False

    @property
    def identity(self) -> str:
        """The id."""
        return self.tracking.wandb_id

    @property
    def keep(self) -> str:
        """Which epoch's weights are kept, "best" or "last"; "best" of what is no training."""
        training: Mapping[str, str] = self.config.get("training", {})
        return training.get("keep", "best")

    @property
    def is_trial(self) -> bool:
        """Whether it is the very run that a sweep's agent has begun."""
        return bool(os.environ.get("WANDB_SWEEP_ID")) and os.environ.get("WANDB_RUN_ID") == self.identity


def tracked_run(
    folder: Path, experiment: Experiment, tracking: Tracking, *, resumed: bool, training: bool
) -> TrackedRun:
    """The run of an experiment's folder."""
    config = {**experiment.resolved(), **tracking.facts}
    name, group = f"{experiment.name}/{experiment.seed}", group_of(experiment)
    return TrackedRun(folder, tracking, resumed, experiment.tracking, name, group, "train", config, training)


def group_of(experiment: Experiment) -> str | None:
    """The experiment's group, or for a cell of an ablation (`fusion/product`) the ablation's name, or None.

    So, too, for a trial of its sweep (`fusion/product/sweep-3f2a/9bd1`).
    """
    return experiment.tracking.group or TRIAL.sub("", experiment.name).rpartition("/")[0] or None


def read_tracking(folder: Path, *, agent: bool = True) -> tuple[Tracking, bool]:
    """What tracking.json says of a folder, made and written down at first; and whether it was there.

    A new one takes the id that WANDB_RUN_ID names, as an agent of W&B's sweeps sets it; one that is there keeps its
    own.

    Args:
        agent: whether the folder may be what an agent has begun.

    Raises:
        InputError: it is damaged, or WANDB_RUN_ID is no id.
    """
    path = folder / "tracking.json"
    if path.is_file():
        return read_json(path, Tracking), True
    given = os.environ.get("WANDB_RUN_ID", "").strip()
    if agent and given and _taken.setdefault(given, folder.absolute()) == folder.absolute():
        made = fitting({"wandb_id": given}, Tracking, "WANDB_RUN_ID in the environment")
    else:
        made = Tracking(secrets.token_hex(4))
    write_tracking(folder, made)
    return made, False


def write_tracking(folder: Path, tracking: Tracking) -> None:
    """Write tracking.json."""
    write_json(folder / "tracking.json", msgspec.to_builtins(tracking))
