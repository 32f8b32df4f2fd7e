"""What the challenge's server accepts: a results file that is whole and well named, packed as a zip.

The server refuses a file, often hours after it was sent, when an id is missing or a choice is not one of the given.
Everything it checks, as far as the official loader shows, is checked here first.
"""

import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from vqa.data.dataset import QADataset, Strings
from vqa.data.formats.official import read_official
from vqa.errors import InputError
from vqa.evaluation.results import LISTED, Task, check_choices, official_name, read_results, write_results

DATA_TYPES = ("mscoco", "abstract_v002")
MOST_BYTES = 1 << 30  # of a results file inside a zip; v2 test2015 takes 20 MB


@dataclass(frozen=True)
class SubmissionCheck:
    """A results file that holds what the server asks for.

    Attributes:
        file: the file, or the zip it lies in.
        task: which task.
        split: whose questions it answers.
        questions: how many.
        distinct_answers: how many different answers it gives.
        notes: what does not keep it from being scored but should be known, such as its name.
    """

    file: Path
    task: Task
    split: str
    questions: int
    distinct_answers: int
    notes: tuple[str, ...] = ()


def pack_submission(folder: Path, dataset: QADataset, task: Task, predictions: Strings, algorithm: str) -> Path:
    """Write a results file under its official name, check it, and zip it; returns the zip.

    Args:
        folder: where both files go.
        dataset: the split, all of it.
        predictions: `[N]`.
        algorithm: the name that the method has on the server; what is not a letter, digit or "-" becomes "-".

    Raises:
        InputError: the data set is not one that the challenge has, an answer is empty, or no choice of its question.
    """
    if dataset.data_type not in DATA_TYPES:
        raise InputError(
            f"{dataset.name}: the challenge's server scores the official VQA sets only ({', '.join(DATA_TYPES)}); "
            "vqa evaluate writes results files for every set"
        )
    name = re.sub(r"[^A-Za-z0-9-]+", "-", algorithm).strip("-") or "run"
    path = folder / official_name(task, dataset, name)
    _check_answers(path, dataset, task, predictions)
    write_results(path, dataset, predictions)
    packed = path.with_suffix(".zip")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / packed.name
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, path.name)
        made.replace(packed)
    return packed


def check_submission(file: Path, questions: Path) -> SubmissionCheck:
    """Check a results file, or a zip with one inside, against an official questions file.

    A multiple-choice questions file makes the answers obey the choices.

    Raises:
        InputError: naming the file and the item that the server would refuse.
    """
    dataset = read_official(questions)
    task: Task = "open-ended" if dataset.choices is None else "multiple-choice"
    with tempfile.TemporaryDirectory() as scratch:
        inside = _unpacked(file, Path(scratch)) if zipfile.is_zipfile(file) else file
        try:
            predictions = read_results(inside, dataset, task)
            _check_answers(inside, dataset, task, predictions)
        except InputError as error:
            raise InputError(str(error).replace(str(inside), str(file))) from None
    used = len(np.unique(predictions.codes))
    return SubmissionCheck(file, task, dataset.split, len(dataset), used, _notes(inside.name, dataset, task, used))


def _notes(name: str, dataset: QADataset, task: Task, used: int) -> tuple[str, ...]:
    notes = []
    if not re.fullmatch(re.escape(official_name(task, dataset, "\n")).replace("\\\n", "[A-Za-z0-9-]+"), name):
        notes.append(f"the server asks for the name {official_name(task, dataset, '<method>')}, not {name}")
    if used == 1 and len(dataset) > 1:
        notes.append("every question has the same answer")
    return tuple(notes)


def _unpacked(file: Path, scratch: Path) -> Path:
    """The one results file in a zip, unpacked into `scratch`."""
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1 or not members[0].filename.endswith(".json"):
            held = ", ".join(member.filename for member in members[:LISTED]) or "nothing"
            raise InputError(f"{file}: a submission is a zip with one .json file inside; it holds {held}")
        name = members[0].filename
        if any(way(name).name != name for way in (PurePosixPath, PureWindowsPath)):
            raise InputError(
                f"{file}: {name!r} lies in a folder; the server looks for the .json file at the top of the zip"
            )
        if members[0].file_size > MOST_BYTES:
            raise InputError(f"{file}: {members[0].filename} takes {members[0].file_size:,} bytes unpacked")
        path = scratch / members[0].filename
        try:
            path.write_bytes(archive.read(members[0]))
        except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
            raise InputError(f"{file}: a damaged zip: {error}") from None
    return path


def _check_answers(path: Path, dataset: QADataset, task: Task, predictions: Strings) -> None:
    """Raise InputError for answers that cannot be scored."""
    empty_S = np.asarray([not text.strip() for text in predictions.distinct], dtype=bool)
    empty = dataset.question_id_N[empty_S[predictions.codes]]
    if len(empty):
        more = ", …" if len(empty) > LISTED else ""
        raise InputError(
            f"{path}: {len(empty):,} empty answers (questions {', '.join(map(str, empty[:LISTED]))}{more})"
        )
    if task == "multiple-choice":
        check_choices(path, dataset, predictions)
