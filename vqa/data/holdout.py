"""Which training questions are kept for validation: some images, whole groups of images, or one of several folds.

A group is what must not be on both sides: the frames of a room, the questions of a program. Images whose files are
identical are never on both sides either, whatever groups there are.

Legend: `N` questions, `I` images.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.errors import InputError, shortened

COLUMNS = ("question", "question_type", "answer_type")
IMAGE, CONSECUTIVE = "image", "consecutive"
OWN = (IMAGE, CONSECUTIVE, *COLUMNS)  # what `by` names in every data set
_LAST_NUMBER = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_ -]*")  # a column's name; anything else is a regular expression


@dataclass(frozen=True)
class Holdout:
    """How questions are chosen for validation.

    Attributes:
        share: of the images, 0..1; None where there are folds.
        seed: of the order in which groups are taken.
        by: what groups are: "image", "consecutive", a column, or a regular expression over the images' ids.
        folds: in how many parts all is divided; None for one share.
        fold: which of them is held out, from 0.
    """

    share: float | None
    seed: int = 0
    by: str = IMAGE
    folds: int | None = None
    fold: int = 0

    def __str__(self) -> str:
        if self.folds:
            return f"fold {self.fold} of {self.folds}, by {self.by}, seed {self.seed}"
        return f"{self.share:.0%}, by {self.by}, seed {self.seed}"


def hold_out(
    dataset: QADataset,
    holdout: Holdout,
    content_I: NDArray[np.uint64] | None = None,
    column: Callable[[str], Strings] | None = None,
) -> tuple[QADataset, QADataset]:
    """Split a data set: (the rest, what is held out). No image and no group is on both sides.

    Args:
        content_I: a digest of each image's file, 0 where it is not known; images of one digest stay together.
        column: reads a column `[N]` that only this data set has, by its name.

    Raises:
        InputError: `by` fits nothing, or the groups are too large for the sides to be as they are asked for.
    """
    part_I = parts(dataset, group_codes(dataset, holdout.by, column), content_I)
    held_I = _share(dataset, part_I, holdout) if holdout.folds is None else _fold(dataset, part_I, holdout)
    chosen_N = held_I[dataset.image_row_N]
    kept, out = dataset.take(~chosen_N), dataset.take(chosen_N)
    if not len(kept) or not len(out):
        raise InputError(f"{dataset.name}: holding out {holdout} leaves one side empty")
    named = "held-out" if holdout.folds is None else f"fold-{holdout.fold}"
    return replace(kept, split=f"{dataset.split}-kept"), replace(out, split=f"{dataset.split}-{named}")


def hold_out_images(dataset: QADataset, share: float, seed: int) -> tuple[QADataset, QADataset]:
    """Split by image alone, so that no image is on both sides: (the rest, about `share` of the images).

    Raises:
        InputError: when either side would be empty.
    """
    return hold_out(dataset, Holdout(share, seed))


def group_codes(
    dataset: QADataset, by: str, column: Callable[[str], Strings] | None = None
) -> NDArray[np.integer] | None:
    """The group of each question, whole numbers `[N]` (negative: of no group); None where each image is its own.

    Raises:
        InputError: naming what `by` may be, or the image whose id it does not fit.
    """
    if by == IMAGE:
        return None
    if by == CONSECUTIVE:
        return _consecutive(dataset.images.ids)[dataset.image_row_N]
    if by in COLUMNS:
        found: Strings | None = getattr(dataset, by)
        if found is None:
            raise InputError(f"data.holdout.by: {dataset.name} has no column {by}")
        return found.codes
    if WORD.fullmatch(by):
        if column is None:
            raise InputError(
                f"data.holdout.by: {by!r} is no column of {dataset.name}; name one of {', '.join(OWN)}, or give a "
                f"regular expression over the images' ids with a group, e.g. '^(.*)_\\d+$'"
            )
        return column(by).codes
    return _by_pattern(dataset, by)[dataset.image_row_N]


def compile_groups(pattern: str) -> re.Pattern[str]:
    """The regular expression of `by`; raises ValueError where it is none, or has no group."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no column and not a regular expression: {error}") from None
    if compiled.groups != 1:
        raise ValueError(f"{pattern!r}: a regular expression needs one group in brackets, the part that ids share")
    return compiled


def _by_pattern(dataset: QADataset, by: str) -> NDArray[np.int32]:
    """The group of each image by what a regular expression finds in its id; in its path, where it fits no id."""
    pattern = compile_groups(by)
    for texts in (dataset.images.ids, tuple(Path(path).as_posix() for path in dataset.images.paths)):
        found = [pattern.search(text) for text in texts]
        if all(found):
            return Strings.of([one[1] if one else None for one in found]).codes
        if any(found):
            lacking = texts[next(row for row, one in enumerate(found) if one is None)]
            raise InputError(f"data.holdout.by: {by!r} is not found in image {shortened(repr(lacking))}")
    raise InputError(
        f"data.holdout.by: {by!r} is found in no image's id or path; the first id is {dataset.images.ids[0]!r}, its "
        f"path {dataset.images.paths[0]}"
    )


def _consecutive(ids: tuple[str, ...]) -> NDArray[np.int64]:
    """The run of each image: those whose ids differ in their last number alone, and that without a gap."""
    keys: list[tuple[str, str, int]] = []
    for name in ids:
        parted = _LAST_NUMBER.fullmatch(name[::-1])  # from behind: the first number is the last
        if parted is None:
            raise InputError(f"data.holdout.by: consecutive needs a number in every image's id; {name!r} has none")
        keys.append((parted[3][::-1], parted[1][::-1], int(parted[2][::-1])))
    group_I = np.zeros(len(ids), dtype=np.int64)
    before, group = None, -1
    for row in sorted(range(len(ids)), key=keys.__getitem__):
        head, tail, number = keys[row]
        group += before is None or before[:2] != (head, tail) or number > before[2] + 1
        group_I[row], before = group, keys[row]
    return group_I


def parts(
    dataset: QADataset, group_N: NDArray[np.integer] | None, content_I: NDArray[np.uint64] | None
) -> NDArray[np.int64]:
    """Which images must stay together: a number for each, int64 `[I]`, equal for those of one group or one file."""
    count = len(dataset.images.ids)
    image, other, others = [], [], count  # a node for each image, group and file; an edge says "together"
    if group_N is not None:
        inside = group_N != ABSENT
        _, group = np.unique(group_N[inside], return_inverse=True)
        image.append(dataset.image_row_N[inside].astype(np.int64))
        other.append(others + group)
        others += int(group.max(initial=-1)) + 1
    if content_I is not None:
        _, file_I, copies = np.unique(content_I, return_inverse=True, return_counts=True)
        twice_I = (content_I > 0) & (copies[file_I] > 1)
        if twice_I.any():
            image.append(np.flatnonzero(twice_I))
            other.append(others + file_I[twice_I])
            others += len(copies)
    if not image:
        return np.arange(count)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = (np.concatenate(image), np.concatenate(other))
    graph = coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(others, others))
    _, part = connected_components(graph, directed=False)
    return part[:count].astype(np.int64)


def _in_order(part_I: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The parts in random order, each where the first of its images comes, and the size of every part."""
    order_I = np.random.default_rng(seed).permutation(len(part_I))
    _, first = np.unique(part_I[order_I], return_index=True)
    return part_I[order_I][np.sort(first)], np.bincount(part_I)


def _share(dataset: QADataset, part_I: NDArray[np.int64], holdout: Holdout) -> NDArray[np.bool_]:
    """The images held out: part after part, each that brings their number nearer to the share."""
    assert holdout.share is not None
    count, total, held = len(part_I), 0, []
    wanted = round(count * holdout.share)
    order, size = _in_order(part_I, holdout.seed)
    for part in order.tolist() if wanted < count else ():
        if total >= wanted:
            break
        if abs(total + size[part] - wanted) < wanted - total and total + size[part] < count:
            held.append(part)
            total += int(size[part])
    if not 0 < total < count:
        raise InputError(
            f"{dataset.name}: holding out {holdout.share:g} of {count} images leaves one side empty{_largest(size)}"
        )
    if abs(total - wanted) > wanted / 2:
        raise InputError(
            f"{dataset.name}: {holdout.share:.0%} of the images cannot be held out by {holdout.by}: groups as large as "
            f"they are leave {total:,} of {count:,} images{_largest(size)}"
        )
    return np.isin(part_I, held)


def _largest(size: NDArray[np.int64]) -> str:
    return f"; the largest group that must stay together has {size.max():,}" if size.max() > 1 else ""


def _fold(dataset: QADataset, part_I: NDArray[np.int64], holdout: Holdout) -> NDArray[np.bool_]:
    """The images of one fold: the largest parts first, each into the fold that has the fewest images so far."""
    assert holdout.folds is not None
    order, size = _in_order(part_I, holdout.seed)
    if len(order) < holdout.folds:
        raise InputError(
            f"{dataset.name}: {len(order)} groups by {holdout.by} do not make {holdout.folds} folds{_largest(size)}"
        )
    fold_of = np.zeros(len(size), dtype=np.int64)
    images_in = np.zeros(holdout.folds, dtype=np.int64)
    for part in sorted(order.tolist(), key=lambda one: -size[one]):  # stable: the random order among equals
        fold_of[part] = images_in.argmin()
        images_in[fold_of[part]] += size[part]
    return fold_of[part_I] == holdout.fold
