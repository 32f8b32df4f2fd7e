"""What the fields of others' results files are called, and what a value in them says.

Read in: the official VQA results, GQA's and VizWiz's submission forms, LLaVA's answer files, lmms-eval's samples
(`doc_id`, `target`, `filtered_resps`) and VLMEvalKit's tables (`index`, `question`, `prediction`, `answer`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vqa.errors import InputError, near_names, quoted, shortened

IDS = ("question_id", "questionid", "qid", "id", "index", "doc_id")
PLACES = ("index", "doc_id")  # may count the questions of the split from 0 in place of naming their ids
IMAGES = ("image", "image_name", "img_name", "image_path", "file_name", "image_id", "img_id")
QUESTIONS = ("question",)
TARGETS = ("target",)
ANSWERABLE = ("answerable",)
# A file that has one of the first and `answer` too holds the true answer in `answer`, as VLMEvalKit's do.
GIVEN = (
    "filtered_resps", "prediction", "pred", "pred_answer", "predicted_answer", "predicted", "model_answer",
    "generated_answer", "model_prediction", "response", "model_response", "generated_text", "output", "model_output",
    "resps", "direct_answer",
)  # fmt: skip
ANSWERS = (*GIVEN, "answer", "text")
WRAPPERS = ("results", "predictions", "answers", "data", "logs", "annotations")


def plain(field: str) -> str:
    """A field's name without capitals, blanks and hyphens."""
    return "_".join(field.strip().lower().replace("-", " ").split())


def choose(fields: Sequence[str], known: Sequence[str]) -> str | None:
    """The first of `known` that a record has, by the name it has there."""
    by_plain = {plain(field): field for field in reversed(fields)}
    return next((by_plain[name] for name in known if name in by_plain), None)


def answer_field(fields: Sequence[str], where: str) -> str:
    """The field of a record that holds the model's answer; raises InputError that lists what is there and known."""
    found = choose(fields, ANSWERS)
    if found is not None:
        return found
    near = [name for field in fields for name in near_names(plain(field), ("answer", "prediction"))]
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise InputError(
        f"{where}: no field holds the model's answer{hint}; it has {', '.join(map(shortened, fields)) or 'no field'}; "
        f"known are {', '.join(ANSWERS)}"
    )


def answer_text(value: Any, where: str) -> str:
    """An answer as text: a number as it is written, a list of one thing as that thing, nothing as "".

    Raises:
        InputError: several answers, or an object.
    """
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or value == []:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict):
        return answer_text(value[answer_field(list(value), where)], where)
    raise InputError(f"{where}: {quoted(value)} are several answers; a question takes one")


def id_text(value: Any, where: str) -> str:
    """A question's id as text: "7", 7 and 7.0 are the same id.

    Raises:
        InputError: it is neither a number nor text.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{where}: {quoted(value)} is no question's id: a number or text")
    return str(value).strip()


def file_kind(path: Path) -> str:
    """The ending of a file in small letters: ".jsonl"."""
    return path.suffix.lower()
