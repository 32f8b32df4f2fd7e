"""MCAN and the attention layers against `torch.nn.MultiheadAttention` and torch's transformer layers."""

from typing import Any

import pytest
import torch
from helpers.models import SMALL, count_parameters, small_fusion
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models import Image
from vqa.models.fusions.mcan import MCAN, Reduction
from vqa.models.transformers.attention import DecoderLayer, DeviationNorm, EncoderLayer, MultiHeadAttention
from vqa.testing.batches import IMAGE_DIM, WORD_DIM, random_image, random_question, shake


def torchs_attention(ours: MultiHeadAttention) -> nn.MultiheadAttention:
    dim = ours.query.in_features
    theirs = nn.MultiheadAttention(dim, ours.heads, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, torch.zeros(dim), ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    return theirs.eval()


def test_attention_equals_torchs() -> None:
    torch.manual_seed(0)
    ours = MultiHeadAttention(12, 3, 0.0).double()
    query_BTD, memory_BSD = torch.randn(2, 5, 12).double(), torch.randn(2, 7, 12).double()
    mask_BS = torch.arange(7) < torch.tensor([[7], [3]])
    expected, _ = torchs_attention(ours)(query_BTD, memory_BSD, memory_BSD, key_padding_mask=~mask_BS)
    torch.testing.assert_close(ours(query_BTD, memory_BSD, mask_BS), expected)


def test_encoder_layer_equals_torchs() -> None:
    torch.manual_seed(0)
    ours = EncoderLayer(12, 3, 20, 0.0).double()
    shake(ours)
    theirs = nn.TransformerEncoderLayer(12, 3, 20, dropout=0.0, batch_first=True, dtype=torch.float64)
    theirs.self_attn = torchs_attention(ours.attention)
    for layer, part in (
        (theirs.linear1, ours.feed_forward[0]),
        (theirs.linear2, ours.feed_forward[3]),
        (theirs.norm1, ours.after_attention.norm),
        (theirs.norm2, ours.after_feed_forward.norm),
    ):
        layer.load_state_dict(part.state_dict())
    values_BTD = torch.randn(2, 7, 12).double()
    mask_BT = torch.arange(7) < torch.tensor([[7], [3]])
    expected = theirs(values_BTD, src_key_padding_mask=~mask_BT)
    torch.testing.assert_close(ours(values_BTD, mask_BT)[mask_BT], expected[mask_BT])


def step(norm: nn.Module, values: Tensor) -> Tensor:
    """Layer normalisation written out, torch's or that of MCAN's released code."""
    centred = values - values.mean(dim=-1, keepdim=True)
    if isinstance(norm, DeviationNorm):
        return norm.weight * centred / (values.std(dim=-1, keepdim=True) + 1e-6) + norm.bias
    assert isinstance(norm, nn.LayerNorm)
    return norm.weight * centred / (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt() + norm.bias


def reduced(reduction: Reduction, rows_TD: Tensor) -> tuple[Tensor, Tensor]:
    first, last = reduction.logit[0], reduction.logit[3]
    scores = torch.stack([last(first(row_D).clamp(min=0))[0] for row_D in rows_TD])
    weight_T = scores.exp() / scores.exp().sum()
    return sum(weight * row_D for weight, row_D in zip(weight_T, rows_TD, strict=True)), weight_T


def test_the_released_norm_of_equal_numbers_is_its_bias_and_has_a_gradient() -> None:
    norm = DeviationNorm(6)
    values = torch.full((2, 6), 3.0, requires_grad=True)
    output = norm(values)
    assert torch.equal(output, norm.bias.expand(2, 6))
    output.sum().backward()
    assert values.grad is not None and values.grad.isfinite().all()


@pytest.mark.parametrize(("released_norm", "reduction_dim"), [(False, None), (True, None), (False, 5)])
def test_mcan_one_question_at_a_time_without_padding(released_norm: bool, reduction_dim: int | None) -> None:
    options: dict[str, Any] = {"released_norm": released_norm, "reduction_dim": reduction_dim}
    fusion, lengths = small_fusion("mcan", **options).double(), [3, 1, 6]
    assert isinstance(fusion, MCAN)
    shake(fusion)
    question, image_BRC = random_question(lengths), random_image(3).double()
    question = question._replace(words_BTD=question.words_BTD.double())
    fused = fusion(Image(image_BRC), question)
    assert len(fusion.encoder) == len(fusion.decoder) == 2
    for row, length in enumerate(lengths):
        words, regions = (
            fusion.words(question.words_BTD[row : row + 1, :length]),
            fusion.regions(image_BRC[row : row + 1]),
        )
        for encoder in fusion.encoder:
            assert isinstance(encoder, EncoderLayer)
            words = step(
                encoder.after_attention.norm, words + torchs_attention(encoder.attention)(words, words, words)[0]
            )
            words = step(encoder.after_feed_forward.norm, words + encoder.feed_forward(words))
        for decoder in fusion.decoder:
            assert isinstance(decoder, DecoderLayer)
            own = torchs_attention(decoder.attention)(regions, regions, regions)[0]
            regions = step(decoder.after_attention.norm, regions + own)
            guided = torchs_attention(decoder.guided)(regions, words, words)[0]
            regions = step(decoder.after_guided.norm, regions + guided)
            regions = step(decoder.after_feed_forward.norm, regions + decoder.feed_forward(regions))
        word_D, _ = reduced(fusion.reduce_words, words[0])
        region_D, attention_R = reduced(fusion.reduce_regions, regions[0])
        expected = step(fusion.norm, fusion.from_regions(region_D) + fusion.from_words(word_D))
        torch.testing.assert_close(fused.vector_BD[row], expected)
        torch.testing.assert_close(fused.attention_BHR[row, 0], attention_R)


@pytest.mark.parametrize("inner", [None, 5])
def test_mcan_parameter_count(inner: int | None) -> None:
    attention, norm = 4 * SMALL**2 + 3 * SMALL, 2 * SMALL
    feed_forward = (SMALL + 1) * SMALL * 2
    encoder, decoder = attention + feed_forward + 2 * norm, 2 * attention + feed_forward + 3 * norm
    reduction = (SMALL + 2) * (inner or SMALL)
    ends = (WORD_DIM + 1) * SMALL + (IMAGE_DIM + 1) * SMALL + 2 * reduction + 2 * (SMALL + 1) * SMALL + norm
    assert count_parameters(small_fusion("mcan", reduction_dim=inner)) == 2 * encoder + 2 * decoder + ends


def test_heads_must_share_the_width() -> None:
    with pytest.raises(InputError, match=r"16 cannot .* by 3 attention heads; hidden_dim must be a multiple of heads"):
        small_fusion("mcan", heads=3)
