"""The one judge on hand-made answers: the same keys for every kind of model, and every warning where it belongs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.golden import GOLDEN
from helpers.metric import qa_dataset
from helpers.training import run_python

from vqa.data.dataset import Strings
from vqa.errors import InputError
from vqa.evaluation.contamination import UNKNOWN_TRAINING, Contamination
from vqa.evaluation.judge import Judgement, JudgeOptions, SplitAnswers, judge
from vqa.text.vocabulary import AnswerVocabulary

DATASET = qa_dataset(
    [["yes"] * 8 + ["no"] * 2, ["2"] * 10, ["red"] * 10],
    choices=[["no", "yes"], ["2", "3"], ["red", "blue"]],
    question_type=["is", "how many", "what"],
    answer_type=["yes/no", "number", "other"],
    majority=["yes", "2", "red"],
)
TRAIN = qa_dataset([["x"] * 10] * 3, majority=["no", "2", "blue"], question_type=["is", "how many", "what"])
CHOSEN = Strings.of(["yes", "3", "red"])
ANSWERS = SplitAnswers(
    name="mine, seed 0",
    dataset=DATASET,
    by_task={"open-ended": Strings.of(["yes", "2", "blue"]), "multiple-choice": CHOSEN},
    open_ended=Strings.of(["yes", "2", "blue"]),
    confidence_N=np.array([0.9, 0.6, 0.3], dtype=np.float32),
    vocabulary=AnswerVocabulary(("yes", "no", "2", "blue")),
    other_choices=Strings.of(["no", "2", "red"]),
    contamination=Contamination(DATASET.name, of_questions=3, of_images=3),
)
SEEN = Contamination(DATASET.name, questions=(1,), chosen_on=3, of_questions=3, of_images=3)


def summary(answers: SplitAnswers) -> dict[str, object]:
    return judge(answers, JudgeOptions(), TRAIN).summary(Path("runs/mine/0"), "mine", seed=0)


def test_every_kind_of_model_has_the_keys_of_a_run_in_its_order() -> None:
    known, unknown = summary(ANSWERS), summary(replace(ANSWERS, contamination=None, note=UNKNOWN_TRAINING))
    assert list(known) == list(unknown)
    new = set(known) - set(json.loads((GOLDEN / "evaluation.json").read_text()))
    assert new == {"below_floor", "image_matters", "unrounded", "weights"} and len(known) == len(new) + len(
        json.loads((GOLDEN / "evaluation.json").read_text())
    )
    changed = {key for key in known if known[key] != unknown[key]}
    assert changed == {"seen_in_training", "used_to_choose_the_epoch", "model_choice"}
    assert known["multiple_choice_by_rule"] == {"scored": 66.67, "within_vocabulary": 86.67}
    assert known["accuracy"]["open_ended"]["overall"] == 66.67  # type: ignore[index]
    assert known["ceiling"]["open_ended"]["overall"] == 66.67  # type: ignore[index]  # nobody can say red


def test_a_contaminated_split_is_stamped_everywhere() -> None:
    judgement = judge(replace(ANSWERS, contamination=SEEN), JudgeOptions(), TRAIN)
    tables = (*judgement.tables(), *judgement.beyond_tables())
    assert len(tables) == 5
    assert all(SEEN.stamp in table.title and SEEN.choice() in table.caption for table in tables)
    findings = judgement.report("mine", [], []).summary
    assert findings[0].startswith(SEEN.stamp) and findings[-1] == f"{SEEN.choice()}."


def test_what_is_not_known_stands_below_the_table_and_last_on_the_page() -> None:
    judgement = judge(replace(ANSWERS, contamination=None, note=UNKNOWN_TRAINING), JudgeOptions(), None)
    note = judgement.tables()[0].note
    assert note.startswith("Choices outside") and note.endswith(UNKNOWN_TRAINING)
    assert judgement.report("mine", [], []).summary == (
        "mine, seed 0: open-ended 66.67%, multiple-choice 66.67% (VQA accuracy, protocol 2021).",
        UNKNOWN_TRAINING,
    )
    assert "most frequent answer per question type" not in {row.name for row in judgement.scored}


def test_a_set_with_one_answer_a_question_is_scored_by_exact_match_and_says_so() -> None:
    single = qa_dataset([["knife"], ["2"], ["red"]], majority=["knife", "2", "red"])
    given = Strings.of(["knife", "3", "red"])
    answers = replace(
        ANSWERS, dataset=single, by_task={"open-ended": given}, open_ended=given, other_choices=None, contamination=None
    )
    judged = judge(answers, JudgeOptions(), None)
    page = judged.report("mine", judged.facts(), [])
    said = [*page.summary, page.accuracy_name, page.curve_accuracy_name, *(value for _, value in page.facts)]
    said += [judged.tables()[0].caption]
    assert not any("VQA" in one or "protocol" in one for one in said)
    exact = [one for one in said if "xact match with the one answer" in one]
    assert len(exact) == 5
    many = judge(ANSWERS, JudgeOptions(protocol="2015"), TRAIN)
    assert ("metric", "VQA accuracy, protocol 2015") in many.facts()
    assert many.report("mine", (), []).accuracy_name == "open-ended VQA accuracy, protocol 2015"


def test_hidden_answers_have_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    judgement = Judgement(replace(ANSWERS, dataset=replace(DATASET, answers=None)), JudgeOptions())
    assert judgement.tables() == judgement.beyond_tables() == ()
    judgement.print(Path("runs/mine/0"))
    assert "hidden: results files only" in capsys.readouterr().out


def test_the_tasks_are_those_asked_for_that_the_split_has() -> None:
    assert JudgeOptions().tasks(DATASET) == ["open-ended", "multiple-choice"]
    assert JudgeOptions("multiple-choice").tasks(DATASET) == ["multiple-choice"]
    assert JudgeOptions().tasks(TRAIN) == ["open-ended"]
    with pytest.raises(InputError, match="no multiple-choice questions; choose --task open-ended"):
        JudgeOptions("multiple-choice").tasks(TRAIN)


def test_the_judge_needs_no_torch() -> None:
    done = run_python("-c", "import sys, vqa.evaluation.judge; assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr
