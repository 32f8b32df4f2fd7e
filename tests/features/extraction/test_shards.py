"""Extraction by several processes: the merged file is what one process writes, a lost part is redone alone."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.features import forked, render_images, small_encoder, stored
from helpers.training import PROJECT

from vqa.data.dataset import ImageTable
from vqa.data.synthetic import generate_dataset
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders.registry import ImageEncoder
from vqa.features.extraction import pipeline
from vqa.features.extraction.dataset import extract_dataset
from vqa.features.extraction.extract import ExtractReport, extract
from vqa.features.extraction.shards import (
    Launch,
    extract_in_parts,
    merge_parts,
    part_path,
    parts_at,
    require_same_processes,
    rows_of_parts,
)
from vqa.features.precision import AS_BEFORE, Precision

BATCH = 3


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageTable:
    """Twenty rows: 15 and 16 show files of earlier rows, 12 is a file whose content an earlier row has."""
    few = render_images(tmp_path_factory.mktemp("images"), 18)
    few.paths[12].write_bytes(few.paths[1].read_bytes())
    paths = [*few.paths[:15], few.paths[0], few.paths[14], *few.paths[15:]]
    return ImageTable(tuple(str(row) for row in range(20)), tuple(paths))


def fill(encoder: ImageEncoder, table: ImageTable, path: Path, arithmetic: Precision) -> ExtractReport:
    return extract(table, encoder, path, arithmetic=arithmetic, batch_size=BATCH)


def free_port() -> str:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def started(images: ImageTable, out: Path, processes: int, fills: list[Callable[..., ExtractReport]]) -> list[int]:
    """The processes that torchrun would start, as copies of this one."""
    port = free_port()

    def one(rank: int) -> None:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
        launch = Launch(rank, processes, rank)
        report = extract_in_parts(images, out, launch, BATCH, lambda _: AS_BEFORE, fills[rank])
        unreadable = [path.name for path, _ in report.unreadable]
        out.with_name(f"said-{rank}").write_text(f"{report.extracted_now} {report.already_done} {unreadable}")

    return [forked(partial(one, rank), out.with_name(f"said-{rank}")) for rank in range(processes)]


def statuses(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_every_row_is_in_one_part_and_whole_blocks_stay_together(images: ImageTable) -> None:
    for processes in (1, 2, 3, 5, 9):
        parts = rows_of_parts(images, BATCH, processes)
        assert sorted(row for part in parts for row in part) == list(range(20))
        for part in parts[:-1]:
            assert len({images.paths[row] for row in part}) % BATCH == 0
    assert rows_of_parts(images, BATCH, 2)[0] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 15]
    assert [len(part) for part in rows_of_parts(images, 100, 3)] == [0, 0, 20]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("processes", [2, 5])
def test_merged_parts_are_what_one_process_writes(
    tmp_path: Path, images: ImageTable, dtype: str, processes: int
) -> None:
    encoder, out = small_encoder(), tmp_path / "cache.h5"
    extract(images, encoder, tmp_path / "whole.h5", batch_size=BATCH, dtype=dtype)
    parts = {}
    for rank, rows in enumerate(rows_of_parts(images, BATCH, processes)):
        table = ImageTable(tuple(images.ids[row] for row in rows), tuple(images.paths[row] for row in rows))
        parts[part_path(out, rank, processes)] = rows
        extract(table, encoder, part_path(out, rank, processes), batch_size=BATCH, dtype=dtype)
    assert list(parts_at(out)) == sorted(parts)
    merge_parts(images, out, parts)
    assert stored(out) == stored(tmp_path / "whole.h5")
    merged, whole = FeatureCache(out), FeatureCache(tmp_path / "whole.h5")
    assert merged.attributes == whole.attributes and merged.image_ids == whole.image_ids
    if merged.scale_I is not None and whole.scale_I is not None:
        assert torch.equal(merged.scale_I, whole.scale_I)
    assert parts_at(out) == {}
    assert extract(images, encoder, out, batch_size=BATCH, dtype=dtype).extracted_now == 0


def test_two_processes_make_one_file_and_name_what_they_could_not_read(tmp_path: Path) -> None:
    images, encoder, out = render_images(tmp_path / "images", 14), small_encoder(), tmp_path / "cache.h5"
    images.paths[10].write_bytes(b"damaged")
    extract(images, encoder, tmp_path / "whole.h5", batch_size=BATCH)
    assert statuses(started(images, out, 2, [partial(fill, encoder)] * 2)) == [0, 0]
    assert stored(out) == stored(tmp_path / "whole.h5")
    assert [(tmp_path / f"said-{rank}").read_text() for rank in (0, 1)] == ["13 0 ['10.png']"] * 2
    assert parts_at(out) == {}


def test_a_lost_process_is_redone_alone(tmp_path: Path, images: ImageTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "COMMIT_SECONDS", 0.0)
    encoder, dying, out = small_encoder(), small_encoder(), tmp_path / "cache.h5"
    extract(images, encoder, tmp_path / "whole.h5", batch_size=BATCH)

    class Dying(ImageEncoder):
        def forward(self, image_B3SS: torch.Tensor) -> torch.Tensor:
            while not FeatureCache(part_path(out, 1, 2)).done_I.any():
                time.sleep(0.002)
                if self.calls:
                    continue
                self.calls += 1
                return super().forward(image_B3SS)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("unreachable")

    dying.__class__, dying.calls = Dying, 0
    children = started(images, out, 2, [partial(fill, encoder), partial(fill, dying)])
    assert os.waitstatus_to_exitcode(os.waitpid(children[1], 0)[1]) == -signal.SIGKILL
    os.kill(children[0], signal.SIGKILL)  # as torchrun does with those that are left
    os.waitpid(children[0], 0)
    done = sum(int(FeatureCache(path).done_I.sum()) for path in parts_at(out))
    assert not out.exists() and BATCH <= done < len(images.ids)
    with pytest.raises(InputError, match="was begun with 2 processes; go on with 2"):
        require_same_processes(out, 1)
    assert statuses(started(images, out, 2, [partial(fill, encoder)] * 2)) == [0, 0]
    assert (tmp_path / "said-0").read_text() == f"{len(images.ids) - done} {done} []"
    assert stored(out) == stored(tmp_path / "whole.h5")


def test_what_torchrun_sets_is_read() -> None:
    assert Launch.from_environment({}) == Launch(0, 1, 0)
    assert Launch.from_environment({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == Launch(3, 4, 1)
    for wrong in ({"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x"}, {"RANK": "1"}):
        with pytest.raises(InputError, match="not what torchrun sets"):
            Launch.from_environment(wrong)


@pytest.mark.slow
def test_torchrun_with_two_processes_one_of_them_killed(tmp_path: Path) -> None:
    generate_dataset(tmp_path / "data", 400, 0, "real", 64)
    out = tmp_path / "two.h5"
    settings = {"encoder": "squeezenet1_1", "layer": "features.4", "image_size": 64, "weights": "random"}
    extract_dataset(tmp_path / "data", "vqa_v2", ["train"], tmp_path / "one.h5", batch_size=4, **settings)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}",
        "-m", "vqa", "features", "extract", f"--data={tmp_path / 'data'}", "--format=vqa_v2", "--split=train",
        "--batch-size=4", f"--out={out}", *options,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    root = PROJECT
    run = subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)
    second = part_path(out, 1, 2)
    while not second.exists() and run.poll() is None:
        time.sleep(0.005)
    os.kill(process_that_has_open(second), signal.SIGKILL)
    assert run.wait(timeout=120) != 0
    assert not out.exists() and second.exists()
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stdout and done.stdout.count("images now") == 1
    assert stored(out) == stored(tmp_path / "one.h5")
    assert parts_at(out) == {}


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
