"""`stacked_attention`: the question looks at the regions several times, each time with what it found before.

Source: Yang et al. 2016, "Stacked Attention Networks for Image Question Answering" (arXiv 1511.02274). With regions
v_r = tanh(W_I f_r + b_I) and u^0 the question, hop k = 1 ... K is (equations 15 to 18 for the first hop, 19 and 20 on
for the later ones, each with weights of its own):

    h_r = tanh(W_v^k v_r + (W_u^k u^(k-1) + b^k))
    p = softmax_r(w^k . h_r)
    u^k = sum_r p_r v_r + u^(k-1)

The paper's b_P on the logit adds the same to every region, so softmax ignores it; it is kept only with `tanh_logit`,
where it matters.

Legend: `B` batch, `R` regions, `C` channels, `D` question, `A` attention, `H` hops.
"""

import torch
from torch import Tensor, nn

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import attend_image
from vqa.models.options import Count, Rate


class StackedAttention(Fusion):
    """One to n hops of attention over the regions; hops do not share weights.

    Args:
        image_dim: channels of a region.
        regions: regions an image; any number works.
        question_dim: width of the question vector, and so of the regions after their projection.
        hops: how many times the question looks.
        attention_dim: width of the hidden layer that scores a region.
        dropout: on that hidden layer (as re-implementations of the paper have it).
        tanh_sides: tanh of the two sides apart, then their sum, instead of tanh of the sum (the released code).
        tanh_logit: tanh on a region's logit (the released code): no region then gets more than e^2 = 7.4 times the
            weight of another.

    Attributes:
        out_dim: question_dim.
    """

    attention_name = "hop"

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        hops: Count = 2,
        attention_dim: Count = 512,
        dropout: Rate = 0.5,
        tanh_sides: bool = False,
        tanh_logit: bool = False,
    ) -> None:
        super().__init__()
        self.out_dim = question_dim
        self.tanh_sides, self.tanh_logit = tanh_sides, tanh_logit
        self.project = nn.Linear(image_dim, question_dim)
        # eq. 15 has one bias for the sum of both sides; two tanhs need two
        self.image = nn.ModuleList(nn.Linear(question_dim, attention_dim, bias=tanh_sides) for _ in range(hops))
        self.query = nn.ModuleList(nn.Linear(question_dim, attention_dim) for _ in range(hops))
        self.logit = nn.ModuleList(nn.Linear(attention_dim, 1, bias=tanh_logit) for _ in range(hops))
        self.dropout = FastDropout(dropout)

    def forward(self, image: Image, question: Question) -> Fused:
        region_IRD = self.project(image.regions_IRC).tanh_()  # in place: these are the largest tensors of a step
        query_BD = question.sentence_BD
        looked: list[Tensor] = []
        for side, query, logit in zip(self.image, self.query, self.logit, strict=True):
            hidden_BRA, query_B1A = image.of(side(region_IRD)), query(query_BD)[:, None]
            if self.tanh_sides:
                hidden_BRA = hidden_BRA.tanh_() + torch.tanh(query_B1A)
            else:
                hidden_BRA = hidden_BRA.add_(query_B1A).tanh_()
            logit_B1R = logit(self.dropout(hidden_BRA)).transpose(1, 2)
            if self.tanh_logit:
                logit_B1R = torch.tanh(logit_B1R)
            found_B1D, attention_B1R = attend_image(logit_B1R, region_IRD, image)
            query_BD = found_B1D[:, 0] + query_BD
            looked.append(attention_B1R)
        return Fused(query_BD, torch.cat(looked, dim=1))
