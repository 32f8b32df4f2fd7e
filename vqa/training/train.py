"""The one training loop, top to bottom.

Legend: `B` batch, `T` tokens, `R` regions, `C` channels, `A` answers.
"""

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, TaskID
from torch import Tensor, nn

from vqa.data.dataset import QADataset
from vqa.errors import InputError, InterruptedRunError, NonFiniteLossError
from vqa.evaluation.accuracy import score
from vqa.files import atomic_write, write_json
from vqa.models import LOSSES, Target, VQAModel, check_options, initialise_uniform
from vqa.progress import console, progress_bar
from vqa.text.vocabulary import vocabulary_digest, write_vocabularies
from vqa.training.batches import batches
from vqa.training.checkpoint import (
    RunFolder,
    load_state,
    open_run,
    random_states,
    read_metrics,
    restore_random_states,
    save_model,
    save_state,
    write_environment,
    write_experiment,
)
from vqa.training.experiment import Experiment, OptimizerSection, ScheduleSection
from vqa.training.predict import predict
from vqa.training.prepare import Prepared, make_model, prepare, recorded_facts
from vqa.training.tracking import Tracker

READ_EVERY = 20  # steps between two looks at the device's sums, which is when the bar moves


@dataclass
class Progressed:
    """How far a run has come: what `state.pt` holds besides weights, optimiser and random states."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # loss, accuracy, questions of this epoch


def train(experiment: Experiment, *, resume: bool = False, command: str = "vqa train") -> RunFolder:
    """Train one experiment into its run folder and return the folder.

    The same experiment and seed give the same weights on the same machine, whether or not the run was interrupted.

    Args:
        resume: go on from `state.pt`; without it an unfinished run folder is refused, so that nothing is overwritten.
        command: how the user started this, for the message that says how to go on.

    Raises:
        InputError: bad data, caches or experiment, before anything is written.
        InterruptedRunError: after Ctrl-C or SIGTERM, with the state saved.
        NonFiniteLossError: naming the epoch and step.
    """
    folder = RunFolder(experiment.folder)
    if _already_trained(folder, experiment, resume):
        console.print(f"{folder.path}: already trained, left as it is")
        return folder
    resume = resume and folder.state.is_file()
    console.print(f"[bold]{experiment.name}[/], seed {experiment.seed}")
    prepared = prepare(experiment)
    torch.manual_seed(experiment.seed)
    model = make_model(
        experiment, prepared.words, prepared.answers, prepared.features.regions, prepared.features.channels
    )
    if experiment.training.initial_range is not None:
        initialise_uniform(model, experiment.training.initial_range)
    model.to(prepared.machine.device)
    optimizer = make_optimizer(experiment.training.optimizer, model, prepared.machine.device)
    progressed = Progressed()
    vocabulary_digest = _start_folder(folder, experiment, prepared)
    if resume:
        progressed = _restore(folder, model, optimizer, vocabulary_digest)
    _print_facts(prepared, model, progressed, resume)
    tracking = experiment.tracking
    tracker = Tracker(
        folder.path, tracking.wandb, project=tracking.project, group=tracking.group, tags=tracking.tags,
        config=experiment.resolved(),
    )  # fmt: skip
    try:
        with stop_signals() as stop:
            _loop(experiment, prepared, model, optimizer, folder, tracker, progressed, vocabulary_digest, stop, command)
    except BaseException:
        tracker.finish(failed=True)
        raise
    tracker.summarise({"best_epoch": progressed.best_epoch, "best_open_ended": progressed.best_accuracy})
    tracker.finish()
    return folder


def _loop(
    experiment: Experiment,
    prepared: Prepared,
    model: VQAModel,
    optimizer: torch.optim.Optimizer,
    folder: RunFolder,
    tracker: Tracker,
    progressed: Progressed,
    vocabulary_digest: str,
    stop: "StopRequest",
    command: str,
) -> None:
    """Epochs of steps, each epoch ending in the official accuracy on val and a saved state."""
    training = experiment.training
    loss_class, loss_options = check_options("loss", LOSSES, experiment.loss)
    loss_of = loss_class(**loss_options)
    questions, device = prepared.train_questions, prepared.machine.device
    steps_per_epoch = math.ceil(len(questions) / training.batch_size)
    total_steps = steps_per_epoch * training.epochs

    with progress_bar() as bar:
        while progressed.epoch < training.epochs:
            started = time.perf_counter()
            todo = batches(questions, training.batch_size, experiment.seed, progressed.epoch)
            task = bar.add_task(f"epoch {progressed.epoch + 1:>3}/{training.epochs}", total=len(todo), note="")
            sums = torch.tensor(progressed.sums, dtype=torch.float64, device=device)
            first_bad_step = torch.full((), -1, dtype=torch.int64, device=device)
            resumed_at = progressed.step_in_epoch
            model.train()
            for batch in todo[resumed_at:]:
                factor = learning_rate_factor(training.schedule, progressed.step, steps_per_epoch, total_steps)
                for group in optimizer.param_groups:
                    group["lr"] = training.optimizer.learning_rate * factor
                tokens_BT, length_B = batch.tokens(questions)
                image_BRC = prepared.features.gather(questions.image_row_N[batch.index_B])
                target = questions.target_at(batch.index_B)
                with prepared.machine.autocast():
                    logits_BA = model(image_BRC, tokens_BT, length_B).logits_BA
                loss = loss_of(logits_BA.float(), target)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                _clip(model, training.clip_norm, training.clip_value)
                optimizer.step()

                sums += _sums(loss.detach(), logits_BA.detach(), target)
                first_bad_step = torch.where(loss.isfinite() | (first_bad_step >= 0), first_bad_step, progressed.step)
                progressed.step += 1
                progressed.step_in_epoch += 1
                last = progressed.step_in_epoch == len(todo)
                if last or stop.asked or progressed.step_in_epoch % READ_EVERY == 0:
                    _check_finite(int(first_bad_step), progressed, experiment, folder)
                    rate = (progressed.step_in_epoch - resumed_at) * training.batch_size
                    _show(bar, task, progressed.step_in_epoch, sums, rate / (time.perf_counter() - started))
                if stop.asked and not last:
                    progressed.sums = sums.tolist()
                    progressed.seconds += time.perf_counter() - started
                    _save(folder, model, optimizer, progressed, vocabulary_digest)
                    raise InterruptedRunError(
                        f"stopped in epoch {progressed.epoch + 1}; go on with: {command} --resume"
                    )

            trained = time.perf_counter() - started
            row = _validate(prepared, model)
            progressed.seconds += time.perf_counter() - started
            count = min(len(questions), (len(todo) - resumed_at) * training.batch_size)
            row |= _epoch_row(sums, progressed, optimizer, count / max(trained, 1e-9))
            tracker.log(row, step=progressed.step)
            accuracy = row["val/open_ended/overall"]
            note = f"loss {row['train/loss']:.3f}  val open-ended {accuracy:.2f}%"
            bar.update(task, note=f"{note}  {row['questions_per_second']:,.0f} questions/s")
            if accuracy > progressed.best_accuracy:
                progressed.best_accuracy, progressed.best_epoch = accuracy, progressed.epoch
                save_model(folder.model, model, vocabulary_digest)
            progressed.epoch, progressed.step_in_epoch, progressed.sums = progressed.epoch + 1, 0, [0.0, 0.0, 0.0]
            _save(folder, model, optimizer, progressed, vocabulary_digest)
            out_of_patience = progressed.epoch - 1 - progressed.best_epoch >= (training.patience or math.inf)
            if out_of_patience:
                console.print(f"no better val accuracy for {training.patience} epochs: training ends here")
                break
            if stop.asked and progressed.epoch < training.epochs:
                raise InterruptedRunError(f"stopped after epoch {progressed.epoch}; go on with: {command} --resume")
    write_json(folder.finished, _finished(progressed))


def make_optimizer(section: OptimizerSection, model: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """The torch optimiser that the experiment names, in its fused form where torch has one."""
    options: dict[str, Any] = {"lr": section.learning_rate, "weight_decay": section.weight_decay}
    if section.momentum and section.name not in ("sgd", "rmsprop"):
        raise InputError(f"training.optimizer.momentum: {section.name} takes none; it is for sgd and rmsprop")
    match section.name:
        case "adam":
            return torch.optim.Adam(model.parameters(), fused=True, **options)
        case "adamw":
            return torch.optim.AdamW(model.parameters(), fused=True, **options)
        case "adamax":
            return torch.optim.Adamax(model.parameters(), **options)
        case "rmsprop":
            return torch.optim.RMSprop(model.parameters(), momentum=section.momentum, alpha=0.99, **options)
        case "sgd":
            return torch.optim.SGD(model.parameters(), momentum=section.momentum, fused=True, **options)


def learning_rate_factor(schedule: ScheduleSection, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """What the learning rate is multiplied with at a step counted from 0.

    >>> learning_rate_factor(ScheduleSection(name="step", factor=0.1, every=2), 25, 10, 100)
    0.1
    """
    warm = schedule.warmup * steps_per_epoch
    rising = min(1.0, (step + 1) / warm) if warm else 1.0
    match schedule.name:
        case "constant":
            return rising
        case "exponential":
            return rising * schedule.factor**step
        case "step":
            return rising * schedule.factor ** (step // steps_per_epoch // schedule.every)
        case "cosine":
            return rising * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total_steps)))


class StopRequest:
    """Whether somebody asked the loop to stop; looked at between two steps, so that no step is cut in half."""

    asked = False


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one ends the program as usual."""
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        request.asked = True
        console.print("stopping after this step, saving …")
        for known, handler in before.items():
            signal.signal(known, handler)

    try:
        for number in before:
            signal.signal(number, ask)
    except ValueError:  # not the main thread: signals are somebody else's business
        yield request
        return
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def accuracies(dataset: QADataset, prepared: Prepared, model: VQAModel, questions: Any) -> dict[str, float]:
    """Official open-ended and, where there are choices, multiple-choice accuracy in percent (protocol 2021)."""
    predicted = predict(model, questions, prepared.features, prepared.machine)
    scored = score(dataset, predicted.open_ended(prepared.answers))
    row = {"open_ended/overall": scored.overall}
    row |= {f"open_ended/{name}": value for name, value in scored.per_answer_type.items()}
    chosen = predicted.multiple_choice(dataset)
    if chosen is not None:
        row["multiple_choice/overall"] = score(dataset, chosen).overall
    return row


def _validate(prepared: Prepared, model: VQAModel) -> dict[str, Any]:
    row = accuracies(prepared.val, prepared, model, prepared.val_questions)
    return {**{f"val/{key}": value for key, value in row.items()}, "val/protocol": "2021"}


def _sums(loss: Tensor, logits_BA: Tensor, target: Target) -> Tensor:
    """Loss, accuracy (soft score of the best answer) and count, summed over the batch, on the device."""
    right_B = (target.score_BK * (target.answer_BK == logits_BA.argmax(dim=1, keepdim=True))).sum(dim=1)
    count = torch.full_like(loss, len(logits_BA))
    return torch.stack([loss * count, right_B.sum(), count]).double()


def _clip(model: nn.Module, norm: float | None, value: float | None) -> None:
    if value is not None:
        nn.utils.clip_grad_value_(model.parameters(), value)
    if norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), norm)


def _check_finite(first_bad_step: int, progressed: Progressed, experiment: Experiment, folder: RunFolder) -> None:
    if first_bad_step >= 0:
        within = progressed.step_in_epoch - (progressed.step - first_bad_step)
        raise NonFiniteLossError(
            f"{experiment.name}: the loss is not finite at step {first_bad_step} (epoch {progressed.epoch + 1}, step "
            f"{within + 1} of it). Saved weights are from before. Try a lower training.optimizer.learning_rate, a "
            f"training.clip_norm, or training.precision=float32; look for NaN in the features with vqa features check. "
            f"The run is in {folder.path}"
        )


def _show(bar: Progress, task: TaskID, step: int, sums: Tensor, rate: float) -> None:
    loss, right, count = sums.tolist()
    note = f"loss {loss / count:.3f}  accuracy {100 * right / count:.1f}%  {rate:,.0f} questions/s"
    bar.update(task, completed=step, note=note)


def _epoch_row(sums: Tensor, progressed: Progressed, optimizer: torch.optim.Optimizer, rate: float) -> dict[str, Any]:
    loss, right, count = sums.tolist()
    return {
        "epoch": progressed.epoch + 1,
        "train/loss": loss / count,
        "train/accuracy": 100 * right / count,
        "learning_rate": optimizer.param_groups[0]["lr"],
        "questions_per_second": rate,
        "seconds": progressed.seconds,
    }


def _save(
    folder: RunFolder, model: VQAModel, optimizer: torch.optim.Optimizer, progressed: Progressed, digest: str
) -> None:
    save_state(
        folder.state,
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": random_states(),
            "progress": vars(progressed),
            "vocabulary": digest,
        },
    )


def _restore(folder: RunFolder, model: VQAModel, optimizer: torch.optim.Optimizer, digest: str) -> Progressed:
    state = load_state(folder.state)
    if state["vocabulary"] != digest:
        raise InputError(f"{folder.state}: belongs to another vocabulary than the training data gives now")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    restore_random_states(state["random"])
    progressed = Progressed(**state["progress"])
    kept = [row for row in read_metrics(folder.metrics) if row["step"] <= progressed.step]
    with atomic_write(folder.metrics) as file:  # a killed run may have logged an epoch that it did not save
        file.writelines(f"{json.dumps(row)}\n" for row in kept)
    return progressed


def _already_trained(folder: RunFolder, experiment: Experiment, resume: bool) -> bool:
    """Whether there is nothing to do; raises InputError where a run folder would be written over."""
    if not folder.experiment.is_file():
        return False
    _, before, _ = open_run(folder.path)
    if before != experiment:
        changed = _differences(before.resolved(), experiment.resolved())
        raise InputError(
            f"{folder.path}: holds a run of a different experiment ({', '.join(changed)}); give this one another "
            f"name= or seed=, or remove the folder"
        )
    if folder.finished.is_file():
        return True
    if folder.state.is_file() and not resume:
        raise InputError(f"{folder.path}: holds an unfinished run; go on with --resume, or remove the folder")
    return False


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    """The key paths at which two resolved experiments differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [line for key in keys for line in _differences(before.get(key), now.get(key), f"{where}.{key}")]
    return [] if before == now else [f"{where.lstrip('.')}: {before!r} there, {now!r} here"]


def _start_folder(folder: RunFolder, experiment: Experiment, prepared: Prepared) -> str:
    """Write what describes the run, and return the digest of its vocabularies."""
    folder.path.mkdir(parents=True, exist_ok=True)
    write_experiment(folder, experiment, recorded_facts(prepared))
    write_environment(Path(folder.path) / "environment.json", prepared.machine.device)
    write_vocabularies(folder.vocabulary, prepared.words, prepared.answers)
    return vocabulary_digest(prepared.words, prepared.answers)


def _print_facts(prepared: Prepared, model: VQAModel, progressed: Progressed, resume: bool) -> None:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    console.print(
        f"  {len(prepared.train_questions):,} of {len(prepared.train):,} training questions have an answer among the "
        f"{len(prepared.answers):,} most frequent; {len(prepared.words):,} words; {parameters:,} parameters\n"
        f"  {prepared.machine}; features {prepared.features.reason}"
    )
    if resume:
        console.print(f"  resumed in epoch {progressed.epoch + 1} at step {progressed.step_in_epoch}")


def _finished(progressed: Progressed) -> dict[str, Any]:
    return {
        "epochs": progressed.epoch,
        "best_epoch": progressed.best_epoch + 1,
        "best_val_open_ended": progressed.best_accuracy,
        "protocol": "2021",
        "seconds": round(progressed.seconds, 2),
    }
