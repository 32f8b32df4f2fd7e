"""What is nobody's fault but the machine's is one sentence: a full disk, no memory, a closed pipe."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.devices import device
from helpers.training import PROJECT

import vqa.cli
from vqa.errors import InputError


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (OSError(28, "No space left on device", "/disk/file"), 2, "vqa: /disk/file: No space left on device\n"),
        (PermissionError(13, "Permission denied", "/shut/file"), 2, "vqa: /shut/file: Permission denied\n"),
        (OSError("without a number"), 2, "vqa: a file, or standard output: without a number\n"),
        (MemoryError(), 2, "vqa: out of memory\n"),
        (InputError("[/path]: \x1b[31mred"), 2, "vqa: [/path]: \\x1b[31mred\n"),
        (InputError("x" * 100_000), 2, f"vqa: {'x' * 1000}… (99,000 more)\n"),
    ],
)
def test_errors_are_one_sentence(
    raised: Exception, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(vqa.cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        vqa.cli.main()
    assert ended.value.code == status and capfd.readouterr() == ("", said)


def test_a_message_of_many_lines_is_cut(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        vqa.cli.end("\n".join(map(str, range(5000))), 2)
    shown = capfd.readouterr().err.splitlines()
    assert len(shown) == 61 and shown[-1] == "… and 4,940 lines more"


def run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    there = {**os.environ, "PYTHONPATH": str(PROJECT), **environment}
    script = f"'{sys.executable}' -m vqa {command}"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=there, timeout=60, check=False)


@pytest.mark.parametrize("options", ["", "--json -"])
def test_standard_output_on_a_full_disk_is_one_sentence(tmp_path: Path, options: str) -> None:
    ended = run(f"recipes {options} > '{device(tmp_path, 'full')}'")
    assert ended.returncode == 2 and ended.stderr.endswith("standard output: No space left on device\n")
    assert "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr


def test_standard_output_by_its_name_is_written_on_where_it_goes_to_a_file(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("before\n")
    ended = run(f"recipes --json /dev/stdout >> '{log}'")
    assert (
        ended.returncode == 0
        and log.read_text().startswith("before\nvqa train\n")
        and '"name": "ban"' in log.read_text()
    )


def test_an_output_that_nobody_reads_on_is_no_error_message() -> None:
    ended = run("recipes | head -n 1")
    assert ended.stdout == "vqa train\n" and ended.stderr == ""


def test_a_letter_that_the_terminal_lacks_is_written_as_python_does(tmp_path: Path) -> None:
    ended = run(f"describe '{tmp_path}/€.yaml'", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert ended.returncode == 2 and "\\u20ac.yaml: no such file" in ended.stderr


def test_without_home_and_passwd_entry_data_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqa.data.binary_cache import cache_folder

    def nobody(*_: object) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("VQA_CACHE", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert cache_folder() is None
