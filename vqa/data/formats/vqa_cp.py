"""VQA-CP v1 and v2 (Agrawal et al. 2018): the answers' priors per question type differ between train and test.

The published files are plain lists; each question says which COCO split its image comes from.
"""

from pathlib import Path

from vqa.data.dataset import QADataset
from vqa.data.formats.find import find_file, need_file, not_found
from vqa.data.formats.official import ImageFiles, read_official

SPLITS = {"train": "train", "test": "test"}  # no validation split is published
ABOUT_V1 = "VQA-CP v1: v1 split anew so that answer priors change between train and test"
ABOUT_V2 = "VQA-CP v2: v2 split anew so that answer priors change between train and test"


def read_v1(root: Path, split: str) -> QADataset:
    """Read `vqacp_v1_<split>_questions.json` and its annotations."""
    return _read(root, split, "v1")


def read_v2(root: Path, split: str) -> QADataset:
    """Read `vqacp_v2_<split>_questions.json` and its annotations."""
    return _read(root, split, "v2")


def _read(root: Path, split: str, version: str) -> QADataset:
    name = f"vqa_cp_{version}"
    stem = f"vqacp_{version}_{split}"
    questions = need_file(root, f"{name} {split}", f"{stem}_questions.json")
    answered = f"{stem}_annotations.json"
    annotations = find_file(root, answered)
    missing = "" if annotations else not_found(root, f"{name} {split}", answered, beside=questions)
    return read_official(
        questions,
        annotations,
        images=ImageFiles(root, "mscoco"),
        format=name,
        split=split,
        answers_missing=missing,
    )
