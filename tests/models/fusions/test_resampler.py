"""`resampler` against its equations in float64, and its layers against the resampler of transformers' Idefics."""

from collections.abc import Callable
from math import sqrt
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import (
    SMALL,
    Weights,
    count_parameters,
    float64_case,
    fusion_case,
    linear,
    small_fusion,
    softmax,
)
from helpers.transformers_by_hand import Array, Rows, gelu, layer_norm
from torch import nn

from vqa.errors import InputError
from vqa.models import Image
from vqa.models.fusions.resampler import Resampler, ResamplerLayer
from vqa.testing import FUSION_PROMISES, FusionCase
from vqa.testing.batches import IMAGE_DIM, QUESTION_DIM, WORD_DIM, random_image, random_question, shake


def layer_by_hand(w: Weights, key: str, regions: Rows, queries: Rows, words: Rows, heads: int) -> tuple[Rows, Array]:
    """The queries after a layer, and where each looked among the regions."""
    asking = [layer_norm(w, f"{key}.queries_norm", x) for x in queries]
    memory = [*(layer_norm(w, f"{key}.regions_norm", v) for v in regions), *asking, *words]
    keys, values = ([linear(w, f"{key}.{name}", row) for row in memory] for name in ("key", "value"))
    width, result, looks = len(queries[0]) // heads, [], np.zeros((len(queries), len(regions)))
    for k, x in enumerate(queries):
        asked, found = linear(w, f"{key}.query", asking[k]), np.zeros(len(x))
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            share = softmax(np.array([asked[part] @ row[part] / sqrt(width) for row in keys]))
            found[part] = sum(p * row[part] for p, row in zip(share, values, strict=True))
            seen = share[: len(regions)]
            looks[k] += seen / sum(seen) / heads
        x = x + linear(w, f"{key}.output", found)
        inner = linear(w, f"{key}.feed_forward.1", layer_norm(w, f"{key}.feed_forward.0", x))
        result.append(x + linear(w, f"{key}.feed_forward.3", gelu(inner)))
    return result, looks


@pytest.mark.parametrize("asked", [False, True])
def test_resampler(asked: bool) -> None:
    case = float64_case("resampler", queries=3, layers=2, heads=4, asked=asked)
    w = case.weights
    assert case.attention_BHR is not None
    for row, image_RC in enumerate(case.image_BRC):
        question = case.sentence_BD[row]
        regions = [linear(w, "resampler.regions", v) for v in image_RC]
        words: Rows = []
        if asked:
            words = [
                layer_norm(w, "resampler.words.1", linear(w, "resampler.words.0", word)) for word in case.words[row]
            ]
        queries: Rows = list(w["resampler.queries_KD"])
        for number in range(2):
            queries, looks = layer_by_hand(w, f"resampler.layers.{number}", regions, queries, words, 4)
        np.testing.assert_allclose(case.attention_BHR[row], looks, atol=1e-12)
        queries = [layer_norm(w, "resampler.norm", x) for x in queries]
        score = [linear(w, "logit", np.tanh(linear(w, "key", x) + linear(w, "query", question)))[0] for x in queries]
        found = sum(p * x for p, x in zip(softmax(np.array(score)), queries, strict=True))
        expected = np.tanh(linear(w, "image.1", np.asarray(found))) * np.tanh(linear(w, "question.1", question))
        np.testing.assert_allclose(case.vector_BD[row], expected, atol=1e-12)


def test_a_resampler_equals_idefics() -> None:
    from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

    torch.manual_seed(0)
    ours = Resampler(12, 12, queries=4, layers=2, heads=3, feed_forward_dim=48).double()
    shake(ours)
    config: Any = SimpleNamespace(
        perceiver_config=SimpleNamespace(qk_layer_norms_perceiver=False), vision_config=SimpleNamespace(embed_dim=12)
    )
    theirs = IdeficsPerceiverResampler(config, 12, 2, 3, 4, 4).double()
    with torch.no_grad():
        theirs.latents.copy_(ours.queries_KD)
    theirs.layer_norm.load_state_dict(ours.norm.state_dict())
    for layer, (attention, network) in zip(ours.layers, theirs.blocks, strict=True):
        assert isinstance(layer, ResamplerLayer)
        network.act = nn.GELU()  # theirs is ReLU
        for part, copy in (
            (layer.regions_norm, attention.context_layer_norm),
            (layer.queries_norm, attention.latents_layer_norm),
            (layer.query, attention.q_proj),
            (layer.key, attention.k_proj),
            (layer.value, attention.v_proj),
            (layer.output, attention.output_proj),
            (layer.feed_forward[0], network.ln),
            (layer.feed_forward[1], network.fc),
            (layer.feed_forward[3], network.c_proj),
        ):
            copy.load_state_dict(part.state_dict())
    regions_IRC = torch.randn(3, 7, 12).double()
    queries_IKD, attention_IKR = ours(regions_IRC)
    torch.testing.assert_close(queries_IKD, theirs(ours.regions(regions_IRC)), atol=1e-12, rtol=0)
    assert attention_IKR.shape == (3, 4, 7)


def test_an_image_is_read_once() -> None:
    """Two images, five questions: the resampler sees two, and only with `asked` five."""
    question, image = random_question([3, 1, 2, 2, 4]), Image(random_image(2), torch.tensor([0, 1, 1, 0, 1]))
    for asked, rows in ((False, 2), (True, 5)):
        fusion, seen = small_fusion("resampler", asked=asked).train(), list[int]()
        norm = fusion.get_submodule("resampler.norm")
        norm.register_forward_hook(lambda _, values, __, seen=seen: seen.append(len(values[0])))
        fusion(image, question)
        assert seen == [rows]


def test_with_asked_the_queries_depend_on_the_question() -> None:
    image = Image(random_image())
    for asked in (False, True):
        fusion = small_fusion("resampler", asked=asked)
        one, other = (fusion(image, random_question(seed=seed)).attention_BHR for seed in (1, 9))
        assert torch.equal(one, other) is not asked


@pytest.mark.parametrize("promise", FUSION_PROMISES, ids=lambda promise: promise.__name__)
def test_asked_keeps_the_contract(promise: Callable[[FusionCase], None]) -> None:
    promise(fusion_case("resampler", asked=True))


LAYER = 4 * SMALL + 4 * SMALL**2 + 2 * SMALL + 8 * SMALL**2
WHOLE = 3 * SMALL + (IMAGE_DIM + 1) * SMALL + 2 * LAYER + 2 * SMALL + SMALL**2 + (QUESTION_DIM + 1) * SMALL + SMALL
ENDS = (SMALL + 1) * SMALL + (QUESTION_DIM + 1) * SMALL


@pytest.mark.parametrize(("asked", "expected"), [(False, WHOLE + ENDS), (True, WHOLE + ENDS + (WORD_DIM + 3) * SMALL)])
def test_parameter_counts(asked: bool, expected: int) -> None:
    assert count_parameters(small_fusion("resampler", asked=asked)) == expected


def test_heads_must_share_the_width() -> None:
    with pytest.raises(InputError, match=r"16 cannot .* by 3 attention heads; hidden_dim must be a multiple of heads"):
        small_fusion("resampler", heads=3)
