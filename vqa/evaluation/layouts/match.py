"""Which question of a data set each record of a results file answers.

A record says so by the question's id, by its place in the split (`doc_id`, `index`), or by its image's name where a
question is the only one about its image. Places are checked by what the file repeats of the questions and true answers,
because files of another order would be scored without a word.

Legend: `N` questions, `R` records.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.errors import InputError, quoted
from vqa.evaluation.layouts.fields import PLACES
from vqa.evaluation.layouts.letters import choices_of_letters, letters_of
from vqa.evaluation.layouts.read import ResultsFile
from vqa.evaluation.results import LISTED
from vqa.text.normalise import normalise

_UNKNOWN = -1
_DIFFERENT = 0.1  # a share of records that contradict their place, from which on the order is another one


@dataclass(frozen=True)
class Matched:
    """The answers of a file to a data set's questions.

    Attributes:
        predictions: `[N]`; an empty cell where the file has no answer.
        by: how its records name their questions: "question_id", "doc_id as place", "image".
        unknown: records of no question of the data set.
        letters: every answer was a letter, and `predictions` are the choices that these stand for.
        answerable_N: float64, VizWiz's score of "answerable", where the file has it; NaN without an answer.
    """

    predictions: Strings
    by: str
    unknown: int = 0
    letters: bool = False
    answerable_N: NDArray[np.float64] | None = None

    @property
    def answered_N(self) -> NDArray[np.bool_]:
        """Which questions have an answer."""
        return self.predictions.codes != ABSENT


def match(found: ResultsFile, dataset: QADataset, *, part: bool = False) -> Matched:
    """Give each question its answer.

    Args:
        part: allow questions without an answer, and answers to other questions.

    Raises:
        InputError: naming the file and the ids: unknown ones, missing ones, one with two different answers, or places
            that do not fit.
    """
    row_R, by = _rows(found, dataset)
    answers = Strings.of(found.answers)
    code_N = np.full(len(dataset), ABSENT, dtype=np.int32)
    known_R = row_R != _UNKNOWN
    code_N[row_R[known_R]] = answers.codes[known_R]
    twice = row_R[known_R][code_N[row_R[known_R]] != answers.codes[known_R]]
    problems = _problems(found, dataset, known_R, code_N, part)
    if len(twice):
        problems.insert(0, f"{_questions(len(np.unique(twice)))} with two different answers ({_ids(dataset, twice)})")
    if not known_R.any():
        problems = problems[:1] or [f"no answer is to a question of {dataset.name}"]
    if problems:
        raise InputError(f"{found.path}: {'; '.join(problems)}")
    answerable_N = None
    if found.answerable:
        answerable_N = np.full(len(dataset), np.nan)
        answerable_N[row_R[known_R]] = np.asarray(found.answerable)[known_R]
    predictions = Strings(answers.distinct, code_N)
    chosen = choices_of_letters(dataset, predictions)
    return Matched(chosen or predictions, by, int((~known_R).sum()), chosen is not None, answerable_N)


def _problems(
    found: ResultsFile, dataset: QADataset, known_R: NDArray[np.bool_], code_N: NDArray[np.int32], part: bool
) -> list[str]:
    """What keeps a whole file from being scored; nothing of it keeps a part."""
    problems: list[str] = []
    if not known_R.all() and (not part or not known_R.any()):
        named = found.ids or found.images
        unknown = sorted({named[place] for place in np.flatnonzero(~known_R)})
        shown = ", ".join(unknown[:LISTED]) + (", …" if len(unknown) > LISTED else "")
        ids = [str(name) for name in dataset.written_ids[:LISTED]]
        problems.append(
            f"{len(unknown):,} of {_questions(len(known_R))} not in {dataset.name} ({shown}), whose ids are "
            f"{', '.join(ids)}{', …' if len(dataset) > LISTED else ''}"
        )
    lacking = np.flatnonzero(code_N == ABSENT)
    if len(lacking) and not part:
        problems.append(
            f"{_questions(len(lacking))} of {len(dataset):,} without an answer ({_ids(dataset, lacking)}); "
            "--part scores what is there"
        )
    return problems


def _questions(count: int) -> str:
    return f"{count:,} question{'' if count == 1 else 's'}"


def _ids(dataset: QADataset, rows: NDArray[np.integer]) -> str:
    ids, few = dataset.written_ids, np.unique(rows)
    return ", ".join(str(ids[row]) for row in few[:LISTED].tolist()) + (", …" if len(few) > LISTED else "")


def _rows(found: ResultsFile, dataset: QADataset) -> tuple[NDArray[np.int64], str]:
    """The data set's row of each record, int64 `[R]`, -1 for none; and how it was found."""
    if not found.ids:
        return _by_image(found, dataset), "image"
    by_id = _by_id(found.ids, dataset)
    named = found.id_field == "index" and by_id.min() != _UNKNOWN
    if named and not _contradiction(found, dataset, by_id):
        return by_id, found.id_field
    if found.id_field in (*PLACES, "place"):
        return _by_place(found, dataset), f"{found.id_field} as place"
    return by_id, found.id_field


def _by_id(ids: Sequence[str], dataset: QADataset) -> NDArray[np.int64]:
    """By an id as the data set writes it, or by the number that it is, whatever zeros it begins with; -1 for none."""
    row_of = dict(zip(map(str, dataset.question_id_N.tolist()), range(len(dataset)), strict=True))
    if dataset.question_names is not None:
        row_of |= {str(name): row for row, name in enumerate(dataset.written_ids)}
    row_R = [row_of.get(text, _UNKNOWN) for text in ids]
    if _UNKNOWN in row_R:
        row_R = [row_of.get(ids[i].lstrip("0") or "0", _UNKNOWN) if r == _UNKNOWN else r for i, r in enumerate(row_R)]
    return np.asarray(row_R, dtype=np.int64)


def _by_place(found: ResultsFile, dataset: QADataset) -> NDArray[np.int64]:
    """By the place in the split, counted from 0."""
    row_R = np.full(len(found.ids), _UNKNOWN, dtype=np.int64)
    for record, text in enumerate(found.ids):
        if text.isascii() and text.isdecimal() and len(text) < 19 and int(text) < len(dataset):
            row_R[record] = int(text)
    if contradiction := _contradiction(found, dataset, row_R):
        raise InputError(contradiction)
    return row_R


def _contradiction(found: ResultsFile, dataset: QADataset, row_R: NDArray[np.int64]) -> str:
    """What to say where the rows are those of another order, or of another split; "" where nothing speaks against."""
    for texts, of_row, letters, what in (
        (found.questions, lambda row: [dataset.question.at(row)], lambda row: [], "question"),
        (found.targets, lambda row: _true_answers(dataset, row), lambda row: letters_of(dataset, row), "target"),
    ):
        if not texts or (what == "target" and dataset.answers is None):
            continue
        said = [(record, row) for record, row in enumerate(row_R.tolist()) if row != _UNKNOWN]
        wrong = [
            (record, row)
            for record, row in said
            if not _mentions(texts[record], of_row(row)) and texts[record].strip() not in letters(row)
        ]
        if len(wrong) > _DIFFERENT * len(said):
            record, row = wrong[0]
            return (
                f"{found.path}: {found.id_field} {found.ids[record]}: its {what} is {quoted(texts[record])}, but "
                f"{dataset.name} has {quoted(of_row(row)[0])} there ({len(wrong):,} of {len(said):,} such records): "
                "the file is of another split, or of the same in another order"
            )
    return ""


def _true_answers(dataset: QADataset, row: int) -> list[str]:
    assert dataset.answers is not None
    return dataset.answers.row(row)


def _mentions(text: str, expected: Sequence[str]) -> bool:
    """Whether one of the expected texts stands in `text`, but for capitals and punctuation, or as Python writes it."""
    said = normalise(text)
    return any(normalise(one) in said or repr(one)[1:-1] in text for one in expected)


def _by_image(found: ResultsFile, dataset: QADataset) -> NDArray[np.int64]:
    """By the image's name, and the question's text where the file has it."""
    row_of: dict[tuple[str, ...], int] = {}
    several: set[tuple[str, ...]] = set()
    texted = bool(found.questions)
    paths = [PurePath(path) for path in dataset.images.paths]
    for row, image_row in enumerate(dataset.image_row_N.tolist()):
        more = (dataset.question.at(row).strip(),) if texted else ()
        for name in {dataset.images.ids[image_row], paths[image_row].name, paths[image_row].stem}:
            key = (name, *more)
            if row_of.setdefault(key, row) != row:
                several.add(key)
    row_R = np.full(len(found.answers), _UNKNOWN, dtype=np.int64)
    for record, image in enumerate(found.images):
        more = (found.questions[record].strip(),) if texted else ()
        keys = [(name, *more) for name in (image, PurePath(image).name) if (name, *more) in row_of]
        if keys and keys[0] in several:
            raise InputError(
                f"{found.path}: {image}: {dataset.name} has several such questions about this image, and the file "
                "names no question_id"
            )
        if keys:
            row_R[record] = row_of[keys[0]]
    return row_R
