"""`vqa evaluate --hf`: the files of a trained run, kept through kill -9, refused with clear messages."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.external import save_git, save_vilt
from helpers.golden import GOLDEN
from helpers.training import SUBPROCESS
from PIL import Image
from safetensors.torch import load_file, save_file

from vqa.cli import main
from vqa.data.formats import read_dataset
from vqa.data.synthetic import generate_dataset
from vqa.errors import InputError, InterruptedRunError
from vqa.evaluation.results import TASKS, read_results
from vqa.evaluation.score_files import score_files
from vqa.external.classification import ClassificationModel
from vqa.external.contracts import Batch, ModelAnswer
from vqa.external.evaluate import ExternalEvaluation, ExternalOptions, evaluate_external, random_sample
from vqa.training.run_folder import RunFolder

SLOWLY = """
import sys, time
from pathlib import Path
from vqa.external import answer_file, classification
from vqa.external.evaluate import ExternalOptions, evaluate_external

answer_file.COMMIT_SECONDS = 0.0
quick = classification.ClassificationModel.answer
classification.ClassificationModel.answer = lambda self, batch: (time.sleep(0.1), quick(self, batch))[1]
evaluate_external(
    sys.argv[1], Path(sys.argv[2]), "vqa_v2", options=ExternalOptions(batch_size=4), out=Path(sys.argv[3])
)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    generate_dataset(folder / "data", 40, 0, "real", 64)
    dataset = read_dataset("vqa_v2", folder / "data", "val")
    assert dataset.majority is not None
    save_vilt(folder / "vilt", dataset, list(dataset.majority.distinct)[:8])
    save_git(folder / "git", dataset)
    return folder


def evaluate(
    world: Path,
    out: Path,
    split: str = "val",
    model: str | Path = "vilt",
    data: Path | None = None,
    json_file: Path | None = None,
    **options: object,
) -> ExternalEvaluation:
    """A model of the world, or of any folder, asked about the world's data, or others."""
    asked = ExternalOptions(batch_size=4, **options)  # type: ignore[arg-type]
    data = data or world / "data"
    return evaluate_external(str(world / model), data, "vqa_v2", split, asked, out=out, json_file=json_file)


def test_the_files_and_numbers_are_those_of_a_run(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = RunFolder(tmp_path), world / "data"
    evaluation = evaluate(world, tmp_path, json_file=tmp_path / "copy.json")
    written = json.loads(folder.evaluation("val").read_text())
    assert written == json.loads((tmp_path / "copy.json").read_text())
    for task, name in zip(TASKS, ("OpenEnded", "MultipleChoice"), strict=True):
        read_results(folder.results("val", task), evaluation.judgement.dataset, task)
        questions = data / f"v2_{name}_mscoco_val2014_questions.json"
        scored = score_files(folder.results("val", task), questions, data / "v2_mscoco_val2014_annotations.json")
        assert written["accuracy"][task.replace("-", "_")]["overall"] == scored.overall
    assert written["floor"]["open_ended"]["overall"] > 0
    assert written["ceiling"]["open_ended"]["overall"] >= written["accuracy"]["open_ended"]["overall"]
    assert written["asked"]["prompt"] == "{question}" and len(written["asked"]["revision"]) == 64
    assert written["seen_in_training"]["contaminated"] is None
    of_a_run = json.loads((GOLDEN / "evaluation.json").read_text())
    assert set(written) == {*of_a_run, "below_floor", "image_matters", "unrounded", "weights", "limit", "asked"}
    evaluation.judgement.print(tmp_path)
    unknown = "What this model was trained on is not known here"
    assert unknown in capsys.readouterr().out and unknown in (tmp_path / "report.html").read_text()


def test_interrupted_and_run_again_gives_the_same_file(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(world, tmp_path / "whole")
    (expected,) = (tmp_path / "whole").glob("answers_*.jsonl")
    answer, asked = ClassificationModel.answer, []

    def interrupted(self: ClassificationModel, batch: Batch) -> list[ModelAnswer]:
        asked.append(batch)
        if len(asked) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return answer(self, batch)

    monkeypatch.setattr(ClassificationModel, "answer", interrupted)
    with pytest.raises(
        InterruptedRunError, match=r"stopped: \d+ of \d+ questions are in .* go on with: the same command"
    ):
        evaluate(world, tmp_path / "again")
    file = tmp_path / "again" / expected.name
    kept = file.read_bytes()
    assert kept.count(b"\n") == 1 + sum(len(batch.rows) for batch in asked)
    file.write_bytes(kept[:-7])  # as if the machine had stopped while the last line was written
    left = len(whole.judgement.dataset) - sum(len(batch.rows) for batch in asked[:-1])
    assert evaluate(world, tmp_path / "again").asked_now == left
    assert file.read_bytes() == expected.read_bytes()


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_file(world: Path, tmp_path: Path) -> None:
    whole = evaluate(world, tmp_path / "whole")
    (expected,) = (tmp_path / "whole").glob("answers_*.jsonl")
    killed = tmp_path / "killed"
    arguments = [sys.executable, "-c", SLOWLY, str(world / "vilt"), str(world / "data"), str(killed)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(arguments, env=os.environ | SUBPROCESS, stdout=quiet, stderr=quiet) as process:
        file = killed / expected.name
        while process.poll() is None and not (file.is_file() and file.read_bytes().count(b"\n") > 12):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    kept = file.read_bytes()
    assert 12 < kept.count(b"\n") < len(whole.judgement.dataset) and expected.read_bytes().startswith(kept)
    file.write_bytes(kept[:-7])  # as if the last line, and with it the last batch, had been written in part
    again = evaluate(world, killed)
    assert file.read_bytes() == expected.read_bytes()
    assert 0 < again.asked_now < len(whole.judgement.dataset)
    for task in TASKS:
        results = [RunFolder(tmp_path / name).results("val", task).read_bytes() for name in ("whole", "killed")]
        assert results[0] == results[1]
    assert evaluate(world, killed).asked_now == 0


def test_another_prompt_or_part_of_the_split_is_another_file(world: Path, tmp_path: Path) -> None:
    evaluate(world, tmp_path, limit=9)
    evaluate(world, tmp_path, limit=9, prompt="{question} ?")
    part = evaluate(world, tmp_path, limit=9)
    assert part.asked_now == 0 and len(part.judgement.dataset) == 9
    evaluate(world, tmp_path, limit=10, task="open-ended")
    assert len(list(tmp_path.glob("answers_*.jsonl"))) == 3
    assert json.loads(RunFolder(tmp_path).evaluation("val").read_text())["limit"] == 10
    whole = read_dataset("vqa_v2", world / "data", "val")
    assert set(random_sample(whole, 9).question_id_N) < set(random_sample(whole, 20).question_id_N)


def test_a_changed_model_is_another_one(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "vilt", tmp_path / "vilt")
    first = evaluate(world, tmp_path / "out", model=tmp_path / "vilt", limit=5)
    config = json.loads((tmp_path / "vilt/config.json").read_text())
    (tmp_path / "vilt/config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.1}))
    second = evaluate(world, tmp_path / "out", model=tmp_path / "vilt", limit=5)
    assert first.asked_now == second.asked_now == 5


@pytest.mark.parametrize("name", ["vilt", "git"])
def test_a_model_that_computes_no_numbers_is_refused(world: Path, tmp_path: Path, name: str) -> None:
    """One weight of the last layer that is not a number: a best answer would still be found among them."""
    shutil.copytree(world / name, tmp_path / name)
    weights = load_file(tmp_path / name / "model.safetensors")
    last = "classifier.3.bias" if name == "vilt" else "output.bias"
    weights[last][-1] = float("nan")
    save_file(weights, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    for task in ("open-ended", "both"):
        with pytest.raises(InputError, match=f"{name}: computes probabilities that are not numbers.*float32"):
            evaluate(world, tmp_path / "out", model=tmp_path / name, task=task, limit=4)


def test_a_split_without_answers_gives_results_only(world: Path, tmp_path: Path) -> None:
    evaluation = evaluate(world, tmp_path, "test", "git", task="open-ended", max_new_tokens=2)
    assert evaluation.judgement.scored == () and not RunFolder(tmp_path).evaluation("test").exists()
    read_results(RunFolder(tmp_path).results("test", "open-ended"), evaluation.judgement.dataset)


def test_images_that_are_missing_or_damaged_are_named(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "data", tmp_path / "data")
    image = read_dataset("vqa_v2", tmp_path / "data", "val").images.paths[3]
    image.write_bytes(b"no image")
    with pytest.raises(InputError, match=f"{image.name}: not an image"):
        evaluate(world, tmp_path / "out", data=tmp_path / "data")
    image.unlink()
    with pytest.raises(InputError, match=f"(?s)1 of .* images are missing.*{image.name}"):
        evaluate(world, tmp_path / "out", data=tmp_path / "data")
    Image.new("RGB", (64, 64)).save(image)
    assert evaluate(world, tmp_path / "out", data=tmp_path / "data").judgement.scored


def test_without_a_training_split_the_floors_of_priors_are_left_out(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world / "data", tmp_path / "data")
    for path in (tmp_path / "data").glob("*train2014*.json"):
        path.unlink()
    evaluation = evaluate(world, tmp_path / "out", data=tmp_path / "data", limit=8)
    assert "no training split, so no floors" in capsys.readouterr().out
    assert [row.kind for row in evaluation.judgement.scored] == ["run", "floor", "ceiling", "ceiling", "ceiling"]


def command_line(*arguments: str) -> int:
    """Exit status of `vqa evaluate` with these arguments, run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(sys, "argv", ["vqa", "evaluate", *arguments])
        main()
    return int(left.value.code or 0)


def test_the_command_line(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out"), "--limit", "4"]
    hf = ["--hf", str(world / "vilt"), "--data", str(world / "data"), "--format", "vqa_v2"]
    assert command_line(*hf, *out) == 0 and "classification model" in capsys.readouterr().out
    for arguments, message in (
        ([], "either a run folder or --hf"),
        (["run", *hf], "either a run folder or --hf"),
        (hf[:4], "--hf needs --data and --format"),
        ([*hf, "--allow-seen"], "for a run, not for --hf"),
        (["run", "--limit", "3"], "--limit: only for --hf"),
        (["run", "--batch-size", "8", "--workers", "2"], "--batch-size, --workers: only for --hf"),
    ):
        assert command_line(*arguments) == 2 and message in capsys.readouterr().err
