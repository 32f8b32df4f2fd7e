"""What a run was trained on, and whether a split holds any of it.

A run folder keeps `seen.npz`: sorted 64-bit digests, 8 bytes a question and 16 a picture, so that a split is checked
in milliseconds and nobody needs the training files for it. Two different questions share a digest by accident with a
chance of 5e-9 for all of VQA v2 train and val together. There are digests of

- every question of the training split, in the vocabulary or not: its picture's id with its words. Words alone would
  not do: a balanced set asks the same words about many pictures.
- every picture of the training split by its id, which is unique over all splits of a data set, and by the content of
  its file as the feature cache recorded it, which finds a picture that was copied under another name.
- every question of the validation split, which chose the epoch.

Evaluating on a question or a picture of the training split is refused. Two things are tolerated up to a share of
`TOLERATED`, and reported: pictures that are copies of training pictures under another id (published sets have some),
and, in the sets whose published splits share pictures by design (`SHARING`), the same words asked twice about one.

Legend: `N` questions, `I` pictures.
"""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.check import SHARING
from vqa.data.dataset import PictureDigests, QADataset
from vqa.errors import InputError
from vqa.files import atomic_write

TOLERATED = 0.01
NAMED = 3  # ids that a message lists
SEEN_NAME = "seen_in_training"  # in the names of results files, whose official format has no place for a stamp
Digests = NDArray[np.uint64]
_ODD = np.uint64(0x9E3779B97F4A7C15)  # so that (picture, words) and (words, picture) differ


@dataclass(frozen=True)
class Seen:
    """Sorted distinct digests of what a run was trained and chosen on.

    Attributes:
        question: of (picture id, words) in the training split.
        picture: of the training pictures' ids.
        content: of the training pictures' files; empty where the caches do not say.
        chosen_on: of (picture id, words) in the validation split.
    """

    question: Digests
    picture: Digests
    content: Digests
    chosen_on: Digests


def seen_in(train: QADataset, val: QADataset, caches: Sequence[PictureDigests]) -> Seen:
    """Digest the two splits of a run."""
    content_I = picture_contents(caches, train.images.ids)
    return Seen(
        question=np.unique(question_digests(train)),
        picture=np.unique(_digests(train.images.ids)),
        content=np.unique(content_I[content_I > 0]),
        chosen_on=np.unique(question_digests(val)),
    )


def question_digests(dataset: QADataset) -> Digests:
    """One digest a question, `[N]`: of its picture's id and its words, whatever their case and spacing."""
    image_I = _digests(dataset.images.ids)
    words_S = _digests([" ".join(text.lower().split()) for text in dataset.question.distinct])
    return image_I[dataset.image_row_N] * _ODD + words_S[dataset.question.codes]


def picture_contents(caches: Sequence[PictureDigests], image_ids: Sequence[str]) -> Digests:
    """One digest a picture, `[I]`, of the file that its features came from; 0 where no cache says."""
    content_I = np.zeros(len(image_ids), dtype=np.uint64)
    for cache in caches:
        row_I = cache.find(image_ids)
        for place in np.flatnonzero((row_I >= 0) & (content_I == 0)).tolist():
            content_I[place] = int(cache.image_digests[row_I[place]][:16] or "0", 16)
    return content_I


def _digests(texts: Sequence[str]) -> Digests:
    joined = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64)


def write_seen(path: Path, seen: Seen) -> None:
    """Write `seen.npz`, atomically."""
    with atomic_write(path, "wb") as file:
        np.savez(file, allow_pickle=False, **vars(seen))


def read_seen(path: Path) -> Seen:
    """Read `seen.npz`; raises InputError that names a missing or damaged file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Seen(**{field.name: arrays[field.name].astype(np.uint64) for field in fields(Seen)})
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file, so nothing says what the run was trained on; train it again, or evaluate with "
            "--allow-seen, which is stamped on every number"
        ) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged: {error}; bring it back, or evaluate with --allow-seen") from None


@dataclass(frozen=True)
class Overlap:
    """What a split has in common with what a run was trained on.

    Attributes:
        name: the split.
        questions: ids of the questions that were trained on.
        pictures: ids of the pictures that were trained on.
        copies: ids of further pictures whose files equal training pictures'.
        chosen_on: how many questions chose the epoch.
        of_questions: how many questions the split has.
        of_pictures: how many pictures.
        sharing: whether the published splits of this set share pictures by design.
        unknown: the run keeps no record, so nothing of this could be found out.
    """

    name: str
    questions: tuple[int, ...] = ()
    pictures: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    chosen_on: int = 0
    of_questions: int = 0
    of_pictures: int = 0
    sharing: bool = False
    unknown: bool = False

    @property
    def contaminated(self) -> bool:
        """Whether numbers on this split would be no test of the run."""
        if self.unknown:
            return True
        if self.sharing:
            return len(self.questions) > TOLERATED * self.of_questions
        return bool(self.questions or self.pictures) or len(self.copies) > TOLERATED * self.of_pictures

    @property
    def stamp(self) -> str:
        """What is written on every output of a contaminated evaluation; "" where there is nothing to say."""
        return f"SEEN IN TRAINING: {self.counts()}" if self.contaminated else ""

    def counts(self) -> str:
        """How much was seen, in words."""
        if self.unknown:
            return "not known, the run keeps no record of what it was trained on"
        words = f"{len(self.questions):,} of {self.of_questions:,} questions and "
        words += f"{len(self.pictures):,} of {self.of_pictures:,} pictures"
        return words + (f", and {len(self.copies):,} copies of training pictures" if self.copies else "")

    def choice(self) -> str:
        """What the split had to do with the choice of the epoch, a sentence; "" where nothing."""
        if not self.chosen_on:
            return ""
        part = (
            "" if self.chosen_on == self.of_questions else f" ({self.chosen_on:,} of {self.of_questions:,} questions)"
        )
        return f"{self.name} was used to choose the epoch{part}"

    def as_json(self) -> dict[str, Any]:
        """For `evaluation_<split>.json`."""
        seen: dict[str, Any] = {"questions": len(self.questions), "pictures": len(self.pictures)}
        seen |= {"copied_pictures": len(self.copies), "contaminated": self.contaminated, "stamp": self.stamp}
        return {"seen_in_training": seen, "used_to_choose_the_epoch": self.chosen_on > 0, "model_choice": self.choice()}

    def refuse(self) -> None:
        """Raise InputError when contaminated, naming the first questions and pictures."""
        if not self.contaminated:
            return
        first = [
            f"{kind} {', '.join(map(str, ids[:NAMED]))}{', …' if len(ids) > NAMED else ''}"
            for kind, ids in (("questions", self.questions), ("pictures", self.pictures), ("copies", self.copies))
            if ids
        ]
        raise InputError(
            f"{self.name}: the run was trained on {self.counts()} ({'; '.join(first)}), so its accuracy here would be "
            "no test; choose another --split, or add --allow-seen, which is stamped on every number"
        )


def overlap(seen: Seen, dataset: QADataset, caches: Sequence[PictureDigests]) -> Overlap:
    """Compare a split with what a run was trained on."""
    digest_N = question_digests(dataset)
    known_I = np.isin(_digests(dataset.images.ids), seen.picture)
    copied_I = np.isin(picture_contents(caches, dataset.images.ids), seen.content) & ~known_I
    return Overlap(
        name=dataset.name,
        questions=tuple(dataset.question_id_N[np.isin(digest_N, seen.question)].tolist()),
        pictures=tuple(dataset.images.ids[i] for i in np.flatnonzero(known_I)),
        copies=tuple(dataset.images.ids[i] for i in np.flatnonzero(copied_I)),
        chosen_on=int(np.isin(digest_N, seen.chosen_on).sum()),
        of_questions=len(dataset),
        of_pictures=len(dataset.images.ids),
        sharing=dataset.format in SHARING,
    )
