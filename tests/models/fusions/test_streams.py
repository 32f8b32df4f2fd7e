"""`single_stream` and `two_stream` against their equations in float64, and their layers against transformers' own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import SMALL, Weights, count_parameters, float64_case, fusion_case, linear, small_fusion
from helpers.transformers_by_hand import (
    Rows,
    attention,
    bert_block,
    embedded_regions,
    embedded_words,
    layer_norm,
    shares,
)
from torch import nn

from vqa.errors import InputError
from vqa.models import FUSIONS, Image
from vqa.models.fusions.two_stream import LXMERTLayer
from vqa.models.transformers.attention import MultiHeadAttention, Residual
from vqa.models.transformers.bert import Block
from vqa.testing import FUSION_PROMISES, FusionCase
from vqa.testing.batches import IMAGE_DIM, REGIONS, WORD_DIM, random_boxes, random_image, random_question, shake
from vqa.testing.fusions import reacts, shares_images, trains_every_parameter

BOXES = random_boxes(3, REGIONS).double().numpy()
ATTENTION, NORM = 4 * SMALL**2 + 3 * SMALL, 2 * SMALL
BLOCK = ATTENTION + 2 * (SMALL + 1) * SMALL + 2 * NORM
EMBEDDINGS = (WORD_DIM + 2) * SMALL + NORM + (IMAGE_DIM + 1 + 8 + 1) * SMALL + 3 * NORM


@pytest.mark.parametrize("boxes", [None, BOXES], ids=["no boxes", "boxes"])
def test_single_stream(boxes: Any) -> None:
    case = float64_case("single_stream", layers=3, heads=4, boxes=boxes)
    w = case.weights
    assert case.attention_BHR is not None
    for row, image_RC in enumerate(case.image_BRC):
        words = embedded_words(w, "words", list(case.words[row]))
        regions = embedded_regions(w, "regions", list(image_RC), None if boxes is None else list(boxes[row]))
        values = [*words, *regions]
        for layer in ("layers.0", "layers.1"):
            values = bert_block(w, layer, values, values, 4)
        looks = shares(w, "last.attention", values[0], values, 4)
        for head, share in enumerate(looks):
            seen = share[len(words) :]
            np.testing.assert_allclose(case.attention_BHR[row, head], seen / sum(seen), atol=1e-12)
        first = bert_block(w, "last", values, values, 4)[0]
        np.testing.assert_allclose(case.vector_BD[row], np.tanh(linear(w, "output.0", first)), atol=1e-12)


def crossed(w: Weights, key: str, form: str, words: Rows, regions: Rows, heads: int) -> tuple[Rows, Rows]:
    """A cross layer of the form; both sides look at what the other was before it."""
    if form == "vilbert":
        words, regions = (
            bert_block(w, f"{key}.words_cross", words, regions, heads),
            bert_block(w, f"{key}.regions_cross", regions, words, heads),
        )
    else:
        words, regions = (
            [layer_norm(w, f"{key}.after_cross.norm", x + attention(w, f"{key}.cross", x, other, heads)) for x in rows]
            for rows, other in ((words, regions), (regions, words))
        )
    return bert_block(w, f"{key}.words", words, words, heads), bert_block(w, f"{key}.regions", regions, regions, heads)


@pytest.mark.parametrize("boxes", [None, BOXES], ids=["no boxes", "boxes"])
@pytest.mark.parametrize(("form", "cross"), [("lxmert", "cross"), ("vilbert", "words_cross.attention")])
def test_two_stream(form: str, cross: str, boxes: Any) -> None:
    case = float64_case("two_stream", form=form, layers=2, word_layers=2, region_layers=1, heads=2, boxes=boxes)
    w = case.weights
    assert case.attention_BHR is not None
    for row, image_RC in enumerate(case.image_BRC):
        words: Rows = embedded_words(w, "words", list(case.words[row]))
        regions: Rows = embedded_regions(w, "regions", list(image_RC), None if boxes is None else list(boxes[row]))
        for layer in ("word_layers.0", "word_layers.1"):
            words = bert_block(w, layer, words, words, 2)
        regions = bert_block(w, "region_layers.0", regions, regions, 2)
        words, regions = crossed(w, "layers.0", form, words, regions, 2)
        looks = shares(w, f"last.{cross}", words[0], regions, 2)
        np.testing.assert_allclose(case.attention_BHR[row], looks, atol=1e-12)
        words, regions = crossed(w, "last", form, words, regions, 2)
        word, region = linear(w, "from_words", words[0]), linear(w, "from_regions", np.mean(regions, axis=0))
        np.testing.assert_allclose(case.vector_BD[row], np.tanh(word) * np.tanh(region), atol=1e-12)


def copy_attention(ours: MultiHeadAttention, theirs: Any) -> None:
    """To transformers' names; a key bias of theirs becomes 0."""
    with torch.no_grad():
        theirs.key.bias.zero_()
        theirs.key.weight.copy_(ours.key.weight)
    theirs.query.load_state_dict(ours.query.state_dict())
    theirs.value.load_state_dict(ours.value.state_dict())


def copy_output(linear: nn.Module, residual: Residual, theirs: Any) -> None:
    theirs.dense.load_state_dict(linear.state_dict())
    theirs.LayerNorm.load_state_dict(residual.norm.state_dict())
    theirs.LayerNorm.eps = residual.norm.eps


def test_a_block_equals_visualberts_layer() -> None:
    from transformers.models.visual_bert.modeling_visual_bert import VisualBertConfig, VisualBertLayer

    torch.manual_seed(0)
    ours = Block(12, 3, 20, 0.1).double().eval()
    shake(ours)
    config = VisualBertConfig(hidden_size=12, num_attention_heads=3, intermediate_size=20)
    theirs = VisualBertLayer(config).double().eval()
    copy_attention(ours.attention, theirs.attention.self)
    copy_output(ours.attention.output, ours.after_attention, theirs.attention.output)
    theirs.intermediate.dense.load_state_dict(ours.feed_forward[0].state_dict())
    copy_output(ours.feed_forward[2], ours.after_feed_forward, theirs.output)
    values_BTD = torch.randn(2, 7, 12).double()
    mask_BT = torch.arange(7) < torch.tensor([[7], [3]])
    added_B11T = torch.zeros(2, 1, 1, 7).double().masked_fill(~mask_BT[:, None, None], -torch.inf)
    expected, looks_BHTS = theirs(values_BTD, added_B11T, output_attentions=True)
    torch.testing.assert_close(ours(values_BTD, values_BTD, mask_BT), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(ours.attention.look(values_BTD, values_BTD, mask_BT), looks_BHTS, atol=1e-12, rtol=0)


def test_a_cross_layer_equals_lxmerts() -> None:
    from transformers.models.lxmert.modeling_lxmert import LxmertConfig, LxmertXLayer

    torch.manual_seed(0)
    ours = LXMERTLayer(12, 3, 20, 0.1).double().eval()
    shake(ours)
    config = LxmertConfig(hidden_size=12, num_attention_heads=3, intermediate_size=20)
    theirs = LxmertXLayer(config).double().eval()
    copy_attention(ours.cross, theirs.visual_attention.att)
    copy_output(ours.cross.output, ours.after_cross, theirs.visual_attention.output)
    for block, own, first, last in (
        (ours.words, theirs.lang_self_att, theirs.lang_inter, theirs.lang_output),
        (ours.regions, theirs.visn_self_att, theirs.visn_inter, theirs.visn_output),
    ):
        copy_attention(block.attention, own.self)
        copy_output(block.attention.output, block.after_attention, own.output)
        first.dense.load_state_dict(block.feed_forward[0].state_dict())
        copy_output(block.feed_forward[2], block.after_feed_forward, last)
    words_BTD, regions_BRD = torch.randn(2, 4, 12).double(), torch.randn(2, 7, 12).double()
    mask_BT, mask_BR = (torch.arange(n) < torch.tensor([[n], [3]]) for n in (4, 7))
    added = [
        torch.zeros(mask.shape).double().masked_fill(~mask, -torch.inf)[:, None, None] for mask in (mask_BT, mask_BR)
    ]
    *expected, looks_BHTR = theirs(words_BTD, added[0], regions_BRD, added[1], output_attentions=True)
    for one, other in zip(ours(words_BTD, regions_BRD, mask_BT, mask_BR), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
    torch.testing.assert_close(ours.from_words.look(words_BTD, regions_BRD, mask_BR), looks_BHTR, atol=1e-12, rtol=0)


@pytest.mark.parametrize("promise", FUSION_PROMISES, ids=lambda promise: promise.__name__)
def test_vilberts_form_keeps_the_contract(promise: Callable[[FusionCase], None]) -> None:
    promise(fusion_case("two_stream", form="vilbert", layers=2, word_layers=0, region_layers=0))


@pytest.mark.parametrize("name", ["single_stream", "two_stream"])
def test_boxes_count(name: str) -> None:
    """Where regions lie changes the result, each parameter learns from it, and images that are shared are equal."""
    fusion, image_BRC, question = small_fusion(name), random_image(), random_question()
    shake(fusion)
    seen = [fusion(Image(image_BRC, boxes_IR4=random_boxes(4, REGIONS, seed=seed)), question) for seed in (1, 2)]
    assert reacts(seen[0].vector_BD, seen[1].vector_BD)
    whole_BR4 = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(4, REGIONS, 4)
    unknown, whole = fusion(Image(image_BRC), question), fusion(Image(image_BRC, boxes_IR4=whole_BR4), question)
    torch.testing.assert_close(unknown.vector_BD, whole.vector_BD)
    row_B = torch.tensor([1, 0, 1, 1])
    image_IRC, boxes_IR4 = random_image(2), random_boxes(2, REGIONS)
    shared = fusion(Image(image_IRC, row_B, boxes_IR4=boxes_IR4), question)
    alone = fusion(Image(image_IRC[row_B], boxes_IR4=boxes_IR4[row_B]), question)
    torch.testing.assert_close(shared.vector_BD, alone.vector_BD)


def test_one_layer_reads_everything() -> None:
    """The last layer alone, which looks from [CLS] only."""
    options = {"layers": 1, "heads": 2, "hidden_dim": 16, "feed_forward_dim": 16}
    for promise in (trains_every_parameter, shares_images):
        promise(FusionCase(FUSIONS["single_stream"], options))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("single_stream", {}, EMBEDDINGS + 2 * BLOCK + (SMALL + 1) * SMALL),
        (
            "two_stream",
            {"layers": 2},
            EMBEDDINGS + 2 * BLOCK + 2 * (ATTENTION + NORM + 2 * BLOCK) + 2 * (SMALL + 1) * SMALL,
        ),
        ("two_stream", {"form": "vilbert"}, EMBEDDINGS + 2 * BLOCK + 4 * BLOCK + 2 * (SMALL + 1) * SMALL),
        (
            "two_stream",
            {"layers": 1, "word_layers": 0, "region_layers": 0},
            EMBEDDINGS + ATTENTION + NORM + 2 * BLOCK + 2 * (SMALL + 1) * SMALL,
        ),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], expected: int) -> None:
    assert count_parameters(small_fusion(name, **options)) == expected


@pytest.mark.parametrize("name", ["single_stream", "two_stream"])
def test_heads_must_share_the_width(name: str) -> None:
    with pytest.raises(InputError, match=r"16 cannot .* by 3 attention heads; hidden_dim must be a multiple of heads"):
        small_fusion(name, heads=3)
