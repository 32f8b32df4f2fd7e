"""Experiments as plain values: the YAML that they are written in, and `key.path=value`, which changes single keys."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vqa.errors import InputError

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
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: an experiment is a mapping of sections, not {type(value).__name__}")
    return value


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
        raise InputError(f"override {text!r}: write key.path=value, as in training.epochs=5")
    try:
        return Assignment(tuple(key.strip().split(".")), yaml.load(value, _Loader), text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"override {text!r}: the value is not valid YAML: {error}") from None


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply `key.path=value` assignments, values read as YAML, to a copy; see `assign`.

    >>> override({"training": {"epochs": 3}}, ["training.epochs=5", "fusion={name: concat}"])
    {'training': {'epochs': 5}, 'fusion': {'name': 'concat'}}
    """
    return assign(values, parse_assignments(assignments))


def assign(values: Mapping[str, Any], assignments: Iterable[Assignment]) -> dict[str, Any]:
    """Apply assignments to a copy of `values`.

    Naming another question encoder, fusion or loss drops the options of the one before, which are not its own; those
    that the assignments themselves set are kept.

    >>> values = {"fusion": {"name": "stacked_attention", "hops": 2, "dropout": 0.1}}
    >>> assign(values, parse_assignments(["fusion.dropout=0.3", "fusion=product"]))
    {'fusion': {'name': 'product', 'dropout': 0.3}}
    """
    result: dict[str, Any] = {**values}
    given: dict[str, set[str]] = {part: set() for part in NAMED_PARTS}
    for path, value, text in assignments:
        part = path[0]
        if part in NAMED_PARTS:
            section = as_section(result.get(part, {}))
            if path[1:] == ("name",) or (len(path) == 1 and isinstance(value, str)):
                path = (part, "name")
                if isinstance(section, Mapping) and section.get("name") != value:
                    section = {"name": value, **{key: section[key] for key in section if key in given[part]}}
            elif len(path) > 1:
                given[part].add(path[1])
            result[part] = section
        try:
            result = replace_at(result, path, value)
        except InputError as error:
            raise InputError(f"override {text!r}: {error}") from None
    return result


def as_section(value: Any) -> Any:
    """A plain name as the section that it stands for; anything else as it is.

    >>> as_section("product")
    {'name': 'product'}
    """
    return {"name": value} if isinstance(value, str) else value


def replace_at(values: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of nested mappings with `value` at `path`; missing sections are made."""
    head, *rest = path
    if not rest:
        return {**values, head: value}
    inner = values.get(head, {})
    if not isinstance(inner, Mapping):
        raise InputError(f"{head!r} holds {inner!r}, not a section")
    return {**values, head: replace_at(inner, rest, value)}
