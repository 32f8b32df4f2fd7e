"""VQA v1, abstract scenes (Antol et al. 2015): clip-art images, open-ended and multiple choice."""

from pathlib import Path

from vqa.data.dataset import QADataset
from vqa.data.formats.official import read_folder

SPLITS = {"train": "train2015", "val": "val2015", "test": "test2015"}
ABOUT = "VQA v1 on abstract clip-art scenes (abstract_v002), open-ended and multiple choice"


def read(root: Path, split: str) -> QADataset:
    """Read one split from `[OpenEnded|MultipleChoice]_abstract_v002_<split>_questions.json` and its annotations."""
    return read_folder(root, split, format="abstract", data_type="abstract_v002")
