"""A run whose fusion runs the language model, from the command line to a single answer, frozen and tuned."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from helpers.language import save_language_model
from helpers.training import interrupted_after, make_world, values
from safetensors import safe_open

import vqa.cli
from vqa.errors import InputError, InterruptedRunError
from vqa.experiment import Experiment, check_experiment
from vqa.features.encoders.text_encoders import hf_text_encoder
from vqa.models import LANGUAGE_FUSIONS, initialise_uniform
from vqa.models.transformers.language import LanguageModel
from vqa.planning.describe import describe
from vqa.planning.sizes import SizeOptions
from vqa.runs.evaluate import evaluate_loaded
from vqa.runs.load import load_run
from vqa.training.inputs.prepare import prepare
from vqa.training.model import make_model
from vqa.training.needs import ModelSizes, find_needs
from vqa.training.run_folder import RunFolder, open_run
from vqa.training.together import train_together
from vqa.training.train import train

PREFIX: dict[str, Any] = {"name": "prefix_lm"}
GATED: dict[str, Any] = {"name": "gated_cross_attention", "heads": 2, "head_dim": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_world(tmp_path_factory.mktemp("world"))
    for kind in ("gpt2", "bert"):
        save_language_model(folder / kind, kind)
    return folder


def sections(world: Path, run: str, kind: str = "gpt2", **fusion: Any) -> dict[str, Any]:
    encoder = {"name": f"hf:{world / kind}", "words": "embeddings"}
    return values(world, world / "runs", name=run) | {"question_encoder": encoder, "fusion": PREFIX | fusion}


def plan(world: Path, run: str, kind: str = "gpt2", **fusion: Any) -> Experiment:
    return check_experiment(sections(world, run, kind, **fusion), "test")


def language_model(model: torch.nn.Module) -> LanguageModel:
    (found,) = (module for module in model.modules() if isinstance(module, LanguageModel))
    return found


@pytest.mark.parametrize(
    ("kind", "fusion", "changed"),
    [
        ("gpt2", {"projector": "linear"}, ()),
        ("gpt2", {"tuned": 1}, ("model.h.1.",)),
        ("gpt2", {"tuned": True}, ("model.",)),
        ("bert", GATED, ()),
        ("bert", GATED | {"tuned": 1}, ("model.encoder.layer.1.",)),
    ],
    ids=["frozen", "last layer", "whole", "gated, frozen", "gated, last layer"],
)
def test_training_changes_what_is_tuned_and_a_run_holds_that_alone(
    world: Path, kind: str, fusion: dict[str, Any], changed: tuple[str, ...]
) -> None:
    name = "-".join(map(str, ("run", kind, *fusion.values())))
    shutil.copytree(world / kind, world / name)
    first = hf_text_encoder(f"hf:{world / name}").transformer.state_dict()
    path = train(plan(world, name, name, **fusion)).path
    _, _, recorded = open_run(path)
    assert recorded["question_encoder"]["weights_sha256"] == hf_text_encoder(f"hf:{world / name}").weights_sha256
    run = load_run(path)
    after = language_model(run.model).whole.state_dict()
    moved = {key for key in after if not torch.equal(after[key], first[key])}
    assert moved == {key for key in after if key.startswith(changed)}
    with safe_open(path / "model.safetensors", "pt") as saved:
        held = [key for key in saved.keys() if ".language_model." in key]  # noqa: SIM118, it is no mapping
    assert len(held) == len(moved)
    before = evaluate_loaded(run, "val")
    assert before.questions.vectors is None
    if fusion.get("tuned") is True:
        shutil.rmtree(world / name)  # the run has all that it needs
    again = evaluate_loaded(load_run(path), "val")
    np.testing.assert_array_equal(again.predicted.probability_NK, before.predicted.probability_NK)
    if fusion.get("tuned") is not True:
        save_language_model(world / name, kind, seed=3)
        with pytest.raises(InputError, match="was trained with other weights of hf:"):
            load_run(path)


@pytest.mark.parametrize("tuned", [False, 1])
def test_an_interrupted_run_goes_on_exactly(world: Path, tuned: bool | int) -> None:
    whole = train(plan(world, f"whole-{tuned}", tuned=tuned)).model.read_bytes()
    chosen = plan(world, f"parts-{tuned}", tuned=tuned)
    with interrupted_after(2), pytest.raises(InterruptedRunError, match="stopped in epoch 1"):
        train(chosen)
    assert train(chosen, resume=True).model.read_bytes() == whole


@pytest.mark.parametrize("tuned", [False, 1, True])
def test_models_trained_together_share_no_trained_weight(world: Path, tuned: bool | int) -> None:
    plans = [plan(world, f"{how}-{tuned}", projector=how, tuned=tuned) for how in ("linear", "mlp")]
    alone = [train(chosen.model_copy(update={"name": f"alone-{chosen.name}"})).model.read_bytes() for chosen in plans]
    assert not train_together(plans, "again")
    assert [RunFolder(chosen.folder).model.read_bytes() for chosen in plans] == alone


def test_its_last_layers_have_a_learning_rate_of_their_own_and_first_ranges_leave_them_alone(world: Path) -> None:
    chosen = sections(world, "rates", tuned=1)
    chosen["training"] = chosen["training"] | {
        "initial_range": 0.001,
        "optimizer": {"learning_rate": 0.01, "parts": {"fusion.language_model": {"learning_rate": 1e-9}}},
    }
    experiment = check_experiment(chosen, "test")
    prepared = prepare(experiment)
    model = make_model(experiment, prepared.words, prepared.answers, 4, 6, prepared.text_encoder)
    before = {key: value.clone() for key, value in language_model(model).whole.state_dict().items()}
    initialise_uniform(model, 0.001)
    assert float(model.fusion.get_parameter("projector.0.weight").detach().abs().max()) <= 0.001
    after = language_model(load_run(train(experiment).path).model).whole.state_dict()
    assert max(float((after[key] - before[key]).abs().max()) for key in before) < 1e-6


def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Call `main` as the console script does; returns the exit status and everything that was printed."""
    monkeypatch.setattr(sys, "argv", ["vqa", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        vqa.cli.main()
        raise SystemExit(0)
    out, err = capfd.readouterr()
    return int(ended.value.code or 0), out + err


def save_vision_encoder(folder: Path) -> None:
    """A tiny CLIP with random weights, 16 patches of an image of 32 pixels."""
    torch.manual_seed(0)
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(text_config=tiny, vision_config=tiny | {"image_size": 32, "patch_size": 8})
    transformers.CLIPModel(config).save_pretrained(folder)
    stated = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(stated), encoding="utf-8")


def test_patches_and_a_language_model_from_the_command_line(
    world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    save_vision_encoder(world / "clip")
    save_language_model(world / "longer", "gpt2", longest=48)
    file, run, cache = world / "cli.yaml", world / "runs/cli/0", world / "patches.h5"
    written = sections(world, "cli", "longer") | {"features": {"cache": str(cache)}}
    file.write_text(yaml.safe_dump(written), encoding="utf-8")

    def refused(*arguments: object) -> str:
        status, said = command(monkeypatch, capfd, *arguments)
        assert status == 2, said
        return " ".join(said.split())

    def call(*arguments: object) -> str:
        status, said = command(monkeypatch, capfd, *arguments)
        assert status == 0, said
        return " ".join(said.split())

    call(
        "features", "extract", "--data", world / "data", "--format", "vqa_v2", "--split", "train", "--split", "val",
        "--encoder", f"hf:{world / 'clip'}", "--image-size", 32, "--out", cache,
    )  # fmt: skip
    said = call("describe", file)
    assert "z = last hidden state of LM(u, e_1 ... e_T), at the last real token" in said
    assert "frozen, run with every image and question" in call("train", file)
    assert "Open-ended" in call("evaluate", run)
    image = next(path for path in sorted((world / "data").rglob("*")) if path.suffix in (".png", ".jpg"))
    call("predict", run, image, "how many circles are there?", "--json", world / "answer.json")
    answers = json.loads((world / "answer.json").read_text(encoding="utf-8"))
    assert answers

    said = refused("train", file, "question_encoder.words=outputs")
    assert "override 'question_encoder.words=outputs'" in said and "words: embeddings" in said

    def with_model(kind: str) -> list[str]:
        return [f"question_encoder.name=hf:{world / kind}", "question_encoder.words=embeddings", "name=other"]

    for verb in ("train", "describe"):
        assert "BertModel is no causal language model" in refused(verb, file, *with_model("bert"))
    assert "config.json cannot be had" in refused("train", file, *with_model("none"))
    shorter = refused("train", file, *with_model("gpt2"))
    assert "more than the 24 that the language model has positions for" in shorter


@pytest.mark.parametrize("fusion", LANGUAGE_FUSIONS)
def test_a_question_encoder_of_ones_own_is_refused_before_anything_is_loaded(world: Path, fusion: str) -> None:
    with pytest.raises(InputError, match=r"must be {name: hf:NAME_OR_PATH, words: embeddings}, not {name: lstm}"):
        check_experiment(values(world, world / "runs") | {"fusion": {"name": fusion}}, "test")


@pytest.mark.parametrize("tuned", [False, 1, True])
def test_what_is_frozen_is_counted_as_weights_and_not_as_activations(world: Path, tuned: bool | int) -> None:
    experiment, sizes = (
        plan(world, "needs", tuned=tuned),
        ModelSizes(words=2, answers=9, tokens=5, regions=4, channels=6),
    )
    model = hf_text_encoder(f"hf:{world / 'gpt2'}").transformer
    whole = 4 * sum(parameter.numel() for parameter in model.parameters())
    layer = 4 * sum(parameter.numel() for parameter in model.model.h[1].parameters())
    needs = find_needs(experiment, sizes, 2)
    assert needs.frozen == (0 if tuned is True else whole - layer if tuned else whole)
    described = describe(experiment, SizeOptions(words=2, answers=9, tokens=5, regions=4, channels=6))
    projector = 4 * (6 * 16 + 16 + 16 * 16 + 16)
    assert needs.gradients == projector + 4 * described.parts[2].parameters + whole - needs.frozen
    most = find_needs(plan(world, "needs", tuned=True), sizes, 2).activations
    assert 0 < needs.activations <= most  # weights that are frozen are no activations
    assert described.memory["weights"] == needs.weights + needs.frozen
