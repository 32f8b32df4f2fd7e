"""The pages beside the README: links lead to files, and what stands in two files is the same in both."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from helpers.training import PROJECT

import vqa

PAGES = [
    PROJECT / name
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "experiments/RESULTS.md", "experiments/BENCHMARKS.md")
] + sorted((PROJECT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    """`vqa/…` and the like in the text; how-tos also name what their reader may add."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = re.findall(r"`((?:vqa|tests|docs)/[\w./]+)`", text)
    added = ("vqa/models/fusions/mine.py", "vqa/models/question_encoders/weighted.py")
    assert [name for name in named if name not in added and not (PROJECT / name).exists()] == []


def test_the_picture_of_the_floors_is_the_import_contract() -> None:
    """Rooms of one floor stand side by side, floors one below another in the contract's order."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]["layers"]
    floors = [[room.strip().removeprefix("vqa.") for room in floor.split("|")] for floor in contract]
    picture = (PROJECT / "docs/architecture.svg").read_text(encoding="utf-8")
    height = {name: int(y) for y, name in re.findall(r'class="name" x="\d+" y="(\d+)">(\w+)<', picture)}
    assert height.keys() == {room for floor in floors for room in floor} - {"__main__"}
    heights = [{height[room] for room in floor} for floor in floors if floor != ["__main__"]]
    assert all(len(floor) == 1 for floor in heights) and heights == sorted(heights, key=min)


def test_the_version_is_the_same_everywhere() -> None:
    cited = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == vqa.__version__
    assert f"\n## {vqa.__version__}" in (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
