"""Metrics of a whole set: their authors' own outputs, scikit-learn's average precision, and missing files named."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.formats import write
from helpers.metric import golden, qa_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa.data.dataset import Strings
from vqa.data.formats import gqa, vizwiz
from vqa.errors import InputError
from vqa.evaluation.metrics.gqa import gqa_figures
from vqa.evaluation.metrics.suites import SUITES, SuiteFiles
from vqa.evaluation.metrics.vizwiz import average_precision

GQA = golden("gqa_suite.json.gz")


def test_gqas_suite_is_that_of_its_authors(tmp_path: Path) -> None:
    questions, choices = (write(tmp_path / f"{name}.json", GQA[name]) for name in ("questions", "choices"))
    answers = {one["questionId"].lstrip("0"): one["prediction"] for one in GQA["predictions"]}
    figures, lacking = gqa_figures([questions], choices, answers)
    found = {name.partition(" ")[0]: value for name, value in figures.items()}
    assert found == pytest.approx(GQA["expected"]) and not lacking


def test_what_gqas_suite_lacks_is_named(tmp_path: Path) -> None:
    kept = {key: one for key, one in GQA["questions"].items() if one["isBalanced"]}
    path = write(tmp_path / "val_balanced_questions.json", kept)
    dataset = gqa.read_file(path, "val")
    told = {int(one["questionId"]): one["prediction"] for one in GQA["predictions"]}
    predictions = Strings.of([told[number] for number in dataset.question_id_N.tolist()])
    suite = SUITES["gqa"](dataset, predictions, SuiteFiles())
    assert suite.figures["accuracy"] == pytest.approx(GQA["expected"]["accuracy"])
    assert "--choices FILE" in suite.lacking["validity, plausibility"]
    assert "all questions" in suite.lacking["consistency"]
    bare = {key: {name: one[name] for name in ("question", "imageId", "answer")} for key, one in kept.items()}
    figures, lacking = gqa_figures([write(tmp_path / "bare.json", bare)], None, {k.lstrip("0"): "x" for k in bare})
    assert set(figures) == {"accuracy"}
    assert set(lacking) == {"binary, open", "validity, plausibility", "distribution", "consistency"}
    other = write(tmp_path / "choices.json", {})
    with pytest.raises(InputError, match="is it of another split"):
        gqa_figures([path], other, {k.lstrip("0"): "x" for k in kept})


def test_popes_figures_are_those_of_its_authors() -> None:
    made = golden("strings.json.gz")["pope"]
    dataset = qa_dataset([[one["label"]] for one in made["rows"]])
    suite = SUITES["pope"](dataset, Strings.of([one["answer"] for one in made["rows"]]), SuiteFiles())
    names = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "F1": "F1 score"}
    names["share of yes"] = "Yes ratio"
    expected = {name: 100 * made["expected"][theirs] for name, theirs in names.items()}
    assert suite.figures == pytest.approx(expected)
    with pytest.raises(InputError, match="the answer is 'cat'; POPE's is yes or no"):
        SUITES["pope"](qa_dataset([["cat"]]), Strings.of(["yes"]), SuiteFiles())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30))
def test_average_precision_is_scikit_learns(rows: list[tuple[bool, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    true_N, score_N = np.array([one for one, _ in rows]), np.array([value / 5 for _, value in rows])
    expected = metrics.average_precision_score(true_N, score_N) if true_N.any() else 0.0
    assert average_precision(true_N, score_N) == pytest.approx(expected)


def test_answerability_of_vizwiz(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    humans = [{"answer": text} for text in ["soup"] * 10]
    records = [{"image": f"{i}.jpg", "question": "what?", "answers": humans, "answerable": i % 2} for i in range(4)]
    write(tmp_path / "val.json", records)
    dataset = vizwiz.read(tmp_path, "val")
    predictions = Strings.of(["Unanswerable", "soup", "soup", "unsuitable"])
    plain = SUITES["answerability"](dataset, predictions, SuiteFiles())
    assert plain.figures == {"F1 by the answers": 50.0} and "answerable" in plain.lacking["average precision"]
    scored = SUITES["answerability"](dataset, predictions, SuiteFiles(answerable_N=np.array([0.1, 0.9, 0.2, 0.8])))
    assert scored.figures["average precision"] == 100.0
    alone = SUITES["answerability"](dataset, Strings.of([""] * 4), SuiteFiles(answerable_N=np.arange(4) / 4))
    assert "average precision" in alone.figures and alone.lacking == {
        "F1 by the answers": "answers in the results file"
    }
    (tmp_path / "val.json").write_text(
        json.dumps([{k: v for k, v in one.items() if k != "answerable"} for one in records])
    )
    assert not SUITES["answerability"](dataset, predictions, SuiteFiles()).figures
