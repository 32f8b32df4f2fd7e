"""The image encoder trained with the model, end to end."""

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.training import all_images, experiment, folder_bytes, interrupted_after, values
from torch import Tensor

from vqa.data.formats import read_dataset
from vqa.data.images import STATED
from vqa.data.synthetic import generate_dataset
from vqa.errors import InputError, InterruptedRunError
from vqa.experiment import Experiment, check_experiment
from vqa.features.encoders.registry import ImageEncoder
from vqa.features.extraction.extract import extract
from vqa.features.tables import pixel_table as image_table
from vqa.features.tables.pixel_table import PixelTable
from vqa.models import Image
from vqa.runs.answerer import Answerer
from vqa.runs.evaluate import EvaluationOptions, evaluate_run
from vqa.runs.load import load_run
from vqa.training.inputs.batches import batches_by_image
from vqa.training.inputs.prepare import prepare
from vqa.training.inputs.tuned_encoder import encoder_to_tune
from vqa.training.model import TunedModel, make_model
from vqa.training.predict import predict
from vqa.training.run_folder import RunFolder
from vqa.training.together import train_together
from vqa.training.train import train

SIDE = 32
TUNED = {
    "cache": [], "tune": True, "encoder": "squeezenet1_1", "layer": "features.4", "image_size": SIDE,
    "weights": "random",
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    generate_dataset(folder / "data", 40, 0, "real", 64)
    return folder


def tuned(world: Path, runs: Path, tune_from: str = "features.3", **changes: Any) -> Experiment:
    return experiment(world, runs, features=TUNED | {"tune_from": tune_from}, **changes)


def weights_of(path: Path) -> dict[str, Tensor]:
    run = load_run(path)
    assert isinstance(run.model, TunedModel)
    return dict(run.model.image_encoder.state_dict())


def test_what_is_tuned_moves_and_what_is_not_stays(world: Path, tmp_path: Path) -> None:
    setup = tuned(world, tmp_path)
    before = encoder_to_tune(setup)
    assert before is not None
    after = weights_of(train(setup).path)
    moved = {name for name, value in before.state_dict().items() if not torch.equal(value, after[name])}
    assert moved and all(name.startswith(("network.features.3", "network.features.4")) for name in moved)
    assert {name for name, _ in before.named_parameters() if name.startswith("network.features.4")} <= moved


def test_a_rate_of_its_own_for_the_image_encoder(world: Path, tmp_path: Path) -> None:
    optimizer = {"learning_rate": 0.01, "parts": {"image_encoder": {"learning_rate": 1e-12}}}
    setup = tuned(world, tmp_path, "all", training={"epochs": 1, "optimizer": optimizer})
    before = encoder_to_tune(setup)
    assert before is not None
    after = weights_of(train(setup).path)
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after[name], value, atol=1e-9, rtol=0)


def test_a_gradient_reaches_the_first_layer_as_through_the_whole_written_out(world: Path, tmp_path: Path) -> None:
    setup = tuned(world, tmp_path, "all")
    prepared = prepare(setup)
    assert prepared.encoder is not None
    torch.manual_seed(0)
    sizes = (prepared.features.regions, prepared.features.channels)
    model = make_model(setup, prepared.words, prepared.answers, *sizes, encoder=prepared.encoder).eval()
    questions = prepared.train_questions
    batch = batches_by_image(questions, 8, 0, 0)[0]
    rows_B = batch.image_rows(questions)
    tokens = batch.tokens(questions)
    model(prepared.features.gather(rows_B), *tokens).logits_BA.square().sum().backward()
    first = prepared.encoder.network.get_parameter("features.0.weight")
    assert first.grad is not None
    found, first.grad = first.grad.clone(), None
    assert isinstance(prepared.features, PixelTable) and prepared.features.pixels_N3SS is not None
    pixels = prepared.encoder.normalise(prepared.features.pixels_N3SS[rows_B])  # a copy of the image a question
    image_BRC = prepared.encoder.network(pixels)["output"].flatten(2).transpose(1, 2)
    model(Image(image_BRC), *tokens).logits_BA.square().sum().backward()
    assert found.abs().max() > 0
    torch.testing.assert_close(found, first.grad, rtol=1e-4, atol=1e-6)


def test_with_nothing_tuned_the_logits_are_those_of_cached_features(world: Path, tmp_path: Path) -> None:
    setup = tuned(world, tmp_path)
    encoder = encoder_to_tune(setup)
    assert encoder is not None
    extract(all_images(world / "data"), encoder, tmp_path / "cache.h5")
    cached = experiment(world, tmp_path, features={"cache": str(tmp_path / "cache.h5")})
    found = []
    for some in (setup, cached):
        prepared = prepare(some)
        torch.manual_seed(0)
        sizes = (prepared.features.regions, prepared.features.channels)
        model = make_model(some, prepared.words, prepared.answers, *sizes, encoder=prepared.encoder)
        assert prepared.val_questions is not None
        found.append(predict(model, prepared.val_questions, prepared.features, prepared.machine, best=3))
    np.testing.assert_array_equal(found[0].answer_NK, found[1].answer_NK)
    np.testing.assert_allclose(found[0].probability_NK, found[1].probability_NK, atol=1e-4)  # a cache stores float16


def test_a_image_is_encoded_once_a_batch(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = ImageEncoder.encode

    def counted(self: ImageEncoder, image_B3SS: Tensor) -> Tensor:
        encoded.append(len(image_B3SS))
        assert len({image.numpy().tobytes() for image in image_B3SS}) == len(image_B3SS)
        return encode(self, image_B3SS)

    setup = tuned(world, tmp_path, training={"epochs": 1, "batch_size": 24})
    prepared = prepare(setup)
    todo = batches_by_image(prepared.train_questions, 24, setup.seed, 0)
    expected = [len(batch.image_rows(prepared.train_questions).unique()) for batch in todo]
    monkeypatch.setattr(ImageEncoder, "encode", counted)
    train(setup)
    assert encoded[: len(todo)] == expected
    assert sum(expected) < len(prepared.train_questions) / 2
    # only an image at either end of a batch may be in two
    assert sum(expected) <= len(prepared.train.images.ids) + len(todo)
    assert prepared.val is not None
    assert sum(encoded[len(todo) :]) == len(prepared.val.images.ids)


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_images_of_a_batch(world: Path, tmp_path: Path, size: int) -> None:
    """Each question is in one share, shares are alike in size, and only images at their ends are in two."""
    questions = prepare(tuned(world, tmp_path)).train_questions
    for batch in batches_by_image(questions, 25, 0, 0):
        parts = [batch.share(rank, size)[0] for rank in range(size)]
        assert torch.cat([part.host_index_B for part in parts]).equal(batch.host_index_B)
        assert torch.cat([part.index_B for part in parts]).equal(batch.index_B)
        assert max(len(part.index_B) for part in parts) - min(len(part.index_B) for part in parts) <= 1
        images = sum(len(part.image_rows(questions).unique()) for part in parts)
        assert images <= len(batch.image_rows(questions).unique()) + size - 1


def test_the_images_of_every_process_must_fit(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process decodes images for itself: what fits once need not fit four times."""
    plan = tuned(world, tmp_path)
    images = read_dataset("vqa_v2", world / "data", "train").images
    encoder = encoder_to_tune(plan)
    assert encoder is not None
    size = len(images.ids) * 3 * SIDE**2
    monkeypatch.setattr(image_table, "available_memory", lambda: 2 * size)
    found = []
    for processes in ("1", "4"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        found.append(PixelTable(images, encoder, torch.device("cpu")))
    assert [table.residency for table in found] == ["host", "disk"]
    assert "for each of 4 processes" in found[1].reason
    with pytest.raises(InputError, match=r"needs .* GB for each of 4 processes"):
        PixelTable(images, encoder, torch.device("cpu"), "host")


def test_batches_by_image_are_every_question_once_in_an_order_of_seed_and_epoch(world: Path, tmp_path: Path) -> None:
    questions = prepare(tuned(world, tmp_path)).train_questions

    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat([batch.host_index_B for batch in batches_by_image(questions, 16, seed, epoch)]).tolist()

    assert sorted(order(0, 0)) == list(range(len(questions)))
    assert order(0, 1) == order(0, 1) != order(0, 0) != order(1, 0)
    images = questions.image_row_N[order(0, 3)].tolist()
    changes = sum(here != there for here, there in pairwise(images))
    assert changes == len(set(images)) - 1
    for batch in batches_by_image(questions, 16, 0, 0):
        assert batch.longest == int(questions.length_N[batch.host_index_B].max())


def test_residencies_give_the_same_batches(world: Path, tmp_path: Path) -> None:
    encoder = encoder_to_tune(tuned(world, tmp_path))
    assert encoder is not None
    images = read_dataset("vqa_v2", world / "data", "val").images
    rows = [torch.tensor([0, 3, 3, 1]), torch.tensor([2, 2]), torch.tensor([5])]
    tables = [PixelTable(images, encoder, torch.device("cpu"), residency) for residency in ("host", "disk")]
    for row_B, host, disk in zip(rows, *(table.stream(rows) for table in tables), strict=True):
        assert torch.equal(host.pixels_U3SS, disk.pixels_U3SS) and torch.equal(host.place_B, disk.place_B)
        whole = torch.stack([encoder.load_image(images.paths[row]) for row in row_B.tolist()])
        assert torch.equal(host.pixels_U3SS[host.place_B], whole) and len(host.pixels_U3SS) == len(row_B.unique())
    with pytest.raises(InputError, match="kept on the host or read from disk"):
        PixelTable(images, encoder, torch.device("cpu"), "device")


def test_evaluate_and_predict_use_the_tuned_encoder(world: Path, tmp_path: Path) -> None:
    folder = train(tuned(world, tmp_path, "all", training={"epochs": 2}))
    evaluation = evaluate_run(folder.path, "val")
    own = evaluation.judgement.own.open_ended
    assert own is not None and own.overall == json.loads(folder.finished.read_text())["best_val_open_ended"]
    assert "then tuned with the model" in (folder.path / "report.html").read_text()
    answerer = Answerer.load(folder.path)
    dataset = evaluation.dataset
    for row in (0, 7, 19):
        said = answerer.answer(dataset.images.paths[dataset.image_row_N[row]], dataset.question.at(row)).best
        ids = evaluation.predicted.answer_NK[row].tolist()
        assert [text for text, _ in said] == [answerer.run.answers.answers[i] for i in ids]
        np.testing.assert_allclose([p for _, p in said], evaluation.predicted.probability_NK[row], atol=1e-5)
    with pytest.raises(InputError, match="so it reads images; leave out --cache"):
        evaluate_run(folder.path, "val", EvaluationOptions(caches=[tmp_path / "cache.h5"]))
    with pytest.raises(InputError, match="trained on"):
        evaluate_run(folder.path, "train")


@pytest.mark.parametrize("pooler", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_vision_tower_of_transformers_is_tuned_and_brought_back(world: Path, tmp_path: Path, pooler: bool) -> None:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    text_encoder = tmp_path / "vit"
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(**sizes, image_size=SIDE, patch_size=16), add_pooling_layer=pooler).save_pretrained(text_encoder)
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(text_encoder)
    features = {
        "cache": [],
        "tune": True,
        "encoder": f"hf:{text_encoder}",
        "image_size": SIDE,
        "tune_from": "model.layers.1",
    }
    setup = experiment(world, tmp_path, features=features, training={"epochs": 1, "precision": "bfloat16"})
    before = encoder_to_tune(setup)
    assert before is not None
    folder = train(setup)
    after = weights_of(folder.path)
    assert list(after) == list(before.state_dict())
    moved = {name for name, value in before.state_dict().items() if not torch.equal(value, after[name])}
    assert moved and all("layers.1." in name or "layernorm" in name for name in moved)
    own = evaluate_run(folder.path, "val", report=False).judgement.own.open_ended
    assert own is not None and own.overall == json.loads(folder.finished.read_text())["best_val_open_ended"]


def test_copies_of_training_images_are_found(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "data", tmp_path / "data")
    train_paths, val_paths = (
        read_dataset("vqa_v2", tmp_path / "data", split).images.paths for split in ("train", "val")
    )
    folder = train(tuned(tmp_path, tmp_path / "runs", training={"epochs": 1}))
    for source, target in zip(train_paths, val_paths, strict=False):
        shutil.copy(source, target)
    with pytest.raises(InputError, match="copies of training images"):
        evaluate_run(folder.path, "val")


def test_resuming_is_exact(world: Path, tmp_path: Path) -> None:
    whole = train(tuned(world, tmp_path / "whole", "all", name="same"))
    broken = tuned(world, tmp_path / "broken", "all", name="same")
    with interrupted_after(3), pytest.raises(InterruptedRunError, match="stopped in epoch 1"):
        train(broken)
    resumed = train(broken, resume=True)
    assert resumed.model.read_bytes() == whole.model.read_bytes()


def test_a_run_that_began_before_decodings_were_stated_goes_on_as_it_began(world: Path, tmp_path: Path) -> None:
    for name, go_on in (("alone", lambda plan: train(plan, resume=True)), ("together", go_on_together)):
        plan = tuned(world, tmp_path, name=name, training={"epochs": 1})
        with interrupted_after(1), pytest.raises(InterruptedRunError):
            train(plan)
        record = RunFolder(plan.folder).experiment
        content = yaml.safe_load(record.read_text())
        for key in STATED:
            del content["recorded"]["features"]["preprocessing"][key]
        record.write_text(yaml.safe_dump(content))
        go_on(plan)
        assert RunFolder(plan.folder).finished.is_file()
        preprocessing = yaml.safe_load(record.read_text())["recorded"]["features"]["preprocessing"]
        assert not set(STATED) & set(preprocessing)


def go_on_together(plan: Experiment) -> None:
    assert train_together([plan], "again") == {}


@pytest.mark.slow
def test_models_trained_together_tune_encoders_of_their_own(world: Path, tmp_path: Path) -> None:
    def setups(runs: Path) -> list[Experiment]:
        return [tuned(world, runs, seed=seed, training={"epochs": 1, "order_seed": 5}) for seed in (0, 1)]

    assert train_together(setups(tmp_path / "together"), "again") == {}
    for alone, together in zip(setups(tmp_path / "alone"), setups(tmp_path / "together"), strict=True):
        assert train(alone).model.read_bytes() == RunFolder(together.folder).model.read_bytes()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"cache": []}, "needs features.cache with at least 1 item, or `tune: true`"),
        ({"cache": ["x.h5"], "tune": True, "encoder": "squeezenet1_1"}, "leave out the cache"),
        ({"cache": [], "tune": True}, "needs the encoder to train"),
        (TUNED | {"standardise": True}, "standardise is for cached features"),
        ({"cache": ["x.h5"], "tune_from": "features.3"}, "tune_from is for `tune: true`"),
    ],
)
def test_experiments_that_contradict_themselves(
    world: Path, tmp_path: Path, features: dict[str, Any], message: str
) -> None:
    plain = values(world, tmp_path) | {"features": features}
    with pytest.raises(InputError, match=message):
        check_experiment(plain, "test")


def test_a_part_that_the_encoder_does_not_have(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"features\.tune_from: .*features\.9.*features\.3"):
        train(tuned(world, tmp_path, "features.9"))
    assert folder_bytes(tmp_path) == {}


def test_a_fusion_that_needs_boxes_is_told_that_a_tuned_encoder_has_none(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^features\.tune \(.*gives no boxes\): this fusion asks where the regions"):
        train(tuned(world, tmp_path, fusion={"name": "graph"}))
    assert folder_bytes(tmp_path) == {}


def test_images_that_are_missing_are_named_before_anything_is_written(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "data", tmp_path / "data")
    paths: Sequence[Path] = read_dataset("vqa_v2", tmp_path / "data", "val").images.paths
    paths[2].unlink()
    with pytest.raises(InputError, match=paths[2].name):
        train(tuned(tmp_path, tmp_path / "runs"))
    assert not RunFolder(tmp_path / "runs").path.exists()
