"""Values and tensors changed in many ways, as damage or a hand changes what a run folder holds."""

import copy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vqa.experiment import Experiment
from vqa.training.run_folder import RunFolder


@dataclass
class KeptRun:
    """A run folder and a copy of it, so that one may be damaged again and again."""

    plan: Experiment
    kept: Path

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.plan.folder)

    def bring_back(self) -> RunFolder:
        """The folder as it was."""
        shutil.rmtree(self.folder.path)
        shutil.copytree(self.kept, self.folder.path)
        return self.folder


ODD: list[Any] = [None, True, -1, 5, 10**30, 0.5, float("nan"), float("inf"), "x", [], [1], {}, {"a": 1}, b"x", 1j]
PLAIN = ODD[:-2]  # what YAML and JSON can hold, too


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value below nested dicts and lists; of a list the first two."""
    if path:
        yield path
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = list(value)
    elif isinstance(value, list):
        inner = list(range(min(2, len(value))))
    for key in inner:
        yield from places(value[key], (*path, key))


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """A copy in which `change` was called with what holds the value at a path, and the value's key."""
    value = copy.deepcopy(value)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return value


def drop(holder: Any, key: Any) -> None:
    del holder[key]


def put(new: Any) -> Callable[[Any, Any], None]:
    return lambda holder, key: holder.__setitem__(key, new)


def tensor_changes(tensor: torch.Tensor) -> list[Any]:
    """Tensors of another shape, type or layout in the place of one, and such as hold what cannot be."""
    found = [
        tensor[None], tensor.flatten()[:0], torch.zeros(3, 5), tensor.to(torch.complex64), tensor.to(torch.int64),
        tensor.double(), tensor.half(), tensor.bool(), torch.zeros(2, 2).to_sparse(), torch.zeros(2, 2, device="meta"),
    ]  # fmt: skip
    if tensor.is_floating_point():
        found += [torch.full_like(tensor, bad) for bad in (torch.nan, torch.inf, -torch.inf)]
    return [*(one for one in found if one is not tensor), None, 5, []]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """What is at a path."""
    for key in path:
        value = value[key]
    return value
