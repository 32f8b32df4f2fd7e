"""Extraction stopped from outside: killed, interrupted, out of disk, beside another one. Nothing is lost."""

import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.features import forked, render_images, slow_encoder, small_encoder, stored

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache import writer
from vqa.features.cache.reader import FeatureCache
from vqa.features.cache.writer import CacheWriter
from vqa.features.encoders.registry import ImageEncoder
from vqa.features.extraction.extract import extract

KILLS = 24


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageTable:
    images = render_images(tmp_path_factory.mktemp("images"), 120)
    images.paths[77].write_bytes(images.paths[3].read_bytes())  # a copy, whose features another block makes
    return images


@pytest.fixture(scope="module")
def whole(images: ImageTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "whole.h5"
    extract(images, small_encoder(), path, batch_size=2)
    return path


@pytest.fixture(autouse=True)
def commit_after_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "COMMIT_SECONDS", 0.0)


def wait_until_some_are_done(out: Path, more_than: int = 0) -> None:
    """Until a process that runs now has flagged rows."""
    for _ in range(5000):
        if out.exists() and FeatureCache(out).done_I.sum() > more_than:
            return
        time.sleep(0.002)
    raise AssertionError(f"{out}: nothing was done in ten seconds")


def test_kill_9_at_random_moments_loses_nothing(tmp_path: Path, images: ImageTable, whole: Path) -> None:
    out, encoder = tmp_path / "cache.h5", slow_encoder()
    expected = FeatureCache(whole).read(np.arange(len(images.ids)))
    random, before, stopped_midway = np.random.default_rng(7), 0, 0
    for kill in range(KILLS):
        child = forked(lambda: extract(images, encoder, out, batch_size=2), tmp_path / "said")
        if kill % 3:  # the others die while they begin
            wait_until_some_are_done(out, min(before + int(random.integers(0, 12)), len(images.ids) - 1))
        time.sleep(float(random.uniform(0.0, 0.02)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if not out.exists():
            continue
        cache = FeatureCache(out)
        done = np.flatnonzero(cache.done_I)
        assert len(done) >= before
        assert (cache.read(done) == expected[done]).all()
        stopped_midway += 0 < len(done) < len(images.ids)
        before = len(done)
        if before == len(images.ids):
            out.unlink()
            before = 0
    assert stopped_midway >= KILLS // 4
    report = extract(images, small_encoder(), out, batch_size=2)
    assert report.already_done == before
    assert stored(out) == stored(whole)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".new")] == []


def test_ctrl_c_keeps_everything_that_was_encoded(tmp_path: Path, images: ImageTable, whole: Path) -> None:
    out, encoder = tmp_path / "cache.h5", slow_encoder()
    for _ in range(3):
        before = int(FeatureCache(out).done_I.sum()) if out.exists() else 0
        child = forked(lambda: extract(images, encoder, out, batch_size=2), tmp_path / "said")
        wait_until_some_are_done(out, before)
        os.kill(child, signal.SIGINT)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert 0 < FeatureCache(out).done_I.sum() < len(images.ids)
    extract(images, small_encoder(), out, batch_size=2)
    assert stored(out) == stored(whole)


def test_a_disk_that_fills_up_in_the_middle_loses_nothing(tmp_path: Path, images: ImageTable, whole: Path) -> None:
    out, encoder, said = tmp_path / "cache.h5", small_encoder(), tmp_path / "said"
    with CacheWriter(out, images, encoder.attributes(), encoder.regions, encoder.channels) as writer:
        assert not writer.done_I.any()
    cache = FeatureCache(out)
    rows = 50

    def on_a_small_disk() -> None:
        limit = cache.offset + rows * cache.row_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        extract(images, encoder, out, batch_size=2)

    child = forked(on_a_small_disk, said)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert said.read_text() == f"{out}: cannot be written: File too large; what was done before is kept"
    done = FeatureCache(out).done_I
    assert done[:rows].all() and not done[rows:].any()
    assert extract(images, encoder, out, batch_size=2).extracted_now == len(images.ids) - rows
    assert stored(out) == stored(whole)


def test_a_disk_without_room_is_told_before_any_work(tmp_path: Path, images: ImageTable) -> None:
    out, encoder, said = tmp_path / "cache.h5", small_encoder(), tmp_path / "said"

    def on_a_small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        extract(images, encoder, out, batch_size=2)

    child = forked(on_a_small_disk, said)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    told = said.read_text()
    assert told.startswith(f"{out}: needs ") and "0.00" not in told and "it cannot be made: File too large" in told
    assert [path.name for path in tmp_path.iterdir()] == ["said"]


def test_a_second_process_on_one_cache_is_told_so(tmp_path: Path, images: ImageTable) -> None:
    out, go, encoder = tmp_path / "cache.h5", tmp_path / "go", small_encoder()

    class Waiting(ImageEncoder):
        def forward(self, image_B3SS: torch.Tensor) -> torch.Tensor:
            while out.exists() and FeatureCache(out).done_I.any() and not go.exists():
                time.sleep(0.002)
            return super().forward(image_B3SS)

    encoder.__class__ = Waiting
    child = forked(lambda: extract(images, encoder, out, batch_size=2), tmp_path / "said")
    wait_until_some_are_done(out)
    with pytest.raises(InputError, match="another process is writing this cache"):
        extract(images, small_encoder(), out, batch_size=2)
    go.touch()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert FeatureCache(out).done_I.all()
