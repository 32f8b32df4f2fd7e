"""Numbers of an experiment: none is infinite or NaN, none too large for 64 bits, each is of its type and in its range.

The schemas are walked, so that a new option is tried without another line here.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import yaml
from helpers.models import sampled
from helpers.training import values
from typer.main import get_command
from typer.testing import CliRunner

from vqa.cli import app
from vqa.errors import InputError
from vqa.experiment import Experiment, Section, check_experiment
from vqa.models import resolve_part, table_of
from vqa.models.model import SIZES
from vqa.overrides import replace_at
from vqa.studies.grid import AblationFile, read_ablation

NOT_FINITE = (float("inf"), -float("inf"), float("nan"), yaml.safe_load("1.0e+400"), 10**400, 1e300)
NOT_WHOLE = (10**30, -(10**30), 2**63, True, 1.5, float("inf"), float("nan"), "1")
ANY_PART = {"fusion": "product", "question_encoder": "lstm", "loss": "cross_entropy", "classifier": "mlp"}


def plain_types(annotation: Any) -> set[Any]:
    """What is below the unions, lists and bounds of an annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return plain_types(arguments[0])
    if origin in (Union, UnionType, list, tuple, dict):
        return {found for argument in arguments for found in plain_types(argument)}
    return {annotation}


def is_list(annotation: Any) -> bool:
    return any(get_origin(one) in (list, tuple) for one in (annotation, *get_args(annotation)))


def numbers(section: type[Section], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type, bool]]:
    """Every key of a schema that holds numbers: its path, int or float, and whether it is a list of them."""
    for name, field in section.model_fields.items():
        found = plain_types(field.annotation)
        for kind in found:
            key = (*path, field.alias or name)
            if inspect.isclass(kind) and issubclass(kind, Section):
                named = get_origin(field.annotation) is dict
                yield from numbers(kind, (*key, "any_name") if named else key)
            elif kind in (int, float):
                yield key, kind, is_list(field.annotation)


EXPERIMENT_NUMBERS = list(numbers(Experiment))


def part_numbers() -> Iterator[tuple[str, str, str, type, bool]]:
    for part in ("question_encoder", "fusion", "classifier", "loss"):
        for name, constructor in table_of(part, {"name": ANY_PART[part]}).items():
            for key, parameter in inspect.signature(constructor, eval_str=True).parameters.items():
                taken = plain_types(parameter.annotation)
                kinds = taken & {int, float} if bool not in taken else set()  # true is right there
                if key not in SIZES[part] and kinds:
                    yield part, name, key, kinds.pop(), is_list(parameter.annotation)


PART_NUMBERS = sampled(part_numbers(), 2)


def test_the_schemas_were_walked() -> None:
    paths = {".".join(path) for path, _, _ in EXPERIMENT_NUMBERS}
    assert {"seed", "data.holdout", "training.schedule.warmup", "training.optimizer.betas"} <= paths
    assert "training.optimizer.parts.any_name.learning_rate" in paths and "training.schedule.at" in paths
    assert len(EXPERIMENT_NUMBERS) >= 25 and len(PART_NUMBERS) >= 90
    assert {path[0] for path, _, _ in numbers(AblationFile)} == {"ranges", "seeds"}


@pytest.mark.parametrize(("path", "kind", "many"), EXPERIMENT_NUMBERS, ids=lambda value: str(value))
def test_a_number_of_an_experiment_that_is_none_is_refused(path: tuple[str, ...], kind: type, many: bool) -> None:
    base = values(Path("nowhere"), Path("nowhere"))
    wrong: tuple[Any, ...] = NOT_FINITE if kind is float else (*NOT_WHOLE, -1)
    for value in wrong:
        with pytest.raises(InputError) as caught:
            check_experiment(replace_at(base, path, [value, value] if many else value), "e.yaml")
        said = str(caught.value)
        assert said.startswith("e.yaml: ") and ".".join(path) in said, value
        assert len(said) < 700


@pytest.mark.parametrize(("part", "name", "key", "kind", "many"), PART_NUMBERS)
def test_a_number_of_a_part_that_is_none_is_refused(part: str, name: str, key: str, kind: type, many: bool) -> None:
    for value in NOT_FINITE if kind is float else NOT_WHOLE:
        with pytest.raises(InputError, match=key) as caught:
            resolve_part(part, {"name": name, key: [value] if many else value})
        assert len(str(caught.value)) < 700


@pytest.mark.parametrize("value", [*NOT_WHOLE, -1])
def test_seeds_of_an_ablation_are_seeds(tmp_path: Path, value: Any) -> None:
    base, file = tmp_path / "base.yaml", tmp_path / "ablation.yaml"
    base.write_text(yaml.safe_dump(values(tmp_path, tmp_path)))
    content = {"name": "a", "base": str(base), "grid": {"fusion": ["product"]}, "seeds": [0, value]}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="seeds"):
        read_ablation(file)


def test_a_whole_number_passes_for_a_float_and_the_largest_seed_for_a_seed() -> None:
    base = values(Path("nowhere"), Path("nowhere")) | {"seed": 2**63 - 1}
    checked = check_experiment(replace_at(base, ("training", "optimizer", "learning_rate"), 1), "e.yaml")
    assert (checked.seed, checked.training.optimizer.learning_rate) == (2**63 - 1, 1.0)


def options_of(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, set[Any]]]:
    """The words of every command, each of its options by name, and the plain types that it takes."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from options_of(inner, (*words, name))
    if words and command.callback is not None:
        for name, parameter in inspect.signature(command.callback, eval_str=True).parameters.items():
            yield words, name, plain_types(parameter.annotation)


SEEDS = [(words, name) for words, name, _ in options_of(get_command(app)) if "seed" in name.split("_")]
FRACTIONS = [(words, name) for words, name, kinds in options_of(get_command(app)) if float in kinds]


@pytest.mark.parametrize(("words", "name"), SEEDS)
def test_every_seed_of_a_command_has_its_range(words: tuple[str, ...], name: str) -> None:
    refused(words, f"--{name}", ("-1", str(2**63), str(10**30), "1.5", "nan"))


@pytest.mark.parametrize(("words", "name"), FRACTIONS)
def test_every_fraction_of_a_command_is_finite(words: tuple[str, ...], name: str) -> None:
    refused(words, f"--{name}", ("inf", "-inf", "nan", "1e400"))


def refused(words: tuple[str, ...], option: str, wrong: tuple[str, ...]) -> None:
    for value in wrong:
        result = CliRunner().invoke(app, [*words, f"{option}={value}"])
        assert result.exit_code == 2 and f"'{option}'" in result.output, (value, result.output)


def test_there_are_seeds_and_fractions_to_try() -> None:
    assert len(SEEDS) >= 3 and len(FRACTIONS) >= 1
