"""Ready-made word vectors out of GloVe, fastText and word2vec files, for the words of a vocabulary alone.

Three layouts, told apart by content: GloVe text (a word and its numbers a line), the same below a header "words width"
(fastText .vec, word2vec text), and word2vec binary (that header, then for each word its bytes, a space and
little-endian float32). Any of them may be gzipped. A file is read once, front to back, in bounded memory.

Sources: the released GloVe and word2vec programs, whose files these are.

Legend: `N` words found, `D` width of a vector.
"""

import codecs
import gzip
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqa.errors import InputError
from vqa.progress import progress_bar

LONGEST = 1 << 20  # bytes of a line, or of a word in a binary file; more is not a word vector
CHUNK = 1 << 20
SHOW_EVERY = 4096  # words between two moves of the bar
_HEADER = re.compile(rb"^(\d+)[ \t](\d+)\s*$")
_FOREIGN = {
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\xba\x16O/": "a fastText model, which holds more than word vectors; give the .vec file of the same name",
}


@dataclass(frozen=True)
class WordVectors:
    """Vectors of some of the words that were asked for.

    Attributes:
        width: numbers a vector.
        index_N: int64, places in the list of words that was asked for, ascending.
        vectors_ND: float32.
    """

    width: int
    index_N: NDArray[np.int64]
    vectors_ND: NDArray[np.float32]


class _Layout(NamedTuple):
    """What the beginning of a file says: `words` is None where there is no header."""

    binary: bool
    words: int | None
    width: int


def read_word_vectors(path: Path, words: Sequence[str]) -> WordVectors:
    """Read the vectors of `words`.

    A word is looked for as it is; where the file does not have it so, the first of the file's words that is the same
    in lower case is taken ("Paris" for "paris"). Of words that are there twice the first counts.

    Raises:
        InputError: the file is missing, of another kind, truncated or damaged; names the line (or the word's number in
            a binary file).
    """
    wanted = {word: place for place, word in enumerate(words)}
    exact: dict[int, NDArray[np.float32]] = {}
    folded: dict[int, NDArray[np.float32]] = {}
    try:
        layout = _look(path)
        with path.open("rb") as raw, _unpacked(raw) as file, progress_bar() as bar:
            total = -(-path.stat().st_size >> 20)
            task = bar.add_task(f"word vectors of {path.name}", total=total, note="MiB")
            entries = _binary_entries(path, file, layout) if layout.binary else _text_entries(path, file, layout)
            for number, (name, content) in enumerate(entries):
                if number % SHOW_EVERY == 0:
                    bar.update(task, completed=raw.tell() >> 20)
                word = _decoded(name)
                same_case = word in wanted
                place = wanted.get(word if same_case else word.lower(), -1)
                found = exact if same_case else folded
                if place >= 0 and place not in found:
                    found[place] = _numbers(path, content, layout, number)
            bar.update(task, completed=total)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read (truncated or damaged?): {error}") from None
    best = folded | exact
    index_N = np.array(sorted(best), dtype=np.int64)
    vectors_ND = np.array([best[place] for place in index_N.tolist()], dtype=np.float32)
    return WordVectors(layout.width, index_N, vectors_ND.reshape(len(index_N), layout.width))


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    """The file as it is, or unzipped on the way, behind its byte order mark if it has one."""
    packed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    file: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    return file


def _look(path: Path) -> _Layout:
    """The layout of a file, from its first lines."""
    with path.open("rb") as raw, _unpacked(raw) as file:
        first, second = file.readline(LONGEST), file.read(LONGEST)
    for magic, kind in _FOREIGN.items():
        if first.startswith(magic):
            raise InputError(f"{path}: is {kind}")
    header = _HEADER.match(first)
    if header is None:
        width = len(first.rstrip().split(b" ")) - 1
        if not _is_text(first, width):
            raise InputError(f"{path}: line 1 is neither a word with its numbers nor a header: {first[:40]!r}")
        return _Layout(False, None, width)
    count, width = int(header[1]), int(header[2])
    if not count or not width:
        raise InputError(f"{path}: its header says {count} words of {width} numbers")
    return _Layout(not _is_text(second.split(b"\n")[0], width), count, width)


def _is_text(line: bytes, width: int) -> bool:
    """Whether a line is a word and `width` numbers."""
    fields = line.rstrip().split(b" ")
    if width < 1 or len(fields) <= width:
        return False
    try:
        return all(map(_is_number, fields[-width:]))
    except ValueError:
        return False


def _is_number(field: bytes) -> bool:
    float(field)
    return True


def _text_entries(path: Path, file: IO[bytes], layout: _Layout) -> Iterator[tuple[bytes, bytes]]:
    """Each word of a text file, and its numbers as they stand there.

    Words may hold spaces (". . ." in GloVe's 840B): a word is all that stands before the last `width` fields. Lines end
    at line feeds and fields at spaces alone: words hold every other white space that Unicode has.
    """
    header = 0 if layout.words is None else 1
    if header:
        file.readline(LONGEST)
    lines = 0
    for line in iter(lambda: file.readline(LONGEST), b""):
        lines += 1
        spaces = (line := line.rstrip(b" \r\n")).count(b" ")
        if spaces < layout.width or len(line) >= LONGEST:
            said = "longer than any word vector" if len(line) >= LONGEST else f"{spaces} of {layout.width} numbers"
            raise InputError(f"{path}: line {lines + header}: {said} (truncated or damaged?)")
        if spaces > layout.width:
            word, *numbers = line.rsplit(b" ", layout.width)
            if _is_text(word, word.count(b" ")):  # "cat 0.1": a number too many, not a word with a space in it
                raise InputError(f"{path}: line {lines + header}: {spaces} numbers, not {layout.width} (damaged?)")
            yield word, b" ".join(numbers)
        else:
            word, _, rest = line.partition(b" ")
            yield word, rest
    if layout.words is not None and lines != layout.words:
        raise InputError(f"{path}: holds {lines:,} words, its header says {layout.words:,} (truncated?)")


def _binary_entries(path: Path, file: IO[bytes], layout: _Layout) -> Iterator[tuple[bytes, bytes]]:
    """Each word of a binary file, and the bytes of its vector."""
    file.readline(LONGEST)
    size, buffer, at = 4 * layout.width, b"", 0
    for number in range(1, (layout.words or 0) + 1):
        while (space := buffer.find(b" ", at)) < 0 or len(buffer) < space + 1 + size:
            more = file.read(CHUNK)
            if not more or (space < 0 and len(buffer) - at > LONGEST):
                raise InputError(f"{path}: word {number:,} of {layout.words:,} is not there (truncated or damaged?)")
            buffer, at = buffer[at:] + more, 0
        yield buffer[at:space].lstrip(b"\n"), buffer[space + 1 : space + 1 + size]
        at = space + 1 + size
    if (buffer[at:] + file.read(CHUNK)).strip(b"\n"):
        raise InputError(f"{path}: holds more than the {layout.words:,} words of its header (damaged?)")


def _decoded(name: bytes) -> str:
    """A word as text; one that is not UTF-8 is no word of any vocabulary."""
    if name.isascii():
        return name.decode("ascii")
    try:
        return unicodedata.normalize("NFC", name.decode("utf-8"))
    except UnicodeDecodeError:
        return ""


def _numbers(path: Path, content: bytes, layout: _Layout, number: int) -> NDArray[np.float32]:
    """One vector out of its text or bytes; `number` counts entries from 0."""
    if layout.binary:
        vector_D, place = np.frombuffer(content, dtype="<f4").astype(np.float32), f"word {number + 1:,}"
    else:
        place = f"line {number + (1 if layout.words is None else 2):,}"
        try:
            vector_D = np.array([float(field) for field in content.split(b" ")], dtype=np.float32)
        except ValueError as error:
            raise InputError(f"{path}: {place}: {error}") from None
    if not np.isfinite(vector_D).all():
        raise InputError(f"{path}: {place}: holds a number that is not finite")
    return vector_D
