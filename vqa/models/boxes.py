"""Where regions lie, and how two of them lie to each other. Everything is computed in float32 or better.

Legend: `I` images, `R` regions, `N` regions of a list.
"""

import math

import torch
from torch import Tensor

from vqa.errors import InputError
from vqa.models.contracts import Image
from vqa.models.layers import at_least_float32

NO_BOXES = (
    "this fusion asks where the regions of an image lie, and these features do not say it; features of detectors do: "
    "`vqa features extract --encoder detector:NAME`, or `vqa features import` of boxes that others published"
)

NEAREST = 1e-3  # the least distance of two regions, in widths or heights


def known_boxes(image: Image) -> Tensor:
    """Where the regions of each image lie, `[I, R, 4]`; padded regions have an empty box at the origin.

    Raises:
        InputError: it is not known.
    """
    if image.boxes_IR4 is None:
        raise InputError(NO_BOXES)
    boxes_IR4 = at_least_float32(image.boxes_IR4)
    return boxes_IR4 if image.mask_IR is None else boxes_IR4.masked_fill(~image.mask_IR[:, :, None], 0)


def overlaps(boxes_IN4: Tensor) -> Tensor:
    """Intersection over union of every two boxes, `[I, N, N]`; an empty box has 0 with all, itself too."""
    low_IN2, high_IN2 = boxes_IN4[..., :2], boxes_IN4[..., 2:]
    area_IN = (high_IN2 - low_IN2).clamp(min=0).prod(dim=-1)
    shared_INN2 = torch.minimum(high_IN2[:, :, None], high_IN2[:, None]) - torch.maximum(
        low_IN2[:, :, None], low_IN2[:, None]
    )
    shared_INN = shared_INN2.clamp(min=0).prod(dim=-1)
    return shared_INN / (area_IN[:, :, None] + area_IN[:, None] - shared_INN + 1e-12)


def relative_geometry(boxes_IR4: Tensor, side_IR2: Tensor) -> Tensor:
    """How far and how large region j is for region i, in logarithms: `[I, R, R, 4]`.

    log(|x_i - x_j| / w_i), log(|y_i - y_j| / h_i), log(w_i / w_j), log(h_i / h_j), of centres, widths and heights; the
    first two are at least log `NEAREST`.

    Args:
        side_IR2: width and height, above 0: what counts as the least side is each paper's own.
    """
    centre_IR2 = (boxes_IR4[..., 2:] + boxes_IR4[..., :2]) / 2
    away_IRR2 = (centre_IR2[:, :, None] - centre_IR2[:, None]).abs() / side_IR2[:, :, None]
    larger_IRR2 = side_IR2[:, :, None] / side_IR2[:, None]
    return torch.cat([away_IRR2.clamp(min=NEAREST), larger_IRR2], dim=-1).log()


SPATIAL_CLASSES = 11


def spatial_classes(boxes_IR4: Tensor) -> Tensor:
    """What region j is for region i, int64 `[I, R, R]`: one of 11 classes, or 0 for none.

    1: j lies inside i. 2: j covers i. 3: they overlap by half or more. 4 to 11: their centres are less than half the
    image's diagonal apart, and seen from j, i lies in the first to eighth eighth of the circle, which begins on the
    right and goes down. 0: they are further apart, or j is i.
    """
    low_IR2, high_IR2 = boxes_IR4[..., :2], boxes_IR4[..., 2:]
    inside_IRR = ((low_IR2[:, :, None] < low_IR2[:, None]) & (high_IR2[:, :, None] > high_IR2[:, None])).all(dim=-1)
    centre_IR2 = (low_IR2 + high_IR2) / 2
    right_IRR, down_IRR = (centre_IR2[:, :, None] - centre_IR2[:, None]).unbind(dim=-1)
    turn_IRR = torch.atan2(down_IRR, right_IRR) / (2 * math.pi)
    eighth_IRR = (turn_IRR.remainder(1) * 8).floor().clamp(max=7).long()
    near_IRR = right_IRR.square() + down_IRR.square() < 0.5  # the diagonal of the unit square is the root of 2
    class_IRR = torch.where(near_IRR, 4 + eighth_IRR, 0)
    class_IRR = class_IRR.masked_fill(overlaps(boxes_IR4) >= 0.5, 3)
    class_IRR = class_IRR.masked_fill(inside_IRR.mT, 2).masked_fill(inside_IRR, 1)
    return class_IRR.masked_fill(torch.eye(boxes_IR4.shape[1], dtype=torch.bool, device=boxes_IR4.device), 0)
