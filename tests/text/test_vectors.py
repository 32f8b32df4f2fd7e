"""Word vectors out of files written here by hand in each published layout."""

import gzip
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vqa.errors import InputError
from vqa.text.vectors import WordVectors, read_word_vectors

Vectors = Mapping[str, list[float]]
WORDS = ["the", "cat", "café", "absent", "paris", "at"]
VECTORS = {
    ",": [0.1, 0.2, 0.3],
    "the": [1.0, -0.5, 0.25],
    "Paris": [9.0, 9.0, 9.5],
    "cat": [2.0, 0.0, -3.5],
    "PARIS": [8.0, 8.0, 8.0],
    "Cat": [7.0, 7.0, 7.0],
    "café": [4.0, 4.5, 5.0],
}
FOUND = {"the": VECTORS["the"], "cat": VECTORS["cat"], "café": VECTORS["café"], "paris": VECTORS["Paris"]}


def glove(vectors: Vectors) -> bytes:
    return "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in vectors.items()).encode()


def fasttext(vectors: Vectors) -> bytes:
    """With the header, and the space that fastText leaves at the end of every line."""
    lines = [f"{word} {' '.join(map(str, row))} \n" for word, row in vectors.items()]
    return "".join([f"{len(vectors)} {len(next(iter(vectors.values())))}\n", *lines]).encode()


def word2vec(vectors: Vectors, end: bytes = b"\n") -> bytes:
    rows = [word.encode() + b" " + struct.pack(f"<{len(row)}f", *row) + end for word, row in vectors.items()]
    return b"".join([f"{len(vectors)} {len(next(iter(vectors.values())))}\n".encode(), *rows])


def as_dict(found: WordVectors, words: list[str]) -> dict[str, list[float]]:
    return {words[i]: row.tolist() for i, row in zip(found.index_N, found.vectors_ND, strict=True)}


def read(path: Path, content: bytes, words: list[str] = WORDS) -> dict[str, list[float]]:
    path.write_bytes(content)
    found = read_word_vectors(path, words)
    assert found.vectors_ND.dtype == np.float32 and found.vectors_ND.shape == (len(found.index_N), found.width)
    assert found.index_N.tolist() == sorted(found.index_N.tolist())
    return as_dict(found, words)


LAYOUTS: dict[str, Callable[[Vectors], bytes]] = {
    "glove": glove,
    "fasttext": fasttext,
    "windows": lambda vectors: fasttext(vectors).replace(b"\n", b"\r\n"),
    "word2vec": word2vec,
    "word2vec without line feeds": lambda vectors: word2vec(vectors, b""),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_layout_gives_the_vocabularys_words_alone(tmp_path: Path, layout: str, packed: bool) -> None:
    content = LAYOUTS[layout](VECTORS)
    assert read(tmp_path / "vectors", gzip.compress(content, mtime=0) if packed else content) == FOUND


def test_the_exact_word_comes_before_another_case_wherever_it_stands(tmp_path: Path) -> None:
    vectors = {"Cat": [1.0, 1.0], "cat": [2.0, 2.0], "CAFÉ": [3.0, 3.0]}
    assert read(tmp_path / "v", glove(vectors)) == {"cat": [2.0, 2.0], "café": [3.0, 3.0]}


def test_an_accent_in_two_letters_is_the_same_word(tmp_path: Path) -> None:
    assert read(tmp_path / "v", glove({"x": [0.0], "cafe\u0301": [3.0]})) == {"café": [3.0]}


def test_of_a_word_that_is_there_twice_the_first_counts(tmp_path: Path) -> None:
    content = glove({"the": [1.0, 2.0]}) + glove({"the": [3.0, 4.0]})
    assert read(tmp_path / "v", content) == {"the": [1.0, 2.0]}


def test_words_with_spaces_and_odd_white_space_shift_nothing(tmp_path: Path) -> None:
    """As in glove.840B.300d.txt: ". . .", "at name@domain.com", a no-break space, a next-line mark, no UTF-8 at all."""
    odd = [". . .", "at name@domain.com", "\u00a0", "a\u0085b", "\u2028", "the\u00a0cat"]
    content = glove({"the": [1.0, 2.0]} | {word: [5.0, 5.0] for word in odd}) + b"\xff\xfe 5.0 5.0\n"
    content += glove({"cat": [3.0, 4.0]})
    assert read(tmp_path / "v", content) == {"the": [1.0, 2.0], "cat": [3.0, 4.0]}


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path: Path, packed: bool) -> None:
    content = b"\xef\xbb\xbf" + GOOD
    assert read(tmp_path / "v", gzip.compress(content, mtime=0) if packed else content) == read(tmp_path / "w", GOOD)


def test_a_binary_vector_may_hold_spaces_and_line_feeds(tmp_path: Path) -> None:
    """The bytes 20 and 0a are part of these numbers."""
    odd = struct.unpack("<3f", b"\x20\x20\x20\x20\x0a\x0a\x0a\x0a\x20\x0a\x20\x3f")
    found = read(tmp_path / "v", word2vec({"x": list(odd), "the": list(odd), "cat": [1.0, 2.0, 3.0]}))
    assert found == {"the": list(odd), "cat": [1.0, 2.0, 3.0]}


GOOD = glove({"the": [1.0, 2.0], "cat": [3.0, 4.0]})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1 is neither"),
        (b"<!DOCTYPE html>\n<html>\n", "line 1 is neither a word with its numbers nor a header"),
        (b"PK\x03\x04 rest", "zip archive; unpack"),
        (b"\xba\x16O/\x0c\x00\x00\x00", r"fastText model.*\.vec"),
        (GOOD + b"dog 1.0\n", "line 3: 1 of 2 numbers"),
        (GOOD + b"dog\n" + GOOD, "line 3: 0 of 2 numbers"),
        (GOOD + b"dog 1.0 2.0 3.0\n", "line 3: 3 numbers, not 2"),
        (b"2 1\n" + GOOD, "line 2: 2 numbers, not 1"),
        (GOOD[:-6], "line 2: 1 of 2 numbers"),
        (GOOD.replace(b"3.0", b"3.x"), r"line 2: could not convert.*3\.x"),
        (GOOD.replace(b"3.0", b"nan"), "line 2: holds a number that is not finite"),
        (GOOD + b"x" * (1 << 21), "line 3: longer than any word vector"),
        (b"3 2\n" + GOOD, "holds 2 words, its header says 3"),
        (b"2 3\n" + GOOD, "is not there|numbers"),
        (b"0 300\n", "header says 0 words"),
        (b"2 2\n" + GOOD.replace(b"cat 3.0 4.0", b"cat 3.0"), "line 3: 1 of 2 numbers"),
        (word2vec(VECTORS)[:-5], "word 7 of 7 is not there"),
        (word2vec(VECTORS) + b"more", "holds more than the 7 words"),
        (word2vec({"the": [1.0, float("inf")]}), "word 1: holds a number that is not finite"),
        (gzip.compress(GOOD * 100, mtime=0)[:-20], "cannot be read"),
    ],
)
def test_a_damaged_file_is_named_with_the_place(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read(tmp_path / "vectors.txt", content)
    assert str(tmp_path / "vectors.txt") in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.vec: no such file"):
        read_word_vectors(tmp_path / "none.vec", WORDS)


@pytest.mark.parametrize("layout", ["glove", "word2vec"])
def test_memory_is_bounded_by_the_vocabulary(tmp_path: Path, layout: str) -> None:
    """A file of 24 MB and more, of which two words are wanted, is read in less than 6 MB."""
    random = np.random.default_rng(0)
    rows: NDArray[np.float64] = random.standard_normal((300, 100)).round(4)
    vectors = {f"w{i}": rows[i % 300].tolist() for i in range(60_000 if layout == "word2vec" else 36_000)}
    path = tmp_path / "vectors"
    path.write_bytes(LAYOUTS[layout](vectors))
    assert path.stat().st_size > 24_000_000
    del vectors
    tracemalloc.start()
    found = as_dict(read_word_vectors(path, ["w7", "w35999"]), ["w7", "w35999"])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 6_000_000
    np.testing.assert_array_equal(found["w35999"], rows[35_999 % 300].astype(np.float32))
