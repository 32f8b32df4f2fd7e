"""Several models trained in one process over the same batches, each exactly as if alone.

Models share batches when they agree in all that a batch depends on (`sharing_key`); different seeds do when
`training.order_seed` gives them one order. The loop is that of `vqa.training.train`.

Copies of one architecture still take their steps one after another. `torch.func.vmap` over stacked weights, measured on
one CPU core for 4 heads (forward and backward), reached 0.5 times the speed at fc7 with 1,024 units (product, batch
512), 0.7 times at 49x512 (two-hop stacked attention, batch 128) and 1.0 to 1.2 times on heads of 32 units; and the
recurrent encoders have no kernels for it.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from vqa.errors import InputError
from vqa.experiment import Experiment
from vqa.models import reads_of
from vqa.progress import console
from vqa.runtime.deterministic import deterministic_algorithms
from vqa.runtime.distributed import current_group
from vqa.training.inputs.prepare import TrainingData, prepare
from vqa.training.inputs.questions import make_loss
from vqa.training.resume import already_trained, decoding_begun_with, facts_begun_with
from vqa.training.run import build
from vqa.training.run_folder import RunFolder
from vqa.training.train import train_runs

OWN_SECTIONS = {"name", "seed", "runs", "fusion", "classifier", "loss", "training", "tracking"}


def sharing_key(experiment: Experiment, *, order: bool = True) -> str:
    """Equal for experiments that see the same batches in the same order; without `order`, the same tensors."""
    training = experiment.training
    values = {key: value for key, value in experiment.resolved().items() if key not in OWN_SECTIONS}
    values["prepared"] = [training.device, training.precision, training.shuffle, make_loss(experiment).over]
    values["reads"] = reads_of(experiment.fusion)  # the feature table holds just that
    values["deterministic"] = training.deterministic  # switches of the whole process
    if order:
        values["order"] = [training.batch_size, training.batches, experiment.order_seed]
    return json.dumps(values, sort_keys=True)


def sharing_groups(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """The experiments by what they see: those of a group see the same batches, neighbouring groups the same tensors."""
    groups: dict[str, list[Experiment]] = {}
    for experiment in sorted(experiments, key=lambda one: sharing_key(one, order=False)):
        groups.setdefault(sharing_key(experiment), []).append(experiment)
    return list(groups.values())


class SharedData:
    """The data that a group was trained on, kept for the next one, which may read the same."""

    def __init__(self) -> None:
        self._data: TrainingData | None = None
        self._wanted: object = None

    def of(self, group: Sequence[Experiment]) -> TrainingData:
        """Read what a group of `sharing_groups` is trained on, unless the group before was trained on it, too."""
        begun = (decoding_begun_with(RunFolder(experiment.folder)) for experiment in group)
        decoding = next((one for one in begun if one is not None), None)
        facts = (facts_begun_with(RunFolder(experiment.folder)) for experiment in group)
        recorded = next((one for one in facts if one is not None), None)
        wanted = (sharing_key(group[0], order=False), decoding, (recorded or {}).get("questions"))
        if self._data is None or self._wanted != wanted:
            self.forget()  # the old table's memory first
            self._data, self._wanted = prepare(group[0], decoding, recorded), wanted
        return self._data

    def forget(self) -> None:
        """Give the memory back."""
        self._data = self._wanted = None


def train_group(group: Sequence[Experiment], data: SharedData, command: str) -> dict[Path, str]:
    """Train experiments over the same batches; what is begun goes on.

    A model that fails (a loss that is not finite) is left where it was, and the others go on.

    Args:
        group: one of `sharing_groups`, or a part of one, none of them trained.
        command: what the user runs to go on after an interruption.

    Returns:
        The folders of those that failed, each with what it said.

    Raises:
        InputError: as `train`, before the first step.
        InterruptedRunError: after a signal of `vqa.runtime.stopping`, with every state saved.
    """
    if not current_group().alone:
        raise InputError("models are trained together in one process; leave out --together, or torchrun")
    console.rule(f"{len(group)} models over the same batches")
    with deterministic_algorithms(group[0].training.deterministic, group[0].training.device):
        prepared = data.of(group)
        runs = [build(experiment, prepared, among_others=True) for experiment in group]
        train_runs(runs, resume=True, command=command)
    return {run.folder.path: str(run.failure) for run in runs if run.failure}


def train_together(experiments: Sequence[Experiment], command: str) -> dict[Path, str]:
    """Train experiments, those that can over the same batches; what is finished is left. See `train_group`.

    Raises:
        InputError: as `train_group`, and where a folder holds another experiment.
        InterruptedRunError: as `train_group`.
    """
    todo = [one for one in experiments if not already_trained(RunFolder(one.folder), one, resume=True)]
    data, failed = SharedData(), dict[Path, str]()
    for group in sharing_groups(todo):
        failed |= train_group(group, data, command)
    return failed
