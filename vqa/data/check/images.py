"""What is wrong with the images of a data set: missing, shared by splits, damaged, of one colour."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vqa.data.check.findings import NAMED, TOLERATED, Finding, Level, shares_images, tested_pairs
from vqa.data.dataset import ImageDigests, QADataset, missing_images
from vqa.data.formats import FORMATS
from vqa.data.missing import explain_missing, release_note
from vqa.errors import InputError
from vqa.progress import progress_bar

if TYPE_CHECKING:
    from vqa.data.images import Decoding  # brings Pillow, which other checks do not need


def missing(datasets: Sequence[QADataset], root: Path, caches: Sequence[ImageDigests] = ()) -> Iterator[Finding]:
    """Images that are not there, and why.

    Published sets may be used without any image, with features that others have extracted. Of one's own data that is
    an error, unless the features of all are in a cache.

    Args:
        root: the data set's folder, or a table in it.
        caches: of features that need no images any more.
    """
    gone = {dataset.split: missing_images(dataset) for dataset in datasets}
    wanted = [path for dataset in datasets for path in dataset.images.paths]
    for dataset in datasets:
        absent, count = gone[dataset.split], len(dataset.images.ids)
        if not absent:
            if said := release_note(dataset.images, dataset.format):
                yield Finding("ok", str(dataset.images.paths[0].parent), dataset.split, said)
            continue
        if caches and _all_in(caches, dataset):
            words = f"{len(absent):,} of {count:,} images are not there; the cache has the features of all"
            yield Finding("ok", str(absent[0].parent), dataset.split, words)
            continue
        why = explain_missing(wanted, absent, root)
        because = "" if why is None else f": {why}"
        if len(absent) == count:
            published = dataset.format in FORMATS and dataset.format != "table"
            level: Level = "note" if published and not (why and why.found_otherwise) else "error"
            said = f"none of the {count:,} images is there" + (because or f", first: {absent[0].name}")
            yield Finding(level, str(absent[0].parent), dataset.split, said)
        else:
            named = ", ".join(path.name for path in absent[:NAMED])
            words = f"{len(absent):,} of {count:,} images are missing{because}"
            yield Finding("error", str(absent[0].parent), named, words)


def _all_in(caches: Sequence[ImageDigests], dataset: QADataset) -> bool:
    lacking = list(dataset.images.ids)
    for cache in caches:
        lacking = [name for name, row in zip(lacking, cache.find(lacking).tolist(), strict=True) if row < 0]
    return not lacking


def leaks(datasets: Sequence[QADataset], declared: str | None) -> Iterator[Finding]:
    """Images that two splits share, unless both are test splits.

    Args:
        declared: see `shares_images`.
    """
    for one, other in tested_pairs(datasets):
        shared = sorted(set(one.images.ids) & set(other.images.ids))
        if not shared:
            continue
        by_design = shares_images(one.format, declared)
        item = f"{one.split} and {other.split}"
        named = ", ".join(shared[:NAMED])
        level: Level = "note" if by_design else "warning"
        words, spoils = f"share {len(shared):,} images (the first: {named})", other.split
        if by_design:  # then the questions decide
            count = _shared_questions(one, other)
            spoils = other.split if count > TOLERATED * len(other) else ""
            words += f" and {count:,} of {len(other):,} questions" if count else ""
        yield Finding(level, one.name, item, words, spoils)


def _shared_questions(one: QADataset, other: QADataset) -> int:
    """How many questions of the other split are asked in the first about the same image in the same words."""

    def asked(dataset: QADataset) -> list[tuple[str, str]]:
        words = [" ".join(text.lower().split()) for text in dataset.question.distinct]
        rows = zip(dataset.image_row_N.tolist(), dataset.question.codes.tolist(), strict=True)
        return [(dataset.images.ids[image], words[question]) for image, question in rows]

    known = set(asked(one))
    return sum(question in known for question in asked(other))


def opened(datasets: Sequence[QADataset], declared: str | None) -> Iterator[Finding]:
    """Images that do not open, that come out one colour, and the same image under two names in two splits."""
    from vqa.data.images import name_first

    splits: dict[Path, str] = {}
    for dataset in datasets:
        gone = set(missing_images(dataset))
        splits |= {path: dataset.split for path in dataset.images.paths if path not in gone}
    blank: dict[str, list[Path]] = {dataset.split: [] for dataset in datasets}
    paths_of: dict[str, dict[str, list[Path]]] = {}  # by digest and split
    for path, looked in _open_all(list(splits)):
        if looked.fault:
            yield Finding("error", str(path), splits[path], f"does not open: {looked.fault}")
            continue
        if looked.one_colour:
            blank[splits[path]].append(path)
        paths_of.setdefault(looked.digest, {}).setdefault(splits[path], []).append(path)
    for split, paths in blank.items():
        if paths:
            words = f"{len(paths):,} images come out (almost) one colour; are they transparent, or not of 8 bits?"
            yield Finding("warning", str(paths[0].parent), f"{split}: {name_first(paths)}", words)
    yield from _copies(datasets, paths_of, declared)


def _copies(
    datasets: Sequence[QADataset], paths_of: Mapping[str, Mapping[str, list[Path]]], declared: str | None
) -> Iterator[Finding]:
    """The same image under two names in two splits."""
    for one, other in tested_pairs(datasets):
        both = [(at[one.split][0], at[other.split]) for at in paths_of.values() if {one.split, other.split} <= set(at)]
        twins = [(path, twin) for twin, paths in both for path in paths]
        if twins:
            shown = ", ".join(f"{path.name} is {twin.name}" for path, twin in twins[:NAMED])
            more = f" and {len(twins) - NAMED:,} more" if len(twins) > NAMED else ""
            words = f"{len(twins):,} images of {other.split} are copies of images of {one.split}: {shown}{more}"
            many = len(twins) > TOLERATED * len(other.images.ids) and not shares_images(one.format, declared)
            yield Finding(
                "warning", str(twins[0][0].parent), f"{one.split} and {other.split}", words, other.split if many else ""
            )


class _Look(NamedTuple):
    """What opening an image found: the digest of its file, why it does not decode, and whether it is one colour."""

    digest: str
    fault: str = ""
    one_colour: bool = False


def _open_all(paths: Sequence[Path]) -> Iterator[tuple[Path, _Look]]:
    """Every image, decoded as an extraction decodes it."""
    from vqa.data.images import ON_WHITE

    decoding = ON_WHITE.of_images(paths)
    with ThreadPoolExecutor() as pool, progress_bar() as bar:
        task = bar.add_task("opening images", total=len(paths), note="")
        for path, looked in zip(paths, pool.map(partial(_open, decoding=decoding), paths), strict=True):
            bar.advance(task)
            yield path, looked


def _open(path: Path, decoding: "Decoding") -> _Look:
    """Decode one image."""
    from vqa.data.images import content_of, decode, is_one_colour

    try:
        content = content_of(path)
        image = decode(content, path, decoding)
    except InputError as error:
        return _Look("", str(error).removeprefix(f"{path}: "))
    return _Look(hashlib.sha256(content).hexdigest(), "", is_one_colour(image))
