"""A run with a pretrained question encoder, from training to a single answer, frozen and tuned."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.language import save_language_model
from helpers.training import interrupted_after, make_world, values

from vqa.errors import InputError, InterruptedRunError
from vqa.experiment import Experiment, check_experiment
from vqa.features.encoders.text_encoders import hf_text_encoder
from vqa.models import Image, initialise_uniform
from vqa.runs.evaluate import Evaluation, evaluate_loaded
from vqa.runs.load import TrainedRun, load_run
from vqa.training.inputs.prepare import prepare
from vqa.training.model import make_model
from vqa.training.run_folder import RunFolder, open_run
from vqa.training.together import train_together
from vqa.training.train import train

PAIR = (("first", {"name": "question_only"}), ("second", {"name": "product", "fusion_dim": 8}))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_world(tmp_path_factory.mktemp("world"))
    save_language_model(folder / "bert")
    return folder


def plan(world: Path, name: str, kind: str = "bert", **encoder: Any) -> Experiment:
    section = {"name": f"hf:{world / kind}", **encoder}
    return check_experiment(values(world, world / "runs", name=name) | {"question_encoder": section}, "test")


def alone(run: TrainedRun, evaluation: Evaluation, row: int) -> np.ndarray:
    """The probabilities of one question's answers, by way of its tokens."""
    tokens = run.tokenizer.encode(evaluation.dataset.question.at(row))
    image = evaluation.features.gather(evaluation.questions.image_row_N[row : row + 1])
    assert isinstance(image, Image)
    with torch.inference_mode():
        logits_1A = run.model(image, torch.tensor([tokens]), torch.tensor([len(tokens)])).logits_BA
    return logits_1A[0].softmax(dim=0).numpy()


@pytest.mark.parametrize(
    ("kind", "tuned", "pooling"),
    [("bert", False, "pooled"), ("bert", True, "first"), ("clip", False, "mean"), ("t5", True, "mean")],
)
def test_from_training_to_an_answer(world: Path, kind: str, tuned: bool, pooling: str) -> None:
    folder = world / f"{kind}-{tuned}"
    save_language_model(folder, kind)
    chosen = plan(world, folder.name, folder.name, tuned=tuned, pooling=pooling)
    path = train(chosen).path
    size = (path / "model.safetensors").stat().st_size
    _, _, recorded = open_run(path)
    assert recorded["question_encoder"]["weights_sha256"] == hf_text_encoder(f"hf:{folder}").weights_sha256
    first = evaluate_loaded(load_run(path), "val")
    if tuned:
        shutil.rmtree(folder)  # the run has all that it needs
    elif kind == "bert":
        assert size < 40_000  # no weight of the language model is in it
    run = load_run(path)
    evaluation = evaluate_loaded(run, "val")
    assert (evaluation.questions.vectors is None) == tuned
    np.testing.assert_array_equal(evaluation.predicted.probability_NK, first.predicted.probability_NK)
    for row in range(0, len(evaluation.dataset), 9):
        best = np.sort(alone(run, evaluation, row))[::-1][: evaluation.predicted.probability_NK.shape[1]]
        np.testing.assert_allclose(best, evaluation.predicted.probability_NK[row], rtol=5e-3)
    assert run.tokenizer.unknown("xylophone") == ()


def test_frozen_outputs_are_computed_once_for_all_that_follows(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(plan(world, "once"))
    files = sorted((world / "questions").rglob("*.h5"))
    assert prepared.val is not None
    both = {*prepared.train.question.distinct, *prepared.val.question.distinct}
    assert files and prepared.text_encoder is not None and len(both) > 50

    def never(*arguments: Any) -> None:
        raise AssertionError("the language model ran again")

    monkeypatch.setattr("vqa.features.extraction.question_vectors.frozen_vectors", never)
    monkeypatch.setattr("vqa.models.question_encoders.pretrained.frozen_vectors", never)
    train(plan(world, "once", pooling="last"))  # nothing depends on the pooling
    assert sorted((world / "questions").rglob("*.h5")) == files


def test_tuned_weights_move_at_their_own_rate(world: Path) -> None:
    before = hf_text_encoder(f"hf:{world / 'bert'}").transformer.state_dict()
    moved = {}
    for rate in (0.01, 0.001):
        chosen = plan(world, f"rate{rate}", tuned=True).resolved()
        chosen["training"]["optimizer"]["parts"] = {"question_encoder.transformer": {"learning_rate": rate}}
        run = load_run(train(check_experiment(chosen, "test")).path)
        after = run.model.question_encoder.get_submodule("transformer").state_dict()
        moved[rate] = max(float((after[key] - before[key]).abs().max()) for key in after)
    assert 0 < moved[0.001] < 0.5 * moved[0.01]


@pytest.mark.parametrize("tuned", [False, True])
def test_models_trained_together_share_no_weight(world: Path, tuned: bool) -> None:
    plans = [plan(world, f"{how}-{tuned}", tuned=tuned).model_copy(update={"fusion": fusion}) for how, fusion in PAIR]
    alone = [train(chosen.model_copy(update={"name": f"alone-{chosen.name}"})).model.read_bytes() for chosen in plans]
    assert not train_together(plans, "again")
    assert [RunFolder(chosen.folder).model.read_bytes() for chosen in plans] == alone


def test_an_interrupted_tuned_run_goes_on_exactly(world: Path) -> None:
    whole = train(plan(world, "whole", tuned=True)).model.read_bytes()
    chosen = plan(world, "parts", tuned=True)
    with interrupted_after(2), pytest.raises(InterruptedRunError, match="stopped in epoch 1"):
        train(chosen)
    assert train(chosen, resume=True).model.read_bytes() == whole


def test_changed_weights_are_refused(world: Path) -> None:
    save_language_model(world / "changing")
    path = train(plan(world, "changing", "changing")).path
    save_language_model(world / "changing", seed=3)
    with pytest.raises(InputError, match="was trained with other weights of hf:") as caught:
        load_run(path)
    assert "question_encoder.name" in str(caught.value) and str(path) in str(caught.value)
    shutil.rmtree(world / "changing")
    with pytest.raises(InputError, match="weights cannot be had"):
        load_run(path)


def test_uniform_initialisation_leaves_the_language_model_alone(world: Path) -> None:
    chosen = plan(world, "uniform", tuned=True)
    prepared = prepare(chosen)
    model = make_model(chosen, prepared.words, prepared.answers, 4, 6, prepared.text_encoder)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    initialise_uniform(model, 1e-4)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith("question_encoder."), key


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"name": "hf:"}, "unknown question_encoder 'hf:'"),
        ({"name": "hf"}, "hf:NAME_OR_PATH"),
        ({"name": "hf:x", "pooling": "max"}, "pooling must be one of 'mean', 'first', 'last', 'pooled'"),
        ({"name": "hf:x", "hidden_dim": 3}, "option of question_encoder 'hf:x'"),
        ({"name": "hf:x", "tuned": 1}, "tuned must be bool"),
        ({"name": "hf:x", "transformer": "y"}, "cannot be set"),
    ],
)
def test_a_wrong_section_is_refused_before_anything_is_loaded(world: Path, section: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_experiment(values(world, world / "runs") | {"question_encoder": section}, "test")


def test_word_vectors_beside_a_pretrained_encoder_are_refused(world: Path) -> None:
    changed = {"question_encoder": {"name": "hf:x"}, "words": {"vectors": "glove.txt"}}
    with pytest.raises(InputError, match="has word vectors of its own"):
        check_experiment(values(world, world / "runs") | changed, "test")


def test_a_longest_question_beside_a_pretrained_encoder_is_refused(world: Path) -> None:
    changed = {"question_encoder": {"name": "hf:x"}, "words": {"longest": 14}}
    with pytest.raises(InputError, match=r"words\.longest: a pretrained question encoder has a longest question"):
        check_experiment(values(world, world / "runs") | changed, "test")


def test_a_resolved_section_reads_back_equal(world: Path) -> None:
    chosen = plan(world, "resolved", tuned=True)
    assert check_experiment(chosen.resolved(), "again") == chosen
    assert chosen.question_encoder == {
        "name": f"hf:{world / 'bert'}",
        "tuned": True,
        "pooling": "mean",
        "words": "outputs",
    }
