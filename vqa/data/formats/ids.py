"""Question ids of published files as the int64 of a `QADataset`, whatever they are there.

Legend: `N` questions.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import Strings
from vqa.data.formats.columns import unique_ids
from vqa.data.formats.decode import fits_id
from vqa.errors import InputError, quoted


def numbered(ids: Sequence[int | str | None], path: Path) -> NDArray[np.int64]:
    """Ids as numbers, int64 `[N]`: whole numbers, or texts of digits, stay; other texts, and none, count from 0.

    >>> numbered([5, 7], Path("x")).tolist(), numbered(["a", "b"], Path("x")).tolist()
    ([5, 7], [0, 1])

    Raises:
        InputError: there is no question, an id comes twice, or some questions have no id while others do.
    """
    given = [one for one in ids if one is not None]
    if not given:
        return unique_ids(range(len(ids)), path, "question")
    if len(given) < len(ids):
        row = next(place for place, one in enumerate(ids) if one is None)
        raise InputError(f"{path}: question {row} (counted from 0) has no id, but others have")
    if all(type(one) is int and one >= 0 for one in given):
        return unique_ids(given, path, "question")  # type: ignore[arg-type]  # as the line before says
    digits = [str(one) for one in given]
    if all(fits_id(text) for text in digits):
        return unique_ids([int(text) for text in digits], path, "question")
    first: dict[str, int] = {}
    for row, text in enumerate(digits):
        if first.setdefault(text, row) != row:
            raise InputError(f"{path}: question id {quoted(text)} stands in rows {first[text]} and {row} (from 0)")
    return np.arange(len(ids), dtype=np.int64)


def names_of(ids: Sequence[int | str | None]) -> Strings | None:
    """The ids as the file writes them, where that is not the number of `numbered`: texts, or leading zeros; else None.

    >>> names_of(["a", "b"]).distinct, names_of(["07", "8"]).distinct, names_of(["7", "8"])
    (('a', 'b'), ('07', '8'), None)
    """
    texts = [str(one) for one in ids]
    if None in ids or all(fits_id(text) and (text == "0" or text[0] != "0") for text in texts):
        return None
    return Strings.of(texts)
