"""`check_dataset`: what is wrong with a data set, all of it, before anything is trained on it.

Legend: `N` questions, `C` choices a question.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vqa.data.check.findings import OFFICIAL, SHARING, TOLERATED, Finding, shares_images
from vqa.data.check.images import leaks, missing, opened
from vqa.data.check.texts import PAIRS, answer_findings, question_findings
from vqa.data.check.trainable import Trainable, trainable
from vqa.data.dataset import ImageDigests, QADataset, ids_digest
from vqa.data.formats import find_format, read_dataset, require_table, table
from vqa.data.formats.changing_priors import SEED
from vqa.data.formats.find import MissingSplitError, check_root, folders
from vqa.data.formats.official import read_annotations, read_pairs, read_questions
from vqa.errors import InputError

__all__ = ["SHARING", "TOLERATED", "CheckOptions", "CheckReport", "Finding", "check_dataset", "shares_images"]

PARTS = (  # of a split: how the file is called, the formats that publish it, and what it holds
    ("OpenEnded", ("vqa_v1", "vqa_v2", "abstract", "binary_abstract"), "open-ended questions"),
    ("MultipleChoice", ("vqa_v1", "abstract"), "multiple-choice questions"),
    (PAIRS, ("vqa_v2",), "complementary pairs"),
)
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".part")


@dataclass(frozen=True)
class CheckReport:
    """All findings on one data set, in the order of its splits.

    Attributes:
        settings: keys of an experiment without which `vqa train` would not start on it.
        tests_only: whether nothing but splits of a published set is there that are for testing.
    """

    root: Path
    format: str
    rows: tuple[Finding, ...]
    settings: tuple[str, ...] = ()
    tests_only: bool = False

    @property
    def failed(self) -> bool:
        """Whether any finding is an error."""
        return any(row.level == "error" for row in self.rows)

    @property
    def spoilt(self) -> list[str]:
        """The splits that `vqa evaluate` and `vqa ablate` refuse after training on the others: they were seen."""
        return list(dict.fromkeys(row.spoils for row in self.rows if row.spoils))

    @property
    def verdict(self) -> str:
        """What the data set is fit for, in words."""
        if self.failed:
            return "do not train on this"
        if self.tests_only:
            return "fit to evaluate on; there is nothing to train on"
        fit = f"fit to train on{' with ' if self.settings else ''}{' '.join(self.settings)}"
        if self.spoilt:
            return (
                f"{fit}, but {', '.join(self.spoilt)} is no test of it: training and test share images or "
                "questions (see above), so `vqa evaluate` and `vqa ablate` refuse it unless told to allow what was "
                "seen; where the published splits share images by design, as those of VQA-RAD, "
                "`data.shares_images: published` says so"
            )
        return fit

    def as_json(self) -> dict[str, Any]:
        """The report for `--json`."""
        rows = [asdict(row) for row in self.rows]
        said: dict[str, Any] = {"failed": self.failed, "no_test": self.spoilt, "verdict": self.verdict}
        said["settings"] = list(self.settings)
        return {"root": str(self.root), "format": self.format, **said, "findings": rows}


@dataclass(frozen=True)
class CheckOptions:
    """What a check is told of a data set, and how far it goes.

    Attributes:
        images: open every image, in parallel, with a progress bar.
        shares_images: "published" where the published splits share images by design.
        caches: of features, which make missing images no fault.
        reading: how a table is read.
    """

    images: bool = False
    shares_images: str | None = None
    caches: Sequence[ImageDigests] = ()
    reading: table.TableOptions = table.PLAIN


DEFAULTS = CheckOptions()


def check_dataset(root: Path, format: str, options: CheckOptions = DEFAULTS) -> CheckReport:
    """Check every split of a data set that is there, and the splits against each other.

    Args:
        root: the data set's folder.
        format: a name in `FORMATS`.

    Raises:
        InputError: for an unknown format or a root that is not there; all other faults are findings.
    """
    if options.reading:
        require_table(format)
    rows: list[Finding] = []
    datasets: list[QADataset] = []
    for split in _splits(root, format, options.reading):
        try:
            dataset = read_dataset(format, root, split, options.reading)
        except MissingSplitError as error:
            rows.append(Finding("note", str(root), split, f"not there: {error}"))
        except InputError as error:
            rows.append(Finding("error", str(root), split, str(error)))
            rows.extend(_file_faults(root, format, split, str(error)))
        else:
            datasets.append(dataset)
            rows.extend(_split_findings(dataset))
    if not datasets and not any(row.level == "error" for row in rows):
        rows.append(Finding("error", str(root), format, "no split of this format is there"))
        rows.extend(_archives(root))
    found = trainable(root, format, datasets) if datasets else Trainable()
    rows.extend(row for row in found.rows if not any(row.finding == other.finding for other in rows))
    rows.extend(missing(datasets, root, options.caches))
    rows.extend(leaks(datasets, options.shares_images))
    if options.images:
        rows.extend(opened(datasets, options.shares_images))
    return CheckReport(root, format, tuple(rows), found.settings, found.tests_only)


def _splits(root: Path, format: str, reading: table.TableOptions) -> list[str]:
    """The official names of the splits to look for."""
    splits = find_format(format).splits
    if splits:
        check_root(root)
        return list(dict.fromkeys(splits.values()))
    if not root.is_file():
        check_root(root)
    return table.splits(root, reading) or ["train"]


def _split_findings(dataset: QADataset) -> Iterator[Finding]:
    held = f"{len(dataset):,} questions about {len(dataset.images.ids):,} images"
    if dataset.answers is not None:
        most = dataset.answers.codes.shape[1]
        held += ", one answer each" if most == 1 else f", up to {most} answers each"
    for path in dataset.files:
        yield Finding("ok", str(path), dataset.split, held)
    for said in dataset.notes:
        yield Finding("note", str(dataset.files[0]), dataset.split, said)
    if dataset.format.startswith("changing_priors"):
        words = f"split with seed {SEED}; SHA-256 of its sorted question ids: {ids_digest(dataset)}"
        yield Finding("note", dataset.name, dataset.split, words)
    if dataset.answers_missing:
        yield Finding("error", str(dataset.files[0]), dataset.split, dataset.answers_missing)
    yield from _not_there(dataset)
    yield from _named_split(dataset)
    yield from _pairs_left_out(dataset)
    yield from question_findings(dataset)
    yield from answer_findings(dataset)


def _file_faults(root: Path, format: str, split: str, said: str) -> Iterator[Finding]:
    """Faults of single official files that the first fault of their split hid."""
    if format not in OFFICIAL or not root.is_dir():
        return
    readers = {f"{split}_questions.json": read_questions, f"{split}_annotations.json": read_annotations}
    for path in (path for folder in folders(root) for path in sorted(folder.glob(f"*{split}_*.json"))):
        for ending, reader in readers.items():
            if path.name.endswith(ending):
                try:
                    reader(path)
                except InputError as error:
                    if str(error) != said:
                        yield Finding("error", str(path), split, str(error))


def _not_there(dataset: QADataset) -> Iterator[Finding]:
    """Published files of a split that are not there; each is needed for one task or number only."""
    names = " ".join(path.name for path in dataset.files)
    for part, formats, what in PARTS:
        published = dataset.format in formats and not (part == PAIRS and dataset.split.startswith("test"))
        if published and part not in names:
            yield Finding("note", str(dataset.files[0].parent), dataset.split, f"not there: a file of {what}")


def _pairs_left_out(dataset: QADataset) -> Iterator[Finding]:
    for path in dataset.files:
        if path.name.endswith(f"_{PAIRS}.json") and dataset.pairs_P2 is not None:
            listed = len(read_pairs(path))
            if listed > len(dataset.pairs_P2):
                left = listed - len(dataset.pairs_P2)
                words = f"{left:,} of {listed:,} pairs are of questions that are not in the questions file; left out"
                yield Finding("warning", str(path), dataset.split, words)


def _named_split(dataset: QADataset) -> Iterator[Finding]:
    """Files that say they are of another split, or of other images, than their name does."""
    if dataset.data_type not in ("mscoco", "abstract_v002") or dataset.format.startswith("vqa_cp"):
        return  # the names of VQA-CP's files say neither
    for path in dataset.files:
        if path.name.endswith("_questions.json"):
            asked = read_questions(path)
            saying = [asked.data_subtype, asked.data_type]
        elif path.name.endswith("_annotations.json"):
            saying = [read_annotations(path).data_subtype]
        else:
            continue
        for said in saying:
            if said and said not in path.name:
                yield Finding("warning", str(path), dataset.split, f"says inside that it is of {said!r}")


def _archives(root: Path) -> Iterator[Finding]:
    """Archives that were not unpacked and downloads that were not finished."""
    if root.is_dir():
        for folder in folders(root):
            for path in sorted(folder.iterdir()):
                if path.suffix in ARCHIVES:
                    yield Finding("note", str(path), path.name, "an archive: unpack it here")
