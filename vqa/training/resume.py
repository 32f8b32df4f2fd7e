"""How far a run has come, saved so that it goes on exactly where it was; and what may happen to its folder."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta
from torch import nn

from vqa.data.images import Decoding
from vqa.errors import BusyError, InputError, shortened
from vqa.evaluation.contamination import question_digests, write_seen
from vqa.experiment import Experiment
from vqa.files import atomic_write, sha256_unless_read, sweep
from vqa.locks import lock
from vqa.overrides import differences_at
from vqa.progress import console
from vqa.runtime.distributed import Group
from vqa.text.vocabulary import write_vocabularies
from vqa.training.checkpoint import check_optimizer, check_random, check_weights
from vqa.training.inputs.prepare import Shuffle, TrainingData, recorded_facts
from vqa.training.outside import find_again, recorded_parts
from vqa.training.records import Count, fitting, is_finite_number
from vqa.training.run_folder import (
    RunFolder,
    load_state,
    open_run,
    random_states,
    read_metrics,
    read_model,
    restore_random_states,
    save_state,
    write_environment,
    write_experiment,
)

SHOWN = 4  # differences named in a message


@dataclass
class TrainState:
    """How far a run has come: what `state.pt` holds besides weights, optimiser and random states."""

    epoch: Count = 0
    step_in_epoch: Count = 0
    step: Count = 0
    best_accuracy: float = -1.0
    best_epoch: Annotated[int, Meta(ge=-1)] = -1
    seconds: float = 0.0
    sums: Annotated[list[float], Meta(min_length=3, max_length=3)] = field(
        default_factory=lambda: [0.0, 0.0, 0.0]
    )  # loss, accuracy, questions of this epoch
    shuffle: Shuffle = "full"  # what training.shuffle meant when the run began


def already_trained(folder: RunFolder, experiment: Experiment, resume: bool) -> bool:
    """Whether there is nothing to do.

    Raises:
        InputError: where a run folder would be written over: it holds another experiment, or an unfinished run that
            was not asked to go on; or where a finished run is of data files that have changed since.
    """
    if not folder.experiment.is_file():
        return False
    _, before, recorded = open_run(folder.path)
    if lengthens(before, experiment):
        ended = folder.finished.is_file()
        require_exact_goes_on(folder, before, experiment)
        if not ended and not resume:
            raise InputError(f"{folder.path}: holds an unfinished run; go on with --resume, or remove the folder")
        return False
    if changed := _differences(_untracked(before), _untracked(experiment)):
        raise InputError(
            f"{folder.path}: holds a run of a different experiment ({_listed(changed)}); give this one another "
            f"name= or seed=, or remove the folder"
        )
    if folder.finished.is_file():
        changed = [name for name, digest in recorded["data"].items() if _is_another(Path(name), digest)]
        if changed:
            raise InputError(
                f"{folder.path}: was trained on other contents of {_listed(changed)}; give this run another name= "
                f"or seed=, or remove the folder"
            )
        return True
    if os.path.lexists(folder.state) and not resume:
        raise InputError(f"{folder.path}: holds an unfinished run; go on with --resume, or remove the folder")
    return False


def _untracked(experiment: Experiment) -> dict[str, Any]:
    """All that a run's results depend on; where its numbers are sent may change when it goes on."""
    return {key: value for key, value in experiment.resolved().items() if key != "tracking"}


def lengthens(before: Experiment, now: Experiment) -> bool:
    """Whether two experiments are the same but for more epochs in the second one."""
    epochs = now.training.epochs
    longer = before.training.model_copy(update={"epochs": epochs})
    same = _untracked(before.model_copy(update={"training": longer})) == _untracked(now)
    return before.training.epochs < epochs and same


def require_exact_goes_on(folder: RunFolder, before: Experiment, now: Experiment) -> None:
    """Refuse to go on with a run for more epochs where one of so many from its start would have been another.

    Raises:
        InputError: the learning rate of every step depends on the number of epochs, patience ended the run, or its last
            state is gone.
    """
    had, wanted = before.training.epochs, now.training.epochs
    anew = f"train all {wanted} under another name="
    if before.training.schedule.name == "cosine":
        raise InputError(
            f"{folder.path}: was trained for {had} epochs with a cosine schedule, which falls to 0 over all epochs: "
            f"one of {wanted} has other rates from its first step on; {anew}"
        )
    if not os.path.lexists(folder.state):
        raise InputError(f"{folder.path}: has no state.pt, from which it would go on; {anew}")
    patience = before.training.patience
    if not patience or not folder.finished.is_file():
        return
    state = fitting(load_state(folder.state)["progress"], TrainState, f"{folder.state}: progress")
    if state.epoch - 1 - state.best_epoch >= patience:
        raise InputError(
            f"{folder.path}: ended after epoch {state.epoch} because the validation accuracy had not risen for "
            f"{patience} epochs; with training.epochs={wanted} it would end there, too. Raise training.patience under "
            f"another name="
        )


def lengthen(folder: RunFolder, experiment: Experiment) -> None:
    """Write down that a run goes on for more epochs than it began with; it may be killed between any two of the files.

    What was found of it until then no longer is of its last weights, and is found again by `vqa evaluate`.
    """
    _, before, recorded = open_run(folder.path)
    if not lengthens(before, experiment):
        if before.tracking != experiment.tracking:  # `vqa evaluate` adds to where the numbers go now
            write_experiment(folder, experiment, recorded)
        return
    console.print(f"  goes on from {before.training.epochs} epochs to {experiment.training.epochs}")
    folder.finished.unlink(missing_ok=True)  # first: an unfinished run of fewer epochs can still be lengthened
    if experiment.training.keep == "last":
        folder.model.unlink(missing_ok=True)  # of the last epoch that is none any more
    write_experiment(folder, experiment, recorded)


def decoding_begun_with(folder: RunFolder) -> Decoding | None:
    """How an unfinished run's own encoder decodes its images, which it goes on with; None where there is nothing yet.

    Raises:
        InputError: the folder's record is damaged.
    """
    if not folder.experiment.is_file() or not folder.state.is_file():
        return None
    _, experiment, recorded = open_run(folder.path)
    return Decoding.stated_in(recorded["features"]["preprocessing"]) if experiment.features.tune else None


def facts_begun_with(folder: RunFolder) -> dict[str, Any] | None:
    """The facts that an unfinished run recorded at its start; None where there is nothing yet.

    Raises:
        InputError: the folder's record is damaged.
    """
    if not folder.experiment.is_file() or not folder.state.is_file():
        return None
    return open_run(folder.path)[2]


def _listed(changed: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f", and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return ", ".join(map(shortened, changed[:SHOWN])) + more


def _is_another(path: Path, digest: str) -> bool:
    """Whether a file has changed; a finished run needs none, so one that is gone has not."""
    return path.is_file() and sha256_unless_read(path) != digest


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    """Where two resolved experiments differ, or what stands in two under the key `where`, as messages say it."""
    found = differences_at(before, now, (where,) if where else ())
    return [f"{'.'.join(path)}: {then!r} there, {here!r} here" for path, then, here in found]


@contextmanager
def sole_writer(folder: RunFolder) -> Iterator[None]:
    """Keep other processes from training into the same folder; removes what a killed one had half written.

    Raises:
        BusyError: another process does already.
        InputError: no file can be written or locked there.
    """
    busy = f"{folder.path}: another process is training this run; wait for it or stop it"
    with lock(folder.path / ".lock", busy=busy):
        sweep(folder.path)
        yield


def start_folder(folder: RunFolder, experiment: Experiment, prepared: TrainingData) -> None:
    """Write what describes the run, and remove what a run killed in its first epoch has left.

    Raises:
        BusyError: another process has finished the run since `already_trained` looked.
        InputError: another process has begun a run there since.
    """
    if already_trained(folder, experiment, resume=False):
        raise BusyError(f"{folder.path}: another process has trained this run meanwhile; its results are there")
    for left in (folder.metrics, folder.model, folder.tracking):
        left.unlink(missing_ok=True)
    write_experiment(folder, experiment, recorded_facts(prepared) | recorded_parts(experiment))
    write_environment(folder.path / "environment.json", prepared.machine.device)
    write_vocabularies(folder.vocabulary, prepared.words, prepared.answers)
    prepared.words.cutter.save(folder.words_tokenizer)
    if prepared.text_encoder is not None:
        prepared.text_encoder.save_files(folder.language_model)
    seen = prepared.seen
    if prepared.val is not None and experiment.training.keep == "best":
        seen = replace(seen, chosen_on=np.unique(question_digests(prepared.val)))
    write_seen(folder.seen, seen)


def save_progress(
    folder: RunFolder,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progressed: TrainState,
    digest: str,
    group: Group,
) -> None:
    """Write `state.pt`: the last weights and everything that the next step depends on."""
    first, *others = group.gather(random_states())
    if group.is_first:
        save_state(
            folder.state,
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random": first,
                "random_of_others": others,
                "progress": vars(progressed),
                "vocabulary": digest,
            },
        )


def restore_progress(
    folder: RunFolder, prepared: TrainingData, model: nn.Module, optimizer: torch.optim.Optimizer, digest: str
) -> TrainState:
    """Bring a run back to where `save_progress` left it, with as many processes as before or another number.

    Raises:
        InputError: when the data or features have changed since the run began, or `state.pt` is not this run's;
            nothing is changed.
    """
    group = prepared.machine.group
    state = group.from_first(lambda: _saved_state(folder, prepared, model, optimizer, digest))
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if group.rank < len(state["random"]):  # a process that was not there before keeps the masks it was seeded for
        restore_random_states(state["random"][group.rank])
    if group.is_first:
        with atomic_write(folder.metrics) as file:  # a killed run may have logged an epoch that it did not save
            file.writelines(f"{json.dumps(row)}\n" for row in state["metrics"])
    return TrainState(**state["progress"])


def _saved_state(
    folder: RunFolder, prepared: TrainingData, model: nn.Module, optimizer: torch.optim.Optimizer, digest: str
) -> dict[str, Any]:
    """What the files hold, if they and the data are this run's; nothing of it has been used yet."""
    experiment = _require_unchanged(folder, recorded_facts(prepared))
    state = load_state(folder.state)
    if state["vocabulary"] != digest:
        raise InputError(f"{folder.state}: belongs to another vocabulary than the training data gives")
    progress = check_progress(state["progress"], folder.state, experiment, len(prepared.train_questions))
    check_weights(state["model"], model, folder.state)
    kept = check_optimizer(state["optimizer"], optimizer, state["model"], model, folder.state, progress.step)
    others = state.get("random_of_others", [])
    if not isinstance(others, list):
        raise InputError(f"{folder.state}: random_of_others: no list")
    random = [check_random(states, folder.state) for states in [state["random"], *others]]
    if progress.best_epoch >= 0 and experiment.training.keep == "best":  # which the run may end with
        check_weights(read_model(folder.model, digest), model, folder.model)
    rows = [row for row in read_metrics(folder.metrics) if row["step"] <= progress.step]
    missing = sorted(set(range(1, progress.epoch + 1)) - {row.get("epoch") for row in rows})
    if missing:
        console.print(f"  note: {folder.metrics} lacks the numbers of epoch {', '.join(map(str, missing))}")
    weights = {name: state["model"][name] for name in model.state_dict()}
    return {"model": weights, "optimizer": kept, "random": random, "metrics": rows, "progress": vars(progress)}


def check_progress(saved: Any, path: Path, experiment: Experiment, questions: int) -> TrainState:
    """Hold how far a run says that it has come against its experiment.

    Args:
        path: the file, for messages.
        questions: that it is trained on.

    Raises:
        InputError: naming the file and the item.
    """
    where = f"{path}: progress"
    state = fitting(saved, TrainState, where)
    if saved.keys() != vars(TrainState()).keys():
        raise InputError(f"{where}: should hold {', '.join(vars(TrainState()))}; the file is damaged")
    batch, epochs = experiment.training.batch_size, experiment.training.epochs
    steps = -(-questions // batch)  # an epoch
    done = state.step_in_epoch * batch  # of which one batch may be the smaller one
    possible = {
        f"epoch {state.epoch} of {epochs}": state.epoch <= epochs,
        f"step_in_epoch {state.step_in_epoch} of {steps}": state.step_in_epoch < steps,
        f"step {state.step}": state.step == state.epoch * steps + state.step_in_epoch,
        f"best_epoch {state.best_epoch}": state.best_epoch < max(state.epoch, 0)
        and (state.best_epoch < 0) == (state.best_accuracy < 0),
        f"best_accuracy {state.best_accuracy}": -1 <= state.best_accuracy <= 100,
        f"seconds {state.seconds}": is_finite_number(state.seconds) and state.seconds >= 0,
        f"sums {state.sums}": all(map(is_finite_number, state.sums))
        and done - batch < state.sums[2] + 0.5
        and state.sums[2] - 0.5 < done + (not done)
        and -0.5 <= state.sums[1] <= state.sums[2] + 0.5,
    }
    wrong = [item for item, fits in possible.items() if not fits]
    if wrong:
        raise InputError(f"{where}: {shortened(wrong[0])} cannot be; the file is damaged")
    return state


def _require_unchanged(folder: RunFolder, now: dict[str, Any]) -> Experiment:
    """The folder's experiment; raises InputError when the run began with other data files or features than now."""
    _, experiment, then = open_run(folder.path)
    for note in find_again(folder.path, experiment, then):
        console.print(f"  {note}")
    changed = [f"{name} has changed" for name, digest in now["data"].items() if then["data"].get(name) != digest]
    changed += _differences(then["features"], now["features"], "features")
    for key in ("word_vectors", "question_encoder"):
        changed += _differences(then.get(key), now[key], key)
    if changed:
        raise InputError(
            f"{folder.path}: the data or features are not those that the run began with ({_listed(changed)}); bring "
            f"them back, or start anew under another name="
        )
    return experiment
