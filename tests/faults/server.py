"""A process that tries cases by their names for pytest, which has threads and cannot be forked itself.

python -m faults.server    reads a JSON list of names a line, answers with a JSON list of outcomes a line
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from helpers.training import PROJECT, SUBPROCESS

from faults.case import Outcome
from faults.kinds import all_cases
from faults.run import import_everything, try_case
from faults.world import make_world


class Server:
    """The process, started on entering and ended on leaving."""

    def __enter__(self) -> Self:
        path = os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | SUBPROCESS | {"PYTHONPATH": path},
        )  # fmt: skip
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def try_cases(self, names: Sequence[str]) -> list[Outcome]:
        """What comes out of the cases of these names."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(list(names)) + "\n")
        self._process.stdin.flush()
        return [Outcome(**found) for found in json.loads(self._process.stdout.readline())]


def serve() -> None:
    """Answer until the input ends."""
    import_everything()
    cases = {case.name: case for case in all_cases()}
    with tempfile.TemporaryDirectory(prefix="faults-world-") as holder:
        world = make_world(Path(holder))
        for line in sys.stdin:
            outcomes = [try_case(cases[name], world) for name in json.loads(line)]
            print(json.dumps([vars(one) for one in outcomes]), flush=True)


if __name__ == "__main__":
    serve()
