"""A tiny world with images' digests as a real cache has them, and a run trained in it."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from helpers.training import CHANNELS, REGIONS, all_images, attributes, experiment
from vqa.data.dataset import ImageTable
from vqa.data.synthetic import generate_dataset
from vqa.features.cache.writer import CacheWriter
from vqa.training.train import train


def write_digested_cache(path: Path, images: ImageTable) -> None:
    """A feature cache of noise that states the true digest of every image's file."""
    feature_NRC = torch.randn(len(images.ids), REGIONS, CHANNELS, generator=torch.Generator().manual_seed(0))
    digests = [hashlib.sha256(image.read_bytes()).hexdigest() for image in images.paths]
    with CacheWriter(path, images, attributes(), REGIONS, CHANNELS) as writer:
        writer.write(np.arange(len(images.ids)), feature_NRC, digests)


def make_run(folder: Path) -> Path:
    """Generate data, digest and train for one epoch with a vocabulary of eight answers; returns the run folder."""
    generate_dataset(folder / "data", 60, 0, "real", 64)
    write_digested_cache(folder / "cache.h5", all_images(folder / "data"))
    tiny = experiment(folder, folder / "runs", training={"epochs": 1}, answers={"size": 8})
    return train(tiny).path
