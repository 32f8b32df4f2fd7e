"""Bad experiments, ablations and overrides."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from faults.case import Case, thinned
from faults.mutate import UNFILES, damaged, replace_by
from faults.world import ABLATION, EXPERIMENT

EITHER = frozenset({0, 2})
OVERRIDES = (
    "", "=", "training", "training.epochs", "training.epochs=", "training.epochs=x", "training.epochs=0",
    "training.epochs=1.5", "training.epochs=[1", "training..epochs=1", ".=1", "training.epochs.more=1", "training=5",
    "training=[]", "training.optimizer=adam", "training.optimizer.name=sgdd", "training.optimizer.betas=[0.9]",
    "training.optimizer.betas=[0.9, x]", "training.optimizer.parts={a: {learning_rate: 1}}", "fusion=", "fusion=null",
    "fusion=[]", "fusion=5", "fusion={}", "fusion={name: 5}", "fusion={name: [a]}", "fusion=no.module:Class",
    "fusion=os:system", "fusion=vqa.models.fusions:nothing", "fusion=:", "fusion=a:b:c", "fusion.hops=x",
    "fusion.hops=-1", "fusion.hops=0", "fusion.attention_dim=0", "fusion.attention_dim=-5", "question_encoder=lsmt",
    "question_encoder.layers=0", "question_encoder.layers=x", "question_encoder.embedding_dim=0",
    "question_encoder.hidden_dim=-1", "question_encoder=hf:nowhere/none", "loss=none", "loss=[]", "loss.name=5",
    "classifier=5", "classifier.dropout=2", "classifier.dropout=x", "classifier.hidden=[]", "data=5", "data.root=5",
    "data.root=nowhere", "data.root=e.yaml", "data.root=''", "data.format=vqa_v3", "data.format=''", "data.train=val",
    "data.train=nothing", "data.val=nothing", "data.holdout=0", "data.holdout=1", "data.holdout=x", "features=5",
    "features.cache=[]", "features.cache=5", "features.cache=nowhere.h5", "features.cache=e.yaml",
    "features.cache=[cache.h5, cache.h5]", "features.cache=''", "features.cache=data", "features.encoder=vgg16",
    "features.layer=fc7", "features.image_size=7", "features.tune=true", "features.residency=moon",
    "words.min_count=0", "words.longest=0", "words.vectors=nowhere.txt", "words.vectors=e.yaml", "words.vectors=data",
    "answers.size=0", "answers.size=-3", "answers.size=x", "answers.min_count=1000000", "answers.from=none",
    "name=", "name=../x", "name=/x", "name=a//b", "name='a b'", "name=.", "name=5", "name=[a]", "seed=x", "seed=1.5",
    "seed=true", "runs=5", "runs=e.yaml", "runs=''", "runs=e.yaml/x", "runs=/proc/x", "training.device=tpu",
    "training.precision=float8", "training.schedule=cosine", "training.schedule.name=x", "training.schedule.factor=0",
    "training.schedule={name: step}", "training.clip_norm=0", "training.patience=0", "training.order_seed=-1",
    "tracking.wandb=on", "tracking.tags=a", "extra=1", "? {a: 1}", "training.epochs=!!python/object:os.system x",
    "training.epochs=&a [*a]", "training.epochs=2026-11-27", "training.epochs=0x10", "training.epochs=1_0",
)  # fmt: skip
FINE = {
    "training.epochs=0x10", "training.epochs=1_0", "answers.size=3", "seed=5",
}  # fmt: skip


def write(name: str, value: Any) -> Callable[[Path], object]:
    """Write a document in the place of a file."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True) if not isinstance(value, str) else value
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def unfile(name: str, kind: str) -> Callable[[Path], object]:
    """Put something that is no such file in the place of a file."""
    return lambda folder: replace_by(folder / name, kind)


def cases() -> Iterator[Case]:
    for text in OVERRIDES:
        allowed = frozenset({0}) if text in FINE else EITHER
        yield Case(f"experiments: train {text!r}", ["train", "e.yaml", "name=new", text], allowed=allowed)
    named = {**EXPERIMENT, "name": "new"}
    for what, value in damaged(named, 1):
        yield Case(f"experiments: train, {what}", ["train", "e.yaml"], write("e.yaml", value), EITHER)
    for what, value in damaged(ABLATION, 2):
        yield Case(f"experiments: ablate, {what}", ["ablate", "a.yaml"], write("a.yaml", value), EITHER)
    yield from thinned(file_cases(), 2)
    yield from thinned(text_cases(), 2)
    yield from written_cases()


def file_cases() -> Iterator[Case]:
    """Files that are none."""
    for kind in UNFILES:
        if kind == "byte order mark":
            continue
        yield Case(f"experiments: train, the file is {kind}", ["train", "e.yaml", "name=new"], unfile("e.yaml", kind))
        yield Case(f"experiments: ablate, the file is {kind}", ["ablate", "a.yaml"], unfile("a.yaml", kind))
        yield Case(f"experiments: ablate, its base is {kind}", ["ablate", "a.yaml"], unfile("e.yaml", kind))


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
TEXTS = {
    "an alias bomb": BOMB,
    "an alias bomb as a name": BOMB + "name: *a8\n",
    "flow lists nested deep": "name: " + "[" * 100_000 + "]" * 100_000,
    "block lists nested deep": "name:\n" + "- " * 20_000 + "x\n",
    "an alias to itself": "name: &a [*a]\n",
    "a python object": "name: !!python/object/apply:os.system [id]\n",
    "two documents": "name: a\n---\nname: b\n",
    "a list": "- name\n",
    "a number": "5\n",
    "a key twice": "name: a\nname: b\n",
    "a tab": "name:\n\t- a\n",
    "a list as a key": "? [a, b]\n: 1\n",
    "a mapping as a key": "? {a: b}\n: 1\n",
    "null as a key": "~: 1\n",
    "a merge of a number": "<<: 5\nname: a\n",
    "control characters": "name: \x01\x02\n",
    "an escape sequence": 'name: "\\e[2J\\e[31mred"\n',
    "a gigantic name": f"name: {'n' * 3_000_000}\n",
    "many unknown keys": "".join(f"key{i}: {i}\n" for i in range(5000)),
    "markup": "name: '[/b][red]x[/]'\n",
    "a date that is none": "name: 2026-99-99\n",
    "binary": "name: !!binary notbase64$\n",
    "a set": "name: !!set {a, b}\n",
}


def text_cases() -> Iterator[Case]:
    """Files written by hand."""
    for what, text in TEXTS.items():
        for typed in ("train", "describe", "ablate"):
            yield Case(f"experiments: {typed}, {what}", [typed, "e.yaml"], write("e.yaml", text))


def written_cases() -> Iterator[Case]:
    """What is typed."""
    for typed in ("train", "describe", "ablate"):
        yield Case(f"experiments: {typed} nothing", [typed])
        yield Case(f"experiments: {typed} a folder", [typed, "data"])
        yield Case(f"experiments: {typed} an unknown recipe", [typed, "sann"])
        yield Case(f"experiments: {typed} an over-long name", [typed, "n" * 5000])
        yield Case(f"experiments: {typed} an over-long path", [typed, "n/" * 4000])
    yield Case("experiments: train the same again", ["train", "e.yaml"], allowed=EITHER)
    yield Case("experiments: train another into the same folder", ["train", "e.yaml", "training.epochs=9"])
    yield Case("experiments: train --resume nothing", ["train", "e.yaml", "name=new", "--resume"], allowed=EITHER)
    yield Case("experiments: an ablation file to train", ["train", "a.yaml"])
    yield Case("experiments: an experiment to ablate", ["ablate", "e.yaml"])
