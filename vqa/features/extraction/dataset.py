"""Extraction for whole data sets: what `vqa features extract` calls."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision

from vqa.data.dataset import ImageTable
from vqa.data.formats import image_table
from vqa.errors import InputError
from vqa.features.cache.reader import IMPORTED, FeatureCache
from vqa.features.cache.writer import require_writable
from vqa.features.encoders.preprocessing import require_files
from vqa.features.encoders.registry import ImageEncoder, build_image_encoder
from vqa.features.extraction.autotune import choose_arithmetic
from vqa.features.extraction.check import RowCheck, check_cache
from vqa.features.extraction.extract import ExtractReport, extract, images_at_once
from vqa.features.extraction.fisher import FISHER, fisher_encoder, read_code
from vqa.features.extraction.shards import Launch, extract_in_parts, remove_merged, require_same_processes
from vqa.features.precision import AS_BEFORE, AUTO, Precision
from vqa.progress import console
from vqa.runtime.distributed import local_processes

MOST_THREADS = 16  # that decode unless asked for: at 340 images/s each, what VGG16 takes on a large GPU


def imagenet_weights_at_hand(encoder: str) -> bool:
    """Whether "imagenet" weights of an encoder are in torch.hub's cache, so that nothing is downloaded.

    Only torchvision's own networks have such weights: neither "hf:…" nor those with Caffe's preprocessing do.
    """
    if encoder not in torchvision.models.list_models(module=torchvision.models):
        return False
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
    if made["encoder"].startswith(FISHER):
        if not (weights or made.get("weights")):
            raise InputError(f"{source}: give the cache with the parameters of its Fisher vectors with --weights")
        code, base = read_code(Path(weights or made["weights"]))
        return fisher_encoder(encoder_of(base, None, source), code)
    if made["encoder"].startswith(IMPORTED):
        raise InputError(
            f"{source}: its features were imported ({made['weights_origin']}); that encoder is not at hand, so no "
            "image can be encoded as it did"
        )
    weights = weights or made.get("weights")
    if not weights:
        raise InputError(f"{source}: its features do not say which weights made them; give them with --weights")
    preprocessing = made["preprocessing"]
    encoder = build_image_encoder(
        made["encoder"], layer=made["layer"], image_size=made["image_size"], weights=weights,
        resize=preprocessing["resize"], scaled_decoding=preprocessing.get("scaled_decoding", False),
    )  # fmt: skip
    # compiled or not is the same arithmetic but for rounding, and compiling for single images never pays
    return encoder.with_arithmetic(replace(Precision.parse(made.get("arithmetic") or str(AS_BEFORE)), compiled=False))


def check_dataset(
    cache: Path, root: Path, format: str, splits: Sequence[str], *, weights: str | None = None, sample: int = 16
) -> list[RowCheck]:
    """Extract a sample of a cache's images again, compare, and print what was found.

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
    console.print(f"{cache}: {len(rows) - wrong} of {len(rows)} images give the stored features again", markup=False)
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
    weights: str | None = None,
    resize: str = "squash",
    scaled_decoding: bool = False,
    precision: str = AUTO,
    compiled: bool | None = None,
    dtype: str = "float16",
    batch_size: int | None = None,
    workers: int | None = None,
    command: str = "",
) -> ExtractReport:
    """Encode every image of a data set's splits into the cache `out`; goes on where an earlier call stopped.

    Prints where the weights come from, how the encoder computes and why, and what was done; unreadable images are
    listed.

    Args:
        root, format, splits: the data set.
        out: the cache.
        encoder, layer, image_size, weights, resize, scaled_decoding: see `build_image_encoder`.
        precision, compiled: see `choose_arithmetic`; a cache that was begun is completed as it was begun.
        dtype: what is stored, "float16" or "int8".
        batch_size: images encoded together; None takes `images_at_once(image_size)`.
        workers: threads that decode; None takes `decoding_threads()`.
        command: what the user ran.

    Raises:
        InputError: naming the file and item; nothing that was there is overwritten.
    """
    images, launch = image_table(root, format, splits), Launch.from_environment()
    console.quiet = launch.rank > 0  # one process speaks for all
    require_writable(out)
    network = build_image_encoder(
        encoder, layer=layer, image_size=image_size, weights=weights, resize=resize, scaled_decoding=scaled_decoding
    ).to(launch.device)
    console.print(
        f"{encoder} {network.layer} at {image_size} px: {network.regions} regions of {network.channels} channels, "
        f"on {launch.device.type}{f', {launch.processes} processes' if launch.processes > 1 else ''}\n"
        f"{network.weights_origin}"
    )

    at_once = images_at_once(image_size) if batch_size is None else batch_size
    threads = decoding_threads() if workers is None else workers
    if launch.processes > 1 and command:
        command = f"torchrun --nproc-per-node {launch.processes} -m {command}"

    def choose(begun: Path) -> Precision:
        return arithmetic_for(begun, images, network, at_once, precision, compiled)

    def fill(table: ImageTable, path: Path, arithmetic: Precision) -> ExtractReport:
        return extract(
            table, network, path, arithmetic=arithmetic, dtype=dtype, batch_size=at_once, workers=threads,
            command=command,
        )  # fmt: skip

    try:
        if launch.processes > 1 and not out.exists():
            report = extract_in_parts(images, out, launch, at_once, choose, fill)
        else:  # a whole file is completed by one process
            require_same_processes(out, launch.processes)
            if launch.rank > 0:
                return ExtractReport.nothing()
            remove_merged(out)
            report = fill(images, out, choose(out))
    except torch.OutOfMemoryError:
        raise InputError(
            f"{launch.device}: no memory for {at_once} images of {image_size} px at once; take a smaller "
            "--batch-size (what was done is kept)"
        ) from None
    print_report(out, report)
    return report


def decoding_threads() -> int:
    """How many threads decode by default: this process's share of the machine's cores, 2 to `MOST_THREADS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(2, cores // local_processes()), MOST_THREADS)


def print_report(out: Path, report: ExtractReport) -> None:
    """What was done, where the time went, and what could not be read."""
    rate = f" ({report.encoded / report.seconds:,.1f} images/s)" if report.encoded else ""
    console.print(
        f"{out}: {report.extracted_now:,} images now, {report.already_done:,} before, of {report.images:,}{rate}",
        markup=False,
    )
    if report.encoded:
        console.print(report.times())
    for _, reason in report.unreadable:  # which names the file
        console.print(f"not readable, left out: {reason}", markup=False)
    if report.unreadable:
        console.print(
            "Training on these images is refused until they are replaced and extracted with the same command."
        )


def arithmetic_for(
    out: Path,
    images: ImageTable,
    encoder: ImageEncoder,
    batch_size: int,
    precision: str,
    compiled: bool | None,
) -> Precision:
    """How the cache was begun, or else what a measurement chooses."""
    require_files(images)
    if not out.exists():
        return choose_arithmetic(encoder, list(dict.fromkeys(images.paths)), batch_size, precision, compiled)
    begun = Precision.parse(FeatureCache(out).attributes.get("arithmetic") or str(AS_BEFORE))
    if precision not in (AUTO, begun.number_type) or compiled not in (None, begun.compiled):
        asked = precision + {None: "", True: ", compiled", False: ", not compiled"}[compiled]
        raise InputError(
            f"{out}: was begun with an encoder in {begun}, asked for {asked}; "
            f"leave the choice to the cache, choose another --out, or remove it"
        )
    console.print(f"Encoder: {begun}, as {out} was begun", markup=False)
    return begun
