"""The table of metrics: the authors' and harnesses' own outputs, equations written out, and each metric's two ways."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from helpers.formats import write
from helpers.metric import golden, golden_dataset, golden_predictions, qa_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa.data.dataset import Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import PROTOCOLS, score
from vqa.evaluation.metrics import METRICS, default_metric, find_metric, human_ceiling, measure
from vqa.evaluation.metrics.strings import edit_distance
from vqa.evaluation.wups import LIST_FORMATS, WordNet

STRINGS = golden("strings.json.gz")["strings"]
TEXT = st.sampled_from(["cat", "the cat", "Cat.", "dog", "two", "2", "", "a cat, dog", "2,000", "5%", "0.05"])


@pytest.mark.parametrize("harness", ["lmms_eval_anls", "vlmevalkit_anls"])
def test_anls_of_the_harnesses(harness: str) -> None:
    found = [METRICS["anls-harness"].measure(case["prediction"], case["answers"]) for case in STRINGS]
    assert found == pytest.approx([case[harness] for case in STRINGS], abs=1e-12)
    assert 0 < np.mean(found) < 1


def test_relaxed_accuracy_of_the_harnesses() -> None:
    found = [METRICS["relaxed"].measure(case["prediction"], case["answers"]) for case in STRINGS]
    assert found == [case["vlmevalkit_relaxed"] for case in STRINGS]
    # lmms-eval leaves white space around a prediction, and takes one answer
    plain = [case for case in STRINGS if case["prediction"] == case["prediction"].strip()]
    assert len(plain) > 200
    for case in plain:
        for answer, right in zip(case["answers"], case["lmms_eval_relaxed"], strict=True):
            assert METRICS["relaxed"].measure(case["prediction"], [answer]) == right


def distance(first: str, second: str) -> int:
    """Levenshtein's recurrence, word for word."""

    @cache
    def of(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (first[i - 1] != second[j - 1]))

    return of(len(first), len(second))


@settings(max_examples=200, deadline=None)
@given(st.text("abc ", max_size=8), st.lists(st.text("abcA ", max_size=8), min_size=1, max_size=3))
def test_anls_is_the_papers_equation(prediction: str, answers: list[str]) -> None:
    def similarity(given: str, true: str) -> float:
        given, true = " ".join(given.lower().split()), " ".join(true.lower().split())
        longest = max(len(given), len(true))
        normalised = distance(given, true) / longest if longest else 0.0
        return 1 - normalised if normalised < 0.5 else 0.0

    assert METRICS["anls"].measure(prediction, answers) == max(similarity(prediction, answer) for answer in answers)
    assert edit_distance(prediction, answers[0]) == distance(prediction, answers[0])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_vqa_accuracy_of_one_answer_is_that_of_many(protocol: str) -> None:
    dataset = golden_dataset()
    predictions, expected = golden_predictions(dataset), golden(f"expected_{protocol}.json")["perQuestion"]
    assert dataset.answers is not None
    metric = METRICS[f"vqa-{protocol}"]
    for row in range(0, len(dataset), 7):
        found = 100 * metric.measure(predictions.at(row), dataset.answers.row(row))
        assert found == pytest.approx(expected[str(dataset.question_id_N[row])], abs=0.0051)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=4)), min_size=1, max_size=6),
    st.sampled_from(sorted(name for name, metric in METRICS.items() if not metric.single)),
)
def test_a_split_is_measured_as_its_questions_are(rows: list[tuple[str, list[str]]], name: str) -> None:
    dataset = qa_dataset([answers for _, answers in rows])
    found = measure(METRICS[name], dataset, Strings.of([given for given, _ in rows]))
    assert found.tolist() == pytest.approx([METRICS[name].measure(*row) for row in rows])
    assert (found >= 0).all() and (found <= 1).all()
    assert not measure(METRICS[name], dataset, Strings.of([None] * len(rows))).any()


@pytest.mark.parametrize("name", ["exact", "anls", "relaxed"])
def test_the_humans_are_measured_against_each_other(name: str) -> None:
    answers = [["cat", "cat", "dog"], ["5", "5.1", "9"], ["coca cola", "coca kola", "tea"]]
    found = human_ceiling(METRICS[name], qa_dataset(answers))
    for value, said in zip(found, answers, strict=True):
        each = [METRICS[name].measure(said[i], said[:i] + said[i + 1 :]) for i in range(3)]
        assert value == pytest.approx(sum(each) / 3)
    with pytest.raises(InputError, match="one human answer"):
        human_ceiling(METRICS[name], qa_dataset([["cat"]]))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["cat", "cats", "5", "5.1", ""]), min_size=2, max_size=5), min_size=1, max_size=4
    ),
    st.sampled_from(["exact", "anls", "anls-harness", "relaxed"]),
)
def test_a_ceiling_leaves_each_human_out_in_turn(answers: list[list[str]], name: str) -> None:
    expected = [
        sum(METRICS[name].measure(one, said[:i] + said[i + 1 :]) for i, one in enumerate(said)) / len(said)
        for said in answers
    ]
    assert human_ceiling(METRICS[name], qa_dataset(answers)).tolist() == pytest.approx(expected)


def near(first: str, second: str) -> float:
    return 0.95 if {first, second} == {"cat", "kitten"} else 0.2


def test_wups_needs_wordnet_and_one_answer() -> None:
    dataset = qa_dataset([["cat"], ["dog, cat"]])
    predictions = Strings.of(["kitten", "cat, dog"])
    with pytest.raises(InputError, match="--wordnet FOLDER"):
        measure(METRICS["wups"], dataset, predictions)
    wordnet = WordNet("3.0", near)
    assert measure(find_metric("wups", wordnet), dataset, predictions).tolist() == [0.95, 1.0]
    assert measure(METRICS["list"], dataset, predictions).tolist() == [0.0, 1.0]
    with pytest.raises(InputError, match="up to 2 human answers"):
        measure(METRICS["list"], qa_dataset([["cat", "dog"]]), Strings.of(["cat"]))


def test_wrong_names_and_hidden_answers() -> None:
    with pytest.raises(InputError, match=r"unknown metric 'anl' \(did you mean 'anls'\?\)"):
        find_metric("anl")
    with pytest.raises(InputError, match="hidden"):
        measure(METRICS["exact"], qa_dataset(None, ids=[1]), Strings.of(["x"]))


def test_every_set_has_its_metric(tmp_path: Path) -> None:
    one, several = qa_dataset([["cat"]]), qa_dataset([["cat", "dog"]])
    assert default_metric(one) == "exact" and default_metric(several) == "vqa-2021"
    for format, name in {
        "daquar_reduced_single": "list",
        "coco_qa": "list",
        "vqa_v2": "exact",
        "st_vqa": "anls",
    }.items():
        assert default_metric(replace(one, format=format)) == name
    for format in LIST_FORMATS:
        assert default_metric(replace(one, format=format)) == "list"
    made = replace(several, format="table", files=(tmp_path / "val.jsonl",))
    assert default_metric(made) == "vqa-2021"
    write(tmp_path / ".hub.json", {"repository": "lmms-lab-encoder/DocVQA", "configuration": "InfographicVQA"})
    assert default_metric(made) == "anls"


def test_a_single_answer_is_exact_match_as_before() -> None:
    dataset: Sequence[Sequence[str]] = [["cat"], ["Dog "]]
    made, predictions = qa_dataset(dataset), Strings.of(["cat ", "dog"])
    assert (
        measure(METRICS["exact"], made, predictions).tolist() == score(made, predictions).accuracy_N.tolist() == [1, 0]
    )
