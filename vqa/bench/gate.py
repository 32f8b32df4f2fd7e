"""What a benchmark found, beside its bounds and bars; kept as JSON, and compared with what an earlier run found.

Times differ between machines and between moments; ratios of two times taken in one run do so much less. So ratios are
what a stored benchmark is compared by.
"""

import datetime
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from vqa.errors import InputError, SlowerError, shortened
from vqa.files import read_json, write_json
from vqa.progress import console
from vqa.tables import Table as ResultTable
from vqa.tables import print_table

KEPT = 0.7  # a ratio may fall to this part of the stored one: two runs on one machine differ by up to a fifth


@dataclass(frozen=True)
class Figure:
    """A rate, time or size that was measured.

    Attributes:
        value: in `unit`.
        unit: e.g. "questions/s".
        bound: what the machine allows at best, in the same unit, or None where nothing bounds it.
        bounded_by: what makes the bound.
    """

    value: float
    unit: str
    bound: float | None = None
    bounded_by: str = ""


@dataclass(frozen=True)
class Ratio:
    """A number without unit that regressions are found by; greater is better.

    Attributes:
        value: of two figures of one run.
        bar: what it should reach at least, or None.
    """

    value: float
    bar: float | None = None


@dataclass(frozen=True)
class BenchReport:
    """Everything that one call of `vqa bench …` measured, by name, in the order shown.

    Attributes:
        title: what was measured; only reports of one title are compared.
        note: how it was measured; printed below.
        figures: with a unit.
        ratios: without.
        table: printed in place of the figures, which it shows in more columns.
    """

    title: str
    note: str = ""
    figures: dict[str, Figure] = field(default_factory=dict)
    ratios: dict[str, Ratio] = field(default_factory=dict)
    table: ResultTable | None = None

    def as_json(self) -> dict[str, Any]:
        """`{"title", "note", "machine", "date", "figures", "ratios"}`."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
        return {"title": self.title, "note": self.note, "machine": machine_name(), "date": now} | {
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
            "ratios": {name: asdict(ratio) for name, ratio in self.ratios.items()},
        }


def conclude(report: BenchReport, *, json_file: Path | None = None, against: Path | None = None) -> None:
    """Print a report, write it where asked, then compare it where asked.

    Args:
        report: what was measured.
        json_file: where to write it.
        against: an earlier one's file.

    Raises:
        InputError: `against` is no stored benchmark, one of something else, or shares no ratio with this one.
        SlowerError: naming every ratio that fell below `KEPT` of the stored one.
    """
    stored = None if against is None else stored_ratios(against, report.title)
    print_report(report, stored or {})
    if json_file is not None:
        write_json(json_file, report.as_json())
    if stored is not None:
        require_kept(report, stored, str(against))


def stored_ratios(path: Path, title: str | None = None) -> dict[str, float]:
    """The ratios of a stored benchmark, by name.

    Raises:
        InputError: the file is no stored benchmark, or its title is not `title`.
    """
    try:
        stored = read_json(path, _Stored)
    except InputError as error:
        raise InputError(f"{error}; it must be what `vqa bench … --json` wrote") from None
    if title is not None and stored.title != title:
        raise InputError(f"{path}: is of {shortened(stored.title)!r}; this benchmark is of {title!r}")
    return {name: ratio.value for name, ratio in stored.ratios.items()}


class _StoredRatio(msgspec.Struct):
    value: float


class _Stored(msgspec.Struct):
    """What is compared of a stored benchmark."""

    title: str
    ratios: dict[str, _StoredRatio]


def require_kept(report: BenchReport, stored: Mapping[str, float], source: str) -> None:
    """Raise SlowerError where a ratio has fallen too far; ratios that only one side has are not compared."""
    shared = [name for name in report.ratios if name in stored]
    if not shared:
        raise InputError(f"{source}: has none of this benchmark's ratios ({', '.join(report.ratios)})")
    fallen = [name for name in shared if report.ratios[name].value < KEPT * stored[name]]
    if fallen:
        lines = [f"  {name}: {report.ratios[name].value:.3g}, was {stored[name]:.3g}" for name in fallen]
        raise SlowerError("\n".join([f"slower than {source}, below {KEPT:.0%} of what it was:", *lines]))
    console.print(f"none of {len(shared)} ratios is below {KEPT:.0%} of {source}")


def print_report(report: BenchReport, stored: Mapping[str, float]) -> None:
    """Figures beside their bounds; ratios beside their bars and, where given, the stored ratios, by name; the note."""
    if report.table is not None:
        print_table(report.table)
    elif report.figures:
        console.print(figure_table(report))
    if report.ratios:
        console.print(ratio_table(report, stored))
    if report.note:
        console.print(report.note, soft_wrap=False)


def figure_table(report: BenchReport) -> Table:
    """What was reached, and where anything is bounded, which share of its bound that is."""
    bounded = any(one.bound is not None for one in report.figures.values())
    padding = (0, int(console.width >= 100))
    figures = Table(title=Text(report.title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=padding)
    figures.add_column("Figure", overflow="fold")
    figures.add_column("reached", justify="right", no_wrap=True)
    figures.add_column("unit", no_wrap=True)
    if bounded:
        figures.add_column("of its bound", no_wrap=True)
    for name, one in report.figures.items():
        share = f"{one.value / one.bound:.0%} of {number(one.bound)}\n{one.bounded_by}" if one.bound else ""
        figures.add_row(name, number(one.value), one.unit, *([share] if bounded else []))
    return figures


def ratio_table(report: BenchReport, stored: Mapping[str, float]) -> Table:
    """Ratios in green or red beside their bars, and beside the stored ones."""
    ratios = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("Ratio", "reached", "bar", *(["stored"] if stored else [])):
        ratios.add_column(heading, justify="left" if heading == "Ratio" else "right")
    for name, ratio in report.ratios.items():
        style = "" if ratio.bar is None else "green" if ratio.value >= ratio.bar else "red"
        before = [number(stored[name]) if name in stored else ""] if stored else []
        bar = "" if ratio.bar is None else number(ratio.bar)
        ratios.add_row(name, Text(number(ratio.value), style=style), bar, *before)
    return ratios


def number(value: float) -> str:
    """Three digits, thousands set apart.

    >>> number(1234567), number(0.01234), number(56.78)
    ('1,234,567', '0.0123', '56.8')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def machine_name() -> str:
    """Processor, cores that this process may use, memory and operating system."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        name = next(
            (line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), name
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{name}, {cores} cores, {memory:.0f} GiB, {platform.system()}"
