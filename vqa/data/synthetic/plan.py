"""Decide everything about a data set but its images' looks: scenes, questions, answers."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from random import Random

from vqa.data.synthetic.answers import HumanAnswer, ten_answers
from vqa.data.synthetic.balance import QuestionInstance, ask
from vqa.data.synthetic.questions import every_question
from vqa.data.synthetic.scenes import Scene, random_scene
from vqa.errors import InputError

SHARES = {"val": 0.2, "test": 0.1}  # of the images; the rest is for training
QUESTION_IDS = 1000  # question ids are image id * 1000 + number, as in VQA v2
BOUND = 49.5  # percent; a split whose questions give away more is planned anew, which happens below 100 scenes
ATTEMPTS = 300


@dataclass(frozen=True)
class Split:
    """One split before it is written; `question_ids`, `asked` and `answers` have a row each question, by id.

    Attributes:
        short: "train", "val" or "test".
        first_id: the image id of the first scene; the others follow.
        scenes: what stands in each image.
        question_ids: image id * 1000 + number, ascending.
        asked: the questions with their true answers.
        answers: what ten people say.
    """

    short: str
    first_id: int
    scenes: list[Scene]
    question_ids: list[int]
    asked: list[QuestionInstance]
    answers: list[list[HumanAnswer]]

    def pairs(self) -> list[list[int]]:
        """The complementary pairs of question ids."""
        members: dict[int, list[int]] = defaultdict(list)
        for question_id, question in zip(self.question_ids, self.asked, strict=True):
            members[question.pair].append(question_id)
        return sorted(members.values())


def plan_splits(scenes: int, seed: int) -> list[Split]:
    """Plan the train, val and test splits of a data set; image ids run on from split to split.

    Raises:
        InputError: when so few scenes cannot be balanced.
    """
    counts = {"train": 0} | {short: round(scenes * share) for short, share in SHARES.items()}
    counts["train"] = scenes - sum(counts.values())
    splits, first_id = [], 1
    for short, count in counts.items():
        splits.append(_plan_split(short, first_id, count, seed))
        first_id += count
    return splits


def _plan_split(short: str, first_id: int, count: int, seed: int) -> Split:
    questions = list(every_question())
    for attempt in range(ATTEMPTS):
        scenes = [random_scene(Random(f"{seed} scene {first_id + row} {attempt}")) for row in range(count)]
        asked = ask(scenes, questions, Random(f"{seed} questions {short} {attempt}"))
        number: Counter[int] = Counter()
        rows = []
        for question in asked:
            rows.append(((first_id + question.scene) * QUESTION_IDS + number[question.scene], question))
            number[question.scene] += 1
        rows.sort(key=lambda row: row[0])
        answers = [ten_answers(question.answer, Random(f"{seed} answers {key}")) for key, question in rows]
        if short == "test" or best_accuracy(answers, [question.text for _, question in rows]) < BOUND:
            return Split(short, first_id, scenes, [key for key, _ in rows], [question for _, question in rows], answers)
    raise InputError(f"{count} scenes in the {short} split could not be balanced with seed {seed}; take more scenes")


def best_accuracy(answers: Sequence[Sequence[HumanAnswer]], groups: Sequence[Hashable]) -> float:
    """The official accuracy, in percent, of the best answerer that must say the same within each group.

    Ten people of whom n say the same as the answerer give it min(0.3 n, 1), the mean of the official leave-one-out
    scores.

    Args:
        answers: the ten answers of each question.
        groups: what the answerer knows about each question: its text, or its id for the best there can be.
    """
    gained: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for people, group in zip(answers, groups, strict=True):
        for answer, count in Counter(person["answer"] for person in people).items():
            gained[group][answer] += min(3 * count, 10)  # in tenths, so that sums are exact
    return round(10 * sum(max(scores.values()) for scores in gained.values()) / len(answers), 2)
