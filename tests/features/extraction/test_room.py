"""The batch that is taken unless asked for: by the free memory of a GPU, and as the cache was begun."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqa.data.dataset import ImageTable
from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders.image_encoder import fastest_convolutions
from vqa.features.encoders.registry import build_image_encoder
from vqa.features.extraction import room
from vqa.features.extraction.extract import BATCH_SIZE, extract
from vqa.features.extraction.room import MOST_ON_GPU, batch_for, default_batch, enough_memory

CPU = torch.device("cpu")


@given(st.integers(1, 1 << 34), st.integers(0, 1 << 40), st.integers(1, 32))
def test_a_batch_fits_or_is_the_least(image_bytes: int, free: int, least: int) -> None:
    batch = batch_for(image_bytes, free, least)
    assert least <= batch <= max(least, MOST_ON_GPU)
    assert batch == least or (batch * image_bytes <= free / 8 and batch.bit_count() == 1)
    assert batch_for(image_bytes, 2 * free, least) >= batch


@pytest.fixture
def images(tmp_path: Path) -> ImageTable:
    from PIL import Image

    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (40, 40), (50 * number, 200 - 40 * number, 90)).save(paths[-1])
    return ImageTable(tuple(path.stem for path in paths), tuple(paths))


def test_a_gpu_with_more_memory_takes_larger_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_image_encoder(name="vgg11", layer="features", image_size=64, weights="random")
    found = []
    for gigabytes in (0, 1, 80):
        monkeypatch.setattr(room, "free_memory", lambda _, free=gigabytes << 30: free)
        found.append(default_batch(encoder, torch.device("cuda"), None))
    assert found[0] == 32 and found == sorted(found) and found[-1] == MOST_ON_GPU
    assert default_batch(encoder, CPU, None) == 32


def test_a_cache_goes_on_with_the_batch_it_was_begun_with(tmp_path: Path, images: ImageTable) -> None:
    encoder = build_image_encoder(name="vgg11", layer="features", image_size=64, weights="random")
    assert default_batch(encoder, CPU, None) == 32
    out = tmp_path / "c.h5"
    extract(images, encoder, out, batch_size=3, workers=1)
    assert FeatureCache(out).attributes[BATCH_SIZE] == 3
    assert default_batch(encoder, CPU, out) == 3
    extract(images, encoder, out, batch_size=2, workers=1)  # complete, and asked for: nothing is refused
    assert FeatureCache(out).attributes[BATCH_SIZE] == 3


def test_int8_is_made_of_float32_and_float16_of_what_the_encoder_gave(tmp_path: Path, images: ImageTable) -> None:
    encoder = build_image_encoder(name="vgg11", layer="features", image_size=64, weights="random")
    pixels = torch.stack([encoder.load_image(path) for path in images.paths])
    exact_NRC = encoder(pixels)
    for dtype, worst in (("float16", 0.0), ("int8", 0.01)):
        out = tmp_path / f"{dtype}.h5"
        extract(images, encoder, out, batch_size=5, workers=1, dtype=dtype)
        cache = FeatureCache(out)
        stored_NRC = torch.empty(5, cache.regions, cache.channels, dtype=cache.dtype)
        cache.read_into(np.arange(5), np.arange(5), stored_NRC)
        found = stored_NRC.float() if cache.scale_I is None else stored_NRC * cache.scale_I[:, None, None]
        limit = exact_NRC.half().float() if dtype == "float16" else exact_NRC
        assert (found - limit).abs().max() <= worst * exact_NRC.abs().max()


def test_the_choice_of_convolutions_is_put_back_also_after_an_error() -> None:
    before = torch.backends.cudnn.benchmark
    with pytest.raises(KeyError), fastest_convolutions():
        assert torch.backends.cudnn.benchmark
        raise KeyError
    assert torch.backends.cudnn.benchmark == before


def test_looking_for_the_memory_leaves_a_detector_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its anchors are plain tensors of a list, which a run without data would replace."""
    network = "detector:fasterrcnn_mobilenet_v3_large_320_fpn"
    encoder = build_image_encoder(network, layer="box_head:4", image_size=64, weights="random")
    pixels = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    with enough_memory(encoder, 1, CPU):
        assert encoder(pixels).shape == (1, encoder.regions, encoder.channels)
    monkeypatch.setattr(room, "free_memory", lambda _: 80 << 30)
    assert default_batch(encoder, torch.device("cuda"), None) == default_batch(encoder, CPU, None)  # nothing is known
    assert not any(value.is_meta for value in encoder.state_dict().values())
