"""Special files and places: pipes, devices, sockets, no home, no permission, odd paths, a full standard output."""

import os
import pwd
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.case import Case, thinned
from faults.mutate import replace_by
from faults.world import ENCODER, RUN, SCORE

ANY = frozenset({0, 2})
EVALUATED = tuple(f"{RUN}/{name}" for name in ("report.html", "evaluation_*", "results_*"))
COMMANDS: dict[str, list[str]] = {
    "train": ["train", "e.yaml", "name=new", "training.epochs=1"],
    "ablate": ["ablate", "a.yaml"],
    "evaluate": ["evaluate", RUN],
    "predict": ["predict", RUN, "table/0.png", "what?"],
    "score": list(SCORE),
    "describe": ["describe", "e.yaml"],
    "check": ["data", "check", "data", "--format", "vqa_v2"],
    "plan": ["data", "plan", "data", "--format", "vqa_v2"],
    "extract": ["features", "extract", "--data", "data", "--format", "vqa_v2", "--split", "val", *ENCODER,
    "--workers", "1",
                "--no-compile", "--out", "new.h5"],
    "info": ["features", "info", "cache.h5"],
    "generate": ["data", "generate", "new", "--scenes", "40", "--size", "32"],
    "submit": ["submit", RUN, "--split", "test"],
    "recipes": ["recipes"],
}  # fmt: skip
# What each argument names, so that it can be something else
PLACES = {
    "e.yaml": "train", "a.yaml": "ablate", "results.json": "score", "cache.h5": "info", "table/0.png": "predict",
}  # fmt: skip
CHANGES = (*EVALUATED, f"{RUN}/submission/*")


def cases() -> Iterator[Case]:
    for name, command in PLACES.items():
        for kind in ("fifo", "/dev/zero", "/dev/full", "socket", "folder", "link to itself", "broken link"):
            yield Case(f"special: {command}, {name} is {kind}", COMMANDS[command],
                       lambda folder, n=name, k=kind: replace_by(folder / n, k))  # type: ignore[misc]  # fmt: skip
    yield from home_cases()
    yield from thinned(path_cases(), 2)
    yield from thinned(permission_cases(), 2)
    yield from words_cases()


def home_cases() -> Iterator[Case]:
    """No HOME and no entry in passwd, as services and containers have it."""

    @contextmanager
    def homeless(_: Path) -> Iterator[None]:
        for name in ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME", "USERNAME", "LNAME"):
            os.environ.pop(name, None)

        def unknown(user: object) -> None:
            raise KeyError(f"getpwuid(): uid not found: {user}")

        pwd.getpwuid = unknown  # type: ignore[assignment]
        yield

    @contextmanager
    def closed(folder: Path) -> Iterator[None]:
        os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = "/proc/nowhere"
        yield

    @contextmanager
    def other_cache(folder: Path) -> Iterator[None]:
        os.environ["VQA_CACHE"] = str(folder / "e.yaml")
        yield

    @contextmanager
    def no_room(folder: Path) -> Iterator[None]:
        import tempfile

        os.environ["TMPDIR"] = "/nowhere"
        tempfile.tempdir = None
        yield

    @contextmanager
    def no_folder(folder: Path) -> Iterator[None]:
        """The current folder was removed meanwhile."""
        gone = folder / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        yield

    surroundings = {
        "no home and no user": homeless, "a home that cannot be made": closed, "a cache that is a file": other_cache,
        "no folder for temporary files": no_room,
    }  # fmt: skip
    for what, around in surroundings.items():
        for name, typed in COMMANDS.items():

            def large(folder: Path) -> None:
                """Also files so small go into the cache of read files."""

            @contextmanager
            def whole(folder: Path, around: Callable[[Path], object] = around) -> Iterator[None]:
                import vqa.data.binary_cache as module

                module.SMALLEST = 0
                with around(folder):  # type: ignore[attr-defined]
                    yield

            yield Case(f"special: {name}, {what}", typed, large, frozenset({0}), CHANGES, around=whole)
    for name, typed in COMMANDS.items():
        yield Case(f"special: {name}, the current folder is gone", typed, allowed=ANY, around=no_folder)


def path_cases() -> Iterator[Case]:
    """A NUL, over-long names, bytes that are no UTF-8, in every argument that names a file."""
    odd = {"a NUL": "a\x00b", "a long name": "n" * 300, "a long path": "n/" * 3000, "no UTF-8": "a\udcff\udcfe",
           "nothing": "", "a blank": " ", "a line end": "a\nb", "a home": "~nobody/x",
           "dots": "../x"}  # fmt: skip
    named: dict[str, Callable[[str], list[str]]] = {
        "train": lambda path: ["train", path], "train data.root": lambda path: [*COMMANDS["train"],
        f"data.root={path!r}"],
        "train cache": lambda path: [*COMMANDS["train"], f"features.cache={path!r}"],
        "train runs": lambda path: [*COMMANDS["train"], f"runs={path!r}"],
        "ablate": lambda path: ["ablate", path], "evaluate": lambda path: ["evaluate", path],
        "evaluate --cache": lambda path: ["evaluate", RUN, "--cache", path],
        "predict image": lambda path: ["predict", RUN, path, "what?"],
        "score": lambda path: ["score", path, *SCORE[2:]], "score --json": lambda path: [*SCORE, "--json", path],
        "check": lambda path: ["data", "check", path, "--format", "vqa_v2"],
        "info": lambda path: ["features", "info", path], "submit": lambda path: ["submit", path],
        "extract --out": lambda path: [*COMMANDS["extract"][:-1], path],
        "generate": lambda path: ["data", "generate", path, "--scenes", "40", "--size", "32"],
    }  # fmt: skip
    for what, path in odd.items():
        for name, typed in named.items():
            makes = name in ("train runs", "score --json", "extract --out", "generate")
            yield Case(
                f"special: {name}, {what}", typed(path), allowed=ANY if makes or what == "nothing" else frozenset({2})
            )


def permission_cases() -> Iterator[Case]:
    """As a user who may not: reading, searching and writing are refused."""

    @contextmanager
    def nobody(folder: Path) -> Iterator[None]:
        os.setgid(65534)
        os.setuid(65534)
        yield

    def mode(name: str, bits: int) -> Callable[[Path], None]:
        def prepare(folder: Path) -> None:
            for path in (folder.parent, folder):
                path.chmod(0o777)
            (folder / name).chmod(bits)

        return prepare

    if os.geteuid() != 0:
        return
    for name in (
        "data",
        "data/images",
        "runs",
        RUN,
        "e.yaml",
        "cache.h5",
        "results.json",
        f"{RUN}/model.safetensors",
        "table",
    ):
        for command in ("train", "evaluate", "check", "score", "describe", "predict", "info", "extract"):
            bits = 0o444 if len(command) % 2 else 0
            yield Case(f"special: {command}, {name} may not be read {bits:o}", COMMANDS[command], mode(name, bits),
            ANY | {1},
                       CHANGES, around=nobody)  # fmt: skip
    for name in ("", "runs", RUN):

        def all_but(folder: Path, name: str = name) -> None:
            for path in (folder.parent, folder, *folder.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o777 if path.is_dir() else 0o666)
            (folder / name).chmod(0o555)

        for command in ("train", "evaluate", "ablate", "extract", "generate", "submit"):
            yield Case(f"special: {command}, {name or 'all'} may not be written", COMMANDS[command], all_but, ANY,
            CHANGES,
                       around=nobody)  # fmt: skip


def words_cases() -> Iterator[Case]:
    """Standard output that is closed, full, or a pipe whose reader has gone; odd environments."""

    @contextmanager
    def full(_: Path) -> Iterator[None]:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        yield

    @contextmanager
    def gone(_: Path) -> Iterator[None]:
        into, out = os.pipe()
        os.close(into)
        os.dup2(out, 1)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)  # the one before has noted that it can seek
        yield

    @contextmanager
    def ascii_only(_: Path) -> Iterator[None]:
        import sys

        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding="ascii", errors="strict")  # type: ignore[union-attr]
        yield

    @contextmanager
    def narrow(_: Path) -> Iterator[None]:
        os.environ["COLUMNS"] = "1"
        yield

    for name, typed in COMMANDS.items():
        if name in ("submit", "describe"):
            continue
        yield Case(
            f"special: {name}, standard output is full", typed, allowed=ANY | {1}, may_change=CHANGES, around=full
        )
        yield Case(
            f"special: {name}, nobody reads",
            typed,
            allowed=ANY | {1, 141, -13},
            may_change=CHANGES,
            around=gone,
            quiet=True,
        )
    for name in ("train", "evaluate", "score", "plan", "check", "info", "predict", "recipes"):
        yield Case(f"special: {name}, a terminal of ASCII", COMMANDS[name], allowed=frozenset({0}), may_change=CHANGES,
                   around=ascii_only)  # fmt: skip
        yield Case(f"special: {name}, a terminal of one column", COMMANDS[name], allowed=frozenset({0}),
                   may_change=CHANGES, around=narrow)  # fmt: skip
