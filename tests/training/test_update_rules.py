"""The update rule of each recipe, as the authors' code or the optimiser's paper states it, in float64.

A toy model has the parts that a recipe names. Three steps with gradients of our choice, clipped and taken with the
recipe's own sections, against the rule written out in NumPy. Legend of a rule: `w` weight, `g` gradient, `r` learning
rate, `d` weight decay, `t` step from 1.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers.recipes import PUBLISHED
from numpy.typing import NDArray
from torch import nn

from vqa.experiment import TrainingSection, read_experiment
from vqa.training.optimise import add_clipped_decay, clip_gradients, make_optimizer

Array = NDArray[np.float64]
Rule = Callable[[Array, list[Array], float, float], Array]
TORCH_ADDS = 1e-6  # to a norm before it divides by it
WEIGHTS = ("question_encoder.embedding.weight", "fusion.image.weight", "fusion.recurrent.weight", "classifier.weight")


def momentum_then_decay(w: Array, gradients: list[Array], r: float, d: float) -> Array:
    """VIS+LSTM's `Stage._updateWeights` and iBOWIMG's `train_epoch`, momentum .9; their limit on |w| is not reached."""
    step = np.zeros_like(w)
    for g in gradients:
        step = -r * g + 0.9 * step
        w = w + step
        w = w - r * d * w
    return w


def cost_with_squares(w: Array, gradients: list[Array], r: float, d: float) -> Array:
    """SAN's released code: the gradient of cost + d sum w^2 is clipped as a whole; caches with momentum .9."""
    cache = np.zeros_like(w)
    for g in gradients:
        whole = g + 2 * d * w
        cache = 0.9 * cache + whole * min(1.0, 0.1 / (np.sqrt((whole * whole).sum()) + TORCH_ADDS))
        w = w - r * cache
    return w


def rmsprop(w: Array, gradients: list[Array], r: float, d: float) -> Array:
    """Torch7's `optim.rmsprop`, which VQA_LSTM_CNN and MLB call, and HieCoAtt's own: alpha .99, epsilon 1e-8."""
    mean = np.zeros_like(w)
    for g in gradients:
        mean = 0.99 * mean + 0.01 * g * g
        w = w - r * g / (np.sqrt(mean) + 1e-8)
    return w


def adam(w: Array, gradients: list[Array], r: float, d: float, beta: float = 0.999, epsilon: float = 1e-8) -> Array:
    """Kingma and Ba 2015, algorithm 1."""
    first = second = np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        first, second = 0.9 * first + 0.1 * g, beta * second + (1 - beta) * g * g
        w = w - r * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - beta**t)) + epsilon)
    return w


def adam_with_squares(w: Array, gradients: list[Array], r: float, d: float) -> Array:
    """FiLM's: torch's Adam with a weight decay, which is the gradient of d / 2 times the sum of squares."""
    first = second = np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        whole = g + d * w
        first, second = 0.9 * first + 0.1 * whole, 0.999 * second + 0.001 * whole * whole
        w = w - r * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return w


def adamax(w: Array, gradients: list[Array], r: float, d: float) -> Array:
    """Kingma and Ba 2015, algorithm 2, with the 1e-8 that torch's Adamax, which BUTD's and BAN's code calls, adds."""
    first = largest = np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        first, largest = 0.9 * first + 0.1 * g, np.maximum(0.999 * largest, np.abs(g) + 1e-8)
        w = w - r / (1 - 0.9**t) * first / largest
    return w


class Released(NamedTuple):
    """A recipe's rule: of every weight the learning rate and decay, and what gradients are limited to.

    Attributes:
        own: rate and decay of weights that have others, by the beginning of their name.
        limit: "norm of each tensor", "norm of each part", "norm of all" or "value", and how much.
    """

    rule: Rule
    rate: float
    decay: float = 0.0
    own: Mapping[str, tuple[float, float]] = MappingProxyType({})
    limit: tuple[str, float] | None = None

    def of(self, name: str) -> tuple[float, float]:
        return next((pair for start, pair in self.own.items() if name.startswith(start)), (self.rate, self.decay))


RELEASED = {
    "ban": Released(adamax, 2e-3, limit=("norm of all", 0.25)),
    "block": Released(adamax, 1.4e-3, limit=("norm of all", 0.25)),
    "butd": Released(adamax, 2e-3, limit=("norm of all", 0.25)),
    "clevr_relation": Released(adam, 2.5e-4),
    "dppnet": Released(adam, 1e-3, limit=("norm of each part", 0.1)),
    "film": Released(adam_with_squares, 3e-4, 1e-5),
    "hiecoatt": Released(rmsprop, 4e-4),
    "ibowimg": Released(
        momentum_then_decay, 0.01, 5e-6, own={"question_encoder": (0.8, 5e-6)}, limit=("norm of each tensor", 0.1)
    ),
    "mcan_large": Released(partial(adam, beta=0.98, epsilon=1e-9), 7e-5),
    "mcan_small": Released(partial(adam, beta=0.98, epsilon=1e-9), 1e-4),
    "mcb": Released(adam, 7e-4),
    "mcb_att": Released(adam, 7e-4),
    "mfb_coatt": Released(adam, 7e-4, limit=("norm of all", 10.0)),
    "mfh_coatt": Released(adam, 7e-4, limit=("norm of all", 10.0)),
    "mlb": Released(rmsprop, 3e-4, limit=("value", 10.0)),
    "mutan": Released(adam, 1e-4),
    "mutan_att": Released(adam, 1e-4),
    "san": Released(adam, 1e-3, limit=("value", 10.0)),
    "san_cnn": Released(cost_with_squares, 0.1, 5e-4, own={"question_encoder.embedding": (8.0, 0.0)}),
    "show_ask_attend_answer": Released(adam, 1e-3),
    "vis_lstm": Released(
        momentum_then_decay,
        0.8,
        own={"fusion.recurrent": (0.8, 5e-5), "classifier": (0.01, 5e-5)},
        limit=("norm of each tensor", 0.1),
    ),
    "vqa2015_bow": Released(rmsprop, 3e-4),
    "vqa2015_lstm": Released(rmsprop, 3e-4, limit=("value", 10.0)),
}


def toy_model() -> nn.Module:
    """The parts that recipes name, of float64 weights `[2, 3]`."""
    random = torch.Generator().manual_seed(0)
    model = nn.Module()
    for name in WEIGHTS:
        *owners, last = name.split(".")
        place = model
        for owner in owners:
            if not hasattr(place, owner):
                place.add_module(owner, nn.Module())
            place = place.get_submodule(owner)
        place.register_parameter(last, nn.Parameter(torch.randn(2, 3, generator=random, dtype=torch.float64)))
    return model


def limited(gradients: dict[str, Array], kind: str, most: float) -> dict[str, Array]:
    """Gradients as the released code limits them."""
    if kind == "value":
        return {name: g.clip(-most, most) for name, g in gradients.items()}
    depth = {"norm of each tensor": 9, "norm of each part": 1, "norm of all": 0}[kind]
    together: dict[str, float] = {}
    for name, g in gradients.items():
        group = ".".join(name.split(".")[:depth])
        together[group] = together.get(group, 0.0) + float((g * g).sum())
    return {
        name: g * min(1.0, most / (together[".".join(name.split(".")[:depth])] ** 0.5 + TORCH_ADDS))
        for name, g in gradients.items()
    }


def moved(training: TrainingSection, model: nn.Module, steps: Iterable[dict[str, Array]]) -> dict[str, Array]:
    """The weights after our steps."""
    optimizer = make_optimizer(training.optimizer, model)
    for gradients in steps:
        for name, parameter in model.named_parameters():
            parameter.grad = torch.from_numpy(gradients[name].copy())
        add_clipped_decay(optimizer)
        clip_gradients(model, training.clip_norm, training.clip_value, training.clip_norm_over)
        optimizer.step()
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_three_steps_of_a_recipe_are_those_of_the_released_rule(recipe: str) -> None:
    released, training = RELEASED[recipe], read_experiment(Path(recipe)).training
    model, random = toy_model(), np.random.default_rng(1)
    before = {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}
    steps = [{name: random.normal(size=(2, 3)) * scale for name in WEIGHTS} for scale in (0.02, 20.0, 0.3)]
    after = moved(training, model, steps)
    used = steps if released.limit is None else [limited(gradients, *released.limit) for gradients in steps]
    for name in WEIGHTS:
        expected = released.rule(before[name], [gradients[name] for gradients in used], *released.of(name))
        way = expected - before[name]
        np.testing.assert_allclose(after[name] - before[name], way, rtol=0, atol=1e-11 * np.abs(way).max())


def test_the_decay_outside_of_the_momentum_is_a_tenth_of_the_one_inside() -> None:
    """Without gradients, over many steps: (1 - r d)^n against the momentum's sum of ten times as much."""
    training = read_experiment(Path("vis_lstm")).training
    inside = training.model_copy(update={"optimizer": training.optimizer.model_copy(update={"decoupled": False})})
    nothing = [{name: np.zeros((2, 3)) for name in WEIGHTS}] * 400
    start = toy_model().get_parameter("fusion.recurrent.weight").detach().numpy()
    shares = [moved(one, toy_model(), nothing)["fusion.recurrent.weight"] / start for one in (training, inside)]
    np.testing.assert_allclose(shares[0], (1 - 0.8 * 5e-5) ** 400)
    assert (np.log(shares[1]) / np.log(shares[0])).mean() == pytest.approx(10, rel=0.03)
