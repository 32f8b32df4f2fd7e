"""The one training loop, top to bottom.

Legend: `B` batch, `T` tokens, `R` regions, `C` channels, `A` answers, `K` distinct human answers a question.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import Progress, TaskID
from torch import Tensor, nn

from vqa.errors import InterruptedRunError, NonFiniteLossError
from vqa.evaluation.accuracy import score
from vqa.files import write_json
from vqa.models import LOSSES, Target, VQAModel, check_options, initialise_uniform
from vqa.progress import console, progress_bar
from vqa.text.vocabulary import vocabulary_digest
from vqa.training.batches import batches
from vqa.training.checkpoint import RunFolder, save_model
from vqa.training.experiment import Experiment, TrainingSection
from vqa.training.optimise import clip_gradients, learning_rate_factor, make_optimizer, set_learning_rates
from vqa.training.predict import predict
from vqa.training.prepare import Prepared, make_model, prepare, set_statistics
from vqa.training.resume import Progressed, already_trained, restore_progress, save_progress, sole_writer, start_folder
from vqa.training.stopping import StopRequest, stop_signals
from vqa.training.tracking import Tracker

READ_EVERY = 20  # steps between two looks at the device's sums, which is when the bar moves


@dataclass(frozen=True)
class Run:
    """What one call of `train` works with."""

    experiment: Experiment
    prepared: Prepared
    model: VQAModel
    optimizer: torch.optim.Optimizer
    loss: nn.Module
    progressed: Progressed
    folder: RunFolder
    vocabulary_digest: str
    command: str

    def save(self) -> None:
        """Write `state.pt`."""
        save_progress(self.folder, self.model, self.optimizer, self.progressed, self.vocabulary_digest)


def train(experiment: Experiment, *, resume: bool = False, command: str = "the same command") -> RunFolder:
    """Train one experiment into its run folder and return the folder.

    The same experiment and seed give the same weights on the same machine, whether or not the run was interrupted.

    Args:
        resume: go on from `state.pt`; without it an unfinished run folder is refused, so that nothing is overwritten.
        command: what the user runs to go on after an interruption, for the message that says so.

    Raises:
        InputError: bad data, caches or experiment, before anything is written.
        InterruptedRunError: after Ctrl-C or SIGTERM, with the state saved.
        NonFiniteLossError: naming the epoch and step.
    """
    folder = RunFolder(experiment.folder)
    if already_trained(folder, experiment, resume):
        console.print(f"{folder.path}: already trained, left as it is", markup=False)
        return folder
    console.print(f"[bold]{experiment.name}[/], seed {experiment.seed}")
    prepared = prepare(experiment)
    torch.manual_seed(experiment.seed)
    model, optimizer, loss = _build(experiment, prepared)
    digest = vocabulary_digest(prepared.words, prepared.answers)
    with sole_writer(folder):
        if resume and folder.state.is_file():
            progressed = restore_progress(folder, prepared, model, optimizer, digest)
        else:
            progressed = Progressed()
            start_folder(folder, experiment, prepared)
        run = Run(experiment, prepared, model, optimizer, loss, progressed, folder, digest, command)
        _print_facts(run)
        _run_tracked(run)
    return folder


def _build(experiment: Experiment, prepared: Prepared) -> tuple[VQAModel, torch.optim.Optimizer, nn.Module]:
    """Model on its device, optimiser and loss."""
    loss_class, loss_options = check_options("loss", LOSSES, experiment.loss)
    model = make_model(
        experiment, prepared.words, prepared.answers, prepared.features.regions, prepared.features.channels
    )
    initialise_uniform(model, experiment.training.initial_range, experiment.training.initial_embedding_range)
    set_statistics(model, prepared)
    model.to(prepared.machine.device)
    return model, make_optimizer(experiment.training.optimizer, model), loss_class(**loss_options)


def _run_tracked(run: Run) -> None:
    """Train with a tracker open that is closed whatever happens."""
    tracking, progressed = run.experiment.tracking, run.progressed
    tracker = Tracker(
        run.folder.path, tracking.wandb, project=tracking.project, group=tracking.group, tags=tracking.tags,
        config=run.experiment.resolved(),
    )  # fmt: skip
    try:
        with stop_signals() as stop, progress_bar() as bar:
            _epochs(run, tracker, stop, bar)
    except BaseException:
        tracker.finish(failed=True)
        raise
    tracker.summarise({"best_epoch": progressed.best_epoch + 1, "best_open_ended": progressed.best_accuracy})
    tracker.finish()


def _epochs(run: Run, tracker: Tracker, stop: StopRequest, bar: Progress) -> None:
    """Epochs, each ending in the official accuracy on val and a saved state."""
    training, progressed = run.experiment.training, run.progressed
    while progressed.epoch < training.epochs and not _out_of_patience(training, progressed):
        if stop.asked:
            raise InterruptedRunError(f"stopped after epoch {progressed.epoch}; go on with: {run.command}")
        task = bar.add_task(f"epoch {progressed.epoch + 1:>3}/{training.epochs}", total=None, note="")
        row = _steps(run, stop, bar, task)
        _check_weights(run)
        started = time.perf_counter()
        row |= _validate(run.prepared, run.model)
        progressed.seconds += time.perf_counter() - started
        row["seconds"] = progressed.seconds
        tracker.log(row, step=progressed.step)
        accuracy = row["val/open_ended/overall"]
        note = f"loss {row['train/loss']:.3f}  val open-ended {accuracy:.2f}%"
        bar.update(task, note=f"{note}  {row['questions_per_second']:,.0f} questions/s")
        if accuracy > progressed.best_accuracy:
            progressed.best_accuracy, progressed.best_epoch = accuracy, progressed.epoch
            save_model(run.folder.model, run.model, run.vocabulary_digest)
        progressed.epoch, progressed.step_in_epoch, progressed.sums = progressed.epoch + 1, 0, [0.0, 0.0, 0.0]
        run.save()
    if _out_of_patience(training, progressed):
        console.print(f"no better val accuracy for {training.patience} epochs: training ends here")
    write_json(run.folder.finished, _finished(progressed))


def _out_of_patience(training: TrainingSection, progressed: Progressed) -> bool:
    return progressed.epoch - 1 - progressed.best_epoch >= (training.patience or math.inf)


def _steps(run: Run, stop: StopRequest, bar: Progress, task: TaskID) -> dict[str, Any]:
    """The steps of one epoch, or what is left of them; returns the epoch's numbers."""
    training, progressed, model, optimizer = run.experiment.training, run.progressed, run.model, run.optimizer
    prepared, questions = run.prepared, run.prepared.train_questions
    started = time.perf_counter()
    todo = batches(questions, training.batch_size, run.experiment.seed, progressed.epoch)
    total_steps = len(todo) * training.epochs
    bar.update(task, total=len(todo))
    sums = torch.tensor(progressed.sums, dtype=torch.float64, device=prepared.machine.device)
    first_bad_step = torch.full((), -1, dtype=torch.int64, device=prepared.machine.device)
    done_before = progressed.sums[2]
    model.train()
    left = todo[progressed.step_in_epoch :]
    images = prepared.features.stream([batch.image_rows(questions) for batch in left])
    for batch, image_BRC in zip(left, images, strict=True):
        factor = learning_rate_factor(training.schedule, progressed.step, len(todo), total_steps)
        set_learning_rates(optimizer, training.optimizer, factor)
        tokens_BT, length_B = batch.tokens(questions)
        target = questions.target_at(batch.index_B)
        with prepared.machine.autocast():
            logits_BA = model(image_BRC, tokens_BT, length_B).logits_BA
        loss = run.loss(logits_BA.float(), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(model, training.clip_norm, training.clip_value, training.clip_norm_over)
        optimizer.step()

        sums += _sums(loss.detach(), logits_BA.detach(), target)
        first_bad_step = torch.where(loss.isfinite() | (first_bad_step >= 0), first_bad_step, progressed.step)
        progressed.step += 1
        progressed.step_in_epoch += 1
        last, stopping = progressed.step_in_epoch == len(todo), stop.asked
        if last or stopping or progressed.step_in_epoch % READ_EVERY == 0:
            _check_finite(int(first_bad_step), run)
            rate = (float(sums[2]) - done_before) / (time.perf_counter() - started)
            _show(bar, task, progressed.step_in_epoch, sums, rate)
        if stopping and not last:
            progressed.sums = sums.tolist()
            progressed.seconds += time.perf_counter() - started
            run.save()
            raise InterruptedRunError(f"stopped in epoch {progressed.epoch + 1}; go on with: {run.command}")
    seconds = time.perf_counter() - started
    progressed.seconds += seconds
    loss_sum, right, count = sums.tolist()
    return {
        "epoch": progressed.epoch + 1,
        "train/loss": loss_sum / count,
        "train/accuracy": 100 * right / count,
        "learning_rate": optimizer.param_groups[0]["lr"],
        "questions_per_second": (count - done_before) / max(seconds, 1e-9),
    }


def accuracies(prepared: Prepared, model: VQAModel) -> dict[str, float]:
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


def _validate(prepared: Prepared, model: VQAModel) -> dict[str, Any]:
    row = accuracies(prepared, model)
    return {**{f"val/{key}": value for key, value in row.items()}, "val/protocol": "2021"}


def _sums(loss: Tensor, logits_BA: Tensor, target: Target) -> Tensor:
    """Loss, accuracy (soft score of the best answer) and count, summed over the batch, on the device."""
    right_B = (target.score_BK * (target.answer_BK == logits_BA.argmax(dim=1, keepdim=True))).sum(dim=1)
    count = torch.full_like(loss, len(logits_BA))
    return torch.stack([loss * count, right_B.sum(), count]).double()


def _check_finite(first_bad_step: int, run: Run) -> None:
    if first_bad_step >= 0:
        progressed = run.progressed
        within = progressed.step_in_epoch - (progressed.step - first_bad_step)
        raise NonFiniteLossError(
            f"{run.experiment.name}: the loss is not finite at step {first_bad_step} (epoch {progressed.epoch + 1}, "
            f"step {within + 1} of it). Saved weights are from before. Try a lower training.optimizer.learning_rate, "
            f"a training.clip_norm, or training.precision=float32; look for NaN in the features with vqa features "
            f"check. The run is in {run.folder.path}"
        )


def _check_weights(run: Run) -> None:
    """A finite loss may still have had a gradient that is not; such weights are never saved."""
    for name, parameter in run.model.named_parameters():
        if not parameter.isfinite().all():
            raise NonFiniteLossError(
                f"{run.experiment.name}: weight {name} is not finite after epoch {run.progressed.epoch + 1} (step "
                f"{run.progressed.step}). Saved weights are from before. Try a lower training.optimizer.learning_rate "
                f"or a training.clip_norm. The run is in {run.folder.path}"
            )


def _show(bar: Progress, task: TaskID, step: int, sums: Tensor, rate: float) -> None:
    loss, right, count = sums.tolist()
    note = f"loss {loss / count:.3f}  accuracy {100 * right / count:.1f}%  {rate:,.0f} questions/s"
    bar.update(task, completed=step, note=note)


def _print_facts(run: Run) -> None:
    prepared, progressed = run.prepared, run.progressed
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    console.print(
        f"  {len(prepared.train_questions):,} of {len(prepared.train):,} training questions have an answer among the "
        f"{len(prepared.answers):,} most frequent; {len(prepared.words):,} words; {parameters:,} parameters\n"
        f"  {prepared.machine}; {prepared.features.reason}"
    )
    if prepared.first_vectors is not None:
        console.print(f"  {prepared.first_vectors}", markup=False)
    if progressed.step:
        console.print(f"  resumed in epoch {progressed.epoch + 1} at step {progressed.step_in_epoch}")


def _finished(progressed: Progressed) -> dict[str, Any]:
    return {
        "epochs": progressed.epoch,
        "best_epoch": progressed.best_epoch + 1,
        "best_val_open_ended": progressed.best_accuracy,
        "protocol": "2021",
        "seconds": round(progressed.seconds, 2),
    }
