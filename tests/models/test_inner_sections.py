"""Sections inside a section, `score` and `join` of the fusion `attended`: as strict as those that they stand in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.outside import FUSION, install, write_module
from helpers.training import forgetting_imports, values
from hypothesis import given
from hypothesis import strategies as st

from vqa.errors import InputError
from vqa.experiment import check_experiment, check_recorded, outside_parts, read_experiment
from vqa.models import FUSIONS, check_options, names_inside, resolve_part
from vqa.models.options import Inner, describe_type, inner_keys
from vqa.overrides import assign, override, parse_assignments

KEYS = ("score", "join")


@pytest.fixture(autouse=True)
def forgotten(tmp_path: Path) -> Iterator[None]:
    """What a test imports from its folder is forgotten afterwards."""
    with forgetting_imports(tmp_path):
        yield


def attended(**options: Any) -> dict[str, Any]:
    return {"name": "attended", **options}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("mutn", "unknown fusion 'mutn' .did you mean 'mutan'.*; choose from: ban, "),
        ({"name": "mutn"}, "unknown fusion 'mutn' .did you mean 'mutan'"),
        ({"name": "mutan", "rnak": 3}, "(?s)unknown option of fusion 'mutan' 'rnak' .did you mean 'rank'.*rank .int"),
        ({"name": "mutan", "rank": "3"}, r"fusion 'mutan': rank must be int of at least 1 \(default 5\), not '3'"),
        ({"name": "mutan", "rank": 0}, "fusion 'mutan': rank must be int of at least 1"),
        ({"name": "mutan", "rank": True}, "fusion 'mutan': rank must be int of at least 1"),
        ({"name": "mutan", "dropout": 1}, "fusion 'mutan': dropout must be float of at least 0 and below 1"),
        ({"name": "mutan", "dropout": float("nan")}, "fusion 'mutan': dropout must be float"),
        ({"name": "mutan", "image_dim": 5}, "fusion 'mutan': image_dim follows from the data and cannot be set"),
        ({"name": "mutan", "regions": 5}, "fusion 'mutan': regions follows from the data and cannot be set"),
        ({"rank": 3}, "fusion has no name; choose from: ban, "),
        ({}, "fusion has no name; choose from: ban, "),
        ({"name": None}, "fusion has no name"),
        ({"name": ["mutan"]}, "unknown fusion .*; choose from: ban, "),
        ({"name": "mutan", 5: 3}, "unknown option of fusion 'mutan' '5'"),
        (None, "must be a name, or a mapping with a name and options, not None"),
        (5, "must be a name, or a mapping with a name and options, not 5"),
        (True, "must be a name, or a mapping"),
        (["mutan"], "must be a name, or a mapping with a name and options, not .'mutan'"),
        ("", "unknown fusion ''; choose from: ban, "),
        ("attended", "fusion 'attended' has sections of its own inside; what stands here may have none"),
        ({"name": "attended", "score": "attended"}, "what stands here may have none"),
        ("nowhere.mine:Mine", "there is no module 'nowhere'"),
        ("builtins:dict", "fusion 'builtins:dict' must be a subclass of vqa.models.contracts.Fusion"),
        ({"name": "nowhere:"}, "write code from outside as module:Class"),
    ],
)  # fmt: skip
def test_refuses(key: str, section: Any, message: str) -> None:
    begin = f"^fusion 'attended': {key}"
    with pytest.raises(InputError, match=message) as caught:
        resolve_part("fusion", attended(**{key: section}))
    assert str(caught.value).startswith(begin[1:])
    plan = values(Path("nowhere"), Path("nowhere")) | {"fusion": attended(**{key: section})}
    with pytest.raises(InputError, match=f"e.yaml: {begin[1:]}"):
        check_experiment(plan, "e.yaml")


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
SECTIONS = ANYTHING | st.fixed_dictionaries(
    {"name": st.sampled_from([*FUSIONS, "mutn"])},
    optional={"fusion_dim": PLAIN, "glimpses": PLAIN, "dropout": PLAIN, "score": PLAIN, "nothing": PLAIN},
)


@given(SECTIONS, st.sampled_from(KEYS))
def test_a_section_inside_passes_if_it_passes_alone(section: Any, key: str) -> None:
    """Whatever stands there is resolved, or refused with one sentence, exactly as the same section on its own."""
    try:
        alone: dict[str, Any] | str = resolve_part("fusion", {"name": section} if isinstance(section, str) else section)
    except InputError as error:
        alone = str(error)
    if isinstance(alone, dict) and alone["name"] == "attended":
        alone = "nested"
    try:
        inside: Any = resolve_part("fusion", attended(**{key: section}))[key]
    except InputError as error:
        inside = str(error)
    if isinstance(alone, dict):
        assert inside == alone
    else:
        assert isinstance(inside, str) and inside.startswith(f"fusion 'attended': {key}")


def test_every_default_is_written_out_and_read_back(tmp_path: Path) -> None:
    plan = values(tmp_path, tmp_path) | {"fusion": attended(score="mcb", join={"name": "mfb", "factors": 3})}
    experiment = check_experiment(plan, "e.yaml")
    assert experiment.fusion["score"] == {"name": "mcb", "sketch_dim": 16000, "normalise_image": True}
    assert experiment.fusion["join"] == {
        "name": "mfb", "factors": 3, "fusion_dim": 1000, "normalise_image": True, "dropout": 0.1,
    }  # fmt: skip
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(experiment.resolved()), encoding="utf-8")
    assert read_experiment(tmp_path / "again.yaml") == experiment == check_recorded(experiment.resolved(), "e.yaml")


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["fusion.score.rank=3"], {"score": {"name": "mutan", "rank": 3}}),
        (["fusion.score.name=mcb"], {"score": {"name": "mcb"}}),
        (["fusion.score=mcb"], {"score": "mcb"}),
        (["fusion.join.factors=2"], {"join": {"name": "mfb", "factors": 2, "fusion_dim": 7}}),
        (["fusion.join=mfh"], {"join": {"name": "mfh"}}),
        (["fusion.join=mfb"], {"join": {"name": "mfb", "factors": 3, "fusion_dim": 7}}),
        (["fusion.join.fusion_dim=5", "fusion.join=mfh"], {"join": {"name": "mfh", "fusion_dim": 5}}),
        (["fusion.join=mfh", "fusion.join.order=3"], {"join": {"name": "mfh", "order": 3}}),
        (["fusion.join={name: mcb}"], {"join": {"name": "mcb"}}),
        (["fusion.glimpses=4"], {"glimpses": 4}),
    ],
)
def test_overrides_reach_inside(assignments: list[str], expected: dict[str, Any]) -> None:
    fusion = attended(score="mutan", join={"name": "mfb", "factors": 3, "fusion_dim": 7}, glimpses=2)
    assert override({"fusion": fusion}, assignments) == {"fusion": fusion | expected}


def test_another_fusion_drops_the_sections_inside() -> None:
    before = {"fusion": attended(score="mutan", join={"name": "mfb", "factors": 3})}
    given = parse_assignments(["fusion.dropout=0.1", "fusion=mlb"])
    assert assign(before, given) == {"fusion": {"name": "mlb", "dropout": 0.1}}


def test_a_mistake_inside_is_blamed_on_the_override(tmp_path: Path) -> None:
    plan = values(tmp_path, tmp_path) | {"fusion": attended(score="mutan")}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    with pytest.raises(InputError, match=r"^override 'fusion.score.rnak=3': fusion 'attended': score: unknown option"):
        read_experiment(tmp_path / "e.yaml", ["fusion.glimpses=3", "fusion.score.rnak=3"])


def test_code_from_outside_is_found_inside_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_module(tmp_path, "inmost", FUSION)
    plan = values(tmp_path, tmp_path) | {"fusion": attended(score={"name": "inmost:Mine", "width": 4}, join="mutan")}
    experiment = check_experiment(plan, "e.yaml")
    assert outside_parts(experiment) == {"fusion.score": "inmost:Mine"}
    assert experiment.fusion["score"] == {"name": "inmost:Mine", "width": 4, "scale": 1.0}
    with pytest.raises(InputError, match="score: fusion 'inmost:Mine': width must be int of at least 1"):
        check_experiment(plan | {"fusion": attended(score={"name": "inmost:Mine", "width": 0})}, "e.yaml")


OUTER = """
from vqa.models import Fusion
from vqa.models.options import Inner
class Outer(Fusion):
    def __init__(self, *, image_dim: int, join: Inner = "mutan") -> None: ...
"""


@pytest.mark.parametrize("section", ["trap:Mine", {"name": "trap:Mine"}])
@pytest.mark.parametrize("name", ["attended", "outer", "trap:Outer"])
def test_a_record_that_names_code_inside_is_told_and_the_code_not_run(
    name: str, section: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "ours", OUTER, {"vqa.fusions outer": "ours.part:Outer"})
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    write_module(tmp_path, "trap", "raise RuntimeError('imported')\n")
    plan = values(tmp_path, tmp_path) | {"fusion": {"name": name, "join": section}}
    found = outside_parts(check_recorded(plan, "e.yaml"))
    outer = {} if name == "attended" else {"fusion": name}
    # inside code that needs permission anyway a plain name may be any option
    inside = {} if name == "trap:Outer" and isinstance(section, str) else {"fusion.join": "trap:Mine"}
    assert found == outer | inside


@pytest.mark.parametrize("key", KEYS)
def test_a_language_model_does_not_run_inside(key: str) -> None:
    plan = values(Path("nowhere"), Path("nowhere")) | {"fusion": attended(**{key: "prefix_lm"})}
    said = f"e.yaml: fusion 'attended': {key} cannot be 'prefix_lm', which runs a language model itself"
    with pytest.raises(InputError, match=said):
        check_experiment(plan, "e.yaml")


class Nested:
    def __init__(self, *, size: int, inner: Inner, other: Inner = "one", width: int = 2) -> None: ...


class One:
    def __init__(self, *, size: int, width: int = 2) -> None: ...


def test_a_table_of_ones_own() -> None:
    table: dict[str, type] = {"nested": Nested, "one": One}
    _, options = check_options("thing", table, {"name": "nested", "inner": {"name": "one", "width": 5}}, given={"size"})
    assert options == {"inner": {"name": "one", "width": 5}, "other": {"name": "one", "width": 2}, "width": 2}
    with pytest.raises(InputError, match=r"thing 'nested' needs inner; its options: inner .a name, or a mapping"):
        check_options("thing", table, {"name": "nested"}, given={"size"})
    assert inner_keys(Nested) == ["inner", "other"] and inner_keys(One) == [] and inner_keys(dict) == []
    assert describe_type(Inner) == "a name, or a mapping with a name and options"


def test_names_inside() -> None:
    assert names_inside("fusion", attended(score="mcb", join={"name": "mine:Mine"})) == {
        "score": "mcb",
        "join": "mine:Mine",
    }
    assert names_inside("fusion", {"name": "product"}) == names_inside("fusion", {"name": "no such"}) == {}
    assert names_inside("classifier", {}) == {}
