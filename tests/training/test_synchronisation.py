"""No step waits for the device: which operations read a device's numbers, watched on a CPU by where numbers come from.

On a CPU nothing waits, so a dispatch mode follows every tensor. Lengths are in host memory by design, and what is
computed from them alone is too; everything else would be on a GPU. Of the latter nothing may reach Python, nor go
through an operation whose result's size depends on numbers.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.language import save_language_model
from helpers.training import all_images, experiment, make_world, write_cache
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from vqa.experiment import Experiment, check_experiment
from vqa.models import FUSIONS, LOSSES, QUESTION_ENCODERS, Image
from vqa.testing.batches import random_boxes
from vqa.training import step
from vqa.training.inputs.prepare import prepare
from vqa.training.run import build, epoch_batches
from vqa.training.step import Tally, stream
from vqa.training.train import step_once

WAITING = {  # operations that a GPU can only answer by waiting
    "_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "allclose", "_unique2",
    "unique_consecutive", "unique_dim", "multinomial", "bincount", "repeat_interleave", "_assert_async",
}  # fmt: skip
# operations that take host memory beside the device's: how many rows each step of a recurrent layer has
MIXED = {"_pack_padded_sequence", "_pad_packed_sequence", "lstm", "gru"}
to = Tensor.to

SMALLER = {  # by default they take seconds to build
    "mcan": {"hidden_dim": 16, "heads": 2, "layers": 2},
    "single_stream": {"hidden_dim": 16, "heads": 2, "layers": 2},
    "two_stream": {"hidden_dim": 16, "heads": 2, "layers": 2},
}


class Watch(TorchDispatchMode):
    """Collects the operations that would wait for a GPU, and those that would find tensors on two devices.

    Args:
        host: a tensor in host memory.
    """

    def __init__(self, host: Tensor) -> None:
        super().__init__()
        self.host = WeakTensorKeyDictionary()
        self.host[host] = True
        self.waits: list[str] = []
        self.mixed: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        from_host = [tensor in self.host for tensor in tensors]
        masks = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            isinstance(leaf, Tensor) and leaf.dtype in (torch.bool, torch.uint8) for leaf in tree_leaves(args[1])
        )
        if (name in WAITING or masks) and not all(from_host):
            self.waits.append(name)
        if any(from_host) and not all(from_host):
            self.mixed.append(name)
        result = func(*args, **(kwargs or {}))
        if tensors and all(from_host):
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self.host[leaf] = True
        if name == "_pack_padded_sequence":  # how many rows each step of a recurrent layer has is kept in host memory
            self.host[result[1]] = True
        return result

    def moved(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """`Tensor.to`, where a host tensor that is sent to a device is on it from then on."""
        result = to(tensor, *args, **kwargs)
        if tensor not in self.host or not isinstance(args[0] if args else kwargs.get("device"), torch.device):
            return result
        if not kwargs.get("non_blocking"):
            self.waits.append("to")
        result = result.clone()
        del self.host[result]
        return result


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def watched_step(plan: Experiment, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """What one step does, on the batch with the most different lengths."""
    prepared = prepare(plan)
    run = build(plan, prepared)
    run.tally = Tally(run.state.sums, prepared.machine.device, prepared.machine.group)
    run.model.train()
    length_N = prepared.train_questions.length_N
    batch = max(epoch_batches(run), key=lambda one: len(length_N[one.host_index_B].unique()))
    inputs = next(stream(prepared, [batch]))
    if isinstance(inputs.image, Image) and inputs.image.boxes_IR4 is None:
        boxes_IR4 = random_boxes(*inputs.image.regions_IRC.shape[:2])  # some fusions need them
        inputs = inputs._replace(image=inputs.image._replace(boxes_IR4=boxes_IR4))
    assert len(inputs.length_B.unique()) > 1  # so that sequences are packed
    step_once(run, inputs, 7)
    watch = Watch(inputs.length_B)
    for state in run.optimizer.state.values():
        if "step" in state and not run.optimizer.defaults.get("fused"):  # only fused optimisers count on the device
            watch.host[state["step"]] = True
    for name, own in (("tolist", Tensor.tolist), ("numpy", Tensor.numpy)):  # they reach Python without an operation

        def leave(tensor: Tensor, *args: Any, name: str = name, own: Any = own) -> Any:
            if tensor not in watch.host:
                watch.waits.append(name)
            return own(tensor, *args)

        monkeypatch.setattr(Tensor, name, leave)
    monkeypatch.setattr(Tensor, "to", lambda tensor, *args, **kwargs: watch.moved(tensor, *args, **kwargs))
    with watch:
        step_once(run, inputs, 7)
    return watch


def assert_never_waits(plan: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watched_step(plan, monkeypatch)
    assert not watch.waits
    assert set(watch.mixed) <= MIXED


def plan_with(world: Path, tmp_path: Path, **changes: Any) -> Experiment:
    return experiment(world, tmp_path, **{"training": {"batch_size": 16}} | changes)


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_no_fusion_waits(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    changes: dict[str, Any] = {"fusion": {"name": name} | SMALLER.get(name, {})}
    if FUSIONS[name].needs_boxes:
        write_cache(tmp_path / "boxes.h5", all_images(world / "data"), boxes=True)
        changes["features"] = {"cache": str(tmp_path / "boxes.h5")}
    assert_never_waits(plan_with(world, tmp_path, **changes), monkeypatch)


LOOKS = ["_local_scalar_dense"]


@pytest.mark.parametrize("tuned", [False, 1])
@pytest.mark.parametrize(
    ("fusion", "kind", "waits"),
    [
        ("prefix_lm", "opt", []),
        ("prefix_lm", "gpt2", LOOKS),
        ("prefix_lm", "llama", LOOKS),
        ("gated_cross_attention", "opt", []),
        ("gated_cross_attention", "bert", LOOKS),
    ],
)
def test_a_language_model_inside_a_fusion_waits_once_at_most(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fusion: str, kind: str, waits: list[str], tuned: Any
) -> None:
    """The one wait is not ours: transformers looks into a mask, or whether a row holds several texts."""
    save_language_model(tmp_path / kind, kind)
    encoder = {"name": f"hf:{tmp_path / kind}", "words": "embeddings"}
    sections = {"question_encoder": encoder, "fusion": {"name": fusion, "tuned": tuned}}
    plan = check_experiment(plan_with(world, tmp_path).model_dump(by_alias=True) | sections, "test")
    watch = watched_step(plan, monkeypatch)
    assert watch.waits == waits and set(watch.mixed) <= MIXED


@pytest.mark.parametrize("name", sorted(QUESTION_ENCODERS))
def test_no_question_encoder_waits(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plan = plan_with(world, tmp_path).model_dump(by_alias=True) | {"question_encoder": {"name": name}}
    assert_never_waits(check_experiment(plan, "test"), monkeypatch)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_no_loss_waits(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert_never_waits(plan_with(world, tmp_path, loss={"name": name}), monkeypatch)


@pytest.mark.parametrize("over", ["model", "part", "tensor"])
def test_no_clipping_waits(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: str) -> None:
    clip = {"batch_size": 16, "clip_norm": 0.1, "clip_value": 0.1, "clip_norm_over": over}
    assert_never_waits(plan_with(world, tmp_path, training=clip), monkeypatch)


@pytest.mark.parametrize("name", ["adam", "adamw", "adamax", "rmsprop", "sgd"])
def test_no_optimiser_waits(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    training = {"batch_size": 16, "optimizer": {"name": name}, "schedule": {"name": "cosine", "warmup": 0.5}}
    assert_never_waits(plan_with(world, tmp_path, training=training), monkeypatch)


WAITS = {
    "float": lambda values_N: float(values_N[0]),
    "bool": lambda values_N: bool(values_N[0] > 0),
    "tolist": lambda values_N: values_N.tolist(),
    "mask": lambda values_N: values_N[values_N > 0],
    "nonzero": lambda values_N: values_N.nonzero(),
    "multinomial": lambda values_N: values_N.exp().multinomial(1),
}


@pytest.mark.parametrize("name", WAITS)
def test_the_watch_sees_what_waits(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def clip(model: torch.nn.Module, *limits: Any) -> None:
        WAITS[name](torch.cat([parameter.detach().flatten() for parameter in model.parameters()])[:9])

    monkeypatch.setattr(step, "clip_gradients", clip)
    assert watched_step(plan_with(world, tmp_path), monkeypatch).waits
