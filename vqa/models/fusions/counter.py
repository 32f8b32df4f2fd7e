"""`counter`: attention in two glimpses, and a count of the objects that the first one looks at.

Source: Zhang, Hare and Prugel-Bennett 2018, "Learning to Count Objects in Natural Images for Visual Question Answering"
(arXiv 1802.05766), with details of the released code. The model around the component is that of `multi_glimpse`, with
another way to join two vectors, x o y = ReLU(x + y) - (x - y)^2. With v_r = f_r / |f_r| and G glimpses:

    s_gr = w_g . dropout(W_v dropout(v_r) o (W_q dropout(q) + b)) + b_g
    v = [sum_r softmax_r(s_1r) v_r, ..., sum_r softmax_r(s_Gr) v_r]
    z = BN((U_v dropout(v) + c) o (U_q dropout(q) + c') + BN(ReLU(U_c count(s_1, boxes) + c'')))

The component takes the N regions with the largest s_1r, a_i = sigmoid(s_1i), and d_ij = 1 - IoU_ij. Its f_0 ... f_7
are learnt, piecewise linear in 16 pieces, rising from f(0) = 0 to f(1) = 1. Edges between boxes of one object are taken
out (A), then each object is counted once however many boxes it has (the similarities p):

    A_ij = f_0(a_i a_j) f_1(d_ij),  X_ij = f_3(a_i a_j) f_4(d_ij)
    p_i = sum_j f_2(1 - |a_i - a_j|) prod_k f_2(1 - |X_ik - X_jk|)
    c = sqrt(sum_ij A_ij / (p_i p_j) + sum_i f_0(a_i^2) / p_i)
    count_n = max(0, 1 - |min(c, N) - n|) f_7(mean_i |f_5(a_i) - 1/2| + mean_ij |f_6(d_ij) - 1/2|),  n = 0 ... N

An image with fewer than N real regions gets empty boxes with a_i = 0 beside them. The released classifier's last layer
is this project's: `classifier: {dropout: 0.5}`.

Legend: `B` batch, `R` regions, `C` channels, `A` attention, `H` glimpses, `D` fusion, `N` counted regions, `F`
functions, `P` pieces.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqa.models.boxes import known_boxes, overlaps
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import BatchNorm, at_least_float32, attend, once_an_image, unit_length
from vqa.models.options import Count, Rate

PIECES, FUNCTIONS = 16, 8


class PiecewiseLinear(nn.Module):
    """Functions from [0, 1] onto [0, 1] that rise in 16 straight pieces; at first f(x) = x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight_FP = nn.Parameter(torch.ones(FUNCTIONS, PIECES))

    def forward(self, number: int, values: Tensor) -> Tensor:
        """Function `number` of every value."""
        rise_P = at_least_float32(self.weight_FP[number]).abs()
        start_P = torch.arange(PIECES, device=values.device, dtype=values.dtype)
        # how much of each piece lies below; where two pieces meet, the slope is that of the right one
        within_P = 1 - torch.relu(1 - (PIECES * values[..., None] - start_P).clamp(min=0))
        return (within_P * (rise_P / rise_P.sum())).sum(dim=-1)


class Counter(nn.Module):
    """The counting component.

    Args:
        objects: regions that may count, and the largest count.
    """

    def __init__(self, objects: int) -> None:
        super().__init__()
        self.objects = objects
        self.f = PiecewiseLinear()

    def forward(self, logit_BR: Tensor, boxes_BR4: Tensor, mask_BR: Tensor | None) -> Tensor:
        """How sure it is of each count from 0 to `objects`, `[B, objects + 1]` in float32 or better.

        Args:
            logit_BR: how much each region is looked at, before any softmax.
            boxes_BR4: where it lies; empty where padded.
            mask_BR: bool, True on real regions; None: all.
        """
        logit_BR, missing = at_least_float32(logit_BR), max(0, self.objects - logit_BR.shape[1])
        if mask_BR is not None:
            logit_BR = logit_BR.masked_fill(~mask_BR, -torch.inf)
        logit_BN, chosen_BN = F.pad(logit_BR, (0, missing), value=-torch.inf).topk(self.objects, dim=1, sorted=False)
        boxes_BR4 = F.pad(boxes_BR4, (0, 0, 0, missing))
        boxes_BN4 = boxes_BR4.gather(1, chosen_BN[:, :, None].expand(-1, -1, 4))
        a_BN, distance_BNN = torch.sigmoid(logit_BN), 1 - overlaps(boxes_BN4)
        both_BNN = a_BN[:, :, None] * a_BN[:, None]
        copies_BN = self._copies(self.f(3, both_BNN) * self.f(4, distance_BNN), a_BN)
        edge_BNN = self.f(0, both_BNN) * self.f(1, distance_BNN) / (copies_BN[:, :, None] * copies_BN[:, None])
        loop_BN = self.f(0, a_BN.square()) / copies_BN
        count_B1 = (edge_BNN.sum(dim=(1, 2)) + loop_BN.sum(dim=1) + 1e-20).sqrt()[:, None]
        known_B = (self.f(5, a_BN) - 0.5).abs().mean(dim=1) + (self.f(6, distance_BNN) - 0.5).abs().mean(dim=(1, 2))
        number_N = torch.arange(self.objects + 1, device=count_B1.device, dtype=count_B1.dtype)
        near_BN = torch.relu(1 - (count_B1.clamp(max=self.objects) - number_N).abs())
        return near_BN * self.f(7, known_B)[:, None]

    def _copies(self, edge_BNN: Tensor, a_BN: Tensor) -> Tensor:
        """How many of the chosen regions are the same object as each, itself included."""
        alike_BNNN = self.f(2, 1 - (edge_BNN[:, :, None] - edge_BNN[:, None]).abs())
        alike_BNN = self.f(2, 1 - (a_BN[:, :, None] - a_BN[:, None]).abs())
        # one factor after another: the gradient of torch's prod looks for zeros, which waits for a GPU
        for factor_BNN in alike_BNNN.unbind(dim=3):
            alike_BNN = alike_BNN * factor_BNN
        return alike_BNN.sum(dim=2)


class CounterFusion(Fusion):
    """Glimpses at the regions, joined with the question, and with a count.

    Args:
        image_dim: channels of a region.
        regions: regions an image; any number works.
        question_dim: width of the question vector.
        glimpses: attention maps; the first one is counted.
        objects: regions that may count, and the largest count.
        attention_dim: width of the hidden layer that scores a region.
        fusion_dim: width of the result.
        dropout: before every projection but the count's.

    Attributes:
        out_dim: fusion_dim.
    """

    attention_name = "glimpse"
    needs_boxes = True

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        glimpses: Count = 2,
        objects: Count = 10,
        attention_dim: Count = 512,
        fusion_dim: Count = 1024,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.dropout = FastDropout(dropout)
        self.region = nn.Linear(image_dim, attention_dim, bias=False)
        self.query = nn.Linear(question_dim, attention_dim)
        self.logit = nn.Linear(attention_dim, glimpses)
        self.image = nn.Linear(glimpses * image_dim, fusion_dim)
        self.question = nn.Linear(question_dim, fusion_dim)
        self.counter = Counter(objects)
        self.count = nn.Linear(objects + 1, fusion_dim)
        self.norm_count, self.norm = BatchNorm(fusion_dim), BatchNorm(fusion_dim)
        for layer in (self.region, self.query, self.logit, self.image, self.question, self.count):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, image: Image, question: Question) -> Fused:
        region_IRC, asked_BD = unit_length(image.regions_IRC), self.dropout(question.sentence_BD)
        region_BRA = once_an_image(
            lambda values_IRC: self.region(self.dropout(values_IRC)), region_IRC, image, self.dropout
        )
        hidden_BRA = self.dropout(join(region_BRA, self.query(asked_BD)[:, None]))
        logit_BHR = self.logit(hidden_BRA).transpose(1, 2)
        found_BHC, attention_BHR = attend(logit_BHR, image.of(region_IRC), image.mask_BR)
        sure_BN = self.counter(logit_BHR[:, 0], image.of(known_boxes(image)), image.mask_BR)
        image_BD = self.image(self.dropout(found_BHC.flatten(1)))
        joint_BD = join(image_BD, self.question(self.dropout(question.sentence_BD)))
        count_BD = torch.relu(self.count(sure_BN.to(joint_BD.dtype)))
        return Fused(self.norm(joint_BD + self.norm_count(count_BD)), attention_BHR)


def join(one: Tensor, other: Tensor) -> Tensor:
    """The paper's way to join two vectors: ReLU(x + y) - (x - y)^2."""
    return torch.relu(one + other) - (one - other).square()
