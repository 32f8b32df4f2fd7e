"""Vocabularies come from the training split alone, and an unknown word is not padding."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers_training import experiment, make_world

from vqa.data.dataset import QADataset, Strings
from vqa.models import QUESTION_ENCODERS
from vqa.text.vocabulary import PADDING, UNKNOWN
from vqa.training import prepare as preparing
from vqa.training.prepare import Prepared, make_model, prepare


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The first validation question has a word, and the first human an answer, that training never had."""
    folder = make_world(tmp_path_factory.mktemp("world"))
    chosen = experiment(folder, folder / "runs")
    read = preparing.read_split

    def changed(experiment: object, split: str) -> QADataset:
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
        patch.setattr(preparing, "read_split", changed)
        return prepare(chosen)


def test_validation_adds_no_word_and_no_answer(prepared: Prepared) -> None:
    asked = " ".join(prepared.train.question.at(row) for row in range(len(prepared.train)))
    assert set(prepared.words.words) == set(re.sub("[?.,]", " ", asked.lower()).split())
    assert "xylophone" not in prepared.answers.index
    row, index = prepared.val_questions.tokens_NT[0].tolist(), prepared.words.index
    assert row[:4] == [index["is"], index["the"], UNKNOWN, index["there"]]
    target = prepared.val_questions.target
    assert target is not None and (target.answer_BK[0] < 0).all()


@pytest.mark.parametrize("name", QUESTION_ENCODERS)
def test_unknown_and_padding_are_different_rows(prepared: Prepared, name: str, tmp_path: Path) -> None:
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
