"""Bag of words, text CNN, hierarchical and transformer question encoders, one question at a time, in loops."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import count_parameters, linear, small_encoder, weights
from numpy.typing import NDArray

from vqa.errors import InputError
from vqa.models import QuestionEncoder
from vqa.models.question_encoders.textcnn import k_largest
from vqa.models.transformers.attention import EncoderLayer
from vqa.testing.batches import VOCAB, random_tokens

Array = NDArray[np.float64]
LENGTHS = [4, 1, 7, 2]


def encode(encoder: QuestionEncoder) -> tuple[Array, Array, list[list[int]]]:
    """Words and sentence in float64, and the tokens of each question without padding."""
    tokens_BT, length_B = random_tokens(LENGTHS, width=9)
    with torch.no_grad():
        question = encoder.double()(tokens_BT, length_B)
    rows = [row[:length].tolist() for row, length in zip(tokens_BT, LENGTHS, strict=True)]
    return question.words_BTD.numpy(), question.sentence_BD.numpy(), rows


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("first_words", [0, 3])
def test_bow(pooling: str, first_words: int) -> None:
    encoder = small_encoder("bow", pooling=pooling, first_words=first_words)
    words_BTD, sentence_BD, rows = encode(encoder)
    w = weights(encoder)
    for row, tokens in enumerate(rows):
        expected = np.zeros(16)
        for token in tokens:
            expected += w["embedding.weight"][token] / (len(tokens) if pooling == "mean" else 1)
        for place, token in enumerate(tokens[:first_words]):
            expected += w[f"first.{place}.weight"][token]
        np.testing.assert_allclose(sentence_BD[row], expected, atol=1e-12)
        np.testing.assert_array_equal(words_BTD[row, : len(tokens)], w["embedding.weight"][tokens])


def test_bow_of_the_paper() -> None:
    """The most frequent words, and at each of the first places the most frequent there, counted by hand."""
    encoder = small_encoder("bow", top_words=3, first_words=2, top_first_words=1)
    tokens_NT = torch.tensor([[4, 2, 3], [4, 9, 0], [9, 9, 2], [9, 0, 0], [1, 2, 0], [1, 1, 0], [1, 1, 0]])
    length_N = torch.tensor([3, 2, 3, 1, 2, 2, 2])
    encoder.begin(tokens_NT, length_N)
    words_BTD, sentence_BD, mask_BT = encoder(tokens_NT, length_N)
    bag, first, second = (
        encoder.get_parameter(f"{name}.weight").detach() for name in ("embedding", "first.0", "first.1")
    )
    # counted: tokens 2, 3, 4; first 4 (as often as 9, and more frequent); second 2 (as often as 9); 1 is unknown
    expected = [bag[4] + bag[2] + bag[3] + first[4] + second[2], bag[4] + first[4], bag[2], 0 * bag[2]]
    expected += [bag[2] + second[2], 0 * bag[2], 0 * bag[2]]
    torch.testing.assert_close(sentence_BD, torch.stack(expected))
    assert not words_BTD[1, 1].any() and mask_BT[1].tolist() == [True, True, False]


def test_bow_that_counts_at_no_place_is_refused() -> None:
    with pytest.raises(InputError, match="'bow': top_first_words needs first_words"):
        small_encoder("bow", top_first_words=10)


def test_bow_does_not_know_the_order() -> None:
    encoder = small_encoder("bow")
    tokens_BT, length_B = random_tokens([6])
    torch.testing.assert_close(
        encoder(tokens_BT, length_B).sentence_BD, encoder(tokens_BT.flip(1), length_B).sentence_BD
    )


@pytest.mark.parametrize(("widths", "k_max"), [((1, 2, 3), 1), ((2, 3, 5), 2), ((1,), 3)])
@pytest.mark.parametrize("channels", ["tuned", "static_and_tuned"])
def test_textcnn(widths: tuple[int, ...], k_max: int, channels: str) -> None:
    filters = (4, 5, 6)[: len(widths)]
    encoder = small_encoder(
        "textcnn", widths=widths, filters=filters, k_max=k_max, channels=channels, activation="relu"
    )
    with torch.no_grad():
        encoder.get_parameter("embedding.weight")[1:].add_(0.3)  # as after training
    words_BTD, sentence_BD, rows = encode(encoder)
    w = weights(encoder)
    tables = [w["embedding.weight"]] if channels == "tuned" else [w["static_VE"], w["embedding.weight"]]
    for row, tokens in enumerate(rows):
        vectors = [np.concatenate([table[token] for table in tables]) for token in tokens]
        expected: list[float] = []
        for index, width in enumerate(widths):
            zeros = [np.zeros_like(vectors[0])] * (width - 1)
            found = [
                np.maximum(linear(w, f"convolutions.{index}", np.concatenate((vectors + zeros)[t : t + width])), 0)
                for t in range(len(tokens))
            ]
            start = sum(filters[:index])
            np.testing.assert_allclose(words_BTD[row, : len(tokens), start : start + filters[index]], found, atol=1e-12)
            places = found[: max(1, len(tokens) - width + 1)]
            kept = np.zeros((k_max, filters[index]))
            for column in range(filters[index]):
                values = [place[column] for place in places]
                largest = sorted(sorted(range(len(values)), key=lambda t: -values[t])[:k_max])
                kept[: len(largest), column] = [values[t] for t in largest]
            expected += list(kept.ravel())
        # ties between zeros of the ReLU may stand in another order
        np.testing.assert_allclose(np.sort(sentence_BD[row]), np.sort(expected), atol=1e-12)
        if k_max == 1:
            np.testing.assert_allclose(sentence_BD[row], expected, atol=1e-12)


def test_textcnn_k_max_keeps_the_order() -> None:
    values_BTD = torch.tensor([[[3.0], [9.0], [1.0], [7.0], [8.0]]])
    mask_BT = torch.tensor([[True, True, True, True, False]])
    assert k_largest(values_BTD, mask_BT, 3).tolist() == [[3.0, 9.0, 7.0]]
    assert k_largest(values_BTD, mask_BT, 6).tolist() == [[3.0, 9.0, 1.0, 7.0, 0.0, 0.0]]


def test_textcnn_static_channel_is_never_trained() -> None:
    encoder = small_encoder("textcnn", channels="static_and_tuned")
    encoder.set_word_vectors(torch.tensor([2, 3]), torch.randn(2, 16))
    encoder.begin(*random_tokens(LENGTHS))
    before = encoder.get_buffer("static_VE").clone()
    torch.testing.assert_close(before, encoder.get_parameter("embedding.weight").detach())
    optimiser = torch.optim.SGD(encoder.parameters(), lr=1.0)
    encoder(*random_tokens(LENGTHS)).sentence_BD.sum().backward()
    optimiser.step()
    assert torch.equal(encoder.get_buffer("static_VE"), before)
    assert not torch.equal(encoder.get_parameter("embedding.weight"), before)


def test_textcnn_wants_filters_for_every_width() -> None:
    with pytest.raises(InputError, match="3 widths, but 2 numbers of filters"):
        small_encoder("textcnn", filters=(1, 2))


def test_hierarchical() -> None:
    encoder = small_encoder("hierarchical")
    words_BTD, sentence_BD, rows = encode(encoder)
    w = weights(encoder)
    lstm = torch.nn.LSTM(16, 16, batch_first=True, dtype=torch.float64)
    lstm.load_state_dict(encoder.get_submodule("recurrent.layers.0").state_dict())
    for row, tokens in enumerate(rows):
        vectors = [w["embedding.weight"][token] for token in tokens] + [np.zeros(16)] * 2
        phrases = []
        for t in range(len(tokens)):
            grams = [np.tanh(linear(w, f"phrase.{s}", np.concatenate(vectors[t : t + s + 1]))) for s in range(3)]
            phrases.append(np.max(grams, axis=0))
        output, (hidden, _) = lstm(torch.tensor(np.array(phrases))[None])
        expected = np.concatenate([vectors[: len(tokens)], phrases, output[0].detach().numpy()], axis=1)
        np.testing.assert_allclose(words_BTD[row, : len(tokens)], expected, atol=1e-12)
        np.testing.assert_allclose(sentence_BD[row], hidden[0, 0].detach().numpy(), atol=1e-12)


def test_transformer() -> None:
    """The layers are proven against torch's own; here what goes in and what comes out."""
    encoder = small_encoder("transformer")
    words_BTD, sentence_BD, rows = encode(encoder)
    w = weights(encoder)
    for row, tokens in enumerate(rows):
        inputs = np.zeros((len(tokens), 16))
        for place, token in enumerate(tokens):
            for column in range(16):
                angle = place / 10000 ** (2 * (column // 2) / 16)
                sinusoid = math.cos(angle) if column % 2 else math.sin(angle)
                inputs[place, column] = 4 * w["embedding.weight"][token, column] + sinusoid
        values = torch.tensor(inputs)[None]
        with torch.no_grad():
            for layer in encoder.get_submodule("layers").children():
                assert isinstance(layer, EncoderLayer)
                values = layer(values)
        np.testing.assert_allclose(words_BTD[row, : len(tokens)], values[0].numpy(), atol=1e-12)
        np.testing.assert_allclose(sentence_BD[row], sum(values[0].numpy()) / len(tokens), atol=1e-12)


@pytest.mark.parametrize("name", ["lstm", "textcnn", "hierarchical", "transformer"])
def test_the_order_of_the_words_matters(name: str) -> None:
    encoder = small_encoder(name)
    tokens_BT, length_B = random_tokens([6])
    change = encoder(tokens_BT, length_B).sentence_BD - encoder(tokens_BT.flip(1), length_B).sentence_BD
    assert change.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("bow", {"first_words": 3}, 4 * VOCAB * 16),
        ("textcnn", {}, VOCAB * 16 + (16 + 1) * 4 + (2 * 16 + 1) * 5 + (3 * 16 + 1) * 6),
        ("textcnn", {"channels": "static_and_tuned"}, VOCAB * 16 + (32 + 1) * 4 + (64 + 1) * 5 + (96 + 1) * 6),
        ("hierarchical", {}, VOCAB * 16 + (1 + 2 + 3) * 16 * 16 + 3 * 16 + 4 * 16 * (16 + 16 + 2)),
        ("transformer", {"layers": 3}, VOCAB * 16 + 3 * (4 * 256 + 3 * 16 + 2 * (256 + 16) + 4 * 16)),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], expected: int) -> None:
    assert count_parameters(small_encoder(name, **options)) == expected
