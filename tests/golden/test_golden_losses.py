"""Training gives the numbers that it always gave: five recipes against stored losses and accuracies.

Most tests of training compare it with itself: resumed with uninterrupted, two processes with one. A formula that
changed for both would pass them; it does not pass here. `record.py` says when the stored numbers may be replaced.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
from helpers.golden import copy_old_files, differences, golden_losses, train_recipe
from helpers.golden_recipes import PRODUCT, RECIPES


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is a copy of the stored one."""
    folder = copy_old_files(tmp_path)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_its_golden_losses(inside: Path, name: str) -> None:
    assert differences(train_recipe(RECIPES[name], inside / "golden"), golden_losses()["recipes"][name]) == []


def changed(rows: list[dict[str, Any]], key: str, by: float) -> list[dict[str, Any]]:
    """The rows with one number of the last epoch changed by a share of it."""
    rows = copy.deepcopy(rows)
    rows[-1][key] *= 1 + by
    return rows


@pytest.mark.parametrize("name", RECIPES)
def test_a_changed_last_digit_passes_and_a_larger_change_does_not(name: str) -> None:
    golden = golden_losses()["recipes"][name]
    for by in (1e-6, -1e-6):
        assert differences(changed(golden, "train/loss", by), golden) == []
    for key, by in (("train/loss", 1e-4), ("learning_rate", 1e-6), ("val/open_ended/overall", 0.5)):
        assert len(differences(changed(golden, key, by), golden)) == 1
    assert differences(golden[:-1], golden) != []
    assert differences([{key: row[key] for key in row if key != "train/loss"} for row in golden], golden) != []


@pytest.mark.parametrize(
    "section",
    [
        {"fusion": PRODUCT["fusion"] | {"dropout": 0.25}},
        {"training": PRODUCT["training"] | {"optimizer": PRODUCT["training"]["optimizer"] | {"alpha": 0.9}}},
        {"loss": {"name": "soft_cross_entropy"}},
    ],
    ids=["dropout", "optimizer", "loss"],
)
def test_a_changed_formula_is_noticed(inside: Path, section: dict[str, Any]) -> None:
    """Public options stand in for changes of the code."""
    found = train_recipe(PRODUCT | section, inside / "golden")
    wrong = differences(found, golden_losses()["recipes"]["product"])
    assert sum("train/loss" in line for line in wrong) >= 8, wrong  # of 10 epochs
