"""`mmnasnet` against its paper's equations in float64, with explicit loops."""

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import SMALL, Weights, count_parameters, float64_case, fusion_case, linear, small_fusion, softmax
from helpers.transformers_by_hand import Array, Rows, attention, layer_norm

from vqa.errors import InputError
from vqa.models import FUSIONS, Image, check_options
from vqa.models.fusions.mmnasnet import DECODER, ENCODER
from vqa.models.model import SIZES
from vqa.testing import FUSION_PROMISES, FusionCase
from vqa.testing.batches import IMAGE_DIM, REGIONS, WORD_DIM, random_boxes, random_image, random_question, shake
from vqa.testing.fusions import ignores_padded_regions, reacts, returns_what_it_states, trains_every_parameter

BOXES = random_boxes(3, REGIONS).double().numpy()
HEADS = 4


def relations(boxes: Array | None, count: int) -> dict[tuple[int, int], Array]:
    """How every two regions lie to each other."""
    found = {}
    for i in range(count):
        for j in range(count):
            if boxes is None:
                found[i, j] = np.array([log(1e-3), log(1e-3), 0, 0] if i == j else [0.0, 0, 0, 0])
                continue
            (x1, y1, x2, y2), (u1, v1, u2, v2) = boxes[i], boxes[j]
            w, h, other_w, other_h = x2 - x1 + 1e-3, y2 - y1 + 1e-3, u2 - u1 + 1e-3, v2 - v1 + 1e-3
            dx, dy = abs((x1 + x2) / 2 - (u1 + u2) / 2) / w, abs((y1 + y2) / 2 - (v1 + v2) / 2) / h
            found[i, j] = np.array([log(max(dx, 1e-3)), log(max(dy, 1e-3)), log(w / other_w), log(h / other_h)])
    return found


def operation(w: Weights, key: str, kind: str, values: Rows, words: Rows, boxes: Array | None) -> Rows:
    if kind == "FFN":
        return [linear(w, f"{key}.3", np.maximum(linear(w, f"{key}.0", row), 0)) for row in values]
    if kind == "GA":
        return [attention(w, key, row, words, HEADS) for row in values]
    if kind == "SA":
        return [attention(w, key, row, values, HEADS) for row in values]
    embedded = {pair: np.maximum(linear(w, "relation.0", g), 0) for pair, g in relations(boxes, len(values)).items()}
    result = []
    for i, row in enumerate(values):
        r = [np.maximum(linear(w, f"{key}.relation", embedded[i, j]), 0) for j in range(len(values))]
        bias = np.array([[log(max(r[j][head], 1e-6)) for j in range(len(values))] for head in range(HEADS)])
        result.append(attention(w, key, row, values, HEADS, bias))
    return result


def reduced(w: Weights, key: str, values: Rows) -> tuple[Array, Array]:
    inner = [np.maximum(linear(w, f"{key}.logit.0", row), 0) for row in values]
    share = softmax(np.array([linear(w, f"{key}.logit.3", row)[0] for row in inner]))
    return np.asarray(sum(p * row for p, row in zip(share, values, strict=True))), share


@pytest.mark.parametrize("boxes", [None, BOXES], ids=["no boxes", "boxes"])
@pytest.mark.parametrize(
    ("encoder", "decoder"), [(("FFN", "SA", "FFN"), ("RSA", "GA", "SA", "FFN", "RSA")), (("SA",), ("GA", "SA"))]
)
def test_mmnasnet(encoder: tuple[str, ...], decoder: tuple[str, ...], boxes: Any) -> None:
    case = float64_case("mmnasnet", encoder=encoder, decoder=decoder, heads=HEADS, boxes=boxes)
    w = case.weights
    assert case.attention_BHR is not None
    for row, image_RC in enumerate(case.image_BRC):
        words: Rows = [linear(w, "words", word) for word in case.words[row]]
        regions: Rows = [linear(w, "regions", region) for region in image_RC]
        for number, kind in enumerate(encoder):
            change = operation(w, f"encoder.{number}.operation", kind, words, [], None)
            words = [layer_norm(w, f"encoder.{number}.after.norm", a + b) for a, b in zip(words, change, strict=True)]
        for number, kind in enumerate(decoder):
            key = f"decoder.{number}"
            change = operation(w, f"{key}.operation", kind, regions, words, None if boxes is None else boxes[row])
            regions = [layer_norm(w, f"{key}.after.norm", a + b) for a, b in zip(regions, change, strict=True)]
        (word, _), (region, share) = reduced(w, "reduce_words", words), reduced(w, "reduce_regions", regions)
        np.testing.assert_allclose(case.attention_BHR[row, 0], share, atol=1e-12)
        expected = layer_norm(w, "norm", linear(w, "from_words", word) + linear(w, "from_regions", region))
        np.testing.assert_allclose(case.vector_BD[row], expected, atol=1e-12)


@pytest.mark.parametrize("promise", FUSION_PROMISES, ids=lambda promise: promise.__name__)
def test_without_relations_it_keeps_the_contract(promise: Callable[[FusionCase], None]) -> None:
    promise(fusion_case("mmnasnet", encoder=("SA", "FFN"), decoder=("GA", "SA", "FFN")))


def test_boxes_count() -> None:
    """Where regions lie changes the result, the relations learn from it, and images that are shared are equal."""
    fusion, image_BRC, question = small_fusion("mmnasnet"), random_image(), random_question()
    shake(fusion)
    seen = [fusion(Image(image_BRC, boxes_IR4=random_boxes(4, REGIONS, seed=seed)), question) for seed in (1, 2)]
    assert reacts(seen[0].vector_BD, seen[1].vector_BD)
    (seen[0].vector_BD * torch.randn(seen[0].vector_BD.shape)).sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in fusion.parameters())
    row_B = torch.tensor([1, 0, 1, 1])
    image_IRC, boxes_IR4 = random_image(2), random_boxes(2, REGIONS)
    shared = fusion(Image(image_IRC, row_B, boxes_IR4=boxes_IR4), question)
    alone = fusion(Image(image_IRC[row_B], boxes_IR4=boxes_IR4[row_B]), question)
    torch.testing.assert_close(shared.vector_BD, alone.vector_BD)


def test_boxes_may_be_points() -> None:
    """A box without width or height, as padding has, gives finite numbers and gradients."""
    fusion, question = small_fusion("mmnasnet"), random_question()
    vector_BD = fusion(Image(random_image(), boxes_IR4=torch.zeros(4, REGIONS, 4)), question).vector_BD
    vector_BD.sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in fusion.parameters())


def test_an_order_of_units_is_checked() -> None:
    with pytest.raises(InputError, match=r"encoder must be a list, each one of 'SA', 'FFN'.*not \['GA'\]"):
        check_options("fusion", FUSIONS, {"name": "mmnasnet", "encoder": ["GA"]}, given=SIZES["fusion"])
    _, options = check_options("fusion", FUSIONS, {"name": "mmnasnet", "decoder": ["GA", "RSA"]}, given=SIZES["fusion"])
    assert options["decoder"] == ("GA", "RSA") and options["encoder"] == ENCODER


@pytest.mark.parametrize("inner", [None, 5])
def test_parameter_counts(inner: int | None) -> None:
    norm, reduction = 2 * SMALL, (SMALL + 2) * (inner or SMALL)
    attention = 4 * SMALL**2 + 3 * SMALL + norm
    network = 4 * SMALL * (SMALL + 1) + (4 * SMALL + 1) * SMALL + norm
    relation = (SMALL + 1) * 8
    units = [*ENCODER, *DECODER]
    layers = units.count("FFN") * network + sum(unit != "FFN" for unit in units) * attention
    layers += units.count("RSA") * relation + 5 * SMALL
    ends = (WORD_DIM + 1) * SMALL + (IMAGE_DIM + 1) * SMALL + 2 * reduction + 2 * (SMALL + 1) * SMALL + norm
    fusion = small_fusion("mmnasnet", encoder=ENCODER, decoder=DECODER, reduction_dim=inner)
    assert count_parameters(fusion) == layers + ends


@pytest.mark.parametrize("promise", [returns_what_it_states, trains_every_parameter, ignores_padded_regions])
def test_the_released_order_keeps_the_contract(promise: Callable[[FusionCase], None]) -> None:
    promise(fusion_case("mmnasnet", encoder=ENCODER, decoder=DECODER))


def test_heads_must_share_the_width() -> None:
    with pytest.raises(InputError, match=r"16 cannot .* by 3 attention heads; hidden_dim must be a multiple of heads"):
        small_fusion("mmnasnet", heads=3)
