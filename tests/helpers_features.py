"""Pictures, tables and a small encoder for the tests of vqa.features."""

from pathlib import Path

import numpy as np
from PIL import Image

from vqa.data.dataset import ImageTable
from vqa.features.encoders import ImageEncoder, build_image_encoder

SIDE = 32


def draw_pictures(folder: Path, count: int, seed: int = 0) -> ImageTable:
    """`count` different PNG pictures of odd sizes, named by their numbers."""
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
    """A tenth of SqueezeNet with random weights: milliseconds a picture."""
    return build_image_encoder("squeezenet1_1", layer="features.4", image_size=image_size, weights="random")
