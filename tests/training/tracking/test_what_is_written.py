"""What trackers really wrote of one run, read back value by value: W&B's offline files, Trackio's and TensorBoard's."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.training import PROJECT, SUBPROCESS, make_world
from helpers.wandb_parts import finished_parts
from PIL import Image

from vqa.training.run_folder import RunFolder, is_step, open_run, read_metrics
from vqa.training.tracking.summary import evaluation_values

SECTION = {"wandb": "offline", "trackio": True, "tensorboard": True, "every": 2, "examples": 8, "artifacts": True}
DOCS = PROJECT / "docs/tracking.md"
OWN = ("_step", "_runtime", "_timestamp", "_wandb")  # what W&B adds of itself


class Written:
    """One run with everything that was written of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.trackio = RunFolder(folder / "runs/tiny/0"), folder / "trackio"
        self.addresses = folder / "runs/addresses"
        self.parts = sorted((self.folder.path / "wandb").glob("offline-run-*/*.wandb"))
        self.records = [record for part in finished_parts(self.folder.path) for record in part]
        self.rows = read_metrics(self.folder.metrics)

    def of_kind(self, kind: str) -> list[Any]:
        return [getattr(record, kind) for record in self.records if record.WhichOneof("record_type") == kind]

    def history(self) -> list[dict[str, Any]]:
        return [unfolded(one.item) for one in self.of_kind("history")]

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in self.of_kind("summary"):
            found |= unfolded(one.update)
        return {name: value for name, value in found.items() if name.partition("/")[0] not in OWN}


def unfolded(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("tracked")
    make_world(folder / "world")
    (folder / "runs").mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "TRACKIO"))}
    own = {
        "HOME": str(folder), "TRACKIO_DIR": str(folder / "trackio"), "HF_TOKEN": "hf_of_nobody",
        "TRACKIO_SPACE_ID": "somebody/somewhere", "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}",
    }  # fmt: skip
    arguments = [str(folder / "world"), str(folder / "runs"), json.dumps({"tracking": SECTION})]
    subprocess.run(
        [sys.executable, str(Path(__file__).parent / "tracked_run.py"), *arguments], env=clean | SUBPROCESS | own,
        check=True, timeout=300,
    )  # fmt: skip
    return Written(folder)


def test_nothing_reaches_for_the_network(written: Written) -> None:
    assert not written.addresses.exists()


def test_each_row_is_in_wandb_once_with_its_values(written: Written) -> None:
    history = [row for row in written.history() if not any(name.startswith("evaluation/") for name in row)]
    own = [{name: value for name, value in row.items() if name not in OWN[1:]} for row in history]
    assert own == [{"_step": row.pop("step"), **row} for row in read_metrics(written.folder.metrics)]
    assert sum(map(is_step, written.rows)) >= 2 and sum("epoch" in row for row in written.rows) == 2


def test_the_config_is_the_experiment_with_sizes_digests_and_code(written: Written) -> None:
    runs = written.of_kind("run")
    assert len(written.parts) == len(runs) == 2  # training and evaluation
    configs = [unfolded(run.config.update) for run in runs]
    tracking = json.loads(written.folder.tracking.read_text())
    for run, config in zip(runs, configs, strict=True):
        assert (run.run_id, run.project, run.job_type) == (tracking["wandb_id"], "vqa", "train")
        assert run.display_name == "tiny/0" and not run.run_group and not list(run.tags)
        config.pop("_wandb", None)
        values = open_run(written.folder.path)[1].resolved() | tracking["facts"]
        assert config == json.loads(json.dumps(values))
    facts = tracking["facts"]
    assert facts["sizes"] == {
        "words": 48, "answers": 26, "train_questions": 326, "val_questions": 90, "regions": 4, "channels": 6,
    }  # fmt: skip
    parts = ("question_encoder", "fusion", "classifier")
    assert facts["parameters"]["total"] == sum(facts["parameters"][part] for part in parts) == 1794
    digest = re.compile("[0-9a-f]{64}")
    assert all(map(digest.fullmatch, [*facts["digests"]["data"].values(), *facts["digests"]["cache"].values()]))


def test_the_summary_is_the_best_epoch_and_the_evaluation(written: Written) -> None:
    defined = {one.glob_name: (one.step_metric, one.summary.none) for one in written.of_kind("metric")}
    defined.pop("", None)  # wandb 0.28 defines one without a name, too
    assert defined == {"val/*": ("epoch", True), "train/*": ("epoch", True)}
    summary = written.summary()
    best = max((row for row in written.rows if "epoch" in row), key=lambda row: row["val/open_ended/overall"])
    for name in (name for name in best if name.startswith(("val/", "train/"))):
        assert summary[name] == best[name], name
    assert summary["best_epoch"] == best["epoch"]
    found = json.loads(written.folder.evaluation("val").read_text())
    wanted = evaluation_values("val", found)
    assert {name: summary[name] for name in wanted} == wanted
    assert summary["evaluation/val/open_ended/overall"] == found["accuracy"]["open_ended"]["overall"]
    floor = found["floors"]["most popular answer or choice"]["open_ended"]["overall"]
    assert summary["evaluation/val/floors/most_popular_answer_or_choice/open_ended"] == floor


def test_tables_and_images(written: Written) -> None:
    files = written.parts[1].parent / "files/media"
    tables = {one.manifest.contents[0].path: one.manifest.contents for one in written.of_kind("artifact")}
    places = {entry.path: entry.local_path for entry in tables["evaluation/val/predictions.table.json"]}
    table = json.loads(Path(places["evaluation/val/predictions.table.json"]).read_text())
    assert table["columns"][:5] == ["image", "question", "question type", "human answers", "accuracy"]
    assert table["columns"][-1] == "hop 1" and len(table["data"]) == 8
    for row in table["data"]:
        image, question, _, humans, accuracy, answer, probability = row[:7]
        assert image["_type"] == row[-1]["_type"] == "image-file" and question.endswith("?") and answer
        with Image.open(places[image["path"]]) as shown, Image.open(places[row[-1]["path"]]) as looked:
            assert shown.size == looked.size == (320, 320)
        assert 0 <= accuracy <= 1 and 0 < probability <= 1 and re.search(r"\(\d+\)", humans)
    (path,) = files.glob("table/evaluation/val/confusions_*.json")
    assert sum(row[-1] for row in json.loads(path.read_text())["data"]) <= 90
    assert len(list(files.glob("images/evaluation/val/confusion_matrices_*.jpg"))) == 1


def test_artifacts_hold_files_and_only_name_the_cache(written: Written) -> None:
    found = {one.type: one for one in written.of_kind("artifact")}
    assert found.keys() == {"features", "model", "evaluation", "run_table"}
    names = {kind: {entry.path for entry in one.manifest.contents} for kind, one in found.items()}
    assert names["model"] >= {"model.safetensors", "vocabulary.json", "experiment.yaml"}
    assert names["evaluation"] >= {"evaluation_val.json", "results_val_open_ended.json", "report.html"}
    (cache,) = found["features"].manifest.contents
    assert cache.ref.startswith("file://") and cache.ref.endswith("cache.h5") and not cache.local_path
    digests = json.loads(found["model"].metadata)["digests"]["cache"]
    assert json.loads(found["features"].metadata)["sha256"] in digests.values()


def test_trackio_has_the_same_rows(written: Written) -> None:
    import sqlite3

    with sqlite3.connect(written.trackio / "vqa.db") as base:
        stored = [(step, json.loads(metrics)) for step, metrics in base.execute("select step, metrics from metrics")]
        (project,) = base.execute("select count(distinct run_name) from metrics")
    rows = {step: row for step, row in stored if not any(name.startswith(("evaluation", "summary")) for name in row)}
    wanted = read_metrics(written.folder.metrics)
    assert rows == {row.pop("step"): row for row in wanted} and project == (1,)
    shown = {name for _, row in stored for name in row if name.startswith("evaluation/")}
    assert {f"evaluation/val/{name}" for name in ("predictions", "confusions", "confusion_matrices")} <= shown
    names = {name for _, row in stored for name in row}
    assert {"summary/best_open_ended", "summary/evaluation/val/open_ended/overall"} <= names


def test_tensorboard_has_the_same_numbers(written: Written) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(written.folder.path / "tensorboard"), size_guidance={"tensors": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    found: dict[int, dict[str, float]] = {}
    for name in tags["tensors"]:
        for one in events.Tensors(name):
            values = [*one.tensor_proto.double_val, *one.tensor_proto.float_val]
            if values:
                found.setdefault(one.step, {})[name] = values[0]
    numbers = [{name: value for name, value in row.items() if not isinstance(value, str)} for row in written.rows]
    assert found == {row.pop("step"): row for row in numbers}
    assert "evaluation/val/confusion_matrices" in tags["images"] and "summary/text_summary" in tags["tensors"]


def listed_keys() -> Iterator[str]:
    """The keys that the page names, in the first column of its tables of keys."""
    page = DOCS.read_text(encoding="utf-8").split("## Every key", 1)[1].split("\n## ", 1)[0]
    for line in page.splitlines():
        if line.startswith("| `"):
            yield from re.findall(r"`([^`]+)`", line.split("|")[1])


def pattern(key: str) -> str:
    return re.sub(r"\\<\w+\\>", "[^<>]+?", re.escape(key).replace("<", "\\<").replace(">", "\\>"))


def test_the_page_lists_every_key_and_no_other(written: Written) -> None:
    logged = {name for row in written.rows for name in row} | written.summary().keys() | {"step"}
    logged = {re.sub(r"^(evaluation/val/(?:predictions|confusions|confusion_matrices))/.*", r"\1", n) for n in logged}
    listed = set(listed_keys())
    unlisted = [name for name in logged if not any(re.fullmatch(pattern(key), name) for key in listed)]
    unlogged = [key for key in listed if not any(re.fullmatch(pattern(key), name) for name in logged)]
    absent = {"evaluation/<split>/seen_in_training", "ablation/<cell>/<figure>", "ablation/table", "ablation/plot"}
    assert unlisted == [] and set(unlogged) == absent
