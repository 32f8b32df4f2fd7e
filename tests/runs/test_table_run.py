"""A run on a table whose columns and rows are named: it is trained, evaluated and written as the experiment said."""

import base64
import io
import json
from pathlib import Path

import pytest
import yaml
from helpers.training import experiment, write_cache
from PIL import Image

from vqa.data.check import CheckOptions
from vqa.data.check_report import run_check
from vqa.data.formats import image_table
from vqa.data.formats.table import TableOptions
from vqa.runs.evaluate import EvaluationOptions, evaluate_run
from vqa.training.train import train

OPTIONS = TableOptions.of({"image": "picture"}, {"q_lang": "en"})


def write_table(path: Path, split: str, first: int) -> None:
    rows = []
    for number in range(first, first + 8):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (30 * (number % 8), number, 0)).save(file, "PNG")
        picture = base64.b64encode(file.getvalue()).decode()
        for language, question in (("en", "what is it?"), ("zh", "这是什么?")):
            qid = f"{split}/{language}/{number}"
            answer = ("cat", "dog")[number % 2]
            rows.append({"qid": qid, "picture": picture, "question": question, "answer": answer, "q_lang": language})
    path.write_text(json.dumps({"data": rows}), encoding="utf-16")


def test_a_run_reads_its_table_as_it_was_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    root.mkdir()
    write_table(root / "train.JSON", "train", 0)
    write_table(root / "val.JSON", "val", 8)
    assert run_check(root, "table", CheckOptions(reading=OPTIONS))
    write_cache(tmp_path / "cache.h5", image_table(root, "table", ["train", "val"], OPTIONS))
    data = {"format": "table", "columns": {"image": "picture"}, "where": {"q_lang": "en"}}
    made = experiment(tmp_path, tmp_path / "runs", data=data, training={"epochs": 1})
    capsys.readouterr()
    train(made)
    said = capsys.readouterr().out
    assert said.count("columns: image is 'picture'; id is 'qid'") == said.count("read as UTF-16") == 1
    assert "8 of 8 training questions" in said
    recorded = yaml.safe_load((made.folder / "experiment.yaml").read_text(encoding="utf-8"))["data"]
    assert (recorded["columns"], recorded["where"]) == ({"image": "picture"}, {"q_lang": "en"})
    evaluate_run(made.folder, "val", EvaluationOptions(image_matters=False))
    results = json.loads((made.folder / "results_val_open_ended.json").read_text(encoding="utf-8"))
    assert [result["question_id"] for result in results] == [f"val/en/{number}" for number in range(8, 16)]
