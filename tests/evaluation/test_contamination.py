"""The contamination guard: what a run was trained on is refused, whatever its file is called, unless allowed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.evaluate import make_run, write_digested_cache
from helpers.training import experiment
from PIL import Image

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.data.formats import read_dataset
from vqa.errors import InputError
from vqa.evaluation.contamination import (
    Contamination,
    TrainingDigests,
    overlap,
    read_seen,
    seen_in,
    unknown_as_json,
)
from vqa.features.cache.reader import FeatureCache
from vqa.runs.evaluate import EvaluationOptions, evaluate_run
from vqa.runs.load import load_run
from vqa.runs.submit import submit_run
from vqa.studies.table.results import summary_table
from vqa.studies.worker import run_and_evaluate
from vqa.training.inputs.splits import read_split


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("seen"))


def world(run: Path) -> Path:
    return run.parents[2]


def parts(run: Path) -> tuple[TrainingDigests, QADataset, list[FeatureCache]]:
    train = read_dataset("vqa_v2", world(run) / "data", "train")
    return read_seen(run / "seen.npz"), train, [FeatureCache(world(run) / "cache.h5")]


def test_every_training_question_counts_though_the_vocabulary_leaves_some_out(run: Path) -> None:
    seen, train, caches = parts(run)
    recorded = load_run(run).recorded["questions"]
    assert recorded["trained_on"] < recorded["train"] == len(train)
    found = overlap(seen, train, caches)
    assert found.questions == tuple(train.question_id_N.tolist())
    assert found.images == train.images.ids
    assert (run / "seen.npz").stat().st_size < 16 * 2 * (len(train) + len(train.images.ids)) + 2000


def test_training_split_is_refused_naming_the_first(run: Path) -> None:
    _, train, _ = parts(run)
    with pytest.raises(InputError) as raised:
        evaluate_run(run, "train")
    count = f"{len(train):,}"
    assert f"{count} of {count} questions" in str(raised.value)
    assert f"questions {train.question_id_N[0]}," in str(raised.value)
    assert "--allow-seen" in str(raised.value)
    assert not (run / "evaluation_train.json").exists()


def test_allowed_evaluation_is_stamped_everywhere(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = run.parent / "allowed"
    shutil.copytree(run, copy)
    judgement = evaluate_run(copy, "train", EvaluationOptions(allow_seen=True)).judgement
    assert judgement.answers.contamination is not None
    stamp = judgement.answers.contamination.stamp
    assert stamp.startswith("SEEN IN TRAINING")
    assert all(stamp in table.title for table in (*judgement.tables(), *judgement.beyond_tables()))
    assert json.loads((copy / "evaluation_train.json").read_text())["seen_in_training"]["stamp"] == stamp
    page = (copy / "report.html").read_text()
    assert f'<p class="lead">{stamp}' in page
    judgement.print(copy)
    assert stamp in " ".join(capsys.readouterr().out.split())
    assert not list(copy.glob("results_train_*[!g].json"))
    results = json.loads((copy / "results_train_open_ended_seen_in_training.json").read_text())
    assert set(results[0]) == {"question_id", "answer"}
    for packed in submit_run(copy, "train", EvaluationOptions(allow_seen=True)):
        assert packed.name.endswith("seen-in-training_results.zip")


def test_validation_is_allowed_and_says_that_it_chose_the_epoch(run: Path) -> None:
    judgement = evaluate_run(run, "val").judgement
    assert judgement.answers.contamination is not None and judgement.answers.contamination.stamp == ""
    summary = json.loads((run / "evaluation_val.json").read_text())
    assert summary["seen_in_training"]["contaminated"] is False
    assert summary["used_to_choose_the_epoch"] is True
    assert "vqa_v2 val2014 was used to choose the epoch." in judgement.tables()[0].caption
    assert "vqa_v2 val2014 was used to choose the epoch." in (run / "report.html").read_text()


def test_test_split_is_untouched(run: Path) -> None:
    seen, _, caches = parts(run)
    test = read_dataset("vqa_v2", world(run) / "data", "test")
    assert overlap(seen, test, caches) == Contamination(
        test.name, of_questions=len(test), of_images=len(test.images.ids)
    )


def asked(dataset: QADataset, words: str) -> QADataset:
    """The same images with other questions."""
    return replace(dataset, question=Strings((words,), np.zeros(len(dataset), np.int32)))


def test_other_questions_about_a_training_image_are_refused(run: Path) -> None:
    seen, train, caches = parts(run)
    found = overlap(seen, asked(train.take(np.arange(1)), "never asked before"), caches)
    assert found.questions == () and found.images == train.images.ids[:1]
    with pytest.raises(InputError, match="1 of 1 images"):
        found.refuse()


def test_the_same_words_about_other_images_are_no_contamination(run: Path) -> None:
    seen, train, caches = parts(run)
    val = read_dataset("vqa_v2", world(run) / "data", "val")
    shared = set(val.question.distinct) & set(train.question.distinct)
    assert shared  # a balanced set asks the same words again
    overlap(seen, val, caches).refuse()


def test_a_copied_image_under_another_name_is_found(run: Path, tmp_path: Path) -> None:
    seen, train, _ = parts(run)
    ids = tuple(f"copy/{name}" for name in train.images.ids)
    copied = replace(asked(train, "never asked before"), images=ImageTable(ids, train.images.paths))
    write_digested_cache(tmp_path / "copies.h5", copied.images)
    found = overlap(seen, copied, [FeatureCache(tmp_path / "copies.h5")])
    assert found.images == () and found.copies == ids
    with pytest.raises(InputError, match="copies of training images"):
        found.refuse()


def test_a_few_copies_are_reported_only() -> None:
    few = Contamination("set test", copies=("9",), of_questions=100, of_images=100)
    assert not few.contaminated and few.as_json()["seen_in_training"]["copied_images"] == 1
    assert replace(few, of_images=99).contaminated


def test_a_model_of_others_has_the_same_keys() -> None:
    known, unknown = Contamination("set test").as_json(), unknown_as_json()
    assert list(known) == list(unknown)
    assert list(known["seen_in_training"]) == list(unknown["seen_in_training"])


def test_sets_that_share_images_by_design_are_judged_by_their_questions(run: Path) -> None:
    seen, train, caches = parts(run)
    shared = replace(asked(train, "never asked before"), format="vqa_cp_v2")
    overlap(seen, shared, caches).refuse()
    with pytest.raises(InputError, match="the run was trained on"):
        overlap(seen, replace(train, format="vqa_cp_v2"), caches).refuse()


def test_holdout_is_not_seen_but_its_own_split_file_is(run: Path) -> None:
    loaded = load_run(run)
    data = loaded.experiment.data.model_copy(update={"holdout": 0.3})
    experiment = loaded.experiment.model_copy(update={"data": data})
    kept, held_out = read_split(experiment, "train"), read_split(experiment, "val")
    seen = seen_in(kept, held_out, [])
    assert not overlap(seen, held_out, []).contaminated
    whole = overlap(seen, read_split(experiment, "train2014"), [])
    assert len(whole.questions) == len(kept) < whole.of_questions
    assert whole.chosen_on == len(held_out)
    assert f"({len(held_out):,} of {whole.of_questions:,} questions)" in whole.choice()


def test_a_run_without_a_record_reads_it_off_unchanged_data(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "seen.npz").unlink()
    with pytest.raises(InputError, match="the run was trained on"):
        evaluate_run(copy, "train")
    text = (copy / "experiment.yaml").read_text()
    digest = next(iter(load_run(copy).recorded["data"].values()))
    (copy / "experiment.yaml").write_text(text.replace(digest, "f" * 64))
    with pytest.raises(InputError, match=r"seen\.npz: no such file"):
        evaluate_run(copy, "val")
    judgement = evaluate_run(copy, "val", EvaluationOptions(allow_seen=True)).judgement
    assert "no record" in judgement.tables()[0].title


@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_a_damaged_record_is_named(run: Path, tmp_path: Path, damage: bytes | None) -> None:
    whole = (run / "seen.npz").read_bytes()
    (tmp_path / "seen.npz").write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(InputError, match=r"seen\.npz: damaged"):
        read_seen(tmp_path / "seen.npz")


def test_an_ablation_over_shared_images_stops_unless_it_is_allowed(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("image,question,answer\na.png,what is it?,chair\n")
    (tmp_path / "val.csv").write_text("image,question,answer\na.png,what else?,chair\n")
    write_digested_cache(tmp_path / "cache.h5", read_dataset("table", tmp_path, "train").images)
    tiny = experiment(
        tmp_path, tmp_path / "runs", data={"format": "table", "root": str(tmp_path)}, training={"epochs": 1}
    )
    with pytest.raises(InputError, match="1 of 1 images"):
        run_and_evaluate(tiny, "val", "vqa ablate")
    found = run_and_evaluate(tiny, "val", "vqa ablate", EvaluationOptions(allow_seen=True))
    table = summary_table("mine", {"cell": [found]})
    assert table.title == "Ablation mine (SEEN IN TRAINING: 0 of 1 questions and 1 of 1 images)"
    assert "table val was used to choose the epoch" in table.caption
    with pytest.raises(InputError, match="1 of 1 images"):  # what was allowed once is not taken for a test later
        run_and_evaluate(tiny, "val", "vqa ablate")
