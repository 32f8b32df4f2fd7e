"""Grids of runs: what is refused before anything runs, what is not run again, and the table against numpy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.recipes import ABLATION_FILES
from helpers.training import PROJECT, interrupted_after, make_world, values

from vqa.errors import InputError, InterruptedRunError
from vqa.runs.evaluate import EvaluationOptions, evaluate_run
from vqa.studies.ablation import ablate
from vqa.studies.grid import read_ablation
from vqa.studies.table.figures import summarise
from vqa.tables import render_markdown


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def ablation_file(world: Path, folder: Path, **changes: Any) -> Path:
    (folder / "base.yaml").write_text(yaml.safe_dump(values(world, folder / "runs")), encoding="utf-8")
    content = {
        "name": "grid",
        "base": str(folder / "base.yaml"),
        "set": ["training.epochs=1"],
        "grid": {"fusion": [{"name": "question_only"}, {"name": "stacked_attention", "attention_dim": 8}]},
        "seeds": [0, 1],
    }
    path = folder / "ablation.yaml"
    kept = {key: value for key, value in (content | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(kept), encoding="utf-8")
    return path


def test_a_pretrained_encoders_path_makes_a_folder_name(world: Path, tmp_path: Path) -> None:
    encoders = [{"name": "hf:org/bert-base", "tuned": True}, {"name": "hf:/models/bert"}]
    path = ablation_file(world, tmp_path, grid={"question_encoder": encoders})
    assert [cell.label for cell in read_ablation(path)[1]] == ["hforg_bertbase_tunedTrue", "hf_models_bert"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grid": {"fusion": [{"name": "product"}, {"name": "prodct"}]}}, r"prodct.*unknown fusion"),
        ({"grid": {"fusion.hop": [1]}}, "did you mean 'hops'"),
        ({"grid": {"training.epochs": [1, "two"]}}, r"ablation\.yaml \(two\): training\.epochs"),
        ({"grid": {"name": ["a"]}}, r"grid\.name"),
        ({"grid": {"fusion": []}}, r"grid\.fusion.*at least 1"),
        ({"grid": None}, "either a grid or cells"),
        ({"seeds": [0, 0]}, "names a seed twice"),
        ({"seeds": ["one"]}, r"seeds\.0"),
        ({"seed": [1]}, r"'seed' \(did you mean 'seeds'\?\); choose from: allow_seen, base, baseline, cells"),
        ({"set": ["training.epoch=1"]}, "did you mean 'epochs'"),
        ({"base": "none.yaml"}, r"none\.yaml: no such file"),
        ({"name": "../up"}, "name"),
        ({"baseline": "product"}, r"ablation\.yaml: unknown baseline 'product'.*question_only"),
        ({"slices": ["count"]}, r"ablation\.yaml: slice 'count': write name=REGEX"),
    ],
)
def test_a_bad_grid_is_refused_before_anything_runs(
    world: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=f"(?s){said}"):
        ablate(ablation_file(world, tmp_path, **changes))
    assert not (tmp_path / "runs").exists()


def test_a_mistake_of_the_command_line_is_not_blamed_on_the_file(world: Path, tmp_path: Path) -> None:
    path = ablation_file(world, tmp_path, grid={"fusion": ["question_only", "product"]})
    assert [cell.label for cell in read_ablation(path, ["fusion=concat"])[1]] == ["question_only", "product"]
    with pytest.raises(InputError, match=r"^override 'training.epochs=two': training\.epochs: "):
        read_ablation(path, ["training.batch_size=8", "training.epochs=two"])


def test_an_option_that_does_not_fit_is_found_before_the_first_run(world: Path, tmp_path: Path) -> None:
    fusions = [{"name": "question_only"}, {"name": "block", "chunks": 3, "fusion_dim": 16}]
    path = ablation_file(world, tmp_path, grid={"fusion": fusions})
    with pytest.raises(InputError, match=r"ablation\.yaml \(block.*must be a multiple of chunks"):
        ablate(path)
    assert not (tmp_path / "runs").exists()


def test_a_fusion_that_needs_boxes_is_refused_before_the_first_run_where_there_are_none(
    world: Path, tmp_path: Path
) -> None:
    path = ablation_file(world, tmp_path, grid={"fusion": [{"name": "question_only"}, {"name": "counter"}]})
    with pytest.raises(
        InputError, match=r"ablation\.yaml \(counter\): .*cache\.h5: this fusion asks where the regions"
    ):
        ablate(path)
    assert not (tmp_path / "runs").exists()


def test_the_grid_is_every_combination_times_seeds(world: Path, tmp_path: Path) -> None:
    grid = {"fusion": [{"name": "concat"}, {"name": "product"}], "training.batch_size": [32, 64, 128]}
    _, cells = read_ablation(ablation_file(world, tmp_path, grid=grid), ["training.patience=3"])
    found = {(c.label, e.fusion["name"], e.training.batch_size, e.seed) for c in cells for e in c.experiments}
    names, sizes = ("concat", "product"), (32, 64, 128)
    assert found == {(f"{name}-{size}", name, size, seed) for name in names for size in sizes for seed in (0, 1)}
    assert {e.training.patience for c in cells for e in c.experiments} == {3}
    assert len({e.folder for c in cells for e in c.experiments}) == 12


def test_cells_that_would_share_a_name_do_not_share_a_folder(world: Path, tmp_path: Path) -> None:
    grid = {"classifier": [{"hidden": [12]}, {"hidden": [1, 2]}]}
    _, cells = read_ablation(ablation_file(world, tmp_path, grid=grid))
    assert len({cell.label for cell in cells}) == len({cell.experiments[0].folder for cell in cells}) == 2


def test_runs_evaluates_tabulates_and_does_nothing_twice(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ablation_file(world, tmp_path)
    table, cost, measured = ablate(path, json_file=tmp_path / "copy.json")
    folder = tmp_path / "runs/grid"
    numbers = json.loads((folder / "ablation.json").read_text())
    assert numbers == json.loads((tmp_path / "copy.json").read_text())
    markdown = (folder / "ablation.md").read_text()
    assert markdown == render_markdown(table) + "\n" + render_markdown(cost)  # what is measured differs by machine
    assert (numbers["protocol"], numbers["data"], numbers["seen_in_training"]) == ("2021", "vqa_v2 val2014", [])
    assert "was used to choose the epoch" in numbers["model_choice"][0]

    label = "stacked_attention_attention_dim8"
    runs = [json.loads((folder / label / seed / "evaluation_val.json").read_text()) for seed in ("0", "1")]
    for figure, of in (
        ("open-ended", lambda run: run["unrounded"]["open_ended"]["overall"]),
        ("multiple-choice", lambda run: run["unrounded"]["multiple_choice"]["overall"]),
        ("open-ended, number", lambda run: run["unrounded"]["open_ended"]["per_answer_type"]["number"]),
        ("multiple-choice, yes/no", lambda run: run["unrounded"]["multiple_choice"]["per_answer_type"]["yes/no"]),
    ):
        cell = numbers["cells"][label][figure]
        assert cell["runs"] == [of(run) for run in runs]
        rounded = [of(run | {"unrounded": run["accuracy"]}) for run in runs]
        assert rounded == pytest.approx(cell["runs"], abs=0.005 + 1e-9)
        assert cell["mean"] == pytest.approx(np.mean(cell["runs"]))
        assert cell["std"] == pytest.approx(np.std(cell["runs"], ddof=1))
        assert f"{cell['mean']:.2f} ± {cell['std']:.2f}" in markdown
    assert "seeds 0, 1" in table.caption and "2021" in table.caption

    trained = {file: file.stat().st_mtime_ns for file in folder.glob("*/*/*")}
    with pytest.MonkeyPatch.context() as patched:  # tables of what is done need no memory for models, and no GPU
        patched.setattr("vqa.training.needs.free_memory", lambda _: 1000)
        assert ablate(path) == [table, cost, measured]
    assert {file: file.stat().st_mtime_ns for file in folder.glob("*/*/*")} == trained

    # an evaluation of one task, by another protocol, is not the table's
    evaluate_run(folder / label / "0", options=EvaluationOptions("open-ended", "2015"), report=False)
    assert ablate(path)[:2] == [table, cost]


def test_slices_make_a_second_table(world: Path, tmp_path: Path) -> None:
    one = {"grid": {"fusion": [{"name": "question_only"}]}}
    ablate(ablation_file(world, tmp_path, **one))
    path = ablation_file(world, tmp_path, slices=["counting=^how many", "nothing=zebra"], **one)
    overall, kinds, cost, _ = ablate(path)  # evaluated again, as the earlier evaluation has none of them
    folder = tmp_path / "runs/grid"
    found = []
    for seed in ("0", "1"):
        slices = json.loads((folder / f"question_only/{seed}/evaluation_val.json").read_text())["beyond_accuracy"][
            "slices"
        ]
        found.append(next(one for one in slices if one["name"] == "counting"))
    assert found[0]["count"] > 0 and kinds.columns[0].group == f"{found[0]['count']} questions"
    assert kinds.rows[0].values == (pytest.approx(np.mean([one["accuracy"] for one in found])), None)
    assert "counting: /^how many/" in kinds.caption and "protocol 2021" in kinds.caption
    assert (folder / "ablation.md").read_text() == "\n".join(map(render_markdown, (overall, kinds, cost)))
    before = (folder / "question_only/0/evaluation_val.json").stat().st_mtime_ns
    assert ablate(path)[:2] == [overall, kinds]
    assert (folder / "question_only/0/evaluation_val.json").stat().st_mtime_ns == before
    # the same name for other questions is another slice
    ablate(ablation_file(world, tmp_path, slices=["counting=."], **one))
    assert (folder / "question_only/0/evaluation_val.json").stat().st_mtime_ns != before


def test_an_interrupted_grid_says_how_to_go_on_and_does(world: Path, tmp_path: Path) -> None:
    path = ablation_file(world, tmp_path)
    with interrupted_after(1), pytest.raises(InterruptedRunError) as caught:
        ablate(path, ["training.patience=5"])
    assert str(caught.value).endswith(f"go on with: vqa ablate {path} training.patience=5")
    ablate(path, ["training.patience=5"])


def test_runs_without_validation_are_evaluated_on_another_split(world: Path, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(values(world, tmp_path / "runs", data={"val": None})))
    grid = {"name": "g", "base": str(tmp_path / "base.yaml"), "grid": {"fusion": ["concat"]}, "split": "val2014"}
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(grid | {"set": ["training.keep=last", "training.epochs=1"]}))
    table = ablate(tmp_path / "g.yaml")[0]
    assert "vqa_v2 val2014" in table.caption and "trained on all of train" in table.caption
    (tmp_path / "g.yaml").write_text(
        yaml.safe_dump(grid | {"name": "h", "split": "val", "set": ["training.keep=last"]})
    )
    with pytest.raises(InputError, match="names no val split"):
        ablate(tmp_path / "g.yaml")


def test_one_seed_has_no_deviation() -> None:
    evaluation = {"accuracy": {"open_ended": {"overall": 41.5, "per_answer_type": {"other": 3.0}}}}
    assert summarise({"a": [evaluation]}) == {
        "a": {
            "open-ended": {"mean": 41.5, "std": None, "runs": [41.5]},
            "open-ended, other": {"mean": 3.0, "std": None, "runs": [3.0]},
        }
    }


@pytest.mark.parametrize("path", ABLATION_FILES, ids=lambda path: path.name)
def test_every_ablation_of_the_project_loads(path: Path) -> None:
    ablation, cells = read_ablation(path)
    assert len(cells) >= 2 and (len(ablation.seeds) >= 2 or ablation.ranges)  # a sweep chooses among many cells


def test_cells_name_their_own_overrides(tmp_path: Path) -> None:
    base = PROJECT / "experiments/demo/product.yaml"
    text = (
        f"name: two\nbase: {base}\nseeds: [4]\ncells:\n"
        "  slow: [training.optimizer.learning_rate=0.5]\n  blind: ['fusion={name: question_only}']\n"
    )
    path = tmp_path / "two.yaml"
    path.write_text(text, encoding="utf-8")
    _, cells = read_ablation(path)
    assert [cell.label for cell in cells] == ["slow", "blind"]
    slow, blind = (cell.experiments[0] for cell in cells)
    assert (slow.name, slow.seed, slow.training.optimizer.learning_rate) == ("two/slow", 4, 0.5)
    assert blind.fusion["name"] == "question_only" and slow.fusion["name"] == "product"
    path.write_text(text + "grid: {seedless: [1]}\n", encoding="utf-8")
    with pytest.raises(InputError, match="either a grid or cells"):
        read_ablation(path)
