"""Multiple choice: the choices as classes of the answer vocabulary, and the choice with the highest score.

Legend: `N` questions, `C` choices a question.
"""

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, Strings
from vqa.text.vocabulary import AnswerVocabulary


def choice_answer_ids(choices: Strings, answers: AnswerVocabulary) -> NDArray[np.int32]:
    """The class of every choice, int32 `[N, C]`; -1 where it is outside the vocabulary or the cell is empty.

    A choice is found by its exact text, as the released code of Antol et al. (2015) does.
    """
    class_S = np.asarray([*(answers.index.get(text, -1) for text in choices.distinct), -1], dtype=np.int32)
    return class_S[choices.codes]


def pick_choices(choices: Strings, score_NC: NDArray[np.floating]) -> Strings:
    """The choice with the highest score of each question, `[N]`; the first of several.

    Args:
        choices: `[N, C]`; empty cells are never picked.
        score_NC: any float type; -inf marks a choice not to pick while there is another.

    Raises:
        ValueError: the shapes differ, a score of a choice is not a number, or a question has no choice.
    """
    present_NC = choices.codes != ABSENT
    if score_NC.shape != present_NC.shape:
        raise ValueError(f"scores have shape {score_NC.shape}, choices {present_NC.shape}")
    if not present_NC.any(axis=1).all():
        raise ValueError(f"question in row {int((~present_NC.any(axis=1)).argmax())} has no choice")
    if np.isnan(score_NC[present_NC]).any():
        raise ValueError("the score of a choice is not a number")
    # Where every choice scores -inf the first present one is picked: an empty cell must rank below -inf.
    masked_NC = np.where(present_NC, score_NC, -np.inf)
    best_N = masked_NC.argmax(axis=1)
    rows = np.arange(len(best_N))
    best_N = np.where(present_NC[rows, best_N], best_N, present_NC.argmax(axis=1))
    return Strings(choices.distinct, choices.codes[rows, best_N])
