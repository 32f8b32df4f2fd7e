"""Miniature data sets in their published layouts, written by hand for the tests of the readers."""

from pathlib import Path
from typing import Any

from helpers.published import PUBLISHED
from helpers.written import annotations, questions, touch, write, write_official, write_text


def _coco(root: Path, split: str, ids: list[int]) -> None:
    touch(*(root / split / f"COCO_{split}_{i // 10:012d}.jpg" for i in ids))


def vqa_v1(root: Path) -> None:
    for split, ids in (("train2014", [52, 10, 11]), ("val2014", [70, 71]), ("test2015", [90]), ("test-dev2015", [91])):
        write_official(root, ids, split)
        _coco(root / "Images" / "mscoco", split.replace("-dev", ""), ids)


def vqa_v2(root: Path) -> None:
    for split, ids in (("train2014", [52, 10, 11]), ("val2014", [70, 80]), ("test2015", [90]), ("test-dev2015", [91])):
        write_official(root / split, ids, split, prefix="v2_", choices=False)
        _coco(root, split.replace("-dev", ""), ids)
    write(root / "v2_mscoco_val2014_complementary_pairs.json", [[70, 80]])


def abstract(root: Path) -> None:
    for split, ids in (("train2015", [52, 10, 11]), ("val2015", [70, 71]), ("test2015", [90])):
        write_official(root / "Questions", ids, split, data_type="abstract_v002")
        folder = root / f"scene_img_abstract_v002_{split}"
        touch(*(folder / f"abstract_v002_{split}_{i // 10:012d}.png" for i in ids))


def binary_abstract(root: Path) -> None:
    for split, ids in (("train2017", [52, 10, 11]), ("val2017", [50, 51])):
        write_official(root, ids, split, data_type="abstract_v002", choices=False)
        older = split.replace("2017", "2015")
        for folder in (f"scene_img_abstract_v002_{older}", f"scene_img_abstract_v002_{split}"):
            touch(*(root / folder / f"abstract_v002_{older}_{i // 10:012d}.png" for i in ids))


def _vqa_cp(root: Path, version: str) -> None:
    for split, ids in (("train", [52, 10, 11]), ("test", [70, 71])):
        asked, answered = questions(ids, "", "")["questions"], annotations(ids, "", "")["annotations"]
        for row in (*asked, *answered):
            row["coco_split"] = "train2014" if row["question_id"] % 2 else "val2014"
            row["image_id"] = row["question_id"]
            touch(root / row["coco_split"] / f"COCO_{row['coco_split']}_{row['image_id']:012d}.jpg")
        write(root / f"vqacp_{version}_{split}_questions.json", asked)
        write(root / f"vqacp_{version}_{split}_annotations.json", answered)


def _changing_priors(root: Path, prefix: str) -> None:
    for split, ids in (("train2014", list(range(100, 130))), ("val2014", list(range(200, 215)))):
        write_official(root, ids, split, prefix=prefix, choices=False)
        _coco(root, split, ids)


def daquar(root: Path) -> None:
    for split, image in (("train", 3), ("test", 7)):
        raw = f"what is on the desk in the image{image} ?\nbook, lamp\nwhat is red in the image{image} ?\ncup\n"
        for name in (f"qa.894.raw.{split}.txt", f"qa.37.raw.{'reduced.' if split == 'test' else ''}{split}.txt"):
            write_text(root / name, raw)
        touch(root / "images" / f"image{image}.png")


def coco_qa(root: Path) -> None:
    for split, image_split, image in (("train", "train2014", 9), ("test", "val2014", 42)):
        write_text(root / split / "questions.txt", "what is this ?\nhow many dogs ?\n")
        write_text(root / split / "answers.txt", "cat\ntwo\n")
        write_text(root / split / "types.txt", "0\n1\n")
        write_text(root / split / "img_ids.txt", f"{image}\n{image}\n")
        touch(root / image_split / f"COCO_{image_split}_{image:012d}.jpg")


def easy_vqa(root: Path) -> None:
    for split in ("train", "test"):
        write(root / split / "questions.json", [["what shape?", "circle", 1], ["is it red?", "no", 0]])
        touch(root / split / "images" / "0.png", root / split / "images" / "1.png")


def gqa(root: Path) -> None:
    for number, split in enumerate(("train", "val", "testdev", "test", "challenge")):
        rows = {
            f"0{number}{k}": {
                "imageId": f"n{number}",
                "question": "Is it red?",
                "answer": "yes",
                "types": {"structural": "verify", "semantic": "attr", "detailed": "x"},
                "isBalanced": True,
            }
            for k in range(2)
        }
        if split in ("test", "challenge"):
            rows = {key: {"imageId": row["imageId"], "question": row["question"]} for key, row in rows.items()}
        write(root / "questions" / f"{split}_balanced_questions.json", rows)
        touch(root / "images" / f"n{number}.jpg")


def vizwiz(root: Path) -> None:
    for split in ("train", "val", "test"):
        image = f"VizWiz_{split}_00000000.jpg"
        row: dict[str, Any] = {"image": image, "question": "What is this?"}
        if split != "test":
            row["answers"] = [{"answer_confidence": "yes", "answer": "can" if k < 6 else "tin"} for k in range(10)]
            row |= {"answer_type": "other", "answerable": 1}
        write(root / "Annotations" / f"{split}.json", [row])
        touch(root / split / image)


def clevr(root: Path) -> None:
    for split in ("train", "val", "test", "trainA", "valA", "valB", "testA", "testB", "new"):
        image = f"CLEVR_{split}_000000.png"
        row: dict[str, Any] = {
            "question_index": 5,
            "image_filename": image,
            "image_index": 0,
            "question": "How many?",
        }
        if not split.startswith("test"):
            row |= {
                "answer": "3",
                "program": [{"function": "scene", "inputs": []}, {"function": "count", "inputs": [0]}],
            }
        write(root / "questions" / f"CLEVR_{split}_questions.json", {"info": {}, "questions": [row]})
        touch(root / "images" / split / image)


def table(root: Path) -> None:
    write_text(root / "train.csv", 'image,question,answers,choices\np/1.png,"Is it, ""red""?",yes|no|yes,yes|no\n')
    write_text(root / "val.jsonl", '{"image": "p/2.png", "question": "How many?", "answer": 2, "id": 7}\n')
    write_text(root / "test.tsv", "image\tquestion\np/3.png\tWhat?\n")
    touch(*(root / "p" / f"{number}.png" for number in (1, 2, 3)))


MINIATURES = {
    "vqa_v1": vqa_v1,
    "vqa_v2": vqa_v2,
    "abstract": abstract,
    "binary_abstract": binary_abstract,
    "vqa_cp_v1": lambda root: _vqa_cp(root, "v1"),
    "vqa_cp_v2": lambda root: _vqa_cp(root, "v2"),
    "changing_priors_v1": lambda root: _changing_priors(root, ""),
    "changing_priors_v2": lambda root: _changing_priors(root, "v2_"),
    "daquar": daquar,
    "daquar_single": daquar,
    "daquar_reduced": daquar,
    "daquar_reduced_single": daquar,
    "coco_qa": coco_qa,
    "easy_vqa": easy_vqa,
    "gqa": gqa,
    "vizwiz": vizwiz,
    "clevr": clevr,
    "table": table,
    **PUBLISHED,
}
