"""The training loop's own batches and steps, with a clock beside them."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vqa.bench.bounds import step_flops, timed, wait
from vqa.bench.steps.kernels import TimeShares, count_waits, peak_device_memory, time_spent
from vqa.bench.synthetic import synthetic_experiment
from vqa.models import Image, Loss, VQAModel
from vqa.training.inputs.batches import Batch, batches
from vqa.training.inputs.prepare import TrainingData
from vqa.training.run import build
from vqa.training.step import Inputs, Tally, stream
from vqa.training.train import step_once

LSTM = {"name": "lstm", "embedding_dim": 200, "hidden_dim": 512, "layers": 2, "dropout": 0.5}
PRODUCT: dict[str, dict[str, Any]] = {
    "question_encoder": LSTM | {"sentence_dim": None},
    "fusion": {"name": "product", "fusion_dim": 1024},
    "classifier": {"dropout": 0.5},
}
STACKED_ATTENTION: dict[str, dict[str, Any]] = {
    "question_encoder": LSTM | {"sentence_dim": 512},
    "fusion": {"name": "stacked_attention", "hops": 2, "attention_dim": 512},
    "classifier": {"dropout": 0.5},
}
MOST_STEPS = 2000
SAMPLE = 12  # steps that the profiler sees


class StepMeasurement(NamedTuple):
    """How training steps did.

    Attributes:
        rate: questions/s with a new batch each step.
        again: questions/s where each batch is used again.
        waited: the share of the time in which the loop waited for a batch.
        flops: of a question, forward and backward.
        spent: what a few steps' time went into.
        kernels: of a GPU, a step; None on a CPU, as the next three are.
        launches: of kernels, copies and graphs by the host, a step.
        host_waits: for the GPU, a step, as far as torch notices them.
        peak_bytes: of the GPU's memory, the table included where it lies there.
    """

    rate: float
    again: float
    waited: float
    flops: float
    spent: TimeShares
    kernels: float | None = None
    launches: float | None = None
    host_waits: float | None = None
    peak_bytes: int | None = None


def gather_rate(prepared: TrainingData, batch_size: int, seconds: float) -> float:
    """Questions/s of whole epochs of batches with which nothing is done."""
    device, count, epoch = prepared.machine.device, 0, 0
    spent = 0.0
    while spent < seconds:
        todo = batches(prepared.train_questions, batch_size, 0, epoch)
        wait(device)
        started = time.perf_counter()
        for inputs in stream(prepared, todo):
            count += inputs.questions
        wait(device)
        epoch, spent = epoch + 1, spent + time.perf_counter() - started
        if epoch == 1 and spent < seconds:
            count, spent = 0, 0.0  # the first epoch touched every page for the first time
    return count / spent


class TrainSetup(NamedTuple):
    """A model in training: what `vqa train` has between two batches."""

    prepared: TrainingData
    model: VQAModel
    loss: Loss
    step: Callable[[Inputs], None]


def begin(prepared: TrainingData, sections: dict[str, dict[str, Any]], batch_size: int) -> TrainSetup:
    """A new model with the loop's own step."""
    run = build(synthetic_experiment(**sections, batch_size=batch_size), prepared)
    run.tally = Tally(run.state.sums, prepared.machine.device, prepared.machine.group)
    run.model.train()
    steps = max(1, len(prepared.train_questions) // batch_size)

    def step(inputs: Inputs) -> None:
        step_once(run, inputs, steps)

    return TrainSetup(prepared, run.model, run.loss, step)


def measure_steps(
    prepared: TrainingData, sections: dict[str, dict[str, Any]], batch_size: int, seconds: float
) -> StepMeasurement:
    """Training steps as the loop takes them, each followed by one more on the same batch, for so long."""
    device = prepared.machine.device
    training = begin(prepared, sections, batch_size)
    todo = batches(prepared.train_questions, batch_size, 0, 0)
    longest = max(todo, key=lambda batch: batch.longest)
    peak_bytes = peak_device_memory(partial(take_steps, training, [*spread(todo, 3), longest]), device)
    took = timed(partial(take_steps, training, spread(todo, 1)), device)
    todo = spread(todo, max(3, min(MOST_STEPS, int(seconds / 2 / took))))
    rate, again, waited = _alternate(training, todo)
    sample = spread(todo, SAMPLE)
    spent = time_spent(partial(take_steps, training, sample), device)
    host_waits = _waits_a_step(training, sample)
    flops, questions = _work_of(training, spread(todo, 3))
    kernels, launches = (None if count is None else count / SAMPLE for count in (spent.kernels, spent.launches))
    return StepMeasurement(rate, again, waited, flops / questions, spent, kernels, launches, host_waits, peak_bytes)


def _waits_a_step(training: TrainSetup, sample: list[Batch]) -> float | None:
    """How often a step waits for the device: what twice as many steps wait more, which leaves a stream's start out."""
    device = training.prepared.machine.device
    once, twice = (count_waits(partial(take_steps, training, sample * times), device) for times in (1, 2))
    return None if once is None or twice is None else (twice - once) / len(sample)


def _work_of(training: TrainSetup, todo: list[Batch]) -> tuple[int, int]:
    """FLOPs of some batches, forward and backward, and how many questions they have."""
    flops = questions = 0
    for inputs in stream(training.prepared, todo):
        given = inputs._replace(image=in_type(inputs, torch.float32))
        flops += step_flops(partial(_forward_loss, training, given))
        questions += inputs.questions
    return flops, questions


def in_type(inputs: Inputs, dtype: torch.dtype | None = None) -> Image:
    """A copy of the batch's features, which here come from a table of them, never from images."""
    assert isinstance(inputs.image, Image)
    regions_IRC = inputs.image.regions_IRC
    return inputs.image._replace(regions_IRC=regions_IRC.to(dtype or regions_IRC.dtype, copy=True))


def take_steps(training: TrainSetup, todo: Sequence[Batch]) -> None:
    """One step a batch."""
    for inputs in stream(training.prepared, todo):
        training.step(inputs)


def _forward_loss(training: TrainSetup, inputs: Inputs) -> Tensor:
    logits_BA = training.model(inputs.image, inputs.tokens_BT, inputs.length_B).logits_BA
    loss: Tensor = training.loss(logits_BA, inputs.target)
    return loss


def spread(todo: list[Batch], count: int) -> list[Batch]:
    """So many whole batches, as long and as short ones in the proportion of the epoch."""
    most = max(len(batch.index_B) for batch in todo)
    whole = [batch for batch in todo if len(batch.index_B) == most]
    by_length = sorted(whole, key=lambda batch: batch.longest)
    places = torch.linspace(0, len(by_length), count + 1)
    return [by_length[int((low + high) / 2)] for low, high in pairwise(places.tolist())]


def _alternate(training: TrainSetup, todo: list[Batch]) -> tuple[float, float, float]:
    """Questions/s with new batches, with batches used again, and the share of the former's time spent waiting."""
    prepared = training.prepared
    if prepared.machine.device.type == "cuda":
        return _one_after_the_other(training, todo)
    fetching = new = old = 0.0
    count, source = 0, stream(prepared, todo)
    for _ in todo:
        moments = [time.perf_counter()]
        inputs = next(source)
        moments.append(time.perf_counter())
        for _ in range(2):
            training.step(inputs)
            moments.append(time.perf_counter())
        fetching, new, old = (
            fetching + moments[1] - moments[0],
            new + moments[2] - moments[0],
            old + moments[3] - moments[2],
        )
        count += inputs.questions
    return count / new, count / old, fetching / new


def _one_after_the_other(training: TrainSetup, todo: list[Batch]) -> tuple[float, float, float]:
    """The same for a GPU, which must not be waited for within a pass: the wait is what the first pass takes longer."""
    prepared = training.prepared
    device = prepared.machine.device
    kept = [inputs._replace(image=in_type(inputs)) for inputs in stream(prepared, spread(todo, 8))]
    spent = []
    for source in (stream(prepared, todo), (kept[len(kept) * place // len(todo)] for place in range(len(todo)))):
        wait(device)
        started = time.perf_counter()
        for inputs in source:
            training.step(inputs)
        wait(device)
        spent.append(time.perf_counter() - started)
    count = sum(len(batch.index_B) for batch in todo)
    return count / spent[0], count / spent[1], max(0.0, 1 - spent[1] / spent[0])
