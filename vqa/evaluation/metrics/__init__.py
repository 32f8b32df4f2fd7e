"""The metrics of one answer, in one table: `METRICS[name].measure(prediction, answers)` is 0..1.

Legend: `N` questions, `A` human answers a question, `P` distinct pairs of a prediction and a question's answers.

A metric here looks at one prediction and the human answers to its question; a data set's figure is the mean over its
questions. Figures that need the whole set at once (GQA's suite, average precision, F1) are in `SUITES` of
`vqa.evaluation.metrics.suites`.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.errors import InputError, unknown_name
from vqa.evaluation.accuracy import AnswerKeys, Protocol, accuracy, answer_accuracy, is_exact_match
from vqa.evaluation.metrics.strings import anls, anls_harness, exact, relaxed
from vqa.evaluation.wups import WordNet, answer_words, answer_wups
from vqa.files import read_json

Measure = Callable[[str, Sequence[str]], float]


@dataclass(frozen=True)
class Metric:
    """A metric of one answer.

    Attributes:
        name: of the table.
        title: what tables call it.
        measure: `(prediction, answers) -> 0..1`; pure. But for VQA accuracy it is the best over the answers, however
            often each was given.
        protocol: of VQA accuracy, which is computed for all questions at once; "" for others.
        single: whether it compares with exactly one answer.
    """

    name: str
    title: str
    measure: Measure
    protocol: Protocol | None = None
    single: bool = False


def _same_list(prediction: str, answers: Sequence[str]) -> float:
    """1 where the answer's list of words equals the one true list in any order."""
    return float(set(answer_words(prediction)) == set(answer_words(answers[0])))


def _no_wordnet(prediction: str, answers: Sequence[str]) -> float:
    raise InputError("WUPS needs WordNet: --wordnet FOLDER, the folder of nltk's `wordnet` corpus; `list` needs none")


def _wups(prediction: str, answers: Sequence[str], *, wordnet: WordNet, threshold: float) -> float:
    return answer_wups(prediction, answers[0], wordnet.similarity, threshold)


_WUPS_THRESHOLDS = {"wups": 0.9, "wups-0.0": 0.0}

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("vqa-2021", "VQA accuracy, protocol 2021", partial(answer_accuracy, protocol="2021"), "2021"),
        Metric("vqa-2015", "VQA accuracy, protocol 2015", partial(answer_accuracy, protocol="2015"), "2015"),
        Metric("vqa-harness", "VQA accuracy, harness", partial(answer_accuracy, protocol="harness"), "harness"),
        Metric("exact", "exact match", exact),
        Metric("anls", "ANLS", anls),
        Metric("anls-harness", "ANLS, harness", anls_harness),
        Metric("relaxed", "relaxed accuracy", relaxed),
        Metric("list", "list accuracy", _same_list, single=True),
        Metric("wups", "WUPS at 0.9", _no_wordnet, single=True),
        Metric("wups-0.0", "WUPS at 0.0", _no_wordnet, single=True),
    )
}

# The metric that a data set's own papers print, by letters of its name; all other sets: `default_metric`.
OF_SET: dict[str, str] = {
    "daquar": "list",
    "cocoqa": "list",
    "chartqa": "relaxed",
    "docvqa": "anls",
    "infographicvqa": "anls",
    "stvqa": "anls",
}
HUB_RECORD = ".hub.json"  # what a table's folder that was made from the hub was made of


def default_metric(dataset: QADataset) -> str:
    """The metric of a data set that nobody chose one for: its own in `OF_SET`, by its format or by what its folder was
    made of, else exact match with one answer a question, and VQA accuracy by protocol 2021 with several."""
    letters = re.sub(r"[^a-z0-9]", "", f"{dataset.format}{_of_hub(dataset)}".lower())
    own = next((metric for name, metric in OF_SET.items() if name in letters), None)
    return own or ("exact" if is_exact_match(dataset) else "vqa-2021")


def _of_hub(dataset: QADataset) -> str:
    """The repository and configuration of the hub that a table was made from; "" for another."""
    record = dataset.files[0].parent / HUB_RECORD if dataset.files else None
    if record is None or not record.is_file():
        return ""
    made = read_json(record)
    return f"{made.get('repository')} {made.get('configuration')}" if isinstance(made, dict) else ""


def find_metric(name: str, wordnet: WordNet | None = None) -> Metric:
    """The metric of that name.

    Args:
        wordnet: what WUPS compares words by; without it WUPS can be found, but not computed.

    Raises:
        InputError: there is none; the message lists them all.
    """
    if name not in METRICS:
        raise InputError(unknown_name("metric", name, METRICS))
    metric = METRICS[name]
    if wordnet is None or name not in _WUPS_THRESHOLDS:
        return metric
    measured = partial(_wups, wordnet=wordnet, threshold=_WUPS_THRESHOLDS[name])
    return replace(metric, title=f"{metric.title} (WordNet {wordnet.version})", measure=measured)


def measure(metric: Metric, dataset: QADataset, predictions: Strings) -> NDArray[np.float64]:
    """The metric of one answer a question, float64 `[N]`, 0..1; each distinct pair is compared once.

    Args:
        dataset: a split with human answers.
        predictions: `[N]`; an empty cell scores 0.

    Raises:
        InputError: the answers are hidden, a question has none, or the metric compares with one and there are several.
        ValueError: `predictions` does not have one row a question.
    """
    if metric.protocol is not None:
        return accuracy(AnswerKeys.of(dataset, metric.protocol), predictions)
    code_NA = _answer_codes(metric, dataset)
    if predictions.codes.shape != (len(dataset),):
        raise ValueError(f"predictions have shape {predictions.codes.shape}, questions ({len(dataset)},)")
    assert dataset.answers is not None
    pair_NX = np.column_stack([predictions.codes, np.sort(code_NA, axis=1)])
    pair_PX, inverse_N = np.unique(pair_NX, axis=0, return_inverse=True)
    truth = dataset.answers.distinct
    value_P = [
        0.0
        if given == ABSENT
        else metric.measure(predictions.distinct[given], [truth[code] for code in dict.fromkeys(codes) if code >= 0])
        for given, *codes in pair_PX.tolist()
    ]
    return np.asarray(value_P, dtype=np.float64)[inverse_N.reshape(-1)]


def human_ceiling(metric: Metric, dataset: QADataset) -> NDArray[np.float64]:
    """What the humans reach themselves, float64 `[N]`: each one's answer measured against the others', their mean.

    Raises:
        InputError: the answers are hidden, or a question has one answer only.
    """
    code_NA = _answer_codes(metric, dataset)
    assert dataset.answers is not None
    if ((code_NA != ABSENT).sum(axis=1) < 2).any():
        raise InputError(f"{dataset.name}: a question has one human answer; agreement needs two or more")
    code_UA, inverse_N = np.unique(np.sort(code_NA, axis=1), axis=0, return_inverse=True)
    truth, values = dataset.answers.distinct, []
    for codes in code_UA.tolist():
        people = Counter(code for code in codes if code != ABSENT)  # who said the same scores the same
        total = sum(
            count * metric.measure(truth[code], [truth[one] for one in people if one != code or count > 1])
            for code, count in people.items()
        )
        values.append(total / people.total())
    return np.asarray(values, dtype=np.float64)[inverse_N.reshape(-1)]


def _answer_codes(metric: Metric, dataset: QADataset) -> NDArray[np.int32]:
    """The codes of the human answers, `[N, A]`; raises InputError where the metric cannot be computed from them."""
    if dataset.answers is None:
        raise InputError(f"{dataset.no_answers}, so it cannot be scored")
    code_NA = dataset.answers.codes
    lacking_N = (code_NA == ABSENT).all(axis=1)
    if lacking_N.any():
        raise InputError(
            f"{dataset.name}: question {dataset.question_id_N[int(lacking_N.argmax())]} has no human answer"
        )
    if metric.single and code_NA.shape[1] != 1:
        raise InputError(
            f"{dataset.name} has up to {code_NA.shape[1]} human answers a question; {metric.name} compares with one, "
            "as DAQUAR and COCO-QA have"
        )
    return code_NA
