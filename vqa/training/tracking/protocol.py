"""What a tracker is: where a run's numbers, tables and files go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

Cell = str | float | int | Image.Image | None


@dataclass(frozen=True)
class MediaTable:
    """A table whose cells may be images.

    Attributes:
        columns: names.
        rows: a cell a column each.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


Shown = MediaTable | Image.Image


@dataclass(frozen=True)
class Bundle:
    """Files that are kept together under a name.

    Attributes:
        name: letters, digits, ".", "_" and "-".
        kind: "model", "evaluation" …
        files: by the name that they get.
        metadata: numbers and digests.
    """

    name: str
    kind: str
    files: Mapping[str, Path]
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Tracker(Protocol):
    """Where the numbers of one run go. What a tracker cannot show it leaves out."""

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record numbers (and words) at a step, counted over the whole run."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Set numbers that stand for the whole run; later ones of the same name take their place."""

    def media(self, shown: Mapping[str, Shown]) -> None:
        """Show tables and images, after the last step."""

    def keep(self, bundle: Bundle) -> None:
        """Keep files."""

    def alert(self, title: str, text: str) -> None:
        """Tell the user of something that needs attention."""

    def finish(self, failed: bool = False) -> None:
        """End; nothing comes after it."""
