"""`vqa data check`, `plan` and `download`, `vqa submit --check`: exit status, tables and JSON."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import vqa.cli
from vqa.data.synthetic import generate_dataset
from vqa.planning.plan import plan
from vqa.planning.plan_report import plan_tables

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    generate_dataset(folder, 60, 0, "real", 64)
    return folder


@pytest.fixture
def vqa_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["vqa", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            vqa.cli.main()
            raise SystemExit(0)
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out + err

    return call


def test_check_ends_in_a_table_and_a_status(generated: Path, vqa_main: Run, tmp_path: Path) -> None:
    status, said = vqa_main("data", "check", generated, "--format", "vqa_v2", "--json", tmp_path / "c.json")
    assert status == 0 and "fit to train on" in said
    assert json.loads((tmp_path / "c.json").read_text())["failed"] is False
    for path in generated.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    annotations = tmp_path / "v2_mscoco_val2014_annotations.json"
    annotations.write_bytes(annotations.read_bytes()[:900])
    status, said = vqa_main("data", "check", tmp_path, "--format", "vqa_v2")
    assert status == 1 and "do not train on this" in said
    status, said = vqa_main("data", "check", tmp_path / "nowhere", "--format", "vqa_v2")
    assert status == 2 and "nowhere" in said and "Traceback" not in said


def test_plan_prints_what_it_writes(generated: Path, vqa_main: Run, tmp_path: Path) -> None:
    status, said = vqa_main(
        "data", "plan", generated, "--format", "vqa_v2", "--plot", tmp_path / "p.svg", "--json", tmp_path / "p.json"
    )
    assert status == 0 and "Answer vocabulary" in said and "Question length" in said
    assert b"<svg" in (tmp_path / "p.svg").read_bytes()
    written = json.loads((tmp_path / "p.json").read_text())
    found = plan(generated, "vqa_v2")
    assert written["vocabulary"][0]["ceiling"] == found.vocabulary[0].ceiling
    vocabulary, lengths, caches = plan_tables(found)
    assert [row.values[1] for row in vocabulary.rows] == [row.ceiling for row in found.vocabulary]
    assert lengths.rows[0].values[-1] == max(found.question_length.values())
    assert caches.rows[0].values[2] == pytest.approx(found.images * 4096 * 2 / 1e9)


def test_an_unknown_download_is_told_what_there_is(vqa_main: Run, tmp_path: Path) -> None:
    status, said = vqa_main("data", "download", "vqa_v3", tmp_path)
    assert status == 2 and "did you mean 'vqa_v" in said and "daquar" in said


def test_submit_checks_a_file_made_elsewhere(generated: Path, vqa_main: Run, tmp_path: Path) -> None:
    questions = generated / "v2_OpenEnded_mscoco_test2015_questions.json"
    ids = [one["question_id"] for one in json.loads(questions.read_text())["questions"]]
    file = tmp_path / "mine.json"
    file.write_text(json.dumps([{"question_id": question, "answer": "yes"} for question in ids]))
    status, said = vqa_main("submit", "--check", file, "--questions", questions)
    assert status == 0 and f"{len(ids)} questions each answered once" in said
    file.write_text(json.dumps([{"question_id": question, "answer": "yes"} for question in ids[1:]]))
    status, said = vqa_main("submit", "--check", file, "--questions", questions)
    assert status == 2 and str(ids[0]) in said
