"""Data sets of the hub, from a stand-in of it: every published schema, stops in the middle, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.hub import COMMIT, Hub
from helpers.hub_sets import BLUE, RED, REPOSITORIES, VQAV2, parquet

from vqa.data.dataset import missing_images
from vqa.data.download import NoRoomError
from vqa.data.formats import read_dataset
from vqa.data.hub.get import GetReport, get
from vqa.data.hub.repository import Address
from vqa.data.hub.rows import Columns, our_row
from vqa.errors import InputError


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    serving = Hub()
    serving.repositories = {name: dict(files) for name, files in REPOSITORIES.items()}
    monkeypatch.setattr(constants, "ENDPOINT", serving.address)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("{repo_id}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{serving.address}/{''.join(template[1:])}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield serving
    serving.close()


def table(folder: Path, split: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


# by address: split, questions, images, and what must be in the first row
EXPECTED: dict[str, tuple[str, int, int, dict[str, object]]] = {
    "lab/VQAv2": ("val", 3, 2, {"id": 262148000, "answers": ["yes"] * 6 + ["no"] * 4, "question_type": "is the",
                                "answer_type": "yes/no"}),
    "lab/GQA:testdev_balanced": ("testdev", 2, 2, {"question_id": "201307251", "answers": ["no"],
                                             "question_type": "verify"}),
    "lab/VizWiz-VQA": ("val", 2, 2, {"question_id": "VizWiz_val_00000000.jpg", "answers": ["unanswerable"] * 10}),
    "lab/OK-VQA": ("val2014", 2, 2, {"answers": ["unanswerable"] * 10}),
    "lab/A-OKVQA": ("train", 1, 1, {"question_id": "22MexNkBPpdZGX6sxbxVBH",
                                    "choices": ["skateboarder", "train", "delivery", "cab"],
                                    "answers": ["ride", "ride", "driver's seat", "bus", *["cab"] * 5, "taxi"]}),
    "lab/textvqa": ("train", 1, 1, {"id": 0, "answers": ["nokia"] * 10}),
    "lab/ChartQA": ("test", 2, 2, {"answers": ["14"], "question_type": "human_test"}),
    "old/ChartQA": ("test", 1, 1, {"question": "How many?", "answers": ["14"]}),
    "lab/DocVQA:DocVQA": ("val", 1, 1, {"id": 337, "answers": ["1/8/93", "1/8/1993"]}),
    "lab/DocVQA:InfographicVQA": ("val", 1, 1, {"id": 65718, "answers": ["3", "three"]}),
    "lab/ST-VQA": ("test", 1, 1, {"id": 60865, "question": "What is the price?"}),
    "lab/SLAKE": ("val", 2, 2, {"id": 0, "answers": ["Liver"], "language": "en", "answer_type": "OPEN"}),
    "lab/vqa-rad": ("train", 2, 2, {"answers": ["Yes"]}),
    "lab/path-vqa": ("val", 2, 2, {"answers": ["Yes"]}),
    "lab/POPE": ("test", 3, 2, {"answers": ["yes"], "question_type": "adversarial"}),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_every_published_schema_becomes_a_folder_that_reads(name: str, hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = get(f"hub:{name}", out)
    split, questions, images, fields = EXPECTED[name]
    first = table(out, split)[0]
    assert {key: first[key] for key in fields} == fields
    assert report.questions[split] == questions and report.images == images
    dataset = read_dataset("table", out, split)
    assert len(dataset) == questions and missing_images(dataset) == []
    assert not (out / ".hub").exists()


def test_equal_images_are_one_file_and_one_image_of_both_splits(hub: Hub, tmp_path: Path) -> None:
    report = get("hub:lab/vqa-rad", tmp_path / "out")
    train, test = (read_dataset("table", tmp_path / "out", split) for split in ("train", "test"))
    assert report.images == 2 and set(test.images.ids) < set(train.images.ids)
    assert {path.read_bytes() for path in train.images.paths} == {RED["bytes"], BLUE["bytes"]}


def test_questions_of_another_configuration_find_their_images(hub: Hub, tmp_path: Path) -> None:
    get("hub:lab/GQA:val_balanced", tmp_path / "out")
    dataset = read_dataset("table", tmp_path / "out", "val")
    content = [dataset.images.paths[row].read_bytes() for row in dataset.image_row_N]
    assert content == [BLUE["bytes"], RED["bytes"]]


def test_ids_that_come_twice_are_left_out_and_it_is_said(hub: Hub, tmp_path: Path) -> None:
    report = get("hub:lab/POPE", tmp_path / "out")
    assert report.notes == ("test: its question ids are not unique, so questions are counted instead",)
    assert read_dataset("table", tmp_path / "out", "test").question_id_N.tolist() == [0, 1, 2]


def test_questions_without_answers_among_others_are_left_out_and_counted(hub: Hub, tmp_path: Path) -> None:
    rows = [{**VQAV2[0], "answers": None, "multiple_choice_answer": None}, *VQAV2[1:]]
    hub.repositories["lab/some"] = {"train.parquet": parquet(rows)}
    report = get("hub:lab/some", tmp_path / "out")
    assert report.notes == ("train: 1 questions have no answer and are left out",)
    assert [row["id"] for row in table(tmp_path / "out", "train")] == [262148001, 9000]


def test_a_second_call_fetches_nothing_and_without_the_hub_the_cache_is_enough(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    first = get("hub:lab/VQAv2", tmp_path / "out")
    count = len(hub.fetched)
    (tmp_path / "out" / ".hub").mkdir()  # of a call that was killed as it ended
    assert get("hub:lab/VQAv2", tmp_path / "out") == first and len(hub.fetched) == count
    assert not (tmp_path / "out" / ".hub").exists()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert get("hub:lab/VQAv2", tmp_path / "again") == first and len(hub.fetched) == count
    with pytest.raises(InputError, match="lab/textvqa: the hub cannot be reached, and the cache has nothing of it"):
        get("hub:lab/textvqa", tmp_path / "other")


def test_what_the_hub_converted_itself_is_read_where_there_is_nothing_else(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["lab/script"] = {"README.md": b"", "script.py": b""}
    hub.converted["lab/script"] = {"default/validation/0000.parquet": parquet(VQAV2)}
    assert get("hub:lab/script", tmp_path / "out").questions == {"val": 3}


def test_a_broken_connection_is_taken_up_again(hub: Hub, tmp_path: Path) -> None:
    path = "data/validation-00001-of-00002.parquet"
    hub.breaks_after[path] = len(hub.repositories["lab/VQAv2"][path]) // 2 + 1
    assert get("hub:lab/VQAv2", tmp_path / "out").questions == {"val": 3}
    assert hub.fetched.count(path) == 2


def command(hub: Hub, tmp_path: Path, out: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "0",
    }
    arguments = [sys.executable, "-m", "vqa", "data", "get", "hub:lab/VQAv2", str(out)]
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL)


def test_a_killed_call_loses_and_doubles_nothing(hub: Hub, tmp_path: Path) -> None:
    out, path = tmp_path / "out", "data/validation-00001-of-00002.parquet"
    hub.waits[path] = gate = threading.Event()
    process = command(hub, tmp_path, out)
    while path not in hub.fetched and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    gate.set()
    pieces = sorted((out / ".hub").glob("*.jsonl"))
    assert len(pieces) == 2 and not list(out.glob("*.jsonl"))
    (out / "images" / "00").mkdir()
    (out / "images" / "00" / ".x.png.0123456789abcdef.part").write_bytes(b"half")  # of an image that was being written
    hub.repositories["lab/VQAv2"]["data/validation-00000-of-00002.parquet"] = b"another"  # is not asked for again
    assert get("hub:lab/VQAv2", out).questions == {"val": 3}
    assert hub.fetched.count("data/validation-00000-of-00002.parquet") == 1
    assert [row["id"] for row in table(out, "val")] == [262148000, 262148001, 9000]
    assert len(list((out / "images").glob("*/*"))) == 2 and not list((out / "images").glob("*/.*"))


def test_a_call_goes_on_with_the_revision_that_it_began_with(hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    record = {"repository": "lab/DocVQA", "configuration": "InfographicVQA", "revision": COMMIT}
    (out / ".hub.json").write_text(json.dumps(record))
    assert get("hub:lab/DocVQA", out).questions == {"val": 1}
    assert table(out, "val")[0]["question"] == "How many companies?"
    with pytest.raises(InputError, match="holds lab/DocVQA:InfographicVQA; choose another folder"):
        get("hub:lab/VQAv2", out)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("lab/VQAv2", "an address is hub:OWNER/NAME or hub:OWNER/NAME:CONFIGURATION"),
        ("hub:lab", "an address is"),
        ("hub:lab/none", "lab/none: no such data set on the hub"),
        ("hub:lab/GQA", "has 2 configurations; choose one, as hub:lab/GQA:testdev_balanced: testdev_b"),
        ("hub:lab/GQA:val", "unknown configuration of lab/GQA 'val'"),
        ("hub:lab/GQA:val_balanced_images", "unknown configuration of lab/GQA"),
        ("hub:lab/empty", "has no parquet file, and no JSON or CSV file named as a split"),
        ("hub:lab/text", "train.parquet: has no column for image; it has question, answer"),
        ("hub:lab/damaged", "no parquet file, or damaged"),
        ("hub:lab/hostile", "calls a split '../../evil', which is no name of a file"),
        ("hub:lab/unnamed", "row 0 of piece 0: its image 'xmlab9/source.jpg' is in the archives 0 times"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_sentence(address: str, words: str, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["lab/empty"] = {"README.md": b"", "model.bin": b""}
    hub.repositories["lab/text"] = {"train.parquet": parquet([{"question": "q", "answer": "a"}])}
    hub.repositories["lab/damaged"] = {"train.parquet": parquet(VQAV2)[:-9]}
    card = b"---\nconfigs:\n- data_files:\n  - {split: ../../evil, path: data/*}\n---\n"
    hub.repositories["lab/hostile"] = {"README.md": card, "data/train.parquet": parquet(VQAV2)}
    rows = b'[{"img_name": "xmlab9/source.jpg", "question": "q", "answer": "a"}]'
    hub.repositories["lab/unnamed"] = REPOSITORIES["lab/SLAKE"] | {"train.json": rows}
    with pytest.raises(InputError) as error:
        get(address, tmp_path / "out")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_folder_with_something_else_is_left_alone(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else; choose an empty folder"):
        get("hub:lab/VQAv2", tmp_path / "out")


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10, used=0, free=10))
    with pytest.raises(NoRoomError, match="too little room"):
        get("hub:lab/VQAv2", tmp_path / "out")
    assert [path for path in hub.fetched if path.endswith(".parquet")] == []


def test_without_pyarrow_the_extra_is_named(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"needs pyarrow: pip install 'vqa\[hub\]'"):
        get("hub:lab/VQAv2", tmp_path / "out")
    assert get("hub:lab/SLAKE", tmp_path / "json").images == 2  # has no parquet


def test_the_name_of_an_image_comes_from_its_content(hub: Hub, tmp_path: Path) -> None:
    odd = {"image": {"bytes": b"no image", "path": "a.jp/../g"}, "question": "q", "answer": "a"}
    hub.repositories["lab/odd"] = {"train.parquet": parquet([odd])}
    get("hub:lab/odd", tmp_path / "out")
    assert [len(path.name) for path in (tmp_path / "out" / "images").glob("*/*")] == [24]


def test_an_address_has_owner_name_and_configuration() -> None:
    assert Address.of("hub:a-b/c.d_e:x-1") == Address("a-b/c.d_e", "x-1")


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        ({"answer": "B", "A": "one", "B": "two"}, ["two"]),
        ({"answer": 1, "choices": ["one", "two"]}, ["two"]),
        ({"answer": "one", "choices": '["one", "two"]'}, ["one"]),
        ({"answer": "C", "A": "one", "B": "two"}, ["C"]),
        ({"answer": True}, ["yes"]),
        ({"answers": "['a', \"b's\"]"}, ["a", "b's"]),
        ({"answers": ["", None, "a "]}, ["a"]),
        ({"answers": list("abcdefghijkl")}, list("abcdefghij")),
    ],
)
def test_answers_are_read_from_letters_places_and_lists_in_text(row: dict[str, object], answers: list[str]) -> None:
    whole = {"question": " q ", "image": b"", **row}
    made = our_row(whole, Columns.recognise(list(whole)), "images/x.png", "row 0")
    assert made["answers"] == answers and made["question"] == "q"


def test_what_is_no_list_is_named() -> None:
    row = {"question": "q", "image": b"", "answers": "[a, b"}
    assert our_row(row, Columns.recognise(list(row)), "x", "row 0")["answers"] == ["[a, b"]
    row["answers"] = "[a, b]"
    with pytest.raises(InputError, match=r"row 0: '\[a, b\]' is no list"):
        our_row(row, Columns.recognise(list(row)), "x", "row 0")


def test_a_report_says_what_is_there(hub: Hub, tmp_path: Path) -> None:
    assert get("hub:lab/SLAKE", tmp_path / "out") == GetReport({"train": 2, "val": 2, "test": 2}, 2, ())
