"""The typed signature of a constructor is the schema of its YAML section; this file holds a section against it.

`{name: stacked_attention, hops: 2}` becomes the class and every option of it, defaults filled in. Sizes that only the
data knows (vocabulary, channels, ...) are parameters of the constructor too, but not of the section: they are `given`.
An option of the type `Inner` is a section itself, of the same kind, and held against the constructor that it names.
"""

import inspect
from collections.abc import Collection, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from vqa.errors import InputError, first_line, quoted, unknown_name
from vqa.parts import find_part, require_subclass


class Bounds(NamedTuple):
    """The smallest number an option may be, and the number it must stay below."""

    least: float
    below: float | None = None


Count = Annotated[int, Bounds(1)]  # a width, a number of layers, hops, heads ...
Size = Annotated[int, Bounds(0)]  # a number of things that may be none
Words = Annotated[int, Bounds(1, 201)]  # of a question; 200 are read at the most (`vqa.text.vocabulary.MOST_WORDS`)
Rate = Annotated[float, Bounds(0, 1)]  # a dropout probability
Inner = Annotated[str | Mapping[str, Any], "section"]  # of the kind that it stands in: a name, or a name and options

LARGEST_FLOAT = 3.4028234663852886e38  # of 32 bits, in which torch computes

_REQUIRED = inspect.Parameter.empty


def check_options(
    kind: str,
    table: Mapping[str, type],
    section: Mapping[str, Any],
    *,
    given: Collection[str] = (),
    base: type | None = None,
) -> tuple[type, dict[str, Any]]:
    """Hold one section of an experiment against the constructor it names.

    Args:
        kind: what the table holds, for messages: "fusion", "loss", ...
        table: name to class.
        section: `name` and options, as read from YAML. Where the table has a single entry, `name` may be left out.
        given: parameters that the builder passes itself; the section may not set them.
        base: what a class from outside the table must be a subclass of (`vqa.parts`).

    Returns:
        The class, and all its options with the defaults filled in (without `name` and without `given`).

    Raises:
        InputError: unknown name or option, a value of the wrong type or out of bounds, or an option left out that has
            no default. The message names the right choices. Of a class from outside also: it cannot be imported, is
            no `base`, or its constructor is no schema of a section.
    """
    if not isinstance(section, Mapping):
        raise InputError(f"{kind} must be a mapping with a name and options, not {section!r}")
    name = section.get("name", next(iter(table)) if len(table) == 1 else None)
    if name is None:
        raise InputError(f"{kind} has no name; choose from: {', '.join(sorted(table))}")
    if not isinstance(name, str):
        raise InputError(unknown_name(kind, str(name), table))
    chosen, owner = find_part(kind, table, name), f"{kind} {name!r}"
    if base is not None:
        require_subclass(kind, name, chosen, base)
    parameters = {key: parameter for key, parameter in _schema(owner, chosen).items() if key not in given}
    _require_types(owner, parameters)
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
        if parameter.annotation == Inner:
            options[key] = _check_inner(owner, key, value, (kind, table, given, base))
            continue
        if not _fits(value, parameter.annotation):
            default = "" if parameter.default is _REQUIRED else f" (default {parameter.default!r})"
            wanted = describe_type(parameter.annotation)
            raise InputError(f"{owner}: {key} must be {wanted}{default}, not {quoted(value)}{_number_rule(value)}")
        options[key] = _convert(value, parameter.annotation)
    return chosen, options


def _check_inner(
    owner: str, key: str, value: Any, within: tuple[str, Mapping[str, type], Collection[str], type | None]
) -> dict[str, Any]:
    """A section inside another one, checked as that one is, with its name and all its options.

    Raises:
        InputError: what `check_options` finds, begun with where the section stands; or it has such sections itself.
    """
    kind, table, given, base = within
    if not isinstance(value, str | Mapping):
        raise InputError(f"{owner}: {key} must be {describe_type(Inner)}, not {quoted(value)}")
    section = as_section(value)
    name = section.get("name")
    choices = {choice: part for choice, part in table.items() if not inner_keys(part)}  # for the messages
    try:
        if isinstance(name, str) and inner_keys(find_part(kind, table if name in table else choices, name)):
            raise InputError(f"{kind} {name!r} has sections of its own inside; what stands here may have none")
        _, options = check_options(kind, choices, section, given=given, base=base)
    except InputError as error:
        raise InputError(f"{owner}: {key}: {error}") from None
    return {"name": name or next(iter(table)), **options}


def as_section(value: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """A plain name as the section that it stands for; a section as it is."""
    return {"name": value} if isinstance(value, str) else value


def inner_keys(part: Any) -> list[str]:
    """The options of a constructor that are sections themselves; none where its types cannot be read."""
    try:
        parameters = inspect.signature(part, eval_str=True).parameters
    except (NameError, TypeError, ValueError):  # `check_options` says so
        return []
    return [key for key, parameter in parameters.items() if parameter.annotation == Inner]


def takes(part: type, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the sizes that a constructor has a parameter for; it need not take what it has no use for."""
    named = inspect.signature(part).parameters
    return {key: value for key, value in sizes.items() if key in named}


def _schema(owner: str, part: type) -> dict[str, inspect.Parameter]:
    """The parameters of a constructor; raises InputError where a YAML section cannot set one of them."""
    try:
        parameters = inspect.signature(part, eval_str=True).parameters.values()
    except (NameError, TypeError, ValueError) as error:
        raise InputError(f"{owner}: the types of its constructor cannot be read: {first_line(error)}") from None
    kinds = {parameter.kind for parameter in parameters}
    if kinds == {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return {}  # a module without a constructor of its own shows that of torch.nn.Module
    for parameter in parameters:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise InputError(
                f"{owner}: its constructor must take every option by keyword, as in `def __init__(self, *, width: int "
                f"= 512)`; it has {parameter}"
            )
    return {parameter.name: parameter for parameter in parameters}


def _require_types(owner: str, parameters: Mapping[str, inspect.Parameter]) -> None:
    """Raise InputError where a type is not one that `_fits` can hold a value against."""
    for key, parameter in parameters.items():
        if not _is_known(parameter.annotation):
            said = "no type" if parameter.annotation is _REQUIRED else f"the type {parameter.annotation}"
            raise InputError(
                f"{owner}: its constructor gives {key} {said}; an option is an int, float, str, bool, Literal, "
                f"tuple[X, ...], Count, Size, Rate or Inner, or None besides"
            )


def _is_known(annotation: Any) -> bool:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation == Inner:
        return True
    if origin is Annotated:
        return len(arguments) == 2 and isinstance(arguments[1], Bounds) and _is_known(arguments[0])
    if origin in (Union, UnionType):
        return all(map(_is_known, arguments))
    if origin is tuple:
        return len(arguments) == 2 and arguments[1] is Ellipsis and _is_known(arguments[0])
    return origin is Literal or annotation in (int, float, str, bool, NoneType)


def describe_type(annotation: Any) -> str:
    """A type in words, for messages and help pages.

    >>> describe_type(Count | None)
    'int of at least 1, or null'
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation == Inner:
        return "a name, or a mapping with a name and options"
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
        return is_number(value)
    if annotation is int:
        return isinstance(value, int) and is_number(value)
    return isinstance(value, annotation)


def is_number(value: Any) -> bool:
    """Whether a value is an int that fits into 64 bits or a float into 32, as every number of an experiment must."""
    if isinstance(value, int):
        return not isinstance(value, bool) and -(2**63) <= value < 2**63
    return isinstance(value, float) and abs(value) <= LARGEST_FLOAT  # NaN is not, either


def _number_rule(value: Any) -> str:
    wrong = isinstance(value, int | float) and not isinstance(value, bool) and not is_number(value)
    return "; whole numbers fit into 64 bits, others are finite and fit into 32" if wrong else ""


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
