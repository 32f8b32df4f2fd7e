"""The tally of an epoch: beside sums written out, read at any moment, and in few operations."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from vqa.models import Image, Target
from vqa.runtime.distributed import ALONE
from vqa.training.step import Inputs, Tally

CPU = torch.device("cpu")


def inputs_of(answers: list[list[int]], copies: int = 1) -> Inputs:
    """Questions with two human answers each, the first worth 0.9, the second 0.3."""
    answer_BK = torch.tensor(answers)
    known_BK = (answer_BK >= 0).float()
    target = Target(answer_BK[:, 0], answer_BK, known_BK * 3, known_BK * torch.tensor([0.9, 0.3]))
    return Inputs(Image(torch.empty(0)), answer_BK, answer_BK[:, 0], target, target, len(answers), copies)


STEP = st.tuples(
    st.floats(0, 1e4, width=32),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([-1, 4, 5])), min_size=1, max_size=9),
    st.booleans(),  # whether the sums are read after it
    st.sampled_from([1, 1, 2]),
)


@given(st.lists(STEP, min_size=1, max_size=12), st.integers(0, 5))
def test_the_sums_are_those_written_out_whenever_they_are_read(steps: list[Any], best: int) -> None:
    often, once = Tally([1.0, 2.0, 3.0], CPU, ALONE), Tally([1.0, 2.0, 3.0], CPU, ALONE)
    loss_sum, right, count = 1.0, 2.0, 3.0
    for number, (loss, answers, look, copies) in enumerate(steps):
        inputs = inputs_of([list(pair) for pair in answers], copies)
        logits_BA = torch.nn.functional.one_hot(torch.full((len(answers),), best), 6).float()
        for tally in (often, once):
            tally.add(torch.tensor(loss), logits_BA, inputs, number)
        if look:
            often.read()
        loss_sum += loss * len(answers)
        right += sum(0.9 * (one == best) + 0.3 * (two == best) for one, two in answers) / copies
        count += len(answers) / copies
    assert often.read() == once.read()
    totals = once.read()
    assert (totals.loss, totals.right) == (pytest.approx(loss_sum), pytest.approx(right))
    assert totals.questions == pytest.approx(count) and totals.first_bad_step is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("look", [1, 2, 5])
def test_the_first_loss_that_is_not_finite_is_found(bad: float, look: int) -> None:
    tally = Tally([0.0, 0.0, 0.0], CPU, ALONE)
    for step, loss in enumerate([1.0, 2.0, bad, 3.0, -bad], start=40):
        tally.add(torch.tensor(loss), torch.eye(2), inputs_of([[0, -1], [1, -1]]), step)
        if step % look == 0:
            tally.read()
    assert tally.read().first_bad_step == tally.read().first_bad_step == 42


class Count(TorchDispatchMode):
    """The names of the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_a_step_is_counted_in_four_operations() -> None:
    tally = Tally([0.0, 0.0, 0.0], CPU, ALONE)
    loss, logits_BA, inputs = torch.tensor(1.0), torch.eye(2), inputs_of([[0, -1], [1, -1]])
    with Count() as count:
        tally.add(loss, logits_BA, inputs, 0)
    assert count.names == ["argmax", "eq", "mul", "sum"]
