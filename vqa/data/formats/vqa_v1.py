"""VQA v1, real images (Antol et al. 2015): open-ended and multiple choice on COCO images."""

from pathlib import Path

from vqa.data.dataset import QADataset
from vqa.data.formats.official import read_folder

SPLITS = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test-dev2015"}
ABOUT = "VQA v1 on COCO photographs, open-ended and multiple choice"


def read(root: Path, split: str) -> QADataset:
    """Read one split from `[OpenEnded|MultipleChoice]_mscoco_<split>_questions.json` and its annotations."""
    return read_folder(root, split, format="vqa_v1", data_type="mscoco")
