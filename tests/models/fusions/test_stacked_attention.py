"""Stacked attention against equations 15 to 20 of Yang et al. 2016, written out in loops in float64."""

import math

import numpy as np
import pytest
import torch
from helpers.models import SMALL, Weights, count_parameters, float64_case, linear, small_fusion, softmax
from numpy.typing import NDArray

from vqa.models import Image
from vqa.testing.batches import IMAGE_DIM, QUESTION_DIM, REGIONS, random_image, random_question, shake

Array = NDArray[np.float64]


def transcription(
    w: Weights, image_RC: Array, question_D: Array, hops: int, sides: bool, logit: bool
) -> tuple[Array, Array]:
    """One question: the last u, and each hop's attention."""
    regions = [np.tanh(linear(w, "project", region_C)) for region_C in image_RC]
    u_D, attention_HR = question_D, []
    for k in range(hops):
        asked_A = linear(w, f"query.{k}", u_D)
        scores = []
        for region_D in regions:
            seen_A = linear(w, f"image.{k}", region_D)
            hidden_A = np.tanh(seen_A) + np.tanh(asked_A) if sides else np.tanh(seen_A + asked_A)  # eq. 15, 19
            score = linear(w, f"logit.{k}", hidden_A)[0]
            scores.append(math.tanh(score) if logit else score)
        p_R = softmax(np.array(scores))  # eq. 16, 20
        found_D = np.zeros_like(u_D)
        for p, region_D in zip(p_R, regions, strict=True):
            found_D = found_D + p * region_D  # eq. 17
        u_D = found_D + u_D  # eq. 18
        attention_HR.append(p_R)
    return u_D, np.array(attention_HR)


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize(("sides", "logit"), [(False, False), (True, False), (False, True), (True, True)])
def test_equations(hops: int, sides: bool, logit: bool) -> None:
    case = float64_case("stacked_attention", hops=hops, tanh_sides=sides, tanh_logit=logit)
    assert case.attention_BHR is not None
    for row, image_RC in enumerate(case.image_BRC):
        vector_D, attention_HR = transcription(case.weights, image_RC, case.sentence_BD[row], hops, sides, logit)
        np.testing.assert_allclose(case.vector_BD[row], vector_D, atol=1e-12)
        np.testing.assert_allclose(case.attention_BHR[row], attention_HR, atol=1e-12)


def test_hops_share_no_weights() -> None:
    parts = {"image", "query", "logit"}
    one, three = (small_fusion("stacked_attention", hops=hops) for hops in (1, 3))
    hop = SMALL * QUESTION_DIM + (SMALL * QUESTION_DIM + SMALL) + SMALL
    assert count_parameters(one) == QUESTION_DIM * IMAGE_DIM + QUESTION_DIM + hop
    assert count_parameters(three) == QUESTION_DIM * IMAGE_DIM + QUESTION_DIM + 3 * hop
    assert {key.split(".")[0] for key, _ in three.named_parameters()} == parts | {"project"}


def test_tanh_on_the_logit_bounds_the_weight_of_a_region() -> None:
    fusion = small_fusion("stacked_attention", tanh_logit=True)
    shake(fusion)
    with torch.no_grad():
        for logit in fusion.get_submodule("logit").children():
            assert isinstance(logit, torch.nn.Linear)
            logit.weight.mul_(1000)
    attention_BHR = fusion(Image(random_image(4)), random_question([3, 1, 6, 4])).attention_BHR
    ratio = attention_BHR.max(dim=-1).values / attention_BHR.min(dim=-1).values
    assert 7 < ratio.max() <= math.e**2 + 1e-4
    assert attention_BHR.shape == (4, 2, REGIONS)
