"""Weights and run folders that are damaged or do not belong together: one message, nothing written over."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from helpers.training import experiment, folder_bytes, make_world
from safetensors.torch import load_file, save_file

from vqa.errors import InputError
from vqa.runs.load import load_run
from vqa.training.run_folder import RunFolder, load_model, open_run, read_metrics, save_model
from vqa.training.train import train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def folder(world: Path, tmp_path: Path) -> RunFolder:
    return train(experiment(world, tmp_path / "runs", training={"epochs": 1}))


def assert_refused(folder: RunFolder, said: str) -> None:
    before = folder_bytes(folder.path)
    with pytest.raises(InputError, match=said) as caught:
        load_run(folder.path)
    assert str(folder.path) in str(caught.value)
    assert folder_bytes(folder.path) == before


def test_a_run_comes_back_with_its_best_weights_in_eval_mode(folder: RunFolder) -> None:
    run = load_run(folder.path)
    weights = load_file(folder.model)
    assert not run.model.training
    assert all(torch.equal(value, weights[name]) for name, value in run.model.state_dict().items())
    assert (run.recorded["features"]["regions"], run.recorded["features"]["channels"]) == (4, 6)


def test_weights_of_another_vocabulary_are_refused(folder: RunFolder) -> None:
    run = load_run(folder.path)
    save_model(folder.model, run.model, "0" * 64)
    assert_refused(folder, "trained with another vocabulary")


def test_a_vocabulary_that_was_changed_is_refused(folder: RunFolder) -> None:
    content = json.loads(folder.vocabulary.read_text())
    content["answers"][0], content["answers"][1] = content["answers"][1], content["answers"][0]
    folder.vocabulary.write_text(json.dumps(content))
    assert_refused(folder, "changed or damaged")


@pytest.mark.parametrize("size", [0, 5, 100, -20])
def test_truncated_weights_are_refused(folder: RunFolder, size: int) -> None:
    folder.model.write_bytes(folder.model.read_bytes()[:size])
    assert_refused(folder, r"model\.safetensors: not a readable safetensors file")


def test_weights_of_another_shape_are_named(folder: RunFolder) -> None:
    digest = json.loads(folder.vocabulary.read_text())["digest"]
    weights = load_file(folder.model)
    name = sorted(weights)[0]
    save_file(weights | {name: torch.zeros(7)}, folder.model, metadata={"vocabulary": digest})
    assert_refused(folder, rf"weight '{name}' has shape \(7,\)")
    save_file({key: value for key, value in weights.items() if key != name}, folder.model, {"vocabulary": digest})
    assert_refused(folder, rf"weight '{name}' has shape None")
    save_file(weights, folder.model)
    assert_refused(folder, "another vocabulary")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vocabulary.json", r"vocabulary\.json: no such file"),
        ("model.safetensors", "no trained weights yet"),
        ("experiment.yaml", "not a run folder"),
    ],
)
def test_a_missing_file_is_named(folder: RunFolder, name: str, said: str) -> None:
    (folder.path / name).unlink()
    assert_refused(folder, said)


def test_an_experiment_without_its_records_is_refused(folder: RunFolder) -> None:
    text = folder.experiment.read_text()
    folder.experiment.write_text(text[: text.index("recorded:")])
    assert_refused(folder, r"experiment\.yaml: .*recorded")


def test_a_decoding_that_cannot_be_is_named(folder: RunFolder) -> None:
    text = folder.experiment.read_text()
    full = {"uint16": 1.0, "int32": 1.0, "float32": 1.0}
    ranges = [5, None, {"other": 1}, full | {"uint16": 0}, full | {"uint16": "x"}]
    wrong = [("background", value) for value in (5, None, "no colour")] + [("range", value) for value in ranges]
    for key, value in wrong:
        content = yaml.safe_load(text)
        content["recorded"]["features"]["preprocessing"][key] = value
        folder.experiment.write_text(yaml.safe_dump(content))
        assert_refused(folder, rf"experiment\.yaml: recorded\.features\.preprocessing: {key} is")


def test_the_folder_of_several_seeds_names_them(folder: RunFolder) -> None:
    with pytest.raises(InputError, match=rf"it holds these runs: {folder.path}"):
        open_run(folder.path.parent)


def test_equal_weights_give_equal_bytes_and_load_back(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    for name in ("a", "b"):
        save_model(tmp_path / name, model, "digest")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    other = torch.nn.Linear(3, 2)
    load_model(tmp_path / "a", other, "digest")
    assert torch.equal(other.weight, model.weight)


def test_a_half_written_last_line_of_metrics_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    assert read_metrics(tmp_path / "none") == []
