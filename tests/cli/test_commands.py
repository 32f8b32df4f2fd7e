"""The command line: bad input is one message and exit status 2, without a traceback and with nothing written."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from helpers.training import all_images, experiment, folder_bytes, make_world, run_python, values, write_cache
from typer.testing import CliRunner

import vqa.cli
from vqa.data.formats import read_dataset
from vqa.features.cache.reader import FeatureCache
from vqa.training.train import train

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_world(tmp_path_factory.mktemp("world"))
    (folder / "e.yaml").write_text(yaml.safe_dump(values(folder, folder / "runs")), encoding="utf-8")
    train(experiment(folder, folder / "runs"))
    return folder


@pytest.fixture
def copied(world: Path, tmp_path: Path) -> Path:
    """A world of one's own to damage, its run included."""
    shutil.copytree(world, tmp_path / "own")
    own = tmp_path / "own"
    text = (own / "e.yaml").read_text().replace(str(world), str(own))
    (own / "e.yaml").write_text(text)
    recorded = own / "runs/tiny/0/experiment.yaml"
    recorded.write_text(recorded.read_text().replace(str(world), str(own)))
    return own


QUESTIONS = "data/v2_OpenEnded_mscoco_train2014_questions.json"
CHOICES = "data/v2_MultipleChoice_mscoco_train2014_questions.json"
ANNOTATIONS = "data/v2_mscoco_train2014_annotations.json"


def edit_json(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def drop_a_question(own: Path) -> None:
    (own / CHOICES).unlink()
    edit_json(own / QUESTIONS, lambda file: file["questions"].pop())


def drop_an_annotation(own: Path) -> None:
    edit_json(own / ANNOTATIONS, lambda file: file["annotations"].pop())


def repeat_a_question(own: Path) -> None:
    edit_json(own / QUESTIONS, lambda file: file["questions"].append(file["questions"][0]))


def truncate_questions(own: Path) -> None:
    (own / QUESTIONS).write_bytes((own / QUESTIONS).read_bytes()[:-50])


def drop_images_from_the_cache(own: Path) -> None:
    (own / "cache.h5").unlink()
    write_cache(own / "cache.h5", read_dataset("vqa_v2", own / "data", "val").images)


def remove(*names: str) -> Callable[[Path], None]:
    def change(own: Path) -> None:
        for name in names:
            (own / name).unlink()

    return change


def add_a_table(own: Path) -> None:
    (own / "mine").mkdir()
    (own / "mine/train.csv").write_text("image,question,answer\na.jpg,what?,cat\n")


def add_an_ablation(own: Path) -> None:
    (own / "a.yaml").write_text(f"name: a\nbase: {own}/e.yaml\ngrid: {{fusion: [product, sum]}}\n")


TRAINING = ["train", "{own}/e.yaml", "name=new"]
BAD_INPUT = {
    "missing questions": (remove(QUESTIONS, CHOICES), TRAINING, ["train2014", "questions.json"]),
    "missing annotations": (remove(ANNOTATIONS), TRAINING, ["annotations"]),
    "truncated questions": (truncate_questions, TRAINING, [QUESTIONS, "truncated"]),
    "annotation without question": (drop_a_question, TRAINING, ["annotations.json", "question"]),
    "question without annotation": (drop_an_annotation, TRAINING, ["questions.json", "annotation"]),
    "duplicate question": (repeat_a_question, TRAINING, [QUESTIONS]),
    "missing cache": (remove("cache.h5"), TRAINING, ["cache.h5", "vqa features extract --data"]),
    "cache lacks images": (drop_images_from_the_cache, TRAINING, ["cache.h5", "images", "first:"]),
    "unknown key": (None, [*TRAINING, "training.epoch=3"], ["override 'training.epoch=3'", "did you mean 'epochs'"]),
    "unknown fusion": (None, [*TRAINING, "fusion=prodct"], ["override 'fusion=prodct'", "did you mean 'product'"]),
    "no experiment": (None, ["train", "{own}/none.yaml"], ["none.yaml", "no such file"]),
    "other experiment there": (None, ["train", "{own}/e.yaml", "training.batch_size=9"], ["different experiment"]),
    "momentum for adam": (None, [*TRAINING, "training.optimizer.momentum=0.5"], ["momentum", "sgd"]),
    "no run": (None, ["evaluate", "{own}/runs"], ["not a run folder"]),
    "unknown split": (None, ["evaluate", "{own}/runs/tiny/0", "--split", "dev"], ["dev"]),
    "no results": (
        None,
        ["score", "{own}/none.json", "--questions", "{own}/" + QUESTIONS, "--annotations", "{own}/" + ANNOTATIONS],
        ["none.json", "no such file"],
    ),
    "no ablation": (None, ["ablate", "{own}/none.yaml"], ["none.yaml", "no such file"]),
    "experiment as ablation": (None, ["ablate", "{own}/e.yaml"], ["not an ablation file", "`vqa train {own}/e.yaml`"]),
    "ablation as experiment": (
        add_an_ablation,
        ["train", "{own}/a.yaml"],
        ["`vqa ablate {own}/a.yaml`"],
    ),
    "another data set's run": (
        None,
        ["train", "{own}/e.yaml", "training.epochs=9", "answers.size=3", "words.min_count=2",
         "features.standardise=true", "training.batch_size=4"],
        ["training.epochs", "and 1 more"],
    ),
    "a table without that split": (
        add_a_table,
        [*TRAINING, "data.format=table", "data.root={own}/mine"],
        ["found no {own}/mine/val.csv", "there are the splits train", "data.holdout=0.2"],
    ),
    "weights not known": (None, ["predict", "{own}/runs/tiny/0", "{own}/e.yaml", "what"], ["weights"]),
    "question without quotes": (
        None,
        ["predict", "{own}/runs/tiny/0", "{own}/e.yaml", "what", "is", "it?"],
        ["put it in quotes ('what is it?')", "--choices"],
    ),
    "unknown format": (
        None,
        ["features", "extract", "--data", "{own}/data", "--format", "vqa_v3", "--split", "train", "--out", "{own}/x"],
        ["vqa_v3", "did you mean 'vqa_v2'"],
    ),
    "unknown encoder": (
        None,
        ["features", "extract", "--data", "{own}/data", "--format", "vqa_v2", "--split", "train", "--out", "{own}/x",
         "--encoder", "vgg17", "--weights", "random"],
        ["vgg17", "did you mean 'vgg1"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_INPUT)
def test_bad_input_is_one_message_and_status_2(kind: str, copied: Path, vqa_main: Run) -> None:
    damage, arguments, said = BAD_INPUT[kind]
    if damage is not None:
        damage(copied)
    before = folder_bytes(copied)
    status, printed = vqa_main(*[argument.format(own=copied) for argument in arguments])
    assert status == 2, printed
    for words in said:
        assert words.format(own=copied) in printed
    assert "Traceback" not in printed and printed.count("vqa: ") == 1
    assert folder_bytes(copied) == before


def test_weights_of_another_vocabulary_are_refused(copied: Path, vqa_main: Run) -> None:
    status, _ = vqa_main("train", copied / "e.yaml", "name=few", "answers.size=3")
    assert status == 0
    few, tiny = copied / "runs/few/0", copied / "runs/tiny/0"
    shutil.copy(few / "vocabulary.json", tiny / "vocabulary.json")
    before = folder_bytes(copied)
    status, printed = vqa_main("evaluate", tiny)
    assert status == 2 and "model.safetensors" in printed
    assert folder_bytes(copied) == before


def test_a_image_that_is_missing_is_named(copied: Path, vqa_main: Run) -> None:
    image = all_images(copied / "data").paths[3]
    image.unlink()
    arguments = ["--data", copied / "data", "--format", "vqa_v2", "--split", "train", "--out", copied / "x.h5"]
    status, printed = vqa_main(
        "features", "extract", *arguments, "--encoder", "squeezenet1_1", "--weights", "random", "--image-size", "64"
    )
    assert status == 2 and image.name in printed and not (copied / "x.h5").exists()


def test_a_image_that_cannot_be_read_is_named_and_the_others_are_kept(copied: Path, vqa_main: Run) -> None:
    image = all_images(copied / "data").paths[3]
    image.write_bytes(b"not an image")
    arguments = ["--data", copied / "data", "--format", "vqa_v2", "--split", "train", "--out", copied / "x.h5"]
    status, printed = vqa_main(
        "features", "extract", *arguments, "--encoder", "squeezenet1_1", "--weights", "random", "--image-size", "64"
    )
    assert status == 2 and image.name in printed and "Traceback" not in printed
    done_I = FeatureCache(copied / "x.h5").done_I
    assert (~done_I).sum() == 1 and not done_I[3]


def test_a_loss_that_is_not_finite_is_status_1(copied: Path, vqa_main: Run) -> None:
    (copied / "cache.h5").unlink()
    write_cache(copied / "cache.h5", all_images(copied / "data"), nan_rows=(0, 1, 2))
    status, printed = vqa_main("train", copied / "e.yaml", "name=new")
    assert status == 1 and "not finite at step" in printed and "Traceback" not in printed


def test_train_evaluate_and_score_in_a_row(copied: Path, vqa_main: Run) -> None:
    status, printed = vqa_main("train", copied / "e.yaml", "name=new", "seed=3", "training.epochs=1")
    run = copied / "runs/new/3"
    assert status == 0 and f"next: vqa evaluate {run}" in printed
    status, printed = vqa_main("evaluate", run, "--json", copied / "numbers.json")
    numbers = json.loads((copied / "numbers.json").read_text())
    assert status == 0 and f"{numbers['accuracy']['open_ended']['overall']:.2f}" in printed
    files = [copied / name.replace("train2014", "val2014") for name in (QUESTIONS, ANNOTATIONS)]
    status, _ = vqa_main(
        "score", run / "results_val_open_ended.json", "--questions", files[0], "--annotations", files[1],
        "--json", copied / "score.json",
    )  # fmt: skip
    scored = json.loads((copied / "score.json").read_text())
    assert status == 0 and scored["overall"] == numbers["accuracy"]["open_ended"]["overall"]
    assert scored["protocol"] == "2021" and len(scored["perQuestion"]) == numbers["questions"]
    chosen = copied / CHOICES.replace("train2014", "val2014")
    status, printed = vqa_main(
        "score", run / "results_val_multiple_choice.json", "--questions", chosen, "--annotations", files[1]
    )
    assert status == 0 and "question type, multiple-choice" in printed and "Open-ended" not in printed


def commands() -> dict[str, Any]:
    """Every command by what the user types, those of groups with their group."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(vqa.cli.app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {f"{name} {key}": value for key, value in inner.items()} if inner else {name: command}
    return found


@pytest.mark.parametrize(("typed", "command"), commands().items(), ids=commands())
def test_every_command_has_help_with_an_example_that_parses(typed: str, command: Any) -> None:
    shown = CliRunner().invoke(vqa.cli.app, [*typed.split(), "--help"], env={"COLUMNS": "300"})
    assert shown.exit_code == 0
    assert f"Example: vqa {typed}" in " ".join(re.sub(r"[│╭╰╮╯─]", " ", shown.output).split())
    example = shlex.split(command.epilog.removeprefix("Example: vqa "))
    command.make_context(typed, example[len(typed.split()) :])  # raises where an option or argument is wrong


def test_help_answers_without_torch() -> None:
    code = (
        "import sys, vqa.cli\n"
        "sys.argv = ['vqa', '--help']\n"
        "try:\n    vqa.cli.main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'torchvision', 'transformers', 'wandb', 'matplotlib', 'h5py', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout and "evaluate" in done.stdout


def test_the_module_runs_as_the_command_does() -> None:
    done = run_python("-m", "vqa", "train", "none.yaml")
    assert done.returncode == 2
    said = "vqa: none.yaml: no such file, and no recipe has that name; `vqa recipes` lists them\n"
    assert done.stderr == said and done.stdout == ""
