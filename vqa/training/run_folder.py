"""The run folder: everything that prediction, resuming and a reader of the results need, written atomically.

experiments/runs/<name>/<seed>/
    experiment.yaml     resolved, with the digests of data and caches
    seen.npz            digests of the questions and images trained on, for the contamination guard
    vocabulary.json     words and answers
    model.safetensors   the weights with the best validation accuracy so far; with `keep: last` the last, at the end
    state.pt            the last weights, optimiser, step and random states (read with weights_only=True)
    metrics.jsonl       one line an epoch, and one every so many steps
    tracking.json       the id that trackers have the run under, where there are any, and what they show of it
    environment.json    versions, git commit, machine
    .ablated_<split>.json  what an ablation found for a split; evaluations by hand leave it as it is
    failed.json         what a worker of an ablation says that the run failed with, until it is taken up again
    words_tokenizer.json   what cuts questions into words, with `words.tokenizer: hf:NAME`
    language_model/     configuration and tokenizer of a pretrained question encoder ("hf:...")
"""

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import vqa
from vqa.errors import InputError, first_line, shortened
from vqa.experiment import Experiment, check_recorded
from vqa.files import atomic_write, read_bytes, read_json, write_json
from vqa.models import is_pretrained
from vqa.overrides import read_yaml
from vqa.training.checkpoint import check_weights
from vqa.training.records import EpochRow, EvaluationRecord, Row, check_recorded_facts, fitting, is_finite_number

STATE_KEYS = {"model", "optimizer", "random", "progress", "vocabulary"}


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path

    @property
    def experiment(self) -> Path:
        return self.path / "experiment.yaml"

    @property
    def vocabulary(self) -> Path:
        return self.path / "vocabulary.json"

    @property
    def words_tokenizer(self) -> Path:
        return self.path / "words_tokenizer.json"

    @property
    def seen(self) -> Path:
        return self.path / "seen.npz"

    @property
    def language_model(self) -> Path:
        return self.path / "language_model"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def state(self) -> Path:
        return self.path / "state.pt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def tracking(self) -> Path:
        return self.path / "tracking.json"

    @property
    def finished(self) -> Path:
        """Written when training has ended by itself: the best epoch, its accuracy, the time it took."""
        return self.path / "finished.json"

    @property
    def failed(self) -> Path:
        """What ended its training or evaluation in an ablation before its time."""
        return self.path / "failed.json"

    @property
    def lease(self) -> Path:
        """Of the worker of an ablation that has it; beside its `.lock`, which on some disks only one machine knows."""
        return self.path / ".lease"

    def evaluation(self, split: str) -> Path:
        """What `vqa evaluate` found for a split."""
        return self.path / f"evaluation_{split}.json"

    def ablated(self, split: str) -> Path:
        """What an ablation found for a split, which `vqa evaluate` by hand leaves as it is."""
        return self.path / f".ablated_{split}.json"

    def results(self, split: str, task: str) -> Path:
        """The official results file of a split and task."""
        return self.path / f"results_{split}_{task.replace('-', '_')}.json"


def open_run(path: Path) -> tuple[RunFolder, Experiment, dict[str, Any]]:
    """Find a trained run: its paths, its experiment, and the facts recorded at its start.

    Nothing that the run names from outside the package is imported.

    Raises:
        InputError: when the folder is not a run, or holds several seeds of one (they are named).
    """
    folder = RunFolder(path)
    if not folder.experiment.is_file():
        seeds = sorted(str(found.parent) for found in path.glob("*/experiment.yaml"))
        hint = f"; it holds these runs: {', '.join(seeds)}" if seeds else " (a run is experiments/runs/<name>/<seed>)"
        raise InputError(f"{path}: not a run folder: no experiment.yaml in it{hint}")
    values = read_yaml(folder.experiment)
    recorded = values.pop("recorded", None)
    experiment = check_recorded(values, str(folder.experiment))
    check_recorded_facts(
        recorded, str(folder.experiment),
        tuned=experiment.features.tune, pretrained=is_pretrained(experiment.question_encoder),
    )  # fmt: skip
    return folder, experiment, recorded


def write_experiment(folder: RunFolder, experiment: Experiment, recorded: dict[str, Any]) -> None:
    """Write the resolved experiment with the recorded digests, as the first file of a run."""
    with atomic_write(folder.experiment) as file:
        file.write(f"# resolved by vqa {vqa.__version__}: every option with its value\n")
        yaml.safe_dump({**experiment.resolved(), "recorded": recorded}, file, sort_keys=False, allow_unicode=True)


def save_model(path: Path, model: nn.Module, vocabulary_digest: str) -> None:
    """Write the weights as safetensors, stamped with the vocabulary that they belong to.

    Equal weights give equal bytes: safetensors writes several stamps in no fixed order, so there is one.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_write(path, "wb") as file:
        file.write(save(weights, metadata={"vocabulary": vocabulary_digest}))


def load_model(path: Path, model: nn.Module, vocabulary_digest: str) -> None:
    """Load weights into a model of the same experiment.

    Raises:
        InputError: when the file is missing or damaged, belongs to another vocabulary, or does not fit the model.
    """
    weights = read_model(path, vocabulary_digest)
    check_weights(weights, model, path)
    model.load_state_dict(weights)


def read_model(path: Path, vocabulary_digest: str) -> dict[str, Tensor]:
    """The weights in a file of `save_model`.

    Raises:
        InputError: when the file is missing or damaged, or belongs to another vocabulary.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file: the run has no trained weights yet (finish it with --resume)")
    try:
        with safe_open(path, framework="pt") as file:
            stamped = (file.metadata() or {}).get("vocabulary")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except Exception as error:  # safetensors raises many kinds, among them KeyError for a type that torch lacks
        raise InputError(f"{path}: not a readable safetensors file (truncated?): {first_line(error)}") from None
    if stamped != vocabulary_digest:
        raise InputError(
            f"{path}: these weights were trained with another vocabulary (digest {str(stamped)[:12]}) than "
            f"{path.parent / 'vocabulary.json'} (digest {vocabulary_digest[:12]}); use the vocabulary.json of that run"
        )
    return weights


def saved_names(path: Path) -> set[str]:
    """The names of the weights in a file of `save_model`; none where there is no readable file."""
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (OSError, SafetensorError):
        return set()


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what resuming needs; tensors, numbers, strings and containers of them only."""
    with atomic_write(path, "wb") as file:
        torch.save(state, file)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, without unpickling code; raises InputError that names a damaged file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: nothing to resume; start without --resume") from None
    except UnpicklingError:  # torch's words advise to run what is in it
        raise InputError(f"{path}: cannot be read (truncated?): it is no file of tensors and plain values") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise InputError(f"{path}: cannot be read (truncated?): {shortened(first_line(error))}") from None
    if not isinstance(state, dict) or not state.keys() >= STATE_KEYS:
        raise InputError(f"{path}: not the state of a run; it should hold {', '.join(sorted(STATE_KEYS))}")
    return state


def random_states() -> dict[str, Tensor]:
    """The states of torch's generators, for `restore_random_states`."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # asking for it would make a context in a run on the CPU
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: dict[str, Tensor]) -> None:
    """Put the generators back to where they were saved."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def write_environment(path: Path, device: torch.device) -> None:
    """Record versions, git commit and machine beside the run."""
    import h5py
    import numpy as np
    import torchvision

    write_json(
        path,
        {
            "vqa": vqa.__version__,
            "git_commit": git_commit(Path(vqa.__file__).parent),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
            "h5py": h5py.__version__,
            "platform": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "command": sys.argv,
        },
    )


def git_commit(folder: Path) -> str | None:
    """The commit of a folder, with a mark when its files have changes; None where there is no git checkout."""
    try:
        commit = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def failure_of(folder: RunFolder) -> str | None:
    """What a run last failed with in an ablation, where it has not been taken up again."""
    try:
        return str(read_json(folder.failed, dict[str, Any]).get("error")) if folder.failed.is_file() else None
    except InputError as error:
        return str(error)


def read_evaluation(path: Path) -> dict[str, Any]:
    """What `vqa evaluate` has written for a split.

    Raises:
        InputError: naming the file and the item that is not what it writes.
    """
    found: dict[str, Any] = read_json(path)
    fitting(found, EvaluationRecord, str(path))
    return found


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a half-written last line (a killed run) is left out.

    Raises:
        InputError: naming the line that is not what training writes.
    """
    lines = read_bytes(path).splitlines() if path.is_file() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # no JSON, or no UTF-8
            if number == len(lines):
                break
            raise InputError(f"{path}: line {number} is no JSON; remove that line to go on without it") from None
        fitting(row, Row, f"{path}: line {number}")
        wrong = [name for name, value in row.items() if not isinstance(value, str) and not is_finite_number(value)]
        if wrong:
            raise InputError(f"{path}: line {number}: {wrong[0][:80]!r} is no finite number and no word")
        rows.append(row)
    return rows


def read_epochs(path: Path) -> list[EpochRow]:
    """The epochs of metrics.jsonl, for a learning curve; raises InputError as `read_metrics`, also for what lacks."""
    rows = [row for row in read_metrics(path) if not is_step(row)]
    return [fitting(row, EpochRow, f"{path}: step {row['step']}") for row in rows]


def is_step(row: dict[str, Any]) -> bool:
    """Whether a line of metrics.jsonl is of a step within an epoch."""
    return "step/loss" in row
