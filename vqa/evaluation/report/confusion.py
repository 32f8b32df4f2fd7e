"""Which answers are taken for which: one small matrix a question type.

Legend: `T` true answers shown (the last row may be "other"), `P` predicted answers shown (the last column is "other").
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError

OTHER = "other"  # the label of the row and column that gather every answer not shown


@dataclass(frozen=True)
class Confusion:
    """True answers against predicted ones, for the questions of one type.

    Attributes:
        question_type: e.g. "how many".
        answers: the most frequent true answers, most frequent first: the labels of the rows and of the columns.
            One more row and one more column, "other", gather the rest.
        count_TP: int64 `[len(answers) + 1, len(answers) + 1]`, how many questions with true answer T were answered P.
    """

    question_type: str
    answers: tuple[str, ...]
    count_TP: NDArray[np.int64]

    @property
    def questions(self) -> int:
        """How many questions the matrix counts."""
        return int(self.count_TP.sum())

    def mistakes(self, most: int = 3) -> list[tuple[str, str, int]]:
        """The most frequent confusions of two answers shown, as (true, predicted, questions)."""
        shown = self.count_TP[:-1, :-1] * (1 - np.eye(len(self.answers), dtype=np.int64))
        order = np.argsort(-shown, axis=None, kind="stable")[:most]
        cells = [divmod(int(cell), len(self.answers)) for cell in order]
        return [(self.answers[t], self.answers[p], int(shown[t, p])) for t, p in cells if shown[t, p]]


def confusions(dataset: QADataset, predictions: Strings, top: int = 10, question_types: int = 8) -> list[Confusion]:
    """Count true answers against predicted ones for the most frequent question types.

    The true answer of a question is its published majority answer, compared with the prediction letter by letter (no
    normalisation: this shows what the model says, it is no score). Questions without a majority answer are left out;
    a data set without question types gives one matrix, "all questions".

    Args:
        dataset: the questions, with their majority answers.
        predictions: `[N]`, row i answers question i; an empty cell counts as "other".
        top: how many true answers a matrix shows; the others are gathered.
        question_types: how many question types, most frequent first, ties in alphabetical order.

    Raises:
        InputError: when the answers are hidden, or the predictions are not one a question.
    """
    if dataset.majority is None:
        raise InputError(f"{dataset.no_answers}, so there is nothing to compare predictions with")
    if predictions.codes.shape != (len(dataset),):
        raise InputError(
            f"{dataset.name}: {len(dataset)} questions but predictions of shape {list(predictions.codes.shape)}"
        )
    types = dataset.question_type or Strings(("all questions",), np.zeros(len(dataset), dtype=np.int32))
    # Both columns in one code: the majority's own, with the predicted strings looked up in it (-1 where absent).
    code_of = {answer: code for code, answer in enumerate(dataset.majority.distinct)}
    lookup = np.array([*(code_of.get(answer, -1) for answer in predictions.distinct), -1])
    true_N, predicted_N = dataset.majority.codes, lookup[predictions.codes]
    found = []
    for code in _most_frequent(types.codes[true_N >= 0], types.distinct, question_types):
        rows = (types.codes == code) & (true_N >= 0)
        found.append(_confusion(types.distinct[code], true_N[rows], predicted_N[rows], dataset.majority.distinct, top))
    return found


def _confusion(
    question_type: str, true_Q: NDArray[np.int32], predicted_Q: NDArray[np.int64], answers: tuple[str, ...], top: int
) -> Confusion:
    shown = _most_frequent(true_Q, answers, top)
    position = np.full(len(answers) + 1, len(shown))  # the last entry serves -1, an answer that is never true
    position[shown] = np.arange(len(shown))
    count_TP = np.zeros((len(shown) + 1, len(shown) + 1), dtype=np.int64)
    np.add.at(count_TP, (position[true_Q], position[predicted_Q]), 1)
    return Confusion(question_type, tuple(answers[code] for code in shown), count_TP)


def _most_frequent(codes: NDArray[np.int32], names: tuple[str, ...], most: int) -> list[int]:
    """The most frequent codes, ties in the alphabetical order of their names; empty cells (-1) are not counted."""
    used, counts = np.unique(codes[codes >= 0], return_counts=True)
    order = sorted(range(len(used)), key=lambda i: (-counts[i], names[used[i]]))
    return [int(used[i]) for i in order[:most]]
