"""Options that several commands share."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vqa.errors import InputError

if TYPE_CHECKING:
    from vqa.data.formats.table import TableOptions  # brings NumPy, which `--help` does not need

Style = Literal["real", "abstract"]
Task = Literal["open-ended", "multiple-choice", "both"]
Protocol = Literal["2021", "2015", "harness"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]


def finite(value: float) -> float:
    """Refuse NaN, which every range lets pass."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def stored_benchmark(path: Path | None) -> Path | None:
    """Refuse what is no stored benchmark before anything is measured."""
    from vqa.bench.gate import stored_ratios

    if path is not None:
        stored_ratios(path)
    return path


def table_options(columns: list[str] | None, where: list[str] | None) -> "TableOptions":
    """What `--columns` and `--where` say; several columns, for choices and answers, have commas between them.

    Raises:
        InputError: one is no NAME=VALUE, or names no kind of column.
    """
    from vqa.data.formats.table.names import SEVERAL, TableOptions

    named = dict(_assignment("--columns image=img_name", one) for one in columns or ())
    wanted: dict[str, list[str]] = {}
    for one in where or ():
        name, text = _assignment("--where q_lang=en", one)
        wanted.setdefault(name, []).append(text)  # given again: one of them
    return TableOptions.of(
        {name: text.split(",") if name in SEVERAL and "," in text else text or None for name, text in named.items()},
        wanted,
    )


def _assignment(example: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"{text!r}: write it as in {example}")
    return name.strip(), value.strip()


JsonOption = Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file, as JSON.")]
AgainstOption = Annotated[
    Path | None,
    typer.Option(
        help="A file that --json wrote: exit status 1 where a ratio fell below 0.7 of its.", callback=stored_benchmark
    ),
]
EncodedAtOnce = Annotated[
    int | None,
    typer.Option("--batch-size", help="Images encoded at once.", min=1, max=1_000_000, show_default="32; 8 at 448 px"),
]
TaskOption = Annotated[Task, typer.Option(help="Which of the two tasks, or both.")]
ProtocolOption = Annotated[
    Protocol,
    typer.Option(
        help="Official metric: 2021 (since commit a013f00) or 2015 (before); or that of the evaluation harnesses."
    ),
]
Caches = Annotated[list[Path] | None, typer.Option("--cache", help="Feature caches, if not the experiment's.")]
DataOption = Annotated[Path, typer.Option(help="The data set's folder.")]
FormatOption = Annotated[
    str, typer.Option(help="How its files are laid out: vqa_v2, daquar, table, …; a wrong name lists them all.")
]
ColumnsOption = Annotated[
    list[str] | None,
    typer.Option("--columns", help="Of a table: what is in which column, e.g. image=img_name; give it again for more."),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option("--where", help="Of a table: only rows whose column has this text, e.g. q_lang=en; give it again."),
]
DataArgument = Annotated[Path, typer.Argument(help="The data set's folder.")]
WordNetOption = Annotated[
    Path | None, typer.Option(help="Folder of nltk's WordNet corpus: WUPS for sets with one answer a question.")
]
AllowSeen = Annotated[
    bool, typer.Option("--allow-seen", help="Allow questions and images it was trained on; every number says so.")
]
ExcludeSeen = Annotated[
    bool, typer.Option("--exclude-seen", help="Leave out what it was trained on; every number says how much.")
]
SharesImages = Annotated[
    bool,
    typer.Option("--shares-images", help="The published splits share images by design; every number says so."),
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Import code from outside vqa that the run or cache names (module:Class).")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved file, shapes, memory, steps and disk; train nothing.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Change single keys of the file.")
]
