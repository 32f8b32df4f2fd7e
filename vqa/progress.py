"""Progress bars and messages: one console for the whole program, quiet when nobody is looking."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

# What a terminal would obey instead of show: control characters but line ends and tabs, those that turn the direction
# of writing, and bytes of a file's name that are no text.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Text with control characters written as Python writes them, so that no data can repaint a terminal.

    >>> visible("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class SafeConsole(Console):
    """A rich console that shows text as it is: square brackets are no markup unless `markup=True` is given.

    Whatever is rendered, tables and progress bars too, passes `visible`.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def render_str(self, text: str, **settings: Any) -> Text:
        """As rich's, which drops some control characters before `render` sees them."""
        return super().render_str(visible(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As rich's, made visible."""
        for segment in super().render(renderable, options):
            if segment.control or not _CONTROL.search(segment.text):
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)


console = SafeConsole()
errors = SafeConsole(stderr=True)


def progress_bar() -> Progress:
    """A progress bar with counts, times and a free `note` field (pass `note=""` to `add_task`)."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    )


@contextmanager
def quietly() -> Iterator[None]:
    """Print nothing, progress bars included."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
