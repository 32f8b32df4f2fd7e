"""Free memory as control groups and containers show it, in both of their layouts."""

from pathlib import Path

import pytest

from vqa.runtime import memory
from vqa.runtime.memory import available_memory, total_memory

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "meminfo").write_text(f"MemTotal: {8 * 1024 * 1024} kB\nMemAvailable: {1024 * 1024} kB\n")
    for name, file in (("CONTROL_GROUPS", "groups"), ("OWN_GROUPS", "own"), ("MEMORY", "meminfo")):
        monkeypatch.setattr(memory, name, tmp_path / file)
    (tmp_path / "groups").mkdir()
    return tmp_path


def limit(folder: Path, names: tuple[str, str], most: str, used: int, statistics: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((names[0], most), (names[1], str(used)), ("memory.stat", statistics)):
        (folder / name).write_text(text + "\n")


NEW, OLD = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_without_limits_it_is_what_the_system_says(machine: Path) -> None:
    assert available_memory() == 1024 * MIB
    limit(machine / "groups", NEW, "max", 0, "")
    assert available_memory() == 1024 * MIB


@pytest.mark.parametrize(
    ("own", "folder", "names", "prefix"),
    [("0::/", "", NEW, ""), ("0::/a/b", "a/b", NEW, ""), ("7:memory:/job", "memory/job", OLD, "total_")],
)
def test_pages_of_files_do_not_count_against_a_limit(
    machine: Path, own: str, folder: str, names: tuple[str, str], prefix: str
) -> None:
    (machine / "own").write_text(f"3:cpu:/x\n{own}\n")
    statistics = f"{prefix}active_file {100 * MIB}\n{prefix}inactive_file {200 * MIB}\nanon 5"
    limit(machine / "groups" / folder, names, str(500 * MIB), 450 * MIB, statistics)
    assert available_memory() == 350 * MIB
    assert total_memory() == 500 * MIB


def test_the_smallest_limit_holds_and_nothing_is_negative(machine: Path) -> None:
    (machine / "own").write_text("0::/a\n")
    limit(machine / "groups", NEW, str(900 * MIB), 100 * MIB, "inactive_file 0")
    limit(machine / "groups" / "a", NEW, str(50 * MIB), 60 * MIB, "inactive_file 0")
    assert available_memory() == 0 and total_memory() == 50 * MIB


def test_a_limit_around_the_own_group_holds(machine: Path) -> None:
    """A batch system limits the job; the group of the process in it has no limit of its own."""
    (machine / "own").write_text("0::/jobs/7/task\n")
    limit(machine / "groups" / "jobs" / "7" / "task", NEW, "max", 10 * MIB, "")
    limit(machine / "groups" / "jobs" / "7", NEW, str(300 * MIB), 100 * MIB, "inactive_file 0")
    assert available_memory() == 200 * MIB
    assert total_memory() == 300 * MIB
