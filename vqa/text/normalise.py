"""The official answer normalisation, in its own order and with its own slips, one function a step.

Source: the official evaluation program (GT-Vision-Lab/VQA, vqaEval.py), which is Python 2: digits are 0 to 9 only, and
a letter is lower-cased without a look at its neighbours. Letters that Unicode gained since 2009 are lower-cased here.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal

from vqa.text.contractions import CONTRACTIONS

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_ANY_MARK = re.compile("[" + re.escape(_MARKS) + "]")
_COMMA_IN_NUMBER = re.compile(r"[0-9],[0-9]")
# Meant to spare the period of "3.5" on both sides, but only the digit that follows is looked at.
_PERIOD = re.compile(r"\.(?![0-9])")
# The official call passes the flag re.UNICODE, whose value is 32, where the number of replacements belongs.
_MOST_PERIODS = 32

_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)} | {"none": "0"}
_ARTICLES = frozenset({"a", "an", "the"})


def clean(text: str) -> str:
    """Line feeds and tabs become spaces, outer white space goes."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def process_punctuation(text: str) -> str:
    """Delete or blank out 21 marks, then delete periods that no digit follows.

    A mark becomes a space, but is deleted when it stands beside a space anywhere in `text`, or when `text` has a
    comma between two digits anywhere. At most 32 periods go.

    >>> process_punctuation("red/white"), process_punctuation("red / white"), process_punctuation("2,000")
    ('red white', 'red  white', '2000')
    """
    result = text
    if _ANY_MARK.search(text):
        delete_all = _COMMA_IN_NUMBER.search(text) is not None
        for mark in _MARKS:
            if mark in result:
                delete = delete_all or mark + " " in text or " " + mark in text
                result = result.replace(mark, "" if delete else " ")
    if "." in result:
        result = _PERIOD.sub("", result, count=_MOST_PERIODS)
    return result


def _lower(text: str) -> str:
    """`str.lower` of Python 2: one letter for one letter, and no final sigma."""
    return text.lower() if text.isascii() else "".join(letter.lower()[0] for letter in text)


def process_digits_and_articles(text: str) -> str:
    """Lower-case words, number words up to ten as digits ("none" is 0), no articles, contractions with apostrophes.

    >>> process_digits_and_articles("The TWO dogs dont")
    "2 dogs don't"
    """
    words = (_NUMBERS.get(word, word) for word in _lower(text).split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


@lru_cache(maxsize=1 << 18)
def normalise(text: str) -> str:
    """Every step on one answer; remembered, because answers repeat.

    >>> normalise("A black, T-shirt.\\n")
    'black t shirt'
    """
    return process_digits_and_articles(process_punctuation(clean(text)))


Spelling = Literal["none", "lower", "official"]  # `answers.normalise` of an experiment


def as_written(text: str) -> str:
    """An answer as it is."""
    return text


def lowered(text: str) -> str:
    """An answer without its capitals, with single spaces, its accents composed.

    >>> lowered("  New   YORK ")
    'new york'
    """
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def officially_spelt(text: str) -> str:
    """An answer after the official normalisation; one of which nothing is left ("a", "?") keeps its letters.

    >>> officially_spelt("A black, T-shirt."), officially_spelt("The")
    ('black t shirt', 'the')
    """
    return normalise(lowered(text)) or lowered(text)


# What two answers have in common that count as one.
SPELLINGS: Mapping[Spelling, Callable[[str], str]] = {
    "none": as_written,
    "lower": lowered,
    "official": officially_spelt,
}
