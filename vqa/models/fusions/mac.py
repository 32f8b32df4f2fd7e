"""`mac`: a recurrent cell reads the question and the image in steps, each step a small operation of its own.

Source: Hudson and Manning 2018, "Compositional Attention Networks for Machine Reasoning" (arXiv 1803.03067), equations
c1 to w3. With the question q, its words w_s, regions k_r, and step i of p; W and b are the same in each step but for
W_i, b_i; what starts (c_0, m_0) is learned:

    control  c_i = sum_s softmax_s(w . ((W [c_i-1, W_i q + b_i] + b) * w_s)) w_s
    read     I_r = (W m_i-1 + b) * (W' k_r),  r_i = sum_r softmax_r(w . (c_i * (W [I_r, k_r]))) k_r
    write    m' = W [r_i, m_i-1] + b
      self_attention:  m' = m' + W sum_j<i softmax_j(w . (c_i * c_j)) m_j
      memory_gate:     m_i = s m_i-1 + (1 - s) m',  s = sigmoid(w . c_i + b);  else m_i = m'
    z = ELU(W [q, m_p] + b), to which a linear classifier is added; k_r = ELU(W ELU(W f_r + b) + b) of the features f_r

The attention returned is that over regions, one row a step. All of `read` before softmax is linear in k_r, so it is
computed as one vector a question, times each region. `read: elu` is the unit of the released code, which is not: with
k'_r = W' k_r + b and I_r = (W m_i-1 + b) * k'_r, k_r has the share softmax_r(w . ELU(c_i * ELU(W [I_r, k'_r] + b))).
Departures: two linear layers on each region, there 3x3 convolutions of a map; the words come from the question encoder
through one linear layer; biases that softmax would ignore are left out; W_p in front of the write unit's first line,
where there is self-attention, is a part of its W; dropout is that of the released code on the memory that `read` sees,
one mask a question in all steps, and before the last layer. The released code of CLEVR starts with c_0 = q, and its c_i
does not see c_i-1.

Legend: `B` batch, `I` distinct images, `T` tokens, `R` regions, `C` channels, `D` hidden, `P` steps.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import attend
from vqa.models.options import Count, Rate


class Control(nn.Module):
    """Which words this step is about."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.join = nn.Linear(2 * dim, dim)
        self.logit = nn.Linear(dim, 1, bias=False)

    def forward(self, control_BD: Tensor, question_BD: Tensor, words_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """`[B, D]`."""
        asked_BD = self.join(torch.cat([control_BD, question_BD], dim=1)) * self.logit.weight
        found_B1D, _ = attend(asked_BD[:, None] @ words_BTD.mT, words_BTD, mask_BT)
        return found_B1D[:, 0]


class LinearRead(nn.Module):
    """What the image holds of memory and control, as in the paper's equations."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.memory = nn.Linear(dim, dim)
        self.region, self.interaction, self.alone = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.logit = nn.Linear(dim, 1, bias=False)

    def prepare(self, image: Image) -> tuple[Tensor, ...]:
        """What is the same in each step: the regions `[B, R, D]`."""
        return (image.regions_BRC,)

    def forward(self, memory_BD: Tensor, control_BD: Tensor, regions_BRD: Tensor) -> Tensor:
        """Logits `[B, 1, R]`: w . (c * (W1 ((W m + b) * W' k_r) + W2 k_r)), from the left to the right."""
        asked_BD = control_BD * self.logit.weight
        of_interaction_BD, of_region_BD = asked_BD @ self.interaction.weight, asked_BD @ self.alone.weight
        query_BD = (of_interaction_BD * self.memory(memory_BD)) @ self.region.weight + of_region_BD
        return query_BD[:, None] @ regions_BRD.mT


class ELURead(nn.Module):
    """What the image holds of memory and control, as in the released code."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.memory, self.region, self.alone = (nn.Linear(dim, dim) for _ in range(3))
        self.interaction = nn.Linear(dim, dim, bias=False)
        self.logit = nn.Linear(dim, 1, bias=False)

    def prepare(self, image: Image) -> tuple[Tensor, ...]:
        """What is the same in each step: the regions projected once, and twice, `[B, R, D]`."""
        projected_IRD = self.region(image.regions_IRC)
        return image.of(projected_IRD), image.of(self.alone(projected_IRD))

    def forward(self, memory_BD: Tensor, control_BD: Tensor, regions_BRD: Tensor, alone_BRD: Tensor) -> Tensor:
        """Logits `[B, 1, R]`."""
        joint_BRD = self.memory(memory_BD)[:, None] * regions_BRD
        joint_BRD = F.elu(self.interaction(joint_BRD) + alone_BRD)
        logit_BR1: Tensor = self.logit(F.elu(control_BD[:, None] * joint_BRD))
        return logit_BR1.mT


class Write(nn.Module):
    """The next memory."""

    def __init__(self, dim: int, self_attention: bool, memory_gate: bool) -> None:
        super().__init__()
        self.join = nn.Linear(2 * dim, dim)
        self.look = nn.Linear(dim, 1, bias=False) if self_attention else None
        self.earlier = nn.Linear(dim, dim, bias=False) if self_attention else None
        self.gate = nn.Linear(dim, 1) if memory_gate else None

    def forward(self, read_BD: Tensor, control_BD: Tensor, controls: list[Tensor], memories: list[Tensor]) -> Tensor:
        """`[B, D]`; the lists are those of all earlier steps and the start."""
        before_BD = memories[-1]
        memory_BD: Tensor = self.join(torch.cat([read_BD, before_BD], dim=1))
        if self.look is not None and self.earlier is not None:
            asked_B1D = (control_BD * self.look.weight)[:, None]
            found_B1D, _ = attend(asked_B1D @ torch.stack(controls, dim=1).mT, torch.stack(memories, dim=1))
            memory_BD = memory_BD + self.earlier(found_B1D[:, 0])
        if self.gate is not None:
            kept_B1 = self.gate(control_BD).sigmoid()
            memory_BD = kept_B1 * before_BD + (1 - kept_B1) * memory_BD
        return memory_BD


class MAC(Fusion):
    """Control, read and write, several steps one after another.

    Args:
        image_dim: channels of a region.
        question_dim: width of the question vector.
        word_dim: width of a word vector.
        steps: how often the cell is applied; the authors: 12 or 16 on CLEVR, 4 on GQA.
        hidden_dim: width of control, memory, words and regions inside, and of the result.
        read: the read unit, "linear" as in the paper's equations, or "elu" as in the released code.
        self_attention: the memory takes from those of earlier steps whose control was similar.
        memory_gate: a step may keep the memory as it was.
        dropout: of the memory that is read with, and before the last layer.

    Raises:
        InputError: self_attention with a single step, which has none before it.

    Attributes:
        out_dim: hidden_dim.
    """

    attention_name = "step"

    def __init__(
        self,
        *,
        image_dim: int,
        question_dim: int,
        word_dim: int,
        steps: Count = 4,
        hidden_dim: Count = 512,
        read: Literal["linear", "elu"] = "linear",
        self_attention: bool = False,
        memory_gate: bool = False,
        dropout: Rate = 0.15,
    ) -> None:
        super().__init__()
        if self_attention and steps == 1:
            raise InputError("fusion 'mac': self_attention looks at earlier steps, so steps must be at least 2")
        self.out_dim = hidden_dim
        self.steps = steps
        self.regions = nn.Sequential(
            nn.Linear(image_dim, hidden_dim), nn.ELU(), nn.Linear(hidden_dim, hidden_dim), nn.ELU()
        )
        self.words = nn.Linear(word_dim, hidden_dim)
        self.question = nn.Linear(question_dim, steps * hidden_dim)
        self.control_D, self.memory_D = (nn.Parameter(torch.randn(hidden_dim)) for _ in range(2))
        self.control = Control(hidden_dim)
        self.read = LinearRead(hidden_dim) if read == "linear" else ELURead(hidden_dim)
        self.write = Write(hidden_dim, self_attention, memory_gate)
        self.dropout = FastDropout(dropout)
        self.output = nn.Sequential(FastDropout(dropout), nn.Linear(question_dim + hidden_dim, hidden_dim), nn.ELU())

    def forward(self, image: Image, question: Question) -> Fused:
        know = image._replace(regions_IRC=self.regions(image.regions_IRC))
        words_BTD, sentence_BD = self.words(question.words_BTD), question.sentence_BD
        regions_BRD, mask_BR, prepared = know.regions_BRC, image.mask_BR, self.read.prepare(know)
        controls = [self.control_D.expand(len(sentence_BD), -1)]
        memories = [self.memory_D.expand(len(sentence_BD), -1)]
        kept_BD = self.dropout(torch.ones_like(memories[0]))
        looks = []
        for asked_BD in self.question(sentence_BD).chunk(self.steps, dim=1):
            control_BD = self.control(controls[-1], asked_BD, words_BTD, question.mask_BT)
            logit_B1R = self.read(memories[-1] * kept_BD, control_BD, *prepared)
            found_B1D, attention_B1R = attend(logit_B1R, regions_BRD, mask_BR)
            memories.append(self.write(found_B1D[:, 0], control_BD, controls, memories))
            controls.append(control_BD)
            looks.append(attention_B1R)
        return Fused(self.output(torch.cat([sentence_BD, memories[-1]], dim=1)), torch.cat(looks, dim=1))
