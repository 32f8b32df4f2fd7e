"""Experiment files: what is refused, with which message, and that a resolved file reads back equal."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.devices import device
from helpers.recipes import EXPERIMENT_FILES
from helpers.training import PROJECT, STACKED, values

from vqa.errors import InputError
from vqa.experiment import check_experiment, read_experiment
from vqa.overrides import override, read_yaml
from vqa.training.run_folder import RunFolder, open_run, write_experiment


@pytest.fixture
def base(tmp_path: Path) -> dict[str, Any]:
    return values(tmp_path, tmp_path / "runs")


def written(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("training.epoch=3", ["training.epoch", "did you mean 'epochs'", "batch_size"]),
        ("training.optimizer.lr=3", ["training.optimizer.lr", "learning_rate", "weight_decay"]),
        ("trainig={}", ["trainig", "did you mean 'training'"]),
        ("training.epochs=many", ["training.epochs", "integer", "'many'"]),
        ("training.epochs='3'", ["training.epochs", "integer", "'3'"]),
        ("training.epochs=2.5", ["training.epochs", "2.5"]),
        ("training.epochs=true", ["training.epochs", "True"]),
        ("training.epochs=0", ["training.epochs", "greater than or equal to 1"]),
        ("training.device=gpu", ["training.device", "'auto', 'cpu' or 'cuda'", "'gpu'"]),
        ("training.optimizer.parts={classifier: {lr: 1}}", ["parts.classifier.lr", "learning_rate", "weight_decay"]),
        ("training.optimizer.betas=[0.9]", ["training.optimizer.betas", "at least 2"]),
        ("training.schedule={name: cosine, at: [3]}", ["training.schedule", "`at` is for the schedule step"]),
        ("training.clip_norm_over=layer", ["training.clip_norm_over", "'model', 'part' or 'tensor'"]),
        ("training.schedule.name=linear", ["training.schedule.name", "cosine", "'linear'"]),
        ("answers.from=some", ["answers.from", "'majority' or 'all'"]),
        ("fusion.name=prodct", ["unknown fusion 'prodct'", "did you mean 'product'", "stacked_attention"]),
        ("fusion.hop=2", ["hop", "did you mean 'hops'"]),
        ("fusion.hops=two", ["hops", "'two'"]),
        ("question_encoder.name=gru4", ["unknown question_encoder 'gru4'", "lstm"]),
        ("loss={name: crossentropy}", ["unknown loss", "did you mean 'cross_entropy'"]),
        ("data.format=vqa_v3", ["unknown data format 'vqa_v3'", "did you mean 'vqa_v2'", "daquar"]),
        ("data.val=null", ["val split", "holdout"]),
        ("data.holdout=1.5", ["data.holdout", "less than 1"]),
        ("features.cache=[]", ["features.cache", "at least 1 item"]),
        ("name=../elsewhere", ["name", "../elsewhere"]),
        ("name=a/../../b", ["name", "a/../../b"]),
        ("seed=-1", ["seed", "greater than or equal to 0"]),
        ("seed=9223372036854775808", ["seed", "less than 9223372036854775808"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_choices_and_with_who_wrote_it(
    tmp_path: Path, base: dict[str, Any], assignment: str, said: list[str]
) -> None:
    path = written(tmp_path / "e.yaml", base)
    with pytest.raises(InputError) as of_command_line:
        read_experiment(path, ["training.batch_size=8", assignment])
    assert str(of_command_line.value).startswith(f"override {assignment!r}: ") and str(path) not in str(
        of_command_line.value
    )
    written(path, override(base, [assignment]))
    with pytest.raises(InputError) as of_file:
        read_experiment(path, ["training.batch_size=8"])
    assert str(of_file.value).startswith(f"{path}: ") and "override" not in str(of_file.value)
    for caught in (of_command_line, of_file):
        assert all(words in str(caught.value) for words in said)


def test_mistakes_of_the_file_and_of_the_command_line_are_told_apart(tmp_path: Path, base: dict[str, Any]) -> None:
    path = written(tmp_path / "e.yaml", base | {"training": {"epochs": 0}})
    with pytest.raises(InputError) as caught:
        read_experiment(path, ["seed=-1", "training.epoch=3"])
    lines = str(caught.value).splitlines()
    assert sorted(line.partition(": ")[0] for line in lines) == [
        str(path),
        "override 'seed=-1'",
        "override 'training.epoch=3'",
    ]


def test_overrides_that_do_not_fit_each_other_are_both_named(tmp_path: Path, base: dict[str, Any]) -> None:
    path = written(tmp_path / "e.yaml", base)
    with pytest.raises(InputError, match=r"^overrides 'fusion=product', 'fusion\.hops=3': unknown option of"):
        read_experiment(path, ["seed=1", "fusion=product", "fusion.hops=3"])
    with pytest.raises(InputError, match=r"^override 'training.epochs.x=1': 'epochs' holds 2, not a section"):
        read_experiment(path, ["training.epochs.x=1"])


@pytest.mark.parametrize(
    ("assignments", "options"),
    [
        (["fusion=product"], {"name": "product"}),
        (["fusion.name=product"], {"name": "product"}),
        (["fusion={name: product}"], {"name": "product"}),
        (["fusion=product", "fusion.dropout=0.1"], {"name": "product", "dropout": 0.1}),
        (["fusion.dropout=0.1", "fusion=product"], {"name": "product", "dropout": 0.1}),
        (["fusion.dropout=0.1", "fusion.name=product"], {"name": "product", "dropout": 0.1}),
        (["fusion=stacked_attention"], STACKED),  # the one that it was
        (["fusion.name=stacked_attention", "fusion.hops=3"], STACKED | {"hops": 3}),
    ],
)
def test_another_name_drops_the_options_of_the_file(
    tmp_path: Path, base: dict[str, Any], assignments: list[str], options: dict[str, Any]
) -> None:
    found = read_experiment(written(tmp_path / "e.yaml", base), assignments)
    assert found == check_experiment(base | {"fusion": options}, "expected")


def test_a_plain_name_stands_for_a_section(tmp_path: Path, base: dict[str, Any]) -> None:
    plain = written(tmp_path / "e.yaml", base | {"fusion": "product", "question_encoder": "gru", "loss": "kl"})
    found = read_experiment(plain)
    assert (found.fusion["name"], found.question_encoder["name"], found.loss) == ("product", "gru", {"name": "kl"})
    assert read_experiment(plain, ["fusion.dropout=0.25"]).fusion["dropout"] == 0.25
    with pytest.raises(InputError, match=r"unknown fusion 'prodct' \(did you mean 'product'"):
        read_experiment(plain, ["fusion=prodct"])


@pytest.mark.parametrize("section", ["data", "features", "fusion", "name"])
def test_a_missing_section_is_named(tmp_path: Path, base: dict[str, Any], section: str) -> None:
    del base[section]
    with pytest.raises(InputError, match=rf"e\.yaml: {section}: missing"):
        read_experiment(written(tmp_path / "e.yaml", base))


def test_every_wrong_key_is_reported_at_once(tmp_path: Path, base: dict[str, Any]) -> None:
    base |= {"colour": 1, "seed": "x"}
    with pytest.raises(InputError) as caught:
        read_experiment(written(tmp_path / "e.yaml", base))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("assignment", ["training.epochs", "=3", "training.epochs=[1", "name.first=a"])
def test_a_bad_override_is_quoted(base: dict[str, Any], assignment: str) -> None:
    with pytest.raises(InputError, match="override"):
        override(base, [assignment])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: [", "not valid YAML"),
        (b"- a\n- b\n", "not list"),
        (b"", "not NoneType"),
        (b"name: \xff\xfe", "not UTF-8"),
        (b"name: 2001-99-99\n", "not valid YAML"),
        (b"name: a\nname: b\n", "twice"),
    ],
)
def test_a_damaged_file_is_one_message(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "e.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)


ALIASES = "a: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"b{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)  # stands for 9 ** 12 values


@pytest.mark.parametrize(
    "text",
    [
        "name: " + "[" * 100_000,
        "name: " + "[" * 60 + "]" * 60,
        "\n".join(" " * depth + "a:" for depth in range(1_200)),
        "{a: " * 50_000,
        ALIASES,
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: [" + "x, " * 100_000 + "]",
        "name: " + "x" * 100_000 + ": y: z",
        "!!python/object/apply:os.system [true]",
        "a: !" + "x" * 100_000 + " 1",
        "\x00",
        "a: \x1b",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_yaml_without_measure_is_one_short_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "e.yaml").write_text(text)
    for read in (lambda: read_yaml(tmp_path / "e.yaml"), lambda: override({}, [f"a.b={text}"])):
        with pytest.raises(InputError, match="not valid YAML") as caught:
            read()
        assert len(str(caught.value)) < 1_500


def test_what_is_no_file_of_a_few_kilobytes_is_no_experiment(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (1 << 21))
    for path, said in (
        (tmp_path / "pipe.yaml", "it is a pipe, socket or device"),
        (device(tmp_path, "zero"), "it is a pipe, socket or device"),
        (tmp_path / "large.yaml", "has 2,097,152 bytes; at most 1,048,576 are read"),
        (tmp_path, "it is a folder"),
    ):
        with pytest.raises(InputError, match=said):
            read_yaml(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        read_experiment(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "0.001", "+1e-3", "1.0e-3"])
def test_scientific_notation_is_a_number(base: dict[str, Any], text: str) -> None:
    changed = override(base, [f"training.optimizer.learning_rate={text}"])
    assert check_experiment(changed, "test").training.optimizer.learning_rate == 0.001


def test_an_override_changes_one_key_and_leaves_the_original(base: dict[str, Any]) -> None:
    changed = check_experiment(override(base, ["training.optimizer.name=sgd", "fusion={name: concat}"]), "test")
    assert changed.training.optimizer.name == "sgd"
    assert changed.training.epochs == base["training"]["epochs"]
    assert changed.fusion["name"] == "concat"
    assert base["training"]["optimizer"] == {"learning_rate": 0.01}


def test_a_resolved_experiment_reads_back_equal(tmp_path: Path, base: dict[str, Any]) -> None:
    base |= {"classifier": {"hidden": [12, 8], "dropout": 0}, "tracking": {"tags": ["ä", "b"]}}
    first = check_experiment(base, "test")
    folder = RunFolder(tmp_path)
    features = {
        "regions": 4, "channels": 8, "encoder": "vgg16", "layer": "pool5", "image_size": 64, "weights_sha256": "0" * 64,
        "weights_origin": None, "preprocessing": {}, "format_version": 1,
    }  # fmt: skip
    facts = {"data": {"f": "0" * 64}, "features": features, "machine": "CPU"}
    write_experiment(folder, first, facts)
    _, second, recorded = open_run(tmp_path)
    assert second == first
    assert recorded == facts
    assert first.resolved()["fusion"]["dropout"] is not None  # defaults are filled in


@pytest.mark.parametrize("path", EXPERIMENT_FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_experiment_of_the_project_loads(path: Path) -> None:
    experiment = read_experiment(path)
    assert check_experiment(experiment.resolved(), "again") == experiment
