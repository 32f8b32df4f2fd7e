"""The whole model: built from sections, it learns, and its parts fit together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import count_parameters, small_options
from safetensors.torch import load_model, save_model

from vqa.errors import InputError
from vqa.models import (
    CLASSIFIERS,
    FUSIONS,
    QUESTION_ENCODERS,
    Image,
    Target,
    VQAModel,
    build_model,
    initialise_uniform,
    resolve_part,
)
from vqa.models.classifier import Classifier
from vqa.models.dropout import FastDropout
from vqa.models.losses import CrossEntropy
from vqa.testing.batches import VOCAB, image_for, random_image, random_tokens, shake

SIZES: dict[str, Any] = {"vocab_size": VOCAB, "image_dim": 12, "regions": 5, "answers": 9}


def small_model(encoder: str = "lstm", fusion: str = "product", seed: int = 0) -> VQAModel:
    torch.manual_seed(seed)
    return build_model(
        question_encoder={"name": encoder, **small_options(encoder)},
        fusion={"name": fusion, **small_options(fusion)},
        classifier={"dropout": 0.0},
        **SIZES,
    ).eval()


def overfits(encoder: str, fusion: str) -> bool:
    """Whether 32 random images and questions with random answers are learnt by heart (dropout off)."""
    model = small_model(encoder, fusion)
    image, (tokens_BT, length_B) = (
        image_for(model.fusion, random_image(32)),
        random_tokens([2 + row % 5 for row in range(32)]),
    )
    majority_B = torch.randint(0, SIZES["answers"], (32,), generator=torch.Generator().manual_seed(4))
    target = Target(majority_B, majority_B[:, None], torch.ones(32, 1), torch.ones(32, 1))
    optimiser, loss = torch.optim.Adam(model.parameters(), lr=0.02), CrossEntropy()
    for _ in range(250):
        logits_BA = model(image, tokens_BT, length_B).logits_BA
        if bool((logits_BA.argmax(dim=-1) == majority_B).all()):
            return True
        optimiser.zero_grad()
        loss(logits_BA, target).backward()
        optimiser.step()
    return False


@pytest.mark.parametrize("fusion", FUSIONS)
def test_overfits_32_samples(fusion: str) -> None:
    assert overfits("lstm", fusion)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", QUESTION_ENCODERS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_pair_overfits_32_samples(encoder: str, fusion: str) -> None:
    assert overfits(encoder, fusion)


def test_hierarchical_co_attention_takes_the_three_levels_apart() -> None:
    model = build_model(
        question_encoder={"name": "hierarchical", **small_options("hierarchical")},
        fusion={"name": "co_attention", "levels": 3, **small_options("co_attention")},
        classifier={},
        **SIZES,
    ).eval()
    prediction = model(Image(random_image(3)), *random_tokens([3, 1, 2]))
    assert prediction.logits_BA.shape == (3, SIZES["answers"])
    assert prediction.attention_BHR is not None and prediction.attention_BHR.shape == (3, 3, SIZES["regions"])


def test_gradients_reach_the_question_encoder() -> None:
    model = small_model()
    model(Image(random_image(3)), *random_tokens([3, 1, 2])).logits_BA.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_save_and_load(tmp_path: Path) -> None:
    model, other = small_model(fusion="stacked_attention"), small_model(fusion="stacked_attention", seed=1)
    save_model(model, str(tmp_path / "model.safetensors"))
    load_model(other, str(tmp_path / "model.safetensors"))
    batch = (Image(random_image(3)), *random_tokens([3, 1, 2]))
    assert torch.equal(model(*batch).logits_BA, other(*batch).logits_BA)


def test_what_is_resolved_builds_the_same_model() -> None:
    sections: dict[str, Any] = {
        "question_encoder": {"name": "lstm", "hidden_dim": 8},
        "fusion": {"name": "stacked_attention", "hops": 1},
        "classifier": {"hidden": [7, 6]},
    }
    resolved: dict[str, Any] = {kind: resolve_part(kind, section) for kind, section in sections.items()}
    assert resolved["fusion"] == {
        "name": "stacked_attention",
        "hops": 1,
        "attention_dim": 512,
        "dropout": 0.5,
        "tanh_sides": False,
        "tanh_logit": False,
    }
    plain = {"activation": "tanh", "dropout": 0.5, "input_dropout": None, "weight_norm": False, "batch_norm": False}
    assert resolved["classifier"] == {"name": "mlp", "hidden": (7, 6), **plain}
    assert {kind: resolve_part(kind, section) for kind, section in resolved.items()} == resolved
    assert str(build_model(**sections, **SIZES)) == str(build_model(**resolved, **SIZES))


def test_classifier_parameter_count() -> None:
    model = build_model(
        question_encoder={"name": "lstm", "sentence_dim": 6, "hidden_dim": 4, "embedding_dim": 3},
        fusion={"name": "question_only", "fusion_dim": 5},
        classifier={"hidden": [7, 8]},
        **SIZES,
    )
    assert count_parameters(model.fusion) == 6 * 5 + 5
    assert count_parameters(model.classifier) == (5 * 7 + 7) + (7 * 8 + 8) + (8 * 9 + 9)


def test_bad_section_is_one_clear_message() -> None:
    with pytest.raises(InputError, match=r"unknown fusion 'prodct' .did you mean 'product'"):
        build_model(question_encoder={"name": "lstm"}, fusion={"name": "prodct"}, classifier={}, **SIZES)


def test_uniform_initialisation_fills_the_range_and_keeps_padding_zero() -> None:
    model = small_model()
    initialise_uniform(model, 0.08)
    values = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert values.abs().max() <= 0.08
    assert values.min() < -0.079 and values.max() > 0.079
    assert abs(float(values.mean())) < 0.003
    assert not model.question_encoder.get_parameter("embedding.weight")[0].any()


def test_word_vectors_may_have_a_range_of_their_own() -> None:
    model = small_model()
    before = [p.detach().clone() for p in model.fusion.parameters()]
    initialise_uniform(model, None, 0.5)
    table = model.question_encoder.get_parameter("embedding.weight").detach()
    assert 0.4 < table.abs().max() <= 0.5 and not table[0].any()
    for old, new in zip(before, model.fusion.parameters(), strict=True):
        assert torch.equal(old, new)
    initialise_uniform(model, 0.01, 0.5)
    assert all(p.abs().max() <= 0.01 for p in model.fusion.parameters())
    assert table.abs().max() > 0.4


def test_a_classifier_with_batch_normalisation() -> None:
    """Hidden layers normalised by the batch's mean and variance before their activation, as the equation says."""
    classifier = CLASSIFIERS["mlp"](
        in_dim=5, answers=3, hidden=(4,), activation="relu", dropout=0.0, batch_norm=True
    ).double()
    shake(classifier)
    w = {key: value.detach().numpy().copy() for key, value in classifier.state_dict().items()}
    x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hidden = x.numpy() @ w["layers.1.weight"].T + w["layers.1.bias"]
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    hidden = np.maximum(hidden * w["layers.2.weight"] + w["layers.2.bias"], 0)
    expected = hidden @ w["layers.5.weight"].T + w["layers.5.bias"]
    np.testing.assert_allclose(classifier.train()(x).detach().numpy(), expected, atol=1e-10)
    assert bool(classifier.train()(x[:1]).isfinite().all())  # a batch of one question


def test_classifier_dropouts_and_weight_normalisation() -> None:
    """Weight normalisation against its equation: w = g v / |v|, one g for the whole matrix; the dropouts in place."""
    torch.manual_seed(0)
    classifier = CLASSIFIERS["mlp"](
        in_dim=5, answers=3, hidden=(4,), activation="relu", dropout=0.5, input_dropout=0.0, weight_norm=True
    )
    assert [p.probability for p in classifier.modules() if isinstance(p, FastDropout)] == [0.0, 0.5]
    assert count_parameters(classifier) == (5 * 4 + 4 + 1) + (4 * 3 + 3 + 1)
    shake(classifier)
    state = {key: value.double() for key, value in classifier.state_dict().items()}
    x = torch.randn(6, 5)
    y = x.double()
    for layer in ("1", "4"):
        length, direction = (state[f"layers.{layer}.parametrizations.weight.original{i}"] for i in (0, 1))
        y = y @ (length * direction / direction.square().sum().sqrt()).T + state[f"layers.{layer}.bias"]
        y = y.relu() if layer == "1" else y
    torch.testing.assert_close(classifier.eval()(x).double(), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weight_norm", [False, True])
def test_answers_are_scored_in_float32_outside_training(weight_norm: bool) -> None:
    classifier = Classifier(in_dim=32, answers=500, hidden=(64,), weight_norm=weight_norm)
    vector_BD = torch.randn(100, 32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert classifier.train()(vector_BD).dtype == torch.bfloat16
        logits_BA = classifier.eval()(vector_BD)
        hidden_BD = classifier.layers[:-1](vector_BD)
    assert logits_BA.dtype == torch.float32 and hidden_BD.dtype == torch.bfloat16
    last = classifier.layers[-1]
    expected_BA = hidden_BD.double() @ last.weight.double().T + last.bias.double()
    torch.testing.assert_close(logits_BA.double(), expected_BA, rtol=1e-5, atol=1e-5)
    two_B2 = logits_BA.topk(2, dim=1).values
    assert (two_B2[:, 0] > two_B2[:, 1]).all()  # rounded to bfloat16 some would be equal
    two_B2 = expected_BA.bfloat16().topk(2, dim=1).values
    assert (two_B2[:, 0] == two_B2[:, 1]).any()
    assert classifier.bfloat16()(vector_BD.bfloat16()).dtype == torch.bfloat16
