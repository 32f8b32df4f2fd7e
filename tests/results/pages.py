"""Tables between marks in Markdown pages."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from results.numbers import read_numbers
from vqa.tables import Column, Kind, Row, Table, render_markdown

PAGES = (Path("experiments/RESULTS.md"), Path("README.md"))
MARKED = re.compile(r"(?s)<!-- table: (?P<name>\w+) (?P<view>\w+) -->\n.*?<!-- end of table -->")
KINDS = ("presence", "colour", "shape", "count", "more", "side")
TASKS = ("open-ended", "multiple-choice")


def rewritten(text: str) -> str:
    """A page with every marked table made anew."""

    def table(found: re.Match[str]) -> str:
        name, view = found["name"], found["view"]
        written = VIEWS[view](read_numbers(name))
        return f"<!-- table: {name} {view} -->\n{written}\n<!-- end of table -->"

    return MARKED.sub(table, text)


def tasks(numbers: Mapping[str, Any]) -> str:
    """Both tasks, one row a cell."""
    return _table(numbers, _figures(numbers, TASKS), bounds=True)


def seeds(numbers: Mapping[str, Any]) -> str:
    """Open-ended accuracy of every seed, then mean and deviation."""
    columns = [Column(f"seed {seed}") for seed in numbers["seeds"]] + [Column("mean ± deviation")]

    def values(label: str) -> tuple[Sequence[float | None], Sequence[float | None]]:
        cell = numbers["cells"][label]["open-ended"]
        return [*cell["runs"], cell["mean"]], [*(None for _ in cell["runs"]), cell["std"]]

    return _table(numbers, (columns, values))


def differences(numbers: Mapping[str, Any]) -> str:
    """Mean and deviation, and the difference from the baseline with its 95% interval."""
    columns = [Column("accuracy"), Column("difference"), Column("from"), Column("to"), Column("p, Holm", decimals=4)]

    def values(label: str) -> tuple[Sequence[float | None], Sequence[float | None]]:
        cell, against = numbers["cells"][label]["open-ended"], numbers["differences"].get(label)
        more = [against[key] for key in ("points", "low", "high", "p_holm")] if against else [None] * 4
        return [cell["mean"], *more], [cell["std"], *(None for _ in more)]

    return _table(numbers, (columns, values), bounds=True)


def kinds(numbers: Mapping[str, Any]) -> str:
    """Both tasks, open-ended accuracy on kinds of questions, and cost."""
    shown, value_of = _figures(numbers, (*TASKS, *(f"slice: {kind}" for kind in KINDS)))
    columns = [
        *(Column(one.name.removeprefix("slice: ")) for one in shown),
        Column("parameters, M"), Column("MFLOP", decimals=1), Column("questions/s", decimals=0),
    ]  # fmt: skip

    def values(label: str) -> tuple[Sequence[float | None], Sequence[float | None]]:
        cost, measured = numbers["costs"].get(label) or {}, numbers["measured"].get(label) or {}
        counted = [None if cost.get(key) is None else cost[key] / 1e6 for key in ("parameters", "forward_flops")]
        means, spread = value_of(label)
        return [*means, *counted, measured.get("questions_per_second")], [*spread[:2], *[None] * (len(KINDS) + 3)]

    order = sorted(numbers["cells"], key=lambda label: -numbers["cells"][label]["open-ended"]["mean"])
    return _table(numbers, (columns, values), order=order)


VIEWS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "tasks": tasks, "seeds": seeds, "differences": differences, "kinds": kinds,
}  # fmt: skip
Columns = tuple[Sequence[Column], Callable[[str], tuple[Sequence[float | None], Sequence[float | None]]]]


def _figures(numbers: Mapping[str, Any], names: Sequence[str]) -> Columns:
    shown = [name for name in names if any(name in cell for cell in numbers["cells"].values())]

    def values(label: str) -> tuple[Sequence[float | None], Sequence[float | None]]:
        found = [numbers["cells"][label].get(name) or {} for name in shown]
        return [one.get("mean") for one in found], [one.get("std") for one in found]

    return [Column(name) for name in shown], values


def _table(numbers: Mapping[str, Any], columns: Columns, *, order: Sequence[str] = (), bounds: bool = False) -> str:
    """Rows of cells, with the command that repeats each; floors and ceilings of open-ended accuracy where asked."""
    shown, values = columns
    rows = []
    for label in order or numbers["cells"]:
        means, spread = values(label)
        rows.append(Row(label, tuple(means), tuple(spread)))
    kinds: tuple[tuple[Kind, str], ...] = (("floor", "floors"), ("ceiling", "ceilings")) if bounds else ()
    for kind, key in kinds:
        for name, found in numbers[key].items():
            means = [found.get("open-ended" if column.name == "accuracy" else column.name) for column in shown]
            rows.append(Row(name, tuple(means), kind=kind))
    written = render_markdown(Table("", "", tuple(shown), tuple(rows), best="none")).split("\n")[4:]
    lines = [line for line in written if line.startswith("|")]
    note = "".join(f"\n\n{line}" for line in written if line and not line.startswith("|"))
    said = [f" `{numbers['repeat']}` |", " --- |", *(f" {_row(row, numbers)} |" for row in rows)]
    return "\n".join(line + more for line, more in zip(lines, said, strict=True)) + note


def _row(row: Row, numbers: Mapping[str, Any]) -> str:
    """What stands in place of … in the command."""
    return f"`{row.name}`" if row.kind == "run" else ""
