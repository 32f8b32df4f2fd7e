"""Which column of a table is what: by its usual name, or as the user says; and which rows are read."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import vqa
from vqa.data.check import CheckOptions, check_dataset
from vqa.data.dataset import QADataset
from vqa.data.formats import read_dataset
from vqa.data.formats.table import TableOptions, read_column
from vqa.data.formats.table.names import ROLES
from vqa.errors import InputError
from vqa.experiment import check_experiment
from vqa.training.inputs.prepare import open_caches
from vqa.training.inputs.splits import read_split


def read(path: Path, text: str, columns: Any = None, where: Any = None) -> QADataset:
    path = path / "train.csv"
    path.write_text(text)
    return read_dataset("table", path, "train", TableOptions.of(columns, where))


@pytest.mark.parametrize(
    "name",
    [
        "image",
        "Image",
        "image_name",
        "img_name",
        "image_path",
        "Image Path",
        "file_name",
        "fileName",
        "img_id",
        "image_id",
    ],
)
def test_images_are_known_by_their_usual_names(name: str, tmp_path: Path) -> None:
    dataset = read(tmp_path, f"QID,{name},Question,Answer,direct-answers\n7,a/1.png,q,a,\n")
    assert dataset.images.ids == ("a/1.png",) and dataset.question_id_N.tolist() == [7]
    said = dataset.notes[0]
    assert ("id is 'QID'" in said) and ("image is" in said) == (name.lower() != "image")


def test_of_several_names_the_most_usual_counts(tmp_path: Path) -> None:
    dataset = read(tmp_path, "img_id,img_name,id,qid,question,answer\n3,1.png,5,6,q,a\n")
    assert dataset.images.ids == ("1.png",) and dataset.question_id_N.tolist() == [5]
    assert read(tmp_path, "image,question,answer\n1.png,q,a\n").notes == ()


def test_a_table_of_slake_is_read_as_published(tmp_path: Path) -> None:
    row = {
        "img_id": 1,
        "img_name": "xmlab1/source.jpg",
        "question": "Which?",
        "answer": "MRI",
        "q_lang": "en",
        "qid": 1,
    }
    rows = [
        {**row, "location": "Abdomen", "answer_type": "OPEN", "base_type": "vqa", "triple": ["vhead", "_", "_"]},
        {
            **row,
            "location": "Abdomen",
            "answer_type": "OPEN",
            "base_type": "vqa",
            "triple": [],
            "q_lang": "zh",
            "qid": 2,
        },
    ]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    image = tmp_path / "imgs/xmlab1/source.jpg"
    image.parent.mkdir(parents=True)
    image.touch()
    dataset = read_dataset("table", tmp_path, "train")
    assert list(dataset.images.paths) == [image] and dataset.images.ids == ("xmlab1/source.jpg",)
    assert dataset.notes == (
        "columns: image is 'img_name'; id is 'qid'",
        f"its images lie in {tmp_path / 'imgs'}",
        "questions in 2 languages (en 1, zh 1); `where: {q_lang: en}` reads those of one",
    )
    options = TableOptions.of(None, {"q_lang": "zh"})
    for where in (options, TableOptions.of(None, {"language": ["zh", "de"]})):
        assert read_dataset("table", tmp_path, "train", where).question_id_N.tolist() == [2]
    found = [
        row.finding
        for row in check_dataset(tmp_path, "table", CheckOptions(reading=options)).rows
        if row.level == "note"
    ]
    assert found[:2] == ["columns: image is 'img_name'; id is 'qid'", f"its images lie in {tmp_path / 'imgs'}"]
    (tmp_path / "xmlab1").mkdir()
    (tmp_path / "xmlab1/source.jpg").touch()  # what lies beside the table comes first
    assert read_dataset("table", tmp_path, "train").images.paths[0] == tmp_path / "xmlab1/source.jpg"


def test_columns_are_named_by_the_user(tmp_path: Path) -> None:
    text = "Bild;Frage;opt x;opt y;richtig;id;lösung\n1.png;q;ja;nein;1;9;ja\n2.png;r;ja;;0;9;ja\n"
    columns = {
        "image": "bild", "question": "Frage", "choices": ["opt x", "opt_y"], "answer_index": "richtig", "id": None,
    }  # fmt: skip
    dataset = read(tmp_path, text, columns)
    assert dataset.answers is not None and dataset.choices is not None
    assert [dataset.answers.row(0), dataset.answers.row(1)] == [["nein"], ["ja"]]
    assert dataset.choices.row(1) == ["ja"] and dataset.question_id_N.tolist() == [0, 1]
    found = vqa.read_dataset(
        "table", tmp_path, "train", columns={**columns, "answer_index": "", "answer": "lösung"}, where={}
    )
    assert found.majority is not None and found.majority.at(0) == "ja"
    several = read(tmp_path, "image,question,a1,a2\n1.png,q,x,\n", {"answers": ["a1", "a2"]})
    assert several.answers is not None and several.answers.row(0) == ["x"]


BAD: dict[str, tuple[str, Any, Any, str]] = {
    "resembles answer": ("image,question,anwser", None, None, r"unknown column 'anwser' \(did you mean 'answer'\?\)"),
    "resembles choices": ("image,question,answer,choises", None, None, "did you mean 'choices'"),
    "resembles split": ("image,question,splits", None, None, "did you mean 'split'"),
    "resembles image": ("imgae,question", None, None, r"no column image \(is it 'imgae'\?\); it has: imgae, question"),
    "neither": ("photo,text", None, None, "no column image and no column question; it has: photo, text. `columns: {"),
    "no such column": ("image,question", {"answer": "antwort"}, None, "columns: answer: unknown column 'antwort'"),
    "near": ("image,question,antwort", {"answer": "antwrt"}, None, r"\(did you mean 'antwort'\?\)"),
    "two of one name": ("img_name,img name,question", None, None, "two columns 'img_name' and 'img name'"),
    "unknown kind": (
        "image,question",
        {"imge": "x"},
        None,
        r"unknown kind of column 'imge' \(did you mean 'image'\?\)",
    ),
    "no text": ("image,question", {"image": 3}, None, "takes a column's name, not 3"),
    "list for one": ("image,question", {"image": ["a"]}, None, "takes a column's name, not"),
    "where what": ("image,question", None, {"lang": "en"}, "where: unknown column 'lang'"),
    "nothing there": ("image,question,lang", None, {"lang": "en"}, "no row has lang = en; it has: c"),
    "where a switch": ("image,question", None, {"question": True}, "takes a text, or a list of them, not True"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_columns_are_named_with_what_is_right(name: str, tmp_path: Path) -> None:
    header, columns, where, words = BAD[name]
    row = ",".join("abcdef"[: header.count(",") + 1])
    with pytest.raises(InputError, match=words):
        read(tmp_path, f"{header}\n{row}\n", columns, where)


def test_a_column_that_resembles_another_can_be_left_out(tmp_path: Path) -> None:
    text = "image,question,answer,choises,answer_id,image_url,question_text\n1.png,q,a,b,c,d,e\n"
    assert read(tmp_path, text, {"choices": None}).choices is None
    assert read(tmp_path, text, {"choices": "choises"}).choices is not None


LETTERS = "image,question,A,B,C,D,answer\n"


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        (LETTERS + "1.png,q,red,blue,,green,B\n1.png,r,x,y,z,,c\n", ["blue", "z"]),
        (LETTERS.lower() + "1.png,q,red,blue,,green,d\n1.png,r,A,B,C,D,A\n", ["green", "A"]),
        ("image,question,option_a,option_b,answer\n1.png,q,x,y,A\n1.png,q,x,y,B\n", ["x", "y"]),
        ("image,question,Option 1,Option 2,answer_idx\n1.png,q,x,y,0\n1.png,q,x,y,1.0\n", ["x", "y"]),
        ("image,question,options,answer\n1.png,q,x|y,A\n1.png,q,x|y|z,C\n", ["x", "z"]),
        ("image,question,options,answer\n1.png,q,A|B,B\n1.png,q,A|C,C\n", ["B", "C"]),  # letters that are choices
        ('image,question,choices,correct_choice_idx\n1.png,q,"[""x"", ""y""]",1\n1.png,q,x|y,0\n', ["y", "x"]),
        (LETTERS + "1.png,q,red,blue,,,red\n1.png,r,x,y,,,A\n", ["red", "A"]),  # not all are letters
    ],
)
def test_answers_are_letters_or_places_of_choices(text: str, answers: list[str], tmp_path: Path) -> None:
    dataset = read(tmp_path, text)
    assert dataset.majority is not None and [dataset.majority.at(row) for row in (0, 1)] == answers
    assert dataset.choices is not None and "" not in dataset.choices.distinct


@pytest.mark.parametrize(
    ("choices", "found"),
    [
        ({"B": "no", "A": "yes"}, ["yes", "no"]),
        ({"a": "yes", "c": "no"}, ["yes", "no"]),  # C is the third, though the second is not there
        ({"10": "no", "9": "yes"}, ["yes", "no"]),
        ({"first": "yes", "last": "no"}, ["yes", "no"]),
    ],
)
@pytest.mark.parametrize("ending", [".json", ".csv", "printed by Python"])
def test_choices_named_by_letters_or_numbers_are_in_their_order(
    choices: dict[str, str], found: list[str], ending: str, tmp_path: Path
) -> None:
    answer = max(choices).upper() if "A" in map(str.upper, choices) else "B"
    row = {"image": "1.png", "question": "q", "choices": choices, "answer": answer}
    path = tmp_path / f"train{ending if ending == '.json' else '.csv'}"
    if ending == ".json":
        path.write_text(json.dumps([row]))
    else:
        cell = json.dumps(choices) if ending == ".csv" else repr(choices)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([[*row], ["1.png", "q", cell, answer]])
    dataset = read_dataset("table", path, "train")
    assert dataset.choices is not None and dataset.choices.row(0) == found
    assert dataset.majority is not None and dataset.majority.at(0) == "no"


def test_a_list_of_nothing_is_no_answer_in_any_column(tmp_path: Path) -> None:
    for name in ("answer", "answers"):
        with pytest.raises(InputError, match="line 2 has 0 answers"):
            read(tmp_path, f"image,question,{name}\n1.png,q,[]\n")


def test_a_column_that_rows_are_chosen_by_is_not_misspelt(tmp_path: Path) -> None:
    text = "image,question,answer,lang2\n1.png,q,a,en\n1.png,r,b,de\n"
    with pytest.raises(InputError, match="did you mean 'lang'"):
        read(tmp_path, text)
    assert len(read(tmp_path, text, where={"Lang2": "de"})) == 1


def test_a_number_is_a_choice_only_where_the_column_says_how_it_counts(tmp_path: Path) -> None:
    text = "image,question,answer,choices\n1.png,smallest?,2,krill|whale|plankton|leopard\n"
    dataset = read(tmp_path, text)
    assert dataset.majority is not None and dataset.majority.at(0) == "2"
    assert "answer_index: answer" in dataset.notes[0] and "answer_number: answer" in dataset.notes[0]
    assert any("not among the choices" in row.finding for row in check_dataset(tmp_path, "table").rows)
    for role, answer in (("answer_index", "plankton"), ("answer_number", "whale")):
        found = read(tmp_path, text, {role: "answer"})
        assert found.majority is not None and found.majority.at(0) == answer
    for wrong in ("4", "-1", "x", "1.5"):
        with pytest.raises(InputError, match="line 2: the right choice is"):
            read(tmp_path, text.replace(",2,", f",{wrong},"), {"answer_index": "answer"})
    with pytest.raises(InputError, match="line 2: the right choice is number 3, but there are 2"):
        read(tmp_path, LETTERS + "1.png,q,red,blue,,,C\n")


def test_one_answer_beside_several_is_one_of_them(tmp_path: Path) -> None:
    dataset = read(tmp_path, "image,question,answer,answers\n1.png,q,b,a|b|b\n")
    assert dataset.answers is not None and dataset.answers.row(0) == ["a", "b", "b"]
    listed = read(tmp_path, "image,question,answer\n1.png,q,\"['a', 'b']\"\n1.png,q,[1] or 2\n")
    assert listed.answers is not None and [listed.answers.row(0), listed.answers.row(1)] == [["a", "b"], ["[1] or 2"]]


DATA: dict[str, Any] = {"format": "table", "val": None, "holdout": {"share": 0.5, "by": "scene"}}
REST = {"name": "x", "features": {"cache": "none.h5"}, "fusion": {"name": "question_only"}}


def test_an_experiment_says_it_early_and_every_split_is_read_so(tmp_path: Path) -> None:
    rows = [f"{n}.png,q{n},a,{'en' if n % 2 else 'zh'},s{n // 4},2014" for n in range(12)]
    (tmp_path / "train.csv").write_text("\n".join(["photo,question,answer,q_lang,scene,year", *rows]))
    data = {**DATA, "root": str(tmp_path), "columns": {"image": "photo"}, "where": {"q_lang": "en", "year": 2014}}
    experiment = check_experiment({**REST, "data": data}, "mine.yaml")
    assert check_experiment(experiment.resolved(), "again") == experiment
    train, val = (read_split(experiment, split) for split in ("train", "val"))
    assert len(train) + len(val) == 6 and {len(train), len(val)} == {2, 4}  # scenes stay whole
    assert read_column(tmp_path, "train", "scene", experiment.data.table) == [f"s{n // 4}" for n in range(1, 12, 2)]
    with pytest.raises(InputError, match=r"--columns image=photo --where q_lang=en --where year=2014"):
        open_caches(experiment)
    for change, words in (
        ({"columns": {"img": "photo"}}, r"data: columns: unknown kind of column 'img' \(did you mean"),
        ({"columns": {"image": ["photo"]}}, "columns: image: takes a column's name"),
        ({"where": {"ok": True}}, "data.where.ok: in YAML yes and no are true and false"),
        ({"where": {"ok": {}}}, "data.where.ok: takes a text"),
        ({"format": "vqa_v2"}, "columns and where are for the format table"),
        ({"column": {}}, r"unknown key 'column' \(did you mean 'columns'"),
    ):
        with pytest.raises(InputError, match=words):
            check_experiment({**REST, "data": {**data, **change}}, "mine.yaml")


def test_the_page_lists_every_name() -> None:
    page = (Path(__file__).parents[3] / "docs/tables.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    listed = {role.strip(" `"): names for role, names in rows if role.strip(" `") in ROLES}
    assert listed.keys() | {"question_type", "answer_type"} == ROLES.keys()
    for role, names in listed.items():
        assert [name.strip() for name in names.split(";")[0].split(",") if name.strip()] == list(ROLES[role])
