"""The contract that every fusion keeps, whatever its paper: the promises of `vqa.testing`, and what the table adds."""

from collections.abc import Callable
from inspect import signature

import pytest
import torch
from helpers.models import fusion_case, small_fusion
from torch import nn

from vqa.models import FUSIONS, Image
from vqa.models.dropout import FastDropout
from vqa.testing import FUSION_PROMISES, FusionCase
from vqa.testing.batches import hold_close, image_for, random_image, random_question
from vqa.testing.fusions import reacts

every_fusion = pytest.mark.parametrize("name", FUSIONS)


@pytest.mark.parametrize("promise", FUSION_PROMISES, ids=lambda promise: promise.__name__)
@every_fusion
def test_promise(name: str, promise: Callable[[FusionCase], None]) -> None:
    promise(fusion_case(name))


@every_fusion
def test_the_order_of_the_regions_changes_nothing(name: str) -> None:
    fusion, question, order = small_fusion(name), random_question(), torch.tensor([3, 0, 4, 2, 1])
    image = image_for(fusion, random_image())
    boxes_IR4 = None if image.boxes_IR4 is None else image.boxes_IR4[:, order]
    straight, shuffled = (
        fusion(image, question),
        fusion(Image(image.regions_IRC[:, order], boxes_IR4=boxes_IR4), question),
    )
    attention_BHR = straight.attention_BHR
    hold_close(straight.vector_BD, shuffled.vector_BD, fusion, "depends on the order of the regions")
    expected_BHR = None if attention_BHR is None else attention_BHR[:, :, order]
    hold_close(expected_BHR, shuffled.attention_BHR, fusion, "depends on the order of the regions")


# how often each fusion that looks at regions does so here, and what one such look is called
LOOKS = {
    "mlb": (2, "glimpse"),
    "attended": (2, "glimpse"),
    "stacked_attention": (2, "hop"),
    "multi_glimpse": (2, "glimpse"),
    "counter": (2, "glimpse"),
    "graph": (1, "map"),
    "murel": (1, "map"),
    "top_down": (1, "map"),
    "co_attention": (1, "level"),
    "ban": (2, "glimpse"),
    "mcan": (1, "map"),
    "mmnasnet": (1, "map"),
    "mac": (3, "step"),
    "single_stream": (4, "head"),
    "two_stream": (4, "head"),
    "resampler": (3, "query"),
}
# the others of the published ones see no regions or keep none apart; one of your own may look or not
BLIND = {"question_only", "image_only", "concat", "sum", "product", "gated_product", "mcb", "tucker", "mutan", "mfb",
         "mfh", "block", "block_tucker", "lmf", "gmu", "film", "vis_lstm", "relation", "dppnet"}  # fmt: skip


@every_fusion
def test_every_fusion_that_looks_returns_its_attention(name: str) -> None:
    fusion = small_fusion(name)
    attention_BHR = fusion(image_for(fusion, random_image()), random_question()).attention_BHR
    assert (attention_BHR is None) == (name in BLIND) or name not in LOOKS.keys() | BLIND
    if attention_BHR is not None:
        looks = (attention_BHR.shape[1], fusion.attention_name)
        assert looks == LOOKS.get(name, looks)


@every_fusion
def test_dropout_acts_in_training_only(name: str) -> None:
    fusion, question = small_fusion(name).train(), random_question()
    image = image_for(fusion, random_image())
    random = any(isinstance(part, FastDropout | nn.Dropout) for part in fusion.modules())
    assert random == any("dropout" in option for option in signature(FUSIONS[name]).parameters)
    assert reacts(fusion(image, question).vector_BD, fusion(image, question).vector_BD) == random


def check_compiled(name: str, backend: str) -> None:
    fusion, question = small_fusion(name), random_question()
    image = image_for(fusion, random_image())
    torch.compiler.reset()
    compiled = torch.compile(fusion, backend=backend)(image, question)
    for one, other in zip(compiled, fusion(image, question), strict=True):
        hold_close(one, other, fusion, "gives other numbers when it is compiled")


@pytest.mark.parametrize("name", ["product", "stacked_attention"])
def test_traced_equals_eager(name: str) -> None:
    check_compiled(name, "aot_eager")


@pytest.mark.slow
@every_fusion
def test_compiled_equals_eager(name: str) -> None:
    check_compiled(name, "inductor")
