"""`concat`, `product` and the baselines against their equations in float64 NumPy, loops and all."""

from typing import Any

import numpy as np
import pytest
from helpers.models import SMALL, count_parameters, float64_case, linear, small_fusion
from numpy.typing import NDArray

from vqa.testing.batches import IMAGE_DIM, QUESTION_DIM, WORD_DIM

Vector = NDArray[np.float64]


def mean_region(image_RC: Vector, *, normalise: bool) -> Vector:
    total_C = np.zeros(image_RC.shape[1])
    for region_C in image_RC:
        total_C += region_C
    image_C = total_C / len(image_RC)
    return image_C / np.sqrt(sum(value**2 for value in image_C)) if normalise else image_C


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("name", ["concat", "product", "image_only", "question_only"])
def test_equation(name: str, normalise: bool) -> None:
    options: dict[str, Any] = {} if name == "question_only" else {"normalise_image": normalise}
    case = float64_case(name, **options)
    for row, image_RC in enumerate(case.image_BRC):
        sides = {}
        if name != "question_only":
            sides["image"] = np.tanh(linear(case.weights, "image.1", mean_region(image_RC, normalise=normalise)))
        if name != "image_only":
            sides["question"] = np.tanh(linear(case.weights, "question.1", case.sentence_BD[row]))
        if name == "concat":
            expected = np.array([*sides["image"], *sides["question"]])
        elif name == "product":
            expected = np.array([i * q for i, q in zip(sides["image"], sides["question"], strict=True)])
        else:
            expected = sides[name.removesuffix("_only")]
        np.testing.assert_allclose(case.vector_BD[row], expected, atol=1e-12)


def test_parameter_count() -> None:
    image, question = (IMAGE_DIM + 1) * SMALL, (QUESTION_DIM + 1) * SMALL
    expected = {"image_only": image, "question_only": question, "concat": image + question, "product": image + question}
    assert {name: count_parameters(small_fusion(name)) for name in expected} == expected


@pytest.mark.parametrize("normalise", [True, False])
def test_concat_without_projections(normalise: bool) -> None:
    case = float64_case("concat", fusion_dim=None, normalise_image=normalise)
    for row, image_RC in enumerate(case.image_BRC):
        expected = [*mean_region(image_RC, normalise=normalise), *case.sentence_BD[row]]
        np.testing.assert_allclose(case.vector_BD[row], expected, atol=1e-12)
    plain = small_fusion("concat", fusion_dim=None)
    assert count_parameters(plain) == 0 and plain.out_dim == IMAGE_DIM + QUESTION_DIM


def sigmoid(values: Vector) -> Vector:
    return 1 / (1 + np.exp(-values))


def test_vis_lstm() -> None:
    """The LSTM of its definition, gate by gate and word by word, over the image and the real words alone."""
    case = float64_case("vis_lstm")
    w = case.weights
    for row, image_RC in enumerate(case.image_BRC):
        hidden, cell = np.zeros(SMALL), np.zeros(SMALL)
        for read in [linear(w, "image", mean_region(image_RC, normalise=False)), *case.words[row]]:
            sums = w["recurrent.weight_ih_l0"] @ read + w["recurrent.weight_hh_l0"] @ hidden
            into, forget, new, out = np.split(sums + w["recurrent.bias_ih_l0"] + w["recurrent.bias_hh_l0"], 4)
            cell = sigmoid(forget) * cell + sigmoid(into) * np.tanh(new)
            hidden = sigmoid(out) * np.tanh(cell)
        np.testing.assert_allclose(case.vector_BD[row], hidden, atol=1e-12)
    expected = IMAGE_DIM * WORD_DIM + 4 * SMALL * (WORD_DIM + SMALL + 2)
    assert count_parameters(small_fusion("vis_lstm")) == expected
