"""Disks that cannot lock files: everything works, and two writers still keep out of each other's way."""

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from faults.case import Case, Ended, Outcome, judge
from faults.kinds.kills import again, fresh
from faults.product import WORK, prepare, product, undisturbed
from faults.run import command, end, run, start, wait
from faults.world import HALF, RUN

ERRORS = {"ENOLCK": errno.ENOLCK, "ENOSYS": errno.ENOSYS, "EOPNOTSUPP": errno.EOPNOTSUPP}
NAMES = ("train", "resume", "ablate", "extract", "import", "fisher", "evaluate", "submit", "generate")
CHANGES = (f"{HALF}/*", f"{RUN}/*", f"{RUN}/submission/*")


def without_locks(number: int) -> Callable[[Path], AbstractContextManager[object]]:
    """`flock` fails, as it does on some network disks."""

    @contextmanager
    def around(_: Path) -> Iterator[None]:
        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        fcntl.flock = fail
        yield

    return around


def cases() -> Iterator[Case]:
    for name in NAMES:
        for what, number in ERRORS.items():
            yield Case(f"locks: {name}, flock gives {what}", WORK[name], prepare(name),
                       frozenset({0}), CHANGES, around=without_locks(number), seconds=20)  # fmt: skip
        if name in ("train", "extract", "import", "ablate"):
            statuses = frozenset({0} if name == "ablate" else {0, 2})  # two ablations share the work
            yield Case(f"locks: {name}, two at once", WORK[name], prepare(name), statuses,
                       attempt=partial(twice, name=name, number=errno.ENOLCK))  # fmt: skip
            yield Case(f"locks: {name}, two at once with locks", WORK[name], prepare(name), statuses,
                       attempt=partial(twice, name=name, number=0))  # fmt: skip
            yield Case(f"locks: {name}, killed without locks", WORK[name], prepare(name), frozenset({0}),
                       attempt=partial(killed, name=name, number=errno.ENOLCK))  # fmt: skip
    for count in range(3):
        yield Case(f"locks: generate, two at once ({count + 1})", WORK["generate"], allowed=frozenset({0, 2}),
                   attempt=partial(twice, name="generate", number=0))  # fmt: skip


def _act(arguments: list[str], number: int) -> None:
    if number:
        with without_locks(number)(Path()):
            command(arguments)()
    else:
        command(arguments)()


def twice(case: Case, folder: Path, name: str, number: int) -> Outcome:
    """Two of the same at once: one does it, the other says so or finds it done."""
    with tempfile.TemporaryDirectory() as holder:
        made, seconds = undisturbed.of(name, partial(fresh, folder, holder, name))
        paths = [Path(holder, f"{stream}{place}") for place in range(2) for stream in ("out", "err")]
        began = time.monotonic()
        children = []
        for place in range(2):
            children.append(start(partial(_act, WORK[name], number), folder, paths[2 * place], paths[2 * place + 1]))
            time.sleep(0.1 * seconds)
        statuses = [wait(child, 4 * case.seconds) for child in children]
        texts = [path.read_bytes() for path in paths]
    for place, status in enumerate(statuses):
        ended = Ended(status, texts[2 * place], texts[2 * place + 1], time.monotonic() - began)
        judged = judge(case, ended, {}, {}, "")
        if judged.failed:
            return judged
    if 0 not in statuses:
        return Outcome(case.name, "wrong", "neither did it")
    same = product(folder, name) == made
    return (
        Outcome(case.name, "sentence" if 2 in statuses else "fine")
        if same
        else Outcome(case.name, "lost", "other bytes")
    )


def killed(case: Case, folder: Path, name: str, number: int) -> Outcome:
    """What a killed writer leaves on such a disk does not keep the next one out."""
    with tempfile.TemporaryDirectory() as holder:
        made, seconds = undisturbed.of(name, partial(fresh, folder, holder, name))
        child = start(partial(_act, WORK[name], number), folder, Path(holder, "out"), Path(holder, "err"))
        time.sleep(0.5 * seconds)
        end(child)
    ended = run(partial(_act, again(name, folder), number), folder, 60)
    judged = judge(case, ended, {}, {}, "")
    if judged.failed:
        return judged
    same = product(folder, name) == made
    return Outcome(case.name, "fine" if same else "lost", "" if same else "other bytes", ended.seconds)
