"""The tracker: numbers always reach metrics.jsonl, W&B never asks, and what fails there never stops a run."""

import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.training import after_step, experiment, interrupted_after, make_world

from vqa.errors import InputError, InterruptedRunError
from vqa.training.run_folder import RunFolder, read_metrics
from vqa.training.together import train_together
from vqa.training.tracking import wandb_tracker as tracking
from vqa.training.tracking.wandb_tracker import Tracker, has_key
from vqa.training.train import train

KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_MODE", "NETRC")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user who never logged in, on a machine without settings."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))


class FakeRun:
    """What wandb.init returns, in so far as the tracker uses it."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None

    def log(self, values: dict[str, Any], step: int) -> None:
        if self.failing == "log":
            raise RuntimeError("no connection")
        self.rows.append({"step": step, **values})

    def finish(self, exit_code: int) -> None:
        if self.failing == "finish":
            raise RuntimeError("no connection")
        self.exit_code = exit_code


def fake_wandb(monkeypatch: pytest.MonkeyPatch, run: FakeRun | Exception) -> list[dict[str, Any]]:
    """Put a fake behind `wandb.init`; returns the list of its calls."""
    import wandb

    calls: list[dict[str, Any]] = []

    def init(**options: Any) -> FakeRun:
        calls.append(options)
        if isinstance(run, Exception):
            raise run
        return run

    monkeypatch.setattr(wandb, "init", init)
    return calls


def tracked(world: Path, tmp_path: Path, mode: str) -> list[dict[str, Any]]:
    plan = experiment(world, tmp_path, tracking={"wandb": mode, "project": "p", "tags": ["t"]})
    return read_metrics(train(plan).metrics)


def test_both_places_get_the_same_numbers(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun()
    calls = fake_wandb(monkeypatch, run)
    rows = tracked(world, tmp_path, "offline")
    assert rows == run.rows and len(rows) == 2
    assert run.exit_code == 0
    assert run.summary["protocol"] == "2021" and all(row["val/protocol"] == "2021" for row in rows)
    assert run.summary["best_open_ended"] == max(row["val/open_ended/overall"] for row in rows)
    assert rows[run.summary["best_epoch"] - 1]["val/open_ended/overall"] == run.summary["best_open_ended"]
    assert calls[0]["mode"] == "offline" and calls[0]["project"] == "p" and calls[0]["tags"] == ["t"]
    assert calls[0]["config"]["fusion"]["name"] == "stacked_attention"


@pytest.mark.parametrize("failing", ["init", "log", "finish"])
def test_a_tracker_that_fails_never_stops_a_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failing: str
) -> None:
    fake_wandb(monkeypatch, RuntimeError("no connection") if failing == "init" else FakeRun(failing))
    assert len(tracked(world, tmp_path, "offline")) == 2
    said = capsys.readouterr().out
    assert said.count("W&B failed and is left out") == 1 and "no connection" in said


def test_online_without_a_key_goes_offline_and_says_so(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_key: None, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = fake_wandb(monkeypatch, FakeRun())
    tracked(world, tmp_path, "online")
    assert calls[0]["mode"] == "offline"
    assert "no API key found, so this run is kept offline" in capsys.readouterr().out


def test_disabled_never_touches_wandb(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_wandb(monkeypatch, FakeRun())
    assert len(tracked(world, tmp_path, "disabled")) == 2
    assert calls == []


def test_a_run_that_fails_is_closed_as_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = FakeRun()
    fake_wandb(monkeypatch, run)
    tracker = Tracker(tmp_path, "offline", project="p", group=None, tags=[], config={"name": "n", "seed": 0})
    tracker.log({"a": 1.5}, step=3)
    tracker.finish(failed=True)
    assert run.exit_code == 1
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 3, "a": 1.5}


def test_a_full_disk_is_one_message_and_closes_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun()
    fake_wandb(monkeypatch, run)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    tracker = Tracker(tmp_path, "offline", project="p", group=None, tags=[], config={"name": "n", "seed": 0})
    with pytest.raises(InputError, match=r"metrics\.jsonl: cannot be written: No space left on device"):
        tracker.log({"a": 1.5}, step=3)
    tracker.finish(failed=True)
    assert run.exit_code == 1


def test_a_model_trained_beside_others_whose_end_cannot_be_written_is_closed_as_failed(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = FakeRun()
    fake_wandb(monkeypatch, run)
    plan = experiment(world, tmp_path, tracking={"wandb": "offline"})
    finished = RunFolder(plan.folder).finished
    with after_step(1, finished.mkdir):  # where a folder stands, no file can be written
        failed = train_together([plan], "again")
    assert list(failed) == [plan.folder] and str(finished) in str(failed[plan.folder])
    assert run.exit_code == 1 and run.summary == {}


def test_the_real_wandb_writes_offline_without_a_key(tmp_path: Path, no_key: None) -> None:
    tracker = Tracker(tmp_path, "online", project="p", group=None, tags=[], config={"name": "n", "seed": 0})
    tracker.log({"loss": 1.0}, step=1)
    tracker.finish()
    written = [path for path in (tmp_path / "wandb").rglob("*.wandb") if path.stat().st_size]
    assert len(written) == 1 and "offline" in str(written[0])


def records(path: Path) -> Iterator[Any]:
    """What a W&B file holds: a log in LevelDB's layout (blocks of 32 KiB, records cut into parts) of protobufs."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, joined = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        joined += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(joined)
            joined = b""


def test_a_resumed_run_goes_on_in_the_same_wandb_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_key: None, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = experiment(world, tmp_path, tracking={"wandb": "online", "project": "p"}, training={"epochs": 3})
    with interrupted_after(8), pytest.raises(InterruptedRunError, match="stopped in epoch 2"):
        train(plan)
    assert "W&B: offline; sent by: wandb sync" in capsys.readouterr().out
    folder = train(plan, resume=True)
    command = f"wandb sync {folder.path / 'wandb' / 'offline-run-*'}"
    assert f"is offline, too; sent together by: {command}" in capsys.readouterr().out
    parts = sorted((folder.path / "wandb").glob("offline-run-*/*.wandb"))
    deadline = time.monotonic() + 30  # W&B's own process writes the end of a file
    while not all(found := [list(records(path)) for path in parts]) or not all(
        part[-1].HasField("exit") for part in found
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ids = [{record.run.run_id for record in part if record.HasField("run")} for part in found]
    assert len(parts) == 2 and ids[0] == ids[1] == {json.loads(folder.tracking.read_text())["wandb_id"]}
    logged = []
    for part in found:
        for record in part:
            row = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            logged += [{key: json.loads(row[key]) for key in ("_step", "epoch", "train/loss")}] if row else []
    wanted = [(row["step"], row["epoch"], row["train/loss"]) for row in read_metrics(folder.metrics)]
    assert [tuple(row.values()) for row in logged] == wanted and len(wanted) == 3


def test_a_run_that_starts_anew_is_another_wandb_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_wandb(monkeypatch, FakeRun())
    plan = experiment(world, tmp_path, tracking={"wandb": "offline"}, training={"epochs": 1})
    folder = train(plan)
    for path in (folder.finished, folder.state):  # as a run that was killed in its first epoch leaves it
        path.unlink()
    train(plan)
    assert calls[0]["id"] != calls[1]["id"]


def test_keys_are_found_where_wandb_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_key: None) -> None:
    assert not has_key()
    home = Path(os.environ["HOME"])
    home.mkdir()
    (home / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    (home / ".netrc").chmod(0o600)
    assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_key()
    (home / ".netrc").write_text("machine\n")  # a damaged file holds no key
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert has_key()
    assert tracking.has_key is has_key
