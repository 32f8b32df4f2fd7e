"""The optimiser, its learning-rate schedule and gradient clipping, as the experiment names them."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vqa.experiment import OptimizerSection, ScheduleSection
from vqa.models.parameters import parameters_by_part

DECOUPLED, CLIPPED = "decoupled_decay", "clipped_decay"  # a group's weight decay where torch's optimiser has none


class DecoupledSGD(torch.optim.SGD):
    """Stochastic gradient descent with the weight decay outside of the momentum.

    As the released code of VIS+LSTM and iBOWIMG has it, with rate r, momentum m, decay d and gradient g:

        v = m v - r g
        w = (1 - r d) (w + v)

    torch's own rule adds d w to the gradient instead, where the momentum sums it up: 1 / (1 - m) times as much decay in
    the long run. A group's decay is its `decoupled_decay`; a weight without a gradient stays as it is.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter, alpha=-group["lr"] * group[DECOUPLED])


def make_optimizer(section: OptimizerSection, model: nn.Module, *, recorded: bool = False) -> torch.optim.Optimizer:
    """The torch optimiser that the experiment names, in its fused form where torch has one.

    Its first parameter group holds what no part names; then comes one for each of `section.parts`, in their order.

    Args:
        recorded: its steps are to be recorded (`vqa.training.graphs`), so its rates are tensors beside the weights; for
            adam and adamw.

    Raises:
        InputError: a part that the model does not have.
    """
    groups = parameter_groups(section, model)
    options: dict[str, Any] = {"lr": section.learning_rate, "weight_decay": section.weight_decay}
    if section.decoupled or section.clip_decay:
        own = DECOUPLED if section.decoupled else CLIPPED
        for group in groups:
            group |= {own: group.pop("weight_decay", section.weight_decay), "weight_decay": 0.0}
    if recorded:
        device = next(model.parameters()).device
        for group in groups:
            group["lr"] = torch.tensor(group.get("lr", section.learning_rate), dtype=torch.float32, device=device)
        options |= {"capturable": True}
    adaptive = options | {"betas": tuple(section.betas), "eps": section.epsilon}
    match section.name:
        case "adam":
            return torch.optim.Adam(groups, fused=True, **adaptive)
        case "adamw":
            return torch.optim.AdamW(groups, fused=True, **adaptive)
        case "adamax":
            return torch.optim.Adamax(groups, **adaptive)
        case "rmsprop":
            options |= {"momentum": section.momentum, "alpha": section.alpha, "eps": section.epsilon}
            return torch.optim.RMSprop(groups, **options)
        case "sgd":
            make = DecoupledSGD if section.decoupled else torch.optim.SGD
            return make(groups, momentum=section.momentum, fused=True, **options)


def parameter_groups(section: OptimizerSection, model: nn.Module) -> list[dict[str, Any]]:
    """The model's parameters: first those that no part names, then those of each part.

    Raises:
        InputError: a part that the model does not have.
    """
    named = dict(model.named_parameters())
    members = {
        part: [named[name] for name in names]
        for part, names in parameters_by_part(named, section.parts, "training.optimizer.parts").items()
    }
    groups: list[dict[str, Any]] = [{"params": members[""]}]
    for part, options in section.parts.items():
        own = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
        groups.append({"params": members[part], **{key: value for key, value in own.items() if value is not None}})
    return groups


def state_numbers(section: OptimizerSection) -> int:
    """How many numbers the optimiser keeps for each weight."""
    match section.name:
        case "adam" | "adamw" | "adamax":
            return 2
        case "rmsprop":
            return 1 + (section.momentum > 0)
        case "sgd":
            return int(section.momentum > 0)


def set_learning_rates(optimizer: torch.optim.Optimizer, section: OptimizerSection, factor: float) -> None:
    """The rates of the next step: the experiment's, of each part its own, times `factor`."""
    own = [section.learning_rate, *(part.learning_rate or section.learning_rate for part in section.parts.values())]
    for group, rate in zip(optimizer.param_groups, own, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate * factor)  # a recorded step reads it where it is
        else:
            group["lr"] = rate * factor


def learning_rate_factor(schedule: ScheduleSection, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """What the learning rate is multiplied with at a step counted from 0.

    >>> learning_rate_factor(ScheduleSection(name="step", factor=0.1, every=2), 25, 10, 100)
    0.1
    """
    warm = schedule.warmup * steps_per_epoch
    rising = min(1.0, (step + 1) / warm) if warm else 1.0
    epoch = step // steps_per_epoch
    match schedule.name:
        case "constant":
            return rising
        case "exponential":
            return rising * schedule.factor**step
        case "step":
            falls = sum(epoch >= place for place in schedule.at) if schedule.at else epoch // schedule.every
            return rising * schedule.factor**falls
        case "cosine":
            return rising * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total_steps)))


def add_clipped_decay(optimizer: torch.optim.Optimizer) -> None:
    """Add to each gradient the weight decay that is clipped with it, where the experiment says `clip_decay`."""
    for group in optimizer.param_groups:
        if decay := group.get(CLIPPED, 0.0):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach(), alpha=decay)


def clip_gradients(
    model: nn.Module, norm: float | None, value: float | None, over: Literal["model", "part", "tensor"] = "model"
) -> None:
    """Clip each gradient to [-value, value], then groups of them to a Euclidean norm; None leaves out either.

    Args:
        over: what has the norm: all gradients together, those of each child of the model, or each tensor alone.
    """
    if value is not None:
        nn.utils.clip_grad_value_(model.parameters(), value)
    if norm is None:
        return
    if over == "model":
        nn.utils.clip_grad_norm_(model.parameters(), norm)
    elif over == "part":
        for part in model.children():
            nn.utils.clip_grad_norm_(part.parameters(), norm)
    else:
        for parameter in model.parameters():
            nn.utils.clip_grad_norm_(parameter, norm)


def gradient_norm(model: nn.Module) -> Tensor:
    """The Euclidean norm of all gradients together, a scalar on the model's device: nothing waits for it."""
    found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return nn.utils.get_total_norm(found)
