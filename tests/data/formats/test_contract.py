"""Every reader keeps the contract of `QADataset` on miniature files in its published layout, whole or mutated."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.formats import MINIATURES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vqa.data.dataset import missing_images
from vqa.data.formats import FORMATS, read_dataset
from vqa.errors import InputError
from vqa.evaluation.accuracy import score
from vqa.testing import check_dataset, check_format


def splits_of(format: str) -> list[str]:
    return list(FORMATS[format].splits) or ["train", "val", "test"]


@pytest.mark.parametrize("format", FORMATS)
def test_every_reader_keeps_the_contract_on_all_splits(format: str, tmp_path: Path) -> None:
    MINIATURES[format](tmp_path)
    datasets = check_format(format, tmp_path)
    assert [dataset.split for dataset in datasets] == [
        FORMATS[format].splits.get(short, short) for short in splits_of(format)
    ]
    for short, dataset in zip(splits_of(format), datasets, strict=True):
        assert dataset.format == format and missing_images(dataset) == []
        assert (read_dataset(format, tmp_path, short).question_id_N == dataset.question_id_N).all()
        if dataset.answers is not None and dataset.majority is not None:
            for row in range(len(dataset)):
                assert dataset.majority.at(row) in dataset.answers.row(row)


def people(answer: int) -> list[str]:
    """What ten people answer in the miniature official files."""
    return [f"answer {answer}"] * 8 + [f"answer {(answer + 1) % 5}"] * 2


EXPECTED = {  # split, row: question, answers, image, question type
    "vqa_v1": ("train", 0, "What is number 0?", people(2), "COCO_train2014_000000000005.jpg", "what is"),
    "vqa_v2": ("test-dev", 0, "What is number 3?", None, "COCO_test2015_000000000009.jpg", None),
    "abstract": ("val", 1, "What is number 3?", people(1), "abstract_v002_val2015_000000000007.png", "what is"),
    "binary_abstract": ("val", 0, "What is number 2?", people(0),
                        "scene_img_abstract_v002_val2017/abstract_v002_val2015_000000000005.png", "what is"),
    "vqa_cp_v1": ("train", 0, "What is number 0?", people(2), "val2014/COCO_val2014_000000000052.jpg", "what is"),
    "vqa_cp_v2": ("test", 1, "What is number 3?", people(1), "train2014/COCO_train2014_000000000071.jpg", "what is"),
    "daquar": ("test", 0, "what is on the desk ?", ["book, lamp"], "images/image7.png", None),
    "daquar_reduced": ("test", 0, "what is on the desk ?", ["book, lamp"], "images/image7.png", None),
    "daquar_single": ("train", 0, "what is red ?", ["cup"], "images/image3.png", None),
    "daquar_reduced_single": ("train", 0, "what is red ?", ["cup"], "images/image3.png", None),
    "coco_qa": ("test", 1, "how many dogs ?", ["two"], "val2014/COCO_val2014_000000000042.jpg", "number"),
    "easy_vqa": ("test", 0, "what shape?", ["circle"], "test/images/1.png", None),
    "gqa": ("val", 1, "Is it red?", ["yes"], "images/n1.jpg", "verify"),
    "vizwiz": ("train", 0, "What is this?", ["can"] * 6 + ["tin"] * 4, "train/VizWiz_train_00000000.jpg", None),
    "clevr": ("val", 0, "How many?", ["3"], "images/val/CLEVR_val_000000.png", "count"),
    "ok_vqa": ("train", 0, "What is number 0?", people(2), "train2014/COCO_train2014_000000000005.jpg", "what is"),
    "tdiuc": ("val", 0, "What is number 2?", people(0), "val2014/COCO_val2014_000000000007.jpg", "what is"),
    "gqa_all": ("train", 1, "Is it red?", ["yes"], "images/n0.jpg", "verify"),
    "gqa_submission": ("submission", 1, "Is it red?", None, "images/n5.jpg", None),
    "clevr_humans": ("test", 1, "Any cone?", ["3"], "images/test/CLEVR_test_000000.png", None),
    "rsvqa_lr": ("val", 1, "How many roads?", ["12"], "Images_LR/1.tif", "count"),
    "rsvqa_hr": ("test_phili", 0, "Is there water?", ["yes"], "Data/3.tif", "presence"),
    "a_okvqa": ("val", 1, "Why?", ["ride"] * 4 + ["bus"] * 3 + ["cab"] * 3, "val2017/000000299208.jpg", None),
    "textvqa": ("val", 0, "what brand is it?", ["nokia"] * 6 + ["dakota"] * 4,
                "train_images/val4c91397f2fe05.jpg", None),
    "st_vqa": ("train", 0, "What is on the sign?", ["stop", "STOP"], "train/coco-text/COCO_train.jpg", None),
    "docvqa": ("train", 0, "what is the date?", ["1/8/93", "1/8/1993"], "train/documents/train37_1.png", None),
    "infographicvqa": ("val", 0, "How many?", ["3", "three"], "infographicsvqa_images/val.jpeg", None),
    "chartqa": ("test", 1, "What is the augmented value?", ["14.5"], "test/png/test1.png", "augmented"),
    "slake": ("val", 1, "这是什么模态？", ["核磁共振"], "imgs/xmlab1/source.jpg", "Modality"),
    "slake_zh": ("test", 0, "这是什么模态？", ["核磁共振"], "imgs/xmlab2/source.jpg", "Modality"),
    "vqa_rad": ("test", 0, "How many lesions?", ["3"], "VQA_RAD Image Folder/synpic100228.jpg", "PRES"),
    "pathvqa": ("val", 0, "where are cells located?", ["in the canals"], "images/val/val_0422.jpg", None),
    "vivqa": ("test", 0, "màu của chiếc áo là gì", ["màu xanh lá"],
              "val2014/COCO_val2014_000000000042.jpg", "2"),
    "openvivqa": ("train", 0, "biển hiệu ghi gì?", ["biển hiệu ghi cấm đỗ xe"], "training-images/00000000.jpg", None),
    "fm_iqa": ("val", 0, "这辆公共汽车是什么颜色的?", ["公共汽车是红色的。"],
               "val2014/COCO_val2014_000000000042.jpg", None),
    "table": ("train", 0, 'Is it, "red"?', ["yes", "no", "yes"], "p/1.png", None),
}  # fmt: skip


@pytest.mark.parametrize("format", EXPECTED)
def test_a_row_reads_as_it_is_published(format: str, tmp_path: Path) -> None:
    MINIATURES[format](tmp_path)
    split, row, question, answers, image, kind = EXPECTED[format]
    dataset = read_dataset(format, tmp_path, split)
    assert dataset.question.at(row) == question
    assert (None if dataset.answers is None else dataset.answers.row(row)) == answers
    assert dataset.images.paths[dataset.image_row_N[row]].as_posix().endswith(image)
    assert (None if dataset.question_type is None else dataset.question_type.at(row)) == kind


@pytest.mark.parametrize("format", FORMATS)
def test_without_its_files_a_reader_says_what_it_looked_for(format: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no"):
        read_dataset(format, tmp_path, splits_of(format)[0])


def test_an_unknown_split_lists_those_there_are_each_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown split of daquar 'val'; choose from: test, train$"):
        read_dataset("daquar", tmp_path, "val")


@pytest.mark.parametrize("format", FORMATS)
def test_any_one_file_may_be_missing_and_is_named_when_it_is_needed(format: str, tmp_path: Path) -> None:
    MINIATURES[format](tmp_path)
    whole = {split: read_dataset(format, tmp_path, split) for split in splits_of(format)}
    for path in sorted({path for dataset in whole.values() for path in dataset.files}):
        kept = path.read_bytes()
        path.unlink()
        for split, before in whole.items():
            try:
                dataset = read_dataset(format, tmp_path, split)
            except InputError as error:
                assert path in before.files
                # without its own file the reduced set is made from the full one, which here has none of its questions
                assert path.name in str(error) or format.startswith("daquar_reduced")
                assert "annotations" not in path.name or format.startswith("changing_priors")
                continue
            assert path not in dataset.files
            if before.answers is None or dataset.answers is not None:
                continue
            check_dataset(dataset)
            with pytest.raises(InputError, match=re.escape(path.name)):
                score(dataset, dataset.question)
        path.write_bytes(kept)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


def mutate_json(value: Any, draw: st.DataObject) -> Any:
    """Replace, remove or double one node of a JSON value, anywhere in it."""
    if isinstance(value, (dict, list)) and value and draw.draw(st.integers(0, 4)):
        key = draw.draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
        action = draw.draw(st.sampled_from(["deeper", "deeper", "deeper", "remove", "double"]))
        changed = value.copy()
        if action == "deeper":
            changed[key] = mutate_json(value[key], draw)
        elif action == "remove":
            del changed[key]
        elif isinstance(changed, list):
            changed.append(value[key])
        else:
            changed[draw.draw(st.text(max_size=3))] = value[key]
        return changed
    return draw.draw(JSON)


def mutate_bytes(data: bytes, draw: st.DataObject) -> bytes:
    """Cut out, repeat or overwrite a stretch of bytes."""
    start = draw.draw(st.integers(0, len(data)))
    stop = draw.draw(st.integers(start, min(len(data), start + 60)))
    middle = draw.draw(st.sampled_from([b"", data[start:stop] * 2]) | st.binary(max_size=5) | st.text(max_size=4).map(
        lambda text: text.encode("utf-8", "surrogatepass")))  # fmt: skip
    return data[:start] + middle + data[stop:]


@pytest.mark.parametrize("format", FORMATS)
def test_a_mutated_file_reads_correctly_or_is_named(format: str, tmp_path: Path) -> None:
    MINIATURES[format](tmp_path)
    originals = {
        path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file() and path.stat().st_size
    }

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.data())
    def mutate(draw: st.DataObject) -> None:
        path = draw.draw(st.sampled_from(list(originals)))
        data = originals[path]
        if path.suffix == ".json" and draw.draw(st.booleans()):
            data = json.dumps(mutate_json(json.loads(data), draw), ensure_ascii=draw.draw(st.booleans())).encode(
                "utf-8", "surrogatepass"
            )
        else:
            data = mutate_bytes(data, draw)
        path.write_bytes(data)
        try:
            for split in splits_of(format):
                try:
                    check_dataset(read_dataset(format, tmp_path, split))
                except InputError as error:
                    assert str(tmp_path) in str(error)
        finally:
            path.write_bytes(originals[path])

    mutate()
