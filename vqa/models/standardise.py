"""Image features with mean 0 and standard deviation 1 a channel.

Source: Ren et al. 2015, "Exploring Models and Data for Image Question Answering" (arXiv 1505.02074), whose released
code standardises fc7 by the training images; useful wherever channels differ much in size.

Legend: `B` batch, `R` regions, `C` channels.
"""

import torch
from torch import Tensor, nn


class Standardisation(nn.Module):
    """(x - mean) / deviation, channel by channel; the statistics are buffers and travel with the weights.

    Until `set_statistics` is called it changes nothing.

    Args:
        channels: `C`.
    """

    mean_C: Tensor
    scale_C: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean_C", torch.zeros(channels))
        self.register_buffer("scale_C", torch.ones(channels))

    def set_statistics(self, mean_C: Tensor, deviation_C: Tensor) -> None:
        """Take mean and standard deviation a channel; a channel that never changes is only centred."""
        self.mean_C.copy_(mean_C)
        self.scale_C.copy_(torch.where(deviation_C > 0, 1 / deviation_C, 1.0))

    def forward(self, image_BRC: Tensor) -> Tensor:
        """Float `[B, R, C]`, in the type of the input."""
        # a channel that hardly ever changes has a scale beyond float16, and 0 times infinity is no number
        scale_C = self.scale_C.clamp(max=torch.finfo(image_BRC.dtype).max)
        return (image_BRC - self.mean_C.to(image_BRC.dtype)) * scale_C.to(image_BRC.dtype)
