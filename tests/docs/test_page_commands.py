"""Every `vqa` command that a page or a recipe's header shows can be given as it stands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from helpers.recipes import ABLATION_FILES, EXPERIMENT_FILES
from helpers.training import PROJECT

import vqa.cli
from vqa.experiment import read_experiment
from vqa.recipes import find_recipe

NAMES = ("README", "CONTRIBUTING", "features_cache/README", "experiments/RESULTS", "experiments/BENCHMARKS")
PAGES = [PROJECT / f"{name}.md" for name in NAMES] + sorted((PROJECT / "docs").rglob("*.md"))
BEFORE = r"(?:[A-Z_]+=\S+ |torchrun .*? -m )?"  # variables of the environment, several processes


def in_blocks(path: Path) -> Iterator[str]:
    """The commands of a page's shell blocks, or of a recipe's header, continuation lines joined."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        text = "```sh\n" + "".join(re.findall(r"^# {3}(.*\n)", text, re.MULTILINE)) + "```"
    blocks = re.findall(r"```(?:sh|text)\n(.*?)```", text, re.DOTALL) + re.findall(r"^ {4}(.*)", text, re.MULTILINE)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if found := re.match(rf"{BEFORE}vqa (.*)", line):
            yield " ".join(re.sub(r" {3,}\(.*\)$", "", found[1]).split())


def in_text(path: Path) -> Iterator[str]:
    """The commands in a page's text, which may leave out what does not matter there."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    yield from (" ".join(found.split()) for found in re.findall(rf"`{BEFORE}vqa ([a-z]+ [^`]+)`", text))


def parse(line: str) -> tuple[Any, list[str]]:
    """The command of a line and its words; raises what click raises where an option or argument is wrong."""
    words = shlex.split(line, comments=True)
    command: Any = typer.main.get_command(vqa.cli.app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("vqa", list(words))
    return command, words


def named(paths: list[Path], commands: Any) -> list[Any]:
    """Parameters of a test, one a command, each once."""
    lines = {line: path.relative_to(PROJECT) for path in paths for line in commands(path)}
    return [pytest.param(line, id=f"{name}: {line}") for line, name in lines.items()]


@pytest.mark.parametrize("line", named([*PAGES, *EXPERIMENT_FILES, *ABLATION_FILES], in_blocks))
def test_a_command_parses_and_names_files_that_exist(line: str) -> None:
    command, words = parse(line)
    files = [word for word in words if re.fullmatch(r"experiments/(?!runs).*\.yaml", word)]
    assert all((PROJECT / name).is_file() for name in files)
    if command.name == "train" and find_recipe(words[0]):  # how-tos write files of their own
        read_experiment(Path(words[0]), [change for change in words[1:] if "=" in change])


@pytest.mark.parametrize("line", named(PAGES, in_text))
def test_a_command_in_the_text_has_only_options_that_exist(line: str) -> None:
    try:
        parse(line)
    except Exception as error:
        if type(error).__name__ != "MissingParameter":  # of the click that typer brings, under a private name
            raise
