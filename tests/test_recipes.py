"""Recipes by name: a file that is there goes first, a wrong name says what was near, a copy is the same experiment."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.recipes import ABLATIONS, EXPERIMENTS, PUBLISHED
from helpers.training import PROJECT

from vqa.errors import InputError
from vqa.experiment import read_experiment
from vqa.recipes import ABLATIONS_FIRST, copy_recipe, experiment_file, list_recipes, recipes, recipes_folder
from vqa.studies.grid import read_ablation

FOLDER = PROJECT / "experiments"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("san", "san"),
        ("san.yaml", "san"),
        ("experiments/san.yaml", "san"),
        ("daquar", "daquar"),
        ("ablations/daquar", "ablations/daquar"),
        ("fusion", "ablations/fusion"),
        ("product", "demo/product"),
        ("experiments/demo/product", "demo/product"),
    ],
)
def test_a_name_is_a_recipe(given: str, found: str) -> None:
    assert experiment_file(Path(given)) == FOLDER / f"{found}.yaml"


def test_an_ablation_is_looked_for_among_ablations_first() -> None:
    assert experiment_file(Path("daquar"), ABLATIONS_FIRST) == FOLDER / "ablations/daquar.yaml"
    assert experiment_file(Path("experiments/daquar.yaml"), ABLATIONS_FIRST) == FOLDER / "daquar.yaml"
    assert experiment_file(Path("san"), ABLATIONS_FIRST) == FOLDER / "san.yaml"


def test_a_file_that_is_there_goes_before_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "san").mkdir()
    assert experiment_file(Path("san")) == FOLDER / "san.yaml"  # a folder is no experiment
    (tmp_path / "san.yaml").touch()
    assert experiment_file(Path("san")) == experiment_file(Path("san.yaml")) == Path("san.yaml")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/mlb.yaml").touch()
    assert experiment_file(Path("experiments/mlb")) == Path("experiments/mlb.yaml")
    assert experiment_file(Path("mlb")) == FOLDER / "mlb.yaml"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mutn", r"mutn: no such file, and no recipe has that name \(did you mean 'mutan'.*`vqa recipes` lists them"),
        ("stacked", "did you mean 'stacked_attention'"),
        ("mine/san.yaml", "did you mean 'san', 'san_cnn'"),
        ("/none/san.yaml", "^/none/san.yaml: no such file$"),
    ],
)
def test_a_wrong_name_says_what_was_near(given: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        experiment_file(Path(given))


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_finds_its_base_from_any_folder(name: str) -> None:
    assert len(read_ablation(Path(name))[1]) >= 2


def test_a_base_in_the_current_folder_goes_first(tmp_path: Path) -> None:
    (tmp_path / "experiments/demo").mkdir(parents=True)
    text = (FOLDER / "demo/stacked_attention.yaml").read_text(encoding="utf-8")
    changed = text.replace("batch_size: 128", "batch_size: 31")
    (tmp_path / "experiments/demo/stacked_attention.yaml").write_text(changed, encoding="utf-8")
    assert read_ablation(Path("fusion"))[1][0].experiments[0].training.batch_size == 31


def test_a_mistake_is_blamed_on_the_file_and_the_hint_can_be_typed() -> None:
    with pytest.raises(InputError, match=r"fusion\.yaml: an ablation file .*`vqa ablate fusion` runs it"):
        read_experiment(Path("fusion"))
    with pytest.raises(InputError, match=r"san\.yaml: an experiment, .*`vqa train san` runs it"):
        read_ablation(Path("san"))


@pytest.mark.parametrize("to", [".", "mine.yaml", "new/folder", "with space.yaml"])
def test_a_copy_is_the_same_experiment_and_its_header_names_it(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_recipe("san", Path(to))
    assert copy == (Path(to) if to.endswith(".yaml") else Path(to) / "san.yaml")
    assert read_experiment(copy) == read_experiment(FOLDER / "san.yaml")
    command = "vqa train 'with space.yaml'" if " " in to else f"vqa train {copy}"
    assert capsys.readouterr().out.splitlines()[-1] == f"next: {command}"
    text = copy.read_text(encoding="utf-8")
    assert f"#   {command}\n" in text and "experiments/san.yaml" not in text
    with pytest.raises(InputError, match="is there already and was not changed"):
        copy_recipe("san", Path(to))
    assert copy.read_text(encoding="utf-8") == text


def test_a_copied_ablation_runs_over_the_same_base() -> None:
    copy = copy_recipe("fusion", Path())
    assert copy == Path("fusion.yaml")
    assert read_ablation(copy) == read_ablation(FOLDER / "ablations/fusion.yaml")
    with pytest.raises(InputError, match="did you mean 'fusion'"):
        copy_recipe("fusoin", Path())


def test_the_list_says_what_each_is_and_what_was_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_recipes(tmp_path / "recipes.json")
    printed = capsys.readouterr().out
    listed = {one["name"]: one for one in json.loads((tmp_path / "recipes.json").read_text(encoding="utf-8"))}
    assert listed.keys() >= {*EXPERIMENTS, *(f"ablations/{name}" for name in ABLATIONS)}
    for name, one in listed.items():
        assert f"  {name} " in printed and one["about"] in printed and one["about"][-1] not in ":"
        assert one["command"] == ("ablate" if "ablations/" in name else "train") and Path(one["file"]).is_file()
    assert all(listed[name]["published"] for name in PUBLISHED)
    assert listed["san"]["published"].endswith("name=san_v2.")
    assert "published: SAN(2, LSTM) 57.3 on the authors' val2 (train + val1)\n" in printed
    assert "(official leaderboard; protocol 2015)\n" in printed  # not cut inside the parentheses
    assert "al\n" not in printed  # nor after "et al."


def test_a_users_files_among_the_recipes_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recipes_folder() == FOLDER
    before = {recipe.name: recipe.path.read_bytes() for recipe in recipes()}
    shutil.copytree(FOLDER, tmp_path / "vqa/experiments", ignore=shutil.ignore_patterns("runs"))
    shutil.copy(FOLDER / "san.yaml", tmp_path / "vqa/experiments/mine.yaml")
    (tmp_path / "vqa/experiments/demo/damaged.yaml").write_bytes(b"# \xff")
    (tmp_path / "vqa/experiments/ablations/empty.yaml").touch()
    monkeypatch.setattr("vqa.recipes.files", lambda package: tmp_path / package)
    after = {recipe.name: recipe.path.read_bytes() for recipe in recipes()}
    assert after.items() > before.items()
    assert experiment_file(Path("san")) == tmp_path / "vqa/experiments/san.yaml"
    list_recipes()
