"""Images, tables and a small encoder for the tests of vqa.features."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.cache.writer import CacheWriter
from vqa.features.encoders.registry import ImageEncoder, build_image_encoder

SIDE = 32
ATTRIBUTES = {"encoder": "tiny", "layer": "top", "image_size": 8, "weights_sha256": "0", "preprocessing": {"a": 1}}


def render_images(folder: Path, count: int, seed: int = 0) -> ImageTable:
    """`count` different PNG images of odd sizes, named by their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        height, width = random.integers(20, 60, size=2)
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return ImageTable(tuple(str(number) for number in range(count)), tuple(paths))


def small_encoder(image_size: int = SIDE) -> ImageEncoder:
    """A tenth of SqueezeNet with random weights: milliseconds an image."""
    return build_image_encoder("squeezenet1_1", layer="features.4", image_size=image_size, weights="random")


def numbered_cache(
    path: Path, prefix: str, count: int, done: int, stored: str = "float16", **changes: object
) -> tuple[FeatureCache, np.ndarray]:
    """A cache of random features of images named `prefix`0 on, the first `done` of them done; and the features."""
    images = ImageTable(tuple(f"{prefix}{i}" for i in range(count)), tuple(Path(f"{i}.jpg") for i in range(count)))
    feature_IRC = np.random.default_rng(len(prefix) + count).normal(size=(count, 3, 4)).astype(np.float16)
    with CacheWriter(path, images, ATTRIBUTES | {"command": f"make {prefix}"} | changes, 3, 4, stored) as writer:
        writer.write(np.arange(done), torch.from_numpy(feature_IRC[:done]), ["0" * 64] * done)
    return FeatureCache(path), feature_IRC


class SlowEncoder(ImageEncoder):
    """Takes its time, so that there are moments to stop it at."""

    def forward(self, image_B3SS: torch.Tensor) -> torch.Tensor:
        time.sleep(0.003)
        return super().forward(image_B3SS)


def slow_encoder() -> ImageEncoder:
    """The small encoder, three milliseconds a batch slower."""
    encoder = small_encoder()
    encoder.__class__ = SlowEncoder
    return encoder


def forked(work: Callable[[], object], said: Path) -> int:
    """Start `work` in a copy of this process and return its id.

    The copy ends with status 0, or 2 when an InputError was raised, whose text is in `said`, or 130 when interrupted.
    """
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        torch.set_num_threads(1)  # the threads of the parent's pool do not exist in its copy
        work()
        status = 0
    except InputError as error:
        said.write_text(str(error))
        status = 2
    except KeyboardInterrupt:
        status = 130
    finally:
        os._exit(status)


def stored(path: Path) -> bytes:
    """All that a cache holds of its images."""
    with h5py.File(path, "r") as file:
        return file["features"][:].tobytes() + file["image_digest"][:].tobytes() + file["done"][:].tobytes()
