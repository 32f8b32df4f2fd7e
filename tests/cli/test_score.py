"""`vqa score` as it is typed: several files and metrics, other layouts out, and options that do not go together."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.formats import write, write_text

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def vqa_main(vqa_main: Run) -> Run:
    """The same, with everything printed as one line."""

    def call(*arguments: object) -> tuple[int, str]:
        status, said = vqa_main(*arguments)
        return status, " ".join(said.split())

    return call


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_text(tmp_path / "mine/val.csv", "image,question,answer\na.png,is it?,yes\nb.png,who?,me\n")
    write_text(tmp_path / "mine/train.csv", "image,question,answer\nc.png,is it?,no\nd.png,is he?,no\n")
    write(tmp_path / "a.json", {"0": "yes", "1": "you"})
    write_text(tmp_path / "b.tsv", "index\tquestion\tprediction\n0\tis it?\tno\n1\twho?\tme\n")
    return tmp_path


def test_files_of_two_layouts_against_a_folder(files: Path, vqa_main: Run) -> None:
    status, printed = vqa_main(
        "score", files / "a.json", files / "b.tsv", "--data", files / "mine", "--format", "table",
        "--metric", "exact", "--metric", "anls", "--json", files / "out.json",
    )  # fmt: skip
    assert status == 0 and "Exact match, ANLS" in printed and "Against a.json" in printed
    assert "most popular answer or choice" in printed  # learned from mine/train.csv
    found = json.loads((files / "out.json").read_text())["results"]
    assert {name: one["overall"] for name, one in found.items()} == {"a.json": 50.0, "b.tsv": 50.0}
    assert found["a.json"]["floors"]["most popular answer or choice"] == 0.0


def test_a_part_is_stamped_and_written_anew(files: Path, vqa_main: Run) -> None:
    write(files / "a.json", {"1": "me"})
    typed = ["score", files / "a.json", "--questions", files / "mine/val.csv"]
    status, printed = vqa_main(*typed)
    assert status == 2 and "1 question of 2 without an answer (0); --part scores what is there" in printed
    out = files / "out.jsonl"
    status, printed = vqa_main(*typed, "--part", "--write", f"lmms-eval={out}")
    assert status == 0 and "only 50.0% of the questions" in printed
    assert json.loads(out.read_text()) == {"doc_id": 1, "target": "['me']", "filtered_resps": ["me"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say what the results answer"),
        (["--data", "mine"], "by --data and --format, both of them, or by --questions and --annotations"),
        (["--annotations", "a.json"], "--annotations needs the question file, too"),
        (["--questions", "mine/val.csv", "--train-annotations", "mine/train.csv"], "--train-annotations needs"),
        (["--questions", "mine/val.csv", "--metric", "anl"], "unknown metric 'anl' (did you mean 'anls'?)"),
        (["--questions", "mine/val.csv", "--write", "gqa"], "give LAYOUT=FILE"),
        (["--questions", "mine/val.csv", "--metric", "wups"], "WUPS needs WordNet: --wordnet FOLDER"),
    ],
)
def test_what_does_not_go_together_is_said(
    files: Path, vqa_main: Run, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(files)
    status, printed = vqa_main("score", "a.json", *options)
    assert status == 2 and message in printed
