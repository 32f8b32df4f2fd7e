"""Letters in results files that stand for choices: "B" is the second choice of its question.

Legend: `N` questions, `M` of them answered, `C` choices a question, `S` distinct predictions.
"""

import re
from string import ascii_lowercase

import numpy as np

from vqa.data.dataset import ABSENT, QADataset, Strings

_LETTER = re.compile(r"\(?([a-z])[.):]?", re.IGNORECASE | re.ASCII)
_NONE = -1


def choices_of_letters(dataset: QADataset, predictions: Strings) -> Strings | None:
    """The choices that letters stand for, `[N]`; None unless every answer is the letter of a choice of its question.

    "B", "b", "B.", "B)" and "(B)" are letters. Where a letter is itself another choice of its question, nobody can know
    what is meant: None, too.
    """
    answered_N = predictions.codes != ABSENT
    if dataset.choices is None or not answered_N.any():
        return None
    given_M = predictions.codes[answered_N]
    place_M = np.asarray([_place(text) for text in predictions.distinct])[given_M]
    code_MC = dataset.choices.codes[answered_N]
    if (place_M == _NONE).any() or (place_M >= code_MC.shape[1]).any():
        return None
    chosen_M = np.take_along_axis(code_MC, place_M[:, None], axis=1)[:, 0]
    if (chosen_M == ABSENT).any():
        return None
    letter_of = np.asarray([*(_place(text) for text in dataset.choices.distinct), _NONE])  # ABSENT is the last
    if ((letter_of[code_MC] == place_M[:, None]) & (code_MC != chosen_M[:, None])).any():
        return None
    code_N = np.full(len(dataset), ABSENT, dtype=np.int32)
    code_N[answered_N] = chosen_M
    return Strings(dataset.choices.distinct, code_N)


def letters_of(dataset: QADataset, row: int) -> list[str]:
    """The letters of a question's choices that are true answers; [] without choices or answers."""
    if dataset.choices is None or dataset.answers is None:
        return []
    true = set(dataset.answers.row(row))
    places = [place for place, choice in enumerate(dataset.choices.row(row)) if choice in true]
    return [ascii_lowercase[place].upper() for place in places if place < len(ascii_lowercase)]


def _place(text: str) -> int:
    """The place that a letter stands for, counted from 0; -1 where the text is no letter."""
    found = _LETTER.fullmatch(text.strip())
    return ascii_lowercase.index(found[1].lower()) if found else _NONE
