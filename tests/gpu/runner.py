"""Runs steps one after the other, each in a process of its own, and writes what is known after each of them."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu.steps import Step
from vqa.files import read_json, write_json

SAID = 12  # last lines of a step that failed
GRACE = 10  # seconds that a step's process has to end after it was killed


def run_steps(steps: Sequence[Step], out: Path, *, gpu: bool, keep: bool = False) -> dict[str, Any]:
    """Run steps and write `{"gpu", "steps": {name: result}}` after each.

    Args:
        steps: in their order.
        out: the JSON file.
        gpu: whether there is one.
        keep: begin with what the file holds of other steps.

    Returns:
        What the file holds in the end.
    """
    results: dict[str, Any] = read_json(out, dict[str, Any])["steps"] if keep and out.is_file() else {}
    found: dict[str, Any] = {"gpu": gpu, "steps": results}
    for step in steps:
        results[step.name] = run_step(step, gpu=gpu)
        print(line(step, results[step.name], gpu=gpu), flush=True)
        write_json(out, found)
    return found


def run_step(step: Step, *, gpu: bool) -> dict[str, Any]:
    """One step's result: `{"status", "seconds", "found", "said"}`.

    The status is passed, failed, "timed out", or skipped where it needs a GPU that is not there.
    """
    with tempfile.TemporaryDirectory(prefix="vqa-gpu-") as folder:
        out, said = Path(folder, "found.json"), Path(folder, "said.txt")
        command = step.command(out, gpu=gpu)
        if command is None:
            return {"status": "skipped", "seconds": 0.0, "found": {}, "said": ["needs a GPU, and there is none"]}
        environment = os.environ | {"PYTHONPATH": step.python_path} | dict(step.environment)
        started = time.perf_counter()
        with said.open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            status = ended(process, step.limit)
        lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        found = read_json(out) if out.is_file() else {}
    status = "skipped" if status == "passed" and isinstance(found, dict) and "skipped" in found else status
    kept = lines[-1:] if status == "passed" else lines[-SAID:]
    return {"status": status, "seconds": round(time.perf_counter() - started, 1), "found": found, "said": kept}


def ended(process: subprocess.Popen[bytes], limit: float) -> str:
    """Wait for a process for so many seconds, then kill it with everything that it started."""
    try:
        return "failed" if process.wait(limit) else "passed"
    except subprocess.TimeoutExpired:
        return "timed out"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(GRACE)


def line(step: Step, result: dict[str, Any], *, gpu: bool) -> str:
    """What is printed of a step; its description is of what it does on a GPU."""
    small = "" if gpu or result["status"] == "skipped" else "small: "
    shown = f"{result['status']:9} {step.name:16} {result['seconds']:6.1f} s  {small}{step.about}"
    if result["status"] == "passed":
        return shown
    found = result["found"]
    why = [found["skipped"]] if isinstance(found, dict) and "skipped" in found else result["said"]
    return "\n".join([shown, *(f"          {one}" for one in why)])
