"""What writes miniature data sets: any file, and the official questions and annotations."""

import json
from pathlib import Path
from typing import Any

TYPES = ("yes/no", "number", "other")


def questions(ids: list[int], data_type: str, subtype: str, choices: bool = False) -> dict[str, Any]:
    """A questions file as published; question 12 is about image 12 // 10, so two ids may share an image."""
    rows: list[dict[str, Any]] = [
        {"question_id": i, "image_id": i // 10, "question": f"What is number {i % 4}?"} for i in ids
    ]
    file: dict[str, Any] = {
        "info": {"year": 2015, "version": "1.0", "description": "miniature"},
        "task_type": "Multiple Choice" if choices else "Open-Ended",
        "data_type": data_type,
        "data_subtype": subtype,
        "license": {"url": "", "name": ""},
        "questions": rows,
    }
    if choices:
        file["num_choices"] = 18
        for row in rows:
            row["multiple_choices"] = [f"answer {row['question_id'] % 5}", *(f"choice {k}" for k in range(17))]
    return file


def annotations(ids: list[int], data_type: str, subtype: str) -> dict[str, Any]:
    """An annotations file as published: eight people agree, two do not."""
    return {
        "info": {"year": 2015},
        "data_type": data_type,
        "data_subtype": subtype,
        "license": {"url": "", "name": ""},
        "annotations": [
            {
                "question_id": i,
                "image_id": i // 10,
                "question_type": "what is",
                "answer_type": TYPES[i % 3],
                "multiple_choice_answer": f"answer {i % 5}",
                "answers": [
                    {"answer_id": k + 1, "answer": f"answer {(i + k // 8) % 5}", "answer_confidence": "yes"}
                    for k in range(10)
                ],
            }
            for i in ids
        ],
    }


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_official(
    root: Path, ids: list[int], split: str, data_type: str = "mscoco", prefix: str = "", choices: bool = True
) -> None:
    """The question files and, unless `split` is a test split, the annotations in another order."""
    middle = f"{data_type}_{split}"
    write(root / f"{prefix}OpenEnded_{middle}_questions.json", questions(ids, data_type, split))
    if choices:
        file = questions(ids[::-1], data_type, split, choices=True)
        write(root / f"{prefix}MultipleChoice_{middle}_questions.json", file)
    if not split.startswith("test"):
        write(root / f"{prefix}{middle}_annotations.json", annotations(sorted(ids), data_type, split))


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
