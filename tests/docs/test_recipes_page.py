"""docs/recipes.md: every recipe that repeats a publication is held against it by the whole list."""

import re

import pytest
from helpers.recipes import PUBLISHED
from helpers.training import PROJECT

PAGE = (PROJECT / "docs/recipes.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))
LIST = (
    "shapes", "parameters", "update rule", "starting values", "padding", "vocabulary", "tokeniser", "dropout's place",
    "resize", "epochs",
)  # fmt: skip


def test_every_published_recipe_has_its_section_in_order() -> None:
    assert list(SECTIONS) == sorted(PUBLISHED)


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_a_recipe_is_held_against_what_was_released_item_by_item(recipe: str) -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", SECTIONS[recipe], flags=re.MULTILINE))
    del rows["what"], rows["---"]
    assert tuple(rows) == LIST
    for item, said in rows.items():
        assert re.match(r"(as released|departs: |not stated: )", said), (item, said)
    assert re.search(r"^Beside (?:the|its) .+\.$", SECTIONS[recipe], flags=re.MULTILINE)


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_a_recipe_that_crops_says_so_where_it_is_extracted(recipe: str) -> None:
    header = (PROJECT / f"experiments/{recipe}.yaml").read_text(encoding="utf-8")
    cropped = "the middle 448 px" in SECTIONS[recipe]
    assert ("--resize centre-crop --resize-to" in header) == cropped
