"""What an ablation's runs are measured by: further metrics, a split without what was seen, evaluations by hand."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.training import interrupted_after, values, write_cache
from helpers.wordnet import write_wordnet
from PIL import Image

from vqa.data.formats import read_dataset
from vqa.errors import InputError
from vqa.evaluation.accuracy import AnswerKeys, accuracy
from vqa.evaluation.results import read_results
from vqa.evaluation.wups import open_wordnet, wups
from vqa.runs.evaluate import EvaluationOptions, evaluate_run
from vqa.studies.ablation import ablate
from vqa.studies.grid import open_ablation
from vqa.studies.summary import write_tables
from vqa.training.run_folder import RunFolder

ANSWERS = ("cat", "dog", "entity", "red")
TRAINED = 24  # images of the training split; the mixed one has eight of them


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """One answer a question, 40 images: the split "mixed" shares eight of its sixteen with the training split."""
    root = tmp_path / "data"
    root.mkdir()
    images, rows = np.arange(40), []
    splits = {"train": images[:TRAINED], "val": images[TRAINED:32], "mixed": np.r_[images[:8], images[32:]]}
    for split, chosen in splits.items():
        for number in chosen:
            pixels = np.full((16, 16, 3), 5 * number, np.uint8)
            Image.fromarray(pixels).save(root / f"{number}.png")
            rows += [(f"{number}.png", f"what is {word}?", ANSWERS[(number + len(word)) % 4], split) for word in "ab"]
    with (root / "questions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "question", "answer", "split"), *rows])
    write_wordnet(tmp_path / "wordnet")
    tables = [read_dataset("table", root, split).images for split in ("train", "val", "mixed")]
    ids = tuple(dict.fromkeys(name for one in tables for name in one.ids))
    write_cache(tmp_path / "cache.h5", type(tables[0])(ids, tuple(root / name for name in ids)))
    return tmp_path


def write_ablation(folder: Path, **changes: Any) -> Path:
    base = values(folder, folder / "runs", data={"format": "table"}, training={"epochs": 1})
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    content = {
        "name": "grid",
        "base": str(folder / "base.yaml"),
        "grid": {"fusion": ["question_only", "product"]},
        "baseline": "question_only",
    }
    path = folder / "ablation.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"allow_seen": True, "exclude_seen": True}, "take one"),
        ({"metrics": ["wups"]}, "wordnet: FOLDER"),
        ({"metrics": ["bleu"], "wordnet": "x"}, r"metrics\.0.*wups"),
        ({"wordnet": "x"}, r"metrics: \[wups\]"),
        ({"metrics": ["wups"], "wordnet": "nowhere"}, r"ablation\.yaml: wordnet: nowhere is not a WordNet corpus"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(table: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ablate(write_ablation(table, **changes))
    assert not (table / "runs" / "grid").exists()


def test_wups_stands_in_the_tables_as_the_results_files_give_it(table: Path) -> None:
    path = write_ablation(table, metrics=["wups"], wordnet=str(table / "wordnet"))
    ablate(path)
    folder, dataset = table / "runs" / "grid", read_dataset("table", table / "data", "val")
    similarity = open_wordnet(table / "wordnet").similarity
    cells = json.loads((folder / "ablation.json").read_text())["cells"]
    for label in ("question_only", "product"):
        results = read_results(RunFolder(folder / label / "0").results("val", "open-ended"), dataset, "open-ended")
        for threshold in (0.9, 0.0):
            wanted = 100 * float(wups(dataset, results, similarity, threshold).mean())
            assert cells[label][f"near answers, WUPS at {threshold}"]["mean"] == pytest.approx(wanted, abs=1e-9)
    assert "WUPS at 0.9" in (folder / "ablation.md").read_text()


def test_evaluating_by_hand_loses_nothing_that_the_ablation_measured(table: Path) -> None:
    path = write_ablation(table, metrics=["wups"], wordnet=str(table / "wordnet"), slices=["a=a"])
    ablate(path)
    before = (table / "runs/grid/ablation.json").read_bytes()
    evaluate_run(table / "runs/grid/product/0", "val", EvaluationOptions(task="open-ended", image_matters=False))
    evaluated = json.loads((table / "runs/grid/product/0/evaluation_val.json").read_text())
    assert not evaluated["near_answers"] and evaluated["task"] == "open-ended"
    found, _ = write_tables(open_ablation(path))
    assert not found.missing and (table / "runs/grid/ablation.json").read_bytes() == before
    with interrupted_after(0):  # nothing is trained again, nor evaluated
        ablate(path)
    again = json.loads((table / "runs/grid/product/0/evaluation_val.json").read_text())
    assert again == evaluated


def test_an_image_that_cannot_be_read_costs_the_page_its_questions_alone(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_ablation(table)
    ablate(path)
    page = table / "runs/grid/ablation.html"
    assert "<article" in page.read_text()
    for image in (table / "data").glob("*.png"):
        image.write_bytes(b"no image")
    ablate(path, table_only=True)
    said = " ".join(capsys.readouterr().out.split())
    assert "no questions on the page" in said and ".png" in said
    assert "<article" not in page.read_text() and "Learning curves" in page.read_text()


def test_what_was_seen_is_left_out_of_every_number(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = write_ablation(table, split="mixed")
    with pytest.raises(InputError, match="exclude_seen"):
        ablate(refused)
    ablate(write_ablation(table, split="mixed", exclude_seen=True))
    assert "16 of 32 questions were left out as seen in training" in " ".join(capsys.readouterr().out.split())
    folder = table / "runs" / "grid"
    written = json.loads((folder / "ablation.json").read_text())
    assert written["questions"] == 16 and written["statistics"]["left_out"] == ""
    assert "16 of 32 questions were left out" in (folder / "ablation.md").read_text()
    dataset = read_dataset("table", table / "data", "mixed").take(np.repeat(np.arange(16) >= 8, 2))
    results = folder / "product" / "0" / "results_mixed_open_ended_unseen.json"
    accuracy_N = accuracy(AnswerKeys.of(dataset, "2021"), read_results(results, dataset, "open-ended"))
    assert written["cells"]["product"]["open-ended"]["mean"] == pytest.approx(100 * accuracy_N.mean())
    assert written["statistics"]["cells"]["product"]["mean"] == pytest.approx(100 * accuracy_N.mean())
