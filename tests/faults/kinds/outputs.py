"""Every path that a user names for output: inputs, files of runs, links, pipes, devices, folders, no permission."""

import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from faults.case import Case
from faults.world import ANNOTATIONS, IMAGE, QUESTIONS, RUN, SCORE

EITHER = frozenset({0, 2})
EVALUATED = tuple(f"{RUN}/{name}" for name in ("report.html", "evaluation_*", "results_*"))
DATA = ["data", "--format", "vqa_v2"]
# command, the option that names a file, its inputs
COMMANDS: dict[str, tuple[list[str], str, tuple[str, ...]]] = {
    "score": (list(SCORE), "--json", ("results.json", QUESTIONS, ANNOTATIONS)),
    "evaluate": (["evaluate", RUN], "--json", (
        *(f"{RUN}/{name}" for name in ("model.safetensors", "state.pt", "experiment.yaml", "vocabulary.json",
          "seen.npz", "metrics.jsonl", "finished.json")), "cache.h5", QUESTIONS)),
    "check": (["data", "check", *DATA], "--json", (QUESTIONS, ANNOTATIONS, "{image}")),
    "plan": (["data", "plan", *DATA], "--json", (QUESTIONS, ANNOTATIONS)),
    "plot": (["data", "plan", *DATA], "--plot", ("{image}",)),
    "describe": (["describe", "e.yaml"], "--json", ("e.yaml", "cache.h5", QUESTIONS)),
    "ablate": (["ablate", "a.yaml"], "--json", ("a.yaml", "e.yaml", "cache.h5")),
    "predict": (["predict", RUN, "{image}", "what?"], "--json", ("{image}", f"{RUN}/model.safetensors")),
    "attention": (["predict", RUN, "{image}", "what?"], "--attention", ("{image}", f"{RUN}/state.pt")),
    "runs": (["runs", "runs"], "--json", (f"{RUN}/model.safetensors", f"{RUN}/experiment.yaml")),
    "recipes": (["recipes"], "--json", (f"{RUN}/model.safetensors",)),
    "score-wups": (["score-wups", "table.json", "--data", "table", "--format", "table", "--split", "val"], "--json",
                   ("table.json", "table/val.csv", "table/6.png")),
}  # fmt: skip
ENDING = {"--json": ".json", "--plot": ".png", "--attention": ".png"}


def prepared(more: Callable[[Path], object] = lambda _: None) -> Callable[[Path], None]:
    """What the commands need, then something more."""

    def prepare(folder: Path) -> None:
        answers = [{"question_id": 0, "answer": "cat"}, {"question_id": 1, "answer": "dog"}]
        (folder / "table.json").write_text(json.dumps(answers))
        more(folder)

    return prepare


def piped(folder: Path) -> None:
    os.mkfifo(folder / "out")


@contextmanager
def reader(folder: Path) -> Iterator[None]:
    """Somebody who reads the pipe, as `--json >(jq …)` has."""
    pipe = next(path for path in folder.iterdir() if path.is_fifo())
    descriptor = os.open(pipe, os.O_RDWR)  # so that it never ends
    threading.Thread(target=lambda: list(iter(lambda: os.read(descriptor, 4096), b"")), daemon=True).start()
    yield


def still(kind: Callable[[int], bool], name: str = "out") -> Callable[[Path], str]:
    """Whether the path is still what it was."""

    def look(folder: Path) -> str:
        path = folder / name
        return "" if path.is_symlink() or (path.exists() and kind(path.lstat().st_mode)) else f"{name} was replaced"

    return look


def cases() -> Iterator[Case]:
    for name, (typed, option, inputs) in COMMANDS.items():
        for given in inputs:
            yield output_case(f"{name} {option} {given[-24:]}", typed, option, given)
        yield from place_cases(name, typed, option)
    yield from standard_output_cases()
    yield from other_cases()


def output_case(
    what: str, typed: list[str], option: str, path: str, prepare: Callable[[Path], object] = lambda _: None,
    allowed: frozenset[int] = frozenset({2}), may_change: tuple[str, ...] = (), after: Callable[[Path],
    str] = lambda _: "",
    around: Callable[[Path], AbstractContextManager[object]] | None = None,
) -> Case:  # fmt: skip
    """A command that writes to a path. `{image}` stands for an image of the data set."""
    words = [word.replace("{image}", IMAGE) for word in (*typed, option, path)]
    case = Case(f"outputs: {what}", words, prepared(prepare), allowed, may_change, after=after)
    if around is None:
        return case
    from dataclasses import replace

    return replace(case, around=around)


def place_cases(name: str, typed: list[str], option: str) -> Iterator[Case]:
    """Places of every kind."""
    end = ENDING[option]
    written = EVALUATED if name == "evaluate" else ()
    text = (lambda folder: (folder / "to").write_text("before")) if option == "--json" else (lambda folder: None)

    def link(folder: Path) -> None:
        text(folder)
        (folder / f"out{end}").symlink_to("to")

    def followed(folder: Path) -> str:
        path = folder / f"out{end}"
        return "" if path.is_symlink() else "the link was replaced by a file"

    yield output_case(f"{name} {option} a link", typed, option, f"out{end}", link, EITHER, (*written, "to"), followed)
    yield output_case(f"{name} {option} a pipe", typed, option, "out" if end == ".json" else f"out{end}",
                      lambda folder: os.mkfifo(folder / ("out" if end == ".json" else f"out{end}")), EITHER, written,
                      still(stat.S_ISFIFO, "out" if end == ".json" else f"out{end}"),
                      reader)  # fmt: skip
    yield output_case(f"{name} {option} a null device", typed, option, "null", allowed=EITHER, may_change=written,
                      after=still(stat.S_ISCHR, "null"))  # fmt: skip
    for what in (
        "data",
        "full",
        "nowhere/a/b" + end,
        "n" * 300 + end,
        "e.yaml/x" + end,
        "/proc/x" + end,
        "a\x00b",
    ):
        sound = what.startswith("nowhere") or (name == "plot" and what == "data")
        yield output_case(f"{name} {option} {what[:14]!r}", typed, option, what,
        allowed=EITHER if sound else frozenset({2}),
                          may_change=written)  # fmt: skip


def standard_output_cases() -> Iterator[Case]:
    """`-` is standard output, with nothing else on it; and what is written keeps the mode that the umask gives."""
    for name, (typed, option, _) in COMMANDS.items():
        if option == "--json":

            def no_file(folder: Path) -> str:
                return "a file called - was written" if (folder / "-").exists() else ""

            yield output_case(f"{name} --json -", typed, option, "-", allowed=frozenset({0, 1}),
                              may_change=EVALUATED if name == "evaluate" else (), after=no_file)  # fmt: skip

    def own_mode(folder: Path) -> str:
        mode = (folder / "out.json").stat().st_mode & 0o777 if (folder / "out.json").exists() else 0o600
        return "" if mode == 0o600 else f"its mode is {mode:o} under umask 077"

    @contextmanager
    def private(_: Path) -> Iterator[None]:
        os.umask(0o077)
        yield

    for name in ("score", "plan", "recipes", "describe"):
        typed, option, _ = COMMANDS[name]
        yield output_case(f"{name} under umask 077", typed, option, "out.json", allowed=frozenset({0}), after=own_mode,
                          around=private)  # fmt: skip


def other_cases() -> Iterator[Case]:
    """Folders and files that are made, and names that say another kind of file."""

    def jpeg(folder: Path) -> str:
        path = folder / "where.jpg"
        kept = path.exists() and not path.read_bytes().startswith(b"\xff\xd8")
        return "a file called .jpg holds a PNG" if kept else ""

    yield Case("outputs: attention to a .jpg", ["predict", RUN, IMAGE, "what?", "--attention", "where.jpg"],
               allowed=EITHER, after=jpeg)  # fmt: skip
    for end in (".jpg", ".txt", "", ".html", ".PNG"):
        yield Case(f"outputs: attention to x{end}", ["predict", RUN, IMAGE, "what?", "--attention", f"x{end}"],
                   allowed=EITHER)  # fmt: skip
        yield Case(f"outputs: plot to x{end}", ["data", "plan", *DATA, "--plot", f"x{end}"], allowed=EITHER)
    places = ("data", "e.yaml", "results.json", "cache.h5", RUN, "null", "/proc/x", "n" * 300, "a\x00b", "link")
    for place in places:

        def link(folder: Path) -> None:
            (folder / "link").symlink_to("e.yaml")

        for what, typed in {
            "generate": ["data", "generate", place, "--scenes", "40", "--size", "32"],
            "recipes copy": ["recipes", "copy", "san", place],
            "demo": ["demo", "--out", place, "--scenes", "40"],
            "generate below": ["data", "generate", f"{place}/below", "--scenes", "40", "--size", "32"],
        }.items():
            into = what in ("recipes copy", "generate below") and place in ("data", RUN)
            if what == "demo" and place in ("data", RUN, "n" * 300):
                continue  # those may be, and take a minute
            yield Case(f"outputs: {what} {place[:14]!r}", typed, link, EITHER if into else frozenset({2}))
    for place in (RUN, f"{RUN}/model.safetensors", "data"):
        yield Case(f"outputs: extract to {place}", ["features", "extract", *["--data", "data", "--format", "vqa_v2"],
                   "--split", "val", "--out", place, "--encoder", "squeezenet1_1", "--weights", "random"])  # fmt: skip
