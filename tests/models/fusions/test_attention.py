"""The fusions that look at regions against their papers' equations, in float64 with explicit loops."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import SMALL, Weights, count_parameters, float64_case, fusion_case, linear, small_fusion, softmax
from numpy.typing import NDArray

from vqa.errors import InputError
from vqa.models import FUSIONS, Image
from vqa.testing import FUSION_PROMISES, FusionCase
from vqa.testing.batches import IMAGE_DIM, QUESTION_DIM, WORD_DIM, random_image, random_question

Array = NDArray[np.float64]


def relu(values: Array) -> Array:
    return np.maximum(values, 0)


def gated(value: Array, gate: Array) -> Array:
    return np.tanh(value) / (1 + np.exp(-gate))


def weighted(p_R: Array, vectors: list[Array]) -> Array:
    total = np.zeros(len(vectors[0]))
    for p, vector in zip(p_R, vectors, strict=True):
        total += p * vector
    return total


@pytest.mark.parametrize("glimpses", [1, 3])
@pytest.mark.parametrize("normalise", [True, False])
def test_multi_glimpse(glimpses: int, normalise: bool) -> None:
    case = float64_case("multi_glimpse", glimpses=glimpses, normalise_image=normalise)
    w = case.weights
    assert case.attention_BHR is not None
    for row, image_RC in enumerate(case.image_BRC):
        question = case.sentence_BD[row]
        regions = [f_C / np.sqrt((f_C**2).sum()) if normalise else f_C for f_C in image_RC]
        score_RG = np.array(
            [linear(w, "logit", relu(linear(w, "region", v) + linear(w, "query", question))) for v in regions]
        )
        expected: list[float] = []
        for g in range(glimpses):
            p_R = softmax(score_RG[:, g])
            np.testing.assert_allclose(case.attention_BHR[row, g], p_R, atol=1e-12)
            expected += list(weighted(p_R, regions))
        np.testing.assert_allclose(case.vector_BD[row], [*expected, *question], atol=1e-12)


def test_top_down_gated_tanh() -> None:
    case = float64_case("top_down", form="gated_tanh")
    w = case.weights
    joined = np.concatenate([w["score.region.weight"], w["score.query.weight"]], axis=1)  # one layer on [v, q]
    joint = {"f_a.weight": joined, "f_a.bias": w["score.region.bias"]}
    assert case.attention_BHR is not None
    for row, image_RC in enumerate(case.image_BRC):
        question = case.sentence_BD[row]
        scores = []
        for v in image_RC:
            both = linear(joint, "f_a", np.concatenate([v, question]))
            scores.append(linear(w, "score.logit.1", gated(both[:SMALL], both[SMALL:]))[0])
        p_R = softmax(np.array(scores))
        np.testing.assert_allclose(case.attention_BHR[row, 0], p_R, atol=1e-12)
        expected = np.ones(SMALL)
        for side, values in (("question", question), ("image", weighted(p_R, list(image_RC)))):
            expected = expected * gated(linear(w, f"{side}.value", values), linear(w, f"{side}.gate", values))
        np.testing.assert_allclose(case.vector_BD[row], expected, atol=1e-12)


def test_top_down_relu_with_weight_normalisation() -> None:
    case = float64_case("top_down", form="relu")
    w: Weights = dict(case.weights)
    for key in ("score.region.0", "score.query.0", "score.logit.1", "image.0", "question.0"):
        length, direction = (w[f"{key}.parametrizations.weight.original{part}"] for part in (0, 1))
        w[f"{key}.weight"] = length * direction / np.sqrt(sum(value**2 for value in direction.ravel()))
    assert case.attention_BHR is not None
    for row, image_RC in enumerate(case.image_BRC):
        question = case.sentence_BD[row]
        asked = relu(linear(w, "score.query.0", question))
        scores = [linear(w, "score.logit.1", relu(linear(w, "score.region.0", v)) * asked)[0] for v in image_RC]
        p_R = softmax(np.array(scores))
        np.testing.assert_allclose(case.attention_BHR[row, 0], p_R, atol=1e-12)
        found = relu(linear(w, "image.0", weighted(p_R, list(image_RC))))
        np.testing.assert_allclose(case.vector_BD[row], found * relu(linear(w, "question.0", question)), atol=1e-12)


@pytest.mark.parametrize("levels", [1, 2])
def test_co_attention(levels: int) -> None:
    case = float64_case("co_attention", levels=levels)
    w, dim = case.weights, WORD_DIM // levels
    assert case.attention_BHR is not None
    for row, image_RC in enumerate(case.image_BRC):
        regions = [np.tanh(linear(w, "project", f_C)) for f_C in image_RC]
        below: list[float] = []
        for level in range(levels):
            words = [word[level * dim : (level + 1) * dim] for word in case.words[row]]
            at = f"levels.{level}"
            affinity = [[np.tanh(v @ linear(w, f"{at}.affinity", q)) for v in regions] for q in words]
            seen, asked = [
                [linear(w, f"{at}.{side}", x) for x in xs] for side, xs in (("image", regions), ("words", words))
            ]
            region_scores = [
                linear(w, f"{at}.image_logit", np.tanh(s + sum(affinity[t][r] * a for t, a in enumerate(asked))))[0]
                for r, s in enumerate(seen)
            ]
            word_scores = [
                linear(w, f"{at}.words_logit", np.tanh(a + sum(affinity[t][r] * s for r, s in enumerate(seen))))[0]
                for t, a in enumerate(asked)
            ]
            p_R = softmax(np.array(region_scores))
            np.testing.assert_allclose(case.attention_BHR[row, level], p_R, atol=1e-12)
            found = weighted(p_R, regions) + weighted(softmax(np.array(word_scores)), words)
            below = list(np.tanh(linear(w, f"combine.{level}", np.array([*found, *below]))))
        np.testing.assert_allclose(case.vector_BD[row], below, atol=1e-12)


@pytest.mark.parametrize("levels", [1, 2])
def test_alternating_co_attention(levels: int) -> None:
    case = float64_case("co_attention", form="alternating", levels=levels)
    w, dim = case.weights, WORD_DIM // levels
    assert case.attention_BHR is not None

    def attend(at: str, values: list[Array], guide: Array | None) -> tuple[Array, Array]:
        """The operator of the paper's equation 6."""
        hidden = [linear(w, f"{at}.values", x) for x in values]
        if guide is not None:
            hidden = [h + linear(w, f"{at}.guide", guide) for h in hidden]
        p_N = softmax(np.array([linear(w, f"{at}.logit.1", np.tanh(h))[0] for h in hidden]))
        return weighted(p_N, values), p_N

    for row, image_RC in enumerate(case.image_BRC):
        regions = [np.tanh(linear(w, "project", f_C)) for f_C in image_RC]
        below: list[float] = []
        for level in range(levels):
            words = [word[level * dim : (level + 1) * dim] for word in case.words[row]]
            summary, _ = attend(f"levels.{level}.first_words", words, None)
            found, p_R = attend(f"levels.{level}.image", regions, summary)
            np.testing.assert_allclose(case.attention_BHR[row, level], p_R, atol=1e-12)
            asked, _ = attend(f"levels.{level}.words", words, found)
            below = list(np.tanh(linear(w, f"combine.{level}", np.array([*(asked + found), *below]))))
        np.testing.assert_allclose(case.vector_BD[row], below, atol=1e-12)


@pytest.mark.parametrize("promise", FUSION_PROMISES, ids=lambda promise: promise.__name__)
def test_alternating_co_attention_keeps_every_promise(promise: Callable[[FusionCase], None]) -> None:
    promise(fusion_case("co_attention", form="alternating"))


def test_co_attention_wants_whole_levels() -> None:
    with pytest.raises(InputError, match=r"3 levels do not share word vectors of width 14 evenly.*hierarchical"):
        small_fusion("co_attention", levels=3)


@pytest.mark.parametrize("glimpses", [1, 3])
def test_ban(glimpses: int) -> None:
    case = float64_case("ban", glimpses=glimpses)
    w = case.weights
    assert case.attention_BHR is not None
    for row, image_RC in enumerate(case.image_BRC):
        words = list(case.words[row])
        pairs = [(t, r) for t in range(len(words)) for r in range(len(image_RC))]
        asked = [relu(linear(w, "word.1", x)) for x in words]
        seen = [relu(linear(w, "region.1", y)) for y in image_RC]
        for g in range(glimpses):
            a = softmax(np.array([sum(w["pattern_HK"][g] * asked[t] * seen[r]) for t, r in pairs]))
            marginal = [
                sum(p for p, (_, r) in zip(a, pairs, strict=True) if r == region) for region in range(len(image_RC))
            ]
            np.testing.assert_allclose(case.attention_BHR[row, g], marginal, atol=1e-12)
            left = [relu(linear(w, f"glimpse_word.{g}.1", x)) for x in words]
            right = [relu(linear(w, f"glimpse_region.{g}.1", y)) for y in image_RC]
            f = sum(p * left[t] * right[r] for p, (t, r) in zip(a, pairs, strict=True))
            words = [x + linear(w, f"output.{g}", np.asarray(f)) for x in words]
        np.testing.assert_allclose(case.vector_BD[row], sum(words), atol=1e-10)


def by_length(w: Weights, name: str) -> Array:
    """A weight-normalised array: one length for all of it, times its direction."""
    *owner, last = name.split(".")
    at = ".".join([*owner, "parametrizations", last, "original"])
    length, direction = w[f"{at}0"], w[f"{at}1"]
    return np.asarray(length * direction / np.sqrt((direction**2).sum()))


@pytest.mark.parametrize("pool", [1, 3])
def test_ban_as_released(pool: int) -> None:
    """Maps of another rank, every matrix weight-normalised, and f sum-pooled over neighbours."""
    case = float64_case("ban", glimpses=2, rank=4, attention_rank=10, pool=pool, released=True, attention_dropout=0.5)
    w, pattern = case.weights, by_length(case.weights, "pattern_HK")
    assert case.attention_BHR is not None and pattern.shape == (2, 10)

    def projected(name: str, x: Array) -> Array:
        return np.asarray(by_length(w, f"{name}.weight") @ x + w[f"{name}.bias"])

    for row, image_RC in enumerate(case.image_BRC):
        words = list(case.words[row])
        pairs = [(t, r) for t in range(len(words)) for r in range(len(image_RC))]
        asked = [relu(projected("word.1", x)) for x in words]
        seen = [relu(projected("region.1", y)) for y in image_RC]
        for g in range(2):
            a = softmax(np.array([sum(pattern[g] * asked[t] * seen[r]) for t, r in pairs]))
            left = [relu(projected(f"glimpse_word.{g}.1", x)) for x in words]
            right = [relu(projected(f"glimpse_region.{g}.1", y)) for y in image_RC]
            f = np.asarray(sum(p * left[t] * right[r] for p, (t, r) in zip(a, pairs, strict=True)))
            pooled = np.array([sum(f[pool * k : pool * (k + 1)]) for k in range(4)])
            words = [x + projected(f"output.{g}.1", pooled) for x in words]
        np.testing.assert_allclose(case.vector_BD[row], sum(words), atol=1e-10)


def test_bans_first_maps_as_released_are_far_from_uniform() -> None:
    """36 regions of 2,048 like a detector's and 14 words: the entropy beside that of a uniform map."""
    torch.manual_seed(0)
    image_BRC = torch.randn(4, 36, 2048).relu()
    question = random_question([14] * 4)
    entropy = {}
    for released, rank in ((False, 64), (True, 192)):
        ban = FUSIONS["ban"](image_dim=2048, word_dim=WORD_DIM, rank=64, attention_rank=rank, released=released).eval()
        with torch.no_grad():
            attention_BHR = ban(Image(image_BRC), question).attention_BHR
        assert attention_BHR is not None
        entropy[released] = float(-(attention_BHR * attention_BHR.log()).sum(dim=-1).mean())
    assert np.log(36) - 0.005 < entropy[False] and entropy[True] < np.log(36) - 0.05


def test_attention_finds_the_region_that_answers() -> None:
    """Trained on images with one marked region, a fusion that looks learns to look there."""
    for name in ("stacked_attention", "top_down"):
        torch.manual_seed(0)
        fusion, generator = small_fusion(name, seed=1), torch.Generator().manual_seed(5)
        head = torch.nn.Linear(fusion.out_dim, 4)
        optimiser = torch.optim.Adam([*fusion.parameters(), *head.parameters()], lr=0.01)
        for _ in range(150):
            image_BRC, question = random_image(64), random_question([1] * 64)
            place_B, label_B = (torch.randint(n, (64,), generator=generator) for n in (5, 4))
            image_BRC[:, :, :5] = 0
            image_BRC[torch.arange(64), place_B, 0] = 5.0
            image_BRC[torch.arange(64), place_B, 1 + label_B] = 5.0
            fused = fusion(Image(image_BRC), question)
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(head(fused.vector_BD), label_B).backward()
            optimiser.step()
        marked_BH = fused.attention_BHR[torch.arange(64), :, place_B]
        assert marked_BH.amax(dim=1).mean() > 0.5, name


I, Q, W, S = IMAGE_DIM, QUESTION_DIM, WORD_DIM, SMALL  # noqa: E741


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("multi_glimpse", {"glimpses": 3}, I * S + (Q + 1) * S + 3 * S),
        ("top_down", {"form": "gated_tanh"}, 2 * ((I + Q + 1) * S + (I + 1) * S + (Q + 1) * S) + S),
        ("top_down", {"form": "relu"}, 2 * ((I + 1) * S + 1 + (Q + 1) * S + 1) + S + 1),
        ("co_attention", {}, (I + 1) * W + W * W + 2 * W * S + 2 * S + (W + 1) * S),
        (
            "ban",
            {"glimpses": 2, "attention_rank": 5, "pool": 3, "released": True},
            (W + 1) * 5 + (I + 1) * 5 + 2 * 5 + 2 * ((W + 1) * 3 * S + (I + 1) * 3 * S + (S + 1) * W) + 3 + 2 * 3,
        ),
        ("co_attention", {"form": "alternating"}, (I + 1) * W + 5 * W * S + 3 * S + (W + 1) * S),
        ("ban", {"glimpses": 3}, 4 * ((W + 1) * S + (I + 1) * S) + 3 * S + 3 * (S + 1) * W),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], expected: int) -> None:
    assert count_parameters(small_fusion(name, **options)) == expected
