"""What training minimises. Answers are sparse, up to ten a question; no `[B, A]` target is ever built.

A question none of whose answers is in the vocabulary takes no part: a batch of such questions alone gives a loss of 0
and a gradient of 0.

Legend: `B` batch, `A` answers of the vocabulary, `K` distinct human answers of a question.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqa.models.options import Count


class Target(NamedTuple):
    """The human answers of a batch of questions.

    Attributes:
        majority_B: int64, the most frequent answer; -1 outside the vocabulary.
        answer_BK: int64, the distinct human answers in the vocabulary; -1 where there are fewer than K.
        count_BK: float, how many humans gave that answer; 0 where empty.
        score_BK: float, the official soft score of that answer (0, .3, .6, .9, 1); 0 where empty.
    """

    majority_B: Tensor
    answer_BK: Tensor
    count_BK: Tensor
    score_BK: Tensor


class Loss(nn.Module):
    """A mean over some questions of a batch: those that it learns from. Training leaves out the others beforehand.

    Attributes:
        over: the questions whose "majority" answer is in the vocabulary, those that have a "known" answer at all, or
            "all".
    """

    over: Literal["majority", "known", "all"] = "known"

    def averaged_over(self, target: Target) -> Tensor:
        """bool `[B]`: the questions that the mean is over."""
        if self.over == "majority":
            return target.majority_B >= 0
        known_B = known_rows(target)
        return torch.ones_like(known_B) if self.over == "all" else known_B


class CrossEntropy(Loss):
    """Cross entropy with the majority answer, averaged over the questions whose majority answer is known."""

    over = "majority"

    def forward(self, logits_BA: Tensor, target: Target) -> Tensor:
        """A scalar, float32."""
        total = F.cross_entropy(logits_BA.float(), target.majority_B, ignore_index=-1, reduction="sum")
        return total / self.averaged_over(target).sum().clamp(min=1)


class SoftCrossEntropy(Loss):
    """Cross entropy with the distribution of human answers: -sum_a (count_a / humans) log p_a.

    Source: Kazemi and Elqursh 2017, "Show, Ask, Attend, and Answer" (arXiv 1704.03162). Averaged over the questions
    with an answer in the vocabulary.

    Args:
        humans: what the counts are divided by: 10 is the paper's, where a question loses the weight of answers outside
            the vocabulary; None divides by the question's own answers in the vocabulary.
    """

    def __init__(self, *, humans: Count | None = None) -> None:
        super().__init__()
        self.humans = humans

    def forward(self, logits_BA: Tensor, target: Target) -> Tensor:
        """A scalar, float32."""
        if self.humans is None:
            weight_BK = answer_shares(target)
        else:
            weight_BK = target.count_BK.float() * (target.answer_BK >= 0) / self.humans
        log_sum_B1 = logits_BA.float().logsumexp(dim=-1, keepdim=True)
        loss_B = (weight_BK * (log_sum_B1 - gather_answers(logits_BA, target.answer_BK))).sum(dim=-1)
        return loss_B.sum() / known_rows(target).sum().clamp(min=1)


class BinaryCrossEntropy(Loss):
    """Binary cross entropy with the soft scores, summed over the answers and averaged over the questions.

    Source: Teney et al. 2018, "Tips and Tricks for Visual Question Answering" (arXiv 1708.02711):
    sigmoid outputs, soft scores as targets. With softplus(x) = log(1 + e^x) it is sum_a softplus(x_a) - sum_a s_a x_a,
    and s_a is zero for all but K answers.

    Args:
        outside: a question without any answer in the vocabulary is left out ("skip") or is an example of every answer
            being wrong ("negative", as a well-known re-implementation has it).
    """

    def __init__(self, *, outside: Literal["skip", "negative"] = "skip") -> None:
        super().__init__()
        self.over = "all" if outside == "negative" else "known"

    def forward(self, logits_BA: Tensor, target: Target) -> Tensor:
        """A scalar, float32."""
        score_BK = target.score_BK.float() * (target.answer_BK >= 0)
        negative_B = F.softplus(logits_BA.float()).sum(dim=-1)
        loss_B = negative_B - (score_BK * gather_answers(logits_BA, target.answer_BK)).sum(dim=-1)
        counted_B = self.averaged_over(target)
        return loss_B.where(counted_B, 0).sum() / counted_B.sum().clamp(min=1)


class KullbackLeibler(Loss):
    """KL(human answers || model): sum_a t_a (log t_a - log p_a), t_a the share of count_a in the vocabulary.

    Its gradient is that of `soft_cross_entropy`; its least value is 0. Averaged over the questions with an answer in
    the vocabulary.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cross_entropy = SoftCrossEntropy()

    def forward(self, logits_BA: Tensor, target: Target) -> Tensor:
        """A scalar, float32."""
        share_BK = answer_shares(target)
        entropy = torch.special.entr(share_BK).sum() / known_rows(target).sum().clamp(min=1)
        loss: Tensor = self.cross_entropy(logits_BA, target) - entropy
        return loss


class SampledCrossEntropy(Loss):
    """Cross entropy with one human answer, sampled anew every time with torch's generator.

    Source: Yang et al. 2016, "Stacked Attention Networks" (arXiv 1511.02274), the released code. An answer outside the
    vocabulary is never sampled. In eval mode it is the expectation over samples, which is `soft_cross_entropy`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.expectation = SoftCrossEntropy()

    def forward(self, logits_BA: Tensor, target: Target) -> Tensor:
        """A scalar, float32."""
        if not self.training:
            loss: Tensor = self.expectation(logits_BA, target)
            return loss
        known_B = known_rows(target)
        # an unknown row needs some weight to sample by; its sample is not used
        weight_BK = answer_shares(target).masked_fill(~known_B[:, None], 1.0)
        # the largest of weight / exponential noise falls on each answer as often as its weight says; multinomial, which
        # does the same, first looks at its input and so makes the host wait for the GPU
        place_B1 = (weight_BK / torch.empty_like(weight_BK).exponential_()).argmax(dim=1, keepdim=True)
        sampled_B = target.answer_BK.gather(1, place_B1)[:, 0]
        total = F.cross_entropy(logits_BA.float(), sampled_B.where(known_B, -1), ignore_index=-1, reduction="sum")
        return total / known_B.sum().clamp(min=1)


def answer_shares(target: Target) -> Tensor:
    """float32 `[B, K]`: the counts divided by their sum; zeros for a question without an answer in the vocabulary."""
    count_BK = target.count_BK.float() * (target.answer_BK >= 0)
    return count_BK / count_BK.sum(dim=-1, keepdim=True).clamp(min=1)


def gather_answers(values_BA: Tensor, answer_BK: Tensor) -> Tensor:
    """The values of the K answers in float32; whatever stands first where a cell is empty."""
    return values_BA.gather(1, answer_BK.clamp(min=0)).float()


def known_rows(target: Target) -> Tensor:
    """bool `[B]`: the questions with at least one answer in the vocabulary."""
    return (target.answer_BK >= 0).any(dim=-1)


LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "sampled_cross_entropy": SampledCrossEntropy,
    "soft_cross_entropy": SoftCrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "kl": KullbackLeibler,
}
