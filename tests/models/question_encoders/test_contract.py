"""The contract that every question encoder keeps."""

from pathlib import Path

import pytest
import torch
from helpers.models import VOCAB, random_tokens, small_encoder
from safetensors.torch import load_file, save_file

from vqa.errors import InputError
from vqa.models import QUESTION_ENCODERS, Question, QuestionEncoder

every_encoder = pytest.mark.parametrize("name", QUESTION_ENCODERS)
LENGTHS = [4, 1, 7, 4]
RECURRENT = {"lstm", "lstm_last", "gru", "bilstm"}  # these cut the padding off: equal bit for bit


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
def test_padding_changes_nothing(name: str, lengths: list[int]) -> None:
    encoder = small_encoder(name)
    with torch.no_grad():
        encoder.embedding.weight[0] = 1.0  # whatever the padding row holds
    tight, loose = encoder(*random_tokens(lengths)), encoder(*random_tokens(lengths, width=26))
    exact = {"atol": 0.0, "rtol": 0.0} if name in RECURRENT else {}
    torch.testing.assert_close(tight.sentence_BD, loose.sentence_BD, **exact)
    torch.testing.assert_close(tight.words_BTD, loose.words_BTD[:, : max(lengths)], **exact)


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


@every_encoder
def test_word_vectors_are_set_for_the_tokens_named(name: str) -> None:
    encoder = small_encoder(name)
    before, vectors_NE = encoder.embedding.weight.detach().clone(), torch.randn(2, 16)
    encoder.set_word_vectors(torch.tensor([3, 7]), vectors_NE)
    assert torch.equal(encoder.embedding.weight[[3, 7]], vectors_NE)
    others = [token for token in range(VOCAB) if token not in (3, 7)]
    assert torch.equal(encoder.embedding.weight[others], before[others])
    with pytest.raises(InputError, match="width 5 do not fit word vectors of width 16"):
        encoder.set_word_vectors(torch.tensor([3]), torch.zeros(1, 5))
