"""Why images are not found: what lies on the disk instead, and what to do about it.

The wanted paths are held against the files below the data set's folder, first by their name, then without the ending,
then by the number in it. What differs between a wanted path and the file that answers to it is the cause.
"""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from shlex import quote
from urllib.parse import unquote

from vqa.data.dataset import ImageTable

LOOKED_AT = 300  # missing images whose cause is looked up, from all over the list
MOST_FILES, MOST_LEVELS = 300_000, 6  # that are looked through below the data set's folder
MOST_BESIDE, LEVELS_BESIDE = 50_000, 2  # the same beside it
NAMED = 5  # missing images that a message names
IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"),
    *(".jp2", ".avif", ".heic"),
)
ARCHIVE_ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])")
_DRIVE = re.compile(r"[A-Za-z]:(?=[\\/])")
_COCO_2014 = re.compile(r"COCO_(?:train2014|val2014|test2014|test2015)_0*(\d+)", re.IGNORECASE)
_COCO_2017 = re.compile(r"(?:^|/)(?:train|val|test)2017/\d{12}\.jpg$")
_LAST_NUMBER = re.compile(r"(\d+)\s*$")

# What differs, in the order in which it is said: the cause, and what mends it.
CAUSES = {
    "web": (
        "they are web addresses, and nothing is loaded from the web",
        "download the images and write the paths of the files",
    ),
    "backslash": ("the paths have backslashes, as Windows writes them", "write / for each \\"),
    "escapes": ("the paths are written as in web addresses (%20 is a space)", "write the names as the files have them"),
    "coco": (
        "the images have the names of COCO's 2017 release",
        "put their folders, or links to them, into the data set's folder as train2017, val2017 and test2017, where "
        "they are found by these names",
    ),
    "spaces": ("there are spaces at the ends of names", "take them away"),
    "unicode": (
        "letters with accents are made of other characters (Unicode NFC and NFD), though they look the same",
        "write the names as the files have them, or rename the files: convmv -f utf8 -t utf8 --nfc -r --notest FOLDER",
    ),
    "capitals": ("capital and small letters differ", "write the names as the files have them, or rename the files"),
    "ending": ("the ending of the names differs", "write the names as the files have them, or rename the files"),
    "no ending": ("the names are written without their ending", "write the names with their ending"),
    "number": ("the names hold the same numbers, written otherwise", "write the names as the files have them"),
    "folder": ("files of these names lie in another folder", "if they are these images, write the paths as they are"),
    "archive": ("the images are still in an archive", "unpack it"),
    "nothing": ("there is no image file in the data set's folder", "put the images there"),
}


@dataclass(frozen=True)
class Explanation:
    """Why images are not found.

    Attributes:
        causes: keys of `CAUSES`, in their order.
        wanted: one path as it is written, from the data set's folder.
        there: the file that answers to it, from the same folder; "" where there is none.
        explained: of how many images that were looked at this is the cause.
        looked_at: how many that were.
        command: what mends it; "" where words do.
    """

    causes: tuple[str, ...]
    wanted: str
    there: str
    explained: int = 1
    looked_at: int = 1
    command: str = ""

    @property
    def found_otherwise(self) -> bool:
        """Whether the images are in the data set's folder, and only their names or places there differ."""
        return bool(self.there) and not self.there.startswith(os.pardir) and self.causes != ("archive",)

    def __str__(self) -> str:
        said = "; ".join(CAUSES[cause][0] for cause in self.causes)
        example = f": wanted {self.wanted}" + (f", there is {self.there}" if self.there else "")
        share = f" ({self.explained:,} of {self.looked_at:,} looked at)" if self.explained < self.looked_at else ""
        mends = dict.fromkeys(CAUSES[cause][1] for cause in self.causes)
        mend = "; ".join(mends) if not self.command else f"{'; '.join(mends)}, or link them: {self.command}"
        return f"{said}{example}{share}. To mend it: {mend}"


def missing_sentence(images: ImageTable, missing: Sequence[Path], root: Path | None = None) -> str:
    """How many images are missing, the first of them, and why, as every command says it.

    Args:
        images: all that are wanted.
        missing: those that are not there, at least one.
        root: the data set's folder, where it is known.
    """
    first = "\n".join(f"  {path}" for path in missing[:NAMED])
    said = f"{len(missing):,} of {len(images.ids):,} images are missing, first:\n{first}"
    why = explain_missing(images.paths, missing, root)
    return said if why is None else f"{said}\n{_capital(str(why))}"


def explain_missing(wanted: Sequence[Path], missing: Sequence[Path], root: Path | None = None) -> Explanation | None:
    """The commonest cause for which images are not found, or None where nothing says why.

    Args:
        wanted: all images of the data set; a file that is one of them explains no other.
        missing: those of them that are not there.
        root: the folder to look through, or a table in it; by default the nearest folder above the missing images.
    """
    root = _nearest_folder(missing) if root is None else root.parent if root.is_file() else root
    if not missing or root is None:
        return None
    gone = {os.path.normpath(path) for path in missing}
    files = _Files(root, _walk(root), taken={os.path.normpath(path) for path in wanted} - gone)
    step = max(1, len(missing) // LOOKED_AT)
    looked_at = list(islice(missing, 0, None, step))[:LOOKED_AT]
    found = [one for path in looked_at if (one := files.explain(path)) is not None]
    if not found:
        return _without_a_file(files, missing[0])
    (causes, count), *_ = Counter(one.causes for one in found).most_common(1)
    first = next(one for one in found if one.causes == causes)
    return replace(first, explained=count, looked_at=len(looked_at))


def _without_a_file(files: "_Files", first: Path) -> Explanation | None:
    if files.archives:
        return Explanation(("archive",), files.written(first), files.archives[0])
    return None if files.any_image else Explanation(("nothing",), files.written(first), "")


def release_note(images: ImageTable, format: str) -> str:
    """What is said where images are found by other names than a published set's files have; "" elsewhere."""
    paths = images.paths
    if format == "table" or not len(paths):
        return ""
    some = [paths[place] for place in {0, len(paths) // 2, len(paths) - 1}]
    found = sorted({str(path.parent) for path in some if _COCO_2017.search(path.as_posix())})
    return f"The images are found by the names of COCO's 2017 release, in {' and '.join(found)}" if found else ""


class _Files:
    """The files below a data set's folder, by what is left of their names when they are written otherwise."""

    def __init__(self, root: Path, paths: Iterable[str], taken: set[str]) -> None:
        self.root, self.archives, self.any_image = root, list[str](), False
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._by_number: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            name = Path(path).name
            stem, ending = _split_ending(name)
            shown = self._from_root(path)
            inside = not shown.startswith(os.pardir)
            if inside and name.lower().endswith(ARCHIVE_ENDINGS):
                self.archives.append(shown)
            if not ending and ("." in name or not inside):
                continue  # no image: a table, a text, an archive, whatever lies beside the data set
            self.any_image |= bool(ending) and inside
            if os.path.normpath(path) in taken:
                continue
            self._by_name[_folded(name)].append(path)
            self._by_stem[_folded(stem)].append(path)
            if inside and (number := _number(stem)) is not None:
                self._by_number[number].append(path)

    def _from_root(self, path: str | Path) -> str:
        return os.path.relpath(path, self.root)

    def written(self, path: Path) -> str:
        """A wanted path as the data set has it."""
        outside = path.is_absolute() and not path.is_relative_to(self.root)
        text = str(path) if outside else self._from_root(path)
        return _ADDRESS.sub(lambda found: f"{found[1]}://", text, count=1)

    def explain(self, path: Path) -> Explanation | None:
        """What a missing image is called on the disk, and what differs; None where no file answers to it."""
        written = self.written(path)
        meant, causes = _as_meant(written)
        there = self._answering(meant)
        if there is None:
            plain = tuple(cause for cause in causes if cause == "web")
            return Explanation(plain, written, "") if plain else None
        shown = self._from_root(there)
        causes |= _differences(meant, PurePosixPath(shown), folders="web" not in causes)
        ordered = tuple(cause for cause in CAUSES if cause in causes)
        return Explanation(ordered, written, shown, command=_link(path, Path(there), ordered)) if ordered else None

    def _answering(self, meant: PurePosixPath) -> str | None:
        stem, _ = _split_ending(meant.name)
        for found in (self._by_name.get(_folded(meant.name)), self._by_stem.get(_folded(stem))):
            if found:
                return _nearest(found, meant)
        found = self._by_number.get(_number(stem) or "", [])
        alike = [path for path in found if _is_bare(stem) or _is_bare(_split_ending(Path(path).name)[0])]
        return alike[0] if len(alike) == 1 else None


def _as_meant(written: str) -> tuple[PurePosixPath, set[str]]:
    """A wanted path without what no path on this machine has, and what that was."""
    causes = set()
    if address := _ADDRESS.match(written):
        causes.add("web")
        written = unquote(written[address.end() :].split("?")[0].split("#")[0])
    elif "\\" in written or _DRIVE.match(written):
        causes.add("backslash")
        written = _DRIVE.sub("", written).replace("\\", "/")
    elif unquote(written) != written:
        causes.add("escapes")
        written = unquote(written)
    return PurePosixPath(os.path.normpath(written)), causes


def _differences(meant: PurePosixPath, there: PurePosixPath, *, folders: bool) -> set[str]:
    """What differs between a path as it is meant and a file's."""
    causes = _of_names(meant.name, there.name)
    if folders and meant.parent != there.parent:
        pairs = list(zip(meant.parent.parts, there.parent.parts, strict=False))
        same_depth = len(meant.parent.parts) == len(there.parent.parts)
        if same_depth and all(_folded(one) == _folded(other) for one, other in pairs):
            for one, other in pairs:
                causes |= _of_texts(one, other)
        elif "coco" not in causes:
            causes.add("folder")
    return causes


def _of_names(meant: str, there: str) -> set[str]:
    (stem, ending), (stem_there, ending_there) = _split_ending(meant), _split_ending(there)
    coco = _COCO_2014.fullmatch(stem.strip())
    if coco and stem_there.isdigit() and int(coco[1]) == int(stem_there):
        return {"coco"}
    if _folded(stem) != _folded(stem_there):
        return {"number"} | ({"no ending"} if ending_there and not ending else set())
    causes = _of_texts(stem, stem_there)
    tail, tail_there = meant[len(stem) :], there[len(stem_there) :]
    if ending.lower() != ending_there.lower():
        return causes | {"ending" if ending else "no ending"}
    return causes | _of_texts(tail, tail_there)


def _of_texts(meant: str, there: str) -> set[str]:
    """What differs between two texts that are the same when folded."""
    causes = set()
    if meant.strip() != meant or there.strip() != there:
        causes.add("spaces")
    meant, there = meant.strip(), there.strip()
    composed, composed_there = unicodedata.normalize("NFC", meant), unicodedata.normalize("NFC", there)
    if meant != there and (composed == composed_there or composed.casefold() == composed_there.casefold()):
        if (composed, composed_there) != (meant, there):
            causes.add("unicode")
        if composed != composed_there:
            causes.add("capitals")
    return causes if causes or meant == there else {"capitals"}


def _folded(text: str) -> str:
    """What is left of a name however it is written.

    >>> _folded(" Café.PNG") == _folded("cafe\u0301.png")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text.strip()).casefold())


def _split_ending(name: str) -> tuple[str, str]:
    """A name without the ending of an image, and that ending: "a", ".JPG". Others are part of the name."""
    stem, dot, ending = name.rpartition(".")
    ending = f".{ending.rstrip()}"
    return (stem, ending) if dot and ending.lower() in IMAGE_ENDINGS else (name, "")


def _number(stem: str) -> str | None:
    """The number at the end of a name, without zeros before it."""
    found = _LAST_NUMBER.search(stem)
    return None if found is None else str(int(found[1][-30:]))


def _is_bare(stem: str) -> bool:
    """Whether a name is nothing but its number, or a number as COCO writes it."""
    return stem.strip().isdecimal() or _COCO_2014.fullmatch(stem.strip()) is not None


def _nearest(found: Sequence[str], meant: PurePosixPath) -> str:
    """Of several files the one that has most folders in common with the wanted path, counted from the name."""

    def in_common(path: str) -> int:
        count = 0
        for one, other in zip(reversed(meant.parent.parts), reversed(PurePosixPath(path).parent.parts), strict=False):
            if _folded(one) != _folded(other):
                break
            count += 1
        return count

    return max(found, key=in_common)


def _link(wanted: Path, there: Path, causes: Sequence[str]) -> str:
    """The command that links a folder to where it is looked for, where that is all there is to do."""
    if tuple(causes) != ("folder",) or os.path.lexists(wanted.parent) or not wanted.parent.parent.is_dir():
        return ""
    return f"ln -s {quote(str(there.parent.resolve()))} {quote(str(wanted.parent))}"


def _nearest_folder(missing: Sequence[Path]) -> Path | None:
    """The nearest folder above all missing images that is there, unless it is the top of the disk or of a home."""
    try:
        common = Path(os.path.commonpath([path.parent for path in missing]))
    except ValueError:  # none, or some absolute and some not
        return None
    while not common.is_dir():
        common = common.parent
    whole = common.resolve()
    return None if whole in (Path(whole.anchor), Path.home(), Path.home().parent) else common


def _walk(root: Path) -> Iterator[str]:
    """The files below a folder, and then those of the folder above it, none twice."""
    seen: set[tuple[int, int]] = set()
    yield from islice(_below(str(root), MOST_LEVELS, seen), MOST_FILES)
    above = root.resolve().parent
    if above not in (Path(above.anchor), Path.home().parent):
        yield from islice(_below(str(root / os.pardir), LEVELS_BESIDE, seen), MOST_BESIDE)


def _below(folder: str, levels: int, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Files level by level, in alphabetical order; hidden folders and those that cannot be read are passed over."""
    level = [folder]
    for _ in range(levels):
        below: list[str] = []
        for place in level:
            for entry in _entries(place, seen):
                if not _is_folder(entry):
                    yield entry.path
                elif not entry.name.startswith("."):
                    below.append(entry.path)
        level = below


def _entries(folder: str, seen: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    try:
        told = Path(folder).stat()
        if (told.st_dev, told.st_ino) in seen:
            return []
        seen.add((told.st_dev, told.st_ino))
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
