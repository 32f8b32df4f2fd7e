"""A changing-priors split made from the ordinary VQA v1 or v2 files by the rule of VQA-CP.

Agrawal et al. 2018 ("Don't Just Assume; Look and Answer", section 3): train and val are put together; questions of one
question type and one majority answer form a group, and a group goes to one side whole. Groups are taken in turn, here
in a random order with a fixed seed. Each goes to test unless it is in train already; then the group without a side
that covers most of the concepts (words of question type and answer) which test has and train has not goes to train.
When test holds a third of the questions, all other groups go to train. Legend: `N` questions, `G` groups.

The published split came from another order, so figures on this one are comparable with each other only.
"""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset, concatenate
from vqa.data.formats import vqa_v1, vqa_v2
from vqa.errors import InputError

SPLITS = {"train": "train", "test": "test"}
ABOUT_V1 = "a changing-priors split made from the v1 files by the rule of VQA-CP (seed 0)"
ABOUT_V2 = "a changing-priors split made from the v2 files by the rule of VQA-CP (seed 0)"
SEED = 0
TEST_SHARE = 1 / 3


def read_v1(root: Path, split: str) -> QADataset:
    """Read the VQA v1 files of train2014 and val2014 and return one side of the split with seed 0."""
    both = concatenate([vqa_v1.read(root, "train2014"), vqa_v1.read(root, "val2014")])
    return _side(both, split, "changing_priors_v1")


def read_v2(root: Path, split: str) -> QADataset:
    """Read the VQA v2 files of train2014 and val2014 and return one side of the split with seed 0."""
    both = concatenate([vqa_v2.read(root, "train2014"), vqa_v2.read(root, "val2014")])
    return _side(both, split, "changing_priors_v2")


def _side(both: QADataset, split: str, format: str) -> QADataset:
    train, test = split_by_priors(both, SEED)
    return replace(train if split == "train" else test, format=format, split=split)


def split_by_priors(dataset: QADataset, seed: int) -> tuple[QADataset, QADataset]:
    """Split a data set that has question types and answers into (train, test) by the rule above.

    Raises:
        InputError: without question types or answers, or when one side would be empty.
    """
    where = str(dataset.files[0]) if dataset.files else dataset.name
    if dataset.answers_missing:
        raise InputError(dataset.answers_missing)
    kind, majority = dataset.question_type, dataset.majority
    if kind is None or majority is None:
        raise InputError(f"{where}: a changing-priors split needs question types and answers")
    key_N = kind.codes.astype(np.int64) * len(majority.distinct) + majority.codes
    key_G, group_N, size_G = np.unique(key_N, return_inverse=True, return_counts=True)
    words = [
        frozenset(
            f"{kind.distinct[key // len(majority.distinct)]} {majority.distinct[key % len(majority.distinct)]}".split()
        )
        for key in key_G.tolist()
    ]
    order = np.random.default_rng(seed).permutation(len(key_G)).tolist()
    test_N = np.isin(group_N, _test_groups(words, size_G, order))
    if not test_N.any() or test_N.all():
        raise InputError(f"{where}: a changing-priors split needs several groups of question type and answer")
    return dataset.take(~test_N), dataset.take(test_N)


def _test_groups(words: list[frozenset[str]], size_G: NDArray[np.int64], order: list[int]) -> list[int]:
    """The groups that go to test, given each group's concepts and the order in which groups are taken."""
    free_of: dict[str, set[int]] = defaultdict(set)  # the groups without a side that hold a word
    for group, concepts in enumerate(words):
        for word in concepts:
            free_of[word].add(group)
    wanted = int(size_G.sum()) * TEST_SHARE
    test: list[int] = []
    train: set[int] = set()
    covered: set[str] = set()
    uncovered: set[str] = set()
    count = 0

    def settle(group: int) -> None:
        for word in words[group]:
            free_of[word].discard(group)

    for group in order:
        if count >= wanted:
            break
        if group in train:
            continue
        settle(group)
        test.append(group)
        count += int(size_G[group])
        uncovered = {word for word in uncovered | (words[group] - covered) if free_of[word]}
        gain = Counter(other for word in uncovered for other in free_of[word])
        if gain:
            best = min(gain, key=lambda other: (-gain[other], other))
            settle(best)
            train.add(best)
            covered |= words[best]
            uncovered -= covered
    return test
