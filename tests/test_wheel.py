"""The wheel is the product: built from the sdist, installed into an environment of its own, used in an empty folder.

Nothing is fetched: the environment sees this one's libraries, but not its vqa.
"""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.recipes import ABLATIONS, EXPERIMENTS
from helpers.training import PROJECT

import vqa

# what a checkout may hold besides the project's own files, by folder
LEFT_OUT = {
    PROJECT: (".git", ".venv", "data", "build", "dist", "site", "wandb", "*.egg-info"),
    PROJECT / "experiments": ("runs",),
    PROJECT / "features_cache": ("*.h5*",),
}
Vqa = Callable[..., str]


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Run a command that must end well; returns what it printed."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=600, env=kept | environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def left_out(folder: str, names: list[str]) -> set[str]:
    """For copytree: which of a folder's names are not the project's own."""
    patterns = ("__pycache__", ".*_cache", *LEFT_OUT.get(Path(folder), ()))
    return {name for pattern in patterns for name in fnmatch.filter(names, pattern)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of a copy of the project in which a user has an experiment and a run, and the wheel made of it."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    shutil.copytree(PROJECT, source, ignore=left_out)
    shutil.copy(source / "experiments/san.yaml", source / "experiments/mine.yaml")
    (source / "experiments/runs/mine").mkdir(parents=True)
    (source / "experiments/runs/mine/experiment.yaml").touch()
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ".", cwd=source)
    sdist, wheel = folder / f"vqa-{vqa.__version__}.tar.gz", folder / f"vqa-{vqa.__version__}-py3-none-any.whl"
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment's `bin`, with the wheel and a path to this environment's libraries."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    run(*pip, built[1], cwd=folder)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    # after the environment's own packages; .pth files there, as an editable vqa has, are not read
    libraries = [path for path in sys.path if path.endswith("-packages")]
    (Path(packages) / "libraries.pth").write_text("\n".join(libraries) + "\n", encoding="utf-8")
    return python.parent


@pytest.fixture
def vqa_here(installed: Path, tmp_path: Path) -> Vqa:
    """The installed command, run in an empty folder."""
    threads = {"OMP_NUM_THREADS": "1", "TORCH_HOME": str(tmp_path / "no_weights"), "COLUMNS": "200"}
    (tmp_path / "here").mkdir()
    return lambda *words: run(installed / "vqa", *words, cwd=tmp_path / "here", **threads)


def test_the_sdist_holds_all_that_a_checkout_does(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    linked = {link for link in re.findall(r"\]\(([^)#]+)", readme) if "://" not in link}
    folders = ("docs", "tests", "vqa", "examples", ".github")
    own = {path.relative_to(PROJECT).as_posix() for folder in folders for path in (PROJECT / folder).rglob("*.*")}
    wanted = {name for name in own if not re.search(r"__pycache__|\.pyc$|/\.", name) and (PROJECT / name).is_file()}
    wanted |= {f"experiments/{name}.yaml" for name in (*EXPERIMENTS, *(f"ablations/{one}" for one in ABLATIONS))}
    wanted |= {
        "experiments/vqa.schema.json",
        "LICENSE",
        "requirements.txt",
        "pyproject.toml",
        "setup.py",
        "Makefile",
        ".ci/run",
        "CITATION.cff",
    }
    assert wanted | linked <= held
    assert not [name for name in held if "runs/" in name and name.startswith("experiments/")]


def test_the_wheel_holds_the_package_and_the_recipes(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    package = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "vqa").rglob("*") if path.is_file()}
    recipes = {f"experiments/{name}.yaml" for name in (*EXPERIMENTS, *(f"ablations/{one}" for one in ABLATIONS))}
    recipes.add("experiments/vqa.schema.json")  # which their first lines name
    assert {name for name in held if not name.startswith("vqa/experiments/")} == {
        name for name in package if "__pycache__" not in name
    }
    extra = {name for name in held if name.startswith("vqa/experiments/")} - {f"vqa/{name}" for name in recipes}
    assert "vqa/experiments/mine.yaml" in extra and not [name for name in extra if "runs" in name]
    assert recipes <= {name.removeprefix("vqa/") for name in held} and licences


def test_recipes_are_listed_copied_and_described(installed: Path, vqa_here: Vqa, tmp_path: Path) -> None:
    found = run(installed / "python", "-c", "import vqa; print(vqa.__file__)", cwd=tmp_path)
    assert found.startswith(str(installed.parent))
    assert vqa_here("--version") == f"vqa {vqa.__version__}\n"
    listed = vqa_here("recipes", "--json", "recipes.json")
    rows = json.loads((tmp_path / "here/recipes.json").read_text(encoding="utf-8"))
    assert {row["name"] for row in rows} >= {*EXPERIMENTS, "mine"} and "published: " in listed
    assert all(row["file"].startswith(str(installed.parent)) for row in rows)
    assert vqa_here("recipes", "copy", "san").endswith("\nnext: vqa train san.yaml\n")
    by_name = vqa_here("describe", "vqa2015_lstm", "--json", "by_name.json")
    assert "13,631,224" in by_name and (tmp_path / "here/by_name.json").is_file()
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["by_name.json", "recipes.json", "san.yaml"]


def test_a_recipe_is_trained_in_an_empty_folder(vqa_here: Vqa, tmp_path: Path) -> None:
    vqa_here("data", "generate", "synthetic", "--scenes", 60, "--size", 64)
    vqa_here(
        "features", "extract", "--data", "synthetic", "--format", "vqa_v2", "--split", "train", "--split", "val",
        "--encoder", "squeezenet1_1", "--image-size", 64, "--weights", "random", "--out", "features_cache/synthetic.h5",
    )  # fmt: skip
    features = "features={cache: features_cache/synthetic.h5}"
    shown = vqa_here(
        "train", "stacked_attention", "data.root=synthetic", features, "training.epochs=1", "fusion.hops=1"
    )
    assert "next: vqa evaluate experiments/runs/stacked_attention/0" in shown
    assert (tmp_path / "here/experiments/runs/stacked_attention/0/model.safetensors").is_file()


@pytest.mark.slow
def test_the_demo_runs_in_an_empty_folder_and_its_next_commands_work(vqa_here: Vqa, tmp_path: Path) -> None:
    shown = vqa_here("demo", "--scenes", 60)
    assert (tmp_path / "here/experiments/runs/demo/report.html").is_file()
    assert list((tmp_path / "here/features_cache").glob("*.h5"))
    next_commands = re.findall(r"^  vqa (ablate|train) (.*)$", shown, re.MULTILINE)
    assert len(next_commands) == 2
    for command, words in next_commands:
        vqa_here(command, *words.split(), "training.epochs=1")
