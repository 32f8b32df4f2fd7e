"""One optimiser step of one model, and the sums it leaves on the device. Nothing here waits for the device.

Legend: `B` batch (this process's share of it), `T` tokens, `R` regions, `C` channels, `A` answers, `K` distinct human
answers a question.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vqa.experiment import TrainingSection
from vqa.features.tables.pixel_table import PixelBatch
from vqa.models import Loss, Target, VQAModel
from vqa.runtime.device import Machine
from vqa.runtime.distributed import Group
from vqa.training.data_parallel import add_up_gradients
from vqa.training.inputs.batches import Batch
from vqa.training.inputs.prepare import TrainingData
from vqa.training.optimise import clip_gradients

COMPILER = "inductor"
NEVER = 2**62  # no step has this number


class Inputs(NamedTuple):
    """What one step works on, on the device.

    Attributes:
        image_BRC, tokens_BT, length_B, target: this process's questions; where the image encoder is tuned, images
            take the place of features.
        whole: the targets of the whole batch.
        questions: how many questions the whole batch has.
        copies: how many processes compute these very questions; 1, but where a batch is too small to be shared.
    """

    image_BRC: Tensor | PixelBatch
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
    images: Iterator[Tensor | PixelBatch] = prepared.features.stream([part.image_rows(questions) for part, _ in parts])
    for batch, (part, copies), image_BRC in zip(todo, parts, images, strict=True):
        tokens_BT, length_B = part.tokens(questions)
        target = questions.target_at(part.index_B)
        whole = target if group.alone else questions.target_at(batch.index_B)
        yield Inputs(image_BRC, tokens_BT, length_B, target, whole, len(batch.index_B), copies)


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
) -> tuple[Tensor, Tensor]:
    """Move the weights by one batch; returns this process's part of the mean loss, and its logits `[B, A]`."""
    group = machine.group
    with machine.autocast():
        logits_BA = model(inputs.image_BRC, inputs.tokens_BT, inputs.length_B).logits_BA
    loss = loss_function(logits_BA.float(), inputs.target)
    if not group.alone:
        loss = loss * share_of_mean(loss_function, inputs)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    add_up_gradients(model, group)
    clip_gradients(model, training.clip_norm, training.clip_value, training.clip_norm_over)
    optimizer.step()
    return loss.detach(), logits_BA.detach()


def share_of_mean(loss_function: Loss, inputs: Inputs) -> Tensor:
    """What this process's mean loss weighs in the whole batch's: its share of the questions that the mean is over."""
    counted = loss_function.averaged_over(inputs.target).sum()
    return counted / (loss_function.averaged_over(inputs.whole).sum() * inputs.copies).clamp(min=1)


class Totals(NamedTuple):
    """Losses times questions, soft scores of the best answers, questions; and the first step without a finite loss."""

    loss: float
    right: float
    questions: float
    first_bad_step: int | None

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
    """Sums of one epoch over the questions of all processes, on the device until `read`.

    Args:
        before: the sums that an interrupted run had reached.
    """

    def __init__(self, before: list[float], device: torch.device, group: Group) -> None:
        self._group = group
        begin = before if group.is_first else [0.0, 0.0, 0.0]
        self._sums = torch.tensor(begin, dtype=torch.float64, device=device)
        self._first_bad_step = torch.full((), NEVER, dtype=torch.int64, device=device)

    def add(self, loss: Tensor, logits_BA: Tensor, inputs: Inputs, step: int) -> None:
        """Count one step in."""
        target, here = inputs.target, len(logits_BA) / inputs.copies
        right_B = (target.score_BK * (target.answer_BK == logits_BA.argmax(dim=1, keepdim=True))).sum(dim=1)
        count = torch.full_like(loss, here)
        self._sums += torch.stack([loss * inputs.questions, right_B.sum() / inputs.copies, count]).double()
        bad = ~loss.isfinite() & (self._first_bad_step == NEVER)
        self._first_bad_step = torch.where(bad, step, self._first_bad_step)

    def read(self) -> Totals:
        """The sums so far, the same in every process; this waits for the device."""
        loss, right, questions = self._group.sum(self._sums).tolist()
        first = min(self._group.gather(int(self._first_bad_step)))
        return Totals(loss, right, questions, None if first == NEVER else first)
