"""Schedules against their formulas, optimisers against torch's own, clipping, and stop signals."""

import math
import os
import signal
import threading

import pytest
import torch
from torch import nn

from vqa.errors import InputError
from vqa.training.experiment import OptimizerSection, ScheduleSection
from vqa.training.optimise import clip_gradients, learning_rate_factor, make_optimizer, set_learning_rate
from vqa.training.stopping import stop_signals

STEPS, EPOCHS = 7, 6


def factors(section: ScheduleSection) -> list[float]:
    return [learning_rate_factor(section, step, STEPS, STEPS * EPOCHS) for step in range(STEPS * EPOCHS)]


def torch_factors(make: type, every: int = 1, **options: float) -> list[float]:
    """The same numbers from torch's scheduler, stepped every `every` steps, over a rate of 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer, **options)
    found = []
    for step in range(STEPS * EPOCHS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0:
            schedule.step()
    return found


def test_schedules_are_those_of_torch() -> None:
    schedulers = torch.optim.lr_scheduler
    assert factors(ScheduleSection()) == [1.0] * (STEPS * EPOCHS)
    exponential = factors(ScheduleSection(name="exponential", factor=0.9))
    assert exponential == pytest.approx(torch_factors(schedulers.ExponentialLR, gamma=0.9))
    stepped = factors(ScheduleSection(name="step", factor=0.5, every=2))
    assert stepped == pytest.approx(torch_factors(schedulers.StepLR, every=STEPS, step_size=2, gamma=0.5))
    cosine = factors(ScheduleSection(name="cosine"))
    assert cosine == pytest.approx(torch_factors(schedulers.CosineAnnealingLR, T_max=STEPS * EPOCHS), abs=1e-9)


def test_warm_up_rises_linearly_and_never_starts_at_zero() -> None:
    warm = factors(ScheduleSection(warmup=1.5))
    whole = 1.5 * STEPS
    assert warm == pytest.approx([min(1, (step + 1) / whole) for step in range(STEPS * EPOCHS)])
    assert warm[0] > 0
    both = factors(ScheduleSection(name="cosine", warmup=0.5))
    expected = [min(1, (s + 1) / 3.5) * (1 + math.cos(math.pi * s / (STEPS * EPOCHS))) / 2 for s in range(len(both))]
    assert both == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("adamax", torch.optim.Adamax),
        ("rmsprop", torch.optim.RMSprop),
        ("sgd", torch.optim.SGD),
    ],
)
def test_an_optimiser_moves_as_the_plain_one_of_torch(name: str, reference: type) -> None:
    momentum = 0.9 if name in ("rmsprop", "sgd") else 0.0
    section = OptimizerSection(name=name, learning_rate=0.1, weight_decay=0.01, momentum=momentum)
    one, two = (nn.Linear(3, 2) for _ in range(2))
    two.load_state_dict(one.state_dict())
    options = {"momentum": momentum} if momentum else {}
    pair = make_optimizer(section, one), reference(two.parameters(), lr=0.1, weight_decay=0.01, **options)
    for seed in range(3):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        for model, optimizer in zip((one, two), pair, strict=True):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(one.weight, two.weight)


def test_momentum_where_there_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="momentum: adam takes none; it is for sgd and rmsprop"):
        make_optimizer(OptimizerSection(momentum=0.9), nn.Linear(1, 1))


def test_the_rate_is_set_for_every_group() -> None:
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(2)], lr=1.0)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_clipping_by_value_then_by_norm() -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, -40.0]])
    clip_gradients(model, None, None)
    assert model.weight.grad.tolist() == [[3.0, -40.0]]
    clip_gradients(model, None, 4.0)
    assert model.weight.grad.tolist() == [[3.0, -4.0]]
    clip_gradients(model, 1.0, 4.0)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, -0.8]]))


def test_the_first_signal_asks_and_the_second_is_as_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_signals() as stop:
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    found = []

    def work() -> None:
        with stop_signals() as stop:
            found.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
