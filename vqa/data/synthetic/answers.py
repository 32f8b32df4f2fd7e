"""Ten people answer a question: mostly right, in their own words, and not always sure."""

from random import Random
from typing import TypedDict

from vqa.data.synthetic.scenes import COLORS, SHAPES

PEOPLE = 10
# How likely one person is to get a question wrong, and how many questions are that hard.
DOUBT = {0.008: 0.76, 0.07: 0.18, 0.3: 0.06}
OWN_WORDS = 0.15  # how likely one person is to use another word for the same thing
CONFIDENCES = ("yes", "maybe", "no")
SURE, UNSURE = (0.9, 0.09, 0.01), (0.45, 0.4, 0.15)  # how likely each confidence is

SYNONYMS = {
    "gray": ("grey",),
    "purple": ("violet",),
    "circle": ("ball", "dot"),
    "square": ("box",),
    "moon": ("crescent",),
    "big": ("large",),
    "small": ("little",),
    "middle": ("center",),
    "top left": ("upper left",),
    "top right": ("upper right",),
    "bottom left": ("lower left",),
    "bottom right": ("lower right",),
}
MISTAKES = {
    "red": ("orange", "pink"),
    "orange": ("red", "yellow", "brown"),
    "yellow": ("orange", "gold"),
    "green": ("blue", "teal"),
    "blue": ("purple", "green"),
    "purple": ("blue", "pink"),
    "gray": ("black", "silver"),
    "black": ("gray", "dark blue"),
    "circle": ("oval", "square"),
    "square": ("rectangle", "diamond"),
    "triangle": ("star", "arrow"),
    "star": ("triangle", "flower"),
    "moon": ("circle", "banana"),
    "yes": ("no",),
    "no": ("yes",),
    "big": ("small", "medium"),
    "small": ("big", "medium"),
    "middle": ("bottom", "top"),
    "top left": ("top", "left"),
    "top right": ("top", "right"),
    "bottom left": ("bottom", "left"),
    "bottom right": ("bottom", "right"),
}
NUMBERS = tuple(str(number) for number in range(6))
EVERY_TRUTH = (*COLORS, *SHAPES, *NUMBERS, *(answer for answer in MISTAKES if answer not in (*COLORS, *SHAPES)))


class HumanAnswer(TypedDict):
    """One person's answer, as official annotations hold it; `answer_id` is 1 to 10."""

    answer: str
    answer_confidence: str
    answer_id: int


def answer_type(answer: str) -> str:
    """The official kind of an answer: "yes/no", "number" or "other"."""
    if answer in ("yes", "no"):
        return "yes/no"
    return "number" if answer.isdigit() else "other"


def ten_answers(truth: str, random: Random) -> list[HumanAnswer]:
    """What ten people say; `truth` is always the most common answer.

    Args:
        truth: the true answer.
        random: decides who errs.
    """
    (doubt,) = random.choices(list(DOUBT), weights=list(DOUBT.values()))
    if truth in ("yes", "no"):
        doubt *= 0.5
    elif truth.isdigit():
        doubt *= 0.6 + 0.35 * int(truth)  # the more there is to count, the easier to miscount
    said = [_one_answer(truth, doubt, random) for _ in range(PEOPLE)]
    # The crowd is right: whatever is said as often as the truth loses votes to it.
    while max((said.count(answer) for answer in said if answer != truth), default=0) >= said.count(truth):
        said[next(person for person, answer in enumerate(said) if answer != truth)] = truth
    answers: list[HumanAnswer] = []
    for person, answer in enumerate(said, start=1):
        unsure = doubt > 0.1 or (answer != truth and answer not in SYNONYMS.get(truth, ()))
        (confidence,) = random.choices(CONFIDENCES, weights=UNSURE if unsure else SURE)
        answers.append({"answer": answer, "answer_confidence": confidence, "answer_id": person})
    return answers


def _one_answer(truth: str, doubt: float, random: Random) -> str:
    if random.random() < doubt:
        if truth.isdigit():
            return str(max(0, int(truth) + random.choice((-1, 1))) if truth != "0" else 1)
        return random.choice(MISTAKES[truth])
    if truth in SYNONYMS and random.random() < OWN_WORDS:
        return random.choice(SYNONYMS[truth])
    return truth
