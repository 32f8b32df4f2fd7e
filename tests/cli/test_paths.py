"""What `--json`, `--out`, `--attention` and `--plot` may be: nothing that somebody needs is lost."""

import inspect
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
import yaml
from helpers.devices import device
from helpers.training import SUBPROCESS, experiment, folder_bytes, make_world, values

import vqa.cli
from vqa.cli.paths import OUTPUTS, RUN_FILES, vet_paths
from vqa.errors import InputError
from vqa.files import write_json
from vqa.training.run_folder import RunFolder
from vqa.training.train import train

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_world(tmp_path_factory.mktemp("made"))
    (folder / "e.yaml").write_text(yaml.safe_dump(values(folder, folder / "runs")), encoding="utf-8")
    train(experiment(folder, folder / "runs"))
    results = [{"question_id": 1, "answer": "yes"}]
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to write into, and the current folder."""
    own = tmp_path / "own"
    shutil.copytree(made, own)
    for file in (own / "e.yaml", own / "runs/tiny/0/experiment.yaml"):
        file.write_text(file.read_text().replace(str(made), str(own)))
    monkeypatch.chdir(own)
    return own


@pytest.fixture
def vqa_main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vqa", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            vqa.cli.main()
            raise SystemExit(0)
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def commands(group: typer.Typer = vqa.cli.app) -> Iterator[Callable[..., object]]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance)


def test_every_command_with_an_output_has_it_vetted() -> None:
    found = [one for one in commands() if OUTPUTS.keys() & inspect.signature(one).parameters.keys()]
    assert len(found) > 15
    assert all(hasattr(one, "__wrapped__") for one in found)


def test_the_names_of_a_run_folder_are_known() -> None:
    folder = RunFolder(Path("run"))
    properties = [name for name, value in vars(RunFolder).items() if isinstance(value, property)]
    paths = [getattr(folder, name) for name in properties] + [
        folder.evaluation("val"),
        folder.results("val", "open-ended"),
    ]
    assert len(paths) > 8
    for path in paths:
        assert any(path.relative_to("run").match(name) for name in RUN_FILES), path


def test_a_file_of_the_run_folder_is_refused(world: Path, vqa_main: Run) -> None:
    run = world / "runs/tiny/0"
    before = folder_bytes(run)
    names = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    assert len(names) > 6
    for name in names:
        for command in (["evaluate", run], ["recipes"], ["describe", "san"]):
            status, out, err = vqa_main(*command, "--json", run / name)
            assert status == 2 and "would be lost" in err and not out, (command, name, err)
    assert folder_bytes(run) == before


def test_an_input_of_the_same_call_is_refused(world: Path, vqa_main: Run) -> None:
    """By its own name, by another way to it, and by a link."""
    before = {path: path.read_bytes() for path in world.rglob("*") if path.is_file()}
    questions = next((world / "data").glob("*OpenEnded*val*.json"))
    annotations = next((world / "data").glob("*val*annotations.json"))
    (world / "link.json").symlink_to(annotations)
    os.link(annotations, world / "hard.json")
    refused: list[tuple[object, ...]] = [
        ("score", "results.json", "--questions", questions, "--annotations", annotations, "--json", written)
        for written in (
            "results.json",
            questions,
            annotations,
            world / "data/../results.json",
            "link.json",
            "hard.json",
        )
    ]
    refused += [
        ("evaluate", "runs/tiny/0", "--json", annotations),
        ("evaluate", "runs/tiny/0", "--json", "cache.h5"),
        ("ablate", "e.yaml", "--json", "e.yaml"),
        ("describe", "e.yaml", "--json", "e.yaml"),
        ("describe", "e.yaml", "--json", annotations),
        ("data", "check", "data", "--format", "vqa_v2", "--json", annotations),
    ]
    for command in refused:
        status, out, err = vqa_main(*command)
        assert status == 2 and "give another name" in err and not out, (command, err)
    for path, content in before.items():
        assert path.read_bytes() == content


def test_what_is_no_file_of_the_kind_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "shut").mkdir(mode=0o555)
    for path, said in (("thesis.tex", "is there already and is no .json"), (".", "is a folder")):
        with pytest.raises(InputError, match=said):
            vet_paths({"json": tmp_path / path})
    vet_paths({"json": tmp_path / "empty.txt", "plot": tmp_path / "new" / "plot.png"})
    with pytest.raises(InputError, match="no folder that files can be made in"):
        vet_paths({"json": tmp_path / "thesis.tex" / "a.json"})
    with pytest.raises(InputError, match="what another option writes"):
        vet_paths({"json": tmp_path / "a.png", "attention": tmp_path / "a.png"})
    with pytest.raises(InputError, match="cannot be written to standard output"):
        vet_paths({"out": Path("-")})


def test_of_an_input_folder_only_new_files_are_written(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "questions.json").write_text("[]")
    with pytest.raises(InputError, match=r"lies in .*data, which is read here"):
        vet_paths({"json": tmp_path / "data" / "questions.json", "root": tmp_path / "data"})
    vet_paths({"json": tmp_path / "data" / "check.json", "root": tmp_path / "data"})


def test_a_hyphen_is_json_alone_on_standard_output(world: Path, vqa_main: Run) -> None:
    for command in (["recipes"], ["describe", "e.yaml"], ["data", "check", "data", "--format", "vqa_v2"]):
        status, out, err = vqa_main(*command, "--json", "-")
        assert status == 0 and json.loads(out) and err, command
    assert not (world / "-").exists()
    assert "vqa train" in vqa_main("recipes")[1]  # the next command prints to standard output again


def test_pipes_and_devices_stay_what_they_are(world: Path, vqa_main: Run) -> None:
    null = device(world, "null")
    assert vqa_main("recipes", "--json", null)[0] == 0
    assert stat.S_ISCHR(null.stat().st_mode)
    status, _, err = vqa_main("recipes", "--json", device(world, "full"))
    assert status == 2 and "full: cannot be written: No space left" in err


def test_an_input_that_is_a_pipe_or_a_device_is_refused_and_not_waited_for(world: Path, vqa_main: Run) -> None:
    os.mkfifo(world / "pipe")
    for odd in (world / "pipe", device(world, "zero")):
        for command in (
            ["train", odd], ["predict", "runs/tiny/0", odd, "what?"], ["data", "check", odd, "--format", "table"],
            ["score", odd, "--questions", odd, "--annotations", odd], ["evaluate", "runs/tiny/0", "--cache", odd],
            ["features", "import", odd, "--from", "cyanogenoid", "--out", "new.h5"],
        ):  # fmt: skip
            status, out, err = vqa_main(*command)
            assert (status, out) == (2, "") and "is a pipe, socket or device, not a file" in err, (command, err)


def test_ones_own_numbers_may_be_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the data are those of the current folder, and under any ending; but not over data."""
    monkeypatch.chdir(tmp_path)
    for name in ("numbers.json", "numbers.txt", "numbers"):
        for _ in range(2):
            vet_paths({"json": Path(name), "data": Path()})
            write_json(Path(name), {"a": 1})
    Path("questions.json").write_text('{"questions": []}')
    with pytest.raises(InputError, match="which is read here"):
        vet_paths({"json": Path("questions.json"), "data": Path()})


def test_an_image_on_standard_output_or_into_a_pipe_is_a_png(world: Path, vqa_main: Run) -> None:
    """Which have no ending to say otherwise."""
    plan = ("data", "plan", "data", "--format", "vqa_v2", "--plot")
    typed = [sys.executable, "-m", "vqa", *plan, "-"]
    ended = subprocess.run(typed, capture_output=True, env=os.environ | SUBPROCESS, timeout=120, check=False)
    assert ended.stdout.startswith(b"\x89PNG") and ended.returncode == 0
    os.mkfifo(world / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((world / "pipe").read_bytes()))
    reader.start()
    assert vqa_main(*plan, "pipe")[0] == 0
    reader.join(timeout=10)
    assert read[0].startswith(b"\x89PNG")
