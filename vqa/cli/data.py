"""`vqa data …`"""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vqa.cli.options import (
    ColumnsOption,
    DataArgument,
    FormatOption,
    JsonOption,
    SharesImages,
    Style,
    WhereOption,
    table_options,
)
from vqa.progress import console

data_app = typer.Typer(no_args_is_help=True, help="Generate, fetch, check and plan data sets.")


@data_app.command("generate", epilog="Example: vqa data generate data/synthetic --scenes 2500 --size 112")
def generate(
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    scenes: Annotated[int, typer.Option(help="Images over all splits.", min=1)] = 2500,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.", min=0, max=2**63 - 1)] = 0,
    style: Annotated[Style, typer.Option(help="Photograph-like JPEG, or flat clip-art PNG.")] = "real",
    size: Annotated[int, typer.Option(help="Side of the images in pixels.", min=32)] = 224,
) -> None:
    """Generate a balanced VQA data set of coloured shapes, in the official file formats."""
    from vqa.data.synthetic import generate_dataset

    summary = generate_dataset(out, scenes, seed, style, size)
    console.print_json(data=summary)


@data_app.command("download", epilog="Example: vqa data download vqa_v2 data/vqa_v2")
def download(
    name: Annotated[str, typer.Argument(help="vqa_v2, coco_images, daquar, …; a wrong name lists them all.")],
    out: Annotated[Path, typer.Argument(help="The folder to unpack into.")],
) -> None:
    """Fetch published files: resumed, verified, unpacked, and only what is not there yet."""
    from vqa.data.download import download as fetch

    console.print(f"{len(fetch(name, out)):,} files in {out}")


@data_app.command("get", epilog="Example: vqa data get hub:lmms-lab-encoder/DocVQA:InfographicVQA data/infographics")
def get(
    address: Annotated[str, typer.Argument(help="hub:OWNER/NAME or hub:OWNER/NAME:CONFIGURATION.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
) -> None:
    """Fetch a data set of the Hugging Face hub and make tables and images of it; goes on where it was stopped."""
    from vqa.data.hub.get import get as fetch

    report = fetch(address, out)
    for note in report.notes:
        console.print(note)
    counts = ", ".join(f"{split} {count:,}" for split, count in report.questions.items())
    console.print(f"{out}: questions: {counts}; {report.images:,} images, each once")
    console.print(f"next: vqa data check {shlex.quote(str(out))} --format table")


@data_app.command("check", epilog="Example: vqa data check data/vqa_v2 --format vqa_v2 --images")
def check_data(
    root: DataArgument,
    format: FormatOption,
    images: Annotated[bool, typer.Option("--images", help="Open every image, in parallel.")] = False,
    columns: ColumnsOption = None,
    where: WhereOption = None,
    shares_images: SharesImages = False,
    cache: Annotated[
        list[Path] | None, typer.Option(help="Feature caches: images whose features they have may be missing.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """List all that is wrong with a data set; exit status 1 when `vqa train` would not start on it."""
    from vqa.data.check import CheckOptions
    from vqa.data.check_report import run_check

    caches = []
    if cache:
        from vqa.features.cache.reader import FeatureCache

        caches = [FeatureCache(path) for path in cache]
    options = CheckOptions(images, "published" if shares_images else None, caches, table_options(columns, where))
    if not run_check(root, format, options, json):
        raise typer.Exit(1)


@data_app.command("plan", epilog="Example: vqa data plan data/vqa_v2 --format vqa_v2 --plot plan.png")
def plan(
    root: DataArgument,
    format: FormatOption,
    split: Annotated[
        str | None, typer.Option(help="The split to try answers on; by default val, or a part of train.")
    ] = None,
    columns: ColumnsOption = None,
    where: WhereOption = None,
    plot: Annotated[Path | None, typer.Option(help="Draw answers against accuracy to this PNG, SVG or PDF.")] = None,
    json: JsonOption = None,
) -> None:
    """Show how many answers are worth having, how long questions are, and how large each encoder's features are."""
    from vqa.planning.plan_report import run_plan

    run_plan(root, format, split, table_options(columns, where), plot_file=plot, json_file=json)
