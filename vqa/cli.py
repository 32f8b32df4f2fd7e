"""The command line: each command parses, calls one function and prints. No logic lives here.

Heavy imports stay inside the commands, so that `vqa --help` answers at once.
"""

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vqa.errors import InputError, InterruptedRunError, NonFiniteLossError
from vqa.progress import console, errors

app = typer.Typer(
    name="vqa",
    help="Visual question answering: train, ablate and evaluate fusion models on cached image features.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(no_args_is_help=True, help="Draw, fetch, check and plan data sets.")
features_app = typer.Typer(no_args_is_help=True, help="Compute image features once, into an HDF5 cache.")
bench_app = typer.Typer(no_args_is_help=True, help="What this machine reaches, beside the usual way.")
app.add_typer(data_app, name="data")
app.add_typer(features_app, name="features")
app.add_typer(bench_app, name="bench")


class Style(StrEnum):
    """How a drawn data set looks."""

    real = "real"
    abstract = "abstract"


class TaskChoice(StrEnum):
    """Which of the two official tasks."""

    open_ended = "open-ended"
    multiple_choice = "multiple-choice"
    both = "both"


class ProtocolChoice(StrEnum):
    """Which version of the official metric."""

    new = "2021"
    old = "2015"


JsonOption = Annotated[Path | None, typer.Option("--json", help="Also write the table's numbers to this file.")]
ProtocolOption = Annotated[
    ProtocolChoice, typer.Option(help="Official metric: 2021 (since commit a013f00) or 2015 (before).")
]
Caches = Annotated[list[Path] | None, typer.Option("--cache", help="Feature caches, if not the experiment's.")]
DataOption = Annotated[Path, typer.Option(help="The data set's folder.")]
FormatOption = Annotated[str, typer.Option(help="How the data set is laid out, e.g. vqa_v2.")]
DataArgument = Annotated[Path, typer.Argument(help="The data set's folder.")]
WordNet = Annotated[
    Path | None, typer.Option(help="Folder of nltk's WordNet corpus: WUPS for sets with one answer a question.")
]
AllowSeen = Annotated[
    bool, typer.Option("--allow-seen", help="Allow questions and pictures it was trained on; every number says so.")
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Change single keys.")]


@app.command(epilog="Example: vqa demo --out experiments/runs/demo")
def demo(
    out: Annotated[Path, typer.Option(help="Where the pictures, runs and the report go.")] = Path(
        "experiments/runs/demo"
    ),
    scenes: Annotated[int, typer.Option(help="Pictures to draw.", min=50)] = 3000,
    seed: Annotated[int, typer.Option(help="Seed of the drawn set and of training.", min=0)] = 0,
) -> None:
    """Draw a data set, extract features, train four models, evaluate both tasks and write a report."""
    from vqa.demo import run_demo

    run_demo(out, scenes, seed)


@data_app.command("draw", epilog="Example: vqa data draw data/drawn --scenes 2500 --seed 0 --style real --size 112")
def draw(
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    scenes: Annotated[int, typer.Option(help="Pictures over all splits.", min=1)] = 2500,
    seed: Annotated[int, typer.Option(help="The same seed draws the same bytes.", min=0)] = 0,
    style: Annotated[Style, typer.Option(help="Photograph-like JPEG, or flat clip-art PNG.")] = Style.real,
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.", min=32)] = 224,
) -> None:
    """Draw a balanced VQA data set of coloured shapes, in the official file formats."""
    from vqa.data.draw import draw_dataset

    summary = draw_dataset(out, scenes, seed, style.value, size)
    console.print_json(data=summary)


@data_app.command("download", epilog="Example: vqa data download vqa_v2 data/vqa_v2")
def download(
    name: Annotated[str, typer.Argument(help="vqa_v2, coco_pictures, daquar, …; a wrong name lists them all.")],
    out: Annotated[Path, typer.Argument(help="The folder to unpack into.")],
) -> None:
    """Fetch published files: resumed, verified, unpacked, and only what is not there yet."""
    from vqa.data.download import download as fetch

    console.print(f"{len(fetch(name, out)):,} files in {out}", markup=False)


@data_app.command("check", epilog="Example: vqa data check data/vqa_v2 --format vqa_v2 --pictures")
def check_data(
    root: DataArgument,
    format: FormatOption,
    pictures: Annotated[bool, typer.Option("--pictures", help="Open every picture, in parallel.")] = False,
    json: JsonOption = None,
) -> None:
    """Everything that is wrong with a data set; exit status 1 when it should not be trained on."""
    from vqa.data.check_report import run_check

    if not run_check(root, format, pictures=pictures, json_file=json):
        raise typer.Exit(1)


@data_app.command("plan", epilog="Example: vqa data plan data/vqa_v2 --format vqa_v2 --plot plan.png")
def plan(
    root: DataArgument,
    format: FormatOption,
    split: Annotated[str | None, typer.Option(help="Where to try answers; by default val, or part of train.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw answers against accuracy to this PNG, SVG or PDF.")] = None,
    json: JsonOption = None,
) -> None:
    """How many answers are worth having, how long questions are, and what each encoder's features take."""
    from vqa.features.plan_report import run_plan

    run_plan(root, format, split, plot_file=plot, json_file=json)


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
    encoder: Annotated[str, typer.Option(help="vgg16, or any torchvision classification model.")] = "vgg16",
    layer: Annotated[str | None, typer.Option(help="fc7, pool5, … or the name of a torchvision node.")] = None,
    image_size: Annotated[int, typer.Option(help="Pictures are resized to this side, in pixels.", min=16)] = 224,
    weights: Annotated[str, typer.Option(help="imagenet, random, or a local weights file.")] = "imagenet",
    batch_size: Annotated[int, typer.Option(help="Pictures encoded at once.", min=1)] = 32,
    workers: Annotated[int, typer.Option(help="Threads that decode pictures.", min=1)] = 2,
) -> None:
    """Run an image encoder over every picture of a data set once; goes on where an earlier call stopped."""
    from vqa.features.dataset import extract_dataset

    report = extract_dataset(
        data, format, split, out, encoder=encoder, layer=layer, image_size=image_size, weights=weights,
        batch_size=batch_size, workers=workers, command=shlex.join(["vqa", *sys.argv[1:]]),
    )  # fmt: skip
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
    sample: Annotated[int, typer.Option(help="Pictures to extract again.", min=1)] = 16,
    weights: Annotated[str | None, typer.Option(help="The encoder's weights, if not where they were.")] = None,
) -> None:
    """Extract a sample of a cache's pictures again and compare; status 1 where they differ."""
    from vqa.features.dataset import check_dataset

    rows = check_dataset(cache, data, format, split, weights=weights, sample=sample)
    if any(row.problem for row in rows):
        raise typer.Exit(1)


@features_app.command("info", epilog="Example: vqa features info features_cache/vqa_v2_vgg16_fc7.h5")
def info(cache: Annotated[Path, typer.Argument(help="A feature cache.")]) -> None:
    """Print what a cache holds: encoder, layer, weights, preprocessing, pictures, sizes."""
    from vqa.features.check import describe_cache

    console.print_json(data=describe_cache(cache))


@app.command(epilog="Example: vqa train experiments/san.yaml training.epochs=10 seed=1")
def train(
    experiment: Annotated[Path, typer.Argument(help="An experiment file.")],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
) -> None:
    """Train one model; the run lands in experiments/runs/<name>/<seed>."""
    from vqa.training.experiment import read_experiment
    from vqa.training.train import train as train_experiment

    command = shlex.join(["vqa", "train", str(experiment), *(overrides or []), "--resume"])
    folder = train_experiment(read_experiment(experiment, overrides or []), resume=resume, command=command)
    console.print(f"run: {folder.path}\nnext: vqa evaluate {folder.path}")


@app.command(epilog="Example: vqa evaluate experiments/runs/san/0 --split val --slice 'colours=what colou?r'")
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, experiments/runs/<name>/<seed>.")],
    split: Annotated[str, typer.Option(help="train, val, test, or an official split name.")] = "val",
    task: Annotated[TaskChoice, typer.Option(help="Which task.")] = TaskChoice.both,
    protocol: ProtocolOption = ProtocolChoice.new,
    cache: Caches = None,
    allow_seen: AllowSeen = False,
    choices_outside: Annotated[
        bool, typer.Option(help="In multiple choice, pick choices that are no answer of the vocabulary, too.")
    ] = True,
    slice: Annotated[list[str] | None, typer.Option(help="NAME=REGEX: report these questions on their own.")] = None,
    wordnet: WordNet = None,
    json: JsonOption = None,
) -> None:
    """Accuracy beside floor and ceiling, official results files, and report.html in the run folder."""
    from vqa.training.evaluate import evaluate_run, print_evaluation

    evaluation = evaluate_run(
        run, split, task=task.value, protocol=protocol.value, caches=cache or (), allow_seen=allow_seen,
        choices_outside=choices_outside, slices=slice or (), wordnet=wordnet, json_file=json,
    )  # fmt: skip
    print_evaluation(evaluation)


@app.command(epilog="Example: vqa submit experiments/runs/san/0 --split test-dev")
def submit(
    run: Annotated[Path | None, typer.Argument(help="A run folder, experiments/runs/<name>/<seed>.")] = None,
    split: Annotated[str, typer.Option(help="test, test-dev, or another official split name.")] = "test",
    task: Annotated[TaskChoice, typer.Option(help="Which task.")] = TaskChoice.both,
    cache: Caches = None,
    allow_seen: AllowSeen = False,
    check: Annotated[Path | None, typer.Option(help="Check this results file or zip instead of making one.")] = None,
    questions: Annotated[Path | None, typer.Option(help="The official questions file, for --check.")] = None,
) -> None:
    """Pack a run's answers for the challenge's server, checked: all ids, allowed answers, official name, zip."""
    from vqa.training.submit import submit as submit_answers

    submit_answers(
        run, split, task=task.value, caches=cache or (), allow_seen=allow_seen, check=check, questions=questions
    )


@app.command(
    epilog="Example: vqa score results.json --questions v2_OpenEnded_mscoco_val2014_questions.json "
    "--annotations v2_mscoco_val2014_annotations.json"
)
def score(
    results: Annotated[Path, typer.Argument(help="A results file in the official format.")],
    questions: Annotated[Path, typer.Option(help="The question file, open-ended or multiple-choice.")],
    annotations: Annotated[Path, typer.Option(help="The annotation file.")],
    protocol: ProtocolOption = ProtocolChoice.new,
    json: JsonOption = None,
) -> None:
    """Score any results file by the official metric."""
    from vqa.evaluation.score_files import print_score, score_files

    print_score(score_files(results, questions, annotations, protocol.value, json_file=json), results.name)


@app.command(
    "score-wups",
    epilog="Example: vqa score-wups results.json --data data/daquar --format daquar --split test "
    "--wordnet ~/nltk_data/corpora/wordnet",
)
def score_wups(
    results: Annotated[Path, typer.Argument(help="A results file in the official format, with vqa's question ids.")],
    data: DataOption,
    format: FormatOption,
    split: Annotated[str, typer.Option(help="train, val, test, or an official split name.")] = "test",
    wordnet: WordNet = None,
    json: JsonOption = None,
) -> None:
    """WUPS at 0.9 and 0.0 and list accuracy of a results file, for DAQUAR, COCO-QA and other sets with one answer."""
    from vqa.evaluation.terminal import print_table
    from vqa.evaluation.wups_report import score_wups as score_near

    print_table(score_near(results, data, format, split, wordnet, json_file=json).table())


@app.command(epilog="Example: vqa ablate experiments/ablations/fusion.yaml training.epochs=5")
def ablate(
    ablation: Annotated[Path, typer.Argument(help="An ablation file: a base experiment, a grid, seeds.")],
    overrides: Overrides = None,
    json: JsonOption = None,
) -> None:
    """Run a grid of experiments over several seeds, skipping what is done, and print the table."""
    from vqa.ablation import ablate as run_ablation
    from vqa.evaluation.terminal import print_table

    print_table(run_ablation(ablation, overrides or [], json_file=json))


@app.command(
    epilog="Example: vqa predict experiments/runs/san/0 photo.jpg 'what color is the bus?' --attention out.png"
)
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, experiments/runs/<name>/<seed>.")],
    image: Annotated[Path, typer.Argument(help="Any picture.")],
    question: Annotated[str, typer.Argument(help="A question about it.")],
    choices: Annotated[
        list[str] | None, typer.Option("--choices", help="Choose among these; repeat the option.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="The encoder's weights, if not where they were.")] = None,
    attention: Annotated[Path | None, typer.Option(help="Write where the model looked to this PNG.")] = None,
    json: JsonOption = None,
) -> None:
    """Ask a trained run one question about one picture."""
    from vqa.answerer import Answerer, print_answer

    answer = Answerer.load(run, weights=weights).answer(image, question, choices=choices or None)
    print_answer(answer, attention=attention, json_file=json)


@bench_app.command("data", epilog="Example: vqa bench data --questions 50000")
def bench_data(
    questions: Annotated[int, typer.Option(help="Questions to make up; the default is VQA v2 train.", min=1)] = 443_757,
    repeat: Annotated[int, typer.Option(help="Measure this often; the median is shown.", min=1)] = 3,
    json: JsonOption = None,
) -> None:
    """Time and memory of reading a large split, first and second time, beside json.load."""
    from vqa.evaluation.bench import print_reading_bench

    print_reading_bench(questions, repeat, json_file=json)


@bench_app.command("score", epilog="Example: vqa bench score --questions 50000")
def bench_score(
    questions: Annotated[int, typer.Option(help="Questions to make up; the default is VQA v2 val.", min=1)] = 214_354,
    repeat: Annotated[int, typer.Option(help="Measure this often; the median is shown.", min=1)] = 3,
    json: JsonOption = None,
) -> None:
    """Time and memory of scoring a large split, from files and from arrays, beside json.load of its annotations."""
    from vqa.evaluation.bench import print_scoring_bench

    print_scoring_bench(questions, repeat, json_file=json)


def main() -> None:
    """Run the command line: exit status 2 and one message on bad input, without a traceback."""
    # torch's CPU threads wait for each other by spinning. Where another program wants a core too, that made training 40
    # times slower here; waiting only briefly costs at most 7% on a quiet machine. Read when torch is first imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except InputError as error:
        errors.print(f"vqa: {error}", markup=False)
        sys.exit(2)
    except NonFiniteLossError as error:
        errors.print(f"vqa: {error}", markup=False)
        sys.exit(1)
    except InterruptedRunError as error:
        errors.print(f"vqa: {error}", markup=False)
        sys.exit(130)
