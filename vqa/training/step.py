"""One optimiser step of one model, and its share in the sums of the epoch. Only `Tally.read` waits for the device.

Legend: `B` batch (this process's share of it), `T` tokens, `R` regions, `C` channels, `A` answers, `K` distinct human
answers a question.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vqa.experiment import TrainingSection
from vqa.features.tables.pixel_table import PixelBatch
from vqa.models import Image, Loss, Target, VQAModel
from vqa.runtime.device import Machine
from vqa.runtime.distributed import Group
from vqa.training.data_parallel import GradientSums
from vqa.training.inputs.batches import Batch, images_of
from vqa.training.inputs.prepare import TrainingData
from vqa.training.optimise import add_clipped_decay, clip_gradients

COMPILER = "inductor"
NEVER = 2**62  # no step has this number


class Inputs(NamedTuple):
    """What one step works on, on the device.

    Attributes:
        image, tokens_BT, length_B, target: this process's questions; where the image encoder is tuned, images
            take the place of features.
        whole: the targets of the whole batch.
        questions: how many questions the whole batch has.
        copies: how many processes compute these very questions; 1, but where a batch is too small to be shared.
    """

    image: Image | PixelBatch
    tokens_BT: Tensor
    length_B: Tensor
    target: Target
    whole: Target
    questions: int
    copies: int


def stream(prepared: TrainingData, todo: Sequence[Batch]) -> Iterator[Inputs]:
    """This process's share of one training batch after another; each is valid until the next is asked for."""
    questions, group = prepared.train_questions, prepared.machine.group
    parts = [batch.share(group.rank, group.size) for batch in todo]
    images = images_of(prepared.features, [part for part, _ in parts], questions)
    for batch, (part, copies), image in zip(todo, parts, images, strict=True):
        tokens_BT, length_B = part.tokens(questions)
        target = questions.target_at(part.index_B)
        whole = target if group.alone else questions.target_at(batch.index_B)
        yield Inputs(image, tokens_BT, length_B, target, whole, len(batch.index_B), copies)


def compile_head(model: VQAModel) -> None:
    """Compile fusion and classifier in place; names of weights stay as they are.

    The question encoder stays as it is: its recurrent layers are the vendor's own, which a compiled loop does not beat.
    A compiled head draws its dropout masks in another way, so its weights are not those of an uncompiled run.
    """
    for part in (model.fusion, model.classifier):
        part.compile(backend=COMPILER)


def take_step(
    model: nn.Module,
    loss_function: Loss,
    optimizer: torch.optim.Optimizer,
    inputs: Inputs,
    machine: Machine,
    training: TrainingSection,
    gradients: GradientSums | None = None,
) -> tuple[Tensor, Tensor]:
    """Move the weights by one batch; returns this process's part of the mean loss, and its logits `[B, A]`.

    Args:
        gradients: what adds them up over the processes; None for one alone.
    """
    loss, logits_BA = find_gradients(model, loss_function, optimizer, inputs, machine, gradients)
    move_weights(model, optimizer, training)
    return loss, logits_BA


def find_gradients(
    model: nn.Module,
    loss_function: Loss,
    optimizer: torch.optim.Optimizer,
    inputs: Inputs,
    machine: Machine,
    gradients: GradientSums | None = None,
) -> tuple[Tensor, Tensor]:
    """The first half of a step: leaves the gradients of the whole batch's loss; returns what `take_step` does."""
    group = machine.group
    with machine.autocast():
        logits_BA = model(inputs.image, inputs.tokens_BT, inputs.length_B).logits_BA
    loss = loss_function(logits_BA.float(), inputs.target)
    if not group.alone:
        loss = loss * share_of_mean(loss_function, inputs)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if gradients is not None:
        gradients.finish()
    return loss.detach(), logits_BA.detach()


def move_weights(model: nn.Module, optimizer: torch.optim.Optimizer, training: TrainingSection) -> None:
    """The second half of a step: clips the gradients as the experiment says, and moves the weights."""
    add_clipped_decay(optimizer)
    clip_gradients(model, training.clip_norm, training.clip_value, training.clip_norm_over)
    optimizer.step()


def share_of_mean(loss_function: Loss, inputs: Inputs) -> Tensor:
    """What this process's mean loss weighs in the whole batch's: its share of the questions that the mean is over."""
    counted = loss_function.averaged_over(inputs.target).sum()
    return counted / (loss_function.averaged_over(inputs.whole).sum() * inputs.copies).clamp(min=1)


class Totals(NamedTuple):
    """Losses times questions, soft scores of best answers, questions; and the first step without a finite loss.

    `last_loss` is the mean loss of the last step that was counted.
    """

    loss: float
    right: float
    questions: float
    first_bad_step: int | None
    last_loss: float = math.nan

    @property
    def mean_loss(self) -> float:
        return self.loss / self.questions

    @property
    def soft_score(self) -> float:
        """In percent; of answers as the vocabulary has them, so no number of the metric's protocols."""
        return 100 * self.right / self.questions

    def __str__(self) -> str:
        return f"loss {self.mean_loss:.3f}  soft score {self.soft_score:.1f}%"


class Tally:
    """Sums of one epoch over the questions of all processes.

    A step leaves two numbers on its device, of which `read` fetches all at once. They are added up on the host, step by
    step, so the sums do not depend on when they are read.

    Args:
        before: the sums that an interrupted run had reached.
        device: where the steps are taken.
    """

    def __init__(self, before: list[float], device: torch.device, group: Group) -> None:
        self._group, self._device = group, device
        self._sums = list(before) if group.is_first else [0.0, 0.0, 0.0]
        self._first_bad_step, self._last_loss = NEVER, 0.0
        self._loss: list[Tensor] = []  # one a step that was not read yet
        self._right: list[Tensor] = []
        self._known: list[tuple[int, int, float]] = []  # of those steps: number, questions of the batch, and those here

    def add(self, loss: Tensor, logits_BA: Tensor, inputs: Inputs, step: int) -> None:
        """Count one step in, by its mean loss and its logits."""
        self.count(loss, soft_hits(logits_BA, inputs.target), inputs, step)

    def count(self, loss: Tensor, right: Tensor, inputs: Inputs, step: int) -> None:
        """Count one step in, by its mean loss and its `soft_hits`; both must stay as they are until they are read."""
        self._loss.append(loss)
        self._right.append(right if inputs.copies == 1 else right / inputs.copies)
        self._known.append((step, inputs.questions, len(inputs.length_B) / inputs.copies))

    def read(self) -> Totals:
        """The sums so far, the same in every process; this waits for the device."""
        if self._known:
            losses, rights = torch.stack(self._loss).tolist(), torch.stack(self._right).tolist()
            for (step, questions, here), loss, right in zip(self._known, losses, rights, strict=True):
                self._sums = [self._sums[0] + loss * questions, self._sums[1] + right, self._sums[2] + here]
                if not math.isfinite(loss):
                    self._first_bad_step = min(self._first_bad_step, step)
            self._last_loss = losses[-1]
            self._loss, self._right, self._known = [], [], []
        sums = torch.tensor([*self._sums, self._last_loss], dtype=torch.float64, device=self._device)
        loss, right, questions, last_loss = self._group.sum(sums).tolist()
        first = min(self._group.gather(self._first_bad_step))
        return Totals(loss, right, questions, None if first == NEVER else first, last_loss)


def soft_hits(logits_BA: Tensor, target: Target) -> Tensor:
    """The sum of the soft scores of the best answers, a scalar in float64."""
    hit_BK = target.answer_BK == logits_BA.argmax(dim=1, keepdim=True)
    return (target.score_BK * hit_BK).sum(dtype=torch.float64)
