"""Full disks: a small file system of its own, files that may not grow, and standard output that is full."""

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from faults.case import Case, Outcome, contents, judge
from faults.kinds.kills import fresh, go_on
from faults.product import WORK, prepare, undisturbed
from faults.run import command, limited, run
from faults.world import HALF, RUN

KILOBYTES = (0, 8, 60, 150, 400)
LARGEST = (4096, 30_000, 120_000)  # bytes of one file; those below hold what is said
NAMES = ("train", "resume", "ablate", "extract", "import", "fisher", "evaluate", "submit", "generate")
CHANGES = (f"{HALF}/*", f"{RUN}/report.html", f"{RUN}/evaluation_*", f"{RUN}/results_*", f"{RUN}/submission*")


def cases() -> Iterator[Case]:
    for name in NAMES:
        for room in KILOBYTES:
            yield Case(f"full disks: {name} with {room} kB left", WORK[name], prepare(name), frozenset({0, 2}), CHANGES,
                       attempt=partial(fill, name=name, room=room))  # fmt: skip
        for size in LARGEST:
            yield Case(f"full disks: {name}, files of at most {size} bytes", WORK[name], prepare(name), frozenset({0,
            2}),
                       CHANGES, around=no_larger(size))  # fmt: skip
    for option, typed in {
        "--json": ["score", "results.json", "--questions", "data/v2_OpenEnded_mscoco_val2014_questions.json",
                   "--annotations", "data/v2_mscoco_val2014_annotations.json", "--json", "out.json"],
        "--plot": ["data", "plan", "data", "--format", "vqa_v2", "--plot", "out.png"],
        "--attention": ["predict", RUN, "table/0.png", "what?", "--attention", "out.png"],
    }.items():  # fmt: skip
        yield Case(
            f"full disks: {option}, files of at most 3000 bytes",
            typed,
            allowed=frozenset({0, 2}),
            around=no_larger(3000),
        )


def no_larger(size: int) -> Callable[[Path], AbstractContextManager[object]]:
    """No file of this process may become larger: EFBIG, as on a disk with quotas."""

    @contextmanager
    def around(_: Path) -> Iterator[None]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        yield

    return around


def mounted(place: Path, kilobytes: int) -> bool:
    """Put a file system of this size at a folder; False where that is not allowed."""
    place.mkdir()
    typed = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    return subprocess.run(typed, capture_output=True).returncode == 0


def _room(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def fill(case: Case, folder: Path, name: str, room: int) -> Outcome:
    """Run a command where so much is free; then give it room, and run it again."""
    with tempfile.TemporaryDirectory() as holder:
        made, _ = undisturbed.of(name, partial(fresh, folder, holder, name))
        place = Path(holder, "disk")
        if not mounted(place, 200_000):
            return Outcome(case.name, "fine", "not tried: no file system may be mounted here")
        try:
            inner = place / "w"
            shutil.copytree(folder, inner, ignore=shutil.ignore_patterns("null", "full"))
            filler = place / "filler"
            with filler.open("wb") as file:
                file.write(bytes(max(0, _room(place) - room * 1024)))
            before = contents(inner)
            ended = run(partial(_act, list(case.arguments)), inner, case.seconds)
            outcome = judge(case, ended, before, contents(inner), "")
            if outcome.failed:
                return outcome
            filler.unlink()
            later = go_on(case, inner, name, made)
            return later if later.failed else outcome
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def _act(arguments: list[str]) -> None:
    limited()
    command(arguments)()
