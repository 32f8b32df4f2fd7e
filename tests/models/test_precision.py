"""What recurrent layers compute in, on a CPU; `tests/training/test_fake_gpu.py` has the GPU's side."""

from typing import Any

import pytest
import torch
from helpers.models import small_encoder, small_fusion
from torch import Tensor, nn

from vqa.models import Image
from vqa.models.precision import in_autocast_type, run_recurrent, set_recurrent_type
from vqa.models.question_encoders.sequences import Recurrent, pack, unpack
from vqa.testing.batches import random_image, random_question, random_tokens

MIXED, EQUAL = [4, 1, 7, 4], [5, 5, 5, 5]
RECURRENT = ("lstm", "lstm_last", "gru", "bilstm", "hierarchical")
both_lengths = pytest.mark.parametrize("lengths", [MIXED, EQUAL], ids=["mixed", "equal"])


def run(kind: type[nn.LSTM] | type[nn.GRU], lengths: list[int], stated: torch.dtype | None, **around: Any) -> Any:
    """Outputs, states and the gradients of input and weights of two layers."""
    torch.manual_seed(0)
    layers = Recurrent(kind, 6, 8, 2)
    set_recurrent_type(layers, stated)
    values_BTD = torch.randn(4, max(lengths), 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, **around):
        words_BTD, states = layers(values_BTD, torch.tensor(lengths))
    (words_BTD.float().sum() + sum(state.float().sum() for state in states)).backward()
    return words_BTD, states, [values_BTD.grad, *(weight.grad for weight in layers.parameters())]


@both_lengths
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_float32_stays_float32_under_autocast_and_only_what_comes_out_is_rounded(
    kind: type[nn.LSTM] | type[nn.GRU], lengths: list[int]
) -> None:
    words_BTD, states, gradients = run(kind, lengths, torch.float32)
    plain_BTD, plain_states, _ = run(kind, lengths, None, enabled=False)
    assert words_BTD.dtype == torch.bfloat16 and all(state.dtype == torch.bfloat16 for state in states)
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    assert torch.equal(states[0], plain_states[0].bfloat16())  # the bottom layer has the same input
    torch.testing.assert_close(words_BTD.float(), plain_BTD, atol=2e-2, rtol=2e-2)


@both_lengths
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_bfloat16_is_computed_outside_autocast_too(kind: type[nn.LSTM] | type[nn.GRU], lengths: list[int]) -> None:
    words_BTD, states, gradients = run(kind, lengths, torch.bfloat16, enabled=False)
    plain_BTD, _, plain_gradients = run(kind, lengths, None, enabled=False)
    assert words_BTD.dtype == torch.float32 and all(state.dtype == torch.float32 for state in states)
    assert torch.equal(words_BTD, words_BTD.bfloat16().float()) and not torch.equal(words_BTD, plain_BTD)
    torch.testing.assert_close(words_BTD, plain_BTD, atol=3e-2, rtol=3e-2)
    for gradient, plain in zip(gradients, plain_gradients, strict=True):
        assert gradient.dtype == torch.float32 and gradient.any()
        torch.testing.assert_close(gradient, plain, atol=0.1 * float(plain.abs().max()), rtol=0.1)


@both_lengths
@pytest.mark.parametrize("enabled", [True, False])
def test_without_a_stated_type_a_cpu_does_what_torch_does(lengths: list[int], enabled: bool) -> None:
    layer = nn.LSTM(6, 8, batch_first=True)
    values_BTD, length_B = torch.randn(4, max(lengths), 6), torch.tensor(lengths)
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        packed = pack(values_BTD, length_B)
        output, states = run_recurrent(layer, packed)
        expected, expected_states = layer(packed)
    assert torch.equal(output.data, expected.data) and output.data.dtype == expected.data.dtype
    assert all(torch.equal(*pair) for pair in zip(states, expected_states, strict=True))


@both_lengths
def test_unpacking_gives_back_what_was_packed(lengths: list[int]) -> None:
    values_BTD = torch.randn(4, max(lengths), 3)
    for row, length in enumerate(lengths):
        values_BTD[row, length:] = 0
    assert torch.equal(unpack(pack(values_BTD, torch.tensor(lengths))), values_BTD)


@pytest.mark.parametrize("name", RECURRENT)
def test_every_recurrent_encoder_obeys(name: str) -> None:
    """Where float32 is stated, autocast changes nothing before the first layer that is not recurrent."""
    encoder = small_encoder(name)
    kinds: list[torch.dtype] = []
    for module in encoder.modules():
        if isinstance(module, nn.RNNBase):
            module.register_forward_hook(lambda _, __, out: kinds.append(_data(out[0]).dtype))
    set_recurrent_type(encoder, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        encoder(*random_tokens(MIXED))
    assert kinds and set(kinds) == {torch.float32}


def test_vis_lstm_obeys() -> None:
    fusion, kinds = small_fusion("vis_lstm"), []
    fusion.get_submodule("recurrent").register_forward_hook(lambda _, __, out: kinds.append(out[0].dtype))
    set_recurrent_type(fusion, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert fusion(Image(random_image()), random_question()).vector_BD.dtype == torch.bfloat16
    assert kinds == [torch.float32]


def _data(values: Any) -> Tensor:
    return values if isinstance(values, Tensor) else values.data


def test_features_of_another_16_bit_type_become_autocasts() -> None:
    stored = torch.ones(3, dtype=torch.float16)
    with torch.autocast("cpu", torch.bfloat16):
        assert in_autocast_type(stored).dtype == torch.bfloat16
        assert in_autocast_type(stored.float()).dtype == torch.float32
    assert in_autocast_type(stored) is stored
    assert in_autocast_type(stored.to("meta")).dtype == torch.float16
