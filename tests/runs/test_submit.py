"""`vqa submit`: a trained run's answers to the hidden test split, ready to send."""

import json
import zipfile
from pathlib import Path

import pytest
from helpers.evaluate import make_run

from vqa.data.formats import read_dataset
from vqa.errors import InputError
from vqa.runs.submit import submit, submit_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("submit"))


def test_both_tasks_are_packed_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = read_dataset("vqa_v2", run.parents[2] / "data", "test")
    assert test.answers is None and test.choices is not None
    packed = submit_run(run)
    assert [path.name for path in packed] == [
        "vqa_OpenEnded_mscoco_test2015_tiny-seed0_results.zip",
        "vqa_MultipleChoice_mscoco_test2015_tiny-seed0_results.zip",
    ]
    for path in packed:
        with zipfile.ZipFile(path) as archive:
            given = json.loads(archive.read(path.with_suffix(".json").name))
        assert [one["question_id"] for one in given] == test.question_id_N.tolist()
    for row, one in enumerate(given):
        assert one["answer"] in test.choices.row(row)
    questions = next((run.parents[2] / "data").glob("*MultipleChoice*test*questions.json"))
    submit(None, check=packed[1], questions=questions)
    assert "fit to send: multiple-choice" in " ".join(capsys.readouterr().out.split())


def test_training_split_is_not_packed(run: Path) -> None:
    with pytest.raises(InputError, match="was trained on"):
        submit_run(run, "train")


def test_what_is_missing_is_asked_for(run: Path) -> None:
    with pytest.raises(InputError, match="give a run folder, or --check"):
        submit(None)
    with pytest.raises(InputError, match="needs --questions"):
        submit(None, check=run / "seen.npz")
