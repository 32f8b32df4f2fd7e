"""`import vqa`: what it imports, the examples of its functions, and what each takes and refuses."""

import doctest
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.language import save_language_model
from helpers.outside import FUSION, write_module
from helpers.training import run_python
from PIL import Image

import vqa
import vqa.api
from vqa.data.dataset import Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import score as official_score
from vqa.testing import tiny_experiment

FUNCTIONS = [name for name in vqa.__all__ if name != "InputError"]


def test_importing_it_brings_neither_torch_nor_anything_large() -> None:
    done = run_python("-c", "import sys; before = set(sys.modules); import vqa; print(*(set(sys.modules) - before))")
    assert done.stdout.split() == ["vqa"]
    allowed = run_python(
        "-c", "import sys, vqa; vqa.score(['a'], ['a']); vqa.read_dataset; print('torch' in sys.modules)"
    )
    assert allowed.stdout.strip() == "False", allowed.stderr


def test_every_public_name_is_there_and_no_other() -> None:
    assert set(vqa.__all__) == vqa.PUBLIC.keys() and set(vqa.__all__) <= set(dir(vqa))
    assert all(getattr(vqa, name).__doc__ for name in vqa.__all__)
    with pytest.raises(AttributeError, match="module 'vqa' has no attribute 'lode'; its public names: InputError, bui"):
        _ = vqa.lode  # type: ignore[attr-defined]  # a type checker sees it, too


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in which the examples run, one after another, and what they leave."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def run(folder: Path) -> vqa.api.Run:
    return vqa.load(vqa.train(tiny_experiment(folder / "tiny"), seed=3))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_its_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(vqa, name), name, vqa.api, globs={})
    assert example.examples
    said = io.StringIO()
    assert doctest.DocTestRunner().run(example, out=said.write).failed == 0, said.getvalue()


def image_of(folder: Path) -> Path:
    return Path(vqa.read_dataset("vqa_v2", folder / "tiny/data", "val").images.paths[0])


def test_an_image_may_be_held_in_any_way(run: vqa.api.Run, folder: Path) -> None:
    path = image_of(folder)
    image = Image.open(path).convert("RGB")
    pixels = np.asarray(image)
    ways: list[Any] = [
        str(path), path, path.read_bytes(), bytearray(path.read_bytes()), image, pixels,
        torch.from_numpy(pixels.copy()), torch.from_numpy(pixels.copy()).permute(2, 0, 1),
    ]  # fmt: skip
    expected = run.answer(path, "is it red?")
    assert all(run.answer(way, "is it red?").best == expected.best for way in ways)
    assert [one.best for one in run.answer(ways, "is it red?")] == [
        tuple((text, pytest.approx(probability, abs=1e-5)) for text, probability in expected.best) for _ in ways
    ]
    turned = image.copy()
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    content = io.BytesIO()
    turned.save(content, format="PNG", exif=exif)
    upside_down = run.answer(image.rotate(180), "is it red?")
    assert run.answer(content.getvalue(), "is it red?").best == upside_down.best
    assert run.answer(Image.open(content), "is it red?").best == upside_down.best


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("none.jpg", "none.jpg: no such file"),
        (b"no image", r"the image that was given: not an image that Pillow can read \(8 bytes\)"),
        (3, "an image is a path, bytes, a Pillow image or an array of pixels, not 3"),
        (np.zeros((4, 4, 3)), r"an array of pixels is uint8, \[H, W\] or \[H, W, 3\], not float64 4 x 4 x 3"),
        (np.zeros((4, 4, 2), np.uint8), "not uint8 4 x 4 x 2"),
    ],
)
def test_what_is_no_image_is_refused(run: vqa.api.Run, image: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        run.answer(image, "is it red?")


def test_lists_are_answered_as_one_by_one(run: vqa.api.Run, folder: Path) -> None:
    dataset = vqa.read_dataset("vqa_v2", folder / "tiny/data", "val")
    rows = range(40)  # more than are answered at once
    images = [dataset.images.paths[dataset.image_row_N[row]] for row in rows]
    questions = [dataset.question.at(row) for row in rows]
    together = run.answer(list(images), questions)
    assert [answer.question for answer in together] == questions and [answer.image for answer in together] == images
    for row in (0, 7, 35, 39):
        alone = run.answer(images[row], questions[row])
        assert dict(together[row].best) == pytest.approx(dict(alone.best), abs=1e-5)
        assert together[row].attention_HR == pytest.approx(alone.attention_HR, abs=1e-5)
    assert len(run.answer(images[0], tuple(questions))) == len(run.answer(list(images), questions[0])) == 40
    assert [dict(one.best).keys() for one in run.answer(images[0], questions[:2], ["yes", "no"])] == [{"yes", "no"}] * 2
    assert run.answer(images[0], []) == []
    with pytest.raises(InputError, match="3 images and 2 questions: give one of either, or as many"):
        run.answer(list(images[:3]), questions[:2])


def test_a_run_says_what_it_is(run: vqa.api.Run) -> None:
    assert run.name == "tiny, seed 3" and repr(run) == f"<vqa run tiny, seed 3: {run.path}>"


def test_a_run_of_code_from_outside_needs_permission(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write_module(tmp_path, "api_mine", FUSION)
    trained = vqa.train(tiny_experiment(folder / "tiny"), fusion="api_mine:Mine", name="outside")
    with pytest.raises(InputError, match=r"fusion api_mine:Mine; where you trust it, allow it with --allow-code"):
        vqa.load(trained)
    assert vqa.load(str(trained), allow_code=True).answer(image_of(folder), "is it red?").best


def test_a_file_is_trained_as_a_mapping_is(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tiny_experiment(folder / "tiny") | {"runs": tmp_path / "runs"}  # a Path, as Python has it
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(plan | {"runs": str(plan["runs"])}), encoding="utf-8")
    changes: dict[str, Any] = {"training.batch_size": 32, "classifier.hidden": (4,)}
    one = vqa.train(plan, seed=1, **changes)
    assert yaml.safe_load((one / "experiment.yaml").read_text())["classifier"]["hidden"] == [4]
    vqa.train(tmp_path / "e.yaml", seed=1, **changes)
    assert "already trained" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"^override 'seed=-1': seed: "):
        vqa.train(plan, seed=-1)
    with pytest.raises(InputError, match=r"^experiment: fusion: missing"):
        vqa.train({key: value for key, value in plan.items() if key != "fusion"})
    with pytest.raises(InputError, match=r"none\.yaml"):
        vqa.train("none.yaml")


MODEL = {"fusion": "product", "vocab_size": 9, "image_dim": 4, "regions": 2, "answers": 3}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"fusoin": "sum"},
            r"unknown key of a model 'fusoin' \(did you mean 'fusion'\?\); choose from: answers, class",
        ),
        ({"fusion": None}, "a model needs fusion besides"),
        ({"regions": None, "answers": None}, "a model needs regions, answers besides fusion, vocab_size, "),
        ({"regions": 0}, "regions must be int of at least 1, not 0"),
        ({"regions": True}, "regions must be int of at least 1, not True"),
        ({"fusion": "prodct"}, r"unknown fusion 'prodct' \(did you mean 'product'"),
        ({"fusion": 3}, "fusion must be a mapping with a name and options, not 3"),
        ({"classifier": {"hiden": [3]}}, "did you mean 'hidden'"),
    ],
)
def test_what_no_model_can_be_built_of_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        vqa.build_model({**MODEL, **changes})


def test_a_model_has_the_defaults_of_an_experiment() -> None:
    model = vqa.build_model(MODEL)
    assert type(model.question_encoder).__name__ == "QstEncoder" and type(model.fusion).__name__ == "Product"


def test_a_model_with_a_pretrained_question_encoder(tmp_path: Path) -> None:
    save_language_model(tmp_path)
    model = vqa.build_model({**MODEL, "question_encoder": {"name": f"hf:{tmp_path}", "tuned": True}})
    assert type(model.question_encoder).__name__ == "Pretrained"


def test_lists_are_scored_as_the_official_files_are(folder: Path) -> None:
    dataset = vqa.read_dataset("vqa_v2", folder / "tiny/data", "val")
    assert dataset.answers is not None
    humans = [dataset.answers.row(row) for row in range(len(dataset))]
    guesses = ["yes" if row % 3 else "2" for row in range(len(dataset))]
    for protocol in ("2021", "2015"):
        official = official_score(dataset, Strings.of(guesses), protocol)
        for references in (dataset, humans):
            found = vqa.score(references, guesses, protocol)
            assert found.overall == official.overall and (found.accuracy_N == official.accuracy_N).all()
    assert vqa.score(dataset, guesses).per_answer_type  # which plain lists do not have
    assert vqa.score(humans, Strings.of(guesses)).per_answer_type == {}


@pytest.mark.parametrize(
    ("references", "answers", "said"),
    [
        (["yes"], ["yes", "no"], "2 answers to 1 questions; give one answer a question"),
        (["yes"], "yes", "answers must be a list of strings, not 'yes'"),
        ("yes", ["yes"], "references must be a data set or a list with the answers to each question: 'yes'"),
        ([["yes", 3]], ["yes"], "references must be a list of strings; 3 among them is none"),
        (["yes"], [None], "answers must be a list of strings; None among them is none"),
        ([[]], ["yes"], "question 0 has no human answer"),
        ([], [], "no question to score"),
        (None, [], "references must be a data set or a list"),
    ],
)
def test_what_cannot_be_scored_is_refused(references: Any, answers: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        vqa.score(references, answers)


def test_a_wrong_protocol_lists_those_there_are() -> None:
    with pytest.raises(InputError, match=r"unknown protocol '2020'.*2015, 2021"):
        vqa.score(["a"], ["a"], "2020")  # type: ignore[arg-type]


def test_a_cache_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(vqa.InputError, match=r"none\.h5: no such feature cache"):
        vqa.open_cache(str(tmp_path / "none.h5"))
