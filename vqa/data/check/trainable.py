"""Whether a training would start on a data set, and with which keys of `data`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vqa.data.check.findings import Finding
from vqa.data.dataset import QADataset
from vqa.data.formats import find_format

SHARES = (0.2, 0.5)  # of the images, to hold out; the first that leaves images on both sides
UNVALIDATED = ("data.val=null", "training.keep=last")


@dataclass(frozen=True)
class Trainable:
    """What a training needs to be told.

    Attributes:
        settings: keys of the experiment without which it would not start, as they are written on the command line.
        tests_only: whether nothing but splits of a published set is there that are for testing.
        rows: what was found.
    """

    settings: tuple[str, ...] = ()
    rows: tuple[Finding, ...] = field(default=())
    tests_only: bool = False


def trainable(root: Path, format: str, datasets: Sequence[QADataset]) -> Trainable:
    """Which split a training would take, and what it would validate on.

    Args:
        datasets: the splits that could be read, at least one.
    """
    train, val = (_named(format, datasets, name) for name in ("train", "val"))
    if train is not None and train.answers is None:
        what = train.answers_missing or f"{train.split} has no answers, so it cannot be trained on"
        return Trainable(rows=(Finding("error", str(root), train.split, what),))
    settings: list[str] = []
    if train is None:
        train = next(_others(datasets, val), None) or next(_others(datasets, None), None)
        if train is None and find_format(format).splits:
            what = (
                f"only splits for testing are there ({', '.join(one.split for one in datasets)}): nothing to train on"
            )
            return Trainable(rows=(Finding("note", str(root), format, what),), tests_only=True)
        if train is None:
            what = "no split has answers, so there is nothing to train on"
            return Trainable(rows=(Finding("error", str(root), format, what),))
        settings.append(f"data.train={train.split}")
    rows = []
    if val is None or val is train or val.answers is None:
        if len(train.images.ids) < 2:
            what = "no split to validate on, and one image, of which no part can be held out"
            return Trainable((*settings, *UNVALIDATED), (Finding("note", str(root), train.split, what),))
        share = next(share for share in SHARES if round(share * len(train.images.ids)))
        holdout = f"data.holdout={share:g}"
        settings.append(holdout)
        keeps = f"`{holdout}` keeps {share:.0%} of the images of {train.split} for it"
        what = f"no split to validate on is there: {keeps}"
        if val is not None and val is not train:
            what = f"{val.split} has no answers to validate on: {keeps}"
        rows.append(Finding("note", str(root), train.split, what))
    return Trainable(tuple(settings), tuple(rows))


def _named(format: str, datasets: Sequence[QADataset], name: str) -> QADataset | None:
    """The split that an experiment means by "train" or "val"."""
    official = find_format(format).splits.get(name, name)
    return next((dataset for dataset in datasets if dataset.split == official), None)


def _others(datasets: Sequence[QADataset], but: QADataset | None) -> Iterator[QADataset]:
    """Splits with answers that are not there for testing."""
    for dataset in datasets:
        if dataset is not but and dataset.answers is not None and not dataset.split.startswith("test"):
            yield dataset
