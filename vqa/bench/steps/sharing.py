"""What it gains to compute once an image what depends on the image alone: batches by image beside random ones.

Both take turns, one batch of either, so that what else the machine does meets them alike.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from vqa.bench.bounds import wait
from vqa.bench.steps.ours import TrainSetup
from vqa.training.inputs.batches import Batch, batches, batches_by_image, batches_in_order, images_of
from vqa.training.step import stream

QUESTIONS_AN_IMAGE = 5.4  # of VQA v2


class SharedRates(NamedTuple):
    """Questions/s with an image a question and with shared images."""

    apart: float
    shared: float


def training_rates(training: TrainSetup, batch_size: int, seconds: float) -> SharedRates:
    """Steps with `training.batches: random` and `by_image`."""
    questions = training.prepared.train_questions

    def take(batch: Batch) -> None:
        for inputs in stream(training.prepared, [batch]):
            training.step(inputs)

    training.model.train()
    return _in_turns(
        take, batches(questions, batch_size, 0, 0), batches_by_image(questions, batch_size, 0, 0), training, seconds
    )


@torch.inference_mode()
def evaluation_rates(training: TrainSetup, batch_size: int, seconds: float) -> SharedRates:
    """Answers to questions of one length after another, and to those of one image after another."""
    prepared, model = training.prepared, training.model
    questions, machine = prepared.train_questions, prepared.machine

    def take(batch: Batch) -> None:
        for image in images_of(prepared.features, [batch], questions):
            tokens_BT, length_B = batch.tokens(questions)
            with machine.autocast():
                model(image, tokens_BT, length_B).logits_BA.float().argmax(dim=1)

    model.eval()
    shares = prepared.features.batch_regions > 1  # as prediction has it
    apart, shared = (batches_in_order(questions, batch_size, by_image=by_image) for by_image in (False, shares))
    return _in_turns(take, apart, shared, training, seconds)


def _in_turns(
    take: Callable[[Batch], None], apart: Sequence[Batch], shared: Sequence[Batch], training: TrainSetup, seconds: float
) -> SharedRates:
    """The rate of either, from batches spread over the epoch."""
    device, spent = training.prepared.machine.device, [0.0, 0.0]
    counts, taken, began = [0, 0], 0, time.perf_counter()
    stride = max(1, len(apart) // 16 + 1)
    while taken < 3 or time.perf_counter() - began < seconds:
        for kind, todo in enumerate((apart, shared)):
            batch = todo[taken * stride % len(todo)]
            wait(device)
            started = time.perf_counter()
            take(batch)
            wait(device)
            if taken:  # the first of either warms up
                spent[kind] += time.perf_counter() - started
                counts[kind] += len(batch.index_B)
        taken += 1
    return SharedRates(*(count / time_ for count, time_ in zip(counts, spent, strict=True)))
