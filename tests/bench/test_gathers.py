"""Ways of picking batches: the same rows whichever way, and a way that picks others' rows is not measured."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa.bench import bounds
from vqa.bench.steps import gathers
from vqa.bench.steps.gathers import (
    FEATURE_WAYS,
    QuestionTable,
    feature_rates,
    numbered_table,
    question_rates,
    wrong_rows,
)
from vqa.bench.synthetic import Shape
from vqa.models import Target
from vqa.training.inputs.batches import EncodedQuestions

CPU, SMALL = torch.device("cpu"), Shape("small", 2, 3)


def encoded(count: int, tokens: int, answers: int) -> EncodedQuestions:
    random = torch.Generator().manual_seed(count)
    target = Target(
        torch.randint(-1, 9, (count,), generator=random),
        torch.randint(-1, 9, (count, answers), generator=random),
        torch.randint(0, 11, (count, answers), generator=random).float(),
        torch.rand(count, answers, generator=random),
    )
    tokens_NT = torch.randint(0, 2**40, (count, tokens), generator=random)
    return EncodedQuestions(tokens_NT, torch.full((count,), tokens), torch.arange(count), target, None)


@given(count=st.integers(1, 40), tokens=st.integers(1, 9), answers=st.integers(1, 10), cut=st.integers(1, 9))
@settings(max_examples=40)
def test_one_table_holds_what_the_columns_hold(count: int, tokens: int, answers: int, cut: int) -> None:
    questions = encoded(count, tokens, answers)
    index_B = torch.randint(0, count, (7,), generator=torch.Generator().manual_seed(cut))
    tokens_BT, target = QuestionTable(questions).take(index_B, min(cut, tokens))
    assert torch.equal(tokens_BT, questions.tokens_NT[index_B, : min(cut, tokens)])
    for found, expected in zip(target, questions.target_at(index_B), strict=True):
        assert torch.equal(found, expected) and found.dtype == expected.dtype


@pytest.mark.parametrize("way", FEATURE_WAYS)
def test_every_way_picks_the_right_rows(way: str) -> None:
    assert wrong_rows(FEATURE_WAYS[way], numbered_table(3000, SMALL, CPU), 64) == 0


def test_a_way_that_picks_others_rows_is_found_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 0.0)
    # as an index that overflows: right at the beginning of the table, wrong at its end
    monkeypatch.setitem(gathers.FEATURE_WAYS, "overflowing", lambda table_NRC, row_B: table_NRC[row_B % 2900])
    table_NRC = numbered_table(3000, SMALL, CPU)
    assert wrong_rows(gathers.FEATURE_WAYS["overflowing"], table_NRC, 64) > 10
    rates = feature_rates(table_NRC, 64)
    assert set(rates) == {"index_select", "indexing"} and all(rate > 0 for rate in rates.values())
    assert set(question_rates(encoded(100, 5, 3), 64)) == {"column by column", "one table"}
