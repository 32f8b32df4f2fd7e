"""The contract that every fusion keeps, whatever its paper: one test a promise, each over the whole table."""

from inspect import signature
from pathlib import Path

import pytest
import torch
from helpers.models import IMAGE_DIM, REGIONS, first_rows, random_image, random_question, shake, small_fusion
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vqa.models import FUSIONS, Fused, Question
from vqa.models.dropout import FastDropout

LENGTHS = [3, 1, 6, 4]
every_fusion = pytest.mark.parametrize("name", FUSIONS)


def check(fused: Fused, out_dim: int, batch: int, regions: int) -> None:
    assert fused.vector_BD.shape == (batch, out_dim)
    assert fused.vector_BD.isfinite().all()
    if fused.attention_BHR is not None:
        assert fused.attention_BHR.shape[::2] == (batch, regions)
        torch.testing.assert_close(fused.attention_BHR.sum(dim=-1), torch.ones(fused.attention_BHR.shape[:2]))
        assert (fused.attention_BHR >= 0).all()


def close(one: Fused, other: Fused) -> None:
    torch.testing.assert_close(one.vector_BD, other.vector_BD, atol=1e-5, rtol=1e-4)
    if one.attention_BHR is not None:
        torch.testing.assert_close(one.attention_BHR, other.attention_BHR, atol=1e-5, rtol=1e-4)


@every_fusion
@pytest.mark.parametrize("regions", [1, REGIONS, 196])
def test_shapes_and_finite(name: str, regions: int) -> None:
    fusion = small_fusion(name, regions=regions)
    image_BRC, question = random_image(len(LENGTHS), regions), random_question(LENGTHS)
    check(fusion(image_BRC, question), fusion.out_dim, len(LENGTHS), regions)
    check(fusion(image_BRC[:1], first_rows(question, slice(1))), fusion.out_dim, 1, regions)
    for stored in (torch.float16, torch.bfloat16, torch.float32):  # caches hold float16
        with torch.autocast("cpu", torch.bfloat16):
            check(fusion(image_BRC.to(stored), question), fusion.out_dim, len(LENGTHS), regions)
    halved = Question(question.words_BTD.bfloat16(), question.sentence_BD.bfloat16(), question.mask_BT)
    check(fusion.bfloat16()(image_BRC.bfloat16(), halved), fusion.out_dim, len(LENGTHS), regions)


@every_fusion
def test_a_image_of_zeros_is_finite_and_has_a_finite_gradient(name: str) -> None:
    fusion, question = small_fusion(name), random_question([2, 3])
    image_BRC = torch.zeros(2, REGIONS, IMAGE_DIM, requires_grad=True)
    learnt = [image_BRC, question.sentence_BD.requires_grad_(), *fusion.parameters()]
    fused = fusion(image_BRC, question)
    fused.vector_BD.sum().backward()
    assert fused.vector_BD.isfinite().all()
    assert all(value.grad.isfinite().all() for value in learnt if value.grad is not None)


@every_fusion
def test_every_parameter_gets_a_gradient(name: str) -> None:
    fusion, question = small_fusion(name).train(), random_question(LENGTHS)
    shake(fusion)
    image_BRC, direction_BD = random_image(len(LENGTHS)).requires_grad_(), torch.randn(len(LENGTHS), fusion.out_dim)
    question.sentence_BD.requires_grad_()
    question.words_BTD.requires_grad_()
    (fusion(image_BRC, question).vector_BD * direction_BD).sum().backward()
    assert not [key for key, p in fusion.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-7]
    assert (image_BRC.grad is None) == (name == "question_only")
    assert (question.sentence_BD.grad is None and question.words_BTD.grad is None) == (name == "image_only")


@every_fusion
def test_padding_changes_nothing(name: str) -> None:
    fusion, image_BRC = small_fusion(name), random_image(len(LENGTHS))
    close(fusion(image_BRC, random_question(LENGTHS)), fusion(image_BRC, random_question(LENGTHS, width=11)))


@every_fusion
def test_a_question_does_not_depend_on_its_batch(name: str) -> None:
    fusion, image_BRC, question = small_fusion(name), random_image(len(LENGTHS)), random_question(LENGTHS)
    together = fusion(image_BRC, question)
    for row in range(len(LENGTHS)):
        rows = slice(row, row + 1)
        alone = fusion(image_BRC[rows], first_rows(question, rows))
        close(alone, Fused(*(None if part is None else part[rows] for part in together)))


@every_fusion
def test_the_order_of_the_regions_changes_nothing(name: str) -> None:
    fusion, image_BRC, question = small_fusion(name), random_image(len(LENGTHS)), random_question(LENGTHS)
    order = torch.tensor([3, 0, 4, 2, 1])
    straight, shuffled = fusion(image_BRC, question), fusion(image_BRC[:, order], question)
    attention_BHR = straight.attention_BHR
    close(Fused(straight.vector_BD, None if attention_BHR is None else attention_BHR[:, :, order]), shuffled)


# how often each fusion that looks at regions does so here, and what one such look is called
LOOKS = {
    "mlb": (2, "glimpse"),
    "stacked_attention": (2, "hop"),
    "multi_glimpse": (2, "glimpse"),
    "top_down": (1, "map"),
    "co_attention": (1, "level"),
    "ban": (2, "glimpse"),
    "mcan": (1, "map"),
}
# the others of the published ones see no regions or keep none apart; one of your own may look or not
BLIND = {"question_only", "image_only", "concat", "sum", "product", "gated_product", "mcb", "tucker", "mutan", "mfb",
         "mfh", "block", "film", "vis_lstm", "relation", "dppnet"}  # fmt: skip


@every_fusion
def test_every_fusion_that_looks_returns_its_attention(name: str) -> None:
    fusion = small_fusion(name)
    attention_BHR = fusion(random_image(len(LENGTHS)), random_question(LENGTHS)).attention_BHR
    assert (attention_BHR is None) == (name in BLIND) or name not in LOOKS.keys() | BLIND
    if attention_BHR is not None:
        looks = (attention_BHR.shape[1], fusion.attention_name)
        assert looks == LOOKS.get(name, looks)


def reacts(before: Tensor, after: Tensor) -> bool:
    return bool((before - after).abs().max() > 1e-4)


@every_fusion
def test_looks_at_what_it_says_it_looks_at(name: str) -> None:
    fusion, image_BRC, question = small_fusion(name), random_image(len(LENGTHS)), random_question(LENGTHS)
    shake(fusion)
    vector_BD = fusion(image_BRC, question).vector_BD
    other_image = fusion(random_image(len(LENGTHS), seed=9), question).vector_BD
    other_question = fusion(image_BRC, random_question(LENGTHS, seed=9)).vector_BD
    assert reacts(vector_BD, other_image) == (name != "question_only")
    assert reacts(vector_BD, other_question) == (name != "image_only")


@every_fusion
def test_dropout_acts_in_training_only(name: str) -> None:
    fusion, image_BRC, question = small_fusion(name), random_image(len(LENGTHS)), random_question(LENGTHS)
    assert torch.equal(fusion(image_BRC, question).vector_BD, fusion(image_BRC, question).vector_BD)
    fusion.train()
    random = any(isinstance(part, FastDropout | nn.Dropout) for part in fusion.modules())
    assert random == any("dropout" in option for option in signature(FUSIONS[name]).parameters)
    assert reacts(fusion(image_BRC, question).vector_BD, fusion(image_BRC, question).vector_BD) == random


@every_fusion
def test_save_and_load(name: str, tmp_path: Path) -> None:
    fusion, other = small_fusion(name), small_fusion(name, seed=5)
    save_file(fusion.state_dict(), tmp_path / "fusion.safetensors")
    other.load_state_dict(load_file(tmp_path / "fusion.safetensors"))
    image_BRC, question = random_image(len(LENGTHS)), random_question(LENGTHS)
    assert torch.equal(fusion(image_BRC, question).vector_BD, other(image_BRC, question).vector_BD)


def check_compiled(name: str, backend: str) -> None:
    fusion, image_BRC, question = small_fusion(name), random_image(len(LENGTHS)), random_question(LENGTHS)
    torch.compiler.reset()
    close(torch.compile(fusion, backend=backend)(image_BRC, question), fusion(image_BRC, question))


@pytest.mark.parametrize("name", ["product", "stacked_attention"])
def test_traced_equals_eager(name: str) -> None:
    check_compiled(name, "aot_eager")


@pytest.mark.slow
@every_fusion
def test_compiled_equals_eager(name: str) -> None:
    check_compiled(name, "inductor")
