"""Synthetic questions, features and images of the real sizes, read by the code that reads real ones.

Legend: `N` questions or rows, `R` regions, `C` channels, `H` human answers; of images also height, and `W` width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.experiment import Experiment, check_experiment
from vqa.features.cache.reader import FeatureCache
from vqa.features.cache.writer import CacheWriter
from vqa.features.tables.feature_table import FeatureTable
from vqa.runtime.device import Machine
from vqa.text.vocabulary import AnswerVocabulary, Vocabulary
from vqa.training.inputs.batches import encode_questions
from vqa.training.inputs.prepare import TrainingData

V2_TRAIN_QUESTIONS, V2_TRAIN_IMAGES = 443_757, 82_783
WORDS, ANSWERS, HUMANS = 12_000, 3000, 10
# How many of a thousand questions have 3, 4, … words: a mean of 6.1, as VQA v2's have.
LENGTHS = {3: 27, 4: 140, 5: 252, 6: 236, 7: 154, 8: 89, 9: 46, 10: 26, 11: 14, 12: 7, 13: 4, 14: 3, 15: 2}
TILE = 64  # different images' worth of random numbers; more would only take longer to make
NOISE = 9  # standard deviation, of 255; photographs of 640x480 then take about 100 kB, as real ones do


class Shape(NamedTuple):
    """Features of one kind."""

    name: str
    regions: int
    channels: int

    @property
    def row_bytes(self) -> int:
        """Of an image in float16."""
        return 2 * self.regions * self.channels


FC7 = Shape("fc7, 1 x 4096", 1, 4096)
POOL5 = Shape("pool5, 49 x 512", 49, 512)
POOL5_448 = Shape("pool5 at 448 px, 196 x 512", 196, 512)
RES5 = Shape("res5, 196 x 2048", 196, 2048)


def make_features(path: Path, shape: Shape, images: int | Sequence[str]) -> FeatureCache:
    """A float16 cache of random features, written once.

    Args:
        images: their ids, or how many named "0", "1" and so on.
    """
    if path.is_file():
        return FeatureCache(path)
    ids = tuple(map(str, range(images) if isinstance(images, int) else images))
    count, table = len(ids), ImageTable(ids, tuple(Path(f"{name}.jpg") for name in ids))
    tile_NRC = torch.rand(min(TILE, count), shape.regions, shape.channels, generator=torch.Generator().manual_seed(0))
    attributes: dict[str, Any] = {
        "encoder": "synthetic", "layer": shape.name, "image_size": 224, "weights_sha256": "0" * 64,
        "preprocessing": {"resize": "squash"}, "command": "vqa bench train",
    }  # fmt: skip
    with CacheWriter(path, table, attributes, shape.regions, shape.channels) as writer:
        for first in range(0, count, TILE):
            row_N = np.arange(first, min(first + TILE, count))
            writer.write(row_N, tile_NRC[: len(row_N)], ["0" * 64] * len(row_N))
    return FeatureCache(path)


def make_photographs(folder: Path, count: int, width: int, height: int) -> ImageTable:
    """`count` different JPEG files of soft shapes with noise, as large on disk as photographs are."""
    random = np.random.default_rng(0)
    noise_HW3 = random.normal(0, NOISE, (height, width, 3))
    paths = tuple(folder / f"{number}.jpg" for number in range(count))
    for number, path in enumerate(paths):
        soft = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height))
        pixels_HW3 = np.clip(np.asarray(soft) + np.roll(noise_HW3, number, axis=1), 0, 255).astype(np.uint8)
        Image.fromarray(pixels_HW3).save(path, quality=85)
    return ImageTable(tuple(path.stem for path in paths), paths)


def random_lengths(random: np.random.Generator, count: int) -> NDArray[np.int64]:
    """How many words questions have, `[N]`: as VQA v2's."""
    share = np.array(list(LENGTHS.values())) / sum(LENGTHS.values())
    return random.choice(list(LENGTHS), count, p=share)


def make_questions(questions: int, images: int, seed: int = 0) -> QADataset:
    """Questions of VQA v2's lengths about images "0", "1" …, ten answers each, half of which agree."""
    random = np.random.default_rng(seed)
    length_N = random_lengths(random, questions)
    word_NT = np.minimum(random.zipf(1.3, (questions, max(LENGTHS))), WORDS) - 1
    texts = [
        " ".join(f"word{word}" for word in words[:length])
        for words, length in zip(word_NT.tolist(), length_N.tolist(), strict=True)
    ]
    majority_N = (random.zipf(1.4, questions) - 1) % ANSWERS
    answer_NH = np.where(
        random.random((questions, HUMANS)) < 0.5, majority_N[:, None], random.integers(0, ANSWERS, (questions, HUMANS))
    )
    names = tuple(f"answer {number}" for number in range(ANSWERS))
    return QADataset(
        format="synthetic",
        split="train",
        question_id_N=np.arange(questions, dtype=np.int64),
        image_row_N=random.permutation(np.arange(questions) % images).astype(np.int32),
        images=ImageTable(tuple(map(str, range(images))), ()),
        question=Strings.of(texts),
        answers=Strings(names, answer_NH.astype(np.int32)),
        majority=Strings(names, majority_N.astype(np.int32)),
    )


def synthetic_experiment(
    question_encoder: dict[str, Any], fusion: dict[str, Any], classifier: dict[str, Any], batch_size: int
) -> Experiment:
    """An experiment with this model; its data and cache are never read."""
    values = {
        "name": "bench",
        "data": {"format": "vqa_v2", "root": "synthetic"},
        "features": {"cache": "synthetic"},
        "question_encoder": question_encoder,
        "fusion": fusion,
        "classifier": classifier,
        "training": {"batch_size": batch_size},
    }
    return check_experiment(values, "vqa bench train")


def prepare_synthetic(
    dataset: QADataset, cache: FeatureCache, machine: Machine, dtype: torch.dtype | None, residency: str = "auto"
) -> TrainingData:
    """What training gathers from, as `vqa.training.inputs.prepare` builds it; images are counted round the cache.

    Args:
        dtype: of the features; None takes the one that the machine computes in.
        residency: where they lie, as `FeatureTable.load` takes it.
    """
    words = Vocabulary.build([dataset.question.distinct[code] for code in dataset.question.codes])
    answers = AnswerVocabulary(tuple(f"answer {number}" for number in range(ANSWERS)))
    questions = encode_questions(dataset, words, answers, np.arange(len(dataset.images.ids)) % len(cache))
    kind = dtype or machine.feature_dtype
    table = FeatureTable.load([cache], cache.image_ids, machine.device, residency, kind)
    questions = questions.to(machine.device)
    return TrainingData(dataset, dataset, words, answers, questions, questions, None, table, [cache], machine)
