"""One batch of rows after another, the next one fetched while this one is computed with.

Every batch lies in memory that a later batch uses again, so it is valid until the batch after it is asked for: a
training step that has gone backward and a prediction that has copied its answers are done with theirs.

Legend: `B` batch, `R` regions, `C` channels.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vqa.features.tables.stored_rows import Rows
from vqa.runtime.transfer import thread_for

EXPECTED_BYTES = 128 << 20  # how much is announced to a disk at a time


def in_turn(source: Rows, rows: Sequence[Tensor], shape: tuple[int, int]) -> Iterator[Tensor]:
    """Each batch copied when it is asked for, all of them into the same memory.

    Args:
        source: where the rows are.
        rows: int64 on the CPU, the rows of each batch.
        shape: `(R, C)`.

    Yields:
        `[B, R, C]` in the stored type, in main memory.
    """
    with torch.inference_mode(False):  # memory that may be written in any mode, whatever the caller's is
        buffer_BRC = torch.empty((max(map(len, rows), default=0), *shape), dtype=source.dtype)
    for row_B in rows:
        batch_BRC = buffer_BRC[: len(row_B)]
        source.read(row_B, batch_BRC)
        yield batch_BRC


def ahead(source: Rows, rows: Sequence[Tensor], shape: tuple[int, int], device: torch.device) -> Iterator[Tensor]:
    """The same batches on `device`; a thread copies the next one while the caller works with this one.

    Args:
        source: where the rows are.
        rows: int64 on the CPU, the rows of each batch.
        shape: `(R, C)`.
        device: where the batches go; the copy to a GPU runs on a stream of its own from pinned memory.
    """
    if not rows:
        return
    most = max(map(len, rows))
    with torch.inference_mode(False):  # the thread writes here in no such mode
        slots = [_Slot((most, *shape), source.dtype, device) for _ in range(2)]
    group = max(1, EXPECTED_BYTES // max(1, slots[0].host_BRC.nbytes))

    def fetch(number: int) -> None:
        if number == 0:
            source.expect(torch.cat(list(rows[:group])))
        if number % group == 0 and number + group < len(rows):
            source.expect(torch.cat(list(rows[number + group : number + 2 * group])))
        slots[number % 2].fill(source, rows[number])

    with thread_for(device, "features") as thread:
        try:
            fetching = thread.submit(fetch, 0)
            for number, row_B in enumerate(rows):
                fetching.result()
                if number + 1 < len(rows):
                    slots[(number + 1) % 2].release()
                    fetching = thread.submit(fetch, number + 1)
                yield slots[number % 2].take(len(row_B))
        finally:
            fetching.cancel()
            thread.shutdown()
            for slot in slots:
                slot.close()


class _Slot:
    """Memory for one batch on its way: in main memory and, for a GPU, pinned there and on the GPU.

    On a GPU two events keep the three users of a slot apart. `arrived`, on the copying stream: the batch is on the GPU,
    so the computing stream may read it and the thread may overwrite the pinned memory. `released`, on the computing
    stream: everything that reads the batch has been queued, so the copying stream may overwrite it after that.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.device, self.gpu = device, device.type == "cuda"
        self.host_BRC = torch.empty(shape, dtype=dtype, pin_memory=self.gpu)
        self.batch_BRC = torch.empty(shape, dtype=dtype, device=device) if self.gpu else self.host_BRC
        if self.gpu:
            self.copying = torch.cuda.Stream(device)
            self.arrived, self.released = torch.cuda.Event(), torch.cuda.Event()
            self.release()  # the allocator may have given memory that kernels in the queue still read

    def fill(self, source: Rows, row_B: Tensor) -> None:
        """Copy rows here, in the fetching thread."""
        count = len(row_B)
        if not self.gpu:
            source.read(row_B, self.host_BRC[:count])
            return
        self.arrived.synchronize()  # the last copy out of the pinned memory; long over
        source.read(row_B, self.host_BRC[:count])
        with torch.cuda.stream(self.copying):
            self.copying.wait_event(self.released)
            self.batch_BRC[:count].copy_(self.host_BRC[:count], non_blocking=True)
            self.arrived.record(self.copying)

    def take(self, count: int) -> Tensor:
        """The batch, from here on for the stream that computes."""
        if self.gpu:
            torch.cuda.current_stream(self.device).wait_event(self.arrived)
        return self.batch_BRC[:count]

    def release(self) -> None:
        """Say that every use of the batch has been queued."""
        if self.gpu:
            self.released.record(torch.cuda.current_stream(self.device))

    def close(self) -> None:
        """Wait until nothing writes here any more, so that the memory may be used for something else."""
        if self.gpu:
            self.copying.synchronize()
