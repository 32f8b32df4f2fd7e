"""Every fusion with every question encoder, pretrained ones too: what each promises alone holds for the pair."""

from typing import Any

import pytest
import torch
from helpers.language import whole_model
from helpers.models import sampled, small_options
from torch import Tensor

from vqa.models import FUSIONS, QUESTION_ENCODERS, Image, Prediction, VQAModel, build_model
from vqa.models.question_encoders.pretrained import TextTransformer
from vqa.testing.batches import IMAGE_DIM, REGIONS, VOCAB, image_for, image_rows, random_image, random_tokens, shake

LENGTHS, ANSWERS, FEW = [3, 1, 6, 4], 7, 15
PRETRAINED: dict[str, dict[str, Any]] = {
    "hf:frozen": {"tuned": False},
    "hf:tuned": {"tuned": True, "pooling": "pooled"},
}


def small_pair(encoder: str, fusion: str) -> VQAModel:
    """A small model in eval mode, every parameter shaken so that no initial zero hides anything."""
    torch.manual_seed(0)
    section = {"name": encoder, **(PRETRAINED[encoder] if encoder in PRETRAINED else small_options(encoder))}
    model = build_model(
        question_encoder=section,
        fusion={"name": fusion, **small_options(fusion)},
        classifier={"dropout": 0.0},
        vocab_size=VOCAB,
        image_dim=IMAGE_DIM,
        regions=REGIONS,
        answers=ANSWERS,
        transformer=TextTransformer(whole_model("bert"), 0) if encoder in PRETRAINED else None,
    ).eval()
    shake(model.fusion)
    return model


def tokens(encoder: str, lengths: list[int], width: int | None = None) -> tuple[Tensor, Tensor]:
    tokens_BT, length_B = random_tokens(lengths, width=width)
    return (tokens_BT.remainder(FEW) if encoder in PRETRAINED else tokens_BT), length_B


def close(one: Prediction, other: Prediction, near: float) -> None:
    for left, right in zip(one, other, strict=True):
        if left is not None:
            torch.testing.assert_close(left, right, atol=near, rtol=near)


ENCODERS = [*QUESTION_ENCODERS, *PRETRAINED]
PAIRS = sampled((encoder, fusion) for encoder in ENCODERS for fusion in FUSIONS)


@pytest.mark.parametrize(("encoder", "fusion"), PAIRS)
def test_shapes_gradients_padding_and_batches(encoder: str, fusion: str) -> None:
    model = small_pair(encoder, fusion)
    image = image_for(model.fusion, random_image(len(LENGTHS)))
    tokens_BT, length_B = tokens(encoder, LENGTHS)
    predicted = model(image, tokens_BT, length_B)
    assert predicted.logits_BA.shape == (len(LENGTHS), ANSWERS) and predicted.logits_BA.isfinite().all()
    if predicted.attention_BHR is not None:
        torch.testing.assert_close(predicted.attention_BHR.sum(dim=-1), torch.ones(predicted.attention_BHR.shape[:2]))
    near = 5e-3 if encoder == "hf:frozen" else 1e-4  # its outputs are rounded to float16
    close(model(image, *tokens(encoder, LENGTHS, width=11)), predicted, near)
    alone = model(image_rows(image, slice(1)), tokens_BT[:1, : LENGTHS[0]], length_B[:1])
    first = Prediction(
        predicted.logits_BA[:1], None if predicted.attention_BHR is None else predicted.attention_BHR[:1]
    )
    close(alone, first, near)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(image, tokens_BT, length_B).logits_BA.isfinite().all()

    (predicted.logits_BA * torch.randn(len(LENGTHS), ANSWERS)).sum().backward()
    learns = {name: p.grad is not None and bool(p.grad.any()) for name, p in model.named_parameters()}
    assert not [name for name, found in learns.items() if not found and not name.startswith("question_encoder.")]
    of_words = [found for name, found in learns.items() if name.startswith("question_encoder.") and "embedding" in name]
    assert any(of_words) == (fusion != "image_only" and encoder != "hf:frozen")


@pytest.mark.parametrize("encoder", PRETRAINED)
def test_a_pretrained_pair_learns_32_samples_by_heart(encoder: str) -> None:
    model, image_BRC = small_pair(encoder, "product"), random_image(32)
    tokens_BT, length_B = tokens(encoder, [2 + row % 5 for row in range(32)])
    right_B = torch.randint(0, ANSWERS, (32,), generator=torch.Generator().manual_seed(4))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(300):
        logits_BA = model(Image(image_BRC), tokens_BT, length_B).logits_BA
        if bool((logits_BA.argmax(dim=1) == right_B).all()):
            return
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits_BA, right_B).backward()
        optimiser.step()
    raise AssertionError("not learnt")
