"""`multi_glimpse`: several attention maps from one small network, their finds beside the question.

Source: Kazemi and Elqursh 2017, "Show, Ask, Attend, and Answer: A Strong Baseline For Visual Question Answering" (arXiv
1704.03162), with the order of layers of its well-known re-implementation. With v_r = f_r / |f_r| and G glimpses:

    h_r = ReLU(W_v dropout(v_r) + W_q dropout(q) + b)
    p_g = softmax_r(w_g . dropout(h_r))
    z = [sum_r p_1r v_r, ..., sum_r p_Gr v_r, q]

The paper's classifier has one hidden layer of 1024 with ReLU: `classifier: {hidden: [1024], activation: relu}`.

Legend: `B` batch, `R` regions, `C` channels, `A` attention, `H` glimpses.
"""

import torch
from torch import Tensor, nn

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import attend_image, once_an_image, unit_length
from vqa.models.options import Count, Rate


class MultiGlimpse(Fusion):
    """Glimpses at the regions, side by side with the question vector.

    Args:
        image_dim: channels of a region.
        regions: regions an image; any number works.
        question_dim: width of the question vector.
        glimpses: attention maps.
        attention_dim: width of the hidden layer that scores a region.
        normalise_image: scale every region to length 1.
        dropout: on both inputs and on the hidden layer of the attention.

    Attributes:
        out_dim: glimpses * image_dim + question_dim.
    """

    attention_name = "glimpse"

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        glimpses: Count = 2,
        attention_dim: Count = 512,
        normalise_image: bool = True,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.out_dim = glimpses * image_dim + question_dim
        self.normalise_image = normalise_image
        self.dropout = FastDropout(dropout)
        self.region = nn.Linear(image_dim, attention_dim, bias=False)
        self.query = nn.Linear(question_dim, attention_dim)
        # a bias would add the same to every region, which softmax ignores
        self.logit = nn.Linear(attention_dim, glimpses, bias=False)

    def forward(self, image: Image, question: Question) -> Fused:
        region_IRC = unit_length(image.regions_IRC) if self.normalise_image else image.regions_IRC
        query_B1A = self.query(self.dropout(question.sentence_BD))[:, None]
        region_BRA = once_an_image(self._project, region_IRC, image, self.dropout)
        hidden_BRA = torch.relu(region_BRA + query_B1A)
        logit_BHR = self.logit(self.dropout(hidden_BRA)).transpose(1, 2)
        found_BHC, attention_BHR = attend_image(logit_BHR, region_IRC, image)
        return Fused(torch.cat([found_BHC.flatten(1), question.sentence_BD], dim=1), attention_BHR)

    def _project(self, region_IRC: Tensor) -> Tensor:
        region_IRA: Tensor = self.region(self.dropout(region_IRC))
        return region_IRA
