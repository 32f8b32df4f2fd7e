"""What is read back of a trained run, changed in many ways: the same numbers as untouched, or one sentence."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.damage import PLAIN, KeptRun, changed, drop, places, put
from helpers.training import experiment, make_world
from safetensors.torch import load_file, save_file

from vqa.errors import InputError
from vqa.progress import quietly
from vqa.runs.evaluate import evaluate_run
from vqa.studies.table.figures import flat_accuracies
from vqa.studies.worker import run_and_evaluate
from vqa.training.run_folder import read_evaluation


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@dataclass
class Ended(KeptRun):
    """A finished and evaluated run."""

    found: dict[str, Any]

    def check(self, file: str, *, again: bool = True) -> bool:
        """Evaluate; True where that was refused in a sentence that names the file."""
        try:
            with quietly():
                if again:
                    evaluate_run(self.folder.path, "val", report=file == "metrics.jsonl")
                    found = read_evaluation(self.folder.evaluation("val"))
                else:
                    found = run_and_evaluate(self.plan, "val", "again")
        except InputError as error:
            assert file in str(error) and len(str(error)) < 1000
            return True
        assert flat_accuracies(found) == flat_accuracies(self.found)
        return False


@pytest.fixture(scope="module")
def ended(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    runs = tmp_path_factory.mktemp("ended")
    plan = experiment(world, runs, training={"epochs": 1})
    found = run_and_evaluate(plan, "val", "again")
    return Ended(plan, Path(shutil.copytree(plan.folder, runs / "kept")), found)


def test_records_changed_anywhere_are_refused_or_change_nothing(ended: Ended) -> None:
    content = yaml.safe_load((ended.kept / "experiment.yaml").read_text())
    random, refused = np.random.default_rng(0), 0
    every = list(places(content["recorded"]))
    for path in every:
        change = random.choice([drop, put(PLAIN[random.integers(len(PLAIN))])])  # type: ignore[arg-type]
        folder = ended.bring_back()
        folder.experiment.write_text(yaml.safe_dump(changed(content, ("recorded", *path), change)))
        refused += ended.check("experiment.yaml")
    assert refused > len(every) / 3
    for value in PLAIN:
        folder = ended.bring_back()
        folder.experiment.write_text(yaml.safe_dump(content | {"recorded": value}))
        assert ended.check("experiment.yaml")


@pytest.mark.parametrize("wrong", [torch.full((2,), torch.nan), torch.ones(2).long(), torch.ones(2).half()])
def test_weights_that_cannot_be_are_refused(ended: Ended, wrong: torch.Tensor) -> None:
    folder = ended.bring_back()
    weights, digest = load_file(folder.model), json.loads(folder.vocabulary.read_text())["digest"]
    name = sorted(weights)[-1]
    wrong = wrong[0].expand(weights[name].shape).contiguous()
    save_file(weights | {name: wrong}, folder.model, {"vocabulary": digest})
    assert ended.check("model.safetensors")


@pytest.mark.parametrize("key", ["regions", "channels"])
def test_another_shape_of_the_features_is_never_used(ended: Ended, key: str) -> None:
    folder = ended.bring_back()
    content = yaml.safe_load(folder.experiment.read_text())
    for value in (1, 5, 7, 1 << 20, 1 << 40):
        content["recorded"]["features"][key] = value
        folder.experiment.write_text(yaml.safe_dump(content))
        assert ended.check(str(folder.path)), value


def test_an_epoch_that_lacks_a_figure_is_named(ended: Ended) -> None:
    row = json.loads((ended.kept / "metrics.jsonl").read_text())
    for key in ("epoch", "train/loss", "val/open_ended/overall"):
        for change in (drop, put("x"), put(None)):
            if change is drop and key.startswith("val/"):
                continue  # as of a run without validation
            folder = ended.bring_back()
            folder.metrics.write_text(json.dumps(changed(row, (key,), change)))
            assert ended.check("metrics.jsonl")


@pytest.mark.parametrize("name", ["vocabulary.json", "evaluation_val.json"])
def test_json_changed_anywhere_is_refused_or_changes_nothing(ended: Ended, name: str) -> None:
    content = json.loads((ended.kept / name).read_text())
    every = [path for path in places(content) if len(path) < 4 and path[0] not in ("floors", "ceilings")]
    numbers = {("accuracy", task, key) for task in ("open_ended", "multiple_choice") for key in ("overall",)}
    refused = 0
    for path in every:
        for change in (put([{}]), put(-5)):
            folder = ended.bring_back()
            (folder.path / name).write_text(json.dumps(changed(content, path, change)))
            if path in numbers or name == "vocabulary.json" or path[0] != "accuracy":
                refused += ended.check(name, again=name == "vocabulary.json")
    assert refused > len(every) / 3


def seen_arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "seen.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


WRONG_DIGESTS: dict[str, Callable[[np.ndarray], Any]] = {
    "signed": lambda array: array.astype(np.int64),
    "fractions": lambda array: array.astype(np.float64),
    "words": lambda array: array.astype(str),
    "short": lambda array: array.astype(np.uint32),
    "empty": lambda array: array[:0],
    "two dimensions": lambda array: array[None],
    "one number": lambda array: array[0],
    "unsorted": lambda array: array[::-1],
    "twice": lambda array: np.repeat(array, 2),
}


@pytest.mark.parametrize("kind", WRONG_DIGESTS)
@pytest.mark.parametrize("name", ["question", "picture", "chosen_on"])
def test_digests_that_cannot_be_are_refused(ended: Ended, kind: str, name: str) -> None:
    if (kind, name) == ("empty", "chosen_on"):
        return  # as of a run without validation
    folder = ended.bring_back()
    arrays = seen_arrays(folder.path)
    np.savez(folder.seen, allow_pickle=False, **arrays | {name: WRONG_DIGESTS[kind](arrays[name])})
    assert ended.check("seen.npz")


def test_digests_that_are_objects_compressed_gone_or_endless_are_refused(ended: Ended) -> None:
    arrays = seen_arrays(ended.kept)
    folder = ended.bring_back()
    np.savez_compressed(folder.seen, **arrays)  # type: ignore[arg-type]
    assert ended.check("seen.npz")
    for name in arrays:
        np.savez(folder.seen, allow_pickle=False, **{key: array for key, array in arrays.items() if key != name})
        assert ended.check("seen.npz")
    whole = (ended.kept / "seen.npz").read_bytes()
    claimed = f"({len(arrays['question'])},), }}".encode()
    assert claimed in whole
    for content in (
        b"", b"PK", whole[:200], whole[:-30], whole.replace(b"'<u8'", b"'|O' "),
        whole.replace(claimed, claimed[:1] + b"9" * (len(claimed) - 5) + claimed[-4:]),
    ):  # fmt: skip
        folder.seen.write_bytes(content)
        assert ended.check("seen.npz")
