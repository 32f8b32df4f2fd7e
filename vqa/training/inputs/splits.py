"""Which questions a run is trained, validated and tested on.

Legend: `I` images.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ImageTable, QADataset, Strings, concatenate, ids_digest
from vqa.data.formats import read_dataset
from vqa.data.formats.find import MissingSplitError
from vqa.data.formats.table import read_column
from vqa.data.holdout import OWN, Holdout, hold_out
from vqa.errors import InputError
from vqa.evaluation.contamination import image_contents
from vqa.experiment import DataSection, Experiment
from vqa.features.cache.reader import FeatureCache
from vqa.files import sha256_file

HOLDOUT_HINT = "\n`data.holdout=0.2` keeps that share of the training images for validation."


def read_split(experiment: Experiment, split: str, recorded: dict[str, Any] | None = None) -> QADataset:
    """Read "train", "val" or "test" of an experiment, or any other split of its data set by its official name.

    Args:
        recorded: the facts of a run that has begun, whose held-out questions must be found again.

    Raises:
        InputError: naming the split or the file; or the held-out questions are not the recorded ones.
    """
    data, spelling = experiment.data, experiment.answers.normalise
    if split in ("train", "val") and data.held_out is not None:
        return read_held_out(experiment, recorded)[0 if split == "train" else 1]
    if split == "train":
        return replace(read_training_splits(data), spelling=spelling)
    name = {"val": data.val, "test": data.test}.get(split, split)
    if name is None:
        trained = f"; it trains on {'+'.join(data.train_splits)}" if split == "val" else ""
        raise InputError(f"the experiment names no {split} split (data.{split}){trained}")
    return replace(_read(data, name, hint=HOLDOUT_HINT if split == "val" else ""), spelling=spelling)


def read_train_and_val(
    experiment: Experiment, recorded: dict[str, Any] | None = None
) -> tuple[QADataset, QADataset | None]:
    """What an experiment is trained on and validated on, the second None where it is not validated.

    Args:
        recorded: as for `read_split`.
    """
    if experiment.data.held_out is not None:
        return read_held_out(experiment, recorded)
    train = read_split(experiment, "train")
    return train, None if experiment.data.val is None else read_split(experiment, "val")


def read_training_splits(data: DataSection) -> QADataset:
    """The training splits as one, before anything is held out."""
    splits = [_read(data, name) for name in data.train_splits]
    return splits[0] if len(splits) == 1 else concatenate(splits, renumber=True)


def read_held_out(experiment: Experiment, recorded: dict[str, Any] | None = None) -> tuple[QADataset, QADataset]:
    """What is trained on, and what is held out of the training splits for validation.

    Identical files are on one side. Versions before 0.2 did not see to that: a run of theirs keeps the sides it has.

    Raises:
        InputError: as `hold_out`; or neither way gives the questions that the run has recorded.
    """
    data, holdout = experiment.data, experiment.data.held_out
    assert holdout is not None
    whole = replace(read_training_splits(data), spelling=experiment.answers.normalise)
    column = column_reader(data, holdout)
    sides = hold_out(whole, holdout, file_contents(experiment, whole.images), column)
    stated = None if recorded is None else (recorded.get("questions") or {}).get("val_ids_sha256")
    if recorded is None or stated == ids_digest(sides[1]):
        return sides
    apart = hold_out(whole, holdout, None, column)
    if stated in (None, ids_digest(apart[1])):
        return apart
    raise InputError(
        f"{whole.name}: the questions held out now ({holdout}) are not those that the run began with; the data set has "
        f"changed, or the feature caches that say which files are identical: bring them back"
    )


def file_contents(experiment: Experiment, images: ImageTable) -> NDArray[np.uint64]:
    """A digest of each image's file, uint64 `[I]`, 0 where none is known: as the feature caches state them.

    Where the image encoder is tuned there is no cache, and the files themselves are read.
    """
    section = experiment.features
    caches = [FeatureCache(path) for name in section.cache if (path := Path(name)).is_file()]
    if not section.tune:
        return image_contents(caches, images.ids)
    digests = (int(sha256_file(Path(path))[:16], 16) if Path(path).is_file() else 0 for path in images.paths)
    return np.fromiter(digests, np.uint64, len(images.ids))


def column_reader(data: DataSection, holdout: Holdout) -> Callable[[str], Strings] | None:
    """What reads a column that only a table has."""
    if data.format != "table" or holdout.by in OWN:
        return None

    def column(name: str) -> Strings:
        cells = [cell for split in data.train_splits for cell in read_column(Path(data.root), split, name, data.table)]
        return Strings.of(cells)

    return column


def _read(data: DataSection, name: str, *, hint: str = "") -> QADataset:
    try:
        return read_dataset(data.format, Path(data.root), name, data.table)
    except MissingSplitError as error:
        raise MissingSplitError(f"{error}{hint}") from None
