"""`concat`, `product` and the baselines against their equations in float64 NumPy, loops and all."""

import numpy as np
import pytest
from helpers_models import (
    IMAGE_DIM,
    QUESTION_DIM,
    SMALL,
    count_parameters,
    float64_case,
    linear,
    small_fusion,
)
from numpy.typing import NDArray

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
    options = {} if name == "question_only" else {"normalise_image": normalise}
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


@pytest.mark.parametrize("name", ["concat", "product"])
def test_parameter_count(name: str) -> None:
    assert count_parameters(small_fusion(name)) == (IMAGE_DIM + 1) * SMALL + (QUESTION_DIM + 1) * SMALL
