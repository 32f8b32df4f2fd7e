"""The attributes of a feature cache: which there are, and what is wrong with those of a file."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import numpy as np

from vqa.data.images import COLOUR
from vqa.errors import first_line, shortened

FORMAT_VERSION = 1
LARGEST_SIZE = 100_000  # of an image's side in pixels
DEEPEST = 20  # mappings and lists within each other

# What a writer of such a file writes, by attribute.
REQUIRED = {
    "format_version": "the whole number 1",
    "encoder": "text, the name of the image encoder or one of your own",
    "layer": "text, the layer that was read or a name of your own",
    "image_size": f"a whole number, the side of the square images in pixels up to {LARGEST_SIZE:,}; 0 where unknown",
    "weights_sha256": "text, the SHA-256 of the encoder's weights, or unknown",
    "preprocessing": "JSON, a mapping that says how images were prepared, at least {}",
}
WHOLE_NUMBERS = ("format_version", "image_size")
OPTIONAL = ("weights", "weights_origin", "code", "arithmetic", "torch", "torchvision", "command", "base")
Positive = Annotated[float, msgspec.Meta(gt=0, le=float(np.finfo(np.float32).max))]  # what an image may hold


class Range(msgspec.Struct, forbid_unknown_fields=True):
    """`vqa.data.images.HighestValues` in JSON."""

    uint16: Positive
    int32: Positive
    float32: Positive


PREPROCESSING = {  # the keys that something depends on; others are only compared
    "resize": str,
    "resize_to": Annotated[int, msgspec.Meta(ge=1, le=LARGEST_SIZE)],
    "scaled_decoding": bool,
    "regions": str,
    "geometry": bool,
    "fisher": dict[str, Any],
    "background": Annotated[str, msgspec.Meta(pattern=f"^({COLOUR.pattern})$")],
    "range": Range,
}


@contextmanager
def reading(what: str, faults: list[str]) -> Iterator[None]:
    """The one place where whatever HDF5 raises on a damaged file becomes a fault in words."""
    try:
        yield
    except Exception as error:
        faults.append(f"{what}: {shortened(first_line(error))}")


def attribute_faults(values: Mapping[str, Any], whose: str = "") -> list[str]:
    """What is wrong with attributes that are there: their types, ranges and JSON.

    Args:
        values: single texts and numbers; `preprocessing` and `base` as JSON.
        whose: begins each sentence.
    """
    faults: list[str] = []
    for name, expected in REQUIRED.items():
        if name in values:
            value = values[name]
            right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_SIZE
            if not (right if name in WHOLE_NUMBERS else isinstance(value, str) and value):
                faults.append(f"{whose}attribute {name} is {shortened(str(value))}, expected {expected}")
    for name in OPTIONAL:
        if not isinstance(values.get(name, ""), str):
            faults.append(f"{whose}attribute {name} is {shortened(str(values[name]))}, expected text")
    for name in ("preprocessing", "base"):
        if isinstance(values.get(name), str) and values[name]:
            faults += [f"{whose}attribute {name}: {fault}" for fault in _json_faults(name, values[name])]
    return faults


def _json_faults(name: str, text: str) -> list[str]:
    """What is wrong with an attribute that is JSON."""
    faults: list[str] = []
    with reading("no JSON", faults):
        value = json.loads(text, parse_constant=_no_constant)
        if not isinstance(value, dict) or _too_deep(value):
            return ["must be a mapping, and not nested deeply"]
        if name == "preprocessing":
            return preprocessing_faults(value)
        below = {key: json.dumps(one) if isinstance(one, dict) else one for key, one in value.items()}
        missing = [f"{key} is missing" for key in REQUIRED if key not in below]
        return missing + attribute_faults({key: one for key, one in below.items() if key != "base"})
    return faults


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [one for some in inner for one in some if isinstance(one, dict | list)]
    return bool(level)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def preprocessing_faults(preprocessing: Mapping[str, Any]) -> list[str]:
    """One sentence for each key of the wrong type."""
    faults: list[str] = []
    for key, kind in PREPROCESSING.items():
        if key in preprocessing:
            with reading(f"{key} is {shortened(str(preprocessing[key]))}", faults):
                msgspec.convert(preprocessing[key], kind)
    return faults
