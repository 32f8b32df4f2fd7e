"""Who is asked what: complementary pairs, so that the question alone says little about the answer.

Every question is asked of two images where its true answers differ, and among a question's possible answers those
that it has had least often so far are taken first: "is there a star" is answered "yes" exactly as often as "no", and
"what color is the star" gets every colour about equally often. Goyal et al. 2017 (VQA v2) let people look for the
second image; here the scenes are known, so that it can be looked up.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from vqa.data.synthetic.questions import MIX, Question
from vqa.data.synthetic.scenes import Scene

PER_IMAGE = 8  # questions on average
AT_MOST = 10  # questions about one image
PAIRS_PER_TEXT = 8  # each text is asked about this many times two images, or its bound would say nothing
ENOUGH_ANSWERS = 4
MISSPELLED = 0.04  # share of pairs; both questions of a pair are spelled alike
MISSPELLINGS = {
    "color": "coler",
    "shape": "shpae",
    "shapes": "shpaes",
    "picture": "pitcure",
    "circle": "cirlce",
    "circles": "cirlces",
    "square": "sqaure",
    "squares": "sqaures",
    "triangle": "traingle",
    "triangles": "traingles",
    "yellow": "yelow",
    "purple": "purpel",
}
_MISSPELLABLE = re.compile(r"\b(" + "|".join(MISSPELLINGS) + r")\b")


@dataclass(frozen=True)
class QuestionInstance:
    """A question as it was asked about one image of a split.

    Attributes:
        scene: the image's place in the list of scenes.
        kind: a key of `MIX`.
        text: the question as written, misspellings and all.
        answer: the true answer.
        pair: the same number for the two questions of a complementary pair.
    """

    scene: int
    kind: str
    text: str
    answer: str
    pair: int


class _Candidates:
    """Where one question can be asked: the scenes under each answer, less those that were asked it already."""

    def __init__(self, question: Question, scenes: Sequence[Scene]):
        self.question = question
        found: dict[str, list[int]] = {}
        for row, scene in enumerate(scenes):
            answer = question.answer(scene)
            if answer is not None:
                found.setdefault(answer, []).append(row)
        self.scene_rows = {answer: np.asarray(found[answer]) for answer in sorted(found)}

    def least_asked(self, answer: str, load_S: NDArray[np.float64]) -> int | None:
        """The scene with that answer that has had the fewest questions, None when all are full or were asked."""
        rows = self.scene_rows[answer]
        if not len(rows):
            return None
        row = int(rows[np.argmin(load_S[rows])])
        return row if load_S[row] < AT_MOST else None

    def use(self, answer: str, row: int) -> None:
        rows = self.scene_rows[answer]
        self.scene_rows[answer] = rows[rows != row]


def ask(scenes: Sequence[Scene], questions: Sequence[Question], random: Random) -> list[QuestionInstance]:
    """Choose about `PER_IMAGE` questions a scene, in complementary pairs.

    Args:
        scenes: the scenes of one split; pairs stay within it.
        questions: what may be asked.
        random: decides wordings and ties.

    Returns:
        The questions, the two of a pair one after the other.
    """
    of_kind: dict[str, list[_Candidates]] = {kind: [] for kind in MIX}
    for question in questions:
        candidates = _Candidates(question, scenes)
        if len(candidates.scene_rows) > 1:
            of_kind[question.kind].append(candidates)
    quotas = _quotas(round(len(scenes) * PER_IMAGE / 2), random)
    texts = {kind: _texts(of_kind[kind], random) for kind in MIX}
    turns = [kind for kind, quota in quotas.items() for _ in range(quota)]
    random.shuffle(turns)

    # Ties between scenes are broken by a fixed random share below one.
    load_S = np.asarray([random.random() for _ in scenes]) * 0.9
    had: Counter[tuple[str, str]] = Counter()
    asked: list[QuestionInstance] = []
    for turn in turns:
        # A few texts take turns, so that each comes often; one that has run out of scenes makes room for another.
        few, waiting = max(1, quotas[turn] // PAIRS_PER_TEXT), texts[turn]
        while waiting:
            candidates, text = waiting.pop(0)
            pair = _pick_pair(candidates, text, load_S, had, random)
            if pair is None:
                continue
            waiting.insert(few - 1, (candidates, text))
            written = _misspell(text, random) if random.random() < MISSPELLED else text
            number = len(asked) // 2
            for answer, row in pair:
                load_S[row] += 1
                had[text, answer] += 1
                candidates.use(answer, row)
                asked.append(QuestionInstance(row, turn, written, answer, number))
            break
    return asked


def _quotas(pairs: int, random: Random) -> dict[str, int]:
    """Share `pairs` out by `MIX`; what rounding leaves over is random, weighted by fractions."""
    exact = {kind: pairs * share / sum(MIX.values()) for kind, share in MIX.items()}
    quotas = {kind: int(value) for kind, value in exact.items()}
    for _ in range(pairs - sum(quotas.values())):
        (kind,) = random.choices(list(MIX), weights=[exact[kind] - int(exact[kind]) + 1e-9 for kind in MIX])
        quotas[kind] += 1
    return quotas


def _texts(of_kind: list[_Candidates], random: Random) -> list[tuple[_Candidates, str]]:
    """Every text of one kind, in the order in which they are taken up.

    First one random wording of every question, then a second one, so that a few images are not shared out among
    many wordings; among those, questions with many possible answers first, which can be balanced best.
    """
    ranked = []
    for candidates in of_kind:
        wordings = random.sample(candidates.question.wordings, len(candidates.question.wordings))
        answers = min(len(candidates.scene_rows), ENOUGH_ANSWERS)
        ranked += [((rank, -answers, random.random()), candidates, text) for rank, text in enumerate(wordings)]
    return [(candidates, text) for _, candidates, text in sorted(ranked, key=lambda item: item[0])]


def _pick_pair(
    candidates: _Candidates, text: str, load_S: NDArray[np.float64], had: Counter[tuple[str, str]], random: Random
) -> list[tuple[str, int]] | None:
    """Two (answer, scene) with the answers that this text has had least often, None when there are no two."""
    answers = list(candidates.scene_rows)
    random.shuffle(answers)
    pair: list[tuple[str, int]] = []
    for answer in sorted(answers, key=lambda answer: had[text, answer]):
        row = candidates.least_asked(answer, load_S)
        if row is not None:
            pair.append((answer, row))
        if len(pair) == 2:
            return pair
    return None


def _misspell(text: str, random: Random) -> str:
    """Misspell one word of a text that has one of `MISSPELLINGS`."""
    words = _MISSPELLABLE.findall(text)
    if not words:
        return text
    word = random.choice(words)
    return re.sub(rf"\b{word}\b", MISSPELLINGS[word], text, count=1)
