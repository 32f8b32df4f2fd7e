"""Statistics of features, against numpy in float64; what they are divided by."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.gpu import GPU, GPUError, fake_gpu
from torch import Tensor

from vqa.models import Image
from vqa.models.standardise import Standardisation
from vqa.training import model
from vqa.training.model import channel_statistics


def table(image_NRC: Tensor) -> Any:
    """What `channel_statistics` uses of a feature table."""
    _, regions, channels = image_NRC.shape
    return SimpleNamespace(
        regions=regions,
        channels=channels,
        count_N=None,
        device=image_NRC.device,
        stream=lambda parts: (Image(image_NRC[row_B]) for row_B in parts),
    )


@pytest.mark.parametrize("at_a_time", [1, 1000, 1 << 23])
def test_mean_and_deviation_are_those_of_float64(monkeypatch: pytest.MonkeyPatch, at_a_time: int) -> None:
    """Also of a channel whose mean is a thousand times its deviation."""
    monkeypatch.setattr(model, "NUMBERS_AT_A_TIME", at_a_time)
    offset_C, scale_C = torch.tensor([0.0, 1000.0, -3.0]), torch.tensor([1.0, 1.0, 0.01])
    normal_NRC = torch.randn(200, 9, 3, generator=torch.Generator().manual_seed(0))
    image_NRC = (offset_C + scale_C * normal_NRC).half()
    rows = torch.arange(0, 200, 2)
    mean_C, deviation_C = channel_statistics(table(image_NRC), rows)
    expected = image_NRC[rows].numpy().astype(np.float64)
    np.testing.assert_allclose(mean_C, expected.mean(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_allclose(deviation_C, expected.std(axis=(0, 1)), rtol=1e-6)


def test_from_a_gpu_only_the_results_come_back() -> None:
    with fake_gpu() as gpu:
        features = table(torch.empty(200, 9, 3, device=GPU, dtype=torch.float16))
        features.stream = lambda parts: (Image(torch.empty(len(row_B), 9, 3, device=GPU)) for row_B in parts)
        gpu.strict = True  # which refuses the first copy to the host
        with pytest.raises(GPUError, match=r"copies a tensor back to the host.*return mean_C"):
            channel_statistics(features, torch.arange(200))


def test_a_channel_that_never_changes_is_only_centred() -> None:
    image_NRC = torch.tensor([0.1, 1.7, 12.34, 333.3]).half().expand(3000, 49, 4)
    standardise = Standardisation(4)
    standardise.set_statistics(*channel_statistics(table(image_NRC), torch.arange(3000)))
    assert standardise.scale_C.tolist() == [1.0] * 4
    assert standardise(image_NRC).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_channel_that_hardly_ever_changes_stays_finite(dtype: torch.dtype) -> None:
    """Its scale is beyond the largest float16."""
    image_NRC = torch.zeros(20_000, 4, 1, dtype=dtype)
    image_NRC[7, 2] = 3e-3
    standardise = Standardisation(1)
    standardise.set_statistics(*channel_statistics(table(image_NRC), torch.arange(len(image_NRC))))
    assert standardise.scale_C > torch.finfo(torch.float16).max
    out_NRC = standardise(image_NRC)
    assert out_NRC.dtype == dtype and out_NRC.isfinite().all() and out_NRC.argmax() == 7 * 4 + 2
