"""Training steps recorded as CUDA graphs, one a question length, and played again: one launch in place of hundreds.

A recorded step works on the same memory every time: a batch is copied into static inputs, the learning rate is a tensor
that the optimiser reads, and what the step leaves, loss and right answers, is copied out before the next one. Only
whole batches of questions of one length are recorded, which is most of them, because batches are cut by length; the
others take their step as ever, between the recorded ones.

What is recorded is the step of `vqa.training.step` itself. How it is recorded (`record_on_gpu`) is all that needs a
GPU: everything else runs with any recorder, and is tested with one that calls the step again.

Legend: `B` batch.
"""

import warnings
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vqa.errors import InputError, first_line
from vqa.experiment import BESIDE_MODEL, Experiment, outside_parts
from vqa.features.tables.feature_table import FeatureTable
from vqa.features.tables.pixel_table import PixelTable
from vqa.models import Image, Target, is_pretrained
from vqa.runtime.device import Machine
from vqa.training.step import Inputs

WARM_UP = 3  # steps of a length before it is recorded, so that libraries have chosen and made what they need
MOST_GRAPHS = 32  # lengths
RECORDED_OPTIMIZERS = ("adam", "adamw")  # whose rate may be a tensor, and which keep their counts on the device


class Counted(NamedTuple):
    """What a step leaves: its mean loss, and the sum of the soft scores of its best answers."""

    loss: Tensor
    right: Tensor


Step = Callable[[], Counted]


class Recorded(NamedTuple):
    """A step that can be played again: `play` takes it, and puts what it leaves into `counted`."""

    play: Callable[[], None]
    counted: Counted


class StepGraphs:
    """Takes training steps, recorded ones where a batch fits one.

    Args:
        take: takes a step on a batch as ever.
        record: makes a recorded step of one, without taking it.
        batch_size: of whole batches.
    """

    def __init__(self, take: Callable[[Inputs], Counted], record: Callable[[Step], Recorded], batch_size: int) -> None:
        self._take, self._record, self._batch_size = take, record, batch_size
        self._seen: Counter[int] = Counter()
        self._static: dict[int, Inputs] = {}
        self._recorded: dict[int, Recorded] = {}

    @property
    def lengths(self) -> list[int]:
        """The question lengths whose steps are recorded."""
        return sorted(self._recorded)

    def step(self, inputs: Inputs) -> Counted:
        """Take one step; what it leaves belongs to the caller."""
        length = one_length(inputs, self._batch_size)
        if length is None or not self._is_recorded(length, inputs):
            return self._take(inputs)
        copy_into(self._static[length], inputs)
        recorded = self._recorded[length]
        recorded.play()
        return Counted(*(value.clone() for value in recorded.counted))

    def _is_recorded(self, length: int, inputs: Inputs) -> bool:
        """Whether there is a recorded step of this length; records one after enough others."""
        if length in self._recorded:
            return True
        self._seen[length] += 1
        if self._seen[length] <= WARM_UP or len(self._recorded) == MOST_GRAPHS:
            return False
        static = static_inputs(inputs, next(iter(self._static.values()), None))
        try:
            self._recorded[length] = self._record(lambda: self._take(static))
        except RuntimeError as error:  # an operation that cannot be recorded: CUDA is left in the midst of it
            raise InputError(
                f"CUDA graphs: a step cannot be recorded ({first_line(error)}); begin anew with "
                "training.cuda_graphs=off"
            ) from error
        self._static[length] = static
        return True


def one_length(inputs: Inputs, batch_size: int) -> int | None:
    """The length of all questions of a whole batch of features, without padding; None for any other batch."""
    tokens_BT, length_B = inputs.tokens_BT, inputs.length_B
    whole = len(length_B) == batch_size == inputs.questions and isinstance(inputs.image, Image)
    if not whole or length_B.device.type != "cpu" or tokens_BT.ndim != 2:
        return None
    shortest, longest = (int(length) for length in length_B.aminmax())
    return longest if shortest == longest == tokens_BT.shape[1] else None


def static_inputs(inputs: Inputs, other: Inputs | None) -> Inputs:
    """Memory for batches like this one; what does not depend on the length is that of another length's."""
    assert isinstance(inputs.image, Image)  # `one_length` has looked
    target = Target(*(column.clone() for column in inputs.target)) if other is None else other.target
    image = _cloned(inputs.image) if other is None else other.image
    tokens_BT, length_B = inputs.tokens_BT.clone(), inputs.length_B.clone()
    return inputs._replace(image=image, tokens_BT=tokens_BT, length_B=length_B, target=target, whole=target)


def _cloned(image: Image) -> Image:
    row_B, mask_IR, boxes_IR4 = (None if part is None else part.clone() for part in image[1:])
    return Image(image.regions_IRC.clone(), row_B, mask_IR, boxes_IR4)


def copy_into(static: Inputs, inputs: Inputs) -> None:
    """Put a batch where a recorded step reads; its lengths are those of the batch that was recorded."""
    for there, here in zip(
        (*static.image, static.tokens_BT, *static.target),
        (*inputs.image, inputs.tokens_BT, *inputs.target),
        strict=True,
    ):
        if there is not None and here is not None:
            there.copy_(here, non_blocking=True)


def obstacle(
    experiment: Experiment, machine: Machine, features: FeatureTable | PixelTable, *, among_others: bool
) -> str | None:
    """Why the steps of a run are not recorded, in a word; None where they are.

    Args:
        among_others: whether other runs take their steps in between, with random numbers of their own.
    """
    training = experiment.training
    parts = outside_parts(experiment).keys() - BESIDE_MODEL
    reasons = {
        "off": training.cuda_graphs == "off",
        "no GPU": machine.device.type != "cuda",
        "several processes": not machine.group.alone,
        "several models at once": among_others,
        "training.compile": training.compile,
        "a tuned image encoder": experiment.features.tune,
        "training.batches by_image": training.batches == "by_image",  # batches of as many images as it comes
        "a pretrained question encoder": is_pretrained(experiment.question_encoder),
        f"parts from outside ({', '.join(sorted(parts))})": bool(parts),  # they may look at the numbers
        f"optimizer {training.optimizer.name}": training.optimizer.name not in RECORDED_OPTIMIZERS,
        f"features in {features.residency} memory": features.residency != "device",  # another thread copies them
    }
    return next((reason for reason, there in reasons.items() if there), None)


def record_on_gpu(device: torch.device) -> Callable[[Step], Recorded]:
    """A recorder of CUDA graphs, which share one pool of memory: only one of them is played at a time.

    Recording takes no step: weights, statistics and random numbers stay as they are.
    """
    pool = torch.cuda.graph_pool_handle()
    # steps between the recorded ones are taken by the same optimiser, which warns of it
    warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")

    def record(step: Step) -> Recorded:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            counted = step()
        return Recorded(graph.replay, counted)

    return record
