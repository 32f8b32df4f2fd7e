"""Small random batches to try a part with, and what is said where a promise is not kept.

Legend: `B` batch, `T` tokens, `R` regions, `C` channels, `D` width.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from vqa.errors import first_line
from vqa.models import Fusion, Image, Question

Module = TypeVar("Module", bound=nn.Module)

IMAGE_DIM, REGIONS, QUESTION_DIM, WORD_DIM, VOCAB = 12, 5, 10, 14, 40
LENGTHS = (3, 1, 6, 4)  # of the questions of a batch
WIDER = 11  # tokens that the same batch is padded to


def random_question(lengths: Sequence[int] = LENGTHS, *, width: int | None = None, seed: int = 1) -> Question:
    """Encoded questions of the given lengths, zeros where padded; the same numbers whatever the padded width."""
    generator = torch.Generator().manual_seed(seed)
    longest = width or max(lengths)
    mask_BT = torch.arange(longest) < torch.tensor(lengths)[:, None]
    words_BTD = torch.zeros(len(lengths), longest, WORD_DIM)
    for row, length in enumerate(lengths):
        words_BTD[row, :length] = torch.randn(length, WORD_DIM, generator=generator)
    return Question(words_BTD, torch.randn(len(lengths), QUESTION_DIM, generator=generator), mask_BT)


def random_image(batch: int = len(LENGTHS), regions: int = REGIONS, *, seed: int = 2) -> Tensor:
    """Region features as a CNN gives them after ReLU: many zeros, no negative number."""
    return torch.randn(batch, regions, IMAGE_DIM, generator=torch.Generator().manual_seed(seed)).relu()


def random_boxes(batch: int, regions: int, *, seed: int = 3) -> Tensor:
    """Where the regions lie, x1, y1, x2, y2 in 0 to 1: `[batch, regions, 4]`."""
    corner_BR22 = torch.rand(batch, regions, 2, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([corner_BR22.amin(dim=2), corner_BR22.amax(dim=2)], dim=2)


def image_for(fusion: Fusion, image_BRC: Tensor) -> Image:
    """Images of these regions, one a question, with boxes where the fusion needs them."""
    boxes_BR4 = random_boxes(*image_BRC.shape[:2]).to(image_BRC.device) if fusion.needs_boxes else None
    return Image(image_BRC, boxes_IR4=boxes_BR4)


def image_rows(image: Image, rows: slice | Tensor) -> Image:
    """Some images of a batch that has one a question, all regions real."""
    return Image(image.regions_IRC[rows], boxes_IR4=None if image.boxes_IR4 is None else image.boxes_IR4[rows])


def random_tokens(lengths: Sequence[int], *, width: int | None = None, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Tokens padded with 0 to the longest question or to `width`, and the lengths."""
    generator = torch.Generator().manual_seed(seed)
    tokens_BT = torch.zeros(len(lengths), width or max(lengths), dtype=torch.int64)
    for row, length in enumerate(lengths):
        tokens_BT[row, :length] = torch.randint(1, VOCAB, (length,), generator=generator)
    return tokens_BT, torch.tensor(lengths)


def first_rows(question: Question, rows: slice) -> Question:
    """Some questions of a batch."""
    return Question(*(part[rows] for part in question))


def shake(module: nn.Module) -> None:
    """Add a little noise to every parameter and to the running statistics of batch normalisation."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
        for key, buffer in module.named_buffers():
            if "running" in key:
                buffer.add_(0.5 * torch.rand(buffer.shape, generator=generator).to(buffer.dtype))


def hold(kept: bool, part: object, broken: str) -> None:
    """Raise AssertionError with the name of the part's class and what is broken, unless a promise is kept."""
    if not kept:
        raise AssertionError(f"{type(part).__name__} {broken}")


def hold_close(
    one: Tensor | None, other: Tensor | None, part: object, broken: str, *, near: float = 1e-5, share: float = 1e-4
) -> None:
    """The same where two tensors differ by more than `near` and `share` of their size; two that are None are equal."""
    hold((one is None) == (other is None), part, f"{broken}: it is None in one of two cases")
    if one is not None and other is not None:
        shapes = f"{list(one.shape)} and {list(other.shape)}"
        hold(one.shape == other.shape, part, f"{broken}: it has the shapes {shapes}")
        largest = float((one - other).detach().abs().max())
        hold(torch.allclose(one, other, atol=near, rtol=share), part, f"{broken}: it changes by {largest:.2g}")


def attempt(part: nn.Module, when: str, *inputs: Any) -> Any:
    """What a part returns; AssertionError in place of what it raises, with the circumstances."""
    try:
        return part(*inputs)
    except Exception as error:  # whatever the class under test does
        broken = f"{type(part).__name__} fails {when} with {type(error).__name__}: {first_line(error)}"
        raise AssertionError(broken) from error


def hold_repeats(part: Module, run: Callable[[Module], Tensor]) -> None:
    """Hold a part to giving the same numbers for the same batch twice, which is what `run` gives of it."""
    hold(torch.equal(run(part), run(part)), part, "gives other numbers for the same batch in eval mode")


def hold_saved(part: Module, other: Module, run: Callable[[Module], Tensor]) -> None:
    """Hold another one with the saved weights to the same numbers: nothing that counts is outside `state_dict`."""
    other.load_state_dict(load(save({key: value.contiguous() for key, value in part.state_dict().items()})))
    broken = "gives other numbers once it is saved and loaded: something that counts is not in its state_dict"
    hold(torch.equal(run(part), run(other)), part, broken)


def idle_parameters(module: nn.Module, least: float) -> list[str]:
    """The names of the trained parameters whose gradients are all smaller than `least`, or None."""
    named = [(key, p) for key, p in module.named_parameters() if p.requires_grad]
    return [key for key, p in named if p.grad is None or not float(p.grad.abs().max()) >= least]
