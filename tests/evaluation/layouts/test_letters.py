"""Letters that stand for choices in results files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.metric import qa_dataset

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.layouts.letters import choices_of_letters
from vqa.evaluation.layouts.match import match
from vqa.evaluation.layouts.read import read_file

CHOICES = [["blue", "red", "green"], ["yes", "no"]]


def dataset(choices: list[list[str]] = CHOICES) -> QADataset:
    made = qa_dataset([["red"], ["yes"]], ids=[1, 2])
    return replace(made, choices=Strings.of_rows(choices, max(map(len, choices))))


def chosen(*answers: str | None, choices: list[list[str]] = CHOICES) -> list[str] | None:
    found = choices_of_letters(dataset(choices), Strings.of(answers))
    return None if found is None else [found.distinct[code] if code >= 0 else "–" for code in found.codes]


@pytest.mark.parametrize("answers", [("B", "A"), ("b", "a"), ("(B)", "A."), (" B) ", "A:")])
def test_letters_are_choices(answers: tuple[str, str]) -> None:
    assert chosen(*answers) == ["red", "yes"]


def test_a_question_without_an_answer_stays_so() -> None:
    assert chosen("C", None) == ["green", "–"]


@pytest.mark.parametrize(
    "answers",
    [("B", "yes"), ("B", ""), ("B", "C"), ("D", "A"), ("B", "É"), ("BA", "A"), (None, None)],
    ids=["a word", "empty", "no third choice", "no fourth", "no letter of choices", "two letters", "nothing"],
)
def test_anything_else_is_left_as_it_is(answers: tuple[str | None, str | None]) -> None:
    assert chosen(*answers) is None


def test_letters_that_are_choices_themselves() -> None:
    assert chosen("A", "B", choices=[["B", "A"], ["yes", "no"]]) is None  # which one is meant?
    assert chosen("B", "B", choices=[["a", "b"], ["yes", "no"]]) == ["b", "no"]


def test_without_choices_a_letter_is_an_answer() -> None:
    assert choices_of_letters(qa_dataset([["b"]], ids=[1]), Strings.of(["b"])) is None


def test_files_of_letters_are_matched_and_their_targets_may_be_letters(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"

    def write(targets: tuple[str, str]) -> None:
        records = [{"doc_id": i, "target": targets[i], "filtered_resps": ["BA"[i]]} for i in range(2)]
        path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")

    write(("B", "A"))
    found = match(read_file(path), dataset())
    assert found.letters and [found.predictions.at(row) for row in range(2)] == ["red", "yes"]
    write(("A", "B"))  # of another order
    with pytest.raises(InputError, match=r"its target is 'A', but .* has 'red' there"):
        match(read_file(path), dataset())
