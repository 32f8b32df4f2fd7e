"""Damaged files of a run folder: read back by evaluate, predict, submit, train --resume and ablate."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file

from faults.case import Case, thinned
from faults.mutate import UNFILES, as_json, damaged, replace_by
from faults.world import HALF, RUN

EITHER = frozenset({0, 2})
RESUME = ["train", "half.yaml", "--resume"]
AGAIN = ["train", "e.yaml", "--resume"]
EVALUATE = ["evaluate", RUN]
TRACKED = [*RESUME]
FILES = {
    "experiment.yaml": EVALUATE, "vocabulary.json": EVALUATE, "model.safetensors": EVALUATE, "seen.npz": EVALUATE,
    "state.pt": RESUME, "metrics.jsonl": RESUME, "environment.json": EVALUATE,
}  # fmt: skip
WRITTEN = (f"{HALF}/*",)  # what a run that goes on writes anew
EVALUATED = tuple(f"{RUN}/{name}" for name in ("report.html", "evaluation_*", "results_*"))


def change_state(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Alter what `state.pt` holds."""

    def prepare(folder: Path) -> None:
        path = folder / HALF / "state.pt"
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)

    return prepare


def change_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Alter `model.safetensors`, its stamp kept."""

    def prepare(folder: Path) -> None:
        from safetensors import safe_open

        path = folder / RUN / "model.safetensors"
        with safe_open(path, framework="pt") as file:
            stamps = file.metadata()
        weights = load_file(path)
        change(weights)
        save_file(weights, path, metadata=stamps)

    return prepare


def change_each(weights: dict[str, torch.Tensor], change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for name in weights:
        weights[name] = change(weights[name]).contiguous()


def moments(state: dict[str, Any]) -> dict[str, Any]:
    """The optimiser's numbers for its first weight."""
    found: dict[str, Any] = next(iter(state["optimizer"]["state"].values()))
    return found


def group(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = state["optimizer"]["param_groups"][0]
    return found


def put(where: str, key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    """Set a key of a section of the state; of the state itself where the section is ""."""
    return lambda state: (state[where] if where else state).update({key: value})


ODD = {
    "negative": -1, "far": 10**9, "huge": 10**30, "text": "x", "none": None, "list": [1], "nan": float("nan"),
    "infinity": float("inf"), "tensor": torch.zeros(3),
}  # fmt: skip
STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a moment of another shape": lambda state: moments(state).update(exp_avg=torch.zeros(3)),
    "a moment of one more axis": lambda state: moments(state).update(exp_avg_sq=torch.zeros(2, 3, 4)),
    "a moment of integers": lambda state: moments(state).update(exp_avg=moments(state)["exp_avg"].long()),
    "a moment of doubles": lambda state: moments(state).update(exp_avg=moments(state)["exp_avg"].double()),
    "a moment of NaN": lambda state: moments(state)["exp_avg"].fill_(float("nan")),
    "a moment that is empty": lambda state: moments(state).update(exp_avg=torch.zeros(0)),
    "a moment that is text": lambda state: moments(state).update(exp_avg="x"),
    "a moment missing": lambda state: moments(state).pop("exp_avg"),
    "a sparse moment": lambda state: moments(state).update(exp_avg=torch.zeros(3, 3).to_sparse()),
    "a step that is text": lambda state: moments(state).update(step="x"),
    "a step of another shape": lambda state: moments(state).update(step=torch.zeros(5)),
    "a negative step": lambda state: moments(state).update(step=torch.tensor(-5.0)),
    "no moments": put("optimizer", "state", {}),
    "moments that are a list": put("optimizer", "state", []),
    "moments of weights that are not": put("optimizer", "state", {999: {"step": torch.tensor(1.0)}}),
    "no groups": put("optimizer", "param_groups", []),
    "a group that is a number": put("optimizer", "param_groups", [5]),
    "a rate of NaN": lambda state: group(state).update(lr=float("nan")),
    "a rate that is text": lambda state: group(state).update(lr="x"),
    "betas that are one": lambda state: group(state).update(betas=(0.9,)),
    "params missing": lambda state: group(state).pop("params"),
    "params twice": lambda state: group(state).update(params=group(state)["params"] * 2),
    "another option": lambda state: group(state).update(amsgrad="yes"),
    "an optimiser that is a list": put("", "optimizer", []),
    "a model that is empty": put("", "model", {}),
    "a model that is a number": put("", "model", 5),
    "a model of NaN": lambda state: change_each(state["model"], lambda one: one.float() * float("nan")),
    "a model of integers": lambda state: change_each(state["model"], lambda one: one.long()),
    "a model of half": lambda state: change_each(state["model"], lambda one: one.half()),
    "a model of another shape": lambda state: change_each(state["model"], lambda one: one[:1]),
    "random missing": lambda state: state.pop("random"),
    "random of another length": put("random", "cpu", torch.zeros(7, dtype=torch.uint8)),
    "random of floats": put("random", "cpu", torch.zeros(5056)),
    "random that is text": put("random", "cpu", "x"),
    "random without cpu": lambda state: state["random"].clear(),
    "random of zeros": put("random", "cpu", torch.zeros(5056, dtype=torch.uint8)),
    "random that is a list": put("", "random", [1, 2]),
    "random of others a number": put("", "random_of_others", 5),
    "random of others odd": put("", "random_of_others", [{"cpu": 5}]),
    "a vocabulary of another run": put("", "vocabulary", "0" * 64),
    "a vocabulary that is a number": put("", "vocabulary", 5),
    "progress empty": put("", "progress", {}),
    "progress a list": put("", "progress", [1]),
    "progress with more": put("progress", "more", 1),
    "other keys": lambda state: [state.pop(key) for key in ("model", "optimizer", "progress")],
}
# A rate is set anew in every step, other processes' numbers are theirs; NaN may show as a loss that is not finite.
STATUS = {
    "random of zeros": {0, 2}, "a moment of doubles": {0, 2}, "a rate of NaN": {0, 2}, "a rate that is text": {0, 2},
    "random of others odd": {0, 2}, "random of others a number": {0, 2}, "a moment of NaN": {1, 2},
    "a model of NaN": {1, 2}, "another option": {0, 2},
}  # fmt: skip
MODELS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "int64": lambda weights: change_each(weights, lambda one: one.long()),
    "int8": lambda weights: change_each(weights, lambda one: one.to(torch.int8)),
    "bool": lambda weights: change_each(weights, lambda one: one.bool()),
    "float64": lambda weights: change_each(weights, lambda one: one.double()),
    "float16": lambda weights: change_each(weights, lambda one: one.half()),
    "NaN": lambda weights: change_each(weights, lambda one: one.float() * float("nan")),
    "infinite": lambda weights: change_each(weights, lambda one: one.float() + float("inf")),
    "one NaN": lambda weights: next(iter(weights.values())).view(-1)[:1].fill_(float("nan")),
    "of another shape": lambda weights: change_each(weights, lambda one: one[:1]),
    "without axes": lambda weights: change_each(weights, lambda one: one.sum()),
    "empty": lambda weights: weights.clear(),
    "one less": lambda weights: weights.pop(next(iter(weights))),
    "one more": lambda weights: weights.update(more=torch.zeros(3)),
    "a name of markup": lambda weights: weights.update({"[/b]\x1b[31m": torch.zeros(3)}),
}
LINES = {
    "5": "a number", '"x"': "text", "[]": "a list", "{}": "an empty mapping", "null": "null", "{": "broken",
    '{"step": "x"}': "a step of text", '{"step": -1}': "a negative step", '{"step": 1e999}': "an infinite step",
    '{"step": null}': "no step", "\x00\x01": "control characters", "[" * 100_000: "nested deep",
    '{"step": 1, "epoch": "x", "val/accuracy": []}': "odd values", "x" * 1_000_000: "a long line",
}  # fmt: skip


def cases() -> Iterator[Case]:
    yield from thinned(file_cases(), 2)
    for what, change in STATES.items():
        yield run_case(f"state, {what}", RESUME, change_state(change), STATUS.get(what, {2}))
    yield from thinned(progress_cases(), 2)
    for what, alter in MODELS.items():
        yield run_case(f"weights are {what}", EVALUATE, change_weights(alter), EITHER if "float" in what else {2})
    yield from experiment_cases()
    yield from thinned(json_cases(), 2)
    for line, what in LINES.items():
        yield run_case(f"metrics, a line that is {what}", RESUME, metrics_line(line), EITHER)
    yield from array_cases()
    yield from place_cases()


def file_cases() -> Iterator[Case]:
    """Files that are none."""
    for name, typed in FILES.items():
        for kind in UNFILES:
            if kind in ("byte order mark", "utf-16") and not name.endswith(".yaml"):
                continue

            def prepare(folder: Path, name: str = name, kind: str = kind, typed: list[str] = typed) -> None:
                replace_by(folder / (HALF if typed is RESUME else RUN) / name, kind)

            needed = name in ("vocabulary.json", "model.safetensors", "state.pt")
            anew = name == "state.pt" and kind in ("missing", "broken link")  # nothing to go on from: it begins anew
            status = frozenset({2}) if needed and not anew else EITHER
            yield run_case(f"{name} is {kind}", typed, prepare, status)


def progress_cases() -> Iterator[Case]:
    """How far a run has come, as `state.pt` says it."""
    for key in ("epoch", "step", "step_in_epoch", "best_accuracy", "best_epoch", "sums", "seconds", "shuffle"):
        for what, value in ODD.items():
            yield run_case(f"state, progress.{key} is {what}", RESUME, change_state(odd_progress(key, value)), EITHER)


def run_case(
    what: str,
    typed: list[str],
    prepare: Callable[[Path], object],
    allowed: frozenset[int] | set[int] = frozenset({2}),
) -> Case:
    """A damaged run: what it trained stays, whatever the command says."""
    may_change = {"train": WRITTEN, "evaluate": EVALUATED}.get(typed[0], ()) if 0 in allowed else ()
    return Case(f"run files: {typed[0]}, {what}", typed, prepare, frozenset(allowed), may_change)


def odd_progress(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(state: dict[str, Any]) -> None:
        state["progress"][key] = value

    return change


def metrics_line(line: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        path = folder / HALF / "metrics.jsonl"
        path.write_text(line + "\n" + path.read_text())

    return prepare


def experiment_cases() -> Iterator[Case]:
    """`experiment.yaml`, its recorded facts included."""

    def write(change: Callable[[dict[str, Any]], Any], resumed: bool) -> Callable[[Path], None]:
        def prepare(folder: Path) -> None:
            path = folder / (HALF if resumed else RUN) / "experiment.yaml"
            value = change(yaml.safe_load(path.read_text()))
            path.write_text(yaml.safe_dump(value))

        return prepare

    sample = {
        "seed": 0, "recorded": {"data": {"train": {"a": 1}}, "features": {"encoder": "x"}, "vocabulary": 1, "parts": {}}
    }  # fmt: skip
    odd: list[Any] = [None, 5, "x", [], {}, [[1]], {"x": {"y": "z"}}, {1: 2}, "\x1b[31m[/b]"]
    for place in (("recorded",), *((("recorded", key)) for key in sample["recorded"])):  # type: ignore[attr-defined]
        for number, value in enumerate(odd):

            def change(values: dict[str, Any], place: tuple[str, ...] = place, value: Any = value) -> Any:
                inner = values if len(place) == 1 else values["recorded"]
                inner[place[-1]] = value
                return values

            resumed = bool(number % 2)
            where = ".".join(place)
            yield run_case(
                f"experiment, {where} is {value!r:.20}", RESUME if resumed else EVALUATE, write(change, resumed), EITHER
            )
    for key in ("fusion", "training", "data", "name", "features", "classifier", "seed", "runs", "answers", "words"):
        emptied = write(partial(dict, **{key: None}), False)
        yield run_case(f"experiment, {key} is null", EVALUATE, emptied, EITHER)
    yield run_case("experiment, a list", EVALUATE, write(lambda values: [1], False))
    yield run_case("experiment, only recorded", EVALUATE, write(lambda v: {"recorded": v["recorded"]}, False))


def json_cases() -> Iterator[Case]:
    """The JSON files of a run."""
    for name, typed in (
        ("vocabulary.json", EVALUATE), ("finished.json", AGAIN), ("environment.json", EVALUATE),
        ("evaluation_val.json", ["ablate", "whole.yaml"]), ("tracking.json", TRACKED),
    ):  # fmt: skip
        sample: Any = {
            "vocabulary.json": {"words": ["what"], "answers": ["yes"], "format_version": 1},
            "finished.json": {"epoch": 1, "best": 50.0, "seconds": 1.0},
            "environment.json": {"vqa": "1"},
            "evaluation_val.json": {"accuracy": {"open_ended": {"overall": 50.0}}, "questions": 3},
            "tracking.json": {"wandb_id": "abc"},
        }[name]
        each = 4 if name == "vocabulary.json" else 2
        for what, value in damaged(sample, each):

            def prepare(folder: Path, name: str = name, value: Any = value) -> None:
                path = folder / (HALF if name == "tracking.json" else RUN) / name
                whole = json.loads(path.read_text()) if path.is_file() else {}
                path.write_bytes(as_json({**whole, **value} if isinstance(whole, dict) else value))
                _study(folder)

            yield run_case(f"{name}, {what}", typed, prepare, EITHER)


def _study(folder: Path) -> None:
    """An ablation whose one cell is trained already."""
    text = {"name": "tiny", "base": "e.yaml", "grid": {"training.batch_size": [64]}, "seeds": [0]}
    (folder / "whole.yaml").write_text(yaml.safe_dump(text))


def array_cases() -> Iterator[Case]:
    """`seen.npz`."""
    arrays: dict[str, Callable[[], dict[str, Any]]] = {
        "without arrays": lambda: {},
        "of floats": lambda: {"questions": np.zeros(3), "images": np.zeros(3)},
        "of text": lambda: {"questions": np.asarray(["x"]), "images": np.asarray(["y"])},
        "of objects": lambda: {"questions": np.asarray([{}, 1], dtype=object)},
        "of another shape": lambda: {"questions": np.zeros((2, 3, 4), dtype=np.uint64)},
    }
    for what, make in arrays.items():

        def prepare(folder: Path, make: Callable[[], dict[str, Any]] = make) -> None:
            with (folder / RUN / "seen.npz").open("wb") as file:
                np.savez(file, **make())

        yield run_case(f"seen.npz {what}", EVALUATE, prepare)


def place_cases() -> Iterator[Case]:
    """Run folders that are none."""
    for typed in ("evaluate", "predict", "submit"):
        more = ["0.png", "what?"] if typed == "predict" else []
        for what in ("nowhere", "data", "e.yaml", "runs", "runs/tiny", "/dev/null", "/proc/self", "n" * 4000, "a\x00b"):
            name = what[:20].replace("\x00", "NUL")
            yield Case(f"run files: {typed} {name}", [typed, what, *more])
    for what in ("dev", "../x", "", "a/b", "n" * 3000, "[/b]", "\x1b[31m"):
        yield Case(f"run files: evaluate --split {what[:10]!r}", ["evaluate", RUN, "--split", what])
    for regex in ("a", "=", "a=", "=(", "a=(", "a=[", "a=" + "(a+)+" * 30, "\x1b=x"):
        typed_slice = ["evaluate", RUN, "--slice", regex]
        yield Case(f"run files: evaluate --slice {regex[:10]!r}", typed_slice, allowed=EITHER,
                   may_change=(f"{RUN}/results_*", f"{RUN}/evaluation_*", f"{RUN}/report.html"))  # fmt: skip
    for cache in ("nowhere.h5", "e.yaml", "data", "/dev/zero"):
        yield Case(f"run files: evaluate --cache {cache}", ["evaluate", RUN, "--cache", cache])
    for given in (
        ["evaluate"], ["evaluate", RUN, "--hf", "x"], ["evaluate", "--hf", "nowhere/none"],
        ["evaluate", "--hf", "data", "--data", "data", "--format", "vqa_v2"], ["submit"],
        ["evaluate", RUN, "--prompt", "x"], ["evaluate", RUN, "--task", "none"], ["evaluate", RUN, "--protocol", "20"],
        ["evaluate", RUN, "--wordnet", "nowhere"], ["evaluate", RUN, "--wordnet", "data"],
    ):  # fmt: skip
        yield Case(f"run files: {' '.join(given)}", given)
