"""Metrics of one answer against the human answers to its question, each 0..1; pure functions of strings.

Sources: exact match as this project has it for sets with one answer; ANLS, the average normalised Levenshtein
similarity, of Biten et al. (2019), "Scene Text Visual Question Answering", equation 1; relaxed accuracy of Masry et
al. (2022), "ChartQA", section 5.1, in the reading of pix2struct's program, which the harnesses share.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from vqa.text.normalise import clean

ANLS_THRESHOLD = 0.5  # a normalised distance from which on an answer scores 0
RELAXED_TOLERANCE = 0.05  # of the true number


def exact(prediction: str, answers: Sequence[str]) -> float:
    """1 where the prediction is one of the answers, letter by letter, but for white space around it.

    >>> exact(" yes", ["yes"]), exact("Yes", ["yes"])
    (1.0, 0.0)
    """
    given = clean(prediction)
    return float(any(given == clean(answer) for answer in answers))


def anls(prediction: str, answers: Sequence[str]) -> float:
    """1 - d, with d the least normalised edit distance to an answer; 0 where d is 0.5 or more.

    Both sides are lower-cased and their white space is joined; d is the number of edits divided by the length of the
    longer of the two strings that were compared.

    >>> anls("Coca  Cola", ["coca cola"]), round(anls("coca kola", ["coca cola"]), 3), anls("tea", ["coca cola"])
    (1.0, 0.889, 0.0)
    """
    distance = min(_distance(_joined(prediction), _joined(answer)) for answer in answers)
    return 1.0 - distance if distance < ANLS_THRESHOLD else 0.0


def anls_harness(prediction: str, answers: Sequence[str]) -> float:
    """ANLS as lmms-eval and VLMEvalKit compute it: edits between the joined strings, length of the raw ones.

    A similarity of 0.5 itself counts, which the paper's equation leaves out.

    >>> round(anls_harness("coca   kola", ["coca cola"]), 3)
    0.909
    """
    similarity = 1.0 - min(_distance(_joined(prediction), _joined(one), (prediction, one)) for one in answers)
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def relaxed(prediction: str, answers: Sequence[str]) -> float:
    """1 where a number is within 5% of a true one, or a text equals a true one but for capitals.

    "12%" is 0.12. A true number of 0 is compared as text.

    >>> relaxed("104", ["100"]), relaxed("106", ["100"]), relaxed("4%", ["0.04"]), relaxed("Yes", ["yes"])
    (1.0, 0.0, 1.0, 1.0)
    """
    return float(any(_is_near(prediction.strip(), answer) for answer in answers))


@lru_cache(maxsize=1 << 16)  # people's answers to a set's questions are the same few thousand
def edit_distance(first: str, second: str) -> int:
    """The least number of inserted, deleted and replaced characters (Levenshtein 1966).

    >>> edit_distance("kitten", "sitting")
    3
    """
    if len(first) < len(second):
        first, second = second, first
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        above, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (letter != other))
    return row[-1]


def _joined(text: str) -> str:
    return " ".join(text.lower().split())


def _distance(given: str, true: str, measured: tuple[str, str] | None = None) -> float:
    """Edits between two texts, divided by the length of the longer one, or of the longer of two others.

    Above the threshold of ANLS it may be less than that, but stays above the threshold.
    """
    longest = max(map(len, measured or (given, true)))
    at_least = abs(len(given) - len(true))
    if at_least > ANLS_THRESHOLD * longest:  # a sentence against a word: 0 whatever the edits
        return at_least / longest
    return edit_distance(given, true) / longest if longest else 0.0


def _is_near(prediction: str, answer: str) -> bool:
    given, true = _number(prediction), _number(answer)
    if given is not None and true:
        return abs(given - true) / abs(true) <= RELAXED_TOLERANCE
    return prediction.lower() == answer.lower()


def _number(text: str) -> float | None:
    try:
        number = float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None  # "inf" and "nan" are words
