"""An ablation in the trackers of its cells: a run of its own in their group, with its table and a plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

from vqa.experiment import TrackingSection
from vqa.training.tracking.evaluation import plotted
from vqa.training.tracking.identity import read_tracking, write_tracking
from vqa.training.tracking.protocol import Bundle, Cell, MediaTable, Shown
from vqa.training.tracking.summary import plain
from vqa.training.tracking.trackers import track_group

ABOUT = ("name", "seeds", "data", "questions", "protocol", "seen_in_training", "model_choice")


def track_ablation(folder: Path, section: TrackingSection, summary: Mapping[str, Any]) -> None:
    """Show an ablation whose table is written; a second call adds to the same run.

    Args:
        folder: that holds ablation.md, ablation.json and the cells' folders.
        section: how the cells are tracked.
        summary: the content of ablation.json.

    Raises:
        InputError: tracking.json of that folder is damaged.
    """
    config = {key: summary[key] for key in ABOUT if key in summary}
    tracker = track_group(folder, summary["name"], section, config)
    tracker.summarise(cell_means(summary))
    tracker.media(ablation_media(summary))
    if section.artifacts:
        files = {name: folder / name for name in ("ablation.md", "ablation.json") if (folder / name).is_file()}
        tracker.keep(Bundle(f"{plain(summary['name'])}-ablation", "ablation", files, config))
    tracker.finish()


def track_ablation_once(folder: Path, section: TrackingSection, summary: Mapping[str, Any], digest: str) -> None:
    """The same, unless a summary of that digest was shown before: every worker of an ablation ends with its table.

    Raises:
        InputError: tracking.json of that folder is damaged.
    """
    if read_tracking(folder, agent=False)[0].facts.get("shown") == digest:
        return
    track_ablation(folder, section, summary)
    shown = read_tracking(folder, agent=False)[0]
    write_tracking(folder, msgspec.structs.replace(shown, facts={"shown": digest}))


def cell_means(summary: Mapping[str, Any]) -> dict[str, float]:
    """The mean over seeds of every figure of every cell, in percent."""
    return {
        f"ablation/{label}/{figure}": values["mean"]
        for label, cell in summary["cells"].items()
        for figure, values in cell.items()
    }


def ablation_media(summary: Mapping[str, Any]) -> dict[str, Shown]:
    """The table, one row a cell with mean, deviation and each seed's number; and a plot of the first figure."""
    cells = summary["cells"]
    figures = list(dict.fromkeys(figure for cell in cells.values() for figure in cell))
    columns, rows = ["cell"], []
    for figure in figures:
        columns += [figure, f"{figure}: deviation", f"{figure}: runs"]
    for label, cell in cells.items():
        row: list[Cell] = [label]
        for figure in figures:
            found = cell.get(figure)
            runs = ", ".join(f"{value:.2f}" for value in found["runs"]) if found else None
            row += [found["mean"], found["std"], runs] if found else [None] * 3
        rows.append(tuple(row))
    table = MediaTable(tuple(columns), tuple(rows))
    title = f"Ablation {summary['name']}: {figures[0]}, %"
    return {"ablation/table": table, "ablation/plot": plot_cells(cells, figures[0], title)}


def plot_cells(cells: Mapping[str, Any], figure_name: str, title: str) -> Image.Image:
    """Mean and standard deviation of each cell as a point with a bar, the best at the top, and each seed as a dot."""
    from matplotlib.figure import Figure

    found = sorted(((label, cell[figure_name]) for label, cell in cells.items() if figure_name in cell),
                   key=lambda one: one[1]["mean"])  # fmt: skip
    figure = Figure(figsize=(8, 1.4 + 0.35 * len(found)), layout="constrained", dpi=100)
    axes = figure.add_subplot()
    for place, (_, values) in enumerate(found):
        axes.errorbar(values["mean"], place, xerr=values["std"] or 0, fmt="o", color="tab:blue", capsize=4)
        axes.plot(values["runs"], [place] * len(values["runs"]), ".", color="tab:gray", markersize=5)
    axes.set_yticks(range(len(found)), [label for label, _ in found], parse_math=False)
    axes.set_ylim(-0.7, len(found) - 0.3)
    axes.grid(axis="x", alpha=0.4)
    axes.set_title(title, parse_math=False)
    axes.set_xlabel("mean ± standard deviation over seeds; dots: single runs")
    return plotted(figure)
