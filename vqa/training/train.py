"""The one training loop, top to bottom: over the runs that see the same batches, of which `vqa train` has one.

Data and features are read once; a batch is gathered once, and every run takes its step on it before the next one
comes. Each run has its own folder, optimiser, random numbers, metrics, early stopping and end, so its results are those
that it has alone, bit for bit on a CPU.

Legend: `A` answers, `B` batch.
"""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from rich.progress import Progress, TaskID

from vqa.data.images import Decoding
from vqa.errors import InterruptedRunError
from vqa.evaluation.accuracy import score
from vqa.experiment import Experiment
from vqa.models import VQAModel, is_pretrained
from vqa.progress import console, progress_bar
from vqa.runtime.deterministic import deterministic_algorithms
from vqa.runtime.device import choose_machine
from vqa.runtime.distributed import joined
from vqa.runtime.memory import memory_errors_named
from vqa.runtime.stopping import StopRequest, stop_signals
from vqa.training.inputs.prepare import TrainingData, prepare
from vqa.training.needs import require_known_places, require_room, smallest_sizes
from vqa.training.optimise import learning_rate_factor, set_learning_rates
from vqa.training.predict import predict
from vqa.training.resume import already_trained, decoding_begun_with, facts_begun_with, sole_writer
from vqa.training.run import (
    MEMORY_REMEDY,
    Run,
    begin,
    build,
    check_weights,
    close,
    epoch_batches,
    finish,
    last_rate,
    note_movement,
    read,
    save,
    take,
)
from vqa.training.run_folder import RunFolder, save_model
from vqa.training.step import Inputs, Tally, Totals, stream
from vqa.training.tracking.pace import Clock, Pace, is_looked_at, memory_taken
from vqa.training.tracking.summary import best_values, kept_values

READ_EVERY = 20  # steps between two looks at the device's sums, which is when the bar moves
SAVE_EVERY = 600  # seconds between two saves within an epoch, which is what a run that is killed loses at the most


def train(experiment: Experiment, *, resume: bool = False, command: str = "the same command") -> RunFolder:
    """Train one experiment into its run folder and return the folder.

    The same experiment and seed give the same weights on the same machine, whether or not the run was interrupted: on
    a GPU bit for bit only with `training.deterministic`.
    Under torchrun all processes train the one run (`vqa.training.data_parallel`); the first one writes.

    Args:
        resume: go on from `state.pt`; without it an unfinished run folder is refused, so that nothing is overwritten.
        command: what the user runs to go on after an interruption, for the message that says so.

    Raises:
        InputError: bad data, caches or experiment, before anything is written.
        InterruptedRunError: after a signal of `vqa.runtime.stopping`, with the state saved.
        NonFiniteLossError: naming the epoch and step.
    """
    folder = RunFolder(experiment.folder)
    exact = deterministic_algorithms(experiment.training.deterministic, experiment.training.device)
    with joined() as group, memory_errors_named(MEMORY_REMEDY), exact:
        if group.from_first(lambda: already_trained(folder, experiment, resume)):
            console.print(f"{folder.path}: already trained, left as it is; another name= trains it again")
            return folder
        console.print(f"{experiment.name}, seed {experiment.seed}", style="bold")
        decoding = group.from_first(lambda: decoding_begun_with(folder))
        recorded = group.from_first(lambda: facts_begun_with(folder))
        data = group.agree(lambda: _prepare(experiment, decoding, recorded))
        run = build(experiment, data)
        train_runs([run], resume=resume, command=command)
        if run.failure:
            raise run.failure
        group.wait()  # until everything is written
    return folder


def _prepare(experiment: Experiment, decoding: Decoding | None, recorded: dict[str, Any] | None) -> TrainingData:
    """The data; a model that is too large or asks for boxes in vain is refused before they are read."""
    machine = choose_machine(experiment.training.device, experiment.training.precision)
    if not is_pretrained(experiment.question_encoder) and (sizes := smallest_sizes(experiment)) is not None:
        require_room(experiment, sizes, machine.device, batch=1)
        require_known_places(experiment, sizes)
    return prepare(experiment, decoding, recorded)


def train_runs(runs: Sequence[Run], *, resume: bool, command: str) -> None:
    """Train runs that see the same batches; one that fails keeps its failure, and the others go on.

    Raises:
        InputError: before the first step.
        InterruptedRunError: after a signal of `vqa.runtime.stopping`, with every state saved.
    """
    with ExitStack() as stack:
        for run in runs:
            if run.group.is_first:
                stack.enter_context(sole_writer(run.folder))
            if run.among_others:
                console.print(f"{run.experiment.name}, seed {run.experiment.seed}", style="bold")
            begin(run, resume=resume)
            stack.callback(close, run)
        stop = stack.enter_context(stop_signals())
        bar = stack.enter_context(progress_bar())
        train_epochs(runs, stop, bar, command)


def train_epochs(runs: Sequence[Run], stop: StopRequest, bar: Progress, command: str) -> None:
    """Epochs until every run has ended or failed, each ending in the official accuracy on val and a saved state.

    A run without validation has its loss alone.
    """
    for run in runs:
        if run.is_over:  # it was stopped between its last epoch and its end
            finish(run)
    while left := [run for run in runs if not run.ended and not run.failure]:
        turn = min(run.turn for run in left)
        members = [run for run in left if run.turn == turn]  # resumed runs may be further on
        if members[0].group.any(stop.asked):
            raise InterruptedRunError(f"stopped after epoch {turn[0]}; go on with: {command}")
        epochs = max(run.experiment.training.epochs for run in members)
        title = f"epoch {turn[0] + 1:>3}/{epochs}"
        task = bar.add_task(title, total=None, note="")
        train_steps(members, stop, bar, task, command)
        for run in (run for run in members if not run.failure):
            with run.at_work():
                shown = end_epoch(run)
                console.print(f"  {f'{run.name}:' if run.among_others else title}  {shown}")
                if run.is_over:
                    finish(run)
        bar.remove_task(task)  # more bars than lines of the terminal would hide the one that moves


def train_steps(members: Sequence[Run], stop: StopRequest, bar: Progress, task: TaskID, command: str) -> None:
    """The steps of one epoch, or what is left of them, of the runs that are in it.

    A run that is further on waits until the batches have come to its place. Each run is counted an equal part of the
    time.
    """
    first_run, group = members[0], members[0].group
    todo, first = epoch_batches(first_run), min(run.state.step_in_epoch for run in members)
    bar.update(task, total=len(todo), completed=first)
    for run in members:
        run.tally = Tally(run.state.sums, run.data.machine.device, group)
        run.seconds, run.done_before = 0.0, run.state.sums[2]
        run.model.train()
    started = saved = time.perf_counter()
    clock = Clock()
    for run in members:
        run.pace = Pace(clock, run.done_before)
    for number, inputs in enumerate(clock.timed(stream(first_run.data, todo[first:])), start=first + 1):
        for run in members:
            if run.state.step_in_epoch == number - 1 and not run.failure:
                with run.at_work():
                    step_once(run, inputs, len(todo))
        going = [run for run in members if not run.failure]
        if not going:
            break
        last = number == len(todo)
        look = last or number % READ_EVERY == 0
        if not look and not group.alone:
            continue
        wishes = group.gather((stop.asked, look and time.perf_counter() - saved > SAVE_EVERY))
        stopping, due = (any(wish) for wish in zip(*wishes, strict=True))
        if look or stopping:
            note = f"{len(going)} models"
            for run in going:
                with run.at_work():
                    totals = read(run)
                    note = note if run.among_others else str(totals)
                    if has_row(run, len(todo)):
                        log_step(run, totals)
            rate = sum(run.state.sums[2] - run.done_before for run in members) / (time.perf_counter() - started)
            bar.update(task, completed=number, note=f"{note}  {rate:,.0f} questions/s")
        if stopping or due or last:
            share, saved = (time.perf_counter() - saved) / len(members), time.perf_counter()
            for run in members:
                run.seconds, run.state.seconds = run.seconds + share, run.state.seconds + share
        if (stopping or due) and not last:
            for run in (run for run in going if not run.failure):
                with run.at_work():
                    save(run)
        if stopping and not last and not all(run.failure for run in members):
            raise InterruptedRunError(f"stopped in epoch {first_run.state.epoch + 1}; go on with: {command}")


def step_once(run: Run, inputs: Inputs, steps: int) -> None:
    """One step of an epoch of so many: the rate of this step, the gradient, the optimiser, the sums."""
    training, state = run.experiment.training, run.state
    factor = learning_rate_factor(training.schedule, state.step, steps, steps * training.epochs)
    set_learning_rates(run.optimizer, training.optimizer, factor)
    state.step += 1
    state.step_in_epoch += 1
    measured = state.step_in_epoch == steps or has_row(run, steps)
    if run.graphs is None or measured:  # a recorded step keeps no gradients to measure
        loss, right = take(run, inputs, measured=measured)
    else:
        loss, right = run.graphs.step(inputs)
    assert run.tally is not None
    run.tally.count(loss, right, inputs, state.step - 1)


def has_row(run: Run, steps: int) -> bool:
    """Whether the run's last step has a row of its own in the metrics, in an epoch of so many steps."""
    state, every = run.state, run.experiment.tracking.every
    return is_looked_at(state.step_in_epoch, steps, state.step, READ_EVERY, every)


def log_step(run: Run, totals: Totals) -> None:
    """Log the last step: its loss, rate and gradients, and how it has gone since the row before."""
    assert run.tracker is not None and run.gradient_norm is not None
    row = {
        "loss": totals.last_loss,
        "learning_rate": last_rate(run),
        "gradient_norm": float(run.gradient_norm),
        **run.pace.since_last(totals.questions, run.data.machine.device),
    }
    run.tracker.log({f"step/{name}": value for name, value in row.items() if math.isfinite(value)}, run.state.step)


def end_epoch(run: Run) -> str:
    """Validate where there is a val split, log, keep the weights if they are the best, save; returns what to show."""
    state, totals = run.state, read(run)
    check_weights(run)
    note_movement(run)
    row: dict[str, Any] = {
        "epoch": state.epoch + 1,
        "train/loss": totals.mean_loss,
        "train/soft_score": totals.soft_score,
        "learning_rate": last_rate(run),
        "questions_per_second": (totals.questions - run.done_before) / max(run.seconds, 1e-9),
        **{name: value for name, value in epoch_measures(run).items() if math.isfinite(value)},
    }
    accuracy = None
    if run.data.val is not None:
        started = time.perf_counter()
        row |= {f"val/{key}": value for key, value in validate(run.data, run.model).items()} | {"val/protocol": "2021"}
        state.seconds += time.perf_counter() - started
        accuracy = row["val/open_ended/overall"]
        if run.seen and run.seen.mark:
            row["val/seen_in_training"] = run.seen.mark
    assert run.tracker is not None
    row |= {"seconds": state.seconds}
    run.tracker.log(row, step=state.step)
    last, better = run.experiment.training.keep == "last", accuracy is not None and accuracy > state.best_accuracy
    if last or better:
        run.tracker.summarise(kept_values(row) | (best_values(row) if better else {}))
    if accuracy is not None and better:
        state.best_accuracy, state.best_epoch = accuracy, state.epoch
        if run.group.is_first and not last:
            save_model(run.folder.model, run.model, run.vocabulary_digest)
    state.epoch, state.step_in_epoch, state.sums = state.epoch + 1, 0, [0.0, 0.0, 0.0]
    save(run)
    mark = f", {run.seen.mark}" if run.seen and run.seen.mark else ""
    validated = "" if accuracy is None else f"  val open-ended {accuracy:.2f}% (protocol 2021{mark})"
    return f"loss {row['train/loss']:.3f}{validated}  {row['questions_per_second']:,.0f} questions/s"


def epoch_measures(run: Run) -> dict[str, float]:
    """The gradients of the epoch's last step, the wait for data in it, and the memory taken."""
    assert run.gradient_norm is not None
    device = run.data.machine.device
    return {
        "gradient_norm": float(run.gradient_norm),
        "data_wait": run.pace.waiting,
        "memory_gib": memory_taken(device),
    }


def validate(data: TrainingData, model: VQAModel) -> dict[str, float]:
    """Official accuracy on val in percent (protocol 2021), open-ended and, where there are choices, multiple-choice.

    Each over all questions and by answer type.
    """
    assert data.val is not None and data.val_questions is not None
    predictions = predict(model, data.val_questions, data.features, data.machine, nearest=data.val_choices)
    answers = {
        "open_ended": predictions.open_ended(data.answers),
        "multiple_choice": predictions.multiple_choice(data.val),
    }
    row = {}
    for task, given in answers.items():
        if given is not None:
            found = score(data.val, given)
            row[f"{task}/overall"] = found.overall
            row |= {f"{task}/{name}": value for name, value in found.per_answer_type.items()}
    return row
