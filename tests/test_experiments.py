"""Every recipe of the project takes a step on a drawn data set, with its own model, loss and optimiser."""

from pathlib import Path
from typing import Any

import pytest
from helpers.language import save_language_model
from helpers.models import count_parameters
from helpers.recipes import ABLATION_FILES, EXPERIMENT_FILES, PUBLISHED
from helpers.training import PROJECT, make_world

from vqa.experiment import check_experiment, read_experiment
from vqa.models import FUSIONS, is_pretrained
from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.parameters import initialise_biases
from vqa.overrides import override, read_yaml
from vqa.planning.describe import parts_of
from vqa.planning.sizes import SizeOptions, find_sizes
from vqa.studies.grid import read_ablation
from vqa.training.needs import build_on_meta
from vqa.training.optimise import parameter_groups
from vqa.training.run_folder import read_metrics
from vqa.training.train import train

# models so large that a step of theirs takes seconds; what is built of them is counted below
LARGE = {
    "dppnet", "mcan_small", "ban", "block", "mutan", "mutan_att", "mlb", "mcb", "mcb_att", "mfb_coatt", "mfh_coatt",
    "hiecoatt", "film", "mcan_large",
}  # fmt: skip


def named(paths: list[Path]) -> list[Any]:
    """Parameters of a test over files, the large models' marked slow."""
    return [
        pytest.param(path, id=str(path.relative_to(PROJECT)), marks=[pytest.mark.slow] if path.stem in LARGE else [])
        for path in paths
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def takes_one_step(content: dict[str, Any], world: Path, runs: Path) -> None:
    changes = [
        f"runs={runs}",
        f"data={{format: vqa_v2, root: {world / 'data'}}}",
        f"features={{cache: {world / 'cache.h5'}, standardise: {content['features'].get('standardise', False)}}}",
        "training.epochs=1",
        "training.batch_size=1000",
        "training.device=cpu",
        "training.precision=float32",
        "words.vectors=null",
        "tracking={}",
    ]
    if is_pretrained(content.get("question_encoder", {})):  # its weights are elsewhere
        save_language_model(runs / "gpt2", "gpt2")
        changes.append(f"question_encoder={{name: 'hf:{runs / 'gpt2'}', words: embeddings}}")
    rows = read_metrics(train(check_experiment(override(content, changes), "test")).metrics)
    assert [row["step"] for row in rows] == [1]
    assert 0 < rows[0]["train/loss"] < 1000 and 0 <= rows[0]["val/open_ended/overall"] <= 100


@pytest.mark.parametrize("path", named(EXPERIMENT_FILES))
def test_an_experiment_takes_one_step(path: Path, world: Path, tmp_path: Path) -> None:
    takes_one_step(read_yaml(path), world, tmp_path)


def one_each(path: Path) -> Any:
    """`every_fusion` has the fusions that two other files have, too."""
    return pytest.param(path, marks=[pytest.mark.slow] if path.stem == "every_fusion" else [], id=path.name)


@pytest.mark.parametrize("path", map(one_each, ABLATION_FILES))
def test_every_cell_of_an_ablation_takes_one_step(
    path: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    _, cells = read_ablation(path)
    for cell in cells:
        takes_one_step(cell.experiments[0].resolved(), world, tmp_path)


def test_the_two_tables_of_fusions_are_of_those_that_can_look_and_those_that_cannot() -> None:
    found: dict[str, dict[str, set[str]]] = {}
    for name in ("pooled", "attending"):
        _, cells = read_ablation(PROJECT / f"experiments/ablations/{name}_fusions.yaml")
        sections = [cell.experiments[0].fusion for cell in cells]
        found[name] = {
            "fusions": {section["name"] for section in sections},
            "inside": {section[key]["name"] for section in sections for key in ("score", "join") if key in section},
        }
        assert all(section["score"] == section["join"] for section in sections if section["name"] == "attended")
    reads = {name: fusion.reads for name, fusion in FUSIONS.items()}
    assert found["pooled"]["fusions"] == {name for name, what in reads.items() if what != "map"}
    assert found["attending"]["fusions"] == {
        name for name, what in reads.items() if what == "map" and not FUSIONS[name].needs_boxes
    }
    assert found["attending"]["inside"] == {name for name, one in FUSIONS.items() if issubclass(one, VectorFusion)}


V, A = 1000, 200  # words and answers in the counts below


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def lstm(inputs: int, hidden: int) -> int:
    return 4 * (inputs * hidden + hidden * hidden + 2 * hidden)


def gru(inputs: int, hidden: int) -> int:
    return 3 * (inputs * hidden + hidden * hidden + 2 * hidden)


def attention(dim: int) -> int:  # multi-head: query, value and output with a bias, key without
    return 4 * dim * dim + 3 * dim


def block(image: int, question: int, chunks: int, width: int, rank: int) -> int:
    sides = linear(image, chunks * width) + linear(question, chunks * width)
    return sides + 2 * chunks * linear(width, rank * width)


# Every published model's parameters at the sizes of its recipe, layer by layer as its paper or code describes them:
# (regions, channels), then word vectors and question encoder, fusion, classifier.
PUBLISHED_MODELS = {
    "vqa2015_lstm": ((1, 4096), V * 200 + lstm(200, 512) + lstm(512, 512), linear(4096, 1024) + linear(2048, 1024),
        linear(1024, A)),
    "vqa2015_bow": ((1, 4096), 4 * V * 1000, 0, linear(1000 + 4096, 1000) + linear(1000, 1000) + linear(1000, A)),
    "ibowimg": ((1, 1024), V * 1024, 0, linear(1024 + 1024, A)),
    "vis_lstm": ((1, 4096), V * 500, 4096 * 500 + lstm(500, 300), linear(300, A)),
    "san": ((196, 512), V * 200 + lstm(200, 1024) + lstm(1024, 1024),
        linear(512, 1024) + 2 * (1024 * 512 + linear(1024, 512) + 512), linear(1024, A)),
    "san_cnn": ((196, 512), V * 500 + linear(500, 256) + linear(1000, 512) + linear(1500, 512),
        linear(512, 1280) + 2 * (2 * linear(1280, 512) + linear(512, 1)), linear(1280, A)),
    "dppnet": ((1, 4096), V * 620 + gru(620, 2400), linear(4096, 2000) + linear(2400, 40_000) + 2 * 2000,
        linear(2000, A)),
    "mcb": ((1, 2048), V * 300 + lstm(300, 1024) + lstm(1024, 1024), 0, linear(16_000, A)),
    "mlb": ((196, 2048), V * 620 + gru(620, 2400),
        2 * linear(2400, 1200) + linear(2048, 1200) + linear(2 * 2048, 1200) + 1200 * 2, linear(1200, A)),
    "mutan": ((1, 2048), V * 620 + gru(620, 2400), linear(2048, 360) + linear(2400, 360) + 2 * 360 * 10 * 360,
        linear(360, A)),
    "mcb_att": ((196, 2048), V * 300 + lstm(300, 1024) + lstm(1024, 1024), linear(16_000, 512) + 512 * 2,
        linear(16_000, A)),
    "mutan_att": ((196, 2048), V * 620 + gru(620, 2400),
        linear(2048, 310) + linear(2400, 310) + 4 * linear(310, 5 * 510) + 510 * 2
        + 2 * linear(2048, 310) + linear(2400, 310) + 310 * 5 * 510, linear(510, A)),
    "mfb_coatt": ((196, 2048), V * 300 + lstm(300, 1024),
        linear(1024, 512) + 512 * 2 + linear(2048, 5000) + linear(2048, 5000) + linear(1000, 512) + 512 * 2
        + linear(4096, 5000) + linear(2048, 5000), linear(1000, A)),
    "mfh_coatt": ((196, 2048), V * 300 + lstm(300, 1024),
        linear(1024, 512) + 512 * 2 + linear(2048, 5000) + linear(2048, 5000) + linear(1000, 512) + 512 * 2
        + 2 * (linear(4096, 5000) + linear(2048, 5000)), linear(2000, A)),
    "block": ((36, 2048), V * 620 + gru(620, 2400),
        linear(2400, 512) + 512 * 2 + block(2048, 4800, 18, 89, 15) + linear(1602, 512) + 512 * 2
        + block(4096, 4800, 18, 89, 15), linear(1602, A)),
    "hiecoatt": ((196, 512), V * 512 + sum(linear(n * 512, 512) for n in (1, 2, 3)) + 2 * lstm(512, 512),
        linear(512, 512) + 3 * (3 * 512 * 512 + 2 * 512) + linear(512, 512) + 2 * linear(1024, 512), linear(512, A)),
    "show_ask_attend_answer": ((196, 2048), V * 300 + lstm(300, 1024), 2048 * 512 + linear(1024, 512) + 512 * 2,
        linear(2 * 2048 + 1024, 1024) + linear(1024, A)),
    # weight normalisation is one number more a matrix
    "butd": ((36, 2048), V * 300 + gru(300, 1024), 2 * (linear(2048, 1024) + linear(1024, 1024) + 2) + 1024 + 1,
        linear(1024, 2048) + linear(2048, A) + 2),
    "ban": ((36, 2048), V * 300 + gru(300, 1280),
        # weight normalisation is one number more a matrix, and one for the patterns
        linear(1280, 3840) + linear(2048, 3840) + 2 + 8 * 3840 + 1
        + 8 * (2 * linear(1280, 1280) + linear(2048, 1280) + 3),
        linear(1280, 2560) + linear(2560, A) + 2),
    "mcan_small": ((36, 2048), V * 300 + lstm(300, 512),
        linear(512, 512) + linear(2048, 512) + 6 * 3 * attention(512) + 12 * (linear(512, 2048) + linear(2048, 512))
        + 6 * 5 * 2 * 512 + 2 * (linear(512, 512) + 512) + 2 * linear(512, 1024) + 2 * 1024, linear(1024, A)),
    "film": ((196, 1024), V * 200 + gru(200, 4096), 9 * (1024 + 2) * 128 + 128 + 2 * 128
        + 4 * (linear(128 + 2, 128) + 9 * 128 * 128) + linear(128 + 2, 512) + 2 * 512 + linear(4096, 4 * 2 * 128),
        linear(512, 1024) + 2 * 1024 + linear(1024, A)),
    "mcan_large": ((36, 2048), V * 300 + lstm(300, 1024),
        linear(1024, 1024) + linear(2048, 1024) + 6 * 3 * attention(1024)
        + 12 * (linear(1024, 4096) + linear(4096, 1024)) + 6 * 5 * 2 * 1024 + 2 * (linear(1024, 512) + 512)
        + 2 * linear(1024, 2048) + 2 * 2048, linear(2048, A)),
    "clevr_relation": ((64, 512), V * 32 + lstm(32, 128),
        2 * (512 + 2) * 256 + linear(128, 256) + 3 * linear(256, 256) + 2 * linear(256, 256), linear(256, A)),
}  # fmt: skip


def test_every_published_model_is_counted() -> None:
    assert PUBLISHED_MODELS.keys() == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_a_published_model_is_built_at_its_full_size(name: str) -> None:
    """Without weights: parameters counted by hand, an optimiser whose parts are there, and a header that says all."""
    (regions, channels), *expected = PUBLISHED_MODELS[name]
    path = PROJECT / f"experiments/{name}.yaml"
    experiment = read_experiment(path)
    given = SizeOptions(words=V, answers=A, tokens=6, regions=regions, channels=channels, questions=1000, images=10)
    model = build_on_meta(experiment, find_sizes(experiment, given))
    assert [count_parameters(part) for part in parts_of(model).values()] == expected
    parameter_groups(experiment.training.optimizer, model)
    initialise_biases(model, experiment.training.initial_bias)
    header = path.read_text(encoding="utf-8").split("\nname: ")[0]
    for words in (f"vqa train experiments/{name}.yaml", "# Published: ", "# Departures", "# Cost: "):
        assert words in header
    assert experiment.name == name
