"""Small pieces that several fusions share.

Legend: `B` batch, `R` regions, `C` channels, `D` any width, `H` hops, heads or glimpses.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqa.models.dropout import FastDropout


def projection(in_dim: int, out_dim: int, dropout: float) -> nn.Sequential:
    """Dropout, linear, tanh: one side of the plain fusions."""
    return nn.Sequential(FastDropout(dropout), nn.Linear(in_dim, out_dim), nn.Tanh())


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision made float32; float32 and float64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def pool_regions(image_BRC: Tensor, *, normalise: bool = False) -> Tensor:
    """The mean region, `[B, C]`; with `normalise` scaled to length 1 (a picture of zeros stays zeros)."""
    image_BC = image_BRC.mean(dim=1)
    if normalise:
        # a sum of thousands of squares overflows float16
        image_BC = F.normalize(at_least_float32(image_BC), dim=-1).to(image_BC.dtype)
    return image_BC


def attend(logit_BHR: Tensor, image_BRD: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the regions, then the weighted sum of the regions.

    Returns:
        The sums `[B, H, D]` in the type of the image, and the weights `[B, H, R]` in float32 or better.
    """
    attention_BHR = at_least_float32(logit_BHR).softmax(dim=-1)
    return attention_BHR.to(image_BRD.dtype) @ image_BRD, attention_BHR
