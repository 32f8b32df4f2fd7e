"""Parts from outside the package, by name: `mypackage.mine:Mine`, or an entry point of an installed package.

Every table of parts is looked up here. A name is looked for in the table first; with a colon it is `module:Class`,
imported with the current folder on the path, as `python -m` does; else it is an entry point of the kind's group. An
installed package names its parts so (pyproject.toml):

    [project.entry-points."vqa.fusions"]
    mine = "mypackage.mine:Mine"

An entry point is code that the user has installed. `module:Class` may be any file, so it is imported only where the
user names it: in an experiment or option on the command line, not because a run's record does (`require_allowed`).
"""

import importlib
import importlib.metadata
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from vqa.errors import InputError, first_line, unknown_name
from vqa.files import sha256_file

GROUPS = {  # entry points by kind of part; parts of other kinds do not come from outside
    "question_encoder": "vqa.question_encoders",
    "fusion": "vqa.fusions",
    "loss": "vqa.losses",
    "image encoder": "vqa.image_encoders",
    "data format": "vqa.formats",
    "word tokenizer": "vqa.tokenizers",
}
OWN_FAMILIES = ("hf", "detector", "import", "fisher")  # a name that begins so and with a colon is one of vqa's own
ALLOW_CODE = "VQA_ALLOW_CODE"  # set to 1, an environment variable that stands for --allow-code

Part = TypeVar("Part")


@dataclass(frozen=True)
class Origin:
    """Where a part from outside comes from.

    Attributes:
        name: as in the experiment: "mypackage.mine:Mine", or the name of an entry point.
        module: the module that is imported.
        attribute: what is taken from it: the class, as a rule.
        distribution: the installed package and its version, "mypackage 1.2"; None for a file that is in none.
        file: where the source is; None where there is none.
        sha256: of that file.
    """

    name: str
    module: str
    attribute: str
    distribution: str | None
    file: str | None
    sha256: str | None

    def __str__(self) -> str:
        """In one line."""
        of = [f"{self.module}:{self.attribute}", self.distribution, self.file, f"sha256 {self.sha256}"]
        return ", ".join(part for part in of if part is not None)


def is_code(name: str) -> bool:
    """Whether a part's name is `module:Class`.

    >>> is_code("mypackage.mine:Mine"), is_code("product"), is_code("hf:org/bert")
    (True, False, False)
    """
    before, colon, _ = name.partition(":")
    return bool(colon) and before not in OWN_FAMILIES


def find_part(kind: str, table: Mapping[str, Part], name: str) -> Part:
    """The part of that name: of the table, or from outside.

    Args:
        kind: what the table holds, for messages, and a key of `GROUPS` where parts may come from outside.
        table: the package's own parts by name.
        name: a key of the table, `module:Class`, or an entry point's name.

    Raises:
        InputError: no such part, with the right choices; or it cannot be imported, with the module and the cause.
    """
    if name in table:
        return table[name]
    point = _entry_point(kind, name)
    if point is None:
        raise InputError(unknown_name(kind, name, [*table, *_entry_points(kind)]))
    part: Part = _load(f"{kind} {name!r}", point)
    return part


def find_origin(kind: str, name: str) -> Origin:
    """Where a part comes from that is not in vqa's own table.

    Raises:
        InputError: as `find_part`.
    """
    point = _entry_point(kind, name)
    if point is None:
        raise InputError(f"no installed package has {name!r} among its {GROUPS.get(kind, 'entry points')}")
    part = _load(f"{kind} {name!r}", point)
    source = part if inspect.isclass(part) or inspect.isroutine(part) else sys.modules[point.module]
    try:
        file = inspect.getsourcefile(source)
    except TypeError:  # of a module in C, say
        file = None
    at = None if file is None else Path(file).resolve()
    return Origin(
        name, point.module, point.attr,
        distribution=_distribution(point, at),
        file=None if at is None else str(at),
        sha256=None if at is None or not at.is_file() else sha256_file(at),
    )  # fmt: skip


def require_allowed(named: Mapping[str, str], source: Path, allow_code: bool) -> None:
    """Let code be imported that a file names which the user may have from anyone.

    Args:
        named: names of parts by kind; only `module:Class` needs permission.
        source: what names them, for the message.
        allow_code: whether the user has given the permission.

    Raises:
        InputError: there is such code, and neither `allow_code` nor the environment variable allows it.
    """
    code = [f"{kind} {name}" for kind, name in named.items() if is_code(name)]
    if code and not allow_code and os.environ.get(ALLOW_CODE) != "1":
        raise InputError(
            f"{source}: names code from outside vqa, which would be imported and run: {', '.join(code)}; where you "
            f"trust it, allow it with --allow-code or {ALLOW_CODE}=1"
        )


def require_subclass(kind: str, name: str, part: Any, base: type) -> None:
    """Raise InputError where a part from outside is no class of its kind."""
    if not (inspect.isclass(part) and issubclass(part, base)):
        found = f"the class {part.__name__}" if inspect.isclass(part) else f"{type(part).__name__} {part!r:.60}"
        wanted = f"{base.__module__}.{base.__qualname__}"
        raise InputError(f"{kind} {name!r} must be a subclass of {wanted}; it is {found}")


def _entry_points(kind: str) -> dict[str, EntryPoint]:
    """The parts of a kind that installed packages have; raises InputError where two give the same name."""
    found: dict[str, EntryPoint] = {}
    for point in importlib.metadata.entry_points(group=GROUPS[kind]) if kind in GROUPS else ():
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise InputError(
                f"{kind} {point.name!r}: two installed packages have a part of that name ({other.value} and "
                f"{point.value}); write which one you mean, as module:Class"
            )
    return found


def entry_names(kind: str) -> list[str]:
    """The names of the parts of a kind that installed packages bring."""
    return sorted(_entry_points(kind))


def _entry_point(kind: str, name: str) -> EntryPoint | None:
    """What a name from outside stands for, not imported yet; None where nothing does."""
    if kind not in GROUPS:
        return None
    if not is_code(name):
        return _entry_points(kind).get(name)
    module, _, attribute = name.partition(":")
    words = [*module.split("."), *attribute.split(".")]
    if not all(word.isidentifier() for word in words):
        raise InputError(f"{kind} {name!r}: write code from outside as module:Class, as in mypackage.mine:Mine")
    return EntryPoint(name, name, GROUPS[kind])


def _load(owner: str, point: EntryPoint) -> Any:
    """Import what an entry point names; raises InputError that begins with `owner` and names module and cause."""
    module = _import(owner, point)
    part: Any = module
    for attribute in filter(None, point.attr.split(".")):
        try:
            part = getattr(part, attribute)
        except AttributeError:
            missing = unknown_name(f"name in the module {point.module}", point.attr, _public_names(module))
            raise InputError(f"{owner}: {missing} ({_file(module)})") from None
    return part


def _import(owner: str, point: EntryPoint) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    name = point.module
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            where = f"nor is one in the current folder, {here}"
            raise InputError(f"{owner}: there is no module {error.name!r} among the installed ones, {where}") from None
        raise InputError(_failed(owner, name, error)) from error
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        raise InputError(_failed(owner, name, error)) from error


def _failed(owner: str, module: str, error: BaseException) -> str:
    """One sentence for an error that was raised while a module was imported, with the line that raised it."""
    said = first_line(error)
    if isinstance(error, SyntaxError):
        said, where = error.msg, f"{error.filename}, line {error.lineno}"
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__)[1:] if "importlib" not in frame.filename]
        own = [frame for frame in frames if not frame.filename.startswith((sys.prefix, sys.base_prefix))]
        where = next((f"{frame.filename}, line {frame.lineno}" for frame in reversed(own or frames)), "at once")
    return f"{owner}: importing {module} failed with {type(error).__name__}: {said} ({where})"


def _public_names(module: ModuleType) -> Iterable[str]:
    """The classes and functions that a module defines itself, or everything of it where there are none."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return [name for name in own or vars(module) if not name.startswith("_")]


def _file(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or "no file")


def _distribution(point: EntryPoint, file: Path | None) -> str | None:
    """The installed package that a part is of, with its version; of `module:Class` the one that holds its file."""
    if point.dist is not None:
        return f"{point.dist.name} {point.dist.version}"
    roots = [root for root in map(Path, sys.path) if file is not None and file.is_relative_to(root.resolve())]
    if file is None or not roots:
        return None
    root = max(roots, key=lambda one: len(one.parts))
    inside = file.relative_to(root.resolve()).as_posix()
    for distribution in importlib.metadata.distributions(path=[str(root)]):
        if any(str(one) == inside for one in distribution.files or ()):
            return f"{distribution.name} {distribution.version}"
    return None
