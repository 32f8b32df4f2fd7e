"""Batches that share images: each image is fetched once, and what a question gets stays the same."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training import assert_same_run, experiment, interrupted_after, make_world

from vqa.errors import InterruptedRunError
from vqa.experiment import Experiment
from vqa.features.tables.feature_table import FeatureTable
from vqa.models import Image
from vqa.runs.load import load_run
from vqa.runtime.device import Machine
from vqa.training import predict as prediction
from vqa.training.inputs import batches as order
from vqa.training.inputs.batches import EncodedQuestions, batches_by_image, batches_in_order, images_of
from vqa.training.inputs.prepare import TrainingData, prepare
from vqa.training.step import stream
from vqa.training.train import train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def by_image(world: Path, runs: Path, **changes: object) -> Experiment:
    fusion = {"name": "stacked_attention", "hops": 2, "attention_dim": 16}
    given = {"fusion": fusion, "training": {"batches": "by_image", "batch_size": 24}}
    return experiment(world, runs, **(given | changes))


def test_every_image_is_fetched_once_a_batch(world: Path, tmp_path: Path) -> None:
    prepared = prepare(by_image(world, tmp_path))
    questions, table = prepared.train_questions, prepared.features
    assert isinstance(table, FeatureTable)
    todo = batches_by_image(questions, 24, 0, 0)
    for batch, image in zip(todo, images_of(table, todo, questions), strict=True):
        assert isinstance(image, Image) and image.row_B is not None
        row_B = batch.image_rows(questions)
        assert len(image.regions_IRC) == len(row_B.unique()) < len(row_B)
        assert torch.equal(image.regions_BRC, table.gather(row_B).regions_IRC)
    plain = next(images_of(table, batches_in_order(questions, 24), questions))
    assert isinstance(plain, Image) and plain.row_B is None


def test_the_loop_takes_an_images_questions_together(world: Path, tmp_path: Path) -> None:
    def images_of_steps(prepared: TrainingData) -> list[int]:
        todo = batches_by_image(prepared.train_questions, 24, 0, 1)
        return [row for batch in todo for row in batch.image_rows(prepared.train_questions).tolist()]

    prepared = prepare(by_image(world, tmp_path))
    rows = images_of_steps(prepared)
    assert sum(here != there for here, there in pairwise(rows)) == len(set(rows)) - 1
    for inputs in stream(prepared, batches_by_image(prepared.train_questions, 24, 0, 1)):
        assert isinstance(inputs.image, Image) and inputs.image.row_B is not None
        assert len(inputs.image.row_B) == len(inputs.length_B)


def test_a_run_is_resumed_exactly_and_residencies_agree(world: Path, tmp_path: Path) -> None:
    whole = train(by_image(world, tmp_path / "whole"))
    with interrupted_after(5), pytest.raises(InterruptedRunError):
        train(by_image(world, tmp_path / "parts"))
    assert_same_run(train(by_image(world, tmp_path / "parts"), resume=True), whole)
    assert_same_run(train(by_image(world, tmp_path / "disk", features={"residency": "disk"})), whole)
    other = train(by_image(world, tmp_path / "random", training={"batch_size": 24}))
    assert other.metrics.read_text(encoding="utf-8") != whole.metrics.read_text(encoding="utf-8")


def test_prediction_shares_images_and_gives_the_same(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(by_image(world, tmp_path))
    run = load_run(folder.path)
    questions, table, machine = run_inputs(run.experiment)
    seen: list[int] = []
    forward = type(run.model.fusion).forward

    def counted(self: torch.nn.Module, image: Image, question: object) -> object:
        seen.append(len(image.regions_IRC))
        return forward(self, image, question)  # type: ignore[arg-type]

    monkeypatch.setattr(type(run.model.fusion), "forward", counted)
    shared = prediction.predict(run.model, questions, table, machine, batch_size=40, best=3)
    assert sum(seen) < len(questions) / 2
    seen.clear()
    monkeypatch.setattr(prediction, "batches_in_order", lambda *given, by_image: batches_in_order(*given))
    apart = prediction.predict(run.model, questions, table, machine, batch_size=40, best=3)
    assert sum(seen) == len(questions)
    np.testing.assert_allclose(shared.probability_NK, apart.probability_NK, rtol=1e-4, atol=1e-6)


def test_the_means_of_a_map_are_predicted_by_length_as_vectors_are(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(train(by_image(world, tmp_path, fusion={"name": "product"})).path)
    questions, table, machine = run_inputs(run.experiment)
    assert table.regions > 1 and table.holds == "mean"
    padded: list[int] = []
    forward = type(run.model).forward

    def counted(self: torch.nn.Module, image: Image, tokens_BT: torch.Tensor, length_B: torch.Tensor) -> object:
        assert image.row_B is None
        padded.append(int(tokens_BT.shape[1] * len(length_B) - length_B.sum()))
        return forward(self, image, tokens_BT, length_B)  # type: ignore[arg-type]

    monkeypatch.setattr(type(run.model), "forward", counted)
    prediction.predict(run.model, questions, table, machine, batch_size=8)
    by_length = sum(
        int(batch.longest * len(batch.index_B) - questions.length_N[batch.host_index_B].sum())
        for batch in batches_in_order(questions, 8)
    )
    assert sum(padded) == by_length


def run_inputs(setup: Experiment) -> tuple[EncodedQuestions, FeatureTable, Machine]:
    prepared = prepare(setup)
    assert isinstance(prepared.features, FeatureTable) and prepared.val_questions is not None
    return prepared.val_questions, prepared.features, prepared.machine


def test_in_blocks_images_are_shuffled_within_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "BLOCKS_A_WINDOW", 4)
    images, each = 200, 3
    row_N = torch.arange(images * each) % images
    length_N = torch.full((images * each,), 4)
    questions = EncodedQuestions(torch.ones(images * each, 4, dtype=torch.int64), length_N, row_N, None, None)
    blocks = questions.in_blocks(torch.arange(images) // 5)
    assert blocks.block_N is not None
    rows = torch.cat([batch.host_index_B for batch in batches_by_image(blocks, 16, 0, 0)])
    assert sorted(rows.tolist()) == list(range(images * each))
    seen = row_N[rows].tolist()
    assert sum(here != there for here, there in pairwise(seen)) == images - 1
    for first in range(0, len(rows), 4 * 5 * each):  # four blocks of five images
        assert len(blocks.block_N[rows[first : first + 4 * 5 * each]].unique()) == 4
    other = torch.cat([batch.host_index_B for batch in batches_by_image(blocks, 16, 0, 1)])
    assert not torch.equal(rows, other)
