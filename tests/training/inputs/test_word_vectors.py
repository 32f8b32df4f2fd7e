"""A training that starts from word vectors: coverage, width, what the run keeps, and what it refuses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.training import experiment, make_world

from vqa.data import binary_cache
from vqa.errors import InputError
from vqa.experiment import Experiment
from vqa.models import QUESTION_ENCODERS
from vqa.runs.load import load_run
from vqa.text.tokenize import tokenize
from vqa.text.vectors import WordVectors
from vqa.text.vocabulary import Vocabulary
from vqa.training.inputs import word_vectors
from vqa.training.inputs.prepare import prepare
from vqa.training.inputs.splits import read_split
from vqa.training.inputs.word_vectors import read_first_vectors
from vqa.training.model import initialise_from_data, make_model
from vqa.training.run_folder import open_run
from vqa.training.train import train

WIDTH = 8  # of the small experiment's word vectors
LACKING = ("circle", "the")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def write_vectors(world: Path, width: int = WIDTH, name: str = "vectors.txt") -> dict[str, list[float]]:
    """A GloVe file with every word of the training questions but two, and more."""
    split = read_split(experiment(world, world / "runs"), "train")
    words = Vocabulary.build(split.question.distinct).words
    random = np.random.default_rng(0)
    vectors = {word: random.normal(0, 0.2, width).round(5).tolist() for word in [",", *words] if word not in LACKING}
    lines = [f"{word} {' '.join(map(str, row))}\n" for word, row in vectors.items()]
    (world / name).write_text("".join(lines), encoding="utf-8")
    return vectors


def plan(world: Path, name: str, **changes: Any) -> Experiment:
    changed: dict[str, Any] = {"words": {"vectors": str(world / "vectors.txt")}} | changes
    return experiment(world, world / "runs", name=name, **changed)


@pytest.mark.parametrize("name", QUESTION_ENCODERS)
@pytest.mark.parametrize("initial_range", [None, 0.01])
def test_every_encoder_starts_from_the_files_vectors(world: Path, name: str, initial_range: float | None) -> None:
    vectors = write_vectors(world)
    wide = {"hierarchical": {"hidden_dim": WIDTH}, "transformer": {"hidden_dim": WIDTH, "heads": 2}}
    section = {"name": name, **wide.get(name, {"embedding_dim": WIDTH})}
    chosen = experiment(world, world / "runs", words={"vectors": str(world / "vectors.txt")}).model_copy(
        update={"question_encoder": section}
    )
    prepared = prepare(chosen)
    model = make_model(chosen, prepared.words, prepared.answers, 4, 6)
    if initial_range is not None:
        torch.nn.init.uniform_(model.question_encoder.embedding.weight, -initial_range, initial_range)
        model.question_encoder.embedding.weight.data[0] = 0
    initialise_from_data(model, prepared)
    table_VE = model.question_encoder.embedding.weight.detach()
    for token, word in enumerate(prepared.words.words, start=2):
        if word not in LACKING:
            torch.testing.assert_close(table_VE[token], torch.tensor(vectors[word]))
    assert not table_VE[0].any()
    rest = [1, *(prepared.words.index[word] for word in LACKING)]
    assert float(table_VE[rest].std()) == pytest.approx(0.2, rel=0.05)  # as in the file


def test_coverage_is_what_a_count_by_hand_gives(world: Path) -> None:
    write_vectors(world)
    chosen = plan(world, "counted")
    split = read_split(chosen, "train")
    asked = [word for row in range(len(split)) for word in tokenize(split.question.at(row))]
    first = read_first_vectors(chosen, Vocabulary.build(split.question.distinct), split)
    assert first is not None
    assert first.covered == pytest.approx(sum(word not in LACKING for word in asked) / len(asked))
    assert len(first.vectors.index_N) == first.words - 2


def test_a_trained_run_needs_no_file(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = write_vectors(world, name="passing.txt")
    words = {"vectors": str(world / "passing.txt")}
    encoder = {"name": "textcnn", "filters": [4, 4, 4], "embedding_dim": WIDTH, "channels": "static_and_tuned"}
    chosen = experiment(world, world / "runs", name="passing", words=words)
    folder = train(chosen.model_copy(update={"question_encoder": encoder}))
    assert "start from" in capsys.readouterr().out
    (world / "passing.txt").unlink()
    run = load_run(folder.path)
    static_VE = run.model.question_encoder.get_buffer("static_VE")
    token = run.words.index["is"]
    torch.testing.assert_close(static_VE[token], torch.tensor(vectors["is"]))
    assert not torch.equal(static_VE[token], run.model.question_encoder.embedding.weight[token])
    assert open_run(folder.path)[2]["word_vectors"]["found"] == len(run.words.words) - 2


def test_another_width_is_refused_with_the_right_one(world: Path) -> None:
    write_vectors(world, width=5)
    with pytest.raises(InputError, match=r"vectors of 5 numbers.*'lstm' takes 8; set question_encoder.embedding_dim=5"):
        prepare(plan(world, "wide"))
    assert not (world / "runs" / "wide").exists()


def test_a_missing_file_is_named_with_the_way_without_it(world: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt: no such file; words\.vectors=null starts"):
        prepare(plan(world, "gone", words={"vectors": "none.txt"}))


def test_a_file_without_any_of_the_words_is_refused(world: Path) -> None:
    (world / "vectors.txt").write_text("zyx 1 2 3 4 5 6 7 8\n")
    with pytest.raises(InputError, match=r"has none of the .* words"):
        prepare(plan(world, "none"))


def test_a_second_reading_comes_from_the_cache(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_vectors(world)
    monkeypatch.setenv("VQA_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(binary_cache, "SMALLEST", 0)
    first = prepare(plan(world, "kept")).first_vectors
    read: list[Path] = []
    reader = word_vectors.read_word_vectors

    def noted(path: Path, words: Sequence[str]) -> WordVectors:
        read.append(path)
        return reader(path, words)

    monkeypatch.setattr(word_vectors, "read_word_vectors", noted)
    again = prepare(plan(world, "kept")).first_vectors
    assert first is not None and again is not None and not read
    np.testing.assert_array_equal(first.vectors.vectors_ND, again.vectors.vectors_ND)
    prepare(plan(world, "kept", words={"vectors": str(world / "vectors.txt"), "min_count": 30}))  # other words
    assert len(read) == 1
    write_vectors(world)
    with (world / "vectors.txt").open("a") as file:
        file.write("more 1 2 3 4 5 6 7 8\n")
    prepare(plan(world, "kept"))  # another content
    assert len(read) == 2
