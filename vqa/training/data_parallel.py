"""Data parallel over processes and machines: torchrun starts the processes, each computes its share of every batch.

    torchrun --nproc-per-node 2 -m vqa train experiments/san.yaml

The batches are those of a single process: `training.batch_size` is that of all processes together, and the order is a
function of the seed and the epoch. Process r of n takes questions r, r + n, r + 2n, … of a batch. Its loss is weighted
so that the losses of all processes add up to the whole batch's, then the gradients are added up, so every process takes
the step that a single one would have taken. That is a plain sum written out in the loop and not
DistributedDataParallel, which weighs unequal shares equally, must be told which fusions leave parameters unused, and
hides the exchange in the backward pass.

Legend: `N` rows, `D` their width.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vqa.models.layers import BatchNorm
from vqa.runtime.distributed import Group


def share_model(model: nn.Module, group: Group) -> None:
    """Give every process the first one's weights, and batch normalisation the rows of all processes."""
    if group.alone:
        return
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor.detach(), src=0)
    for module in model.modules():
        if type(module) is BatchNorm:
            module.__class__ = _SharedBatchNorm  # weights, statistics and names stay as they are


def add_up_gradients(model: nn.Module, group: Group) -> None:
    """Replace every gradient by its sum over the processes; parameters without one stay without."""
    if group.alone:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, total in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))


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
