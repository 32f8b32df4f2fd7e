"""Data of one's own, from the table to the evaluation: spellings that are one answer, and splits that share images."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training import values, write_cache
from PIL import Image

from vqa.data.formats import image_table
from vqa.errors import InputError
from vqa.experiment import Experiment, check_experiment
from vqa.runs.evaluate import EvaluationOptions, evaluate_run
from vqa.runs.load import load_run
from vqa.training.inputs.prepare import prepare
from vqa.training.run_folder import RunFolder, read_metrics
from vqa.training.train import train

HEADER = "image,question,answer\n"
PLAIN = {
    "question_encoder": {"name": "bow", "embedding_dim": 8},
    "fusion": {"name": "question_only"},
    "training": {"epochs": 2, "batch_size": 4, "optimizer": {"learning_rate": 0.05}},
}
Captured = pytest.CaptureFixture[str]


def own(folder: Path, train_rows: str, val_rows: str, **changes: Any) -> Experiment:
    """An experiment over a table and made-up features of its images."""
    root = folder / "data"
    root.mkdir(exist_ok=True)
    (root / "train.csv").write_text(HEADER + train_rows)
    (root / "val.csv").write_text(HEADER + val_rows)
    if not (folder / "cache.h5").exists():
        for path in image_table(root, "table", ["train", "val"]).paths:
            Image.new("RGB", (8, 8)).save(path)
        write_cache(folder / "cache.h5", image_table(root, "table", ["train", "val"]))
    base = values(folder, folder / "runs")
    del base["question_encoder"], base["classifier"]
    base |= PLAIN | {"data": {"format": "table", "root": str(root)} | changes.pop("data", {})} | changes
    return check_experiment(base, "test")


SPELT = "".join(f"{n}.png,is it {n}?,{answer}\n" for n, answer in enumerate(["Yes", "yes", "Yes", "yes.", "no", "No"]))
ASKED = "7.png,is it 1?,YES\n8.png,is it 2?,yes\n9.png,is it 4?,no.\n"


@pytest.mark.parametrize(
    ("normalise", "answers", "accuracy"),
    [("none", ["Yes", "No", "no", "yes", "yes."], 0.0), ("lower", ["Yes", "No", "yes."], 66.67),
     ("official", ["Yes", "No"], 66.67)],
)  # fmt: skip
def test_spellings_are_one_class_and_judged_as_one(
    normalise: str, answers: list[str], accuracy: float, tmp_path: Path, capsys: Captured
) -> None:
    experiment = own(tmp_path, SPELT, ASKED, answers={"normalise": normalise})
    train(experiment)
    run = load_run(experiment.folder)
    assert sorted(run.answers.answers) == sorted(answers) and run.experiment.answers.normalise == normalise
    always_yes(experiment.folder, run.answers.answers.index("Yes"))
    found = evaluate_run(experiment.folder, options=EvaluationOptions(image_matters=False))
    assert found.judgement.own.open_ended is not None and found.judgement.own.open_ended.overall == accuracy
    ceiling = found.summary()["ceiling"]["open_ended"]["overall"]
    assert ceiling == {"none": 33.33, "lower": 66.67, "official": 100.0}[normalise]
    written = json.loads((experiment.folder / "evaluation_val.json").read_text())
    assert written["answers_normalise"] == normalise
    name = {"none": "one answer", "lower": "capitals aside", "official": "as officially normalised"}[normalise]
    assert written["metric"].endswith(name)
    assert all(("answers.normalise" in table.caption) == (normalise != "none") for table in found.judgement.tables())


def always_yes(folder: Path, answer: int) -> None:
    """Weights with which a run answers one thing."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = RunFolder(folder).model
    with safe_open(path, "pt") as file:
        about, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = next(name for name in weights if name.startswith("classifier") and name.endswith("bias"))
    last = [name for name in weights if name.startswith("classifier") and name.endswith("bias")][-1]
    assert name == last and weights[last].ndim == 1
    weights[last] = torch.zeros_like(weights[last]).index_fill(0, torch.tensor([answer]), 1e3)
    save_file(weights, path, about)


def test_what_counts_as_one_answer_is_one_target(tmp_path: Path) -> None:
    prepared = prepare(own(tmp_path, SPELT, ASKED, answers={"normalise": "official"}))
    assert prepared.train_questions.target is not None
    assert prepared.train_questions.target.majority_B.tolist() == [0, 0, 0, 0, 1, 1]
    assert prepared.train.majority is not None and prepared.train.majority.at(3) == "yes."  # as it was written


SHARED = ("a.png,is it?,yes\na.png,what is it?,a dog\nb.png,is it so?,no\n", "a.png,is it large?,yes\n")


def test_a_split_that_shares_images_is_never_shown_unstamped(tmp_path: Path, capsys: Captured) -> None:
    experiment = own(tmp_path, *SHARED)
    train(experiment)
    said = capsys.readouterr().out
    assert said.count("(protocol 2021, SEEN IN TRAINING)") == 2
    assert "no test of this run" in said and "data.shares_images=published" in said
    assert all(
        row["val/seen_in_training"] == "SEEN IN TRAINING" for row in read_metrics(experiment.folder / "metrics.jsonl")
    )
    assert "SEEN IN TRAINING" in json.loads((experiment.folder / "finished.json").read_text())["val_seen_in_training"]
    with pytest.raises(InputError, match=r"data.shares_images=published says so \(`vqa evaluate --shares-images`"):
        evaluate_run(experiment.folder)
    found = evaluate_run(experiment.folder, options=EvaluationOptions(shares_images=True))
    assert (
        "by the design of the published splits: 0 of 1 questions and 1 of 1 images"
        in found.judgement.tables()[0].caption
    )


def test_a_declared_set_is_evaluated_and_stamped(tmp_path: Path, capsys: Captured) -> None:
    experiment = own(tmp_path, *SHARED, data={"shares_images": "published"})
    train(experiment)
    said = capsys.readouterr().out
    assert said.count("shares images with training by design)") == 2 and "SEEN IN TRAINING" not in said
    found = evaluate_run(experiment.folder)
    design = "Training and table val share images by the design of the published splits"
    assert all(design in table.caption for table in (*found.judgement.tables(), *found.judgement.beyond_tables()))
    assert design in (experiment.folder / "report.html").read_text()
    written = json.loads((experiment.folder / "evaluation_val.json").read_text())
    assert design in written["seen_in_training"]["shares_images"] and design in written["model_choice"]
    assert not written["seen_in_training"]["contaminated"]


def test_a_declared_set_that_asks_the_same_questions_is_refused(tmp_path: Path, capsys: Captured) -> None:
    train_rows, _ = SHARED
    experiment = own(tmp_path, train_rows, "a.png,Is it?,yes\n", data={"shares_images": "published"})
    train(experiment)
    assert "SEEN IN TRAINING" in capsys.readouterr().out
    with pytest.raises(InputError, match="trained on 1 of 1 questions"):
        evaluate_run(experiment.folder)


def test_missing_images_and_no_cache_are_explained_by_a_training(tmp_path: Path) -> None:
    (tmp_path / "cache.h5").touch()
    experiment = own(tmp_path, "img\\\\a.png,is it?,yes\n".replace("\\\\", "\\"), "b.png,is it?,yes\n")
    (tmp_path / "cache.h5").unlink()
    (tmp_path / "data" / "img").mkdir()
    (tmp_path / "data" / "img" / "a.png").touch()
    with pytest.raises(InputError, match=r"(?s)no such feature cache.*backslashes.*there is img/a.png"):
        prepare(experiment)


@pytest.mark.parametrize("wrong", ["Published", "yes", True])
def test_only_published_splits_are_declared(wrong: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shares_images"):
        own(tmp_path, *SHARED, data={"shares_images": wrong})
