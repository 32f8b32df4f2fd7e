"""Where the published files and images lie below the folder that the user gave.

Data files are looked for by name in the folder and two levels below it. Folders of images hold up to 123,287 files,
so no folder below the root is listed beyond its first 1,000 entries: a longer one holds images, not folders.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from vqa.errors import InputError


class MissingSplitError(InputError):
    """Nothing of a split is there: published files may be used in part, so a check calls this no fault."""


NO_FOLDER = "no such folder; `vqa data download` fetches published sets"
LEVELS = 2  # folders below the root that are looked into
LONGEST = 1000  # entries of a sub-folder that are looked at for further folders


def folders(root: Path) -> Iterator[Path]:
    """The root, then its sub-folders level by level to depth `LEVELS`, each level in alphabetical order."""
    level = [root]
    for depth in range(LEVELS + 1):
        yield from level
        if depth < LEVELS:
            level = [below for folder in level for below in _sub_folders(folder, None if folder == root else LONGEST)]


def _sub_folders(folder: Path, limit: int | None) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, limit) if entry.is_dir()]
    except PermissionError:
        return []  # someone else's folder beside the data: what it hides is reported as missing when needed
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}") from None
    return [folder / name for name in sorted(names) if not name.startswith(".")]


def check_root(root: Path) -> None:
    """Raises InputError unless `root` is a folder."""
    if not root.is_dir():
        raise InputError(f"{root}: {'not a folder' if root.exists() else NO_FOLDER}")


def find_file(root: Path, *names: str) -> Path | None:
    """The first of `names` that is a file in `root` or its sub-folders (nearest first), or None."""
    check_root(root)
    places = list(folders(root))
    return next((path for name in names for place in places if (path := place / name).is_file()), None)


def need_file(root: Path, what: str, *names: str, beside: Path | None = None) -> Path:
    """As `find_file`, but a missing file is an InputError that says what was looked for and where.

    Args:
        root: the folder to look in.
        what: begins the message, "vqa_v2 train2014".
        names: file names, the first found is taken.
        beside: another file of the split that is there; without one the error is a `MissingSplitError`.
    """
    found = find_file(root, *names)
    if found is None:
        message = not_found(root, what, *names, beside=beside)
        raise MissingSplitError(message) if beside is None else InputError(message)
    return found


def not_found(root: Path, what: str, *names: str, beside: Path | None = None) -> str:
    """What is said of a file that `find_file` did not find; the arguments are those of `need_file`."""
    looked_for = " or ".join(str(root / name) for name in names)
    message = f"{what}: found no {looked_for} (nor in its sub-folders, {LEVELS} levels deep)"
    return message if beside is None else f"{message}, though {beside} is there"


def image_folder(root: Path, usual: Sequence[str], names: Sequence[str]) -> Path:
    """The folder that holds the images `names` of one split.

    Three of the names are tried in folders called as one of `usual` ("train2014", wherever it lies: "Images/mscoco"),
    then in the root and its sub-folders. When none is there the answer is the first folder called as one of `usual`,
    else `root/usual[0]`: images are needed only when features are extracted.
    """
    tried = _tried(names)
    places = list(folders(root))
    likely = [place / name for name in usual for place in places]
    for folder in (*likely, *places):
        if any((folder / name).is_file() for name in tried):
            return folder
    return next((folder for folder in likely if folder.is_dir()), root / usual[0])


def _tried(names: Sequence[str]) -> list[str]:
    """The three of many names that stand for all."""
    return [names[place] for place in sorted({0, len(names) // 2, len(names) - 1})] if names else []


# COCO's releases hold the same images under the same numbers: those of 2014 and 2015, and the folders of 2017, the
# smallest first. A folder of 2017 has images of both splits of 2014.
RELEASES = {
    "train2014": ("val2017", "train2017"),
    "val2014": ("val2017", "train2017"),
    "test2015": ("test2017",),
}


def coco_2017(root: Path, split: str, numbers: Sequence[int], folder: Path, names: Sequence[str]) -> dict[int, str]:
    """Where COCO images lie that are there under the names of 2017 (`train2017/000000000009.jpg`), by their number.

    Args:
        root: the folder of the data set.
        split: of the images' official names.
        numbers: of the images.
        folder: where images of the official names would lie.
        names: those names.

    Returns:
        A path for each number; nothing where the official names are there, or no images of 2017.
    """
    if split not in RELEASES or any((folder / name).is_file() for name in _tried(names)):
        return {}
    called = [f"{number:012d}.jpg" for number in numbers]
    places, tried = list(folders(root)), _tried(called)
    held = [place / part for part in RELEASES[split] for place in places if (place / part).is_dir()]
    held = held or [place for place in places if any((place / name).is_file() for name in tried)]
    if not held:
        return {}
    *smaller, last = held
    found = dict.fromkeys(called, last)
    for place in smaller:
        found |= dict.fromkeys({path.name for path in place.iterdir()}.intersection(called), place)
    return {number: str(found[name] / name) for number, name in zip(numbers, called, strict=True)}
