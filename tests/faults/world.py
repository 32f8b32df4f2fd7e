"""The small world that every case gets a copy of: a data set, a feature cache, a run, files for each command.

All paths in it are relative, so that a copy is a world of its own.
"""

import json
import shutil
import zipfile
from pathlib import Path

import yaml
from helpers.training import TRAINING, interrupted_after
from helpers.wordnet import write_wordnet

from faults.run import command, run

SPLITS = ("train", "val", "test")
RUN = "runs/tiny/0"
HALF = "runs/half/0"  # stopped in its second epoch
QUESTIONS = "data/v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "data/v2_mscoco_val2014_annotations.json"
TEST_QUESTIONS = "data/v2_OpenEnded_mscoco_test2015_questions.json"
TRAIN_QUESTIONS = "data/v2_OpenEnded_mscoco_train2014_questions.json"
TRAIN_ANNOTATIONS = "data/v2_mscoco_train2014_annotations.json"
ENCODER = ("--encoder", "squeezenet1_1", "--weights", "random", "--image-size", "64", "--layer", "features.4")
EXTRACT = ("features", "extract", "--data", "data", "--format", "vqa_v2", "--split", "val", *ENCODER, "--workers", "1")
SCORE = ("score", "results.json", "--questions", QUESTIONS, "--annotations", ANNOTATIONS)
EXPERIMENT = {
    "name": "tiny",
    "runs": "runs",
    "data": {"format": "vqa_v2", "root": "data"},
    "features": {"cache": "cache.h5"},
    "question_encoder": {"name": "lstm", "embedding_dim": 8, "hidden_dim": 8, "layers": 1, "sentence_dim": 12},
    "fusion": {"name": "stacked_attention", "hops": 1, "attention_dim": 8},
    "classifier": {"dropout": 0.3},
    "training": TRAINING,
}
ABLATION = {
    "name": "grid",
    "base": "e.yaml",
    "set": ["training.epochs=1"],
    "grid": {"training.batch_size": [64, 128]},
    "seeds": [0],
}
BENCH = {"title": "Fusions", "note": "", "machine": "m", "date": "d", "figures": {}, "ratios": {"a": {"value": 1.0}}}
IMAGE = "data/images/val2014/COCO_val2014_000000000043.jpg"


def make_world(folder: Path) -> Path:
    """Make the world in an empty folder; returns the folder."""
    every = [part for split in SPLITS for part in ("--split", split)]
    half = {**EXPERIMENT, "name": "half"}
    for name, value in {"e.yaml": EXPERIMENT, "a.yaml": ABLATION, "half.yaml": half}.items():
        (folder / name).write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
    for arguments in (
        ["data", "generate", "data", "--scenes", "60", "--size", "64"],
        [*EXTRACT[:6], *every, *ENCODER, "--workers", "1", "--no-compile", "--out", "cache.h5"],
        ["train", "e.yaml"],
        ["evaluate", RUN],
    ):
        ended = run(command(arguments), folder, 120)
        assert ended.status == 0, (arguments, ended.err.decode())
    assert run(_stopped, folder, 120).status == 130
    shutil.copy(folder / RUN / "results_val_open_ended.json", folder / "results.json")
    (folder / "bench.json").write_text(json.dumps(BENCH))
    answers = [
        {"question_id": one["question_id"], "answer": "yes"}
        for one in json.loads((folder / TEST_QUESTIONS).read_text())["questions"]
    ]
    (folder / "test.json").write_text(json.dumps(answers))
    with zipfile.ZipFile(folder / "test.zip", "w") as archive:
        archive.write(folder / "test.json", "vqa_OpenEnded_mscoco_test2015_mine_results.json")
    write_wordnet(folder / "wordnet")
    _write_table(folder / "table")
    shutil.rmtree(folder / "xdg", ignore_errors=True)
    return folder


def _stopped() -> None:
    """Train, with Ctrl-C after the seventh step."""
    with interrupted_after(7):
        command(["train", "half.yaml"])()


def _write_table(folder: Path) -> None:
    """A small data set of one's own, as the format `table` reads it."""
    from PIL import Image

    folder.mkdir()
    for place in range(8):
        Image.new("RGB", (40, 40), (30 * place, 90, 200 - 20 * place)).save(folder / f"{place}.png")
    for split, places in (("train", range(6)), ("val", range(6, 8))):
        lines = [f"{place}.png,what is {place}?,{'cat' if place % 2 else 'dog'}" for place in places]
        (folder / f"{split}.csv").write_text("image,question,answer\n" + "\n".join(lines) + "\n")


def first_image(folder: Path) -> Path:
    """An image of the val split."""
    return folder / IMAGE
