"""`mlb`: low-rank bilinear pooling, for the attention and for the fusion.

Source: Kim et al. 2017, "Hadamard Product for Low-rank Bilinear Pooling" (arXiv 1610.04325), the multimodal low-rank
bilinear attention network. With G glimpses over the regions f_r:

    p_g = softmax_r(P_g . (tanh(U_q q) * tanh(U_f f_r)))
    v = [sum_r p_1r f_r, ..., sum_r p_Gr f_r]
    z = tanh(W_q q) * tanh(W_v v)

and the paper's last projection P_o is the classifier. Without attention the paper's model is `product`.

Legend: `B` batch, `R` regions, `C` channels, `D` fusion, `H` glimpses.
"""

import torch
from torch import nn

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import attend_image, once_an_image, projection
from vqa.models.options import Count, Rate


class MLB(Fusion):
    """Low-rank bilinear attention, then low-rank bilinear fusion.

    Args:
        image_dim: channels of a region.
        regions: regions an image; any number works.
        question_dim: width of the question vector.
        glimpses: attention maps.
        fusion_dim: rank of both bilinear forms (the paper: 1200).
        dropout: before every projection.

    Attributes:
        out_dim: fusion_dim.
    """

    attention_name = "glimpse"

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        glimpses: Count = 2,
        fusion_dim: Count = 1200,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.region = projection(image_dim, fusion_dim, dropout)
        self.query = projection(question_dim, fusion_dim, dropout)
        # a bias would add the same to every region, which softmax ignores
        self.logit = nn.Sequential(FastDropout(dropout), nn.Linear(fusion_dim, glimpses, bias=False))
        self.image = projection(glimpses * image_dim, fusion_dim, dropout)
        self.question = projection(question_dim, fusion_dim, dropout)

    def forward(self, image: Image, question: Question) -> Fused:
        region_BRD = once_an_image(self.region, image.regions_IRC, image)
        joint_BRD = region_BRD * self.query(question.sentence_BD)[:, None]
        found_BHC, attention_BHR = attend_image(self.logit(joint_BRD).transpose(1, 2), image.regions_IRC, image)
        image_BD = self.image(torch.flatten(found_BHC, 1))
        return Fused(image_BD * self.question(question.sentence_BD), attention_BHR)
