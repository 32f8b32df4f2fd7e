"""Figures that need a whole set of answers at once, by the name that `--metric` takes.

A suite computes what its files allow; what it cannot is named with what it needs, never left out in silence.

Legend: `N` questions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.errors import InputError, quoted
from vqa.evaluation.metrics.gqa import gqa_figures
from vqa.evaluation.metrics.vizwiz import answerability


@dataclass(frozen=True)
class Suite:
    """The figures of one file.

    Attributes:
        name: of the suite.
        title: of its table.
        about: what is said below it.
        figures: by name, in percent unless the name says otherwise.
        lacking: figures that were not computed, and what each needs.
    """

    name: str
    title: str
    about: str
    figures: dict[str, float]
    lacking: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return {"figures": self.figures, "not_computed": {name: f"needs {what}" for name, what in self.lacking.items()}}


class SuiteFiles(NamedTuple):
    """What suites may need besides the split and the answers.

    Attributes:
        choices: GQA's `<split>_choices.json`.
        answerable_N: each question's score of "answerable", float64, where the results file has that field.
    """

    choices: Path | None = None
    answerable_N: NDArray[np.float64] | None = None


def pope(dataset: QADataset, predictions: Strings, files: SuiteFiles) -> Suite:
    """POPE (Li et al. 2023): "yes" is the positive class.

    A prediction is read as the authors' program does, see `says_yes`; the share of yes is the predictions'.

    Raises:
        InputError: a question's answer is neither yes nor no.
    """
    if dataset.answers is None:
        raise InputError(f"{dataset.no_answers}, so it cannot be scored")
    said = [code != ABSENT and says_yes(predictions.distinct[code]) for code in predictions.codes.tolist()]
    true = []
    for row in range(len(dataset)):
        answer = dataset.answers.row(row)[0].strip().lower()
        if answer not in ("yes", "no"):
            where = f"{dataset.name}: question {dataset.written_ids[row]}"
            raise InputError(f"{where}: the answer is {quoted(answer)}; POPE's is yes or no")
        true.append(answer == "yes")
    both = sum(s and t for s, t in zip(said, true, strict=True))
    right = sum(s == t for s, t in zip(said, true, strict=True))
    precision = both / sum(said) if any(said) else 0.0
    recall = both / sum(true) if any(true) else 0.0
    f1 = 2 * precision * recall / (precision + recall) if both else 0.0
    figures = {"accuracy": right / len(true), "precision": precision, "recall": recall, "F1": f1,
               "share of yes": sum(said) / len(said)}  # fmt: skip
    return Suite("pope", "POPE: yes or no", "POPE, where yes is the positive class,", _percent(figures))


def says_yes(prediction: str) -> bool:
    """Whether POPE's program takes a prediction for "yes": its first sentence has none of the words No, no and not.

    >>> says_yes("Yes, there is a dog."), says_yes("There is no dog."), says_yes("maybe")
    (True, False, True)
    """
    return not {"No", "no", "not"} & set(prediction.partition(".")[0].replace(",", "").split(" "))


def _percent(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: 100 * value for name, value in figures.items()}


def gqa(dataset: QADataset, predictions: Strings, files: SuiteFiles) -> Suite:
    """GQA's own metrics; see `vqa.evaluation.metrics.gqa`.

    Raises:
        InputError: the split was not read from GQA's questions file, or a file is damaged.
    """
    answers = {
        str(number): predictions.distinct[code]
        for number, code in zip(dataset.question_id_N.tolist(), predictions.codes.tolist(), strict=True)
        if code != ABSENT
    }
    figures, lacking = gqa_figures(dataset.files, files.choices, answers)
    return Suite("gqa", "GQA's suite", "GQA's own metrics", figures, lacking)


def vizwiz(dataset: QADataset, predictions: Strings, files: SuiteFiles) -> Suite:
    """VizWiz's answerability; see `vqa.evaluation.metrics.vizwiz`.

    Raises:
        InputError: the split was not read from VizWiz's annotations, or they are damaged.
    """
    figures, lacking = answerability(dataset.files[0], dataset, predictions, files.answerable_N)
    return Suite("answerability", "VizWiz's answerability", "Answerable or not", _percent(figures), lacking)


SUITES: dict[str, Callable[[QADataset, Strings, SuiteFiles], Suite]] = {
    "pope": pope,
    "gqa": gqa,
    "answerability": vizwiz,
}
