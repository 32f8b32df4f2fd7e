"""Around every command: the paths that a user names are vetted before any work, and signals end it in one way."""

import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from typer import Typer

from vqa.errors import InputError, InterruptedRunError
from vqa.files import ATTENTION_FORMATS, PLOT_FORMATS, STANDARD_OUTPUT, format_of, own_output
from vqa.overrides import parse_assignments, read_yaml
from vqa.progress import console
from vqa.recipes import ABLATIONS_FIRST, experiment_file
from vqa.runtime.stopping import StopSignal, interrupting_signals

# The options that name what is written, by the endings of what they write; () is any ending, or a folder.
OUTPUTS: dict[str, tuple[str, ...]] = {
    "json": (".json",),
    "schema": (".json",),
    "sweep": (".yaml", ".yml"),
    "attention": tuple(ATTENTION_FORMATS),
    "plot": tuple(PLOT_FORMATS),
    "keep_scores": (".npz",),
    "out": (),
}
IMAGES = (("attention", ATTENTION_FORMATS, "an attention image"), ("plot", PLOT_FORMATS, "a plot"))
# What makes a run folder a run (`vqa.training.run_folder`), and what `vqa evaluate` and `vqa submit` put there.
RUN_FILES = (
    "experiment.yaml", "seen.npz", "vocabulary.json", "model.safetensors", "state.pt", "metrics.jsonl", "tracking.json",
    "environment.json", "finished.json", "language_model", "evaluation_*.json", "results_*.json", "*.zip",
    "report.html", "failed.json", "words_tokenizer.json", ".lock", ".lease",
)  # fmt: skip


def guard_commands_of(group: Typer) -> None:
    """Let every command of a group, and of those in it, vet its paths first and end as Ctrl-C does at other signals."""
    for command in group.registered_commands:
        command.callback = command.callback and _guarded(command.callback)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            guard_commands_of(inner.typer_instance)
    if group.registered_callback is not None and group.registered_callback.callback is not None:
        group.registered_callback.callback = _guarded(group.registered_callback.callback)


def _guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def run(*given: Any, **options: Any) -> Any:
        before = console.stderr
        try:
            vet_paths(options)
            with interrupting_signals():
                return command(*given, **options)
        except StopSignal as signal:
            raise InterruptedRunError(f"stopped by {signal}; the same command goes on, or begins again") from None
        finally:
            console.stderr = before

    return run


def vet_paths(options: Mapping[str, Any]) -> None:
    """Refuse an output that would be the end of something else, and an input that is neither a file nor a folder.

    Where an output is `-`, messages go to standard error.

    Args:
        options: a command's options and arguments by name: those in `OUTPUTS` are written, other paths are read.

    Raises:
        InputError: an input is a pipe, socket or device. An output is an input of the same call, a file of a run folder
            or of a data set that is read, a folder, another kind of file than the option writes, the same as another
            output, or cannot be made there.
    """
    given = [value for name, value in options.items() if name not in OUTPUTS]
    flat = [path for value in given for path in (value if isinstance(value, list) else [value])]
    read = [path for path in flat if isinstance(path, Path)]
    for path in read:
        _require_file_or_folder(path)
    outputs = {name: options[name] for name in OUTPUTS if isinstance(options.get(name), Path)}
    if not outputs:
        return
    inputs = [found for path in read for found in _inputs_of(path)]
    inputs += _named_by_overrides(options.get("overrides") or [])
    for name, formats, what in IMAGES:
        if name in outputs:
            format_of(outputs[name], formats, what)
    for name, path in outputs.items():
        if any(_same(path, other) for key, other in outputs.items() if key != name):
            raise InputError(f"--{name} {path}: is what another option writes, too; give each a name of its own")
        if path == STANDARD_OUTPUT:
            if name == "out":
                raise InputError("--out -: this cannot be written to standard output; give a name")
            console.stderr = True  # nothing else on standard output
        else:
            _vet(f"--{name} {path}", path, OUTPUTS[name], inputs)


def _require_file_or_folder(path: Path) -> None:
    """Raise InputError for a pipe or a device, of which a reader may wait for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # what is wrong with it the command itself says
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a pipe, socket or device, not a file")


def _vet(said: str, path: Path, endings: tuple[str, ...], inputs: Iterable[Path]) -> None:
    """Raise InputError where one path may not be written."""
    target = Path(os.path.realpath(path))
    for source in inputs:
        if _same(target, source):
            raise InputError(f"{said}: is an input of this command and would be lost; give another name")
        if target.is_file() and endings and _is_data_around(source, target):
            raise InputError(
                f"{said}: lies in {source}, which is read here, and is not written over; give another name"
            )
    for folder in target.parents[:2]:
        if _is_run(folder) and any(target.relative_to(folder).match(name) for name in RUN_FILES):
            raise InputError(f"{said}: is a file of the run {folder} and would be lost; give another name")
    if not endings or (target.is_file() and own_output(target.stat()) is not None):
        return  # any name; or /dev/stdout, redirected to a file, which is written on
    if target.is_dir():
        raise InputError(f"{said}: is a folder; give the name of a file")
    other = target.is_file() and target.stat().st_size and target.suffix.lower() not in endings
    if other and not (".json" in endings and _looks_written_by_us(target)):
        raise InputError(
            f"{said}: is there already and is no {' or '.join(endings)} file, so it is not written over; remove it or "
            f"give another name"
        )
    beside = next(folder for folder in target.parents if folder.exists())
    if not beside.is_dir() or not os.access(target if target.exists() else beside, os.W_OK):
        raise InputError(f"{said}: cannot be written: {beside} is no folder that files can be made in")


def _is_data_around(source: Path, target: Path) -> bool:
    """Whether a file lies in a folder of data that is read; one's own results may lie where the current folder does."""
    folder = Path(os.path.realpath(source))
    if not folder.is_dir() or _is_run(source) or folder not in target.parents:
        return False
    here = Path(os.path.realpath(Path.cwd()))
    return not (here.is_relative_to(folder) and _looks_written_by_us(target))


def _looks_written_by_us(path: Path) -> bool:
    """Whether a file begins as `write_json` begins one, and published data do not."""
    with path.open("rb") as file:
        return file.read(4) in (b"{\n  ", b"[\n  ", b"{}\n", b"[]\n")


def _is_run(folder: Path) -> bool:
    return (folder / "experiment.yaml").is_file() and (folder / "vocabulary.json").is_file()


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.realpath(one) == os.path.realpath(other) or one.samefile(other)
    except OSError:
        return False


def _inputs_of(path: Path) -> Iterator[Path]:
    """A path that a command reads, and what an experiment, ablation or run there names: data and feature caches."""
    yield path
    if not path.is_dir() and path.suffix not in (".yaml", ".yml", ""):
        return
    from vqa.experiment import files_of  # brings torch, which other commands do not need

    try:
        described = path / "experiment.yaml" if path.is_dir() else experiment_file(path, ABLATIONS_FIRST)
        base = read_yaml(described).get("base")
        files = [described] if isinstance(base, str) else files_of(described)
        if isinstance(base, str):
            files += files_of(Path(base) if Path(base).is_file() else described.parent / base)
        for file in files:
            yield file
            yield from _named_paths(read_yaml(file))
    except InputError:
        return  # what is wrong with it the command itself says


def _named_paths(values: Mapping[str, Any]) -> Iterator[Path]:
    """The data and feature caches that an experiment names, and the files that a run recorded."""
    sections = [values.get(name) for name in ("data", "features", "words", "recorded")]
    data, features, words, recorded = (section if isinstance(section, dict) else {} for section in sections)
    caches = features.get("cache", [])
    files = recorded.get("data")
    named = [data.get("root"), words.get("vectors"), *(caches if isinstance(caches, list) else [caches])]
    yield from (Path(name) for name in [*named, *(files if isinstance(files, dict) else [])] if isinstance(name, str))


def _named_by_overrides(overrides: Iterable[str]) -> list[Path]:
    values: dict[str, dict[str, Any]] = {}
    try:
        for assignment in parse_assignments(overrides):
            if len(assignment.path) == 2:
                values.setdefault(assignment.path[0], {})[assignment.path[1]] = assignment.value
    except InputError:
        return []  # as above
    return list(_named_paths(values))
