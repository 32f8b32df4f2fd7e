"""What stands where in a synthetic image: one to five coloured shapes, every one of them countable.

Lengths are shares of the image's side, so that a scene looks the same at 112 and at 224 pixels.
"""

import math
from dataclasses import dataclass
from random import Random

SHAPES = ("circle", "square", "triangle", "star", "moon")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "gray", "black")
RADII = {"small": (0.12, 0.13), "big": (0.165, 0.18)}  # half of a shape's width
NUMBER_OF_THINGS = {1: 0.18, 2: 0.34, 3: 0.28, 4: 0.15, 5: 0.05}
REPEAT_SHAPE, REPEAT_COLOR = 0.25, 0.25  # so that there is something to count
NEAREST = 0.85  # centres are at least this share of the two radii's sum apart, which bounds what overlap can hide
BORDER = 0.03


@dataclass(frozen=True)
class Thing:
    """One shape: what it is and where its centre stands (x to the right, y downward, both 0 to 1)."""

    shape: str
    color: str
    size: str
    x: float
    y: float
    radius: float
    angle: float  # degrees, small enough that a square stays a square


@dataclass(frozen=True)
class Scene:
    """An image's things; a later thing covers an earlier one."""

    things: tuple[Thing, ...]


def random_scene(random: Random) -> Scene:
    """Place one to five things; starts again in the rare case that one finds no room."""
    while True:
        (count,) = random.choices(list(NUMBER_OF_THINGS), weights=list(NUMBER_OF_THINGS.values()))
        things: list[Thing] = []
        while len(things) < count:
            thing = _place(random, things)
            if thing is None:
                break
            things.append(thing)
        else:
            return Scene(tuple(things))


def _place(random: Random, things: list[Thing]) -> Thing | None:
    shape, color = random.choice(SHAPES), random.choice(COLORS)
    if things and random.random() < REPEAT_SHAPE:
        shape = random.choice(things).shape
    if things and random.random() < REPEAT_COLOR:
        color = random.choice(things).color
    size = random.choice(list(RADII))
    radius = random.uniform(*RADII[size])
    edge = radius + BORDER
    for _ in range(40):
        x, y = random.uniform(edge, 1 - edge), random.uniform(edge, 1 - edge)
        if all(math.hypot(x - other.x, y - other.y) >= NEAREST * (radius + other.radius) for other in things):
            return Thing(
                shape, color, size, round(x, 4), round(y, 4), round(radius, 4), round(random.uniform(-6, 6), 1)
            )
    return None
