"""What changes from one system to another, question by question.

Legend: `N` questions, `S` seeds, `A` answers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import Strings
from vqa.evaluation.diagnose import RIGHT
from vqa.studies.comparison.systems import System

ALL = "all questions"


@dataclass(frozen=True)
class Changes:
    """What changed from the baseline to another system; an answer is right from a mean accuracy of 0.5 over seeds.

    Attributes:
        fixed_N: bool, right now and not before.
        broken_N: bool, right before and not now.
        flipped_N: bool, another answer, as right or wrong as before.
    """

    fixed_N: NDArray[np.bool_]
    broken_N: NDArray[np.bool_]
    flipped_N: NDArray[np.bool_]

    def counts(self, chosen_N: NDArray[np.bool_]) -> dict[str, int]:
        """How many of some questions there are of each kind."""
        return {kind: int((rows & chosen_N).sum()) for kind, rows in self.by_kind().items()}

    def by_kind(self) -> dict[str, NDArray[np.bool_]]:
        """The three, by name."""
        return {"fixed": self.fixed_N, "broken": self.broken_N, "flipped": self.flipped_N}


def changes_of(first: System, second: System) -> Changes:
    """What changed from one system to another."""
    was_N, is_N = (one.accuracy_SN.mean(axis=0) >= RIGHT for one in (first, second))
    one, other = usual_answers(first), usual_answers(second)
    code = {text: number for number, text in enumerate(one.distinct)}
    translated_A = np.array([code.get(text, -2) for text in other.distinct])
    different_N = one.codes != translated_A[other.codes]
    return Changes(is_N & ~was_N, was_N & ~is_N, different_N & (is_N == was_N))


def usual_answers(system: System) -> Strings:
    """The answer that most of a system's runs give, `[N]`; of equally many that of the first run."""
    if len(system.answers) == 1:
        return system.answers[0]
    index: dict[str, int] = {}
    code_SN = np.stack(
        [np.array([index.setdefault(t, len(index)) for t in said.distinct])[said.codes] for said in system.answers]
    )
    agreeing_SN = np.stack([(code_SN == code_N).sum(axis=0) for code_N in code_SN])
    best_N = agreeing_SN.argmax(axis=0)
    return Strings(tuple(index), code_SN[best_N, np.arange(code_SN.shape[1])].astype(np.int32))
