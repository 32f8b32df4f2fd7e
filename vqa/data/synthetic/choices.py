"""The eighteen choices of the multiple-choice task, made as Antol et al. 2015, section 3, made them."""

from collections.abc import Sequence
from random import Random

CHOICES = 18
PLAUSIBLE = 3
POPULAR = 10


def eighteen_choices(
    correct: str, plausible: Sequence[str], popular: Sequence[str], others: Sequence[str], random: Random
) -> list[str]:
    """The correct answer, three plausible ones, the ten most popular, then random ones until there are 18.

    Args:
        correct: the most common of the ten people's answers.
        plausible: guesses without the image, best first (answers that the same or a like question has elsewhere).
        popular: the most popular answers of the data set, most popular first.
        others: correct answers of other questions; must hold enough different ones to fill up.
        random: picks the random ones and shuffles.

    Returns:
        18 different answers, shuffled.
    """
    chosen = {correct: None}  # a dict keeps the order, which a set would not
    guesses = [answer for answer in dict.fromkeys(plausible) if answer != correct]
    chosen.update(dict.fromkeys(guesses[:PLAUSIBLE]))
    chosen.update(dict.fromkeys(popular[:POPULAR]))
    rest = [answer for answer in dict.fromkeys(others) if answer not in chosen]
    chosen.update(dict.fromkeys(random.sample(rest, CHOICES - len(chosen))))
    choices = list(chosen)
    random.shuffle(choices)
    return choices
