"""Figures that need a whole set of answers at once, by the name that `--metric` takes.

A suite computes what its files allow; what it cannot is named with what it needs, never left out in silence.

Legend: `N` questions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.errors import InputError, quoted


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
        questions: GQA's questions file, with types, and `entailed` where consistency is wanted.
        choices: GQA's `<split>_choices.json`.
        annotations: VizWiz's annotations, with `answerable`.
        every_answer: what the results file answers, by id as it is written there, other questions' too.
        answerable: each answer's score of "answerable", by id or image, where the results file has it.
    """

    questions: Path | None = None
    choices: Path | None = None
    annotations: Path | None = None
    every_answer: Mapping[str, str] = {}
    answerable: Mapping[str, float] = {}


def pope(dataset: QADataset, predictions: Strings, files: SuiteFiles) -> Suite:
    """POPE (Li et al. 2023): "yes" is the positive class; a prediction that is not "yes" counts as "no".

    Raises:
        InputError: a question's answer is neither yes nor no.
    """
    if dataset.answers is None:
        raise InputError(f"{dataset.no_answers}, so it cannot be scored")
    said = [code != ABSENT and _is_yes(predictions.distinct[code]) for code in predictions.codes.tolist()]
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
    return Suite("pope", "POPE: yes or no", "POPE, yes is the positive class,", _percent(figures))


def _is_yes(prediction: str) -> bool:
    return prediction.strip().strip(".").lower() == "yes"


def _percent(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: 100 * value for name, value in figures.items()}


SUITES: dict[str, Callable[[QADataset, Strings, SuiteFiles], Suite]] = {
    "pope": pope,
}
