"""Commands about experiments: `vqa demo`, `train`, `ablate`, `describe`, `recipes`."""

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vqa.cli.assignments import OverridingCommand
from vqa.cli.options import DryRun, JsonOption, Overrides
from vqa.errors import InputError
from vqa.progress import console

experiments_app = typer.Typer()
recipes_app = typer.Typer(help="List the experiments and ablations that come with vqa, or copy one.")
experiments_app.add_typer(recipes_app, name="recipes")


def sweep_option(help: str, **settings: Any) -> Any:
    """An option of `vqa ablate` for sweeps of Weights & Biases, in a panel of its own."""
    return typer.Option(help=help, rich_help_panel="As a sweep of Weights & Biases", **settings)


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


@experiments_app.command(
    cls=OverridingCommand, epilog="Example: vqa train san data.root=data/vqa_v1 --training.epochs=10 seed=1 --dry-run"
)
def train(
    experiment: ExperimentArgument,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Train one model; the run lands in experiments/runs/<name>/<seed>."""
    from vqa.runs.repeat import changed_since
    from vqa.studies.sweep import is_trial, read_training
    from vqa.training.outside import code_of_run
    from vqa.training.train import train as train_experiment

    command = shlex.join(["vqa", "train", str(experiment), *(overrides or []), "--resume"])
    plan = read_training(experiment, overrides or [])
    if dry_run:
        from vqa.planning.dry_run import print_dry_run

        print_dry_run(plan)
        return
    for line in changed_since(experiment):
        console.print(f"note: {line}")
    folder = train_experiment(plan, resume=resume or is_trial(), command=command)
    permission = " --allow-code" if code_of_run(plan) else ""
    validated = plan.data.val is not None or plan.data.held_out is not None
    split = "" if validated else f" --split {plan.data.test or 'SPLIT'}"
    console.print(f"run: {folder.path}\nnext: vqa evaluate {shlex.quote(str(folder.path))}{split}{permission}")


@experiments_app.command(cls=OverridingCommand, epilog="Example: vqa ablate fusion training.epochs=5 --workers 2")
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
    dry_run: DryRun = False,
    sweep: Annotated[
        Path | None, sweep_option("Write a W&B sweep file of the grid and its ranges instead: sweep.yaml.")
    ] = None,
    method: Annotated[
        Literal["grid", "random", "bayes"] | None, sweep_option("How W&B chooses.", show_default="random with ranges")
    ] = None,
    trials: Annotated[int | None, sweep_option("The most trials.", min=1, show_default="20, a grid: all")] = None,
    swept: Annotated[
        str | None, sweep_option("Print the tables of this sweep's trials instead.", metavar="SWEEP_ID")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Run a grid of experiments over several seeds, skipping what is done, and print the tables.

    Any number of these may run the same file at once, on one machine or on several that share a disk: each takes runs
    that nobody has, and goes on with those of a process that was killed. Slurm runs eight of them with:

    vqa ablate fusion --launcher slurm --workers 8 --slurm partition=gpu --slurm time=4:00:00 --slurm gpus_per_node=1
    """
    from vqa.tables import print_table

    if sweep is not None:
        from vqa.studies.sweep import write_sweep

        write_sweep(ablation, overrides or [], sweep, method, trials)
        return
    if swept is not None:
        from vqa.studies.sweep import tables_of_sweep

        for table in tables_of_sweep(ablation, swept, overrides or [], json):
            print_table(table)
        return
    if method is not None or trials is not None:
        raise InputError("--method and --trials are for --sweep FILE.yaml, which writes a sweep of W&B")
    if dry_run:
        _print_dry_ablation(ablation, overrides or [])
        return
    from vqa.studies.launch import Launch, launch

    how = Launch(workers, launcher, slurm or [], together, not no_wait, table_only)
    for table in launch(ablation, overrides or [], json, how):
        print_table(table)


def _print_dry_ablation(ablation: Path, overrides: list[str]) -> None:
    from vqa.planning.dry_run import print_dry_ablation
    from vqa.studies.grid import read_ablation

    file, cells = read_ablation(ablation, overrides)
    print_dry_ablation(file.name, [(cell.label, cell.experiments) for cell in cells])


@experiments_app.command(
    cls=OverridingCommand, epilog="Example: vqa describe san fusion.hops=3, or vqa describe --schema vqa.schema.json"
)
def describe(
    experiment: Annotated[
        Path | None, typer.Argument(help="An experiment file, or the name of a recipe.", show_default=False)
    ] = None,
    overrides: Overrides = None,
    words: Annotated[int | None, typer.Option(help="Words of the question vocabulary.", min=2)] = None,
    answers: Annotated[int | None, typer.Option(help="Answers of the vocabulary.", min=1)] = None,
    tokens: Annotated[int | None, typer.Option(help="Words in a question.", min=1)] = None,
    regions: Annotated[int | None, typer.Option(help="Regions an image.", min=1)] = None,
    channels: Annotated[int | None, typer.Option(help="Channels a region.", min=1)] = None,
    questions: Annotated[int | None, typer.Option(help="Training questions.", min=1)] = None,
    images: Annotated[int | None, typer.Option(help="Images of all splits in use.", min=1)] = None,
    schema: Annotated[
        Path | None, typer.Option(help="Instead write a JSON Schema of experiment files, for editors: FILE.json or -.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Print a model's equations, shapes, parameters, FLOPs, memory and steps; nothing is trained.

    Sizes that are not given come from the data set and the feature cache where they are at hand, else from
    publications or an assumption; each line says which.
    """
    if schema is not None:
        from vqa.studies.schema import write_schema

        write_schema(schema)
        return
    if experiment is None:
        raise InputError("give an experiment file or the name of a recipe, or --schema FILE.json")
    from vqa.experiment import read_experiment
    from vqa.planning.show import write_description
    from vqa.planning.sizes import SizeOptions

    given = SizeOptions(words, answers, tokens, regions, channels, questions, images)
    write_description(read_experiment(experiment, overrides or []), given, json)


@experiments_app.command(epilog="Example: vqa runs --name 'san*' --state died --state running")
def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look, folders in it included.")] = Path("experiments/runs"),
    name: Annotated[str | None, typer.Option(help="Only names like this, seed last: 'san*', '*/0'.")] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Only in this state: running, died, done, new or damaged.")
    ] = None,
    sort: Annotated[
        Literal["name", "state", "val", "epochs", "time", "newest"], typer.Option(help="Numbers go greatest first.")
    ] = "name",
    json: JsonOption = None,
) -> None:
    """List what was run: state (running, died, done, new), epochs, best validation accuracy, evaluations, time."""
    from vqa.runs.list import list_runs

    list_runs(folder, name=name, states=state or (), sort=sort, json_file=json)


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
