"""The questions one can ask about a synthetic scene, and their true answers.

A question is a few wordings of the same thing and a function from a scene to the answer, or to None where the scene
leaves the answer open ("what color is the star" with two stars). `MIX` is the share of each kind of question.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from vqa.data.synthetic.scenes import COLORS, RADII, SHAPES, Scene, Thing

# Shares of the kinds of question. Most can be answered from what an image encoder sees in a region; those that need
# places, sizes or two things at once are fewer, and let the report show what a model cannot do.
MIX = {
    "presence": 0.16,  # is there a star
    "conjunction": 0.13,  # is there a red star
    "color": 0.155,  # what color is the star
    "shape": 0.16,  # what shape is the red thing
    "count": 0.095,  # how many stars are there
    "verify": 0.09,  # is the star red
    "count conjunction": 0.01,  # how many red stars are there
    "color conjunction": 0.07,  # what color is the big star
    "shape conjunction": 0.04,  # what shape is the small red thing
    "size": 0.02,  # is the star big or small
    "comparison": 0.025,  # are there more stars than circles
    "position": 0.02,  # what is left of the red circle
    "negation": 0.025,  # how many shapes are not red
}

CLEARLY = 0.12  # how far apart two centres must be for one to be left of (above, …) the other
BARELY = 0.03  # how far a thing may lie on a side without counting as being there


@dataclass(frozen=True)
class Question:
    """One question in several wordings.

    Attributes:
        kind: a key of `MIX`.
        wordings: the same question in other words, as people write it.
        answer: the true answer in a scene, or None where there is no single one.
    """

    kind: str
    wordings: tuple[str, ...]
    answer: Callable[[Scene], str | None]


@dataclass(frozen=True)
class Phrase:
    """The things a phrase speaks of: "big red star" is all three, "shape" with nothing set is every thing."""

    shape: str | None = None
    color: str | None = None
    size: str | None = None

    def matches(self, thing: Thing) -> bool:
        return (
            (self.shape is None or thing.shape == self.shape)
            and (self.color is None or thing.color == self.color)
            and (self.size is None or thing.size == self.size)
        )

    def of(self, scene: Scene) -> list[Thing]:
        return [thing for thing in scene.things if self.matches(thing)]

    def only(self, scene: Scene) -> Thing | None:
        """The one thing that is meant, or None when there is none or more than one."""
        found = self.of(scene)
        return found[0] if len(found) == 1 else None

    def phrase(self, noun: str = "shape") -> str:
        return " ".join(word for word in (self.size, self.color, self.shape or noun) if word)

    def plural(self, noun: str = "shape") -> str:
        return self.phrase(noun) + "s"

    def with_article(self, noun: str = "shape") -> str:
        phrase = self.phrase(noun)
        return ("an " if phrase[0] in "aeiou" else "a ") + phrase


EVERY_SHAPE = tuple(Phrase(shape=shape) for shape in SHAPES)
EVERY_COLOR = tuple(Phrase(color=color) for color in COLORS)
EVERY_PAIR = tuple(Phrase(shape=shape, color=color) for shape in SHAPES for color in COLORS)
EVERY_SIZED_SHAPE = tuple(Phrase(shape=shape, size=size) for shape in SHAPES for size in RADII)
EVERY_SIZED_COLOR = tuple(Phrase(color=color, size=size) for color in COLORS for size in RADII)
ANY = Phrase()


# The true answers.


def yes_or_no(truth: bool) -> str:
    return "yes" if truth else "no"


def is_there(which: Phrase, scene: Scene) -> str:
    return yes_or_no(bool(which.of(scene)))


def how_many(which: Phrase, scene: Scene) -> str:
    return str(len(which.of(scene)))


def attribute_of(which: Phrase, attribute: str, scene: Scene) -> str | None:
    thing = which.only(scene)
    return None if thing is None else getattr(thing, attribute)


def is_also(which: Phrase, claim: Phrase, scene: Scene) -> str | None:
    thing = which.only(scene)
    return None if thing is None else yes_or_no(claim.matches(thing))


def more_of(first: Phrase, second: Phrase, scene: Scene) -> str | None:
    """Whether there are more of the first; nobody would ask when there are none of both."""
    counts = len(first.of(scene)), len(second.of(scene))
    return yes_or_no(counts[0] > counts[1]) if any(counts) else None


def is_bigger(first: Phrase, second: Phrase, scene: Scene) -> str | None:
    one, other = first.only(scene), second.only(scene)
    return None if one is None or other is None or one.size == other.size else yes_or_no(one.size == "big")


def the_bigger(first: Phrase, second: Phrase, scene: Scene) -> str | None:
    bigger = is_bigger(first, second, scene)
    return None if bigger is None else (first if bigger == "yes" else second).phrase()


def toward(direction: str, thing: Thing, reference: Thing) -> float:
    """How far `thing` lies in that direction from `reference`, as a share of the image's side."""
    right, down = thing.x - reference.x, thing.y - reference.y
    return {"left of": -right, "right of": right, "above": -down, "below": down}[direction]


def is_toward(first: Phrase, direction: str, second: Phrase, scene: Scene) -> str | None:
    one, other = first.only(scene), second.only(scene)
    if one is None or other is None or one is other or abs(toward(direction, one, other)) < CLEARLY:
        return None
    return yes_or_no(toward(direction, one, other) > 0)


def what_is_toward(direction: str, which: Phrase, scene: Scene) -> str | None:
    """The shape of the one thing on that side, where every other thing is clearly not there."""
    reference = which.only(scene)
    if reference is None:
        return None
    there = [thing for thing in scene.things if thing is not reference and toward(direction, thing, reference) > BARELY]
    return there[0].shape if len(there) == 1 and toward(direction, there[0], reference) >= CLEARLY else None


def where_is(which: Phrase, scene: Scene) -> str | None:
    """The corner or the middle, None between them."""
    thing = which.only(scene)
    if thing is None:
        return None
    right, down = thing.x - 0.5, thing.y - 0.5
    if max(abs(right), abs(down)) < 0.09:
        return "middle"
    if min(abs(right), abs(down)) < 0.13:
        return None
    return f"{'bottom' if down > 0 else 'top'} {'right' if right > 0 else 'left'}"


def is_there_unlike(among: Phrase, claim: Phrase, scene: Scene) -> str | None:
    """Whether one of `among` is not `claim`; None when there is nothing to speak of."""
    things = among.of(scene)
    return yes_or_no(not all(claim.matches(thing) for thing in things)) if things else None


def how_many_unlike(claim: Phrase, scene: Scene) -> str:
    return str(sum(not claim.matches(thing) for thing in scene.things))


def color_unlike(claim: Phrase, scene: Scene) -> str | None:
    others = [thing for thing in scene.things if not claim.matches(thing)]
    return others[0].color if len(others) == 1 and len(scene.things) > 1 else None


# The wordings.


def every_question() -> Iterator[Question]:
    """Every question that the templates can make, in a fixed order."""
    for which in (*EVERY_SHAPE, *EVERY_COLOR):
        yield Question("presence", _presence_wordings(which), partial(is_there, which))
    for which in (*EVERY_PAIR, *EVERY_SIZED_SHAPE):
        yield Question("conjunction", _presence_wordings(which)[:2], partial(is_there, which))
    for which in (ANY, *EVERY_SHAPE, *EVERY_COLOR):
        yield Question("count", _count_wordings(which), partial(how_many, which))
    for which in EVERY_PAIR:
        yield Question("count conjunction", _count_wordings(which)[:1], partial(how_many, which))
    yield from _attributes()
    yield from _comparisons()
    yield from _positions()
    yield from _negations()


def _presence_wordings(which: Phrase) -> tuple[str, ...]:
    return (
        f"Is there {which.with_article()}?",
        f"Do you see {which.with_article()}?",
        f"Are there any {which.plural()}?",
        f"Is there {which.with_article()} in the picture?",
    )


def _count_wordings(which: Phrase) -> tuple[str, ...]:
    plural = which.plural()
    return (f"How many {plural} are there?", f"How many {plural} are in the picture?", f"How many {plural} do you see?")


def _attributes() -> Iterator[Question]:
    for which in EVERY_SHAPE:
        name = which.phrase()
        wordings: tuple[str, ...] = (
            f"What color is the {name}?",
            f"What is the color of the {name}?",
            f"What color is the {name} in the picture?",
            f"Name the color of the {name}.",
        )
        yield Question("color", wordings, partial(attribute_of, which, "color"))
        sizes = (f"Is the {name} big or small?", f"What size is the {name}?", f"How big is the {name}?")
        yield Question("size", sizes, partial(attribute_of, which, "size"))
    for which in EVERY_SIZED_SHAPE:
        wordings = (f"What color is the {which.phrase()}?", f"What is the color of the {which.phrase()}?")
        yield Question("color conjunction", wordings, partial(attribute_of, which, "color"))
    for which in EVERY_COLOR:
        name = which.phrase("thing")
        wordings = (f"What shape is the {name}?", f"What is the {name}?", f"Which shape is {which.color}?")
        yield Question("shape", wordings, partial(attribute_of, which, "shape"))
    for which in EVERY_SIZED_COLOR:
        wordings = (f"What shape is the {which.phrase('thing')}?", f"What is the {which.phrase('thing')}?")
        yield Question("shape conjunction", wordings, partial(attribute_of, which, "shape"))
    for pair in EVERY_PAIR:
        shape, color = Phrase(shape=pair.shape), Phrase(color=pair.color)
        yield Question("verify", (f"Is the {pair.shape} {pair.color}?",), partial(is_also, shape, color))
        claim = f"Is the {color.phrase('thing')} {shape.with_article()}?"
        yield Question("verify", (claim,), partial(is_also, color, shape))


def _comparisons() -> Iterator[Question]:
    for group in (EVERY_SHAPE, EVERY_COLOR):
        for first in group:
            for second in group:
                if first is not second:
                    wordings: tuple[str, ...] = (
                        f"Are there more {first.plural()} than {second.plural()}?",
                        f"Do you see more {first.plural()} than {second.plural()}?",
                    )
                    yield Question(
                        "comparison", wordings[: 2 if group is EVERY_SHAPE else 1], partial(more_of, first, second)
                    )
    for first in EVERY_SHAPE:
        for second in EVERY_SHAPE:
            if first is not second:
                one, other = first.phrase(), second.phrase()
                wordings = (f"Is the {one} bigger than the {other}?", f"Is the {one} larger than the {other}?")
                yield Question("comparison", wordings, partial(is_bigger, first, second))
                wordings = (f"Which is bigger, the {one} or the {other}?",)
                yield Question("comparison", wordings, partial(the_bigger, first, second))


def _positions() -> Iterator[Question]:
    for direction in ("left of", "right of", "above", "below"):
        to = f"to the {direction}" if direction.endswith("of") else direction
        for which in (*EVERY_SHAPE, *EVERY_PAIR):
            wordings: tuple[str, ...] = (
                f"What is {direction} the {which.phrase()}?",
                f"What shape is {to} the {which.phrase()}?",
            )
            yield Question("position", wordings, partial(what_is_toward, direction, which))
        for first in EVERY_SHAPE:
            for second in EVERY_SHAPE:
                if first is not second:
                    wordings = (f"Is the {first.phrase()} {direction} the {second.phrase()}?",)
                    yield Question("position", wordings, partial(is_toward, first, direction, second))
    for which in EVERY_SHAPE:
        wordings = (f"Where is the {which.phrase()}?", f"Where in the picture is the {which.phrase()}?")
        yield Question("position", wordings, partial(where_is, which))


def _negations() -> Iterator[Question]:
    for claim in EVERY_COLOR:
        wordings: tuple[str, ...] = (
            f"Is there a shape that is not {claim.color}?",
            f"Are there any shapes that are not {claim.color}?",
        )
        yield Question("negation", wordings, partial(is_there_unlike, ANY, claim))
        wordings = (f"How many shapes are not {claim.color}?",)
        yield Question("negation", wordings, partial(how_many_unlike, claim))
    for pair in EVERY_PAIR:
        wordings = (f"Is there a {pair.shape} that is not {pair.color}?",)
        among = Phrase(shape=pair.shape)
        yield Question("negation", wordings, partial(is_there_unlike, among, Phrase(color=pair.color)))
    for claim in EVERY_SHAPE:
        wordings = (f"What color is the shape that is not {claim.with_article()}?",)
        yield Question("negation", wordings, partial(color_unlike, claim))
