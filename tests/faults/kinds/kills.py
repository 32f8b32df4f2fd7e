"""kill -9 at any moment; then the same command again makes what an undisturbed one makes, to the byte."""

import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from faults.case import Case, Outcome, judge
from faults.product import WORK, prepare, product, undisturbed
from faults.run import command, end, limited, run, start

TIMES = {"train": 16, "resume": 8, "ablate": 10, "extract": 14, "import": 10, "fisher": 6, "evaluate": 12, "submit": 6,
         "generate": 14, "demo": 4}  # fmt: skip
RESUMED = {"train": "runs/long/0", "resume": "runs/half/0"}
SECONDS = 120.0


def cases() -> Iterator[Case]:
    for name, count in TIMES.items():
        for number in range(count):
            part = (number + random.Random(f"{name} {number}").random()) / count
            yield Case(f"kills: {name} after {part:.0%}", WORK[name], prepare(name),
                       attempt=partial(kill, name=name, part=part))  # fmt: skip


def fresh(world: Path, holder: str, name: str) -> Path:
    """A copy of the world with what the command needs."""
    folder = Path(holder, "undisturbed")
    shutil.copytree(world, folder, ignore=shutil.ignore_patterns("null", "full"))  # a copied device is read for ever
    prepare(name)(folder)
    return folder


def again(name: str, folder: Path) -> list[str]:
    """What a user types after an interruption."""
    typed = WORK[name]
    place = RESUMED.get(name)
    if place and (folder / place / "state.pt").is_file() and "--resume" not in typed:
        return [*typed, "--resume"]
    return typed


def kill(case: Case, folder: Path, name: str, part: float) -> Outcome:
    """Kill a command after a part of its time, and run it again."""
    with tempfile.TemporaryDirectory() as holder:
        made, seconds = undisturbed.of(name, partial(fresh, folder, holder, name))
        with tempfile.TemporaryDirectory() as said:
            child = start(command(WORK[name]), folder, Path(said, "out"), Path(said, "err"))
            time.sleep(part * seconds)
            end(child)
    return go_on(case, folder, name, made)


def go_on(case: Case, folder: Path, name: str, made: dict[str, str]) -> Outcome:
    """Run a command again after it was disturbed, and compare what it made with what an undisturbed one makes."""
    ended = run(partial(_limited, again(name, folder)), folder, SECONDS)
    found = product(folder, name)
    other = sorted(path for path in made.keys() | found.keys() if made.get(path) != found.get(path))
    left = [path.name for path in folder.rglob("*.part")]
    judged = judge(replace(case, allowed=frozenset({0})), ended, {}, {}, "")
    if judged.failed:
        return judged
    if other:
        return Outcome(case.name, "lost", f"other bytes than undisturbed: {', '.join(other[:4])}", ended.seconds)
    if left:
        return Outcome(case.name, "lost", f"left: {', '.join(left[:4])}", ended.seconds)
    return Outcome(case.name, "fine", "", ended.seconds)


def _limited(arguments: list[str]) -> None:
    limited()
    command(arguments)()
