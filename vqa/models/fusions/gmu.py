"""`gmu`: a gate mixes the image and the question, unit by unit.

Source: Arevalo et al. 2017, "Gated Multimodal Units for Information Fusion" (arXiv 1702.01992), the bimodal unit,
without biases as there. With i the mean region and q the question's vector:

    h_i = tanh(W_i i),  h_q = tanh(W_q q)
    g = sigmoid(W_z [i, q]),  z = g * h_i + (1 - g) * h_q

The released code computes the gate from W_i i and W_q q instead of i and q, and normalises both inputs over the batch.

Legend: `B` batch, `R` regions, `C` channels, `D` fusion.
"""

import torch
from torch import Tensor, nn

from vqa.models.dropout import FastDropout
from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.options import Count, Rate


class GMU(VectorFusion):
    """A gated sum of the projected sides.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        fusion_dim: width of the result (the paper: 512).
        normalise_image: scale the image vector to length 1.
        dropout: on both inputs; the projection and the gate see the same.

    Attributes:
        out_dim: fusion_dim.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        fusion_dim: Count = 512,
        normalise_image: bool = True,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.normalise_image = normalise_image
        # the side's projection above its half of the gate: one matrix product for both
        self.image, self.question = (
            nn.Sequential(FastDropout(dropout), nn.Linear(width, 2 * fusion_dim, bias=False))
            for width in (image_dim, question_dim)
        )

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        image_BRD, image_gate_BRD = image_BRS.chunk(2, dim=-1)
        question_B1D, question_gate_B1D = question_BS[:, None].chunk(2, dim=-1)
        gate_BRD = torch.sigmoid(image_gate_BRD + question_gate_B1D)
        return gate_BRD * torch.tanh(image_BRD) + (1 - gate_BRD) * torch.tanh(question_B1D)
