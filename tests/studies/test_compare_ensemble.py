"""`vqa compare` and `vqa ensemble` on small runs: what they read, what they refuse, what they write."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.evaluate import make_run
from helpers.training import experiment

from vqa.cli import app
from vqa.data.formats import read_dataset
from vqa.data.formats.table import PLAIN
from vqa.errors import InputError
from vqa.evaluation.accuracy import score
from vqa.evaluation.results import read_results
from vqa.evaluation.statistics.differences import Sampling, difference
from vqa.runs.asking import ask_run
from vqa.runs.evaluate import EvaluationOptions, evaluate_run
from vqa.runs.load import load_run
from vqa.studies.comparison.compare import CompareOptions, Comparison, compare, compare_runs, run_compare
from vqa.studies.comparison.ensemble import ORACLE, EnsembleOptions, ensemble
from vqa.training.predict import logits_in_order
from vqa.training.train import train

FAST = CompareOptions(sampling=Sampling(resamples=200), examples=2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of `tiny` with eight answers, two of `other` with more, all evaluated on val."""
    world = tmp_path_factory.mktemp("world")
    make_run(world)
    changed = {"training": {"epochs": 2}, "answers": {"size": 30}, "fusion": {"name": "concat"}}
    train(experiment(world, world / "runs", seed=1, training={"epochs": 1}, answers={"size": 8}))
    for seed in (0, 1):
        train(experiment(world, world / "runs", name="other", seed=seed, **changed))
    for path in (world / "runs").glob("*/*/"):
        evaluate_run(path, "val", report=False)
    return world / "runs"


def test_the_numbers_are_those_of_the_scores(runs: Path, tmp_path: Path) -> None:
    found = run_compare(
        [runs / "tiny", runs / "other"], FAST, out=tmp_path / "page.html", json_file=tmp_path / "n.json"
    )
    dataset = found.dataset
    accuracies = {}
    for name in ("tiny", "other"):
        files = [runs / name / str(seed) / "results_val_open_ended.json" for seed in (0, 1)]
        accuracies[name] = np.stack([score(dataset, read_results(file, dataset)).accuracy_N for file in files])
    expected = difference(accuracies["tiny"], accuracies["other"], dataset.image_row_N, FAST.sampling)
    assert found.statistics["other"].against == expected and expected.over_seeds
    written = json.loads((tmp_path / "n.json").read_text())
    assert written["systems"][1]["difference"]["points"] == expected.points
    assert written["systems"][0]["runs"] == (100 * accuracies["tiny"].mean(axis=1)).tolist()
    counts = written["by_type"]["other"]["all questions"]
    right = {name: one.mean(axis=0) >= 0.5 for name, one in accuracies.items()}
    assert counts["fixed"] == int((right["other"] & ~right["tiny"]).sum())
    assert counts["broken"] == int((right["tiny"] & ~right["other"]).sum())
    by_answer_type = [written["by_type"]["other"][name] for name in ("yes/no", "number", "other")]
    assert sum(one["flipped"] for one in by_answer_type) == counts["flipped"] > 0


def test_the_page_shows_images_and_attention_and_fetches_nothing(runs: Path, tmp_path: Path) -> None:
    found = run_compare([runs / "other", runs / "tiny"], FAST, out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count('<article class="card example">') >= 4 and "Attention of tiny over the image" in page
    assert "http://" not in page and "https://" not in page and "<script" not in page
    assert any("was used to choose the epoch" in note for system in found.systems for note in system.notes)


def test_results_files_and_runs_say_the_same(runs: Path, tmp_path: Path) -> None:
    files = [
        shutil.copy(runs / name / "0/results_val_open_ended.json", tmp_path / f"{name}.json")
        for name in ("tiny", "other")
    ]
    data = runs.parent / "data"
    official = (
        data / "v2_OpenEnded_mscoco_val2014_questions.json", data / "v2_mscoco_val2014_annotations.json",
    )  # fmt: skip
    of_runs = compare([runs / "tiny/0", runs / "other/0"], FAST)
    of_files = compare([Path(file) for file in files], FAST, official=official)
    of_both = compare([Path(files[0]), runs / "other/0"], FAST, data=("vqa_v2", data, PLAIN))

    def numbers(found: Comparison) -> object:
        return [one.against for one in found.statistics.values()], [dict(pair.by_type) for pair in found.pairs]

    assert numbers(of_runs) == numbers(of_files) == numbers(of_both)
    assert [system.name for system in of_files.systems] == ["tiny", "other"]


def test_old_answers_are_asked_for_again(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "tiny/0"
    shutil.copytree(runs / "tiny/0", copy)
    shutil.copy(runs / "tiny/1/results_val_open_ended.json", copy / "results_val_open_ended.json")
    evaluation = json.loads((copy / "evaluation_val.json").read_text())
    (copy / "evaluation_val.json").write_text(json.dumps(evaluation | {"weights_sha256": "0" * 64}))
    expected = compare([runs / "other/0", runs / "tiny/0"], FAST)
    found = compare([runs / "other/0", copy], FAST)
    assert "answers vqa_v2 val2014 now" in capsys.readouterr().out
    assert np.array_equal(found.systems[1].accuracy_SN, expected.systems[1].accuracy_SN)


def test_what_cannot_be_compared_is_refused(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = runs / "tiny/0/results_val_open_ended.json"
    for paths, said in (
        ([runs / "tiny"], "two or more"),
        ([runs / "tiny", runs / "tiny/0"], "named twice"),
        ([runs / "tiny", tmp_path / "empty"], "no run folder"),
        ([result, runs / "other/0/results_val_open_ended.json"], "needs the questions it answers"),
    ):
        with pytest.raises(InputError, match=said):
            compare(paths, FAST)
    with pytest.raises(InputError, match="was trained on"):
        compare([runs / "tiny", runs / "other"], CompareOptions(split="train"))


DAMAGES: dict[str, Callable[[str], str]] = {
    "cut off": lambda text: text[: len(text) // 2],
    "a key of another name": lambda text: text.replace("question_id", "question", 1),
    "an answer too few": lambda text: json.dumps(json.loads(text)[1:]),
    "an answer twice": lambda text: json.dumps([*json.loads(text), *json.loads(text)[:1]]),
    "empty": lambda _: "",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_answers_are_named(runs: Path, tmp_path: Path, damage: str) -> None:
    good = runs / "tiny/0/results_val_open_ended.json"
    wrong = tmp_path / "wrong.json"
    wrong.write_text(DAMAGES[damage](good.read_text()))
    with pytest.raises(InputError, match=re.escape(str(wrong))):
        compare([good, wrong], FAST, data=("vqa_v2", runs.parent / "data", PLAIN))
    shutil.copytree(runs / "tiny/0", tmp_path / "run")
    (tmp_path / "run" / good.name).write_text(wrong.read_text())
    with pytest.raises(InputError, match=f"run/{good.name}"):
        compare([tmp_path / "run", runs / "other/0"], FAST)


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json", "experiment.yaml", "seen.npz"])
def test_a_damaged_member_of_an_ensemble_is_named(runs: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(runs / "tiny/0", tmp_path / "run")
    wrong = tmp_path / "run" / name
    wrong.write_bytes(wrong.read_bytes()[: wrong.stat().st_size // 2])
    with pytest.raises(InputError, match=f"run/{name}"):
        ensemble([tmp_path / "run", runs / "other/0"], EnsembleOptions(split="val"))
    wrong.unlink()
    if name == "seen.npz":  # it is made again of the data, which have not changed
        assert ensemble([tmp_path / "run", runs / "other/0"], EnsembleOptions(split="val")).members
        return
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "run"))):
        ensemble([tmp_path / "run", runs / "other/0"], EnsembleOptions(split="val"))


@pytest.fixture(scope="module")
def folds(runs: Path) -> list[Path]:
    """Two models on each of two folds of the training questions."""
    made = []
    for name in ("concat", "sum"):
        for fold in (0, 1):
            plan = experiment(
                runs.parent, runs.parent / "folds", name=f"{name}{fold}", training={"epochs": 1},
                data={"holdout": {"folds": 2, "fold": fold}}, fusion={"name": name, "fusion_dim": 8},
            )  # fmt: skip
            made.append(train(plan).path)
            evaluate_run(made[-1], "val", report=False)
    return made


def test_runs_of_one_fold_are_compared_and_averaged_on_what_it_holds_out(folds: list[Path], runs: Path) -> None:
    asked = json.loads((folds[0] / "evaluation_val.json").read_text())["questions"]
    whole = len(read_dataset("vqa_v2", runs.parent / "data", "train"))
    assert 0 < asked < whole
    dataset, found = compare_runs({"a": [folds[0]], "b": [folds[2]]}, "b", FAST)
    assert len(dataset) == asked and found["a"].against is not None
    made = ensemble([folds[0], folds[2]], EnsembleOptions(split="val"))
    assert len(made.judgement.dataset) == asked


def test_runs_of_two_folds_share_no_questions_and_are_refused(folds: list[Path]) -> None:
    with pytest.raises(InputError, match=r"concat1|concat0"):
        compare_runs({"a": [folds[0]], "b": [folds[1]]}, "b", FAST)
    with pytest.raises(InputError, match=r"concat1|concat0"):
        ensemble([folds[0], folds[1]], EnsembleOptions(split="val"))


def test_an_ablation_has_its_cells_compared(runs: Path) -> None:
    cells = {"a": [runs / "tiny/0", runs / "tiny/1"], "b": [runs / "other/0", runs / "other/1"], "none": []}
    dataset, found = compare_runs(cells, "b", FAST)
    assert list(found) == ["a", "b"] and found["b"].against is None and len(dataset)
    assert found["a"].against == compare([runs / "other", runs / "tiny"], FAST).statistics["tiny"].against
    with pytest.raises(InputError, match="baseline 'none'"):
        compare_runs(cells, "none", FAST)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_ensemble_of_a_run_with_itself_is_that_run(runs: Path, tmp_path: Path, times: int) -> None:
    copies: Sequence[Path] = [runs / "other/0", *(tmp_path / str(number) for number in range(times - 1))]
    for copy in copies[1:]:
        shutil.copytree(copies[0], copy)
    made = ensemble(copies, EnsembleOptions(), out=tmp_path / "e")
    alone = json.loads((copies[0] / "evaluation_val.json").read_text())
    for task in ("open_ended", "multiple_choice"):
        written = (tmp_path / f"e/results_val_{task}.json").read_bytes()
        assert written == (copies[0] / f"results_val_{task}.json").read_bytes()
    together = json.loads((tmp_path / "e/evaluation_val.json").read_text())
    assert together["accuracy"] == alone["accuracy"] and together["ceiling"] == alone["ceiling"]
    assert together["multiple_choice_by_rule"] == alone["multiple_choice_by_rule"]
    assert (made.agreement_MM == 100).all() and not list((tmp_path / "e").glob(".scores-*"))


def test_probabilities_are_averaged_by_the_answers_text(runs: Path, tmp_path: Path) -> None:
    paths = [runs / "tiny/0", runs / "other/0", runs / "other/1"]
    made = ensemble(paths, EnsembleOptions(), out=tmp_path / "e", keep_scores=tmp_path / "kept.npz")
    dataset = read_dataset("vqa_v2", runs.parent / "data", "val")
    total: list[dict[str, float]] = [{} for _ in range(len(dataset))]
    for path in paths:
        run = load_run(path)
        asked = ask_run(run, dataset)
        for batch, logits_BA in logits_in_order(run.model, asked.questions, asked.features, run.machine):
            for row, probability_A in zip(batch.host_index_B.tolist(), logits_BA.softmax(dim=1).tolist(), strict=True):
                for text, probability in zip(run.answers.answers, probability_A, strict=True):
                    total[row][text] = total[row].get(text, 0) + probability / 3
    with np.load(tmp_path / "kept.npz", allow_pickle=False) as kept:
        assert kept["probability"].dtype == np.float16
        names, probability_NU = kept["answers"].tolist(), kept["probability"]
    expected_NU = np.array([[row.get(text, 0) for text in names] for row in total])
    assert np.allclose(probability_NU, expected_NU, atol=1e-3)
    assert made.mean.confidence_N == pytest.approx(expected_NU.max(axis=1), abs=1e-5)
    scored = {row.name: row.open_ended for row in made.member_scores}
    oracle = scored[ORACLE]
    assert oracle is not None and all(oracle.overall >= row.overall for n, row in scored.items() if row and "seed" in n)
    members = json.loads((tmp_path / "e/evaluation_val.json").read_text())["members"]
    own = [json.loads((path / "evaluation_val.json").read_text())["accuracy"]["open_ended"] for path in paths]
    assert [member["accuracy"]["open_ended"] for member in members] == own


def test_members_are_selected_on_a_split_of_its_own(runs: Path, tmp_path: Path) -> None:
    paths = [runs / "tiny/0", runs / "other/0", runs / "other/1"]
    made = ensemble(paths, EnsembleOptions(split="test", select_on="val"), out=tmp_path / "e")
    assert 1 <= sum(made.weights) <= 6 and (tmp_path / "e/results_test_open_ended.json").is_file()
    best = max(json.loads((p / "evaluation_val.json").read_text())["accuracy"]["open_ended"]["overall"] for p in paths)
    again = ensemble(
        [path for path, weight in zip(paths, made.weights, strict=True) if weight == max(made.weights)],
        EnsembleOptions(), out=tmp_path / "f",
    )  # fmt: skip
    assert again.judgement.own.open_ended is not None and best > 0
    with pytest.raises(InputError, match="choose a split of its own"):
        ensemble(paths, EnsembleOptions(split="val", select_on="val"), out=tmp_path / "g")


def test_the_guard_of_every_member_is_obeyed(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was trained on"):
        ensemble([runs / "tiny"], EnsembleOptions(split="train"), out=tmp_path / "e")
    made = ensemble([runs / "tiny"], EnsembleOptions(split="train", allow_seen=True), out=tmp_path / "e")
    assert made.judgement.answers.contamination is not None and made.judgement.answers.contamination.contaminated
    assert (tmp_path / "e/results_train_open_ended_seen_in_training.json").is_file()
    with pytest.raises(InputError, match="a results file has no probabilities"):
        ensemble([runs / "tiny/0/results_val_open_ended.json"], EnsembleOptions(), out=tmp_path / "e")


def test_the_mean_does_not_depend_on_how_many_questions_are_in_memory(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [runs / "tiny/0", runs / "other/0"]
    whole = ensemble(paths, EnsembleOptions(), out=tmp_path / "e")
    monkeypatch.setattr("vqa.studies.comparison.scores.CELLS", 500)
    pieces = ensemble(paths, EnsembleOptions(), out=tmp_path / "f")
    assert np.array_equal(whole.mean.best_NK, pieces.mean.best_NK) and torch.is_inference_mode_enabled() is False
    for task in ("open_ended", "multiple_choice"):
        name = f"results_val_{task}.json"
        assert (tmp_path / "e" / name).read_bytes() == (tmp_path / "f" / name).read_bytes()


def test_the_commands_are_there() -> None:
    assert {"compare", "ensemble"} <= {
        command.name or (command.callback and command.callback.__name__)
        for group in app.registered_groups
        if group.typer_instance is not None
        for command in group.typer_instance.registered_commands
    }
    assert EvaluationOptions().task == "both"
