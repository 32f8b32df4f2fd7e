"""The processes that torchrun starts, on one machine or several, and what they tell each other."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from vqa.errors import InputError
from vqa.progress import console, errors

T = TypeVar("T")
# How long processes wait for a slower one: longer than any lags behind. At the end of an extraction that may be many
# hours, where one has all that was left to do; before a training half an hour, where one has the slower disk. One that
# died is not waited for: its connections close at once, and torchrun ends the others. What waits so long, or until
# Ctrl-C, is waiting for a machine that vanished without a word; nothing that was saved is lost then.
PATIENCE = timedelta(days=7)
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what it sets


@dataclass(frozen=True)
class Group:
    """The processes that work on one run; by default one alone, for which every method does nothing.

    Attributes:
        rank: which one this is, from 0; the first one tracks, prints and writes.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def alone(self) -> bool:
        """Whether there is a single process."""
        return self.size == 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that tracks, prints and writes."""
        return self.rank == 0

    def agree(self, function: Callable[[], T]) -> T:
        """Run a function in every process; where it raises InputError in any, it is raised in all and said once."""
        if self.alone:
            return function()
        result, said = None, ""
        try:
            result = function()
        except InputError as error:
            said = str(error)
        messages = [message for message in self.gather(said) if message]
        errors.quiet = not self.is_first  # what is wrong from here on is wrong in all of them
        if messages:
            raise InputError("\n".join(dict.fromkeys(messages)))
        return result  # type: ignore[return-value]

    def from_first(self, function: Callable[[], T]) -> T:
        """What a function returns in the first process, in every process; an InputError too."""
        if self.alone:
            return function()
        result = self.agree(lambda: function() if self.is_first else None)
        held = [result]
        dist.broadcast_object_list(held, src=0)
        return held[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """Every process's value, in order of rank, in every process."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until every process has come here."""
        self.gather(None)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return any(self.gather(flag))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, a new tensor."""
        if self.alone:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def reseed(self, seed: int) -> None:
        """Let every process but the first, which is as if alone, draw dropout masks of its own."""
        if not self.is_first:
            torch.manual_seed(int(np.random.SeedSequence([seed, self.rank]).generate_state(1, np.uint64)[0]))


ALONE = Group()


def current_group() -> Group:
    """The processes joined so far."""
    return Group(dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else ALONE


def launched(environment: Mapping[str, str] = os.environ) -> Group:
    """Which of how many processes torchrun says that this is; one alone without it.

    Raises:
        InputError: the variables that it sets are missing, no numbers, or contradict each other.
    """
    stated = {name: environment.get(name) for name in TORCHRUN}
    try:
        rank, size, local, beside = (
            int(stated[name] or alone) for name, alone in zip(TORCHRUN[:4], "0101", strict=True)
        )
    except ValueError:
        rank, size, local, beside = -1, 0, 0, 1
    joinable = size == 1 or all(value is not None for value in stated.values())
    if not (0 <= rank < size and local >= 0 and beside >= 1 and joinable):
        told = ", ".join(f"{name} not set" if value is None else f"{name}={value}" for name, value in stated.items())
        raise InputError(f"{told}: not what torchrun sets; unset them to run one process")
    return Group(rank, size)


def local_device(name: str, *, shared: bool = False) -> torch.device:
    """This process's device of a kind: under torchrun the GPU of its number on the machine.

    Args:
        shared: whether processes may have a GPU together, as those may that compute each for itself.

    Raises:
        InputError: fewer GPUs than processes.
    """
    if name != "cuda" or current_group().alone:
        return torch.device(name)
    local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= count and not shared:
        raise InputError(
            f"torchrun started {local_processes()} processes on a machine with {count} GPUs; "
            f"take --nproc-per-node {count}"
        )
    torch.cuda.set_device(local % count)
    return torch.device("cuda", local % count)


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that torchrun has started; one alone without it. Only the first one's messages are shown.

    Raises:
        InputError: as `launched`.
    """
    if dist.is_initialized() or launched().alone:
        yield current_group()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    group = current_group()
    console.quiet = not group.is_first
    yield group
    dist.destroy_process_group()  # not after an error: the others may never come to it, and torchrun ends them


def local_processes() -> int:
    """How many processes torchrun has started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
