"""Miniature repositories with the columns of the published sets on the hub, written by hand."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

TEN = [{"answer": "yes" if k < 6 else "no", "answer_confidence": "yes", "answer_id": k + 1} for k in range(10)]


def image(colour: str) -> dict[str, Any]:
    """An image as a cell of parquet."""
    content = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(content, "PNG")
    return {"bytes": content.getvalue(), "path": f"{colour}.png"}


RED, BLUE, GREEN = (image(colour) for colour in ("red", "blue", "green"))


def parquet(rows: Sequence[Mapping[str, Any]], row_group: int = 2) -> bytes:
    """A parquet file of rows."""
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), content, row_group_size=row_group)
    return content.getvalue()


def csv_like(**columns: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows of columns."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


VQAV2 = csv_like(
    question_type=["is the", "is the", "how many"],
    multiple_choice_answer=["yes", "yes", "yes"],
    answers=[TEN, TEN, TEN],
    image_id=[262148, 262148, 9],
    answer_type=["yes/no", "yes/no", "number"],
    question_id=[262148000, 262148001, 9000],
    question=["Is the dog brown?", "Is the sky blue?", "How many dogs?"],
    image=[RED, RED, BLUE],
)
GQA_IMAGES = csv_like(id=["n1", "n2"], image=[RED, BLUE])
GQA_QUESTIONS = csv_like(
    id=["201307251", "07333408"],
    imageId=["n2", "n1"],
    question=["Is it overcast?", "Who is wearing the dress?"],
    answer=["no", "woman"],
    fullAnswer=["No, it is not.", "The woman."],
    isBalanced=[True, True],
    types=[{"detailed": "weatherVerify", "semantic": "global", "structural": "verify"}] * 2,
)
VIZWIZ = csv_like(
    question_id=["VizWiz_val_00000000.jpg", "VizWiz_val_00000001.jpg"],
    image=[RED, BLUE],
    question=["Ok. There is another picture I hope it is a better one.", "What is this?"],
    answers=[["unanswerable"] * 10, ["can"] * 10],
    category=["unanswerable", "other"],
)
A_OKVQA = csv_like(
    image=[RED],
    question_id=["22MexNkBPpdZGX6sxbxVBH"],
    question=["What is the man by the bags awaiting?"],
    choices=[["skateboarder", "train", "delivery", "cab"]],
    correct_choice_idx=[3],
    direct_answers=["['ride', 'ride', \"driver's seat\", 'bus', 'cab', 'cab', 'cab', 'cab', 'cab', 'taxi']"],
    difficult_direct_answer=[False],
    rationales=[["A train would not be on the street."]],
)
HIDDEN = ("correct_choice_idx", "direct_answers", "rationales")
A_OKVQA_TEST = [{name: value for name, value in A_OKVQA[0].items() if name not in HIDDEN}]
TEXTVQA = csv_like(
    image_id=["0054c91397f2fe05"], question_id=[0], question=["what is the brand?"], image=[GREEN],
    answers=[["nokia"] * 10], ocr_tokens=[["NOKIA"]], set_name=["train"],
)  # fmt: skip
CHARTQA = csv_like(
    type=["human_test", "augmented_test"], question=["How many?", "What is it?"], answer=["14", "0.57"],
    image=[RED, BLUE],
)  # fmt: skip
CHARTQA_OLD = csv_like(image=[RED], query=["How many?"], label=[["14"]], human_or_machine=[0])
DOCVQA = csv_like(
    questionId=["337"], question=["what is the date?"], question_types=[["handwritten"]], image=[RED], docId=[279],
    answers=[["1/8/93", "1/8/1993"]], data_split=["val"],
)  # fmt: skip
INFOGRAPHIC = csv_like(
    questionId=["65718"], question=["How many companies?"], image=[BLUE], answers=[["3", "three"]], ocr=["…"],
)  # fmt: skip
ST_VQA = csv_like(question_id=["60865"], question=["What is the price?"], image=[GREEN])
VQA_RAD = csv_like(image=[RED, BLUE], question=["are the lungs clear?", "what is seen?"], answer=["Yes", "a mass"])
POPE = csv_like(
    id=["0", "1", "2"], question_id=["1", "2", "1"], question=["Is there a cup?"] * 3, answer=["yes", "no", "no"],
    image_source=["COCO_val2014_000000310196"] * 3, image=[RED, RED, BLUE],
    category=["adversarial", "adversarial", "popular"],
)  # fmt: skip


def slake() -> dict[str, bytes]:
    """JSON lists and an archive in which equal names lie in different folders."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number, one in ((1, RED), (2, BLUE)):
            archive.writestr(f"imgs/xmlab{number}/source.jpg", one["bytes"])
    row = {"img_id": 1, "img_name": "xmlab1/source.jpg", "question": "What organ?", "answer": "Liver", "q_lang": "en",
           "modality": "MRI", "answer_type": "OPEN", "content_type": "Organ", "qid": 0}  # fmt: skip
    other = {**row, "img_name": "xmlab2/source.jpg", "question": "是什么器官？", "q_lang": "zh", "qid": 1}
    return {
        "imgs.zip": content.getvalue(),
        **{f"{split}.json": json.dumps([row, other]).encode() for split in ("train", "validation", "test")},
        "KG/en_organ.csv": b"a#b\n",
    }


README = b"# A data set\n"
STATED = b"""---
configs:
- config_name: DocVQA
  data_files:
  - split: validation
    path: DocVQA/validation-*
- config_name: InfographicVQA
  data_files:
  - split: validation
    path: InfographicVQA/validation-*
---
# DocVQA
"""
REPOSITORIES: dict[str, dict[str, bytes]] = {
    "lab/VQAv2": {"README.md": README, "data/validation-00000-of-00002.parquet": parquet(VQAV2[:2], 1),
                  "data/validation-00001-of-00002.parquet": parquet(VQAV2[2:])},
    "lab/GQA": {"README.md": README, "testdev_balanced_images/testdev-00000-of-00001.parquet": parquet(GQA_IMAGES),
                "testdev_balanced_instructions/testdev-00000-of-00001.parquet": parquet(GQA_QUESTIONS),
                "val_balanced_images/val-00000-of-00001.parquet": parquet(GQA_IMAGES),
                "val_balanced_instructions/val-00000-of-00001.parquet": parquet(GQA_QUESTIONS)},
    "lab/VizWiz-VQA": {"README.md": README, "data/val-00000-of-00001.parquet": parquet(VIZWIZ)},
    "lab/OK-VQA": {"README.md": README, "data/val2014-00000-of-00001.parquet": parquet(VIZWIZ)},
    "lab/A-OKVQA": {"README.md": README, "data/train-00000-of-00001.parquet": parquet(A_OKVQA),
                    "data/test-00000-of-00001.parquet": parquet(A_OKVQA_TEST)},
    "lab/textvqa": {"README.md": README, "data/train-00000-of-00001.parquet": parquet(TEXTVQA)},
    "lab/ChartQA": {"README.md": README, "data/test-00000-of-00001.parquet": parquet(CHARTQA)},
    "old/ChartQA": {"README.md": README, "data/test-00000-of-00001-e2cd0b7a0f9eb20d.parquet": parquet(CHARTQA_OLD)},
    "lab/DocVQA": {"README.md": STATED, "DocVQA/validation-00000-of-00001.parquet": parquet(DOCVQA),
                   "InfographicVQA/validation-00000-of-00001.parquet": parquet(INFOGRAPHIC)},
    "lab/ST-VQA": {"README.md": README, "data/test-00000-of-00001.parquet": parquet(ST_VQA)},
    "lab/SLAKE": {"README.md": README, **slake()},
    "lab/vqa-rad": {"README.md": README, "data/train-00000-of-00001-eb8844602202be60.parquet": parquet(VQA_RAD),
                    "data/test-00000-of-00001-e5bc3d208bb4deeb.parquet": parquet(VQA_RAD[:1])},
    "lab/path-vqa": {"README.md": README, "data/validation-00000-of-00001.parquet": parquet(VQA_RAD)},
    "lab/POPE": {"README.md": README, "data/test-00000-of-00001.parquet": parquet(POPE),
                 "Full/adversarial-00000-of-00001.parquet": parquet(POPE[:2])},
}  # fmt: skip
