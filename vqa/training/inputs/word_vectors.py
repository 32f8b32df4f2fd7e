"""Word vectors from a file, at the start of a training: read once, checked, counted, and given to the encoder.

A trained run holds them among its weights: prediction needs no file.

Legend: `N` words found, `D` width of a vector.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqa.data.binary_cache import cached_columns
from vqa.data.dataset import QADataset
from vqa.errors import InputError
from vqa.experiment import Experiment
from vqa.models import QuestionEncoder
from vqa.text.vectors import WordVectors, read_word_vectors
from vqa.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class FirstVectors:
    """What the words of a vocabulary start from.

    Attributes:
        file: where the vectors are from.
        vectors: those of the words that the file has; `index_N` counts within `Vocabulary.words`.
        covered: share of the training questions' words, repeats counted, that have one.
        words: size of the vocabulary.
    """

    file: str
    vectors: WordVectors
    covered: float
    words: int

    @property
    def deviation(self) -> float:
        """Standard deviation over all numbers."""
        return float(self.vectors.vectors_ND.std())

    def __str__(self) -> str:
        found = len(self.vectors.index_N)
        return (
            f"{found:,} of {self.words:,} words ({100 * self.covered:.1f}% of the words in the training questions) "
            f"start from {self.file}; the others at random with the same deviation, {self.deviation:.3f}"
        )

    def recorded(self) -> dict[str, Any]:
        """What the run folder says of them."""
        digest = hashlib.sha256(self.vectors.index_N.tobytes() + self.vectors.vectors_ND.tobytes()).hexdigest()
        return {"file": self.file, "found": len(self.vectors.index_N), "covered": self.covered, "sha256": digest}


def read_first_vectors(experiment: Experiment, words: Vocabulary, train: QADataset) -> FirstVectors | None:
    """The vectors that `words.vectors` names, or None where it names none.

    What is read from a large file is kept (see `vqa.data.binary_cache`) by the digests of the file and the words.

    Raises:
        InputError: what `read_word_vectors` finds, vectors of another width than the encoder's, or none found.
    """
    name = experiment.words.vectors
    if name is None:
        return None
    path = Path(name)
    if not path.is_file():
        raise InputError(f"words.vectors: {path}: no such file; words.vectors=null starts all words at random")
    digest = hashlib.sha256(json.dumps(words.words).encode("ascii")).hexdigest()

    def read() -> dict[str, Any]:
        found = read_word_vectors(path, words.words)
        return {"width": np.array(found.width), "index": found.index_N, "vectors": found.vectors_ND}

    columns = cached_columns(path, f"vectors-{digest[:16]}", read)
    vectors = WordVectors(int(columns["width"]), columns["index"], columns["vectors"])
    _require_width(experiment, vectors.width)
    if not len(vectors.index_N):
        raise InputError(f"words.vectors: {path} has none of the {len(words.words):,} words of the training questions")
    known = {words.words[place] for place in vectors.index_N.tolist()}
    return FirstVectors(name, vectors, _coverage(train, words, known), len(words.words))


def _require_width(experiment: Experiment, width: int) -> None:
    """Raise InputError unless the question encoder's word vectors are as wide as the file's."""
    section = experiment.question_encoder
    option = "embedding_dim" if "embedding_dim" in section else "hidden_dim"
    if section[option] != width:
        raise InputError(
            f"words.vectors: {experiment.words.vectors} holds vectors of {width} numbers, question_encoder "
            f"{section['name']!r} takes {section[option]}; set question_encoder.{option}={width}"
        )


def _coverage(train: QADataset, words: Vocabulary, known: set[str]) -> float:
    """The share of all words of the training questions, repeats counted, that are among `known`."""
    asked = Counter(train.question.codes.tolist())
    total = covered = 0
    for code, times in asked.items():
        tokens = words.cut(train.question.distinct[code])
        total += times * len(tokens)
        covered += times * sum(token in known for token in tokens)
    return covered / max(total, 1)


@torch.no_grad()
def set_first_vectors(encoder: QuestionEncoder, first: FirstVectors) -> None:
    """Start the words that have a vector from it; scale the others, as they are, to the same deviation.

    The scaling is that of Kim 2014 (arXiv 1408.5882), section 3.1: words that the file lacks have its variance.
    """
    token_N = torch.from_numpy(first.vectors.index_N) + len(Vocabulary(()))
    vectors_ND = torch.from_numpy(first.vectors.vectors_ND)
    others = torch.ones(encoder.embedding.num_embeddings, dtype=torch.bool)
    others[token_N] = False
    others[0] = False  # padding
    if others.sum() > 1:
        others_MD = encoder.embedding.weight[others]
        encoder.embedding.weight[others] = others_MD * (vectors_ND.std() / others_MD.std())
    encoder.set_word_vectors(token_N, vectors_ND)
