"""What is held out: no image, group or identical file on both sides, each question in one fold, decided by the seed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vqa.data.dataset import ImageTable, QADataset, Strings, concatenate
from vqa.data.formats.table import read_column
from vqa.data.holdout import Holdout, group_codes, hold_out, hold_out_images
from vqa.errors import InputError


def made(
    image_row: list[int], names: list[str], question: Strings | None = None, question_type: Strings | None = None
) -> QADataset:
    count = len(image_row)
    return QADataset(
        "made", "train", np.arange(count), np.array(image_row, dtype=np.int32),
        ImageTable(tuple(names), tuple(Path("images") / f"{name}.jpg" for name in names)),
        question or Strings.of([f"question {number}" for number in range(count)]), question_type=question_type,
    )  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn) -> tuple[QADataset, np.ndarray]:
    """Images in rooms, each with a question or more of some type, and some of them copies of each other."""
    rooms = draw(st.lists(st.integers(0, 5), min_size=4, max_size=20))
    names = [f"room{room}_{number}" for number, room in enumerate(rooms)]
    more = draw(st.lists(st.integers(0, len(names) - 1), max_size=20))
    rows = [*range(len(names)), *more]
    types = Strings.of(draw(st.lists(st.sampled_from("abcdefgh"), min_size=len(rows), max_size=len(rows))))
    contents = draw(st.lists(st.integers(0, 30), min_size=len(names), max_size=len(names)))
    return made(rows, names, question_type=types), np.array(contents, dtype=np.uint64)


BY = st.sampled_from(["image", "consecutive", r"^(room\d)", "question_type"])


def together(dataset: QADataset, by: str, content_I: np.ndarray) -> list[set[int]]:
    """Question ids that may not be parted: of an image, a group, or identical files; written out plainly."""
    group_N = group_codes(dataset, by)
    sets: list[set[int]] = [set() for _ in range(0)]
    for row in range(len(dataset.images.ids)):
        sets.append(set(dataset.question_id_N[dataset.image_row_N == row].tolist()))
    for content in set(content_I.tolist()) - {0}:
        sets.append(set(dataset.question_id_N[content_I[dataset.image_row_N] == content].tolist()))
    for group in [] if group_N is None else set(group_N.tolist()):
        sets.append(set(dataset.question_id_N[group_N == group].tolist()))
    return sets


@given(worlds(), BY, st.integers(2, 5), st.integers(0, 9))
def test_every_question_is_in_one_fold_with_all_that_belongs_to_it(
    world: tuple[QADataset, np.ndarray], by: str, folds: int, seed: int
) -> None:
    dataset, content_I = world
    try:
        sides = [hold_out(dataset, Holdout(None, seed, by, folds, fold), content_I) for fold in range(folds)]
    except InputError as error:
        assume("do not make" not in str(error))
        raise
    out = [set(held.question_id_N.tolist()) for _, held in sides]
    assert sorted(one for ids in out for one in ids) == list(range(len(dataset)))
    for (kept, held), ids in zip(sides, out, strict=True):
        assert set(kept.question_id_N.tolist()) == set(range(len(dataset))) - ids
        assert not set(kept.images.ids) & set(held.images.ids)
        assert held.split.startswith("train-fold-") and kept.split == "train-kept"
    for one in together(dataset, by, content_I):
        assert sum(bool(one & ids) for ids in out) == 1
    again = hold_out(dataset, Holdout(None, seed, by, folds, 0), content_I)[1]
    assert (again.question_id_N == sides[0][1].question_id_N).all()


@given(worlds(), BY, st.floats(0.1, 0.9), st.integers(0, 9))
def test_a_share_parts_no_group_and_no_copies(
    world: tuple[QADataset, np.ndarray], by: str, share: float, seed: int
) -> None:
    dataset, content_I = world
    try:
        kept, held = hold_out(dataset, Holdout(share, seed, by), content_I)
    except InputError as error:
        assert "the largest group that must stay together" in str(error) or round(len(content_I) * share) in (
            0,
            len(content_I),
        )
        return
    out = set(held.question_id_N.tolist())
    assert out | set(kept.question_id_N.tolist()) == set(range(len(dataset)))
    assert len(kept) + len(held) == len(dataset)
    for one in together(dataset, by, content_I):
        assert one <= out or not one & out
    wanted = round(len(content_I) * share)
    assert abs(len(held.images.ids) - wanted) <= wanted / 2


@given(st.integers(2, 60), st.floats(0.05, 0.95), st.integers(0, 99))
def test_a_plain_share_of_different_files_is_what_it_always_was(images: int, share: float, seed: int) -> None:
    """Recorded runs of older versions depend on it: the first images of one permutation."""
    dataset = made([*range(images), *range(images)], [str(number) for number in range(images)])
    wanted = round(images * share)
    if not 0 < wanted < images:
        with pytest.raises(InputError, match="leaves one side empty"):
            hold_out_images(dataset, share, seed)
        return
    rows = np.random.default_rng(seed).permutation(images)[:wanted]
    contents = np.arange(1, images + 1, dtype=np.uint64)
    for kept, held in (hold_out_images(dataset, share, seed), hold_out(dataset, Holdout(share, seed), contents)):
        assert {int(name) for name in held.images.ids} == set(rows.tolist())
        assert len(kept) + len(held) == len(dataset)


def test_folds_are_of_one_size() -> None:
    dataset = made([*range(23)], [str(number) for number in range(23)])
    sizes = [len(hold_out(dataset, Holdout(None, 0, folds=5, fold=fold))[1]) for fold in range(5)]
    assert sorted(sizes) == [4, 4, 5, 5, 5]
    assert (hold_out(dataset, Holdout(None, 1, folds=5))[1].images.ids) != hold_out(dataset, Holdout(None, 0, folds=5))[
        1
    ].images.ids


def test_consecutive_images_are_cut_at_gaps_only() -> None:
    names = ["b/7.png", "a3", "a4", "a6", "a7x", "a5x", "a10", "b/8.png"]
    group = group_codes(made([*range(8)], names), "consecutive")
    assert group is not None
    same = {frozenset(names[i] for i in np.flatnonzero(group == one)) for one in set(group.tolist())}
    assert same == {frozenset(one) for one in (["a3", "a4"], ["a6"], ["a7x"], ["a5x"], ["a10"], ["b/7.png", "b/8.png"])}
    with pytest.raises(InputError, match="needs a number in every image's id; 'kitchen' has none"):
        group_codes(made([0], ["kitchen"]), "consecutive")


def test_a_regular_expression_is_looked_for_in_ids_then_in_paths() -> None:
    dataset = made([0, 1, 2], ["kitchen_1", "kitchen_2", "hall_1"])
    group = group_codes(dataset, r"^(\w+)_\d")
    assert group is not None and group.tolist() == [0, 0, 1]
    in_path = group_codes(dataset, r"(\w+)_\d\.jpg$")
    assert in_path is not None and in_path.tolist() == [0, 0, 1]
    with pytest.raises(InputError, match="'hall_1'"):
        group_codes(dataset, "(kitchen)")
    with pytest.raises(InputError, match="is found in no image's id or path; the first id is 'kitchen_1'"):
        group_codes(dataset, "(cellar)")


def test_what_a_set_does_not_have_is_named() -> None:
    dataset = made([0, 1], ["a", "b"])
    with pytest.raises(InputError, match="made train has no column question_type"):
        hold_out(dataset, Holdout(0.5, by="question_type"))
    with pytest.raises(
        InputError, match="'scene' is no column of made train; name one of image, consecutive, question"
    ):
        hold_out(dataset, Holdout(0.5, by="scene"))
    whole = made([0, 1, 2], ["a", "b", "c"], question=Strings.of(["what?"] * 3))
    with pytest.raises(InputError, match="the largest group that must stay together has 3"):
        hold_out(whole, Holdout(0.3, by="question"))
    with pytest.raises(InputError, match="1 groups by question do not make 2 folds"):
        hold_out(whole, Holdout(None, by="question", folds=2))


TABLES = {
    "train.csv": "image,question,answer,scene\na.png,what?,1,hall\n,,,\nb.png,where?,2,kitchen\n",
    "train.jsonl": '{"image": "a.png", "question": "what?", "answer": 1, "scene": "hall"}\n\n'
    '{"image": "b.png", "question": "where?", "answer": 2, "scene": "kitchen"}\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_a_column_of_a_table_is_read_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TABLES[name])
    assert read_column(tmp_path, "train", "scene") == ["hall", "kitchen"]
    with pytest.raises(InputError, match=rf"{name}: has no column 'room'"):
        read_column(tmp_path, "train", "room")
    (tmp_path / name).write_text(TABLES[name].replace("kitchen", ""))
    with pytest.raises(InputError, match=r"line 4: no scene|line 3: no scene"):
        read_column(tmp_path, "train", "scene")


def test_a_table_of_several_splits_gives_the_rows_of_one(tmp_path: Path) -> None:
    rows = ["image,question,answer,split,scene", "a,q,1,val,x", "b,q,1,train,y", "c,q,1,train,z"]
    (tmp_path / "all.csv").write_text("\n".join(rows))
    assert read_column(tmp_path, "train", "scene") == ["y", "z"]


def test_colliding_ids_of_splits_are_numbered_on() -> None:
    one = made([0, 1, 1], ["a", "b"])
    two = QADataset(
        "made", "val", np.array([0, 2]), np.array([0, 1], np.int32), ImageTable(("b", "c"), (Path("b"), Path("c"))),
        Strings.of(["x", "y"]), pairs_P2=np.array([[0, 2]]),
    )  # fmt: skip
    with pytest.raises(InputError, match="is in more than one of them"):
        concatenate([one, two])
    both = concatenate([one, two], renumber=True)
    assert both.question_id_N.tolist() == [0, 1, 2, 3, 5] and both.images.ids == ("a", "b", "c")
    assert both.image_row_N.tolist() == [0, 1, 1, 1, 2] and both.split == "train+val"
    assert concatenate([two, one], renumber=True).question_id_N.tolist() == [0, 2, 3, 4, 5]
