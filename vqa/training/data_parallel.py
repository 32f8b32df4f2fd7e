"""Data parallel over processes and machines: torchrun starts the processes, each computes its share of every batch.

    torchrun --nproc-per-node 2 -m vqa train experiments/san.yaml

The batches are those of a single process: `training.batch_size` is that of all processes together, and the order is a
function of the seed and the epoch. Process r of n takes questions r, r + n, r + 2n, … of a batch. Its loss is weighted
so that the losses of all processes add up to the whole batch's, then the gradients are added up, so every process takes
the step that a single one would have taken.

As in torch's DistributedDataParallel gradients are added up in buckets, each as soon as the backward pass is through
with it, so that the network works while the pass goes on. That class itself is not used: it weighs unequal shares
equally, wraps the model under other names, and must be told which fusions leave parameters unused.

Legend: `N` rows, `D` their width.
"""

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vqa.models.layers import BatchNorm
from vqa.runtime.distributed import Group

BUCKET_BYTES = 25 << 20  # of gradients that are added up in one call, as torch's DistributedDataParallel has it


def share_model(model: nn.Module, group: Group) -> "GradientSums | None":
    """Give every process the first one's weights, and batch normalisation the rows of all processes.

    Returns:
        What adds up the gradients from now on; None for a process alone.
    """
    if group.alone:
        return None
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor.detach(), src=0)
    for module in model.modules():
        if type(module) is BatchNorm:
            module.__class__ = _SharedBatchNorm  # weights, statistics and names stay as they are
    return GradientSums(model, group)


class GradientSums:
    """Replaces every gradient of a model by its sum over the processes; parameters without one stay without.

    The first backward pass shows in which order gradients come, the first process's order is everyone's, and buckets
    are filled in it. From then on a bucket's sum begins within the backward pass, when its last gradient is there and
    the sums of the buckets before have begun: so every process begins the same sums in the same order.

    Which parameters have gradients must be the same in all processes.

    Args:
        model: on its device.
        bucket_bytes: the size of a bucket, unless a single gradient is larger.
    """

    def __init__(self, model: nn.Module, group: Group, bucket_bytes: int = BUCKET_BYTES) -> None:
        self._group, self._bucket_bytes = group, bucket_bytes
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._buckets: list[list[int]] = []  # places in the list of parameters
        self._bucket_of: dict[int, int] = {}
        self._came: dict[int, None] = {}  # in this backward pass, in order
        self._begun = 0  # buckets whose sums have begun
        self._sums: list[tuple[list[Tensor], Tensor, dist.Work]] = []
        for place, parameter in enumerate(self._parameters):
            parameter.register_post_accumulate_grad_hook(partial(self._note, place))

    def _note(self, place: int, _: Tensor) -> None:
        """Within the backward pass: a gradient has come."""
        if self._bucket_of.get(place, self._begun) < self._begun:
            raise RuntimeError("a gradient was added to after its sum over the processes had begun")
        self._came[place] = None
        while self._begun < len(self._buckets) and self._came.keys() >= set(self._buckets[self._begun]):
            self._begin(self._buckets[self._begun])
            self._begun += 1

    def _begin(self, places: list[int]) -> None:
        """Begin to add up the gradients that are there; nothing waits."""
        gradients = [gradient for place in places if (gradient := self._parameters[place].grad) is not None]
        if gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            self._sums.append((gradients, flat, dist.all_reduce(flat, async_op=True)))

    def finish(self) -> None:
        """After the backward pass: begin what has not begun, and put every sum in its gradient's place."""
        if not self._buckets:
            self._fill_buckets(self._group.from_first(lambda: list(self._came)))
        for places in self._buckets[self._begun :]:  # the first pass, or one without some of the gradients
            self._begin(places)
        self._begin([place for place in sorted(self._came) if place not in self._bucket_of])
        for gradients, flat, work in self._sums:
            work.wait()
            for gradient, total in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
                gradient.copy_(total.view_as(gradient))
        self._came, self._begun, self._sums = {}, 0, []

    def _fill_buckets(self, order: list[int]) -> None:
        """Neighbours in this order share a bucket while they have one type."""
        size, dtype = 0, None
        for place in order:
            parameter = self._parameters[place]
            if dtype != parameter.dtype or size + parameter.nbytes > self._bucket_bytes:
                self._buckets.append([])
                size, dtype = 0, parameter.dtype
            self._buckets[-1].append(place)
            self._bucket_of[place] = len(self._buckets) - 1
            size += parameter.nbytes


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

    def forward(self, values_ND: Tensor, mask_N: Tensor | None = None) -> Tensor:
        if not self.training or len(values_ND) == 1:  # a share is never a single row unless the batch is
            return super().forward(values_ND)
        return self.normalised(values_ND, mask_N)

    def total(self, values: Tensor) -> Tensor:
        return _sum(values)
