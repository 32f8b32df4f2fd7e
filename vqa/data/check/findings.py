"""One row of a data set's check, and what every check needs to make one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset

Level = Literal["ok", "note", "warning", "error"]
NAMED = 3  # items named in a finding; the others are counted
OFFICIAL = ("vqa_v1", "vqa_v2", "abstract", "binary_abstract", "vqa_cp_v1", "vqa_cp_v2")
TEN_ANSWERS = (*OFFICIAL, "vizwiz", "ok_vqa", "a_okvqa", "textvqa")
SHARING = ("vqa_cp_v1", "vqa_cp_v2", "changing_priors_v1", "changing_priors_v2")  # split by answers, not by images
TOLERATED = 0.01  # share of a split that may be copies of training images, in `SHARING` trained questions, to test on


@dataclass(frozen=True)
class Finding:
    """One row of the report.

    Attributes:
        level: "error" (do not train on this), "warning" (look at it), "note" (good to know), "ok".
        file: the file or folder it is about.
        item: the split, questions or images it is about.
        finding: what was found, a sentence.
        spoils: the split that is no test of a model trained on the other because of it, "" for none.
    """

    level: Level
    file: str
    item: str
    finding: str
    spoils: str = ""


def shares_images(format: str, declared: str | None) -> bool:
    """Whether the published splits of a data set share images by design.

    Args:
        declared: what the experiment or the command line says (`data.shares_images`).
    """
    return declared == "published" or format in SHARING


def some(level: Level, file: str, ids: NDArray[np.int64], what: str) -> Iterator[Finding]:
    """A finding on some questions, the first of them named; none where there are none."""
    if len(ids):
        named = ", ".join(str(number) for number in ids[:NAMED].tolist())
        more = f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else ""
        yield Finding(level, file, f"questions {named}{more}", f"{len(ids):,} questions {what}")


def tested_pairs(datasets: Sequence[QADataset]) -> Iterator[tuple[QADataset, QADataset]]:
    """Pairs of splits, of which the first may be trained on and the second tested on."""
    for one, other in combinations(datasets, 2):
        if not (one.split.startswith("test") and other.split.startswith("test")):
            yield one, other
