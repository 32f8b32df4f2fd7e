"""Ctrl-C and the signals that mean the same: what is done is saved, and the work ends.

SIGTERM comes from batch systems and shut-downs, SIGHUP from a terminal that was closed, SIGUSR1 or SIGUSR2 from Slurm
before its time limit (`--signal=USR1@90`; submitit takes SIGUSR2). A signal that arrives ignored stays ignored: `nohup`
does that to SIGHUP, a script without a terminal to the Ctrl-C of what it starts with `&`.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from vqa.progress import console

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
STOPPING = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
AGAIN_SECONDS = 0.05
AGAIN = ("SIGINT", "SIGTERM")  # which end the program where they come a second time; the others often come twice


class StopRequest:
    """Whether somebody asked the loop to stop; looked at between two steps, so that no step is cut in half."""

    asked = False


class StopSignal(KeyboardInterrupt):
    """A signal that ends work which is not done in steps; the message is its name."""


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn the first of the signals into a request; a second Ctrl-C or SIGTERM ends the program as usual.

    Under torchrun a second one changes nothing: torchrun passes signals on more than once, and kills after 30 seconds.
    """
    from vqa.runtime.distributed import current_group  # torch, which commands that train nothing do without

    request = StopRequest()

    def ask(number: int) -> None:
        if not request.asked:
            console.print(f"{signal.Signals(number).name}: stopping after this step, saving …")
        request.asked = True

    with _handled(ask, once=current_group().alone):
        yield request


@contextmanager
def interrupting_signals() -> Iterator[None]:
    """Let each of the signals end the block where it is, as Ctrl-C does.

    Raises:
        StopSignal: one has come, which is a KeyboardInterrupt.
    """

    came: list[str] = []

    def interrupt(number: int) -> None:
        came.append(signal.Signals(number).name)
        raise StopSignal(came[-1])

    before = sys.unraisablehook

    def again(unraisable: Any) -> None:
        """The signal came within a destructor or a callback, whose exceptions Python drops: it comes once more."""
        if isinstance(unraisable.exc_value, StopSignal):
            number = signal.Signals[str(unraisable.exc_value)]
            threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()
        else:
            before(unraisable)

    sys.unraisablehook = again
    try:
        with _handled(interrupt, once=False):
            yield
    except Exception as error:
        if came:  # a library in C has dropped it in a callback, and failed for want of what it did not read
            raise StopSignal(came[-1]) from error
        raise
    finally:
        sys.unraisablehook = before


@contextmanager
def _handled(act: Callable[[int], None], *, once: bool) -> Iterator[None]:
    """Call a function at each of the signals.

    Args:
        once: a second Ctrl-C or SIGTERM does what it would do outside.
    """
    before = {number: signal.getsignal(number) for number in STOPPING}
    # ignored by whoever started the program, or handled by a library in C, which alone knows how
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    terminals = [descriptor for descriptor in (1, 2) if _is_terminal(descriptor)]

    def handle(number: int, frame: FrameType | None) -> None:
        _leave_closed(terminals)
        if once:
            for known in (known for known in before if signal.Signals(known).name in AGAIN):
                signal.signal(known, before[known])
        act(number)

    try:
        for number in before:
            signal.signal(number, handle)
    except ValueError:  # not the main thread: signals are somebody else's business
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def _leave_closed(terminals: list[int]) -> None:
    """Write nowhere from now on where the terminal is gone: a message would end the program before it has saved."""
    for descriptor in terminals:
        if not _is_terminal(descriptor):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
