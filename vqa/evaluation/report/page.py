"""`write_report`: results as one HTML file that needs nothing else, from the tables down to single images.

Legend: `H` hops, heads or glimpses, `R` regions, `Q` questions asked for.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vqa.data.dataset import QADataset
from vqa.data.images import Framing, to_rgb, upright
from vqa.errors import InputError
from vqa.evaluation.report.boxes import attention_shown
from vqa.evaluation.report.confusion import OTHER, Confusion
from vqa.evaluation.report.figures import (
    WHOLE,
    Series,
    data_uri,
    fit,
    line_chart,
)
from vqa.files import atomic_write
from vqa.tables import Table

if TYPE_CHECKING:
    from jinja2 import Environment

IMAGE_SIDE = 320  # pixels of an example's longer side: sharp at the size shown, and a dozen stay far below 4 MB
SHADES = 6  # of the confusion matrices; the style sheet has one class each


@dataclass(frozen=True)
class Curve:
    """How one run learned.

    Attributes:
        name: the run.
        epochs: counted from 1.
        validation_accuracy: percent, one an epoch; NaN where it was not measured.
        training_loss: mean over the epoch, one an epoch.
    """

    name: str
    epochs: tuple[int, ...]
    validation_accuracy: tuple[float, ...]
    training_loss: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """Lines of one image.

    Attributes:
        heading: a few words.
        unit: what the vertical axis counts.
        x_label: what the horizontal axis counts, in whole numbers.
        series: the lines.
    """

    heading: str
    unit: str
    x_label: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Guess:
    """An answer of the model with its probability, 0..1."""

    answer: str
    probability: float


@dataclass(frozen=True)
class Example:
    """One question as the model answered it.

    Attributes:
        image: the image's file.
        question: as asked.
        guesses: the model's most probable answers, the best first.
        humans: the human answers with how many gave each.
        accuracy: the official accuracy of the best guess, 0..1.
        attention_HR: float `[H, R]`, where the model looked, or None.
        grid: rows and columns of the regions; None when they do not lie on a grid.
        box_R4: float, where the regions lie (x1, y1, x2, y2 as shares of width and height), padded ones left out here
            and in the attention; None where that is not known. Without grid and boxes no attention is shown.
        framing: which square of the image the grid lies on.
        question_type: may be empty.
        other_runs: what other runs answered, as (run, answer, accuracy 0..1).
        attention_name: what one row of the attention is: a hop, a glimpse, a map …
    """

    image: Path
    question: str
    guesses: tuple[Guess, ...]
    humans: tuple[tuple[str, int], ...]
    accuracy: float
    attention_HR: NDArray[np.floating] | None = None
    grid: tuple[int, int] | None = None
    question_type: str = ""
    other_runs: tuple[tuple[str, str, float], ...] = ()
    attention_name: str = "map"
    framing: Framing = WHOLE
    box_R4: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Report:
    """Everything the page shows; an empty part is left out of it.

    Attributes:
        title: the heading.
        summary: the findings in sentences; the first is set large.
        facts: how the numbers were made, as (label, value): seeds, protocol, versions, command …
        tables: the results.
        beyond: more tables, of the run named by `subject`: what one accuracy hides.
        charts: the images that belong to them.
        curves: one a run.
        confusions: of the run named by `subject`.
        examples: of the run named by `subject`.
        subject: the run (and split and task) whose confusions and examples are shown.
        accuracy_name: the metric of the examples, with its protocol.
        curve_accuracy_name: the metric of the curves, measured while training.
    """

    title: str
    summary: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    beyond: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    curves: tuple[Curve, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    examples: tuple[Example, ...] = ()
    subject: str = ""
    accuracy_name: str = "VQA accuracy, protocol 2021"
    curve_accuracy_name: str = "open-ended VQA accuracy, protocol 2021"


def write_report(path: Path, report: Report) -> None:
    """Write the report as one HTML file: no script, no address outside the file, light and dark, for any width.

    Text of the data is escaped, and the page's own policy forbids scripts and outside requests besides.

    Images that are not there, as where others extracted their features, are named instead of shown.

    Raises:
        InputError: when an example's image cannot be read or its attention does not fill its grid.
    """
    report = _without_places(report)
    page = (
        page_templates()
        .get_template("report.html")
        .render(
            title=report.title,
            summary=report.summary,
            facts=report.facts,
            report=report,
            tables=[table_view(table) for table in report.tables],
            beyond=[table_view(table) for table in report.beyond],
            beyond_charts=[_chart_view(chart) for chart in report.charts],
            charts=_charts(report.curves, report.curve_accuracy_name),
            confusions=[_confusion_view(confusion) for confusion in report.confusions],
            examples=[_example_view(example) for example in report.examples],
        )
    )
    with atomic_write(path) as file:
        file.write(page)


def page_templates() -> "Environment":
    """The templates of pages; text of the data is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def without_places(text: str) -> str:
    """Paths in a text as seen from the working folder, or from "~": whose machine it was is nobody's concern."""
    home = os.environ.get("HOME", "").rstrip("/")
    for place, shown in ((f"{Path.cwd()}/", ""), *([(f"{home}/", "~/")] if home else [])):
        text = re.sub(rf"(?<![\w.~-]){re.escape(place)}", shown, text) if place != "//" else text
    return text


def _without_places(report: Report) -> Report:
    """The report with the paths in it shortened."""
    short = without_places
    return replace(
        report,
        title=short(report.title),
        subject=short(report.subject),
        summary=tuple(map(short, report.summary)),
        facts=tuple((label, short(value)) for label, value in report.facts),
        tables=tuple(replace(table, caption=short(table.caption), note=short(table.note)) for table in report.tables),
    )


def example_rows(dataset: QADataset, count: int = 12, seed: int = 0) -> NDArray[np.int64]:
    """Choose questions to show: at random, never by success, each of another image, the question types in turn.

    Returns:
        int64 `[Q]`, rows of the data set in the order chosen; fewer than `count` when the images run out.
    """
    order = np.random.default_rng(seed).permutation(len(dataset))
    code_N = np.zeros(len(dataset), np.int32) if dataset.question_type is None else dataset.question_type.codes
    waiting = {
        code: [int(row) for row in order if code_N[row] == code] for code in dict.fromkeys(code_N[order].tolist())
    }
    chosen: list[int] = []
    seen: set[int] = set()
    while len(chosen) < count and any(waiting.values()):
        for rows in waiting.values():
            while rows and int(dataset.image_row_N[rows[0]]) in seen:
                rows.pop(0)
            if rows and len(chosen) < count:
                chosen.append(rows.pop(0))
                seen.add(int(dataset.image_row_N[chosen[-1]]))
    return np.array(chosen, dtype=np.int64)


def human_answers(dataset: QADataset, row: int) -> tuple[tuple[str, int], ...]:
    """One question's human answers with how many gave each, most frequent first; empty where they are hidden."""
    if dataset.answers is None:
        return ()
    return tuple(Counter(dataset.answers.row(row)).most_common())


def table_view(table: Table) -> dict[str, Any]:
    """The table with its text made: heading groups with their widths, rows with marked cells."""
    groups: list[list[Any]] = []
    for column in table.columns:
        if groups and groups[-1][0] == column.group:
            groups[-1][1] += 1
        else:
            groups.append([column.group, 1])
    opens = {0, *np.cumsum([width for _, width in groups]).tolist()}  # columns where a group begins
    rows: list[dict[str, Any]] = [
        {
            "name": row.name,
            "kind": row.kind,
            "cells": [
                {
                    "text": table.text(r, c),
                    "best": table.is_best(r, c),
                    "below": table.is_below_floor(r, c),
                    "opens": c in opens,
                    "bound": column.kind != "run",
                }
                for c, column in enumerate(table.columns)
            ],
        }
        for r, row in enumerate(table.rows)
    ]
    return {
        "table": table,
        "groups": groups if any(name for name, _ in groups) else [],
        "opens": opens,
        "runs": [row for row in rows if row["kind"] == "run"],
        "bounds": [row for row in rows if row["kind"] != "run"],
        "marked": any(cell["best"] for row in rows for cell in row["cells"]),
    }


def _charts(curves: Sequence[Curve], accuracy_name: str) -> list[dict[str, Any]]:
    """The two panels of the learning curves, each with its heading and its SVG."""
    panels: list[tuple[str, str, list[tuple[float, ...]]]] = [
        ("Accuracy on validation", f"{accuracy_name}, %", [c.validation_accuracy for c in curves]),
        ("Training loss", "mean over the epoch", [c.training_loss for c in curves]),
    ]
    charts = []
    for heading, unit, values in panels:
        series = [Series(c.name, c.epochs, y) for c, y in zip(curves, values, strict=True) if np.isfinite(y).any()]
        if series:
            charts.append(_chart_view(Chart(heading, unit, "epoch", tuple(series))))
    return charts


def _chart_view(chart: Chart) -> dict[str, Any]:
    """The chart as SVG, with its heading, and where each line ends for those who cannot see it."""
    from markupsafe import Markup

    ends = "; ".join(f"{s.name} ends at {next(y for y in reversed(s.y) if np.isfinite(y)):.4g}" for s in chart.series)
    description = f"{chart.heading} ({chart.unit}) per {chart.x_label}: {ends}."
    svg = line_chart(chart.series, x_label=chart.x_label, description=description)
    return {"heading": chart.heading, "unit": chart.unit, "svg": Markup(svg)}


def _confusion_view(confusion: Confusion) -> dict[str, Any]:
    """The matrix with a shade a cell by its share of the row; an empty "other" row or column is dropped."""
    count_TP, known = confusion.count_TP, len(confusion.answers)
    rows = known + int(count_TP[-1].any())
    columns = known + int(count_TP[:, -1].any())
    labels = [*confusion.answers, OTHER]
    total_T = count_TP.sum(axis=1)
    view = []
    for t in range(rows):
        cells = []
        for p in range(columns):
            share = count_TP[t, p] / max(total_T[t], 1)
            # In the corner of two "other" lie right and wrong answers alike, so it takes neither colour.
            kind = "rest" if t == p == known else "right" if t == p else "wrong"
            cells.append({"count": int(count_TP[t, p]), "kind": kind, "shade": int(np.ceil(share * SHADES))})
        view.append({"label": labels[t], "total": int(total_T[t]), "cells": cells})
    return {
        "title": confusion.question_type,
        "questions": confusion.questions,
        "columns": labels[:columns],
        "rows": view,
        "mistakes": confusion.mistakes(),
    }


def attention_images(example: Example, image: Image.Image) -> list[tuple[Image.Image, str]]:
    """Where the model looked, laid over the image: one for each hop, glimpse or map, and in words where it is greatest.

    None where the model does not look, or where it is not known where the regions lie.
    """
    weights_HR = example.attention_HR
    if weights_HR is None or (example.box_R4 is None and (weights_HR.shape[1] == 1 or not example.grid)):
        return []
    where = (example.grid, example.framing, example.box_R4)
    return [attention_shown(image, weights_R, *where) for weights_R in weights_HR]


def _example_view(example: Example) -> dict[str, Any]:
    image = fit(open_image(example.image), IMAGE_SIDE) if example.image.is_file() else None
    shown = [] if image is None else attention_images(example, image)
    looks = [
        {"name": f"{example.attention_name} {number}", "uri": data_uri(overlay), "place": place}
        for number, (overlay, place) in enumerate(shown, start=1)
    ]
    humans = dict(example.humans)
    return {
        "example": example,
        "name": example.image.name,
        "image": data_uri(image) if image else "",
        "width": image.width if image else 0,
        "height": image.height if image else 0,
        "looks": looks,
        "total": sum(humans.values()),
        "guesses": [
            {"answer": guess.answer, "percent": 100 * guess.probability, "humans": humans.get(guess.answer, 0)}
            for guess in example.guesses
        ],
        "verdict": verdict(example.accuracy),
        "others": [(name, answer, accuracy, verdict(accuracy)) for name, answer, accuracy in example.other_runs],
    }


def verdict(accuracy: float) -> str:
    """An accuracy 0..1 in a word: "wrong", "partly" or "right"."""
    return "wrong" if accuracy == 0 else "right" if accuracy >= 1 else "partly"


def open_image(path: Path) -> Image.Image:
    """An image as people see it, in RGB; raises InputError for one that is missing or cannot be read."""
    try:
        with Image.open(path) as image:
            return to_rgb(upright(image))
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path}: not a readable image: {error}") from None
