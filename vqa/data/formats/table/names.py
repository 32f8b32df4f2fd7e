"""Which column of a table is what: by its usual name, or as the user says.

Names are the same whatever their capitals, blanks, dashes and underscores: "Img Name" is `img_name`.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqa.errors import InputError, quoted, shortened, unknown_name

# What a column may be, and the names it is known by; where several are there, the first of them counts.
ROLES: dict[str, tuple[str, ...]] = {
    "image": (
        "image", "image_path", "image_name", "image_file", "img_path", "img_name", "img_file", "file_name", "img",
        "image_id", "img_id",
    ),
    "question": ("question",),
    "answer": ("answer",),
    "answers": ("answers", "direct_answers"),
    "answer_index": ("answer_index", "answer_idx", "correct_choice_idx", "correct_index", "correct_idx"),
    "answer_number": (),
    "choices": ("choices", "options"),
    "id": ("id", "question_id", "qid"),
    "split": ("split",),
    "language": ("language", "lang", "q_lang"),
    "question_type": ("question_type",),
    "answer_type": ("answer_type",),
}  # fmt: skip
SEVERAL = ("answers", "choices")  # which may be made of several columns
ANSWERING = ("answer", "answers", "answer_index", "answer_number")  # of which one is enough
NEEDED = ("image", "question")
_LETTERED = re.compile(r"(|option|choice)([a-r])")  # A, B, …; option_a, …
_NUMBERED = re.compile(r"(option|choice)(\d{1,2})")  # option1, …; choice_0, …
LEAST_LETTERS = 4  # of a name that is taken for a mistake in writing another
LIKENESS = 0.8  # of a name that may be meant where one that is needed is missing


def canonical(name: str) -> str:
    """A name without what does not tell it from others.

    >>> canonical("Img Name"), canonical("questionId")
    ('imgname', 'questionid')
    """
    return re.sub(r"[\W_]+", "", name.casefold())


@dataclass(frozen=True)
class TableOptions:
    """How a table is read where its own names do not say it.

    Attributes:
        columns: what a column is ("image", …) to its name in the table; several names for answers and choices, each
            with one of them; None: the table has none.
        where: only rows whose column has this text, or one of these, are read.
    """

    columns: Mapping[str, str | Sequence[str] | None] = field(default_factory=dict)
    where: Mapping[str, str | Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, columns: Mapping[str, Any] | None, where: Mapping[str, Any] | None) -> "TableOptions":
        """Check what a user has written, numbers as their digits; raises InputError that says what is wrong."""
        for role, names in (columns or {}).items():
            if role not in ROLES:
                raise InputError(f"columns: {unknown_name('kind of column', str(role), ROLES)}")
            if not isinstance(names, str) and names is not None and (role not in SEVERAL or not _are_texts(names)):
                several = " or a list of them" if role in SEVERAL else ""
                raise InputError(f"columns: {role}: takes a column's name{several}, not {quoted(names)}")
        return cls(
            {role: names or None for role, names in (columns or {}).items()},
            {str(name): _wanted(str(name), value) for name, value in (where or {}).items()},
        )

    def __bool__(self) -> bool:
        return bool(self.columns or self.where)

    @property
    def given(self) -> list[str]:
        """The names of columns."""
        several = ([names] if isinstance(names, str) else names or () for names in self.columns.values())
        return [name for names in several for name in names]

    @property
    def arguments(self) -> list[str]:
        """The options on a command line that say the same."""
        given = []
        for flag, said in (("--columns", self.columns), ("--where", self.where)):
            for name, value in said.items():
                text = value if isinstance(value, str) else ",".join(value or ())
                given += [flag, f"{name}={text}"]
        return given


PLAIN = TableOptions()


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(one, str) and one for one in value)


def _wanted(name: str, value: Any) -> str | tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(str(_wanted(name, one)) for one in value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"where: {name}: takes a text, or a list of them, not {quoted(value)}")
    return str(value).strip()


@dataclass(frozen=True)
class Columns:
    """Which columns of one table are what.

    Attributes:
        of: what it is to its name, or names, in the table.
        lettered: the columns of choices are named by letters or numbers, so that an answer is one of these.
        where: column names to the texts of the rows that are read.
        used: the names of all these.
    """

    of: Mapping[str, tuple[str, ...]]
    lettered: bool
    where: Mapping[str, frozenset[str]]

    def get(self, row: Mapping[str, Any], role: str) -> Any:
        """A row's cell; None where the table has no such column, and a list where several columns make one."""
        names = self.of.get(role, ())
        return None if not names else row.get(names[0]) if len(names) == 1 else [row.get(name) for name in names]

    @property
    def used(self) -> frozenset[str]:
        """The names of all columns that are read."""
        return frozenset(self.where).union(*self.of.values())

    def notes(self) -> list[str]:
        """Which columns were recognised by another name than the usual one; nothing where all have that."""
        other = [
            f"{role} is {', '.join(map(repr, names))}"
            for role, names in self.of.items()
            if role != "language" and (len(names) > 1 or canonical(names[0]) != canonical(role))
        ]
        return [f"columns: {'; '.join(other)}"] if other else []


KNOWN = {canonical(name): role for role, names in ROLES.items() for name in (role, *names)}


def has_question(names: Iterable[str], given: Collection[str] = ()) -> bool:
    """Whether one of these columns is of questions, or `given` by the user: it is such a table then."""
    wanted = {canonical(name) for name in (*ROLES["question"], *given)}
    return any(canonical(name) in wanted for name in names)


def recognise(names: Sequence[str], options: TableOptions, path: Path) -> Columns:
    """Find what each column is.

    Raises:
        InputError: a name that is needed, or that the user gave, is not there; two columns have one name; or a column
            that is not known resembles one that is missing.
    """
    by_canonical: dict[str, list[str]] = {}
    for name in names:
        if canonical(name):
            by_canonical.setdefault(canonical(name), []).append(name)
    found: dict[str, tuple[str, ...]] = {}
    for role, given in options.columns.items():
        if given is not None:
            asked = [given] if isinstance(given, str) else given
            found[role] = tuple(_named(one, names, by_canonical, path, f"columns: {role}") for one in asked)
    claimed = {name for given in found.values() for name in given}
    for role, usual in ROLES.items():
        if role not in options.columns:
            known = (by_canonical[canonical(name)] for name in usual if canonical(name) in by_canonical)
            one = next((one for one in known if not claimed.issuperset(one)), None)
            if one is not None:
                _require_one(one, path)
                found[role] = (one[0],)
    lettered = "choices" not in found and "choices" not in options.columns
    if lettered and (several := _lettered(by_canonical)):
        found["choices"] = several
    unknown = [one for key, (one, *_) in by_canonical.items() if key not in KNOWN and one not in claimed]
    _require_needed(found, names, path)
    chosen_by = {canonical(name) for name in options.where}  # who chooses rows by it has not misspelt it
    _refuse_misspelt(found, options, [one for one in unknown if canonical(one) not in chosen_by], path)
    where = {
        (by_role[0] if (by_role := found.get(name)) else _named(name, names, by_canonical, path, "where")): (
            frozenset([value] if isinstance(value, str) else value)
        )
        for name, value in options.where.items()
    }
    ordered = {role: found[role] for role in ROLES if role in found}
    return Columns(ordered, lettered and "choices" in found, where)


def _named(name: str, names: Sequence[str], by_canonical: Mapping[str, list[str]], path: Path, said: str) -> str:
    """The column that the user names."""
    if name in names:
        return name
    near = by_canonical.get(canonical(name), [])
    if len(near) == 1:
        return near[0]
    raise InputError(f"{path}: {said}: {unknown_name('column', name, [one for one in names if one.strip()])}")


def _require_one(names: list[str], path: Path) -> None:
    if len(names) > 1:
        raise InputError(f"{path}: the header has two columns {' and '.join(repr(shortened(n)) for n in names[:2])}")


def _lettered(by_canonical: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Columns A, B, C, … or option1, option2, …, from the first on without a gap; () where there are not two."""
    for pattern, firsts in ((_LETTERED, "a"), (_NUMBERED, "01")):
        for start in ("", "option", "choice"):
            for first in firsts:
                series, sign = list[str](), first
                while pattern.fullmatch(start + sign) and start + sign in by_canonical:
                    series.append(by_canonical[start + sign][0])
                    sign = chr(ord(sign) + 1) if firsts == "a" else str(int(sign) + 1)
                if len(series) > 1:
                    return tuple(series)
    return ()


def _require_needed(found: Collection[str], names: Sequence[str], path: Path) -> None:
    lacking = [role for role in NEEDED if role not in found]
    if lacking:
        there = shortened(", ".join(name for name in names if name.strip()))
        known = {canonical(name): name for name in names}
        near = [
            known[one] for role in lacking for one in difflib.get_close_matches(role, [*known], n=1, cutoff=LIKENESS)
        ]
        meant = f" (is it {' and '.join(map(repr, near))}?)" if near else ""
        raise InputError(
            f"{path}: the header has no column {' and no column '.join(sorted(lacking))}{meant}; it has: {there}. "
            f"`columns: {{{lacking[0]}: NAME}}`, or --columns {lacking[0]}=NAME, says which one it is"
        )


def _refuse_misspelt(found: Collection[str], options: TableOptions, unknown: Sequence[str], path: Path) -> None:
    """Raise InputError where something is missing, and a column that is not known resembles it."""
    for role, usual in ROLES.items():
        there = role in found or role in options.columns
        if there or (role in ANSWERING and not set(ANSWERING).isdisjoint({*found, *options.columns})):
            continue
        for name in (one for one in unknown if len(canonical(one)) >= LEAST_LETTERS):
            meant = next((one for one in usual if _is_misspelt(canonical(name), canonical(one))), None)
            if meant is not None:
                raise InputError(
                    f"{path}: unknown column {shortened(name)!r} (did you mean {meant!r}?); rename it, or say "
                    f"`columns: {{{role}: {shortened(name)}}}` (--columns) to read it as that, or "
                    f"`columns: {{{role}: null}}` to leave it out"
                )


def _is_misspelt(name: str, usual: str) -> bool:
    """Whether a name is another but for one letter, or two of a long one, that is wrong, missing, added or exchanged.

    >>> _is_misspelt("anwser", "answer"), _is_misspelt("questiontext", "questiontype")
    (True, False)
    """
    most = 1 if len(usual) < 8 else 2
    if abs(len(name) - len(usual)) > most:
        return False
    before, above = list[int](), [*range(len(usual) + 1)]
    for i, letter in enumerate(name, start=1):
        row = [i]
        for j, other in enumerate(usual, start=1):
            changes = min(above[j] + 1, row[-1] + 1, above[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == usual[j - 2] and name[i - 2] == other:
                changes = min(changes, before[j - 2] + 1)
            row.append(changes)
        before, above = above, row
    return above[-1] <= most
