"""The bilinear fusions against the full tensors, outer products and sketches that their papers factor, in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import SMALL, count_parameters, float64_case, linear, small_fusion, softmax
from numpy.typing import NDArray

from vqa.errors import InputError
from vqa.models import Image
from vqa.testing.batches import IMAGE_DIM, QUESTION_DIM, random_image, random_question

Array = NDArray[np.float64]


def norm_image(image_RC: Array) -> Array:
    image_C = image_RC.mean(axis=0)
    return image_C / np.sqrt((image_C**2).sum())


def sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))


def rooted(values: Array) -> Array:
    """Signed square root and length 1, as `power_normalise` smooths it."""
    result = np.array([value / np.sqrt(abs(value) + 1e-8) for value in values])
    return result / np.sqrt((result**2).sum())


def bilinear(tensor_MNK: Array, left_M: Array, right_N: Array) -> Array:
    """sum_mn T[m, n, k] left_m right_n, one product at a time."""
    result = np.zeros(tensor_MNK.shape[2])
    for m, left in enumerate(left_M):
        for n, right in enumerate(right_N):
            result += tensor_MNK[m, n] * left * right
    return result


def test_sum() -> None:
    case = float64_case("sum")
    for row, image_RC in enumerate(case.image_BRC):
        image, question = norm_image(image_RC), case.sentence_BD[row]
        sides = np.tanh(linear(case.weights, "image.1", image)), np.tanh(linear(case.weights, "question.1", question))
        np.testing.assert_allclose(case.vector_BD[row], sides[0] + sides[1], atol=1e-12)


def test_gated_product() -> None:
    case = float64_case("gated_product")
    w = case.weights
    for row, image_RC in enumerate(case.image_BRC):
        expected = np.ones(SMALL)
        for side, values in (("image", norm_image(image_RC)), ("question", case.sentence_BD[row])):
            value, gate = (linear(w, f"{side}.{part}", values) for part in ("value", "gate"))
            expected = expected * (np.tanh(value) * sigmoid(gate))
        np.testing.assert_allclose(case.vector_BD[row], expected, atol=1e-12)


@pytest.mark.parametrize("glimpses", [1, 2, 3])
def test_mlb(glimpses: int) -> None:
    case = float64_case("mlb", glimpses=glimpses)
    w = case.weights
    assert case.attention_BHR is not None
    for row, image_RC in enumerate(case.image_BRC):
        question = case.sentence_BD[row]
        asked = np.tanh(linear(w, "query.1", question))
        score_RG = np.array([linear(w, "logit.1", asked * np.tanh(linear(w, "region.1", f_C))) for f_C in image_RC])
        found = []
        for g in range(glimpses):
            p_R = softmax(score_RG[:, g])
            np.testing.assert_allclose(case.attention_BHR[row, g], p_R, atol=1e-12)
            found += list(sum(p * f_C for p, f_C in zip(p_R, image_RC, strict=True)))
        expected = np.tanh(linear(w, "question.1", question)) * np.tanh(linear(w, "image.1", np.array(found)))
        np.testing.assert_allclose(case.vector_BD[row], expected, atol=1e-12)


def test_tucker_is_the_full_bilinear_form() -> None:
    case = float64_case("tucker", side_dim=4, fusion_dim=3)
    w = case.weights
    core_MNK = w["core.weight"].reshape(3, 4, 4).transpose(1, 2, 0)
    for row, image_RC in enumerate(case.image_BRC):
        image = np.tanh(linear(w, "image.1", norm_image(image_RC)))
        question = np.tanh(linear(w, "question.1", case.sentence_BD[row]))
        np.testing.assert_allclose(case.vector_BD[row], bilinear(core_MNK, question, image), atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3])
def test_mutan_is_tucker_with_slices_of_that_rank(rank: int) -> None:
    case = float64_case("mutan", side_dim=6, fusion_dim=4, rank=rank)
    w = case.weights
    question_KDS = w["question_factors.weight"].reshape(rank, 4, 6)
    image_KDS = w["image_factors.weight"].reshape(rank, 4, 6)
    core_MNK = np.zeros((6, 6, 4))
    for k in range(4):
        for r in range(rank):
            core_MNK[:, :, k] += np.outer(question_KDS[r, k], image_KDS[r, k])
        assert np.linalg.matrix_rank(core_MNK[:, :, k]) == rank
    for row, image_RC in enumerate(case.image_BRC):
        image = np.tanh(linear(w, "image.1", norm_image(image_RC)))
        question = np.tanh(linear(w, "question.1", case.sentence_BD[row]))
        np.testing.assert_allclose(case.vector_BD[row], bilinear(core_MNK, question, image), atol=1e-12)


@pytest.mark.parametrize("normalise", [True, False])
def test_block_is_one_block_superdiagonal_tensor(normalise: bool) -> None:
    """Each side gets a constant 1 beside every chunk, so that the factors' biases are part of the tensor."""
    chunks, rank, width = 3, 2, 4
    case = float64_case("block", chunks=chunks, rank=rank, fusion_dim=chunks * width, normalise=normalise)
    w = case.weights
    tensor_MNK = np.zeros((chunks * (width + 1), chunks * (width + 1), chunks * width))
    for c in range(chunks):
        for r in range(rank):
            for k in range(width):
                factors = []
                for side in ("question_factors", "image_factors"):
                    weight_S = w[f"{side}.weight_GSK"][c, :, r * width + k]
                    factors.append(np.append(weight_S, w[f"{side}.bias_G1K"][c, 0, r * width + k]))
                block = slice(c * (width + 1), (c + 1) * (width + 1))
                tensor_MNK[block, block, c * width + k] += np.outer(*factors)
    for row, image_RC in enumerate(case.image_BRC):
        sides = []
        for side, values in (("question", case.sentence_BD[row]), ("image", norm_image(image_RC))):
            projected = linear(w, side, values).reshape(chunks, width)
            sides.append(np.concatenate([np.append(chunk, 1.0) for chunk in projected]))
        expected = bilinear(tensor_MNK, *sides).reshape(chunks, width)
        if normalise:
            expected = np.array([rooted(chunk) for chunk in expected])
        np.testing.assert_allclose(case.vector_BD[row], expected.ravel(), atol=1e-11)


@pytest.mark.parametrize("normalise", [True, False])
def test_block_tucker_is_a_full_form_for_each_pair_of_chunks(normalise: bool) -> None:
    chunks, width = 3, 4
    case = float64_case("block_tucker", chunks=chunks, fusion_dim=chunks * width, normalise=normalise)
    w = case.weights
    for row, image_RC in enumerate(case.image_BRC):
        question = linear(w, "question.1", case.sentence_BD[row]).reshape(chunks, width)
        image = linear(w, "image.1", norm_image(image_RC)).reshape(chunks, width)
        expected: list[float] = []
        for c in range(chunks):
            chunk = bilinear(w["core_GMNS"][c], question[c], image[c]) + w["bias_G1S"][c, 0]
            expected += list(rooted(chunk) if normalise else chunk)
        np.testing.assert_allclose(case.vector_BD[row], expected, atol=1e-11)


@pytest.mark.parametrize("rank", [1, 3])
def test_lmf_is_one_tensor_of_low_rank_over_both_sides_with_a_one_beside_them(rank: int) -> None:
    side, width = 5, 3
    case = float64_case("lmf", rank=rank, side_dim=side, fusion_dim=width)
    w = case.weights
    tensor_MNK = np.zeros((side + 1, side + 1, width))
    for r in range(rank):
        for k in range(width):
            at = r * width + k
            factors = [
                np.append(w[f"{part}_factors.weight"][at], w[f"{part}_factors.bias"][at])
                for part in ("question", "image")
            ]
            tensor_MNK[:, :, k] += w["rank_weight_K"][r] * np.outer(*factors)
    for row, image_RC in enumerate(case.image_BRC):
        sides = [
            np.append(np.maximum(linear(w, f"{part}.1", values), 0), 1.0)
            for part, values in (("question", case.sentence_BD[row]), ("image", norm_image(image_RC)))
        ]
        np.testing.assert_allclose(case.vector_BD[row], bilinear(tensor_MNK, *sides) + w["bias_D"], atol=1e-11)


def test_gmu() -> None:
    case = float64_case("gmu", fusion_dim=5)
    w = case.weights
    own = {f"{side}.weight": w[f"{side}.1.weight"][:5] for side in ("image", "question")}
    gate = {"gate.weight": np.concatenate([w[f"{side}.1.weight"][5:] for side in ("image", "question")], axis=1)}
    for row, image_RC in enumerate(case.image_BRC):
        image, question = norm_image(image_RC), case.sentence_BD[row]
        g = sigmoid(linear(gate, "gate", np.concatenate([image, question])))
        sides = np.tanh(linear(own, "image", image)), np.tanh(linear(own, "question", question))
        np.testing.assert_allclose(case.vector_BD[row], g * sides[0] + (1 - g) * sides[1], atol=1e-12)


@pytest.mark.parametrize(("name", "order"), [("mfb", 1), ("mfh", 1), ("mfh", 3)])
def test_mfb_and_mfh_are_sums_of_low_rank_forms(name: str, order: int) -> None:
    factors, width = 3, 4
    options: dict[str, Any] = {"order": order} if name == "mfh" else {}
    case = float64_case(name, factors=factors, fusion_dim=width, **options)
    w = case.weights
    for row, image_RC in enumerate(case.image_BRC):
        expanded, expected = np.ones(width * factors), []
        for block in range(order):
            suffix = f".{block}" if name == "mfh" else ""
            image = linear(w, f"image{suffix}", norm_image(image_RC))
            expanded = expanded * image * linear(w, f"question{suffix}", case.sentence_BD[row])
            pooled = [sum(expanded[k * factors + f] for f in range(factors)) for k in range(width)]
            expected += list(rooted(np.array(pooled)))
        np.testing.assert_allclose(case.vector_BD[row], expected, atol=1e-11)


@pytest.mark.parametrize("sketch_dim", [16, 31])
def test_mcb_is_the_sketch_of_the_outer_product(sketch_dim: int) -> None:
    """Pham and Pagh's identity: the outer product sketched with h(m) + h'(n) mod d and s(m) s'(n), without any FFT."""
    case = float64_case("mcb", sketch_dim=sketch_dim)
    w = case.weights
    for row, image_RC in enumerate(case.image_BRC):
        expected = np.zeros(sketch_dim)
        for m, image in enumerate(norm_image(image_RC)):
            for n, question in enumerate(case.sentence_BD[row]):
                bucket = int(w["image.bucket_N"][m] + w["question.bucket_N"][n]) % sketch_dim
                expected[bucket] += w["image.sign_N"][m] * w["question.sign_N"][n] * image * question
        np.testing.assert_allclose(case.vector_BD[row], rooted(expected), atol=1e-7)


def test_mcb_sketches_are_fixed_and_use_the_whole_range() -> None:
    state = small_fusion("mcb", sketch_dim=4).state_dict()
    assert set(state["image.bucket_N"].tolist()) == {0, 1, 2, 3}
    assert set(state["image.sign_N"].tolist()) == {-1, 1}


IMAGE, QUESTION, S = IMAGE_DIM + 1, QUESTION_DIM + 1, SMALL  # with a bias


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("sum", {}, IMAGE * S + QUESTION * S),
        ("gated_product", {}, 2 * (IMAGE * S + QUESTION * S)),
        ("mlb", {"glimpses": 3}, IMAGE * S + 2 * QUESTION * S + 3 * S + (3 * IMAGE_DIM + 1) * S),
        ("tucker", {}, IMAGE * S + QUESTION * S + S**3),
        ("mutan", {"rank": 5}, IMAGE * S + QUESTION * S + 2 * 5 * S * S),
        ("block", {"chunks": 4, "rank": 3}, IMAGE * S + QUESTION * S + 2 * 4 * (4 + 1) * 3 * 4),
        ("block_tucker", {"chunks": 4}, IMAGE * S + QUESTION * S + 4 * (4**3 + 4)),
        ("lmf", {"rank": 3}, IMAGE * S + QUESTION * S + 2 * 3 * (S + 1) * S + 3 + S),
        ("gmu", {}, 2 * S * (IMAGE_DIM + QUESTION_DIM)),
        ("mfb", {"factors": 5}, 5 * S * (IMAGE + QUESTION)),
        ("mfh", {"factors": 5, "order": 3}, 3 * 5 * S * (IMAGE + QUESTION)),
        ("mcb", {}, 0),
    ],
)
def test_parameter_counts(name: str, options: dict[str, int], expected: int) -> None:
    assert count_parameters(small_fusion(name, **options)) == expected


def test_block_drops_out_before_or_after_the_projections() -> None:
    """With nearly all dropped out, what stays is what a side's layers make of zeros: with or without their biases."""
    for place in ("inputs", "projected"):
        fusion = small_fusion("block", dropout=0.99, dropout_at=place, normalise=False).train()
        torch.manual_seed(0)
        fusion.get_parameter("image.bias").data.fill_(1.0)
        seen: list[torch.Tensor] = []
        fusion.get_submodule("image_factors").register_forward_pre_hook(
            lambda _, given, seen=seen: seen.append(given[0])
        )
        fusion(Image(random_image(64)), random_question([3] * 64))
        zeros = float((seen[0] == 0).double().mean())
        assert zeros > 0.97 if place == "projected" else zeros == 0


@pytest.mark.parametrize("name", ["block", "block_tucker"])
def test_block_wants_whole_chunks(name: str) -> None:
    with pytest.raises(InputError, match=rf"'{name}': fusion_dim \(10\) must be a multiple of chunks \(3\)"):
        small_fusion(name, fusion_dim=10, chunks=3)
