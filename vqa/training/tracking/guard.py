"""Around every tracker but `metrics.jsonl`: one that is absent, down, slow or refuses never stops or slows a run."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from vqa.errors import first_line, shortened
from vqa.progress import console
from vqa.training.tracking.protocol import Bundle, Shown, Tracker

# that a call may take, whatever the tracker does: its own bounds come first. Rows have theirs together: what they take
# in all may never be more than this and SHARE of the time since the start
SECONDS = {"start": 60.0, "row": 20.0, "media": 60.0, "end": 90.0}
SHARE = 0.02


class Guarded:
    """A tracker that fails once is left out from then on, or another one takes its place.

    Args:
        name: how messages call it.
        begin: makes the tracker.
        instead: makes the one that takes its place, where there is one; it sends what the first one lacks.
        kept: what is said when that one begins: "so this run is kept offline".
        rest: what is said when the first one fails at its end: how to send what is left.
        end: seconds that the end may take.
    """

    def __init__(
        self,
        name: str,
        begin: Callable[[], Tracker],
        instead: Callable[[], Tracker] | None = None,
        *,
        kept: str = "",
        rest: str = "",
        end: float | None = None,
    ) -> None:
        self._name, self._instead, self._kept, self._rest = name, instead, kept, rest
        self._end = end
        self._tracker: Tracker | None = None
        self._begun, self._spent = time.perf_counter(), 0.0
        self._begin(begin)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record numbers; a tracker that takes the place of another has read this row in metrics.jsonl."""
        allowed = SECONDS["row"] + SHARE * (time.perf_counter() - self._begun) - self._spent
        started = time.perf_counter()
        self._do(lambda tracker: tracker.log(dict(values), step), max(allowed, 1e-3), again=False)
        self._spent += time.perf_counter() - started

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Set the summary."""
        self._do(lambda tracker: tracker.summarise(dict(values)), SECONDS["row"])

    def media(self, shown: Mapping[str, Shown]) -> None:
        """Show tables and images."""
        self._do(lambda tracker: tracker.media(dict(shown)), SECONDS["media"])

    def keep(self, bundle: Bundle) -> None:
        """Keep files."""
        self._do(lambda tracker: tracker.keep(bundle), SECONDS["media"])

    def alert(self, title: str, text: str) -> None:
        """Tell the user."""
        self._do(lambda tracker: tracker.alert(title, text), SECONDS["row"])

    def finish(self, failed: bool = False) -> None:
        """End it."""
        if self._tracker is None:
            return
        tracker, self._tracker = self._tracker, None
        said = attempt(lambda: tracker.finish(failed), self._end or SECONDS["end"])
        if said and self._instead is not None and self._rest:
            console.print(f"{self._name} failed at the end ({said}); {self._rest}", soft_wrap=True)
        elif said:
            self._left_out(said)

    def _begin(self, begin: Callable[[], Tracker]) -> None:
        made: list[Tracker] = []
        if said := attempt(lambda: made.append(begin()), SECONDS["start"]):
            self._failed(said)
        else:
            self._tracker = made[0]

    def _do(self, act: Callable[[Tracker], object], seconds: float, *, again: bool = True) -> None:
        if (tracker := self._tracker) is None:
            return
        if said := attempt(lambda: act(tracker), seconds):
            self._failed(said)
            if again:
                self._do(act, seconds)

    def _failed(self, said: str) -> None:
        """Leave the tracker out, or put the other one in its place."""
        self._tracker = None
        if self._instead is None:
            self._left_out(said)
            return
        console.print(f"{self._name} failed ({said}), {self._kept} from here on", soft_wrap=True)
        instead, self._instead = self._instead, None
        self._begun, self._spent = time.perf_counter(), 0.0
        self._begin(instead)

    def _left_out(self, said: str) -> None:
        console.print(
            f"{self._name} failed and is left out from here on ({said}); metrics.jsonl goes on", soft_wrap=True
        )


def attempt(act: Callable[[], object], seconds: float) -> str:
    """Do something, whatever becomes of it; returns what went wrong in a few words, "" where nothing did.

    SystemExit, and a KeyboardInterrupt that nobody has typed, are failures, too.

    Args:
        seconds: that it may take.
    """
    with typed_interrupts() as typed, left_as_it_was():
        try:
            with bounded(seconds):
                act()
            return ""
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and typed:
                raise
            return shortened(f"{type(error).__name__}: {first_line(error)}")


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
        raise TimeoutError(f"nothing for {round(seconds, 1):g} seconds")

    try:
        before = signal.signal(signal.SIGALRM, ring)
    except ValueError:
        yield
        return
    started, (left, _) = time.monotonic(), signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # of a bound around this one, which goes on, or rings at once
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 1e-3))


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
