"""The guard around every tracker: one that raises, hangs, is slow or is not installed is left out, or replaced."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.training import experiment, make_world

from vqa.training.run_folder import read_metrics
from vqa.training.tracking import guard
from vqa.training.tracking.guard import Guarded, bounded
from vqa.training.tracking.protocol import Bundle, MediaTable, Shown, Tracker
from vqa.training.train import train

CALLS: dict[str, Callable[[Tracker], object]] = {
    "log": lambda tracker: tracker.log({"a": 1.0}, 1),
    "summarise": lambda tracker: tracker.summarise({"a": 1.0}),
    "media": lambda tracker: tracker.media({"t": MediaTable(("a",), ((1,),))}),
    "keep": lambda tracker: tracker.keep(Bundle("b", "model", {})),
    "alert": lambda tracker: tracker.alert("title", "text"),
}


class Recorder:
    """Notes what it is told; does something odd whenever it is called."""

    def __init__(self, odd: Callable[[], object] = lambda: None) -> None:
        self.odd, self.told = odd, list[str]()

    def note(self, what: str) -> None:
        self.told.append(what)
        self.odd()

    def log(self, values: Mapping[str, Any], step: int) -> None:
        self.note("log")

    def summarise(self, values: Mapping[str, Any]) -> None:
        self.note("summarise")

    def media(self, shown: Mapping[str, Shown]) -> None:
        self.note("media")

    def keep(self, bundle: Bundle) -> None:
        self.note("keep")

    def alert(self, title: str, text: str) -> None:
        self.note("alert")

    def finish(self, failed: bool = False) -> None:
        self.note("finish")


def refuse() -> None:
    raise ConnectionError("refused")


@pytest.mark.parametrize("call", CALLS)
def test_a_tracker_that_fails_once_is_not_asked_again(call: str, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder(refuse)
    guarded = Guarded("Some", lambda: recorder)
    for _ in range(3):
        CALLS[call](guarded)
    guarded.finish()
    assert recorder.told == [call]
    said = capsys.readouterr().out
    assert said.count("Some failed and is left out from here on (ConnectionError: refused); metrics.jsonl goes on") == 1


@pytest.mark.parametrize("call", CALLS)
def test_another_takes_its_place_and_is_told_again_what_is_in_no_file(call: str) -> None:
    first, second = Recorder(refuse), Recorder()
    guarded = Guarded("Some", lambda: first, lambda: second, kept="so it is kept elsewhere")
    CALLS[call](guarded)
    guarded.log({"a": 2.0}, 2)
    guarded.finish()
    again = [] if call == "log" else [call]  # a row it has read in metrics.jsonl
    assert first.told == [call] and second.told == [*again, "log", "finish"]


def test_a_slow_tracker_is_left_when_its_rows_have_had_their_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(guard.SECONDS, "row", 0.3)
    recorder = Recorder(lambda: time.sleep(0.1))
    guarded = Guarded("Slow", lambda: recorder)
    began = time.monotonic()
    for step in range(50):
        guarded.log({"a": 1.0}, step)
    assert time.monotonic() - began < 3 and 1 <= len(recorder.told) <= 4
    assert "Slow failed and is left out" in capsys.readouterr().out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("wandb", "trackio", "tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    yield


def test_trackers_that_are_not_installed_are_named_with_their_extra(
    world: Path, tmp_path: Path, nothing_installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    section = {"wandb": "offline", "trackio": True, "tensorboard": True}
    assert len(read_metrics(train(experiment(world, tmp_path, tracking=section)).metrics)) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "pip install 'vqa[trackio]'" in said and "pip install 'vqa[tensorboard]'" in said
    assert said.count("failed and is left out") == 3


def test_a_bound_within_a_bound_gives_the_outer_its_time_back() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"nothing for 0\.3 seconds"), bounded(0.3):
        with bounded(5):
            time.sleep(0.1)
        time.sleep(2)
    assert time.monotonic() - started < 1.5
