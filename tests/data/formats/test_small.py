"""The readers of DAQUAR's raw text and of easy-VQA."""

from pathlib import Path

import pytest
from helpers.formats import write

from vqa.data.dataset import missing_images
from vqa.data.formats import read_dataset
from vqa.errors import InputError

RAW = """what is on the desk in the image3 ?
book, scissor, tape_dispenser
what color is the wall of the image10 behind the door in the image10 ?
white
how many chairs are in this image3 ?
2
"""


def _daquar(root: Path, text: str, split: str = "train", ending: str = "txt") -> Path:
    root.mkdir(exist_ok=True)
    path = root / f"qa.894.raw.{split}.{ending}"
    path.write_text(text)
    return path


def test_daquar_answers_are_whole_lists_and_questions_do_not_name_their_image(tmp_path: Path) -> None:
    _daquar(tmp_path, RAW)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "image3.jpg").touch()
    dataset = read_dataset("daquar", tmp_path, "train")
    assert [dataset.question.at(row) for row in range(3)] == [
        "what is on the desk ?",
        "what color is the wall of the image behind the door ?",
        "how many chairs are ?",
    ]
    assert dataset.answers is not None and dataset.majority is not None
    assert dataset.answers.codes.shape == (3, 1)
    assert dataset.answers.row(0) == ["book, scissor, tape_dispenser"] == [dataset.majority.at(0)]
    assert [dataset.images.ids[row] for row in dataset.image_row_N] == ["image3", "image10", "image3"]
    assert missing_images(dataset) == [tmp_path / "images" / "image10.jpg"]
    assert dataset.answer_type is None and dataset.question_type is None


def test_daquar_triples_name_the_image_on_their_own_line(tmp_path: Path) -> None:
    _daquar(tmp_path, "what is on the desk ?\nbook\nimage7\nhow many lamps ?\n2\nimage8\n\n", "test", "format_triple")
    dataset = read_dataset("daquar", tmp_path, "test")
    assert dataset.images.ids == ("image7", "image8")
    assert [dataset.question.at(row) for row in range(2)] == ["what is on the desk ?", "how many lamps ?"]


REDUCIBLE = """what is on the desk in the image28 ?
table, chair
what color is the wall in the image28 ?
white
how many chairs are in the image9 ?
12
what colors has the rug in the image28 ?
blue, white
what is on the desk in the image28 ?
scissor
what is left of the telephone in the image28 ?
lamp, telephone
what is next to the bed in the image3 ?
night_stand
"""


@pytest.mark.parametrize(
    ("split", "answers"),
    [("train", ["table, chair", "white", "12", "night_stand"]), ("test", ["table, chair", "white"])],
)
def test_reduced_daquar_is_made_from_the_full_files_by_the_published_lists(
    tmp_path: Path, split: str, answers: list[str]
) -> None:
    """Lists of colours and classes outside the 37 go; of the test images image28 is one of the 25."""
    _daquar(tmp_path, REDUCIBLE, split)
    dataset = read_dataset("daquar_reduced", tmp_path, split)
    assert dataset.majority is not None and dataset.format == "daquar_reduced"
    assert [dataset.majority.at(row) for row in range(len(dataset))] == answers
    assert dataset.question_id_N.tolist() == list(range(len(answers)))
    (tmp_path / f"qa.37.raw.{split}.txt").write_text("what is red in the image3 ?\nsofa\n")
    assert len(read_dataset("daquar_reduced", tmp_path, split)) == 1  # its own file comes first


def test_a_full_daquar_file_without_a_reduced_question_says_so(tmp_path: Path) -> None:
    path = _daquar(tmp_path, "what is red in the image3 ?\nscissor\n")
    with pytest.raises(InputError, match="no question of it belongs to the reduced set") as error:
        read_dataset("daquar_reduced", tmp_path, "train")
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (RAW + "what is this in the image4 ?\n", "line 7"),
        (RAW.replace("white\n", ""), "line 4: a question where an answer"),
        (RAW.replace("in the image3 ?", "here ?"), "line 1: a question that does not end"),
        ("", "no questions"),
        ("\n \n", "no questions"),
        ("q ?\na\nimage1\nq ?\na\nfile2\n", "line 6: an image's name"),
    ],
)
def test_damaged_daquar_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    path = _daquar(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_dataset("daquar", tmp_path, "train")
    assert str(path) in str(error.value) and words in str(error.value)


def test_daquar_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "qa.894.raw.train.txt").write_bytes("what é in the image3 ?\nno\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_dataset("daquar", tmp_path, "train")


def test_easy_vqa_image_ids_are_unique_over_the_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / split / "questions.json", [["what shape?", "circle", 1], ["is it red?", "no", 0]])
    (tmp_path / "test" / "images").mkdir()
    (tmp_path / "test" / "images" / "1.png").touch()
    train, test = (read_dataset("easy_vqa", tmp_path, split) for split in ("train", "test"))
    assert train.images.ids == ("train/0", "train/1") and test.images.ids == ("test/0", "test/1")
    assert [train.images.ids[row] for row in train.image_row_N] == ["train/1", "train/0"]
    assert missing_images(test) == [tmp_path / "test" / "images" / "0.png"]
    assert test.answers is not None and test.answers.row(0) == ["circle"]


@pytest.mark.parametrize("rows", [[], [["what?", "circle"]], [["what?", 3, 1]], [["what?", "circle", "1"]], {"a": 1}])
def test_damaged_easy_vqa_names_the_file(tmp_path: Path, rows: object) -> None:
    path = write(tmp_path / "train" / "questions.json", rows)
    with pytest.raises(InputError) as error:
        read_dataset("easy_vqa", tmp_path, "train")
    assert str(path) in str(error.value)
