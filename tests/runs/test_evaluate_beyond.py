"""What `vqa evaluate` reports beside accuracy: choices outside the vocabulary, slices, pairs, WUPS."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.evaluate import make_run
from helpers.training import experiment, write_cache
from helpers.wordnet import write_wordnet
from PIL import Image
from typer.testing import CliRunner

from vqa.cli import app
from vqa.data.dataset import ImageTable, Strings
from vqa.data.formats import read_dataset
from vqa.errors import InputError
from vqa.evaluation.accuracy import score
from vqa.evaluation.multiple_choice import choice_classes, choice_scores
from vqa.evaluation.results import read_results, write_results
from vqa.evaluation.score_files import score_wups
from vqa.evaluation.wups import open_wordnet
from vqa.runs.evaluate import EvaluationOptions, evaluate_run
from vqa.text.vocabulary import AnswerVocabulary
from vqa.training.inputs.choices import ChoiceTable
from vqa.training.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("beyond"))


def test_scores_on_the_device_are_the_rule_of_the_evaluation(run: Path) -> None:
    dataset = read_dataset("vqa_v2", run.parents[2] / "data", "val")
    assert dataset.choices is not None
    codes = dataset.choices.codes.copy()
    codes[:, -2:] = -1  # questions with fewer choices
    answers = AnswerVocabulary(("yes", "2", "dark red", "blue", "light blue"))
    choices = Strings(("a blue one", "Red!", *dataset.choices.distinct[2:]), codes)
    table = ChoiceTable.of(replace(dataset, choices=choices), answers, torch.device("cpu"))
    assert table is not None and table.class_SK.shape[1] > 1
    logits_NA = torch.randn(len(dataset), len(answers), generator=torch.Generator().manual_seed(0))
    expected = choice_scores(choices, choice_classes(choices, answers), logits_NA.softmax(1).numpy())
    for rows in (torch.arange(7), torch.arange(7, len(dataset)).flip(0)):
        found = table.score(logits_NA[rows], rows)
        torch.testing.assert_close(found.exp(), torch.from_numpy(expected).clamp_min(0)[rows])
        assert (found.isinf().numpy() == np.isinf(expected[rows.numpy()])).all()


def test_both_multiple_choice_numbers_are_reported_whichever_is_first(run: Path) -> None:
    scored = evaluate_run(run, report=False).judgement
    first = json.loads((run / "evaluation_val.json").read_text())
    evaluation = evaluate_run(run, options=EvaluationOptions(choices_outside=False), report=False)
    within = evaluation.judgement
    second = json.loads((run / "evaluation_val.json").read_text())
    assert first["multiple_choice_by_rule"] == second["multiple_choice_by_rule"]
    both = first["multiple_choice_by_rule"]
    assert both["scored"] == first["accuracy"]["multiple_choice"]["overall"]
    assert both["within_vocabulary"] == second["accuracy"]["multiple_choice"]["overall"]
    assert f"multiple choice is {both['within_vocabulary']:.2f}%" in scored.tables()[0].note
    assert f"multiple choice is {both['scored']:.2f}%" in within.tables()[0].note
    known = set(evaluation.run.answers.answers)
    picked = within.answers.by_task["multiple-choice"]
    assert within.dataset.choices is not None
    for row in range(len(within.dataset)):
        if known & set(within.dataset.choices.row(row)):
            assert picked.at(row) in known


def test_report_and_numbers_hold_every_part(run: Path) -> None:
    copy = run.parent / "report"
    shutil.copytree(run, copy)
    evaluation = evaluate_run(copy, options=EvaluationOptions(slices={"colours": "what colou?r"}))
    found = json.loads((copy / "evaluation_val.json").read_text())
    assert list(found["floors"]) == [
        "random choice (expected)", "most popular answer or choice", "most frequent answer per question type",
        "most frequent answer to the question", "most frequent answer to its longest known beginning",
    ]  # fmt: skip
    assert list(found["ceilings"]) == ["human agreement", "best of the choices", "best the answer vocabulary allows"]
    assert found["floors"]["most frequent answer per question type"] == found["floor"]
    beyond = found["beyond_accuracy"]
    pairs = evaluation.dataset.pairs_P2
    assert pairs is not None and beyond["complementary_pairs"]["pairs"] == len(pairs)
    colours = next(one for one in beyond["slices"] if one["name"] == "colours")
    asked = [evaluation.dataset.question.at(row) for row in range(len(evaluation.dataset))]
    rows = [row for row, text in enumerate(asked) if "what color" in text.lower() or "what colour" in text.lower()]
    accuracy_N = score(evaluation.dataset, evaluation.judgement.answers.by_task["open-ended"]).accuracy_N
    assert colours["count"] == len(rows) and colours["accuracy"] == pytest.approx(100 * accuracy_N[rows].mean())
    page = (copy / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    for text in (
        "Beyond accuracy",
        "Complementary pairs",
        "colours",
        "Error of the surest answers",
        "human agreement",
    ):
        assert text in page
    assert page.count("<table") == page.count("</table>") and page.count('id="beyond-1"') == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [("--slice=a=(", "not a regular expression"), ("--wordnet={}", "not a WordNet corpus")],
)
def test_a_wrong_slice_or_corpus_ends_before_the_run_is_looked_for(tmp_path: Path, option: str, message: str) -> None:
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "no run"), option.format(tmp_path)])
    assert isinstance(done.exception, InputError) and message in str(done.exception)


def corpus_options(folder: Path) -> EvaluationOptions:
    """With a miniature WordNet in `folder`."""
    return EvaluationOptions(wordnet=open_wordnet(write_wordnet(folder / "wordnet")))


def test_ten_answers_cannot_be_judged_by_wups(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("nltk")
    with pytest.raises(InputError, match="WUPS compares with one"):
        evaluate_run(run, options=corpus_options(tmp_path), report=False)


def test_wups_of_a_results_file(tmp_path: Path) -> None:
    pytest.importorskip("nltk")
    (tmp_path / "questions.csv").write_text(
        'image,question,answer\na.png,what is there?,chair\na.png,what else?,"table, chair"\nb.png,and here?,dog\n'
    )
    dataset = read_dataset("table", tmp_path, "questions")
    results = tmp_path / "results.json"
    write_results(results, dataset, Strings.of(["table", "chair, table", "dog"]))
    assert read_results(results, dataset).at(1) == "chair, table"
    corpus = write_wordnet(tmp_path / "wordnet")
    found = score_wups(results, tmp_path, "table", "questions", corpus, json_file=tmp_path / "out.json")
    assert found.list_accuracy == pytest.approx(200 / 3)
    # table and chair are both furniture: 2 x 3 / (4 + 4) = 0.75, a tenth of it below the threshold of 0.9
    assert found.wups == {0.9: pytest.approx(100 * 2.075 / 3), 0.0: pytest.approx(100 * 2.75 / 3)}
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["wordnet"] == "3.0" and written["wups"]["0.0"] == found.wups[0.0]
    assert "WUPS at 0.9" in [column.name for column in found.table().columns]
    plain = score_wups(results, tmp_path, "table", "questions", None)
    assert plain.wups == {} and "needs --wordnet" in plain.table().caption


def test_a_table_of_single_answers_is_judged_by_wups_beside_accuracy(tmp_path: Path) -> None:
    pytest.importorskip("nltk")
    for split, image in (("train", "a"), ("val", "b")):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{image}.png")
        lines = ["image,question,answer", f"{image}.png,what is it?,chair", f"{image}.png,and that?,table"]
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    tables = [read_dataset("table", tmp_path, split).images for split in ("train", "val")]
    images = ImageTable(tables[0].ids + tables[1].ids, (*tables[0].paths, *tables[1].paths))
    write_cache(tmp_path / "cache.h5", images)
    data = {"format": "table", "root": str(tmp_path), "test": None}
    tiny = experiment(tmp_path, tmp_path / "runs", data=data, training={"epochs": 1})
    evaluation = evaluate_run(train(tiny).path, options=corpus_options(tmp_path))
    judgement = evaluation.judgement
    own, near = judgement.own.open_ended, judgement.wups
    assert own is not None and near is not None
    assert near.list_accuracy == own.overall  # single words: the list and the word are the same
    assert near.list_accuracy < near.wups[0.9] <= near.wups[0.0] or near.list_accuracy == 100
    assert json.loads((tmp_path / "runs/tiny/0/evaluation_val.json").read_text())["near_answers"]["wordnet"] == "3.0"
    assert "Near answers" in (tmp_path / "runs/tiny/0/report.html").read_text()
    assert judgement.diagnostics is not None and judgement.diagnostics.pairs is None
    assert [row.name for row in judgement.scored if row.kind == "ceiling"] == ["best the answer vocabulary allows"]
