"""The optimiser, its learning-rate schedule and gradient clipping, as the experiment names them."""

import math
from typing import Any

import torch
from torch import nn

from vqa.errors import InputError
from vqa.training.experiment import OptimizerSection, ScheduleSection


def make_optimizer(section: OptimizerSection, model: nn.Module) -> torch.optim.Optimizer:
    """The torch optimiser that the experiment names, in its fused form where torch has one.

    Raises:
        InputError: a momentum for an optimiser that takes none.
    """
    options: dict[str, Any] = {"lr": section.learning_rate, "weight_decay": section.weight_decay}
    if section.momentum and section.name not in ("sgd", "rmsprop"):
        raise InputError(f"training.optimizer.momentum: {section.name} takes none; it is for sgd and rmsprop")
    match section.name:
        case "adam":
            return torch.optim.Adam(model.parameters(), fused=True, **options)
        case "adamw":
            return torch.optim.AdamW(model.parameters(), fused=True, **options)
        case "adamax":
            return torch.optim.Adamax(model.parameters(), **options)
        case "rmsprop":
            return torch.optim.RMSprop(model.parameters(), momentum=section.momentum, alpha=0.99, **options)
        case "sgd":
            return torch.optim.SGD(model.parameters(), momentum=section.momentum, fused=True, **options)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step, for every parameter."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def learning_rate_factor(schedule: ScheduleSection, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """What the learning rate is multiplied with at a step counted from 0.

    >>> learning_rate_factor(ScheduleSection(name="step", factor=0.1, every=2), 25, 10, 100)
    0.1
    """
    warm = schedule.warmup * steps_per_epoch
    rising = min(1.0, (step + 1) / warm) if warm else 1.0
    match schedule.name:
        case "constant":
            return rising
        case "exponential":
            return rising * schedule.factor**step
        case "step":
            return rising * schedule.factor ** (step // steps_per_epoch // schedule.every)
        case "cosine":
            return rising * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total_steps)))


def clip_gradients(model: nn.Module, norm: float | None, value: float | None) -> None:
    """Clip each gradient to [-value, value], then all of them together to a Euclidean norm; None leaves out either."""
    if value is not None:
        nn.utils.clip_grad_value_(model.parameters(), value)
    if norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), norm)
