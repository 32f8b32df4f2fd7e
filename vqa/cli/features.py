"""`vqa features …`"""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from vqa.cli.options import (
    AllowCode,
    ColumnsOption,
    DataOption,
    EncodedAtOnce,
    FormatOption,
    Precision,
    WhereOption,
    table_options,
)
from vqa.errors import InputError
from vqa.progress import console

features_app = typer.Typer(no_args_is_help=True, help="Compute image features once, into an HDF5 cache.")


Resize = Literal["squash", "centre-crop", "letterbox", "weights"]
Stored = Literal["float16", "int8"]
Geometry = Literal["boxes", "channels"]


@features_app.command(
    "extract",
    epilog="Example: vqa features extract --data data/vqa_v2 --format vqa_v2 --split train --encoder vgg16 "
    "--layer pool5 --image-size 448 --weights imagenet --out features_cache/vqa_v2_vgg16_pool5_448_train.h5",
)
def extract(
    data: DataOption,
    format: FormatOption,
    split: Annotated[list[str], typer.Option(help="train, val, test, …; give it again for more splits in one file.")],
    out: Annotated[Path, typer.Option(help="The HDF5 cache to write, by custom in features_cache/.")],
    encoder: Annotated[str, typer.Option(help="A torchvision name, hf:NAME, detector:NAME, module:Class.")] = "vgg16",
    layer: Annotated[str | None, typer.Option(help="fc7, pool5, …, any node, patches, box_head:36.")] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Images are resized to this side, in pixels.", min=16, show_default="224, or the weights'"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Published weights, random, or a file.", show_default="imagenet; hf: pretrained; detector: coco"
        ),
    ] = None,
    batch_size: EncodedAtOnce = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads that decode images.", min=1, show_default="the cores, 2 to 16")
    ] = None,
    resize: Annotated[
        Resize, typer.Option(help="How an image becomes square; weights: as torchvision's transforms of them do it.")
    ] = "squash",
    resize_to: Annotated[
        int | None,
        typer.Option(help="With centre-crop: scale the shorter edge to this first.", min=16, show_default="off"),
    ] = None,
    scaled_decoding: Annotated[
        bool, typer.Option(help="Let JPEG decoding scale large images down: faster, pixels differ slightly.")
    ] = False,
    background: Annotated[
        str | None,
        typer.Option(
            help="Under transparent images: white, black, #rrggbb; none drops the alpha channel.", show_default="white"
        ),
    ] = None,
    range: Annotated[
        str | None,
        typer.Option(
            help="Values of 16-bit and float images that become white: auto (the largest among these images), full "
            "(of the type), or a cache to decode as: its range and background.",
            show_default="auto",
        ),
    ] = None,
    geometry: Annotated[
        Geometry, typer.Option(help="Of a detector. Channels: add each box's place as six channels, too.")
    ] = "boxes",
    dtype: Annotated[Stored, typer.Option(help="What is stored; int8 is half the size.")] = "float16",
    precision: Annotated[Precision, typer.Option(help="What the encoder computes in; auto measures.")] = "auto",
    compile: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the encoder.", show_default="if it pays")
    ] = None,
    columns: ColumnsOption = None,
    where: WhereOption = None,
) -> None:
    """Run an image encoder over every image of a data set once; goes on where an earlier call stopped.

    Several processes share the work with torchrun --nproc-per-node 2 -m vqa features extract …: each fills a shard
    beside --out, and the shards become one file. Run the same command again where a process was lost.
    """
    from vqa.features.extraction.dataset import DecodingOptions, EncoderOptions, ExtractOptions, extract_dataset

    chosen = EncoderOptions(encoder, layer, image_size, weights, resize, scaled_decoding, resize_to)
    chosen = chosen.with_geometry() if geometry == "channels" else chosen
    command, decoding = shlex.join(["vqa", *sys.argv[1:]]), DecodingOptions(background, range)
    options = ExtractOptions(precision, compile, dtype, batch_size, workers, command, decoding)
    report = extract_dataset(data, format, split, out, chosen, options, table_options(columns, where))
    if report.unreadable:
        raise typer.Exit(2)


@features_app.command(
    "check",
    epilog="Example: vqa features check features_cache/vqa_v2_vgg16_fc7.h5 --data data/vqa_v2 --format vqa_v2 "
    "--split train --sample 32",
)
def check_features(
    cache: Annotated[Path, typer.Argument(help="A feature cache.")],
    data: DataOption,
    format: FormatOption,
    split: Annotated[list[str], typer.Option(help="train, val, test, …; give it again for more splits.")],
    sample: Annotated[int, typer.Option(help="Images to extract again.", min=1)] = 16,
    weights: Annotated[str | None, typer.Option(help="Where the encoder's weights are, if they were moved.")] = None,
    allow_code: AllowCode = False,
    columns: ColumnsOption = None,
    where: WhereOption = None,
) -> None:
    """Extract a sample of a cache's images again and compare; exit status 1 where they differ."""
    from vqa.features.extraction.dataset import check_dataset

    table = table_options(columns, where)
    rows = check_dataset(cache, data, format, split, weights=weights, sample=sample, allow_code=allow_code, table=table)
    if any(row.problem for row in rows):
        raise typer.Exit(1)


@features_app.command("info", epilog="Example: vqa features info features_cache/vqa_v2_vgg16_fc7.h5")
def info(cache: Annotated[Path, typer.Argument(help="A feature cache.")]) -> None:
    """Print what a cache holds: encoder, layer, weights, preprocessing, images, sizes."""
    from vqa.features.extraction.check import describe_cache

    console.print_json(data=describe_cache(cache))


@features_app.command(
    "import",
    epilog="Example: vqa features import trainval_resnet101_faster_rcnn_genome_36.tsv --from bottom-up-attention "
    "--out features_cache/bottom_up_36.h5",
)
def import_peer(
    files: Annotated[
        list[Path], typer.Argument(help="The other project's files, or folders of them (openvqa, arrays).")
    ],
    layout: Annotated[
        str,
        typer.Option("--from", help="arrays, bottom-up-attention, hengyuan-hu, openvqa, cyanogenoid or vqa-lstm-cnn."),
    ],
    out: Annotated[Path, typer.Option(help="The HDF5 cache to write, by custom in features_cache/.")],
    boxes: Annotated[
        int | None, typer.Option(help="Regions an image; by default as many as the image with most has.")
    ] = None,
    geometry: Annotated[Geometry, typer.Option(help="Channels: add each box's place as six channels, too.")] = "boxes",
    dtype: Annotated[Stored, typer.Option(help="What is stored; int8 is half the size.")] = "float16",
    data: Annotated[Path | None, typer.Option(help="Name the images as this data set does.")] = None,
    format: Annotated[str | None, typer.Option(help="How that data set is laid out, e.g. vizwiz or table.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Splits of that data set.")] = None,
    columns: ColumnsOption = None,
    where: WhereOption = None,
) -> None:
    """Take features that another project published into a cache; goes on where an earlier call stopped."""
    from vqa.data.formats import image_table
    from vqa.features.cache.imports import import_features

    if data is None and format is None and not split:
        names: tuple[str, ...] = ()
    elif data is None or format is None or not split:
        raise InputError("give --data, --format and --split together: they say how the images are named")
    else:
        names = image_table(data, format, split, table_options(columns, where)).ids
    command = shlex.join(["vqa", *sys.argv[1:]])
    report = import_features(
        layout, files, out, boxes=boxes, geometry=geometry, dtype=dtype, names=names, command=command
    )
    console.print(
        f"{out}: {report.imported_now:,} images now, of {report.images:,}, in {report.seconds:.1f} s; "
        f"{report.repeated:,} that came twice, the same, were taken once"
    )


@features_app.command(
    "fisher",
    epilog="Example: vqa features fisher features_cache/vqa_v2_vgg16_conv5_3_448.h5 --out features_cache/fisher.h5 "
    "--data data/vqa_v2 --format vqa_v2 --split train",
)
def fisher(
    cache: Annotated[Path, typer.Argument(help="A cache with several regions an image.")],
    out: Annotated[Path, typer.Option(help="The HDF5 cache to write: one Fisher vector an image.")],
    components: Annotated[int, typer.Option(help="Components of the Gaussian mixture.", min=1)] = 16,
    dimensions: Annotated[int, typer.Option(help="Principal components of the descriptors.", min=1)] = 64,
    seed: Annotated[int, typer.Option(help="Of the sample and of the mixture's start.", min=0, max=2**32 - 1)] = 0,
    sample: Annotated[int, typer.Option(help="Descriptors that the fit looks at.", min=1)] = 100_000,
    data: Annotated[Path | None, typer.Option(help="Fit on the images of this data set's splits alone.")] = None,
    format: Annotated[str | None, typer.Option(help="How that data set is laid out, e.g. vqa_v2.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Splits of that data set to fit on, usually train.")] = None,
    columns: ColumnsOption = None,
    where: WhereOption = None,
    like: Annotated[
        Path | None, typer.Option(help="Take the parameters of this Fisher cache instead of fitting.")
    ] = None,
) -> None:
    """Turn a cache of convolutional maps into Fisher vectors; goes on where an earlier call stopped."""
    from vqa.features.extraction.fisher_cache import FisherSettings, fisher_cache

    options = table_options(columns, where)
    settings = FisherSettings(components, dimensions, seed, sample, data, format, tuple(split or ()), options)
    now = fisher_cache(cache, out, settings, like=like, command=shlex.join(["vqa", *sys.argv[1:]]))
    console.print(f"{out}: {now:,} Fisher vectors now")
