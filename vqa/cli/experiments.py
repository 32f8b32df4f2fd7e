"""Commands about experiments: `vqa demo`, `train`, `ablate`, `describe`, `recipes`."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from vqa.cli.options import JsonOption, Overrides
from vqa.progress import console

experiments_app = typer.Typer()
recipes_app = typer.Typer(help="List the experiments and ablations that come with vqa, or copy one.")
experiments_app.add_typer(recipes_app, name="recipes")
ExperimentArgument = Annotated[Path, typer.Argument(help="An experiment file, or the name of a recipe.")]


@experiments_app.command(epilog="Example: vqa demo --out experiments/runs/demo")
def demo(
    out: Annotated[Path, typer.Option(help="Where the images, runs and the report go.")] = Path(
        "experiments/runs/demo"
    ),
    scenes: Annotated[int, typer.Option(help="Images to generate.", min=50)] = 3000,
    seed: Annotated[int, typer.Option(help="Seed of the data and of training.", min=0, max=2**63 - 1)] = 0,
) -> None:
    """Generate synthetic data, extract features, train four models, evaluate both tasks and write a report."""
    from vqa.demo import run_demo

    run_demo(out, scenes, seed)


@experiments_app.command(epilog="Example: vqa train san data.root=data/vqa_v1 training.epochs=10 seed=1")
def train(
    experiment: ExperimentArgument,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
) -> None:
    """Train one model; the run lands in experiments/runs/<name>/<seed>."""
    from vqa.experiment import read_experiment
    from vqa.training.outside import code_of_run
    from vqa.training.train import train as train_experiment

    command = shlex.join(["vqa", "train", str(experiment), *(overrides or []), "--resume"])
    plan = read_experiment(experiment, overrides or [])
    folder = train_experiment(plan, resume=resume, command=command)
    permission = " --allow-code" if code_of_run(plan) else ""
    console.print(f"run: {folder.path}\nnext: vqa evaluate {shlex.quote(str(folder.path))}{permission}")


ABLATE_EXAMPLES = """Examples:

vqa ablate fusion training.epochs=5

vqa ablate fusion --workers 4  (on this machine, a GPU each)

vqa ablate fusion --launcher slurm --workers 8 --slurm partition=gpu --slurm time=4:00:00 --slurm gpus_per_node=1

vqa ablate fusion --table-only
"""


@experiments_app.command(epilog=ABLATE_EXAMPLES)
def ablate(
    ablation: Annotated[
        Path, typer.Argument(help="An ablation file (a base experiment, a grid, seeds), or the name of a recipe.")
    ],
    overrides: Overrides = None,
    together: Annotated[
        bool,
        typer.Option("--together", help="Train runs that see the same batches in one go; see training.order_seed."),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="So many processes; where there are several GPUs, each has one.", min=1, max=1024)
    ] = None,
    launcher: Annotated[
        Literal["slurm", "local"] | None,
        typer.Option(help="Submit the workers as jobs, with submitit: to Slurm, or to this machine to try it out."),
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A parameter of the jobs: partition, time, gpus_per_node, mem, …"),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Leave when nothing is free, though others are still at work.")
    ] = False,
    table_only: Annotated[
        bool, typer.Option("--table-only", help="Run nothing; write and print the tables of what is there.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Run a grid of experiments over several seeds, skipping what is done, and print the tables.

    Any number of these may run the same file at once, on one machine or on several that share a disk: each takes runs
    that nobody has, and goes on with those of a process that was killed.
    """
    from vqa.studies.launch import Launch, launch
    from vqa.tables import print_table

    how = Launch(workers, launcher, slurm or [], together, not no_wait, table_only)
    for table in launch(ablation, overrides or [], json, how):
        print_table(table)


@experiments_app.command(epilog="Example: vqa describe san fusion.hops=3")
def describe(
    experiment: ExperimentArgument,
    overrides: Overrides = None,
    words: Annotated[int | None, typer.Option(help="Words of the question vocabulary.", min=2)] = None,
    answers: Annotated[int | None, typer.Option(help="Answers of the vocabulary.", min=1)] = None,
    tokens: Annotated[int | None, typer.Option(help="Words in a question.", min=1)] = None,
    regions: Annotated[int | None, typer.Option(help="Regions an image.", min=1)] = None,
    channels: Annotated[int | None, typer.Option(help="Channels a region.", min=1)] = None,
    questions: Annotated[int | None, typer.Option(help="Training questions.", min=1)] = None,
    images: Annotated[int | None, typer.Option(help="Images of all splits in use.", min=1)] = None,
    json: JsonOption = None,
) -> None:
    """Print a model's equations, shapes, parameters, FLOPs, memory and steps; nothing is trained.

    Sizes that are not given come from the data set and the feature cache where they are at hand, else from
    publications or an assumption; each line says which.
    """
    from vqa.experiment import read_experiment
    from vqa.planning.show import write_description
    from vqa.planning.sizes import SizeOptions

    given = SizeOptions(words, answers, tokens, regions, channels, questions, images)
    write_description(read_experiment(experiment, overrides or []), given, json)


@recipes_app.callback(invoke_without_command=True, epilog="Example: vqa recipes --json recipes.json")
def recipes(context: typer.Context, json: JsonOption = None) -> None:
    """List the experiments and ablations that come with vqa, with published figures; `copy` makes one yours."""
    from vqa.recipes import list_recipes

    if context.invoked_subcommand is None:
        list_recipes(json)


@recipes_app.command("copy", epilog="Example: vqa recipes copy san mine.yaml")
def copy(
    name: Annotated[str, typer.Argument(help="A name that `vqa recipes` lists.")],
    to: Annotated[Path, typer.Argument(metavar="[DEST]", help="A folder, or a file name in .yaml.")] = Path(),
) -> None:
    """Copy a recipe into the current folder, to be changed; a file that is there already is not written over."""
    from vqa.recipes import copy_recipe

    copy_recipe(name, to)
