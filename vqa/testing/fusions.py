"""What every fusion promises, whatever its paper: a function a promise.

Legend: `B` batch, `R` regions, `C` channels, `D` width, `H` hops, heads or glimpses.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from vqa.errors import InputError
from vqa.models import Fused, Fusion, Image, Question, check_options
from vqa.models.model import SIZES
from vqa.models.options import takes
from vqa.testing.batches import (
    IMAGE_DIM,
    LENGTHS,
    QUESTION_DIM,
    REGIONS,
    WIDER,
    WORD_DIM,
    attempt,
    first_rows,
    hold,
    hold_close,
    hold_repeats,
    hold_saved,
    idle_parameters,
    image_for,
    image_rows,
    random_boxes,
    random_image,
    random_question,
    shake,
)

LEAST_GRADIENT, LEAST_CHANGE = 1e-7, 1e-4
PADDED_REGIONS = 9  # a square, which some fusions need


@dataclass(frozen=True)
class FusionCase:
    """A fusion to try.

    Attributes:
        fusion: the class.
        options: its options; the others have their defaults.
        ignores: what it does not look at, on purpose.
    """

    fusion: type[Fusion]
    options: Mapping[str, Any] = field(default_factory=dict)
    ignores: Literal["nothing", "image", "question"] = "nothing"

    def make(self, *, regions: int = REGIONS, seed: int = 0) -> Fusion:
        """A small one in eval mode."""
        torch.manual_seed(seed)
        sizes = {"image_dim": IMAGE_DIM, "regions": regions, "question_dim": QUESTION_DIM, "word_dim": WORD_DIM}
        return self.fusion(**takes(self.fusion, sizes), **self.options).eval()


def check_fusion(
    fusion: type[Fusion], ignores: Literal["nothing", "image", "question"] = "nothing", /, **options: Any
) -> None:
    """Hold a fusion to every promise.

    Args:
        fusion: the class.
        ignores: what it does not look at, on purpose.
        options: of its constructor; small widths make the check quick.

    Raises:
        AssertionError: naming the first promise that is not kept.

    >>> from vqa.models import FUSIONS
    >>> check_fusion(FUSIONS["stacked_attention"], hops=2, attention_dim=8)
    """
    name = fusion.__name__
    try:
        check_options("fusion", {name: fusion}, {"name": name, **options}, given=SIZES["fusion"], base=Fusion)
    except InputError as error:
        raise AssertionError(f"{name} cannot be a section of an experiment: {error}") from None
    for promise in FUSION_PROMISES:
        promise(FusionCase(fusion, options, ignores))


def returns_what_it_states(case: FusionCase) -> None:
    """Vector and attention have the stated shapes and finite numbers, in every precision and at any number of regions.

    Rows of attention are shares of 1.
    """
    for regions in (1, REGIONS, 196):
        fusion = case.make(regions=regions)
        width = getattr(fusion, "out_dim", None)
        hold(isinstance(width, int), fusion, f"states no out_dim, the width of its vector: it is {width!r}")
        image, question = image_for(fusion, random_image(regions=regions)), random_question()
        _hold_shapes(fusion, image, question, f"at {regions} regions")
        _hold_shapes(fusion, image_rows(image, slice(1)), first_rows(question, slice(1)), "with one question")
        for stored in (torch.float16, torch.bfloat16, torch.float32):  # caches hold float16
            with torch.autocast("cpu", torch.bfloat16):
                given = image._replace(regions_IRC=image.regions_IRC.to(stored))
                _hold_shapes(fusion, given, question, f"with an image of {stored} under autocast")
        halved = Question(question.words_BTD.bfloat16(), question.sentence_BD.bfloat16(), question.mask_BT)
        given = image._replace(regions_IRC=image.regions_IRC.bfloat16())
        _hold_shapes(fusion.bfloat16(), given, halved, "in bfloat16")


def _hold_shapes(fusion: Fusion, image: Image, question: Question, when: str) -> None:
    fused, (batch, regions) = attempt(fusion, when, image, question), image.regions_BRC.shape[:2]
    hold(isinstance(fused, Fused), fusion, f"returns a {type(fused).__name__}, not a vqa.models.Fused")
    vector_BD, attention_BHR = fused
    given, wanted = list(vector_BD.shape), [batch, fusion.out_dim]
    hold(given == wanted, fusion, f"gives a vector {given}, not [B, out_dim] = {wanted}")
    hold(bool(vector_BD.isfinite().all()), fusion, "gives a vector with numbers that are not finite")
    if attention_BHR is None:
        return
    shape = list(attention_BHR.shape)
    looks = len(shape) == 3 and shape[::2] == [batch, regions]
    hold(looks, fusion, f"gives attention {shape}, not [B, H, regions] = [{batch}, H, {regions}]")
    sums_BH = attention_BHR.float().sum(dim=-1)
    near = 1e-5 if attention_BHR.dtype == torch.float32 else 2e-2
    farthest = float(sums_BH.detach().flatten()[(sums_BH - 1).abs().argmax()])
    hold(abs(farthest - 1) <= near, fusion, f"gives attention that does not sum to 1 over the regions: {farthest:.4g}")
    hold(bool((attention_BHR >= 0).all()), fusion, "gives attention below 0")


def is_finite_on_an_empty_image(case: FusionCase) -> None:
    """An image of zeros gives finite numbers and finite gradients."""
    fusion, question = case.make(), random_question([2, 3])
    image_BRC = torch.zeros(2, REGIONS, IMAGE_DIM, requires_grad=True)
    learnt = [image_BRC, question.sentence_BD.requires_grad_(), *fusion.parameters()]
    vector_BD = fusion(image_for(fusion, image_BRC), question).vector_BD
    vector_BD.sum().backward()
    hold(bool(vector_BD.isfinite().all()), fusion, "gives numbers that are not finite for an image of zeros")
    finite = all(value.grad.isfinite().all() for value in learnt if value.grad is not None)
    hold(finite, fusion, "gives gradients that are not finite for an image of zeros")


def trains_every_parameter(case: FusionCase) -> None:
    """Every parameter gets a gradient, and so does what the fusion looks at."""
    fusion, question = case.make().train(), random_question()
    shake(fusion)
    image_BRC = random_image().requires_grad_()
    question.sentence_BD.requires_grad_()
    question.words_BTD.requires_grad_()
    vector_BD = fusion(image_for(fusion, image_BRC), question).vector_BD
    (vector_BD * torch.randn(vector_BD.shape)).sum().backward()
    idle = idle_parameters(fusion, LEAST_GRADIENT)
    hold(not idle, fusion, f"has parameters that get no gradient: {', '.join(idle)}")
    _hold_looks(fusion, "image", case, image_BRC.grad is not None, "sends no gradient to")
    asked = question.sentence_BD.grad is not None or question.words_BTD.grad is not None
    _hold_looks(fusion, "question", case, asked, "sends no gradient to")


def looks_at_what_it_says(case: FusionCase) -> None:
    """Another image or another question changes the vector, unless the fusion ignores it on purpose."""
    fusion, question = case.make(), random_question()
    image = image_for(fusion, random_image())
    shake(fusion)
    vector_BD = fusion(image, question).vector_BD
    for what, other in (
        ("image", fusion(image_for(fusion, random_image(seed=9)), question)),
        ("question", fusion(image, random_question(seed=9))),
    ):
        _hold_looks(fusion, what, case, reacts(vector_BD, other.vector_BD), "gives the same whatever is")


def _hold_looks(fusion: Fusion, what: str, case: FusionCase, looks: bool, broken: str) -> None:
    if case.ignores == what:
        hold(not looks, fusion, f"should ignore the {what}, but looks at it")
    else:
        hold(looks, fusion, f"{broken} the {what}")


def reacts(before_BD: Tensor, after_BD: Tensor) -> bool:
    """Whether two vectors differ by more than rounding."""
    return float((before_BD - after_BD).detach().abs().max()) > LEAST_CHANGE


def ignores_padding(case: FusionCase) -> None:
    """Tokens that pad a question change nothing."""
    fusion = case.make()
    image = image_for(fusion, random_image())
    tight, loose = fusion(image, random_question()), fusion(image, random_question(width=WIDER))
    broken = f"depends on padding ({max(LENGTHS)} or {WIDER} tokens)"
    for one, other in zip(tight, loose, strict=True):
        hold_close(one, other, fusion, broken)


def treats_each_question_alone(case: FusionCase) -> None:
    """What a question gets does not depend on the others of its batch."""
    fusion, question = case.make(), random_question()
    image = image_for(fusion, random_image())
    together = fusion(image, question)
    for row in range(len(LENGTHS)):
        rows = slice(row, row + 1)
        alone = fusion(image_rows(image, rows), first_rows(question, rows))
        for one, every in zip(alone, together, strict=True):
            hold_close(
                one, None if every is None else every[rows], fusion, "depends on the other questions of its batch"
            )


def shares_images(case: FusionCase) -> None:
    """A question gets the same, and sends the same gradients, whether its image is shared with others or not.

    In training too: its dropout masks are its own. In float64, for a root near 0 makes much of rounding.
    """
    fusion, (words_BTD, sentence_BD, mask_BT) = case.make().double(), random_question()
    question = Question(words_BTD.double(), sentence_BD.double(), mask_BT)
    both = image_for(fusion, random_image(2).double())
    row_B = torch.tensor([1, 0, 1, 1])[: len(LENGTHS)]
    for training in (False, True):
        shared, apart = (
            _result_and_gradients(fusion.train(training), image, question)
            for image in (both._replace(row_B=row_B), image_rows(both, row_B))
        )
        for one, other in zip(shared[0], apart[0], strict=True):
            hold_close(one, other, fusion, "gives something else where questions share an image (image.row_B)")
        for one, other in zip(shared[1], apart[1], strict=True):
            hold_close(one, other, fusion, "sends other gradients where questions share an image (image.row_B)")


def _result_and_gradients(fusion: Fusion, image: Image, question: Question) -> tuple[Fused, list[Tensor]]:
    fusion.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    fused = fusion(image, question)
    if fused.vector_BD.requires_grad:
        weight_BD = torch.randn(fused.vector_BD.shape, generator=torch.Generator().manual_seed(4))
        (fused.vector_BD * weight_BD).sum().backward()
    return fused, [value.grad for value in fusion.parameters() if value.grad is not None]


def ignores_padded_regions(case: FusionCase) -> None:
    """Regions that pad an image change nothing, whatever they hold, and none is looked at."""
    fusion, image_BRC, question = (
        case.make(regions=PADDED_REGIONS),
        random_image(regions=PADDED_REGIONS),
        random_question(),
    )
    mask_BR = (torch.arange(PADDED_REGIONS) < PADDED_REGIONS - 3).expand(len(image_BRC), -1)
    boxes_BR4 = random_boxes(len(image_BRC), PADDED_REGIONS)
    shake(fusion)
    for training in (False, True):
        found = []
        for filled in (0.0, 1.0, -50.0):
            padded_BRC = image_BRC.where(mask_BR[..., None], filled)
            boxes_BR4 = boxes_BR4.where(mask_BR[..., None], abs(filled) / 50)
            torch.manual_seed(0)
            found.append(fusion.train(training)(Image(padded_BRC, None, mask_BR, boxes_BR4), question))
        for one, other in itertools.pairwise(found):
            for first, second in zip(one, other, strict=True):
                hold_close(first, second, fusion, "depends on regions that pad an image (image.mask_IR)")
        attention_BHR = found[0].attention_BHR
        unseen = attention_BHR is None or bool((attention_BHR[..., -3:] == 0).all())
        hold(unseen, fusion, "looks at regions that pad an image (image.mask_IR)")


def repeats_itself(case: FusionCase) -> None:
    """In eval mode the same batch gives the same numbers twice."""
    hold_repeats(case.make(), _run)


def is_saved_whole(case: FusionCase) -> None:
    """Another one with the saved weights gives the same numbers."""
    hold_saved(case.make(), case.make(seed=5), _run)


def _run(fusion: Fusion) -> Tensor:
    vector_BD: Tensor = fusion(image_for(fusion, random_image()), random_question()).vector_BD
    return vector_BD


FUSION_PROMISES: tuple[Callable[[FusionCase], None], ...] = (
    returns_what_it_states,
    is_finite_on_an_empty_image,
    trains_every_parameter,
    looks_at_what_it_says,
    ignores_padding,
    treats_each_question_alone,
    shares_images,
    ignores_padded_regions,
    repeats_itself,
    is_saved_whole,
)
