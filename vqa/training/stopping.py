"""Ctrl-C and SIGTERM as a request that the loop looks at between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vqa.progress import console
from vqa.runtime.distributed import current_group


class StopRequest:
    """Whether somebody asked the loop to stop; looked at between two steps, so that no step is cut in half."""

    asked = False


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one ends the program as usual.

    Under torchrun a second one changes nothing: torchrun passes signals on more than once, and kills after 30 seconds.
    """
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        request.asked = True
        console.print("stopping after this step, saving …")
        if current_group().alone:
            for known, handler in before.items():
                signal.signal(known, handler)

    try:
        for number in before:
            signal.signal(number, ask)
    except ValueError:  # not the main thread: signals are somebody else's business
        yield request
        return
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
