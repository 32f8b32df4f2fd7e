"""WUPS: accuracy that gives part of a point for a near word (Malinowski and Fritz, NIPS 2014, equation 6).

An answer is a list of words, "knife, fork"; its order does not count. With A the answer given, T the true one and mu
the similarity of two words, a question scores

    min( prod over a in A of max over t in T of mu(a, t),  prod over t in T of max over a in A of mu(a, t) )

where mu is 1 for equal words, else the largest Wu-Palmer similarity between any noun senses of both, times 0.1 where it
is below the threshold; a word that WordNet does not know as a noun is similar only to itself. The usual thresholds are
0.9 and 0.0. The figures depend on the version of WordNet, which is reported with them.

Words are compared in lower case and with "_" for a space, the form in which WordNet and DAQUAR write compounds.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.errors import InputError, first_line, needs_extra
from vqa.tables import Column, Row, Table

THRESHOLDS = (0.9, 0.0)
LIST_FORMATS = ("daquar", "daquar_single", "daquar_reduced", "daquar_reduced_single", "coco_qa")  # judged by it
BELOW_THRESHOLD = 0.1  # what is left of a similarity below the threshold
Similarity = Callable[[str, str], float]  # of two different words, 0..1

_WORDNET_FILES = (
    "lexnames",
    *(f"{kind}.{part}" for kind in ("data", "index") for part in ("noun", "verb", "adj", "adv")),
)
_WORDNET_EXCEPTIONS = ("noun.exc", "verb.exc", "adj.exc", "adv.exc")


@dataclass(frozen=True)
class WordNet:
    """A WordNet corpus of the user's as a measure of nouns.

    Attributes:
        version: as the corpus states it, e.g. "3.0"; "unknown" where it does not.
        similarity: the largest Wu-Palmer similarity between noun senses of two words, 0 where either has none.
    """

    version: str
    similarity: Similarity


def open_wordnet(folder: Path) -> WordNet:
    """Open the WordNet corpus in `folder` (nltk's `corpora/wordnet`, unpacked) with nltk's reader.

    Raises:
        InputError: nltk is not installed, or `folder` is not a WordNet corpus.
    """
    with needs_extra("wups", "WUPS scores"):
        import nltk.data
        from nltk.corpus.reader.wordnet import WordNetCorpusReader, WordNetError
    missing = [name for name in (*_WORDNET_FILES, *_WORDNET_EXCEPTIONS) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} is not a WordNet corpus: {', '.join(missing[:4])}{', …' if len(missing) > 4 else ''} not found. "
            "Give the folder of nltk's `wordnet` corpus: python -m nltk.downloader wordnet, then unpack its wordnet.zip"
        )

    for name in _WORDNET_FILES[1:]:  # all but lexnames are read by place
        with (folder / name).open("rb") as file:
            if b"\r" in file.read(4096):
                raise InputError(
                    f"{folder / name}: has the line ends of Windows, so that nothing lies where WordNet's index says; "
                    "unpack wordnet.zip anew, without a conversion of text files"
                )

    class Reader(WordNetCorpusReader):
        def map_wn(self, version: str = "wordnet") -> None:
            """No map between WordNet versions: it serves other languages, and looks for a second corpus."""

    damaged: tuple[type[Exception], ...] = (ValueError, LookupError, AssertionError, AttributeError, TypeError)
    damaged += (StopIteration, RuntimeError, WordNetError)
    root = str(folder.resolve())
    if root not in nltk.data.path:
        nltk.data.path.append(root)  # nltk reads only below folders named there, and the user has named this one
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The multilingual functions are not available")
        try:
            reader = Reader(root, omw_reader=None)
            reader.synsets("entity", pos="n")  # opens what is read later
        except damaged as error:
            raise InputError(f"{folder}: the WordNet corpus is damaged: {first_line(error)}") from None
        except OSError as error:  # nltk refuses files that others may write, and says so
            raise InputError(f"{folder}: the WordNet corpus cannot be read: {error}") from None

    @cache
    def similarity(word: str, other: str) -> float:
        try:
            pairs = [(x, y) for x in reader.synsets(word, pos="n") for y in reader.synsets(other, pos="n")]
            return max((x.wup_similarity(y) or 0.0 for x, y in pairs), default=0.0)
        except damaged as error:
            where = f"{folder}: the WordNet corpus is damaged at {word!r} or {other!r}"
            raise InputError(f"{where}: {first_line(error)}") from None

    return WordNet(str(reader.get_version() or "unknown"), similarity)


def answer_words(answer: str) -> tuple[str, ...]:
    """The distinct words of a comma-separated answer in a form that can be compared; () for an empty one.

    >>> answer_words("Night stand, lamp,lamp")
    ('night_stand', 'lamp')
    """
    words = ("_".join(part.lower().split()) for part in answer.split(","))
    return tuple(dict.fromkeys(word for word in words if word))


def answer_wups(answer: str, truth: str, similarity: Similarity, threshold: float) -> float:
    """The WUPS of one answer, 0..1."""
    given, true = answer_words(answer), answer_words(truth)
    if not given or not true:
        return float(given == true)

    def mu(word: str, other: str) -> float:
        if word == other:
            return 1.0
        # Ordered, so that a similarity that is not symmetric in its last bit gives one value.
        near = similarity(*sorted((word, other)))
        return near if near >= threshold else BELOW_THRESHOLD * near

    return min(prod(max(mu(a, t) for t in true) for a in given), prod(max(mu(a, t) for a in given) for t in true))


def wups(dataset: QADataset, predictions: Strings, similarity: Similarity, threshold: float) -> NDArray[np.float64]:
    """The WUPS of one answer a question, float64 `[N]`, 0..1; each distinct pair of answers is compared once.

    Args:
        dataset: a split with exactly one (whole) answer a question, as DAQUAR and COCO-QA have.
        predictions: `[N]`; an empty cell scores 0.
        similarity: of two different words, e.g. `open_wordnet(folder).similarity`.
        threshold: below it a similarity counts a tenth; usually 0.9 or 0.0.

    Raises:
        InputError: the answers are hidden or there are several a question, or the threshold is not in 0..1.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"WUPS threshold {threshold:g}: give a number from 0 to 1, usually 0.9 or 0.0")
    return _each_pair(dataset, predictions, lambda a, t: answer_wups(a, t, similarity, threshold))


def list_accuracy(dataset: QADataset, predictions: Strings) -> NDArray[np.float64]:
    """1 where the answer's list of words equals the true one in any order, else 0; float64 `[N]`. Needs no WordNet.

    Raises:
        InputError: the answers are hidden or there are several a question.
    """
    return _each_pair(dataset, predictions, lambda a, t: float(set(answer_words(a)) == set(answer_words(t))))


def _each_pair(dataset: QADataset, predictions: Strings, measure: Callable[[str, str], float]) -> NDArray[np.float64]:
    """`measure(prediction, truth)` for every question, computed once for each distinct pair."""
    if dataset.answers is None:
        raise InputError(f"{dataset.no_answers}, so it cannot be scored")
    if dataset.answers.codes.shape[1] != 1:
        raise InputError(
            f"{dataset.name} has up to {dataset.answers.codes.shape[1]} human answers a question; WUPS compares with "
            "one, as DAQUAR and COCO-QA have"
        )
    truth_N = dataset.answers.codes[:, 0]
    if predictions.codes.shape != truth_N.shape:
        raise ValueError(f"predictions have shape {predictions.codes.shape}, questions {truth_N.shape}")
    pair_N2 = np.stack([predictions.codes, truth_N], axis=1)
    pair_P2, inverse_N = np.unique(pair_N2, axis=0, return_inverse=True)
    value_P = [
        measure(predictions.distinct[given], dataset.answers.distinct[truth]) if given != ABSENT else 0.0
        for given, truth in pair_P2.tolist()
    ]
    return np.asarray(value_P, dtype=np.float64)[inverse_N.reshape(-1)]


@dataclass(frozen=True)
class WupsReport:
    """How near the answers to a split come, in percent.

    Attributes:
        name: the run or results file.
        data: the split.
        questions: how many.
        list_accuracy: answers whose words equal the true ones in any order.
        wups: by threshold; empty without WordNet.
        wordnet: the corpus's version, or None.
    """

    name: str
    data: str
    questions: int
    list_accuracy: float
    wups: dict[float, float]
    wordnet: str | None

    def table(self) -> Table:
        """One row."""
        columns = (Column("list accuracy"), *(Column(f"WUPS at {threshold}") for threshold in self.wups))
        measured = f"WUPS on WordNet {self.wordnet}" if self.wordnet else "WUPS needs --wordnet FOLDER"
        caption = f"Percent of {self.questions:,} questions, {self.data}; lists in any order; {measured}."
        rows = (Row(self.name, (self.list_accuracy, *self.wups.values())),)
        return Table("Near answers", caption, columns, rows, best="none")

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        measured = {str(threshold): value for threshold, value in self.wups.items()}
        found = {"data": self.data, "questions": self.questions, "list_accuracy": self.list_accuracy}
        return found | {"wups": measured, "wordnet": self.wordnet}


def wups_report(name: str, dataset: QADataset, predictions: Strings, wordnet: WordNet | None) -> WupsReport:
    """Measure a split with exactly one answer a question.

    Raises:
        InputError: the answers are hidden, or there are several a question.
    """
    found = {} if wordnet is None else {t: wups(dataset, predictions, wordnet.similarity, t) for t in THRESHOLDS}
    return WupsReport(
        name=name,
        data=dataset.name,
        questions=len(dataset),
        list_accuracy=100 * float(list_accuracy(dataset, predictions).mean()),
        wups={threshold: 100 * float(value_N.mean()) for threshold, value_N in found.items()},
        wordnet=None if wordnet is None else wordnet.version,
    )
