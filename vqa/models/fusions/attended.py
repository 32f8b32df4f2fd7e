"""`attended`: one fusion scores the regions against the question, another joins what was found with the question.

Source: the attention of Fukui et al. 2016 (`mcb`, arXiv 1606.01847), Kim et al. 2017 (`mlb`, arXiv 1610.04325),
Ben-younes et al. 2017 and 2019 (`mutan`, arXiv 1705.06676; `block`, arXiv 1902.00038), and Yu et al. 2017 and 2018
(`mfb`, arXiv 1708.01471; `mfh`, arXiv 1708.03619). With `score` and `join` any fusions, G glimpses over the regions f_r
and d for dropout:

    s_r = score(f_r, q),  p_g = softmax_r(P_g . d(s_r)), or with `attention_dim` P_g . ReLU(W d(s_r) + b)
    v_g = sum_r p_gr f_r, or with `found_dim` tanh(W_g d(v_g) + b_g)
    z = join([v_1, ..., v_G], q)

With `question_glimpses` the question is found among its words w_t in the same way, for both (the co-attention of `mfb`
and `mfh`, the self-attention of `block`):

    question_glimpses:  q = [sum_t a_1t w_t, ...],  a_g = softmax_t(Q_g . w_t), or Q_g . ReLU(V w_t + c) likewise

Legend: `B` batch, `I` distinct images of a batch, `R` regions, `C` channels, `T` tokens, `D` any width, `H` glimpses.
"""

import torch
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models import fusions  # the table, of which this file is a part: read when a model is built
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.fusions.vector_fusion import VectorFusion, join_single_regions
from vqa.models.layers import attend, in_turns, projection
from vqa.models.options import Count, Inner, Rate, Size, as_section, check_options, takes

NUMBERS_AT_ONCE = 2**27  # of scored regions; every tensor of a turn has so many
ROWS_AT_ONCE = 2**13  # regions that a fusion which is no `VectorFusion` scores at once


class WordAttention(nn.Module):
    """Glimpses at the words of a question, by the words alone, side by side."""

    def __init__(self, word_dim: int, hidden_dim: int | None, glimpses: int) -> None:
        super().__init__()
        self.logit = _logits(word_dim, hidden_dim, glimpses)

    def forward(self, question: Question) -> Tensor:
        """`[B, glimpses * word_dim]`."""
        logit_BHT = self.logit(question.words_BTD).transpose(1, 2)
        found_BHD, _ = attend(logit_BHT, question.words_BTD, question.mask_BT)
        return found_BHD.flatten(1)


def _logits(in_dim: int, hidden_dim: int | None, glimpses: int) -> nn.Sequential:
    """One logit a glimpse; no bias on it, which softmax ignores."""
    if hidden_dim is None:
        return nn.Sequential(nn.Linear(in_dim, glimpses, bias=False))
    return nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, glimpses, bias=False))


class Attended(Fusion):
    """Attention over the regions by any fusion, then any fusion of what was found.

    Args:
        image_dim: channels of a region.
        question_dim: width of the question vector; with question_glimpses not used.
        word_dim: width of a word vector.
        score: the fusion whose vector of one region and the question says how much the region matters.
        join: the fusion of the found regions, side by side, and the question.
        glimpses: attention maps.
        question_glimpses: attention maps over the words; 0 takes the question vector as the encoder gives it.
        attention_dim: width of the hidden layer between a fused or word vector and its logits; None: no such layer.
        found_dim: width to which each glimpse is projected by a layer of its own before `join`; None: as found.
        dropout: on the fused vector of a region and on what such a layer projects.

    Raises:
        InputError: `score` or `join` does not look at the image, or `join` needs boxes; or what they find wrong with
            the sizes.

    Attributes:
        out_dim: that of `join`.
    """

    attention_name = "glimpse"

    def __init__(
        self,
        *,
        image_dim: int,
        question_dim: int,
        word_dim: int,
        score: Inner = "product",
        join: Inner = "product",
        glimpses: Count = 2,
        question_glimpses: Size = 0,
        attention_dim: Count | None = None,
        found_dim: Count | None = None,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.words = WordAttention(word_dim, attention_dim, question_glimpses) if question_glimpses else None
        sizes = {"regions": 1, "question_dim": question_glimpses * word_dim or question_dim, "word_dim": word_dim}
        self.score = _build("score", score, sizes | {"image_dim": image_dim})
        self.dropout = FastDropout(dropout)
        self.logit = _logits(self.score.out_dim, attention_dim, glimpses)
        self.found = nn.ModuleList()
        if found_dim is not None:
            self.found.extend(projection(image_dim, found_dim, dropout) for _ in range(glimpses))
        self.join = _build("join", join, sizes | {"image_dim": glimpses * (found_dim or image_dim)})
        self.out_dim, self.needs_boxes = self.join.out_dim, self.score.needs_boxes
        if self.join.needs_boxes:
            raise InputError(
                f"fusion 'attended': join gets what was found, which lies nowhere, so it cannot be "
                f"{as_section(join)['name']!r}, which needs boxes"
            )

    def forward(self, image: Image, question: Question) -> Fused:
        if self.words is not None:
            question = question._replace(sentence_BD=self.words(question))
        found_BHC, attention_BHR = attend(self._score(image, question), image.regions_BRC, image.mask_BR)
        if len(self.found):
            glimpses = zip(self.found, found_BHC.unbind(1), strict=True)
            found_BD = torch.cat([project(glimpse_BC) for project, glimpse_BC in glimpses], dim=1)
        else:
            found_BD = found_BHC.flatten(1)
        return Fused(self.join(Image(found_BD[:, None]), question).vector_BD, attention_BHR)

    def _score(self, image: Image, question: Question) -> Tensor:
        """The logits `[B, H, R]`, of so many regions of every image at a time that they fit into memory."""
        regions_IRC, score = image.regions_IRC, self.score
        if image.mask_IR is not None:  # so that nothing they hold can reach the others, through a statistic say
            regions_IRC = regions_IRC.masked_fill(~image.mask_IR[:, :, None], 0)
        batch, asked_BS = len(question.sentence_BD), None
        rows = ROWS_AT_ONCE // batch
        if isinstance(score, VectorFusion):
            asked_BS = score.question_side(question.sentence_BD)
            rows = NUMBERS_AT_ONCE // max(asked_BS.numel(), batch * score.out_dim)

        def logits(regions_RIC: Tensor, *boxes_RI4: Tensor) -> Tensor:
            boxes_IR4 = boxes_RI4[0].transpose(0, 1) if boxes_RI4 else None
            some = Image(regions_RIC.transpose(0, 1), image.row_B, boxes_IR4=boxes_IR4)
            if isinstance(score, VectorFusion) and asked_BS is not None:
                joint_BRD = score.join_sides(score.image_side(some), asked_BS).to(regions_RIC.dtype)
            else:
                joint_BRD = join_single_regions(score, some, question)
            logit_BRH: Tensor = self.logit(self.dropout(joint_BRD))
            return logit_BRH.transpose(0, 1)

        boxes = () if image.boxes_IR4 is None else (image.boxes_IR4.transpose(0, 1),)
        logit_RBH = in_turns(logits, max(1, rows), regions_IRC.transpose(0, 1), *boxes)
        return logit_RBH.permute(1, 2, 0)


def _build(key: str, section: Inner, sizes: dict[str, int]) -> Fusion:
    """The fusion of a section inside this one."""
    part, options = check_options("fusion", fusions.FUSIONS, as_section(section), given=sizes, base=Fusion)
    fusion: Fusion = part(**takes(part, sizes), **options)
    if fusion.reads == "nothing":
        raise InputError(
            f"fusion 'attended': {key} must look at the image, which {as_section(section)['name']!r} does not"
        )
    return fusion
