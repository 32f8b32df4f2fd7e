"""`check_dataset`: what is wrong with a data set, all of it, before anything is trained on it.

Legend: `N` questions, `C` choices a question.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, QADataset, Strings, ids_digest, missing_images
from vqa.data.formats import find_format, read_dataset, require_table, table
from vqa.data.formats.changing_priors import SEED
from vqa.data.formats.find import MissingSplitError, check_root, folders
from vqa.data.formats.official import read_annotations, read_pairs, read_questions
from vqa.errors import InputError
from vqa.progress import progress_bar
from vqa.text.vocabulary import MOST_WORDS

if TYPE_CHECKING:
    from vqa.data.images import Decoding  # brings Pillow, which other checks do not need

Level = Literal["ok", "note", "warning", "error"]
NAMED = 3  # items named in a finding; the others are counted
OFFICIAL = ("vqa_v1", "vqa_v2", "abstract", "binary_abstract", "vqa_cp_v1", "vqa_cp_v2")
TEN_ANSWERS = (*OFFICIAL, "vizwiz")
SHARING = ("vqa_cp_v1", "vqa_cp_v2", "changing_priors_v1", "changing_priors_v2")  # split by answers, not by images
TOLERATED = 0.01  # share of a split that may be copies of training images, in `SHARING` trained questions, to test on
PAIRS = "complementary_pairs"
PARTS = (  # of a split: how the file is called, the formats that publish it, and what it holds
    ("OpenEnded", ("vqa_v1", "vqa_v2", "abstract", "binary_abstract"), "open-ended questions"),
    ("MultipleChoice", ("vqa_v1", "abstract"), "multiple-choice questions"),
    (PAIRS, ("vqa_v2",), "complementary pairs"),
)
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".part")


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


@dataclass(frozen=True)
class CheckReport:
    """All findings on one data set, in the order of its splits."""

    root: Path
    format: str
    rows: tuple[Finding, ...]

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
        if self.spoilt:
            return (
                f"fit to train on, but {', '.join(self.spoilt)} is no test of it: training and test share images or "
                "questions (see above), so `vqa evaluate` and `vqa ablate` refuse it unless told to allow what was seen"
            )
        return "fit to train on"

    def as_json(self) -> dict[str, Any]:
        """The report for `--json`."""
        rows = [asdict(row) for row in self.rows]
        said = {"failed": self.failed, "no_test": self.spoilt, "verdict": self.verdict}
        return {"root": str(self.root), "format": self.format, **said, "findings": rows}


def check_dataset(
    root: Path, format: str, images: bool = False, options: table.TableOptions = table.PLAIN
) -> CheckReport:
    """Check every split of a data set that is there, and the splits against each other.

    Args:
        root: the data set's folder.
        format: a name in `FORMATS`.
        images: whether to open every image, in parallel, with a progress bar.
        options: how a table is read.

    Raises:
        InputError: for an unknown format or a root that is not there; all other faults are findings.
    """
    if options:
        require_table(format)
    rows: list[Finding] = []
    datasets: list[QADataset] = []
    for split in _splits(root, format, options):
        try:
            dataset = read_dataset(format, root, split, options)
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
    rows.extend(_leaks(datasets))
    if images:
        rows.extend(_image_findings(datasets))
    return CheckReport(root, format, tuple(rows))


def _splits(root: Path, format: str, options: table.TableOptions) -> list[str]:
    """The official names of the splits to look for."""
    splits = find_format(format).splits
    if splits:
        check_root(root)
        return list(dict.fromkeys(splits.values()))
    if not root.is_file():
        check_root(root)
    return table.splits(root, options) or ["train"]


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
    yield from _answer_findings(dataset)
    yield from _missing(dataset)


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


def _answer_findings(dataset: QADataset) -> Iterator[Finding]:
    ids = dataset.question_id_N
    answered = [path for path in dataset.files if not path.name.endswith(f"_{PAIRS}.json")]
    file = str(answered[-1])
    pair_N2 = np.stack([dataset.image_row_N, dataset.question.codes], axis=1)
    _, first = np.unique(pair_N2, axis=0, return_index=True)
    again = np.setdiff1d(np.arange(len(ids)), first)
    yield from _some("note", file, ids[again], "asked before in the same words about the same image")
    words_S = np.array([len(text.split()) for text in dataset.question.distinct])
    words_N = words_S[dataset.question.codes]
    yield from _some("warning", file, ids[words_N == 0], "without a word")
    long = f"of more than {MOST_WORDS} words; a training reads so many, or as many as words.longest says"
    yield from _some("warning", file, ids[words_N > MOST_WORDS], long)
    if dataset.answers is None or dataset.majority is None:
        return
    if dataset.format in TEN_ANSWERS:
        few = (dataset.answers.codes != ABSENT).sum(axis=1) < 10
        yield from _some("warning", file, ids[few], "with fewer than ten answers")
    outside = ~_among(dataset.majority, dataset.answers)
    yield from _some("warning", file, ids[outside], "whose most frequent answer no one gave")
    if dataset.choices is not None:
        outside = ~_among(dataset.majority, dataset.choices)
        yield from _some("warning", file, ids[outside], "whose answer is not among the choices")


def _among(value: Strings, rows: Strings) -> NDArray[np.bool_]:
    """Whether each row of a one-dimensional column is among the strings of that row of another `[N]`."""
    index = {text: code for code, text in enumerate(rows.distinct)}
    code_of = np.array([index.get(text, ABSENT - 1) for text in value.distinct], dtype=np.int64)
    return (rows.codes == code_of[value.codes][:, None]).any(axis=1)


def _some(level: Level, file: str, ids: NDArray[np.int64], what: str) -> Iterator[Finding]:
    if len(ids):
        named = ", ".join(str(number) for number in ids[:NAMED].tolist())
        more = f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else ""
        yield Finding(level, file, f"questions {named}{more}", f"{len(ids):,} questions {what}")


def _missing(dataset: QADataset) -> Iterator[Finding]:
    """Images that are not there: some is a broken download, none at all a choice, or wrong paths in a table."""
    absent = missing_images(dataset)
    count = len(dataset.images.ids)
    if len(absent) == count:
        level: Level = "warning" if dataset.format == "table" else "note"
        said = f"none of the {count:,} images is there, first: {absent[0].name}"
        yield Finding(level, str(absent[0].parent), dataset.split, said)
    elif absent:
        named = ", ".join(path.name for path in absent[:NAMED])
        yield Finding("error", str(absent[0].parent), named, f"{len(absent):,} of {count:,} images are missing")


def _archives(root: Path) -> Iterator[Finding]:
    """Archives that were not unpacked and downloads that were not finished."""
    if root.is_dir():
        for folder in folders(root):
            for path in sorted(folder.iterdir()):
                if path.suffix in ARCHIVES:
                    yield Finding("note", str(path), path.name, "an archive: unpack it here")


def _leaks(datasets: Sequence[QADataset]) -> Iterator[Finding]:
    """Images that two splits share, unless both are test splits."""
    for one, other in _tested_pairs(datasets):
        shared = sorted(set(one.images.ids) & set(other.images.ids))
        if not shared:
            continue
        item = f"{one.split} and {other.split}"
        named = ", ".join(shared[:NAMED])
        level: Level = "note" if one.format in SHARING else "warning"
        words, spoils = f"share {len(shared):,} images (the first: {named})", other.split
        if one.format in SHARING:  # by design; then the questions decide
            count = _shared_questions(one, other)
            spoils = other.split if count > TOLERATED * len(other) else ""
            words += f" and {count:,} of {len(other):,} questions" if count else ""
        yield Finding(level, one.name, item, words, spoils)


def _tested_pairs(datasets: Sequence[QADataset]) -> Iterator[tuple[QADataset, QADataset]]:
    """Pairs of splits, of which the first may be trained on and the second tested on."""
    for one, other in combinations(datasets, 2):
        if not (one.split.startswith("test") and other.split.startswith("test")):
            yield one, other


def _shared_questions(one: QADataset, other: QADataset) -> int:
    """How many questions of the other split are asked in the first about the same image in the same words."""

    def asked(dataset: QADataset) -> list[tuple[str, str]]:
        words = [" ".join(text.lower().split()) for text in dataset.question.distinct]
        rows = zip(dataset.image_row_N.tolist(), dataset.question.codes.tolist(), strict=True)
        return [(dataset.images.ids[image], words[question]) for image, question in rows]

    known = set(asked(one))
    return sum(question in known for question in asked(other))


def _image_findings(datasets: Sequence[QADataset]) -> Iterator[Finding]:
    """Images that do not open, that come out one colour, and the same image under two names in two splits."""
    from vqa.data.images import name_first

    splits: dict[Path, str] = {}
    for dataset in datasets:
        gone = set(missing_images(dataset))
        splits |= {path: dataset.split for path in dataset.images.paths if path not in gone}
    blank: dict[str, list[Path]] = {dataset.split: [] for dataset in datasets}
    paths_of: dict[str, dict[str, list[Path]]] = {}  # by digest and split
    for path, looked in _open_all(list(splits)):
        if looked.fault:
            yield Finding("error", str(path), splits[path], f"does not open: {looked.fault}")
            continue
        if looked.one_colour:
            blank[splits[path]].append(path)
        paths_of.setdefault(looked.digest, {}).setdefault(splits[path], []).append(path)
    for split, paths in blank.items():
        if paths:
            words = f"{len(paths):,} images come out (almost) one colour; are they transparent, or not of 8 bits?"
            yield Finding("warning", str(paths[0].parent), f"{split}: {name_first(paths)}", words)
    yield from _copies(datasets, paths_of)


def _copies(datasets: Sequence[QADataset], paths_of: Mapping[str, Mapping[str, list[Path]]]) -> Iterator[Finding]:
    """The same image under two names in two splits."""
    for one, other in _tested_pairs(datasets):
        both = [(at[one.split][0], at[other.split]) for at in paths_of.values() if {one.split, other.split} <= set(at)]
        twins = [(path, twin) for twin, paths in both for path in paths]
        if twins:
            shown = ", ".join(f"{path.name} is {twin.name}" for path, twin in twins[:NAMED])
            more = f" and {len(twins) - NAMED:,} more" if len(twins) > NAMED else ""
            words = f"{len(twins):,} images of {other.split} are copies of images of {one.split}: {shown}{more}"
            many = len(twins) > TOLERATED * len(other.images.ids) and one.format not in SHARING
            yield Finding(
                "warning", str(twins[0][0].parent), f"{one.split} and {other.split}", words, other.split if many else ""
            )


class _Look(NamedTuple):
    """What opening an image found: the digest of its file, why it does not decode, and whether it is one colour."""

    digest: str
    fault: str = ""
    one_colour: bool = False


def _open_all(paths: Sequence[Path]) -> Iterator[tuple[Path, _Look]]:
    """Every image, decoded as an extraction decodes it."""
    from vqa.data.images import ON_WHITE

    decoding = ON_WHITE.of_images(paths)
    with ThreadPoolExecutor() as pool, progress_bar() as bar:
        task = bar.add_task("opening images", total=len(paths), note="")
        for path, looked in zip(paths, pool.map(partial(_open, decoding=decoding), paths), strict=True):
            bar.advance(task)
            yield path, looked


def _open(path: Path, decoding: "Decoding") -> _Look:
    """Decode one image."""
    from vqa.data.images import content_of, decode, is_one_colour

    try:
        content = content_of(path)
        image = decode(content, path, decoding)
    except InputError as error:
        return _Look("", str(error).removeprefix(f"{path}: "))
    return _Look(hashlib.sha256(content).hexdigest(), "", is_one_colour(image))
