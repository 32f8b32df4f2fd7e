"""Results files as others write them: each layout read, written and read again, and what is said of a wrong one."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.metric import qa_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.layouts.match import match
from vqa.evaluation.layouts.read import read_file
from vqa.evaluation.layouts.write import LAYOUTS, WriteTo, parse_write, write_layout

ANSWERS = ["blue", "yes", "2"]
IDS, ANSWERS_NAMES = (
    ("question_id", "doc_id", "index", "image"),
    ("answer", "prediction", "filtered_resps", "answerable"),
)


def dataset(ids: list[int] | None = None, answers: list[str] | None = None) -> QADataset:
    """Each question about an image of its own."""
    said = answers or ANSWERS
    made = qa_dataset(
        [[text or "x"] * 3 for text in said],
        ids=ids or [10 * (row + 1) for row in range(len(said))],
        questions=[f"what is number {row}?" for row in range(len(said))],
    )
    names = tuple(f"image_{row}.jpg" for row in range(len(said)))
    rows = np.arange(len(said), dtype=np.int32)
    return replace(made, images=ImageTable(names, tuple(map(Path, names))), image_row_N=rows)


def read(path: Path, content: Any, made: QADataset | None = None, *, part: bool = False) -> list[str]:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    predictions = match(read_file(path), made or dataset(), part=part).predictions
    return [predictions.distinct[code] if code >= 0 else "–" for code in predictions.codes]


def as_text(layout: str) -> str:
    content = AS_OTHERS_WRITE[layout][1]
    return content if isinstance(content, str) else json.dumps(content)


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


OFFICIAL = [
    {"question_id": 30, "answer": "2"},
    {"question_id": 10, "answer": "blue"},
    {"question_id": 20, "answer": "yes"},
]
NAMED = {"10": "blue", "20": "yes", "30": "2"}
AS_OTHERS_WRITE = {
    "a list": ("r.json", OFFICIAL),
    "ids as text": ("r.json", [one | {"question_id": f"0{one['question_id']}"} for one in OFFICIAL]),
    "numbers as answers": ("r.json", [*OFFICIAL[1:], {"question_id": 30, "answer": 2}]),
    "wrapped": ("r.json", {"model": "m", "results": OFFICIAL}),
    "answers by id": ("r.json", NAMED),
    "objects by id": ("r.json", {key: {"direct_answer": text} for key, text in NAMED.items()}),
    "answers in order": ("r.json", ANSWERS),
    "JSON lines": ("r.jsonl", lines(*OFFICIAL)),
    "JSON lines called JSON": ("r.json", lines(*OFFICIAL)),
    "LLaVA": ("r.jsonl", lines(*({"question_id": int(k), "prompt": "p", "text": v} for k, v in NAMED.items()))),
    "GQA": ("r.json", [{"questionId": key, "prediction": text} for key, text in NAMED.items()]),
    "VizWiz": ("r.json", [{"image": f"image_{row}.jpg", "answer": text} for row, text in enumerate(ANSWERS)]),
    "lmms-eval, flat": (
        "r.jsonl",
        lines(*({"doc_id": row, "target": text, "filtered_resps": text} for row, text in enumerate(ANSWERS))),
    ),
    "lmms-eval, nested, with its questions": (
        "r.jsonl",
        lines(*({"doc_id": 9, "doc": {"question_id": k}, "filtered_resps": [[v]]} for k, v in NAMED.items())),
    ),
    "a prediction beside the true answer": (
        "r.json",
        [{"question_id": key, "answer": "the true one", "response": text} for key, text in NAMED.items()],
    ),
    "CSV": ("r.csv", "Question ID,Answer\n10,blue\n20,yes\n\n30,2\n"),
    "TSV, as VLMEvalKit writes it": (
        "r.tsv",
        '"index"\t"question"\t"answer"\t"prediction"\n"0"\t"What is number 0?"\t"x"\t"blue"\n'
        '"1"\t"What is number 1?"\t"x"\t"yes"\n"2"\t"What is number 2?"\t"x"\t"2"\n',
    ),
    "TSV by ids": ("r.TSV", "index\tprediction\n10\tblue\n20\tyes\n30\t2\n"),
}  # fmt: skip


@pytest.mark.parametrize("layout", AS_OTHERS_WRITE)
def test_each_layout_says_the_same(tmp_path: Path, layout: str) -> None:
    name, content = AS_OTHERS_WRITE[layout]
    assert read(tmp_path / name, content) == ANSWERS


def test_a_quotation_mark_may_be_a_letter_of_a_tsv(tmp_path: Path) -> None:
    assert read(tmp_path / "r.tsv", 'id\tanswer\n10\t"blue\n20\tyes "no"\n30\t2\n') == ['"blue', 'yes "no"', "2"]


def test_ids_that_are_texts(tmp_path: Path) -> None:
    made = replace(dataset(), question_names=Strings.of(["a-1", "a-2", "a-3"]))
    assert read(tmp_path / "r.json", {"a-2": "yes", "a-1": "blue", "a-3": "2"}, made) == ANSWERS


WRONG = {
    r"1 question of 3 without an answer \(30\); --part scores what is there": ("r.json", {"10": "a", "20": "b"}),
    r"1 of 4 questions not in made val2014 \(7\), whose ids are 10, 20, 30": ("r.json", {**NAMED, "7": "x"}),
    r"1 question with two different answers \(10\)": ("r.json", [*OFFICIAL, {"question_id": 10, "answer": "red"}]),
    r"record 0 .*no field holds the model's answer \(did you mean 'answer'\?\); it has question_id, anwser": (
        "r.json", [{"question_id": 10, "anwser": "blue"}],
    ),
    r"record 0 .*no field says which question it is; it has answer; known are": ("r.json", [{"answer": "x"}]),
    r"record 1 .*has no 'answer', which the first record has": ("r.json", [OFFICIAL[0], {"question_id": 10}]),
    r"record 0 .*\['a', 'b'\] are several answers": ("r.json", [{"question_id": 10, "answer": ["a", "b"]}]),
    r"line 2: not valid JSON": ("r.jsonl", lines(OFFICIAL[0]) + '{"question_id": 1\n'),
    r"row 3 has 1 cells under a header of 2": ("r.csv", "id,answer\n10,blue\n20\n"),
    r"is empty; a results file is a JSON list": ("r.json", " \n"),
    r"holds 5; a results file is": ("r.json", "5"),
    r"holds no answers": ("r.csv", "id,answer\n"),
    r"doc_id 0: its target is 'yes', but made val2014 has 'blue' there \(2 of 3 such records\)": (
        "r.jsonl", lines(*({"doc_id": i, "target": t, "resps": t} for i, t in enumerate(["yes", "blue", "2"]))),
    ),
    r"index 0: its question is 'why\?'": ("r.csv", "index,question,prediction\n0,why?,a\n1,why?,a\n2,why?,a\n"),
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_wrong_files_are_named(tmp_path: Path, message: str) -> None:
    name, content = WRONG[message]
    with pytest.raises(InputError, match=rf"{name.replace('.', '[.]')}: .*{message}|{name}: {message}"):
        read(tmp_path / name, content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 40) | st.floats() | st.text("ab1", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*IDS, *ANSWERS_NAMES, "10"]), inner),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        JSON.map(json.dumps),
        st.lists(JSON, max_size=3).map(lambda rows: lines(*rows)),
        st.text(max_size=30),
        st.tuples(
            st.sampled_from(sorted(AS_OTHERS_WRITE)), st.integers(0, 120), st.text('{}[],:"\n\t1a', max_size=3)
        ).map(lambda drawn: as_text(drawn[0])[: drawn[1]] + drawn[2] + as_text(drawn[0])[drawn[1] + 1 :]),
    ),
    st.sampled_from([".json", ".jsonl", ".csv", ".tsv"]),
)
def test_anything_is_read_or_refused_in_a_sentence(content: str, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"r{ending}"
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        try:
            found = match(read_file(path), dataset(), part=True)
        except InputError as error:
            assert str(path) in str(error)
        else:
            assert found.answered_N.any()


def test_an_image_with_several_questions_is_no_name_of_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"several such questions about this image"):
        read(tmp_path / "r.json", [{"image": "1.jpg", "answer": "x"}], qa_dataset([["x"], ["y"]]))


def test_a_part_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    assert read(tmp_path / "r.json", {"20": "no", "7": "x"}, part=True) == ["–", "no", "–"]
    with pytest.raises(InputError, match=r"not in made val2014 \(7\)"):
        read(tmp_path / "r.json", {"7": "x"}, part=True)


WILD = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(WILD, min_size=1, max_size=5), st.sampled_from(sorted(LAYOUTS)))
def test_every_layout_that_is_written_reads_back_equal(answers: list[str], layout: str) -> None:
    endings = {"jsonl": "jsonl", "csv": "csv", "lmms-eval": "jsonl", "vlmevalkit": "tsv"}
    made = dataset(answers=answers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"r.{endings.get(layout, 'json')}"
        write_layout(WriteTo(layout, path), made, Strings.of(answers))
        found = match(read_file(path), made).predictions
    assert [found.at(row) for row in range(len(answers))] == answers


def test_what_is_written_of_a_part_keeps_its_places(tmp_path: Path) -> None:
    made, path = dataset(), tmp_path / "r.jsonl"
    write_layout(WriteTo("lmms-eval", path), made, Strings.of([None, "yes", None]))
    assert json.loads(path.read_text()) == {"doc_id": 1, "target": "['yes', 'yes', 'yes']", "filtered_resps": ["yes"]}
    with pytest.raises(ValueError, match="predictions have shape"):
        write_layout(WriteTo("official", path), made, Strings.of(["yes"]))


def test_wrong_layouts_are_named(tmp_path: Path) -> None:
    assert parse_write("gqa=a=b.json") == WriteTo("gqa", Path("a=b.json"))
    with pytest.raises(InputError, match=r"give LAYOUT=FILE, with a layout of official, by-id"):
        parse_write("gqa")
    with pytest.raises(InputError, match=r"unknown layout 'gqq' \(did you mean 'gqa'\?\)"):
        parse_write("gqq=x.json")
    with pytest.raises(InputError, match=r"names an answer by its image, but 1\.jpg has several questions"):
        write_layout(WriteTo("vizwiz", tmp_path / "x"), qa_dataset([["x"], ["y"]]), Strings.of(["x", "y"]))


def test_a_workbook_is_read_or_the_extra_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.xlsx"
    try:
        import openpyxl
    except ModuleNotFoundError:
        path.write_bytes(b"PK")
        with pytest.raises(InputError, match=r"need openpyxl, which is not installed: pip install 'vqa\[xlsx\]'"):
            read_file(path)
        return
    book = openpyxl.Workbook()
    for row in (["index", "prediction"], [10, "blue"], [20, "yes"], [30, 2]):
        book.active.append(row)
    book.save(path)
    found = match(read_file(path), dataset()).predictions
    assert [found.at(row) for row in range(3)] == ANSWERS
    path.write_bytes(b"PK no workbook")
    with pytest.raises(InputError, match="not an XLSX workbook"):
        read_file(path)
