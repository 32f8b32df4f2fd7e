"""Schedules against their formulas, optimisers against torch's own, clipping, and stop signals."""

import math
import os
import signal
import threading
from typing import Any, Literal

import pytest
import torch
from torch import nn

from vqa.errors import InputError
from vqa.experiment import OptimizerSection, PartSection, ScheduleSection
from vqa.runtime.stopping import stop_signals
from vqa.training.optimise import clip_gradients, learning_rate_factor, make_optimizer, set_learning_rates

STEPS, EPOCHS = 7, 6


def factors(section: ScheduleSection) -> list[float]:
    return [learning_rate_factor(section, step, STEPS, STEPS * EPOCHS) for step in range(STEPS * EPOCHS)]


def torch_factors(make: type, every: int = 1, **options: Any) -> list[float]:
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
def test_an_optimiser_moves_as_the_plain_one_of_torch(name: Any, reference: type) -> None:
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
    with pytest.raises(ValueError, match="momentum: adam takes none; it is for sgd and rmsprop"):
        OptimizerSection(momentum=0.9)


def test_steps_at_named_epochs_are_those_of_torch() -> None:
    stepped = factors(ScheduleSection(name="step", factor=0.2, at=[2, 5]))
    reference = torch_factors(torch.optim.lr_scheduler.MultiStepLR, every=STEPS, milestones=[2, 5], gamma=0.2)
    assert stepped == pytest.approx(reference)
    with pytest.raises(ValueError, match="`factor` is for the schedule exponential or step, not for cosine"):
        ScheduleSection(name="cosine", factor=0.1)
    with pytest.raises(ValueError, match="`at` is for the schedule step, not for cosine"):
        ScheduleSection(name="cosine", at=[2])


@pytest.mark.parametrize("name", ["exponential", "step"])
def test_a_schedule_that_would_change_nothing_is_refused(name: Literal["exponential", "step"]) -> None:
    with pytest.raises(ValueError, match=f"the schedule {name} needs a `factor`"):
        ScheduleSection(name=name)
    assert factors(ScheduleSection(name=name, factor=1.0)) == [1.0] * (STEPS * EPOCHS)  # asked for
    with pytest.raises(ValueError, match="`every` and `at`: the schedule step takes one of them"):
        ScheduleSection(name="step", factor=0.1, every=3, at=[2])


@pytest.mark.parametrize(
    ("section", "reference", "options"),
    [
        (OptimizerSection(name="adam", betas=[0.8, 0.98], epsilon=1e-3), torch.optim.Adam, {"betas": (0.8, 0.98)}),
        (OptimizerSection(name="adamw", betas=[0.5, 0.9], epsilon=1e-3), torch.optim.AdamW, {"betas": (0.5, 0.9)}),
        (OptimizerSection(name="adamax", epsilon=1e-3), torch.optim.Adamax, {}),
        (OptimizerSection(name="rmsprop", alpha=0.7, epsilon=1e-3), torch.optim.RMSprop, {"alpha": 0.7}),
    ],
)
def test_every_option_reaches_torch(section: OptimizerSection, reference: type, options: dict[str, Any]) -> None:
    one, two = linear_pair()
    decay = {"weight_decay": 0.0} if section.name == "adamw" else {}  # torch's AdamW has a default of its own
    three_steps(
        {one: make_optimizer(section, one), two: reference(two.parameters(), lr=1e-3, eps=1e-3, **options | decay)}
    )
    torch.testing.assert_close(one.weight, two.weight, rtol=1e-6, atol=1e-8)


def linear_pair() -> tuple[nn.Linear, nn.Linear]:
    one, two = (nn.Linear(3, 2) for _ in range(2))
    two.load_state_dict(one.state_dict())
    return one, two


def three_steps(pairs: dict[nn.Module, torch.optim.Optimizer]) -> None:
    for seed in range(3):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        for model, optimizer in pairs.items():
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()


def test_a_part_has_its_own_rate_and_decay() -> None:
    """Beside two optimisers of torch, one a part, through a falling schedule."""
    models = [nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    parts = {"0": PartSection(learning_rate=0.04, weight_decay=0.0), "0.bias": PartSection(learning_rate=0.08)}
    section = OptimizerSection(name="sgd", learning_rate=0.01, momentum=0.9, weight_decay=0.1, parts=parts)
    optimizer = make_optimizer(section, models[0])
    first, rest = models[1]
    assert isinstance(first, nn.Linear) and isinstance(rest, nn.Linear)
    reference = [
        torch.optim.SGD(rest.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1),
        torch.optim.SGD([first.weight], lr=0.04, momentum=0.9),
        torch.optim.SGD([first.bias], lr=0.08, momentum=0.9, weight_decay=0.1),
    ]
    full = [0.01, 0.04, 0.08]
    for factor in (1.0, 0.5, 0.25):
        set_learning_rates(optimizer, section, factor)
        for part, rate in zip(reference, full, strict=True):
            part.param_groups[0]["lr"] = rate * factor
        for model in models:
            model.zero_grad()
            model(torch.ones(2, 3)).square().sum().backward()
        for stepping in (optimizer, *reference):
            stepping.step()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_parts_may_cover_the_whole_model() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    optimizer = make_optimizer(OptimizerSection(parts={"0": PartSection(learning_rate=0.5)}), model)
    assert [len(group["params"]) for group in optimizer.param_groups] == [0, 2]
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()


def test_a_part_that_is_not_there_is_named_with_the_right_ones() -> None:
    with pytest.raises(InputError, match=r"unknown part of the model 'wieght' \(did you mean 'weight'\?\)"):
        make_optimizer(OptimizerSection(parts={"wieght": PartSection(learning_rate=1.0)}), nn.Linear(1, 1))
    with pytest.raises(InputError, match="unknown part of the model 'weig'"):  # not a name, only its beginning
        make_optimizer(OptimizerSection(parts={"weig": PartSection(learning_rate=1.0)}), nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": 0.5}, "alpha: adam takes none; it is for rmsprop"),
        ({"name": "sgd", "betas": [0.5, 0.9]}, "betas: sgd takes none; it is for adam and adamw and adamax"),
        ({"name": "sgd", "epsilon": 1e-4}, "epsilon: sgd takes none"),
        ({"name": "adamw", "decoupled": True, "weight_decay": 0.1}, "decoupled: adamw takes none; it is for sgd"),
        ({"name": "adam", "decoupled": True, "weight_decay": 0.1}, "decoupled: adam takes none; it is for sgd"),
        ({"name": "adamw", "clip_decay": True}, "clip_decay: adamw takes none"),
        ({"name": "sgd", "decoupled": True, "clip_decay": True}, "only a decay inside the gradient is clipped with it"),
    ],
)
def test_an_option_of_another_optimiser_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OptimizerSection(**options)


def test_clipping_by_value_then_by_norm() -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, -40.0]])
    clip_gradients(model, None, None)
    assert model.weight.grad.tolist() == [[3.0, -40.0]]
    clip_gradients(model, None, 4.0)
    assert model.weight.grad.tolist() == [[3.0, -4.0]]
    clip_gradients(model, 1.0, 4.0)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, -0.8]]))


def test_clipping_each_part_or_each_tensor_alone() -> None:
    """Against the definition: what is longer than the norm is scaled to it, what is shorter stays."""
    for over, lengths in (("model", [1.0]), ("part", [1.0, 1.0]), ("tensor", [1.0, 1.0, 0.5])):
        model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1, bias=False))
        weight, bias, second = model.parameters()
        weight.grad, bias.grad = torch.tensor([[3.0, 4.0]]), torch.tensor([12.0])
        second.grad = torch.tensor([[0.5]])
        if over != "tensor":
            second.grad.mul_(100)
        before = [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]
        clip_gradients(model, 1.0, None, over)  # type: ignore[arg-type]
        groups = {"model": [[0, 1, 2]], "part": [[0, 1], [2]], "tensor": [[0], [1], [2]]}[over]
        after = [parameter.grad for parameter in model.parameters()]
        for members, length in zip(groups, lengths, strict=True):
            old = torch.cat([before[place].flatten() for place in members])
            new = torch.cat([after[place].flatten() for place in members])  # type: ignore[union-attr]
            torch.testing.assert_close(new, old * length / old.norm(), rtol=1e-5, atol=1e-6)


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


def test_decoupled_decay_is_the_parts_own_and_leaves_what_has_no_gradient() -> None:
    """By hand: without a gradient and momentum a step is (1 - rate * decay), and nothing where there is no gradient."""
    model = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1), "c": nn.Linear(1, 1)}).double()
    parts = {"b": PartSection(learning_rate=0.2, weight_decay=0.3), "b.bias": PartSection(weight_decay=0.0)}
    section = OptimizerSection(name="sgd", learning_rate=0.5, weight_decay=0.1, decoupled=True, parts=parts)
    before = {name: parameter.item() for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.grad = None if name.startswith("c.") else torch.zeros_like(parameter)
    optimizer = make_optimizer(section, model)
    set_learning_rates(optimizer, section, 0.5)
    optimizer.step()
    left = {name: parameter.item() / before[name] for name, parameter in model.named_parameters()}
    a, b = 1 - 0.25 * 0.1, 1 - 0.1 * 0.3
    assert left == pytest.approx({"a.weight": a, "a.bias": a, "b.weight": b, "b.bias": 1, "c.weight": 1, "c.bias": 1})
    assert all(group["weight_decay"] == 0 for group in optimizer.param_groups)
