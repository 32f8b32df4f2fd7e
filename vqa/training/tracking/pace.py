"""What is measured of a training besides its losses: its speed, how long it waits for data, the memory it takes.

Nothing here waits for the device.
"""

import time
from collections.abc import Iterator
from typing import TypeVar

import torch

from vqa.runtime.memory import peak_memory

T = TypeVar("T")
GIB = 2**30


class Clock:
    """The seconds since an epoch was begun or gone on with, and how many of them were spent waiting for batches."""

    def __init__(self) -> None:
        self._started, self.waited = time.perf_counter(), 0.0

    @property
    def passed(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._started

    def timed(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches; what it takes until one is there is counted."""
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch


class Pace:
    """How fast a run has gone since the last time that somebody asked.

    Args:
        clock: of the epoch.
        questions: of the epoch that were done before.
    """

    def __init__(self, clock: Clock, questions: float) -> None:
        self._clock, self._last = clock, (0.0, 0.0, questions)

    @property
    def waiting(self) -> float:
        """Percent of the epoch's time, as far as it was trained in this call, that went into waiting for data."""
        return 100 * self._clock.waited / max(self._clock.passed, 1e-9)

    def since_last(self, questions: float, device: torch.device) -> dict[str, float]:
        """`questions_per_second`, `data_wait` in percent of the time, and `memory_gib`, the most that was taken so far.

        Args:
            questions: of the epoch that are done.
            device: whose memory it is.
        """
        passed, waited, done = now = (self._clock.passed, self._clock.waited, questions)
        before, self._last = self._last, now
        seconds = max(passed - before[0], 1e-9)
        return {
            "questions_per_second": (done - before[2]) / seconds,
            "data_wait": 100 * (waited - before[1]) / seconds,
            "memory_gib": memory_taken(device),
        }


def memory_taken(device: torch.device) -> float:
    """GiB that tensors on a GPU, or this process in main memory, have taken at the most."""
    return (torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()) / GIB


def is_looked_at(number: int, steps: int, step: int, look_every: int, row_every: int | None) -> bool:
    """Whether a row is logged after a step of an epoch: at the first look after every so many steps of the run.

    It depends on the step alone, so a run that was interrupted logs the rows of one that was not.

    Args:
        number: of the step within its epoch, from 1.
        steps: of the epoch; its last step has the epoch's own row.
        step: of the run, from 1.
        look_every: steps of an epoch between two looks at the device.
        row_every: steps of the run between two rows; None: no rows.
    """
    if row_every is None or number == steps or number % look_every:
        return False
    return step // row_every > (step - look_every) // row_every
