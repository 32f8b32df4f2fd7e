"""How questions and weights are chosen, from training to submission: splits as one, folds, the last epoch."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.training import (
    StopAfter,
    all_images,
    assert_same_run,
    dies_in_step,
    experiment,
    make_world,
    timeless_metrics,
    write_cache,
)

from vqa.data.dataset import ImageTable, concatenate, ids_digest
from vqa.data.formats import read_dataset
from vqa.errors import InputError, InterruptedRunError
from vqa.evaluation.accuracy import score
from vqa.evaluation.contamination import read_seen
from vqa.evaluation.results import read_results
from vqa.experiment import weights_chosen
from vqa.runs.evaluate import EvaluationOptions, evaluate_run
from vqa.runs.folds import pool_folds
from vqa.runs.submit import submit_run
from vqa.training import train as loop
from vqa.training.inputs.splits import read_split
from vqa.training.run_folder import RunFolder
from vqa.training.train import train

BOTH = {"train": ["train", "val"], "val": None}
LAST = {"keep": "last", "epochs": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def on_all(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on training and validation questions, with one cache a split."""
    for split in ("train", "val", "test"):
        write_cache(world / f"{split}.h5", _of_split(world, split), seed=len(split))
    return train(experiment(world, tmp_path_factory.mktemp("all"), **_on_both(world)))


def _of_split(world: Path, split: str) -> ImageTable:
    return read_dataset("vqa_v2", world / "data", split).images


def _on_both(world: Path) -> dict[str, Any]:
    caches = [str(world / f"{split}.h5") for split in ("train", "val", "test")]
    return {"data": BOTH, "features": {"cache": caches}, "training": LAST}


def _merged(world: Path, folder: Path) -> Path:
    """A data folder whose training files hold the questions of both splits, and its test files unchanged."""
    shutil.copytree(world / "data", folder, ignore=shutil.ignore_patterns("*val2014*", "*.jpg", "*.png"))
    for name in ("v2_OpenEnded_mscoco_%s_questions.json", "v2_MultipleChoice_mscoco_%s_questions.json"):
        both = [json.loads((world / "data" / (name % split)).read_text()) for split in ("train2014", "val2014")]
        both[0]["questions"] += both[1]["questions"]
        (folder / (name % "train2014")).write_text(json.dumps(both[0]))
    name = "v2_mscoco_%s_annotations.json"
    both = [json.loads((world / "data" / (name % split)).read_text()) for split in ("train2014", "val2014")]
    both[0]["annotations"] += both[1]["annotations"]
    (folder / (name % "train2014")).write_text(json.dumps(both[0]))
    return folder


def test_two_splits_give_the_weights_of_one_folder_with_both(on_all: RunFolder, world: Path, tmp_path: Path) -> None:
    data = {"root": str(_merged(world, tmp_path / "data")), "train": "train", "val": None}
    merged = train(experiment(world, tmp_path, **_on_both(world) | {"data": data}))
    assert_same_run(merged, on_all)
    assert merged.vocabulary.read_bytes() == on_all.vocabulary.read_bytes()
    whole, parts = (read_seen(run.seen) for run in (merged, on_all))
    for name in ("question", "image", "content", "chosen_on"):
        assert (getattr(whole, name) == getattr(parts, name)).all()
    assert not len(parts.chosen_on)


def test_a_run_without_validation_says_so_everywhere(on_all: RunFolder, world: Path) -> None:
    rows = timeless_metrics(on_all)
    assert [row["epoch"] for row in rows] == [1, 2] and not any(key.startswith("val/") for row in rows for key in row)
    finished = json.loads(on_all.finished.read_text())
    said = "Weights: last of 2 epochs, trained on all of train+val"
    assert finished["weights"] == said and finished["kept_epoch"] == 2 and "best_epoch" not in finished
    with pytest.raises(InputError, match=r"names no val split \(data.val\); it trains on train\+val"):
        evaluate_run(on_all.path)
    for split in ("val2014", "train"):
        with pytest.raises(InputError, match="the run was trained on"):
            evaluate_run(on_all.path, split)
    evaluation = evaluate_run(on_all.path, "train", EvaluationOptions(allow_seen=True), report=False)
    assert len(evaluation.dataset) == sum(
        len(read_dataset("vqa_v2", world / "data", split)) for split in ("train", "val")
    )
    written = json.loads(on_all.evaluation("train").read_text())
    assert written["weights"] == said and said in written["model_choice"]
    assert written["used_to_choose_the_epoch"] is False
    assert f"{said}." in evaluation.report().summary
    assert all(f"{said}." in table.caption for table in evaluation.judgement.tables())


def test_its_answers_to_the_test_split_are_packed(on_all: RunFolder) -> None:
    packed = submit_run(on_all.path, "test")
    assert [path.suffix for path in packed] == [".zip", ".zip"]


@pytest.mark.parametrize("validated", [True, False])
def test_the_last_epoch_is_kept_and_a_stop_anywhere_changes_nothing(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validated: bool
) -> None:
    changes: dict[str, Any] = {"training": {"keep": "last", "epochs": 3}, "data": {} if validated else {"val": None}}
    whole = train(experiment(world, tmp_path / "whole", **changes))
    plan = experiment(world, tmp_path / "stopped", **changes)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_signals", lambda: nullcontext(StopAfter(6)))
        with pytest.raises(InterruptedRunError):
            train(plan)
    assert not RunFolder(plan.folder).model.exists()
    with pytest.raises(InputError, match="no trained weights yet"):
        evaluate_run(plan.folder)
    with monkeypatch.context() as patch:
        dies_in_step(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(plan, resume=True)
    assert_same_run(train(plan, resume=True), whole)
    if validated:  # the same steps as choosing the best, other weights unless the last is the best
        best = train(experiment(world, tmp_path / "best", training={"epochs": 3}))
        assert timeless_metrics(best) == timeless_metrics(whole)
        assert json.loads(whole.finished.read_text())["kept_epoch"] == 3
        evaluated = evaluate_run(whole.path, report=False).judgement.own.open_ended
        assert evaluated is not None
        assert evaluated.overall == timeless_metrics(whole)[-1]["val/open_ended/overall"]


def test_a_run_stopped_between_its_last_epoch_and_its_end_gets_its_weights(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"training": LAST, "data": {"val": None}}
    plan = experiment(world, tmp_path / "stopped", **changes)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "finish", die)
        with pytest.raises(KeyboardInterrupt):
            train(plan)
    whole = train(experiment(world, tmp_path / "whole", **changes))
    assert_same_run(train(plan, resume=True), whole)


@pytest.fixture(scope="module")
def folds(world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    runs = tmp_path_factory.mktemp("folds")
    made = []
    for fold in range(3):
        data = {"holdout": {"folds": 3, "fold": fold}}
        run = train(experiment(world, runs, name=f"fold{fold}", data=data, training={"epochs": 1}))
        evaluate_run(run.path, report=False)
        made.append(run)
    return made


def test_folds_pool_to_one_figure_over_every_training_question(folds: list[RunFolder], world: Path) -> None:
    pooled = pool_folds([run.path for run in folds[::-1]])
    whole = read_dataset("vqa_v2", world / "data", "train")
    found: dict[int, str] = {}
    for run in folds:
        rows = json.loads(run.results("val", "open-ended").read_text())
        assert not found.keys() & {row["question_id"] for row in rows}
        found |= {row["question_id"]: row["answer"] for row in rows}
    merged = folds[0].path / "all.json"
    merged.write_text(json.dumps([{"question_id": int(q), "answer": found[int(q)]} for q in whole.question_id_N]))
    assert pooled.score.overall == score(whole, read_results(merged, whole, "open-ended")).overall
    assert pooled.low is not None and pooled.high is not None
    assert pooled.low <= pooled.score.overall <= pooled.high
    mean = np.average(pooled.per_fold, weights=np.bincount(pooled.fold_N))
    assert abs(mean - pooled.score.overall) < 0.02  # both are rounded
    assert "one of 3 folds of the images of split train" in pooled.weights
    assert pooled.as_json()["questions"] == len(whole)
    with pytest.raises(InputError, match=r"3 folds need one run each; these are of \[0, 0, 1\]"):
        pool_folds([folds[0].path, folds[0].path, folds[1].path])


def test_runs_that_are_no_folds_of_one_experiment_are_not_pooled(folds: list[RunFolder], on_all: RunFolder) -> None:
    with pytest.raises(InputError, match="not a run of a fold"):
        pool_folds([on_all.path])


def test_what_was_seen_is_left_out_and_counted(world: Path, tmp_path: Path) -> None:
    """A table whose test split repeats some training questions and images."""
    train_rows = [f"i{n}.png,what is {n}?,a{n % 3}" for n in range(30)]
    test_rows = [f"i{n}.png,what is {n}?,a{n % 3}" for n in range(25, 45)]
    for split, rows in (("train", train_rows), ("test", test_rows)):
        (tmp_path / f"{split}.csv").write_text("\n".join(["image,question,answer", *rows]))
    both = concatenate([read_dataset("table", tmp_path, split) for split in ("train", "test")], renumber=True)
    write_cache(tmp_path / "cache.h5", both.images)
    run = train(
        experiment(
            world, tmp_path / "runs", features={"cache": str(tmp_path / "cache.h5")}, training=LAST,
            data={"format": "table", "root": str(tmp_path), "val": None},
        )
    )  # fmt: skip
    with pytest.raises(InputError, match="add --exclude-seen, which leaves them out, or --allow-seen"):
        evaluate_run(run.path, "test")
    with pytest.raises(InputError, match="take one"):
        evaluate_run(run.path, "test", EvaluationOptions(exclude_seen=True, allow_seen=True))
    evaluation = evaluate_run(run.path, "test", EvaluationOptions(exclude_seen=True), report=False)
    said = "5 of 20 questions were left out as seen in training (--exclude-seen)."
    assert len(evaluation.dataset) == 15
    assert all(said in table.caption for table in evaluation.judgement.tables())
    written = json.loads(run.evaluation("test").read_text())
    assert written["questions"] == 15 and written["seen_in_training"]["left_out"] == 5
    assert not written["seen_in_training"]["contaminated"] and "left out" in written["model_choice"]
    results = run.results("test", "open-ended")
    assert results.with_stem(f"{results.stem}_unseen").is_file() and not results.exists()
    assert said in evaluation.report().summary
    with pytest.raises(InputError, match="nothing is left to evaluate on"):
        evaluate_run(run.path, "train", EvaluationOptions(exclude_seen=True))


def test_identical_files_are_held_out_together_and_older_runs_keep_their_sides(world: Path, tmp_path: Path) -> None:
    images = all_images(world / "data")
    cache = tmp_path / "copies.h5"
    write_cache(cache, images, digests=[f"{row // 4 + 1:016x}" + "0" * 48 for row in range(len(images.ids))])
    plain = experiment(world, tmp_path, data={"holdout": 0.3})
    copies = experiment(world, tmp_path, data={"holdout": 0.3}, features={"cache": str(cache)}, name="copies")
    old, new = read_split(plain, "val"), read_split(copies, "val")
    assert set(old.images.ids) != set(new.images.ids)
    kind = {name: row // 4 for row, name in enumerate(images.ids)}
    assert not {kind[name] for name in new.images.ids} & {kind[name] for name in read_split(copies, "train").images.ids}
    facts = {"questions": {"val_ids_sha256": ids_digest(old)}}
    assert set(read_split(copies, "val", facts).images.ids) == set(old.images.ids)
    assert set(read_split(copies, "val", {}).images.ids) == set(old.images.ids)
    with pytest.raises(InputError, match="are not those that the run began with"):
        read_split(copies, "val", {"questions": {"val_ids_sha256": "0" * 64}})


def test_the_words_of_every_protocol(world: Path, tmp_path: Path) -> None:
    def said(**changes: Any) -> str:
        return weights_chosen(experiment(world, tmp_path, **changes))

    assert said() == "Weights: best epoch on split val, trained on train"
    assert said(data={"holdout": 0.2}) == (
        "Weights: best epoch on 20% of the images of split train, held out (seed 0), trained on the rest"
    )
    assert "held out by groups (^(.*)_) (seed 0)" in said(data={"holdout": {"share": 0.2, "by": "^(.*)_"}})
    assert "fold 1 of 5 folds of the images of split train, held out by runs of consecutive images" in said(
        data={"holdout": {"folds": 5, "fold": 1, "by": "consecutive"}}
    )
    assert said(data=BOTH, training=LAST) == "Weights: last of 2 epochs, trained on all of train+val"
    assert said(training=LAST) == "Weights: last of 2 epochs, trained on all of train; split val chose nothing"
