"""Attention over the boxes of a detector, or over whatever the regions are, laid over an image.

Legend: `H` hops, heads or glimpses, `R` boxes of the image, those that are real alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vqa.data.images import Framing
from vqa.errors import InputError
from vqa.evaluation.report.figures import WHOLE, attention_overlay, brightest_place, heat_overlay, place_in_words

LINE_SHARE = 1 / 160  # of the image's shorter side


@dataclass(frozen=True)
class Attention:
    """Where a run looked for one question; padded regions are left out.

    Attributes:
        weights_HR: float32, or None where its fusion does not look.
        grid: rows and columns of the regions; None where they do not lie on a grid.
        framing: which square of the image the grid lies on.
        box_R4: where the regions lie, x1, y1, x2, y2 as shares of width and height, or None.
        name: what a row of the weights is: a hop, a glimpse, a map …
    """

    weights_HR: NDArray[np.floating] | None
    grid: tuple[int, int] | None = None
    framing: Framing = WHOLE
    box_R4: NDArray[np.floating] | None = None
    name: str = "map"


def boxes_overlay(image: Image.Image, weights_R: NDArray[np.floating], box_R4: NDArray[np.floating]) -> Image.Image:
    """Draw each box as strongly as the model looked at it, the strongest on top; dark where it did not look.

    Brightness inside and the opacity of the outline are weight / greatest weight.

    Args:
        image: any mode and size.
        weights_R: float `[R]`, at least 0.
        box_R4: float `[R, 4]`: x1, y1, x2, y2 as shares of the image's width and height.

    Returns:
        An RGB image of the same size.

    Raises:
        InputError: when there are not as many weights as boxes, or weights are negative or not finite.
    """
    seen, weights = image.convert("RGB"), np.asarray(weights_R, dtype=np.float64).ravel()
    if len(weights) != len(box_R4):
        raise InputError(f"attention over {len(weights)} regions does not fit {len(box_R4)} boxes")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise InputError("attention weights must be finite and at least 0")
    shares = weights / (weights.max(initial=0) or 1.0)
    sides = np.array([*seen.size, *seen.size])
    corner_R4 = np.clip(np.round(np.asarray(box_R4) * sides), 0, sides - 1).astype(int)
    heat_YX = np.zeros((seen.height, seen.width))
    for share, (left, top, right, bottom) in zip(shares, corner_R4, strict=True):
        inside = heat_YX[top : bottom + 1, left : right + 1]
        np.maximum(inside, share, out=inside)
    shown = heat_overlay(seen, heat_YX).convert("RGBA")
    width = max(2, round(min(seen.size) * LINE_SHARE))
    for row in np.argsort(shares, kind="stable").tolist():
        outline = Image.new("RGBA", seen.size)
        corners = corner_R4[row].tolist()
        ImageDraw.Draw(outline).rectangle(corners, outline=(255, 240, 180, round(255 * shares[row])), width=width)
        shown = Image.alpha_composite(shown, outline)
    return shown.convert("RGB")


def attention_shown(
    image: Image.Image,
    weights_R: NDArray[np.floating],
    grid: tuple[int, int] | None,
    framing: Framing,
    box_R4: NDArray[np.floating] | None,
) -> tuple[Image.Image, str]:
    """Attention over boxes where the regions are boxes, else over a grid; and in words where the greatest lies.

    Args:
        grid: rows and columns of the regions; only with boxes may it be None.
        framing: which square of the image the grid lies on.
        box_R4: where the regions lie, or None.
    """
    if box_R4 is not None:
        return boxes_overlay(image, weights_R, box_R4), brightest_box(weights_R, box_R4)
    assert grid is not None  # callers show nothing of regions that lie nowhere
    place = brightest_place(weights_R, grid, framing, image.size)
    return attention_overlay(image, weights_R, grid, framing), place


def brightest_box(weights_R: NDArray[np.floating], box_R4: NDArray[np.floating]) -> str:
    """Where the middle of the box with the greatest weight lies, in words for an alternative text."""
    left, top, right, bottom = np.asarray(box_R4)[int(np.argmax(weights_R))]
    return place_in_words((top + bottom) / 2, (left + right) / 2)
