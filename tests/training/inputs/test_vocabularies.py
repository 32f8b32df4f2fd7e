"""Vocabularies come from the training split alone, and an unknown word is not padding."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.training import experiment, make_world

from vqa.data.dataset import QADataset, Strings
from vqa.experiment import Experiment
from vqa.models import QUESTION_ENCODERS
from vqa.planning import sizes as describe_sizes
from vqa.planning.sizes import SizeOptions
from vqa.runs.load import load_run
from vqa.text.vocabulary import PADDING, UNKNOWN
from vqa.training.inputs import splits
from vqa.training.inputs.prepare import TrainingData, prepare
from vqa.training.model import make_model
from vqa.training.train import train


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """The first validation question has a word, and the first human an answer, that training never had."""
    folder = make_world(tmp_path_factory.mktemp("world"))
    chosen = experiment(folder, folder / "runs")
    read = splits.read_split

    def changed(experiment: object, split: str, recorded: object = None) -> QADataset:
        dataset = read(chosen, split)
        if split != "val":
            return dataset
        questions = [dataset.question.at(row) for row in range(len(dataset))]
        assert dataset.answers is not None
        answers = [dataset.answers.row(row) for row in range(len(dataset))]
        questions[0] = "is the zebra there?"
        answers[0] = ["xylophone"] * 10
        return replace(dataset, question=Strings.of(questions), answers=Strings.of_rows(answers, 10))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "read_split", changed)
        return prepare(chosen)


def test_validation_adds_no_word_and_no_answer(prepared: TrainingData) -> None:
    asked = " ".join(prepared.train.question.at(row) for row in range(len(prepared.train)))
    assert set(prepared.words.words) == set(re.sub("[?.,]", " ", asked.lower()).split())
    assert "xylophone" not in prepared.answers.index
    assert prepared.val_questions is not None
    row, index = prepared.val_questions.tokens_NT[0].tolist(), prepared.words.index
    assert row[:4] == [index["is"], index["the"], UNKNOWN, index["there"]]
    target = prepared.val_questions.target
    assert target is not None and (target.answer_BK[0] < 0).all()


@pytest.mark.parametrize("name", QUESTION_ENCODERS)
def test_unknown_and_padding_are_different_rows(prepared: TrainingData, name: str, tmp_path: Path) -> None:
    section = {"name": name, **({"hidden_dim": 16, "heads": 2} if name == "transformer" else {})}
    chosen = experiment(tmp_path, tmp_path).model_copy(update={"question_encoder": section})
    encoder = make_model(chosen, prepared.words, prepared.answers, 4, 6).question_encoder.eval()
    assert encoder.embedding.num_embeddings == len(prepared.words) == len(prepared.words.words) + 2
    assert not encoder.embedding.weight[PADDING].any() and encoder.embedding.weight[UNKNOWN].any()
    known = encoder(torch.tensor([[3, 2, PADDING]]), torch.tensor([2])).sentence_BD
    longer = encoder(torch.tensor([[3, 2, UNKNOWN]]), torch.tensor([3])).sentence_BD
    assert (known - longer).abs().max() > 1e-4
    encoder.train()(torch.tensor([[3, UNKNOWN, PADDING]]), torch.tensor([2])).sentence_BD.square().sum().backward()
    gradient_VE = encoder.embedding.weight.grad
    assert gradient_VE is not None and gradient_VE[UNKNOWN].any() and not gradient_VE[PADDING].any()


def with_a_second_opinion(dataset: QADataset, known: str) -> QADataset:
    """Of every second question one human gives the answer `known`, whatever the others say."""
    assert dataset.answers is not None
    answers = [dataset.answers.row(row) for row in range(len(dataset))]
    for row in range(0, len(dataset), 2):
        answers[row] = [known, *answers[row][1:]]
    return replace(dataset, answers=Strings.of_rows(answers, 10))


@pytest.mark.parametrize(
    ("loss", "taken"),
    [
        ({"name": "cross_entropy"}, "majority"),
        ({"name": "sampled_cross_entropy"}, "known"),
        ({"name": "soft_cross_entropy"}, "known"),
        ({"name": "kl"}, "known"),
        ({"name": "binary_cross_entropy"}, "known"),
        ({"name": "binary_cross_entropy", "outside": "negative"}, "all"),
    ],
)
def test_a_training_takes_the_questions_that_its_loss_learns_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: dict[str, str], taken: str
) -> None:
    """Three answers are known; of questions that nobody gave one to, only negative examples are made."""
    chosen = experiment(make_world(tmp_path), tmp_path / "runs", loss=loss, answers={"size": 3}, training={"epochs": 1})
    known = prepare(chosen).answers.answers
    read = splits.read_split

    def read_with_opinion(plan: Experiment, name: str, recorded: object = None) -> QADataset:
        return with_a_second_opinion(read(plan, name), known[0])

    monkeypatch.setattr(splits, "read_split", read_with_opinion)
    split = splits.read_split(chosen, "train")
    assert split.answers is not None and split.majority is not None
    answers = [split.answers.row(row) for row in range(len(split))]
    expected = {
        "majority": [row for row in range(len(split)) if split.majority.at(row) in known],
        "known": [row for row in range(len(split)) if set(answers[row]) & set(known)],
        "all": list(range(len(split))),
    }
    assert len(expected["majority"]) < len(expected["known"]) < len(expected["all"])
    prepared = prepare(chosen)
    found = prepared.train_questions
    tokens = [tokens_T[:length].tolist() for tokens_T, length in zip(found.tokens_NT, found.length_N, strict=True)]
    assert tokens == [prepared.words.encode(split.question.at(row)) for row in expected[taken]]
    assert describe_sizes.find_sizes(chosen, SizeOptions()).questions == len(found)
    assert train(chosen).finished.is_file()


def test_a_question_is_read_up_to_its_longest_word_in_training_and_by_the_trained_run(tmp_path: Path) -> None:
    folder = make_world(tmp_path / "world")
    chosen = experiment(folder, tmp_path / "runs", words={"longest": 3})
    run = train(chosen)
    data = prepare(chosen)
    assert data.val_questions is not None
    assert data.train_questions.tokens_NT.shape[1] == data.val_questions.tokens_NT.shape[1] == 3
    assert int(data.train_questions.length_N.max()) == 3
    words = load_run(run.path).words
    assert words.encode("is " * 25_000) == [words.index["is"]] * 3
