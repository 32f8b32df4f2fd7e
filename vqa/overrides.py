"""Experiments as plain values: the YAML that they are written in, and `key.path=value`, which changes single keys."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vqa.errors import InputError, quoted, shortened
from vqa.files import read_bytes

LARGEST_YAML = 1 << 20  # bytes of a file; those that come with vqa have a thousandth
MOST_VALUES = 20_000  # that one file stands for, aliases followed
DEEPEST = 50  # sections in sections
LONGEST_MESSAGE = 1_000  # letters of what the YAML reader says
NAMED_PARTS = ("question_encoder", "fusion", "loss")  # sections for which a plain name may stand: `fusion: product`


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that 1e-3 is a number, as people expect, and a key may be there only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises InputError that names the file and, where YAML is wrong, the line."""
    value = load_yaml(read_bytes(path, LARGEST_YAML), str(path))
    if not isinstance(value, dict):
        raise InputError(f"{path}: an experiment is a mapping of sections, not {type(value).__name__}")
    return value


def load_yaml(text: str | bytes, name: str) -> Any:
    """The plain values that YAML stands for; raises InputError that begins with `name` and says what is wrong."""
    try:
        value = yaml.load(text.decode("utf-8-sig") if isinstance(text, bytes) else text, _Loader)
        _require_small(value)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: not UTF-8 ({error.reason} at byte {error.start:,}); save the file as UTF-8"
        ) from None
    except RecursionError:
        raise InputError(f"{name}: not valid YAML: nested too deep") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{name}: not valid YAML: {shortened(str(error), LONGEST_MESSAGE)}") from None
    return value


def _require_small(value: Any) -> None:
    """Raise ValueError where aliases make of a few lines more values than there is any use for, or one in itself."""
    count, level = 0, [(value, 0)]
    while level:
        value, depth = level.pop()
        inner = (
            [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
        )
        count += len(inner)
        if count > MOST_VALUES or depth > DEEPEST:
            raise ValueError(f"stands for more than {MOST_VALUES:,} values, or is nested deeper than {DEEPEST}")
        level += [(item, depth + 1) for item in inner]


class Assignment(NamedTuple):
    """One `key.path=value`.

    Attributes:
        path: the key, section by section.
        value: what it becomes.
        text: as it was given, for messages.
    """

    path: tuple[str, ...]
    value: Any
    text: str


def parse_assignments(given: Iterable[str | Assignment]) -> list[Assignment]:
    """Read `key.path=value` texts, values as YAML; raises InputError that quotes a wrong one."""
    return [one if isinstance(one, Assignment) else _parse(one) for one in given]


def _parse(text: str) -> Assignment:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"override {shortened(text)!r}: write key.path=value, as in training.epochs=5")
    return Assignment(tuple(key.strip().split(".")), load_yaml(value, f"override {shortened(text)!r}"), text)


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply `key.path=value` assignments, values read as YAML, to a copy; see `assign`.

    >>> override({"training": {"epochs": 3}}, ["training.epochs=5", "fusion={name: concat}"])
    {'training': {'epochs': 5}, 'fusion': {'name': 'concat'}}
    """
    return assign(values, parse_assignments(assignments))


def assign(values: Mapping[str, Any], assignments: Iterable[Assignment]) -> dict[str, Any]:
    """Apply assignments to a copy of `values`.

    Naming another question encoder, fusion or loss drops the options of the one before, which are not its own; those
    that the assignments themselves set are kept. So does a name inside one of them, as in `fusion.score=mutan`.

    >>> values = {"fusion": {"name": "stacked_attention", "hops": 2, "dropout": 0.1}}
    >>> assign(values, parse_assignments(["fusion.dropout=0.3", "fusion=product"]))
    {'fusion': {'name': 'product', 'dropout': 0.3}}
    """
    result: dict[str, Any] = {**values}
    given: set[tuple[str, ...]] = set()
    for path, value, text in assignments:
        try:
            if path[0] in NAMED_PARTS:
                result, path = _name_parts(result, path, value, given)
                given.add(path)
            result = replace_at(result, path, value)
        except InputError as error:
            raise InputError(f"override {shortened(text)!r}: {error}") from None
    return result


def _name_parts(
    values: dict[str, Any], path: tuple[str, ...], value: Any, given: Collection[tuple[str, ...]]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Make way for a value inside a part, or inside a part of that part.

    Returns:
        The values, in which plain names on the way have become sections, and a part that gets another name has lost its
        options; and where the value goes: of a name that stands for a section, to that section's name.
    """
    for depth in (1, 2):
        at = path[:depth]
        there = value_at(values, at)
        section = {} if there is None else as_section(there)
        if not isinstance(section, Mapping):
            break
        whole = path == at and isinstance(value, str) and (depth == 1 or isinstance(there, Mapping))
        if whole or path[depth:] == ("name",):
            if section.get("name") != value:
                kept = {one[depth] for one in given if one[:depth] == at and len(one) > depth}
                section = {"name": value, **{key: section[key] for key in section if key in kept}}
            return replace_at(values, at, section), (*at, "name")
        if len(path) > depth:
            values = replace_at(values, at, section)
    return values, path


def value_at(values: Any, path: Sequence[str]) -> Any:
    """What is at a path; None where nothing is."""
    for key in path:
        if not isinstance(values, Mapping):
            return None
        values = values.get(key)
    return values


def as_section(value: Any) -> Any:
    """A plain name as the section that it stands for; anything else as it is.

    >>> as_section("product")
    {'name': 'product'}
    """
    return {"name": value} if isinstance(value, str) else value


def differences_at(before: Any, now: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Where nested mappings differ: the key path, and both values; of another part its name alone.

    >>> list(differences_at({"a": 1, "fusion": {"name": "x", "n": 1}}, {"a": 2, "fusion": {"name": "y", "m": 1}}))
    [(('a',), 1, 2), (('fusion', 'name'), 'x', 'y')]
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*before, *now])
        if path and before.get("name") != now.get("name"):
            keys = {"name": None}  # the options of another fusion, say, are others
        for key in keys:
            yield from differences_at(before.get(key), now.get(key), (*path, key))
    elif before != now:
        yield path, before, now


def replace_at(values: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of nested mappings with `value` at `path`; missing sections are made."""
    head, *rest = path
    if not rest:
        return {**values, head: value}
    inner = values.get(head, {})
    if not isinstance(inner, Mapping):
        raise InputError(f"{head!r} holds {quoted(inner)}, not a section")
    return {**values, head: replace_at(inner, rest, value)}
