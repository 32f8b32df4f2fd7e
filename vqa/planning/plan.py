"""`vqa data plan`: what a data set asks for, before anything is extracted or trained.

How many answers a classifier needs for which best accuracy, how long the questions are, and what each image encoder's
cache takes and where this machine would keep it. Legend: `K` answers of the vocabulary, `N` questions.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vqa.data.dataset import QADataset, Strings
from vqa.data.formats import find_format, read_dataset
from vqa.data.formats.find import MissingSplitError
from vqa.data.formats.table import PLAIN, TableOptions
from vqa.data.holdout import hold_out_images
from vqa.errors import InputError
from vqa.evaluation.accuracy import AnswerKeys, Protocol, accuracy, summarise
from vqa.evaluation.floors import human_counts, vocabulary_classes
from vqa.features.tables.residency import DEVICE_SHARE, HOST_SHARE
from vqa.files import PLOT_FORMATS, atomic_write, format_of
from vqa.runtime.memory import available_memory
from vqa.text.tokenize import tokenize
from vqa.text.vocabulary import AnswerVocabulary

VOCABULARY_SIZES = (10, 30, 100, 300, 1000, 2000, 3000, 5000, 10_000)
HELD_OUT = 0.1  # of the training images, where a data set has no validation split
PERCENTILES = (50, 90, 95, 99, 100)


class Features(NamedTuple):
    """The shape of what an encoder gives for one image."""

    encoder: str
    layer: str
    image_size: int
    regions: int
    channels: int


COMMON_FEATURES = (
    Features("vgg16", "fc7", 224, 1, 4096),
    Features("vgg16", "pool5", 224, 49, 512),
    Features("vgg16", "pool5", 448, 196, 512),
    Features("squeezenet1_1", "features", 224, 169, 512),
    Features("resnet50", "layer4", 224, 49, 2048),
    Features("resnet152", "layer4", 448, 196, 2048),
    Features("detector:fasterrcnn_resnet50_fpn", "box_head:36", 800, 36, 1024),
    Features("hf:openai/clip-vit-base-patch16", "patches", 224, 196, 768),
)


@dataclass(frozen=True)
class VocabularyRow:
    """What the `answers` most frequent answers of the training split reach on the evaluated one, in percent.

    Attributes:
        answers: K.
        coverage: questions whose most frequent human answer is one of the K words for word.
        ceiling: the best accuracy that any model with these K answers can have.
        ceiling_per_answer_type: the same by answer type.
    """

    answers: int
    coverage: float
    ceiling: float
    ceiling_per_answer_type: dict[str, float]


@dataclass(frozen=True)
class CacheRow:
    """What one encoder's features of all images take.

    Attributes:
        encoder, layer, image_size, regions, channels: see `Features`.
        float16_bytes, int8_bytes: on disk and in memory, without the file's own few per mille.
        kept: where this machine would keep them while training, as float16.
    """

    encoder: str
    layer: str
    image_size: int
    regions: int
    channels: int
    float16_bytes: int
    int8_bytes: int
    kept: str


@dataclass(frozen=True)
class Plan:
    """The plan of a data set; accuracies in percent by `protocol`.

    Attributes:
        train, evaluated: names of the splits the answers come from and are tried on.
        protocol: the official program's version.
        questions, images: how many both splits have together.
        distinct_answers: how many answers the training split knows (its most frequent human answers).
        vocabulary: one row a size.
        words: distinct words of the training questions.
        question_length: of the training questions, percentile to number of words; 100 is the longest.
        caches: one row an encoder.
    """

    train: str
    evaluated: str
    protocol: Protocol
    questions: int
    images: int
    distinct_answers: int
    vocabulary: tuple[VocabularyRow, ...]
    words: int
    question_length: dict[int, int]
    caches: tuple[CacheRow, ...]

    def as_json(self) -> dict[str, Any]:
        """The plan for `--json`."""
        return asdict(self)


def plan(
    root: Path,
    format: str,
    evaluated: str | None = None,
    sizes: Sequence[int] = VOCABULARY_SIZES,
    protocol: Protocol = "2021",
    options: TableOptions = PLAIN,
) -> Plan:
    """Plan a data set from its files.

    Args:
        root: the data set's folder.
        format: a name in `FORMATS`.
        evaluated: the split to try vocabularies on; None takes "val" where the format has one and it is there, else
            holds out a tenth of the training images.
        sizes: K to try; those above the number of answers are left out, and all answers are added.
        protocol: how answers are compared.
        options: how a table is read.

    Raises:
        InputError: for missing or damaged files, and a split without answers.
    """
    train = read_dataset(format, root, "train", options)
    if evaluated is not None:
        held = read_dataset(format, root, evaluated, options)
    else:
        train, held = _validation(root, format, train, options)
    images = len({*train.images.ids, *held.images.ids})
    vocabulary, distinct = plan_vocabulary(train, held, sizes, protocol)
    words, lengths = question_lengths(train)
    return Plan(
        train=train.name,
        evaluated=held.name,
        protocol=protocol,
        questions=len(train) + len(held),
        images=images,
        distinct_answers=distinct,
        vocabulary=vocabulary,
        words=words,
        question_length=lengths,
        caches=tuple(cache_row(features, images) for features in COMMON_FEATURES),
    )


def _validation(root: Path, format: str, train: QADataset, options: TableOptions) -> tuple[QADataset, QADataset]:
    splits = find_format(format).splits
    if "val" in splits or not splits:
        try:
            return train, read_dataset(format, root, "val", options)
        except MissingSplitError:
            pass  # the plan names the held-out split it used instead
    return hold_out_images(train, HELD_OUT, seed=0)


def plan_vocabulary(
    train: QADataset, evaluated: QADataset, sizes: Sequence[int] = VOCABULARY_SIZES, protocol: Protocol = "2021"
) -> tuple[tuple[VocabularyRow, ...], int]:
    """What vocabularies of each size reach, and how many answers the training split has.

    Raises:
        InputError: when either split has no answers.
    """
    if train.majority is None or evaluated.majority is None:
        unanswered = train if train.majority is None else evaluated
        raise InputError(f"{unanswered.no_answers}, so there is nothing to plan with")
    codes, counts = np.unique(train.majority.codes, return_counts=True)
    frequency = {train.majority.distinct[code]: int(count) for code, count in zip(codes, counts, strict=True)}
    known = AnswerVocabulary.build(frequency, size=None)
    keys = AnswerKeys.of(evaluated, protocol)
    class_NA, count_NA = vocabulary_classes(keys, known), human_counts(keys)
    rank = np.array([known.index.get(text, len(known)) for text in evaluated.majority.distinct])
    rank_N = rank[evaluated.majority.codes]
    rows = []
    for size in sorted({min(size, len(known)) for size in (*sizes, len(known)) if size > 0}):
        inside_NA = (class_NA >= 0) & (class_NA < size)
        best_N = np.where(inside_NA, count_NA, 0).argmax(axis=1)[:, None]
        reached_N = np.take_along_axis(inside_NA, best_N, axis=1)[:, 0]
        class_N = np.where(reached_N, np.take_along_axis(class_NA, best_N, axis=1)[:, 0], 0)
        accuracy_N = accuracy(keys, Strings(known.answers, class_N.astype(np.int32))) * reached_N
        score = summarise(evaluated, accuracy_N, protocol)
        coverage = 100 * float((rank_N < size).mean())
        rows.append(VocabularyRow(size, coverage, score.overall, score.per_answer_type))
    return tuple(rows), len(known)


def question_lengths(dataset: QADataset) -> tuple[int, dict[int, int]]:
    """The number of distinct words, and percentiles of the number of words a question."""
    texts = [tokenize(text) for text in dataset.question.distinct]
    used = np.unique(dataset.question.codes)
    words = {word for code in used for word in texts[code]}
    length_N = np.array([len(text) for text in texts])[dataset.question.codes]
    longest = np.percentile(length_N, PERCENTILES, method="higher")
    return len(words), dict(zip(PERCENTILES, map(int, longest), strict=True))


def cache_row(features: Features, images: int) -> CacheRow:
    """What the features of so many images take."""
    values = images * features.regions * features.channels
    return CacheRow(*features, float16_bytes=2 * values, int8_bytes=values, kept=_kept(2 * values))


def _kept(size: int) -> str:
    """Where a table of so many bytes would go under `residency: auto`, judged by what is free now."""
    if torch.cuda.is_available() and size <= DEVICE_SHARE * torch.cuda.mem_get_info()[0]:
        return "device"
    return "host" if size <= HOST_SHARE * available_memory() else "disk"


def plot(result: Plan, path: Path) -> None:
    """Draw coverage and ceilings against the number of answers into an image file.

    Raises:
        InputError: when the file does not end in .png, .svg or .pdf, or cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    format = format_of(path, PLOT_FORMATS, "a plot")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    sizes = [row.answers for row in result.vocabulary]
    axes.plot(sizes, [row.ceiling for row in result.vocabulary], "k-o", label="best accuracy, all questions")
    for kind in result.vocabulary[0].ceiling_per_answer_type:
        values = [row.ceiling_per_answer_type[kind] for row in result.vocabulary]
        axes.plot(sizes, values, "-", alpha=0.8, label=f"best accuracy, {kind}")
    axes.plot(sizes, [row.coverage for row in result.vocabulary], "k:", label="questions covered")
    axes.set(
        xscale="log",
        xlabel="answers in the vocabulary, most frequent first",
        ylabel="percent",
        ylim=(0, 101),
        title=f"{result.evaluated}, answers of {result.train} (protocol {result.protocol})",
    )
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    with atomic_write(path, "wb") as file:
        figure.savefig(file, dpi=150, format=format)
