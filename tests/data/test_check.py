"""The data check finds each fault that was made, calls whole data sets whole, and never stops at a fault."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.formats import MINIATURES, annotations, questions, write, write_official
from helpers.training import write_cache
from PIL import Image

from vqa.data.check import CheckOptions, CheckReport, Finding, check_dataset
from vqa.data.dataset import ImageTable, missing_images
from vqa.data.formats import FORMATS, read_dataset
from vqa.errors import InputError
from vqa.evaluation.contamination import overlap, seen_in
from vqa.experiment import check_experiment
from vqa.features.cache.reader import FeatureCache
from vqa.overrides import override
from vqa.training.inputs.splits import read_train_and_val

IDS = [52, 10, 11, 40, 31]
TRAINED = ["a.png", "b.png", "c.png", "d.png", "g.tif"]


def findings(report: CheckReport, level: str) -> list[Finding]:
    return [row for row in report.rows if row.level == level]


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder that nothing lies beside: images that are missing are looked for there."""
    (tmp_path / "beside/data").mkdir(parents=True)
    return tmp_path / "beside/data"


def painted(root: Path, names: list[str]) -> None:
    """Images of noise, each another."""
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)


@pytest.mark.parametrize("format", ["gqa_submission", "gqa", "vizwiz"])
def test_splits_for_testing_alone_are_no_fault(format: str, tmp_path: Path) -> None:
    MINIATURES[format](tmp_path)
    for path in (path for path in tmp_path.rglob("*.json") if "train" in path.name or "val" in path.name):
        path.unlink()
    report = check_dataset(tmp_path, format)
    assert not report.failed and report.verdict == "fit to evaluate on; there is nothing to train on"
    assert [row for row in report.rows if "only splits for testing are there" in row.finding]


@pytest.mark.parametrize("format", FORMATS)
def test_whole_miniatures_have_no_errors(format: str, tmp_path: Path) -> None:
    MINIATURES[format](tmp_path)
    report = check_dataset(tmp_path, format)
    assert not report.failed, report.rows
    assert not [row for row in findings(report, "warning") if "of one word" not in row.finding], report.rows
    read = {row.item for row in findings(report, "ok")}
    assert read == set(FORMATS[format].splits.values() or ["train", "val", "test"])
    assert json.loads(json.dumps(report.as_json()))["failed"] is False


def changed(path: Path, change: Any) -> None:
    file = json.loads(path.read_text())
    change(file)
    write(path, file)


def test_every_fault_of_a_damaged_set_is_a_finding(tmp_path: Path) -> None:
    write_official(tmp_path, IDS, "train2014")
    write_official(tmp_path, [12, 41, 42], "val2014")
    write(tmp_path / "OpenEnded_mscoco_test2015_questions.json", questions([90], "mscoco", "test-dev2015"))
    (tmp_path / "OpenEnded_mscoco_test-dev2015_questions.json").write_text('{"questions": [')
    (tmp_path / "MultipleChoice_mscoco_test-dev2015_questions.json").write_text("[3]")
    write(tmp_path / "mscoco_train2014_complementary_pairs.json", [[10, 40], [10, 77]])
    changed(tmp_path / "OpenEnded_mscoco_val2014_questions.json", lambda file: file.update(data_type="abstract_v002"))

    def spoil(file: Any) -> None:
        file["annotations"][0]["answers"].pop()
        file["annotations"][1]["multiple_choice_answer"] = "never said"

    changed(tmp_path / "mscoco_train2014_annotations.json", spoil)

    def repeat(file: Any) -> None:
        for row in file["questions"]:
            if row["question_id"] == 11:
                row["question"] = "What is number 2?"

    changed(tmp_path / "OpenEnded_mscoco_train2014_questions.json", repeat)
    painted(tmp_path / "train2014", [f"COCO_train2014_{number:012d}.jpg" for number in (1, 3, 4)])
    report = check_dataset(tmp_path, "vqa_v1")
    assert report.failed
    said = {
        level: [f"{r.file} {r.item} {r.finding}" for r in findings(report, level)]
        for level in ("error", "warning", "note")
    }
    for level, words in [
        ("error", ["test-dev2015_questions.json", "truncated"]),
        ("error", ["MultipleChoice_mscoco_test-dev2015_questions.json", "question 0", "int"]),
        ("warning", ["complementary_pairs.json", "1 of 2 pairs"]),
        ("error", ["COCO_train2014_000000000005.jpg", "1 of 4 images are missing"]),
        ("warning", ["train2014_annotations.json", "questions 10", "fewer than ten answers"]),
        ("warning", ["train2014_annotations.json", "questions 11", "no one gave"]),
        ("warning", ["train2014_annotations.json", "questions 11", "not among the choices"]),
        ("warning", ["OpenEnded_mscoco_test2015_questions.json", "says inside that it is of 'test-dev2015'"]),
        ("warning", ["OpenEnded_mscoco_val2014_questions.json", "says inside that it is of 'abstract_v002'"]),
        ("warning", ["train2014 and val2014", "share 2 images", "1, 4"]),
        ("note", ["questions 11", "asked before in the same words"]),
        ("note", ["val2014", "none of the 2 images is there, first: COCO_val2014_000000000001.jpg"]),
    ]:  # fmt: skip
        assert any(all(word in row for word in words) for row in said[level]), (level, words, said)


def test_half_a_split_is_an_error_and_an_absent_one_is_not(tmp_path: Path) -> None:
    write_official(tmp_path, IDS, "train2014")
    assert not check_dataset(tmp_path, "vqa_v1").failed
    write(tmp_path / "mscoco_val2014_annotations.json", annotations(IDS, "mscoco", "val2014"))
    (error,) = findings(check_dataset(tmp_path, "vqa_v1"), "error")
    assert error.item == "val2014" and "found no" in error.finding and "is there" in error.finding


def test_questions_without_their_answers_are_an_error_and_other_files_only_notes(tmp_path: Path) -> None:
    write_official(tmp_path, IDS, "train2014", choices=False)
    report = check_dataset(tmp_path, "vqa_v1")
    assert not report.failed
    assert [row.item for row in findings(report, "note") if "multiple-choice questions" in row.finding] == ["train2014"]
    (tmp_path / "mscoco_train2014_annotations.json").unlink()
    (error,) = findings(check_dataset(tmp_path, "vqa_v1"), "error")
    assert "mscoco_train2014_annotations.json" in error.finding and "OpenEnded" in error.file


def test_nothing_there_is_an_error_that_points_at_archives(tmp_path: Path) -> None:
    (tmp_path / "v2_Questions_Train_mscoco.zip").touch()
    report = check_dataset(tmp_path, "vqa_v2")
    assert report.failed
    assert any("unpack" in row.finding and "v2_Questions_Train_mscoco.zip" in row.file for row in report.rows)
    with pytest.raises(InputError, match="unknown data format"):
        check_dataset(tmp_path, "vqa2")
    with pytest.raises(InputError, match="no such folder"):
        check_dataset(tmp_path / "nowhere", "vqa_v2")


def test_images_that_do_not_open_and_twins_across_splits_are_found(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("image,question,answer\n" + "".join(f"{n},is it?,a\n" for n in TRAINED))
    (tmp_path / "val.csv").write_text("image,question,answer\ne.png,is it?,a\nf.png,is it?,a\n")
    painted(tmp_path, [*TRAINED, "e.png", "f.png"])
    assert not check_dataset(tmp_path, "table", CheckOptions(images=True)).failed
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:-60])
    (tmp_path / "c.png").write_bytes(b"")
    Image.new("1", (8_001, 8_001)).save(tmp_path / "d.png")
    Image.fromarray(np.random.default_rng(0).random((8, 8), dtype=np.float32)).save(tmp_path / "g.tif")
    (tmp_path / "f.png").write_bytes((tmp_path / "a.png").read_bytes())
    report = check_dataset(tmp_path, "table", CheckOptions(images=True))
    assert [Path(row.file).name for row in findings(report, "error")] == ["b.png", "c.png", "d.png"]
    (twin,) = findings(report, "warning")
    assert twin.finding == "1 images of val are copies of images of train: f.png is a.png" and twin.spoils == "val"
    assert not check_dataset(tmp_path, "table").failed


def test_many_copies_are_one_finding_and_val_is_no_test_then(tmp_path: Path) -> None:
    """What the contamination guard refuses after training is said before it, and one copy in many is tolerated."""
    names = [f"{number}.png" for number in range(101)]
    painted(tmp_path, names)
    (tmp_path / "train.csv").write_text("image,question,answer\n" + "".join(f"{n},is it?,a\n" for n in names[:50]))
    for copies, spoilt in ((50, ["val"]), (1, [])):
        copied = [f"copy{number}.png" for number in range(copies)]
        for number, name in enumerate(copied):
            (tmp_path / name).write_bytes((tmp_path / names[number]).read_bytes())
        others = [f"other{number}.png" for number in range(100)]
        for number, name in enumerate(others):
            pixels = np.random.default_rng(1000 + number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name)
        (tmp_path / "val.csv").write_text(
            "image,question,answer\n" + "".join(f"{n},is it?,a\n" for n in copied + others)
        )
        report = check_dataset(tmp_path, "table", CheckOptions(images=True))
        (found,) = findings(report, "warning")
        assert found.finding.startswith(f"{copies:,} images of val are copies of images of train: copy0.png is 0.png")
        assert len(found.finding) < 200
        assert report.spoilt == spoilt == report.as_json()["no_test"] and not report.failed
        assert ("val is no test of it" in report.verdict) == bool(spoilt)


def test_the_verdict_is_the_contamination_guards(tmp_path: Path) -> None:
    """Images by the same name in both splits: `ablate` would refuse val, and so the check does not call it fit."""
    painted(tmp_path, ["a.png", "b.png", "c.png"])
    (tmp_path / "train.csv").write_text("image,question,answer\na.png,is it?,a\nb.png,is it?,a\n")
    (tmp_path / "val.csv").write_text("image,question,answer\nb.png,other,a\nc.png,is it?,a\n")
    report = check_dataset(tmp_path, "table")
    train, val = (read_dataset("table", tmp_path, split) for split in ("train", "val"))
    assert overlap(seen_in(train, val, []), val, []).contaminated
    assert report.spoilt == ["val"] and "refuse it" in report.verdict
    (tmp_path / "val.csv").write_text("image,question,answer\nc.png,is it?,a\n")
    val = read_dataset("table", tmp_path, "val")
    assert not overlap(seen_in(train, val, []), val, []).contaminated
    assert check_dataset(tmp_path, "table").verdict == "fit to train on"


def test_images_that_come_out_one_colour_are_counted(tmp_path: Path) -> None:
    names = [f"flat{number}.png" for number in range(5)]
    for number, name in enumerate(names):
        Image.new("RGB", (20, 20), (number, 0, 200)).save(tmp_path / name)
    clear = np.zeros((20, 20, 4), dtype=np.uint8)
    clear[5:15, 5:15, 3] = 255  # black on transparent
    Image.fromarray(clear).save(tmp_path / "drawing.png")
    Image.fromarray((np.arange(400, dtype=np.uint16) % 12).reshape(20, 20)).save(tmp_path / "dark16.png")
    (tmp_path / "train.csv").write_text(
        "image,question,answer\n" + "".join(f"{n},is it?,a\n" for n in [*names, "drawing.png", "dark16.png"])
    )
    (found,) = findings(check_dataset(tmp_path, "table", CheckOptions(images=True)), "warning")
    assert found.item == "train: flat0.png, flat1.png, flat2.png and 2 more"
    assert found.finding.startswith("5 images come out (almost) one colour")


def test_questions_without_words_and_endless_ones_are_warnings(tmp_path: Path) -> None:
    write_official(tmp_path, IDS, "train2014", choices=False)

    def spoil(file: Any) -> None:
        file["questions"][0]["question"] = " "
        file["questions"][1]["question"] = "why " * 201
        file["questions"][2]["question"] = "why " * 200

    changed(tmp_path / "OpenEnded_mscoco_train2014_questions.json", spoil)
    empty, endless = findings(check_dataset(tmp_path, "vqa_v1"), "warning")
    assert (empty.item, empty.finding) == ("questions 52", "1 questions without a word")
    assert endless.item == "questions 10" and endless.finding.startswith("1 questions of more than 200 words")


def test_a_table_whose_paths_lead_nowhere_is_an_error(tmp_path: Path) -> None:
    rows = "photo/cat.jpg,what is it?,cat\nphoto/dog.jpg,what is it?,dog\n"
    (tmp_path / "train.csv").write_text(f"image,question,answer\n{rows}")
    report = check_dataset(tmp_path, "table")
    (found,) = findings(report, "error")
    assert found.finding.startswith("none of the 2 images is there: there is no image file in the data set's folder")
    assert report.verdict == "do not train on this"


HEADER = "image,question,answer\n"


def own(root: Path, train: str, val: str | None = None, images: int = 3) -> CheckReport:
    """The check of a table with images 0.png, 1.png, …"""
    painted(root, [f"{number}.png" for number in range(images)])
    (root / "train.csv").write_text(HEADER + train, encoding="utf-8")
    if val is not None:
        (root / "val.csv").write_text(HEADER + val)
    return check_dataset(root, "table")


def starts(root: Path, *overrides: str) -> bool:
    """Whether a training would read this data set: `vqa train` up to its first step, as far as data decide."""
    values: dict[str, Any] = {
        "name": "x",
        "data": {"format": "table", "root": str(root)},
        "features": {"cache": "none"},
    }
    values |= {"question_encoder": {"name": "bow"}, "fusion": {"name": "question_only"}}
    try:
        experiment = check_experiment(override(values, list(overrides)), "x.yaml")
        train, val = read_train_and_val(experiment)
    except InputError:
        return False
    answered = all(dataset.answers is not None for dataset in (train, val) if dataset is not None)
    return answered and not missing_images(train) and (val is not None or experiment.training.keep == "last")


@pytest.mark.parametrize(
    ("train", "val", "fit"),
    [
        ("0.png,is it?,yes\n1.png,is it?,no\n", "2.png,is it?,yes\n", True),
        ("0.png,is it?,yes\n1.png,is it?,no\n", None, True),
        ("0.png,is it?,yes\n1.png,is it?,no\n", "2.png,is it?,\n", True),
        ("0.png,is it?,\n1.png,is it?,\n", "2.png,is it?,yes\n", False),
        ("0.png,is it?,\n1.png,is it?,\n", None, False),
        ("0.png,is it?,yes\n", None, True),
        ("7.png,is it?,yes\n8.png,is it?,yes\n", None, False),
        ("0.png,is it?,yes\n8.png,is it?,yes\n", None, False),
    ],
)
def test_fit_to_train_on_means_that_a_training_starts(train: str, val: str | None, fit: bool, tmp_path: Path) -> None:
    report = own(tmp_path, train, val)
    assert report.failed != fit and report.verdict.startswith("fit to train on" if fit else "do not train on this")
    assert starts(tmp_path, *report.settings) == fit
    assert report.as_json()["settings"] == list(report.settings)
    if val is None and fit:
        key = "data.holdout=0.5" if train.count("\n") > 1 else "data.val=null training.keep=last"
        assert key in report.verdict and not starts(tmp_path)


def test_a_table_without_the_columns_of_a_question_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("bild,frage,antwort\n0.png,was?,rot\n")
    report = check_dataset(tmp_path, "table")
    assert report.failed and any("image" in row.finding for row in findings(report, "error"))


def test_another_name_of_the_training_split_is_part_of_the_verdict(tmp_path: Path) -> None:
    painted(tmp_path, ["0.png", "1.png"])
    (tmp_path / "training.csv").write_text(HEADER + "0.png,is it?,yes\n1.png,is it?,no\n")
    report = check_dataset(tmp_path, "table")
    assert report.settings == ("data.train=training", "data.holdout=0.5") and starts(tmp_path, *report.settings)


def test_answers_that_differ_only_in_spelling_are_a_warning_with_what_joins_them(tmp_path: Path) -> None:
    answers = ["Yes", "yes", "YES.", "T-shirt", "t shirt", "blue"]
    report = own(tmp_path, "".join(f"{n % 3}.png,is it {n}?,{answer}\n" for n, answer in enumerate(answers)))
    (found,) = [row.finding for row in findings(report, "warning")]
    assert "'YES.' = 'Yes' = 'yes'" in found and "'T-shirt' = 't shirt'" in found
    assert "lower joins 2 into 1, official joins 5 into 2" in found
    calm = own(tmp_path, "0.png,is it?,yes\n1.png,is it?,no\n2.png,is it so?,blue shirt\n")
    assert not findings(calm, "warning")


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("color?", "1 questions of one word"),
        ("why", "1 questions of one word"),
        ("?!", "1 questions without a word"),
        ("𑜡𑜈𑜌𑜎𑜐𑜅𑜀𑜁𑜂𑜃𑜄𑜇𑜊𑜋𑜍𑜏𑜑𑜒𑜔𑜕𑜖𑜗𑜘𑜙𑜚𑜡𑜈𑜌𑜎", "their script is not cut into words"),
        ("is the Donaudampfschifffahrtsgesellschaft here?", ""),
        ("这是什么颜色", ""),
        ("รถคันนี้สีอะไร", ""),
        ("क्या यह काला है?", ""),
        ("هل هذا أسود؟", ""),
    ],
)
def test_questions_that_are_hardly_cut_are_warnings(question: str, said: str, tmp_path: Path) -> None:
    report = own(tmp_path, f"0.png,{question},yes\n1.png,is it so?,no\n", "2.png,is it so?,no\n")
    found = [row.finding for row in findings(report, "warning")]
    assert (len(found) == 1 and said in found[0]) if said else not found, found


def test_splits_that_share_images_by_design_are_declared(tmp_path: Path) -> None:
    report = own(tmp_path, "0.png,is it?,yes\n1.png,is it?,no\n", "0.png,what is it?,a dog\n")
    assert report.spoilt == ["val"] and "data.shares_images: published" in report.verdict
    declared = check_dataset(tmp_path, "table", CheckOptions(shares_images="published"))
    assert not declared.spoilt and not declared.failed
    (shared,) = [row for row in declared.rows if "share 1 images" in row.finding]
    assert shared.level == "note"
    (tmp_path / "val.csv").write_text(HEADER + "0.png,Is it?,a dog\n")
    assert check_dataset(tmp_path, "table", CheckOptions(shares_images="published")).spoilt == ["val"]


def test_images_whose_features_are_in_a_cache_may_be_missing(tmp_path: Path) -> None:
    report = own(tmp_path, "7.png,is it?,yes\n8.png,is it?,no\n", images=1)
    assert report.failed
    images = read_dataset("table", tmp_path, "train").images
    write_cache(tmp_path / "all.h5", images)
    write_cache(tmp_path / "half.h5", ImageTable(images.ids[:1], images.paths[:1]))
    for name, failed in (("all.h5", False), ("half.h5", True)):
        report = check_dataset(tmp_path, "table", CheckOptions(caches=[FeatureCache(tmp_path / name)]))
        assert report.failed == failed, report.rows
