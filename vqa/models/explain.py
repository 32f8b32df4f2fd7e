"""What a fusion or question encoder is, in words and as equations, read from the docstring at the top of its file.

The docstring begins with the name and a sentence, "`product`: image and question projected, then multiplied ...", and
its indented lines are the equations. So they stand in one place, beside the code, and nothing can contradict them.
"""

import inspect
import re
from typing import NamedTuple

from torch import nn
from torch.nn.utils import parametrize


class Explanation(NamedTuple):
    """What a part of a model does.

    Attributes:
        words: one sentence.
        equations: lines of plain text.
    """

    words: str
    equations: tuple[str, ...]


def explain(part: type[nn.Module]) -> Explanation:
    """The first sentence and the indented lines of the docstring of the file that defines `part`."""
    if part.__module__ == parametrize.__name__:  # torch's class of a part that normalises a parameter of its own
        part = part.__mro__[1]
    module = inspect.getmodule(part)
    text = (module and module.__doc__) or ""
    first = " ".join(text.split("\n\n", 1)[0].split())
    equations = [line.strip() for line in text.splitlines() if line.startswith("    ") and line.strip()]
    return Explanation(re.sub(r"^`[^`]*`: ", "", first), tuple(equations))
