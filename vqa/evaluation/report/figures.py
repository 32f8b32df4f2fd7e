"""Images for the report: attention laid over an image, line charts as inline SVG, images as data URIs.

Legend: `R` regions of the image (row by row from the top left), `H` hops, heads or glimpses.
"""

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqa.data.images import Framing
from vqa.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WHOLE = Framing()
FADED = 0.75  # how white the parts of an image become that the model never saw
SERIES_COLOURS = 8  # the page's style sheet defines --series-0 … --series-7, for light and for dark
CHART_POINTS = (350, 215)  # width and height of a chart, as on a phone, where its letters are still readable
FONT_POINTS = 10.0
LABEL_GAP_POINTS = 12.0
LEADER_POINTS = 7.0  # between a line's end and its name

# Stand-ins that matplotlib writes into the SVG and that are then replaced by the page's colours, so that one chart
# serves light and dark pages.
_STAND_INS = {"#010200": "var(--ink)", "#010201": "var(--muted)", "#010202": "var(--line)"} | {
    f"#0103{i:02x}": f"var(--series-{i})" for i in range(SERIES_COLOURS)
}
INK, MUTED, LINE = list(_STAND_INS)[:3]
SERIES = list(_STAND_INS)[3:]


class Series(NamedTuple):
    """One line of a chart; a value that is not finite leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def attention_overlay(
    image: Image.Image, weights_R: NDArray[np.floating], grid: tuple[int, int], framing: Framing = WHOLE
) -> Image.Image:
    """Lay attention over an image: dark where the model did not look, bright and warm where it looked most.

    Brightness is proportional to weight / greatest weight (not stretched to the smallest), so that even attention
    looks even. The colour map is matplotlib's inferno, whose lightness rises evenly.

    Args:
        image: any mode and size, the whole of it.
        weights_R: float `[R]`, at least 0; one weight a region, row by row from the top left.
        grid: rows and columns of the regions.
        framing: which square of the image the regions divide; what lies outside of it, which the model never saw, is
            faded to white.

    Returns:
        An RGB image of the same size. With a single region there is nowhere to look: the image as it is.

    Raises:
        InputError: when the weights do not fill the grid, or are negative or not finite.
    """
    seen = image.convert("RGB")
    weights = np.asarray(weights_R, dtype=np.float64).ravel()
    if weights.size == 1:
        return seen
    rows, columns = grid
    if weights.size != rows * columns:
        raise InputError(f"attention over {weights.size} regions does not fill a grid of {rows} x {columns}")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise InputError("attention weights must be finite and at least 0")

    greatest = weights.max() or 1.0  # all weights 0: the model looked nowhere, everything is dark
    coarse = Image.fromarray((weights / greatest).reshape(rows, columns).astype(np.float32))
    left, top, right, bottom = (round(edge) for edge in framing.square(*seen.size))
    square = coarse.resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.BICUBIC)
    square = square.crop((-left, -top, seen.width - left, seen.height - top))  # to the image, zeros around it
    heat_YX = np.clip(np.asarray(square), 0.0, 1.0)
    overlay_YX3 = np.array(heat_overlay(seen, heat_YX))
    unseen_YX = np.ones(heat_YX.shape, dtype=bool)
    unseen_YX[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = False
    faded_N3 = 255 * FADED + (1 - FADED) * np.asarray(seen)[unseen_YX]
    overlay_YX3[unseen_YX] = np.round(faded_N3).astype(np.uint8)
    return Image.fromarray(overlay_YX3)


def heat_overlay(seen: Image.Image, heat_YX: NDArray[np.floating]) -> Image.Image:
    """An RGB image dark where the heat is 0, bright and warm where it is 1; `heat_YX` has the image's size."""
    import matplotlib

    colour_YX3 = matplotlib.colormaps["inferno"](0.02 + 0.84 * heat_YX)[..., :3]
    cover_YX1 = (0.68 - 0.28 * heat_YX)[..., None]  # the image shows through most where the model looked
    blended = (1 - cover_YX1) * (np.asarray(seen) / 255.0) + cover_YX1 * colour_YX3
    return Image.fromarray(np.round(blended * 255).astype(np.uint8))


def brightest_place(
    weights_R: NDArray[np.floating],
    grid: tuple[int, int],
    framing: Framing = WHOLE,
    size: tuple[int, int] = (1, 1),
) -> str:
    """Where the greatest weight lies, in words for an alternative text: "upper left" … "centre" … "lower right".

    Args:
        framing, size: which square of an image of this size, width and height, the regions divide.
    """
    row, column = np.unravel_index(int(np.argmax(weights_R)), grid)
    left, top, right, bottom = framing.square(*size)
    down = (top + (bottom - top) * (row + 0.5) / grid[0]) / size[1]
    across = (left + (right - left) * (column + 0.5) / grid[1]) / size[0]
    return place_in_words(down, across)


def place_in_words(down: float, across: float) -> str:
    """A place as shares of an image's height and width, 0 to 1, in words."""
    vertical = ("upper", "middle", "lower")[min(2, max(0, int(3 * down)))]
    horizontal = ("left", "centre", "right")[min(2, max(0, int(3 * across)))]
    words = f"{vertical} {horizontal}"
    return "centre" if words == "middle centre" else words


def fit(image: Image.Image, side: int) -> Image.Image:
    """The image as RGB, its longer side made `side` pixels long (up or down), its shape kept."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def data_uri(image: Image.Image) -> str:
    """The image as a JPEG inside a `data:` address."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def line_chart(series: Sequence[Series], *, x_label: str, description: str) -> str:
    """Draw lines, each named at its end, as an SVG element that takes its colours from the page.

    Args:
        series: the lines; more than eight share colours and differ in dashes.
        x_label: what the horizontal axis counts, in whole numbers.
        description: the text for those who cannot see the chart.

    Returns:
        `<svg …>…</svg>`, safe to place in a page as it is: every name in it is escaped.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    width, height = CHART_POINTS
    names = [shorten(line.name) for line in series]
    room = (
        0.55 * FONT_POINTS * max((len(name) for name in names), default=0) + LEADER_POINTS + 5
    )  # for the names beside the lines
    with chart_style():
        figure = Figure(figsize=(width / 72, height / 72))
        plot_width, plot_height = width - 34 - room, height - 50
        axes = figure.add_axes((34 / width, 38 / height, plot_width / width, plot_height / height))
        for index, line in enumerate(series):
            dash = ("-", "--", ":")[index // SERIES_COLOURS % 3]
            axes.plot(
                line.x, line.y, dash, color=SERIES[index % SERIES_COLOURS], linewidth=2, marker="o", markersize=3.2
            )
        axes.margins(x=0.02, y=0.08)
        axes.set_xlabel(x_label, color=MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        plain_axes(axes)
        label_ends(axes, series, names, plot_width, plot_height)
    return svg_for_page(figure, description)


def plain_axes(axes: "Axes", grid: Literal["x", "y", "both"] = "y") -> None:
    """The page's look: a quiet grid, no frame but the lower edge."""
    axes.tick_params(length=0, labelcolor=MUTED, pad=6)
    axes.grid(axis=grid, color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(MUTED)


def chart_style() -> Any:
    """A context for the figures of a page: text stays text."""
    import matplotlib

    return matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vqa", "font.size": FONT_POINTS})


def label_ends(axes: "Axes", series: Sequence[Series], names: Sequence[str], width: float, height: float) -> None:
    """Write each line's name right of its last point, moved up or down so that no two names touch.

    `width` and `height` are those of the axes, in points.
    """
    low, high = axes.get_ylim()
    ends = []
    for index, line in enumerate(series):
        finite = [(x, y) for x, y in zip(line.x, line.y, strict=True) if np.isfinite(y)]
        if finite:
            ends.append((*finite[-1], index))
    wanted = np.array([(y - low) / (high - low) * height for _, y, _ in ends])
    first, last = axes.get_xlim()
    beside = last + (last - first) * LEADER_POINTS / width
    for (x, y, index), place in zip(ends, spread_out(wanted, LABEL_GAP_POINTS, height), strict=True):
        colour = SERIES[index % SERIES_COLOURS]
        axes.annotate(
            names[index],
            xy=(x, y),
            xytext=(beside, low + place / height * (high - low)),
            textcoords="data",
            color=colour,
            va="center",
            ha="left",
            parse_math=False,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.8,
                "relpos": (0, 0.5),
                "shrinkA": 0,
                "shrinkB": 3,
            },
        )


def spread_out(wanted: NDArray[np.float64], gap: float, height: float) -> NDArray[np.float64]:
    """Move positions as little as needed so that neighbours are `gap` apart and the highest stays within `height`."""
    order = np.argsort(wanted, kind="stable")
    placed = wanted[order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    limit = height
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - gap
    result = np.empty_like(placed)
    result[order] = placed
    return result


def shorten(name: str, most: int = 28) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def svg_for_page(figure: "Figure", description: str) -> str:
    """The figure as an svg element that fills its column, with its name for those who cannot see it."""
    buffer = io.StringIO()
    with chart_style():
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=empty)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head)
    assert view_box is not None, "matplotlib's SVG has a viewBox"
    for stand_in, colour in _STAND_INS.items():
        body = body.replace(stand_in, colour)
    label = escape(description, quote=True)
    return (
        f'<svg class="chart" role="img" aria-label="{label}" {view_box[0]} '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
    )
