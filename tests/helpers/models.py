"""Small models and random batches for the tests of `vqa.models`."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from vqa.models import FUSIONS, LANGUAGE_FUSIONS, QUESTION_ENCODERS, Fusion, Question, QuestionEncoder
from vqa.testing import FusionCase, QuestionEncoderCase
from vqa.testing.batches import REGIONS, image_for, random_image, random_question, shake

SMALL = 16  # every option that is a width
NARROWER: dict[str, dict[str, Any]] = {
    "block": {"chunks": 4, "rank": 3},
    "block_tucker": {"chunks": 4},
    "counter": {"objects": 3},
    "graph": {"heads": 4},
    "murel": {"chunks": 4, "rank": 3, "pair_dim": 10},
    "attended": {
        "score": {"name": "mutan", "side_dim": 16, "fusion_dim": 16},
        "join": {"name": "mfb", "fusion_dim": 16},
    },
    "ban": {"rank": 16, "glimpses": 2},
    "mcan": {"layers": 2, "heads": 4},
    "mmnasnet": {"heads": 8, "encoder": ("SA", "FFN"), "decoder": ("RSA", "GA", "FFN")},
    "single_stream": {"layers": 2, "heads": 4},
    "two_stream": {"layers": 1, "heads": 4},
    "resampler": {"queries": 3, "heads": 4},
    "mac": {"steps": 3},
    "film": {"blocks": 2},
    "dppnet": {"candidates": 50},
    "textcnn": {"filters": (4, 5, 6)},
    "transformer": {"heads": 4},
}  # further options that must fit widths of 16, or be fast


def sampled(cases: Iterable[Sequence[Any]], nth: int = 3) -> list[Any]:
    """Parameters of a test: every `nth` case in `make test`, all of them in `make test-all`."""
    return [pytest.param(*case, marks=() if place % nth == 0 else pytest.mark.slow) for place, case in enumerate(cases)]


def small_options(name: str) -> dict[str, Any]:
    """Every option of a fusion or question encoder whose name says it is a width, set to 16."""
    parameters = inspect.signature((FUSIONS | LANGUAGE_FUSIONS | QUESTION_ENCODERS)[name]).parameters.values()
    widths = {p.name: SMALL for p in parameters if p.name.endswith("_dim") and isinstance(p.default, int)}
    return widths | NARROWER.get(name, {})


def fusion_case(name: str, **options: Any) -> FusionCase:
    """A small fusion of the table for the promises of `vqa.testing`."""
    ignores: dict[str, Any] = {"question_only": "image", "image_only": "question"}
    return FusionCase(FUSIONS[name], small_options(name) | options, ignores.get(name, "nothing"))


def encoder_case(name: str, **options: Any) -> QuestionEncoderCase:
    """A small question encoder of the table; the recurrent ones cut the padding off, so they are equal bit for bit."""
    exact = name in {"lstm", "lstm_last", "gru", "bilstm"}
    return QuestionEncoderCase(QUESTION_ENCODERS[name], small_options(name) | options, exact)


def small_fusion(name: str, *, regions: int = REGIONS, seed: int = 0, **options: Any) -> Fusion:
    """A small fusion in eval mode."""
    return fusion_case(name, **options).make(regions=regions, seed=seed)


def small_encoder(name: str, *, seed: int = 0, **options: Any) -> QuestionEncoder:
    """A small question encoder in eval mode."""
    return encoder_case(name, **options).make(seed=seed)


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
    boxes_BR4: NDArray[np.float64]  # empty where the fusion needs none


def float64_case(
    name: str,
    *,
    lengths: tuple[int, ...] = (3, 1, 6),
    regions: int = REGIONS,
    boxes: NDArray[np.float64] | None = None,
    **options: Any,
) -> Float64Case:
    """Run a small fusion in float64, dropout off, every parameter shaken so that no initial zero hides anything.

    Args:
        boxes: where the regions lie, `[questions, regions, 4]`; None: nothing is known of it.
    """
    fusion = small_fusion(name, regions=regions, **options).double()
    shake(fusion)
    image = image_for(fusion, random_image(len(lengths), regions).double())
    given_BR4 = image.boxes_IR4 if boxes is None else torch.from_numpy(boxes)
    boxes_BR4 = None if given_BR4 is None else given_BR4.double()
    words_BTD, sentence_BD, mask_BT = random_question(list(lengths))
    with torch.no_grad():
        fused = fusion(image._replace(boxes_IR4=boxes_BR4), Question(words_BTD.double(), sentence_BD.double(), mask_BT))
    return Float64Case(
        weights(fusion),
        image.regions_IRC.numpy(),
        sentence_BD.double().numpy(),
        [row[:length].double().numpy() for row, length in zip(words_BTD, lengths, strict=True)],
        fused.vector_BD.numpy(),
        None if fused.attention_BHR is None else fused.attention_BHR.numpy(),
        np.zeros(0) if boxes_BR4 is None else boxes_BR4.numpy(),
    )


def linear(w: Weights, key: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A linear layer by name, one output at a time."""
    rows = [sum(a * b for a, b in zip(row, values, strict=True)) for row in w[f"{key}.weight"]]
    return np.array(rows) + w.get(f"{key}.bias", 0.0)


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax of a vector, written out."""
    exponentials = np.exp(values - values.max())
    return np.array([value / exponentials.sum() for value in exponentials])
