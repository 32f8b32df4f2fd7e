"""Attention drawn as boxes, against a pixel-by-pixel loop."""

import numpy as np
import pytest
from PIL import Image

from vqa.errors import InputError
from vqa.evaluation.report.boxes import LINE_SHARE, boxes_overlay, brightest_box
from vqa.evaluation.report.figures import heat_overlay

BOX_R4 = np.array([[0.1, 0.2, 0.4, 0.9], [0.3, 0.1, 0.8, 0.6], [0.9, 0.0, 1.0, 1.0]])


def scene(width: int = 90, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(60, 200, (height, width, 3), dtype=np.uint8))


def test_each_pixel_is_as_bright_as_the_strongest_box_over_it() -> None:
    image, weights = scene(), np.array([0.5, 0.3, 0.0])
    drawn = np.asarray(boxes_overlay(image, weights, BOX_R4)).astype(int)
    heat_YX, edge_YX = np.zeros((40, 90)), np.zeros((40, 90), dtype=bool)
    line = max(2, round(40 * LINE_SHARE))
    for y in range(40):
        for x in range(90):
            for weight, box in zip(weights, BOX_R4, strict=True):
                left, right = (min(round(box[side] * 90), 89) for side in (0, 2))
                top, bottom = (min(round(box[side] * 40), 39) for side in (1, 3))
                if left <= x <= right and top <= y <= bottom:
                    heat_YX[y, x] = max(heat_YX[y, x], weight / 0.5)
                    inner = left + line <= x <= right - line and top + line <= y <= bottom - line
                    edge_YX[y, x] |= weight > 0 and not inner
    expected = np.asarray(heat_overlay(image, heat_YX)).astype(int)
    assert np.array_equal(drawn[~edge_YX], expected[~edge_YX])
    assert (drawn[edge_YX] != expected[edge_YX]).any(axis=1).mean() > 0.95  # outlines are drawn, those of weight 0 not
    assert drawn.shape == (40, 90, 3)


def test_what_is_left_out_is_not_there() -> None:
    """A padded region, its box all zeros, would leave a mark in the corner."""
    image, weights = scene(), np.array([0.7, 0.3])
    with_padding = boxes_overlay(image, np.array([0.7, 0.3, 0.7]), np.vstack([BOX_R4[:2], np.zeros(4)]))
    without = boxes_overlay(image, weights, BOX_R4[:2])
    assert np.asarray(with_padding)[0, 0].sum() != np.asarray(without)[0, 0].sum()
    assert np.array_equal(np.asarray(without)[0, 0], np.asarray(boxes_overlay(image, np.zeros(2), BOX_R4[:2]))[0, 0])


def test_places_and_refusals() -> None:
    assert brightest_box(np.array([0.1, 0.2, 0.7]), BOX_R4) == "middle right"
    assert brightest_box(np.array([0.9, 0.1]), np.array([[0.0, 0.0, 0.2, 0.2], [0.4, 0.4, 0.6, 0.6]])) == "upper left"
    with pytest.raises(InputError, match="attention over 2 regions does not fit 3 boxes"):
        boxes_overlay(scene(), np.array([1.0, 0.0]), BOX_R4)
    with pytest.raises(InputError, match="finite and at least 0"):
        boxes_overlay(scene(), np.array([1.0, np.nan, 0.0]), BOX_R4)
