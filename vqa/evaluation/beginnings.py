"""Floors that look a question up among the training questions: the same words, or the longest beginning known of it.

A beginning is the question's first words, however many; the longest that a training question has, too, is the longest
known one. What no training question shares is the beginning without a word: the most frequent answer of all.

Legend: `N` questions, `S` distinct questions, `T` words, `P` beginnings, `C` choices.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset, Strings
from vqa.evaluation.floors import choice_counts, codes_in, majority_of
from vqa.evaluation.multiple_choice import pick_choices
from vqa.text.tokenize import tokenize

_END = "\n"  # a word that no question has: it ends a whole question


@dataclass(frozen=True)
class Beginnings:
    """How often each answer was given after each beginning of a training question.

    Attributes:
        word_id: the words of the training questions.
        key_TP: for each number of words, the beginnings of that length, sorted: id of the one a word shorter times the
            number of words, plus the word.
        id_TP: the id of each of them, so that the next length can name it.
        cell: sorted: id of a beginning times the number of answers, plus the answer's code in the majority column.
        count: int64, how often that answer was given after that beginning.
        answers: how many answers the majority column has.
    """

    word_id: dict[str, int]
    key_TP: list[NDArray[np.int64]]
    id_TP: list[NDArray[np.int64]]
    cell: NDArray[np.int64]
    count: NDArray[np.int64]
    answers: int

    @classmethod
    def of(cls, train: QADataset) -> "Beginnings":
        """Count them; raises InputError where the answers of `train` are hidden."""
        majority = majority_of(train)
        code_N, answers = train.question.codes, len(majority.distinct)
        words: dict[str, int] = {}
        word_ST = _matrix([[words.setdefault(word, len(words)) for word in _words(q)] for q in train.question.distinct])
        used_S = np.zeros(len(word_ST), dtype=bool)
        used_S[code_N] = True  # columns of a part of a split may name questions that are not in it
        id_S: NDArray[np.int64] = np.where(used_S, 0, -1)
        key_TP, id_TP, ids = [], [], 1
        cells: list[NDArray[np.int64]] = [majority.codes.astype(np.int64)]
        for word_S in word_ST.T:
            going_S = (word_S >= 0) & (id_S >= 0)
            if not going_S.any():
                break
            wanted: NDArray[np.int64] = id_S[going_S] * len(words) + word_S[going_S]
            key_P: NDArray[np.int64]
            key_P, place = np.unique(wanted, return_inverse=True)
            id_S = np.full(len(id_S), -1, dtype=np.int64)
            id_S[going_S] = ids + place
            key_TP.append(key_P)
            id_TP.append(np.arange(ids, ids + len(key_P), dtype=np.int64))
            ids += len(key_P)
            id_N = id_S[code_N]
            cells.append((id_N[id_N >= 0] * answers + majority.codes[id_N >= 0]).astype(np.int64, copy=False))
        cell, count = np.unique(np.concatenate(cells), return_counts=True)
        return cls(words, key_TP, id_TP, cell, count, answers)

    def find(self, question: Strings) -> list[NDArray[np.int64]]:
        """The ids of each question's beginnings of 0, 1, … words, int64 `[N]` each; -1 where training has it not."""
        word_ST = _matrix([[self.word_id.get(word, -1) for word in _words(text)] for text in question.distinct])
        id_S = np.zeros(len(word_ST), dtype=np.int64)
        found = [id_S]
        for word_S, key_P, id_P in zip(word_ST.T, self.key_TP, self.id_TP, strict=False):
            wanted_S = np.where((word_S >= 0) & (id_S >= 0), id_S * len(self.word_id) + word_S, -1)
            place_S = np.minimum(np.searchsorted(key_P, wanted_S), len(key_P) - 1)
            id_S = np.where(key_P[place_S] == wanted_S, id_P[place_S], -1)
            found.append(id_S)
        return [one[question.codes] for one in found]

    def best(self, majority: Strings) -> NDArray[np.int64]:
        """The code of the most frequent answer after each beginning, by its id.

        Of equals the one more frequent in all of training, and of those the alphabetically first.
        """
        alphabetical = np.argsort(np.argsort(np.array(majority.distinct, dtype=object)))
        id_, code = np.divmod(self.cell, self.answers)
        overall = np.zeros(self.answers, dtype=np.int64)
        overall[code[id_ == 0]] = self.count[id_ == 0]
        order = np.lexsort((alphabetical[code], -overall[code], -self.count, id_))
        first = np.flatnonzero(np.diff(id_[order], prepend=-1))
        return code[order[first]]

    def counts(self, id_N: NDArray[np.int64], code_NC: NDArray[np.integer]) -> NDArray[np.int64]:
        """How often each answer was given after a beginning, `[N, C]`; 0 for an unknown beginning or answer (-1)."""
        wanted = id_N[:, None] * self.answers + code_NC
        place = np.minimum(np.searchsorted(self.cell, wanted), len(self.cell) - 1)
        known = (self.cell[place] == wanted) & (id_N[:, None] >= 0) & (code_NC >= 0)
        return np.where(known, self.count[place], 0)


def _words(question: str) -> list[str]:
    return [*tokenize(question), _END]


def _matrix(rows: list[list[int]]) -> NDArray[np.int64]:
    """Rows of whole numbers side by side, `[S, T]`, filled with -1 on the right."""
    length_S = np.array([len(row) for row in rows], dtype=np.int64)
    filled = np.full((len(rows), int(length_S.max(initial=0))), -1, dtype=np.int64)
    filled[np.arange(filled.shape[1]) < length_S[:, None]] = [one for row in rows for one in row]
    return filled


@dataclass(frozen=True)
class LookedUp:
    """What looking the questions up gives, each as long as `evaluated` or None where that was not asked for.

    Attributes:
        question, question_choice: the most frequent answer to the same words, open-ended and among the choices.
        beginning, beginning_choice: the same to the longest known beginning.
    """

    question: Strings | None
    question_choice: Strings | None
    beginning: Strings | None
    beginning_choice: Strings | None


def look_up(train: QADataset, evaluated: QADataset, *, open_ended: bool = True, choosing: bool = False) -> LookedUp:
    """Answer each question with the most frequent majority answer that `train` has to it, or to its longest beginning.

    Case and punctuation do not count. What `train` never asks gets the most frequent answer of all. Of answers given
    equally often the one more frequent in all of `train` is taken, then the alphabetically first. Among choices the
    longest beginning after which any of them was given decides; ties go by the frequency in all of `train`, then by
    the choices' places.

    Raises:
        InputError: the answers of `train` are hidden, or it has no question; or choices are asked for and not there.
    """
    majority, known = majority_of(train), Beginnings.of(train)
    id_TN = known.find(evaluated.question)
    length_S = np.array([len(_words(text)) for text in evaluated.question.distinct], dtype=np.int64)
    length_N = length_S[evaluated.question.codes]
    longest_N, whole_N = id_TN[0].copy(), id_TN[0].copy()
    for words, id_N in enumerate(id_TN):
        longest_N = np.where(id_N >= 0, id_N, longest_N)
        whole_N = np.where((id_N >= 0) & (length_N == words), id_N, whole_N)
    answers: tuple[Strings | None, Strings | None] = (None, None)
    choices: tuple[Strings | None, Strings | None] = (None, None)
    if open_ended:
        best = known.best(majority).astype(np.int32)
        answers = (Strings(majority.distinct, best[whole_N]), Strings(majority.distinct, best[longest_N]))
    if choosing:
        column, overall_NC = choice_counts(train, evaluated)
        code_NC, above = codes_in(column, majority), len(train) + 1  # so that a count outweighs every later one
        same_NC = known.counts(np.where(whole_N > 0, whole_N, -1), code_NC)
        rank_NC = overall_NC
        for id_N in id_TN:
            count_NC = known.counts(id_N, code_NC)
            given_N1 = (count_NC > 0).any(axis=1, keepdims=True)
            rank_NC = np.where(given_N1, count_NC * float(above) + overall_NC, rank_NC)
        choices = (pick_choices(column, same_NC * float(above) + overall_NC), pick_choices(column, rank_NC))
    return LookedUp(answers[0], choices[0], answers[1], choices[1])
