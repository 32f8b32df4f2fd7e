"""The one training loop, top to bottom.

Legend: `A` answers, `B` batch.
"""

import copy
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.progress import Progress, TaskID

from vqa.errors import InterruptedRunError, NonFiniteLossError
from vqa.evaluation.accuracy import score
from vqa.experiment import Experiment
from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.files import write_json
from vqa.models import Loss, VQAModel, initialise_uniform
from vqa.progress import console, progress_bar
from vqa.runtime.distributed import Group, joined
from vqa.text.vocabulary import vocabulary_digest
from vqa.training.data_parallel import share_model
from vqa.training.inputs.batches import Batch, batches, batches_by_image
from vqa.training.inputs.prepare import TrainingData, prepare, question_notes, shuffle_note
from vqa.training.inputs.questions import make_loss
from vqa.training.model import initialise_from_data, make_model
from vqa.training.optimise import learning_rate_factor, make_optimizer, set_learning_rates
from vqa.training.predict import predict
from vqa.training.resume import TrainState, already_trained, restore_progress, save_progress, sole_writer, start_folder
from vqa.training.run_folder import RunFolder, save_model
from vqa.training.step import Inputs, Tally, Totals, compile_head, stream, take_step
from vqa.training.stopping import StopRequest, stop_signals
from vqa.training.tracking.wandb_tracker import Tracker

# of which training questions a loss learns
LEARNT = {
    "majority": " have their majority answer among the",
    "known": " have an answer among the",
    "all": ", also without any answer among the",
}
READ_EVERY = 20  # steps between two looks at the device's sums, which is when the bar moves
SAVE_EVERY = 600  # seconds between two saves within an epoch, which is what a run that is killed loses at the most


@dataclass(frozen=True)
class Run:
    """What one call of `train` works with."""

    experiment: Experiment
    prepared: TrainingData
    model: VQAModel
    optimizer: torch.optim.Optimizer
    loss: Loss
    progressed: TrainState
    folder: RunFolder
    vocabulary_digest: str
    command: str

    @property
    def group(self) -> Group:
        """The processes that train it."""
        return self.prepared.machine.group

    def save(self) -> None:
        """Write `state.pt`; raises NonFiniteLossError instead where a weight is not finite."""
        _check_weights(self)
        save_progress(self.folder, self.model, self.optimizer, self.progressed, self.vocabulary_digest, self.group)


def train(experiment: Experiment, *, resume: bool = False, command: str = "the same command") -> RunFolder:
    """Train one experiment into its run folder and return the folder.

    The same experiment and seed give the same weights on the same machine, whether or not the run was interrupted.
    Under torchrun all processes train the one run (`vqa.runtime.distributed`); the first one writes.

    Args:
        resume: go on from `state.pt`; without it an unfinished run folder is refused, so that nothing is overwritten.
        command: what the user runs to go on after an interruption, for the message that says so.

    Raises:
        InputError: bad data, caches or experiment, before anything is written.
        InterruptedRunError: after Ctrl-C or SIGTERM, with the state saved.
        NonFiniteLossError: naming the epoch and step.
    """
    folder = RunFolder(experiment.folder)
    with joined() as group:
        if group.from_first(lambda: already_trained(folder, experiment, resume)):
            console.print(f"{folder.path}: already trained, left as it is", markup=False)
            return folder
        console.print(f"[bold]{experiment.name}[/], seed {experiment.seed}")
        prepared = group.agree(lambda: prepare(experiment))
        run = build(experiment, prepared, command)
        with sole_writer(folder) if group.is_first else nullcontext():
            _run_tracked(begin(run, resume=resume))
        group.wait()  # until everything is written
    return folder


def build(experiment: Experiment, prepared: TrainingData, command: str) -> Run:
    """A run before its first step: model on its device, optimiser and loss; nothing is written yet."""
    torch.manual_seed(experiment.seed)
    # every process must take the first one's order, whatever memory its machine has
    prepared = prepared.shuffled(prepared.machine.group.from_first(lambda: prepared.shuffle))
    sizes = (prepared.features.regions, prepared.features.channels)
    encoder = copy.deepcopy(prepared.encoder)  # of models trained together each tunes its own
    model = make_model(experiment, prepared.words, prepared.answers, *sizes, prepared.text_encoder, encoder)
    ranges = (experiment.training.initial_range, experiment.training.initial_embedding_range)
    for part in (part for part in model.children() if not isinstance(part, ImageEncoder)):
        initialise_uniform(part, *ranges)
    initialise_from_data(model, prepared)
    model.to(prepared.machine.device)
    share_model(model, prepared.machine.group)
    prepared.machine.group.reseed(experiment.seed)
    return Run(
        experiment, prepared, model, make_optimizer(experiment.training.optimizer, model), make_loss(experiment),
        TrainState(shuffle=prepared.shuffle), RunFolder(experiment.folder),
        vocabulary_digest(prepared.words, prepared.answers), command,
    )  # fmt: skip


def begin(run: Run, *, resume: bool) -> Run:
    """The run in its folder, which is this process's alone: at its start, or where its `state.pt` left it."""
    if run.group.from_first(lambda: resume and run.folder.state.is_file()):
        progressed = restore_progress(run.folder, run.prepared, run.model, run.optimizer, run.vocabulary_digest)
        run = replace(run, progressed=progressed, prepared=run.prepared.shuffled(progressed.shuffle))
    else:
        run.group.from_first(lambda: start_folder(run.folder, run.experiment, run.prepared))
    if run.experiment.training.compile:
        compile_head(run.model)
    _print_facts(run)
    return run


def open_tracker(run: Run) -> Tracker:
    """Where the run's numbers go."""
    tracking = run.experiment.tracking
    return Tracker(
        run.folder.path if run.prepared.machine.group.is_first else None, tracking.wandb, project=tracking.project,
        group=tracking.group, tags=tracking.tags, config=run.experiment.resolved(),
    )  # fmt: skip


def _run_tracked(run: Run) -> None:
    """Train with a tracker open that is closed whatever happens."""
    tracker = open_tracker(run)
    try:
        with stop_signals() as stop, progress_bar() as bar:
            _epochs(run, tracker, stop, bar)
    except BaseException:
        tracker.finish(failed=True)
        raise
    tracker.summarise(summary(run))
    tracker.finish()


def summary(run: Run) -> dict[str, Any]:
    """What the tracker says of a run as a whole."""
    progressed = run.progressed
    best = {"best_epoch": progressed.best_epoch + 1, "best_open_ended": progressed.best_accuracy}
    return best | {"protocol": "2021"}


def _epochs(run: Run, tracker: Tracker, stop: StopRequest, bar: Progress) -> None:
    """Epochs, each ending in the official accuracy on val and a saved state."""
    progressed, epochs = run.progressed, run.experiment.training.epochs
    while not is_over(run):
        if run.group.any(stop.asked):
            raise InterruptedRunError(f"stopped after epoch {progressed.epoch}; go on with: {run.command}")
        title = f"epoch {progressed.epoch + 1:>3}/{epochs}"
        task = bar.add_task(title, total=None, note="")
        row = _steps(run, stop, bar, task)
        console.print(f"  {title}  {end_epoch(run, tracker, row)}")
        bar.remove_task(task)  # more bars than lines of the terminal would hide the one that moves
    finish(run)


def _steps(run: Run, stop: StopRequest, bar: Progress, task: TaskID) -> dict[str, Any]:
    """The steps of one epoch, or what is left of them; returns the epoch's numbers."""
    progressed, prepared, group = run.progressed, run.prepared, run.group
    started = saved = time.perf_counter()
    done_before = progressed.sums[2]
    todo = epoch_batches(run)
    bar.update(task, total=len(todo))
    tally = Tally(progressed.sums, prepared.machine.device, group)
    run.model.train()
    for inputs in stream(prepared, todo[progressed.step_in_epoch :]):
        step_once(run, inputs, tally, len(todo))
        last = progressed.step_in_epoch == len(todo)
        look = last or progressed.step_in_epoch % READ_EVERY == 0
        if not look and not group.alone:
            continue
        wishes = group.gather((stop.asked, look and time.perf_counter() - saved > SAVE_EVERY))
        stopping, due = (any(wish) for wish in zip(*wishes, strict=True))
        if look or stopping:
            totals = read(run, tally)
            rate = (totals.questions - done_before) / (time.perf_counter() - started)
            bar.update(task, completed=progressed.step_in_epoch, note=f"{totals}  {rate:,.0f} questions/s")
        if (stopping or due) and not last:
            progressed.seconds, saved = progressed.seconds + time.perf_counter() - saved, time.perf_counter()
            run.save()
        if stopping and not last:
            raise InterruptedRunError(f"stopped in epoch {progressed.epoch + 1}; go on with: {run.command}")
    progressed.seconds += time.perf_counter() - saved
    return epoch_numbers(run, totals, (totals.questions - done_before) / max(time.perf_counter() - started, 1e-9))


def epoch_batches(run: Run) -> list[Batch]:
    """The batches of the epoch that the run is in, the same at every call."""
    experiment = run.experiment
    order = batches_by_image if experiment.features.tune else batches
    questions, batch_size = run.prepared.train_questions, experiment.training.batch_size
    return order(questions, batch_size, experiment.order_seed, run.progressed.epoch)


def step_once(run: Run, inputs: Inputs, tally: Tally, steps: int) -> None:
    """One step of an epoch of so many."""
    training, progressed = run.experiment.training, run.progressed
    factor = learning_rate_factor(training.schedule, progressed.step, steps, steps * training.epochs)
    set_learning_rates(run.optimizer, training.optimizer, factor)
    loss, logits_BA = take_step(run.model, run.loss, run.optimizer, inputs, run.prepared.machine, training)
    tally.add(loss, logits_BA, inputs, progressed.step)
    progressed.step += 1
    progressed.step_in_epoch += 1


def read(run: Run, tally: Tally) -> Totals:
    """The epoch's sums so far, kept in the run's progress.

    Raises:
        NonFiniteLossError: naming the first step whose loss was not finite.
    """
    totals, progressed = tally.read(), run.progressed
    if totals.first_bad_step is not None:
        within = progressed.step_in_epoch - (progressed.step - totals.first_bad_step)
        raise NonFiniteLossError(
            f"{run.experiment.name}: the loss is not finite at step {totals.first_bad_step} (epoch "
            f"{progressed.epoch + 1}, step {within + 1} of it). Saved weights are from before. Try a lower "
            f"training.optimizer.learning_rate, a training.clip_norm, or training.precision=float32; look for NaN in "
            f"the features with vqa features check. The run is in {run.folder.path}"
        )
    progressed.sums = [totals.loss, totals.right, totals.questions]
    return totals


def epoch_numbers(run: Run, totals: Totals, questions_per_second: float) -> dict[str, Any]:
    """What is logged of an epoch's training."""
    return {
        "epoch": run.progressed.epoch + 1,
        "train/loss": totals.mean_loss,
        "train/soft_score": totals.soft_score,
        "learning_rate": run.optimizer.param_groups[0]["lr"],
        "questions_per_second": questions_per_second,
    }


def end_epoch(run: Run, tracker: Tracker, row: dict[str, Any]) -> str:
    """Validate, log, keep the weights if they are the best, save the state; returns what to show."""
    progressed = run.progressed
    _check_weights(run)
    started = time.perf_counter()
    row = row | _validate(run.prepared, run.model)
    progressed.seconds += time.perf_counter() - started
    tracker.log(row | {"seconds": progressed.seconds}, step=progressed.step)
    accuracy = row["val/open_ended/overall"]
    if accuracy > progressed.best_accuracy:
        progressed.best_accuracy, progressed.best_epoch = accuracy, progressed.epoch
        if run.group.is_first:
            save_model(run.folder.model, run.model, run.vocabulary_digest)
    progressed.epoch, progressed.step_in_epoch, progressed.sums = progressed.epoch + 1, 0, [0.0, 0.0, 0.0]
    run.save()
    shown = f"loss {row['train/loss']:.3f}  val open-ended {accuracy:.2f}% (protocol 2021)"
    return f"{shown}  {row['questions_per_second']:,.0f} questions/s"


def is_over(run: Run) -> bool:
    """Whether all epochs are done, or the validation accuracy has not risen for long enough."""
    return run.progressed.epoch >= run.experiment.training.epochs or _out_of_patience(run)


def _out_of_patience(run: Run) -> bool:
    patience = run.experiment.training.patience or math.inf
    return run.progressed.epoch - 1 - run.progressed.best_epoch >= patience


def finish(run: Run) -> None:
    """Say how the run ended, and write that it has."""
    progressed = run.progressed
    if _out_of_patience(run):
        console.print(
            f"no better val accuracy for {run.experiment.training.patience} epochs: training of "
            f"{run.experiment.name}, seed {run.experiment.seed}, ends here"
        )
    if run.group.is_first:
        ended = {
            "epochs": progressed.epoch,
            "best_epoch": progressed.best_epoch + 1,
            "best_val_open_ended": progressed.best_accuracy,
            "protocol": "2021",
            "seconds": round(progressed.seconds, 2),
        }
        write_json(run.folder.finished, ended)


def accuracies(prepared: TrainingData, model: VQAModel) -> dict[str, float]:
    """Official open-ended and, where there are choices, multiple-choice accuracy on val in percent (protocol 2021)."""
    dataset = prepared.val
    predicted = predict(
        model, prepared.val_questions, prepared.features, prepared.machine, nearest=prepared.val_choices
    )
    scored = score(dataset, predicted.open_ended(prepared.answers))
    row = {"open_ended/overall": scored.overall}
    row |= {f"open_ended/{name}": value for name, value in scored.per_answer_type.items()}
    chosen = predicted.multiple_choice(dataset)
    if chosen is not None:
        row["multiple_choice/overall"] = score(dataset, chosen).overall
    return row


def _validate(prepared: TrainingData, model: VQAModel) -> dict[str, Any]:
    row = accuracies(prepared, model)
    return {**{f"val/{key}": value for key, value in row.items()}, "val/protocol": "2021"}


def _check_weights(run: Run) -> None:
    """A finite loss may still have had a gradient that is not; such weights are never saved."""
    for name, parameter in run.model.named_parameters():
        if not parameter.isfinite().all():
            raise NonFiniteLossError(
                f"{run.experiment.name}: weight {name} is not finite in epoch {run.progressed.epoch + 1} (step "
                f"{run.progressed.step}). Saved weights are from before. Try a lower training.optimizer.learning_rate "
                f"or a training.clip_norm. The run is in {run.folder.path}"
            )


def _print_facts(run: Run) -> None:
    """What a run works with, before its first step."""
    prepared, progressed = run.prepared, run.progressed
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    console.print(
        f"  {len(prepared.train_questions):,} of {len(prepared.train):,} training questions{LEARNT[run.loss.over]} "
        f"{len(prepared.answers):,} most frequent; {len(prepared.words):,} words; {parameters:,} parameters\n"
        f"  {prepared.machine}; {prepared.features.reason}"
    )
    if prepared.encoder is not None:
        trained = sum(parameter.numel() for parameter in prepared.encoder.parameters() if parameter.requires_grad)
        console.print(f"  image encoder: {trained:,} parameters tuned; at first {prepared.encoder.weights_origin}")
    for line in filter(None, [*question_notes(prepared), shuffle_note(prepared)]):
        console.print(f"  {line}", markup=False)
    if progressed.step:
        console.print(f"  resumed in epoch {progressed.epoch + 1} at step {progressed.step_in_epoch}")
