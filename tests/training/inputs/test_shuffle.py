"""The order of the questions never depends on where the features are, and blocks are read one window after another."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training import assert_same_run, experiment, make_world

from vqa.experiment import Experiment
from vqa.features.tables import feature_table as residency
from vqa.training.inputs import batches as order
from vqa.training.inputs import prepare as preparation
from vqa.training.inputs.batches import EncodedQuestions, batches, batches_in_order
from vqa.training.inputs.prepare import prepare
from vqa.training.resume import TrainState
from vqa.training.run import begin, build, save
from vqa.training.run_folder import RunFolder
from vqa.training.together import train_together
from vqa.training.train import train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "BLOCK_BYTES", 3 * 4 * 6 * 2)  # three images of the made-up cache
    monkeypatch.setattr(order, "BLOCKS_A_WINDOW", 4)


def questions_of(images: int, each: int, per_block: int) -> EncodedQuestions:
    """Questions of 3 to 9 tokens, `each` about every image."""
    count = images * each
    length_N = torch.randint(3, 10, (count,), generator=torch.Generator().manual_seed(0))
    row_N = torch.arange(count) % images
    tokens_NT = (torch.arange(9) < length_N[:, None]).long()
    return EncodedQuestions(tokens_NT, length_N, row_N, None, None).in_blocks(torch.arange(images) // per_block)


@pytest.mark.parametrize("shuffle", ["full", "blocks"])
def test_every_residency_gives_the_same_run(world: Path, tmp_path: Path, shuffle: str) -> None:
    runs = [
        train(experiment(world, tmp_path / where, features={"residency": where}, training={"shuffle": shuffle}))
        for where in ("device", "host", "disk")
    ]
    for other in runs[1:]:
        assert_same_run(other, runs[0])


def test_in_blocks_every_question_comes_once_in_the_same_number_of_batches() -> None:
    questions = questions_of(200, 3, per_block=5)
    for size in (16, 100, 599, 1000):
        for epoch in range(3):
            todo = batches(questions, size, 0, epoch)
            assert sorted(torch.cat([batch.index_B for batch in todo]).tolist()) == list(range(600))
            assert len(todo) == -(-600 // size)
            assert all(batch.longest == int(questions.length_N[batch.host_index_B].max()) for batch in todo)


def test_the_batches_of_a_window_keep_to_its_blocks_and_windows_change() -> None:
    questions = questions_of(400, 4, per_block=5)  # 80 blocks of 20 questions, 20 windows of 80 questions
    assert questions.block_N is not None
    met: list[set[int]] = []
    for epoch in (0, 1):
        todo = batches(questions, 16, 0, epoch)
        for first in range(0, len(todo), 5):  # five batches are a window
            rows = torch.cat([batch.host_index_B for batch in todo[first : first + 5]])
            blocks = set(questions.block_N[rows].tolist())
            assert len(blocks) == 4
            met.append(blocks)
    assert len({frozenset(blocks) for blocks in met}) > 30  # other blocks meet in the second epoch
    plain = batches(questions.in_blocks(None), 16, 0, 0)
    spread = [len(set(questions.block_N[batch.host_index_B].tolist())) for batch in plain]
    assert np.mean(spread) > 10


def test_a_block_shuffle_is_a_function_of_seed_and_epoch() -> None:
    questions = questions_of(100, 2, per_block=3)

    def once(seed: int, epoch: int) -> list[int]:
        return torch.cat([batch.index_B for batch in batches(questions, 16, seed, epoch)]).tolist()

    assert once(0, 0) == once(0, 0)
    assert len({tuple(once(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_prediction_reads_a_window_after_another() -> None:
    questions = questions_of(200, 3, per_block=5)
    assert questions.block_N is not None
    todo = batches_in_order(questions, 16)
    rows = torch.cat([batch.index_B for batch in todo])
    assert sorted(rows.tolist()) == list(range(600))
    windows = questions.block_N[rows] // 4
    assert (windows.diff() >= 0).all()


def on_disk(world: Path, runs: Path) -> Experiment:
    return experiment(world, runs, features={"residency": "disk"})


def test_auto_takes_blocks_only_where_the_files_are_larger_than_memory(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare(on_disk(world, tmp_path)).shuffle == "full"
    assert "would read the disk in long runs" in preparation.shuffle_note(prepare(on_disk(world, tmp_path)))
    monkeypatch.setattr(residency, "total_memory", lambda: 1000)
    assert prepare(on_disk(world, tmp_path)).shuffle == "blocks"
    assert prepare(experiment(world, tmp_path, features={"residency": "host"})).shuffle == "full"


def test_a_resumed_run_keeps_the_order_that_it_began_with(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = on_disk(world, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(residency, "total_memory", lambda: 1000)
        begun = build(plan, prepare(plan))
        begin(begun, resume=False)
        assert begun.state.shuffle == "blocks"
        save(begun)
    now = prepare(plan)
    assert now.shuffle == "full"
    resumed = build(plan, now)
    begin(resumed, resume=True)
    assert resumed.data.shuffle == "blocks" and resumed.data.train_questions.block_N is not None
    begun.state = TrainState()  # as runs were kept before there was a choice
    save(begun)
    resumed = build(plan, now)
    begin(resumed, resume=True)
    assert resumed.data.train_questions.block_N is None


@pytest.mark.parametrize("resumed", [False, True])
def test_models_trained_together_keep_to_their_own_shuffle(world: Path, tmp_path: Path, resumed: bool) -> None:
    """Whether they name another one, or began when `auto` meant another one."""
    training = {"order_seed": 0, "epochs": 1}
    orders = ("full", "blocks")
    alone = [train(experiment(world, tmp_path / kind, training=training | {"shuffle": kind})) for kind in orders]
    asked = ["auto", "auto"] if resumed else orders
    every = [
        experiment(world, tmp_path, name=kind, training=training | {"shuffle": shuffle})
        for kind, shuffle in zip(orders, asked, strict=True)
    ]
    if resumed:
        prepared = prepare(every[1]).shuffled("blocks")
        begun = build(every[1], prepared)
        begin(begun, resume=False)
        save(begun)
    assert train_together(every, "again") == {}
    for plan, one in zip(every, alone, strict=True):
        assert_same_run(RunFolder(plan.folder), one)
