"""Extraction for whole data sets: what `vqa features extract` calls."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision

from vqa.data.dataset import ImageTable
from vqa.data.formats import read_dataset
from vqa.features.encoders import build_image_encoder
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
