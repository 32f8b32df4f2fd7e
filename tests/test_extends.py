"""Files that extend others, and doubts about what an experiment asks for."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.training import values

from vqa.errors import InputError
from vqa.experiment import check_experiment, doubts, files_of, read_experiment
from vqa.overrides import override


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return written(tmp_path, "base.yaml", yaml.safe_dump(values(Path("world"), tmp_path)))


def test_a_file_changes_single_keys_of_the_one_it_extends(tmp_path: Path, base: Path) -> None:
    written(tmp_path, "sub/middle.yaml", "extends: ../base.yaml\nname: middle\nfusion: {hops: 3}\n")
    own = written(tmp_path, "own.yaml", "extends: sub/middle.yaml\ntraining: {epochs: 1, optimizer: {name: sgd}}\n")
    resolved = read_experiment(own, ["seed=4"]).resolved()
    assert (resolved["name"], resolved["seed"], resolved["fusion"]["hops"]) == ("middle", 4, 3)
    assert resolved["fusion"]["attention_dim"] == 8 and resolved["training"]["batch_size"] == 64
    assert resolved["training"]["optimizer"]["learning_rate"] == 0.01 and "extends" not in resolved
    assert files_of(own) == [own, tmp_path / "sub/middle.yaml", tmp_path / "sub/../base.yaml"]
    assert check_experiment(resolved, "again").resolved() == resolved


def test_another_part_has_options_of_its_own(tmp_path: Path, base: Path) -> None:
    plain = written(tmp_path, "a.yaml", "extends: base.yaml\nfusion: product\n")
    listed = written(tmp_path, "b.yaml", "extends: base.yaml\nfusion: {dropout: 0.1, name: product}\n")
    assert "hops" not in read_experiment(plain).fusion
    assert read_experiment(listed).fusion == read_experiment(plain).fusion | {"dropout": 0.1}


def test_a_recipe_is_extended_by_its_name(tmp_path: Path) -> None:
    own = read_experiment(written(tmp_path, "own.yaml", "extends: san\nname: own\n"))
    assert own.resolved() == read_experiment(Path("san")).resolved() | {"name": "own"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"own.yaml": "extends: own.yaml"}, "extends itself: .*own.yaml extends .*own.yaml"),
        (
            {"own.yaml": "extends: b.yaml", "b.yaml": "extends: own.yaml"},
            "own.yaml extends .*b.yaml extends .*own.yaml",
        ),
        ({"own.yaml": "extends: sann"}, "own.yaml: extends: sann: .*did you mean 'san'"),
        ({"own.yaml": "extends: [san]"}, "write a file or the name of a recipe"),
        ({"own.yaml": "extends: ablations/fusion"}, "an ablation file, which is no experiment"),
        ({"own.yaml": "extends: san\ntraining: {epoch: 3}"}, r"own.yaml \(extends .*san.yaml\): .*unknown key 'epoch'"),
        ({"own.yaml": "extends: san\nseed: {a: 1}"}, "own.yaml: .*'seed'|own.yaml.*seed"),
    ],
)
def test_what_cannot_be_extended_is_named(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        written(tmp_path, name, text)
    with pytest.raises(InputError, match=said):
        read_experiment(tmp_path / "own.yaml")


DOUBTFUL: dict[str, dict[str, Any]] = {
    "fusion=stacked_attention": {"regions": 1},
    "training.batch_size=500": {"questions": 499},
    "data={format: vqa_v2, root: r, holdout: 0.2, val: minival}": {},
    "training.optimizer.learning_rate=10": {},
    "training.optimizer.parts={fusion: {learning_rate: 5.0}}": {},
    "training.schedule={name: exponential, factor: 0.9}": {"questions": 64 * 100},
    "training.schedule.warmup=2": {},
    "training.schedule={name: step, factor: 0.1, at: [1, 5]}": {},
    "training.schedule={name: step, factor: 0.1, every: 2}": {},
    "training.patience=2": {},
}


@pytest.mark.parametrize(("changed", "known"), DOUBTFUL.items())
def test_what_can_hardly_be_meant_is_a_doubt_with_its_key(changed: str, known: dict[str, Any]) -> None:
    plain = values(Path("world"), Path("runs"))
    assert doubts(check_experiment(plain, "test"), regions=4, questions=640) == []
    (doubt,) = doubts(check_experiment(override(plain, [changed]), "test"), **known)
    assert changed.partition("=")[0].partition(".")[2].rpartition(".")[0] in doubt and len(doubt) > 40


def test_fusions_that_do_not_look_are_left_alone() -> None:
    plain = values(Path("world"), Path("runs"), fusion="product")
    assert doubts(check_experiment(plain, "test"), regions=1, questions=640) == []
