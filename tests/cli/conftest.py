"""The command line, called as its console script calls it."""

import sys
from collections.abc import Callable

import pytest

import vqa.cli

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def vqa_main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Call `main` as the console script does; returns the exit status and everything that was printed."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["vqa", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            vqa.cli.main()
            raise SystemExit(0)
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out + err

    return call
