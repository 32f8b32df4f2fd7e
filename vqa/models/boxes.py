"""Where regions lie, and how two of them lie to each other. Everything is computed in float32 or better.

Legend: `I` images, `R` regions, `N` regions of a list.
"""

import torch
from torch import Tensor

from vqa.errors import InputError
from vqa.models.contracts import Image
from vqa.models.layers import at_least_float32

NO_BOXES = (
    "this fusion asks where the regions of an image lie, and these features do not say it; features of detectors do: "
    "`vqa features extract --encoder detector:NAME`, or `vqa features import` of boxes that others published"
)


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
