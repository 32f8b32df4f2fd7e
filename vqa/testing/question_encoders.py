"""What every question encoder promises: a function a promise.

Legend: `B` batch, `T` tokens, `D` width, `E` embedding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vqa.errors import InputError
from vqa.models import Question, QuestionEncoder, check_options
from vqa.models.model import SIZES
from vqa.models.options import takes
from vqa.testing.batches import (
    VOCAB,
    attempt,
    hold,
    hold_close,
    hold_repeats,
    hold_saved,
    idle_parameters,
    random_tokens,
)

LENGTHS = (4, 1, 7, 4)
BATCHES = (LENGTHS, (5, 5, 5), (1,), (1, 1), (2, 20))  # lengths of the questions of batches
LEAST_GRADIENT = 1e-9


@dataclass(frozen=True)
class QuestionEncoderCase:
    """A question encoder to try.

    Attributes:
        encoder: the class.
        options: its options; the others have their defaults.
        exact: whether padding may not change even a last bit, as where it is cut off.
    """

    encoder: type[QuestionEncoder]
    options: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = False

    def make(self, *, seed: int = 0) -> QuestionEncoder:
        """A small one in eval mode."""
        torch.manual_seed(seed)
        return self.encoder(**takes(self.encoder, {"vocab_size": VOCAB}), **self.options).eval()


def check_question_encoder(encoder: type[QuestionEncoder], /, **options: Any) -> None:
    """Hold a question encoder to every promise.

    Args:
        encoder: the class.
        options: of its constructor; small widths make the check quick.

    Raises:
        AssertionError: naming the first promise that is not kept.

    >>> from vqa.models import QUESTION_ENCODERS
    >>> check_question_encoder(QUESTION_ENCODERS["gru"], embedding_dim=8, hidden_dim=8)
    """
    name, given, base = encoder.__name__, SIZES["question_encoder"], QuestionEncoder
    try:
        check_options("question_encoder", {name: encoder}, {"name": name, **options}, given=given, base=base)
    except InputError as error:
        raise AssertionError(f"{name} cannot be a section of an experiment: {error}") from None
    for promise in QUESTION_ENCODER_PROMISES:
        promise(QuestionEncoderCase(encoder, options))


def returns_what_it_states(case: QuestionEncoderCase) -> None:
    """Words, sentence and mask have the stated shapes and finite numbers in every precision; padded words are zero."""
    for lengths in BATCHES:
        encoder = case.make()
        for width in ("word_dim", "sentence_dim"):
            hold(isinstance(getattr(encoder, width, None), int), encoder, f"states no {width}")
        for tokens in (max(lengths), max(lengths) + 3):
            batch = random_tokens(lengths, width=tokens)
            _hold_shapes(encoder, batch, f"for questions of {lengths} tokens")
            with torch.autocast("cpu", torch.bfloat16):
                _hold_shapes(encoder, batch, "under autocast")
        _hold_shapes(encoder.bfloat16(), batch, "in bfloat16")


def _hold_shapes(encoder: QuestionEncoder, batch: tuple[Tensor, Tensor], when: str) -> None:
    question, lengths, width = attempt(encoder, when, *batch), batch[1].tolist(), batch[0].shape[1]
    hold(isinstance(question, Question), encoder, f"returns a {type(question).__name__}, not a vqa.models.Question")
    for name, wanted in (
        ("words_BTD", [len(lengths), width, encoder.word_dim]),
        ("sentence_BD", [len(lengths), encoder.sentence_dim]),
    ):
        values = getattr(question, name)
        hold(list(values.shape) == wanted, encoder, f"gives {name} {list(values.shape)}, not {wanted}")
        hold(bool(values.isfinite().all()), encoder, f"gives {name} with numbers that are not finite")
    real = question.mask_BT.dtype == torch.bool and question.mask_BT.sum(dim=1).tolist() == lengths
    hold(real, encoder, "gives a mask_BT that is not bool, or not True on exactly the real tokens")
    hold(not question.words_BTD[~question.mask_BT].any(), encoder, "gives padded tokens vectors that are not zero")


def ignores_padding(case: QuestionEncoderCase) -> None:
    """Tokens that pad a question change nothing, whatever their word vector is."""
    near = {"near": 0.0, "share": 0.0} if case.exact else {}
    for lengths in (LENGTHS, (5, 5, 5)):
        encoder, longest = case.make(), max(lengths)
        with torch.no_grad():
            encoder.embedding.weight[0] = 1.0
        tight, loose = encoder(*random_tokens(lengths)), encoder(*random_tokens(lengths, width=26))
        broken = f"depends on padding ({longest} or 26 tokens)"
        hold_close(tight.sentence_BD, loose.sentence_BD, encoder, broken, **near)
        hold_close(tight.words_BTD, loose.words_BTD[:, :longest], encoder, broken, **near)


def treats_each_question_alone(case: QuestionEncoderCase) -> None:
    """What a question gets does not depend on the others of its batch."""
    encoder = case.make()
    tokens_BT, length_B = random_tokens(LENGTHS)
    together = encoder(tokens_BT, length_B)
    for row, length in enumerate(LENGTHS):
        alone = encoder(tokens_BT[row : row + 1, :length], length_B[row : row + 1])
        broken = "depends on the other questions of its batch"
        hold_close(alone.sentence_BD[0], together.sentence_BD[row], encoder, broken)
        hold_close(alone.words_BTD[0], together.words_BTD[row, :length], encoder, broken)


def trains_every_parameter(case: QuestionEncoderCase) -> None:
    """Every parameter gets a gradient, with padding in the batch and without."""
    for lengths in (LENGTHS, (5, 5, 5, 5)):
        encoder = case.make().train()
        question = encoder(*random_tokens(lengths))
        words, sentence = torch.randn_like(question.words_BTD), torch.randn_like(question.sentence_BD)
        ((question.words_BTD * words).sum() + (question.sentence_BD * sentence).sum()).backward()
        idle = idle_parameters(encoder, LEAST_GRADIENT)
        hold(not idle, encoder, f"has parameters that get no gradient: {', '.join(idle)}")


def repeats_itself(case: QuestionEncoderCase) -> None:
    """In eval mode the same batch gives the same numbers twice."""
    hold_repeats(case.make(), _run)


def is_saved_whole(case: QuestionEncoderCase) -> None:
    """Another one with the saved weights gives the same numbers."""
    hold_saved(case.make(), case.make(seed=5), _run)


def _run(encoder: QuestionEncoder) -> Tensor:
    sentence_BD: Tensor = encoder(*random_tokens(LENGTHS)).sentence_BD
    return sentence_BD


def starts_from_word_vectors(case: QuestionEncoderCase) -> None:
    """Ready-made word vectors become those of their tokens, and of no other; a wrong width is an InputError."""
    encoder = case.make()
    width, token_N = encoder.embedding.embedding_dim, torch.tensor([3, 7])
    before, vectors_NE = encoder.embedding.weight.detach().clone(), torch.randn(2, width)
    encoder.set_word_vectors(token_N, vectors_NE)
    after = encoder.embedding.weight.detach()
    hold(torch.equal(after[token_N], vectors_NE), encoder, "does not take the word vectors that it is given")
    others = torch.tensor([token for token in range(VOCAB) if token not in token_N.tolist()])
    hold(
        torch.equal(after[others], before[others]), encoder, "changes word vectors of tokens that it is given none for"
    )
    try:
        encoder.set_word_vectors(token_N[:1], torch.zeros(1, width + 1))
    except InputError:
        return
    hold(False, encoder, "takes word vectors of a wrong width without an InputError")


QUESTION_ENCODER_PROMISES: tuple[Callable[[QuestionEncoderCase], None], ...] = (
    returns_what_it_states,
    ignores_padding,
    treats_each_question_alone,
    trains_every_parameter,
    repeats_itself,
    is_saved_whole,
    starts_from_word_vectors,
)
