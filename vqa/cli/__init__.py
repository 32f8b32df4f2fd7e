"""The command line: each command parses, calls one function and prints. No logic lives here.

Heavy imports stay inside the commands, so that `vqa --help` answers at once.
"""

import os
import sys
from typing import Annotated

import typer

import vqa
from vqa.cli.answers import answers_app
from vqa.cli.bench import bench_app
from vqa.cli.data import data_app
from vqa.cli.experiments import experiments_app
from vqa.cli.features import features_app
from vqa.errors import InputError, InterruptedRunError, NonFiniteLossError, SlowerError
from vqa.progress import console, errors

app = typer.Typer(
    name="vqa",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(experiments_app)
app.add_typer(answers_app)
app.add_typer(data_app, name="data")
app.add_typer(features_app, name="features")
app.add_typer(bench_app, name="bench")


def show_version(asked: bool) -> None:
    """Print the version and end, where it was asked for."""
    if asked:
        console.print(f"vqa {vqa.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Visual question answering: train, ablate and evaluate fusion models on cached image features."""


def main() -> None:
    """Run the command line: exit status 2 and one message on bad input, without a traceback."""
    if sys.platform == "win32":
        errors.print("vqa: runs on Linux and macOS; on Windows, run it in WSL (the Windows Subsystem for Linux)")
        sys.exit(2)
    # torch's CPU threads wait for each other by spinning. Where another program wants a core too, that made training 40
    # times slower here; waiting only briefly costs at most 7% on a quiet machine. Read when torch is first imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except InputError as error:
        errors.print(f"vqa: {error}", markup=False)
        sys.exit(2)
    except (NonFiniteLossError, SlowerError) as error:
        errors.print(f"vqa: {error}", markup=False)
        sys.exit(1)
    except InterruptedRunError as error:
        errors.print(f"vqa: {error}", markup=False)
        sys.exit(130)
