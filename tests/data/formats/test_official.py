"""The readers of the official VQA files: what they return, and what they say about damaged files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.formats import annotations, questions, write, write_official

from vqa.data.dataset import missing_images
from vqa.data.formats import FORMATS, read_dataset
from vqa.data.formats.official import read_official
from vqa.errors import InputError

IDS = [52, 10, 11, 40, 31]


def test_v2_columns_follow_the_questions_file_though_annotations_and_choices_are_in_another_order(
    tmp_path: Path,
) -> None:
    write_official(tmp_path, IDS, "train2014", prefix="v2_")
    write(tmp_path / "v2_mscoco_train2014_complementary_pairs.json", [[10, 40], [31, 999]])
    dataset = read_dataset("vqa_v2", tmp_path, "train")
    assert dataset.name == "vqa_v2 train2014"
    assert dataset.question_id_N.tolist() == IDS
    assert [dataset.images.ids[row] for row in dataset.image_row_N] == ["5", "1", "1", "4", "3"]
    assert [dataset.question.at(row) for row in range(5)] == [f"What is number {i % 4}?" for i in IDS]
    assert dataset.answers is not None and dataset.choices is not None
    assert dataset.majority is not None and dataset.answer_type is not None and dataset.pairs_P2 is not None
    source = {row["question_id"]: row for row in annotations(IDS, "mscoco", "train2014")["annotations"]}
    for row, number in enumerate(IDS):
        assert dataset.answers.row(row) == [answer["answer"] for answer in source[number]["answers"]]
        assert dataset.majority.at(row) == source[number]["multiple_choice_answer"]
        assert dataset.answer_type.at(row) == source[number]["answer_type"]
        assert dataset.choices.row(row)[0] == f"answer {number % 5}"
        assert len(dataset.choices.row(row)) == 18
    assert dataset.pairs_P2.tolist() == [[10, 40]]
    assert {path.name for path in dataset.files} == {path.name for path in tmp_path.glob("*.json")}


@pytest.mark.parametrize("split", ["test", "test-dev"])
def test_splits_without_answers_read_without_annotations_and_show_the_test_images(tmp_path: Path, split: str) -> None:
    write_official(tmp_path, IDS, f"{split}2015", choices=False)
    dataset = read_dataset("vqa_v1", tmp_path, split)
    assert dataset.answers is None and dataset.majority is None and dataset.choices is None
    assert dataset.answer_type is None and dataset.pairs_P2 is None
    assert dataset.images.paths[0].name == "COCO_test2015_000000000001.jpg"


def test_published_folders_are_found_and_only_absent_images_are_missing(tmp_path: Path) -> None:
    write_official(tmp_path / "Questions" / "v1", IDS, "val2015", data_type="abstract_v002")
    images = tmp_path / "Images" / "abstract_v002" / "val2015"
    images.mkdir(parents=True)
    for number in (1, 3, 4):
        (images / f"abstract_v002_val2015_{number:012d}.png").touch()
    dataset = read_dataset("abstract", tmp_path, "val")
    assert {path.parent for path in dataset.images.paths} == {images}
    assert [path.name for path in missing_images(dataset)] == ["abstract_v002_val2015_000000000005.png"]


def test_without_any_image_every_image_is_missing_but_the_questions_read(tmp_path: Path) -> None:
    write_official(tmp_path, IDS, "val2014")
    dataset = read_dataset("vqa_v1", tmp_path, "val")
    assert len(missing_images(dataset)) == len(dataset.images.paths) == 4


def test_long_folders_of_images_are_not_listed_to_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_official(tmp_path, IDS, "val2014")
    images = tmp_path / "val2014"
    images.mkdir()
    for number in range(1500):
        (images / f"COCO_val2014_{number:012d}.jpg").touch()
    import vqa.data.formats.find as find

    seen = 0
    inside = find.islice

    def counting(entries: Any, limit: int | None) -> Any:
        nonlocal seen
        for entry in inside(entries, limit):
            seen += 1
            yield entry

    monkeypatch.setattr(find, "islice", counting)
    assert find.find_file(tmp_path, "no such name") is None
    assert 1000 <= seen < 1100
    assert not missing_images(read_dataset("vqa_v1", tmp_path, "val"))


def test_only_the_multiple_choice_questions_are_enough(tmp_path: Path) -> None:
    write_official(tmp_path, IDS, "train2014")
    (tmp_path / "OpenEnded_mscoco_train2014_questions.json").unlink()
    dataset = read_dataset("vqa_v1", tmp_path, "train")
    assert dataset.choices is not None and dataset.question_id_N.tolist() == IDS[::-1]


def test_any_files_are_read_by_their_paths_and_take_split_and_type_from_the_file(tmp_path: Path) -> None:
    asked = write(tmp_path / "q.json", questions(IDS, "mscoco", "val2014"))
    answered = write(tmp_path / "a.json", annotations(IDS, "mscoco", "val2014"))
    dataset = read_official(asked, answered)
    assert (dataset.split, dataset.data_type, len(dataset)) == ("val2014", "mscoco", 5)
    assert dataset.images.paths[0] == tmp_path / "COCO_val2014_000000000001.jpg"


def test_types_are_none_when_no_annotation_has_them(tmp_path: Path) -> None:
    file = annotations(IDS, "mscoco", "val2014")
    for row in file["annotations"]:
        del row["question_type"], row["answer_type"]
    dataset = read_official(
        write(tmp_path / "q.json", questions(IDS, "mscoco", "val2014")), write(tmp_path / "a.json", file)
    )
    assert dataset.question_type is None and dataset.answer_type is None and dataset.answers is not None


def test_taking_rows_keeps_choices_pairs_and_images_together(tmp_path: Path) -> None:
    write_official(tmp_path, IDS, "train2014", prefix="v2_")
    write(tmp_path / "v2_mscoco_train2014_complementary_pairs.json", [[10, 40], [31, 52]])
    part = read_dataset("vqa_v2", tmp_path, "train").take(np.array([0, 4]))
    assert part.question_id_N.tolist() == [52, 31]
    assert [part.images.ids[row] for row in part.image_row_N] == ["5", "3"]
    assert part.pairs_P2 is not None and part.pairs_P2.tolist() == [[31, 52]]


# Each damage is done to a whole, valid set of files; the message must hold all the words beside it.
Q, M, A = (f"{kind}mscoco_val2014_{end}.json" for kind, end in (
    ("OpenEnded_", "questions"), ("MultipleChoice_", "questions"), ("", "annotations")))  # fmt: skip
P = "mscoco_val2014_complementary_pairs.json"


def _change(name: str, change: Any) -> Any:
    def damage(root: Path) -> None:
        file = json.loads((root / name).read_text())
        write(root / name, change(file) or file)

    return damage


def _cut(name: str) -> Any:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-40])


DAMAGES: dict[str, tuple[Any, list[str]]] = {
    "no questions file": (lambda root: [(root / name).unlink() for name in (Q, M)], [Q, "found no"]),
    "truncated questions": (_cut(Q), [Q, "truncated"]),
    "truncated annotations": (_cut(A), [A, "truncated"]),
    "empty file": (lambda root: (root / A).write_bytes(b""), [A, "truncated"]),
    "not UTF-8": (lambda root: (root / Q).write_bytes((root / Q).read_bytes().replace(b"What", b"W\xff", 1)), [Q]),
    "too deep": (lambda root: (root / Q).write_bytes(b"[" * 100_000), [Q]),
    "a folder instead of a file": (
        lambda root: ((root / M).unlink(), (root / Q).unlink(), (root / Q).mkdir()),
        [Q, "found no"],
    ),
    "text instead of an object": (_change(Q, lambda file: "questions"), [Q, "object"]),
    "no list": (_change(Q, lambda file: {"info": 1}), [Q, "questions"]),
    "no questions in it": (_change(Q, lambda file: {"questions": []}), [Q, "no questions"]),
    "text for an id": (_change(Q, lambda f: f["questions"][3].update(question_id="x")), [Q, "question 3", "int"]),
    "a huge id": (_change(Q, lambda f: f["questions"][3].update(question_id=2**70)), [Q, "question 3"]),
    "a negative image": (_change(Q, lambda f: f["questions"][3].update(image_id=-1)), [Q, "question 3", "image_id"]),
    "no question text": (_change(Q, lambda f: f["questions"][2].pop("question") and None), [Q, "question 2"]),
    "question twice": (_change(Q, lambda f: f["questions"].append(f["questions"][1])), [Q, "10", "2 times"]),
    "annotation twice": (_change(A, lambda f: f["annotations"].append(f["annotations"][0])), [A, "10", "2 times"]),
    "question unanswered": (_change(A, lambda f: f["annotations"].pop() and None), [A, Q, "no annotation", "52"]),
    "annotation unasked": (
        _change(A, lambda f: f["annotations"].append({**f["annotations"][0], "question_id": 99})),
        [A, Q, "not in", "99"],
    ),
    "other image": (_change(A, lambda f: f["annotations"][0].update(image_id=7)), [A, Q, "question 10", "7"]),
    "no answers": (_change(A, lambda f: f["annotations"][0].update(answers=[])), [A, "question 10", "0 answers"]),
    "eleven answers": (
        _change(A, lambda f: f["annotations"][0].update(answers=[{"answer": "no"}] * 11)),
        [A, "question 10", "11 answers"],
    ),
    "answer a number": (
        _change(A, lambda f: f["annotations"][1].update(answers=[{"answer": 4}])),
        [A, "annotation 1", "str"],
    ),
    "one without a type": (_change(A, lambda f: f["annotations"][1].pop("answer_type") and None), [A, "answer_type"]),
    "choices of other questions": (_change(M, lambda f: f["questions"][0].update(question_id=35)), [M, "35", "31"]),
    "one without choices": (_change(M, lambda f: f["questions"][0].pop("multiple_choices") and None), [M, "4 of 5"]),
    "no choices": (lambda root: (root / M).write_bytes((root / Q).read_bytes()), [M, "multiple_choices"]),
    "annotations of another split": (
        lambda root: write(root / A, annotations([900, 901], "mscoco", "train2014")),
        [A, Q, "'train2014'", "'val2014'"],
    ),
    "pairs of another split": (lambda root: write(root / P, [[1, 2]]), [P, "another split"]),
    "pairs of three": (lambda root: write(root / P, [[10, 11, 31]]), [P]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_message_that_names_file_and_item(name: str, tmp_path: Path) -> None:
    write_official(tmp_path, IDS, "val2014")
    damage, words = DAMAGES[name]
    damage(tmp_path)
    with pytest.raises(InputError) as error:
        read_dataset("vqa_v1", tmp_path, "val")
    for word in words:
        assert word in str(error.value), str(error.value)


def test_wrong_names_and_roots_are_named_with_the_right_choices(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'vqa_v2'"):
        read_dataset("vqa_v3", tmp_path, "val")
    with pytest.raises(InputError, match="did you mean 'val2014'"):
        read_dataset("vqa_v2", tmp_path, "val2015")
    with pytest.raises(InputError, match="no such folder"):
        read_dataset("vqa_v2", tmp_path / "nowhere", "val")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        read_dataset("easy_vqa", tmp_path / "file", "test")


def test_every_format_says_what_it_is() -> None:
    for name, format in FORMATS.items():
        assert format.about and callable(format.read), name


@pytest.mark.parametrize("said", ["x" * 300, "../..", "abstract_v002"])
def test_images_are_named_by_the_files_name_whatever_is_said_inside(tmp_path: Path, said: str) -> None:
    write(tmp_path / "v2_OpenEnded_mscoco_test2015_questions.json", questions([90], said, "test2015"))
    dataset = read_dataset("vqa_v2", tmp_path, "test")
    assert dataset.images.paths[0].name == "COCO_test2015_000000000009.jpg" and dataset.data_type == "mscoco"


@pytest.mark.parametrize("said", ["x" * 300, "../..", "", "test2015"])
def test_vqa_cp_images_of_no_coco_split_are_named(tmp_path: Path, said: str) -> None:
    asked = [row | {"coco_split": "val2014"} for row in questions([10, 11], "", "")["questions"]]
    asked[1]["coco_split"] = said
    path = write(tmp_path / "vqacp_v1_test_questions.json", asked)
    with pytest.raises(InputError, match=r"question 11: coco_split '.*' is not train2014 or val2014") as error:
        read_dataset("vqa_cp_v1", tmp_path, "test")
    assert str(path) in str(error.value)


def test_the_order_of_the_annotations_can_be_taken_and_keeps_every_row_together(tmp_path: Path) -> None:
    asked = write(tmp_path / "q.json", questions(IDS, "mscoco", "val2014", choices=True))
    answered = write(tmp_path / "a.json", annotations(sorted(IDS), "mscoco", "val2014"))
    plain, ordered = read_official(asked, answered), read_official(asked, answered, as_annotated=True)
    assert plain.question_id_N.tolist() == IDS and ordered.question_id_N.tolist() == sorted(IDS)
    for row, number in enumerate(sorted(IDS)):
        before = IDS.index(number)
        for name in ("answers", "choices"):
            assert getattr(ordered, name).row(row) == getattr(plain, name).row(before)
        assert ordered.question.at(row) == plain.question.at(before)
        assert ordered.images.ids[ordered.image_row_N[row]] == plain.images.ids[plain.image_row_N[before]]
