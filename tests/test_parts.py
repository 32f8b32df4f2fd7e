"""Parts from outside the package: what is found, what is refused with which sentence, and what a run remembers."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.outside import FORMAT, FUSION, IMAGE_ENCODER, LOSS, QUESTION_ENCODER, install, write_module
from helpers.training import PROJECT, SUBPROCESS, assert_same_run, forgetting_imports, make_world, run_python, values
from typer.testing import CliRunner

from vqa.cli import app
from vqa.data.formats import read_dataset
from vqa.errors import InputError
from vqa.experiment import check_experiment, read_experiment
from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders.registry import build_image_encoder
from vqa.models import build_model, check_part
from vqa.parts import find_origin
from vqa.runs.answerer import Answerer
from vqa.runs.evaluate import EvaluationOptions, evaluate_run
from vqa.training.run_folder import RunFolder, open_run
from vqa.training.train import train

ALLOWED = EvaluationOptions(allow_code=True)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder is the test's; what it imports from there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    with forgetting_imports(tmp_path):
        yield tmp_path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


BROKEN = FUSION.replace("class Mine", "raise ValueError('no luck\\ntoday')\n\nclass Mine")
BY_POSITION = FUSION.replace("*, image_dim", "image_dim")
UNTYPED = FUSION.replace("width: Count = 6", "width=6")
ODD_TYPE = FUSION.replace("width: Count = 6", "width: list[int] = None")
LATE_TYPE = FUSION.replace("width: Count = 6", "width: 'Cuont' = 6")
EXTRA_KEYWORDS = FUSION.replace("scale: float = 1.0)", "**options)").replace("scale\n", "1.0\n")
ALLOWED = EvaluationOptions(allow_code=True)


@pytest.mark.parametrize(
    ("source", "section", "said"),
    [
        (FUSION, {"name": "none:Mine"}, "there is no module 'none' among the installed ones, nor is one in "),
        (FUSION, {"name": "torch.none:Mine"}, "there is no module 'torch.none' among"),
        (FUSION, {"name": "mine:Mien"}, r"in the module mine 'Mien' \(did you mean 'Mine'\?\).*mine\.py\)$"),
        (FUSION, {"name": "mine:Count"}, "must be a subclass of vqa.models.contracts.Fusion; it is "),
        (FUSION, {"name": "mine:nn"}, "must be a subclass of vqa.models.contracts.Fusion; it is module"),
        (FUSION, {"name": "mine:Question"}, "must be a subclass of .*Fusion; it is the class Question"),
        (FUSION, {"name": "mine:"}, "write code from outside as module:Class, as in mypackage.mine:Mine"),
        (FUSION, {"name": "my mine:Mine"}, "write code from outside as module:Class"),
        (BROKEN, {"name": "mine:Mine"}, r"importing mine failed with ValueError: no luck \(.*mine\.py, line \d+\)$"),
        ("import numpie\n", {"name": "mine:Mine"}, r"ModuleNotFoundError: No module named 'numpie' \(.*line 1\)$"),
        ("import sys\nsys.exit(0)\n", {"name": "mine:Mine"}, r"importing mine failed with SystemExit: 0 \(.*line 2\)$"),
        ("a = = 3\n", {"name": "mine:Mine"}, r"SyntaxError: invalid syntax \(.*mine\.py, line 1\)$"),
        (BY_POSITION, {"name": "mine:Mine"}, "must take every option by keyword, .*; it has image_dim: int$"),
        (EXTRA_KEYWORDS, {"name": "mine:Mine"}, r"must take every option by keyword, .*; it has \*\*options$"),
        (UNTYPED, {"name": "mine:Mine"}, "its constructor gives width no type; an option is an int"),
        (ODD_TYPE, {"name": "mine:Mine"}, r"gives width the type list\[int\]; an option is an int"),
        (LATE_TYPE, {"name": "mine:Mine"}, "the types of its constructor cannot be read: name 'Cuont' is not defined"),
        (FUSION, {"name": "mine:Mine", "widht": 3}, r"(?s)'widht' \(did you mean 'width'.*scale \(float"),
        (FUSION, {"name": "mine:Mine", "width": 0}, r"width must be int of at least 1 \(default 6\), not 0"),
        (FUSION, {"name": "mine:Mine", "image_dim": 3}, "image_dim follows from the data and cannot be set"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_sentence(here: Path, source: str, section: dict[str, Any], said: str) -> None:
    write_module(here, "mine", source)
    with pytest.raises(InputError, match=said) as caught:
        check_part("fusion", section)
    assert f"fusion '{section['name']}'" in str(caught.value)


def test_a_class_that_states_no_width_is_one_sentence(here: Path) -> None:
    write_module(here, "mine", FUSION.replace("self.out_dim, self.scale = width, scale", "self.scale = scale"))
    with pytest.raises(InputError, match=r"Mine: its constructor must set self\.out_dim"):
        build_model(
            question_encoder={"name": "bow"}, fusion={"name": "mine:Mine"}, classifier={}, vocab_size=9, image_dim=3,
            regions=2, answers=4,
        )  # fmt: skip


def test_the_options_of_a_class_from_outside_are_checked_and_filled_in(here: Path) -> None:
    write_module(here, "mine", FUSION)
    chosen, options = check_part("fusion", {"name": "mine:Mine", "scale": 2})
    assert chosen.__name__ == "Mine" and options == {"width": 6, "scale": 2.0}


def test_entry_points_are_found_by_their_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = install(here / "site", "ours", FUSION, {"vqa.fusions ours_best": "ours.part:Mine"})
    monkeypatch.syspath_prepend(here / "site")
    assert check_part("fusion", {"name": "ours_best"})[0].__name__ == "Mine"
    with pytest.raises(InputError, match=r"unknown fusion 'ours_bset' \(did you mean 'ours_best'\?\)"):
        check_part("fusion", {"name": "ours_bset"})
    with pytest.raises(InputError, match="unknown question_encoder 'ours_best'"):
        check_part("question_encoder", {"name": "ours_best"})
    origin = find_origin("fusion", "ours_best")
    assert astuple(replace(origin, sha256=None)) == ("ours_best", "ours.part", "Mine", "ours 1.2", str(file), None)
    assert origin.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert find_origin("fusion", "ours.part:Mine").distribution == "ours 1.2"


def test_a_name_that_two_packages_give_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("ours", "theirs"):
        install(here / "site", package, FUSION, {"vqa.fusions best": f"{package}.part:Mine"})
    monkeypatch.syspath_prepend(here / "site")
    with pytest.raises(InputError, match=r"two installed packages .*(ours|theirs)\.part:Mine.*as module:Class$"):
        check_part("fusion", {"name": "best"})


def test_a_name_of_the_table_is_never_taken_from_outside(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(here / "site", "ours", FUSION, {"vqa.fusions product": "ours.part:Mine"})
    monkeypatch.syspath_prepend(here / "site")
    assert check_part("fusion", {"name": "product"})[0].__name__ == "Product"


def everything(here: Path) -> dict[str, Any]:
    """Modules for every kind of part, and the sections that name them."""
    for name, source in (("f", FUSION), ("q", QUESTION_ENCODER), ("loss_of_mine", LOSS), ("d", FORMAT)):
        write_module(here, name, source)
    return {
        "fusion": {"name": "f:Mine", "width": 5},
        "question_encoder": "q:MeanWord",
        "loss": "loss_of_mine:Doubled",
        "data": {"format": "d:Renamed"},
    }


def outside_plan(world: Path, here: Path) -> dict[str, Any]:
    """An experiment of parts from outside alone, as plain values."""
    plan = values(world, here / "runs") | everything(here)
    return plan | {"data": {"format": "d:Renamed", "root": str(world / "data")}}


def test_every_kind_of_part_trains_and_is_remembered(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = check_experiment(outside_plan(world, here), "test")
    folder = train(experiment)
    recorded = open_run(folder.path)[2]["parts"]
    assert recorded.keys() == {"fusion", "question_encoder", "loss", "data format"}
    digest = hashlib.sha256((here / "f.py").read_bytes()).hexdigest()
    assert recorded["fusion"] == {
        "name": "f:Mine", "module": "f", "attribute": "Mine", "distribution": None, "file": str(here / "f.py"),
        "sha256": digest,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"fusion f:Mine.*--allow-code or VQA_ALLOW_CODE=1$") as refused:
        evaluate_run(folder.path)
    assert "data format d:Renamed" in str(refused.value) and "loss" not in str(refused.value)
    assert evaluate_run(folder.path, options=ALLOWED).dataset.name == "vqa_v2 second"
    train(experiment)
    assert "already trained" in capsys.readouterr().out

    (here / "f.py").write_text(FUSION + "# changed since\n", encoding="utf-8")
    evaluate_run(folder.path, options=ALLOWED)
    note = f"f.py, the source of fusion 'f:Mine', is not what the run was trained with (sha256 {digest[:12]} then"
    assert note in capsys.readouterr().out


def test_a_part_inside_a_part_is_remembered_and_asked_for(world: Path, here: Path) -> None:
    write_module(here, "within", FUSION)
    section = {"name": "attended", "score": {"name": "within:Mine", "width": 4}, "join": "within:Mine"}
    folder = train(check_experiment(values(world, here / "runs", fusion=section), "test"))
    recorded = open_run(folder.path)[2]["parts"]
    assert recorded.keys() == {"fusion.score", "fusion.join"} and recorded["fusion.score"]["module"] == "within"
    with pytest.raises(InputError, match=r"fusion\.score within:Mine, fusion\.join within:Mine; where you trust it"):
        evaluate_run(folder.path)
    assert evaluate_run(folder.path, options=ALLOWED).judgement.scored


def test_a_run_never_imports_code_that_its_record_names(
    world: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = outside_plan(world, here) | {"name": "new"}
    train(check_experiment(plan, "test"))
    for name in ("f", "q", "d"):
        del sys.modules[name]
        (here / f"{name}.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    folder = here / "runs/new/0"
    for use in (evaluate_run, Answerer.load, open_run):
        try:
            use(folder)
        except InputError as error:
            assert "names code from outside vqa" in str(error)
    other = check_experiment(values(world, here / "runs", name="new"), "test")
    with pytest.raises(InputError, match="holds a run of a different experiment"):
        train(other)
    monkeypatch.setenv("VQA_ALLOW_CODE", "1")
    with pytest.raises(InputError, match="importing q failed with RuntimeError: imported"):
        evaluate_run(folder)


def test_a_run_whose_package_is_gone_says_so(world: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        file = install(here / "site", "ours", FUSION, {"vqa.fusions ours_best": "ours.part:Mine"})
        patch.syspath_prepend(here / "site")
        folder = train(check_experiment(values(world, here / "runs", fusion="ours_best"), "test"))
        # installed by the user: no permission is needed
        assert evaluate_run(folder.path, report=False).judgement.scored
    for name in ("ours", "ours.part"):
        del sys.modules[name]
    assert open_run(folder.path)[1].fusion["name"] == "ours_best"
    gone = f"was trained with fusion 'ours_best' (ours 1.2 in {file}): no installed package has 'ours_best' among its"
    with pytest.raises(InputError) as caught:
        evaluate_run(folder.path)
    assert str(caught.value) == f"{folder.path}: {gone} vqa.fusions"


def test_an_image_encoder_from_outside(world: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(here, "pixels", IMAGE_ENCODER)
    encoder = build_image_encoder("pixels:coarse", image_size=32)
    assert (encoder.name, encoder.weights, encoder.regions, encoder.channels) == ("pixels:coarse", "pretrained", 4, 5)
    extract = ["features", "extract", "--data", str(world / "data"), "--format", "vqa_v2", "--split", "train"]
    extract += ["--split", "val", "--encoder", "pixels:coarse", "--image-size", "32", "--out", "own.h5"]
    assert "4 regions of 5 channels" in in_process(*extract)
    stated = FeatureCache(here / "own.h5").attributes
    assert stated["encoder"] == "pixels:coarse" and stated["code"].startswith("pixels:coarse, ")

    section = {"cache": "own.h5", "encoder": "pixels:coarse"}
    folder = train(check_experiment(values(world, here / "runs") | {"features": section}, "test"))
    evaluate_run(folder.path, report=False)  # it needs the features alone
    with pytest.raises(InputError, match="image encoder pixels:coarse; where you trust it"):
        Answerer.load(folder.path)
    image = next((world / "data").rglob("*.jpg"))
    assert Answerer.load(folder.path, allow_code=True).answer(image, "is it red?").best
    check = ["features", "check", "own.h5", "--data", str(world / "data"), "--format", "vqa_v2", "--split", "val"]
    assert "allow it with --allow-code" in in_process(*check)
    assert "give the stored features again" in in_process(*check, "--allow-code")
    with pytest.raises(InputError, match=r"'pixels:nn' must be a class or function that gives a vqa.*ImageEncoder"):
        build_image_encoder("pixels:nn")


def test_a_tuned_image_encoder_from_outside_needs_permission(world: Path, here: Path) -> None:
    write_module(here, "pixels", IMAGE_ENCODER)
    section = {"tune": True, "encoder": "pixels:coarse", "image_size": 32}
    folder = train(check_experiment(values(world, here / "runs") | {"features": section}, "test"))
    with pytest.raises(InputError, match="image encoder pixels:coarse"):
        evaluate_run(folder.path)
    assert evaluate_run(folder.path, options=ALLOWED, report=False).judgement.scored


def test_a_format_from_outside(world: Path, here: Path) -> None:
    write_module(here, "own_format", FORMAT + "\nNOTHING = 3\n")
    assert len(read_dataset("own_format:Renamed", world / "data", "val"))
    with pytest.raises(InputError, match=r"unknown split of own_format:Renamed 'test'.*choose from: first, second"):
        read_dataset("own_format:Renamed", world / "data", "test")
    with pytest.raises(InputError, match=r"'own_format:NOTHING' must be a class with `read\(root, split\)`"):
        read_dataset("own_format:NOTHING", world / "data", "val")
    printed = in_process("data", "check", world / "data", "--format", "own_format:Renamed")
    assert "first" in printed and "second" in printed


def in_process(*words: object) -> str:
    """What `vqa` prints in the current folder, or why it refuses."""
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, InputError | SystemExit), done.exception
    return f"{done.output}{done.exception or ''}"


def vqa_command(*words: object, status: int = 0) -> str:
    """What `python -m vqa` prints in the current folder, in a process of its own."""
    done = run_python("-m", "vqa", *map(str, words))
    assert done.returncode == status and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_line_from_a_scratch_folder(world: Path, here: Path) -> None:
    """Train, Ctrl-C, resume, evaluate and predict with a fusion in a file beside the experiment."""
    write_module(here, "pixels", IMAGE_ENCODER)
    write_module(here, "mine", FUSION)
    in_process(
        "features", "extract", "--data", world / "data", "--format", "vqa_v2", "--split", "train", "--split", "val",
        "--encoder", "pixels:coarse", "--image-size", "32", "--out", "own.h5",
    )  # fmt: skip
    plan = values(world, Path("runs"), training={"epochs": 3, "batch_size": 1}) | {"features": {"cache": "own.h5"}}
    (here / "e.yaml").write_text(yaml.safe_dump(plan | {"fusion": "mine:Mine"}), encoding="utf-8")
    assert "z = tanh(W [v; q])" in in_process("describe", "e.yaml", "fusion.width=3")
    assert "override 'fusion.widht=3'" in in_process("train", "e.yaml", "fusion.widht=3")

    folder = RunFolder(here / "runs/tiny/0")
    process = subprocess.Popen(
        [sys.executable, "-m", "vqa", "train", "e.yaml"], env=os.environ | SUBPROCESS, cwd=here,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not folder.state.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "go on with: vqa train e.yaml --resume" in said
    resumed = vqa_command("train", "e.yaml", "--resume")
    assert "resumed" in resumed and "next: vqa evaluate runs/tiny/0 --allow-code" in resumed
    whole = train(read_experiment(here / "e.yaml", ["runs=whole"]))
    assert_same_run(folder, whole)

    image = next((world / "data").rglob("*.jpg"))
    asked = ("predict", folder.path, image, "what color is it?", "--json", "answer.json")
    for command in (("evaluate", folder.path), asked, ("submit", folder.path, "--split", "val")):
        assert "mine:Mine; where you trust it, allow it with --allow-code" in in_process(*command)
    assert "results" in vqa_command("evaluate", folder.path, "--allow-code")
    in_process(*asked, "--allow-code")
    assert json.loads((here / "answer.json").read_text(encoding="utf-8"))["best"]
    (here / "mine.py").unlink()
    gone = vqa_command("evaluate", folder.path, "--allow-code", status=2)
    assert f"was trained with fusion 'mine:Mine' ({here / 'mine.py'}): " in gone and "no module 'mine'" in gone


def test_an_ablation_of_parts_from_outside(world: Path, here: Path) -> None:
    write_module(here, "mine", FUSION)
    plan = values(world, here / "runs", training={"epochs": 1})
    (here / "e.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    grid = {"name": "grid", "base": "e.yaml", "grid": {"fusion": ["mine:Mine", "product"]}}
    (here / "a.yaml").write_text(yaml.safe_dump(grid), encoding="utf-8")
    in_process("ablate", "a.yaml")
    assert (here / "runs/grid/mineMine/0/evaluation_val.json").is_file()


def test_an_installed_package_from_the_command_line(world: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(here / "site", "ours", FUSION, {"vqa.fusions ours_best": "ours.part:Mine"})
    monkeypatch.setitem(SUBPROCESS, "PYTHONPATH", f"{PROJECT}{os.pathsep}{here / 'site'}")
    plan = values(world, Path("runs"), fusion="ours_best", training={"epochs": 1})
    (here / "e.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    vqa_command("train", "e.yaml")
    assert "results" in vqa_command("evaluate", "runs/tiny/0")
