"""`write_ablation_page`: an ablation as one HTML page: the table, accuracy against cost, types, learning curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vqa.evaluation.report.changes import ChangeGroup, group_views
from vqa.evaluation.report.figures import (
    CHART_POINTS,
    FONT_POINTS,
    INK,
    LABEL_GAP_POINTS,
    LEADER_POINTS,
    MUTED,
    SERIES,
    SERIES_COLOURS,
    Series,
    chart_style,
    label_ends,
    plain_axes,
    shorten,
    spread_out,
    svg_for_page,
)
from vqa.evaluation.report.page import page_templates, table_view, without_places
from vqa.files import atomic_write
from vqa.tables import Table

BAR_POINTS = 20.0  # the height of one bar with the room around it
LEFT, BELOW = 34, 38  # points of a chart left of its axes and below them


class Point(NamedTuple):
    """A cell in accuracy against cost: its cost, mean accuracy and deviation in percent (None for one run)."""

    name: str
    cost: float
    accuracy: float
    deviation: float | None


class Bar(NamedTuple):
    """A cell's accuracy in percent with the ends of its interval, None where there is none."""

    name: str
    value: float
    low: float | None
    high: float | None


class Band(NamedTuple):
    """A cell's learning curve: mean over seeds in percent by epoch, with the lowest and the highest seed."""

    name: str
    epochs: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class AblationPage:
    """Everything the page shows; an empty part is left out.

    Attributes:
        title: the heading.
        summary: what may be concluded, and how the weights were chosen; the first sentence is set large.
        tables: the whole table first.
        costs: accuracy against one cost each: heading, what the horizontal axis counts, the cells.
        types: for each type of question: its heading and the cells.
        curves: learning curves, one a cell.
        facts: how the numbers were made.
        changes: questions that the baseline and the best cell answer differently.
    """

    title: str
    summary: tuple[str, ...]
    tables: tuple[Table, ...]
    costs: tuple[tuple[str, str, tuple[Point, ...]], ...]
    types: tuple[tuple[str, tuple[Bar, ...]], ...]
    curves: tuple[Band, ...]
    facts: tuple[tuple[str, str], ...]
    changes: tuple[ChangeGroup, ...] = ()


def write_ablation_page(path: Path, page: AblationPage) -> None:
    """Write the page as one HTML file: no script, no address outside the file, light and dark, for any width."""
    short = without_places
    most = max((one.high or one.value for _, cells in page.types for one in cells), default=100.0) or 100.0
    text = (
        page_templates()
        .get_template("ablation.html")
        .render(
            title=short(page.title),
            summary=[short(sentence) for sentence in page.summary],
            tables=[table_view(table) for table in page.tables],
            costs=[_view(heading, "accuracy, %", scatter(unit, points)) for heading, unit, points in page.costs],
            types=[_view(heading, "accuracy, %", bars(heading, cells, most)) for heading, cells in page.types],
            curves=[_view("Accuracy on validation", "open-ended, %", bands(page.curves))] if page.curves else [],
            facts=[(label, short(value)) for label, value in page.facts],
            groups=group_views(page.changes),
        )
    )
    with atomic_write(path) as file:
        file.write(text)


def _view(heading: str, unit: str, svg: str) -> dict[str, Any]:
    from markupsafe import Markup

    return {"heading": heading, "unit": unit, "svg": Markup(svg)}


def scatter(unit: str, points: Sequence[Point]) -> str:
    """Accuracy against a cost on a logarithmic axis, each cell named beside the axes."""
    named = [Series(point.name, (point.cost,), (point.accuracy,)) for point in points]
    costs = [point.cost for point in points]
    wide = min(costs) > 0 and max(costs) > 3 * min(costs)
    with chart_style():
        figure, axes, size = _with_names(named)
        for index, point in enumerate(points):
            colour = SERIES[index % SERIES_COLOURS]
            axes.errorbar(point.cost, point.accuracy, yerr=point.deviation or 0, fmt="o", color=colour, markersize=5)
        if wide:
            axes.set_xscale("log")
        axes.margins(x=0.08, y=0.1)
        axes.set_xlabel(f"{unit}, logarithmic" if wide else unit, color=MUTED)
        plain_axes(axes, "both")
        _name_points(axes, named, size)
    said = "; ".join(f"{one.name}: {one.accuracy:.2f}% at {one.cost:.4g}" for one in points)
    return svg_for_page(figure, f"Open-ended accuracy against {unit}: {said}.")


def bands(curves: Sequence[Band]) -> str:
    """Learning curves, the mean over seeds, each in the band of its seeds."""
    from matplotlib.ticker import MaxNLocator

    named = [Series(curve.name, curve.epochs, curve.mean) for curve in curves]
    with chart_style():
        figure, axes, size = _with_names(named)
        for index, curve in enumerate(curves):
            colour, dash = SERIES[index % SERIES_COLOURS], ("-", "--", ":")[index // SERIES_COLOURS % 3]
            axes.fill_between(curve.epochs, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(curve.epochs, curve.mean, dash, color=colour, linewidth=1.8)
        axes.margins(x=0.02, y=0.08)
        axes.set_xlabel("epoch", color=MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        plain_axes(axes)
        label_ends(axes, named, [shorten(one.name) for one in named], *size)
    ends = "; ".join(f"{one.name} ends at {one.mean[-1]:.2f}%" for one in curves)
    return svg_for_page(figure, f"Validation accuracy by epoch, mean over seeds: {ends}.")


def bars(heading: str, cells: Sequence[Bar], most: float) -> str:
    """A bar a cell from 0 to `most`, which is the same for all types, with its interval."""
    from matplotlib.figure import Figure

    width, height = CHART_POINTS[0], BAR_POINTS * len(cells) + 30
    left = 0.55 * FONT_POINTS * max(len(shorten(cell.name)) for cell in cells) + 10
    with chart_style():
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((left / width, 24 / height, (width - left - 12) / width, (height - 28) / height))
        for place, cell in enumerate(cells):
            axes.barh(place, cell.value, height=0.62, color=SERIES[place % SERIES_COLOURS], alpha=0.55)
            if cell.low is not None and cell.high is not None:
                axes.plot([cell.low, cell.high], [place, place], color=INK, linewidth=1.3)
                axes.plot([cell.low, cell.high], [place, place], "|", color=INK, markersize=6)
        axes.set_yticks(range(len(cells)), [shorten(cell.name) for cell in cells], parse_math=False)
        axes.set_ylim(len(cells) - 0.4, -0.6)
        axes.set_xlim(0, most * 1.02)
        plain_axes(axes, "x")
    said = "; ".join(
        f"{one.name} {one.value:.2f}%" + ("" if one.low is None else f" ({one.low:.2f} to {one.high:.2f})")
        for one in cells
    )
    return svg_for_page(figure, f"{heading}: {said}.")


def _with_names(named: Sequence[Series]) -> tuple[Any, Any, tuple[float, float]]:
    """A figure with room for names beside its axes, high enough for all; with the size of the axes in points."""
    from matplotlib.figure import Figure

    width, height = CHART_POINTS[0], max(CHART_POINTS[1], LABEL_GAP_POINTS * len(named) + BELOW + 12)
    room = 0.55 * FONT_POINTS * max(len(shorten(one.name)) for one in named) + LEADER_POINTS + 5
    figure = Figure(figsize=(width / 72, height / 72))
    size = (width - LEFT - room, height - BELOW - 12)
    return figure, figure.add_axes((LEFT / width, BELOW / height, size[0] / width, size[1] / height)), size


def _name_points(axes: Any, named: Sequence[Series], size: tuple[float, float]) -> None:
    """Names beside the axes, each with a line to its point, whatever the scale of the horizontal axis."""
    low, high = axes.get_ylim()
    wanted = np.array([(one.y[0] - low) / (high - low) * size[1] for one in named])
    for index, (one, place) in enumerate(zip(named, spread_out(wanted, LABEL_GAP_POINTS, size[1]), strict=True)):
        colour = SERIES[index % SERIES_COLOURS]
        axes.annotate(
            shorten(one.name), xy=(one.x[0], one.y[0]), xycoords="data",
            xytext=(1 + LEADER_POINTS / size[0], place / size[1]), textcoords="axes fraction",
            color=colour, va="center", ha="left", parse_math=False, annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6, "relpos": (0, 0.5),
                "shrinkA": 0, "shrinkB": 3,
            },
        )  # fmt: skip
