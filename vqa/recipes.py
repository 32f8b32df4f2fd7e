"""The recipes: experiments and ablations that come with vqa, found by name from any folder.

They are the YAML files of `experiments/`: beside the package in a checkout, `vqa/experiments/` in a wheel.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from vqa.errors import InputError, near_names
from vqa.files import atomic_write, write_json
from vqa.progress import console

FOLDER = "experiments"
GROUPS = ("", "demo/", "ablations/")  # the folder's own files and its two sub-folders
SCHEMA = "vqa.schema.json"  # of all of them, in the folder; `vqa describe --schema` writes it
SCHEMA_LINE = re.compile(r"# yaml-language-server: \$schema=.*\n")  # by which editors find it
ABLATIONS_FIRST = ("ablations/", "", "demo/")  # where `vqa ablate daquar` looks


@dataclass(frozen=True)
class Recipe:
    """One of the files: "san", "demo/product" or "ablations/fusion", and where it is on this machine."""

    name: str
    path: Path

    @property
    def command(self) -> str:
        """What runs it: `vqa train` or `vqa ablate`."""
        return "ablate" if self.name.startswith("ablations/") else "train"

    @cached_property
    def _paragraphs(self) -> list[str]:
        """What the header says: comment lines in paragraphs, between which stand commands, indented."""
        text = SCHEMA_LINE.sub("", self.path.read_text(encoding="utf-8", errors="replace"), count=1)
        lines = re.match(r"(?:#.*\n)*", text)
        assert lines is not None  # it matches nothing, too
        header = re.sub(r"^#   .*|^# ?", "", lines[0], flags=re.MULTILINE)
        return [" ".join(paragraph.split()) for paragraph in re.split(r"\n{2,}", header)]

    @property
    def about(self) -> str:
        """What it is, in one line; empty without a header."""
        return self._paragraphs[0].rstrip(":")

    @property
    def published(self) -> str | None:
        """The paragraph of published figures; None where there is none."""
        found = (one.removeprefix("Published: ") for one in self._paragraphs if one.startswith("Published: "))
        return next(found, None)

    @property
    def figure(self) -> str | None:
        """The first of the published figures, with what it is of."""
        found = re.match(r"((?:\([^)]*\)|[^;(])+?)(?:;|(?<!al)\.\s|\.?$)", self.published or "")
        return None if found is None else found[1]


def recipes_folder() -> Path:
    """Where the recipes are: in the installed package, or beside it in a checkout."""
    package = Path(str(files("vqa")))
    return package / FOLDER if (package / FOLDER).is_dir() else package.parent / FOLDER


def recipes() -> list[Recipe]:
    """All of them, experiments first."""
    folder = recipes_folder()
    return [Recipe(f"{group}{path.stem}", path) for group in GROUPS for path in sorted((folder / group).glob("*.yaml"))]


def find_recipe(name: str, groups: Sequence[str] = GROUPS) -> Recipe | None:
    """The recipe of a name: "san", "san.yaml", "experiments/san.yaml", or without its sub-folder "fusion"."""
    bare = name.removeprefix(f"{FOLDER}/").removesuffix(".yaml")
    known = {recipe.name: recipe for recipe in recipes()}
    wanted = [bare] if name.startswith(f"{FOLDER}/") else [f"{group}{bare}" for group in (*groups, "")]
    return next((known[one] for one in wanted if one in known), None)


def experiment_file(given: Path, groups: Sequence[str] = GROUPS) -> Path:
    """The file that a command's EXPERIMENT or ABLATION means: one that is there, else a recipe.

    A copy in the current folder goes before the recipe of its name, so that `san` is `san.yaml` where that is there.

    Args:
        groups: where a name without a sub-folder is looked for, first to last.

    Raises:
        InputError: neither; names the recipes that come near.
    """
    for here in (given, Path(f"{given}.yaml")):
        if here.exists() and not here.is_dir():
            return here
    recipe = find_recipe(given.as_posix(), groups)
    if recipe is not None:
        return recipe.path
    raise InputError(_not_found(given))


def copy_recipe(name: str, to: Path) -> Path:
    """Copy a recipe into the folder `to`, or to a file name that ends in .yaml, and return the new file.

    The commands in its header name the copy, and its first line the schema of the installed package.

    Raises:
        InputError: no such recipe, or there is a file of that name already.
    """
    recipe = find_recipe(name)
    if recipe is None:
        raise InputError(_not_found(Path(name)))
    target = to if to.suffix == ".yaml" else to / recipe.path.name
    if target.exists():
        raise InputError(
            f"{target}: is there already and was not changed; name another: vqa recipes copy {name} FILE.yaml"
        )
    typed = shlex.quote(str(target))
    text = recipe.path.read_text(encoding="utf-8").replace(f"{FOLDER}/{recipe.name}.yaml", typed)
    schema = f"# yaml-language-server: $schema={(recipes_folder() / SCHEMA).as_uri()}\n"
    with atomic_write(target) as file:
        file.write(SCHEMA_LINE.sub(lambda _: schema, text, count=1))
    console.print(f"{target}: its header says what it needs\nnext: vqa {recipe.command} {typed}")
    return target


def list_recipes(json_file: Path | None = None) -> None:
    """Print every recipe: its name, what it is, and the first of its published figures."""
    found = recipes()
    width = max((len(recipe.name) for recipe in found), default=0) + 2
    for command, group in groupby(found, key=lambda recipe: recipe.command):
        console.print(f"vqa {command}", style="bold")
        for recipe in group:
            console.print(f"  {recipe.name:{width}}{recipe.about}")
            if recipe.figure:
                console.print(f"  {'':{width}}published: {recipe.figure}", style="dim")
    console.print("next: vqa describe NAME, or vqa recipes copy NAME to change it")
    if json_file is not None:
        facts = ("name", "command", "about", "published")
        rows = [{key: getattr(one, key) for key in facts} | {"file": str(one.path)} for one in found]
        write_json(json_file, rows)


def _not_found(given: Path) -> str:
    """The message for what is neither a file nor a recipe's name."""
    if given.is_absolute():
        return f"{given}: no such file"
    names = [recipe.name for recipe in recipes()]
    near = near_names(given.stem, [*names, *(name.rpartition("/")[2] for name in names)], most=3)
    hint = f" (did you mean {', '.join(map(repr, near))}?)" if near else ""
    return f"{given}: no such file, and no recipe has that name{hint}; `vqa recipes` lists them"
