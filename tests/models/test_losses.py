"""The losses against dense targets and torch's own functions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqa.models import LOSSES, Target
from vqa.models.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    KullbackLeibler,
    SampledCrossEntropy,
    SoftCrossEntropy,
)

ANSWERS = 7
COUNTS = [{2: 10}, {0: 5, 3: 3, 6: 1}, {}, {1: 2, 5: 2}, {4: 1}]  # of ten humans; the rest answered outside
MAJORITY = [2, 0, -1, -1, 4]


def target_of(counts: list[dict[int, int]], majority: list[int]) -> Target:
    answer_BK = torch.full((len(counts), 3), -1)
    count_BK = torch.zeros(len(counts), 3)
    for row, answers in enumerate(counts):
        for cell, (answer, count) in enumerate(answers.items()):
            answer_BK[row, cell], count_BK[row, cell] = answer, count
    return Target(torch.tensor(majority), answer_BK, count_BK, (0.3 * count_BK).clamp(max=1))


def dense(cells_BK: Tensor, target: Target) -> Tensor:
    values_BA = torch.zeros(len(cells_BK), ANSWERS)
    for row in range(len(cells_BK)):
        for cell in range(3):
            if target.answer_BK[row, cell] >= 0:
                values_BA[row, target.answer_BK[row, cell]] = cells_BK[row, cell]
    return values_BA


def random_logits() -> Tensor:
    return (3 * torch.randn(len(COUNTS), ANSWERS, generator=torch.Generator().manual_seed(0))).requires_grad_()


def check(loss: Tensor, expected: Tensor, logits_BA: Tensor) -> None:
    """Equal in value and in gradient."""
    torch.testing.assert_close(loss, expected)
    (gradient,), (wanted,) = (torch.autograd.grad(value, logits_BA, retain_graph=True) for value in (loss, expected))
    torch.testing.assert_close(gradient, wanted)


def test_cross_entropy() -> None:
    logits_BA = random_logits()
    expected = F.cross_entropy(logits_BA, torch.tensor(MAJORITY), ignore_index=-1)
    check(CrossEntropy()(logits_BA, target_of(COUNTS, MAJORITY)), expected, logits_BA)


@pytest.mark.parametrize("humans", [10, None])
def test_soft_cross_entropy(humans: int | None) -> None:
    logits_BA = random_logits()
    target, rows = target_of(COUNTS, MAJORITY), [0, 1, 3, 4]
    counts_BA = dense(target.count_BK, target)[rows]
    counts_BA = counts_BA / (humans or counts_BA.sum(dim=1, keepdim=True))
    check(SoftCrossEntropy(humans=humans)(logits_BA, target), F.cross_entropy(logits_BA[rows], counts_BA), logits_BA)


@pytest.mark.parametrize("outside", ["skip", "negative"])
def test_binary_cross_entropy(outside: str) -> None:
    logits_BA = random_logits()
    target = target_of(COUNTS, MAJORITY)
    rows = [0, 1, 3, 4] if outside == "skip" else [0, 1, 2, 3, 4]
    scores_BA = dense(target.score_BK, target)[rows]
    mean_of_all = F.binary_cross_entropy_with_logits(logits_BA[rows], scores_BA)
    loss = BinaryCrossEntropy(outside=outside)(logits_BA, target)  # type: ignore[arg-type]
    check(loss, mean_of_all * ANSWERS, logits_BA)


def test_kullback_leibler() -> None:
    logits_BA, target, rows = random_logits(), target_of(COUNTS, MAJORITY), [0, 1, 3, 4]
    share_BA = dense(target.count_BK, target)[rows]
    share_BA = share_BA / share_BA.sum(dim=1, keepdim=True)
    expected = F.kl_div(logits_BA[rows].log_softmax(dim=1), share_BA, reduction="batchmean")
    check(KullbackLeibler()(logits_BA, target), expected, logits_BA)
    perfect = KullbackLeibler()(share_BA.clamp(min=1e-30).log(), Target(*(part[rows] for part in target)))
    assert abs(perfect.item()) < 1e-6


def test_sampled_cross_entropy_samples_as_often_as_humans_answered() -> None:
    """The gradient of a row is its probabilities less 1 at the answer that was sampled."""
    logits_BA, times = torch.zeros(4000, ANSWERS, requires_grad=True), 4000
    target = Target(*(part.expand(times, *part.shape[1:]) for part in target_of([COUNTS[1]], [-1])))
    loss = SampledCrossEntropy()
    torch.manual_seed(0)
    first = loss(logits_BA, target)
    first.backward()
    assert logits_BA.grad is not None
    sampled_A = (logits_BA.grad < 0).sum(dim=0)
    for answer in range(ANSWERS):
        expected = COUNTS[1].get(answer, 0) / 9
        assert abs(sampled_A[answer] / times - expected) <= 4 * (expected * (1 - expected) / times) ** 0.5
    torch.manual_seed(0)
    assert torch.equal(loss(logits_BA, target), first)


def test_sampled_cross_entropy_is_its_expectation_in_eval_mode() -> None:
    logits_BA, target = random_logits(), target_of(COUNTS, MAJORITY)
    loss = SampledCrossEntropy()
    check(loss.eval()(logits_BA, target), SoftCrossEntropy()(logits_BA, target), logits_BA)
    torch.manual_seed(0)
    many = Target(*(part.repeat(2000, *[1] * (part.dim() - 1)) for part in target))
    mean = loss.train()(logits_BA.repeat(2000, 1), many)
    torch.testing.assert_close(mean, SoftCrossEntropy()(logits_BA, target), atol=0.05, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_outside_the_vocabulary_gives_zero_and_no_gradient(name: str) -> None:
    logits_BA = random_logits()
    loss = LOSSES[name]()(logits_BA, target_of([{}] * len(COUNTS), [-1] * len(COUNTS)))
    (gradient_BA,) = torch.autograd.grad(loss, logits_BA)
    assert loss.shape == () and loss.item() == 0
    assert not gradient_BA.any()


@pytest.mark.parametrize("name", LOSSES)
def test_bf16_logits_give_a_float32_loss_that_extreme_logits_do_not_break(name: str) -> None:
    logits_BA = torch.tensor([[500.0, -500, 0, 0, 0, 0, 0]], dtype=torch.bfloat16, requires_grad=True)
    loss = LOSSES[name]()(logits_BA, target_of([{1: 10}], [1]))
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert logits_BA.grad is not None and logits_BA.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_the_right_answer_costs_less(name: str) -> None:
    target = target_of([{1: 10}], [1])
    right, wrong = torch.zeros(1, ANSWERS), torch.zeros(1, ANSWERS)
    right[0, 1], wrong[0, 2] = 4, 4
    assert LOSSES[name]()(right, target) < LOSSES[name]()(wrong, target)
