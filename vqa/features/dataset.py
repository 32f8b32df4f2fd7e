"""Extraction for whole data sets: what `vqa features extract` calls."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision

from vqa.data.dataset import ImageTable
from vqa.data.formats import read_dataset
from vqa.errors import InputError
from vqa.features.cache import IMPORTED, FeatureCache
from vqa.features.check import CheckedRow, check_cache
from vqa.features.encoders import ImageEncoder, build_image_encoder
from vqa.features.extract import ExtractReport, extract
from vqa.progress import console


def image_table(root: Path, format: str, splits: Sequence[str]) -> ImageTable:
    """The pictures of several splits, each once, in the order in which the splits name them."""
    paths: dict[str, Path] = {}
    for split in splits:
        images = read_dataset(format, root, split).images
        paths |= dict(zip(images.ids, images.paths, strict=True))
    return ImageTable(tuple(paths), tuple(paths.values()))


def imagenet_weights_at_hand(encoder: str) -> bool:
    """Whether torchvision's ImageNet weights of an encoder are in torch.hub's cache, so that nothing is downloaded."""
    url = torchvision.models.get_model_weights(encoder).DEFAULT.url
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file()


def encoder_of(made: Mapping[str, Any], weights: str | None, source: Path) -> ImageEncoder:
    """Build the encoder that a cache's attributes, or a run's record of them, describe.

    Args:
        made: the attributes.
        weights: where its weights are now, if not where they were.
        source: the file or folder that states them, for messages.

    Raises:
        InputError: when nothing says which weights to take, or they cannot be had.
    """
    if made["encoder"].startswith(IMPORTED):
        raise InputError(
            f"{source}: its features were imported ({made['weights_origin']}); that encoder is not at hand, so no "
            "picture can be encoded as it did"
        )
    weights = weights or made.get("weights")
    if not weights:
        raise InputError(f"{source}: its features do not say which weights made them; give them with --weights")
    preprocessing = made["preprocessing"]
    return build_image_encoder(
        made["encoder"], layer=made["layer"], image_size=made["image_size"], weights=weights,
        resize=preprocessing["resize"], scaled_decoding=preprocessing.get("scaled_decoding", False),
    )  # fmt: skip


def check_dataset(
    cache: Path, root: Path, format: str, splits: Sequence[str], *, weights: str | None = None, sample: int = 16
) -> list[CheckedRow]:
    """Extract a sample of a cache's pictures again, compare, and print what was found.

    Raises:
        InputError: when the cache cannot be read, or was made by another encoder than it can be checked with.
    """
    encoder = encoder_of(FeatureCache(cache).attributes, weights, cache)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = check_cache(cache, image_table(root, format, splits), encoder.to(device), sample)
    for row in rows:
        if row.problem:
            console.print(f"{row.image_id} ({row.path}): {row.problem}", markup=False)
    wrong = sum(bool(row.problem) for row in rows)
    console.print(f"{cache}: {len(rows) - wrong} of {len(rows)} pictures give the stored features again", markup=False)
    return rows


def extract_dataset(
    root: Path,
    format: str,
    splits: Sequence[str],
    out: Path,
    *,
    encoder: str,
    layer: str | None = None,
    image_size: int = 224,
    weights: str = "imagenet",
    batch_size: int = 32,
    workers: int = 2,
    command: str = "",
) -> ExtractReport:
    """Encode every picture of a data set's splits into the cache `out`; goes on where an earlier call stopped.

    Prints where the weights come from and what was done; unreadable pictures are listed.

    Raises:
        InputError: naming the file and item; nothing that was there is overwritten.
    """
    images = image_table(root, format, splits)
    network = build_image_encoder(encoder, layer=layer, image_size=image_size, weights=weights)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    console.print(
        f"{encoder} {network.layer} at {image_size} px: {network.regions} regions of {network.channels} channels, "
        f"on {device.type}\n{network.weights_origin}"
    )
    report = extract(images, network.to(device), out, batch_size=batch_size, workers=workers, command=command)
    console.print(
        f"{out}: {report.extracted_now:,} pictures now, {report.already_done:,} before, of {report.images:,}, in "
        f"{report.seconds:.1f} s (waiting for pictures {report.decoding_wait:.1f} s, encoder {report.encoding:.1f} s, "
        f"writing {report.writing:.1f} s)"
    )
    for path, reason in report.unreadable:
        console.print(f"not readable, left out: {path}: {reason}", markup=False)
    if report.unreadable:
        console.print(
            "Training on these pictures is refused until they are replaced and extracted with the same command."
        )
    return report
