"""Extraction by several processes: the merged file is what one process writes, a lost shard is redone alone."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.features import forked, render_images, small_encoder, stored
from helpers.training import PROJECT

from vqa.data.dataset import ImageTable
from vqa.data.images import Decoding
from vqa.data.synthetic import generate_dataset
from vqa.errors import InputError
from vqa.features.cache import writer
from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders.registry import ImageEncoder
from vqa.features.extraction.dataset import EncoderOptions, ExtractOptions, extract_dataset
from vqa.features.extraction.extract import ExtractReport, extract
from vqa.features.extraction.shards import (
    extract_in_shards,
    merge_shards,
    require_same_processes,
    rows_of_shards,
    shard_path,
    shards_at,
)
from vqa.features.precision import AS_BEFORE, Precision
from vqa.runtime import distributed
from vqa.runtime.distributed import joined

BATCH = 3


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageTable:
    """Twenty rows: 15 and 16 show files of earlier rows, 12 is a file whose content an earlier row has."""
    few = render_images(tmp_path_factory.mktemp("images"), 18)
    few.paths[12].write_bytes(few.paths[1].read_bytes())
    paths = [*few.paths[:15], few.paths[0], few.paths[14], *few.paths[15:]]
    return ImageTable(tuple(str(row) for row in range(20)), tuple(paths))


def fill(encoder: ImageEncoder, table: ImageTable, path: Path, precision: Precision) -> ExtractReport:
    return extract(table, encoder, path, precision=precision, batch_size=BATCH)


def free_port() -> str:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def started(images: ImageTable, out: Path, processes: int, fills: list[Callable[..., ExtractReport]]) -> list[int]:
    """The processes that torchrun would start, as copies of this one."""
    port = free_port()

    def one(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        with joined() as group:
            report = extract_in_shards(images, out, group, BATCH, lambda _: AS_BEFORE, fills[rank])
        unreadable = [path.name for path, _ in report.unreadable]
        out.with_name(f"said-{rank}").write_text(f"{report.extracted_now} {report.already_done} {unreadable}")

    return [forked(partial(one, rank), out.with_name(f"said-{rank}")) for rank in range(processes)]


def statuses(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_every_row_is_in_one_shard_and_whole_blocks_stay_together(images: ImageTable) -> None:
    for processes in (1, 2, 3, 5, 9):
        shards = rows_of_shards(images, BATCH, processes)
        assert sorted(row for shard in shards for row in shard) == list(range(20))
        for shard in shards[:-1]:
            assert len({images.paths[row] for row in shard}) % BATCH == 0
    assert rows_of_shards(images, BATCH, 2)[0] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 15]
    assert [len(shard) for shard in rows_of_shards(images, 100, 3)] == [0, 0, 20]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("processes", [2, 5])
def test_merged_parts_are_what_one_process_writes(
    tmp_path: Path, images: ImageTable, dtype: str, processes: int
) -> None:
    encoder, out = small_encoder(), tmp_path / "cache.h5"
    extract(images, encoder, tmp_path / "whole.h5", batch_size=BATCH, dtype=dtype)
    shards = {}
    for rank, rows in enumerate(rows_of_shards(images, BATCH, processes)):
        table = ImageTable(tuple(images.ids[row] for row in rows), tuple(images.paths[row] for row in rows))
        shards[shard_path(out, rank, processes)] = rows
        extract(table, encoder, shard_path(out, rank, processes), batch_size=BATCH, dtype=dtype)
    assert list(shards_at(out)) == sorted(shards)
    merge_shards(images, out, shards)
    assert stored(out) == stored(tmp_path / "whole.h5")
    merged, whole = FeatureCache(out), FeatureCache(tmp_path / "whole.h5")
    assert merged.attributes == whole.attributes and merged.image_ids == whole.image_ids
    if merged.scale_I is not None and whole.scale_I is not None:
        assert torch.equal(merged.scale_I, whole.scale_I)
    assert shards_at(out) == {}
    assert extract(images, encoder, out, batch_size=BATCH, dtype=dtype).extracted_now == 0


def test_two_processes_make_one_file_and_name_what_they_could_not_read(tmp_path: Path) -> None:
    images, encoder, out = render_images(tmp_path / "images", 14), small_encoder(), tmp_path / "cache.h5"
    images.paths[10].write_bytes(b"damaged")
    extract(images, encoder, tmp_path / "whole.h5", batch_size=BATCH)
    assert statuses(started(images, out, 2, [partial(fill, encoder)] * 2)) == [0, 0]
    assert stored(out) == stored(tmp_path / "whole.h5")
    assert [(tmp_path / f"said-{rank}").read_text() for rank in (0, 1)] == ["13 0 ['10.png']"] * 2
    assert shards_at(out) == {}


def test_a_lost_process_is_redone_alone(tmp_path: Path, images: ImageTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "COMMIT_SECONDS", 0.0)
    encoder, dying, out = small_encoder(), small_encoder(), tmp_path / "cache.h5"
    extract(images, encoder, tmp_path / "whole.h5", batch_size=BATCH)

    class Dying(ImageEncoder):
        calls = 0

        def forward(self, image_B3SS: torch.Tensor) -> torch.Tensor:
            while not FeatureCache(shard_path(out, 1, 2)).done_I.any():
                time.sleep(0.002)
                if self.calls:
                    continue
                self.calls += 1
                return super().forward(image_B3SS)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("unreachable")

    dying.__class__ = Dying
    children = started(images, out, 2, [partial(fill, encoder), partial(fill, dying)])
    assert os.waitstatus_to_exitcode(os.waitpid(children[1], 0)[1]) == -signal.SIGKILL
    os.kill(children[0], signal.SIGKILL)  # as torchrun does with those that are left
    os.waitpid(children[0], 0)
    done = sum(int(FeatureCache(path).done_I.sum()) for path in shards_at(out))
    assert not out.exists() and BATCH <= done < len(images.ids)
    with pytest.raises(InputError, match="was begun with 2 processes; go on with 2"):
        require_same_processes(out, 1)
    assert statuses(started(images, out, 2, [partial(fill, encoder)] * 2)) == [0, 0]
    assert (tmp_path / "said-0").read_text() == f"{len(images.ids) - done} {done} []"
    assert stored(out) == stored(tmp_path / "whole.h5")


def test_a_process_that_is_waited_for_too_long_costs_nothing_that_was_done(
    tmp_path: Path, images: ImageTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "PATIENCE", timedelta(seconds=1))
    encoder, out = small_encoder(), tmp_path / "cache.h5"
    extract(images, encoder, tmp_path / "whole.h5", batch_size=BATCH)

    def never(*_: object) -> ExtractReport:
        while True:
            time.sleep(0.1)

    children = started(images, out, 2, [partial(fill, encoder), never])
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 1
    os.kill(children[1], signal.SIGKILL)  # as torchrun does with those that are left
    os.waitpid(children[1], 0)
    monkeypatch.undo()
    first = shard_path(out, 0, 2)
    assert list(shards_at(out)) == [first] and FeatureCache(first).done_I.all()
    assert statuses(started(images, out, 2, [partial(fill, encoder)] * 2)) == [0, 0]
    assert (tmp_path / "said-0").read_text() == "10 10 []"
    assert stored(out) == stored(tmp_path / "whole.h5")


@pytest.mark.slow
def test_torchrun_with_two_processes_one_of_them_killed(tmp_path: Path) -> None:
    generate_dataset(tmp_path / "data", 400, 0, "real", 64)
    out = tmp_path / "two.h5"
    chosen = EncoderOptions("squeezenet1_1", "features.4", 64, "random")
    extract_dataset(
        tmp_path / "data", "vqa_v2", ["train"], tmp_path / "one.h5", chosen, ExtractOptions(batch_size=4)
    )  # fmt: skip
    options = ["--encoder=squeezenet1_1", "--layer=features.4", "--image-size=64", "--weights=random"]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}",
        "-m", "vqa", "features", "extract", f"--data={tmp_path / 'data'}", "--format=vqa_v2", "--split=train",
        "--batch-size=4", f"--out={out}", *options,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    root = PROJECT
    run = subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)
    second = shard_path(out, 1, 2)
    while not second.exists() and run.poll() is None:
        time.sleep(0.005)
    os.kill(process_that_has_open(second), signal.SIGKILL)
    assert run.wait(timeout=120) != 0
    assert not out.exists() and second.exists()
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stdout and done.stdout.count("images now") == 1
    assert stored(out) == stored(tmp_path / "one.h5")
    assert shards_at(out) == {}


def process_that_has_open(path: Path) -> int:
    """The id of the process that writes a file."""
    for _ in range(1000):
        for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
            try:
                if descriptor.readlink() == path:
                    return int(descriptor.parts[2])
            except OSError:
                continue
    raise AssertionError(f"no process has {path} open")


def test_shards_that_were_decoded_otherwise_are_not_merged(tmp_path: Path, images: ImageTable) -> None:
    dropped, on_white = small_encoder(), small_encoder()
    dropped.decode_as(Decoding(None))
    shards = {tmp_path / "0.h5": [0], tmp_path / "1.h5": [1]}
    for encoder, (path, rows) in zip((dropped, on_white), shards.items(), strict=True):
        extract(
            ImageTable(tuple(images.ids[row] for row in rows), tuple(images.paths[row] for row in rows)), encoder, path
        )
    both = ImageTable(images.ids[:2], images.paths[:2])
    with pytest.raises(InputError, match="background is 'white', expected None"):
        merge_shards(both, tmp_path / "whole.h5", shards)
