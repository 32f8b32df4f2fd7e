"""Small models and random batches for the tests of `vqa.models`."""

import inspect
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqa.models import FUSIONS, QUESTION_ENCODERS, Fusion, Question, QuestionEncoder

IMAGE_DIM, REGIONS, QUESTION_DIM, WORD_DIM, VOCAB = 12, 5, 10, 14, 40
SMALL = 16  # every option that is a width
NARROWER: dict[str, dict[str, Any]] = {
    "block": {"chunks": 4, "rank": 3},
    "ban": {"rank": 16, "glimpses": 2},
    "mcan": {"layers": 2, "heads": 4},
    "film": {"blocks": 2},
    "dppnet": {"candidates": 50},
    "textcnn": {"filters": (4, 5, 6)},
    "transformer": {"heads": 4},
}  # further options that must fit widths of 16, or be fast


def small_options(name: str) -> dict[str, Any]:
    """Every option of a fusion or question encoder whose name says it is a width, set to 16."""
    parameters = inspect.signature((FUSIONS | QUESTION_ENCODERS)[name]).parameters.values()
    widths = {p.name: SMALL for p in parameters if p.name.endswith("_dim") and isinstance(p.default, int)}
    return widths | NARROWER.get(name, {})


def small_fusion(name: str, *, regions: int = REGIONS, seed: int = 0, **options: Any) -> Fusion:
    """A small fusion in eval mode."""
    torch.manual_seed(seed)
    chosen = FUSIONS[name]
    sizes = {"image_dim": IMAGE_DIM, "regions": regions, "question_dim": QUESTION_DIM}
    if "word_dim" in inspect.signature(chosen).parameters:
        sizes["word_dim"] = WORD_DIM
    return chosen(**sizes, **small_options(name) | options).eval()


def small_encoder(name: str, *, seed: int = 0, **options: Any) -> QuestionEncoder:
    """A small question encoder in eval mode."""
    torch.manual_seed(seed)
    chosen = QUESTION_ENCODERS[name]
    return chosen(vocab_size=VOCAB, **small_options(name) | options).eval()


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


Weights = dict[str, NDArray[np.float64]]


class Float64Case(NamedTuple):
    """A fusion in float64 with its inputs and outputs as NumPy arrays, for a transcription of its paper to meet."""

    weights: Weights
    image_BRC: NDArray[np.float64]
    sentence_BD: NDArray[np.float64]
    words: list[NDArray[np.float64]]  # [tokens, WORD_DIM] a question, padding cut off
    vector_BD: NDArray[np.float64]
    attention_BHR: NDArray[np.float64] | None


def float64_case(
    name: str, *, lengths: tuple[int, ...] = (3, 1, 6), regions: int = REGIONS, **options: Any
) -> Float64Case:
    """Run a small fusion in float64, dropout off, every parameter shaken so that no initial zero hides anything."""
    fusion = small_fusion(name, regions=regions, **options).double()
    shake(fusion)
    image_BRC = random_image(len(lengths), regions).double()
    words_BTD, sentence_BD, mask_BT = random_question(list(lengths))
    with torch.no_grad():
        fused = fusion(image_BRC, Question(words_BTD.double(), sentence_BD.double(), mask_BT))
    return Float64Case(
        weights(fusion),
        image_BRC.numpy(),
        sentence_BD.double().numpy(),
        [row[:length].double().numpy() for row, length in zip(words_BTD, lengths, strict=True)],
        fused.vector_BD.numpy(),
        None if fused.attention_BHR is None else fused.attention_BHR.numpy(),
    )


def shake(module: nn.Module) -> None:
    """Add a little noise to every parameter and to the running statistics of batch normalisation."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
        for key, buffer in module.named_buffers():
            if "running" in key:
                buffer.add_(0.5 * torch.rand(buffer.shape, generator=generator).to(buffer.dtype))


def linear(w: Weights, key: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A linear layer by name, one output at a time."""
    rows = [sum(a * b for a, b in zip(row, values, strict=True)) for row in w[f"{key}.weight"]]
    return np.array(rows) + w.get(f"{key}.bias", 0.0)


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax of a vector, written out."""
    exponentials = np.exp(values - values.max())
    return np.array([value / exponentials.sum() for value in exponentials])
