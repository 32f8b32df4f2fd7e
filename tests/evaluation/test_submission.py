"""Submissions: what the server would refuse is refused here, and what is packed reads back."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from vqa.data.dataset import Strings
from vqa.data.formats.official import read_official
from vqa.errors import InputError
from vqa.evaluation.submission import check_submission, pack_submission

QUESTIONS = [
    {"question_id": 11, "image_id": 1, "question": "is it?", "multiple_choices": ["yes", "no", "maybe"]},
    {"question_id": 12, "image_id": 2, "question": "what?", "multiple_choices": ["cat", "dog", "Red, white"]},
]
NAME = "vqa_MultipleChoice_mscoco_test2015_mine_results.json"


def questions_file(folder: Path, task: str = "MultipleChoice") -> Path:
    questions = [dict(question) for question in QUESTIONS]
    if task == "OpenEnded":
        for question in questions:
            del question["multiple_choices"]
    path = folder / f"{task}_mscoco_test2015_questions.json"
    info = {"data_type": "mscoco", "data_subtype": "test2015", "task_type": task}
    path.write_text(json.dumps({**info, "questions": questions}))
    return path


def results_file(path: Path, *answers: Any) -> Path:
    path.write_text(json.dumps([{"question_id": q, "answer": a} for q, a in answers]))
    return path


def test_packed_file_has_its_official_name_and_passes_its_own_check(tmp_path: Path) -> None:
    dataset = read_official(questions_file(tmp_path))
    packed = pack_submission(tmp_path, dataset, "multiple-choice", Strings.of(["no", "Red, white"]), "a b/c_d")
    assert packed.name == "vqa_MultipleChoice_mscoco_test2015_a-b-c-d_results.zip"
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == ["vqa_MultipleChoice_mscoco_test2015_a-b-c-d_results.json"]
        given = json.loads(archive.read(archive.namelist()[0]))
    assert given == [{"question_id": 11, "answer": "no"}, {"question_id": 12, "answer": "Red, white"}]
    checked = check_submission(packed, questions_file(tmp_path))
    assert (checked.task, checked.split, checked.questions) == ("multiple-choice", "test2015", 2)
    assert checked.distinct_answers == 2 and checked.notes == ()
    assert check_submission(packed.with_suffix(".json"), questions_file(tmp_path)).notes == ()


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([(11, "yes")], r"1 question without an answer \(12\)"),
        ([(11, "yes"), (12, "cat"), (13, "cat")], r"1 question not in .* \(13\)"),
        ([(11, "yes"), (12, "cat"), (12, "dog")], r"answered twice or more \(12\)"),
        ([(11, "yes"), (12, "red, white")], "question 12: 'red, white' is none of: cat, dog, Red, white"),
        ([(11, " "), (12, "cat")], r"1 empty answers \(questions 11\)|question 11"),
        ([(11, 1), (12, "cat")], r"Expected `str`"),
    ],
)
def test_what_the_server_refuses(tmp_path: Path, answers: Any, message: str) -> None:
    file = results_file(tmp_path / NAME, *answers)
    with pytest.raises(InputError, match=message) as raised:
        check_submission(file, questions_file(tmp_path))
    assert str(file) in str(raised.value)


def test_faults_inside_a_zip_name_the_zip(tmp_path: Path) -> None:
    packed = tmp_path / "sent.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(results_file(tmp_path / NAME, (11, "yes")), NAME)
    with pytest.raises(InputError, match="without an answer") as raised:
        check_submission(packed, questions_file(tmp_path))
    assert str(raised.value).startswith(str(packed))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=r"one \.json file inside; it holds"):
        check_submission(packed, questions_file(tmp_path))


@pytest.mark.parametrize(
    "member",
    [
        "../../evil.json",
        "/evil.json",
        "folder/mine.json",
        "..\\evil.json",
        "C:\\evil.json",
        "./mine.json",
        "a/../b.json",
    ],
)
def test_a_file_that_is_not_at_the_top_of_its_zip_is_refused(tmp_path: Path, member: str) -> None:
    results = results_file(tmp_path / NAME, (11, "yes"), (12, "cat"))
    packed = tmp_path / "sent.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(member, results.read_text())
    with pytest.raises(InputError, match=r"lies in a folder; the server looks for .* at the top"):
        check_submission(packed, questions_file(tmp_path))
    assert not list(tmp_path.parent.glob("evil.json")) and not Path("/evil.json").exists()


def test_open_ended_answers_are_free_but_never_empty(tmp_path: Path) -> None:
    asked = questions_file(tmp_path, "OpenEnded")
    checked = check_submission(results_file(tmp_path / "mine.json", (12, "anything"), (11, "anything")), asked)
    assert checked.task == "open-ended"
    assert any("vqa_OpenEnded_mscoco_test2015_<method>_results.json" in note for note in checked.notes)
    assert "every question has the same answer" in checked.notes
    with pytest.raises(InputError, match=r"1 empty answers \(questions 11\)"):
        check_submission(results_file(tmp_path / "mine.json", (12, "anything"), (11, "\t")), asked)


def test_only_official_sets_can_be_sent(tmp_path: Path) -> None:
    from dataclasses import replace

    dataset = replace(read_official(questions_file(tmp_path)), data_type="")
    with pytest.raises(InputError, match="official VQA sets only"):
        pack_submission(tmp_path, dataset, "open-ended", Strings.of(["a", "b"]), "mine")
