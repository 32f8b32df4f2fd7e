"""Progress bars and messages: one console for the whole program, quiet when nobody is looking."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def progress_bar() -> Progress:
    """A progress bar with counts, times and a free `note` field (pass `note=""` to `add_task`)."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
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
