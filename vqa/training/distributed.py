"""Data parallel over processes and machines: torchrun starts the processes, each computes its share of every batch.

    torchrun --nproc-per-node 2 -m vqa train experiments/san.yaml

The batches are those of a single process: `training.batch_size` is that of all processes together, and the order is a
function of the seed and the epoch. Process r of n takes questions r, r + n, r + 2n, … of a batch. Its loss is weighted
so that the losses of all processes add up to the whole batch's, then the gradients are added up, so every process takes
the step that a single one would have taken. That is a plain sum written out in the loop and not
DistributedDataParallel, which weighs unequal shares equally, must be told which fusions leave parameters unused, and
hides the exchange in the backward pass.

Legend: `B` batch, `N` rows, `D` their width.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.layers import BatchNorm
from vqa.progress import console, errors

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # how long processes wait for one that, say, still loads its features


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

    def add_up_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its sum over the processes; parameters without one stay without."""
        if self.alone:
            return
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, total in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    def share_model(self, model: nn.Module) -> None:
        """Give every process the first one's weights, and batch normalisation the rows of all processes."""
        if self.alone:
            return
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.detach(), src=0)
        for module in model.modules():
            if type(module) is BatchNorm:
                module.__class__ = _SharedBatchNorm  # weights, statistics and names stay as they are

    def reseed(self, seed: int) -> None:
        """Let every process but the first, which is as if alone, draw dropout masks of its own."""
        if not self.is_first:
            torch.manual_seed(int(np.random.SeedSequence([seed, self.rank]).generate_state(1, np.uint64)[0]))


ALONE = Group()


def current_group() -> Group:
    """The processes joined so far."""
    return Group(dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else ALONE


def local_device(name: str) -> torch.device:
    """This process's device of a kind: under torchrun the GPU of its number on the machine.

    Raises:
        InputError: fewer GPUs than processes.
    """
    if name != "cuda" or current_group().alone:
        return torch.device(name)
    local = int(os.environ["LOCAL_RANK"])
    if local >= torch.cuda.device_count():
        raise InputError(
            f"torchrun started {os.environ['LOCAL_WORLD_SIZE']} processes on a machine with "
            f"{torch.cuda.device_count()} GPUs; take --nproc-per-node {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that torchrun has started; one alone without it. Only the first one's messages are shown."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield current_group()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    group = current_group()
    console.quiet = not group.is_first
    yield group
    dist.destroy_process_group()  # not after an error: the others may never come to it, and torchrun ends them


class _Sum(torch.autograd.Function):
    """The sum over the processes; so is its gradient, since every process's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


class _SharedBatchNorm(BatchNorm):
    """Batch normalisation over the rows of all processes.

    A batch that every process computes whole (`Batch.share`) is counted once a process, which leaves mean and variance
    as they are and only makes the running variance's n / (n - 1) slightly smaller.
    """

    def forward(self, values_ND: Tensor) -> Tensor:
        if not self.training or len(values_ND) == 1:  # a share is never a single row unless the batch is
            return super().forward(values_ND)
        precise_ND = values_ND.float()
        count = torch.full((), float(len(values_ND)), device=values_ND.device)
        dist.all_reduce(count)
        mean_D = _sum(precise_ND.sum(dim=0)) / count
        centred_ND = precise_ND - mean_D
        variance_D = _sum(centred_ND.square().sum(dim=0)) / count
        self._count_in(mean_D.detach(), (variance_D * count / (count - 1)).detach())
        normed_ND = centred_ND * (variance_D + self.eps).rsqrt()
        if self.affine:
            normed_ND = normed_ND * self.weight + self.bias
        return normed_ND.to(values_ND.dtype)

    def _count_in(self, mean_D: Tensor, variance_D: Tensor) -> None:
        """Move the running statistics, as torch does."""
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        self.running_mean.lerp_(mean_D, self.momentum)
        self.running_var.lerp_(variance_D, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
