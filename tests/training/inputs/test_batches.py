"""Questions as tensors, targets against a count by hand, and the order of batches."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training import experiment
from hypothesis import given
from hypothesis import strategies as st

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import score
from vqa.text.vocabulary import AnswerVocabulary, Vocabulary
from vqa.training.inputs.batches import EncodedQuestions, batches, batches_in_order, encode_questions, soft_score
from vqa.training.inputs.questions import learnt_from


def made_dataset(human_answers: list[list[str]], questions: list[str] | None = None) -> QADataset:
    count = len(human_answers)
    majority = [Counter(row).most_common(1)[0][0] for row in human_answers]
    return QADataset(
        format="made",
        split="up",
        question_id_N=np.arange(count, dtype=np.int64),
        image_row_N=np.arange(count, dtype=np.int32)[::-1].copy(),
        images=ImageTable(tuple(map(str, range(count))), ()),
        question=Strings.of(questions or ["what is it"] * count),
        answers=Strings.of_rows(human_answers, max(map(len, human_answers))),
        majority=Strings.of(majority),
        choices=Strings.of_rows([["yes", "maybe", "no"]] * count, 3),
    )


def encoded_questions(lengths: list[int]) -> EncodedQuestions:
    questions = [" ".join(["word"] * length) for length in lengths]
    dataset = made_dataset([["yes"]] * len(lengths), questions)
    words, answers = Vocabulary.build(questions), AnswerVocabulary(("yes", "no"))
    return encode_questions(dataset, words, answers, np.arange(len(lengths)) + 100)


HUMAN = st.sampled_from(["yes", "no", "two", "blue", "outside"])


@given(st.lists(st.lists(HUMAN, min_size=1, max_size=10), min_size=1, max_size=6))
def test_targets_are_those_counted_by_hand(human_answers: list[list[str]]) -> None:
    vocabulary = AnswerVocabulary(("no", "blue", "yes", "two"))
    dataset = made_dataset(human_answers)
    encoded = encode_questions(dataset, Vocabulary.build(["what is it"]), vocabulary, np.arange(len(human_answers)))
    target = encoded.target
    assert target is not None
    for row, given_answers in enumerate(human_answers):
        known = {vocabulary.index[text]: n for text, n in Counter(given_answers).items() if text in vocabulary.index}
        ids = target.answer_BK[row]
        assert {int(i): int(n) for i, n in zip(ids, target.count_BK[row], strict=True) if i >= 0} == known
        assert (target.count_BK[row][ids < 0] == 0).all() and (target.score_BK[row][ids < 0] == 0).all()
        majority = dataset.majority.at(row) if dataset.majority else ""
        assert int(target.majority_B[row]) == vocabulary.index.get(majority, -1)
        for answer, soft in zip(ids.tolist(), target.score_BK[row].tolist(), strict=True):
            if answer >= 0:
                assert soft == pytest.approx(leave_one_out(given_answers, vocabulary.answers[answer]), abs=1e-6)


def leave_one_out(human: list[str], answer: str) -> float:
    """The metric as the paper words it: the mean, over each person left out, of min(1, the others who agree / 3)."""
    if len(human) == 1:
        return float(human[0] == answer)
    scores = []
    for left_out in range(len(human)):
        others = human[:left_out] + human[left_out + 1 :]
        scores.append(min(1.0, sum(other == answer for other in others) / 3))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("count", range(11))
def test_of_ten_people_it_is_three_tenths_each(count: int) -> None:
    assert float(soft_score(np.array(count), np.array(10))) == pytest.approx(min(1, 0.3 * count))


def test_the_soft_score_is_what_the_official_metric_gives() -> None:
    random = np.random.default_rng(0)
    human_answers = random.choice(["yes", "no", "two", "blue"], (40, 10), p=[0.5, 0.2, 0.2, 0.1]).tolist()
    vocabulary = AnswerVocabulary(("yes", "no", "two", "blue"))
    dataset = made_dataset(human_answers)
    target = encode_questions(dataset, Vocabulary.build(["a"]), vocabulary, np.arange(40)).target
    assert target is not None
    for number, answer in enumerate(vocabulary.answers):
        if answer == "two":
            continue  # the metric normalises it to "2", targets compare letter by letter
        official = score(dataset, Strings.of([answer] * 40)).accuracy_N
        ours = (target.score_BK * (target.answer_BK == number)).sum(dim=1)
        np.testing.assert_allclose(ours.numpy(), official, atol=1e-6)


def test_tokens_are_padded_on_the_right_and_rows_point_to_images() -> None:
    encoded = encoded_questions([3, 1, 2])
    assert encoded.tokens_NT.tolist() == [[2, 2, 2], [2, 0, 0], [2, 2, 0]]
    assert encoded.length_N.tolist() == [3, 1, 2]
    assert encoded.image_row_N.tolist() == [102, 101, 100]  # the made data set has its images backwards
    assert encoded.choice_NC is not None
    assert encoded.choice_NC.tolist() == [[0, -1, 1]] * 3


LENGTHS = np.random.default_rng(1).integers(1, 20, 103).tolist()


@pytest.mark.parametrize("batch_size", [1, 16, 103, 500])
def test_every_question_comes_once_an_epoch(batch_size: int) -> None:
    encoded = encoded_questions(LENGTHS)
    for todo in (batches(encoded, batch_size, 0, 3), batches_in_order(encoded, batch_size)):
        assert sorted(torch.cat([batch.index_B for batch in todo]).tolist()) == list(range(len(LENGTHS)))
        assert all(len(batch.index_B) <= batch_size for batch in todo)
        assert len(todo) == -(-len(LENGTHS) // batch_size)
        for batch in todo:
            tokens_BT, length_B = batch.tokens(encoded)
            assert tokens_BT.shape[1] == length_B.max()
            assert ((tokens_BT != 0).sum(dim=1) == length_B).all()


def order(seed: int, epoch: int) -> list[int]:
    return torch.cat([batch.index_B for batch in batches(encoded_questions(LENGTHS), 16, seed, epoch)]).tolist()


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    first = order(0, 0)
    np.random.seed(7)  # the state of others must not matter
    torch.manual_seed(7)
    assert order(0, 0) == first
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


def test_a_batch_holds_questions_of_similar_length() -> None:
    encoded = encoded_questions(LENGTHS)
    padded = sum(len(batch.index_B) * batch.longest for batch in batches(encoded, 16, 0, 0))
    assert padded < 1.2 * sum(LENGTHS)
    ranges = sorted((int(b.tokens(encoded)[1].min()), b.longest) for b in batches(encoded, 16, 0, 0))
    assert all(low[1] <= high[0] for low, high in pairwise(ranges))


def test_batches_of_one_length_differ_between_epochs() -> None:
    encoded = encoded_questions([4] * 40)
    sets = [{frozenset(batch.index_B.tolist()) for batch in batches(encoded, 8, 0, epoch)} for epoch in (0, 1)]
    assert not sets[0] & sets[1]


def test_a_vocabulary_without_any_answer_to_learn_is_refused(tmp_path: Path) -> None:
    vocabulary = AnswerVocabulary(("two",))
    encoded = encode_questions(made_dataset([["yes"]] * 3), Vocabulary.build(["what is it"]), vocabulary, np.arange(3))
    chosen = experiment(tmp_path, tmp_path, loss={"name": "cross_entropy"})
    with pytest.raises(
        InputError, match=r"cross_entropy could learn of any of the 3 training questions.*answers\.size"
    ):
        learnt_from(encoded, chosen)
