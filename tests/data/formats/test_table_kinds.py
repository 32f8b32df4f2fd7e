"""The same table as CSV, TSV, JSON, JSON lines and parquet: the same data set, whatever the words."""

import base64
import codecs
import csv
import hashlib
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from vqa.data.dataset import QADataset, concatenate
from vqa.data.formats import read_dataset
from vqa.data.formats.table import TableOptions
from vqa.errors import InputError
from vqa.evaluation.results import read_results, write_results

pyarrow = pytest.importorskip("pyarrow")
Rows = Sequence[dict[str, Any]]
# of each script a letter, its vowel signs, joiners or digits, and what it writes sentences with
SCRIPTS = (
    "aé̀ßİı", "яїЁ", "αΰς", "עִבּ", "عربيّةلا٣", "हिन्दी१", "বাংলা", "தமிழ்", "తెలుగు", "ไทยำ", "ລາວ", "བོད", "မြန်မာ",
    "ქართული", "հայ", "አማርኛ", "ខ្មែរ", "中文字、。", "ひらカナー", "한국어힣", "ᏣᎳᎩ", "😀👩‍👩‍👧🇨🇭",
)  # fmt: skip
WILD = "\"'`|,;\t\\/[]{}()<>:=#%&-_.\u00a0\u2028\u2029\u200b\ufeff\u3000\x0b\x0c\x1c\x85 0123456789"


def cell(*, lines: bool = True) -> st.SearchStrategy[str]:
    """A text that has something in it, of all scripts and signs that files may mean something by."""
    letters = "".join(SCRIPTS) + WILD + ("\n\r" if lines else "")
    return st.text(
        st.sampled_from(letters) | st.characters(codec="utf-8", exclude_characters="\0\n\r"), min_size=1
    ).filter(lambda text: text.strip() != "")


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([list(rows[0]), *([as_text(cell) for cell in row.values()] for row in rows)])


def write_tsv(path: Path, rows: Rows) -> None:
    lines = ["\t".join(rows[0]), *("\t".join(as_text(cell) for cell in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")


def write_json(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")


def write_lines(path: Path, rows: Rows) -> None:
    path.write_text(
        "\n".join(json.dumps(row, ensure_ascii=len(rows) > 1) for row in rows), encoding="utf-8", newline=""
    )


def write_parquet(path: Path, rows: Rows) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    ".csv": write_csv,
    ".TSV": write_tsv,
    ".json": write_json,
    ".jsonl": write_lines,
    ".parquet": write_parquet,
}


def as_text(cell: Any) -> str:
    """A cell of a text file: what JSON writes, but a text as it is."""
    return "" if cell is None else cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)


def read_back(folder: Path, rows: Rows, ending: str, **options: Any) -> QADataset:
    path = folder / f"train{ending}"
    WRITERS[ending](path, rows)
    try:
        return read_dataset("table", path, "train", TableOptions.of(options.get("columns"), options.get("where")))
    finally:
        path.unlink()


def content(dataset: QADataset) -> dict[str, Any]:
    """All that a data set says, as plain values."""
    count = range(len(dataset))

    def of(column: Any) -> Any:
        if column is None:
            return None
        return [column.row(row) if column.codes.ndim == 2 else column.at(row) for row in count]

    names = ("question", "answers", "majority", "choices", "question_type", "answer_type", "question_names")
    return {
        "images": [dataset.images.ids[row] for row in dataset.image_row_N],
        "ids": dataset.question_id_N.tolist(),
        **{name: of(getattr(dataset, name)) for name in names},
    }


def row(image: str, question: str, answers: list[str], type: str, id: str, choices: list[str]) -> dict[str, Any]:
    return {"id": id, "image": image, "question": question, "answers": answers, "choices": choices, "answer_type": type}


@st.composite
def tables(draw: st.DrawFn, *, lines: bool) -> list[dict[str, Any]]:
    one, few = cell(lines=lines), st.lists(cell(), min_size=1, max_size=3)
    named = draw(st.booleans())
    ids = st.lists(
        one.map(str.strip) if named else st.integers(0, 2**63 - 1).map(str), min_size=1, max_size=3, unique=True
    )
    path = st.text(
        st.characters(codec="utf-8", exclude_characters="\0\t\r\n", exclude_categories=["Z", "C"]), min_size=1
    )
    return [row(draw(path), draw(one), draw(few), draw(one), id, draw(few)) for id in draw(ids)]


SAID = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@SAID
@given(tables(lines=False))
@example([row("a.png", 'say "é"\u00a0', ["true", "3.5", '["a"]', "a|b"], "['x' 'y']", "q\u00a01", [" b ", "\u3000c"])])
def test_the_same_words_are_the_same_data_set_in_every_kind_of_file(tmp_path: Path, rows: Rows) -> None:
    """Cells of a TSV hold no tab, so it is left out where one does; line breaks are in the lists alone."""
    said = {
        ending: content(read_back(tmp_path, rows, ending))
        for ending in WRITERS
        if ending != ".TSV" or not any("\t" in as_text(cell) for one in rows for cell in one.values())
    }
    expected = said[".json"]
    assert expected["question"] == [one["question"].strip() for one in rows]
    assert expected["answers"] == [[answer.strip() for answer in one["answers"]] for one in rows]
    assert expected["choices"] == [[choice.strip() for choice in one["choices"]] for one in rows]
    assert all(one == expected for one in said.values()), said


@SAID
@given(tables(lines=True))
def test_line_breaks_are_kept_where_a_file_can_hold_them(tmp_path: Path, rows: Rows) -> None:
    expected = content(read_back(tmp_path, rows, ".json"))
    assert content(read_back(tmp_path, rows, ".jsonl")) == content(read_back(tmp_path, rows, ".parquet")) == expected
    if not any(re.search("\r", one[name]) for one in rows for name in ("question", "answer_type", "id")):
        assert content(read_back(tmp_path, rows, ".csv")) == expected  # csv's writer leaves a single \r unquoted


PLAIN_ROW = {"image": "1.png", "question": "q"}
SAME = {
    "true": (True, "true", ["true"]),
    "a number": (3.5, "3.5", ["3.5"]),
    "a whole number": (7, "7", ["7"]),
    "a number with a nought": (2.0, "2.0", ["2.0"]),
    "a list": (["a", "b"], '["a", "b"]', ["a", "b"]),
    "Python's list": (["a", "it's"], "['a', \"it's\"]", ["a", "it's"]),
    "NumPy's list": (["a", "it's"], "['a' \"it's\"]", ["a", "it's"]),
    "NumPy's repr": (["a", "b"], "array(['a', 'b'], dtype=object)", ["a", "b"]),
    "NumPy's numbers": (["1.", "2.5"], "[1. 2.5]", ["1.", "2.5"]),
    "bars": (["a b", "c"], "a b | c", ["a b", "c"]),
    "records": ([{"answer": "net", "n": 1}], "[{'answer': 'net', 'n': 1}]", ["net"]),
    "blanks": ("\u00a0 a \u3000", "\u00a0 a \u3000", ["a"]),
    "a bar in a list": (["a|b"], '["a|b"]', ["a|b"]),
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("ending", WRITERS)
def test_values_are_the_words_that_they_are_written_as(name: str, ending: str, tmp_path: Path) -> None:
    value, text, answers = SAME[name]
    for answered in [text] if ending in (".csv", ".TSV") else [value, text]:
        dataset = read_back(tmp_path, [{**PLAIN_ROW, "answers": answered}], ending)
        assert dataset.answers is not None and dataset.answers.row(0) == answers


def test_numbers_of_json_keep_their_digits(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(
        '[{"image": 7, "question": "q", "answer": 3.50, "id": 12345678901234567890123}]'
    )
    dataset = read_dataset("table", tmp_path, "train")
    assert dataset.images.ids == ("7",) and dataset.written_ids == ["12345678901234567890123"]
    assert dataset.answers is not None and dataset.answers.row(0) == ["3.50"]


@pytest.mark.parametrize("text", ["[a, b]", '["a"', "['a',, 'b']", "[__import__('os')]", "['a' + 'b']", "[1, x]"])
def test_a_list_that_is_none_is_refused_with_how_one_is_written(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'line 2: column answers.*a\|b\|c or \["a", "b"\]'):
        read_back(tmp_path, [{**PLAIN_ROW, "answers": text}], ".csv")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("ending", [".csv", ".TSV", ".json", ".jsonl"])
def test_byte_order_marks_are_read_alike(encoding: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"train{ending}"
    rows = [{"image": "猫.png", "question": "où?", "answer": "é😀"}, {"image": "2.png", "question": "q", "answer": "a"}]
    WRITERS[ending](path, rows)
    marks = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
    path.write_bytes(marks.get(encoding, b"") + path.read_text(encoding="utf-8").encode(encoding))
    dataset = read_dataset("table", tmp_path, "train")
    assert content(dataset)["answers"] == [["é😀"], ["a"]] and dataset.images.ids == ("猫.png", "2.png")
    assert any("UTF-8" in note for note in dataset.notes) == (encoding != "utf-8-sig")
    path.write_bytes(path.read_bytes()[:-1] if encoding != "utf-8-sig" else path.read_bytes() + b"\xff")
    with pytest.raises(InputError, match=r"train.*UTF"):
        read_dataset("table", tmp_path, "train")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_tsv_is_literal_and_its_broken_rows_are_named(end: str, tmp_path: Path) -> None:
    lines = ["image\tquestion\tanswer", '1.png\tis it 5" or 6"?\t"a"', '2.png\t"what\u2028"\tb"']
    path = tmp_path / "train.tsv"
    path.write_text(end.join(lines), newline="")
    dataset = read_dataset("table", tmp_path, "train")
    assert content(dataset)["question"] == ['is it 5" or 6"?', '"what\u2028"']
    assert content(dataset)["answers"] == [['"a"'], ['b"']] and "quotation mark" in dataset.notes[0]
    for broken in ("3.png\tone\ttwo\tb", f'3.png\t"one{end}two"\tb'):
        path.write_text(end.join([*lines, broken]), newline="")
        with pytest.raises(
            InputError, match=r"line 4: \d cells under a header of 3; in a TSV a cell holds neither a tab"
        ):
            read_dataset("table", tmp_path, "train")


@pytest.mark.parametrize(
    "text", ["image;question;answer\na,1.png;q;x,y\n", 'image\tquestion\tanswer\na,1.png\tq\t"x,y"\n']
)
@pytest.mark.parametrize("before", ["", "sep={}\n"])
def test_other_separators_of_a_csv_are_read_and_named(text: str, before: str, tmp_path: Path) -> None:
    separator = text[5]
    (tmp_path / "train.csv").write_text(before.format(separator) + text)
    dataset = read_dataset("table", tmp_path, "train")
    assert dataset.images.ids == ("a,1.png",) and content(dataset)["answers"] == [["x,y"]]
    named = {"\t": "tabs", ";": "semicolons"}[separator]
    assert dataset.notes == (f"its cells are read as separated by {named}",)


def test_a_comma_stays_the_separator_whatever_else_a_header_holds(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("image,question,a; b; c; d; e; f\n1.png,q,x\n")
    assert len(read_dataset("table", tmp_path, "train")) == 1


def test_json_may_be_a_list_data_or_lines_whatever_its_ending(tmp_path: Path) -> None:
    rows = [{**PLAIN_ROW, "answer": str(number)} for number in range(2)]
    lines = "\n".join(map(json.dumps, rows))
    for ending in (".json", ".jsonl", ".JSON", ".JsonL"):
        path = tmp_path / f"train{ending}"
        for text in (
            json.dumps(rows),
            json.dumps({"version": 1, "data": rows}),
            f"\n{lines}\n",
            json.dumps(rows, indent=2),
        ):
            path.write_text(text)
            assert content(read_dataset("table", path, "train"))["answers"] == [["0"], ["1"]]
        path.write_text(json.dumps(rows[0]))
        assert len(read_dataset("table", path, "train")) == 1
        path.unlink()
    path = tmp_path / "train.json"
    for text, words in (
        ('{"questions": []}', "a table is a list of objects"),
        ('{"data": {}}', "data: Expected `array`"),
        ("[[1]]", "row 1: Expected `object`"),
        ("[{]", "not valid JSON"),
        ("3", "line 1: Expected `object`"),
        ("[]", "holds no questions"),
        ("", "holds no questions"),
        ("[" * 100_000, "not valid JSON"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_dataset("table", tmp_path, "train")


def test_files_that_lie_beside_tables_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("image,question,split\n1.png,q,train\n")
    (tmp_path / "results.json").write_text('[{"question_id": 1, "answer": "a"}]')
    (tmp_path / "info.json").write_text('{"version": 1}')
    assert len(read_dataset("table", tmp_path, "train")) == 1  # mine.csv is the one table there
    (tmp_path / "more.json").write_text(json.dumps({"data": [{**PLAIN_ROW, "x": "y" * 100_000}]}))
    with pytest.raises(InputError, match="there are the splits train, more"):
        read_dataset("table", tmp_path, "val")
    for ending in (".csv", ".json"):
        WRITERS[ending](tmp_path / f"val{ending}", [PLAIN_ROW])
    dataset = read_dataset("table", tmp_path, "val")
    assert dataset.files == (tmp_path / "val.csv",) and dataset.notes == ("val.json beside it is not read",)
    (tmp_path / "val.tsv").touch()
    with pytest.raises(InputError, match="keep one"):
        read_dataset("table", tmp_path, "val")


def test_what_parquet_alone_has(tmp_path: Path) -> None:
    import datetime

    import pyarrow.parquet

    table = pyarrow.table(
        {
            "image": pyarrow.array(["a", "b", "a"]).dictionary_encode(),
            "question": pyarrow.array(["q"] * 3, pyarrow.large_string()),
            "answer": pyarrow.array([0.1, None, 3.0], pyarrow.float32()),
            "day": [datetime.date(2020, 1, 2)] * 3,
            "split": ["train", "val", "train"],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "mine.parquet")
    dataset = read_dataset("table", tmp_path, "train")
    assert content(dataset)["answers"] == [["0.1"], ["3.0"]] and content(dataset)["images"] == ["a", "a"]
    assert read_dataset("table", tmp_path, "val", TableOptions.of(None, {"day": "2020-01-02"})).answers is None
    path = tmp_path / "broken" / "train.parquet"
    path.parent.mkdir()
    for damaged in (b"PAR1", b"", (tmp_path / "mine.parquet").read_bytes()[:200]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"train\.parquet: no parquet file that can be read"):
            read_dataset("table", path.parent, "train")


def test_parquet_without_its_library_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "train.parquet", [PLAIN_ROW])
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'vqa\[parquet\]'"):
        read_dataset("table", tmp_path, "train")


def test_ids_that_are_texts_are_numbered_and_kept(tmp_path: Path) -> None:
    parts = []
    for split, names in (("train", ["b/7", "a", "7"]), ("val", ["a", "c"])):
        rows = [{**PLAIN_ROW, "question_id": name, "answer": "x"} for name in names]
        write_lines(tmp_path / f"{split}.jsonl", rows)
        dataset = read_dataset("table", tmp_path, split)
        assert dataset.question_id_N.tolist() == list(range(len(names))) and dataset.written_ids == names
        parts.append(dataset)
    train, val = parts
    assert train.majority is not None
    path = tmp_path / "results.json"
    write_results(path, train, train.majority)
    assert json.loads(path.read_text()) == [{"question_id": name, "answer": "x"} for name in ("b/7", "a", "7")]
    given = [("7", "3"), ("b/7", "1"), ("a", "2")]
    path.write_text(json.dumps([{"question_id": name, "answer": answer} for name, answer in given]))
    answers = read_results(path, train)
    assert [answers.at(place) for place in range(3)] == ["1", "2", "3"]
    path.write_text('[{"question_id": "d", "answer": "3"}]')
    with pytest.raises(InputError, match=r"not in table train \(d\)"):
        read_results(path, train)
    assert train.take(np.array([1, 2])).written_ids == ["a", "7"]
    both = concatenate([train, val], renumber=True)
    assert both.written_ids == ["b/7", "a", "7", "a", "c"] and len(set(both.question_id_N.tolist())) == 5
    write_lines(tmp_path / "val.jsonl", [{**PLAIN_ROW, "qid": 5, "answer": "x"}])
    assert concatenate([train, read_dataset("table", tmp_path, "val")], renumber=True).written_ids[-1] in ("5", "8")
    write_lines(tmp_path / "val.jsonl", [{**PLAIN_ROW, "qid": "0012", "answer": "x"}])
    zeros = read_dataset("table", tmp_path, "val")
    assert zeros.written_ids == ["0012"] and zeros.question_id_N.tolist() == [12]
    write_lines(tmp_path / "val.jsonl", [{**PLAIN_ROW, "qid": 5.0, "answer": "x"}])  # pandas, of a column with gaps
    assert read_dataset("table", tmp_path, "val").written_ids == [5]


def image_bytes(colour: str, format: str = "PNG") -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (12, 12), colour).save(made, format)
    return made.getvalue()


def test_images_in_the_table_are_unpacked_once_by_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    red, blue = image_bytes("red"), image_bytes("blue", "JPEG")
    text = base64.b64encode(blue).decode()
    rows: list[dict[str, Any]] = [{"question": "q", "answer": "a"} for _ in range(3)]
    as_bytes = [{**one, "image": file} for one, file in zip(rows, (red, blue, red), strict=True)]
    as_records = [
        {**one, "image": {"bytes": file["image"], "path": "x.png"}} for one, file in zip(rows, as_bytes, strict=True)
    ]
    as_base64 = [
        {**one, "image": base64.b64encode(file["image"]).decode()} for one, file in zip(rows, as_bytes, strict=True)
    ]
    as_uri = [
        {**one, "image": f"data:image/png;base64,{file['image']}"} for one, file in zip(rows, as_base64, strict=True)
    ]
    as_both = [{**one, "image": {"bytes": file["image"]}} for one, file in zip(rows, as_base64, strict=True)]
    kept = [
        f"unpacked_images/{hashlib.sha256(red).hexdigest()}.png",
        f"unpacked_images/{hashlib.sha256(blue).hexdigest()}.jpg",
    ]
    folder = tmp_path / "unpacked_images"
    for ending, written in (
        (".parquet", as_bytes), (".parquet", as_records), (".csv", as_base64), (".json", as_base64), (".TSV", as_uri),
        (".jsonl", as_uri), (".json", as_both),
    ):  # fmt: skip
        dataset = read_back(tmp_path, written, ending)
        assert list(dataset.images.ids) == kept and content(dataset)["images"] == [*kept, kept[0]]
        assert [Path(path).read_bytes() for path in dataset.images.paths] == [red, blue]
        assert dataset.notes == (f"its images stand in the table itself; they are unpacked into {folder}",)
    assert sorted(path.name for path in folder.iterdir()) == sorted(Path(name).name for name in kept)
    assert capsys.readouterr().out.count("are unpacked into") == 1  # the first time
    (folder / Path(kept[1]).name).unlink()
    stamp = (folder / Path(kept[0]).name).stat().st_mtime_ns
    read_back(tmp_path, as_bytes, ".parquet")
    assert (folder / Path(kept[0]).name).stat().st_mtime_ns == stamp and (
        folder / Path(kept[1]).name
    ).read_bytes() == blue
    only = read_back(
        tmp_path,
        [{**one, "split": split} for one, split in zip(as_bytes, ("train", "val", "train"), strict=True)],
        ".parquet",
    )
    assert list(only.images.ids) == kept[:1]
    for bad, words in ((b"no image", "no image"), ("data:image/png;base64,###", "in base64 and is none")):
        with pytest.raises(InputError, match=rf"row 1: column image.*{words}"):
            read_back(tmp_path, [{**PLAIN_ROW, "image": bad}], ".parquet")
    assert text.startswith("/9j/")  # a path by its looks, but for its length
    long = "/9j/" + "a" * 300
    assert read_back(tmp_path, [{**PLAIN_ROW, "image": long + ".png"}], ".json").images.ids == (long + ".png",)
