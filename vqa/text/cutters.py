"""How questions are cut into words, by name (`words.tokenizer`).

`unicode` is what every published recipe means. Languages without spaces are cut into characters by it; `jieba` cuts
Chinese into words, `hf:NAME` into the pieces of a tokenizer of the hub (its `tokenizer.json`), `module:function` (a
string in, a list of strings out) into whatever a library of another language gives.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vqa.errors import InputError, first_line, needs_extra, unknown_name
from vqa.files import atomic_write, read_bytes
from vqa.parts import entry_names, find_part, is_code
from vqa.text.tokenize import HAN, tokenize, tokenize_latin

HUB = "hf:"
FILE = "tokenizer.json"
KIND = "word tokenizer"

Cut = Callable[[str], list[str]]

_HAN = re.compile(f"([{HAN}]+)")


@dataclass(frozen=True)
class Cutter:
    """What cuts questions into words.

    Attributes:
        name: of `CUTTERS`, "hf:NAME_OR_PATH", or of a part from outside the package.
        cut: a question in, its words out; any string gives a list, possibly an empty one.
        content: of the file that a tokenizer of the hub is read from, which a run keeps.
    """

    name: str
    cut: Cut = field(compare=False, repr=False)
    content: bytes | None = field(default=None, compare=False, repr=False)

    def save(self, path: Path) -> None:
        """Write the file that the cutter is read from, where it has one."""
        if self.content is not None:
            with atomic_write(path, "wb") as file:
                file.write(self.content)


UNICODE = Cutter("unicode", tokenize)


def is_own_cutter(name: str) -> bool:
    """Whether a name is of vqa's own, not of a part from outside."""
    return name in CUTTERS or name.startswith(HUB)


def require_cutter(name: str) -> None:
    """Raise InputError, with the right choices, where there is no cutter of that name; imports nothing."""
    if not (is_own_cutter(name) or is_code(name) or name in entry_names(KIND)):
        raise InputError(unknown_name(KIND, name, [*CUTTERS, *entry_names(KIND), "hf:NAME_OR_PATH"]))


def word_cutter(name: str, file: Path | None = None) -> Cutter:
    """The cutter of that name.

    Args:
        file: where a run keeps the file of a tokenizer of the hub.

    Raises:
        InputError: there is none of that name, with the right choices; its library is not installed; or its file
            cannot be had.
    """
    if name.startswith(HUB):
        content = _hub_file(name) if file is None else read_bytes(file)
        return Cutter(name, _pieces(name, content), content)
    make: Any = find_part(KIND, CUTTERS, name)
    return Cutter(name, make() if name in CUTTERS else partial(_words_from_outside, name, make))


def _jieba() -> Cut:
    with needs_extra("chinese", "Chinese words"):
        import rjieba

    def cut(question: str) -> list[str]:
        parts = _HAN.split(unicodedata.normalize("NFC", question))  # every second one is Han
        cut_as = (tokenize, rjieba.cut)
        return [word for place, part in enumerate(parts) for word in cut_as[place % 2](part)]

    return cut


def _pieces(name: str, content: bytes) -> Cut:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"words.tokenizer {name!r}: its {FILE} is damaged: {first_line(error)}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def cut(question: str) -> list[str]:
        return list(tokenizer.encode(question, add_special_tokens=False).tokens)

    return cut


def _hub_file(name: str) -> bytes:
    """`tokenizer.json` of a folder, or of the hub's cache, or of the hub."""
    source = name.removeprefix(HUB)
    if (folder := Path(source).expanduser()).is_dir():
        return read_bytes(folder / FILE)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return read_bytes(Path(hf_hub_download(source, FILE)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"words.tokenizer {name!r}: its {FILE} cannot be had: {first_line(error)}; a folder with that file can "
            "stand in its place, as hf:PATH"
        ) from None


def _words_from_outside(name: str, cut: Callable[[str], object], question: str) -> list[str]:
    words = cut(question)
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise InputError(
            f"words.tokenizer {name!r}: must give a list of words; of {question!r:.60} it gave {words!r:.60}"
        )
    return [word for word in words if word.strip()]


CUTTERS: dict[str, Callable[[], Cut]] = {
    "unicode": lambda: tokenize,
    "latin": lambda: tokenize_latin,  # of the runs of version 0.1.0
    "jieba": _jieba,
}
