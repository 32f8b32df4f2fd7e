"""The tokenizer on ordinary questions and on any string at all."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vqa.text.tokenize import tokenize


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What color is the cat?", ["what", "color", "is", "the", "cat"]),
        ("What's the man's T-shirt?", ["what", "'s", "the", "man", "'s", "t", "shirt"]),
        ("Isn’t it 5 o'clock?", ["isn't", "it", "5", "o'clock"]),
        ("the dogs' 'big' house", ["the", "dogs", "big", "house"]),
        ("Is it 2:30 or 3.5?", ["is", "it", "2:30", "or", "3.5"]),
        ("night_stand,left/right", ["night", "stand", "left", "right"]),
        ("¿Qué es esto?", ["qué", "es", "esto"]),
        ("", []),
        ("?!...", []),
    ],
)
def test_questions(question: str, words: list[str]) -> None:
    assert tokenize(question) == words


@settings(deadline=None)
@given(st.text())
@example("it's's_'s")
@example("1.2'3.4:5a'b")
@example("\ud800 x")
def test_any_string_gives_stable_words(text: str) -> None:
    words = tokenize(text)
    assert all(word and not any(letter.isspace() for letter in word) for word in words)
    assert tokenize(" ".join(words)) == words
