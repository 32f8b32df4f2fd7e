"""The tables of RESULTS.md and README are those that the kept numbers give, and their commands are commands."""

from pathlib import Path

import pytest
from results.numbers import ABLATIONS, FOLDER, read_numbers
from results.pages import MARKED, PAGES, rewritten

from vqa.experiment import read_experiment
from vqa.recipes import ABLATIONS_FIRST, experiment_file
from vqa.studies.grid import open_ablation

PROJECT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (PROJECT / FOLDER).glob("*.json"))


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_tables_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert MARKED.search(text)
    assert rewritten(text) == text, f"{page}: make results writes its tables anew"


def test_a_changed_number_is_seen() -> None:
    text = Path("README.md").read_text(encoding="utf-8")
    found = MARKED.search(text)
    assert found is not None
    row = found[0].splitlines()[3]
    assert rewritten(text.replace(row, row.replace("| ", "| 1", 1))) == text


def test_every_table_of_accuracies_is_between_marks() -> None:
    text = MARKED.sub("", Path("experiments/RESULTS.md").read_text(encoding="utf-8"))
    assert not [line for line in text.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("name", NAMES)
def test_each_row_has_a_command_that_repeats_it(name: str) -> None:
    numbers = read_numbers(name)
    if name == "demo":
        for label in numbers["cells"]:
            assert read_experiment(Path(f"experiments/demo/{label}.yaml")).name == label
        return
    assert name in ABLATIONS and numbers["repeat"] == f"vqa train ablations/{name} seed=S cell=…"
    ablation = open_ablation(experiment_file(Path(f"ablations/{name}"), ABLATIONS_FIRST))
    assert numbers["cells"].keys() <= {cell.label for cell in ablation.cells}
    assert ablation.file.cells, "a grid has no cells that a command could name"
    assert numbers["seeds"] == ablation.file.seeds
