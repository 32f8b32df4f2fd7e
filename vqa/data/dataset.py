"""`QADataset`: questions, answers and images as columns, the one shape that every reader returns.

Legend: `N` questions, `I` images, `A` human answers a question (at most 10), `C` choices a question (at most 18),
`P` complementary pairs.
"""

import hashlib
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from vqa.errors import InputError
from vqa.text.normalise import Spelling

ABSENT = -1  # a code that stands for "no string here"
COLUMNS = ("question", "answers", "majority", "choices", "question_type", "answer_type", "question_names")


@dataclass(frozen=True)
class Strings:
    """A column of strings that repeat: the distinct ones, and for every cell an index into them.

    Attributes:
        distinct: the distinct strings, in order of first use.
        codes: int32, any shape; `ABSENT` (-1) marks an empty cell.
    """

    distinct: tuple[str, ...]
    codes: NDArray[np.int32]

    @classmethod
    def of(cls, values: Sequence[str | None]) -> "Strings":
        """Build from one string (or None) a row.

        >>> Strings.of(["no", "yes", "no", None]).codes.tolist()
        [0, 1, 0, -1]
        """
        index: dict[str, int] = {}
        codes = [ABSENT if value is None else index.setdefault(value, len(index)) for value in values]
        return cls(tuple(index), np.asarray(codes, dtype=np.int32))

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[str]], width: int) -> "Strings":
        """Build from a list of strings a row; a row shorter than `width` is filled with `ABSENT`."""
        index: dict[str, int] = {}
        codes = np.full((len(rows), width), ABSENT, dtype=np.int32)
        for row, values in enumerate(rows):
            codes[row, : len(values)] = [index.setdefault(value, len(index)) for value in values]
        return cls(tuple(index), codes)

    def at(self, row: int) -> str:
        """The string of one row of a one-dimensional column."""
        return self.distinct[self.codes[row]]

    def row(self, row: int) -> list[str]:
        """The strings of one row of a two-dimensional column, empty cells left out."""
        return [self.distinct[code] for code in self.codes[row] if code != ABSENT]

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Strings":
        """Some rows of this column; the distinct strings stay as they are."""
        return Strings(self.distinct, self.codes[rows])


class _Codes(dict[str, int]):
    """Codes of strings; a new string gets the next number."""

    def __missing__(self, text: str) -> int:
        code = self[text] = len(self)
        return code


class StringsBuilder:
    """Builds a two-dimensional `Strings` row by row, so that no row of text need be kept.

    >>> builder = StringsBuilder()
    >>> builder.add(["yes", "no"])
    >>> builder.add(["no"])
    >>> builder.build().codes.tolist()
    [[0, 1], [1, -1]]
    """

    def __init__(self) -> None:
        self._index = _Codes()
        self._codes = array("i")
        self._length = array("i")

    def add(self, values: Sequence[str]) -> None:
        """Append one row."""
        self._codes.extend(map(self._index.__getitem__, values))
        self._length.append(len(values))

    def __len__(self) -> int:
        return len(self._length)

    def build_column(self) -> Strings:
        """The rows so far, one string each, as a one-dimensional column."""
        return Strings(tuple(self._index), np.array(self._codes, dtype=np.int32).reshape(len(self)))

    def build(self) -> Strings:
        """The rows so far, as wide as the longest; shorter rows are filled with `ABSENT`."""
        length = np.array(self._length, dtype=np.int64)
        codes = np.array(self._codes, dtype=np.int32)
        width = int(length.max(initial=0))
        if (length == width).all():
            return Strings(tuple(self._index), codes.reshape(len(length), width))
        filled = np.full((len(length), width), ABSENT, dtype=np.int32)
        filled[np.arange(width) < length[:, None]] = codes
        return Strings(tuple(self._index), filled)


class PathList(Sequence[Path]):
    """Paths kept as text and made when asked for: making 82,783 of them takes longer than reading their questions."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, row: int) -> Path: ...

    @overload
    def __getitem__(self, row: slice) -> "PathList": ...

    def __getitem__(self, row: int | slice) -> "Path | PathList":
        if isinstance(row, slice):
            return PathList(self._texts[row])
        return Path(self._texts[row])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


@dataclass(frozen=True)
class ImageTable:
    """The images of a data set, one row each, however many questions they have.

    Attributes:
        ids: the image ids as strings, unique over **all** splits of the data set (official integer ids are written
            in decimal; formats whose splits number their images alike put the split in front: "train/17").
        paths: where each image should lie; a file need not exist until it is needed.
    """

    ids: tuple[str, ...]
    paths: Sequence[Path]


@dataclass(frozen=True)
class QADataset:
    """One split of a visual question answering data set, immutable, in columns of `N` questions.

    Splits whose answers are hidden have `answers`, `majority` and `answer_type` None; sets without multiple choice
    have `choices` None. Score only through `vqa.evaluation`.

    Attributes:
        format: the reader's name in `FORMATS`, e.g. "vqa_v2".
        split: the split's official name, e.g. "val2014".
        question_id_N: int64, unique.
        image_row_N: int32, row of `images`.
        images: the images.
        question: `[N]`.
        answers: `[N, A]`, the raw human answers in the file's order, or None.
        majority: `[N]`, the most frequent human answer as published (`multiple_choice_answer`), or None.
        choices: `[N, C]`, the choices of the multiple-choice task, or None.
        question_type: `[N]`, or None.
        answer_type: `[N]`: "yes/no", "number" or "other" in official files, or None.
        pairs_P2: int64 `[P, 2]`, complementary question ids, or None.
        data_type: "mscoco", "abstract_v002", … as official results files name it.
        files: the files that were read, for messages and digests.
        spelling: which answers count as one where every question has one (`answers.normalise` of an experiment);
            sets with several answers a question have the rules of their metric.
        answers_missing: which file of answers was looked for in vain; "" where there are answers or they are hidden.
        question_names: `[N]`, the question ids as the data set writes them, where those are texts; None where they are
            the numbers themselves.
        notes: what its reader has to say of how it read the files, a sentence each.
    """

    format: str
    split: str
    question_id_N: NDArray[np.int64]
    image_row_N: NDArray[np.int32]
    images: ImageTable
    question: Strings
    answers: Strings | None = None
    majority: Strings | None = None
    choices: Strings | None = None
    question_type: Strings | None = None
    answer_type: Strings | None = None
    pairs_P2: NDArray[np.int64] | None = None
    data_type: str = ""
    files: tuple[Path, ...] = ()
    answers_missing: str = ""
    question_names: Strings | None = None
    notes: tuple[str, ...] = ()
    spelling: Spelling = "none"

    def __len__(self) -> int:
        return len(self.question_id_N)

    @property
    def written_ids(self) -> Sequence[int | str]:
        """The question ids as results files carry them: as the data set writes them."""
        names = self.question_names
        return self.question_id_N.tolist() if names is None else [names.distinct[code] for code in names.codes]

    @property
    def name(self) -> str:
        """What messages call this split: "vqa_v2 val2014"."""
        return f"{self.format} {self.split}"

    @property
    def folder(self) -> Path | None:
        """The folder of its first file; None where there is none."""
        return self.files[0].parent if self.files else None

    @property
    def no_answers(self) -> str:
        """How messages begin that need the answers of a split without them."""
        return self.answers_missing or f"{self.name}: the answers of this split are hidden"

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "QADataset":
        """Some of the questions, with only the images they ask about, in the same order."""
        used, image_row = np.unique(self.image_row_N[rows], return_inverse=True)
        columns = {name: column.take(rows) for name in COLUMNS if (column := getattr(self, name)) is not None}
        images = ImageTable(tuple(self.images.ids[i] for i in used), tuple(self.images.paths[i] for i in used))
        ids = self.question_id_N[rows]
        pairs = self.pairs_P2
        if pairs is not None:
            pairs = pairs[np.isin(pairs, ids).all(axis=1)]
        return replace(
            self,
            question_id_N=ids,
            image_row_N=image_row.astype(np.int32),
            images=images,
            pairs_P2=pairs,
            **columns,
        )


def ids_digest(dataset: QADataset) -> str:
    """SHA-256 of a split's question ids in ascending order: which questions a made split (a holdout, changing priors)
    holds, whatever machine made it."""
    return hashlib.sha256(np.sort(dataset.question_id_N).astype("<i8").tobytes()).hexdigest()


def missing_images(dataset: QADataset) -> list[Path]:
    """The images of a data set that are not there, in the order of its image table.

    Each folder is listed once, which takes a second where asking for 82,783 files one by one takes minutes on a
    network disk.
    """
    present: dict[Path, set[str]] = {}
    for folder in {path.parent for path in dataset.images.paths}:
        try:
            with os.scandir(folder) as entries:
                present[folder] = {entry.name for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            present[folder] = set()
        except OSError as error:
            raise InputError(f"{folder}: cannot be listed: {error.strerror}") from None
    return [path for path in dataset.images.paths if path.name not in present[path.parent]]


def concatenate(datasets: Sequence[QADataset], *, renumber: bool = False) -> QADataset:
    """Several splits of one data set as one, questions in the order given; an image in two splits becomes one row.

    A column is kept when all splits have it.

    Args:
        renumber: where splits share a question id (some formats count from 0 in each), the ids of every later split
            go on after the greatest id before it.

    Raises:
        InputError: when two splits share a question id and are not to be numbered anew.
    """
    first = datasets[0]
    question_id_N = np.concatenate([dataset.question_id_N for dataset in datasets])
    distinct, count = np.unique(question_id_N, return_counts=True)
    if (count > 1).any():
        if renumber:
            return concatenate(_numbered_on(datasets))
        names = " and ".join(str(dataset.files[0]) if dataset.files else dataset.name for dataset in datasets)
        raise InputError(f"{names}: question {distinct[count > 1][0]} is in more than one of them")
    images: dict[str, tuple[int, Path]] = {}
    image_row = [
        np.array([images.setdefault(i, (len(images), path))[0] for i, path in zip(*table, strict=True)], np.int32)[rows]
        for rows, table in ((d.image_row_N, (d.images.ids, d.images.paths)) for d in datasets)
    ]
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        parts = [column for dataset in datasets if (column := getattr(dataset, name)) is not None]
        columns[name] = _stack(parts) if len(parts) == len(datasets) else None
    if any(dataset.question_names is not None for dataset in datasets):
        columns["question_names"] = Strings.of([str(name) for dataset in datasets for name in dataset.written_ids])
    pairs = [dataset.pairs_P2 for dataset in datasets if dataset.pairs_P2 is not None]
    return replace(
        first,
        split="+".join(dataset.split for dataset in datasets),
        question_id_N=question_id_N,
        image_row_N=np.concatenate(image_row),
        images=ImageTable(tuple(images), tuple(path for _, path in images.values())),
        pairs_P2=np.concatenate(pairs) if len(pairs) == len(datasets) else None,
        files=tuple(path for dataset in datasets for path in dataset.files),
        answers_missing=next((dataset.answers_missing for dataset in datasets if dataset.answers_missing), ""),
        notes=tuple(dict.fromkeys(note for dataset in datasets for note in dataset.notes)),
        **columns,
    )


def _numbered_on(datasets: Sequence[QADataset]) -> list[QADataset]:
    """The splits with question ids that differ: each is moved up by the number that leaves all before it below."""
    moved, above = [], 0
    for dataset in datasets:
        if above + int(dataset.question_id_N.max(initial=0)) >= 2**63:
            raise InputError(f"{dataset.name}: its question ids are in other splits, too, and too large to be moved up")
        pairs = None if dataset.pairs_P2 is None else dataset.pairs_P2 + above
        moved.append(replace(dataset, question_id_N=dataset.question_id_N + above, pairs_P2=pairs))
        above = int(moved[-1].question_id_N.max(initial=above - 1)) + 1
    return moved


def _stack(columns: Sequence[Strings]) -> Strings:
    """Columns below each other, over one list of distinct strings; the widest decides the width."""
    index: dict[str, int] = {}
    blocks = []
    width = max(column.codes.shape[1] if column.codes.ndim == 2 else 0 for column in columns)
    for column in columns:
        new_code = np.array([index.setdefault(text, len(index)) for text in column.distinct] + [ABSENT], dtype=np.int32)
        codes = new_code[column.codes]  # ABSENT is -1 and picks the last
        if codes.ndim == 2:
            codes = np.pad(codes, ((0, 0), (0, width - codes.shape[1])), constant_values=ABSENT)
        blocks.append(codes)
    return Strings(tuple(index), np.concatenate(blocks))


class ImageDigests(Protocol):
    """What knows the content of images' files: a feature cache, or the images themselves."""

    @property
    def image_digests(self) -> Sequence[str]:
        """SHA-256 of each row's file; an empty text where it is not known."""
        ...

    def find(self, image_ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each image, -1 where there is none."""
        ...
