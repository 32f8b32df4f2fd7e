"""The changing-priors split, against the published rule written out plainly, and splits put together."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from helpers.formats import MINIATURES, questions, write

from vqa.data.check import check_dataset
from vqa.data.dataset import ImageTable, QADataset, Strings, concatenate
from vqa.data.formats import read_dataset
from vqa.data.formats.changing_priors import split_by_priors
from vqa.data.formats.official import read_official
from vqa.errors import InputError


def random_questions(questions: int, seed: int) -> QADataset:
    """Questions whose types and answers are random, common ones often."""
    random = np.random.default_rng(seed)
    kinds = [["what is", "what color", "is the", "how many"][i] for i in random.integers(0, 4, questions)]
    answers = [f"{['red', 'big', 'two', 'old'][i % 4]} thing{i}" for i in random.geometric(0.15, questions)]
    return QADataset(
        "made", "all", np.arange(questions), np.arange(questions, dtype=np.int32) // 3,
        ImageTable(tuple(map(str, range(questions // 3 + 1))), tuple(map(Path, map(str, range(questions // 3 + 1))))),
        Strings.of([f"{kind} it" for kind in kinds]), Strings.of_rows([[answer] for answer in answers], 1),
        Strings.of(answers), question_type=Strings.of(kinds),
    )  # fmt: skip


def test_no_group_of_question_type_and_answer_is_on_both_sides() -> None:
    dataset = random_questions(900, 1)
    train, test = split_by_priors(dataset, 0)
    groups = []
    for side in (train, test):
        assert side.question_type is not None and side.majority is not None
        groups.append({(side.question_type.at(row), side.majority.at(row)) for row in range(len(side))})
    assert not groups[0] & groups[1]
    assert sorted([*train.question_id_N, *test.question_id_N]) == list(range(900))
    assert 0.3 < len(test) / 900 < 0.5
    again = split_by_priors(dataset, 0)[1]
    assert (again.question_id_N == test.question_id_N).all()
    assert set(split_by_priors(dataset, 1)[1].question_id_N) != set(test.question_id_N)


@pytest.mark.parametrize("seed", range(5))
def test_the_split_is_that_of_the_rule_done_step_by_step(seed: int) -> None:
    dataset = random_questions(300, seed)
    kind, majority = dataset.question_type, dataset.majority
    assert kind is not None and majority is not None
    label = [(int(kind.codes[row]), int(majority.codes[row])) for row in range(300)]
    groups = sorted(set(label))
    concepts = [set(kind.distinct[k].split()) | set(majority.distinct[a].split()) for k, a in groups]
    side: dict[int, str] = {}
    for group in np.random.default_rng(seed).permutation(len(groups)).tolist():
        if sum(label.count(groups[g]) for g in side if side[g] == "test") >= 100:
            break
        if group in side:
            continue
        side[group] = "test"
        in_test = set().union(*(concepts[g] for g in side if side[g] == "test"))
        missing = in_test - set().union(*(concepts[g] for g in side if side[g] == "train"))
        free = [g for g in range(len(groups)) if g not in side and concepts[g] & missing]
        if free:
            side[max(free, key=lambda g: (len(concepts[g] & missing), -g))] = "train"
    expected = [row for row in range(300) if side.get(groups.index(label[row])) == "test"]
    assert split_by_priors(dataset, seed)[1].question_id_N.tolist() == expected


def test_one_group_or_no_types_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="several groups"):
        split_by_priors(random_questions(1, 0), 0)
    asked = read_official(write(tmp_path / "q.json", questions([10, 11], "mscoco", "test2015")))
    with pytest.raises(InputError, match=r"q\.json: .* needs question types and answers"):
        split_by_priors(asked, 0)


def test_the_check_says_which_questions_the_split_holds(tmp_path: Path) -> None:
    MINIATURES["changing_priors_v2"](tmp_path)
    said = [row.finding for row in check_dataset(tmp_path, "changing_priors_v2").rows if "seed 0" in row.finding]
    for split, words in zip(("train", "test"), said, strict=True):
        ids = sorted(read_dataset("changing_priors_v2", tmp_path, split).question_id_N.tolist())
        assert words.endswith(hashlib.sha256(b"".join(i.to_bytes(8, "little") for i in ids)).hexdigest())


def test_splits_put_together_keep_every_row_and_share_images(tmp_path: Path) -> None:
    MINIATURES["vqa_v2"](tmp_path)
    train, val = (read_dataset("vqa_v2", tmp_path, split) for split in ("train", "val"))
    both = concatenate([train, val])
    assert both.split == "train2014+val2014" and len(both) == len(train) + len(val)
    assert both.pairs_P2 is None and both.files == train.files + val.files
    assert both.answers is not None and train.answers is not None and val.answers is not None
    for row in range(len(both)):
        part, place = (train, row) if row < len(train) else (val, row - len(train))
        assert part.answers is not None
        assert both.question.at(row) == part.question.at(place)
        assert both.answers.row(row) == part.answers.row(place)
        image, origin = both.image_row_N[row], part.image_row_N[place]
        assert both.images.ids[image] == part.images.ids[origin]
        assert both.images.paths[image] == part.images.paths[origin]
    with pytest.raises(InputError, match="question 10 is in more than one"):
        concatenate([train, train])
    assert concatenate([val, read_dataset("vqa_v2", tmp_path, "test")]).answers is None
