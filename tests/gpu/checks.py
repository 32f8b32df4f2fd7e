"""What must hold on a GPU, each check in a process of its own; without a GPU each is tried small on the CPU.

A check returns what it found, as JSON has it, and raises AssertionError where something does not hold.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from helpers.features import numbered_cache
from helpers.models import small_options
from helpers.training import assert_same_run, values
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gpu.work import known, on_and_off, plan, take_steps, world
from vqa.bench.steps.gathers import FEATURE_WAYS, feature_rates, numbered_table, wrong_rows
from vqa.bench.steps.ours import PRODUCT, STACKED_ATTENTION
from vqa.bench.synthetic import Shape
from vqa.features.tables.feature_table import FeatureTable
from vqa.models import FUSIONS
from vqa.training.run import fingerprint
from vqa.training.run_folder import RunFolder, load_state

MODELS = {"product": PRODUCT, "stacked_attention": STACKED_ATTENTION}
RECURRENT = ("lstm", "gru", "bilstm")
SAMPLE = ("product", "stacked_attention", "vis_lstm")  # of the fusions, on a CPU
LEAST_NORMAL, LEAST = 2.0**-14, 2.0**-25  # float16's least normal number; half its least one, which rounds to zero
WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # deterministic matrix products need it

Found = dict[str, Any]
Check = Callable[[Path, torch.device], Found]


def machine(folder: Path, device: torch.device) -> Found:
    """What computes here."""
    found: Found = {"gpu": None, "torch": torch.__version__, "cores": os.cpu_count()}
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        found |= {"gpu": facts.name, "memory": facts.total_memory, "capability": f"{facts.major}.{facts.minor}"}
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return found


@contextmanager
def waits_are_errors(device: torch.device) -> Iterator[None]:
    """Within, an operation that makes the host wait for the GPU raises."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def no_waits(folder: Path, device: torch.device) -> Found:
    """Fifty steps in which the host never waits for the GPU, from every place that features can be in."""
    steps, places = (50, ("device", "host", "disk")) if device.type == "cuda" else (1, ("disk",))
    for name, sections in MODELS.items():
        for residency in places:
            what = plan(folder, device, features={"residency": residency}, **sections)
            try:
                take_steps(what, 1 + steps, lambda: waits_are_errors(device))
            except RuntimeError as error:
                raise AssertionError(f"{name}, features on {residency}: {error}") from error
    return {"steps": steps, "models": sorted(MODELS)}


def recurrent(folder: Path, device: torch.device) -> Found:
    """In which type recurrent layers run in a bfloat16 training, and what float16 would make of their gradients."""
    found: Found = {}
    sections: dict[str, Any] = {name: PRODUCT | {"question_encoder": {"name": name}} for name in RECURRENT}
    sections |= {"the recipe's lstm": PRODUCT, "vis_lstm": {"fusion": "vis_lstm"}}
    for name, section in sections.items():
        what = plan(folder, device, {"precision": "bfloat16"}, **section)
        with layers_watched() as seen:
            take_steps(what, 2)
        found[name] = seen.facts()
        assert "float16" not in found[name]["types"], f"{name}: runs in float16, without loss scaling"
    return found


class LayersSeen:
    """The types of recurrent layers' outputs, and the gradients that came back to them."""

    def __init__(self) -> None:
        self.types: set[torch.dtype] = set()
        self.gradients: list[Tensor] = []

    def note(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        """A forward hook: the states of every step, packed or not, and the last ones."""
        for states in tree_leaves(output):
            if isinstance(states, Tensor) and states.requires_grad:
                self.types.add(states.dtype)
                states.register_hook(lambda gradient: self.gradients.append(gradient.detach().float().flatten().abs()))

    def facts(self) -> Found:
        """Shares are of the gradients that are not zero."""
        gradient_M = torch.cat(self.gradients).cpu()
        there_M = gradient_M[gradient_M > 0]
        return {
            "types": sorted(str(one).removeprefix("torch.") for one in self.types),
            "median": float(there_M.median()),
            "zero": float((gradient_M == 0).float().mean()),
            "subnormal in float16": float((there_M < LEAST_NORMAL).float().mean()),
            "zero in float16": float((there_M < LEAST).float().mean()),
        }


@contextmanager
def layers_watched() -> Iterator[LayersSeen]:
    """Notes what every recurrent layer does that runs within."""
    seen = LayersSeen()

    def look(layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(layer, nn.RNNBase):
            seen.note(layer, inputs, output)

    hook = nn.modules.module.register_module_forward_hook(look)
    try:
        yield seen
    finally:
        hook.remove()


def every_fusion(folder: Path, device: torch.device) -> Found:
    """Two steps of every fusion in both precisions: a finite loss, and weights that moved."""
    names = list(FUSIONS) if device.type == "cuda" else list(SAMPLE)
    names = [name for name in names if not FUSIONS[name].needs_boxes]  # the features here have none
    problems: dict[str, str] = {}
    for name in names:
        options = {} if device.type == "cuda" else small_options(name)
        for precision in ("float32", "bfloat16"):
            what = plan(folder, device, {"precision": precision}, fusion={"name": name} | options)
            try:
                check_two_steps(what)
            except (AssertionError, RuntimeError) as error:
                problems[f"{name}, {precision}"] = str(error)[:300]
    assert not problems, problems
    return {"fusions": len(names), "precisions": 2}


def check_two_steps(what: Any) -> None:
    """Raise AssertionError where a loss is not finite, or no weight moves."""
    one, two = take_steps(what, 1), take_steps(what, 2)
    assert two.tally is not None
    totals = two.tally.read()
    assert totals.first_bad_step is None, f"the loss of step {totals.first_bad_step} is not finite"
    assert fingerprint(one.model) != fingerprint(two.model), "no weight moved in the second step"


def residencies(folder: Path, device: torch.device) -> Found:
    """Batches are the same bit for bit wherever the features are, whatever they are stored as."""
    random = torch.Generator().manual_seed(0)
    rows = [torch.randint(0, 400, (size,), generator=random) for size in (64, 64, 7, 1, 64)]
    compared = 0
    for stored in ("float16", "int8"):
        path = folder / f"{stored}.h5"
        cache, _ = numbered_cache(path, "a", 400, 400, stored=stored)
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            expected: list[Tensor] = []
            for where in ("device", "host", "disk"):
                table = FeatureTable.load([cache], cache.image_ids, device, where, dtype)
                found = [batch.regions_IRC.clone().cpu() for batch in table.stream(rows)]
                expected = expected or found
                same = all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
                assert same, f"{stored} as {dtype}: {where} gives other batches than the device"
                compared += len(found)
    return {"batches": compared}


def kill_and_resume(folder: Path, device: torch.device) -> Found:
    """A training that is killed and gone on with ends as one that is not: to the bit where that is promised."""
    exact = known(deterministic=True)
    epochs = 8
    files = {}
    for name in ("whole", "killed"):
        section = {"device": device.type, "epochs": epochs} | exact
        wanted = values(world(folder / "world"), folder / name, training=section)
        files[name] = folder / f"{name}.yaml"
        files[name].write_text(yaml.safe_dump(wanted), encoding="utf-8")
    run_command("train", str(files["whole"])).check_returncode()
    killed = kill_after_first_epoch(files["killed"], folder / "killed/tiny/0/metrics.jsonl")
    run_command("train", str(files["killed"]), "--resume").check_returncode()
    folders = [RunFolder(folder / name / "tiny/0") for name in files]
    promised = device.type == "cpu" or bool(exact)
    if promised:
        assert_same_run(*folders)
    weights = [load_state(one.state)["model"] for one in folders]
    apart = max(float((weights[0][key].double() - weights[1][key].double()).abs().max()) for key in weights[0])
    return {"killed in training": killed, "equality promised": promised, "greatest difference": apart}


def run_command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command of the console in a process of its own."""
    command = [sys.executable, "-m", "vqa", *arguments]
    return subprocess.run(command, env=os.environ | WORKSPACE, stdout=subprocess.DEVNULL, text=True, check=False)


def kill_after_first_epoch(file: Path, metrics: Path) -> bool:
    """Start a training and kill it once an epoch is done; False where it was over before."""
    command = [sys.executable, "-m", "vqa", "train", str(file)]
    process = subprocess.Popen(command, env=os.environ | WORKSPACE, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        if metrics.is_file() and metrics.stat().st_size:
            process.send_signal(signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        time.sleep(0.005)
    return False


def graphs(folder: Path, device: torch.device) -> Found:
    """CUDA graphs give the losses that steps without them give."""
    if not known(cuda_graphs=True):
        return {"skipped": "this version has no training.cuda_graphs"}
    found: dict[str, float] = {}
    for name, sections in MODELS.items():
        # without dropout, whose random numbers are others in a graph
        still = {part: options | {"dropout": 0.0} for part, options in sections.items()}
        losses = []
        for switch in on_and_off("cuda_graphs"):
            run = take_steps(plan(folder, device, {"cuda_graphs": switch}, **still), 30)
            assert run.tally is not None
            losses.append(run.tally.read().mean_loss)
        found[name] = abs(losses[0] - losses[1]) / losses[1]
        assert found[name] < 1e-3, f"{name}: a loss of {losses[0]:.6g} with graphs, {losses[1]:.6g} without"
    return {"relative difference": found}


def gathers(folder: Path, device: torch.device) -> Found:
    """Every way of gathering picks the right rows, from tables beyond 2^31 numbers on a GPU."""
    shape, rows = (Shape("196 x 512", 196, 512), 30_000) if device.type == "cuda" else (Shape("2 x 3", 2, 3), 3000)
    table_NRC = numbered_table(rows, shape, device)
    wrong = {name: wrong_rows(pick, table_NRC, 512) for name, pick in FEATURE_WAYS.items()}
    assert not any(wrong.values()), f"of {table_NRC.numel():,} numbers, wrong rows: {wrong}"
    return {"numbers": table_NRC.numel(), "rows/s": feature_rates(table_NRC, 512)}


CHECKS: dict[str, Check] = {
    "machine": machine,
    "no_waits": no_waits,
    "recurrent": recurrent,
    "every_fusion": every_fusion,
    "residencies": residencies,
    "gathers": gathers,
    "kill_and_resume": kill_and_resume,
    "graphs": graphs,
}
