"""Which image of a data set a row of features is: by the longest path from the end that only one image has.

Feature files keep folders of their own in front of the images' names, or leave out those of the data set, and change
the ending. "feats/xmlab1/source.npy" is "imgs/xmlab1/source.jpg" where no other image ends so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from vqa.errors import InputError
from vqa.features.cache.imports.source import image_id

Parts = tuple[str, ...]


def parts_of(name: str) -> Parts:
    """A path's folders and, last, the id by the file's name alone.

    >>> parts_of("xmlab1/source.jpg"), parts_of("train2014/COCO_train2014_000000000009.jpg")
    (('xmlab1', 'source'), ('train2014', '9'))
    """
    path = PurePosixPath(name.replace("\\", "/"))
    return (*(part for part in path.parts[:-1] if part not in ("/", ".")), image_id(path.name))


def named(given: Sequence[str], names: Sequence[str], path: Path) -> tuple[list[str | None], int]:
    """The data set's name of each row of features, None where it has no such image; and how many of it were found.

    Args:
        given: the names in the files, paths or ids.
        names: the data set's image ids.
        path: begins messages.

    Raises:
        InputError: two of the data set's images have one name there.
    """
    images = _by_ending(names, path)
    alone = Counter(parts_of(one)[-1] for one in given)
    found: list[tuple[str, int] | None] = [_find(parts_of(one), images, alone, path) for one in given]
    longest: dict[str, int] = {}
    for match in found:
        if match is not None:
            longest[match[0]] = max(match[1], longest.get(match[0], 0))
    kept = [match[0] if match and match[1] == longest[match[0]] else None for match in found]
    return kept, len(longest)


def _by_ending(names: Sequence[str], path: Path) -> dict[Parts, list[str]]:
    """The images by every end of their paths; two or three of each are kept."""
    whole: dict[Parts, str] = {}
    ends: dict[Parts, list[str]] = {}
    for name in dict.fromkeys(names):
        parts = parts_of(name)
        if whole.setdefault(parts, name) != name:
            raise InputError(_one_name(whole[parts], name, path))
        for length in range(1, len(parts) + 1):
            having = ends.setdefault(parts[-length:], [])
            if length == len(parts):
                having.insert(0, name)  # the one that is nothing but this end
            elif len(having) < 2:
                having.append(name)
    return ends


def _find(
    parts: Parts, images: Mapping[Parts, list[str]], alone: Mapping[str, int], path: Path
) -> tuple[str, int] | None:
    """The image that one row is, and the length of what they share."""
    for length in range(len(parts), 0, -1):
        having = images.get(parts[-length:])
        if having is None:
            continue
        if length == len(parts) and parts_of(having[0]) == parts:
            return having[0], length
        if len(having) > 1:
            if length == len(parts):
                raise InputError(_one_name(having[0], having[1], path))
            return None  # its folder is none of theirs
        whole = length in (len(parts), len(parts_of(having[0])))
        return (having[0], length) if whole or length > 1 or alone[parts[-1]] == 1 else None
    return None


def _one_name(first: str, second: str, path: Path) -> str:
    return f"images {first} and {second} of the data set have one name in {path}"
