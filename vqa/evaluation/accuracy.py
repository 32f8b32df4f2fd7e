"""VQA accuracy by the official program, both versions, and by the harnesses; vectorised, exact to the last digit.

Legend: `N` questions, `A` human answers a question, `S` strings, `R` the three ways to compare (`Comparison`).

Source: the official evaluation program (GT-Vision-Lab/VQA, vqaEval.py). Protocol "2021" is the program since
commit a013f00 (11 March 2021), "2015" the program before it; they differ by up to tens of points on single questions:

    2021: where the humans disagree, both sides are normalised fully; where all agree, neither is.
    2015: the prediction is always normalised fully, human answers lose punctuation only, and only where they disagree.

Protocol "harness" is what today's evaluation harnesses compute (lmms-eval, tasks/vqav2; VLMEvalKit, `vqa_score`): both
sides are always normalised fully, whether the humans agree or not. It gives the highest numbers of the three.

For each human in turn, the answer scores min(1, agreeing others / 3); the accuracy is the mean over the humans. With
ten answers that is 0, 30, 60, 90 or 100. With two or three answers it cannot reach 100, as in the official program.
A question with one answer, which would always score 0, is scored by exact match after `clean` instead (protocol
"harness": after the full normalisation).

The official program compares whole answer records, so two records of one question that are equal in every field,
`answer_id` included, vanish together from "the others". `QADataset` keeps no `answer_id`: such twins, which occur in no
published file, are here two humans.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from enum import IntEnum
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.errors import InputError, unknown_name
from vqa.text.normalise import SPELLINGS, Spelling, clean, normalise, process_punctuation

Protocol = Literal["2021", "2015", "harness"]
EXACT_MATCH = "accuracy by exact match with the one answer"
SPELLING_NAMES = {"lower": "capitals aside", "official": "as officially normalised"}  # `answers.normalise`
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

_NO_ANSWER = -1  # the key of an empty cell of human answers
_NO_MATCH = -2  # the key of a string equal to no human answer
_TextRule = Callable[[str], str]


class Comparison(IntEnum):
    """How a question's human answers are compared with a prediction."""

    DISAGREE = 0
    AGREE = 1
    SINGLE = 2


def _unchanged(text: str) -> str:
    return text


# For each protocol and comparison: what is done to the human answers, and what to the prediction.
_RULES: dict[Protocol, dict[Comparison, tuple[_TextRule, _TextRule]]] = {
    "2021": {
        Comparison.DISAGREE: (normalise, normalise),
        Comparison.AGREE: (clean, clean),
        Comparison.SINGLE: (clean, clean),
    },
    "2015": {
        Comparison.DISAGREE: (process_punctuation, normalise),
        Comparison.AGREE: (_unchanged, normalise),
        Comparison.SINGLE: (clean, clean),
    },
    "harness": dict.fromkeys(Comparison, (normalise, normalise)),
}


def _rules(protocol: Protocol, spelling: Spelling) -> dict[Comparison, tuple[_TextRule, _TextRule]]:
    """What is done to both sides, with the data set's own spelling where a question has one answer."""
    rules = dict(_RULES[protocol])
    if spelling != "none":
        of_human, of_prediction = rules[Comparison.SINGLE]
        join = SPELLINGS[spelling]
        rules[Comparison.SINGLE] = (lambda text: join(of_human(text)), lambda text: join(of_prediction(text)))
    return rules


@dataclass(frozen=True)
class AnswerKeys:
    """A data set's human answers as integers: equal integers in a row are equal answers under the protocol.

    Attributes:
        protocol: the official program's version, or "harness".
        key_NA: int32; negative where the cell is empty.
        comparison_N: int8, a `Comparison` a question.
        spelling: which answers are one in a set with one answer a question; "none" in all others.
    """

    protocol: Protocol
    key_NA: NDArray[np.int32]
    comparison_N: NDArray[np.int8]
    _index: dict[str, int] = field(repr=False)
    spelling: Spelling = "none"

    @classmethod
    def of(cls, dataset: QADataset, protocol: Protocol) -> "AnswerKeys":
        """Number the human answers of `dataset`.

        Raises:
            InputError: an unknown protocol, a data set without answers, or a question without any.
        """
        if protocol not in PROTOCOLS:
            raise InputError(unknown_name("protocol", protocol, PROTOCOLS))
        if dataset.answers is None:
            raise InputError(f"{dataset.no_answers}, so it cannot be scored")
        code_NA = dataset.answers.codes
        present_NA = code_NA != ABSENT
        humans_N = present_NA.sum(axis=1)
        if len(dataset) and humans_N.min() == 0:
            question = dataset.question_id_N[int(humans_N.argmin())]
            raise InputError(f"{dataset.name}: question {question} has no human answer")

        distinct = dataset.answers.distinct
        index: dict[str, int] = {}
        same_key_S = _keys(distinct, _unchanged if protocol == "2015" else clean, index)
        same_key_NA = same_key_S[code_NA]
        differs_N = ((same_key_NA != same_key_NA[:, :1]) & present_NA).any(axis=1)
        comparison_N = np.where(differs_N, Comparison.DISAGREE, Comparison.AGREE).astype(np.int8)
        comparison_N[humans_N == 1] = Comparison.SINGLE

        key_NA = same_key_NA
        spelling = dataset.spelling if is_exact_match(dataset) else "none"
        for comparison, (rule, _) in _rules(protocol, spelling).items():
            rows = np.flatnonzero(comparison_N == comparison)
            used = np.unique(code_NA[rows])
            used = used[used != ABSENT]
            key_S = np.full(len(distinct) + 1, _NO_ANSWER, dtype=np.int32)
            key_S[used] = _keys([distinct[code] for code in used], rule, index)[:-1]
            key_NA[rows] = key_S[code_NA[rows]]
        return cls(protocol, key_NA, comparison_N, index, spelling)

    @property
    def span(self) -> int:
        """One more than the largest key there can be."""
        return len(self._index)

    def of_predictions(self, strings: tuple[str, ...]) -> NDArray[np.int32]:
        """The key of each string under each `Comparison`, `[R, S + 1]`; the last column stands for no answer."""
        key_RS = np.full((len(Comparison), len(strings) + 1), _NO_MATCH, dtype=np.int32)
        for comparison, (_, rule) in _rules(self.protocol, self.spelling).items():
            key_RS[comparison, :-1] = [self._index.get(rule(text), _NO_MATCH) for text in strings]
        return key_RS


def _keys(strings: Iterable[str], rule: _TextRule, index: dict[str, int]) -> NDArray[np.int32]:
    """One integer a string, equal where `rule` gives equal text, then one for an empty cell (code -1 finds it)."""
    keys = [index.setdefault(rule(text), len(index)) for text in strings]
    return np.asarray([*keys, _NO_ANSWER], dtype=np.int32)


def leave_one_out(match_NA: NDArray[np.bool_], present_NA: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The accuracy of answers that equal the human answers `match_NA`, of those `present_NA`; float64 0..1.

    The sum runs in the official order, human by human, so that even the last bit is the same.
    """
    matches_N = match_NA.sum(axis=1)
    total_N = np.zeros(len(match_NA))
    for human in range(match_NA.shape[1]):
        others_N = matches_N - match_NA[:, human]
        total_N += np.where(present_NA[:, human], np.minimum(1.0, others_N / 3), 0.0)
    humans_N = present_NA.sum(axis=1)
    return np.where(humans_N == 1, matches_N.astype(np.float64), total_N / humans_N)


@dataclass(frozen=True)
class Score:
    """What the official program reports, in percent, with the protocol that made it.

    Attributes:
        protocol: the official program's version.
        question_id_N: int64, in the data set's order.
        accuracy_N: float64, 0..1, not rounded.
        overall: mean accuracy over questions, rounded to two decimals.
        per_answer_type: the same for each answer type; empty when the data set has none.
        per_question_type: the same for each question type; empty when the data set has none.
        exact_match: whether every question has one answer, so that the accuracy is exact match with it.
    """

    protocol: Protocol
    question_id_N: NDArray[np.int64]
    accuracy_N: NDArray[np.float64]
    overall: float
    per_answer_type: dict[str, float]
    per_question_type: dict[str, float]
    exact_match: bool = False

    def official(self) -> dict[str, Any]:
        """The official program's own structure, with "protocol" added."""
        distinct, inverse = np.unique(self.accuracy_N, return_inverse=True)
        rounded = [round_percent(100 * float(accuracy)) for accuracy in distinct]
        return {
            "protocol": self.protocol,
            "overall": self.overall,
            "perAnswerType": self.per_answer_type,
            "perQuestionType": self.per_question_type,
            "perQuestion": {
                str(question): rounded[i]
                for question, i in zip(self.question_id_N.tolist(), inverse.tolist(), strict=True)
            },
        }


def score(dataset: QADataset, predictions: Strings, protocol: Protocol = "2021") -> Score:
    """Score one answer a question, as the official program does; nothing that is passed in changes.

    Args:
        dataset: a split with human answers.
        predictions: `[N]`, row i answers question i; an empty cell scores 0.
        protocol: the official program's version.

    Raises:
        InputError: the answers are hidden, the split is empty, or the protocol is unknown.
        ValueError: `predictions` does not have one row a question.
    """
    if not len(dataset):
        raise InputError(f"{dataset.name}: no question to score")
    keys = AnswerKeys.of(dataset, protocol)
    return summarise(dataset, accuracy(keys, predictions), protocol)


def accuracy(keys: AnswerKeys, predictions: Strings) -> NDArray[np.float64]:
    """The accuracy of one answer a question, float64 `[N]`, 0..1; an empty cell scores 0.

    Raises:
        ValueError: `predictions` does not have one row a question.
    """
    if predictions.codes.shape != keys.comparison_N.shape:
        raise ValueError(f"predictions have shape {predictions.codes.shape}, questions {keys.comparison_N.shape}")
    key_N = keys.of_predictions(predictions.distinct)[keys.comparison_N, predictions.codes]
    return leave_one_out(keys.key_NA == key_N[:, None], keys.key_NA != _NO_ANSWER)


def answer_accuracy(prediction: str, answers: Sequence[str], protocol: Protocol = "2021") -> float:
    """The accuracy of one answer to one question, 0..1: what `accuracy` computes for many at once.

    Args:
        answers: at least one, raw.

    Raises:
        InputError: an unknown protocol.

    >>> answer_accuracy("cat", ["cat"] * 3 + ["dog"] * 7), answer_accuracy("Yes.", ["yes"] * 10, "harness")
    (0.9, 1.0)
    """
    if protocol not in PROTOCOLS:
        raise InputError(unknown_name("protocol", protocol, PROTOCOLS))
    first = _unchanged if protocol == "2015" else clean
    comparison = Comparison.DISAGREE if len(set(map(first, answers))) > 1 else Comparison.AGREE
    of_human, of_prediction = _RULES[protocol][Comparison.SINGLE if len(answers) == 1 else comparison]
    given = of_prediction(prediction)
    match_1A = np.array([[of_human(answer) == given for answer in answers]])
    return float(leave_one_out(match_1A, np.ones_like(match_1A))[0])


def summarise(dataset: QADataset, accuracy_N: NDArray[np.float64], protocol: Protocol) -> Score:
    """Mean accuracies overall and by type, rounded as the official program does."""
    return Score(
        protocol=protocol,
        question_id_N=dataset.question_id_N,
        accuracy_N=accuracy_N,
        overall=mean_percent(accuracy_N),
        per_answer_type=means_by_type(accuracy_N, dataset.answer_type),
        per_question_type=means_by_type(accuracy_N, dataset.question_type),
        exact_match=is_exact_match(dataset),
    )


def is_exact_match(dataset: QADataset) -> bool:
    """Whether every question has one human answer, which is what the accuracy compares with."""
    return dataset.answers is not None and dataset.answers.codes.shape[1] == 1


def metric_name(dataset: QADataset, protocol: Protocol) -> str:
    """What an accuracy on a data set is called: "VQA accuracy, protocol 2021", or exact match."""
    if is_exact_match(dataset) and dataset.spelling != "none":
        return f"{exact_match_name(protocol)}, {SPELLING_NAMES[dataset.spelling]}"
    return exact_match_name(protocol) if is_exact_match(dataset) else f"VQA accuracy, protocol {protocol}"


def spelling_note(dataset: QADataset) -> str:
    """A sentence where an accuracy takes several spellings for one answer, as the experiment asks; "" elsewhere."""
    if dataset.spelling == "none" or not is_exact_match(dataset):
        return ""
    return f"Answers are compared {SPELLING_NAMES[dataset.spelling]} (answers.normalise: {dataset.spelling})."


def exact_match_name(protocol: Protocol) -> str:
    """What an accuracy is called where every question has one answer."""
    return f"{EXACT_MATCH}, both normalised" if protocol == "harness" else EXACT_MATCH


def protocol_name(protocol: Protocol) -> str:
    """A protocol in a caption: "official protocol of 2021", or the harnesses'."""
    return "protocol of the evaluation harnesses" if protocol == "harness" else f"official protocol of {protocol}"


def means_by_type(accuracy_N: NDArray[np.float64], types: Strings | None) -> dict[str, float]:
    """The mean of each type's questions in percent, rounded as the official program does; {} without types."""
    if types is None:
        return {}
    return {name: mean_percent(accuracy_N[rows_N]) for name, rows_N in _rows_by_type(types).items()}


def mean_percent(accuracy_N: NDArray[np.float64]) -> float:
    """The mean in percent, added up and rounded as the official program does."""
    # np.cumsum adds one after another as the official program does; np.sum adds in pairs and may differ in a last bit.
    return round_percent(100 * float(np.cumsum(accuracy_N)[-1]) / len(accuracy_N))


def unrounded(dataset: QADataset, accuracy_N: NDArray[np.float64]) -> dict[str, Any]:
    """Mean accuracies in percent as they are, overall and by answer type; means over runs are made of these."""
    kinds = {} if dataset.answer_type is None else _rows_by_type(dataset.answer_type)
    return {
        "overall": 100 * float(accuracy_N.mean()),
        "per_answer_type": {name: 100 * float(accuracy_N[rows_N].mean()) for name, rows_N in kinds.items()},
    }


def _rows_by_type(types: Strings) -> dict[str, NDArray[np.bool_]]:
    return {types.distinct[code]: types.codes == code for code in np.unique(types.codes) if code != ABSENT}


def round_percent(percent: float) -> float:
    """Two decimals, exact halves away from zero: `round` of Python 2, in which the official program is written.

    >>> round_percent(0.125), round(0.125, 2)
    (0.13, 0.12)
    """
    return float(Decimal(percent).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP))
