"""Dropout whose masks cost little on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqa.errors import InputError

_LEAST_INT64 = torch.iinfo(torch.int64).min


class FastDropout(nn.Module):
    """Dropout (Srivastava et al. 2014) that takes one random byte a value instead of one random float.

    On a CPU the random numbers of `torch.nn.Dropout` take up to a third of a training step. Here 64 random bits
    from torch's generator (so `torch.manual_seed` rules them) make eight masks. The probability is rounded to the
    nearest 256th (0.5 stays 0.5, 0.2 becomes 0.199) and survivors are scaled by the rounded probability, so the
    expectation is exact. On other devices, and when compiled, torch's fused dropout is the faster one and is used with
    the same rounded probability.

    Args:
        probability: the share of values set to zero, at least 0 and below 1.

    Raises:
        InputError: a probability out of range.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise InputError(f"a dropout probability must be at least 0 and below 1, not {probability}")
        self.dropped_of_256 = min(round(probability * 256), 255)

    @property
    def probability(self) -> float:
        """The share of values that is set to zero in training."""
        return self.dropped_of_256 / 256

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape and floating type; unchanged in eval mode."""
        if not self.training or self.dropped_of_256 == 0:
            return values
        if values.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(values, self.probability, training=True)
        words = torch.empty((values.numel() + 7) // 8, dtype=torch.int64).random_(_LEAST_INT64, None)
        kept = words.view(torch.uint8)[: values.numel()].view(values.shape) >= self.dropped_of_256
        return values * kept.to(values.dtype).mul_(1 / (1 - self.probability))

    def extra_repr(self) -> str:
        return f"probability={self.probability:.4g}"
