"""Workers of an ablation as jobs of Slurm, submitted with submitit: one array, requeued when they are cut off.

A job starts `vqa ablate` in a process of its own. Before a time limit or a preemption Slurm signals the job; the
process then saves and ends, and the job asks to be queued again. What comes back takes up any run that is free.
"""

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vqa.errors import InputError, needs_extra, unknown_name
from vqa.progress import console
from vqa.studies.grid import Ablation

LAUNCHERS = ("slurm", "local")
INTERRUPTED = 130  # the exit status of a command that a signal has stopped, with its work saved
LOOK_SECONDS = 0.2
REQUEUE_SECONDS = 60.0  # after a SIGTERM that was obeyed: the signal to requeue, or SIGKILL, comes by then
MOST_REQUEUES = 1000  # at time limits; of preemptions there may be any number
DEFAULTS: dict[str, dict[str, Any]] = {
    # What is cut off goes on, so a limit need not hold a whole run; submitit's own 5 and 2 minutes would hold none.
    "slurm": {"time": 240, "additional_parameters": {"requeue": True}, "stderr_to_stdout": True},
    "local": {"timeout_min": 60 * 24 * 365, "stderr_to_stdout": True},
}


class Job:
    """What submitit calls in a job: a command in a process of its own, which saves when the job is cut off."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Run the command to its end; raises RuntimeError where it fails, so that the job counts as failed."""
        self._process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        while self._process.poll() is None:  # not `wait`, in which a signal's handler could not look at the process
            time.sleep(LOOK_SECONDS)
        if self._process.returncode == INTERRUPTED:
            time.sleep(REQUEUE_SECONDS)  # Slurm sends SIGTERM first, and then the signal that calls `checkpoint`
        if self._process.returncode:
            raise RuntimeError(f"{shlex.join(self.command)}: exit status {self._process.returncode}")

    def checkpoint(self) -> Any:
        """Called by submitit when the job is cut off: let the process save, and say what is to be run again."""
        import submitit

        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._process.pid, signal.SIGUSR1)
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Job(self.command))


def submit(
    ablation: Ablation, command: Sequence[str], workers: int, launcher: str, parameters: Sequence[str], folder: Path
) -> None:
    """Submit workers and say where they print and how to get the tables.

    Args:
        command: of a worker.
        launcher: one of `LAUNCHERS`; "local" starts processes of this machine, which are not waited for.
        parameters: `key=value`, by the names that submitit gives them.
        folder: for logs and what submitit keeps of a job; on a disk that the nodes share.

    Raises:
        InputError: submitit or Slurm is not there, a parameter is unknown, or Slurm refuses the job.
    """
    if launcher not in LAUNCHERS:
        raise InputError(unknown_name("launcher", launcher, LAUNCHERS))
    with needs_extra("slurm", "jobs"):
        import submitit
    given = parse_parameters(parameters)
    again = given.pop("max_num_timeout", MOST_REQUEUES)
    executors = {"slurm": submitit.SlurmExecutor, "local": submitit.LocalExecutor}
    try:
        executor = executors[launcher](folder, max_num_timeout=again)
    except RuntimeError:
        raise InputError("--launcher slurm: there is no `srun` here; start it on a login node of the cluster") from None
    named = {"job_name": f"vqa-{ablation.file.name.replace('/', '-')}"} if launcher == "slurm" else {}
    try:
        executor.update_parameters(**{**DEFAULTS[launcher], **named, **given})
    except ValueError as error:
        raise InputError(_parameter_error(str(error), given)) from None
    try:
        with submitit.helpers.clean_env():
            jobs = executor.submit_array([Job(command) for _ in range(workers)])
    except (submitit.core.utils.FailedJobError, subprocess.SubprocessError, OSError) as error:
        raise InputError(f"the jobs could not be submitted: {error}") from None
    limit = given.get("time", DEFAULTS["slurm"]["time"])
    shown = f" of {limit} minutes each, requeued until all is done (--slurm time=)" if launcher == "slurm" else ""
    table = shlex.join(["vqa", *command[3:], "--table-only"])
    console.print(
        f"{workers} {launcher} jobs{shown}: {', '.join(str(job.job_id) for job in jobs)}\n"
        f"what they print: {folder}\nthe tables of what is done by then: {table}"
    )


def parse_parameters(texts: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs for submitit; `time` in minutes, or as Slurm writes it.

    >>> parse_parameters(["partition=gpu", "time=1-02:30:00", "gpus_per_node=1"])
    {'partition': 'gpu', 'time': 1590, 'gpus_per_node': 1}
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().lstrip("-").replace("-", "_")
        if not (key and equals and value):
            raise InputError(f"--slurm {text!r}: write key=value, as in partition=gpu")
        found[key] = _minutes(value) if key == "time" else _plain_value(value)
    return found


def _plain_value(text: str) -> Any:
    """A whole number, a number or a truth value where the text is one, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _minutes(text: str) -> int:
    """Slurm's forms of a time: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if found is None:
        raise InputError(f"--slurm time={text}: no time; write minutes, HH:MM:SS or D-HH:MM:SS")
    days, first, second, third = (int(part or 0) for part in found.groups())
    if found[1] is not None:
        minutes = (days * 24 + first) * 60 + second + (third > 0)
    elif found[4] is not None:
        minutes = first * 60 + second + (third > 0)
    else:
        minutes = first + (second > 0)
    if minutes < 1:
        raise InputError(f"--slurm time={text}: no time; write minutes, HH:MM:SS or D-HH:MM:SS")
    return minutes


def _parameter_error(said: str, given: dict[str, Any]) -> str:
    """Which parameter is unknown, of submitit's message that lists those it knows."""
    known = [*re.findall(r"^ +- (\w+) ", said, re.MULTILINE), "max_num_timeout"]
    wrong = [key for key in given if key not in known]
    return f"--slurm: {unknown_name('parameter', wrong[0], known)}" if wrong and known[:-1] else f"--slurm: {said}"
