"""The readers, one file a format; each turns published files into a `QADataset`.

A new reader is one file with `SPLITS`, `ABOUT` and `read(root, split)`, and one line in `FORMATS`; or a class of your
own with `splits`, `about` and `read(root, split)`, named as `mypackage.mine:Mine` (`vqa.parts`).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vqa.data.dataset import ImageTable, QADataset
from vqa.data.formats import (
    abstract,
    binary,
    changing_priors,
    clevr,
    coco_qa,
    daquar,
    easy_vqa,
    gqa,
    listed,
    ok_vqa,
    rsvqa,
    table,
    tdiuc,
    vizwiz,
    vqa_cp,
    vqa_v1,
    vqa_v2,
)
from vqa.data.formats.listings import LISTINGS
from vqa.data.formats.table import PLAIN, TableOptions
from vqa.errors import InputError, unknown_name
from vqa.parts import find_part


class Format(NamedTuple):
    """One published format.

    Attributes:
        read: `read(root, split)` with the split's official name.
        splits: short name to official name ("val" to "val2014"); empty where the user names the splits.
        about: one line for listings.
    """

    read: Callable[[Path, str], QADataset]
    splits: Mapping[str, str]
    about: str


FORMATS: dict[str, Format] = {
    "vqa_v1": Format(vqa_v1.read, vqa_v1.SPLITS, vqa_v1.ABOUT),
    "vqa_v2": Format(vqa_v2.read, vqa_v2.SPLITS, vqa_v2.ABOUT),
    "abstract": Format(abstract.read, abstract.SPLITS, abstract.ABOUT),
    "binary_abstract": Format(binary.read, binary.SPLITS, binary.ABOUT),
    "vqa_cp_v1": Format(vqa_cp.read_v1, vqa_cp.SPLITS, vqa_cp.ABOUT_V1),
    "vqa_cp_v2": Format(vqa_cp.read_v2, vqa_cp.SPLITS, vqa_cp.ABOUT_V2),
    "changing_priors_v1": Format(changing_priors.read_v1, changing_priors.SPLITS, changing_priors.ABOUT_V1),
    "changing_priors_v2": Format(changing_priors.read_v2, changing_priors.SPLITS, changing_priors.ABOUT_V2),
    "daquar": Format(daquar.read, daquar.SPLITS, daquar.ABOUT),
    "daquar_single": Format(daquar.read_single, daquar.SPLITS, daquar.ABOUT_SINGLE),
    "daquar_reduced": Format(daquar.read_reduced, daquar.SPLITS, daquar.ABOUT_REDUCED),
    "daquar_reduced_single": Format(daquar.read_reduced_single, daquar.SPLITS, daquar.ABOUT_REDUCED_SINGLE),
    "coco_qa": Format(coco_qa.read, coco_qa.SPLITS, coco_qa.ABOUT),
    "easy_vqa": Format(easy_vqa.read, easy_vqa.SPLITS, easy_vqa.ABOUT),
    "ok_vqa": Format(ok_vqa.read, ok_vqa.SPLITS, ok_vqa.ABOUT),
    "tdiuc": Format(tdiuc.read, tdiuc.SPLITS, tdiuc.ABOUT),
    "gqa": Format(gqa.read, gqa.SPLITS, gqa.ABOUT),
    "gqa_all": Format(gqa.read_all, gqa.SPLITS, gqa.ABOUT_ALL),
    "gqa_submission": Format(gqa.read_submission, gqa.SUBMISSION, gqa.ABOUT_SUBMISSION),
    "vizwiz": Format(vizwiz.read, vizwiz.SPLITS, vizwiz.ABOUT),
    "clevr": Format(clevr.read, clevr.SPLITS, clevr.ABOUT),
    "clevr_humans": Format(clevr.read_humans, clevr.HUMANS, clevr.ABOUT_HUMANS),
    "rsvqa_lr": Format(rsvqa.read_lr, rsvqa.SPLITS_LR, rsvqa.ABOUT_LR),
    "rsvqa_hr": Format(rsvqa.read_hr, rsvqa.SPLITS_HR, rsvqa.ABOUT_HR),
    **{name: Format(listed.reader(name, one), one.splits, one.about) for name, one in LISTINGS.items()},
    "table": Format(table.read, {}, table.ABOUT),
}


def find_format(name: str) -> Format:
    """The format of that name: of the table, or from outside the package.

    Raises:
        InputError: no such format; or what a name from outside stands for cannot be imported or is no format.
    """
    return as_format(name, find_part("data format", FORMATS, name))


def as_format(name: str, reader: Any) -> Format:
    """What stands for a format as one: itself, or a class or object with `read`, `splits` and `about`.

    Raises:
        InputError: it is no format.
    """
    if isinstance(reader, Format):
        return reader
    made = reader() if isinstance(reader, type) else reader
    read, splits = getattr(made, "read", None), getattr(made, "splits", None)
    if not callable(read) or not isinstance(splits, Mapping):
        raise InputError(
            f"data format {name!r} must be a class with `read(root, split)`, `splits` (short name to official name) "
            f"and `about`, or a vqa.data.formats.Format; it is {reader!r:.80}"
        )
    return Format(read, splits, str(getattr(made, "about", "")))


def official_split(format: str, split: str) -> str:
    """The official name of a split given by its short or official name; raises InputError for unknown names.

    >>> official_split("vqa_v2", "val")
    'val2014'
    """
    splits = find_format(format).splits
    if split in splits.values() or not splits:
        return split
    if split not in splits:
        raise InputError(unknown_name(f"split of {format}", split, [*splits, *splits.values()]))
    return splits[split]


def read_dataset(format: str, root: Path, split: str, options: TableOptions = PLAIN) -> QADataset:
    """Read one split of a data set.

    Args:
        format: a name in `FORMATS`, or one from outside (`vqa.parts`).
        root: the folder that the published files were unpacked into (`table`: or the file).
        split: its short or official name ("val" or "val2014").
        options: which columns of a table are what, and which of its rows are read.

    Raises:
        InputError: for an unknown name, for options of another format, and for missing, damaged or contradictory files,
            naming the file and item.
    """
    official = official_split(format, split)
    if options:
        require_table(format)
        return table.read(Path(root), official, options)
    return find_format(format).read(Path(root), official)


def require_table(format: str) -> None:
    """Raise InputError where columns are named, or rows chosen, of another format than a table."""
    if format != "table":
        raise InputError(f"columns and where are for the format table; {format} is read as published")


def image_table(root: Path, format: str, splits: Sequence[str], options: TableOptions = PLAIN) -> ImageTable:
    """The images of several splits, each once, in the order in which the splits name them."""
    paths: dict[str, Path] = {}
    for split in splits:
        images = read_dataset(format, root, split, options).images
        paths |= dict(zip(images.ids, images.paths, strict=True))
    return ImageTable(tuple(paths), tuple(paths.values()))
