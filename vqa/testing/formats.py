"""What every reader of data sets promises.

Legend: `N` questions, `I` images.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vqa.data.dataset import QADataset, Strings, missing_images
from vqa.data.formats import Format, as_format, find_format
from vqa.data.formats.find import MissingSplitError
from vqa.errors import InputError

SPLITS = ("train", "val", "test")  # looked for where a format names none


def check_format(format: object, root: Path, splits: Sequence[str] = ()) -> list[QADataset]:
    """Hold a reader to every promise, on files in its layout.

    Args:
        format: a class with `read(root, split)`, `splits` and `about`, a `Format`, or the name of one.
        root: a folder with at least one split.
        splits: their short or official names; none are all that the format names.

    Returns:
        The splits that were there.

    Raises:
        AssertionError: naming the promise that is not kept.
        InputError: what the reader finds wrong with the files.
    """
    name = format if isinstance(format, str) else getattr(format, "__name__", type(format).__name__)
    reader = find_format(format) if isinstance(format, str) else as_format(str(name), format)
    _hold(bool(reader.about), name, "has no `about`, the line that describes it")
    datasets: list[QADataset] = []
    images: dict[str, Path] = {}
    for short in splits or reader.splits or SPLITS:
        official = reader.splits.get(short, short)
        try:
            dataset = reader.read(Path(root), official)
        except MissingSplitError:
            continue
        check_dataset(dataset)
        _hold(dataset.split == official, name, f"calls the split {official!r} {dataset.split!r}")
        again = reader.read(Path(root), official)
        _hold(np.array_equal(again.question_id_N, dataset.question_id_N), name, "gives other questions each time")
        for image, path in zip(dataset.images.ids, dataset.images.paths, strict=True):
            where = images.setdefault(image, path)
            _hold(where == path, name, f"calls two images {image!r}, {where} and {path}")
        datasets.append(dataset)
    _hold(bool(datasets), name, f"finds no split in {root}")
    _hold_empty_folder(reader, str(name), datasets[0].split)
    return datasets


def check_dataset(dataset: QADataset) -> None:
    """Hold one split to the contract of `QADataset`.

    Raises:
        AssertionError: naming the split and the column.
    """
    name, count = dataset.name, len(dataset)
    _hold(count > 0, name, "has no question")
    _hold(bool(dataset.format and dataset.split and dataset.data_type), name, "has no format, split or data_type")
    ids = dataset.question_id_N
    _hold(ids.dtype == np.int64 and ids.shape == (count,), name, f"has question ids of {ids.dtype}, not int64 [N]")
    _hold(len(np.unique(ids)) == count, name, "has a question id twice")
    rows = dataset.image_row_N
    _hold(rows.dtype == np.int32 and rows.shape == (count,), name, f"has image rows of {rows.dtype}, not int32 [N]")
    known = len(dataset.images.ids)
    _hold(set(rows.tolist()) == set(range(known)), name, "has image rows that are not exactly those of its images")
    _hold(len(set(dataset.images.ids)) == known, name, "has an image id twice")
    _hold(len(dataset.images.paths) == known, name, "has not one path an image")
    _hold_columns(dataset)
    _hold(bool(dataset.files), name, "does not say which files it was read from")
    absent = [str(path) for path in dataset.files if not path.is_file()]
    _hold(not absent, name, f"says that it was read from files that are not there: {', '.join(absent)}")
    missing_images(dataset)
    half = dataset.take(np.arange(count)[::2])
    _hold(len(half) == (count + 1) // 2, name, "cannot be taken in part")


def _hold_columns(dataset: QADataset) -> None:
    count = len(dataset)
    together = (dataset.answers is None) == (dataset.majority is None)
    _hold(together, dataset.name, "has one of `answers` and `majority` without the other")
    for key in ("question", "majority", "question_type", "answer_type"):
        _hold_column(dataset, key, count, dimensions=1)
    for key in ("answers", "choices"):
        _hold_column(dataset, key, count, dimensions=2)
    if dataset.answers is not None:
        most = dataset.answers.codes.shape[1]
        _hold(1 <= most <= 10, dataset.name, f"has {most} answers a question, not 1 to 10")


def _hold_column(dataset: QADataset, key: str, rows: int, dimensions: int) -> None:
    column: Strings | None = getattr(dataset, key)
    if column is None:
        return
    codes, owner = column.codes, f"{dataset.name}: {key}"
    _hold(codes.dtype == np.int32, owner, f"has codes of {codes.dtype}, not int32")
    right = codes.ndim == dimensions and len(codes) == rows
    _hold(right, owner, f"has codes of shape {codes.shape}, not {dimensions} dimensions of {rows} rows")
    _hold(codes.min() >= -1 and codes.max() < len(column.distinct), owner, "has codes that stand for no string")
    first = codes if dimensions == 1 else codes[:, 0]
    _hold(key == "question" or first.min() >= 0, owner, "has a row without any string")
    _hold(len(set(column.distinct)) == len(column.distinct), owner, "has a distinct string twice")
    _hold(all(type(text) is str for text in column.distinct), owner, "has values that are no strings")


def _hold_empty_folder(reader: Format, name: str, split: str) -> None:
    with TemporaryDirectory() as folder:
        try:
            reader.read(Path(folder), split)
        except InputError as error:
            _hold(folder in str(error), name, "does not name the folder where its files are missing")
            return
        except Exception as error:
            _hold(False, name, f"raises {type(error).__name__} where its files are missing, not an InputError: {error}")
    _hold(False, name, "reads an empty folder without an InputError")


def _hold(kept: bool, owner: object, broken: str) -> None:
    if not kept:
        raise AssertionError(f"{owner} {broken}")
