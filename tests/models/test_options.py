"""A constructor's typed signature as the schema of its section."""

from typing import Any, Literal

import pytest

from vqa.errors import InputError
from vqa.models import check_options, check_part, table_of
from vqa.models.model import SIZES
from vqa.models.options import Count, Rate, describe_type


class Thing:
    def __init__(
        self,
        *,
        size: int,
        width: Count,
        depth: Count = 2,
        rate: Rate = 0.5,
        scale: float = 1.0,
        shift: int = 0,
        on: bool = False,
        mode: Literal["mean", "max"] = "mean",
        widths: tuple[Count, ...] = (1, 2),
        path: str | None = None,
    ) -> None: ...


def checked(**section: Any) -> dict[str, Any]:
    chosen, options = check_options("thing", {"one": Thing, "two": Thing}, {"name": "one", **section}, given={"size"})
    assert chosen is Thing
    return options


def test_defaults_are_filled_in() -> None:
    assert checked(width=3) == {
        "width": 3,
        "depth": 2,
        "rate": 0.5,
        "scale": 1.0,
        "shift": 0,
        "on": False,
        "mode": "mean",
        "widths": (1, 2),
        "path": None,
    }


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("scale", 2, 2.0),
        ("rate", 0, 0.0),
        ("widths", [3, 4], (3, 4)),
        ("widths", [], ()),
        ("path", "x", "x"),
        ("shift", -3, -3),
    ],
)
def test_accepts_and_converts(key: str, value: Any, kept: Any) -> None:
    result = checked(width=3, **{key: value})[key]
    assert result == kept and type(result) is type(kept)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"width": "3"}, "thing 'one': width must be int of at least 1, not '3'"),
        ({"width": True}, "width must be int of at least 1, not True"),
        ({"width": 3.0}, "width must be int of at least 1, not 3.0"),
        ({"width": 3, "depth": 0}, r"depth must be int of at least 1 \(default 2\), not 0"),
        ({"width": 3, "rate": 1}, r"rate must be float of at least 0 and below 1 \(default 0.5\), not 1"),
        ({"width": 3, "rate": True}, "rate must be float"),
        ({"width": 3, "scale": True}, "scale must be float"),
        ({"width": 3, "on": 1}, "on must be bool"),
        ({"width": 3, "mode": "median"}, r"mode must be one of 'mean', 'max' \(default 'mean'\), not 'median'"),
        ({"width": 3, "widths": [1, "2"]}, "widths must be a list, each int of at least 1"),
        ({"width": 3, "widths": 4}, "widths must be a list"),
        ({"width": 3, "path": 4}, "path must be str, or null"),
        ({"width": 3, "dept": 4}, "(?s)option of thing 'one' 'dept' .did you mean 'depth'.*depth .int of at least 1"),
        ({"width": 3, "size": 4}, "size follows from the data and cannot be set"),
        ({}, "thing 'one' needs width; its options: width .int of at least 1; required"),
        ({"name": "tow"}, "unknown thing 'tow' .did you mean 'two'"),
        ({"name": None}, "thing has no name; choose from: one, two"),
        ({"name": ["one"]}, "unknown thing"),
    ],
)  # fmt: skip
def test_refuses(section: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked(**section)


def test_a_section_must_be_a_mapping() -> None:
    with pytest.raises(InputError, match="thing must be a mapping with a name and options, not 'one'"):
        check_options("thing", {"one": Thing}, "one")  # type: ignore[arg-type]


def test_the_only_entry_of_a_table_needs_no_name() -> None:
    assert check_options("thing", {"one": Thing}, {"width": 1}, given={"size"})[1]["width"] == 1


@pytest.mark.parametrize("kind", SIZES)
def test_every_constructor_states_types_that_its_own_defaults_keep(kind: str) -> None:
    for name in table_of(kind, {}):
        check_part(kind, {"name": name})


def test_types_in_words() -> None:
    assert describe_type(tuple[int, ...]) == "a list, each int"
    assert describe_type(Literal["a", "b"]) == "one of 'a', 'b'"
