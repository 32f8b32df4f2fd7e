"""What further published sets leave out or write in another way: a field that can be computed is never demanded."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.formats import annotations, questions, write
from helpers.published import PUBLISHED, gqa_all, pathvqa, slake

from vqa.data.dataset import missing_images
from vqa.data.formats import read_dataset
from vqa.data.formats.official import read_official
from vqa.errors import InputError


def test_the_majority_follows_from_the_answers_and_the_image_from_the_question(tmp_path: Path) -> None:
    asked = write(tmp_path / "q.json", questions([110, 120], "mscoco", "val2014"))
    rows: list[dict[str, Any]] = [
        {"question_id": 110, "answers": [{"answer": text} for text in ["run", "race", "race", "run", "ride"]]},
        {"question_id": 120, "answers": ["poodle"]},
    ]
    dataset = read_official(asked, write(tmp_path / "a.json", {"annotations": rows}))
    assert dataset.majority is not None and dataset.answers is not None
    assert [dataset.majority.at(row) for row in range(2)] == ["run", "poodle"]  # of equals the first
    assert dataset.answers.row(1) == ["poodle"] and dataset.question_type is None


def test_a_published_majority_is_kept_where_the_answers_would_say_another(tmp_path: Path) -> None:
    file = annotations([11], "mscoco", "val2014")
    file["annotations"][0]["multiple_choice_answer"] = "answer 2"
    asked = write(tmp_path / "q.json", questions([11], "mscoco", "val2014"))
    dataset = read_official(asked, write(tmp_path / "a.json", file))
    assert dataset.majority is not None and dataset.majority.at(0) == "answer 2"


def clevr_row(**fields: object) -> dict[str, object]:
    return {"image_filename": "CLEVR_new_000000.png", "image_index": 0, "question": "How many?", **fields}


def test_what_the_clevr_generator_writes_reads_as_the_published_files(tmp_path: Path) -> None:
    rows = [
        clevr_row(answer=3, question_index=5, program=[{"type": "scene"}, {"type": "count", "side_inputs": []}]),
        clevr_row(answer=True, question_index=6, program=[{"function": "exist"}]),
        clevr_row(answer=False, question_index=7, program=[{"type": "exist"}]),
        clevr_row(answer="green", question_index=8, program=[{"type": "query_color"}]),
    ]
    write(tmp_path / "CLEVR_questions.json", {"info": {}, "questions": rows})
    dataset = read_dataset("clevr", tmp_path, "new")
    assert dataset.majority is not None and dataset.question_type is not None
    assert [dataset.majority.at(row) for row in range(4)] == ["3", "yes", "no", "green"]
    assert [dataset.question_type.at(row) for row in range(4)] == ["count", "exist", "exist", "query_color"]
    assert dataset.question_id_N.tolist() == [5, 6, 7, 8]


def test_questions_without_an_index_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "CLEVR_train_questions.json", {"questions": [clevr_row(answer="3"), clevr_row(answer="4")]})
    assert read_dataset("clevr", tmp_path, "train").question_id_N.tolist() == [0, 1]
    write(tmp_path / "CLEVR_val_questions.json", {"questions": [clevr_row(answer="3"), clevr_row(question_index=1)]})
    with pytest.raises(InputError, match=r"CLEVR_val_questions.json: question 0 .* has no id, but others have"):
        read_dataset("clevr", tmp_path, "val")


def test_a_folder_with_the_other_gqa_files_names_the_format_that_reads_them(tmp_path: Path) -> None:
    gqa_all(tmp_path)
    with pytest.raises(InputError, match=r"train_all_questions_0\.json is read by --format gqa_all"):
        read_dataset("gqa", tmp_path, "train")
    with pytest.raises(InputError, match=r"testdev_all_questions\.json is read by --format gqa_all"):
        read_dataset("gqa", tmp_path, "test-dev")
    write(tmp_path / "other" / "val_balanced_questions.json", {})
    with pytest.raises(InputError, match=r"val_balanced_questions\.json is read by --format gqa$"):
        read_dataset("gqa_all", tmp_path / "other", "val")


def test_the_parts_of_all_gqa_questions_are_one_split_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    gqa_all(tmp_path)
    folder = tmp_path / "questions" / "train_all_questions"
    row = {"imageId": "n9", "question": "Is it last?", "answer": "yes", "types": {"structural": "verify"}}
    for part in (10, 9, 8, 7, 6, 5, 4, 3):
        write(folder / f"train_all_questions_{part}.json", {str(100 + part): row})
    with pytest.raises(InputError, match=r"train_all_questions_2\.json: no such file, though later parts are there"):
        read_dataset("gqa_all", tmp_path, "train")
    write(folder / "train_all_questions_2.json", {"102": row})
    dataset = read_dataset("gqa_all", tmp_path, "train")
    assert dataset.question_id_N.tolist() == [0, 1, *range(102, 111)]
    assert dataset.written_ids[:3] == ["00", "01", "102"]  # as a submission wants them
    assert [path.name for path in dataset.files][-1] == "train_all_questions_10.json"


def test_text_ids_are_counted_and_numbers_stay(tmp_path: Path) -> None:
    PUBLISHED["a_okvqa"](tmp_path)
    dataset = read_dataset("a_okvqa", tmp_path, "train")
    assert dataset.question_id_N.tolist() == [0, 1] and dataset.written_ids == ["22MexNkBPpdZGX6sxbxVBH", "2A"]
    slake(tmp_path)
    assert read_dataset("slake", tmp_path, "val").written_ids == [2, 3]
    rows = json.loads((tmp_path / "aokvqa_v1p0_val.json").read_text())
    write(tmp_path / "aokvqa_v1p0_val.json", [rows[0], rows[1], rows[0]])
    with pytest.raises(InputError, match="'22MexNkBPpdZGX6sxbxVBH' stands in rows 0 and 2"):
        read_dataset("a_okvqa", tmp_path, "val")


def test_the_true_choice_is_the_majority_answer(tmp_path: Path) -> None:
    PUBLISHED["a_okvqa"](tmp_path)
    train, test = (read_dataset("a_okvqa", tmp_path, split) for split in ("train", "test"))
    assert train.majority is not None and train.choices is not None and test.choices is not None
    assert train.majority.at(0) == "cab" and train.choices.row(0) == ["skateboarder", "train", "delivery", "cab"]
    assert test.answers is None and test.majority is None and not test.answers_missing


def test_equal_names_in_different_folders_are_different_images(tmp_path: Path) -> None:
    slake(tmp_path)
    assert read_dataset("slake", tmp_path, "val").images.ids == ("xmlab1/source.jpg",)
    assert read_dataset("slake", tmp_path, "test").images.ids == ("xmlab2/source.jpg",)
    assert [len(read_dataset(name, tmp_path, "val")) for name in ("slake", "slake_en", "slake_zh")] == [2, 1, 1]


def test_images_of_two_coco_splits_in_one_are_each_found(tmp_path: Path) -> None:
    PUBLISHED["fm_iqa"](tmp_path)
    rows = [{"Question": "?", "Answer": "a", "image_id": number} for number in ("9", "42", 42)]
    write(tmp_path / "FM-CH-QA.json", {"train": rows, "val": rows})
    dataset = read_dataset("fm_iqa", tmp_path, "train")
    assert dataset.images.ids == ("9", "42") and missing_images(dataset) == []


def test_a_pickle_that_would_call_something_is_refused(tmp_path: Path) -> None:
    pathvqa(tmp_path)
    path = tmp_path / "qas" / "train" / "train_qa.pkl"
    path.write_bytes(pickle.dumps([{"image": Path("x"), "question": "q", "answer": "a"}]))
    with pytest.raises(InputError, match=r"train_qa\.pkl: not a plain pickled"):
        read_dataset("pathvqa", tmp_path, "train")


def _rsvqa(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "LR_split_val_answers.json"
        file = json.loads(path.read_text())
        change(file["answers"])
        write(path, file)

    return apply


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_rsvqa(lambda rows: rows.pop(0)), "question 3 has no answer"),
        (_rsvqa(lambda rows: rows.append({**rows[0], "answer": "no"})), "question 3 has two answers"),
        (_rsvqa(lambda rows: rows[0].pop("answer")), "answer 0 .* is empty"),
    ],
)
def test_answers_that_do_not_fit_their_questions_are_named(
    damage: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    PUBLISHED["rsvqa_lr"](tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=rf"LR_split_val_answers\.json: {words}"):
        read_dataset("rsvqa_lr", tmp_path, "val")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"rows": []}, "holds no list of questions"),
        ([], "holds no questions of val"),
        ([3], "question 0 .* is no object"),
        ([{"img_name": "../x.jpg", "question": "q", "answer": "a"}], "is not an image's name"),
        ([{"img_name": "x.jpg", "question": " ", "answer": "a"}], "has no question"),
        ([{"img_name": "x.jpg", "question": "q", "answer": {"a": 1, "answer": [1]}}], "an answer is no text"),
        ([{"img_name": "x.jpg", "question": "q", "answer": list("abcdefghijk")}], "11 answers"),
        ([{"img_name": "x.jpg", "question": "q"}], "no question has answers or answer"),
    ],
)
def test_a_list_with_a_wrong_question_is_named(rows: object, words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "validate.json", rows)
    with pytest.raises(InputError, match=words) as error:
        read_dataset("slake", tmp_path, "val")
    assert str(path) in str(error.value)
