"""A few of what `make faults` tries, of every kind; the page that it writes; and that its judge can tell."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.training import PROJECT

from faults.case import FAULTS, Case, Ended, Outcome, contents, judge, thinned
from faults.kinds import MODULES, all_cases
from faults.page import ABOUT, page
from faults.run import run
from faults.server import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A process that has imported everything and made the world; cases are tried in its children."""
    with Server() as running:
        yield running


@pytest.mark.parametrize("nth", [40, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", MODULES)
def test_some_of_every_kind_end_in_a_sentence_or_well(server: Server, kind: str, nth: int) -> None:
    names = [case.name for case in all_cases() if case.kind == kind][nth // 2 :: nth]  # the same ones every time
    outcomes = server.try_cases(names)
    assert len(outcomes) == len(names) > 0
    assert {one.case: f"{one.came_out}: {one.line}" for one in outcomes if one.failed} == {}


def test_there_are_enough_cases_and_each_has_its_name() -> None:
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases) >= 900
    assert all(case.kind in MODULES for case in cases)


def test_the_page_names_every_kind() -> None:
    text = (PROJECT / "docs/reliability.md").read_text(encoding="utf-8")
    assert ABOUT.keys() == MODULES.keys()
    assert [kind for kind in MODULES if f"| {kind} |" not in text] == []


def test_the_page_counts_what_came_out() -> None:
    outcomes = [Outcome("kills: a", "fine"), Outcome("kills: b", "lost", "x"), Outcome("kills: c", "raw", "y")]
    row = next(line for line in page(outcomes).splitlines() if line.startswith("| kills"))
    assert row == "| kills | 3 | 0 | 1 | 0 | 0 | 1 | 1 |"


def test_thinned_keeps_about_so_many_and_always_the_same() -> None:
    cases = [Case(f"a: {number}", []) for number in range(1000)]
    kept = [case.name for case in thinned(cases, 4)]
    assert 150 < len(kept) < 350 and kept == [case.name for case in thinned(cases, 4)]


CASE = Case("a: b", [])


@pytest.mark.parametrize(
    ("ended", "came_out"),
    [
        (Ended(2, b"", b"vqa: x: no such file\n", 0.1), "sentence"),
        (Ended(None, b"", b"", 10.0), "hang"),
        (Ended(1, b"", b"Traceback (most recent call last):\n  File\nKeyError: 1\n", 0.1), "traceback"),
        (Ended(-11, b"", b"", 0.1), "crash"),
        (Ended(2, b"", b"vqa: \x1b[2Jred\n", 0.1), "raw"),
        (Ended(2, b"", "vqa: \x9b2J\n".encode(), 0.1), "raw"),
        (Ended(2, b"", b"vqa: " + b"x" * 3000, 0.1), "long"),
        (Ended(2, b"", b"", 0.1), "silent"),
        (Ended(0, b"trained", b"", 0.1), "wrong"),
        (Ended(1, b"", b"vqa: slower\n", 0.1), "wrong"),
    ],
)
def test_the_judge_tells_faults_from_sentences(ended: Ended, came_out: str) -> None:
    assert judge(CASE, ended, {}, {}, "").came_out == came_out
    assert came_out in (*FAULTS, "sentence")


def test_what_was_there_and_is_not_any_more_is_lost() -> None:
    ended = Ended(2, b"", b"vqa: no\n", 0.1)
    before = {"a": "1", "runs/x": "2"}
    assert judge(CASE, ended, before, before | {"new": "3"}, "").came_out == "sentence"
    assert judge(CASE, ended, before, {"a": "1"}, "").came_out == "lost"
    assert judge(CASE, ended, before, before | {"a": "9"}, "").came_out == "lost"
    assert judge(CASE, ended, before, before | {".a.x.part": "9"}, "").came_out == "lost"
    assert judge(replace(CASE, may_change=("runs/*",)), ended, before, {"a": "1"}, "").came_out == "sentence"
    assert judge(CASE, ended, before, before, "the pipe was replaced").came_out == "wrong"
    assert judge(replace(CASE, says=("file",)), ended, before, before, "").came_out == "wrong"


def test_a_child_that_hangs_or_crashes_is_seen(tmp_path: Path) -> None:
    assert run(lambda: time.sleep(60), tmp_path, 0.2).status is None
    assert run(lambda: os.kill(os.getpid(), signal.SIGKILL), tmp_path, 20).status == -signal.SIGKILL
    assert run(lambda: sys.exit(2), tmp_path, 20).status == 2
    assert b"Traceback" in run(lambda: int("x"), tmp_path, 20).err


def test_contents_tell_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    before = contents(tmp_path)
    (tmp_path / "link").unlink()
    (tmp_path / "link").write_text("x")
    (tmp_path / "pipe").unlink()
    after = contents(tmp_path)
    assert before["a"] == after["a"] == after["link"] != before["link"] and "pipe" in before.keys() - after.keys()
