"""Keys of an experiment as options, `--fusion.hops=2`, as agents of sweeps call; typos stay typos."""

import re

import pytest
from typer.testing import CliRunner

import vqa.cli
from vqa.errors import InputError


def described(*words: str) -> str:
    ended = CliRunner().invoke(vqa.cli.app, ["describe", *words])
    assert ended.exit_code == 0, ended.exception
    return ended.output


@pytest.mark.parametrize(
    "words",
    [
        ["san", "fusion.hops=3", "training.epochs=7", "seed=2"],
        ["san", "--fusion.hops=3", "--training.epochs=7", "--seed=2"],
        ["san", "--fusion.hops", "3", "--training.epochs", "7", "--seed", "2"],
        ["--fusion.hops=3", "san", "training.epochs=7", "--seed=2"],
        ["--seed=2", "--training.epochs=9", "san", "training.epochs=7", "fusion.hops=3"],
        ["san", "--tokens", "6", "--fusion.hops=3", "--training.epochs=7"],
        ["san", "--fusion.hops=3", "--", "training.epochs=7"],
    ],
)
def test_keys_are_options_too_wherever_they_stand(words: list[str]) -> None:
    shown = described(*words)
    assert "hops 3," in shown and " in 7 epochs" in shown


def test_a_mapping_as_agents_write_it_replaces_a_section() -> None:
    shown = described("san", "--fusion={'name': 'product', 'normalise_image': False}")
    assert "fusion  product:" in shown and "normalise_image False" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["san", "--epochs=3"], "no such option: --epochs (did you mean --training.epochs?)"),
        (["san", "--fuson.hops=2"], "unknown key 'fuson' (did you mean 'fusion'?)"),
        (["san", "--fusion.hop=2"], "did you mean 'hops'"),
        (["san", "--seed"], "--seed: needs a value"),
    ],
)
def test_a_wrong_key_is_named_with_the_right_one(words: list[str], said: str) -> None:
    ended = CliRunner().invoke(vqa.cli.app, ["train", *words])
    assert isinstance(ended.exception, InputError) and said in str(ended.exception)


@pytest.mark.parametrize(("word", "near"), [("--resme", "--resume"), ("--dry-rum", "--dry-run"), ("-x", "-x")])
def test_a_wrong_option_is_refused_with_the_right_one(word: str, near: str) -> None:
    ended = CliRunner().invoke(vqa.cli.app, ["train", "san", word])
    assert ended.exit_code == 2 and "No such option" in ended.output and re.search(near, ended.output)
