"""The typed signature of a constructor is the schema of its YAML section; this file holds a section against it.

`{name: stacked_attention, hops: 2}` becomes the class and every option of it, defaults filled in. Sizes that only the
data knows (vocabulary, channels, ...) are parameters of the constructor too, but not of the section: they are `given`.
"""

import inspect
from collections.abc import Collection, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from vqa.errors import InputError, unknown_name


class Bounds(NamedTuple):
    """The smallest number an option may be, and the number it must stay below."""

    least: float
    below: float | None = None


Count = Annotated[int, Bounds(1)]  # a width, a number of layers, hops, heads ...
Size = Annotated[int, Bounds(0)]  # a number of things that may be none
Rate = Annotated[float, Bounds(0, 1)]  # a dropout probability

_REQUIRED = inspect.Parameter.empty


def check_options(
    kind: str, table: Mapping[str, type], section: Mapping[str, Any], *, given: Collection[str] = ()
) -> tuple[type, dict[str, Any]]:
    """Hold one section of an experiment against the constructor it names.

    Args:
        kind: what the table holds, for messages: "fusion", "loss", ...
        table: name to class.
        section: `name` and options, as read from YAML. Where the table has a single entry, `name` may be left out.
        given: parameters that the builder passes itself; the section may not set them.

    Returns:
        The class, and all its options with the defaults filled in (without `name` and without `given`).

    Raises:
        InputError: unknown name or option, a value of the wrong type or out of bounds, or an option left out that has
            no default. The message names the right choices.
    """
    if not isinstance(section, Mapping):
        raise InputError(f"{kind} must be a mapping with a name and options, not {section!r}")
    name = section.get("name", next(iter(table)) if len(table) == 1 else None)
    if name is None:
        raise InputError(f"{kind} has no name; choose from: {', '.join(sorted(table))}")
    if not isinstance(name, str) or name not in table:
        raise InputError(unknown_name(kind, str(name), table))
    owner = f"{kind} {name!r}"
    # all options are keyword-only; a module without any shows the *args, **kwargs of torch.nn.Module
    keyword_only = {k: p for k, p in inspect.signature(table[name]).parameters.items() if p.kind is p.KEYWORD_ONLY}
    parameters = {key: parameter for key, parameter in keyword_only.items() if key not in given}
    for key in section:
        if key in given:
            raise InputError(f"{owner}: {key} follows from the data and cannot be set")
        if key != "name" and key not in parameters:
            known = f"the options of {owner}: {_describe_all(parameters)}"
            raise InputError(f"{unknown_name(f'option of {owner}', str(key), parameters)}\n{known}")
    options: dict[str, Any] = {}
    for key, parameter in parameters.items():
        if key not in section and parameter.default is _REQUIRED:
            raise InputError(f"{owner} needs {key}; its options: {_describe_all(parameters)}")
        value = section.get(key, parameter.default)
        if not _fits(value, parameter.annotation):
            default = "" if parameter.default is _REQUIRED else f" (default {parameter.default!r})"
            wanted = describe_type(parameter.annotation)
            raise InputError(f"{owner}: {key} must be {wanted}{default}, not {value!r}")
        options[key] = _convert(value, parameter.annotation)
    return table[name], options


def describe_type(annotation: Any) -> str:
    """A type in words, for messages and help pages.

    >>> describe_type(Count | None)
    'int of at least 1, or null'
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds: Bounds = arguments[1]
        below = "" if bounds.below is None else f" and below {bounds.below:g}"
        return f"{describe_type(arguments[0])} of at least {bounds.least:g}{below}"
    if origin in (Union, UnionType):
        return ", or ".join(describe_type(argument) for argument in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple:
        return f"a list, each {describe_type(arguments[0])}"
    return "null" if annotation is NoneType else str(annotation.__name__)


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value read from YAML is of the type; an int passes for a float, a bool for nothing but a bool."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds: Bounds = arguments[1]
        return _fits(value, arguments[0]) and value >= bounds.least and (bounds.below is None or value < bounds.below)
    if origin in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, arguments[0]) for item in value)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def _convert(value: Any, annotation: Any) -> Any:
    """Lists become tuples and ints become floats where the constructor says so."""
    if isinstance(value, list):
        return tuple(value)
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return float(value) if plain is float else value


def _describe_all(parameters: Mapping[str, inspect.Parameter]) -> str:
    """Every option with its type and default, on one line."""
    lines = []
    for key, parameter in parameters.items():
        default = "required" if parameter.default is _REQUIRED else f"default {parameter.default!r}"
        lines.append(f"{key} ({describe_type(parameter.annotation)}; {default})")
    return ", ".join(lines) or "none"
