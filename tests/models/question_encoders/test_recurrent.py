"""The recurrent question encoders against `torch.nn.LSTM` and `torch.nn.GRU` run on one question at a time."""

from typing import Any

import pytest
import torch
from helpers.models import count_parameters, small_encoder, weights
from torch import Tensor, nn

from vqa.models import QuestionEncoder
from vqa.models.question_encoders.lstm import QstEncoder
from vqa.models.question_encoders.sequences import Recurrent
from vqa.testing.batches import VOCAB, random_tokens

LENGTHS = [4, 1, 7, 4]
mixed_and_equal = pytest.mark.parametrize("lengths", [LENGTHS, [5, 5, 5, 5]], ids=str)


def torchs_stack(ours: Recurrent, kind: type[nn.LSTM] | type[nn.GRU]) -> nn.LSTM | nn.GRU:
    """One torch module of all layers with our weights."""
    first = ours.layers[0]
    assert isinstance(first, nn.LSTM | nn.GRU)
    sizes = (first.input_size, first.hidden_size, len(ours.layers))
    stack = kind(*sizes, batch_first=True, bidirectional=first.bidirectional)
    for layer, module in enumerate(ours.layers):
        for key, value in module.state_dict().items():
            stack.get_parameter(key.replace("_l0", f"_l{layer}")).data.copy_(value)
    return stack


def embedded(encoder: QuestionEncoder, tokens_T: Tensor) -> Tensor:
    return encoder.get_parameter("embedding.weight")[tokens_T][None]


@mixed_and_equal
def test_lstm(lengths: list[int]) -> None:
    encoder = small_encoder("lstm", layers=3)
    assert isinstance(encoder, QstEncoder)
    stack = torchs_stack(encoder.recurrent, nn.LSTM)
    tokens_BT, length_B = random_tokens(lengths)
    question = encoder(tokens_BT, length_B)
    for row, length in enumerate(lengths):
        output, (hidden, cell) = stack(torch.tanh(embedded(encoder, tokens_BT[row, :length])))
        states = torch.cat([state[0] for layer in zip(hidden, cell, strict=True) for state in layer])
        assert isinstance(encoder.output, nn.Sequential)
        linear = encoder.output[1]
        assert isinstance(linear, nn.Linear)
        torch.testing.assert_close(question.sentence_BD[row], linear.weight @ torch.tanh(states) + linear.bias)
        torch.testing.assert_close(question.words_BTD[row, :length], output[0])


@mixed_and_equal
@pytest.mark.parametrize("padding", ["behind", "front"])
def test_gru_that_reads_padding_as_words(lengths: list[int], padding: str) -> None:
    """As the released code of BUTD and BAN: 6 tokens, zero vectors in front or behind, the last state of all."""
    encoder = small_encoder("gru", layers=1, padded_to=6, padding=padding)
    stack = torchs_stack(encoder.get_submodule("recurrent"), nn.GRU)  # type: ignore[arg-type]
    for more in (0, 3):  # what else is in a batch does not matter
        tokens_BT, length_B = random_tokens(lengths)
        tokens_BT = nn.functional.pad(tokens_BT, (0, more))
        question = encoder(tokens_BT, length_B)
        assert question.mask_BT.all() and question.words_BTD.shape[1] == 6
        for row, length in enumerate(lengths):
            word_TE = embedded(encoder, tokens_BT[row, : min(length, 6)])[0]
            zeros = torch.zeros(6 - len(word_TE), word_TE.shape[1])
            output, _ = stack(torch.cat([zeros, word_TE] if padding == "front" else [word_TE, zeros])[None])
            torch.testing.assert_close(question.words_BTD[row], output[0])
            torch.testing.assert_close(question.sentence_BD[row], output[0, -1])
    on_device = encoder(tokens_BT, length_B)
    one_by_one = [encoder(tokens_BT[row : row + 1], length_B[row : row + 1]).sentence_BD for row in range(len(lengths))]
    torch.testing.assert_close(on_device.sentence_BD, torch.cat(one_by_one))


@mixed_and_equal
@pytest.mark.parametrize(("state", "tanh_words"), [("hidden", False), ("cell", True)])
def test_lstm_last(lengths: list[int], state: str, tanh_words: bool) -> None:
    encoder = small_encoder("lstm_last", layers=2, state=state, tanh_words=tanh_words)
    stack = torchs_stack(encoder.get_submodule("recurrent"), nn.LSTM)  # type: ignore[arg-type]
    tokens_BT, length_B = random_tokens(lengths)
    question = encoder(tokens_BT, length_B)
    for row, length in enumerate(lengths):
        values = embedded(encoder, tokens_BT[row, :length])
        output, (hidden, cell) = stack(torch.tanh(values) if tanh_words else values)
        torch.testing.assert_close(question.sentence_BD[row], (hidden if state == "hidden" else cell)[1, 0])
        torch.testing.assert_close(question.words_BTD[row, :length], output[0])


@mixed_and_equal
def test_gru(lengths: list[int]) -> None:
    encoder = small_encoder("gru", layers=2)
    stack = torchs_stack(encoder.get_submodule("recurrent"), nn.GRU)  # type: ignore[arg-type]
    tokens_BT, length_B = random_tokens(lengths)
    question = encoder(tokens_BT, length_B)
    for row, length in enumerate(lengths):
        output, hidden = stack(embedded(encoder, tokens_BT[row, :length]))
        torch.testing.assert_close(question.sentence_BD[row], hidden[1, 0])
        torch.testing.assert_close(question.words_BTD[row, :length], output[0])


@mixed_and_equal
@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_bilstm(lengths: list[int], pooling: str) -> None:
    encoder = small_encoder("bilstm", layers=2, pooling=pooling)
    stack = torchs_stack(encoder.get_submodule("recurrent"), nn.LSTM)  # type: ignore[arg-type]
    tokens_BT, length_B = random_tokens(lengths)
    question = encoder(tokens_BT, length_B)
    for row, length in enumerate(lengths):
        output_TD = stack(embedded(encoder, tokens_BT[row, :length]))[0][0]
        if pooling == "mean":
            expected = sum(output_TD) / length
        elif pooling == "max":
            expected = output_TD.max(dim=0).values
        else:
            share_T = (output_TD @ encoder.get_parameter("logit.weight")[0]).exp()
            expected = sum(share / share_T.sum() * word for share, word in zip(share_T, output_TD, strict=True))
        torch.testing.assert_close(question.sentence_BD[row], expected)
        torch.testing.assert_close(question.words_BTD[row, :length], output_TD)


def test_dropout_between_layers_acts_in_training_only() -> None:
    """The bottom layer is the same, the top one is not."""
    encoder = small_encoder("lstm", dropout=0.5, sentence_dim=None)
    for batch in (random_tokens(LENGTHS), random_tokens([5, 5])):
        assert torch.equal(encoder.eval()(*batch).sentence_BD, encoder(*batch).sentence_BD)
        assert not torch.equal(encoder.train()(*batch).sentence_BD, encoder(*batch).sentence_BD)
    recurrent = Recurrent(nn.LSTM, 3, 4, 2, dropout=0.5).train()
    values_BTD = torch.randn(2, 5, 3)
    for lengths in ([5, 5], [5, 2]):
        (_, first), (_, second) = (recurrent(values_BTD, torch.tensor(lengths)) for _ in range(2))
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
        assert not torch.equal(first[2], second[2])


def test_lstm_without_a_projection_returns_the_raw_states() -> None:
    encoder = QstEncoder(vocab_size=VOCAB, embedding_dim=3, hidden_dim=4, layers=3, sentence_dim=None).eval()
    question = encoder(*random_tokens(LENGTHS))
    assert question.sentence_BD.shape == (len(LENGTHS), encoder.sentence_dim) == (len(LENGTHS), 24)
    last_BD = torch.stack([question.words_BTD[row, length - 1] for row, length in enumerate(LENGTHS)])
    assert torch.equal(question.sentence_BD[:, 16:20], last_BD)


def test_padding_row_of_the_embedding_is_zero_and_stays_so() -> None:
    encoder = small_encoder("lstm")
    assert not weights(encoder)["embedding.weight"][0].any()
    encoder(*random_tokens(LENGTHS)).sentence_BD.sum().backward()
    gradient = encoder.get_parameter("embedding.weight").grad
    assert gradient is not None and not gradient[0].any()


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [  # a gate has input weights, hidden weights and two bias vectors
        ("lstm", {"layers": 2}, 4 * 16 * (16 + 16 + 2) * 2 + (2 * 2 * 16 + 1) * 16),
        ("lstm_last", {"layers": 2}, 4 * 16 * (16 + 16 + 2) * 2),
        ("gru", {"layers": 1}, 3 * 16 * (16 + 16 + 2)),
        ("bilstm", {"layers": 2}, 2 * 4 * 16 * (16 + 16 + 2) + 2 * 4 * 16 * (32 + 16 + 2)),
        ("bilstm", {"layers": 1, "pooling": "attention"}, 2 * 4 * 16 * (16 + 16 + 2) + 32),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], expected: int) -> None:
    assert count_parameters(small_encoder(name, **options)) == VOCAB * 16 + expected
