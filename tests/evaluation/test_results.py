"""Results files: the official checks, each with a message that names the file and the item."""

import json
import tempfile
from pathlib import Path

import pytest
from helpers.metric import qa_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa.data.dataset import Strings
from vqa.errors import InputError
from vqa.evaluation.results import TASKS, Task, official_name, read_results, write_results

DATASET = qa_dataset([["yes"] * 10] * 3, ids=[30, 10, 20], choices=[["yes", "no"], ["red", "blue", "yes"], ["1", "2"]])
GOOD = [{"question_id": 10, "answer": "red"}, {"question_id": 20, "answer": "2"}, {"question_id": 30, "answer": "no"}]


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def texts(column: Strings) -> list[str]:
    return [column.at(row) for row in range(len(column.codes))]


def test_rows_come_back_in_the_order_of_the_data_set(tmp_path: Path) -> None:
    path = write(tmp_path / "results.json", GOOD)
    assert texts(read_results(path, DATASET)) == ["no", "red", "2"]
    assert texts(read_results(path, DATASET, "multiple-choice")) == ["no", "red", "2"]


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    answers = ['a "quoted" one', "naïve 中文", ""]
    write_results(path, DATASET, Strings.of(answers))
    assert texts(read_results(path, DATASET)) == answers
    assert json.loads(path.read_text())[0] == {"question_id": 30, "answer": answers[0]}


def test_extra_fields_are_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "results.json", [result | {"confidence": 0.5} for result in GOOD])
    assert texts(read_results(path, DATASET)) == ["no", "red", "2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"results": GOOD}, r"results\.json.*a results file is a list"),
        ([{"question_id": "10", "answer": "red"}], r"results\.json.*\$\[0\]\.question_id.*question_id\": integer"),
        ([{"question_id": 10, "answer": 2}], r"results\.json.*\$\[0\]\.answer"),
        ([{"question_id": 10}], r"results\.json.*`answer`"),
        ('[{"question_id": 10, "ans', r"results\.json: not valid JSON"),
        (GOOD[:2], r"results\.json.*1 question without an answer \(30\)"),
        ([*GOOD, {"question_id": 7, "answer": "x"}], r"1 question not in made val2014 \(7\)"),
        ([*GOOD, GOOD[0]], r"1 question answered twice or more \(10\)"),
        ([{"question_id": 2**70, "answer": "x"}], r"results\.json"),
        ([], r"3 questions without an answer \(10, 20, 30\)"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_results(write(tmp_path / "results.json", content), DATASET)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 6), st.binary(max_size=4)), min_size=1, max_size=3),
    st.sampled_from(TASKS),
)
def test_damaged_files_are_read_rightly_or_named(changes: list[tuple[int, int, bytes]], task: Task) -> None:
    content = json.dumps(GOOD).encode()
    for place, length, inserted in changes:
        content = content[:place] + inserted + content[place + length :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        path.write_bytes(content)
        try:
            answers = texts(read_results(path, DATASET, task))
        except InputError as error:
            assert "results.json" in str(error)
        else:
            answer_of = {result["question_id"]: result["answer"] for result in json.loads(content)}
            assert answers == [answer_of[30], answer_of[10], answer_of[20]]


def test_missing_file_and_unknown_task(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        read_results(tmp_path / "none.json", DATASET)
    with pytest.raises(InputError, match="did you mean 'multiple-choice'"):
        read_results(tmp_path / "none.json", DATASET, "multiple choice")  # type: ignore[arg-type]


def test_multiple_choice_answers_must_be_choices(tmp_path: Path) -> None:
    wrong = [GOOD[0] | {"answer": "Red"}, *GOOD[1:]]
    path = write(tmp_path / "results.json", wrong)
    with pytest.raises(InputError, match=r"1 of 3 answers.*question 10: 'Red' is none of: red, blue, yes"):
        read_results(path, DATASET, "multiple-choice")
    assert texts(read_results(path, DATASET)) == ["no", "Red", "2"]
    with pytest.raises(InputError, match="has no choices"):
        read_results(path, qa_dataset([["yes"]] * 3, ids=[10, 20, 30]), "multiple-choice")


def test_an_unanswered_question_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every one of 3 questions needs an answer"):
        write_results(tmp_path / "results.json", DATASET, Strings.of(["yes", None, "no"]))
    assert not list(tmp_path.iterdir())


def test_official_file_name() -> None:
    assert official_name("multiple-choice", DATASET, "san") == "vqa_MultipleChoice_mscoco_val2014_san_results.json"
