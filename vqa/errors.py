"""The one exception for bad input, and the words for a wrong name."""

import difflib
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class InputError(Exception):
    """A file, name or value that the user gave is wrong.

    The message is one or a few lines that name the file, the item and the right choices. The command line prints it
    without a traceback and exits with status 2.
    """


class BusyError(InputError):
    """Another process is at the same work; the message says where."""


SHOWN = 200  # letters of a user's value that a message quotes


def shortened(text: str, most: int = SHOWN) -> str:
    """A text in at most `most` letters, with how many there are besides.

    >>> shortened("abcdefghij", 4)
    'abcd… (6 more)'
    """
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more)"


def quoted(value: object) -> str:
    """A user's value as a message shows it: as Python writes it, short however large or deep the value is.

    >>> quoted(["a", 1.5])
    "['a', 1.5]"
    """
    return shortened(_brief.repr(value))


_brief = reprlib.Repr()
_brief.maxlist = _brief.maxtuple = _brief.maxdict = _brief.maxset = 8
_brief.maxstring = _brief.maxother = _brief.maxlong = SHOWN
_brief.maxlevel = 4


LISTED = 8  # faults of one file that a message names


def first_of(faults: Iterable[str]) -> str:
    """The first few faults, a line each, and how many there are besides."""
    lines = list(faults)
    more = [f"… and {len(lines) - LISTED:,} more"] if len(lines) > LISTED else []
    return "\n".join([*lines[:LISTED], *more])


def first_line(error: BaseException) -> str:
    """Another library's error in one line, for a message of ours."""
    try:
        said = str(error).strip()
    except Exception:  # an error's own words may fail, too
        said = ""
    return (said or type(error).__name__).splitlines()[0]


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> str:
    """Say that `name` is not one of `choices`, with the nearest one first.

    >>> unknown_name("fusion", "prodct", ["concat", "product"])
    "unknown fusion 'prodct' (did you mean 'product'?); choose from: concat, product"
    """
    known, name = sorted(set(choices)), shortened(name)
    near = near_names(name, known)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {kind} {name!r}{hint}; choose from: {', '.join(known)}"


def near_names(name: str, choices: Iterable[str], most: int = 1) -> list[str]:
    """Those of `choices` that `name` may have meant, at most `most`, the nearest first."""
    known = sorted(set(choices))
    begun = [choice for choice in known if name and choice.startswith(name)]  # "stacked" is "stacked_attention"
    return begun[:most] or difflib.get_close_matches(name, known, n=most)


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Around the imports of an optional library: one that is missing is named with the extra that brings it.

    Args:
        extra: of pyproject.toml, e.g. "wups".
        what: what cannot be done without it, in the plural: "WUPS scores".

    Raises:
        InputError: a library is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        raise InputError(f"{what} need {library}, which is not installed: pip install 'vqa[{extra}]'") from None


class InterruptedRunError(Exception):
    """A signal stopped work (`vqa.runtime.stopping`); what was done is saved. The message says how to go on."""


class NonFiniteLossError(Exception):
    """The loss became NaN or infinite; the message says where. What was saved before is kept."""


class FailedRunsError(Exception):
    """Some runs of a grid failed; the message lists them. The others are done."""


class SlowerError(Exception):
    """A benchmark's ratios fell below those of a stored one; the message names them."""
