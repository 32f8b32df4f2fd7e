"""`vqa score` on other people's files: any data set, several files, a part, sentences, floors, ceilings, intervals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.formats import write, write_official, write_text

from vqa.errors import InputError
from vqa.evaluation.layouts.truth import read_truth
from vqa.evaluation.layouts.write import LAYOUTS, WriteTo
from vqa.evaluation.score_files import Against, ScoreOptions, rewrite, score_results
from vqa.evaluation.scoreboard import Scoreboard
from vqa.evaluation.statistics.resampling import bootstrap_interval
from vqa.evaluation.wups import WordNet
from vqa.tables import render_markdown

TABLE = "image,question,answers\na.png,what is it?,{}\nb.png,is it?,{}\nb.png,how many?,{}\n".format(
    "|".join(["cat"] * 10), "|".join(["yes"] * 3 + ["no"] * 7), "|".join(["2"] * 10)
)
RIGHT = {"0": "cat", "1": "yes", "2": "2"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write_text(tmp_path / "val.csv", TABLE)
    return tmp_path / "val.csv"


def scored(table: Path, *results: Any, **options: Any) -> Scoreboard:
    paths = [write(table.parent / f"{'abc'[place]}.json", content) for place, content in enumerate(results)]
    return score_results(paths, Against(questions=table), ScoreOptions(**options))


def overall(board: Scoreboard) -> dict[str, float]:
    found = board.as_json()
    return {name: one["overall"] for name, one in found.get("results", {"a.json": found}).items()}


def test_an_own_table_and_vizwiz_and_gqa_in_one_file(tmp_path: Path, table: Path) -> None:
    assert overall(scored(table, RIGHT)) == {"a.json": pytest.approx(96.67)}
    vizwiz = [{"image": "1.jpg", "question": "what?", "answers": [{"answer": "soup"}] * 10, "answerable": 1}]
    against = write(tmp_path / "Annotations/val.json", vizwiz)
    results = write(tmp_path / "v.json", [{"image": "1.jpg", "answer": "soup"}])
    for questions, annotations in ((against, None), (against, against)):
        board = score_results([results], Against(questions=questions, annotations=annotations), ScoreOptions())
        assert board.as_json()["overall"] == 100 and board.dataset.name == "vizwiz val"
    asked = {
        "0733": {"question": "what?", "imageId": "2", "answer": "pipe"},
        "04": {"question": "is it?", "imageId": "n1", "answer": "yes"},
    }
    given = [{"questionId": "0733", "prediction": "pipe"}, {"questionId": "04", "prediction": "no"}]
    gqa = score_results(
        [write(tmp_path / "p.json", given)], Against(questions=write(tmp_path / "g.json", asked)), ScoreOptions()
    )
    assert gqa.as_json()["overall"] == 50 and gqa.as_json()["metric"] == "exact"


def test_official_files_and_a_folder_give_the_same(tmp_path: Path) -> None:
    for split, ids in (("train2014", [1, 2, 3, 14]), ("val2014", [21, 32, 33, 44])):
        write_official(tmp_path, ids, split, prefix="v2_", choices=False)
    questions, annotations = (tmp_path / f"v2_{name}" for name in (
        "OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json"))  # fmt: skip
    results = write(tmp_path / "r.json", {str(i): f"answer {i % 5}" for i in (21, 32, 33, 44)})
    by_files = score_results([results], Against(questions=questions, annotations=annotations), ScoreOptions())
    by_folder = score_results([results], Against(data=tmp_path, format="vqa_v2"), ScoreOptions())
    assert by_files.as_json()["overall"] == by_folder.as_json()["overall"] == 100
    assert by_files.as_json()["protocol"] == "2021" and not by_files.as_json()["floors"]
    assert "most frequent answer to the question" in by_folder.as_json()["floors"]  # learned from the split train
    assert by_folder.as_json()["ceilings"]["human agreement"] == by_files.as_json()["ceilings"]["human agreement"]


def test_several_files_stand_in_one_table_with_intervals_and_differences(table: Path) -> None:
    board = scored(table, RIGHT, {"0": "cat", "1": "no", "2": "3"}, metrics=("vqa-2021", "exact", "anls"))
    assert overall(board) == {"a.json": pytest.approx(96.67), "b.json": pytest.approx(66.67)}
    figures, differences = board.tables()
    assert [column.name for column in figures.columns][:3] == ["VQA accuracy, protocol 2021", "exact match", "ANLS"]
    assert [row.name for row in figures.rows] == ["a.json", "b.json", "human agreement"]
    first = figures.rows[0].values
    low, high = bootstrap_interval(np.array([1.0, 1.9]), np.array([1.0, 2.0]))  # two images
    assert low is not None and high is not None
    assert first[3:] == pytest.approx((100 * max(low, 0), 100 * min(high, 1)))
    assert differences.rows[0].name == "b.json" and differences.rows[0].values[0] == pytest.approx(-30)
    assert board.as_json()["results"]["b.json"]["against_first"]["points"] == pytest.approx(-30)
    assert "| *human agreement* |" in render_markdown(figures)


def test_a_part_says_how_much_it_is(table: Path) -> None:
    with pytest.raises(InputError, match=r"1 question of 3 without an answer \(2\); --part scores what is there"):
        scored(table, {"0": "cat", "1": "no"})
    board = scored(table, {"0": "cat", "1": "no"}, {"0": "dog", "2": "2"}, part=True)
    assert len(board.dataset) == 1 and board.share == pytest.approx(1 / 3)
    assert all("Only 33.3% of the questions" in one.caption for one in board.tables()[:1])
    with pytest.raises(InputError, match="no question is answered by all of these files"):
        scored(table, {"0": "cat"}, {"1": "no"}, part=True)


def test_answers_inside_sentences_and_behind_capitals_are_noticed(table: Path) -> None:
    said = scored(table, {"0": "It is a cat.", "1": "Yes, it is", "2": "There are two of them"}).sentences()
    assert "has 0.00, but 100% of its predictions contain a human answer" in said[0] and "mean length 4" in said[0]
    said = scored(table, {"0": "Cat", "1": "No.", "2": "2"}).sentences()
    assert said == [
        "Note: 1 answer of 3 in a.json would match after normalisation (capitals, punctuation, articles, number "
        "words), which vqa-2021 does not do there: 100.00 in place of 66.67 (vqa-harness)."
    ]
    assert scored(table, RIGHT).sentences() == []
    said = scored(table, {"0": "", "1": "no", "2": "2"}, metrics=("exact",)).sentences()
    assert said == ["Note: 1 of 3 answers in a.json are empty."]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_file_written_in_each_layout_scores_equal(tmp_path: Path, layout: str) -> None:
    humans = ["cat"] * 6 + ["the cat", "dog", "", 'a "cat", or\ttwo']
    rows = [
        {"image": f"{i}.png", "question": f"q{i}", "answers": [h or "x" for h in humans], "id": i * 3} for i in range(4)
    ]
    against = Against(questions=tmp_path / "val.jsonl")
    write_text(tmp_path / "val.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    results = write(tmp_path / "r.json", {"0": "cat", "3": 'a "cat", or\ttwo', "6": "The cat.", "9": "cow\nand cat"})
    ending = {"jsonl": "jsonl", "csv": "csv", "lmms-eval": "jsonl", "vlmevalkit": "tsv"}.get(layout, "json")
    rewrite(results, against, [WriteTo(layout, tmp_path / f"w.{ending}")])
    options = ScoreOptions(metrics=("vqa-2021", "vqa-2015", "vqa-harness", "exact", "anls", "relaxed"))
    before, after = (score_results([path], against, options) for path in (results, tmp_path / f"w.{ending}"))
    assert after.as_json()["metrics"] == before.as_json()["metrics"]
    assert after.as_json()["perQuestion"] == before.as_json()["perQuestion"]


def test_answers_to_hidden_questions_are_written_for_their_server(tmp_path: Path) -> None:
    asked = {"questions": [{"question_id": i, "image_id": i, "question": "?"} for i in (7, 8)]}
    against = Against(questions=write(tmp_path / "q.json", asked))
    results = write(tmp_path / "r.jsonl", {"question_id": 8, "response": "cat"})
    with pytest.raises(InputError, match=r"1 question of 2 without an answer \(7\)"):
        rewrite(results, against, [WriteTo("official", tmp_path / "w.json")])
    write_text(results, '{"question_id": 8, "response": "cat"}\n{"question_id": "7", "response": "dog"}\n')
    assert not rewrite(results, against, [WriteTo("official", tmp_path / "w.json")])
    assert json.loads((tmp_path / "w.json").read_text()) == [
        {"question_id": 7, "answer": "dog"}, {"question_id": 8, "answer": "cat"},
    ]  # fmt: skip


def test_what_cannot_be_scored_against_is_said(tmp_path: Path, table: Path) -> None:
    with pytest.raises(InputError, match="say what the results answer: --data FOLDER"):
        score_results([write(tmp_path / "a.json", RIGHT)], Against(), ScoreOptions())
    with pytest.raises(InputError, match=r"unknown metric 'anl'.*pope"):
        scored(table, RIGHT, metrics=("anl",))
    questions = write(tmp_path / "q.json", {"questions": [{"question_id": 1, "image_id": 2, "question": "?"}]})
    with pytest.raises(InputError, match=r"q\.json: holds official questions only; give --questions FILE"):
        read_truth(questions)
    with pytest.raises(InputError, match=r"x\.json: holds no questions and answers that are known here"):
        read_truth(write(tmp_path / "x.json", {"a": 1}))
    with pytest.raises(InputError, match="a table holds its answers"):
        read_truth(table, questions)
    results = write(tmp_path / "a.json", RIGHT)
    with pytest.raises(InputError, match=r"a\.json is given twice"):
        score_results([results, results], Against(questions=table), ScoreOptions())


def test_wordnet_asks_for_wups(tmp_path: Path) -> None:
    write_text(tmp_path / "val.csv", "image,question,answer\na.png,what?,cat\nb.png,what?,dog\n")
    found = scored(tmp_path / "val.csv", {"0": "kitten", "1": "dog"}, wordnet=WordNet("3.0", lambda *_: 0.95)).as_json()
    assert found["metrics"] == {"exact": 50.0, "wups": 97.5, "wups-0.0": 97.5}


def test_a_suite_stands_beside_the_metric(tmp_path: Path) -> None:
    write_text(tmp_path / "val.csv", "image,question,answer\na.png,is it?,yes\nb.png,is it not?,no\n")
    board = scored(tmp_path / "val.csv", {"0": "yes", "1": "yes"}, {"0": "no", "1": "no"}, metrics=("pope",))
    suite = board.tables()[-1]
    assert suite.title == "POPE: yes or no" and [row.name for row in suite.rows][-1] == "share of yes"
    assert suite.rows[-1].values == (100.0, 0.0)
    assert board.as_json()["results"]["a.json"]["suites"]["pope"]["figures"]["F1"] == pytest.approx(200 / 3)


def test_floors_of_a_table_are_learned_from_one_file(tmp_path: Path, table: Path) -> None:
    train = tmp_path / "train.csv"
    write_text(train, "image,question,answer\nc.png,is it?,2\n")
    board = score_results([write(tmp_path / "a.json", RIGHT)], Against(questions=table, train_questions=train),
                          ScoreOptions(metrics=("exact",)))  # fmt: skip
    assert board.as_json()["floors"]["most popular answer or choice"] == pytest.approx(33.33)


def test_vqa_accuracy_of_one_answer_a_question_is_called_exact_match(tmp_path: Path) -> None:
    write_text(tmp_path / "one.csv", "image,question,answer\na.png,is it?,yes\n")
    board = scored(tmp_path / "one.csv", {"0": "yes"}, metrics=("vqa-2021", "vqa-harness"))
    assert [one.title for one in board.metrics] == [
        "accuracy by exact match with the one answer",
        "accuracy by exact match with the one answer, both normalised",
    ]


def test_letters_of_choices_are_read_as_these_and_said(tmp_path: Path) -> None:
    write_text(tmp_path / "mc.csv", "image,question,answer,A,B\na.png,is it?,yes,yes,no\na.png,who?,me,you,me\n")
    board = scored(tmp_path / "mc.csv", {"0": "A", "1": "A"}, {"0": "yes", "1": "me"})
    assert overall(board) == {"a.json": 50, "b.json": 100} and board.task == "multiple-choice"
    assert board.remarks[0] == "a.json answers by letters: they were read as choices, A as a question's first."
    assert not any("b.json answers by letters" in one for one in board.remarks)


def test_figures_that_one_file_lacks_stand_there_for_the_others(tmp_path: Path) -> None:
    asked = [
        {"image": f"{i}.jpg", "question": "what?", "answers": [{"answer": "soup"}] * 10, "answerable": i}
        for i in range(2)
    ]
    against = Against(questions=write(tmp_path / "Annotations/val.json", asked))
    said = write(tmp_path / "said.json", [{"image": f"{i}.jpg", "answer": "soup"} for i in range(2)])
    sure = write(tmp_path / "sure.json", [{"image": f"{i}.jpg", "answerable": i / 2} for i in range(2)])
    board = score_results([said, sure], against, ScoreOptions(metrics=("answerability",)))
    table = board.tables()[-1]
    assert {row.name: row.values for row in table.rows} == {
        "F1 by the answers": (pytest.approx(200 / 3), None),
        "average precision": (None, 100.0),
    }
    assert "average precision: not computed of said.json: needs a field" in table.note
    assert "sure.json has no answers, only 'answerable': each counts as empty." in board.remarks
