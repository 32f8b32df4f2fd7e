"""What stands in a cell of a table: one text, or a list of them, the same whatever kind of file the table is.

A number is its digits as written, true and false are these words, blanks at the ends do not count, and an empty text is
no value. A list may be a list (JSON, parquet) or the text of one: as JSON, as Python or NumPy print it, or items with
"|" between them.
"""

import ast
import re
from typing import Any

import msgspec

from vqa.errors import quoted

Cell = Any  # None, str, bool, int, bytes, or lists and dicts of these

_LIST = msgspec.json.Decoder(list[Any], float_hook=str)
_OBJECT = msgspec.json.Decoder(dict[str, Any], float_hook=str)
_ARRAY = re.compile(r"array\((\[.*\])(?:,\s*dtype=[\w'<>]+)?\)", re.DOTALL)  # how NumPy's repr wraps a list
_ITEM = re.compile(
    r"""\s*(?P<comma>,)?\s*(?:(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<bare>[-+\w.]+))""", re.DOTALL
)
_BARE = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|True|False|None|nan", re.IGNORECASE)
_ANSWERS = ('["', "['", "[{", "[]")  # how a list of answers begins, where one that merely begins with [ is a text
_LETTER = re.compile("[A-Ra-r]")
_NUMBER = re.compile("[0-9]{1,2}")
HOW = 'a list is written a|b|c or ["a", "b"]'


def text_in(cell: Cell) -> str | None:
    """The text of a cell, None where it has nothing in it; raises ValueError for a list and the like."""
    if isinstance(cell, str):  # nearly always
        return cell.strip() or None
    if cell is None:
        return None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int | float):
        return str(cell)
    raise ValueError(f"holds {_kind(cell)} where one text is expected: {quoted(cell)}")


def list_in(cell: Cell) -> list[str] | None:
    """The items of a cell, None where it has nothing in it; an item with nothing in it is "".

    Raises:
        ValueError: it begins as a list and is none.
    """
    if isinstance(cell, str):
        text = cell.strip()
        if not text:
            return None
        if named := _object_in(text):
            return _items(_by_place(named))
        return _items(_parsed(text)) if _begins_list(text) else [item.strip() for item in text.split("|")]
    if isinstance(cell, dict):
        return _items(_by_place(cell))
    if isinstance(cell, list):
        return _items(cell)
    one = text_in(cell)
    return None if one is None else [one]


def answer_in(cell: Cell) -> str | list[str] | None:
    """The one answer of a cell; a list of them where the cell, or its text, is a list of texts."""
    if isinstance(cell, list):
        return _items(cell)
    if isinstance(cell, str) and (text := cell.strip()).startswith(_ANSWERS) and text.endswith("]"):
        try:
            return _items(_parsed(text))
        except ValueError:
            return text
    return text_in(cell)


def plain(cell: Cell) -> str:
    """Any cell as one text, "" where it has nothing in it: what rows are chosen and groups are made by."""
    if isinstance(cell, list | dict):
        return msgspec.json.encode(cell, order="sorted").decode()
    return ("" if isinstance(cell, bytes) else text_in(cell)) or ""


def _by_place(named: dict[str, Cell]) -> list[Cell]:
    """Choices that are named by letters, with a gap where one is left out, or by numbers, in the order of these.

    Other names have the order that they are written in.
    """
    if all(map(_LETTER.fullmatch, named)):
        by_letter = {name.upper(): cell for name, cell in named.items()}
        last = ord(max(by_letter, default="A"))
        return [by_letter.get(chr(letter)) for letter in range(ord("A"), last + 1)]
    if all(map(_NUMBER.fullmatch, named)):
        return [named[name] for name in sorted(named, key=int)]
    return list(named.values())


def _object_in(text: str) -> dict[str, Cell]:
    """A text that is an object as JSON or Python prints it; {} for any other."""
    if not (text.startswith("{") and text.endswith("}")):
        return {}
    for read in (_OBJECT.decode, ast.literal_eval):
        try:
            found = read(text)
        except (msgspec.MsgspecError, ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, dict):
            return {str(name): cell for name, cell in found.items()}
    return {}


def _begins_list(text: str) -> bool:
    return text.startswith("[") or _ARRAY.fullmatch(text) is not None


def _items(cells: list[Cell]) -> list[str]:
    """Each item's text; of a record with an answer in it, as VQA's files have them, the answer."""
    return [cell.strip() if isinstance(cell, str) else text_in(_answer_of(cell)) or "" for cell in cells]


def _answer_of(cell: Cell) -> Cell:
    return cell["answer"] if isinstance(cell, dict) and "answer" in cell else cell


def _parsed(text: str) -> list[Cell]:
    array = _ARRAY.fullmatch(text)
    text = text if array is None else array[1]
    try:
        return _LIST.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        pass
    try:
        return _python_records(text) if "{" in text else _python_list(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"no list can be read from {quoted(text)}; {HOW}") from None


def _python_records(text: str) -> list[Cell]:
    """A list of dicts as Python prints it."""
    found = ast.literal_eval(text)
    if not isinstance(found, list):
        raise ValueError
    return found


def _python_list(text: str) -> list[Cell]:
    """A flat list as Python or NumPy prints it, with commas or blanks between the items."""
    if not text.endswith("]"):
        raise ValueError
    inner, place, items = text[1:-1].rstrip().removesuffix(",").rstrip(), 0, list[Cell]()
    while place < len(inner):
        found = _ITEM.match(inner, place)
        if found is None or (found["comma"] and not items):
            raise ValueError
        if found["quoted"]:
            items.append(ast.literal_eval(found["quoted"]))
        elif _BARE.fullmatch(found["bare"]):
            items.append(None if found["bare"] in ("None", "nan") else found["bare"])
        else:
            raise ValueError
        place = found.end()
    return items


def _kind(cell: Cell) -> str:
    named = {"list": "a list", "dict": "an object"}
    return named.get(type(cell).__name__, type(cell).__name__)
