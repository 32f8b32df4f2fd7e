"""The command line: each command parses, calls one function and prints. No logic lives here.

Heavy imports stay inside the commands, so that `vqa --help` answers at once.
"""

import io
import os
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

import vqa
from vqa.cli.answers import answers_app
from vqa.cli.bench import bench_app
from vqa.cli.compare import compare_app
from vqa.cli.data import data_app
from vqa.cli.experiments import experiments_app
from vqa.cli.features import features_app
from vqa.cli.paths import guard_commands_of
from vqa.errors import FailedRunsError, InputError, InterruptedRunError, NonFiniteLossError, SlowerError, shortened
from vqa.progress import console, errors
from vqa.runtime.memory import memory_sentence

app = typer.Typer(
    name="vqa",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(experiments_app)
app.add_typer(answers_app)
app.add_typer(compare_app)
app.add_typer(data_app, name="data")
app.add_typer(features_app, name="features")
app.add_typer(bench_app, name="bench")
guard_commands_of(app)


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
    # A step frees blocks of tens of megabytes and takes them again, and Linux zeroes them page by page: pages of 2 MiB
    # made a training step on a CPU up to 1.1 times as fast. Read when torch first takes memory.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a letter that the terminal's encoding lacks
    try:
        app()
    except (InputError, *STATUS) as error:
        end(str(error), STATUS.get(type(error), 2))
    except BrokenPipeError:  # what reads our output has ended, as `head` does
        _forget_output()
        sys.exit(1)
    except (OSError, MemoryError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        refused = memory_sentence(error)
        if refused is None and isinstance(error, OSError):
            refused = f"{error.filename or 'a file, or standard output'}: {error.strerror or error}"
        if refused is None:
            raise  # a fault of ours, and its traceback
        end(refused, 2)


STATUS = {NonFiniteLossError: 1, FailedRunsError: 1, SlowerError: 1, InterruptedRunError: 130}
LONGEST_LINE = 1_000  # letters of a message, and the most lines of one
MOST_LINES = 60


def end(message: str, status: int) -> NoReturn:
    """Print a message on standard error, within bounds whatever it quotes, and end with an exit status."""
    lines = [shortened(line, LONGEST_LINE) for line in message.split("\n")]
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], f"… and {len(lines) - MOST_LINES:,} lines more"]
    with suppress(OSError):  # nobody reads it, or the disk that it goes to is full
        errors.print("vqa: " + "\n".join(lines))
    try:
        sys.stdout.flush()
    except OSError:
        _forget_output()
    sys.exit(status)


def _forget_output() -> None:
    """Let what standard output still holds go nowhere: Python would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
