"""The pages beside the README: links lead to files, and what stands in two files is the same in both."""

import re
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


def test_the_version_is_the_same_everywhere() -> None:
    cited = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == vqa.__version__
    assert f"\n## {vqa.__version__}" in (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
