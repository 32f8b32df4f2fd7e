"""The tracker that is always there: `metrics.jsonl` in the run folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqa.errors import InputError
from vqa.training.tracking.protocol import Bundle, Shown


class MetricsFile:
    """One line a call of `log`. Everything else of a run stands in other files of its folder.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Append a line.

        Raises:
            InputError: it cannot be written, say because the disk is full.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written: {error.strerror}; what was saved is kept") from None

    def summarise(self, values: Mapping[str, Any]) -> None:
        """`finished.json` and `evaluation_<split>.json` have them."""

    def media(self, shown: Mapping[str, Shown]) -> None:
        """`report.html` has them."""

    def keep(self, bundle: Bundle) -> None:
        """They are in the run folder."""

    def alert(self, title: str, text: str) -> None:
        """The command ends with it."""

    def finish(self, failed: bool = False) -> None:
        """Every line is written already."""
