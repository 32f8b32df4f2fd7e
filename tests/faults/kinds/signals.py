"""Signals: TERM, INT, HUP and USR1 save and end; what the parent set to be ignored stays ignored."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from faults.case import Case, Ended, Outcome, judge
from faults.kinds.kills import fresh, go_on
from faults.product import WORK, prepare, product, undisturbed
from faults.run import command, start, wait

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
SAVING = ("train", "resume", "ablate")  # they save within an epoch and say how to go on
OTHERS = ("extract", "import", "evaluate", "generate", "fisher", "submit")
PARTS = (0.15, 0.5, 0.8)
STOPPED = 130


def cases() -> Iterator[Case]:
    for name in SAVING:
        for number in NUMBERS:
            for part in PARTS:
                yield Case(f"signals: {name}, {number.name} after {part:.0%}", WORK[name],
                           allowed=frozenset({0, STOPPED}), attempt=partial(send, name=name, number=number,
                           part=part))  # fmt: skip
    for name in OTHERS:
        for number in NUMBERS:
            part = PARTS[len(name + number.name) % 3]
            allowed = frozenset({0, 1, STOPPED, -number, 128 + number})
            yield Case(f"signals: {name}, {number.name} after {part:.0%}", WORK[name],
                       prepare(name), allowed,
                       attempt=partial(send, name=name, number=number, part=part))  # fmt: skip
    for name in (*SAVING, "extract"):
        for number in (signal.SIGINT, signal.SIGHUP):
            yield Case(f"signals: {name}, {number.name} that is ignored", WORK[name], allowed=frozenset({0}),
                       attempt=partial(send, name=name, number=number, part=0.4, ignored=True))  # fmt: skip
    for number in NUMBERS:
        yield Case(f"signals: train, {number.name} twice", WORK["train"],
                   allowed=frozenset({0, STOPPED, 1, -number, 128 + number}),
                   attempt=partial(send, name="train", number=number, part=0.4, twice=True))  # fmt: skip


def send(
    case: Case, folder: Path, name: str, number: signal.Signals, part: float, ignored: bool = False, twice: bool = False
) -> Outcome:
    """Send a signal after a part of a command's time; where it ends, run it again."""

    def act() -> None:
        if ignored:
            signal.signal(number, signal.SIG_IGN)
        command(list(case.arguments))()

    with tempfile.TemporaryDirectory() as holder:
        made, seconds = undisturbed.of(name, partial(fresh, folder, holder, name))
        out, err = Path(holder, "out"), Path(holder, "err")
        began = time.monotonic()
        child = start(act, folder, out, err)
        time.sleep(part * seconds)
        for _ in range(1 + twice):
            os.kill(child, number)
            time.sleep(0.02)
        status = wait(child, case.seconds)
        ended = Ended(status, out.read_bytes(), err.read_bytes(), time.monotonic() - began)
    # a second one ends it where it is, and after the last step it was over anyway
    asked = b"stopping after this step" in ended.out and not twice and status != 0
    says = ("--resume",) if name == "train" and asked else ()
    if status == -number and b"CPU, float32" not in ended.out:
        case = replace(case, allowed=case.allowed | {status}, quiet=True)  # before anything was trained
    judged = judge(replace(case, says=says, quiet=case.quiet or name not in SAVING), ended, {}, {}, "")
    if judged.failed:
        return judged
    if ended.status == 0:
        same = product(folder, name) == made
        return Outcome(case.name, "fine" if same else "lost", "" if same else "other bytes", ended.seconds)
    later = go_on(case, folder, name, made)
    return later if later.failed else Outcome(case.name, "sentence", judged.line, ended.seconds)
