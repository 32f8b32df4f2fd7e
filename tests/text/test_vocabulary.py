"""Vocabularies: order, unknown words, and a file that notices any change."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa.errors import InputError
from vqa.text.normalise import SPELLINGS
from vqa.text.vocabulary import (
    PADDING,
    UNKNOWN,
    AnswerVocabulary,
    Vocabulary,
    read_vocabularies,
    vocabulary_digest,
    write_vocabularies,
)


def test_words_are_ranked_by_frequency_then_alphabet() -> None:
    words = Vocabulary.build(["is it red?", "is it a bus?", "is a cat?"])
    assert words.words == ("is", "a", "it", "bus", "cat", "red")
    assert len(words) == 8
    assert words.encode("Is it a Zebra?") == [2, 4, 3, UNKNOWN]


def test_words_after_the_longest_are_cut_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = Vocabulary.build(["is it red?", "is it red or blue?"], longest=3)
    assert "blue" in words.words  # the vocabulary is of whole questions
    assert words.encode("is it red or blue?") == words.encode("is it red?")
    assert [len(tokens) for tokens in words.encode_all(["is it red or blue?", "red?", "?"])] == [3, 1, 1]
    said = " ".join(capsys.readouterr().out.split())
    assert said == "note: 1 of 3 questions have more than 3 words (words.longest); they are cut there"
    assert len(Vocabulary.build(["why"]).encode("why " * 25_000)) == 200


def test_rare_words_are_unknown() -> None:
    words = Vocabulary.build(["is it red?", "is it blue?"], min_count=2)
    assert words.words == ("is", "it")
    assert words.encode("red") == [UNKNOWN]


@settings(deadline=None)
@given(st.text())
def test_a_question_is_never_empty_and_never_padding(question: str) -> None:
    codes = Vocabulary(("a", "b")).encode(question)
    assert codes
    assert PADDING not in codes


def test_answers_are_ranked_and_cut() -> None:
    counts = {"no": 5, "yes": 9, "blue": 5, "cat": 1}
    assert AnswerVocabulary.build(counts, 3).answers == ("yes", "blue", "no")
    assert AnswerVocabulary.build(counts, None, min_count=2).answers == ("yes", "blue", "no")
    assert AnswerVocabulary.build(counts, None).index == {"yes": 0, "blue": 1, "no": 2, "cat": 3}


def test_wrong_vocabularies_are_refused() -> None:
    with pytest.raises(InputError, match="'yes' is there twice"):
        AnswerVocabulary(("yes", "no", "yes"))
    with pytest.raises(InputError, match="no answer is left"):
        AnswerVocabulary.build({"yes": 1}, 10, min_count=2)


def test_file_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    words, answers = Vocabulary(("what", "qué")), AnswerVocabulary(("yes", "中文"))
    write_vocabularies(path, words, answers)
    assert read_vocabularies(path) == (words, answers)
    assert read_vocabularies(path, 7)[0].longest == 7

    content = json.loads(path.read_text())
    content["answers"].reverse()
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"vocabulary\.json.*digest"):
        read_vocabularies(path)
    path.write_text('{"words": []}')
    with pytest.raises(InputError, match=r"vocabulary\.json"):
        read_vocabularies(path)


def test_digest_depends_on_order_and_on_the_side_a_text_stands_on() -> None:
    def digest(words: tuple[str, ...], answers: tuple[str, ...]) -> str:
        return vocabulary_digest(Vocabulary(words), AnswerVocabulary(answers))

    digests = {digest(("a", "b"), ("c",)), digest(("b", "a"), ("c",)), digest(("a",), ("b", "c"))}
    assert len(digests) == 3


@given(st.dictionaries(st.sampled_from(["Yes", "yes", "YES.", "no", "No", "T-shirt", "t shirt"]), st.integers(1, 9)))
def test_spellings_that_are_one_answer_are_counted_together(counts: dict[str, int]) -> None:
    """Against sums by hand; a class is called by its most frequent spelling."""
    if not counts:
        return
    for how in ("none", "lower", "official"):
        found = AnswerVocabulary.build(counts, None, normalise=how)
        groups: dict[str, list[str]] = {}
        for text in counts:
            groups.setdefault(SPELLINGS[how](text), []).append(text)
        assert len(found) == len(groups)
        sums = [sum(counts[text] for text in groups[SPELLINGS[how](name)]) for name in found.answers]
        assert sums == sorted(sums, reverse=True)
        for number, name in enumerate(found.answers):
            group = groups[SPELLINGS[how](name)]
            assert counts[name] == max(counts[text] for text in group)
            assert {found.find(text) for text in group} == {number}
    assert AnswerVocabulary.build(counts, None).find("maybe") is None
