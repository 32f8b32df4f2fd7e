"""Balanced binary abstract scenes (Zhang et al. 2016): yes/no questions, each with a scene for either answer.

Named as published: the question files say train2017, their images `abstract_v002_train2015_*.png` lie in
`scene_img_abstract_v002_train2017`.
"""

from pathlib import Path

from vqa.data.dataset import QADataset
from vqa.data.formats.official import read_folder

SPLITS = {"train": "train2017", "val": "val2017"}
ABOUT = "balanced yes/no questions on abstract clip-art scenes (2017 release)"


def read(root: Path, split: str) -> QADataset:
    """Read one split from `OpenEnded_abstract_v002_<split>_questions.json` and its annotations."""
    return read_folder(
        root,
        split,
        format="binary_abstract",
        data_type="abstract_v002",
        image_split=split.replace("2017", "2015"),
        image_prefix=f"{split}/",
    )
