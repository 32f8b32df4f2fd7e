"""Foreign text on the terminal: escape codes and markup in every string that a data set or file can carry."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import yaml

from faults.case import Case, thinned
from faults.world import (
    ANNOTATIONS,
    ENCODER,
    EXPERIMENT,
    HALF,
    QUESTIONS,
    RUN,
    SCORE,
    TEST_QUESTIONS,
    TRAIN_ANNOTATIONS,
    TRAIN_QUESTIONS,
)

EVIL = {
    "escape codes": "\x1b[2J\x1b[1;31mred\x1b]0;title\x07",
    "C1 codes": "\x9b2J\x9b31mred",
    "markup": "[/b][red]x[old][link=a]",
    "returns": "over\rwritten\x08\x08\x7f",
}
EVALUATED = tuple(f"*/{name}" for name in ("report.html", "evaluation_*", "results_*"))
ANY = frozenset({0, 1, 2})
CHECK = ["data", "check", "data", "--format", "vqa_v2"]
PLAN = ["data", "plan", "data", "--format", "vqa_v2"]
TRAIN = ["train", "e.yaml", "name=new", "training.epochs=1"]


def edit(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Alter a JSON file."""

    def prepare(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return prepare


def every_question(text: str, key: str) -> Callable[[Any], object]:
    return lambda content: [one.update({key: f"{one.get(key)} {text}"}) for one in content["questions"]]


def every_answer(text: str, key: str) -> Callable[[Any], object]:
    def change(content: Any) -> None:
        for one in content["annotations"]:
            one[key] = f"{one[key]} {text}"
            for answer in one["answers"] if key == "multiple_choice_answer" else ():
                answer["answer"] = f"{answer['answer']} {text}"

    return change


def both(*actions: Callable[[Path], object]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for act in actions:
            act(folder)

    return prepare


def cases() -> Iterator[Case]:
    for what, text in EVIL.items():
        of = 1 if what == "escape codes" else 2 if what == "markup" else 4
        yield from thinned(data_cases(what, text), of)
        yield from thinned(typed_cases(what, text), of)
        yield from thinned(file_cases(what, text), of)
    yield from markup_cases()


def data_cases(what: str, text: str) -> Iterator[Case]:
    """In questions, answers and types, by every command that reads them."""
    questions = both(*(edit(name, every_question(text, "question")) for name in (TRAIN_QUESTIONS, QUESTIONS)))
    answers = both(*(
        edit(name, every_answer(text, "multiple_choice_answer")) for name in (TRAIN_ANNOTATIONS, ANNOTATIONS)
    ))  # fmt: skip
    types = both(*(
        edit(name, lambda c: (every_answer(text, "question_type")(c), every_answer(text, "answer_type")(c)))
        for name in (TRAIN_ANNOTATIONS, ANNOTATIONS)
    ))  # fmt: skip
    for part, prepare in {"questions": questions, "answers": answers, "types": types}.items():
        for typed in (CHECK, PLAN, TRAIN, list(SCORE), ["evaluate", RUN], ["describe", "e.yaml"]):
            if part == "questions" and typed[0] == "describe":
                continue
            name = " ".join(typed[:2]) if typed[0] == "data" else typed[0]
            yield Case(f"terminals: {name}, {what} in {part}", typed, prepare, ANY, EVALUATED)
    one = edit(QUESTIONS, lambda c: c["questions"][0].update(question_id=5, question=text))
    yield Case(f"terminals: score, {what} in a question without answers", list(SCORE), one)

    def results(folder: Path) -> None:
        items = json.loads((folder / "results.json").read_text())
        items[0]["answer"] = text
        (folder / "results.json").write_text(json.dumps([*items, {"question_id": text, "answer": text}]))
        items = json.loads((folder / "test.json").read_text())
        (folder / "test.json").write_text(json.dumps([*items, {"question_id": 1, "answer": text, text: 1}]))

    yield Case(f"terminals: score, {what} in results", list(SCORE), results)
    check = ["submit", "--check", "test.json", "--questions", TEST_QUESTIONS]
    yield Case(f"terminals: submit --check, {what} in results", check, results, ANY)
    subtype = edit(TRAIN_QUESTIONS, lambda c: c.update(data_subtype=text, data_type=text))
    yield Case(f"terminals: train, {what} in data_type", TRAIN, subtype, ANY)
    yield Case(f"terminals: check, {what} in data_type", CHECK, subtype, ANY)

    def named_image(folder: Path) -> None:
        lines = (folder / "table/train.csv").read_text().replace("0.png", f"{text}.png").replace("\r", "")
        (folder / "table/train.csv").write_text(lines)

    for typed in (["data", "check", "table", "--format", "table", "--images"],
                  ["features", "extract", "--data", "table", "--format", "table", "--split", "train", *ENCODER,
                   "--workers", "1", "--no-compile", "--out", "new.h5"]):  # fmt: skip
        yield Case(f"terminals: {typed[1]}, {what} in an image's name", typed, named_image, ANY)


def typed_cases(what: str, text: str) -> Iterator[Case]:
    """In names, paths and values that are typed."""
    plain = text.replace("/", ":")

    def renamed(folder: Path) -> None:
        shutil.copy(folder / "results.json", folder / f"{plain}.json")
        shutil.copytree(folder / "data", folder / plain)
        shutil.copy(folder / "cache.h5", folder / f"{plain}.h5")
        shutil.copytree(folder / RUN, folder / f"{plain}run")
        shutil.copy(folder / "e.yaml", folder / f"{plain}.yaml")

    for name, typed in {
        "train a file": ["train", f"{plain}.yaml", "name=new"], "train no file": ["train", text],
        "train a name": ["train", "e.yaml", f"name={text}"], "train runs": [*TRAIN, f"runs=x/{plain}"],
        "train a value": [*TRAIN, f"fusion={text}"], "train a key": [*TRAIN, f"{text}=5"],
        "train a cache": [*TRAIN, f"features.cache='{text}'"], "train a root": [*TRAIN, f"data.root='{text}'"],
        "ablate no file": ["ablate", text], "describe no file": ["describe", text], "evaluate": ["evaluate",
        f"{plain}run"],
        "evaluate none": ["evaluate", text], "evaluate a split": ["evaluate", RUN, "--split", text],
        "evaluate a slice": ["evaluate", RUN, "--slice", f"{text}=what"],
        "predict a question": ["predict", RUN, "table/0.png", f"what {text}?"],
        "predict choices": ["predict", RUN, "table/0.png", "what?", "--choices", text, "red"],
        "predict an image": ["predict", RUN, text, "what?"],
        "score a file": ["score", f"{plain}.json", *SCORE[2:]], "score none": ["score", text, *SCORE[2:]],
        "score to": [*SCORE, "--json", f"{plain}x.json"], "check a root": ["data", "check", plain, "--format",
        "vqa_v2"],
        "check a format": ["data", "check", "data", "--format", text], "check none": ["data", "check", text,
        "--format", "gqa"],
        "plan a root": ["data", "plan", plain, "--format", "vqa_v2"],
        "plot to": [*PLAN, "--plot", f"{plain}x.png"], "download": ["data", "download", text, "x"],
        "generate": ["data", "generate", f"{plain}new", "--scenes", "40", "--size", "32"],
        "info": ["features", "info", f"{plain}.h5"], "info none": ["features", "info", text],
        "import": ["features", "import", text, "--from", "openvqa", "--out", "x.h5"],
        "import from": ["features", "import", "e.yaml", "--from", text, "--out", "x.h5"],
        "extract an encoder": ["features", "extract", *CHECK[2:], "--split", "val", "--out", "x.h5", "--encoder", text],
        "extract to": ["features", "extract", *CHECK[2:], "--split", "val", *ENCODER, "--workers", "1", "--no-compile",
                       "--out", f"{plain}x.h5"],
        "recipes copy": ["recipes", "copy", text], "recipes to": ["recipes", "copy", "san", f"{plain}x.yaml"],
        "attention to": ["predict", RUN, "table/0.png", "what?", "--attention", f"{plain}x.png"],
        "an option": ["train", "e.yaml", f"--{text}"], "a command": [text], "a sub-command": ["data", text],
        "a device": ["bench", "train", "--device", text], "a number": ["data", "generate", "x", "--scenes", text],
    }.items():  # fmt: skip
        yield Case(f"terminals: {name} of {what}", typed, renamed, ANY, EVALUATED)


def file_cases(what: str, text: str) -> Iterator[Case]:
    """In files of ours that come from others: caches, runs, experiments, archives."""

    def cache(folder: Path) -> None:
        with h5py.File(folder / "cache.h5", "r+") as file:
            for key in ("encoder", "layer", "weights", "weights_origin", "command"):
                file.attrs[key] = text
            file["image_id"][0] = text.encode()
            file["done"][1] = 0

    for typed in (["features", "info", "cache.h5"], TRAIN, ["features", "check", "cache.h5", *CHECK[2:], "--split",
    "val"],
                  ["features", "fisher", "cache.h5", "--out", "f.h5"]):  # fmt: skip
        yield Case(f"terminals: {' '.join(typed[:2])}, {what} in a cache", typed, cache, ANY)

    def vocabulary(folder: Path) -> None:
        path = folder / RUN / "vocabulary.json"
        content = json.loads(path.read_text())
        key = next(key for key, value in content.items() if isinstance(value, list) and "answer" in key)
        content[key][0] = text
        path.write_text(json.dumps(content))

    yield Case(f"terminals: evaluate, {what} in the vocabulary", ["evaluate", RUN], vocabulary, ANY, EVALUATED)
    for key in ("name", "fusion", "data.root", "features.cache", "recorded.features.encoder"):

        def recorded(folder: Path, key: str = key) -> None:
            path = folder / RUN / "experiment.yaml"
            content = yaml.safe_load(path.read_text())
            *outer, last = key.split(".")
            inner = content
            for one in outer:
                inner = inner[one]
            inner[last] = [text] if last == "cache" else {"name": text} if last == "fusion" else text
            path.write_text(yaml.safe_dump(content))

        for typed in (["evaluate", RUN], ["predict", RUN, "table/0.png", "what?"]):
            yield Case(f"terminals: {typed[0]}, {what} in the recorded {key}", typed, recorded, ANY, EVALUATED)

    def state(folder: Path) -> None:
        (folder / HALF / "metrics.jsonl").write_text(json.dumps({text: text}) + "\n")

    yield Case(f"terminals: resume, {what} in metrics", ["train", "half.yaml", "--resume"], state, ANY, (f"{HALF}/*",))

    def ablation(folder: Path) -> None:
        content = {"name": "g", "base": "e.yaml", "grid": {"training.batch_size": [64, text]}, text: 5}
        (folder / "a.yaml").write_text(yaml.safe_dump(content))

    yield Case(f"terminals: ablate, {what} in the file", ["ablate", "a.yaml"], ablation)
    bench = json.dumps({"title": text, "ratios": {text: {"value": 1}}})
    typed = ["bench", "score", "--questions", "300", "--repeat", "1", "--against", "bench.json"]
    yield Case(f"terminals: bench, {what} in a stored one", typed,
               lambda folder: (folder / "bench.json").write_text(bench), ANY)  # fmt: skip
    assert EXPERIMENT


def markup_cases() -> Iterator[Case]:
    """What stands in brackets is printed as it is, and paths that are printed exist."""
    train = ["train", "e.yaml", "training.epochs=1"]
    for runs in ("v[old]", "x/a[/b]", "[bold]", "a[b]c", "[/]", "x[link=y]"):
        yield Case(f"terminals: train runs={runs}", [*train, f"runs='{runs}'"], allowed=frozenset({0}),
                   says=(f"{runs}/tiny/0",))  # fmt: skip
    for name in ("[x]", "[/b]", "a[0]"):

        def prepare(folder: Path, name: str = name) -> None:
            path = folder / name
            if path.name and "/" not in name.strip("/"):
                shutil.copytree(folder / "data", path)

        typed = [*train, "name=new", f"data.root='{name}'"]
        yield Case(f"terminals: train data.root={name}", typed, prepare, ANY)
        yield Case(f"terminals: predict {name}", ["predict", RUN, "table/0.png", f"what {name}?"],
                   allowed=frozenset({0}))  # fmt: skip
        yield Case(
            f"terminals: score, a file called {name}", ["score", f"{name}.json", *SCORE[2:]], says=(f"{name}.json",)
        )
