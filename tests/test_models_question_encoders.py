"""The contract that every question encoder keeps."""

from pathlib import Path

import pytest
import torch
from helpers_models import VOCAB, count_parameters, random_tokens, small_encoder, weights
from safetensors.torch import load_file, save_file

from vqa.models import QUESTION_ENCODERS, Question, QuestionEncoder
from vqa.models.question_encoders.lstm import QstEncoder

every_encoder = pytest.mark.parametrize("name", QUESTION_ENCODERS)
LENGTHS = [4, 1, 7, 4]


def check(question: Question, encoder: QuestionEncoder, lengths: list[int], width: int) -> None:
    assert question.words_BTD.shape == (len(lengths), width, encoder.word_dim)
    assert question.sentence_BD.shape == (len(lengths), encoder.sentence_dim)
    assert question.mask_BT.dtype == torch.bool
    assert question.mask_BT.sum(dim=1).tolist() == lengths
    assert question.words_BTD.isfinite().all() and question.sentence_BD.isfinite().all()
    assert not question.words_BTD[~question.mask_BT].any()


@every_encoder
@pytest.mark.parametrize("lengths", [LENGTHS, [5, 5, 5], [1], [1, 1], [2, 20]], ids=str)
def test_shapes_and_finite(name: str, lengths: list[int]) -> None:
    encoder = small_encoder(name)
    for width in (max(lengths), max(lengths) + 3):
        tokens_BT, length_B = random_tokens(lengths, width=width)
        check(encoder(tokens_BT, length_B), encoder, lengths, width)
        with torch.autocast("cpu", torch.bfloat16):
            check(encoder(tokens_BT, length_B), encoder, lengths, width)
    check(encoder.bfloat16()(tokens_BT, length_B), encoder, lengths, width)


@every_encoder
@pytest.mark.parametrize("lengths", [LENGTHS, [5, 5, 5]], ids=str)
def test_padding_changes_nothing_bit_for_bit(name: str, lengths: list[int]) -> None:
    encoder = small_encoder(name)
    tight, loose = encoder(*random_tokens(lengths)), encoder(*random_tokens(lengths, width=26))
    assert torch.equal(tight.sentence_BD, loose.sentence_BD)
    assert torch.equal(tight.words_BTD, loose.words_BTD[:, : max(lengths)])


@every_encoder
def test_a_question_does_not_depend_on_its_batch(name: str) -> None:
    encoder = small_encoder(name)
    tokens_BT, length_B = random_tokens(LENGTHS)
    together = encoder(tokens_BT, length_B)
    for row, length in enumerate(LENGTHS):
        alone = encoder(tokens_BT[row : row + 1, :length], length_B[row : row + 1])
        torch.testing.assert_close(alone.sentence_BD[0], together.sentence_BD[row])
        torch.testing.assert_close(alone.words_BTD[0], together.words_BTD[row, :length])


@every_encoder
@pytest.mark.parametrize("lengths", [LENGTHS, [5, 5, 5, 5]], ids=str)
def test_every_parameter_gets_a_gradient(name: str, lengths: list[int]) -> None:
    encoder = small_encoder(name).train()
    question = encoder(*random_tokens(lengths))
    words, sentence = torch.randn_like(question.words_BTD), torch.randn_like(question.sentence_BD)
    ((question.words_BTD * words).sum() + (question.sentence_BD * sentence).sum()).backward()
    idle = [key for key, p in encoder.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9]
    assert not idle


@every_encoder
def test_save_and_load(name: str, tmp_path: Path) -> None:
    encoder, other = small_encoder(name), small_encoder(name, seed=5)
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    other.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    batch = random_tokens(LENGTHS)
    assert torch.equal(encoder(*batch).sentence_BD, other(*batch).sentence_BD)


def check_compiled(name: str, backend: str) -> None:
    encoder = small_encoder(name)
    torch.compiler.reset()
    compiled = torch.compile(encoder, backend=backend)
    for lengths in (LENGTHS, [5, 5, 5]):
        batch = random_tokens(lengths)
        torch.testing.assert_close(compiled(*batch), encoder(*batch), atol=1e-5, rtol=1e-4)


def test_traced_equals_eager() -> None:
    check_compiled("lstm", "aot_eager")


@pytest.mark.slow
@every_encoder
def test_compiled_equals_eager(name: str) -> None:
    check_compiled(name, "inductor")


@pytest.mark.parametrize("lengths", [LENGTHS, [5, 5, 5, 5]], ids=str)
def test_lstm_equals_torchs_own_stack(lengths: list[int]) -> None:
    """`torch.nn.LSTM` of two layers, one question at a time, with the same weights."""
    encoder = small_encoder("lstm")
    assert isinstance(encoder, QstEncoder)
    stack = torch.nn.LSTM(16, 16, num_layers=2, batch_first=True)
    stack.load_state_dict(
        {
            f"{key[:-1]}{layer}": value
            for layer, one in enumerate(encoder.layers)
            for key, value in one.state_dict().items()
        }
    )
    tokens_BT, length_B = random_tokens(lengths)
    question = encoder(tokens_BT, length_B)
    for row, length in enumerate(lengths):
        embedded = torch.tanh(encoder.embedding.weight[tokens_BT[row : row + 1, :length]])
        output, (hidden, cell) = stack(embedded)
        states = torch.cat([hidden[0], cell[0], hidden[1], cell[1]], dim=-1)
        linear = encoder.output[1]
        expected = torch.tanh(states) @ linear.weight.T + linear.bias
        torch.testing.assert_close(question.sentence_BD[row], expected[0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(question.words_BTD[row, :length], output[0], atol=1e-6, rtol=1e-5)


def test_lstm_parameter_count() -> None:
    encoder = QstEncoder(vocab_size=VOCAB, embedding_dim=3, hidden_dim=4, layers=2, sentence_dim=6)
    first, second = 4 * 4 * (3 + 4 + 2), 4 * 4 * (4 + 4 + 2)  # four gates; input, hidden and two bias vectors
    assert count_parameters(encoder) == VOCAB * 3 + first + second + (2 * 2 * 4 * 6 + 6)


def test_lstm_without_a_projection_returns_the_raw_states() -> None:
    encoder = QstEncoder(vocab_size=VOCAB, embedding_dim=3, hidden_dim=4, layers=3, sentence_dim=None).eval()
    question = encoder(*random_tokens(LENGTHS))
    assert question.sentence_BD.shape == (len(LENGTHS), encoder.sentence_dim) == (len(LENGTHS), 24)
    top_hidden_BD = question.sentence_BD[:, 16:20]
    last_BD = torch.stack([question.words_BTD[row, length - 1] for row, length in enumerate(LENGTHS)])
    assert torch.equal(top_hidden_BD, last_BD)


def test_padding_row_of_the_embedding_is_zero_and_stays_so() -> None:
    encoder = small_encoder("lstm")
    assert not weights(encoder)["embedding.weight"][0].any()
    encoder(*random_tokens(LENGTHS)).sentence_BD.sum().backward()
    assert isinstance(encoder, QstEncoder) and not encoder.embedding.weight.grad[0].any()
