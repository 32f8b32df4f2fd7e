"""The contract that every question encoder keeps: the promises of `vqa.testing`, and compiling."""

from collections.abc import Callable

import pytest
import torch
from helpers.models import encoder_case, small_encoder

from vqa.models import QUESTION_ENCODERS
from vqa.testing import QUESTION_ENCODER_PROMISES, QuestionEncoderCase
from vqa.testing.batches import random_tokens
from vqa.testing.question_encoders import LENGTHS

every_encoder = pytest.mark.parametrize("name", QUESTION_ENCODERS)


@pytest.mark.parametrize("promise", QUESTION_ENCODER_PROMISES, ids=lambda promise: promise.__name__)
@every_encoder
def test_promise(name: str, promise: Callable[[QuestionEncoderCase], None]) -> None:
    promise(encoder_case(name))


def check_compiled(name: str, backend: str) -> None:
    encoder = small_encoder(name)
    torch.compiler.reset()
    compiled = torch.compile(encoder, backend=backend)
    for lengths in (LENGTHS, (5, 5, 5)):
        batch = random_tokens(lengths)
        torch.testing.assert_close(compiled(*batch), encoder(*batch), atol=1e-5, rtol=1e-4)


def test_traced_equals_eager() -> None:
    check_compiled("lstm", "aot_eager")


@pytest.mark.slow
@every_encoder
def test_compiled_equals_eager(name: str) -> None:
    check_compiled(name, "inductor")
