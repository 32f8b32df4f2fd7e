"""How much memory a training takes, known before its model is built: what is too large is refused in one sentence.

The model is built on the meta device, without its weights, and one batch is run through it there; `vqa describe` counts
the same way. Of weights, gradients, the optimiser's numbers and what a batch leaves for the backward pass.

Legend: `B` batch, `T` tokens, `R` regions, `C` channels.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vqa.errors import InputError
from vqa.experiment import BESIDE_MODEL, AnswersSection, Experiment, TrainingSection, outside_parts
from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders.text_encoders import transformer_without_weights
from vqa.models import Image, VQAModel, build_model, is_pretrained, reads_of, resolve_part
from vqa.models.question_encoders.pretrained import Pretrained
from vqa.models.transformers.language import frozen_parameters
from vqa.overrides import replace_at
from vqa.progress import console
from vqa.runtime.device import free_memory, memory_name
from vqa.runtime.memory import human_bytes, memory_sentence
from vqa.training.inputs.prepare import require_boxes
from vqa.training.optimise import state_numbers

FLOAT32_BYTES = 4
MOST_WEIGHTS = 5_000  # tensors of a model: building more takes seconds, and large language models have 1,000
KEYS_NAMED = 3  # of those that would lower the memory
ALLOCATED = (MemoryError, RuntimeError, TypeError, ValueError, OverflowError)  # what sizes beyond all bounds raise
SIZED_PARTS = ("question_encoder", "fusion", "classifier")


class TooLargeError(InputError):
    """A model that no machine holds: it has too many weight tensors, or one whose size overflows."""


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a model that only the data knows.

    Attributes:
        words: tokens of the vocabulary, padding and unknown included.
        answers: answers of the vocabulary.
        tokens: of a question.
        regions, channels: of an image's features, as batches have them (`batch_regions`).
    """

    words: int
    answers: int
    tokens: int
    regions: int
    channels: int


@dataclass(frozen=True)
class Needs:
    """Bytes that a training takes on its device, beside the data.

    Attributes:
        frozen: of a language model that is run with every question and stays as it is; in no sum, for it is in main
            memory before the model is built.
    """

    weights: int
    gradients: int
    optimiser: int
    activations: int
    frozen: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimiser + self.activations


def build_on_meta(experiment: Experiment, sizes: ModelSizes) -> VQAModel:
    """The experiment's model without its weights, in training mode.

    Raises:
        InputError: an option that does not fit the sizes; `TooLargeError` among them.
    """
    section = experiment.question_encoder
    transformer = transformer_without_weights(section["name"]) if is_pretrained(section) else None
    with overflow_named(), _bounded(), torch.device("meta"):
        model = build_model(
            question_encoder=experiment.question_encoder,
            fusion=experiment.fusion,
            classifier=experiment.classifier,
            vocab_size=sizes.words,
            image_dim=sizes.channels,
            regions=sizes.regions,
            answers=sizes.answers,
            standardise=experiment.features.standardise,
            transformer=transformer,
        )
    return model.to("meta").train()  # a buffer made by NumPy is still elsewhere


@contextmanager
def _bounded() -> Iterator[None]:
    """Stop a model of more than `MOST_WEIGHTS` weight tensors while it is built."""
    count = 0

    def look(module: nn.Module, name: str, parameter: Tensor) -> None:
        nonlocal count
        count += 1
        if count > MOST_WEIGHTS:
            raise TooLargeError(f"the model has more than {MOST_WEIGHTS:,} weight tensors")

    hook = register_module_parameter_registration_hook(look)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def overflow_named() -> Iterator[None]:
    try:
        yield
    except ALLOCATED as error:
        if memory_sentence(error) is None and "too large to convert" not in str(error):  # to a C long
            raise
        raise TooLargeError("the model has a tensor that is larger than any memory") from None


def batch_on_meta(model: VQAModel, sizes: ModelSizes, batch: int) -> tuple[Image, Tensor, Tensor]:
    """What a model reads, without data: images `[B, R, C]`, tokens `[B, T]`, and the lengths `[B]`, all T."""
    boxes_BR4 = torch.empty(batch, sizes.regions, 4, device="meta") if model.fusion.needs_boxes else None
    image = Image(torch.empty(batch, sizes.regions, sizes.channels, device="meta"), boxes_IR4=boxes_BR4)
    tokens_BT = torch.empty(batch, sizes.tokens, dtype=torch.int64, device="meta")
    if isinstance(model.question_encoder, Pretrained) and model.question_encoder.precomputed:
        # its outputs are there before the training begins
        tokens_BT = torch.empty(batch, 1 + sizes.tokens, model.question_encoder.word_dim, device="meta")
    return image, tokens_BT, torch.tensor(sizes.tokens).expand(batch)


@contextmanager
def kept_bytes(model: nn.Module) -> Iterator[list[int]]:
    """The bytes that autograd keeps of a forward pass, in the list at the end: every storage once, weights left out."""
    fixed = (*model.parameters(), *model.buffers(), *frozen_parameters(model))
    weights = {value.untyped_storage()._cdata for value in fixed}
    kept: dict[int, Tensor] = {}
    total: list[int] = []

    def keep(values: Tensor) -> Tensor:
        if (storage := values.untyped_storage()._cdata) not in weights:
            kept[storage] = values  # held, so that no other tensor gets its storage's address
        return values

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda values: values):
        yield total
    total.append(sum(values.untyped_storage().nbytes() for values in kept.values()))


def find_needs(experiment: Experiment, sizes: ModelSizes, batch: int, most: float = math.inf) -> Needs:
    """What training the experiment's model on batches of so many questions takes.

    A frozen language model is in no sum: it is loaded with the data.

    Args:
        most: bytes; where the weights alone take more, the activations are not counted, which may take long.

    Raises:
        InputError: what `build_on_meta` finds.
    """
    model = build_on_meta(experiment, sizes)
    learnt = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    weights = FLOAT32_BYTES * learnt
    state = state_numbers(experiment.training.optimizer) * weights
    frozen = sum(parameter.nbytes for parameter in frozen_parameters(model))
    needs = Needs(weights + buffers, weights, state, 0, frozen)
    if needs.total > most:
        return needs
    with overflow_named():
        inputs = batch_on_meta(model, sizes, batch)
        with kept_bytes(model) as kept:
            model(*inputs)
    return replace(needs, activations=kept[0])


def batch_regions(experiment: Experiment, regions: int) -> int:
    """Regions of an image as batches have it, where its map has so many: one, where the fusion reads no map."""
    section = experiment.features
    whole = section.tune or section.residency == "disk" or reads_of(experiment.fusion) == "map"
    return regions if whole else 1


def smallest_sizes(experiment: Experiment) -> ModelSizes | None:
    """The smallest that an experiment's sizes can be, by its feature cache alone; None where there is none yet."""
    caches = [Path(name) for name in experiment.features.cache]
    if not caches or not caches[0].is_file():
        return None  # a missing cache has its own message, when the data are read
    cache = FeatureCache(caches[0])
    regions = batch_regions(experiment, cache.regions)
    return ModelSizes(words=2, answers=2, tokens=1, regions=regions, channels=cache.channels)


def require_known_places(experiment: Experiment, sizes: ModelSizes) -> None:
    """Refuse a fusion that asks where regions lie, over caches that do not say it, before anything is read of them.

    A fusion from outside is asked when its model is built.

    Raises:
        InputError: naming the caches, and which features say it.
    """
    if outside_parts(experiment).keys() - BESIDE_MODEL:
        return
    fusion = build_on_meta(experiment, sizes).fusion
    caches = [path for path in map(Path, experiment.features.cache) if path.is_file()] if fusion.needs_boxes else []
    require_boxes(fusion, all(FeatureCache(path).boxed for path in caches), ", ".join(map(str, caches)))


def require_room(
    experiment: Experiment, sizes: ModelSizes, device: torch.device, *, batch: int, tuned: int = 0
) -> None:
    """Refuse a training that does not fit into the memory that is free now, before its model is built.

    Activations are counted as half where they may be in bfloat16. On a GPU they are told and not refused: its fused
    operations keep less than is counted. Parts from outside that cannot be run without data are not counted.

    Args:
        sizes: of the data; where they are not known yet, `smallest_sizes`.
        batch: questions that this process computes at once.
        tuned: numbers of the image encoder that are trained too.

    Raises:
        InputError: with what it needs, what is free, and the keys that lower it most.
    """
    free = free_memory(device)
    try:
        needs = find_needs(experiment, sizes, batch, most=free)
    except TooLargeError as error:
        raise InputError(f"{error}; lower {keys_to_lower(experiment, sizes, batch, free)}") from None
    except InputError:
        raise
    except Exception:  # code from outside may look at numbers, which there are none of on the meta device
        if outside_parts(experiment).keys() - BESIDE_MODEL:
            return
        raise
    exact = experiment.training.precision == "float32"
    encoder = FLOAT32_BYTES * tuned * (2 + state_numbers(experiment.training.optimizer))
    frozen = needs.frozen if device.type == "cuda" else 0  # in main memory it is there already
    wanted = needs.total - (0 if exact else needs.activations // 2) + encoder + frozen
    if wanted - needs.activations <= free < wanted and device.type == "cuda":
        console.print(
            f"  note: training may need {human_bytes(wanted)}, activations counted without fused operations, and "
            f"{human_bytes(free)} of {memory_name(device)} are free"
        )
    elif wanted > free:
        kept = f", activations of {batch:,} questions {human_bytes(needs.activations)}" if needs.activations else ""
        raise InputError(
            f"{experiment.name}: training needs {human_bytes(wanted)} (weights {human_bytes(needs.weights + frozen)}, "
            f"gradients {human_bytes(needs.gradients)}, optimiser state {human_bytes(needs.optimiser)}{kept}), and "
            f"{human_bytes(free)} of {memory_name(device)} are free; "
            f"lower {keys_to_lower(experiment, sizes, batch, free, needs.total)}"
        )


def keys_to_lower(
    experiment: Experiment, sizes: ModelSizes, batch: int, free: float = math.inf, needed: int | None = None
) -> str:
    """The keys that lower the memory most when each is halved, or set to its default.

    Args:
        free: see `find_needs`.
        needed: bytes now; None where they are beyond counting.
    """
    found: list[tuple[int, str]] = []
    tries = sorted(_smaller(experiment, sizes, batch), key=lambda one: -one.excess)
    for smaller in tries:
        try:
            left = find_needs(smaller.experiment, smaller.sizes, smaller.batch, free).total
        except InputError:  # it does not fit the other options, or is too large still
            continue
        if needed is None:
            return smaller.shown
        found.append((left, smaller.shown))
    if needed is None:
        return " and ".join(one.shown for one in tries if one.excess > 1) or "the options of its parts"
    most = max((needed - left for left, _ in found), default=0)
    named = [shown for left, shown in sorted(found) if most > 0 and needed - left >= most / 2]
    return " or ".join(named[:KEYS_NAMED]) or "training.batch_size, or the options of the model's parts"


@dataclass(frozen=True)
class _Smaller:
    """The same with one key lowered; `excess` is how many times its default the key was."""

    shown: str
    excess: float
    experiment: Experiment
    sizes: ModelSizes
    batch: int


def _smaller(experiment: Experiment, sizes: ModelSizes, batch: int) -> Iterator[_Smaller]:
    """Every key that sizes follow from, lowered on its own."""
    for part in SIZED_PARTS:
        section: Mapping[str, Any] = getattr(experiment, part)
        usual = _defaults(part, section)
        for path, value in _values(section):
            now = max((one for one in value if type(one) is int), default=0) if isinstance(value, tuple) else value
            if type(now) is not int or now < 2:
                continue
            known = _default_at(part, section, usual, path)
            less, excess = _lower(now, max(known, default=0) if isinstance(known, tuple) else known)
            lowered = tuple(min(less, one) for one in value) if isinstance(value, tuple) else less
            changed = experiment.model_copy(update={part: replace_at(section, path, lowered)})
            yield _Smaller(f"{'.'.join((part, *path))} (now {now})", excess, changed, sizes, batch)
    if batch > 1:
        less, excess = _lower(batch, TrainingSection.model_fields["batch_size"].default)
        yield _Smaller(f"training.batch_size (now {batch})", excess, experiment, sizes, less)
    if sizes.answers > 1:
        less, excess = _lower(sizes.answers, AnswersSection.model_fields["size"].default)
        yield _Smaller(f"answers.size (now {sizes.answers})", excess, experiment, replace(sizes, answers=less), batch)


def _values(section: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every option with its path, those of sections inside among them."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from (((key, *path), inner) for path, inner in _values(value))
        else:
            yield (key,), value


def _default_at(part: str, section: Mapping[str, Any], usual: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The default of an option; of a section inside, that of the part which it names."""
    *parents, key = path
    return (_defaults(part, section[parents[0]]) if parents else usual).get(key)


def _lower(now: int, default: Any) -> tuple[int, float]:
    """What to try in place of a number, and how many times its default it is."""
    if isinstance(default, int) and default < now:
        return default, now / max(default, 1)
    return now // 2, 1.0


def _defaults(part: str, section: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return resolve_part(part, {"name": section["name"]} if "name" in section else {})
    except InputError:  # some options have none
        return {}
