"""The JSON Schema for editors accepts what the reader accepts, and refuses with it."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.recipes import ABLATION_FILES, EXPERIMENT_FILES
from helpers.training import PROJECT, values
from jsonschema import Draft202012Validator

from vqa.errors import InputError
from vqa.experiment import check_experiment, keys_of
from vqa.experiment.keys import DESCRIPTIONS
from vqa.overrides import override, read_yaml
from vqa.recipes import SCHEMA, copy_recipe
from vqa.studies.schema import make_schema


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = make_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_file_beside_the_recipes_is_up_to_date() -> None:
    """Written by: vqa describe --schema experiments/vqa.schema.json"""
    shipped = json.loads((PROJECT / "experiments" / SCHEMA).read_text(encoding="utf-8"))
    assert shipped == json.loads(json.dumps(make_schema()))


@pytest.mark.parametrize("path", [*EXPERIMENT_FILES, *ABLATION_FILES], ids=lambda path: path.stem)
def test_every_recipe_fits_and_names_the_schema(path: Path, validator: Draft202012Validator) -> None:
    read = read_yaml(path)
    assert [error.message for error in validator.iter_errors(read)] == []
    if "base" not in read:
        assert validator.is_valid(check_experiment(read, str(path)).resolved())  # as a run has it
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert (path.parent / first.removeprefix("# yaml-language-server: $schema=")).resolve() == (
        PROJECT / "experiments" / SCHEMA
    )


def test_a_copy_names_the_schema_where_it_is(tmp_path: Path) -> None:
    first = copy_recipe("demo/product", tmp_path).read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={(PROJECT / 'experiments' / SCHEMA).as_uri()}"


WRONG = (
    "fusion.hop=2", "fusion.hops=two", "fusion.hops=0", "fusion.hops=1.5", "fusion.dropout=1.0", "fusion.name=stacked",
    "fusion=prodct", "fusion=null", "fusion={hops: 2}", "fusion={name: attended, score: {name: mutann}}",
    "fusion={name: attended, score: {name: mutan, ran: 3}}", "fusion.tanh_sides=1", "question_encoder.name=lstn",
    "question_encoder.layers=0", "question_encoder.hidden_dim=true", "classifier.dropout=high", "classifier.widht=3",
    "loss=crossentropy", "training.epochs=0", "training.epoch=3", "training.batch_size=64.5", "training.device=gpu",
    "training.optimizer.name=adan", "training.optimizer.learning_rate=0", "training.optimizer.betas=[0.9]",
    "training.schedule.factor=2", "training.schedule.name=linear", "data.format=vqa_v3", "data.holdout=1.5",
    "data={format: vqa_v2}", "features.cache=[]", "features.residency=ram", "answers.from=some", "words.longest=0",
    "seed=-1", "name=../elsewhere", "tracking.wandb=on",
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_the_reader_refuses_the_schema_refuses(wrong: str, validator: Draft202012Validator) -> None:
    base = values(Path("world"), Path("runs"))
    assert validator.is_valid(base)
    changed = override(base, [wrong])
    assert not validator.is_valid(changed)
    with pytest.raises(InputError):
        check_experiment(changed, "test")


@pytest.mark.parametrize("key", ["name", "data", "features", "fusion"])
def test_what_is_missing_is_missing_unless_the_file_extends_another(key: str, validator: Draft202012Validator) -> None:
    base: dict[str, Any] = copy.deepcopy(values(Path("world"), Path("runs")))
    del base[key]
    assert not validator.is_valid(base) and validator.is_valid(base | {"extends": "san"})
    assert not validator.is_valid(base | {"extends": "san", "training": {"epochs": 0}})


def test_parts_from_outside_and_pretrained_ones_fit(validator: Draft202012Validator) -> None:
    base = values(Path("world"), Path("runs"))
    for right in ("fusion=mine:Mine", "fusion={name: mine:Mine, width: 3}", "question_encoder={name: hf:org/bert}"):
        assert validator.is_valid(override(base, [right])), right


def test_ablations_are_told_by_their_base(validator: Draft202012Validator) -> None:
    ablation = yaml.safe_load((PROJECT / "experiments/ablations/fusion.yaml").read_text())
    assert validator.is_valid(ablation)
    assert not validator.is_valid(ablation | {"seeds": []}) and not validator.is_valid(ablation | {"seed": [1]})


def test_every_key_has_a_sentence() -> None:
    assert [key for key in keys_of() if key not in DESCRIPTIONS and not key.startswith("tracking.")] == []
    assert DESCRIPTIONS.keys() - {*keys_of()} == set()
