"""Where a run's numbers go: always `metrics.jsonl`, and Weights & Biases when the experiment asks for it.

The only file that imports wandb. It never prompts, goes offline by itself where no server takes its rows, and never
stops a run: a tracker that fails offline, too, is reported once and left out.

A resumed run goes on in the same W&B run, whose id is kept in `tracking.json`, and sends the rows that a killed part
has not. Offline each part is a folder of its own under that id; `wandb sync` uploads the parts in the order of their
start, into one run.
"""

import json
import netrc
import os
import secrets
import signal
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlparse

import msgspec
import torch

from vqa.errors import InputError, first_line, shortened
from vqa.files import read_json, write_json
from vqa.progress import console
from vqa.training.records import Tracking
from vqa.training.run_folder import read_metrics

CLOUD = "https://api.wandb.ai"
ASKING, STARTING, ENDING = 10, 30, 60  # seconds that a server has to answer, to begin a run, and to take its last rows
# that a call may take in all, whatever the tracker does: its own bounds above come first
SECONDS = {"start": 2.0 * STARTING, "row": 20.0, "end": 1.5 * ENDING}
MODES = {"disabled": 0, "dryrun": 1, "offline": 1, "online": 2}  # by how much of a run they let out
BLOCK = 1 << 15  # bytes of a block of W&B's files


class Tracker:
    """One run's numbers.

    Args:
        folder: the run folder; `metrics.jsonl` in it gets one line a call of `log`. None keeps no numbers at all: of
            several processes only the first one tracks.
        mode: "online", "offline" or "disabled"; WANDB_MODE in the environment may lower it.
        config: the resolved experiment, shown by W&B.

    Raises:
        InputError: tracking.json or metrics.jsonl is damaged.
    """

    def __init__(
        self,
        folder: Path | None,
        mode: str,
        *,
        project: str,
        group: str | None,
        tags: list[str],
        config: Mapping[str, Any],
    ) -> None:
        self._folder = folder
        self._run: Any = None
        self._mode, self._last = mode, -1
        if folder is None:
            return
        self._mode = lowered(mode)
        if self._mode == "disabled":
            return
        self._tracking, self._resumed = read_tracking(folder)
        self._options: dict[str, Any] = {
            "project": project,
            "group": group or config["name"],
            "tags": tags,
            "name": f"{config['name']}/{config['seed']}",
            "id": self._tracking.wandb_id,
            "config": dict(config),
            "dir": str(folder),
        }
        rows = read_metrics(folder / "metrics.jsonl")
        if self._mode == "online" and (why := unusable()):
            console.print(f"W&B: {why}, so this run is kept offline")
            self._mode = "offline"
        self._attempt(lambda: self._open(rows))

    def _open(self, rows: list[dict[str, Any]]) -> None:
        """Open a part of W&B's run, and send those rows that it lacks."""
        import wandb

        assert self._folder is not None
        if self._mode == "offline":
            identity = self._tracking.wandb_id
            part = f"this part of run {identity} is offline, too; sent together" if self._resumed else "offline; sent"
            console.print(f"W&B: {part} by: {self._sync('offline-run-*')}", soft_wrap=True)
        # what is on the disk the files say; the server drops what is behind its last step
        known = steps_on_disk(self._folder, self._tracking.wandb_id) if self._mode == "offline" else set()
        self._run = wandb.init(
            **self._options,
            resume="allow",
            mode=self._mode,  # type: ignore[arg-type]
            reinit="create_new",  # beside the other runs of this process
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=STARTING, finish_timeout=ENDING, finish_timeout_raises=True
            ),
        )
        first = getattr(self._run, "step", 0) if self._mode == "online" else self._tracking.complete + 1
        for row in rows:
            self._last = max(self._last, row["step"])
            if row["step"] >= first and row["step"] not in known:
                self._run.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def _sync(self, parts: str) -> str:
        return f"wandb sync {self._folder}/wandb/{parts}"

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record numbers at a step (questions' batches since the start), in both places under the same names.

        Raises:
            InputError: metrics.jsonl cannot be written, say because the disk is full.
        """
        if self._folder is not None:
            path = self._folder / "metrics.jsonl"
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step, **values}) + "\n")
            except OSError as error:
                raise InputError(f"{path}: cannot be written: {error.strerror}; what was saved is kept") from None
        self._last = step
        if self._run is not None:
            self._attempt(lambda: self._run.log(dict(values), step=step))

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Set W&B's summary of the run; the run folder has the same in its own files."""
        if self._run is not None:
            self._attempt(lambda: self._run.summary.update(dict(values)))

    def finish(self, failed: bool = False) -> None:
        """Close W&B's run, and note that it has every row."""
        if self._run is None:
            return
        if self._attempt(lambda: self._run.finish(exit_code=int(failed)), last=True):
            assert self._folder is not None
            write_tracking(self._folder, msgspec.structs.replace(self._tracking, complete=self._last))

    def _attempt(self, act: Callable[[], object], *, last: bool = False) -> bool:
        """Do something with W&B, whatever becomes of it; returns whether it was done.

        A run that fails online goes on offline, one that fails offline is left out. SystemExit, and a KeyboardInterrupt
        that nobody has typed, are failures, too.

        Args:
            last: nothing comes after it.
        """
        with typed_interrupts() as typed, left_as_it_was():
            try:
                with bounded(SECONDS["end" if last else "row" if self._run else "start"]):
                    act()
                return True
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and typed:
                    raise
                said = shortened(f"{type(error).__name__}: {first_line(error)}")
        self._run = None
        if self._mode == "offline":
            console.print(f"W&B failed and is left out from here on ({said}); metrics.jsonl goes on")
        elif last:
            console.print(f"W&B failed at the end ({said}); send the rest by: {self._sync('run-*')}")
        else:
            console.print(f"W&B failed ({said}), so this run is kept offline from here on")
            self._mode = "offline"
            self._attempt(self._reopen)
        return False

    def _reopen(self) -> None:
        """Go on offline in the same run, which W&B's own process must have left before."""
        import wandb

        assert self._folder is not None
        wandb.teardown(exit_code=1)
        self._open(read_metrics(self._folder / "metrics.jsonl"))


@contextmanager
def left_as_it_was() -> Iterator[None]:
    """Undo what a tracker does to the process besides: the current folder, and torch's random numbers."""
    folder, random = Path.cwd(), torch.get_rng_state()
    try:
        yield
    finally:
        os.chdir(folder)
        torch.set_rng_state(random)


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raise TimeoutError where the block takes longer; only in the main thread, which alone gets signals."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"nothing for {seconds:g} seconds")

    try:
        before = signal.signal(signal.SIGALRM, ring)
    except ValueError:
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def typed_interrupts() -> Iterator[list[int]]:
    """A list that holds what SIGINT came meanwhile: a KeyboardInterrupt without one is somebody else's."""
    typed: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        typed.append(number)
        if callable(before):
            before(number, frame)

    try:
        if callable(before):
            signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread, which alone is interrupted
        yield typed
        return
    try:
        yield typed
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, before)


def lowered(mode: str) -> str:
    """The experiment's mode, or that of WANDB_MODE where it lets out less of the run, which is printed then."""
    asked = os.environ.get("WANDB_MODE", "").strip().lower()
    if MODES.get(asked, MODES["online"]) >= MODES[mode]:
        return mode
    found = "offline" if asked == "dryrun" else asked
    console.print(f"W&B: {found}, as WANDB_MODE={asked} says (the experiment: {mode})")
    return found


def read_tracking(folder: Path) -> tuple[Tracking, bool]:
    """What tracking.json says of a run folder's W&B run, made and written down at first; and whether it was there.

    Raises:
        InputError: it is damaged.
    """
    path = folder / "tracking.json"
    if path.is_file():
        return read_json(path, Tracking), True
    made = Tracking(secrets.token_hex(4))
    write_tracking(folder, made)
    return made, False


def write_tracking(folder: Path, tracking: Tracking) -> None:
    """Write tracking.json."""
    write_json(folder / "tracking.json", msgspec.to_builtins(tracking))


def steps_on_disk(folder: Path, identity: str) -> set[int]:
    """The steps whose rows are in the offline parts of a W&B run; a killed part may lack its last ones."""
    found = set()
    for path in folder.glob(f"wandb/offline-run-*-{identity}/*.wandb"):
        for record in wandb_records(path):
            for item in record.history.item:
                if "_step" in (item.key, *item.nested_key):
                    found.add(int(item.value_json))
    return found


def wandb_records(path: Path) -> Iterator[Any]:
    """What a W&B file holds: a log in LevelDB's layout (blocks of 32 KiB, records cut into parts) of protobufs.

    It ends where the writer was killed.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, joined = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        part = data[place + 7 : place + 7 + length]
        if kind not in (1, 2, 3, 4) or len(part) < length:
            return
        joined += part
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            try:
                yield Record.FromString(joined)
            except DecodeError:
                return
            joined = b""


def unusable() -> str:
    """Why no W&B server can be had now, in words; "" where one can, or where W&B itself had better find out."""
    import requests

    if not has_key():
        return "no API key found (`wandb login` stores one)"
    key, server = find_key(), os.environ.get("WANDB_BASE_URL", CLOUD).rstrip("/")
    asked = {"query": "query { viewer { id } }"}
    try:
        with requests.post(
            f"{server}/graphql", json=asked, auth=("api", key) if key else None, timeout=ASKING
        ) as answer:
            status = answer.status_code
    except (requests.exceptions.SSLError, requests.exceptions.InvalidURL):  # W&B's own client may know better
        return ""
    except requests.exceptions.RequestException as error:
        return f"{server} does not answer ({type(error).__name__})"
    refused = status >= 500 or (key and status in (401, 403))
    return f"{server} answers {status}" if refused else ""


def has_key() -> bool:
    """Whether W&B could log in without asking: a key in the environment or in the netrc file."""
    return bool(find_key() or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"))


def find_key() -> str:
    """The API key in the environment or in the netrc file; "" where there is none."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    host = urlparse(os.environ.get("WANDB_BASE_URL", CLOUD)).hostname or ""
    for name in filter(None, [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]):
        try:
            path = Path(name).expanduser()
            found = netrc.netrc(str(path)).authenticators(host) if path.is_file() else None
        except (netrc.NetrcParseError, OSError, RuntimeError):
            continue  # one that cannot be read, or a user without a home, has no usable key
        if found and found[2]:
            return found[2]
    return ""
