"""Extraction by several processes under torchrun: each fills a part file of its own, then the parts become one file.

The distinct images are cut into blocks as one process cuts them, and every process takes blocks that follow one
another; so the merged `/features` is what one process with as many threads writes, to the byte. A part file is a cache
like any other and is completed like any other: running the same command again does only what is missing.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.cache.writer import CacheWriter
from vqa.features.extraction.extract import ExtractReport, image_blocks
from vqa.features.precision import Precision
from vqa.progress import console, progress_bar

PATIENCE = timedelta(days=30)  # a process waits so long for a slower one
COMMIT_ROWS = 4096  # of a merge


class Launch(NamedTuple):
    """Which of how many processes this is, as torchrun tells it."""

    rank: int = 0
    processes: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Launch":
        """Read what torchrun sets; without it, one process.

        Raises:
            InputError: when the numbers contradict each other.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        try:
            launch = cls(*(int(environment.get(name, default)) for name, default in zip(names, "010", strict=True)))
        except ValueError:
            launch = cls(-1)
        if not 0 <= launch.rank < launch.processes:
            stated = ", ".join(f"{name}={environment.get(name)!r}" for name in names)
            raise InputError(f"{stated}: not what torchrun sets; unset them to run one process")
        return launch

    @property
    def device(self) -> torch.device:
        """The GPU of this process, or the CPU."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", self.local_rank % torch.cuda.device_count())


def part_path(out: Path, rank: int, processes: int) -> Path:
    """Where a process puts its part."""
    return out.with_name(f"{out.stem}.part-{rank}-of-{processes}{out.suffix}")


def parts_at(out: Path) -> dict[Path, int]:
    """The parts beside `out`, each with the number of processes that it was begun with."""
    pattern = re.compile(rf"{re.escape(out.stem)}\.part-\d+-of-(\d+){re.escape(out.suffix)}")
    beside = out.parent.iterdir() if out.parent.is_dir() else ()
    return {path: int(found[1]) for path in sorted(beside) if (found := pattern.fullmatch(path.name))}


def require_same_processes(out: Path, processes: int) -> None:
    """Refuse to begin anew beside what another number of processes has begun.

    Raises:
        InputError: naming the parts that are there.
    """
    for path, begun in parts_at(out).items():
        if begun != processes and not out.exists():
            raise InputError(
                f"{path}: {out} was begun with {begun} processes; go on with {begun} "
                f"(torchrun --nproc-per-node), or remove its parts"
            )


def remove_merged(out: Path) -> None:
    """Remove parts that lie beside the whole file: their process ended after it was made and before they were gone."""
    for path in parts_at(out) if out.exists() else ():
        console.print(f"{path}: removed, {out} holds what it held", markup=False)
        path.unlink()


def rows_of_parts(images: ImageTable, batch_size: int, processes: int) -> list[list[int]]:
    """The rows of each process: whole blocks that follow one another; empty where there are more processes."""
    blocks = image_blocks(images, batch_size)
    bounds = [len(blocks) * rank // processes for rank in range(processes + 1)]
    return [
        sorted(row for block in blocks[start:stop] for rows in block.rows for row in rows)
        for start, stop in pairwise(bounds)
    ]


def extract_in_parts(
    images: ImageTable,
    out: Path,
    launch: Launch,
    batch_size: int,
    choose: Callable[[Path], Precision],
    fill: Callable[[ImageTable, Path, Precision], ExtractReport],
) -> ExtractReport:
    """One of several processes: fill this one's part; the first process merges all when every one is done.

    Args:
        images: the images of the whole cache.
        out: the whole cache.
        launch: which process this is.
        batch_size: images encoded together.
        choose: how the encoder computes, given a file that may have been begun; only the first process is asked.
        fill: extracts a table into a file.

    Returns:
        What all processes did, the same everywhere; the times are those of the slowest.

    Raises:
        InputError: as `fill`; or when parts of another number of processes are there.
    """
    require_same_processes(out, launch.processes)
    parts = [part_path(out, rank, launch.processes) for rank in range(launch.processes)]
    rows_of_part = rows_of_parts(images, batch_size, launch.processes)
    own = rows_of_part[launch.rank]
    with _process_group(launch):
        begun = next((path for path in parts if path.exists()), parts[0])
        arithmetic = Precision.parse(_from_first(launch, lambda: str(choose(begun))))
        report = fill(_rows(images, own), parts[launch.rank], arithmetic) if own else None
        reports: list[ExtractReport | None] = [None] * launch.processes
        torch.distributed.all_gather_object(reports, report)  # nobody is past this line before all are done
        if launch.rank == 0:
            merge_parts(images, out, {path: rows for path, rows in zip(parts, rows_of_part, strict=True) if rows})
        torch.distributed.barrier()
    return _sum([one for one in reports if one is not None], len(images.ids))


def merge_parts(images: ImageTable, out: Path, parts: Mapping[Path, list[int]]) -> None:
    """Put what the parts hold into one file and remove them; `parts` says which rows of the whole each holds.

    A content that several parts hold gets the features of its first row, as one process writes it. The file appears
    whole or not at all; until then the parts stay.

    Raises:
        InputError: when a part is damaged, or the disk has no room for both.
    """
    caches = [FeatureCache(path) for path in parts]
    place = {
        row: (cache, at) for cache, rows in zip(caches, parts.values(), strict=True) for at, row in enumerate(rows)
    }
    merging = out.with_name(f".{out.name}.merging")
    merging.unlink(missing_ok=True)
    first_of: dict[bytes, tuple[FeatureCache, int]] = {}
    one = caches[0]
    dtype = str(one.dtype).removeprefix("torch.")
    with (
        CacheWriter(merging, images, one.attributes, one.regions, one.channels, dtype) as writer,
        progress_bar() as bar,
    ):
        task = bar.add_task("Merging", total=len(images.ids), note="")
        for row in range(len(images.ids)):
            cache, at = place[row]
            if cache.done_I[at]:
                digest = cache.image_digests[at]
                source, source_row = first_of.setdefault(bytes.fromhex(digest), (cache, at))
                writer.write_stored([row], *source.stored(source_row), digest)
            if row % COMMIT_ROWS == COMMIT_ROWS - 1:
                writer.commit()
                bar.update(task, completed=row)
        bar.update(task, completed=len(images.ids))
    merging.replace(out)
    for path in parts:
        path.unlink()


def _sum(reports: list[ExtractReport], images: int) -> ExtractReport:
    """What all processes did together."""
    slowest = max(reports, key=lambda one: one.seconds)
    return replace(
        slowest,
        images=images,
        extracted_now=sum(one.extracted_now for one in reports),
        already_done=sum(one.already_done for one in reports),
        encoded=sum(one.encoded for one in reports),
        unreadable=[image for one in reports for image in one.unreadable],
    )


def _rows(images: ImageTable, rows: list[int]) -> ImageTable:
    return ImageTable(tuple(images.ids[row] for row in rows), tuple(images.paths[row] for row in rows))


@contextmanager
def _process_group(launch: Launch) -> Iterator[None]:
    """The processes that torchrun started, able to wait for each other."""
    torch.distributed.init_process_group("gloo", rank=launch.rank, world_size=launch.processes, timeout=PATIENCE)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _from_first(launch: Launch, decide: Callable[[], Any]) -> Any:
    """What the first process decides, told to all."""
    told = [decide() if launch.rank == 0 else None]
    torch.distributed.broadcast_object_list(told, src=0)
    return told[0]
