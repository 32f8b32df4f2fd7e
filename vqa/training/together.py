"""Several models trained in one process over the same batches, each exactly as if alone.

Data and features are read once; a batch is gathered once, and every model takes its step on it before the next one
comes. Each model has its own run folder, optimiser, random states, metrics, early stopping and end, so its results are
those of `vqa train`, bit for bit on a CPU. Models share batches when they agree in all that a batch depends on
(`sharing_key`); different seeds do when `training.order_seed` gives them one order.

Copies of one architecture still take their steps one after another. `torch.func.vmap` over stacked weights, measured on
one CPU core for 4 heads (forward and backward), reached 0.5 times the speed at fc7 with 1,024 units (product, batch
512), 0.7 times at 49x512 (two-hop stacked attention, batch 128) and 1.0 to 1.2 times on heads of 32 units; and the
recurrent encoders have no kernels for it.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.progress import Progress

from vqa.errors import InputError, InterruptedRunError, NonFiniteLossError
from vqa.experiment import Experiment
from vqa.progress import console, progress_bar
from vqa.runtime.distributed import current_group
from vqa.training.inputs.prepare import TrainingData, prepare
from vqa.training.inputs.questions import make_loss
from vqa.training.resume import already_trained, sole_writer
from vqa.training.run_folder import RunFolder, random_states, restore_random_states
from vqa.training.step import Inputs, Tally, stream
from vqa.training.stopping import StopRequest, stop_signals
from vqa.training.train import (
    READ_EVERY,
    SAVE_EVERY,
    Run,
    begin,
    build,
    end_epoch,
    epoch_batches,
    epoch_numbers,
    finish,
    is_over,
    open_tracker,
    read,
    step_once,
    summary,
)

OWN_SECTIONS = {"name", "seed", "runs", "fusion", "classifier", "loss", "training", "tracking"}


def sharing_key(experiment: Experiment, *, order: bool = True) -> str:
    """Equal for experiments that see the same batches in the same order; without `order`, the same tensors."""
    training = experiment.training
    values = {key: value for key, value in experiment.resolved().items() if key not in OWN_SECTIONS}
    values["prepared"] = [training.device, training.precision, training.shuffle, make_loss(experiment).over]
    if order:
        values["order"] = [training.batch_size, experiment.order_seed]
    return json.dumps(values, sort_keys=True)


def train_together(experiments: Sequence[Experiment], command: str) -> dict[Path, str]:
    """Train experiments, those that can over the same batches; what is finished is left, what is begun goes on.

    A model that fails (a loss that is not finite) is left where it was, and the others go on.

    Args:
        command: what the user runs to go on after an interruption.

    Returns:
        The folders of those that failed, each with what it said.

    Raises:
        InputError: as `train`, before the first step of the experiment's group.
        InterruptedRunError: after Ctrl-C or SIGTERM, with every state saved.
    """
    if not current_group().alone:
        raise InputError("models are trained together in one process; leave out --together, or torchrun")
    groups: dict[str, list[Experiment]] = {}
    for experiment in sorted(experiments, key=lambda one: sharing_key(one, order=False)):
        if not already_trained(RunFolder(experiment.folder), experiment, resume=True):
            groups.setdefault(sharing_key(experiment), []).append(experiment)
    failed: dict[Path, str] = {}
    prepared, prepared_for = None, ""
    for group in groups.values():
        console.rule(f"{len(group)} models over the same batches")
        if prepared is None or prepared_for != sharing_key(group[0], order=False):
            prepared, prepared_for = None, sharing_key(group[0], order=False)  # the old table's memory first
            prepared = prepare(group[0])
        failed |= _train_group(group, prepared, command)
    return failed


class _Member:
    """One of the models, with what it alone has; built but not begun at first."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.failure = ""
        self._random = random_states()

    def begin(self) -> None:
        """In its folder, start or go on."""
        restore_random_states(self._random)
        console.print(f"[bold]{self.run.experiment.name}[/], seed {self.run.experiment.seed}")
        self.run = begin(self.run, resume=self.run.folder.state.is_file())
        self._random = random_states()
        self._tracker = open_tracker(self.run)

    @property
    def left(self) -> bool:
        """Whether there is something left to train."""
        return not self.failure and not is_over(self.run)

    @property
    def turn(self) -> tuple[int, str]:
        """Its epoch and its shuffle, which share batches: a resumed run keeps the shuffle that it began with."""
        return self.run.progressed.epoch, self.run.progressed.shuffle

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Give the model its own random numbers, and keep what makes it fail."""
        restore_random_states(self._random)
        try:
            yield
        except (NonFiniteLossError, InputError) as error:
            self.failure = str(error)
            console.print(f"  seed {self.run.experiment.seed}: FAILED, the others go on: {error}", markup=False)
        self._random = random_states()

    def begin_epoch(self) -> None:
        """Get ready for the steps of an epoch, or what is left of them."""
        machine = self.run.prepared.machine
        self._tally = Tally(self.run.progressed.sums, machine.device, machine.group)
        self._done_before, self._seconds = self.run.progressed.sums[2], 0.0
        self.run.model.train()

    def step(self, inputs: Inputs, number: int, steps: int) -> None:
        """Step `number` of an epoch of so many, if the model is there."""
        if not self.failure and self.run.progressed.step_in_epoch == number:
            with self._at_work():
                step_once(self.run, inputs, self._tally, steps)

    def read(self) -> None:
        """Look at the sums, and fail where a loss was not finite."""
        if not self.failure:
            with self._at_work():
                read(self.run, self._tally)

    def spend(self, seconds: float) -> None:
        """Count time of the epoch."""
        self.run.progressed.seconds += seconds
        self._seconds += seconds

    def save(self) -> None:
        """Keep the state in the middle of an epoch."""
        if not self.failure:
            with self._at_work():
                self.run.save()

    def end_epoch(self) -> None:
        """What ends an epoch, and after the last one the run."""
        if self.failure:
            return
        progressed = self.run.progressed
        with self._at_work():
            rate = (progressed.sums[2] - self._done_before) / max(self._seconds, 1e-9)
            note = end_epoch(self.run, self._tracker, epoch_numbers(self.run, read(self.run, self._tally), rate))
            console.print(f"  {self.run.experiment.name}, seed {self.run.experiment.seed}: {note}", markup=False)
            if is_over(self.run):
                finish(self.run)

    def close(self) -> None:
        """Close the tracker, as failed unless the run is over and its end written down."""
        done = is_over(self.run) and not self.failure
        if done:
            self._tracker.summarise(summary(self.run))
        self._tracker.finish(failed=not done)


def _train_group(group: Sequence[Experiment], prepared: TrainingData, command: str) -> dict[Path, str]:
    """Train models that share their batches; the folders of those that failed, each with what it said."""
    members = [_Member(build(experiment, prepared, command)) for experiment in group]
    with ExitStack() as stack:
        for member in members:
            stack.enter_context(sole_writer(member.run.folder))
            member.begin()
            stack.callback(member.close)
        stop = stack.enter_context(stop_signals())
        bar = stack.enter_context(progress_bar())
        while left := [member for member in members if member.left]:
            turn = min(member.turn for member in left)
            if stop.asked:
                raise InterruptedRunError(f"stopped after epoch {turn[0]}; go on with: {command}")
            _train_epoch([member for member in left if member.turn == turn], stop, bar, command)
    return {member.run.folder.path: member.failure for member in members if member.failure}


def _train_epoch(members: list[_Member], stop: StopRequest, bar: Progress, command: str) -> None:
    """One epoch of the models that are in it; one that is further on waits until the batches have come to its place.

    Each model is counted an equal part of the time.
    """
    run, progress = members[0].run, [member.run.progressed for member in members]
    epoch, first = progress[0].epoch, min(one.step_in_epoch for one in progress)
    todo = epoch_batches(run)
    task = bar.add_task(f"epoch {epoch + 1:>3}", total=len(todo), completed=first, note=f"{len(members)} models")
    for member in members:
        member.begin_epoch()
    saved = time.perf_counter()
    for number, inputs in enumerate(stream(run.prepared, todo[first:]), start=first):
        for member in members:
            member.step(inputs, number, len(todo))
        last, stopping = number + 1 == len(todo), stop.asked
        if not (last or stopping or (number + 1) % READ_EVERY == 0):
            continue
        for member in members:
            member.read()
        bar.update(task, completed=number + 1)
        if last or stopping or time.perf_counter() - saved > SAVE_EVERY:
            seconds, saved = (time.perf_counter() - saved) / len(members), time.perf_counter()
            for member in members:
                member.spend(seconds)
                if not last:
                    member.save()
        if stopping and not last:
            raise InterruptedRunError(f"stopped in epoch {epoch + 1}; go on with: {command}")
    for member in members:
        member.end_epoch()
    bar.remove_task(task)
