"""What a run was trained on, and whether a split holds any of it.

A run folder keeps `seen.npz`: sorted 64-bit digests, 8 bytes a question and 16 an image, so that a split is checked
in milliseconds and nobody needs the training files for it. Two different questions share a digest by accident with a
chance of 5e-9 for all of VQA v2 train and val together. There are digests of

- every question of the training split, in the vocabulary or not: its image's id with its words. Words alone would
  not do: a balanced set asks the same words about many images.
- every image of the training split by its id, which is unique over all splits of a data set, and by the content of
  its file as the feature cache recorded it, which finds an image that was copied under another name.
- every question of the validation split, where it chose the epoch.

Evaluating on a question or an image of the training split is refused. Two things are tolerated up to a share of
`TOLERATED`, and reported: images that are copies of training images under another id (published sets have some),
and, in the sets whose published splits share images by design (VQA-CP, and those that `data.shares_images` declares),
the same words asked twice about one. Every number on such a set says that it shares images.

Legend: `N` questions, `I` images.
"""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.check.findings import TOLERATED, shares_images
from vqa.data.dataset import ImageDigests, QADataset
from vqa.errors import InputError, first_line
from vqa.evaluation.results import LISTED
from vqa.files import atomic_write

SEEN_NAME = "seen_in_training"  # in the names of results files, whose official format has no place for a stamp
UNSEEN_NAME = "unseen"  # the same of results files without the questions that were seen
STORED_AS = {"image": "picture"}  # the name of an array in seen.npz, where it is not the field's
Digests = NDArray[np.uint64]
DECLARE = "where the published splits share images by design, as those of VQA-RAD, data.shares_images=published says so"
UNKNOWN_TRAINING = "What this model was trained on is not known here: it may have seen these questions and images."
_ODD = np.uint64(0x9E3779B97F4A7C15)  # so that (image, words) and (words, image) differ


@dataclass(frozen=True)
class TrainingDigests:
    """Sorted distinct digests of what a run was trained and chosen on.

    Attributes:
        question: of (image id, words) in the training split.
        image: of the training images' ids.
        content: of the training images' files; empty where the caches do not say.
        chosen_on: of (image id, words) in the validation split; empty where the last epoch is kept.
    """

    question: Digests
    image: Digests
    content: Digests
    chosen_on: Digests


def seen_in(train: QADataset, val: QADataset | None, caches: Sequence[ImageDigests]) -> TrainingDigests:
    """Digest the two splits of a run, the second None where no split chose the epoch."""
    content_I = image_contents(caches, train.images.ids)
    return TrainingDigests(
        question=np.unique(question_digests(train)),
        image=np.unique(_digests(train.images.ids)),
        content=np.unique(content_I[content_I > 0]),
        chosen_on=np.zeros(0, np.uint64) if val is None else np.unique(question_digests(val)),
    )


def question_digests(dataset: QADataset) -> Digests:
    """One digest a question, `[N]`: of its image's id and its words, whatever their case and spacing."""
    image_I = _digests(dataset.images.ids)
    words_S = _digests([" ".join(text.lower().split()) for text in dataset.question.distinct])
    return image_I[dataset.image_row_N] * _ODD + words_S[dataset.question.codes]


def image_contents(caches: Sequence[ImageDigests], image_ids: Sequence[str]) -> Digests:
    """One digest an image, `[I]`, of the file that its features came from; 0 where no cache says."""
    content_I = np.zeros(len(image_ids), dtype=np.uint64)
    for cache in caches:
        row_I = cache.find(image_ids)
        for place in np.flatnonzero((row_I >= 0) & (content_I == 0)).tolist():
            content_I[place] = int(cache.image_digests[row_I[place]][:16] or "0", 16)
    return content_I


def _digests(texts: Sequence[str]) -> Digests:
    joined = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64)


def write_seen(path: Path, seen: TrainingDigests) -> None:
    """Write `seen.npz`, atomically."""
    with atomic_write(path, "wb") as file:
        np.savez(file, allow_pickle=False, **{STORED_AS.get(name, name): value for name, value in vars(seen).items()})


def read_seen(path: Path) -> TrainingDigests:
    """Read `seen.npz`; raises InputError that names a missing or damaged file."""
    try:
        with zipfile.ZipFile(path) as file:
            return TrainingDigests(
                **{one.name: _read_digests(file, STORED_AS.get(one.name, one.name)) for one in fields(TrainingDigests)}
            )
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file, so nothing says what the run was trained on; train it again, or evaluate with "
            "--allow-seen, which is stamped on every number"
        ) from None
    except Exception as error:  # zipfile and numpy raise many kinds
        raise InputError(
            f"{path}: damaged: {first_line(error)}; bring it back, or evaluate with --allow-seen"
        ) from None


def _read_digests(file: zipfile.ZipFile, name: str) -> Digests:
    """One array of `seen.npz`, of which no more is read than the file is long.

    Raises:
        ValueError: it is compressed, or holds no sorted distinct digests.
    """
    stated = file.getinfo(f"{name}.npy")
    if stated.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    with file.open(stated) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{name} is of another version of numpy's format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        content = stream.read()
    if dtype != np.dtype("<u8") or len(shape) != 1 or len(content) != shape[0] * dtype.itemsize:
        raise ValueError(f"{name} holds no digests, uint64 in a row")
    digests = np.frombuffer(content, dtype).astype(np.uint64)
    if not len(digests) and name not in ("content", "chosen_on"):
        raise ValueError(f"{name} is empty")
    if (digests[1:] <= digests[:-1]).any():
        raise ValueError(f"{name} is not sorted")
    return digests


@dataclass(frozen=True)
class Contamination:
    """What a split has in common with what a run was trained on.

    Attributes:
        name: the split.
        questions: ids of the questions that were trained on.
        images: ids of the images that were trained on.
        copies: ids of further images whose files equal training images'.
        chosen_on: how many questions chose the epoch.
        of_questions: how many questions the split has.
        of_images: how many images.
        sharing: whether the published splits of this set share images by design.
        unknown: the run keeps no record, so nothing of this could be found out.
        left_out: how many questions were dropped because they were seen in training; `of_questions` are without them.
    """

    name: str
    questions: tuple[int, ...] = ()
    images: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    chosen_on: int = 0
    of_questions: int = 0
    of_images: int = 0
    sharing: bool = False
    unknown: bool = False
    left_out: int = 0

    @property
    def contaminated(self) -> bool:
        """Whether numbers on this split would be no test of the run."""
        if self.unknown:
            return True
        if self.sharing:
            return len(self.questions) > TOLERATED * self.of_questions
        return bool(self.questions or self.images) or len(self.copies) > TOLERATED * self.of_images

    @property
    def stamp(self) -> str:
        """What is written on every output of a contaminated evaluation; "" where there is nothing to say."""
        return f"SEEN IN TRAINING: {self.counts()}" if self.contaminated else ""

    def counts(self) -> str:
        """How much was seen, in words."""
        if self.unknown:
            return "not known, the run keeps no record of what it was trained on"
        words = f"{len(self.questions):,} of {self.of_questions:,} questions and "
        words += f"{len(self.images):,} of {self.of_images:,} images"
        return words + (f", and {len(self.copies):,} copies of training images" if self.copies else "")

    def design(self) -> str:
        """What a set whose published splits share images by design has in common, a sentence; "" where nothing."""
        if not self.sharing or not (self.images or self.copies or self.questions):
            return ""
        return f"Training and {self.name} share images by the design of the published splits: {self.counts()} were seen"

    @property
    def mark(self) -> str:
        """What stands in each line of a training beside its validation accuracy; "" where there is nothing to say."""
        if self.contaminated:
            return "SEEN IN TRAINING"
        return "shares images with training by design" if self.design() else ""

    def warning(self) -> str:
        """What a training says once of its validation split, a sentence; "" where there is nothing to say."""
        if not self.contaminated:
            return self.design()
        return (
            f"{self.name} is no test of this run, {self.stamp}; `vqa evaluate` will refuse it. Keep a part of the "
            f"training images for validation (data.holdout=0.2); {DECLARE}"
        )

    def choice(self) -> str:
        """What the split had to do with the choice of the epoch, a sentence; "" where nothing."""
        if not self.chosen_on:
            return ""
        part = (
            "" if self.chosen_on == self.of_questions else f" ({self.chosen_on:,} of {self.of_questions:,} questions)"
        )
        return f"{self.name} was used to choose the epoch{part}"

    def exclusion(self) -> str:
        """What was dropped from the split before it was evaluated, a sentence; "" where nothing."""
        if not self.left_out:
            return ""
        whole = self.left_out + self.of_questions
        return f"{self.left_out:,} of {whole:,} questions were left out as seen in training (--exclude-seen)"

    def as_json(self) -> dict[str, Any]:
        """For `evaluation_<split>.json`."""
        seen: dict[str, Any] = {"questions": len(self.questions), "images": len(self.images)}
        seen |= {"copied_images": len(self.copies), "contaminated": self.contaminated, "stamp": self.stamp}
        seen |= {"left_out": self.left_out, "shares_images": self.design()}
        return {"seen_in_training": seen, "used_to_choose_the_epoch": self.chosen_on > 0, "model_choice": self.choice()}

    def refuse(self) -> None:
        """Raise InputError when contaminated, naming the first questions and images."""
        if not self.contaminated:
            return
        first = [
            f"{kind} {', '.join(map(str, ids[:LISTED]))}{', …' if len(ids) > LISTED else ''}"
            for kind, ids in (("questions", self.questions), ("images", self.images), ("copies", self.copies))
            if ids
        ]
        raise InputError(
            f"{self.name}: the run was trained on {self.counts()} ({'; '.join(first)}), so its accuracy here would be "
            "no test; choose another --split, or add --exclude-seen, which leaves them out, or --allow-seen, which is "
            f"stamped on every number{self._declare()}"
        )

    def _declare(self) -> str:
        """How a set is declared, where that would change anything."""
        alike = replace(self, sharing=True).contaminated
        return "" if alike or self.unknown else f"; {DECLARE} (`vqa evaluate --shares-images` for a trained run)"


def unknown_as_json() -> dict[str, Any]:
    """The keys of `Contamination.as_json` for a model that others have trained: nothing is known."""
    seen = dict.fromkeys(("questions", "images", "copied_images", "contaminated"))
    return {
        "seen_in_training": seen | {"stamp": UNKNOWN_TRAINING, "left_out": None, "shares_images": None},
        "used_to_choose_the_epoch": None,
        "model_choice": None,
    }


def seen_by_any(found: Sequence[Contamination]) -> Contamination:
    """What of one split any of several runs was trained or chosen on."""
    first = found[0]
    images = tuple(dict.fromkeys(image for one in found for image in one.images))
    known = set(images)
    return replace(
        first,
        questions=tuple(dict.fromkeys(question for one in found for question in one.questions)),
        images=images,
        copies=tuple(dict.fromkeys(i for one in found for i in one.copies if i not in known)),
        chosen_on=max(one.chosen_on for one in found),
        unknown=any(one.unknown for one in found),
    )


def overlap(
    seen: TrainingDigests, dataset: QADataset, caches: Sequence[ImageDigests], declared: str | None = None
) -> Contamination:
    """Compare a split with what a run was trained on.

    Args:
        declared: `data.shares_images`, "published" where the set's published splits share images by design.
    """
    digest_N = question_digests(dataset)
    known_I = np.isin(_digests(dataset.images.ids), seen.image)
    copied_I = np.isin(image_contents(caches, dataset.images.ids), seen.content) & ~known_I
    return Contamination(
        name=dataset.name,
        questions=tuple(dataset.question_id_N[np.isin(digest_N, seen.question)].tolist()),
        images=tuple(dataset.images.ids[i] for i in np.flatnonzero(known_I)),
        copies=tuple(dataset.images.ids[i] for i in np.flatnonzero(copied_I)),
        chosen_on=int(np.isin(digest_N, seen.chosen_on).sum()),
        of_questions=len(dataset),
        of_images=len(dataset.images.ids),
        sharing=shares_images(dataset.format, declared),
    )


def without_seen(
    seen: TrainingDigests, dataset: QADataset, caches: Sequence[ImageDigests], declared: str | None = None
) -> tuple[QADataset, Contamination]:
    """The questions of a split of which nothing was seen in training, and what the split has in common then.

    Dropped are questions that were trained on, and those about images, or copies of images, that were; of sets whose
    published splits share images by design only the former; `declared` is as for `overlap`.

    Raises:
        InputError: nothing is left.
    """
    common = overlap(seen, dataset, caches, declared)
    seen_N = np.isin(dataset.question_id_N, common.questions)
    if not common.sharing:
        known = {*common.images, *common.copies}
        seen_I = np.array([name in known for name in dataset.images.ids])
        seen_N |= seen_I[dataset.image_row_N]
    if seen_N.all():
        raise InputError(f"{dataset.name}: the run was trained on {common.counts()}: nothing is left to evaluate on")
    left = dataset.take(~seen_N) if seen_N.any() else dataset
    return left, replace(overlap(seen, left, caches, declared), left_out=int(seen_N.sum()))
