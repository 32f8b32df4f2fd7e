"""Small models and random batches for the tests of `vqa.models`."""

import inspect

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqa.models import FUSIONS, QUESTION_ENCODERS, Fusion, Question, QuestionEncoder

IMAGE_DIM, REGIONS, QUESTION_DIM, WORD_DIM, VOCAB = 12, 5, 10, 14, 40
SMALL = 16  # every option that is a width


def small_options(chosen: type) -> dict[str, int]:
    """Every option whose name says it is a width, set to 16."""
    parameters = inspect.signature(chosen).parameters.values()
    return {p.name: SMALL for p in parameters if p.name.endswith("_dim") and isinstance(p.default, int)}


def small_fusion(name: str, *, regions: int = REGIONS, seed: int = 0, **options: object) -> Fusion:
    """A small fusion in eval mode."""
    torch.manual_seed(seed)
    chosen = FUSIONS[name]
    sizes = {"image_dim": IMAGE_DIM, "regions": regions, "question_dim": QUESTION_DIM}
    if "word_dim" in inspect.signature(chosen).parameters:
        sizes["word_dim"] = WORD_DIM
    return chosen(**sizes, **small_options(chosen) | options).eval()


def small_encoder(name: str, *, seed: int = 0, **options: object) -> QuestionEncoder:
    """A small question encoder in eval mode."""
    torch.manual_seed(seed)
    chosen = QUESTION_ENCODERS[name]
    return chosen(vocab_size=VOCAB, **small_options(chosen) | options).eval()


def random_question(lengths: list[int], *, width: int | None = None, seed: int = 1) -> Question:
    """Encoded questions of the given lengths, zeros where padded; the same numbers whatever the padded width."""
    generator = torch.Generator().manual_seed(seed)
    longest = width or max(lengths)
    mask_BT = torch.arange(longest) < torch.tensor(lengths)[:, None]
    words_BTD = torch.zeros(len(lengths), longest, WORD_DIM)
    for row, length in enumerate(lengths):
        words_BTD[row, :length] = torch.randn(length, WORD_DIM, generator=generator)
    return Question(words_BTD, torch.randn(len(lengths), QUESTION_DIM, generator=generator), mask_BT)


def random_image(batch: int, regions: int = REGIONS, *, seed: int = 2) -> Tensor:
    """Region features as a CNN gives them after ReLU: many zeros, no negative number."""
    return torch.randn(batch, regions, IMAGE_DIM, generator=torch.Generator().manual_seed(seed)).relu()


def random_tokens(lengths: list[int], *, width: int | None = None, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Tokens padded with 0 to the longest question or to `width`, and the lengths."""
    generator = torch.Generator().manual_seed(seed)
    tokens_BT = torch.zeros(len(lengths), width or max(lengths), dtype=torch.int64)
    for row, length in enumerate(lengths):
        tokens_BT[row, :length] = torch.randint(1, VOCAB, (length,), generator=generator)
    return tokens_BT, torch.tensor(lengths)


def first_rows(question: Question, rows: slice) -> Question:
    """Some questions of a batch."""
    return Question(*(part[rows] for part in question))


def weights(module: nn.Module) -> dict[str, NDArray[np.float64]]:
    """The parameters and buffers of a module as float64 arrays."""
    return {key: value.detach().double().numpy() for key, value in module.state_dict().items()}


def count_parameters(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(parameter.numel() for parameter in module.parameters())
