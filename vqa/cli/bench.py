"""`vqa bench …`"""

from typing import Annotated, Literal

import typer

from vqa.cli.options import AgainstOption, Device, EncodedAtOnce, JsonOption, Precision, finite

bench_app = typer.Typer(no_args_is_help=True, help="Measure this machine, beside baselines and bounds.")

Repeat = Annotated[int, typer.Option(help="Measure this often; the median is shown.", min=1)]


@bench_app.command("data", epilog="Example: vqa bench data --questions 50000")
def bench_data(
    questions: Annotated[
        int, typer.Option(help="Questions to generate; by default as many as VQA v2 train has.", min=1)
    ] = 443_757,
    repeat: Repeat = 3,
    json: JsonOption = None,
    against: AgainstOption = None,
) -> None:
    """Measure time and memory of reading a large split, first and second time, beside json.load."""
    from vqa.bench.gate import conclude
    from vqa.bench.reading import bench_reading

    conclude(bench_reading(questions, repeat), json_file=json, against=against)


@bench_app.command("score", epilog="Example: vqa bench score --questions 50000")
def bench_score(
    questions: Annotated[
        int, typer.Option(help="Questions to generate; by default as many as VQA v2 val has.", min=1)
    ] = 214_354,
    repeat: Repeat = 3,
    json: JsonOption = None,
    against: AgainstOption = None,
) -> None:
    """Measure time and memory of scoring a large split, from files and from arrays, beside json.load."""
    from vqa.bench.gate import conclude
    from vqa.bench.scoring import bench_scoring

    conclude(bench_scoring(questions, repeat), json_file=json, against=against)


@bench_app.command("extract", epilog="Example: vqa bench extract --encoder vgg16 --layer fc7 --images 512")
def bench_extract(
    encoder: Annotated[str, typer.Option(help="Whose extraction to measure, with random weights.")] = "vgg16",
    layer: Annotated[str | None, typer.Option(help="fc7, pool5, … or the name of a torchvision node.")] = None,
    image_size: Annotated[int, typer.Option(help="Images are resized to this side, in pixels.", min=16)] = 224,
    images: Annotated[int, typer.Option(help="JPEG images of 640x480 to generate.", min=2)] = 192,
    batch_size: EncodedAtOnce = None,
    workers: Annotated[int, typer.Option(help="Threads that decode images.", min=1)] = 2,
    scaled_decoding: Annotated[
        bool, typer.Option("--scaled-decoding", help="Let JPEG decoding scale images down.")
    ] = False,
    compile: Annotated[bool, typer.Option(help="Measure compiled encoders too.")] = True,
    json: JsonOption = None,
    against: AgainstOption = None,
) -> None:
    """Measure decoding, encoder and writing, alone and together: rates, and shares of what bounds them."""
    from vqa.bench.extraction import ExtractionOptions, bench_extraction
    from vqa.bench.gate import conclude

    options = ExtractionOptions(encoder, layer, image_size, images, batch_size, workers, scaled_decoding, compile)
    conclude(bench_extraction(options), json_file=json, against=against)


@bench_app.command("train", epilog="Example: vqa bench train --part data --part product")
def bench_train(
    questions: Annotated[
        int | None,
        typer.Option(help="Questions to generate; by default 40,000, on a GPU as many as VQA v2 train.", min=1),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = "auto",
    part: Annotated[
        list[str] | None, typer.Option(help="data, product, san, images, memory; by default all of them.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Questions a training step.", min=2)] = 512,
    seconds: Annotated[
        float, typer.Option(help="Spent on each measurement.", min=0.1, max=3600, callback=finite)
    ] = 4.0,
    json: JsonOption = None,
    against: AgainstOption = None,
) -> None:
    """Measure data path and training step beside baselines and the machine's bounds, as ratios of one run."""
    from vqa.bench.gate import conclude
    from vqa.bench.training import TRAINING_PARTS, TrainingOptions, bench_training

    options = TrainingOptions(questions, device, tuple(part or TRAINING_PARTS), batch_size, seconds)
    conclude(bench_training(options), json_file=json, against=against)


@bench_app.command("epoch", epilog="Example: vqa bench epoch --questions 443757 --val-questions 214354")
def bench_epoch(
    model: Annotated[Literal["product", "san"], typer.Option(help="Product on fc7, or stacked attention.")] = "product",
    questions: Annotated[int, typer.Option(help="Questions to train on; VQA v2 has 443,757.", min=2)] = 5000,
    val_questions: Annotated[int, typer.Option(help="Questions to validate on; VQA v2 has 214,354.", min=1)] = 2000,
    regions: Annotated[int | None, typer.Option(help="Regions an image.", min=1, show_default="1; 49 for san")] = None,
    channels: Annotated[
        int | None, typer.Option(help="Channels a region.", min=1, show_default="4096; 512 for san")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Questions a training step, of both ways.", min=2)] = 512,
    epochs: Annotated[int, typer.Option(help="Of ours; the last one is reported.", min=1)] = 1,
    workers: Annotated[int, typer.Option(help="Processes of the usual way's DataLoader.", min=0, max=1024)] = 2,
    device: Annotated[Device, typer.Option(help="Where to train.")] = "auto",
    seconds: Annotated[float, typer.Option(help="Spent on the usual way.", min=0.1, max=3600, callback=finite)] = 4.0,
    json: JsonOption = None,
    against: AgainstOption = None,
) -> None:
    """Measure a whole epoch of `vqa train`, reading and validation included, beside the usual way."""
    from vqa.bench.epoch import EpochOptions
    from vqa.bench.epoch import bench_epoch as measure
    from vqa.bench.gate import conclude

    options = EpochOptions(
        model, questions, val_questions, regions, channels, batch_size, epochs, workers, device, seconds
    )
    conclude(measure(options), json_file=json, against=against)


@bench_app.command("fusions", epilog="Example: vqa bench fusions product stacked_attention mcan --regions 196")
def bench_fusions(
    fusions: Annotated[list[str] | None, typer.Argument(help="Fusions by name; all by default.")] = None,
    batch: Annotated[int, typer.Option("--batch-size", "--batch", help="Questions in a batch.", min=1)] = 256,
    regions: Annotated[int, typer.Option(help="Regions an image.", min=1)] = 49,
    channels: Annotated[int, typer.Option(help="Channels a region.", min=1)] = 512,
    repeat: Repeat = 5,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="What to compute in.")] = "auto",
    json: JsonOption = None,
    against: AgainstOption = None,
) -> None:
    """Measure the training speed of every fusion beside the product's, and what bounds it."""
    from vqa.bench.fusions import FusionSizes, measure_fusions
    from vqa.bench.gate import conclude
    from vqa.runtime.device import choose_machine

    sizes = FusionSizes(batch, regions, channels)
    measured = measure_fusions(fusions or [], sizes, choose_machine(device, precision), repeat)
    conclude(measured.report(), json_file=json, against=against)
