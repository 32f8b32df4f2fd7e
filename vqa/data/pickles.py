"""Pickles that hold plain values only: texts, numbers, lists and dicts. Some files are published in no other form."""

import io
import pickle
import pickletools
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

from vqa.errors import InputError, first_line, shortened
from vqa.files import read_bytes

FLAT = frozenset({  # what a dict of texts and whole numbers needs; without tuples and lists nothing can be nested
    "PROTO", "FRAME", "STOP", "MARK", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "NONE",
    "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET",
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
})  # fmt: skip
LISTS = FLAT | {"EMPTY_LIST", "LIST", "APPEND", "APPENDS", "NEWTRUE", "NEWFALSE", "FLOAT", "BINFLOAT"}


class PlainPickle(pickle.Unpickler):
    """Every pickle that would call or import anything is refused.

    Plain values need neither `find_class` nor `persistent_load`, which are pickle's only ways to code: with both
    refused, a file can at most be wrong.
    """

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"asks for {module}.{name}")

    def persistent_load(self, reference: Any) -> NoReturn:
        raise pickle.UnpicklingError("asks for an object outside")


def read_plain_pickle(path: Path, allowed: Collection[str] = LISTS) -> Any:
    """The value of a pickle of these operations; raises InputError that names the file for any other."""
    content = read_bytes(path)
    try:
        for operation, value, _ in pickletools.genops(content):
            large = isinstance(value, int) and operation.name.endswith("PUT") and value > len(content)
            if operation.name not in allowed or large:  # a place that is too large would be reserved in memory
                raise pickle.UnpicklingError(f"asks for {operation.name} {str(value)[:80]}")
        return PlainPickle(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle makes it raise almost anything
        raise InputError(
            f"{path}: not a plain pickled dict or list, so it is not read: {shortened(first_line(error))}"
        ) from None
