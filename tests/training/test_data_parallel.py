"""Gradients are added up in buckets while the backward pass runs: to the sums that one call after it would give."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from vqa.runtime.distributed import Group, current_group
from vqa.training.data_parallel import GradientSums

SIZES = (7, 3, 9, 5, 2)


class Chain(nn.Module):
    """Layers one after another, listed in another order than they are used in; one of another type, one never used."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(SIZES[3], SIZES[4])
        self.unused = nn.Linear(4, 4)
        self.first = nn.Linear(SIZES[0], SIZES[1])
        self.wide = nn.Linear(SIZES[1], SIZES[2]).double()
        self.frozen = nn.Linear(SIZES[2], SIZES[3]).requires_grad_(False)

    def forward(self, values: Tensor, *, short: bool = False) -> Tensor:
        """`short` leaves out the first layers, so that they get no gradients."""
        if short:
            values = values.new_ones(len(values), SIZES[2])
        else:
            values = self.wide(self.first(values).double()).float()
        result: Tensor = self.last(self.frozen(values).tanh())
        return result


def steps(rank: int, bucket_bytes: int, adding: bool) -> list[dict[str, Tensor]]:
    """The gradients of some steps, of which one has fewer, by name."""
    torch.manual_seed(0)
    model = Chain()
    sums = GradientSums(model, current_group(), bucket_bytes) if adding else None
    found = []
    for number, short in enumerate((False, False, True, False)):
        model.zero_grad(set_to_none=True)
        values = torch.randn(6, SIZES[0], generator=torch.Generator().manual_seed(10 * rank + number))
        model(values, short=short).square().sum().backward()
        if sums is not None:
            sums.finish()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    return found


def join(rank: int, size: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    join(rank, 2, folder)
    torch.save([steps(rank, size, adding=True) for size in (1, 100, 1 << 20)], Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def test_two_processes_get_the_sums(tmp_path: Path) -> None:
    mp.start_processes(work, (str(tmp_path),), nprocs=2, start_method="spawn")  # forked, autograd would not run
    alone = [steps(rank, 0, adding=False) for rank in range(2)]
    wanted = [{name: one[name] + two[name] for name in one} for one, two in zip(*alone, strict=True)]
    for rank in range(2):
        for found in torch.load(tmp_path / f"{rank}.pt"):
            for step, sums in zip(found, wanted, strict=True):
                assert step.keys() == sums.keys()
                for name in sums:
                    assert torch.equal(step[name], sums[name]), name


@pytest.fixture
def lone_group(tmp_path: Path) -> Iterator[Group]:
    """A process group of one, whose sums are what they were."""
    join(0, 1, str(tmp_path))
    yield current_group()
    dist.destroy_process_group()


def test_sums_begin_within_the_backward_pass(lone_group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    all_reduce = dist.all_reduce

    def noted(values: Tensor, **options: Any) -> Any:
        begun.append(values.numel())
        return all_reduce(values, **options)

    monkeypatch.setattr(dist, "all_reduce", noted)
    model = Chain()
    sums = GradientSums(model, lone_group, bucket_bytes=1)  # each parameter has its own
    for number in range(2):
        model(torch.ones(2, SIZES[0])).sum().backward()
        assert len(begun) == (6 if number else 0)  # the first pass shows the order
        sums.finish()
        assert len(begun) == 6
        assert set(begun[:2]) == {10, 2} and set(begun[4:]) == {21, 3}  # the last layer's come first
        begun.clear()


def test_a_gradient_that_comes_twice_is_never_half_summed(lone_group: Group) -> None:
    weight = nn.Parameter(torch.ones(1))
    model = nn.ParameterList([weight])
    sums = GradientSums(model, lone_group)
    weight.square().backward()
    sums.finish()
    weight.square().backward()
    with pytest.raises(RuntimeError, match="added to after its sum over the processes had begun"):
        weight.square().backward()
