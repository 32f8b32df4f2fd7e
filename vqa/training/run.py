"""One run in training: built, begun in its folder, saved and ended. `vqa.training.train` has the loop over runs."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vqa.errors import InputError, NonFiniteLossError
from vqa.evaluation.contamination import Contamination
from vqa.experiment import Experiment, doubts, weights_chosen
from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.files import write_json
from vqa.models import Loss, VQAModel, initialise_uniform
from vqa.models.parameters import initialise_biases
from vqa.progress import console
from vqa.runtime.deterministic import exactness, refusal
from vqa.runtime.distributed import Group
from vqa.runtime.memory import memory_sentence
from vqa.text.vocabulary import vocabulary_digest
from vqa.training.data_parallel import GradientSums, share_model
from vqa.training.graphs import Counted, StepGraphs, obstacle, record_on_gpu
from vqa.training.inputs.batches import Batch, batches, batches_by_image
from vqa.training.inputs.prepare import TrainingData, data_notes, question_notes, require_boxes, shuffle_note
from vqa.training.inputs.questions import make_loss
from vqa.training.model import initialise_from_data, make_model
from vqa.training.needs import ModelSizes, require_room
from vqa.training.optimise import gradient_norm, learning_rate_factor, make_optimizer
from vqa.training.resume import TrainState, lengthen, lengthens, restore_progress, save_progress, start_folder
from vqa.training.run_folder import RunFolder, open_run, random_states, restore_random_states, save_model
from vqa.training.step import Inputs, Tally, Totals, compile_head, find_gradients, move_weights, soft_hits
from vqa.training.tracking.facts import checkpoint_files, facts_of
from vqa.training.tracking.pace import Clock, Pace
from vqa.training.tracking.protocol import Tracker
from vqa.training.tracking.trackers import track_training

# of which training questions a loss learns
LEARNT = {
    "majority": " have their majority answer among the",
    "known": " have an answer among the",
    "all": ", also without any answer among the",
}

MEMORY_REMEDY = "lower training.batch_size, or the widths of the model's parts (`vqa describe` shows what takes most)"


@dataclass
class Run:
    """A model in training and what it alone has.

    Attributes:
        data: what it is trained on; runs that are trained together share its tensors.
        state: how far it has come.
        among_others: whether other runs are trained in this call, too.
        graphs: its recorded steps, where they are recorded.
        gradients: what adds them up over several processes.
        tracker: where its numbers go; there once it has begun.
        tally: the sums of the epoch that it is in.
        pace: how fast that epoch goes.
        gradient_norm: of the last step that was measured, on the device.
        seconds: spent on that epoch since this call came to it.
        done_before: questions of that epoch that an earlier call had done.
        random: the states of its random numbers while another run takes its steps.
        fingerprint: of the weights when the epoch began; see `note_movement`.
        epochs_done: that this call has ended.
        still: those of them in which no weight moved.
        seen: what its validation split has in common with what it is trained on; None without one.
        failure: what ended it before its time.
        ended: whether its end is written down.
    """

    experiment: Experiment
    data: TrainingData
    model: VQAModel
    optimizer: torch.optim.Optimizer
    loss: Loss
    state: TrainState
    folder: RunFolder
    vocabulary_digest: str
    among_others: bool = False
    graphs: StepGraphs | None = None
    gradients: GradientSums | None = None
    tracker: Tracker | None = None
    tally: Tally | None = None
    pace: Pace = field(default_factory=lambda: Pace(Clock(), 0.0))
    gradient_norm: Tensor | None = None
    seconds: float = 0.0
    done_before: float = 0.0
    random: dict[str, Tensor] = field(default_factory=random_states)
    fingerprint: tuple[int, ...] = ()
    epochs_done: int = 0
    still: int = 0
    seen: Contamination | None = None
    failure: InputError | NonFiniteLossError | None = None
    ended: bool = False

    @property
    def group(self) -> Group:
        """The processes that train it."""
        return self.data.machine.group

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.experiment.name}, seed {self.experiment.seed}"

    @property
    def turn(self) -> tuple[int, str]:
        """Its epoch and its shuffle, which share batches: a resumed run keeps the shuffle that it began with."""
        return self.state.epoch, self.state.shuffle

    @property
    def out_of_patience(self) -> bool:
        """Whether the validation accuracy has not risen for long enough."""
        return self.state.epoch - 1 - self.state.best_epoch >= (self.experiment.training.patience or math.inf)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to train."""
        return self.state.epoch >= self.experiment.training.epochs or self.out_of_patience

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Give the run its own random numbers where there are others, and keep what makes it fail."""
        if self.among_others:
            restore_random_states(self.random)
        try:
            yield
        except (NonFiniteLossError, InputError) as error:
            self._fail(error)
        except (MemoryError, RuntimeError) as error:
            if (sentence := memory_sentence(error)) is not None:
                sentence = f"{sentence}; {MEMORY_REMEDY}"
            elif (sentence := refusal(error)) is None:
                raise
            self._fail(InputError(f"{self.name}: {sentence}. What was saved is in {self.folder.path}"))
        if self.among_others:
            self.random = random_states()

    def _fail(self, error: InputError | NonFiniteLossError) -> None:
        self.failure = error
        if self.among_others:
            console.print(f"  {self.name}: FAILED, the others go on: {error}")


def build(experiment: Experiment, data: TrainingData, *, among_others: bool = False) -> Run:
    """A run before its first step: model on its device, optimiser and loss; nothing is written yet."""
    check_memory(experiment, data)
    for doubt in doubts(experiment, regions=data.features.regions, questions=len(data.train_questions)):
        console.print(f"  warning: {doubt}")
    seen = data.seen_of_val(experiment.data.shares_images)
    if seen and seen.warning():
        console.print(f"  {'warning' if seen.contaminated else 'note'}: {seen.warning()}")
    torch.manual_seed(experiment.seed)
    group = data.machine.group
    # every process must take the first one's order, whatever memory its machine has
    data = data.shuffled(group.from_first(lambda: data.shuffle))
    encoder = copy.deepcopy(data.encoder)  # of models trained together each tunes its own
    sizes = (data.features.regions, data.features.channels)
    model = make_model(experiment, data.words, data.answers, *sizes, data.text_encoder, encoder)
    source = ", ".join(experiment.features.cache) or "features.tune (an encoder that is tuned gives no boxes)"
    require_boxes(model.fusion, data.has_boxes, source)
    ranges = (experiment.training.initial_range, experiment.training.initial_embedding_range)
    for part in (part for part in model.children() if not isinstance(part, ImageEncoder)):
        initialise_uniform(part, *ranges)
    initialise_biases(model, experiment.training.initial_bias)
    initialise_from_data(model, data)
    model.to(data.machine.device)
    gradients = share_model(model, group)
    group.reseed(experiment.seed)
    recorded = obstacle(experiment, data.machine, data.features, among_others=among_others) is None
    optimizer = make_optimizer(experiment.training.optimizer, model, recorded=recorded)
    run = Run(
        experiment, data, model, optimizer, make_loss(experiment), TrainState(shuffle=data.shuffle),
        RunFolder(experiment.folder), vocabulary_digest(data.words, data.answers), among_others,
        gradients=gradients, seen=seen,
    )  # fmt: skip
    if recorded:
        record = record_on_gpu(data.machine.device)
        run.graphs = StepGraphs(lambda inputs: take(run, inputs), record, experiment.training.batch_size)
    return run


def take(run: Run, inputs: Inputs, *, measured: bool = False) -> Counted:
    """One step of the run on a batch, at the rate that its optimiser has.

    Args:
        measured: keep the norm of its gradients, before they are clipped.
    """
    loss, logits_BA = find_gradients(run.model, run.loss, run.optimizer, inputs, run.data.machine, run.gradients)
    if measured:
        run.gradient_norm = gradient_norm(run.model)
    move_weights(run.model, run.optimizer, run.experiment.training)
    return Counted(loss, soft_hits(logits_BA, inputs.target))


def check_memory(experiment: Experiment, data: TrainingData) -> None:
    """Raise InputError in every process where the training does not fit into the memory of one."""
    questions, machine = data.train_questions, data.machine
    sizes = ModelSizes(
        words=len(data.words),
        answers=len(data.answers),
        tokens=max(1, round(float(questions.length_N.double().mean()))),
        regions=data.features.batch_regions,
        channels=data.features.channels,
    )
    batch = math.ceil(min(experiment.training.batch_size, len(questions)) / machine.group.size)
    tuned = 0 if data.encoder is None else sum(p.numel() for p in data.encoder.parameters() if p.requires_grad)
    machine.group.agree(lambda: require_room(experiment, sizes, machine.device, batch=batch, tuned=tuned))


def begin(run: Run, *, resume: bool) -> None:
    """Begin the run in its folder, which is this process's alone, or go on where its `state.pt` left it."""
    restore_random_states(run.random)
    if run.group.from_first(lambda: _goes_on(run, resume)):
        run.state = restore_progress(run.folder, run.data, run.model, run.optimizer, run.vocabulary_digest)
        run.group.from_first(lambda: lengthen(run.folder, run.experiment))
        run.data = run.data.shuffled(run.state.shuffle)
    else:
        run.group.from_first(lambda: start_folder(run.folder, run.experiment, run.data))
    if run.experiment.training.compile:
        compile_head(run.model)
    _print_facts(run)
    run.fingerprint = fingerprint(run.model)
    run.tracker = track_training(run.folder.path if run.group.is_first else None, run.experiment, lambda: _facts(run))
    run.random = random_states()


def _goes_on(run: Run, resume: bool) -> bool:
    """Whether there is a state to go on from: of an interrupted run, or of one that has ended after fewer epochs."""
    folder = run.folder
    ended = folder.finished.is_file() and lengthens(open_run(folder.path)[1], run.experiment)
    return folder.state.is_file() and (resume or ended)


def epoch_batches(run: Run) -> list[Batch]:
    """The batches of the epoch that the run is in, the same at every call."""
    together = run.experiment.features.tune or run.experiment.training.batches == "by_image"
    order = batches_by_image if together else batches
    batch_size, seed = run.experiment.training.batch_size, run.experiment.order_seed
    return order(run.data.train_questions, batch_size, seed, run.state.epoch)


def read(run: Run) -> Totals:
    """The sums of the epoch so far, kept in the run's state.

    Raises:
        NonFiniteLossError: naming the first step whose loss was not finite.
    """
    assert run.tally is not None  # the loop has begun an epoch
    totals, state = run.tally.read(), run.state
    if totals.first_bad_step is not None:
        within = state.step_in_epoch - (state.step - totals.first_bad_step)
        raise NonFiniteLossError(
            f"{run.experiment.name}: the loss is not finite at step {totals.first_bad_step} (epoch {state.epoch + 1}, "
            f"step {within + 1} of it). Saved weights are from before. Try a lower training.optimizer.learning_rate, a "
            f"training.clip_norm, or training.precision=float32; look for NaN in the features with vqa features check. "
            f"The run is in {run.folder.path}"
        )
    state.sums = [totals.loss, totals.right, totals.questions]
    return totals


def save(run: Run) -> None:
    """Write `state.pt`; raises NonFiniteLossError instead where a weight is not finite."""
    check_weights(run)
    save_progress(run.folder, run.model, run.optimizer, run.state, run.vocabulary_digest, run.group)


def check_weights(run: Run) -> None:
    """A finite loss may still have had a gradient that is not; such weights are never saved."""
    for name, parameter in run.model.named_parameters():
        if not parameter.isfinite().all():
            raise NonFiniteLossError(
                f"{run.experiment.name}: weight {name} is not finite in epoch {run.state.epoch + 1} (step "
                f"{run.state.step}). Saved weights are from before. Try a lower training.optimizer.learning_rate or a "
                f"training.clip_norm. The run is in {run.folder.path}"
            )


def fingerprint(model: nn.Module) -> tuple[int, ...]:
    """A number for each tensor that is trained, the sum of its bits: another one where any weight has moved."""
    of_size = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    trained = (p.detach() for p in model.parameters() if p.requires_grad and p.numel())
    sums = [weights.view(of_size[weights.element_size()]).sum() for weights in trained]
    return tuple(torch.stack(sums).tolist()) if sums else ()


def note_movement(run: Run) -> None:
    """At the end of an epoch: count it and say so, once, where no weight has moved in it."""
    run.epochs_done += 1
    before, run.fingerprint = run.fingerprint, fingerprint(run.model)
    if run.fingerprint != before:
        return
    run.still += 1
    if run.still == 1:
        console.print(
            f"  warning: {run.name}: no weight moved in epoch {run.state.epoch + 1} (learning rate {last_rate(run):g} "
            f"at its end); look at training.schedule and training.optimizer.learning_rate",
        )


def last_rate(run: Run) -> float:
    """The learning rate of the step before this, of what no part of the model has for itself."""
    training, steps = run.experiment.training, -(-len(run.data.train_questions) // run.experiment.training.batch_size)
    factor = learning_rate_factor(training.schedule, run.state.step - 1, steps, steps * training.epochs)
    return training.optimizer.learning_rate * factor


def finish(run: Run) -> None:
    """Say how the run ended, and write that it has."""
    state = run.state
    if run.out_of_patience:
        console.print(
            f"no better val accuracy for {run.experiment.training.patience} epochs: training of {run.name} ends here"
        )
    if run.still:
        of = (
            "no epoch" if run.still == run.epochs_done else f"{run.epochs_done - run.still} of {run.epochs_done} epochs"
        )
        console.print(f"  warning: the weights of {run.name} moved in {of}", style="bold red")
    schedule = run.experiment.training.schedule
    if schedule.warmup >= state.epoch > 0:
        console.print(
            f"  warning: {run.name} ended within its warm-up of {schedule.warmup:g} epochs: its learning rate never "
            f"reached training.optimizer.learning_rate",
            style="bold red",
        )
    last = run.experiment.training.keep == "last"
    if run.group.is_first:
        if last:
            save_model(run.folder.model, run.model, run.vocabulary_digest)
        ended: dict[str, Any] = {"epochs": state.epoch, "kept_epoch": state.epoch if last else state.best_epoch + 1}
        if run.data.val is not None:
            best = {"best_epoch": state.best_epoch + 1, "best_val_open_ended": state.best_accuracy}
            ended |= best | {"protocol": "2021"}
            if run.seen and run.seen.mark:
                ended["val_seen_in_training"] = run.seen.warning()
        ended |= {"weights": weights_chosen(run.experiment), "seconds": round(state.seconds, 2)}
        if run.still:
            ended["epochs_without_movement"] = run.still
        write_json(run.folder.finished, ended)
    run.ended = True


def close(run: Run) -> None:
    """Close the tracker, as failed unless the run is over and its end written down; a divergence is an alert."""
    assert run.tracker is not None  # it has begun
    if isinstance(run.failure, NonFiniteLossError):
        run.tracker.alert(f"{run.name}: not finite", str(run.failure))
    if run.ended:
        ended: dict[str, Any] = {"weights": weights_chosen(run.experiment)}
        if run.data.val is not None:
            ended |= {"best_epoch": run.state.best_epoch + 1, "best_open_ended": run.state.best_accuracy}
            ended |= {"protocol": "2021"}
        run.tracker.summarise(ended)
        if run.experiment.tracking.artifacts:
            run.tracker.keep(checkpoint_files(run.folder, run.experiment, ended))
    run.tracker.finish(failed=not run.ended)


def _facts(run: Run) -> dict[str, Any]:
    """What trackers show of a run besides its experiment."""
    data = run.data
    sizes = {
        "words": len(data.words),
        "answers": len(data.answers),
        "train_questions": len(data.train_questions),
        "val_questions": 0 if data.val_questions is None else len(data.val_questions),
        "regions": data.features.regions,
        "channels": data.features.channels,
    }
    return facts_of(run.folder, run.model, sizes, data.caches, run.vocabulary_digest)


def _print_facts(run: Run) -> None:
    """What a run works with, before its first step."""
    data, state = run.data, run.state
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    console.print(
        f"  {len(data.train_questions):,} of {len(data.train):,} training questions{LEARNT[run.loss.over]} "
        f"{len(data.answers):,} most frequent; {len(data.words):,} words; {parameters:,} parameters\n"
        f"  {weights_chosen(run.experiment)}\n"
        f"  {data.machine}; {data.features.reason}"
        f"{exactness(run.experiment.training.deterministic, data.machine.device, run.group.size)}"
    )
    if data.encoder is not None:
        trained = sum(parameter.numel() for parameter in data.encoder.parameters() if parameter.requires_grad)
        console.print(f"  image encoder: {trained:,} parameters tuned; at first {data.encoder.weights_origin}")
    for line in filter(None, [*data_notes(data), *question_notes(data, run.experiment), shuffle_note(data)]):
        console.print(f"  {line}")
    if run.experiment.training.cuda_graphs != "off":
        why = obstacle(run.experiment, data.machine, data.features, among_others=run.among_others)
        console.print(f"  CUDA graphs: {'off: ' + why if why else 'steps of whole batches of one length'}")
    if state.step:
        console.print(f"  resumed in epoch {state.epoch + 1} at step {state.step_in_epoch}")
