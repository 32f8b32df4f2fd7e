"""OK-VQA (Marino et al. 2019): questions about COCO images that need outside knowledge, ten answers each.

The files have VQA's names and schema without `multiple_choice_answer`; the type is the category of knowledge.
"""

from pathlib import Path

from vqa.data.dataset import QADataset
from vqa.data.formats.official import read_folder

SPLITS = {"train": "train2014", "val": "val2014"}  # what the paper calls test is val2014
ABOUT = "OK-VQA: questions on COCO photographs that need knowledge from outside the image"


def read(root: Path, split: str) -> QADataset:
    """Read `OpenEnded_mscoco_<split>_questions.json` and `mscoco_<split>_annotations.json`."""
    return read_folder(root, split, format="ok_vqa", data_type="mscoco")
