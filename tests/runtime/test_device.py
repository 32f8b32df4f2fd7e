"""What float32 means on a GPU, and how a machine's arithmetic is named."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import vqa
from vqa.features.precision import Precision
from vqa.runtime.device import Machine, computes_tf32, state_float32

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU that has TF32, where this program has said what float32 means."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    state_float32()
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_products_convolutions_and_recurrent_layers_are_alike(ampere: None) -> None:
    backends: Any = torch.backends
    kinds = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    assert [kind.fp32_precision for kind in kinds] == ["tf32"] * 3
    assert torch.get_float32_matmul_precision() == "high"  # what compiled code asks
    assert backends.cuda.matmul.allow_tf32 and backends.cudnn.allow_tf32  # which torch refuses to say of a mixture


def test_tf32_is_where_the_gpu_has_it_and_nobody_forbids_it(ampere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert computes_tf32(GPU) and not computes_tf32(CPU)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert not computes_tf32(GPU)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not computes_tf32(GPU)


ALL = "TF32 in matrix products, convolutions and recurrent layers"
NAMES = [
    (CPU, False, "auto", "CPU, float32"),
    (CPU, True, "auto", "CPU, bfloat16 where it helps"),
    (CPU, True, "float32", "CPU, bfloat16 where it helps, recurrent layers in float32"),
    (GPU, False, "auto", f"NVIDIA H100, float32 ({ALL})"),
    (GPU, False, "float32", f"NVIDIA H100, float32 ({ALL})"),
    (GPU, False, "bfloat16", f"NVIDIA H100, float32 ({ALL}), recurrent layers in bfloat16"),
    (GPU, True, "auto", "NVIDIA H100, bfloat16 where it helps, recurrent layers in float32 (TF32)"),
    (GPU, True, "bfloat16", "NVIDIA H100, bfloat16 where it helps, recurrent layers in bfloat16"),
]


@pytest.mark.parametrize(("device", "bfloat16", "recurrent", "named"), NAMES)
def test_a_machine_says_what_it_computes_in(
    ampere: None, device: torch.device, bfloat16: bool, recurrent: str, named: str
) -> None:
    assert str(Machine(device, bfloat16, recurrent=recurrent)) == named


def test_a_cache_says_tf32_where_it_was(ampere: None) -> None:
    assert str(Precision().on(GPU)) == "float32 channels_last tf32"
    assert str(Precision().on(CPU)) == "float32 channels_last"
    assert str(Precision("bfloat16").on(GPU)) == "bfloat16 channels_last"
    assert Precision.of_cache({}) == Precision()  # of before it was noted


def test_nothing_else_chooses_what_float32_means() -> None:
    setting = re.compile(r"(allow_tf32|fp32_precision)\s*=[^=]|set_float32_matmul_precision")
    folder = Path(vqa.__file__).parent
    found = [path for path in folder.rglob("*.py") if setting.search(path.read_text("utf-8"))]
    assert found == [folder / "runtime" / "device.py"]
