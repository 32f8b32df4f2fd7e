"""What one case is, and how what came out is judged.

A case is a command that is run in a fresh copy of a small world after something in it was damaged. It is judged by its
exit status, by what it said, by the time it took, and by the files before and after.
"""

import hashlib
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

SECONDS = 10.0  # a command that answers later than this hangs
LETTERS = 2000  # of a message; a longer one is not read
SPACE = 6 << 30  # bytes of address space above what the process begins with
RAW = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]")  # control characters that a terminal obeys

SENTENCE, FINE = "sentence", "fine"
FAULTS = ("traceback", "crash", "hang", "lost", "raw", "long", "silent", "wrong")
FAULT_WORDS = {
    "traceback": "a traceback",
    "crash": "ended by a signal such as a segmentation fault",
    "hang": "no end within ten seconds",
    "lost": "a file that was there before was changed or removed, or a half-written one was left",
    "raw": "a control character of the data reached the terminal",
    "long": f"more than {LETTERS:,} letters of message",
    "silent": "a wrong exit status and no message",
    "wrong": "another exit status or result than is right, with a message",
}


def nothing(_: Path) -> None:
    """No damage."""


@dataclass(frozen=True)
class Case:
    """One thing to try.

    Attributes:
        name: unique among all cases; begins with its kind.
        arguments: what is typed after `vqa`; the current folder is the world.
        prepare: damages the world, given its folder.
        allowed: the exit statuses that are right.
        may_change: patterns of paths in the world that the command may change or remove.
        may_leave: whether half-written files may stay.
        says: what must be in the output.
        around: a context in the process of the command: other limits, other modules. It gets the world's folder.
        seconds: the time within which it must end.
        after: looks at the world afterwards, and returns what is wrong in words, or "".
        quiet: whether it may end without a word, as where nobody reads.
        attempt: tries the case in its own way, given the case and its world; None: runs the command once.
    """

    name: str
    arguments: Sequence[str]
    prepare: Callable[[Path], object] = nothing
    allowed: frozenset[int] = frozenset({2})
    may_change: tuple[str, ...] = ()
    may_leave: bool = False
    says: tuple[str, ...] = ()
    around: Callable[[Path], AbstractContextManager[object]] = lambda _: nullcontext()
    seconds: float = SECONDS
    after: Callable[[Path], str] = lambda _: ""
    quiet: bool = False
    attempt: "Callable[[Case, Path], Outcome] | None" = None

    @property
    def kind(self) -> str:
        """The first word of its name."""
        return self.name.partition(": ")[0]


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: its exit status; negative for the number of the signal that ended it; None where it was still running.
        out: its standard output.
        err: its standard error.
        seconds: that it took.
    """

    status: int | None
    out: bytes
    err: bytes
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What came out of a case: `SENTENCE`, `FINE` or one of `FAULTS`, and the line that shows it."""

    case: str
    came_out: str
    line: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        return self.came_out in FAULTS


class UndisturbedError(Exception):
    """A command fails without being disturbed, so nothing can be compared."""


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder by its path: its digest, or what it is where it is no regular file."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                value = hashlib.sha256(path.read_bytes()).hexdigest() if path.stat().st_size < 1 << 28 else "large"
            elif stat.S_ISLNK(mode):
                value = f"link to {path.readlink()}"
            else:
                value = str(stat.S_IFMT(mode))
            found[str(path.relative_to(folder))] = value
    return found


def judge(case: Case, ended: Ended, before: dict[str, str], after: dict[str, str], wrong: str) -> Outcome:
    """What came out of a case; of several faults the worst."""
    text = (ended.out + ended.err).decode(errors="replace")
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")[:200]
    fault, line = _end(case, ended, last) or _lost(case, before, after) or _words(case, ended, text, last) or ("", "")
    if not fault and wrong:
        fault, line = "wrong", wrong
    if not fault:
        fault = FINE if ended.status == 0 else SENTENCE
    return Outcome(case.name, fault, line or last, ended.seconds)


def _end(case: Case, ended: Ended, last: str) -> tuple[str, str] | None:
    """Ends that no command should have."""
    if ended.status is None:
        return "hang", last
    if b"Traceback (most recent call last)" in ended.err + ended.out or b"Fatal Python error" in ended.err:
        return "traceback", last
    if ended.status < 0 and ended.status not in case.allowed:
        return "crash", f"signal {-ended.status}: {last}"
    return None


def _words(case: Case, ended: Ended, text: str, last: str) -> tuple[str, str] | None:
    """What was said, and the exit status."""
    if found := RAW.search(ended.out + ended.err):
        around = (ended.out + ended.err)[max(0, found.start() - 60) : found.end() + 20]
        return "raw", repr(around.decode(errors="replace"))
    if len(ended.err) > LETTERS and ended.status != 0:
        return "long", f"{len(ended.err):,} letters: {last[:80]}"
    if ended.status not in case.allowed:
        return ("wrong" if text.strip() else "silent"), f"exit {ended.status}: {last}"
    if ended.status != 0 and not text.strip() and not case.quiet:
        return "silent", f"exit {ended.status} without a word"
    unsaid = [words for words in case.says if words not in text]
    return ("wrong", f"does not say {unsaid[0]!r}: {last}") if unsaid else None


def _lost(case: Case, before: dict[str, str], after: dict[str, str]) -> tuple[str, str] | None:
    """Files that were changed, and what was left half-written."""
    changed = [path for path, value in before.items() if after.get(path) != value]
    changed = [path for path in changed if not any(fnmatch(path, pattern) for pattern in case.may_change)]
    left = [path for path in after.keys() - before.keys() if path.endswith(".part") and not case.may_leave]
    if changed:
        return "lost", f"changed: {', '.join(sorted(changed)[:4])}"
    return ("lost", f"left: {', '.join(sorted(left)[:4])}") if left else None


def numbered(kind: str, cases: Iterable[Case]) -> list[Case]:
    """The cases of one kind; where two have one name, the second is numbered."""
    seen: Counter[str] = Counter()
    found = []
    for case in cases:
        assert case.kind == kind, case.name
        seen[case.name] += 1
        found.append(case if seen[case.name] == 1 else replace(case, name=f"{case.name} ({seen[case.name]})"))
    return found


def thinned(cases: Iterable[Case], of: int) -> Iterator[Case]:
    """About one case of so many, spread over what they vary, and always the same ones."""
    return (case for case in cases if zlib.crc32(case.name.encode("utf-8", "replace")) % of == 0)
