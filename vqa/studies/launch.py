"""`vqa ablate --workers` and `--launcher`: several workers of one ablation started at once.

Each is a `vqa ablate` of the same file in a process of its own; they share the work as any number of them do
(`vqa.studies.worker`). What they print goes to log files in the ablation's folder.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.text import Text

from vqa.errors import FailedRunsError, InputError, InterruptedRunError
from vqa.progress import console
from vqa.runtime.distributed import launched
from vqa.runtime.stopping import stop_signals
from vqa.studies.ablation import ablate, end, track
from vqa.studies.grid import Ablation, ablate_command, open_ablation
from vqa.studies.slurm import submit
from vqa.studies.summary import write_tables
from vqa.tables import Table

LOGS = "_workers"  # in an ablation's folder, where no cell's name begins so
LOOK_SECONDS = 0.5
KILL_SECONDS = 10.0  # from a second Ctrl-C to the end of a worker that does not obey
LOG_TAIL = 4096  # bytes of a log that are looked at
SAID_LINES = 5  # of a worker's log that a message quotes, where the worker names no reason itself


@dataclass(frozen=True)
class Launch:
    """How an ablation is run.

    Attributes:
        workers: how many processes; None is this one alone.
        launcher: None starts them here; "slurm" submits them as jobs, "local" as submitit's processes, which go on
            when this one ends.
        parameters: `key=value` for the launcher.
        together: see `ablate`.
        wait: see `ablate`.
        table_only: see `ablate`.
    """

    workers: int | None = None
    launcher: str | None = None
    parameters: Sequence[str] = ()
    together: bool = False
    wait: bool = True
    table_only: bool = False

    def require_consistent(self, json_file: Path | None) -> None:
        """Raise InputError where one option leaves no meaning to another."""
        several = self.workers is not None or self.launcher is not None
        if self.table_only and (several or self.together or not self.wait):
            raise InputError("--table-only runs nothing; leave out --workers, --launcher, --together and --no-wait")
        if self.parameters and self.launcher is None:
            raise InputError("--slurm: says how jobs are submitted; add --launcher slurm")
        if self.launcher is not None and json_file is not None:
            raise InputError("--json: the jobs come later; write it afterwards, with --table-only --json")
        if several and not launched().alone:
            raise InputError("--workers and --launcher start processes of their own; leave out torchrun")


def launch(path: Path, overrides: Sequence[str], json_file: Path | None, how: Launch) -> list[Table]:
    """Run an ablation as it is asked for; the tables, none where jobs were submitted.

    Raises:
        InputError, FailedRunsError: as `ablate`; or options that contradict each other.
        InterruptedRunError: after a signal, when every worker has saved.
    """
    how.require_consistent(json_file)
    if how.launcher is None and how.workers in (None, 1):
        return ablate(
            path, overrides, json_file, together=how.together, wait=how.wait, table_only=how.table_only
        )  # fmt: skip
    ablation = open_ablation(path, overrides)
    shown = ablate_command(path, overrides, together=how.together, wait=how.wait)
    command = (sys.executable, "-m", *shown)
    if how.launcher is not None:
        submit(ablation, command, how.workers or 1, how.launcher, how.parameters, ablation.folder / LOGS)
        return []
    assert how.workers is not None
    return _Workers(ablation, command, how.workers).run(json_file)


def worker_environments(count: int, environment: Mapping[str, str] = os.environ) -> list[dict[str, str]]:
    """What each of several workers of this machine sees: one GPU where there are several, its part of the cores."""
    gpus = visible_gpus(environment)
    threads = max(1, cores() // count)
    made = []
    for number in range(count):
        own = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": environment.get("OMP_NUM_THREADS", str(threads))}
        if len(gpus) > 1:
            own["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        made.append({**environment, **own})
    return made


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that a process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (named := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Process:
    """A worker that runs here, and where it prints."""

    number: int
    process: "subprocess.Popen[bytes]"
    log: Path

    def lines(self) -> list[str]:
        """The last lines that it printed."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_TAIL))
            text = file.read().decode(errors="replace")
            return [line.strip(" ─") for line in text.splitlines() if line.strip(" ─")]
        return []

    def reason(self) -> str:
        """What its last words were: its own message, or the last lines."""
        lines = self.lines()
        said = [place for place, line in enumerate(lines) if line.startswith("vqa: ")]
        return "\n".join(lines[said[-1] :]).removeprefix("vqa: ") if said else "\n".join(lines[-SAID_LINES:])

    def ended(self) -> str:
        """How it ended, in words."""
        status = self.process.returncode
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        return f"worker {self.number} ended {how} (log: {self.log})"


class _Workers:
    """The workers of an ablation on this machine, from their start to the tables."""

    def __init__(self, ablation: Ablation, command: Sequence[str], count: int) -> None:
        self.ablation, self.command, self.count = ablation, command, count
        self.processes: list[_Process] = []
        self.total = len(ablation.runs)

    def run(self, json_file: Path | None) -> list[Table]:
        """Start them, show what they do, pass signals on, and write the tables."""
        folder = self.ablation.folder / LOGS
        folder.mkdir(parents=True, exist_ok=True)
        console.print(f"{self.count} workers; what they print is in {folder}")
        with ExitStack() as stack:
            stop = stack.enter_context(stop_signals())
            stack.callback(self._end_all)
            live = stack.enter_context(Live(console=console, auto_refresh=False, transient=True))
            self._start(folder)
            passed_on, done = False, -1
            while any(one.process.poll() is None for one in self.processes):
                if stop.asked and not passed_on:
                    self._signal(signal.SIGTERM)
                    passed_on = True
                if (now := self._done()) != done:
                    console.print(f"{now} of {self.total} runs are done")
                    done = now
                live.update(Group(*map(self._line, self.processes)), refresh=console.is_terminal)
                time.sleep(LOOK_SECONDS)
        found, tables = write_tables(self.ablation, json_file)
        fell = [one for one in self.processes if one.process.returncode not in (0, 1, 130)]
        if stop.asked and found.missing:
            again = shlex.join(["vqa", *self.command[3:], "--workers", str(self.count)])
            raise InterruptedRunError(f"every worker has saved; go on with: {again}")
        if found.missing:
            self._say_what_is_missing([str(run.name) for run in found.missing])
        for one in fell:
            console.print(f"note: {one.ended()}; others did its work")
        track(self.ablation, found)  # where the worker that would have was killed
        return end(self.ablation, found, tables)

    def _start(self, folder: Path) -> None:
        for number, environment in enumerate(worker_environments(self.count), start=1):
            log = folder / f"worker-{number}-of-{self.count}.{socket.gethostname()}.{os.getpid()}.log"
            with log.open("wb") as file:
                process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment,
                    start_new_session=True,  # a terminal's Ctrl-C comes to this process alone, which passes it on once
                )  # fmt: skip
            self.processes.append(_Process(number, process, log))

    def _done(self) -> int:
        """How many runs have an evaluation, by their files alone."""
        split = self.ablation.file.split
        return sum(run.folder.evaluation(split).is_file() for run in self.ablation.runs)

    def _line(self, one: _Process) -> Text:
        last = (one.lines() or ["starting"])[-1]
        if one.process.returncode is not None:
            last = f"ended: {last}"
        return Text(f"worker {one.number}: {last}", no_wrap=True, overflow="ellipsis")

    def _signal(self, number: signal.Signals) -> None:
        for one in self.processes:
            if one.process.poll() is None:
                one.process.send_signal(number)

    def _end_all(self) -> None:
        """After an error or a second Ctrl-C here: nobody is left behind."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + KILL_SECONDS
        while any(one.process.poll() is None for one in self.processes) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS / 5)
        self._signal(signal.SIGKILL)

    def _say_what_is_missing(self, missing: Sequence[str]) -> None:
        """Raise an error of what ended the workers before all was done."""
        reasons = list(dict.fromkeys(one.reason() for one in self.processes))
        statuses = {one.process.returncode for one in self.processes}
        if statuses == {2} and len(reasons) == 1:
            raise InputError(reasons[0])  # all of them found the same before they began
        if statuses == {0}:
            return  # with --no-wait, what is left is in the hands of others
        told = [f"{one.ended()}:\n{one.reason()}" for one in self.processes if one.process.returncode]
        raise FailedRunsError("\n".join([f"{len(missing)} of {self.total} runs are not done", *told]))
