"""Trackers that raise, hang, exit and print, and servers that refuse: the run is trained all the same."""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from faults.case import Case
from faults.world import RUN

TRAIN = ["train", "e.yaml", "name=new", "tracking.wandb=online"]
ACTS = {
    "raises": "raise RuntimeError('no')",
    "raises an exit": "raise SystemExit('tracker says goodbye')",
    "exits": "import sys; sys.exit(3)",
    "raises an interrupt": "raise KeyboardInterrupt",
    "raises memory": "raise MemoryError",
    "raises recursion": "raise RecursionError",
    "raises a pipe": "raise BrokenPipeError(32, 'Broken pipe')",
    "raises a full disk": "raise OSError(28, 'No space left on device')",
    "raises a base": "raise BaseException('odd')",
    "raises markup": "raise ValueError('cannot open [/path] of [/b][red]')",
    "raises escape codes": r"raise ValueError('\x1b[2J\x1b[31mred')",
    "raises nothing to say": "raise ValueError",
    "raises much": "raise ValueError('x' * 1_000_000)",
    "raises what cannot be told": "raise Untold",
    "prints escape codes to no one": "pass",
    "takes long": "import time; time.sleep(1.0)",
    "hangs": "import time; time.sleep(10_000)",
    "returns nothing": "return None",
    "changes what it gets": "[one.clear() for one in (*given, *named.values()) if isinstance(one, dict)]",
    "changes the folder": "import os; os.chdir('table')",
    "changes signals": "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "draws random numbers": "import torch, random, numpy; torch.rand(5); random.random(); numpy.random.rand()",
    "warns": "import warnings; warnings.warn('x [/b]')",
}
PLACES = ("import", "init", "log", "summary", "finish", "settings")
MODULE = """
class Untold(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def act(*given, **named):
    {act}


def harmless(*given, **named):
    return None


class Settings:
    def __init__(self, **named):
        {settings}(**named)


class Summary(dict):
    def update(self, *given, **named):
        {summary}(*given, **named)


class Run:
    def __init__(self):
        self.summary = Summary()
        self.id = "abc"
        self.url = "[/b]"

    def define_metric(self, *given, **named):
        return None

    def log(self, *given, **named):
        {log}(*given, **named)

    def finish(self, *given, **named):
        {finish}(*given, **named)

    def alert(self, *given, **named):
        return None


def init(*given, **named):
    {init}(*given, **named)
    return Run()


{imported}()
"""


def module(folder: Path, place: str, act: str) -> None:
    """A module `wandb` that behaves badly in one place."""
    (folder / "fake").mkdir()
    parts = {name: "act" if name == place else "harmless" for name in PLACES if name != "import"}
    text = MODULE.format(act=act, imported="act" if place == "import" else "harmless", **parts)
    (folder / "fake/wandb.py").write_text(text)


@contextmanager
def faked(folder: Path) -> Iterator[None]:
    """The module of the folder in the place of the true one, with a key."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
        del sys.modules[name]
    from vqa.training.tracking import guard

    guard.SECONDS.update(dict.fromkeys(guard.SECONDS, 2.0))
    if (folder / "fake").is_dir():
        sys.path.insert(0, str(folder / "fake"))
    os.environ.pop("WANDB_MODE", None)
    os.environ["WANDB_API_KEY"] = "0" * 40
    yield


def same_weights(folder: Path) -> str:
    """The weights of a run that was not tracked."""
    new = folder / "runs/new/0/model.safetensors"
    if not new.is_file():
        return "nothing was trained"
    rows = (folder / "runs/new/0/metrics.jsonl").read_text().count("\n")
    if rows != 2:
        return f"metrics.jsonl has {rows} rows of 2"
    return (
        "" if new.read_bytes() == (folder / RUN / "model.safetensors").read_bytes() else "other weights than untracked"
    )


def server(answer: bytes | None, delay: float = 0.0) -> Callable[[Path], AbstractContextManager[object]]:
    """The true wandb, and a server in this process that answers with these bytes; None: never."""

    @contextmanager
    def around(folder: Path) -> Iterator[None]:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen(20)

        def serve() -> None:
            kept = []
            while True:
                connection, _ = listening.accept()
                kept.append(connection)
                if answer is not None:
                    connection.recv(65536)
                    connection.sendall(answer)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        with faked(folder):
            os.environ["WANDB_BASE_URL"] = f"http://127.0.0.1:{listening.getsockname()[1]}"
            yield

    return around


def refused(folder: Path) -> AbstractContextManager[object]:
    os.environ["WANDB_BASE_URL"] = "http://127.0.0.1:9"
    return faked(folder)


def cases() -> Iterator[Case]:
    fine = frozenset({0})
    for place in PLACES:
        for what, act in ACTS.items():
            if place != "log" and list(ACTS).index(what) % 2 != PLACES.index(place) % 2 and what != "hangs":
                continue
            stopped = frozenset({0, 130}) if what == "raises an interrupt" else fine
            after = same_weights if stopped == fine else lambda _: ""
            yield Case(f"trackers: {place} {what}", TRAIN,
                       lambda folder, p=place, a=act: module(folder, p, a),  # type: ignore[misc]
                       stopped, around=faked, after=after)  # fmt: skip
    answers = {"500": b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n",
    "401": b"HTTP/1.1 401 no\r\nContent-Length: 0\r\n\r\n",
               "nonsense": b"\x00\x01\x1b[2J\r\n\r\n",
               "HTML": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"}  # fmt: skip
    for what, answer in answers.items():
        yield Case(f"trackers: a server that answers {what}", TRAIN, allowed=fine, around=server(answer), seconds=60,
                   after=same_weights)  # fmt: skip
    yield Case(
        "trackers: a server that never answers",
        TRAIN,
        allowed=fine,
        around=server(None),
        seconds=60,
        after=same_weights,
    )
    yield Case("trackers: a server that refuses", TRAIN, allowed=fine, around=refused, seconds=60, after=same_weights)
    yield Case("trackers: no module", TRAIN, lambda folder: module(folder, "import", "raise ImportError('no wandb')"),
               fine, around=faked, after=same_weights)  # fmt: skip
    for mode in ("disabled", "offline", "dryrun", "nonsense", ""):

        @contextmanager
        def set_mode(folder: Path, mode: str = mode) -> Iterator[None]:
            with faked(folder):
                os.environ["WANDB_MODE"] = mode
                yield

        def must_not(folder: Path, mode: str = mode) -> None:
            act = "print('tracked with', named.get('mode'))"
            module(folder, "init", act if mode != "disabled" else "print('tracked though disabled')")

        def obeyed(folder: Path) -> str:
            return same_weights(folder)

        yield Case(f"trackers: WANDB_MODE={mode}", TRAIN, must_not, fine, around=set_mode, after=obeyed)
