"""Dropout from random bytes: the statistics of dropout, under torch's seed, in every type."""

import pytest
import torch

from vqa.errors import InputError
from vqa.models.dropout import FastDropout


@pytest.mark.parametrize("probability", [0.1, 0.2, 0.5, 0.9])
def test_drops_the_stated_share_and_keeps_the_expectation(probability: float) -> None:
    torch.manual_seed(0)
    dropout, count = FastDropout(probability), 400_000
    assert abs(dropout.probability - probability) <= 1 / 512
    values = dropout(torch.ones(count))
    scale = 1 / (1 - dropout.probability)
    assert values.unique().tolist() == pytest.approx([0.0, scale])
    deviation = scale * (dropout.probability * (1 - dropout.probability) / count) ** 0.5
    assert abs(float(values.mean()) - 1) < 4 * deviation


def test_neighbours_are_independent() -> None:
    """Eight masks come from one random word: none of the eight may follow another, nor be off by itself."""
    torch.manual_seed(1)
    dropped_NB = (FastDropout(0.5)(torch.ones(80_000)) == 0).double().view(-1, 8)
    assert ((dropped_NB.mean(dim=0) - 0.5).abs() < 4 * 0.5 / 10_000**0.5).all()
    correlation_BB = torch.corrcoef(dropped_NB.T) - torch.eye(8)
    assert (correlation_BB.abs() < 4.5 / 10_000**0.5).all()


def test_seeded_by_torch_and_different_each_time() -> None:
    dropout, ones = FastDropout(0.5), torch.ones(3, 5, 7)
    torch.manual_seed(3)
    first, second = dropout(ones), dropout(ones)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(ones))
    assert first.shape == ones.shape and not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_gradient_passes_where_the_value_does(dtype: torch.dtype) -> None:
    values = torch.ones(1001, dtype=dtype, requires_grad=True)
    result = FastDropout(0.5)(values)
    result.sum().backward()
    assert result.dtype == dtype and values.grad is not None
    assert torch.equal(values.grad, result.detach())


def test_off_in_eval_mode_and_at_zero() -> None:
    values = torch.randn(9)
    assert FastDropout(0.5).eval()(values) is values
    assert FastDropout(0.0)(values) is values
    assert FastDropout(0.5)(values[:0]).shape == (0,)


def test_works_when_traced_and_off_a_transposed_view() -> None:
    dropout = FastDropout(0.25)
    torch.manual_seed(0)
    traced = torch.compile(dropout, backend="aot_eager", fullgraph=True)(torch.ones(100_000))
    assert abs(float((traced == 0).float().mean()) - 0.25) < 0.01
    assert dropout(torch.ones(4, 6).T).shape == (6, 4)


@pytest.mark.parametrize("probability", [-0.1, 1.0, 1.5])
def test_refuses_what_is_no_probability(probability: float) -> None:
    with pytest.raises(InputError, match="at least 0 and below 1"):
        FastDropout(probability)
