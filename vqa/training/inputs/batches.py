"""Questions and targets as integer tensors, and the order in which batches take them.

A batch is a gather: rows of these tensors and rows of the feature table, picked by one index tensor. The order is a
function of (seed, epoch), so that a resumed run sees exactly what an uninterrupted one would have seen.

Legend: `N` questions, `B` batch, `T` tokens, `K` distinct human answers a question, `C` choices.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vqa.data.dataset import ABSENT, QADataset
from vqa.evaluation.multiple_choice import choice_answer_ids
from vqa.features.extraction.question_vectors import QuestionVectors
from vqa.features.tables.feature_table import FeatureTable
from vqa.features.tables.pixel_table import PixelBatch, PixelTable
from vqa.models.contracts import Image
from vqa.models.losses import Target
from vqa.runtime.transfer import to_device
from vqa.text.vocabulary import PADDING, AnswerVocabulary, Tokenizer

BLOCKS_A_WINDOW = 32


@dataclass(frozen=True)
class EncodedQuestions:
    """A split as tensors on one device, except for what the host decides by.

    Attributes:
        tokens_NT: int64, padded on the right with `PADDING`.
        length_N: int64, on the CPU whatever the device: batches are cut by length there.
        image_row_N: int64, rows of the feature table; on the CPU whatever the device: batches are looked up there.
        target: the answers as sparse targets, `[N, …]`, or None where they are hidden.
        choice_NC: int64, answer ids of the choices (-1: empty, or outside the answer vocabulary), or None.
        vectors: what a frozen language model says of the questions, which the model then takes in place of tokens.
        block_N: int64, on the CPU: which block of neighbouring images each question asks about, where batches are
            to keep to a few blocks at a time (see `batches`); None where they need not.
    """

    tokens_NT: Tensor
    length_N: Tensor
    image_row_N: Tensor
    target: Target | None
    choice_NC: Tensor | None
    vectors: QuestionVectors | None = None
    block_N: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens_NT)

    def target_at(self, index_B: Tensor) -> Target:
        """The targets of one batch."""
        assert self.target is not None, "a split without answers has no targets"
        return Target(*(column.index_select(0, index_B) for column in self.target))

    def take(self, rows_M: Tensor) -> "EncodedQuestions":
        """Some of the questions, in the order of `rows_M` (int64, on the CPU)."""
        return EncodedQuestions(
            self.tokens_NT[rows_M],
            self.length_N[rows_M],
            self.image_row_N[rows_M],
            None if self.target is None else Target(*(column[rows_M] for column in self.target)),
            None if self.choice_NC is None else self.choice_NC[rows_M],
            None if self.vectors is None else self.vectors.take(rows_M),
            None if self.block_N is None else self.block_N[rows_M],
        )

    def to(self, device: torch.device) -> "EncodedQuestions":
        """The same on another device; lengths and image rows stay where they are."""
        return EncodedQuestions(
            self.tokens_NT.to(device),
            self.length_N,
            self.image_row_N,
            None if self.target is None else Target(*(column.to(device) for column in self.target)),
            None if self.choice_NC is None else self.choice_NC.to(device),
            None if self.vectors is None else self.vectors.to(device),
            self.block_N,
        )

    def in_blocks(self, block_of_row: Tensor | None) -> "EncodedQuestions":
        """The same in the blocks of the feature table's rows, or in none."""
        return replace(self, block_N=None if block_of_row is None else block_of_row[self.image_row_N])


@dataclass(frozen=True)
class Batch:
    """One step's questions.

    Attributes:
        index_B: int64, their rows, on the device.
        host_index_B: the same on the CPU.
        longest: the longest one's length.
        by_image: whether the questions about an image stand side by side.
    """

    index_B: Tensor
    host_index_B: Tensor
    longest: int
    by_image: bool = False

    def share(self, rank: int, size: int) -> tuple["Batch", int]:
        """The questions of one of `size` processes, and how many processes compute these very questions.

        Every size-th question, so that lengths are alike in all shares; of a batch by image a run of neighbours, so
        that not every process encodes every image. Where a share would have fewer than two questions, every process
        computes the whole batch.
        """
        count = len(self.index_B)
        if size == 1 or count < 2 * size:
            return self, size
        part = slice(rank, None, size)
        if self.by_image:
            part = slice(rank * count // size, (rank + 1) * count // size)
        return replace(self, index_B=self.index_B[part], host_index_B=self.host_index_B[part]), 1

    def tokens(self, questions: EncodedQuestions) -> tuple[Tensor, Tensor]:
        """Tokens `[B, T]` cut to the longest question, or their vectors, and lengths `[B]` (on the CPU)."""
        length_B = questions.length_N[self.host_index_B]
        if questions.vectors is not None:
            rows_B = self.host_index_B if questions.vectors.start_N.device.type == "cpu" else self.index_B
            vectors_BPD = questions.vectors.gather(rows_B, length_B, self.longest)
            return to_device(vectors_BPD, self.index_B.device), length_B
        tokens_BT = questions.tokens_NT[:, : self.longest].index_select(0, self.index_B)
        return tokens_BT, length_B

    def image_rows(self, questions: EncodedQuestions) -> Tensor:
        """Rows of the feature table `[B]` (on the CPU)."""
        return questions.image_row_N[self.host_index_B]

    def distinct_images(self, questions: EncodedQuestions) -> tuple[Tensor, Tensor | None]:
        """Rows of the feature table, each once, `[I]`, and which of them each question is about, `[B]` (on the CPU).

        Of a batch that is not by image: the row of each question, and None.
        """
        row_B = self.image_rows(questions)
        if not self.by_image:
            return row_B, None
        row_I, place_B = row_B.unique(return_inverse=True)
        return row_I, place_B


def images_of(
    features: FeatureTable | PixelTable, todo: Sequence[Batch], questions: EncodedQuestions
) -> Iterator[Image | PixelBatch]:
    """The images of one batch after another, each valid until the next is asked for; once each in a batch by image."""
    if isinstance(features, PixelTable):
        yield from features.stream([batch.image_rows(questions) for batch in todo])
        return
    seen = [batch.distinct_images(questions) for batch in todo]
    images = features.stream([row_I for row_I, _ in seen])
    for image, (_, place_B) in zip(images, seen, strict=True):
        yield image if place_B is None else image._replace(row_B=to_device(place_B, features.device))


def encode_questions(
    dataset: QADataset, words: Tokenizer, answers: AnswerVocabulary, image_row_I: np.ndarray
) -> EncodedQuestions:
    """Turn a split into integer tensors on the CPU; each distinct question is tokenised once.

    Args:
        image_row_I: row of the feature table for each row of `dataset.images`.
    """
    encoded = words.encode_all(dataset.question.distinct)
    length_D = np.array([len(tokens) for tokens in encoded], dtype=np.int64)
    tokens_DT = np.full((len(encoded), length_D.max(initial=1)), PADDING, dtype=np.int64)
    for row, tokens in enumerate(encoded):
        tokens_DT[row, : len(tokens)] = tokens
    codes_N = dataset.question.codes
    longest = int(length_D[codes_N].max(initial=1))
    choices = dataset.choices
    return EncodedQuestions(
        tokens_NT=torch.from_numpy(tokens_DT[codes_N, :longest]),
        length_N=torch.from_numpy(length_D[codes_N]),
        image_row_N=torch.from_numpy(image_row_I[dataset.image_row_N].astype(np.int64)),
        target=encode_targets(dataset, answers),
        choice_NC=None if choices is None else torch.from_numpy(choice_answer_ids(choices, answers).astype(np.int64)),
    )


def _class_of(text: str, answers: AnswerVocabulary) -> int:
    found = answers.find(text)
    return ABSENT if found is None else found


def encode_targets(dataset: QADataset, answers: AnswerVocabulary) -> Target | None:
    """Sparse targets: for each question its distinct human answers that the vocabulary holds, counts and soft scores.

    Answers are compared letter by letter, as every published recipe does, unless the vocabulary takes several
    spellings for one (`answers.normalise`).
    """
    if dataset.answers is None or dataset.majority is None:
        return None
    ids_of_text = np.array([_class_of(text, answers) for text in dataset.answers.distinct] + [ABSENT])
    ids_NK = ids_of_text[dataset.answers.codes]  # code -1 picks the appended ABSENT
    same_NKK = ids_NK[:, :, None] == ids_NK[:, None, :]
    repeated_NK = np.tril(same_NKK, k=-1).any(axis=2)  # an earlier human gave it already
    empty_NK = repeated_NK | (ids_NK == ABSENT)
    count_NK = np.where(empty_NK, 0, same_NKK.sum(axis=2))
    humans_N1 = (dataset.answers.codes != ABSENT).sum(axis=1, keepdims=True)
    majority_of_text = np.array([_class_of(text, answers) for text in dataset.majority.distinct] + [ABSENT])
    return Target(
        majority_B=torch.from_numpy(majority_of_text[dataset.majority.codes].astype(np.int64)),
        answer_BK=torch.from_numpy(np.where(empty_NK, ABSENT, ids_NK).astype(np.int64)),
        count_BK=torch.from_numpy(count_NK.astype(np.float32)),
        score_BK=torch.from_numpy(soft_score(count_NK, humans_N1).astype(np.float32)),
    )


def soft_score(count: np.ndarray, humans: np.ndarray) -> np.ndarray:
    """The official accuracy of an answer that `count` of `humans` people gave, 0 to 1.

    The mean over the people of min(1, agreeing others / 3), worked out: `count` of them have count - 1 agreeing others,
    the rest have count. With ten people it is min(1, 0.3 count); a single person's answer scores 1.
    """
    total = count * np.minimum(1, (count - 1).clip(0) / 3) + (humans - count) * np.minimum(1, count / 3)
    return np.where(humans == 1, count, total / humans)


def batches(questions: EncodedQuestions, batch_size: int, seed: int, epoch: int) -> list[Batch]:
    """The batches of one training epoch: every question once, questions of similar length together, shuffled.

    Questions are permuted, sorted by length (stable, so the permutation decides among equals), cut into batches, and
    the batches are permuted. All of it depends on (seed, epoch) alone.

    Where the questions are in blocks, the blocks are permuted and the above is done within windows of
    `BLOCKS_A_WINDOW` blocks, one window after another, so that a disk reads each image once an epoch and in long
    runs. What is random then: which blocks meet in a window, a new choice every epoch, and everything within it; but
    questions about two images of a block always come near each other, and a batch holds no question from outside
    its window. Where the order of the images means something (sorted by scene, say), extract them in a random order.
    """
    random = np.random.default_rng([seed, epoch])
    length_N = questions.length_N.numpy()
    parts: list[np.ndarray] = []
    for order_W in _windows(questions, batch_size, random):
        order_W = order_W[np.argsort(length_N[order_W], kind="stable")]
        cut = _cut(order_W, batch_size)
        parts += [cut[place] for place in random.permutation(len(cut))]
    return _batches_of(questions, parts)


def _windows(questions: EncodedQuestions, batch_size: int, random: np.random.Generator) -> list[np.ndarray]:
    """The questions of each window in random order: all questions where they are in no blocks.

    What would not fill a batch goes to the next window, so that the number of batches is the same every epoch.
    """
    order_N = random.permutation(len(questions))
    if questions.block_N is None:
        return [order_N]
    block_N = questions.block_N.numpy()
    window_of_block = random.permutation(block_N.max(initial=0) + 1) // BLOCKS_A_WINDOW
    window_N = window_of_block[block_N[order_N]]
    ends = np.cumsum(np.bincount(window_N))[:-1]
    windows = np.split(order_N[np.argsort(window_N, kind="stable")], ends - ends % batch_size)
    return [order_W for order_W in windows if len(order_W)]


def batches_by_image(questions: EncodedQuestions, batch_size: int, seed: int, epoch: int) -> list[Batch]:
    """The batches of an epoch that share images: images shuffled, an image's questions together.

    Only an image whose questions a cut parts is in two batches. Where the questions are in blocks, images are shuffled
    within windows of blocks, as `batches` has them. All of it depends on (seed, epoch) alone.
    """
    random = np.random.default_rng([seed, epoch])
    image_N = questions.image_row_N.numpy()
    place_I = random.permutation(int(image_N.max(initial=-1)) + 1)
    order_N = np.lexsort((random.permutation(len(questions)), place_I[image_N]))
    if questions.block_N is not None:
        block_N = questions.block_N.numpy()
        window_of_block = random.permutation(block_N.max(initial=0) + 1) // BLOCKS_A_WINDOW
        order_N = order_N[np.argsort(window_of_block[block_N[order_N]], kind="stable")]
    return _batches_of(questions, _cut(order_N, batch_size), by_image=True)


def batches_in_order(questions: EncodedQuestions, batch_size: int, *, by_image: bool = False) -> list[Batch]:
    """Batches for prediction: every question once, by length (window by window where in blocks) or by image."""
    key_N = (questions.image_row_N if by_image else questions.length_N).numpy()
    window_N = np.zeros_like(key_N) if questions.block_N is None else questions.block_N.numpy() // BLOCKS_A_WINDOW
    return _batches_of(questions, _cut(np.lexsort((key_N, window_N)), batch_size), by_image=by_image)


def _cut(order_N: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return [order_N[start : start + batch_size] for start in range(0, len(order_N), batch_size)]


def _batches_of(questions: EncodedQuestions, parts: list[np.ndarray], *, by_image: bool = False) -> list[Batch]:
    length_N, sizes = questions.length_N.numpy(), [len(part) for part in parts]
    host_N = torch.from_numpy(np.concatenate(parts)) if parts else torch.empty(0, dtype=torch.int64)
    index_N = to_device(host_N, questions.tokens_NT.device)
    return [
        Batch(index_B, host_B, int(length_N[part].max()), by_image)
        for index_B, host_B, part in zip(index_N.split(sizes), host_N.split(sizes), parts, strict=True)
    ]
