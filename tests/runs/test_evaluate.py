"""`vqa evaluate` against `vqa score` on the files it writes, on every kind of split."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from helpers.training import all_images, experiment, folder_bytes, make_world, write_cache

from vqa.data.formats import read_dataset
from vqa.errors import InputError
from vqa.evaluation.accuracy import score
from vqa.evaluation.judge import JudgeOptions, judge
from vqa.evaluation.report.page import Report, write_report
from vqa.evaluation.results import TASKS, read_results
from vqa.evaluation.score_files import score_files
from vqa.runs.evaluate import EvaluationOptions, evaluate_run
from vqa.training.predict import best_answers, score_choices
from vqa.training.run_folder import RunFolder
from vqa.training.train import train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(experiment(world, tmp_path_factory.mktemp("runs"), training={"epochs": 3}))


@pytest.mark.parametrize("protocol", ["2021", "2015"])
def test_the_numbers_are_those_of_vqa_score_on_the_written_files(run: RunFolder, world: Path, protocol: Any) -> None:
    evaluation = evaluate_run(run.path, "val", EvaluationOptions(protocol=protocol), report=False)
    written = json.loads(run.evaluation("val").read_text())
    assert written["protocol"] == protocol and written["seed"] == 0
    questions = {
        "open-ended": world / "data/v2_OpenEnded_mscoco_val2014_questions.json",
        "multiple-choice": world / "data/v2_MultipleChoice_mscoco_val2014_questions.json",
    }
    for task in TASKS:
        read_results(run.results("val", task), evaluation.dataset, task)
        annotations = world / "data/v2_mscoco_val2014_annotations.json"
        scored = score_files(run.results("val", task), questions[task], annotations, protocol)
        numbers = written["accuracy"][task.replace("-", "_")]
        assert numbers["overall"] == scored.overall
        assert numbers["per_answer_type"] == scored.per_answer_type
        assert numbers["per_question_type"] == scored.per_question_type
    assert written["floor"]["open_ended"]["overall"] <= written["ceiling"]["open_ended"]["overall"]
    assert written["accuracy"]["open_ended"]["overall"] <= written["ceiling"]["open_ended"]["overall"]


def test_the_report_scores_its_examples_by_the_protocol_asked_for(run: RunFolder) -> None:
    evaluation = evaluate_run(run.path, "val", EvaluationOptions(protocol="2015"))
    page = (run.path / "report.html").read_text()
    assert "The score is the open-ended VQA accuracy, protocol 2015." in page
    assert "open-ended VQA accuracy, protocol 2021, %" in page  # the curves, measured while training
    given, humans = evaluation.judgement.answers, evaluation.dataset.answers
    assert humans is not None and given.open_ended is not None
    # in capitals only the newer protocol finds them again
    capitals = replace(humans, distinct=tuple(text.upper() for text in humans.distinct))
    shouted = replace(given, dataset=replace(evaluation.dataset, answers=capitals))
    judgement = judge(shouted, JudgeOptions(protocol="2015"), None)
    accuracy_N = score(shouted.dataset, given.open_ended, "2015").accuracy_N
    assert [judgement.example(row, []).accuracy for row in range(len(accuracy_N))] == accuracy_N.tolist()
    assert (accuracy_N != score(shouted.dataset, given.open_ended, "2021").accuracy_N).any()


def test_the_head_of_the_report_says_how_the_run_was_made(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    changes = {"name": "product", "data": {"holdout": 0.25, "holdout_seed": 7, "val": None}}
    made = train(experiment(world, home / "runs", training={"epochs": 4, "patience": 2}, **changes))
    monkeypatch.setenv("HOME", str(home))
    evaluation = evaluate_run(made.path, "val", EvaluationOptions(allow_seen=True))
    facts, page = dict(evaluation.facts()), (made.path / "report.html").read_text()
    finished = json.loads(made.finished.read_text())
    assert facts["question encoder"].startswith("lstm (embedding_dim 8")
    assert facts["validation"] == "held out: 25% of the images of split train, seed 7"
    assert f"of {finished['epochs']} by validation accuracy is epoch {finished['best_epoch']}" in facts["epochs"]
    assert facts["recipe"].startswith("demo/product, with other values of ") and "fusion.name" in facts["recipe"]
    assert facts["metric"] == "VQA accuracy, protocol 2021"
    assert all(label in page for label in facts) and facts["validation"] in page


def test_a_report_shows_no_path_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    facts = (("weights", f"from {tmp_path}/work/nets/a.pt"), ("data", f"{tmp_path}/home/me/data"), ("other", "/opt/a"))
    summary = (f"'{tmp_path}/work/runs/a' did well.",)
    write_report(tmp_path / "report.html", Report(title=f"{tmp_path}/home/x", facts=facts, summary=summary))
    page = (tmp_path / "report.html").read_text()
    assert str(tmp_path) not in page
    for shown in ("from nets/a.pt", "~/me/data", "/opt/a", "runs/a", "~/x"):
        assert shown in page


def test_the_best_epoch_is_what_is_evaluated(run: RunFolder) -> None:
    evaluation = evaluate_run(run.path, "val", report=False)
    own = evaluation.judgement.own.open_ended
    assert own is not None and own.overall == json.loads(run.finished.read_text())["best_val_open_ended"]


def test_a_split_without_answers_gives_results_only(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    folder = RunFolder(copy)
    evaluation = evaluate_run(copy, "test")
    assert evaluation.judgement.scored == () and evaluation.judgement.tables() == ()
    assert not folder.evaluation("test").exists()
    for task in TASKS:
        predictions = read_results(folder.results("test", task), evaluation.dataset, task)
        assert len(predictions.codes) == len(evaluation.dataset)
    evaluation.judgement.print(copy)
    assert "the answers of this split are hidden: results files only" in capsys.readouterr().out


def test_one_task_alone(run: RunFolder, tmp_path: Path) -> None:
    for task, other in (("open-ended", "multiple-choice"), ("multiple-choice", "open-ended")):
        copy = tmp_path / task
        shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("results_*"))
        evaluate_run(copy, "val", EvaluationOptions(task=task), json_file=tmp_path / "copy.json")  # type: ignore[arg-type]
        assert RunFolder(copy).results("val", task).is_file() and not RunFolder(copy).results("val", other).exists()
        numbers = json.loads((tmp_path / "copy.json").read_text())
        assert numbers == json.loads(RunFolder(copy).evaluation("val").read_text())
        assert list(numbers["accuracy"]) == [task.replace("-", "_")]
        assert (copy / "report.html").read_text().count("<html") == 1


def test_features_of_another_encoder_are_refused(run: RunFolder, world: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    write_cache(other, all_images(world / "data"), channels=5)
    before = folder_bytes(run.path)
    with pytest.raises(InputError, match="not the features that the run was trained on") as caught:
        evaluate_run(run.path, "val", EvaluationOptions(caches=[other]))
    assert "weights_sha256" in str(caught.value) and str(other) in str(caught.value)
    write_cache(other := tmp_path / "on_white.h5", all_images(world / "data"))
    with h5py.File(other, "a") as file:
        preprocessing = json.loads(file.attrs["preprocessing"])
        file.attrs["preprocessing"] = json.dumps(preprocessing | {"background": "white"})
    with pytest.raises(InputError, match="background is 'white', expected None"):
        evaluate_run(run.path, "val", EvaluationOptions(caches=[other]))
    assert folder_bytes(run.path) == before


def test_a_cache_without_the_splits_images_is_refused(run: RunFolder, world: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.h5"
    write_cache(small, read_dataset("vqa_v2", world / "data", "train").images)
    with pytest.raises(InputError, match=r"small\.h5: does not hold 12 of 12 images"):
        evaluate_run(run.path, "val", EvaluationOptions(caches=[small]))


def test_an_unknown_split_is_refused(run: RunFolder) -> None:
    with pytest.raises(InputError, match="validation"):
        evaluate_run(run.path, "validation")


def test_choices_score_their_class_and_others_minus_infinity() -> None:
    logits_BA = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, -3.0]])
    choice_BC = torch.tensor([[2, -1, 0], [-1, -1, 1]])
    expected = np.array([[2.0, -np.inf, 0.5], [-np.inf, -np.inf, 0.0]])
    np.testing.assert_array_equal(score_choices(logits_BA, choice_BC).numpy(), expected)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_of_equally_scored_answers_the_more_frequent_one_is_given(count: int) -> None:
    logits_BA = torch.randint(0, 3, (500, 40)).float()  # many ties
    answer_BK = best_answers(logits_BA, count)
    assert answer_BK.shape == (500, count)
    for row, answers in zip(logits_BA.tolist(), answer_BK.tolist(), strict=True):
        assert answers[0] == row.index(max(row))
        assert len(set(answers)) == count
        assert [row[answer] for answer in answers] == sorted(row, reverse=True)[:count]
