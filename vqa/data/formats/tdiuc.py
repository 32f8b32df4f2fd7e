"""TDIUC (Kafle and Kanan 2017): twelve types of questions on COCO and Visual Genome images, one answer each.

The files have VQA's names and schema without `multiple_choice_answer`; images of Visual Genome are named as COCO's are.
"""

from pathlib import Path

from vqa.data.dataset import QADataset
from vqa.data.formats.official import read_folder

SPLITS = {"train": "train2014", "val": "val2014"}
ABOUT = "TDIUC: twelve types of questions, absurd ones too, on COCO and Visual Genome photographs"


def read(root: Path, split: str) -> QADataset:
    """Read `OpenEnded_mscoco_<split>_questions.json` and `mscoco_<split>_annotations.json`."""
    return read_folder(root, split, format="tdiuc", data_type="mscoco")
