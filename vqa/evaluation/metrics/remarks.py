"""What a low figure hides: right answers inside sentences, and answers that only normalisation would forgive.

Legend: `N` questions.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.evaluation.metrics import METRICS, Metric, measure
from vqa.text.normalise import normalise

WORTH_SAYING = 0.01  # of the questions


class Sentences(NamedTuple):
    """Predictions that score nothing, though a human answer stands in them.

    Attributes:
        share: of all questions, 0..1.
        words: their mean length.
        human_words: the mean length of the human answers that they hold.
    """

    share: float
    words: float
    human_words: float


class Forgiven(NamedTuple):
    """What normalising both sides alone would change.

    Attributes:
        questions: that score nothing and would score.
        percent: the metric after it, in percent.
    """

    questions: int
    percent: float


def sentences(dataset: QADataset, predictions: Strings, value_N: NDArray[np.float64]) -> Sentences | None:
    """Right answers hidden in longer ones, among the questions that score 0; None where they are under 1%."""
    assert dataset.answers is not None
    lengths: list[tuple[int, int]] = []
    for row in np.flatnonzero((value_N == 0) & (predictions.codes != ABSENT)).tolist():
        said = normalise(predictions.at(row)).split()
        held = [words for answer in set(dataset.answers.row(row)) if (words := normalise(answer).split())]
        inside = [len(words) for words in held if len(words) < len(said) and _contains(said, words)]
        if inside:
            lengths.append((len(predictions.at(row).split()), max(inside)))
    if not lengths or len(lengths) < WORTH_SAYING * len(dataset):
        return None
    words, human_words = np.mean(lengths, axis=0).tolist()
    return Sentences(len(lengths) / len(dataset), words, human_words)


def _contains(said: list[str], words: list[str]) -> bool:
    """Whether `words` stand in `said` one after another."""
    return any(said[place : place + len(words)] == words for place in range(len(said) - len(words) + 1))


def forgiven(metric: Metric, dataset: QADataset, predictions: Strings, value_N: NDArray[np.float64]) -> Forgiven | None:
    """What the metric would be of normalised answers; None where it would help under 1% of the questions.

    Of VQA accuracy that is the harnesses' version, which normalises both sides always.
    """
    assert dataset.answers is not None
    if metric.protocol is not None:
        after_N = measure(METRICS["vqa-harness"], dataset, predictions)
    else:
        plain = Strings(tuple(map(normalise, dataset.answers.distinct)), dataset.answers.codes)
        given = Strings(tuple(map(normalise, predictions.distinct)), predictions.codes)
        after_N = measure(metric, replace(dataset, answers=plain), given)
    helped = int(((value_N == 0) & (after_N > 0)).sum())
    if not helped or helped < WORTH_SAYING * len(dataset):
        return None
    return Forgiven(helped, 100 * float(after_N.mean()))


def remark(
    name: str, metric: Metric, dataset: QADataset, predictions: Strings, value_N: NDArray[np.float64]
) -> list[str]:
    """Sentences on what a file's figure hides; [] where it hides nothing."""
    said, percent = [], 100 * float(value_N.mean())
    held = sentences(dataset, predictions, value_N)
    if held is not None:
        said.append(
            f"Note: {name} has {percent:.2f}, but {held.share:.0%} of its predictions contain a human answer and score "
            f"nothing: mean length {_words(held.words)} (the human answers in them: {_words(held.human_words)}). The "
            "metric is no verdict on such a model: ask it for short answers."
        )
    plain = forgiven(metric, dataset, predictions, value_N)
    if plain is not None:
        more = f"{plain.questions:,} answer{'s' if plain.questions > 1 else ''} of {len(dataset):,}"
        by = " (vqa-harness)" if metric.protocol is not None else ""
        said.append(
            f"Note: {more} in {name} would match after normalisation (capitals, punctuation, articles, number words), "
            f"which {metric.name} does not do there: {plain.percent:.2f} in place of {percent:.2f}{by}."
        )
    empty = int(sum(not predictions.distinct[code].strip() for code in predictions.codes.tolist() if code != ABSENT))
    if empty:
        said.append(f"Note: {empty:,} of {len(dataset):,} answers in {name} are empty.")
    return said


def _words(count: float) -> str:
    rounded = f"{count:.1f}".removesuffix(".0")
    return f"{rounded} word{'' if rounded == '1' else 's'}"
