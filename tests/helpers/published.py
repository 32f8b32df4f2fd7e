"""Miniature files in the layouts of further published sets, written by hand for the tests of the readers."""

import pickle
from pathlib import Path
from typing import Any

from helpers.written import annotations, questions, touch, write, write_text


def without_majority(root: Path) -> None:
    """OK-VQA and TDIUC: VQA's names and schema without `multiple_choice_answer`."""
    for split, ids in (("train2014", [52, 10, 11]), ("val2014", [70, 71])):
        answered = annotations(ids, "mscoco", split)
        for row in answered["annotations"]:
            del row["multiple_choice_answer"]
        write(root / f"OpenEnded_mscoco_{split}_questions.json", questions(ids, "mscoco", split))
        write(root / f"mscoco_{split}_annotations.json", answered)
        touch(*(root / split / f"COCO_{split}_{i // 10:012d}.jpg" for i in ids))


def gqa_all(root: Path) -> None:
    folder = root / "questions"
    for number, split in enumerate(("train", "val", "testdev", "test", "challenge", "submission")):
        row: dict[str, Any] = {"imageId": f"n{number}", "question": "Is it red?"}
        if number < 3:
            row |= {"answer": "yes", "types": {"structural": "verify"}}
        if split == "train":
            for part in range(2):
                write(folder / "train_all_questions" / f"train_all_questions_{part}.json", {f"0{part}": row})
        else:
            write(folder / f"{split}_all_questions.json", {"07": row, "08": row})
        touch(root / "images" / f"n{number}.jpg")


def clevr_humans(root: Path) -> None:
    for split in ("train", "val", "test"):
        image = f"CLEVR_{split}_000000.png"
        row = {"split": split, "image_filename": image, "image_index": 0, "question": "How many?", "answer": "3"}
        write(root / f"CLEVR-Humans-{split}.json", {"questions": [row, {**row, "question": "Any cone?"}]})
        touch(root / "images" / split / image)


def rsvqa(root: Path, stem: str, folder: str, splits: tuple[str, ...]) -> None:
    for number, split in enumerate(splits):
        other: dict[str, Any] = {"id": 9, "active": False}
        asked = {"id": 2 * number, "img_id": number, "type": "presence", "question": "Is there water?", "active": True}
        counted = {**asked, "id": 2 * number + 1, "type": "count", "question": "How many roads?"}
        write(root / f"{stem}_{split}_questions.json", {"questions": [asked, other, counted]})
        answers = [
            {"id": 1, "question_id": 2 * number + 1, "people_id": 0, "answer": 12, "active": True},
            {"id": 2, "active": False},
            {"id": 3, "question_id": 2 * number, "people_id": 0, "answer": "yes", "active": True},
        ]
        write(root / f"{stem}_{split}_answers.json", {"answers": answers})
        touch(root / folder / f"{number}.tif")


def a_okvqa(root: Path) -> None:
    for image, split in enumerate(("train", "val", "test"), 299207):
        row: dict[str, Any] = {
            "split": split,
            "image_id": image,
            "question_id": "22MexNkBPpdZGX6sxbxVBH",
            "question": "What is the man by the bags awaiting?",
            "choices": ["skateboarder", "train", "delivery", "cab"],
        }
        if split != "test":
            people = ["ride"] * 4 + ["bus"] * 3 + ["cab"] * 3
            row |= {"correct_choice_idx": 3, "direct_answers": people, "rationales": ["He stands by the road."] * 3}
        write(root / f"aokvqa_v1p0_{split}.json", [row, {**row, "question_id": "2A", "question": "Why?"}])
        touch(root / f"{split}2017" / f"{image:012d}.jpg")


def textvqa(root: Path) -> None:
    for split in ("train", "val", "test"):
        row: dict[str, Any] = {
            "question": "what brand is it?",
            "image_id": f"{split}4c91397f2fe05",
            "image_classes": ["Camera"],
            "question_tokens": ["what", "brand", "is", "it"],
            "question_id": 7,
            "set_name": split,
        }
        if split != "test":
            row["answers"] = ["nokia"] * 6 + ["dakota"] * 4
        write(root / f"TextVQA_0.5.1_{split}.json", {"dataset_type": split, "data": [row]})
        folder = "test_images" if split == "test" else "train_images"
        touch(root / folder / f"{row['image_id']}.jpg")


def st_vqa(root: Path) -> None:
    for split in ("train", "test"):
        row: dict[str, Any] = {
            "file_path": f"coco-text/COCO_{split}.jpg",
            "question": "What is on the sign?",
            "question_id": 4,
        }
        if split == "train":
            row["answers"] = ["stop", "STOP"]
        write(root / f"{split}_task_3.json", {"data": [row]})
        touch(root / split / "coco-text" / f"COCO_{split}.jpg")


def docvqa(root: Path) -> None:
    for split in ("train", "val", "test"):
        row: dict[str, Any] = {
            "questionId": 337,
            "question": "what is the date?",
            "image": f"documents/{split}37_1.png",
            "docId": 279,
        }
        if split != "test":
            row |= {"answers": ["1/8/93", "1/8/1993"], "question_types": ["handwritten"]}
        name = f"{split}_v1.0.json" if split == "test" else f"{split}_v1.0_withQT.json"
        write(root / name, {"dataset_name": "SP-DocVQA", "data": [row]})
        touch(root / split / "documents" / f"{split}37_1.png")


def infographicvqa(root: Path) -> None:
    for split in ("train", "val", "test"):
        row: dict[str, Any] = {"questionId": 65718, "question": "How many?", "image_local_name": f"{split}.jpeg"}
        if split != "test":
            row["answers"] = ["3", "three"]
        write(root / f"infographicsVQA_{split}_v1.0.json", {"data": [row]})
        touch(root / "infographicsvqa_images" / f"{split}.jpeg")


def chartqa(root: Path) -> None:
    for split in ("train", "val", "test"):
        for kind in ("human", "augmented"):
            row = {"imgname": f"{split}1.png", "query": f"What is the {kind} value?", "label": "14.5"}
            write(root / split / f"{split}_{kind}.json", [row])
        touch(root / split / "png" / f"{split}1.png")


def slake(root: Path) -> None:
    for number, name in enumerate(("train", "validate", "test")):
        image = f"xmlab{number}/source.jpg"
        row: dict[str, Any] = {
            "img_id": number,
            "img_name": image,
            "question": "What modality is used to take this image?",
            "answer": "MRI",
            "q_lang": "en",
            "location": "Abdomen",
            "modality": "MRI",
            "answer_type": "OPEN",
            "content_type": "Modality",
            "qid": 2 * number,
        }
        chinese = {**row, "question": "这是什么模态？", "answer": "核磁共振", "q_lang": "zh", "qid": 2 * number + 1}
        write(root / f"{name}.json", [row, chinese])
        touch(root / "imgs" / image)


def vqa_rad(root: Path) -> None:
    row: dict[str, Any] = {
        "qid": 1,
        "phrase_type": "freeform",
        "image_name": "synpic54610.jpg",
        "image_organ": "HEAD",
        "question": "Are regions of the brain infarcted?",
        "question_type": "PRES",
        "answer": "Yes",
        "answer_type": "CLOSED ",
    }
    test = {**row, "qid": 2, "phrase_type": "test_para", "question": "How many lesions?", "answer": 3}
    test["image_name"] = "synpic100228.jpg"  # the published splits share images
    write(root / "VQA_RAD Dataset Public.json", [row, test])
    touch(*(root / "VQA_RAD Image Folder" / one["image_name"] for one in (row, test)))


def pathvqa(root: Path) -> None:
    for split in ("train", "val", "test"):
        rows = [{"image": f"{split}_0422", "question": "where are cells located?", "answer": "in the canals"}]
        path = root / "qas" / split / f"{split}_qa.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(rows, protocol=3))
        touch(root / "images" / split / f"{split}_0422.jpg")


def vivqa(root: Path) -> None:
    for split, image in (("train", "COCO_train2014_000000068857.jpg"), ("test", "COCO_val2014_000000000042.jpg")):
        number = int(image[-16:-4])
        text = f",question,answer,img_id,type\n0,màu của chiếc áo là gì,màu xanh lá,{number},2\n"
        write_text(root / f"{split}.csv", text)
        touch(root / image[5:-17] / image)


def openvivqa(root: Path) -> None:
    for number, (split, folder) in enumerate((("train", "training"), ("dev", "dev"), ("test", "test"))):
        row: dict[str, Any] = {"image_id": number, "question": "biển hiệu ghi gì?"}
        if split != "test":
            row["answer"] = "biển hiệu ghi cấm đỗ xe"
        name = f"0000000{number}.jpg"
        write(root / f"vlsp2023_{split}_data.json", {"images": {str(number): name}, "annotations": {"5253": row}})
        touch(root / f"{folder}-images" / name)


def fm_iqa(root: Path) -> None:
    asked = {"Question": "这辆公共汽车是什么颜色的?", "Answer": "公共汽车是红色的。"}
    write(root / "FM-CH-QA.json", {"train": [{**asked, "image_id": "9"}], "val": [{**asked, "image_id": "42"}]})
    touch(root / "train2014" / "COCO_train2014_000000000009.jpg", root / "val2014" / "COCO_val2014_000000000042.jpg")


PUBLISHED = {
    "ok_vqa": without_majority,
    "tdiuc": without_majority,
    "gqa_all": gqa_all,
    "gqa_submission": gqa_all,
    "clevr_humans": clevr_humans,
    "rsvqa_lr": lambda root: rsvqa(root, "LR_split", "Images_LR", ("train", "val", "test")),
    "rsvqa_hr": lambda root: rsvqa(root, "USGS_split", "Data", ("train", "val", "test", "test_phili")),
    "a_okvqa": a_okvqa,
    "textvqa": textvqa,
    "st_vqa": st_vqa,
    "docvqa": docvqa,
    "infographicvqa": infographicvqa,
    "chartqa": chartqa,
    "slake": slake,
    "slake_en": slake,
    "slake_zh": slake,
    "vqa_rad": vqa_rad,
    "pathvqa": pathvqa,
    "vivqa": vivqa,
    "openvivqa": openvivqa,
    "fm_iqa": fm_iqa,
}
