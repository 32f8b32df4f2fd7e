"""Extraction for whole data sets: what `vqa features extract` calls."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torchvision

from vqa.data.dataset import ImageTable
from vqa.data.formats import image_table
from vqa.data.formats.table import PLAIN, TableOptions
from vqa.data.images import AUTO as AUTO_RANGE
from vqa.data.images import FULL, ON_WHITE, Decoding, background_colour, name_first, ranges
from vqa.data.missing import release_note
from vqa.errors import InputError
from vqa.features.cache.reader import IMPORTED, FeatureCache
from vqa.features.cache.writer import require_writable
from vqa.features.encoders.detector import DEFAULT_LAYER
from vqa.features.encoders.image_encoder import WITH_GEOMETRY
from vqa.features.encoders.preprocessing import require_files
from vqa.features.encoders.registry import ImageEncoder, build_image_encoder
from vqa.features.extraction.autotune import choose_precision
from vqa.features.extraction.check import RowCheck, check_cache
from vqa.features.extraction.extract import ExtractReport, extract
from vqa.features.extraction.fisher import FISHER, fisher_encoder, read_code
from vqa.features.extraction.room import default_batch, enough_memory
from vqa.features.extraction.shards import extract_in_shards, remove_merged, require_same_processes, shards_at
from vqa.features.precision import AUTO, Precision
from vqa.parts import require_allowed
from vqa.progress import console
from vqa.runtime.device import fastest_device
from vqa.runtime.distributed import Group, joined, local_processes

DETECTOR = "detector:"  # how the name of such an encoder begins
DROPPED = "none"  # how a user asks for no background
MOST_THREADS = 16  # that decode unless asked for: at 340 images/s each, what VGG16 takes on a large GPU


def imagenet_weights_at_hand(encoder: str) -> bool:
    """Whether "imagenet" weights of an encoder are in torch.hub's cache, so that nothing is downloaded.

    Only torchvision's own networks have such weights: neither "hf:…" nor those with Caffe's preprocessing do.
    """
    if encoder not in torchvision.models.list_models(module=torchvision.models):
        return False
    url = torchvision.models.get_model_weights(encoder).DEFAULT.url
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file()


def encoder_of(made: Mapping[str, Any], weights: str | None, source: Path, *, allow_code: bool = False) -> ImageEncoder:
    """Build the encoder that a cache's attributes, or a run's record of them, describe.

    Args:
        made: the attributes.
        weights: where its weights are now, if not where they were.
        source: the file or folder that states them, for messages.
        allow_code: import an encoder from outside the package that they name as `module:Class`.

    Raises:
        InputError: when nothing says which weights to take, they cannot be had, or code may not be imported.
    """
    if made["encoder"].startswith(FISHER):
        if not (weights or made.get("weights")):
            raise InputError(f"{source}: give the cache with the parameters of its Fisher vectors with --weights")
        code, base = read_code(Path(weights or made["weights"]))
        return fisher_encoder(encoder_of(base, None, source, allow_code=allow_code), code)
    if made["encoder"].startswith(IMPORTED):
        raise InputError(
            f"{source}: its features were imported ({made.get('weights_origin')}); that encoder is not at hand, so no "
            "image can be encoded as it did"
        )
    weights = weights or made.get("weights")
    if not weights:
        raise InputError(f"{source}: its features do not say which weights made them; give them with --weights")
    require_allowed({"image encoder": made["encoder"]}, source, allow_code)
    preprocessing = made["preprocessing"]
    if "resize" not in preprocessing:
        raise InputError(f"{source}: its preprocessing does not say how images are resized, so none can be encoded")
    encoder = build_image_encoder(
        made["encoder"], layer=made["layer"], image_size=made["image_size"], weights=weights,
        resize=preprocessing["resize"], resize_to=preprocessing.get("resize_to"),
        scaled_decoding=preprocessing.get("scaled_decoding", False),
        decoding=Decoding.stated_in(preprocessing),
    )  # fmt: skip
    # compiled or not is the same but for rounding, and compiling for single images never pays
    return encoder.with_precision(replace(Precision.of_cache(made), compiled=False))


def check_dataset(
    cache: Path,
    root: Path,
    format: str,
    splits: Sequence[str],
    *,
    weights: str | None = None,
    sample: int = 16,
    allow_code: bool = False,
    table: TableOptions = PLAIN,
) -> list[RowCheck]:
    """Extract a sample of a cache's images again, compare, and print what was found.

    Raises:
        InputError: when the cache cannot be read, or was made by another encoder than it can be checked with.
    """
    encoder = encoder_of(FeatureCache(cache).attributes, weights, cache, allow_code=allow_code)
    device = fastest_device()
    rows = check_cache(cache, image_table(root, format, splits, table), encoder.to(device), sample)
    for row in rows:
        if row.problem:
            console.print(f"{row.image_id} ({row.path}): {row.problem}")
    wrong = sum(bool(row.problem) for row in rows)
    console.print(f"{cache}: {len(rows) - wrong} of {len(rows)} images give the stored features again")
    return rows


@dataclass(frozen=True)
class EncoderOptions:
    """Which encoder of images, as `build_image_encoder` takes it."""

    name: str = "vgg16"
    layer: str | None = None
    image_size: int | None = None
    weights: str | None = None
    resize: str = "squash"
    scaled_decoding: bool = False
    resize_to: int | None = None

    def with_geometry(self) -> "EncoderOptions":
        """The same with each box's place as six more channels, too; raises InputError where there are no boxes."""
        if not self.name.startswith(DETECTOR):
            raise InputError(f"--geometry channels: {self.name} gives no boxes; only {DETECTOR}NAME does")
        layer = (self.layer or DEFAULT_LAYER).removesuffix(WITH_GEOMETRY)
        return replace(self, layer=layer + WITH_GEOMETRY)


@dataclass(frozen=True)
class DecodingOptions:
    """How a user asks for a `Decoding`; None goes on as the cache was begun, or takes the defaults, white and auto.

    Attributes:
        background: "white", "black", "#rrggbb", or "none", which drops the alpha channel.
        range: "auto", "full", or a cache, whose decoding is taken: its range, and its background unless one is
            asked for. A cache that states neither was decoded in a way of its own, which is taken too.
    """

    background: str | None = None
    range: str | None = None

    def choose(self, begun: Path | None, images: ImageTable) -> Decoding:
        """The decoding of a cache, found on its images where the range is asked of them.

        Args:
            begun: the cache that is to be completed, if there is one.
            images: that are to be extracted.

        Raises:
            InputError: for an unknown colour, or a cache that cannot be read.
        """
        stated = None if begun is None else _stated_decoding(begun)
        if self.range not in (None, AUTO_RANGE, FULL):
            stated = _stated_decoding(Path(self.range))
        background = ON_WHITE.background if stated is None else stated.background
        if self.background is not None:
            background = None if self.background == DROPPED else background_colour(self.background)
        if self.range == FULL:
            return Decoding(background)
        if stated is not None:
            return Decoding(background, stated.highest)
        require_files(images)
        return Decoding(background).of_images(images.paths)


def _stated_decoding(path: Path) -> Decoding:
    return Decoding.stated_in(FeatureCache(path).attributes["preprocessing"])


@dataclass(frozen=True)
class ExtractOptions:
    """How images go through the encoder into a cache.

    Attributes:
        number_type, compiled: see `choose_precision`; a cache that was begun is completed as it was begun.
        dtype: what is stored, "float16" or "int8".
        batch_size: images encoded together; None goes on as the cache was begun, or takes `default_batch`.
        workers: threads that decode; None takes `decoding_threads()`.
        command: what the user ran.
        decoding: of transparency and of pixels of more than 8 bits.
    """

    number_type: str = AUTO
    compiled: bool | None = None
    dtype: str = "float16"
    batch_size: int | None = None
    workers: int | None = None
    command: str = ""
    decoding: DecodingOptions = DecodingOptions()


def extract_dataset(
    root: Path,
    format: str,
    splits: Sequence[str],
    out: Path,
    encoder: EncoderOptions,
    options: ExtractOptions,
    table: TableOptions = PLAIN,
) -> ExtractReport:
    """Encode every image of a data set's splits into the cache `out`; goes on where an earlier call stopped.

    Prints where the weights come from, how the encoder computes and why, and what was done; unreadable images are
    listed. Under torchrun all processes share the work (`vqa.features.extraction.shards`); the first one prints.

    Args:
        root, format, splits: the data set.
        out: the cache.
        table: how a table is read.

    Raises:
        InputError: naming the file and item; nothing that was there is overwritten.
    """
    with joined() as group:
        device = fastest_device(shared=True)

        def prepare() -> tuple[ImageTable, ImageEncoder]:
            images = image_table(root, format, splits, table)
            require_files(images, root)
            if said := release_note(images, format):
                console.print(said)
            require_writable(out)
            return images, build_image_encoder(**vars(encoder)).to(device)

        def choose(begun: Path) -> Precision:
            with enough_memory(network, min(at_once, len(images.ids)), device):
                return precision_for(begun, images, network, at_once, options)

        def fill(shard: ImageTable, path: Path, precision: Precision) -> ExtractReport:
            with enough_memory(network, min(at_once, len(images.ids)), device):
                return extract(
                    shard, network, path, precision=precision, dtype=options.dtype, batch_size=at_once,
                    workers=decoding_threads() if options.workers is None else options.workers,
                    command=_for_all(group, options.command),
                )  # fmt: skip

        def complete() -> ExtractReport:
            require_same_processes(out, group.size)
            remove_merged(out)
            return fill(images, out, choose(out))

        def begun() -> Path | None:
            return next((path for path in (out, *shards_at(out)) if path.exists()), None)

        images, network = group.agree(prepare)
        network.decode_as(group.from_first(lambda: options.decoding.choose(begun(), images)))
        asked = options.batch_size
        at_once = group.from_first(lambda: default_batch(network, device, begun()) if asked is None else asked)
        _announce(network, device, group)
        if group.alone or group.from_first(out.exists):  # a whole file is completed by one process
            report = group.from_first(complete)
        else:
            report = extract_in_shards(images, out, group, at_once, choose, fill)
    print_report(out, report)
    return report


def _announce(network: ImageEncoder, device: torch.device, group: Group) -> None:
    """Say which encoder, where it computes, and where its weights come from."""
    processes = "" if group.alone else f", {group.size} processes"
    console.print(
        f"{network.name} {network.layer} at {network.image_size} px: {network.regions} regions of {network.channels} "
        f"channels, on {device.type}{processes}\n{network.weights_origin}",
    )
    highest = network.preparation.decoding.highest
    if highest and (said := ranges(highest)):
        console.print(f"Range of values that become black to white: {said}")


def _for_all(group: Group, command: str) -> str:
    """The command as it starts as many processes."""
    return command if group.alone or not command else f"torchrun --nproc-per-node {group.size} -m {command}"


def decoding_threads() -> int:
    """How many threads decode by default: this process's share of the machine's cores, 2 to `MOST_THREADS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(2, cores // local_processes()), MOST_THREADS)


def print_report(out: Path, report: ExtractReport) -> None:
    """What was done, where the time went, and what could not be read."""
    rate = f" ({report.encoded / report.seconds:,.1f} images/s)" if report.encoded else ""
    console.print(
        f"{out}: {report.extracted_now:,} images now, {report.already_done:,} before, of {report.images:,}{rate}",
    )
    if report.encoded:
        console.print(report.times())
    for _, reason in report.unreadable:  # which names the file
        console.print(f"not readable, left out: {reason}")
    if report.one_colour:
        console.print(
            f"{len(report.one_colour):,} images come out (almost) one colour: {name_first(report.one_colour)}",
        )
    if report.unreadable:
        console.print(
            "Training on these images is refused until they are replaced and extracted with the same command."
        )


def precision_for(
    out: Path, images: ImageTable, encoder: ImageEncoder, batch_size: int, options: ExtractOptions
) -> Precision:
    """How the cache was begun, or else what a measurement chooses.

    Raises:
        InputError: images are missing, or the cache was begun otherwise than is asked for.
    """
    require_files(images)
    if not out.exists():
        paths = list(dict.fromkeys(images.paths))
        chosen = choose_precision(encoder, paths, batch_size, options.number_type, options.compiled)
        return chosen.on(next(encoder.parameters()).device)
    begun = Precision.of_cache(FeatureCache(out).attributes)
    if options.number_type not in (AUTO, begun.number_type) or options.compiled not in (None, begun.compiled):
        asked = options.number_type + {None: "", True: ", compiled", False: ", not compiled"}[options.compiled]
        raise InputError(
            f"{out}: was begun with an encoder in {begun}, asked for {asked}; "
            f"leave the choice to the cache, choose another --out, or remove it"
        )
    console.print(f"Encoder: {begun}, as {out} was begun")
    return begun
