"""`attended` against the published models that it composes, in float64 with explicit loops, and against `mlb`."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import Weights, float64_case, fusion_case, linear, sampled, small_fusion, small_options, softmax
from numpy.typing import NDArray
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models import FUSIONS, Fused, Fusion, Image
from vqa.models.fusions import attended
from vqa.models.fusions.vector_fusion import VectorFusion, join_single_regions
from vqa.testing import FUSION_PROMISES, FusionCase
from vqa.testing.batches import QUESTION_DIM, WORD_DIM, random_image, random_question, shake
from vqa.testing.fusions import ignores_padded_regions, returns_what_it_states, shares_images

Array = NDArray[np.float64]
OF_VECTORS = ["concat", "sum", "product", "gated_product", "mcb", "tucker", "mutan", "mfb", "mfh", "block",
              "block_tucker", "lmf", "gmu"]  # fmt: skip
SHARED = torch.tensor([1, 0, 1, 1])  # which of two images each of four questions is about


def rooted(values: Array) -> Array:
    """Signed square root and length 1, as `power_normalise` smooths it."""
    result = values / np.sqrt(np.abs(values) + 1e-8)
    return result / np.sqrt((result**2).sum())


def mcb(w: Weights, part: str, image: Array, question: Array, *, width: int) -> Array:
    sketch = np.zeros(width)
    for m, i in enumerate(image):
        for n, q in enumerate(question):
            bucket = int(w[f"{part}.image.bucket_N"][m] + w[f"{part}.question.bucket_N"][n]) % width
            sketch[bucket] += w[f"{part}.image.sign_N"][m] * w[f"{part}.question.sign_N"][n] * i * q
    return rooted(sketch)


def mfh(w: Weights, part: str, image: Array, question: Array, *, order: int, factors: int) -> Array:
    expanded, blocks = np.ones(1), []
    for block in range(order):
        suffix = f".{block}" if order > 1 else ""
        sides = [linear(w, f"{part}.image{suffix}", image), linear(w, f"{part}.question{suffix}", question)]
        expanded = expanded * sides[0] * sides[1]
        blocks.append(rooted(expanded.reshape(-1, factors).sum(axis=1)))
    return np.concatenate(blocks)


def mutan(w: Weights, part: str, image: Array, question: Array, *, rank: int, width: int) -> Array:
    """Of sides that are projected already."""
    total = np.zeros(width)
    for r in range(rank):
        rows = slice(r * width, (r + 1) * width)
        factors = []
        for side, values in (("image", image), ("question", question)):
            key = f"{part}.{side}_factors"
            factors.append(w[f"{key}.weight"][rows] @ values + w[f"{key}.bias"][rows])
        total += factors[0] * factors[1]
    return total


def block(w: Weights, part: str, image: Array, question: Array, *, chunks: int, rank: int) -> Array:
    image, question = linear(w, f"{part}.image", image), linear(w, f"{part}.question", question)
    result = []
    for c, (i, q) in enumerate(zip(np.split(image, chunks), np.split(question, chunks), strict=True)):
        factors = []
        for side, values in (("image", i), ("question", q)):
            key = f"{part}.{side}_factors"
            factors.append(values @ w[f"{key}.weight_GSK"][c] + w[f"{key}.bias_G1K"][c, 0])
        result.append(rooted((factors[0] * factors[1]).reshape(rank, -1).sum(axis=0)))
    return np.concatenate(result)


def hidden_logits(w: Weights, key: str, values: Array) -> Array:
    """Linear, ReLU, linear without a bias."""
    return linear(w, f"{key}.2", np.maximum(linear(w, f"{key}.0", values), 0))


def look(logit_NG: Array, values_ND: Array) -> tuple[list[Array], list[Array]]:
    """What each glimpse finds, and its weights."""
    weights = [softmax(logit_N) for logit_N in logit_NG.T]
    return [sum((p * v for p, v in zip(p_N, values_ND, strict=True)), np.zeros(1)) for p_N in weights], weights


def hold(case: Any, row: int, vector: Array, weights: list[Array]) -> None:
    np.testing.assert_allclose(case.attention_BHR[row], weights, atol=1e-7)
    np.testing.assert_allclose(case.vector_BD[row], vector, atol=1e-6)


@pytest.mark.parametrize("glimpses", [1, 2])
def test_mcb_with_attention(glimpses: int) -> None:
    """Fukui et al. 2016: MCB, two layers, softmax, the glimpses side by side, MCB again."""
    part = {"name": "mcb", "sketch_dim": 19, "normalise_image": False}
    case = float64_case("attended", score=part, join=part, glimpses=glimpses, attention_dim=7)
    for row, image_RC in enumerate(case.image_BRC):
        question = case.sentence_BD[row]
        fused = [mcb(case.weights, "score", region, question, width=19) for region in image_RC]
        found, weights = look(np.array([hidden_logits(case.weights, "logit", one) for one in fused]), image_RC)
        hold(case, row, mcb(case.weights, "join", np.concatenate(found), question, width=19), weights)


def test_mutan_with_attention() -> None:
    """Ben-younes et al. 2017, the released model: a layer for each glimpse, image sides of all of them side by side."""
    score = {"name": "mutan", "rank": 3, "side_dim": 6, "fusion_dim": 8}
    join = {"name": "mutan", "rank": 2, "side_dim": 5, "fusion_dim": 7, "project_image": False}
    plain = {"normalise_image": False, "factor_biases": True}
    case = float64_case("attended", score=score | plain, join=join | plain, glimpses=2, found_dim=4)
    w = case.weights
    for row, image_RC in enumerate(case.image_BRC):
        asked = [np.tanh(linear(w, f"{part}.question.1", case.sentence_BD[row])) for part in ("score", "join")]
        fused = [
            mutan(w, "score", np.tanh(linear(w, "score.image.1", region)), asked[0], rank=3, width=8)
            for region in image_RC
        ]
        found, weights = look(np.array([linear(w, "logit.0", one) for one in fused]), image_RC)
        image = np.concatenate([np.tanh(linear(w, f"found.{g}.1", one)) for g, one in enumerate(found)])
        hold(case, row, mutan(w, "join", image, asked[1], rank=2, width=7), weights)


def test_mlb_with_attention_as_released() -> None:
    """Kim et al. 2017, the released model: each glimpse times a question side of its own, all of them side by side."""
    score = {"name": "product", "fusion_dim": 6, "normalise_image": False}
    join = {"name": "product", "fusion_dim": 10, "normalise_image": False, "project_image": False}
    case = float64_case("attended", score=score, join=join, glimpses=2, found_dim=5)
    w = case.weights
    for row, image_RC in enumerate(case.image_BRC):
        question = case.sentence_BD[row]
        asked = np.tanh(linear(w, "score.question.1", question))
        fused = [asked * np.tanh(linear(w, "score.image.1", region)) for region in image_RC]
        found, weights = look(np.array([linear(w, "logit.0", one) for one in fused]), image_RC)
        asked = np.tanh(linear(w, "join.question.1", question))
        expected = [np.tanh(linear(w, f"found.{g}.1", one)) * asked[5 * g : 5 * g + 5] for g, one in enumerate(found)]
        hold(case, row, np.concatenate(expected), weights)


@pytest.mark.parametrize("order", [1, 2])
def test_mfb_and_mfh_with_co_attention(order: int) -> None:
    """Yu et al. 2017 and 2018: words by themselves, regions by MFB, and what both found by MFB or MFH."""
    score = {"name": "mfb", "factors": 3, "fusion_dim": 5, "normalise_image": False}
    join = score if order == 1 else {"name": "mfh", "order": order, "factors": 2, "fusion_dim": 4}
    options: dict[str, Any] = {"glimpses": 2, "question_glimpses": 3, "attention_dim": 7}
    case = float64_case("attended", score=score, join=join | {"normalise_image": False}, **options)
    w = case.weights
    assert w["score.question.weight"].shape[1] == 3 * WORD_DIM
    for row, image_RC in enumerate(case.image_BRC):
        words = case.words[row]
        question = np.concatenate(look(np.array([hidden_logits(w, "words.logit", word) for word in words]), words)[0])
        fused = [mfh(w, "score", region, question, order=1, factors=3) for region in image_RC]
        found, weights = look(np.array([hidden_logits(w, "logit", one) for one in fused]), image_RC)
        image = np.concatenate(found)
        hold(case, row, mfh(w, "join", image, question, order=order, factors=3 if order == 1 else 2), weights)


def test_block_with_attention() -> None:
    """Ben-younes et al. 2019, the released model."""
    part = {"name": "block", "chunks": 3, "rank": 2, "fusion_dim": 12, "normalise_image": False}
    options: dict[str, Any] = {"glimpses": 2, "question_glimpses": 2, "attention_dim": 7}
    case = float64_case("attended", score=part, join=part | {"dropout_at": "projected"}, **options)
    w = case.weights
    for row, image_RC in enumerate(case.image_BRC):
        words = case.words[row]
        question = np.concatenate(look(np.array([hidden_logits(w, "words.logit", word) for word in words]), words)[0])
        fused = [block(w, "score", region, question, chunks=3, rank=2) for region in image_RC]
        found, weights = look(np.array([hidden_logits(w, "logit", one) for one in fused]), image_RC)
        hold(case, row, block(w, "join", np.concatenate(found), question, chunks=3, rank=2), weights)


@pytest.mark.parametrize("glimpses", [1, 3])
def test_two_products_are_mlb(glimpses: int) -> None:
    mlb = small_fusion("mlb", glimpses=glimpses)
    product = {"name": "product", "fusion_dim": 16, "normalise_image": False}
    ours = small_fusion("attended", score=product, join=product, glimpses=glimpses)
    names = {"region": "score.image", "query": "score.question", "image": "join.image", "question": "join.question"}
    state = {}
    for key, value in mlb.state_dict().items():
        first, _, rest = key.partition(".")
        state["logit.0.weight" if first == "logit" else f"{names[first]}.{rest}"] = value
    ours.load_state_dict(state)
    image, question = Image(random_image()), random_question()
    for one, other in zip(ours(image, question), mlb(image, question), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_the_fusions_of_vectors_are_those() -> None:
    assert [name for name, fusion in FUSIONS.items() if issubclass(fusion, VectorFusion)] == OF_VECTORS
    assert all(FUSIONS[name].reads == "mean" for name in OF_VECTORS) and FUSIONS["attended"].reads == "map"


@pytest.mark.parametrize("row_B", [None, SHARED])
@pytest.mark.parametrize("name", OF_VECTORS)
def test_sides_joined_are_what_single_regions_give(name: str, row_B: Tensor | None) -> None:
    fusion = small_fusion(name)
    assert isinstance(fusion, VectorFusion)
    shake(fusion)
    question = random_question([3, 1, 6, 2])
    image = Image(random_image(4 if row_B is None else 2), row_B)
    joined_BRD = fusion.join_sides(fusion.image_side(image), fusion.question_side(question.sentence_BD))
    expected_BRD = join_single_regions(fusion, image, question)
    torch.testing.assert_close(joined_BRD, expected_BRD, atol=1e-5, rtol=1e-4)
    assert float((expected_BRD[:, 0] - expected_BRD[:, 1]).detach().abs().max()) > 1e-3


def scored_alone(fusion: Fusion, image: Image, row: int, question: Any) -> Fused:
    """What one question gets alone, with its image alone."""
    one = Image(image.regions_BRC[row : row + 1], None, boxes_IR4=None)
    fused: Fused = fusion(one, type(question)(*(values[row : row + 1] for values in question)))
    return fused


@pytest.mark.parametrize("score", ["mutan", "film"])
def test_regions_in_turns_are_the_regions_at_once(score: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fusion = small_fusion("attended", score={"name": score, **small_options(score)}, dropout=0.0)
    shake(fusion)
    image, question = Image(random_image(2), SHARED), random_question([3, 1, 6, 2])
    found = []
    for at_once in (2**27, 4):  # all five regions, or one
        monkeypatch.setattr(attended, "NUMBERS_AT_ONCE", at_once)
        monkeypatch.setattr(attended, "ROWS_AT_ONCE", at_once)
        fusion.zero_grad(set_to_none=True)
        fused = fusion(image, question)
        (fused.vector_BD.sin().sum() + fused.attention_BHR[..., 0].sum()).backward()
        found.append([fused.vector_BD, fused.attention_BHR, *(parameter.grad for parameter in fusion.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    for row in range(4):
        torch.testing.assert_close(scored_alone(fusion, image, row, question).vector_BD[0], found[0][0][row])


def test_a_turn_that_is_computed_again_drops_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fusion = small_fusion("attended").train()
    image, question = Image(random_image()), random_question()

    def plain(function: Any, rows: int, values_RIC: Tensor) -> Tensor:
        return torch.cat([function(turn) for turn in values_RIC.split(rows)])

    monkeypatch.setattr(attended, "NUMBERS_AT_ONCE", 4)
    found = []
    for turns in (attended.in_turns, plain):
        monkeypatch.setattr(attended, "in_turns", turns)
        fusion.zero_grad(set_to_none=True)
        torch.manual_seed(7)
        fusion(image, question).vector_BD.sin().sum().backward()
        found.append([parameter.grad for parameter in fusion.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_each_side_of_the_score_is_computed_once() -> None:
    fusion = small_fusion("attended", score={"name": "mutan", "side_dim": 16, "fusion_dim": 16})
    rows: dict[str, int] = {}

    def count(name: str) -> Any:
        return lambda _, inputs, __: rows.update({name: inputs[0].shape[:-1].numel()})

    assert isinstance(fusion, attended.Attended)
    for name, layer in fusion.score.named_modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(count(name))
    fusion(Image(random_image(2, 9), SHARED), random_question([3, 1, 6, 2]))
    assert rows == {"image.1": 18, "image_factors": 18, "question.1": 4, "question_factors": 4}


OTHERS = ["image_only", "dppnet", "vis_lstm", "film", "relation"]
EVERY = [*OF_VECTORS, *OTHERS]
PAIRS = list(zip(EVERY, EVERY[1:] + EVERY[:1], strict=True))  # each scores once and joins once


def test_the_pairs_are_all_that_the_mean_is_enough_for() -> None:
    assert {name for name, fusion in FUSIONS.items() if fusion.reads == "mean"} <= set(EVERY)


@pytest.mark.parametrize(
    ("score", "join", "promise"), sampled((*pair, promise) for pair in PAIRS for promise in FUSION_PROMISES)
)
def test_promise(score: str, join: str, promise: Any) -> None:
    options: dict[str, Any] = {
        "score": {"name": score, **small_options(score)},
        "join": {"name": join, **small_options(join)},
        "question_glimpses": EVERY.index(score) % 3,
        "attention_dim": (None, 8)[EVERY.index(score) % 2],
        "found_dim": (None, 8)[EVERY.index(score) // 2 % 2],
    }
    promise(FusionCase(FUSIONS["attended"], options))


@pytest.mark.parametrize("promise", [returns_what_it_states, shares_images, ignores_padded_regions])
def test_promises_of_a_score_that_needs_boxes(promise: Any) -> None:
    score = {"name": "graph", **small_options("graph")}
    assert small_fusion("attended", score=score).needs_boxes and not small_fusion("attended").needs_boxes
    promise(FusionCase(FUSIONS["attended"], {"score": score, "join": {"name": "sum", "fusion_dim": 16}}))


def test_what_was_found_lies_nowhere() -> None:
    with pytest.raises(InputError, match="join gets what was found, which lies nowhere, so it cannot be 'graph'"):
        fusion_case("attended", join={"name": "graph", **small_options("graph")}).make()


def test_what_is_blind_neither_scores_nor_joins() -> None:
    for key in ("score", "join"):
        with pytest.raises(InputError, match=f"fusion 'attended': {key} must look at the image, which 'question_only'"):
            fusion_case("attended", **{key: "question_only"}).make()


def test_a_product_of_an_unprojected_image_must_be_as_wide() -> None:
    with pytest.raises(InputError, match=r"as wide as fusion_dim \(9\), and it is 8 wide"):
        small_fusion("attended", found_dim=4, join={"name": "product", "fusion_dim": 9, "project_image": False})


def test_the_question_vector_is_not_read_where_words_are() -> None:
    fusion, image, question = small_fusion("attended", question_glimpses=1), Image(random_image()), random_question()
    other = question._replace(sentence_BD=torch.randn(question.sentence_BD.shape[0], QUESTION_DIM))
    torch.testing.assert_close(fusion(image, question).vector_BD, fusion(image, other).vector_BD)
