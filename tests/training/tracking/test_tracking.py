"""The tracker: numbers always reach metrics.jsonl, W&B never asks, and what fails there never stops a run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.grids import wait_until
from helpers.training import PROJECT, SUBPROCESS, after_step, experiment, interrupted_after, make_world
from helpers.wandb_parts import finished_parts

from vqa.errors import InputError, InterruptedRunError, NonFiniteLossError
from vqa.training.run_folder import RunFolder, read_metrics
from vqa.training.together import train_together
from vqa.training.tracking import guard, trackers, wandb_server
from vqa.training.tracking.protocol import Tracker
from vqa.training.tracking.summary import summary_of
from vqa.training.tracking.trackers import track_training
from vqa.training.tracking.wandb_files import steps_on_disk
from vqa.training.tracking.wandb_server import has_key
from vqa.training.train import train

KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_MODE", "NETRC")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A user who never logged in, on a machine without settings."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    asked: list[Any] = []

    def ask(*what: Any) -> str:
        asked.append(what)
        return ""

    monkeypatch.setattr("builtins.input", ask)
    yield
    assert not asked


class FakeRun:
    """What wandb.init returns, in so far as the tracker uses it."""

    def __init__(self, failing: str = "", error: BaseException | None = None) -> None:
        self.failing = failing
        self.error = error or RuntimeError("no connection")
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None
        self.alerts: list[tuple[str, str]] = []

    def alert(self, title: str, text: str, level: str) -> None:
        assert level == "ERROR" and len(title) < 64
        self.alerts.append((title, text))

    def define_metric(self, name: str, **_: Any) -> None:
        pass

    def log(self, values: dict[str, Any], step: int, commit: bool) -> None:
        assert commit
        if self.failing == "log":
            raise self.error
        self.rows.append({"step": step, **values})

    def finish(self, exit_code: int) -> None:
        if self.failing == "finish":
            raise self.error
        self.exit_code = exit_code


def fake_wandb(monkeypatch: pytest.MonkeyPatch, run: FakeRun | BaseException) -> list[dict[str, Any]]:
    """Put a fake behind `wandb.init`; returns the list of its calls."""
    import wandb

    calls: list[dict[str, Any]] = []
    monkeypatch.delenv("WANDB_MODE", raising=False)

    def init(**options: Any) -> FakeRun:
        calls.append(options)
        if isinstance(run, BaseException):
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


@pytest.mark.parametrize("val", ["val", None])
def test_where_the_last_weights_are_kept_the_summary_is_theirs(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, val: str | None
) -> None:
    run = FakeRun()
    fake_wandb(monkeypatch, run)
    section = {"wandb": "offline", "project": "p"}
    plan = experiment(world, tmp_path, tracking=section, data={"val": val}, training={"keep": "last", "epochs": 3})
    *_, last = rows = read_metrics(train(plan).metrics)
    shown = {name: value for name, value in last.items() if name.startswith(("val/", "train/"))}
    assert shown and {name: run.summary[name] for name in shown} == shown and run.summary["kept_epoch"] == 3
    assert (val is None) == ("best_epoch" not in run.summary)
    if val is not None:
        assert run.summary["best_open_ended"] == max(row["val/open_ended/overall"] for row in rows)


@pytest.mark.parametrize(("keep", "kept"), [("best", 2), ("last", 3)])
def test_a_later_part_has_the_summary_of_the_kept_epoch(tmp_path: Path, keep: str, kept: int) -> None:
    accuracies = {1: 10.0, 2: 30.0, 3: 20.0}
    rows = [
        {
            "epoch": epoch,
            "step": epoch,
            "train/loss": epoch / 2,
            "val/open_ended/overall": value,
            "val/protocol": "2021",
        }
        for epoch, value in accuracies.items()
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert summary_of(tmp_path, keep=keep) == {
        "train/loss": kept / 2, "val/open_ended/overall": accuracies[kept], "val/protocol": "2021", "kept_epoch": kept,
        "best_epoch": 2, "best_open_ended": 30.0, "protocol": "2021",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("failing", ["init", "log", "finish"])
def test_a_tracker_that_fails_never_stops_a_run(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failing: str,
    kind: type[BaseException],
) -> None:
    error = kind("no connection [/to] [bold]it")  # what a tracker says is no markup
    fake_wandb(monkeypatch, error if failing == "init" else FakeRun(failing, error))
    assert len(tracked(world, tmp_path, "offline")) == 2
    said = capsys.readouterr().out
    assert said.count("W&B failed and is left out") == 1 and "no connection [/to] [bold]it" in said


def test_online_without_a_key_goes_offline_and_says_so(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_key: None, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = fake_wandb(monkeypatch, FakeRun())
    tracked(world, tmp_path, "online")
    assert calls[0]["mode"] == "offline"
    assert "no API key found (`wandb login` stores one), so this run is kept offline" in capsys.readouterr().out


def test_disabled_never_touches_wandb(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_wandb(monkeypatch, FakeRun())
    assert len(tracked(world, tmp_path, "disabled")) == 2
    assert calls == []


def test_a_run_that_fails_is_closed_as_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = FakeRun()
    fake_wandb(monkeypatch, run)
    tracker = plain_tracker(tmp_path, "offline")
    tracker.log({"a": 1.5}, step=3)
    tracker.finish(failed=True)
    assert run.exit_code == 1
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 3, "a": 1.5}


def test_a_loss_that_is_not_finite_is_an_alert(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun()
    fake_wandb(monkeypatch, run)
    high = {"optimizer": {"name": "sgd", "learning_rate": 1e30}}
    with pytest.raises(NonFiniteLossError) as raised:
        train(experiment(world, tmp_path, tracking={"wandb": "offline"}, training=high))
    assert run.alerts == [("tiny, seed 0: not finite", str(raised.value))] and run.exit_code == 1


def test_a_full_disk_is_one_message_and_closes_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun()
    fake_wandb(monkeypatch, run)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    tracker = plain_tracker(tmp_path, "offline")
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
    assert run.exit_code == 1


def test_the_real_wandb_writes_offline_without_a_key(tmp_path: Path, no_key: None) -> None:
    tracker = plain_tracker(tmp_path, "online")
    tracker.log({"loss": 1.0}, step=1)
    tracker.finish()
    written = [path for path in (tmp_path / "wandb").rglob("*.wandb") if path.stat().st_size]
    assert len(written) == 1 and "offline" in str(written[0])


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
    found = finished_parts(folder.path)
    ids = [{record.run.run_id for record in part if record.HasField("run")} for part in found]
    assert len(found) == 2 and ids[0] == ids[1] == {json.loads(folder.tracking.read_text())["wandb_id"]}
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


def plain_tracker(folder: Path, mode: str) -> Tracker:
    plan = experiment(folder, folder, tracking={"wandb": mode, "project": "p"})
    return track_training(folder, plan, dict)


@pytest.mark.parametrize(
    ("asked", "mode", "becomes"),
    [
        ("disabled", "online", None), ("offline", "online", "offline"), ("dryrun", "online", "offline"),
        ("Disabled", "offline", None), ("online", "offline", "offline"), ("offline", "disabled", None),
        ("", "offline", "offline"), ("other", "offline", "offline"),
    ],
)  # fmt: skip
def test_the_environment_lowers_the_mode_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: str, mode: str,
    becomes: str | None,
) -> None:  # fmt: skip
    calls = fake_wandb(monkeypatch, FakeRun())
    monkeypatch.setenv("WANDB_MODE", asked)
    plain_tracker(tmp_path, mode)
    assert [call["mode"] for call in calls] == ([] if becomes is None else [becomes])
    lowered = becomes != (None if mode == "disabled" else mode)
    assert (f"as WANDB_MODE={asked.lower()} says" in capsys.readouterr().out) == lowered


def test_ctrl_c_while_the_tracker_works_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    fake_wandb(monkeypatch, FakeRun())
    monkeypatch.setattr(wandb, "init", lambda **_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        plain_tracker(tmp_path, "offline")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def serve(answer: int) -> ThreadingHTTPServer:
    """A server that gives one answer, or none where it is 0."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if not answer:
                time.sleep(5)
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.mark.parametrize("answer", [None, 0, 401, 403, 500, 503])
def test_a_key_without_a_usable_server_is_a_run_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_key: None, capsys: pytest.CaptureFixture[str],
    answer: int | None,
) -> None:  # fmt: skip
    server = None if answer is None else serve(answer)
    port = 1 if server is None else server.server_address[1]
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(wandb_server, "ASKING", 1)
    tracker = plain_tracker(tmp_path, "online")
    tracker.log({"loss": 1.0}, step=1)
    tracker.finish()
    said = capsys.readouterr().out
    assert "so this run is kept offline" in said and "wandb sync" in said and "left out" not in said
    identity = json.loads((tmp_path / "tracking.json").read_text())["wandb_id"]
    assert finished_parts(tmp_path) and steps_on_disk(tmp_path, identity) == {1}
    if server is not None:
        server.shutdown()


def test_a_server_that_fails_later_is_a_run_offline_in_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    online, offline = FakeRun(), FakeRun()
    calls: list[dict[str, Any]] = []
    fake_wandb(monkeypatch, offline)
    monkeypatch.setattr(wandb, "teardown", lambda **_: None)

    def init(**given: Any) -> FakeRun:
        calls.append(given)
        return offline if calls[1:] else online

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(trackers, "unusable", lambda: "")
    tracker = plain_tracker(tmp_path, "online")
    tracker.log({"a": 1.0}, step=1)
    online.failing = "log"
    tracker.log({"a": 2.0}, step=2)
    tracker.log({"a": 3.0}, step=3)
    assert [call["mode"] for call in calls] == ["online", "offline"] and calls[0]["id"] == calls[1]["id"]
    assert [row["step"] for row in offline.rows] == [1, 2, 3] and online.rows == [{"step": 1, "a": 1.0}]
    assert "kept offline from here on" in capsys.readouterr().out


KILLED = (
    "import os, sys, time\n"
    "from pathlib import Path\n"
    "from helpers.training import experiment\n"
    "from vqa.training.tracking.trackers import track_training\n"
    "folder = Path(sys.argv[1])\n"
    "tracker = track_training(folder, experiment(folder, folder, tracking={'wandb': 'offline'}), dict)\n"
    "for step in range(1, 4): tracker.log({'epoch': step}, step=step)\n"
    "time.sleep(float(sys.argv[2]))\n"
    "os.kill(os.getpid(), 9)\n"
)


def test_rows_that_a_killed_part_has_not_written_are_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_key: None
) -> None:
    """Cut at every place of W&B's file: each row is in the parts, as often as it is there whole and once at least."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")} | SUBPROCESS
    environment["PYTHONPATH"] = f"{PROJECT}:{PROJECT / 'tests'}"
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), "3"], env=environment, check=False)
    (part,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    identity = json.loads((tmp_path / "tracking.json").read_text())["wandb_id"]
    whole = part.read_bytes()
    for size in (len(whole), len(whole) * 2 // 3, len(whole) // 2, 0):
        part.write_bytes(whole[:size])
        before = steps_on_disk(tmp_path, identity)
        run = FakeRun()
        with monkeypatch.context() as patch:
            fake_wandb(patch, run)
            plain_tracker(tmp_path, "offline")
        assert before | {row["step"] for row in run.rows} == {1, 2, 3} and not before & {
            row["step"] for row in run.rows
        }
    tracker = plain_tracker(tmp_path, "offline")
    tracker.finish()
    assert wait_until(lambda: steps_on_disk(tmp_path, identity) == {1, 2, 3}, 60)  # written by W&B's own process
    assert json.loads((tmp_path / "tracking.json").read_text())["complete"] == 3
    run = FakeRun()
    fake_wandb(monkeypatch, run)
    shutil.rmtree(tmp_path / "wandb")  # as after `wandb sync --clean`
    plain_tracker(tmp_path, "offline")
    assert run.rows == []


@pytest.mark.parametrize(
    "content", ["", "5", "{}", '{"wandb_id": 5}', '{"wandb_id": "../a"}', '{"wandb_id": "a", "complete": "x"}']
)
def test_a_damaged_record_of_the_tracking_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    fake_wandb(monkeypatch, FakeRun())
    (tmp_path / "tracking.json").write_text(content)
    with pytest.raises(InputError, match=r"tracking\.json"):
        plain_tracker(tmp_path, "offline")


class Meddling(FakeRun):
    """A tracker that does more than it should whenever it is called."""

    def __init__(self, act: Any, folder: Path) -> None:
        super().__init__()
        self.act, self.folder = act, folder

    def log(self, values: dict[str, Any], step: int, commit: bool) -> None:
        self.act(self.folder)
        super().log(values, step, commit)


@pytest.mark.parametrize(
    "act", [os.chdir, lambda _: torch.rand(7), lambda _: torch.manual_seed(5)], ids=["folder", "draws", "seed"]
)
def test_what_a_tracker_does_besides_changes_no_weight(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Any
) -> None:
    fake_wandb(monkeypatch, FakeRun())
    plain = train(experiment(world, tmp_path / "plain", tracking={"wandb": "disabled"})).model.read_bytes()
    fake_wandb(monkeypatch, Meddling(act, tmp_path))
    before = Path.cwd()
    assert train(experiment(world, tmp_path / "odd", tracking={"wandb": "offline"})).model.read_bytes() == plain
    assert Path.cwd() == before


@pytest.mark.parametrize("failing", ["log", "finish"])
def test_a_tracker_that_hangs_is_left_after_a_while(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failing: str
) -> None:
    monkeypatch.setattr(guard, "SECONDS", dict.fromkeys(guard.SECONDS, 0.2))
    run = FakeRun()
    setattr(run, failing, lambda *_, **__: time.sleep(60))
    fake_wandb(monkeypatch, run)
    began = time.monotonic()
    assert len(tracked(world, tmp_path, "offline")) == 2 and time.monotonic() - began < 30
    assert "TimeoutError: nothing for 0.2 seconds" in capsys.readouterr().out


def test_an_error_without_words_is_called_by_its_type(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class WordlessError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    fake_wandb(monkeypatch, FakeRun("log", WordlessError()))
    assert len(tracked(world, tmp_path, "offline")) == 2
    assert "left out from here on (WordlessError: WordlessError)" in capsys.readouterr().out
