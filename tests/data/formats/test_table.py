"""The table format: CSV, TSV and JSON lines as people really write them."""

import csv
import io
import json
from pathlib import Path

import pytest

from vqa.data.check import check_dataset
from vqa.data.formats import read_dataset
from vqa.errors import InputError


def test_one_file_holds_all_splits_by_its_column(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "ID,Image,Question,Answer,Split,question_type,answer_type,note\n"
        "5,a/1.png,What is it?,a cat,train,what,other,x\n"
        "6,./a/1.png,Is it?,yes,val,is,yes/no,\n"
        "7,a/2.png,Is it?,no,train,is,yes/no,y\n"
    )
    train, val = (read_dataset("table", path, split) for split in ("train", "val"))
    assert train.question_id_N.tolist() == [5, 7] and val.question_id_N.tolist() == [6]
    assert train.images.ids == ("a/1.png", "a/2.png") and val.images.ids == ("a/1.png",)
    assert train.images.paths[0] == tmp_path / "a" / "1.png"
    assert train.answers is not None and train.answers.row(0) == ["a cat"]
    assert train.answer_type is not None and train.answer_type.at(1) == "yes/no"
    with pytest.raises(InputError, match="no row is of split 'test'; there are: train, val"):
        read_dataset("table", path, "test")
    assert read_dataset("table", tmp_path, "val").question_id_N.tolist() == [6]  # the one table of its folder
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / "a" / "2.png").touch()
    for root in (path, tmp_path):
        shown = [(row.level, row.item) for row in check_dataset(root, "table").rows if row.level in ("ok", "error")]
        assert shown == [("ok", "train"), ("ok", "val")]
    (tmp_path / "val.csv").write_text("image,question\nb.png,Is it?\n")
    assert len(read_dataset("table", tmp_path, "val")) == 1 and read_dataset("table", tmp_path, "val").answers is None


def test_without_a_split_column_the_name_of_the_file_is_the_split(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('\n{"image": "1.png", "question": "q", "answers": ["a", "b", "b"]}\n\n')
    for root in (path, tmp_path):
        dataset = read_dataset("table", root, "train")
        assert dataset.majority is not None and dataset.majority.at(0) == "b"
    with pytest.raises(InputError, match="holds the split 'train', not 'val'"):
        read_dataset("table", path, "val")


def test_rows_without_answers_are_a_split_with_hidden_answers(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("image,question,answer\n1.png,q,\n")
    dataset = read_dataset("table", tmp_path, "test")
    assert dataset.answers is None and dataset.majority is None


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_marks_line_ends_blank_lines_and_long_questions(tmp_path: Path, bom: bytes, end: str) -> None:
    long = "why " * 25_000
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    writer.writerows([["image", "question", "answer"], [], ["1.png", long, 'say "é, 😀"'], ["", " ", ""], []])
    (tmp_path / "train.csv").write_bytes(bom + text.getvalue().encode())
    row = {"image": "1.png", "question": long, "answer": 'say "é, 😀"'}
    (tmp_path / "val.jsonl").write_bytes(bom + (end + json.dumps(row) + end + end).encode())
    for split in ("train", "val"):
        dataset = read_dataset("table", tmp_path, split)
        assert len(dataset) == 1 and dataset.question.at(0).strip() == long.strip()
        assert dataset.answers is not None and dataset.answers.row(0) == ['say "é, 😀"']


def test_lists_in_a_cell_are_json_or_separated_by_bars(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        'image,question,answers,choices\n1.png,q,"[""a|b"", 2]","c, d | e"\n2.png,q,a,"[""x"", ""y"", ""z""]"\n'
    )
    dataset = read_dataset("table", tmp_path, "train")
    assert dataset.answers is not None and dataset.choices is not None
    assert [dataset.answers.row(row) for row in (0, 1)] == [["a|b", "2"], ["a"]]
    assert [dataset.choices.row(row) for row in (0, 1)] == [["c, d", "e"], ["x", "y", "z"]]


HEADER = "image,question,answer\n"
BAD = {
    "no rows": ("csv", HEADER, "no questions"),
    "empty": ("csv", "", "no questions"),
    "no column image": ("csv", "photo,question\n1,q\n", "no column image"),
    "bars": ("csv", "image|question|answer\n1.png|q|a\n", "it has: image|question|answer"),
    "column twice": ("csv", "image,question,image\n1,q,1\n", "two columns 'image'"),
    "cell too many": ("csv", HEADER + "1.png,q,a\n1.png,what, really,a\n", "line 3: 4 cells under a header of 3"),
    "open quote": ("csv", HEADER + '1.png,"q,a\n2.png,q,a\n', "line 3"),
    "no image": ("csv", HEADER + ",q,a\n", "line 2: no image"),
    "no question": ("csv", HEADER + "1.png,,a\n", "line 2: no question"),
    "spaces for a question": ("jsonl", '{"image": "1.png", "question": " "}\n', "line 1: no question"),
    "some unanswered": ("csv", HEADER + "1.png,q,a\n1.png,q,\n", "1 of 2 rows have no answer"),
    "both kinds": ("csv", "image,question,answer,answers\n1.png,q,a,b|c\n", "line 2: both answer and answers"),
    "eleven": ("csv", "image,question,answers\n1.png,q," + "|".join("abcdefghijk") + "\n", "line 2 has 11 answers"),
    "bad list": ("csv", 'image,question,answers\n1.png,q,"[""a"""\n', "line 2"),
    "same text id": ("csv", "image,question,id\n1.png,q,x1\n1.png,q,x1\n", "question_id 'x1' appears 2 times"),
    "same id": ("csv", "image,question,id\n1.png,q,4\n1.png,q,4\n", "question_id 4 appears 2 times"),
    "some ids": ("csv", "image,question,id\n1.png,q,4\n1.png,q,\n", "only 1 of 2 rows have an id"),
    "some choices": ("csv", "image,question,choices\n1.png,q,a|b\n1.png,q,\n", "line 3: no choices"),
    "some types": ("csv", "image,question,answer_type\n1.png,q,a\n1.png,q,\n", "no answer_type"),
    "some splits": ("csv", "image,question,split\n1.png,q,train\n1.png,q,\n", "no split"),
    "not JSON": ("jsonl", '{"image": "1.png", "question": "q"}\n{image}\n', "line 2: not valid JSON"),
    "not an object": ("jsonl", "[1]\n", "row 1: Expected `object`"),
    "wrong type": ("jsonl", '{"image": "1", "question": ["q"]}\n', "line 1: column question holds a list"),
    "no image, no text": ("jsonl", '{"image": {"x": 1}, "question": "q"}\n', "line 1: column image holds an object"),
    "empty answer": ("csv", "image,question,answers\n1.png,q,a||b\n", "line 2: an answer is empty"),
    "empty in JSON": (
        "jsonl",
        '{"image": "1", "question": "q", "answers": [" "]}\n',
        "line 1: an answer is empty",
    ),
    "no answers in list": ("jsonl", '{"image": "1", "question": "q", "answers": []}\n', "line 1 has 0 answers"),
    "null byte": ("jsonl", '{"image": "\\u0000", "question": "q"}\n', "line 1: image '\\x00' is not a path"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_with_file_and_line(name: str, tmp_path: Path) -> None:
    ending, text, words = BAD[name]
    path = tmp_path / f"train.{ending}"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_dataset("table", tmp_path, "train")
    assert str(path) in str(error.value) and words in str(error.value), str(error.value)


@pytest.mark.parametrize("encoding", ["latin-1", "gbk"])
def test_other_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    for ending in (".csv", ".tsv", ".json", ".jsonl"):
        path = tmp_path / f"train{ending}"
        path.write_bytes((HEADER + "1.png,où,é\n").encode(encoding))
        with pytest.raises(InputError, match=r"train.*UTF-8"):
            read_dataset("table", path, "train")


def test_wrong_roots_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").touch()
    (tmp_path / "train.TSV").touch()
    (tmp_path / "data.xlsx").touch()
    for root, split, words in (
        (tmp_path, "train", "keep one"),
        (tmp_path / "none", "train", "no such file"),
        (tmp_path / "data.xlsx", "train", "a table ends in .csv"),
        (tmp_path, "../train", "not a path"),
    ):
        with pytest.raises(InputError, match=words):
            read_dataset("table", root, split)
