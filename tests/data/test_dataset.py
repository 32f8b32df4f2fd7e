"""Columns of strings, rows taken from a data set, and splits by image."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa.data.dataset import ImageTable, QADataset, Strings, StringsBuilder
from vqa.data.holdout import hold_out_images
from vqa.errors import InputError


def _dataset(questions: int, images: int) -> QADataset:
    names = tuple(str(number) for number in range(images))
    return QADataset(
        "made", "train", np.arange(questions), np.arange(questions, dtype=np.int32) % images,
        ImageTable(names, tuple(Path(name) for name in names)),
        Strings.of([f"question {number}" for number in range(questions)]),
    )  # fmt: skip


@given(st.lists(st.lists(st.text(max_size=3), max_size=4)))
def test_a_column_built_row_by_row_gives_every_row_back(rows: list[list[str]]) -> None:
    builder = StringsBuilder()
    for row in rows:
        builder.add(row)
    column = builder.build()
    assert [column.row(row) for row in range(len(rows))] == rows
    assert len(set(column.distinct)) == len(column.distinct)
    width = max((len(row) for row in rows), default=0)
    same = Strings.of_rows(rows, width)
    assert same.distinct == column.distinct and (same.codes == column.codes).all()


@given(st.lists(st.none() | st.text(max_size=3)))
def test_a_column_of_one_string_a_row_gives_it_back(values: list[str | None]) -> None:
    column = Strings.of(values)
    assert [None if code < 0 else column.distinct[code] for code in column.codes] == values


def test_no_image_is_on_both_sides_and_the_seed_decides() -> None:
    dataset = _dataset(100, 20)
    kept, held = hold_out_images(dataset, 0.25, seed=3)
    assert len(held.images.ids) == 5 and len(kept.images.ids) == 15
    assert not set(kept.images.ids) & set(held.images.ids)
    assert sorted([*kept.question_id_N, *held.question_id_N]) == list(range(100))
    assert (hold_out_images(dataset, 0.25, seed=3)[1].question_id_N == held.question_id_N).all()
    assert (hold_out_images(dataset, 0.25, seed=4)[1].images.ids) != held.images.ids
    for row in range(len(held)):
        number = held.question_id_N[row]
        assert held.question.at(row) == f"question {number}" and held.images.ids[held.image_row_N[row]] == str(
            number % 20
        )


@pytest.mark.parametrize("share", [0.0, 0.001, 1.0])
def test_a_side_without_images_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="leaves one side empty"):
        hold_out_images(_dataset(10, 5), share, seed=0)
