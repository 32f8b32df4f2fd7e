"""The trackers that an experiment asks for, `metrics.jsonl` first, as one."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from vqa.experiment import Experiment, TrackingSection
from vqa.progress import console
from vqa.training.tracking.guard import Guarded
from vqa.training.tracking.identity import TrackedRun, read_tracking, tracked_run, write_tracking
from vqa.training.tracking.local_trackers import TensorBoardTracker, TrackioTracker
from vqa.training.tracking.metrics_file import MetricsFile
from vqa.training.tracking.protocol import Bundle, Shown, Tracker
from vqa.training.tracking.wandb_server import lowered, unusable
from vqa.training.tracking.wandb_tracker import WandbTracker, ending, reopened, sync_command


class Trackers:
    """Several trackers as one; none at all in all processes but the first."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = tuple(trackers)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record numbers in each of them.

        Raises:
            InputError: metrics.jsonl cannot be written.
        """
        for tracker in self._trackers:
            tracker.log(values, step)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Set the summary of each of them."""
        for tracker in self._trackers:
            tracker.summarise(values)

    def media(self, shown: Mapping[str, Shown]) -> None:
        """Show tables and images in each of them."""
        for tracker in self._trackers:
            tracker.media(shown)

    def keep(self, bundle: Bundle) -> None:
        """Keep files where that means more than leaving them in the run folder."""
        for tracker in self._trackers:
            tracker.keep(bundle)

    def alert(self, title: str, text: str) -> None:
        """Tell the user by each of them."""
        for tracker in self._trackers:
            tracker.alert(title, text)

    def finish(self, failed: bool = False) -> None:
        """End each of them."""
        for tracker in self._trackers:
            tracker.finish(failed)


def track_training(folder: Path | None, experiment: Experiment, facts: Callable[[], dict[str, Any]]) -> Tracker:
    """The trackers of a run in training, which go on where it was resumed.

    Args:
        folder: the run folder; None in all processes but the first, which alone tracks.
        facts: what is shown of the run besides its experiment; asked for once, when it is tracked for the first time.

    Raises:
        InputError: tracking.json or metrics.jsonl is damaged.
    """
    if folder is None:
        return Trackers([])
    return Trackers([MetricsFile(folder / "metrics.jsonl"), *_others(folder, experiment, facts)])


def track_evaluating(folder: Path, experiment: Experiment) -> Tracker:
    """The trackers of a run that was trained, to add to it; `metrics.jsonl` is not one of them.

    Raises:
        InputError: tracking.json is damaged.
    """
    return Trackers(_others(folder, experiment, dict, training=False))


def track_group(folder: Path, name: str, section: TrackingSection, config: Mapping[str, Any]) -> Tracker:
    """The trackers of an ablation, whose folder holds those of its cells: a run of its own in their group.

    Raises:
        InputError: tracking.json is damaged.
    """
    if not is_tracked(section):
        return Trackers([])
    tracking, resumed = read_tracking(folder, agent=False)
    run = TrackedRun(folder, tracking, resumed, section, name, section.group or name, "ablation", config)
    return Trackers(_asked_for(run))


def is_tracked(section: TrackingSection) -> bool:
    """Whether a section asks for more than metrics.jsonl."""
    return section.wandb != "disabled" or section.trackio or section.tensorboard


def _others(
    folder: Path, experiment: Experiment, facts: Callable[[], dict[str, Any]], *, training: bool = True
) -> list[Guarded]:
    """The trackers of a run besides metrics.jsonl."""
    if not is_tracked(experiment.tracking):
        return []
    tracking, resumed = read_tracking(folder)
    if not tracking.facts and (found := facts()):
        tracking = msgspec.structs.replace(tracking, facts=found)
        write_tracking(folder, tracking)
    return _asked_for(tracked_run(folder, experiment, tracking, resumed=resumed, training=training))


def _asked_for(run: TrackedRun) -> list[Guarded]:
    mode, section = lowered(run.section.wandb), run.section
    found = [] if mode == "disabled" else [_wandb(run, mode)]
    found += [Guarded("Trackio", partial(TrackioTracker, run))] if section.trackio else []
    found += [Guarded("TensorBoard", partial(TensorBoardTracker, run))] if section.tensorboard else []
    return found


def _wandb(run: TrackedRun, mode: str) -> Guarded:
    """W&B online, offline where that fails; or offline from the start."""
    kept = "so this run is kept offline"
    if mode == "online" and (why := unusable()):
        console.print(f"W&B: {why}, {kept}")
        mode = "offline"
    if mode == "offline":
        return Guarded("W&B", partial(WandbTracker, run, "offline"))
    rest = f"send the rest by: {sync_command(run, 'run-*')}"
    begin, instead = partial(WandbTracker, run, "online"), partial(reopened, run)
    return Guarded("W&B", begin, instead, kept=kept, rest=rest, end=1.5 * ending(run))
