"""`mac` against its paper's equations in float64, region by region and word by word."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import SMALL, count_parameters, float64_case, fusion_case, linear, small_fusion, softmax
from helpers.transformers_by_hand import Array

from vqa.errors import InputError
from vqa.models import Image
from vqa.testing import FUSION_PROMISES, FusionCase
from vqa.testing.batches import IMAGE_DIM, QUESTION_DIM, WORD_DIM, random_image, random_question

FORMS: list[dict[str, Any]] = [
    {},
    {"read": "elu"},
    {"self_attention": True},
    {"memory_gate": True},
    {"read": "elu", "self_attention": True, "memory_gate": True},
]
forms = pytest.mark.parametrize("options", FORMS, ids=lambda options: "-".join(map(str, options.values())) or "plain")


def elu(values: Array) -> Array:
    return np.array([value if value > 0 else np.exp(value) - 1 for value in values])


def sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def weighted(shares: Array, vectors: list[Array]) -> Array:
    return np.asarray(sum(share * vector for share, vector in zip(shares, vectors, strict=True)))


@forms
def test_mac(options: dict[str, Any]) -> None:
    case = float64_case("mac", steps=3, **options)
    w = case.weights
    assert case.attention_BHR is not None
    for row, image_RC in enumerate(case.image_BRC):
        know = [elu(linear(w, "regions.2", elu(linear(w, "regions.0", f)))) for f in image_RC]
        words = [linear(w, "words", word) for word in case.words[row]]
        asked = linear(w, "question", case.sentence_BD[row]).reshape(3, SMALL)
        controls, memories = [w["control_D"]], [w["memory_D"]]
        for step in range(3):
            joined = linear(w, "control.join", np.concatenate([controls[-1], asked[step]]))
            c = weighted(softmax(np.array([linear(w, "control.logit", joined * word)[0] for word in words])), words)
            memory, scores = linear(w, "read.memory", memories[-1]), []
            for k in know:
                projected = linear(w, "read.region", k)
                met = linear(w, "read.interaction", memory * projected)
                if options.get("read") == "elu":
                    met = elu(c * elu(met + linear(w, "read.alone", projected)))
                else:
                    met = c * (met + linear(w, "read.alone", k))
                scores.append(linear(w, "read.logit", met)[0])
            share = softmax(np.array(scores))
            np.testing.assert_allclose(case.attention_BHR[row, step], share, atol=1e-12)
            m = linear(w, "write.join", np.concatenate([weighted(share, know), memories[-1]]))
            if "self_attention" in options:
                alike = softmax(np.array([linear(w, "write.look", c * earlier)[0] for earlier in controls]))
                m = m + linear(w, "write.earlier", weighted(alike, memories))
            if "memory_gate" in options:
                s = sigmoid(linear(w, "write.gate", c)[0])
                m = s * memories[-1] + (1 - s) * m
            controls.append(c)
            memories.append(m)
        expected = elu(linear(w, "output.1", np.concatenate([case.sentence_BD[row], memories[-1]])))
        np.testing.assert_allclose(case.vector_BD[row], expected, atol=1e-12)


@pytest.mark.parametrize("promise", FUSION_PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("read", ["linear", "elu"])
def test_every_option_keeps_the_contract(read: str, promise: Callable[[FusionCase], None]) -> None:
    promise(fusion_case("mac", read=read, self_attention=True, memory_gate=True))


def test_a_single_step_keeps_the_contract() -> None:
    for promise in FUSION_PROMISES:
        promise(fusion_case("mac", steps=1))
    with pytest.raises(InputError, match=r"fusion 'mac': self_attention looks at earlier steps, .* at least 2"):
        small_fusion("mac", steps=1, self_attention=True)


def test_the_memory_drops_out_the_same_in_every_step() -> None:
    """Seen by the read unit: what one question's memory lacks in the first step it lacks in all."""
    torch.manual_seed(0)
    fusion, seen = small_fusion("mac", steps=4, dropout=0.5).train(), list[torch.Tensor]()
    fusion.get_submodule("read.memory").register_forward_hook(lambda _, values, __: seen.append(values[0] == 0))
    fusion(Image(random_image()), random_question())
    assert len(seen) == 4 and seen[0].any() and not seen[0].all()
    assert all(torch.equal(missing, seen[0]) for missing in seen)
    assert not torch.equal(seen[0][0], seen[0][1])


D, Q = SMALL, QUESTION_DIM
PLAIN = (IMAGE_DIM + 1) * D + (D + 1) * D + (WORD_DIM + 1) * D + (Q + 1) * 3 * D + 2 * D + (Q + D + 1) * D
PLAIN += (2 * D + 1) * D + D + (D + 1) * D + 3 * D * D + D + (2 * D + 1) * D


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, PLAIN),
        ({"read": "elu"}, PLAIN + 2 * D),
        ({"self_attention": True}, PLAIN + D + D * D),
        ({"memory_gate": True}, PLAIN + D + 1),
    ],
)
def test_parameter_counts(options: dict[str, Any], expected: int) -> None:
    assert count_parameters(small_fusion("mac", **options)) == expected
