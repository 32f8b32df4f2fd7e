"""Scenes as images, in two looks: "real" (texture, light, shadow, blur, noise) and "abstract" (flat clip-art).

Legend: `H`, `W` an image's height and width in pixels, `3` red, green, blue.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from vqa.data.synthetic.scenes import Scene, Thing

PAINT = {
    "red": (206, 34, 38),
    "orange": (240, 126, 22),
    "yellow": (246, 216, 44),
    "green": (38, 150, 62),
    "blue": (36, 78, 206),
    "purple": (136, 52, 170),
    "gray": (132, 132, 134),
    "black": (26, 26, 28),
}
# Muted grounds that leave every paint visible.
GROUNDS = (
    (226, 214, 190),
    (198, 212, 222),
    (214, 222, 198),
    (232, 206, 200),
    (206, 200, 222),
    (236, 232, 222),
    (186, 206, 200),
    (212, 190, 160),
    (190, 186, 178),
)
SMOOTH = 4  # shapes are rendered this many times larger and averaged down
RIM = 0.11  # width of a thing's dark edge as a share of its radius
TEXTURE_SIDE = 512

Points = list[tuple[float, float]]
Bytes_HW3 = NDArray[np.uint8]
Floats_HW = NDArray[np.float32]


@lru_cache
def outline(shape: str) -> tuple[tuple[float, float], ...]:
    """A shape's corners around the origin, about two units wide."""
    turn = 2 * math.pi
    if shape == "circle":
        return tuple((math.cos(turn * i / 48), math.sin(turn * i / 48)) for i in range(48))
    if shape == "square":
        return ((-0.94, -0.94), (0.94, -0.94), (0.94, 0.94), (-0.94, 0.94))
    if shape == "triangle":
        return tuple((1.16 * math.sin(turn * i / 3), 0.16 - 1.16 * math.cos(turn * i / 3)) for i in range(3))
    if shape == "star":
        lengths = (1.14, 0.47)
        return tuple(
            (lengths[i % 2] * math.sin(turn * i / 10), -lengths[i % 2] * math.cos(turn * i / 10)) for i in range(10)
        )
    if shape == "moon":
        # A disc of radius 1.05 less one of radius 0.78 whose centre lies 0.5 to the left; their arcs meet at the tips.
        tip = (0.78**2 - 1.05**2 - 0.5**2) / (2 * 0.5)
        outer, inner = math.acos(tip / 1.05), math.acos((tip + 0.5) / 0.78)
        steps = [i / 12 - 1 for i in range(25)]
        rim = [(1.05 * math.cos(outer * t), 1.05 * math.sin(outer * t)) for t in steps]
        bite = [(0.78 * math.cos(inner * t) - 0.5, 0.78 * math.sin(inner * t)) for t in reversed(steps)]
        return tuple((x - 0.15, y) for x, y in rim + bite)
    raise ValueError(shape)


def corners(thing: Thing, scale: float, left: float = 0.0, top: float = 0.0) -> Points:
    """The thing's corners in pixels of a canvas `scale` pixels wide, seen from (left, top)."""
    cos, sin = math.cos(math.radians(thing.angle)), math.sin(math.radians(thing.angle))
    reach = thing.radius * scale
    return [
        (thing.x * scale - left + reach * (x * cos - y * sin), thing.y * scale - top + reach * (x * sin + y * cos))
        for x, y in outline(thing.shape)
    ]


# The abstract look.


def render_abstract(scene: Scene, size: int, rng: np.random.Generator) -> Image.Image:
    """Flat clip-art: one-coloured shapes with a dark line around them on a simple ground."""
    scale = size * 3
    canvas = Image.new("RGB", (scale, scale), _ground(rng))
    pen = ImageDraw.Draw(canvas)
    ABSTRACT_GROUNDS[rng.integers(len(ABSTRACT_GROUNDS))](pen, scale, rng)
    width = max(1.0, scale * 0.009)
    for thing in scene.things:
        points = corners(thing, scale)
        pen.polygon(points, fill=PAINT[thing.color])
        line = (110, 110, 110) if thing.color == "black" else (20, 20, 20)
        pen.line([*points, *points[:2]], fill=line, width=round(width), joint="curve")
    return canvas.reduce(3)


def _ground(rng: np.random.Generator) -> tuple[int, int, int]:
    return GROUNDS[rng.integers(len(GROUNDS))]


def _plain(pen: ImageDraw.ImageDraw, scale: int, rng: np.random.Generator) -> None:
    """Nothing but the ground's colour."""


def _floor(pen: ImageDraw.ImageDraw, scale: int, rng: np.random.Generator) -> None:
    edge = round(scale * rng.uniform(0.45, 0.8))
    pen.rectangle((0, edge, scale, scale), fill=_ground(rng))
    pen.rectangle((0, edge, scale, edge + scale // 60), fill=(150, 140, 130))


def _hills(pen: ImageDraw.ImageDraw, scale: int, rng: np.random.Generator) -> None:
    phase, waves, height = rng.uniform(0, 6), rng.uniform(2, 7), rng.uniform(0.5, 0.8)
    ridge = [(x * scale / 40, scale * (height + 0.06 * math.sin(phase + waves * x / 40))) for x in range(41)]
    pen.polygon([(0, scale), *ridge, (scale, scale)], fill=_ground(rng))


def _stripes(pen: ImageDraw.ImageDraw, scale: int, rng: np.random.Generator) -> None:
    step, lean = scale * rng.uniform(0.06, 0.14), rng.uniform(-1, 1)
    second = _ground(rng)
    for number in range(-12, 40, 2):
        left = number * step - abs(lean) * scale
        right = left + step
        slope = lean * scale
        pen.polygon([(left, 0), (right, 0), (right + slope, scale), (left + slope, scale)], fill=second)


ABSTRACT_GROUNDS: tuple[Callable[[ImageDraw.ImageDraw, int, np.random.Generator], None], ...] = (
    _plain,
    _floor,
    _hills,
    _stripes,
)


# The real look.


@lru_cache
def textures() -> dict[str, Floats_HW]:
    """Tiles of texture with mean 0 and deviation 1, the same for every data set: images take windows of them."""
    rng = np.random.default_rng(0)
    side = TEXTURE_SIDE

    def noise(height: int, width: int) -> Floats_HW:
        coarse = rng.standard_normal((height, width)).astype(np.float32)
        return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))

    grain = rng.standard_normal((side, side)).astype(np.float32)
    clouds = sum((noise(4 * 2**octave, 4 * 2**octave) / 2**octave for octave in range(5)), np.zeros((side, side)))
    wood = noise(96, 3) + 0.5 * noise(192, 6)
    across = np.arange(side, dtype=np.float32)
    weave = np.sin(across * 1.3)[:, None] * np.sin(across * 1.3)[None, :] + 0.5 * noise(64, 64)
    boards = np.where(across % 64 < 3, -3, 0)[:, None] + wood
    tiles = {"grain": grain, "clouds": clouds, "wood": wood, "cloth": weave, "boards": boards}
    return {name: ((tile - tile.mean()) / tile.std()).astype(np.float32) for name, tile in tiles.items()}


def window(name: str, height: int, width: int, rng: np.random.Generator) -> Floats_HW:
    """A random part of a texture, turned by a quarter half of the time."""
    tile = textures()[name]
    if height > TEXTURE_SIDE or width > TEXTURE_SIDE:
        times = -(-max(height, width) // TEXTURE_SIDE)
        tile = np.tile(tile, (times, times))
    if rng.random() < 0.5:
        tile = tile.T
    top, left = rng.integers(tile.shape[0] - height + 1), rng.integers(tile.shape[1] - width + 1)
    return tile[top : top + height, left : left + width]


def render_real(scene: Scene, size: int, rng: np.random.Generator) -> Image.Image:
    """As a camera might see shapes lying on a surface."""
    angle = rng.uniform(0, 2 * math.pi)
    toward_light = np.asarray((math.cos(angle), math.sin(angle)), dtype=np.float32)
    canvas = Image.fromarray(_surface(size, rng))
    for thing in scene.things:
        _lay_down(canvas, thing, size, toward_light, rng)
    light_HW = 1 + 0.12 * rng.uniform(0.3, 1) * _slope(size, size, toward_light)
    pixels_HW3 = np.asarray(canvas, dtype=np.float32) * (light_HW * rng.uniform(0.9, 1.06))[:, :, None]
    pixels_HW3 *= rng.uniform(0.97, 1.03, 3).astype(np.float32)
    blur = size / 112 * rng.uniform(0.1, 0.3)
    blurred = Image.fromarray(pixels_HW3.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur))
    noisy_HW3 = np.asarray(blurred, dtype=np.float32)
    noisy_HW3 += rng.uniform(0.5, 2.5) * window("grain", size, size, rng)[:, :, None]
    return Image.fromarray(noisy_HW3.clip(0, 255).astype(np.uint8))


def _slope(height: int, width: int, direction: NDArray[np.float32]) -> Floats_HW:
    """A plane that rises from about -1 to 1 toward `direction` (right, down)."""
    right = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    return right * direction[0] + down * direction[1]


def _surface(size: int, rng: np.random.Generator) -> Bytes_HW3:
    ground, shade = np.asarray(_ground(rng), dtype=np.float32), rng.uniform(0.8, 1.0)
    name = ("clouds", "wood", "cloth", "boards", "grain")[rng.integers(5)]
    relief_HW = window(name, size, size, rng) * rng.uniform(2, 5)
    return (ground * shade + relief_HW[:, :, None]).clip(0, 255).astype(np.uint8)


def _lay_down(
    canvas: Image.Image, thing: Thing, size: int, toward_light: NDArray[np.float32], rng: np.random.Generator
) -> None:
    """Draw one thing with its shadow, its own shading and a darker rim."""
    reach = math.ceil(thing.radius * size * 1.35) + 3
    left, top = round(thing.x * size) - reach, round(thing.y * size) - reach
    side = 2 * reach
    mask = _mask(thing, size, left, top, side, 0)
    shadow = mask.filter(ImageFilter.GaussianBlur(size * 0.018)).point(lambda value: value * 0.2)
    away = -toward_light * size * 0.022
    canvas.paste((24, 22, 20), (left + round(away[0]), top + round(away[1])), shadow)

    tint = rng.uniform(-9, 9, 1 if thing.color in ("gray", "black") else 3).astype(np.float32)  # gray has no hue
    paint = np.asarray(PAINT[thing.color], dtype=np.float32) + tint
    rim = 2.2 if thing.color == "black" else 0.22  # what lies on its own colour still shows its edge
    shading_HW = 1 + 0.14 * _slope(side, side, toward_light)
    grain_HW = window("clouds", side, side, rng) * 5
    body_HW3 = paint * shading_HW[:, :, None] + grain_HW[:, :, None]
    canvas.paste(_image(body_HW3 * rim), (left, top), mask)
    canvas.paste(_image(body_HW3), (left, top), _mask(thing, size, left, top, side, thing.radius * size * RIM))


def _image(pixels_HW3: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(pixels_HW3.clip(0, 255).astype(np.uint8))


def _mask(thing: Thing, size: int, left: int, top: int, side: int, rim: float) -> Image.Image:
    """The thing's smooth silhouette, less a rim, in a window of `side` pixels whose corner lies at (left, top)."""
    points = corners(thing, size * SMOOTH, left * SMOOTH, top * SMOOTH)
    large = Image.new("L", (side * SMOOTH, side * SMOOTH))
    pen = ImageDraw.Draw(large)
    pen.polygon(points, fill=255)
    if rim:
        pen.line([*points, *points[:2]], fill=0, width=max(1, round(2 * rim * SMOOTH)), joint="curve")
    return large.reduce(SMOOTH)


def render_image(scene: Scene, style: str, size: int, rng: np.random.Generator) -> Image.Image:
    """One scene in one of the looks.

    Args:
        scene: what stands where.
        style: "real" or "abstract".
        size: the image's side in pixels.
        rng: everything about the look that the scene does not say.

    Returns:
        An RGB image of `size` x `size` pixels.
    """
    return {"real": render_real, "abstract": render_abstract}[style](scene, size, rng)
