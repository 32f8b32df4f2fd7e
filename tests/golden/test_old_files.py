"""What an old version wrote is read, gone on with and judged as it was then: `tests/data/old`.

Users keep caches and runs for years. A later version that reads them but finds other numbers would be worse than one
that refuses them, so every number is compared. The files are never made anew (`tests/data/old/README.md`).
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.golden import GOLDEN, copy_old_files, differences, read_lines, vqa

from vqa.features.cache.reader import FeatureCache
from vqa.runs.load import load_run
from vqa.text.tokenize import tokenize, tokenize_latin

FINISHED, INTERRUPTED = Path("runs/old/0"), Path("runs/old/1")
RESULTS = ("results_val_open_ended.json", "results_val_multiple_choice.json")


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is a copy of the stored one, because all its paths are relative."""
    folder = copy_old_files(tmp_path)
    monkeypatch.chdir(folder)
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def numbers(value: Any, where: str = "") -> dict[str, float | None]:
    """Every number, truth value and null below nested mappings and lists, by its path.

    "pictures" and "images" are one word here, so that a key may be renamed from the first to the second.
    """
    if isinstance(value, dict):
        pairs = [(str(key).replace("pictures", "images"), inner) for key, inner in value.items()]
    elif isinstance(value, list):
        pairs = [(str(place), inner) for place, inner in enumerate(value)]
    else:
        return {} if isinstance(value, str) else {where: value}
    return {path: number for key, inner in pairs for path, number in numbers(inner, f"{where}/{key}").items()}


def test_the_cache_is_read() -> None:
    cache = FeatureCache(Path("cache.h5"))
    assert (len(cache), cache.regions, cache.channels) == (40, 25, 128) and cache.done_I.all()
    feature_NRC = cache.read(cache.rows(cache.image_ids)).double()
    assert feature_NRC.isfinite().all()
    weight_RC = torch.arange(25 * 128).reshape(25, 128) / (25 * 128)  # a sum that other places would change
    found = [feature_NRC.sum().item(), (feature_NRC * weight_RC).sum().item()]
    assert found == pytest.approx(read(GOLDEN / "cache.json")["sums"], rel=1e-9)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_cache_is_what_its_encoder_gives(split: str) -> None:
    printed = vqa("features", "check", "cache.h5", "--data", "data", "--format", "vqa_v2", "--split", split)
    assert "give the stored features again" in printed


def test_what_the_cache_states_is_shown() -> None:
    shown = json.loads(vqa("features", "info", "cache.h5"))
    assert (shown["encoder"], shown["layer"], shown["image_size"]) == ("squeezenet1_1", "features.4", 24)


def test_the_finished_run_is_evaluated_as_it_was() -> None:
    """Accuracies are counts and come out exactly; what sums probabilities may differ in its last digits."""
    answers = {name: read(FINISHED / name) for name in RESULTS}
    for name in (*RESULTS, "evaluation_val.json"):
        (FINISHED / name).unlink()
    vqa("evaluate", FINISHED)
    assert {name: read(FINISHED / name) for name in RESULTS} == answers
    found, golden = numbers(read(FINISHED / "evaluation_val.json")), numbers(read(GOLDEN / "evaluation.json"))
    assert len(golden) > 100
    assert {path: found.get(path, "missing") for path in golden} == {
        path: number if number is None else pytest.approx(number, rel=1e-5, abs=1e-6) for path, number in golden.items()
    }


def test_the_finished_run_is_left_as_it_is() -> None:
    before = {path: path.read_bytes() for path in FINISHED.iterdir()}
    assert "already trained" in vqa("train", "experiment.yaml")
    after = {path: path.read_bytes() for path in FINISHED.iterdir() if path.name != ".lock"}
    assert after == before


def test_the_interrupted_run_goes_on_as_if_it_had_not_been() -> None:
    golden = read(GOLDEN / "metrics_of_seed_1.json")
    assert len(read_lines(INTERRUPTED / "metrics.jsonl")) == len(golden) - 1
    assert "resumed in epoch 2 at step 26" in vqa("train", "experiment.yaml", "seed=1", "--resume")
    assert differences(read_lines(INTERRUPTED / "metrics.jsonl"), golden) == []
    assert read(INTERRUPTED / "finished.json")["best_epoch"] == 2


@pytest.mark.parametrize("row", range(6))
def test_the_finished_run_answers_as_it_did(tmp_path: Path, row: int) -> None:
    """Images are decoded and encoded anew, so probabilities may differ a little, and close answers change places."""
    golden = read(GOLDEN / "predictions.json")[row]
    vqa("predict", FINISHED, golden["image"], golden["question"], "--json", tmp_path / "said.json")
    said, expected = (
        {one["answer"]: one["probability"] for one in answer["best"]}
        for answer in (read(tmp_path / "said.json"), golden)
    )
    assert next(iter(said)) == next(iter(expected))
    assert said == {answer: pytest.approx(probability, abs=1e-3) for answer, probability in expected.items()}


def test_the_run_keeps_its_way_of_cutting_words() -> None:
    words = load_run(FINISHED).words
    assert words.cutter.name == "latin" and words.cut("क्या?") == tokenize_latin("क्या?") != tokenize("क्या?")
