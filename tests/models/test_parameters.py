"""What biases begin with: the sum that torch's LSTM and GRU add, gate by gate, and every other bias as it is said."""

import pytest
import torch
from torch import nn

from vqa.errors import InputError
from vqa.models import build_model
from vqa.models.model import VQAModel
from vqa.models.parameters import initialise_biases


def a_model(encoder: str = "lstm_last", fusion: str = "vis_lstm") -> VQAModel:
    return build_model(
        question_encoder={"name": encoder, "embedding_dim": 3, "hidden_dim": 4},
        fusion={"name": fusion},
        classifier={"hidden": [5], "weight_norm": True},
        vocab_size=7,
        image_dim=6,
        regions=2,
        answers=3,
    )


def test_the_gates_of_an_lstm_begin_with_the_number_and_its_candidate_with_nothing() -> None:
    """With no input and no weights the gates are sigmoid(1), the candidate tanh(0): so is what the layer computes."""
    model = a_model()
    kept = {name: parameter.clone() for name, parameter in model.named_parameters()}
    initialise_biases(model, {"fusion.recurrent": 1.0, "classifier": -0.5})
    recurrent = model.fusion.get_submodule("recurrent")
    assert isinstance(recurrent, nn.LSTM)
    for name, parameter in recurrent.named_parameters():
        if name.startswith("weight"):
            nn.init.zeros_(parameter)
    cell = torch.full((1, 1, recurrent.hidden_size), 2.0)
    gate = torch.tensor(1.0).sigmoid()
    output, (_, after) = recurrent(torch.zeros(1, 1, recurrent.input_size), (torch.zeros_like(cell), cell))
    torch.testing.assert_close(after, gate * cell)  # forget gate times what was there, and nothing that is new
    torch.testing.assert_close(output, gate * (gate * cell).tanh())
    for name, parameter in model.named_parameters():
        if name.startswith("classifier.") and name.endswith("bias"):
            assert bool((parameter == -0.5).all())
        elif not name.startswith("fusion.recurrent."):
            assert torch.equal(parameter, kept[name]), name


def test_the_gates_of_a_gru_are_two() -> None:
    model = a_model(encoder="gru", fusion="product")
    initialise_biases(model, {"question_encoder": 2.0})
    recurrent = next(module for module in model.question_encoder.modules() if isinstance(module, nn.GRU))
    summed = (recurrent.get_parameter("bias_ih_l0") + recurrent.get_parameter("bias_hh_l0")).unflatten(0, (3, 4))
    assert summed.tolist() == [[2.0] * 4, [2.0] * 4, [0.0] * 4]


def test_the_longest_name_counts_and_a_wrong_one_is_named() -> None:
    model = a_model(fusion="product")
    initialise_biases(model, {"classifier": 0.25, "classifier.layers.1": 0.75})
    first, last = (model.classifier.get_parameter(f"layers.{place}.bias") for place in (1, 4))
    assert bool((first == 0.75).all()) and bool((last == 0.25).all())
    with pytest.raises(InputError, match=r"training.initial_bias: unknown part of the model 'classifer'"):
        initialise_biases(model, {"classifer": 0.0})
    with pytest.raises(InputError, match=r"question_encoder.embedding has no bias of its own"):
        initialise_biases(model, {"question_encoder.embedding": 0.0})


def test_nothing_named_is_nothing_changed() -> None:
    model = a_model()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    initialise_biases(model, {})
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
