"""`vqa describe`: what an experiment's model is and costs, before anything is trained.

The model is built on the meta device, without its weights, and one batch is run through it forwards and backwards
there, so that shapes and costs are counted, not estimated, and nothing is computed.

Legend: `B` batch, `T` tokens, `R` regions, `C` channels, `D` width, `H` hops, heads or glimpses, `A` answers.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.experiment import Experiment
from vqa.models import Fusion, Question, VQAModel, reads_of
from vqa.models.explain import explain
from vqa.models.options import inner_keys
from vqa.models.parameters import initialise_biases
from vqa.models.transformers.language import frozen_parameters
from vqa.planning.operations import OperationCounter
from vqa.planning.sizes import SizeOptions, Sizes, find_sizes
from vqa.training.inputs.questions import make_loss
from vqa.training.inputs.tuned_encoder import encoder_without_weights
from vqa.training.needs import (
    FLOAT32_BYTES,
    TooLargeError,
    batch_on_meta,
    batch_regions,
    build_on_meta,
    kept_bytes,
    keys_to_lower,
    overflow_named,
)
from vqa.training.optimise import parameter_groups, state_numbers

FLOAT16_BYTES = 2


@dataclass(frozen=True)
class InnerPart:
    """A part inside a part, as the fusion that scores the regions for `attended`.

    Attributes:
        key: the option that names it: "score".
        name: as in the experiment.
        words, equations: what it does; see `vqa.models.explain`.
        parameters: how many numbers it learns, counted in the part as well.
    """

    key: str
    name: str
    words: str
    equations: tuple[str, ...]
    parameters: int


@dataclass(frozen=True)
class Part:
    """A part of the model.

    Attributes:
        kind: "question encoder", "fusion" or "classifier".
        name: as in the experiment.
        words, equations: what it does; see `vqa.models.explain`.
        options: every option with its value.
        parameters: how many numbers it learns.
        forward_flops, training_flops: per question; training is forward and backward. Matrix products alone.
        activation_bytes: what its forward pass keeps for the backward one, per question, in float32.
        inside: the parts that its options name.
        reads: of a fusion, what it takes of an image: "map", "mean" or "nothing".
        needs_boxes: of a fusion, whether it needs to know where the regions lie.
    """

    kind: str
    name: str
    words: str
    equations: tuple[str, ...]
    options: dict[str, Any]
    parameters: int
    forward_flops: int
    training_flops: int
    activation_bytes: int
    inside: tuple[InnerPart, ...] = ()
    reads: str | None = None
    needs_boxes: bool = False


@dataclass(frozen=True)
class TunedEncoder:
    """An image encoder that is trained with the model.

    Attributes:
        name, layer, tune_from: as in the experiment.
        parameters, trained: how many numbers it has, and how many of them are trained.
        forward_flops, training_flops: per image, which is encoded once for all its questions of a batch.
    """

    name: str
    layer: str
    tune_from: str
    parameters: int
    trained: int
    forward_flops: int
    training_flops: int


@dataclass(frozen=True)
class Description:
    """What `vqa describe` prints.

    Attributes:
        name: the experiment's.
        parts: question encoder, fusion and classifier.
        image_encoder: where it is trained too; its costs are an image's and in no sum.
        shapes: of every tensor on the way, for one batch.
        attention_name: what one row of the attention is called.
        loss: its name and what it is.
        sizes: of the data, and where each was learnt.
        memory: bytes of weights, gradients, optimiser state, activations of a batch, and the table of features.
        features_held: what that table holds of an image, in words.
        steps_per_epoch, steps: None where the number of questions is not known.
    """

    name: str
    parts: tuple[Part, ...]
    image_encoder: TunedEncoder | None
    shapes: dict[str, tuple[int, ...]]
    attention_name: str
    loss: tuple[str, str]
    sizes: Sizes
    memory: dict[str, int | None]
    features_held: str
    steps_per_epoch: int | None
    steps: int | None

    @property
    def parameters(self) -> int:
        """Of all parts."""
        return sum(part.parameters for part in self.parts)

    @property
    def forward_flops(self) -> int:
        """Of all parts, per question."""
        return sum(part.forward_flops for part in self.parts)

    @property
    def training_flops(self) -> int:
        """Of all parts, per question, forward and backward."""
        return sum(part.training_flops for part in self.parts)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        totals = {key: getattr(self, key) for key in ("parameters", "forward_flops", "training_flops")}
        return asdict(self) | {"total": totals}


def describe(experiment: Experiment, options: SizeOptions | None = None) -> Description:
    """Describe an experiment; sizes that are not given are looked up or assumed, see `find_sizes`.

    Raises:
        InputError: an option that does not fit the sizes, a size that nobody knows, or a part that the optimiser or
            `initial_bias` names and the model does not have.
    """
    sizes = find_sizes(experiment, options or SizeOptions())
    batch = experiment.training.batch_size
    try:
        model = build_on_meta(experiment, sizes)
        with overflow_named():
            in_batch = replace(sizes, regions=batch_regions(experiment, sizes.regions))
            costs, shapes = count_costs(model, in_batch, batch)
    except TooLargeError as error:
        raise InputError(f"{error}; lower {keys_to_lower(experiment, sizes, batch)}") from None
    if not experiment.features.tune:  # parts of a tuned image encoder are not in this model
        parameter_groups(experiment.training.optimizer, model)
    initialise_biases(model, experiment.training.initial_bias)
    parts = tuple(_part(experiment, kind, module, costs[kind], batch) for kind, module in parts_of(model).items())
    tuned = describe_tuned(experiment)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trained = sum(parameter.numel() for parameter in learnt) + (tuned.trained if tuned else 0)
    weights = [*model.parameters(), *frozen_parameters(model)]
    parameters = sum(parameter.numel() for parameter in weights) + (tuned.parameters if tuned else 0)
    held = _held(experiment, sizes)
    steps = None if sizes.questions is None else math.ceil(sizes.questions / batch)
    loss = type(make_loss(experiment))
    return Description(
        name=experiment.name,
        parts=parts,
        image_encoder=tuned,
        shapes=shapes,
        attention_name=model.fusion.attention_name,
        loss=(experiment.loss["name"], (loss.__doc__ or "").split("\n", 1)[0]),
        sizes=sizes,
        memory={
            "weights": FLOAT32_BYTES * parameters,
            "gradients": FLOAT32_BYTES * trained,
            "optimiser state": FLOAT32_BYTES * state_numbers(experiment.training.optimizer) * trained,
            "activations of a batch": sum(part.activation_bytes for part in parts) * batch,
            "features": None if tuned or sizes.images is None else sizes.images * held[0],
        },
        features_held=held[1],
        steps_per_epoch=steps,
        steps=None if steps is None else steps * experiment.training.epochs,
    )


def _held(experiment: Experiment, sizes: Sizes) -> tuple[int, str]:
    """The bytes of an image in the feature table, and what they are in words."""
    reads = reads_of(experiment.fusion)
    if reads == "nothing":
        return 0, "none: the fusion reads nothing of the image"
    if batch_regions(experiment, sizes.regions) == sizes.regions:
        return FLOAT16_BYTES * sizes.regions * sizes.channels, "as float16"
    moments = 2 if experiment.features.standardise else 1
    return FLOAT32_BYTES * sizes.channels * moments, f"as float32: the {sizes.regions} regions are averaged once"


def describe_tuned(experiment: Experiment) -> TunedEncoder | None:
    """What the image encoder costs where the experiment trains it, counted on one image; None where it does not."""
    section = experiment.features
    if not section.tune:
        return None
    encoder = encoder_without_weights(section).to("meta")
    size = encoder.image_size
    with OperationCounter() as forward:
        image_1RC = encoder.encode(torch.empty(1, 3, size, size, dtype=torch.uint8, device="meta"))
    backward = _backward([(image_1RC, torch.empty_like(image_1RC))])
    return TunedEncoder(
        name=encoder.name,
        layer=encoder.layer,
        tune_from=section.tune_from,
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        trained=sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad),
        forward_flops=forward.flops,
        training_flops=forward.flops + backward,
    )


def parts_of(model: VQAModel) -> dict[str, nn.Module]:
    """The parts that learn, by what they are called here."""
    return {"question encoder": model.question_encoder, "fusion": model.fusion, "classifier": model.classifier}


class Cost(NamedTuple):
    """Of a whole batch: floating-point operations forwards and backwards, and bytes kept in between."""

    forward: int
    backward: int
    kept_bytes: int


def count_costs(model: VQAModel, sizes: Sizes, batch: int) -> tuple[dict[str, Cost], dict[str, tuple[int, ...]]]:
    """Run one batch of questions of equal length through a model on the meta device, part by part.

    Returns:
        The cost of each part by its kind, and the shape of every tensor on the way by its name.
    """
    image, tokens_BT, length_B = batch_on_meta(model, sizes, batch)
    with _counted(model) as (encoding, encoding_kept):
        question = model.question_encoder(tokens_BT, length_B)
    asked = Question(_cut(question.words_BTD), _cut(question.sentence_BD), question.mask_BT)
    with _counted(model) as (fusing, fusing_kept):
        if model.standardise is not None:
            image = image._replace(regions_IRC=model.standardise(image.regions_IRC))
        fused = model.fusion(image, asked)
    vector_BD = _cut(fused.vector_BD)
    with _counted(model) as (answering, answering_kept):
        logits_BA = model.classifier(vector_BD)

    costs = {
        "classifier": Cost(answering.flops, _backward([(logits_BA, torch.empty_like(logits_BA))]), answering_kept[0]),
        "fusion": Cost(fusing.flops, _backward([(fused.vector_BD, vector_BD.grad)]), fusing_kept[0]),
    }
    known = [(question.words_BTD, asked.words_BTD.grad), (question.sentence_BD, asked.sentence_BD.grad)]
    costs["question encoder"] = Cost(encoding.flops, _backward(known), encoding_kept[0])
    tensors = {
        "image": image.regions_IRC,
        "tokens": tokens_BT,
        "words": question.words_BTD,
        "sentence": question.sentence_BD,
    }
    tensors |= {"fused": fused.vector_BD} | ({} if fused.attention_BHR is None else {"attention": fused.attention_BHR})
    return costs, {name: tuple(tensor.shape) for name, tensor in (tensors | {"logits": logits_BA}).items()}


def _cut(values: Tensor) -> Tensor:
    """The same values where a backward pass stops."""
    return values.detach().requires_grad_()


def _backward(known: list[tuple[Tensor, Tensor | None]]) -> int:
    """Floating-point operations of going backwards from outputs whose gradients are known; None is not used at all."""
    used = [(output, gradient) for output, gradient in known if gradient is not None and output.requires_grad]
    if not used:
        return 0
    with OperationCounter() as counter:
        torch.autograd.backward([output for output, _ in used], [gradient for _, gradient in used])
    return counter.flops


@contextmanager
def _counted(model: nn.Module) -> Iterator[tuple[OperationCounter, list[int]]]:
    """Count operations, and at the end the bytes that autograd keeps."""
    with OperationCounter() as counter, kept_bytes(model) as total:
        yield counter, total


def _part(experiment: Experiment, kind: str, module: nn.Module, cost: Cost, batch: int) -> Part:
    section: dict[str, Any] = getattr(experiment, kind.replace(" ", "_"))
    explained = explain(type(module))
    return Part(
        kind=kind,
        name=section["name"],
        words=explained.words,
        equations=explained.equations,
        options={key: value for key, value in section.items() if key != "name"},
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        forward_flops=round(cost.forward / batch),
        training_flops=round((cost.forward + cost.backward) / batch),
        activation_bytes=round(cost.kept_bytes / batch),
        inside=tuple(_inside(section, module)),
        reads=module.reads if isinstance(module, Fusion) else None,
        needs_boxes=isinstance(module, Fusion) and module.needs_boxes,
    )


def _inside(section: dict[str, Any], module: nn.Module) -> Iterator[InnerPart]:
    """The parts inside a part, which keeps them under the names of its options."""
    for key in inner_keys(type(module)):
        part = getattr(module, key, None)
        if isinstance(part, nn.Module):
            explained = explain(type(part))
            parameters = sum(parameter.numel() for parameter in part.parameters())
            yield InnerPart(key, section[key]["name"], explained.words, explained.equations, parameters)
