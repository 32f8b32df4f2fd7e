"""`vqa describe`: its counts against `torch.utils.flop_counter`, against hand-made equivalents and by hand."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.language import KINDS, save_language_model
from helpers.training import make_world, values
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vqa.errors import InputError
from vqa.experiment import Experiment, OptimizerSection, check_experiment, read_experiment
from vqa.models import FUSIONS, LANGUAGE_FUSIONS, QUESTION_ENCODERS
from vqa.models.explain import explain
from vqa.planning.describe import Description, describe
from vqa.planning.operations import OperationCounter
from vqa.planning.show import print_description, write_description
from vqa.planning.sizes import SizeOptions, find_sizes
from vqa.testing.batches import image_for
from vqa.training.needs import build_on_meta
from vqa.training.optimise import make_optimizer, state_numbers

WORDS, ANSWERS, TOKENS, REGIONS, CHANNELS, BATCH = 50, 30, 5, 9, 24, 4
GIVEN = SizeOptions(WORDS, ANSWERS, TOKENS, REGIONS, CHANNELS, questions=1001, images=10)
WIDE = {"embedding_dim": 12, "hidden_dim": 16}


def plan(encoder: dict[str, Any] | None = None, fusion: dict[str, Any] | None = None, **changes: Any) -> Experiment:
    sections = {
        "question_encoder": encoder or {"name": "lstm_last", **WIDE},
        "fusion": fusion or {"name": "product", "fusion_dim": 20},
        "training": {"batch_size": BATCH, "epochs": 3},
    }
    base = values(Path("nowhere"), Path("nowhere")) | {"name": "tiny", "classifier": {}} | sections | changes
    return check_experiment(base, "test")


def flops_of(description: Description, kind: str) -> tuple[int, int]:
    part = next(part for part in description.parts if part.kind == kind)
    return part.forward_flops, part.training_flops


def counted(run: Callable[[], Tensor]) -> tuple[int, int]:
    """Per question, by torch's own counter: forward, and forward with backward."""
    with FlopCounterMode(display=False) as counter:
        output = run()
        forward = counter.get_total_flops()
        output.sum().backward()
    return forward // BATCH, counter.get_total_flops() // BATCH


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_counts_as_torch_counts(fusion: str) -> None:
    """The sum over the parts is what torch's counter finds for the whole model in one go."""
    experiment = plan(fusion={"name": fusion})
    model = build_on_meta(experiment, find_sizes(experiment, GIVEN))
    image = image_for(model.fusion, torch.empty(BATCH, REGIONS, CHANNELS, device="meta"))
    tokens_BT = torch.empty(BATCH, TOKENS, dtype=torch.int64, device="meta")
    forward, training = counted(lambda: model(image, tokens_BT, torch.full((BATCH,), TOKENS)).logits_BA)
    description = describe(experiment, GIVEN)
    assert (description.forward_flops, description.training_flops) == (forward, training)
    assert description.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("encoder", QUESTION_ENCODERS)
def test_every_question_encoder_counts_as_torch_counts(encoder: str) -> None:
    experiment = plan(encoder={"name": encoder}, fusion={"name": "question_only", "fusion_dim": 20})
    model = build_on_meta(experiment, find_sizes(experiment, GIVEN)).question_encoder
    tokens_BT = torch.empty(BATCH, TOKENS, dtype=torch.int64, device="meta")
    expected = counted(lambda: model(tokens_BT, torch.full((BATCH,), TOKENS)).sentence_BD)
    assert flops_of(describe(experiment, GIVEN), "question encoder") == expected


@pytest.mark.parametrize(("name", "gates"), [("lstm_last", 4), ("gru", 3)])
def test_recurrent_encoders_count_as_cells_in_a_loop(name: str, gates: int) -> None:
    """The cell of its definition written out as matrix products on real tensors, counted by torch."""
    width, hidden = WIDE["embedding_dim"], WIDE["hidden_dim"]
    weight = nn.Parameter(torch.randn(gates * hidden, width + hidden))
    embedding = nn.Embedding(WORDS, width)

    def loop() -> Tensor:
        state_BD = torch.zeros(BATCH, hidden)
        for word_BE in embedding(torch.ones(BATCH, TOKENS, dtype=torch.int64)).unbind(dim=1):
            sums = word_BE @ weight[:, :width].T + state_BD @ weight[:, width:].T
            state_BD = torch.tanh(sums).view(BATCH, gates, hidden).sum(dim=1)
        return state_BD

    forward, training = flops_of(describe(plan({"name": name, **WIDE}), GIVEN), "question encoder")
    assert forward == counted(loop)[0] == 2 * TOKENS * gates * hidden * (width + hidden)
    # backwards everything once more for the weights and once for the inputs, the first word's state being no input
    assert training == pytest.approx(3 * forward, rel=0.1) and training <= 3 * forward


def test_parts_inside_a_part_are_described(capsys: pytest.CaptureFixture[str]) -> None:
    score = {"name": "mutan", "rank": 2, "side_dim": 5, "fusion_dim": 6}
    experiment = plan(fusion={"name": "attended", "score": score, "join": "mcb", "glimpses": 3})
    description = describe(experiment, GIVEN)
    fusion = description.parts[1]
    assert [(one.key, one.name) for one in fusion.inside] == [("score", "mutan"), ("join", "mcb")]
    sides = 5 * (CHANNELS + 1) + 5 * (WIDE["hidden_dim"] + 1)
    assert [one.parameters for one in fusion.inside] == [sides + 2 * 2 * 5 * 6, 0]
    assert fusion.parameters == sides + 2 * 2 * 5 * 6 + 3 * 6
    assert fusion.inside[0].equations == explain(FUSIONS["mutan"]).equations and fusion.reads == "map"
    print_description(description, experiment)
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("reads: every region, so it can look", "options: score mutan, join mcb, glimpses 3", "score mutan:",
                  "z = sum_r (M_r q') * (N_r i')", "options: rank 2, side_dim 5, fusion_dim 6, normalise_image True",
                  "join mcb: compact bilinear pooling", "0 parameters"):  # fmt: skip
        assert words in printed
    assert describe(plan(), GIVEN).parts[1].reads == "mean" and describe(plan(), GIVEN).parts[0].reads is None


def test_stacked_attention_counts_as_its_equations() -> None:
    """The whole fusion by hand: every matrix product of its three equations, two FLOPs an element."""
    question, attention, hops = WIDE["hidden_dim"], 7, 3
    fusion = {"name": "stacked_attention", "hops": hops, "attention_dim": attention}
    project = REGIONS * CHANNELS * question
    hop = REGIONS * question * attention + question * attention + REGIONS * attention + REGIONS * question
    forward, _ = flops_of(describe(plan(fusion=fusion), GIVEN), "fusion")
    assert forward == 2 * (project + hops * hop)


def test_product_and_classifier_count_as_their_equations() -> None:
    description = describe(plan(classifier={"hidden": [6]}), GIVEN)
    weights = 20 * (CHANNELS + WIDE["hidden_dim"])
    # the image needs no gradient, so going backwards its side costs one product, the question's two
    backward = 20 * CHANNELS + 2 * 20 * WIDE["hidden_dim"]
    assert flops_of(description, "fusion") == (2 * weights, 2 * (weights + backward))
    assert flops_of(description, "classifier") == (2 * (20 * 6 + 6 * ANSWERS), 6 * (20 * 6 + 6 * ANSWERS))
    parameters = {part.kind: part.parameters for part in description.parts}
    assert parameters["fusion"] == weights + 2 * 20
    assert parameters["classifier"] == 20 * 6 + 6 + 6 * ANSWERS + ANSWERS


def test_a_baseline_that_never_reads_the_question_trains_no_encoder() -> None:
    forward, training = flops_of(describe(plan(fusion={"name": "image_only"}), GIVEN), "question encoder")
    assert forward == training > 0


def test_bytes_of_operations() -> None:
    """Read and written once each; a view, an empty tensor and a repeated element cost nothing."""
    one, two = torch.ones(3, 4), torch.ones(4, 5)
    with OperationCounter() as counter:
        product = one @ two.view(4, 5)
        torch.empty(100)
        product + torch.ones(()).expand(3, 5)
    found = {operation.name: operation.bytes for operation in counter.operations if operation.bytes}
    assert found["aten.mm"] == 4 * (12 + 20 + 15)
    assert found["aten.add"] == 4 * (15 + 1 + 15)
    assert counter.flops == 2 * 3 * 4 * 5


def test_activations_are_what_autograd_keeps() -> None:
    """Linear keeps its input, tanh its output, the product both factors; the dropouts here are off."""
    experiment = plan(fusion={"name": "product", "fusion_dim": 20, "dropout": 0.0, "normalise_image": False})
    fusion = next(part for part in describe(experiment, GIVEN).parts if part.kind == "fusion")
    assert fusion.activation_bytes == 4 * (CHANNELS + WIDE["hidden_dim"] + 20 + 20)


@pytest.mark.parametrize("name", ["adam", "adamw", "adamax", "rmsprop", "sgd"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_optimiser_state_is_what_torch_keeps(name: str, momentum: float) -> None:
    if momentum and name not in ("sgd", "rmsprop"):
        return
    model = nn.Linear(3, 2)
    section = OptimizerSection(name=name, momentum=momentum)  # type: ignore[arg-type]
    optimizer = make_optimizer(section, model)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)]
    assert sum(value.numel() for value in state if value.ndim) == state_numbers(section) * (3 * 2 + 2)


def test_shapes_memory_and_steps() -> None:
    description = describe(plan(fusion={"name": "multi_glimpse", "glimpses": 2, "attention_dim": 8}), GIVEN)
    assert description.shapes == {
        "image": (BATCH, REGIONS, CHANNELS),
        "tokens": (BATCH, TOKENS),
        "words": (BATCH, TOKENS, 16),
        "sentence": (BATCH, 16),
        "fused": (BATCH, 2 * CHANNELS + 16),
        "attention": (BATCH, 2, REGIONS),
        "logits": (BATCH, ANSWERS),
    }
    assert description.attention_name == "glimpse"
    assert (description.steps_per_epoch, description.steps) == (251, 753)
    assert description.memory["features"] == 2 * 10 * REGIONS * CHANNELS
    assert description.memory["optimiser state"] == 2 * 4 * description.parameters


def test_sizes_come_from_the_files_where_they_are(tmp_path: Path) -> None:
    from vqa.training.inputs.prepare import prepare

    world = make_world(tmp_path)
    experiment = check_experiment(values(world, tmp_path / "runs", training={"batch_size": 64}), "test")
    sizes, prepared = find_sizes(experiment, SizeOptions(answers=7)), prepare(experiment)
    assert (sizes.words, sizes.questions) == (len(prepared.words), len(prepared.train_questions))
    assert (sizes.regions, sizes.channels) == (prepared.features.regions, prepared.features.channels)
    assert prepared.val is not None
    assert sizes.images == len({*prepared.train.images.ids, *prepared.val.images.ids})
    assert sizes.answers == 7 and sizes.sources["answers"] == "given"
    assert sizes.sources["words"].startswith("counted in") and sizes.sources["regions"].endswith("cache.h5")


@pytest.mark.parametrize(
    ("recipe", "answers"),
    [("butd", 3129), ("ban", 3129), ("mcan_small", 3129), ("vis_lstm", 430), ("clevr_relation", 28)],
)
def test_a_recipe_is_described_with_as_many_answers_as_were_published(
    recipe: str, answers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no data is at hand
    sizes = find_sizes(read_experiment(Path(recipe)), SizeOptions())
    assert sizes.answers == answers and "published" in sizes.sources["answers"]


def test_without_files_sizes_are_published_or_assumed_and_say_so() -> None:
    experiment = plan(
        data={"format": "vqa_v2", "root": "nowhere"},
        features={"cache": "nowhere.h5", "encoder": "vgg16", "layer": "pool5", "image_size": 448},
        answers={"size": 3000},
    )
    sizes = find_sizes(experiment, SizeOptions())
    assert (sizes.questions, sizes.images, sizes.answers) == (443_757, 123_287, 3000)
    assert (sizes.regions, sizes.channels) == (196, 512)
    assert sizes.sources["words"].startswith("assumed") and sizes.sources["answers"] == "answers.size"
    with pytest.raises(InputError, match="give --regions and --channels"):
        find_sizes(plan(), SizeOptions())


def test_a_part_that_the_optimiser_cannot_find_is_named() -> None:
    optimizer = {"parts": {"fusoin": {"learning_rate": 1e-4}}}
    with pytest.raises(InputError, match=r"unknown part of the model 'fusoin' \(did you mean 'fusion'\?\)"):
        describe(plan(training={"batch_size": BATCH, "optimizer": optimizer}), GIVEN)


def test_the_recipe_ban_is_described_though_torch_has_changed_its_class() -> None:
    fusion = {"name": "ban", "glimpses": 2, "rank": 8, "released": True, "counter": 3}
    described = describe(plan(fusion=fusion), GIVEN).parts[1]
    assert (described.words, described.equations) == explain(FUSIONS["ban"]) and described.equations


@pytest.mark.parametrize(
    ("fusion", "shape", "boxes"),
    [("resampler", "[B, queries, regions]", False), ("counter", "[B, glimpses, regions]", True)],
)
def test_rows_of_the_attention_and_boxes_are_named(
    fusion: str, shape: str, boxes: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = plan(fusion={"name": fusion})
    print_description(describe(experiment, GIVEN), experiment)
    printed = capsys.readouterr().out
    assert shape in printed and ("so it can look; it needs their boxes\n" in printed) == boxes


def test_the_page_and_its_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_description(plan(fusion={"name": "stacked_attention"}), GIVEN, tmp_path / "d.json")
    shown = capsys.readouterr().out
    for words in ("h_r = tanh(W_v^k v_r", "hops 2", "[4, 2, 9]", "[B, hops, regions]", "251 an epoch", "activations"):
        assert words in shown
    found = json.loads((tmp_path / "d.json").read_text())
    assert found["total"]["parameters"] == sum(part["parameters"] for part in found["parts"])
    assert found["shapes"]["logits"] == [BATCH, ANSWERS]


@pytest.mark.parametrize("name", [*FUSIONS, *LANGUAGE_FUSIONS, *QUESTION_ENCODERS])
def test_every_part_says_in_words_and_as_an_equation_what_it_does(name: str) -> None:
    part = (FUSIONS | LANGUAGE_FUSIONS | QUESTION_ENCODERS)[name]
    explained = explain(part)
    assert len(explained.words.split()) > 3 and explained.words.endswith(".")
    assert explained.equations and all(" = " in line or ":" in line for line in explained.equations)
    assert (inspect.getdoc(inspect.getmodule(part)) or "").startswith(f"`{name}`: ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_pretrained_encoder_counts_only_where_it_is_tuned(tmp_path: Path, kind: str) -> None:
    model = save_language_model(tmp_path, kind)
    (tmp_path / "model.safetensors").unlink()  # its shape is enough
    text = model.text_model if kind == "clip" else model.get_encoder() if kind == "t5" else model
    # the counters of older torch know the plain kernel only
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        text(input_ids=torch.ones(BATCH, TOKENS, dtype=torch.int64))
    tuned, frozen = (
        describe(plan({"name": f"hf:{tmp_path}", "tuned": tuned}), GIVEN).parts[0] for tuned in (True, False)
    )
    assert (frozen.parameters, frozen.forward_flops, frozen.training_flops) == (0, 0, 0)
    pooler = sum(p.numel() for name, p in text.named_parameters() if name.startswith("pooler."))
    assert tuned.parameters == sum(p.numel() for p in text.parameters()) - pooler
    pooling = 2 * 16 * 16 if pooler else 0  # which nothing needs
    assert tuned.forward_flops == counter.get_total_flops() // BATCH - pooling
    assert tuned.training_flops > 2.5 * tuned.forward_flops
    assert "last hidden states" in tuned.equations[0]


@pytest.mark.parametrize("tuned", [False, 1, True])
def test_a_language_model_inside_a_fusion_counts_as_torch_counts(tmp_path: Path, tuned: bool | int) -> None:
    """The sums are what torch's counter finds for transformers' own forward and backward over R + T vectors."""
    model = save_language_model(tmp_path, "gpt2").train()
    (tmp_path / "model.safetensors").unlink()  # its shape is enough
    encoder = {"name": f"hf:{tmp_path}", "words": "embeddings"}
    fusion = {"name": "prefix_lm", "projector": "linear", "tuned": tuned}
    first, found, _ = describe(plan(encoder, fusion), GIVEN).parts
    assert (first.parameters, first.forward_flops, first.training_flops) == (0, 0, 0)
    model.requires_grad_(tuned is True)
    model.h[-1].requires_grad_(bool(tuned))
    own = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    both_BND = torch.zeros(BATCH, REGIONS + TOKENS, 16, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):
        forward, training = counted(lambda: model(inputs_embeds=both_BND).last_hidden_state)
    projected = 2 * REGIONS * CHANNELS * 16
    assert found.parameters == own + CHANNELS * 16 + 16
    assert found.forward_flops == forward + projected
    assert found.training_flops == training + 2 * projected  # the regions themselves need no gradient


def test_a_pretrained_encoders_tokens_are_its_own(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    save_language_model(world / "bert")
    base = values(world, world / "runs")
    words, pieces = (
        find_sizes(check_experiment(base | {"question_encoder": section}, "test"), SizeOptions()).tokens
        for section in ({"name": "gru"}, {"name": f"hf:{world / 'bert'}"})
    )
    assert pieces > words + 1  # two special tokens, and punctuation


def test_a_tuned_image_encoder_is_counted_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """SqueezeNet up to its second layers, by hand: three convolutions on maps of 31, then 15 pixels a side."""
    features = {"tune": True, "tune_from": "features.3", "encoder": "squeezenet1_1", "layer": "features.3",
                "image_size": 64, "weights": "random"}  # fmt: skip
    description = describe(plan(features=features), SizeOptions(WORDS, ANSWERS, TOKENS, questions=10, images=10))
    tuned = description.image_encoder
    assert tuned is not None
    first = 64 * 3 * 9
    squeeze, expand = 64 * 16, 16 * 64 + 16 * 64 * 9
    assert tuned.parameters == first + 64 + squeeze + 16 + expand + 128
    assert tuned.trained == squeeze + 16 + expand + 128
    assert tuned.forward_flops == 2 * (31 * 31 * first + 15 * 15 * (squeeze + expand))
    # the map below needs no gradient: the squeeze goes backwards once, to its weights, the expansion twice
    assert tuned.training_flops - tuned.forward_flops == 2 * 15 * 15 * (squeeze + 2 * expand)
    assert description.memory["gradients"] == 4 * (description.parameters + tuned.trained)
    assert description.memory["features"] is None and description.shapes["image"] == (BATCH, 225, 128)
    print_description(description, plan(features=features))
    said = " ".join(capsys.readouterr().out.split())
    assert f"{tuned.trained:,} of {tuned.parameters:,} parameters trained" in said
    assert "is in weights, gradients and optimiser state" in said and "neither its parameters" not in said


@pytest.mark.parametrize(
    ("fusion", "features", "held", "words", "regions"),
    [
        ("stacked_attention", {}, 2 * REGIONS * CHANNELS, "as float16", REGIONS),
        ("product", {}, 4 * CHANNELS, f"as float32: the {REGIONS} regions are averaged once", 1),
        ("product", {"standardise": True}, 8 * CHANNELS, f"as float32: the {REGIONS} regions are averaged once", 1),
        ("product", {"residency": "disk"}, 2 * REGIONS * CHANNELS, "as float16", REGIONS),
        ("question_only", {}, 0, "none: the fusion reads nothing of the image", 1),
    ],
)
def test_features_are_what_the_fusion_reads(
    fusion: str, features: dict[str, Any], held: int, words: str, regions: int, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = plan(fusion={"name": fusion}, features={"cache": "nowhere.h5"} | features)
    description = describe(experiment, GIVEN)
    assert description.memory["features"] == 10 * held and description.features_held == words
    assert description.shapes["image"] == (BATCH, regions, CHANNELS)
    print_description(description, experiment)
    assert words in " ".join(capsys.readouterr().out.split())
