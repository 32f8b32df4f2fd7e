"""The README's main jobs run in small: own data and the demo; its fusion keeps the contract, its keys are all."""

import importlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.recipes import EXPERIMENT_FILES
from helpers.training import PROJECT
from PIL import Image
from pydantic import BaseModel

import vqa.cli
from vqa.data.synthetic import generate_dataset
from vqa.demo import MODELS, run_demo
from vqa.experiment import Experiment, HoldoutSection, read_experiment
from vqa.models import FUSIONS, LANGUAGE_FUSIONS, LOSSES, check_part
from vqa.models.explain import explain
from vqa.runs.evaluate import evaluate_run
from vqa.studies.grid import AblationFile
from vqa.testing import check_fusion
from vqa.training.train import train

README = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_the_test_split_of_a_recipe_is_the_whole_test_split() -> None:
    recipes = [read_experiment(path) for path in EXPERIMENT_FILES]
    assert {recipe.data.test for recipe in recipes} == {"test"}  # else `vqa submit --split test` packs test-dev alone


def test_the_make_targets_and_links_exist() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}:" in makefile for target in re.findall(r"^make (\w+)", README, re.MULTILINE))
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert links and all((PROJECT / link).exists() for link in links)


def test_the_readmes_fusion_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = re.search(r"```python\n(\"\"\"`mine`.*?)```", README, re.DOTALL)
    assert written is not None
    (tmp_path / "readme_mine.py").write_text(written[1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("readme_mine").Mine
    check_fusion(mine, fusion_dim=16)
    assert check_part("fusion", {"name": "readme_mine:Mine"}) == (mine, {"fusion_dim": 512})
    assert len(explain(mine).equations) == 1


def test_the_readme_says_once_which_fusions_can_look() -> None:
    assert README.count("**Fusions**") == 1
    listed = re.search(
        r"\*\*Fusions\*\*.*?so that they can look:(.*?)Those that read the mean(.*?)\n\n", README, re.DOTALL
    )
    assert listed is not None
    for text, looks in zip(listed.groups(), (True, False), strict=True):
        named = set(re.findall(r"`(\w+)`", text))
        every = {**FUSIONS, **LANGUAGE_FUSIONS}
        assert named == {name for name, fusion in every.items() if (fusion.reads == "map") == looks}


def keys_of(section: type[BaseModel], above: str = "") -> Iterator[tuple[str, object]]:
    """Every key of a section and of those in it, with its default: `optimizer.name` of the training section."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_of(field.annotation, f"{above}{name}.")
        else:
            yield above + (field.alias or name), field.default


def test_the_page_of_keys_has_every_key_and_its_default() -> None:
    page = (PROJECT / "docs/experiment.md").read_text(encoding="utf-8")
    tables = {
        key: default.replace("`", "").strip()
        for keys, default in re.findall(r"^\| (`[^|]+`) \|([^|]*)\|", page, re.MULTILINE)
        for key in re.findall(r"`([^`]+)`", keys)
    }
    assert set(re.findall(r"`(\w*(?:cross_entropy|kl))`", page)) <= LOSSES.keys()
    holdout = {f"data.holdout.{key}": default for key, default in keys_of(HoldoutSection)}
    expected = {**dict(keys_of(Experiment)), **holdout, **dict(keys_of(AblationFile))}
    sections = ("data", "features", "training", "tracking")
    bare = {re.sub(rf"^({'|'.join(sections)})\.", "", key): default for key, default in expected.items()}
    parts = {"question_encoder", "fusion", "classifier", "loss"}
    assert tables.keys() == bare.keys() - parts
    for key in ("seed", "holdout_seed", "words.min_count", "optimizer.name", "schedule.name", "shuffle", "wandb"):
        assert tables[key] == str(bare[key])


def test_own_data_in_the_readmes_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = re.search(r"```csv\n(.*?)```", README, re.DOTALL)
    assert table is not None
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "bus"):
        (tmp_path / "mine/photos").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), name if name == "red" else "teal").save(tmp_path / f"mine/photos/{name}.jpg")
    for split in ("train", "val"):
        (tmp_path / f"mine/{split}.csv").write_text(table[1], encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["vqa", "test"])
    for line in (
        "data check mine --format table --images",
        "features extract --data mine --format table --split train --split val --encoder squeezenet1_1 "
        "--image-size 64 --weights random --out mine.h5",
        f"train {PROJECT}/experiments/san.yaml name=mine data.format=table data.root=mine features.cache=mine.h5 "
        "features.encoder=squeezenet1_1 features.layer=null features.image_size=64 tracking.wandb=disabled "
        "training.epochs=1 runs=runs",
    ):
        monkeypatch.setattr("sys.argv", ["vqa", *shlex.split(line)])
        try:
            vqa.cli.main()
        except SystemExit as end:
            # the two splits of this example are the same file, which the check reports as shared images
            assert end.code in (0, None, 1) if line.startswith("data check") else end.code in (0, None)
    assert (tmp_path / "runs/mine/0/model.safetensors").is_file()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The demo with 60 images and short trainings: its folder and what it returned."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(PROJECT / "experiments/demo", folder / "experiments/demo")
    for path in (folder / "experiments/demo").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"epochs: \d+", "epochs: 2", text), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TORCH_HOME", str(folder / "no_weights"))
        summary = run_demo(scenes=60)
        again = run_demo(scenes=60)
    assert {name: again[name] for name in MODELS} == {name: summary[name] for name in MODELS}
    return folder / "experiments/runs/demo", summary


def test_the_demo_leaves_summary_report_and_runs(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = demo
    written = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert {name: written[name] for name in MODELS} == {name: summary[name] for name in MODELS}
    for name in MODELS:
        assert set(written[name]) == {"open_ended", "multiple_choice"}
        numbers = json.loads((folder / name / "0/evaluation_val.json").read_text(encoding="utf-8"))
        assert numbers["accuracy"]["open_ended"]["overall"] == written[name]["open_ended"]
    assert written["seconds"] > 0 and 90 <= written["ceiling"] <= 100
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in MODELS) and "data:image/" in page


def test_a_demo_over_other_images_is_refused(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = demo
    before = (folder / "data/summary.json").read_bytes()
    with pytest.raises(vqa.errors.InputError, match="data"):
        generate_dataset(folder / "data", 61, 0, "real", 112)
    assert (folder / "data/summary.json").read_bytes() == before
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parents[2])
        assert evaluate_run(folder / "product/0", report=False).summary()["protocol"] == "2021"
        assert train(read_experiment(folder.parents[1] / "demo/product.yaml")).path.name == "0"


def test_a_demo_elsewhere_has_a_cache_of_its_own(
    demo: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(demo[0] / "data", tmp_path / "elsewhere/data")
    (tmp_path / "elsewhere/features.h5").mkdir()  # so that it ends where it would write it
    monkeypatch.chdir(demo[0].parents[2])
    with pytest.raises(vqa.errors.InputError, match=re.escape(f"{tmp_path / 'elsewhere/features.h5'}: is a folder")):
        run_demo(tmp_path / "elsewhere", scenes=60)
