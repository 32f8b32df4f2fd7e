"""Extraction by several processes under torchrun: each fills a shard, a file of its own, then they become one.

The distinct images are cut into blocks as one process cuts them, and every process takes blocks that follow one
another; so the merged `/features` is what one process with as many threads writes, to the byte. A shard is a cache
like any other and is completed like any other: running the same command again does only what is missing.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache, different_places, dtype_name, identity
from vqa.features.cache.writer import WHERE, CacheWriter
from vqa.features.extraction.extract import ExtractReport, image_blocks
from vqa.features.precision import Precision
from vqa.progress import console, progress_bar
from vqa.runtime.distributed import Group

COMMIT_ROWS = 4096  # of a merge


def shard_path(out: Path, rank: int, processes: int) -> Path:
    """Where a process puts its shard; the name says part, as it always has."""
    return out.with_name(f"{out.stem}.part-{rank}-of-{processes}{out.suffix}")


def shards_at(out: Path) -> dict[Path, int]:
    """The shards beside `out`, each with the number of processes that it was begun with."""
    pattern = re.compile(rf"{re.escape(out.stem)}\.part-\d+-of-(\d+){re.escape(out.suffix)}")
    beside = out.parent.iterdir() if out.parent.is_dir() else ()
    return {path: int(found[1]) for path in sorted(beside) if (found := pattern.fullmatch(path.name))}


def require_same_processes(out: Path, processes: int) -> None:
    """Refuse to begin anew beside what another number of processes has begun.

    Raises:
        InputError: naming the shards that are there.
    """
    for path, begun in shards_at(out).items():
        if begun != processes and not out.exists():
            raise InputError(
                f"{path}: {out} was begun with {begun} processes; go on with {begun} "
                f"(torchrun --nproc-per-node), or remove its shards"
            )


def remove_merged(out: Path) -> None:
    """Remove shards that lie beside the whole file: their process ended after it was made and before they were gone."""
    for path in shards_at(out) if out.exists() else ():
        console.print(f"{path}: removed, {out} holds what it held")
        path.unlink()


def rows_of_shards(images: ImageTable, batch_size: int, processes: int) -> list[list[int]]:
    """The rows of each process: whole blocks that follow one another; empty where there are more processes."""
    blocks = image_blocks(images, batch_size)
    bounds = [len(blocks) * rank // processes for rank in range(processes + 1)]
    return [
        sorted(row for block in blocks[start:stop] for rows in block.rows for row in rows)
        for start, stop in pairwise(bounds)
    ]


def extract_in_shards(
    images: ImageTable,
    out: Path,
    group: Group,
    batch_size: int,
    choose: Callable[[Path], Precision],
    fill: Callable[[ImageTable, Path, Precision], ExtractReport],
) -> ExtractReport:
    """One of several processes: fill this one's shard; the first process merges all when every one is done.

    A process that fails says so and ends at once, and torchrun ends the others; the same command goes on.

    Args:
        images: the images of the whole cache.
        out: the whole cache.
        group: the processes.
        batch_size: images encoded together.
        choose: how the encoder computes, given a file that may have been begun; only the first process is asked.
        fill: extracts a table into a file.

    Returns:
        What all processes did, the same everywhere; the times are those of the slowest.

    Raises:
        InputError: as `fill`; or when shards of another number of processes are there.
    """
    shards = [shard_path(out, rank, group.size) for rank in range(group.size)]
    rows_of_shard = rows_of_shards(images, batch_size, group.size)

    def begin() -> Precision:
        require_same_processes(out, group.size)
        return choose(next((path for path in shards if path.exists()), shards[0]))

    def merge() -> None:
        merge_shards(images, out, {path: rows for path, rows in zip(shards, rows_of_shard, strict=True) if rows})

    precision = group.from_first(begin)
    own = rows_of_shard[group.rank]
    report = fill(_rows(images, own), shards[group.rank], precision) if own else ExtractReport.nothing()
    reports = group.gather(report)  # nobody is past this line before all are done
    group.from_first(merge)
    return _sum(reports, len(images.ids))


def merge_shards(images: ImageTable, out: Path, shards: Mapping[Path, list[int]]) -> None:
    """Put what the shards hold into one file and remove them; `shards` says which rows of the whole each holds.

    A content that several shards hold gets the features of its first row, as one process writes it. The file appears
    whole or not at all; until then the shards stay.

    Raises:
        InputError: when a shard is damaged, or the disk has no room for both.
    """
    caches = [FeatureCache(path) for path in shards]
    for cache, rows in zip(caches, shards.values(), strict=True):
        _require_shard(cache, caches[0], _rows(images, rows))
    place = {
        row: (cache, at) for cache, rows in zip(caches, shards.values(), strict=True) for at, row in enumerate(rows)
    }
    merging = out.with_name(f".{out.name}.merging")
    merging.unlink(missing_ok=True)
    first_of: dict[bytes, tuple[FeatureCache, int]] = {}
    one = caches[0]
    where, kind = [name for name in WHERE if name in one.places], dtype_name(one.dtype)
    with (
        CacheWriter(merging, images, one.attributes, one.regions, one.channels, kind, where=where) as writer,
        progress_bar() as bar,
    ):
        task = bar.add_task("Merging", total=len(images.ids), note="")
        for row in range(len(images.ids)):
            cache, at = place[row]
            if cache.done_I[at]:
                digest = cache.image_digests[at]
                source, source_row = first_of.setdefault(bytes.fromhex(digest), (cache, at)) if digest else (cache, at)
                writer.write_stored([row], source.stored(source_row), digest)
            if row % COMMIT_ROWS == COMMIT_ROWS - 1:
                writer.commit()
                bar.update(task, completed=row)
        bar.update(task, completed=len(images.ids))
    merging.replace(out)
    for path in shards:
        path.unlink()


def _require_shard(cache: FeatureCache, first: FeatureCache, images: ImageTable) -> None:
    """Raises InputError for a shard of other images, or of another encoder than the first."""
    if cache.image_ids != images.ids:
        raise InputError(f"{cache.path}: holds other images than its shard has; remove it, and run the command again")
    wrong = cache.contradictions(identity(first.attributes))
    wrong += [f"{cache.path}: {one}" for one in different_places(cache, first)]
    if wrong or (cache.regions, cache.channels, cache.dtype) != (first.regions, first.channels, first.dtype):
        raise InputError("\n".join([*wrong, f"{cache.path}: is no shard of the same cache as {first.path}"]))


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
        one_colour=tuple(path for one in reports for path in one.one_colour),
    )


def _rows(images: ImageTable, rows: list[int]) -> ImageTable:
    return ImageTable(tuple(images.ids[row] for row in rows), tuple(images.paths[row] for row in rows))
