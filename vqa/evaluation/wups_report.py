"""WUPS and list accuracy of a whole split, as a table and as JSON; `vqa score-wups` for any results file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqa.data.dataset import QADataset, Strings
from vqa.data.formats import read_dataset
from vqa.evaluation.results import read_results
from vqa.evaluation.wups import THRESHOLDS, WordNet, list_accuracy, open_wordnet, wups
from vqa.files import write_json
from vqa.tables import Column, Row, Table

LIST_FORMATS = ("daquar", "daquar_single", "daquar_reduced", "daquar_reduced_single", "coco_qa")


@dataclass(frozen=True)
class WupsReport:
    """How near the answers come, in percent.

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


def score_wups(
    results: Path, root: Path, format: str, split: str, wordnet: Path | None, *, json_file: Path | None = None
) -> WupsReport:
    """WUPS of an official-format results file for any data set with one answer a question.

    Args:
        results: `[{"question_id": 1, "answer": "knife, fork"}, …]`, with the ids of vqa's reader.
        root, format, split: the data set, as `read_dataset` takes them.
        wordnet: the folder of nltk's WordNet corpus; None measures list accuracy only.
        json_file: where to write the numbers too.

    Raises:
        InputError: naming the file and the item.
    """
    corpus = None if wordnet is None else open_wordnet(wordnet)
    dataset = read_dataset(format, root, split)
    found = wups_report(results.name, dataset, read_results(results, dataset), corpus)
    if json_file is not None:
        write_json(json_file, found.as_json())
    return found
