"""The official answer normalisation, against cases worked out with the official program."""

import pytest
from helpers.metric import golden
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa.text.contractions import CONTRACTIONS
from vqa.text.normalise import SPELLINGS, clean, normalise, process_digits_and_articles, process_punctuation


@pytest.mark.parametrize(
    ("answer", "normalised"),
    [
        ("Yes.", "yes"),
        ("none", "0"),
        ("t-shirt", "t shirt"),
        ("red / white", "red white"),
        ("red/white", "red white"),
        ("100,978 people", "100978 people"),
        ("2:50 pm", "2:50 pm"),
        ("dont", "don't"),
        ("u.s.a.", "usa"),
        ("3. 5", "3 5"),
        ("3.5", "3.5"),
        ("1.5.", "1.5"),
        ("twenty", "twenty"),
        ("black & white", "black & white"),
        ("no-entry, keep out", "no entry keep out"),
        ("2,000", "2000"),
        ("5,5-6", "556"),
        ("a", ""),
        ("...", ""),
        ("\tThe\ncat ", "cat"),
        ("Im", "im"),
        ("somebody'd", "somebodyd"),
        ("lets", "lets"),
        ("Ten An ONE the zero", "10 1 0"),
        ("٥,٥", "٥ ٥"),  # only 0 to 9 are digits to Python 2
        (".٥", "٥"),
        ("İΣ", "iσ"),  # letter by letter, without a final sigma
    ],
)
def test_hand_cases(answer: str, normalised: str) -> None:
    assert normalise(answer) == normalised


def test_at_most_32_periods_go() -> None:
    assert process_punctuation("." * 40) == "." * 8


def test_marks_are_judged_on_the_original_text() -> None:
    # The space after "-" deletes every "-"; "/" has no space beside it and becomes one.
    assert process_punctuation("a-b- c/d") == "ab c d"


def test_contractions_are_those_of_the_official_program() -> None:
    assert golden("contractions.json") == CONTRACTIONS


def test_contractions_apply_after_number_words_and_articles() -> None:
    assert process_digits_and_articles("The dogs DONT have none") == "dogs don't have 0"


@settings(deadline=None)
@given(st.text())
def test_any_text_is_normalised_to_single_spaced_words(text: str) -> None:
    words = normalise(text).split(" ")
    assert normalise(text) == "" or all(words)
    assert not set(words) & {"a", "an", "the"}
    assert clean(clean(text)) == clean(text)
    assert not set(process_punctuation(text)) & set(';/[]"{}()=+\\_-><@`,?!')


@given(st.text(max_size=30))
def test_spellings_of_one_answer_stay_one_however_often_they_are_joined(text: str) -> None:
    assert SPELLINGS["none"](text) == text
    for how in ("lower", "official"):
        once = SPELLINGS[how](text)
        assert SPELLINGS[how](f"  {text.lower()} ") == SPELLINGS[how](text.lower())
        assert once or not text.strip()


@pytest.mark.parametrize(
    ("texts", "lower", "official"),
    [
        (["Yes", "YES", " yes "], 1, 1),
        (["yes", "Yes.", "yes!"], 3, 1),
        (["T-shirt", "t shirt", "the t-shirt"], 3, 1),
        (["two", "2"], 2, 1),
        (["a", "the", "an"], 3, 3),
        (["?", "!"], 2, 2),
        (["caf\u00e9", "CAFE\u0301"], 1, 1),
        (["ΟΔΟΣ", "οδος"], 1, 1),
    ],
)
def test_which_answers_are_one(texts: list[str], lower: int, official: int) -> None:
    assert len({SPELLINGS["lower"](text) for text in texts}) == lower
    assert len({SPELLINGS["official"](text) for text in texts}) == official
