"""A trained run asked about images: the same as from the cache, and plain messages where it cannot be."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.language import save_language_model
from helpers.training import experiment, folder_bytes
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

import vqa
from vqa.cli import app
from vqa.data.images import Framing
from vqa.data.synthetic import generate_dataset
from vqa.errors import InputError
from vqa.experiment import Experiment
from vqa.features.cache.reader import FeatureCache
from vqa.features.extraction.dataset import EncoderOptions, ExtractOptions, extract_dataset
from vqa.runs.answerer import Answerer, print_answer, write_attention
from vqa.runs.evaluate import evaluate_loaded
from vqa.runs.load import load_run
from vqa.training.train import train

LAYER, PIXELS = "features.7", 64


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic images with real features of a SqueezeNet with random weights."""
    folder = tmp_path_factory.mktemp("world")
    generate_dataset(folder / "data", 40, 0, "real", PIXELS)
    encoder = EncoderOptions("squeezenet1_1", LAYER, PIXELS, "random")
    extract_dataset(folder / "data", "vqa_v2", ["train", "val"], folder / "cache.h5", encoder, ExtractOptions())
    return folder


def plan(world: Path, name: str = "tiny", **changes: object) -> Experiment:
    return experiment(world, world / "runs", name=name, training={"epochs": 3}, **changes)


@pytest.fixture(scope="module")
def run(world: Path) -> Path:
    return train(plan(world)).path


@pytest.fixture(scope="module")
def answerer(run: Path) -> Answerer:
    return Answerer.load(run)


def test_a_image_is_answered_as_its_cached_features_are(answerer: Answerer, run: Path) -> None:
    evaluation = evaluate_loaded(load_run(run), "val")
    dataset, predicted = evaluation.dataset, evaluation.predicted
    for row in range(0, len(dataset), 7):
        image = dataset.images.paths[dataset.image_row_N[row]]
        answer = answerer.answer(image, dataset.question.at(row))
        np.testing.assert_allclose([p for _, p in answer.best], predicted.probability_NK[row], rtol=2e-3)
        assert answer.best[0][0] == evaluation.run.answers.answers[predicted.answer_NK[row, 0]]
        assert sorted((p for _, p in answer.best), reverse=True) == [p for _, p in answer.best]
        assert answer.unknown_words == run_words(answerer, dataset.question.at(row))


def test_a_cropped_image_is_answered_from_its_crop_and_attention_lies_on_it(world: Path, tmp_path: Path) -> None:
    """Half of each edge is kept: answers as from the cache, and around the crop the drawing is faded."""
    cache = tmp_path / "cropped.h5"
    encoder = EncoderOptions("squeezenet1_1", LAYER, PIXELS, "random", "centre-crop", resize_to=2 * PIXELS)
    extract_dataset(world / "data", "vqa_v2", ["train", "val"], cache, encoder, ExtractOptions())
    features = {"cache": str(cache)}
    run = train(experiment(world, tmp_path, training={"epochs": 1}, features=features)).path
    evaluation, answerer = evaluate_loaded(load_run(run), "val"), Answerer.load(run)
    dataset = evaluation.dataset
    image, question = dataset.images.paths[dataset.image_row_N[0]], dataset.question.at(0)
    answer = answerer.answer(image, question)
    np.testing.assert_allclose([p for _, p in answer.best], evaluation.predicted.probability_NK[0], rtol=2e-3)
    example = evaluation.examples()[0]
    assert answer.framing == example.framing == Framing("centre-crop", 0.5)
    write_attention(answer, tmp_path / "attention.png")
    with Image.open(tmp_path / "attention.png") as sheet:
        whole = np.asarray(sheet.convert("L"), dtype=float)
    height = whole.shape[0]
    panel = whole[:, -height:]  # images are square
    quarter = height // 4
    assert panel[: quarter - 2].min() >= 255 * 0.75 - 1 and panel[:, : quarter - 2].min() >= 255 * 0.75 - 1
    assert panel[quarter + 2 : -quarter - 2, quarter + 2 : -quarter - 2].mean() < panel[: quarter - 2].mean() - 50


def run_words(answerer: Answerer, question: str) -> tuple[str, ...]:
    """The words that are not in the run's list of words, found anew."""
    known = set(json.loads((answerer.run.folder.path / "vocabulary.json").read_text())["words"])
    return tuple(word for word in question.lower().rstrip("?").split() if word not in known)


def test_bfloat16_answers_nearly_the_same(world: Path, answerer: Answerer, run: Path) -> None:
    text = (run / "experiment.yaml").read_text()
    copy = run.parent / "bfloat16"
    shutil.copytree(run, copy)
    (copy / "experiment.yaml").write_text(text.replace("precision: float32", "precision: bfloat16"))
    image = next(iter(sorted((world / "data").rglob("*.jpg"))))
    one, two = (asked.answer(image, "how many circles are there") for asked in (answerer, Answerer.load(copy)))
    assert dict(one.best[:3]) == pytest.approx(dict(two.best[:3]), rel=0.1)


def image_of(world: Path) -> Path:
    return sorted((world / "data").rglob("*.jpg"))[0]


def test_unknown_words_are_named(answerer: Answerer, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = answerer.answer(image_of(world), "Zebra! what color is the ZEBRA, the xylophone?")
    assert answer.unknown_words == ("zebra", "xylophone")
    print_answer(answer)
    assert "words the model never saw: zebra, xylophone" in capsys.readouterr().out


def test_choices_are_ranked_and_others_are_last(answerer: Answerer, world: Path) -> None:
    known = answerer.run.answers.answers
    everything = dict(zip(known, [0.0] * len(known), strict=True))
    choices = [known[3], "a wholly unknown answer", known[0]]
    best = answerer.answer(image_of(world), "how many circles are there", choices=choices).best
    assert {name for name, _ in best} == set(choices)
    assert best[-1] == ("a wholly unknown answer", 0.0)
    assert best[0][1] >= best[1][1] > 0 and best[0][0] in everything
    with pytest.raises(InputError, match=r"none of the choices is among the .* answers .*, or shares a word .*: x, y"):
        answerer.answer(image_of(world), "how many", choices=["x", "y"])


def test_choices_of_the_command_line(answerer: Answerer, world: Path, run: Path, tmp_path: Path) -> None:
    known = answerer.run.answers.answers
    asked = ["predict", str(run), str(image_of(world)), "how many circles are there"]
    expected = dict(answerer.answer(image_of(world), asked[-1], choices=known[:3]).best)
    for given in (["--choices", *known[:3]], [part for name in known[:3] for part in ("--choices", name)]):
        out = tmp_path / "answer.json"
        done = CliRunner().invoke(app, [*asked, *given, "--json", str(out)])
        assert done.exit_code == 0, done.output
        found = {one["answer"]: one["probability"] for one in json.loads(out.read_text())["best"]}
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("question", ["", " ", "\t\n", "\u3000\u00a0", "?", " ... ?!", "\u200b"])
def test_a_question_without_a_word_is_refused(answerer: Answerer, world: Path, run: Path, question: str) -> None:
    image = image_of(world)
    with pytest.raises(InputError, match="the question has no word"):
        answerer.answer(image, question)
    with pytest.raises(InputError, match="question 2 of 3 has no word"):
        answerer.answer_all([image] * 3, ["is it?", question, "what?"])
    with pytest.raises(InputError, match="the question has no word"):
        vqa.load(run).answer(image, question)
    result = CliRunner().invoke(app, ["predict", "no_such_run", str(image), question])
    assert isinstance(result.exception, InputError) and "the question has no word" in str(result.exception)


@pytest.mark.parametrize("question", ["x", "2+2?", "\u4ec0\u4e48\uff1f", "\u00bfqu\u00e9?"])
def test_a_question_of_any_language_is_answered(answerer: Answerer, world: Path, question: str) -> None:
    assert len(answerer.answer(image_of(world), question).best) == 5


@pytest.mark.parametrize(
    ("ending", "format"),
    [(".png", "PNG"), (".PNG", "PNG"), (".jpg", "JPEG"), (".jpeg", "JPEG"), (".webp", "WEBP"), (".pdf", "PDF")],
)
def test_attention_is_written_as_its_ending_says(
    answerer: Answerer, world: Path, tmp_path: Path, ending: str, format: str
) -> None:
    path = tmp_path / f"out{ending}"
    write_attention(answerer.answer(image_of(world), "how many circles are there"), path)
    if format == "PDF":
        assert path.read_bytes().startswith(b"%PDF")
        return
    with Image.open(path) as sheet:
        assert sheet.format == format
        sheet.load()


@pytest.mark.parametrize("name", ["out.gif", "out.txt", "out", "out.png.zip", ".png"])
def test_another_ending_is_refused_before_any_work(answerer: Answerer, world: Path, tmp_path: Path, name: str) -> None:
    said = r"an attention image ends in \.png, \.jpg, \.jpeg, \.webp, \.pdf"
    with pytest.raises(InputError, match=said):
        write_attention(answerer.answer(image_of(world), "how many circles are there"), tmp_path / name)
    arguments = ["predict", "no_such_run", "no.jpg", "is it?", "--attention", str(tmp_path / name)]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError) and "an attention image ends in" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_attention_is_written_as_a_image_and_numbers_as_json(
    answerer: Answerer, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = answerer.answer(image_of(world), "how many circles are there")
    assert answer.attention_HR is not None
    np.testing.assert_allclose(answer.attention_HR.sum(axis=1), 1, atol=1e-5)
    print_answer(answer, attention=tmp_path / "out.png", json_file=tmp_path / "out.json")
    with Image.open(tmp_path / "out.png") as sheet:
        assert sheet.format == "PNG" and sheet.width == 2 * sheet.height + 8  # the image and one hop
    written = json.loads((tmp_path / "out.json").read_text())
    assert [(one["answer"], one["probability"]) for one in written["best"]] == list(answer.best)
    assert str(tmp_path / "out.png") in capsys.readouterr().out


@pytest.mark.parametrize("tuned", [False, True])
def test_a_pretrained_question_encoder_answers_as_in_its_evaluation(world: Path, tuned: bool) -> None:
    save_language_model(world / "bert")
    section = {"name": f"hf:{world / 'bert'}", "tuned": tuned, "pooling": "mean"}
    path = train(plan(world, f"bert-{tuned}").model_copy(update={"question_encoder": section})).path
    evaluation, answerer = evaluate_loaded(load_run(path), "val"), Answerer.load(path)
    dataset = evaluation.dataset
    for row in range(0, len(dataset), 15):
        answer = answerer.answer(dataset.images.paths[dataset.image_row_N[row]], dataset.question.at(row))
        np.testing.assert_allclose([p for _, p in answer.best], evaluation.predicted.probability_NK[row], rtol=5e-3)
    new = answerer.answer(image_of(world), "would a zebra like it")
    assert len(new.best) == 5 and new.unknown_words == ()


def test_a_model_that_does_not_look_has_no_attention(world: Path, tmp_path: Path) -> None:
    blind = Answerer.load(train(plan(world, "blind", fusion={"name": "question_only"})).path)
    answer = blind.answer(image_of(world), "how many circles are there")
    with pytest.raises(InputError, match="does not look at regions"):
        print_answer(answer, attention=tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_an_unreadable_image_is_named(answerer: Answerer, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"\xff\xd8\xff not an image")
    for path in (damaged, tmp_path / "none.jpg"):
        with pytest.raises(InputError, match=path.name):
            answerer.answer(path, "how many")


def test_other_encoder_weights_are_refused(run: Path, tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(5)
    other = torchvision.models.squeezenet1_1()
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    before = folder_bytes(run)
    with pytest.raises(InputError, match="features from other encoder weights") as caught:
        Answerer.load(run, weights=str(tmp_path / "other.safetensors"))
    assert "RANDOM weights" in str(caught.value) and "--weights" in str(caught.value)
    with pytest.raises(InputError, match=r"none\.pth"):
        Answerer.load(run, weights=str(tmp_path / "none.pth"))
    assert folder_bytes(run) == before


def test_a_run_whose_features_do_not_say_their_weights_asks_for_them(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    text = (copy / "experiment.yaml").read_text()
    (copy / "experiment.yaml").write_text(text.replace("    weights: random\n", ""))
    with pytest.raises(InputError, match="give them with --weights"):
        Answerer.load(copy)
    assert Answerer.load(copy, weights="random").encoder.layer == LAYER


def test_another_preparation_of_images_is_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    text = (copy / "experiment.yaml").read_text()
    (copy / "experiment.yaml").write_text(text.replace("colours: RGB", "colours: BGR"))
    with pytest.raises(InputError, match=r"prepares images otherwise.*\n.*colours is 'RGB', expected 'BGR'"):
        Answerer.load(copy)


def test_the_cache_states_what_was_asked_for(world: Path) -> None:
    assert FeatureCache(world / "cache.h5").attributes["weights"] == "random"
    with pytest.raises(InputError, match="weights is 'random', expected 'imagenet'"):
        train(plan(world, "imagenet", features={"weights": "imagenet"}))
