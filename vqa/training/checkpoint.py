"""Whether saved tensors are those of this model, optimiser and machine, looked at before any of them is used.

torch takes what it is given: a moment of another shape ends in a segmentation fault in the fused step, integers become
weights without a word. So each tensor is held against the one that it will take the place of.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from vqa.errors import InputError, first_line

NEVER_NEGATIVE = ("exp_avg_sq", "square_avg", "exp_inf")  # sums of squares or of sizes
# options of an optimiser that the experiment names
CHOSEN = ("weight_decay", "decoupled_decay", "clipped_decay", "betas", "eps", "momentum", "alpha")
UNTRAINED = 1e-6  # how far first weights may be apart on two machines, by rounding


def is_tensor(value: Any) -> TypeGuard[Tensor]:
    """Whether a value is a plain tensor in main memory, one number beside another."""
    if not isinstance(value, Tensor) or value.is_nested:
        return False
    return value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized


def check_weights(weights: Any, model: nn.Module, path: Path) -> None:
    """Hold saved weights against a model's own: names, shapes, types, and no number that is not finite.

    Raises:
        InputError: naming the file and the weight.
    """
    own = model.state_dict()
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise InputError(f"{path}: the weights are no tensors by name")
    for name in sorted(own.keys() | weights.keys()):
        if name in weights and not is_tensor(weights[name]):
            raise InputError(f"{path}: weight {name[:80]!r} is no plain tensor")
        found = tuple(weights[name].shape) if name in weights else None
        needed = tuple(own[name].shape) if name in own else None
        if found != needed:
            raise InputError(
                f"{path}: weight {name[:80]!r} has shape {found}, the experiment's model needs {needed}: the weights "
                f"belong to another experiment"
            )
        if weights[name].dtype != own[name].dtype:
            raise InputError(
                f"{path}: weight {name!r} is of type {_type(weights[name])}, the model's of {_type(own[name])}"
            )
        if not _as_finite(weights[name], own[name]):
            raise InputError(f"{path}: weight {name!r} has numbers that are not finite; the file is damaged")


def _as_finite(value: Tensor, own: Tensor) -> bool:
    """Whether every number is finite; a mask may have the infinite ones that the model's own has."""
    if value.isfinite().all():
        return True
    own = own.to(value.device)
    return bool((value.isfinite() | (value == own)).all())


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def check_optimizer(
    saved: Any,
    optimizer: torch.optim.Optimizer,
    weights: Mapping[str, Tensor],
    model: nn.Module,
    path: Path,
    steps: int,
) -> dict[str, Any]:
    """Hold the saved state of an optimiser against its parameters.

    Args:
        saved: what its `state_dict` gave.
        optimizer: of this run, before its first step.
        weights: the weights that were saved beside it, checked.
        model: whose parameters they are, as it was before its first step.
        path: the file, for messages.
        steps: that the run has taken.

    Returns:
        What its `load_state_dict` takes: copies of the tensors, each laid out as its parameter is. The options are this
        run's own.

    Raises:
        InputError: naming the file and the parameter.
    """
    if not isinstance(saved, dict) or not isinstance(saved.get("state"), dict):
        raise InputError(f"{path}: the optimiser's state is not one")
    own = optimizer.state_dict()
    _check_groups(saved.get("param_groups"), own["param_groups"], path)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    states: dict[int, dict[str, Tensor]] = {}
    before = saved["state"]
    left = set(before)
    for group in optimizer.param_groups:
        template = _after_one_step(optimizer, group)
        for parameter in group["params"]:
            place, name = len(states), names[id(parameter)]
            left.discard(place)
            states[place] = _one_state(before.get(place, {}), template, parameter, f"{path}: of {name!r}", steps)
            if template and not states[place] and parameter.requires_grad and not _is_first(weights[name], parameter):
                raise InputError(f"{path}: the optimiser has no state of {name!r}, which was trained")
    if left:
        raise InputError(f"{path}: the optimiser has a state of {str(left.pop())[:80]!r}, which is no parameter")
    return {"state": {place: state for place, state in states.items() if state}, "param_groups": own["param_groups"]}


def _check_groups(saved: Any, own: list[dict[str, Any]], path: Path) -> None:
    """Raise InputError where the parameters are divided otherwise, or the experiment's options are others."""
    if not isinstance(saved, list) or [_members(group) for group in saved] != [group["params"] for group in own]:
        raise InputError(f"{path}: the optimiser's groups of parameters are not this experiment's")
    for there, here in zip(saved, own, strict=True):
        for name in CHOSEN:
            if name in here and _plain(there.get(name)) != _plain(here[name]):
                shown = f"{str(there.get(name))[:80]} there, {here[name]} in the experiment"
                raise InputError(f"{path}: the optimiser's {name} is {shown}")


def _members(group: Any) -> Any:
    return group.get("params") if isinstance(group, dict) else None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _after_one_step(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> dict[str, Tensor]:
    """What such an optimiser keeps of a parameter, by name: taken from one of two numbers after a step."""
    twin = nn.Parameter(torch.zeros(2))
    twin.grad = torch.zeros(2)
    options = {name: value for name, value in group.items() if name != "params"}
    if "capturable" in options:  # as one whose steps are not recorded, which keeps the same
        options |= {"lr": float(options["lr"]), "capturable": False}
    copy = type(optimizer)([{**options, "params": [twin]}])  # type: ignore[call-arg]
    copy.step()
    kept = copy.state[twin]
    return {name: value for name, value in kept.items() if isinstance(value, Tensor)}


def _one_state(
    saved: Any, template: Mapping[str, Tensor], parameter: Tensor, where: str, steps: int
) -> dict[str, Tensor]:
    """What the optimiser keeps of one parameter, if anything, checked and laid out as the parameter is."""
    if not isinstance(saved, dict):
        raise InputError(f"{where}, the optimiser's state is not one")
    if not saved:
        return {}
    if saved.keys() != template.keys():
        raise InputError(f"{where}, the optimiser keeps {', '.join(template) or 'nothing'}; other things are there")
    state = {}
    for name, like in template.items():
        value, whole = saved[name], like.ndim == 0
        needed = (like.dtype, like.shape) if whole else (parameter.dtype, parameter.shape)
        if not is_tensor(value) or (value.dtype, value.shape) != needed:
            raise InputError(f"{where}, {name} is no tensor {_type(parameter)} {tuple(needed[1])}")
        if name in NEVER_NEGATIVE:  # the square of a large gradient may be infinite, and the weights finite
            wrong = bool(value.isnan().any() or (value < 0).any())
        else:
            wrong = not value.isfinite().all()
        if wrong or (whole and not (1 <= value.item() <= steps and value.item() % 1 == 0)):
            raise InputError(f"{where}, {name} has numbers that cannot be; the file is damaged")
        state[name] = value.clone() if whole else torch.empty_like(parameter, device="cpu").copy_(value)
    return state


def _is_first(weight: Tensor, parameter: Tensor) -> bool:
    """Whether a saved weight is as it was made: of one that gets no gradient an optimiser keeps nothing."""
    return torch.allclose(weight, parameter.detach().cpu(), rtol=UNTRAINED, atol=UNTRAINED / 100)


def check_random(states: Any, path: Path) -> dict[str, Tensor]:
    """Hold saved states of random generators against those of this machine, which are left as they are.

    Raises:
        InputError: naming the file.
    """
    if not isinstance(states, dict) or not {"cpu"} <= states.keys() <= {"cpu", "cuda"}:
        raise InputError(f"{path}: the states of the random generators are not those of this program")
    for device, value in states.items():
        if not is_tensor(value) or value.dtype != torch.uint8 or value.ndim != 1:
            raise InputError(f"{path}: the state of the random generator of {device} is none")
        try:
            if device == "cpu" or torch.cuda.is_available():
                torch.Generator(device).set_state(value.contiguous())
        except (RuntimeError, TypeError) as error:
            raise InputError(f"{path}: the state of the random generator of {device}: {first_line(error)}") from None
    return {device: value.contiguous() for device, value in states.items()}
