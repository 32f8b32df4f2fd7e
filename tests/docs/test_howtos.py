"""The how-tos work as they stand: files are written and commands run, from top to bottom in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.training import PROJECT, SUBPROCESS, forgetting_imports
from typer.testing import CliRunner

from vqa.cli import app

PAGES = sorted((PROJECT / "docs/howto").glob("*.md"))
# `NAME`: on the line above a block says which file it is; blocks of sh are run
BLOCK = re.compile(r"(?:^`([\w./]+)`:\n\n)?^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, empty; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    with forgetting_imports(tmp_path):
        yield tmp_path


def run(line: str, folder: Path) -> None:
    """Run one command: `vqa` in this process, where torch is loaded already."""
    program, *words = shlex.split(line)
    if program == "vqa":
        result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
        return
    if program == "pip":  # into a folder of its own, from what is on the machine
        words += ["--target", "installed", "--no-deps", "--no-build-isolation", "--quiet"]
        sys.path.insert(0, str(folder / "installed"))
        program, words = "python", ["-m", "pip", *words]
    assert program == "python", line
    env = os.environ | SUBPROCESS
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_howto_works_as_it_stands(page: Path, folder: Path) -> None:
    ran = 0
    for name, language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                run(line, folder)
                ran += 1
        else:
            assert name, f"{page.name}: a block of {language} without a file's name: {text[:60]}"
            (folder / name).write_text(text, encoding="utf-8")
    assert ran >= 5
