"""VQA v2, balanced real images (Goyal et al. 2017), with the lists of complementary pairs.

The published set has no multiple-choice task; files named as those of v1 with `v2_` in front are read when present.
"""

from pathlib import Path

from vqa.data.dataset import QADataset
from vqa.data.formats.official import read_folder

SPLITS = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test-dev2015"}
ABOUT = "VQA v2, balanced, on COCO photographs; multiple choice when its files are there"


def read(root: Path, split: str) -> QADataset:
    """Read one split from `v2_OpenEnded_mscoco_<split>_questions.json`, its annotations and complementary pairs."""
    return read_folder(root, split, format="vqa_v2", data_type="mscoco", prefix="v2_")
