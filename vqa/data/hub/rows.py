"""From one row of a published table to one row of ours: columns by the names that published sets use.

Choices are read from text that holds a list, answers from a choice's place or letter; nothing is guessed silently:
`Columns.words` says what was recognised and what was left aside.
"""

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vqa.data.formats.columns import MOST_ANSWERS
from vqa.errors import InputError, quoted

Row = dict[str, Any]
KNOWN: dict[str, tuple[str, ...]] = {  # ours: theirs, the first that a table has
    "image": ("image", "img"),
    "image_key": ("imageId", "img_name", "image_name", "file_name"),
    "question": ("question", "query"),
    "answers": ("answers", "direct_answers", "answer", "label", "multiple_choice_answer"),
    "id": ("question_id", "questionId", "qid", "id"),
    "choices": ("choices", "options", "multiple_choices"),
    "correct": ("correct_choice_idx",),
    "question_type": ("question_type", "content_type", "category", "types", "type", "human_or_machine"),
    "answer_type": ("answer_type",),
    "language": ("q_lang", "language"),
}
LETTERS = "ABCDEFGH"


@dataclass(frozen=True)
class Columns:
    """Which of a table's columns is which of ours."""

    of: dict[str, str]
    letters: tuple[str, ...]
    others: tuple[str, ...]

    @classmethod
    def recognise(cls, names: Sequence[str]) -> "Columns":
        """By the names of a table's columns."""
        found = {ours: next((one for one in theirs if one in names), "") for ours, theirs in KNOWN.items()}
        found = {ours: theirs for ours, theirs in found.items() if theirs}
        letters = tuple(letter for letter in LETTERS if letter in names)
        letters = letters if len(letters) > 1 and "choices" not in found else ()
        if "image" in found:
            found.pop("image_key", None)
        used = {*found.values(), *letters}
        return cls(found, letters, tuple(name for name in names if name not in used))

    @property
    def words(self) -> str:
        """What was recognised, for the terminal."""
        said = [ours if ours == theirs else f"{ours} ({theirs})" for ours, theirs in self.of.items()]
        said += [f"choices ({', '.join(self.letters)})"] if self.letters else []
        left = f"; left aside: {', '.join(self.others)}" if self.others else ""
        return f"columns: {', '.join(said)}{left}"

    @property
    def read(self) -> list[str]:
        """Their names of the columns that are read."""
        return [*self.of.values(), *self.letters]


def image_bytes(cell: Any) -> tuple[bytes, str] | None:
    """The bytes of an image in a cell, and the name of its file; None where the cell holds none."""
    if isinstance(cell, list) and len(cell) == 1:
        cell = cell[0]
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        return cell["bytes"], str(cell.get("path") or "")
    return (cell, "") if isinstance(cell, bytes) else None


def our_row(row: Row, columns: Columns, image: str, where: str) -> Row:
    """One row of our table.

    Args:
        row: the row as published.
        columns: of the table.
        image: the path of its image.
        where: begins the message of an error.

    Returns:
        The row; without `answers` where it has none.

    Raises:
        InputError: the row has no question, or a list that cannot be read.
    """
    given = {ours: row.get(theirs) for ours, theirs in columns.of.items()}
    question = given.get("question")
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{where} has no question")
    made: Row = {"image": image, "question": question.strip()}
    choices = [row[letter] for letter in columns.letters] if columns.letters else given.get("choices")
    choices = [str(one) for one in _list(choices, where) if one is not None and str(one).strip()]
    answers = _answers(given.get("answers"), choices, columns, where)
    correct = given.get("correct")
    if not answers and isinstance(correct, int) and 0 <= correct < len(choices):
        answers = [choices[correct]]
    if answers:
        made["answers"] = answers[:MOST_ANSWERS]
    if choices:
        made["choices"] = choices
    made |= _id(given.get("id"))
    for name in ("question_type", "answer_type", "language"):
        value = given.get(name)
        value = value.get("structural") if isinstance(value, dict) else value
        if isinstance(value, (str, int)) and str(value).strip():
            made[name] = str(value).strip()
    return made


def _answers(cell: Any, choices: list[str], columns: Columns, where: str) -> list[str]:
    values = [one.get("answer") if isinstance(one, dict) else one for one in _list(cell, where)]
    texts = ["yes" if one is True else "no" if one is False else str(one).strip() for one in values if one is not None]
    texts = [text for text in texts if text]
    if choices and len(texts) == 1 and columns.of.get("answers") in ("answer", "label"):
        return [_choice(texts[0], choices)]
    return texts


def _choice(answer: str, choices: list[str]) -> str:
    """The choice that a letter or a place names; an answer in words stays."""
    if answer in choices:
        return answer
    if len(answer) == 1 and answer in LETTERS[: len(choices)]:
        return choices[LETTERS.index(answer)]
    return choices[int(answer)] if answer.isdecimal() and int(answer) < len(choices) else answer


def _list(cell: Any, where: str) -> list[Any]:
    """A list, whatever it is written as: text that holds a JSON or Python list is one."""
    if cell is None:
        return []
    if isinstance(cell, str) and cell.lstrip().startswith("[") and cell.rstrip().endswith("]"):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(cell)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(value, list):
                return value
        raise InputError(f"{where}: {quoted(cell)} is no list")
    return cell if isinstance(cell, list) else [cell]


def _id(value: Any) -> Row:
    """Whole numbers are ids of a table; texts, leading zeros among them, stand in a column of their own."""
    if value is None or isinstance(value, (dict, list, float, bool)) or not str(value).strip():
        return {}
    text = str(value).strip()
    if text.isascii() and text.isdecimal() and len(text) <= 18 and (text == "0" or text[0] != "0"):
        return {"id": int(text)}
    return {"question_id": text}
