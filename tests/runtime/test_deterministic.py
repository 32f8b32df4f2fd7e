"""What `training.deterministic` switches, says and refuses; and that no part of a model is among what torch refuses.

No operation runs on a GPU here: torch's own list says which ones it makes deterministic there and which it refuses, and
models on the meta device say which ones they use, forward and backward.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training import experiment, make_world
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vqa.errors import InputError
from vqa.models import FUSIONS, LOSSES, QUESTION_ENCODERS, Image, Target, build_model
from vqa.runtime.deterministic import (
    WORKSPACE,
    deterministic_algorithms,
    deterministic_switches,
    exactness,
    refusal,
    require_fixed_workspace,
)
from vqa.training import train as loop

# what torch's list refuses, as operations: of a backward pass, or of any
REFUSED = {
    "avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward", "fractional_max_pool2d_backward", "fractional_max_pool3d_backward", "max_unpool2d",
    "max_unpool3d", "upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward",
    "upsample_trilinear3d_backward", "reflection_pad1d_backward", "reflection_pad2d_backward",
    "reflection_pad3d_backward", "nll_loss2d_forward", "nll_loss2d_backward", "_ctc_loss_backward", "_embedding_bag",
    "_embedding_bag_backward", "put_", "put", "histc", "bincount", "median", "nanmedian", "kthvalue",
    "grid_sampler_2d_backward", "grid_sampler_3d_backward", "scatter_reduce", "scatter_reduce_",
}  # fmt: skip
# operations of mcb, dppnet, tuned image encoders, vis_lstm and the word vectors: torch makes them deterministic
MADE_DETERMINISTIC = ("torch.index_add", "torch.index_select", "torch.gather", "torch.nn.Embedding", "torch.nn.Conv2d")


class Operations(TorchDispatchMode):
    """The names of those that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def operations_of(question_encoder: str, fusion: str, loss: str) -> set[str]:
    """Those of a training step's forward and backward pass, without numbers."""
    answer_BK = torch.zeros(5, 3, dtype=torch.int64, device="meta")
    target = Target(answer_BK[:, 0], answer_BK, answer_BK.float(), answer_BK.float())
    lengths = torch.full((5,), 3)  # mixed ones cannot be packed without numbers; that copies and selects only
    with torch.device("meta"):
        model = build_model(
            question_encoder={"name": question_encoder}, fusion={"name": fusion}, classifier={}, vocab_size=20,
            image_dim=16, regions=4, answers=6,
        ).to("meta")  # fmt: skip
        image, tokens = Image(torch.empty(5, 4, 16)), torch.ones(5, 3, dtype=torch.int64)
        image = image._replace(boxes_IR4=torch.empty(5, 4, 4) if model.fusion.needs_boxes else None)
        with Operations() as operations:
            LOSSES[loss]()(model.train()(image, tokens, lengths).logits_BA, target).backward()
    return operations.names


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_torch_refuses_no_fusion(name: str) -> None:
    assert not operations_of("bow", name, "cross_entropy") & REFUSED


@pytest.mark.parametrize("name", sorted(QUESTION_ENCODERS))
def test_torch_refuses_no_question_encoder(name: str) -> None:
    assert not operations_of(name, "product", "cross_entropy") & REFUSED


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_torch_refuses_no_loss(name: str) -> None:
    assert not operations_of("bow", "product", name) & REFUSED


@pytest.mark.parametrize(
    "used",
    [
        lambda x: nn.AdaptiveAvgPool2d(3)(x),
        lambda x: nn.functional.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: nn.ReflectionPad2d(1)(x),
        lambda x: x.flatten().median(dim=0).values,
    ],
)
def test_the_test_above_would_find_what_is_refused(used: Callable[[Tensor], Tensor]) -> None:
    with Operations() as operations:
        used(torch.empty(1, 2, 6, 6, device="meta", requires_grad=True)).sum().backward()
    assert operations.names & REFUSED


def test_torch_still_makes_deterministic_what_the_models_need() -> None:
    listed = (torch.use_deterministic_algorithms.__doc__ or "").split("will act")[1].split("will throw")[0]
    assert [name for name in MADE_DETERMINISTIC if f"`{name}`" not in listed] == []


def switches() -> list[bool]:
    return [
        torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(), torch.backends.cuda.math_sdp_enabled(),
    ]  # fmt: skip


def test_the_switches_are_put_back_also_after_an_error() -> None:
    before = switches()
    with pytest.raises(KeyError), deterministic_switches():
        assert switches() == [True, False, True, False, False, False, True]
        raise KeyError
    assert switches() == before


def test_on_a_cpu_nothing_is_switched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    before = switches()
    with deterministic_algorithms(True, "cpu"):
        assert switches() == before
    assert WORKSPACE not in os.environ


@pytest.mark.parametrize(
    ("stated", "started", "said"),
    [
        (None, False, None),
        (":16:8", True, None),
        (None, True, "CUDA has started in this process without CUBLAS_WORKSPACE_CONFIG; set it to :4096:8 or :16:8"),
        (":0:0", False, "CUBLAS_WORKSPACE_CONFIG=:4096:8 or :16:8 in the environment; it is ':0:0'"),
    ],
)
def test_the_workspace_is_set_in_time_or_refused(
    monkeypatch: pytest.MonkeyPatch, stated: str | None, started: bool, said: str | None
) -> None:
    monkeypatch.setenv(WORKSPACE, stated or "")  # so that it is put back
    if stated is None:
        del os.environ[WORKSPACE]
    if said is None:
        require_fixed_workspace(started=started)
        assert os.environ[WORKSPACE] == (stated or ":4096:8")
        return
    with pytest.raises(InputError, match=said):
        require_fixed_workspace(started=started)


def test_what_torch_refuses_is_one_sentence() -> None:
    error = RuntimeError(
        "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set 'torch.use_…"
    )
    assert "torch has no deterministic adaptive_avg_pool2d_backward_cuda; take another part" in str(refusal(error))
    assert refusal(RuntimeError("out of memory")) is None and refusal(KeyError("x")) is None


def test_a_run_that_torch_refuses_ends_in_that_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is torch's own, of a part from outside that needs what it has no deterministic form of."""

    def refused(*_: Any) -> None:
        raise RuntimeError("histc_cuda does not have a deterministic implementation, but you set …")

    monkeypatch.setattr(loop, "step_once", refused)
    with pytest.raises(InputError, match=r"no deterministic histc_cuda; .* What was saved is in"):
        loop.train(experiment(make_world(tmp_path), tmp_path / "runs", training={"deterministic": True}))


def test_exactness_is_claimed_only_where_it_is_enforced() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert exactness(True, cpu, 1) == exactness(False, cpu, 1) == ""
    assert "may differ" in exactness(False, gpu, 1) and exactness(True, gpu, 1) == "; deterministic"
    assert "NCCL" in exactness(True, gpu, 2)
