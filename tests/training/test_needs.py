"""What is too large is refused before it is built, with the keys to lower; and memory that ends is one sentence."""

import inspect
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.models import sampled
from helpers.training import assert_same_run, experiment, make_world, values

from vqa.errors import InputError
from vqa.experiment import Experiment, check_experiment
from vqa.models import FUSIONS, QUESTION_ENCODERS
from vqa.models.model import SIZES
from vqa.planning.describe import describe
from vqa.planning.sizes import SizeOptions
from vqa.runtime import memory
from vqa.studies.ablation import ablate
from vqa.training import train as loop
from vqa.training.needs import ModelSizes, build_on_meta, find_needs, require_room
from vqa.training.optimise import make_optimizer
from vqa.training.run_folder import RunFolder
from vqa.training.together import train_together
from vqa.training.train import train

CPU = torch.device("cpu")
SMALL = ModelSizes(words=60, answers=40, tokens=6, regions=4, channels=24)
# their limits follow from other options, or no memory from them
NO_SIZES = {("block", "chunks"), ("mcan", "heads"), ("transformer", "heads"), ("co_attention", "levels")}
NO_SIZES |= {("bow", "top_words"), ("bow", "top_first_words"), ("block", "fusion_dim"), ("gru", "padded_to")}
NO_SIZES |= {("single_stream", "heads")}
NO_SIZES |= {("single_stream", "heads"), ("two_stream", "heads")}
NO_SIZES |= {("single_stream", "heads"), ("two_stream", "heads"), ("resampler", "heads")}
NO_SIZES |= {("single_stream", "heads"), ("two_stream", "heads"), ("resampler", "heads"), ("mmnasnet", "heads")}
NO_SIZES |= {("bow", "top_words"), ("bow", "top_first_words"), ("block", "fusion_dim")}
NO_SIZES |= {("murel", key) for key in ("chunks", "cell_dim", "pair_dim", "fusion_dim")}
NO_SIZES |= {("graph", "heads"), ("block_tucker", "chunks"), ("block_tucker", "fusion_dim")}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def plan(**changes: Any) -> Experiment:
    return check_experiment(values(Path("nowhere"), Path("nowhere")) | changes, "test")


def counts() -> Iterator[tuple[str, str, str, bool]]:
    """Every whole number that a size follows from: part, class, option, and whether it is a list."""
    for part, table in (("question_encoder", QUESTION_ENCODERS), ("fusion", FUSIONS)):
        for name, constructor in table.items():
            for key, parameter in inspect.signature(constructor, eval_str=True).parameters.items():
                counted = "Annotated[int" in str(parameter.annotation)
                if counted and key not in SIZES[part] and (name, key) not in NO_SIZES:
                    yield part, name, key, "tuple" in str(parameter.annotation)


COUNTS = sampled(counts())


@pytest.mark.parametrize("huge", [10**9, *(pytest.param(size, marks=pytest.mark.slow) for size in (10**12, 2**62))])
@pytest.mark.parametrize(("part", "name", "key", "many"), COUNTS)
def test_every_option_that_is_too_large_is_refused_and_named(
    part: str, name: str, key: str, many: bool, huge: int
) -> None:
    started = time.perf_counter()
    with pytest.raises(InputError) as caught:
        large = {"name": name, key: [huge] * 3 if many else huge}
        require_room(plan(**{part: large}), SMALL, CPU, batch=8)
    said = str(caught.value)
    assert f"{part}.{key} (now {huge})" in said.partition("; lower ")[2], said
    assert ("training needs" in said and "main memory are free" in said) or said.startswith("the model has")
    assert time.perf_counter() - started < 8 and len(said) < 500


@pytest.mark.parametrize("key", ["score", "join"])
def test_an_option_of_a_part_inside_a_part_is_named(key: str) -> None:
    large = {"name": "attended", key: {"name": "mutan", "fusion_dim": 10**9}}
    with pytest.raises(InputError, match=rf"; lower fusion\.{key}\.fusion_dim \(now 1000000000\)"):
        require_room(plan(fusion=large), SMALL, CPU, batch=8)


def test_batches_and_answers_are_named_where_they_are_what_is_large() -> None:
    with pytest.raises(InputError, match=r"; lower training\.batch_size \(now 10000000000\)$"):
        require_room(plan(), SMALL, CPU, batch=10**10)
    with pytest.raises(InputError, match=r"; lower answers\.size \(now 100000000000\)$"):
        require_room(plan(), ModelSizes(60, 10**11, 6, 4, 24), CPU, batch=8)
    with pytest.raises(InputError, match=r"larger than any memory; lower training\.batch_size"):
        require_room(plan(), SMALL, CPU, batch=2**62)


def test_two_options_that_are_each_beyond_counting_are_both_named() -> None:
    large = plan(fusion={"name": "stacked_attention", "hops": 10**9, "attention_dim": 2**61})
    with pytest.raises(InputError) as caught:
        require_room(large, SMALL, CPU, batch=8)
    assert "fusion.hops (now 1000000000) and fusion.attention_dim" in str(caught.value) or (
        "fusion.attention_dim (now 2305843009213693952) and fusion.hops" in str(caught.value)
    )


@pytest.mark.parametrize("optimizer", [{"name": "adam"}, {"name": "sgd", "momentum": 0.9}, {"name": "rmsprop"}])
def test_the_count_is_that_of_the_model_built(optimizer: dict[str, Any]) -> None:
    made = plan(training={"optimizer": optimizer, "device": "cpu"})
    needs = find_needs(made, SMALL, batch=8)
    model = build_on_meta(made, SMALL).to_empty(device="cpu")
    tensors = make_optimizer(made.training.optimizer, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    tensors.step()
    state = [value for one in tensors.state.values() for value in one.values() if torch.is_tensor(value) and value.ndim]
    assert needs.weights == sum(value.nbytes for value in (*model.parameters(), *model.buffers()))
    assert needs.gradients == sum(parameter.nbytes for parameter in model.parameters())
    assert needs.optimiser == sum(value.nbytes for value in state)
    assert (
        needs.activations
        == describe(
            made.model_copy(update={"training": made.training.model_copy(update={"batch_size": 8})}),
            SizeOptions(60, 40, 6, 4, 24),
        ).memory["activations of a batch"]
    )


def test_what_fits_just_is_not_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = plan(training={"precision": "float32", "device": "cpu"})
    needed = find_needs(made, SMALL, batch=8).total
    for name in ("CONTROL_GROUPS", "OWN_GROUPS"):
        monkeypatch.setattr(memory, name, tmp_path / "none")
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(f"MemAvailable: {math.ceil(needed / 1024)} kB\n")
    require_room(made, SMALL, CPU, batch=8)
    (tmp_path / "meminfo").write_text(f"MemAvailable: {needed // 1024 - 1} kB\n")
    with pytest.raises(InputError, match=r"training needs .*; lower "):
        require_room(made, SMALL, CPU, batch=8)


def test_train_refuses_before_the_data_are_read_and_ablate_before_the_first_run(world: Path, tmp_path: Path) -> None:
    large = {"name": "product", "fusion_dim": 999999999999}
    said = r"training needs .* TB .* main memory are free; lower fusion\.fusion_dim \(now 999999999999\)$"
    made = experiment(world, tmp_path, fusion=large, data={"format": "vqa_v2", "root": str(tmp_path / "no_data")})
    with pytest.raises(InputError, match=said):
        train(made)
    base, file = tmp_path / "base.yaml", tmp_path / "ablation.yaml"
    base.write_text(yaml.safe_dump(values(world, tmp_path)))
    file.write_text(yaml.safe_dump({"name": "a", "base": str(base), "grid": {"fusion": ["product", large]}}))
    with pytest.raises(InputError, match=rf"ablation\.yaml \(product-fusion_dim|{said}"):
        ablate(file)
    assert not (tmp_path / "tiny").exists() and not (tmp_path / "a").exists()


def test_a_batch_larger_than_the_data_is_the_data(world: Path, tmp_path: Path) -> None:
    folder = train(experiment(world, tmp_path, training={"batch_size": 10**12, "epochs": 1}))
    assert folder.finished.is_file()


def test_describe_says_what_no_memory_holds() -> None:
    with pytest.raises(InputError, match=r"larger than any memory; lower fusion\.fusion_dim"):
        describe(plan(fusion={"name": "product", "fusion_dim": 2**62}), SizeOptions(60, 40, 6, 4, 24))
    with pytest.raises(InputError, match=r"5,000 weight tensors; lower question_encoder\.layers"):
        describe(plan(question_encoder={"name": "lstm", "layers": 10**8}), SizeOptions(60, 40, 6, 4, 24))


@pytest.mark.parametrize("together", [False, True])
def test_memory_that_ends_in_the_loop_is_one_sentence_and_what_was_saved_goes_on(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    made = experiment(world, tmp_path / "full", training={"epochs": 2})
    steps, step = loop.step_once, 0

    def step_or_full(*arguments: Any) -> None:
        nonlocal step
        step += 1
        if step == 4:
            torch.empty(10**14)
        steps(*arguments)

    with monkeypatch.context() as patch:
        for name, value in (("step_once", step_or_full), ("SAVE_EVERY", -1), ("READ_EVERY", 2)):
            patch.setattr(loop, name, value)
        if together:
            said = "\n".join(train_together([made], "vqa ablate").values())
        else:
            with pytest.raises(InputError) as caught:
                train(made)
            said = str(caught.value)
    assert said.startswith("tiny, seed 0: out of memory: 400.0 TB more were asked for; lower training.batch_size")
    assert str(made.folder) in said and "\n" not in said
    whole = experiment(world, tmp_path / "whole", training={"epochs": 2})
    assert_same_run(train(made, resume=True), train(whole))


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({"optimizer": {"learning_rate": 1e-300}}, 2),
        ({"schedule": {"warmup": 1e30}}, 2),
        ({"optimizer": {"name": "sgd", "learning_rate": 1e-30}}, 2),
        ({"optimizer": {"learning_rate": 0.01}, "schedule": {"name": "step", "factor": 1e-300, "every": 1}}, 1),
    ],
)
def test_weights_that_never_move_are_told(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], epochs: int
) -> None:
    made = experiment(world, tmp_path, training={"precision": "float32", "epochs": 2, **changes})
    folder = train(made)
    said = capsys.readouterr().out
    assert said.count("warning: tiny, seed 0: no weight moved in epoch") == 1
    assert f"moved in {'no epoch' if epochs == 2 else '1 of 2 epochs'}" in said
    assert f'"epochs_without_movement": {epochs}' in folder.finished.read_text()


def test_weights_that_move_are_not(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder: RunFolder = train(experiment(world, tmp_path))
    assert "warning" not in capsys.readouterr().out
    assert "without_movement" not in folder.finished.read_text()


@pytest.mark.parametrize("name", ["LooksAtNumbers", "MakesTensors", "NeedsSeveral"])
def test_parts_from_outside_that_cannot_be_run_without_data_are_trained(world: Path, tmp_path: Path, name: str) -> None:
    plan = experiment(world, tmp_path, fusion={"name": f"helpers.outside.on_data:{name}"})
    assert train(plan).finished.is_file()


def test_on_a_gpu_activations_are_told_and_not_refused(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its fused operations keep less than is counted on the meta device."""
    needs = find_needs(plan(), SMALL, 8)
    monkeypatch.setattr("vqa.training.needs.free_memory", lambda _: needs.total - needs.activations)
    with pytest.raises(InputError, match="activations of 8 questions"):
        require_room(plan(training={"precision": "float32"}), SMALL, CPU, batch=8)
    require_room(plan(training={"precision": "float32"}), SMALL, torch.device("cuda"), batch=8)
    assert "training may need" in capsys.readouterr().out
