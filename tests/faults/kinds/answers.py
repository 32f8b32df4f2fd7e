"""Damaged results, questions, annotations, tables, stored benchmarks and WordNet files."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults.case import Case, thinned
from faults.mutate import UNFILES, as_json, damaged, replace_by
from faults.world import (
    ANNOTATIONS,
    IMAGE,
    QUESTIONS,
    RUN,
    SCORE,
    TEST_QUESTIONS,
    TRAIN_ANNOTATIONS,
    TRAIN_QUESTIONS,
)

EITHER = frozenset({0, 2})
CHECKED = frozenset({0, 1, 2})
CHOICES = "data/v2_MultipleChoice_mscoco_train2014_questions.json"
PAIRS = "data/v2_mscoco_train2014_complementary_pairs.json"
CHECK = ["data", "check", "data", "--format", "vqa_v2"]
TRAIN = ["train", "e.yaml", "name=new"]
TABLE = ["data", "check", "table", "--format", "table"]
WUPS = ["score-wups", "table.json", "--data", "table", "--format", "table", "--split", "val"]


def edit(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Alter a JSON file."""

    def prepare(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text())
        path.write_bytes(as_json(change(content)))

    return prepare


def item_cases(kind: str, name: str, key: str | None, typed: list[str], sample: Any, each: int) -> Iterator[Case]:
    """The first item of a list in a JSON file, damaged in every place."""
    for what, value in damaged(sample, each):

        def change(content: Any, value: Any = value) -> Any:
            items = content if key is None else content[key]
            items[0] = {**items[0], **value} if len(value) >= len(sample) else _without(items[0], sample, value)
            return content

        yield Case(f"answers: {kind}, {what}", typed, edit(name, change), CHECKED if typed is CHECK else EITHER)


def _without(item: dict[str, Any], sample: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """The item without the key that `value` lacks."""
    return {name: one for name, one in item.items() if name in value or name not in sample}


def cases() -> Iterator[Case]:
    score = list(SCORE)
    yield from item_cases("results", "results.json", None, score, {"question_id": 1, "answer": "yes"}, 9)
    question = {"question_id": 1, "image_id": 1, "question": "what?"}
    yield from item_cases("a question", TRAIN_QUESTIONS, "questions", CHECK, question, 4)
    annotation = {
        "question_id": 1, "image_id": 1, "multiple_choice_answer": "yes", "question_type": "x", "answer_type": "other",
        "answers": [{"answer": "yes", "answer_id": 1, "answer_confidence": "yes"}],
    }  # fmt: skip
    yield from item_cases("an annotation", TRAIN_ANNOTATIONS, "annotations", TRAIN, annotation, 2)
    yield from thinned(top_cases(), 2)
    yield from thinned(file_cases(), 3)
    yield from list_cases(score)
    yield from table_cases()
    yield from written_cases()


def top_cases() -> Iterator[Case]:
    """What stands beside the list of questions or annotations."""
    score = list(SCORE)
    for name, key in ((TRAIN_QUESTIONS, "questions"), (TRAIN_ANNOTATIONS, "annotations"), (ANNOTATIONS, "annotations")):
        for what, value in damaged({key: [], "data_type": "mscoco", "data_subtype": "train2014"}, 2):
            typed = score if name == ANNOTATIONS else TRAIN

            def change(content: Any, value: Any = value, key: str = key) -> Any:
                lost = {"data_type", "data_subtype", key} - set(value)
                kept = {k: v for k, v in content.items() if k not in lost}
                return kept | {k: v for k, v in value.items() if not (k == key and v == [])}

            yield Case(f"answers: {name[-30:-5]} of {typed[0]}, {what}", typed, edit(name, change), EITHER)


def file_cases() -> Iterator[Case]:
    """Files that are none."""
    score = list(SCORE)
    readers = {
        "results.json": score, QUESTIONS: score, ANNOTATIONS: score, TRAIN_QUESTIONS: TRAIN, CHOICES: CHECK,
        TRAIN_ANNOTATIONS: CHECK, PAIRS: CHECK, "bench.json": ["bench", "score", "--against", "bench.json"],
        "table/train.csv": TABLE, "wordnet/data.noun": [*WUPS, "--wordnet", "wordnet"],
        "wordnet/index.noun": [*WUPS, "--wordnet", "wordnet"], "wordnet/lexnames": [*WUPS, "--wordnet", "wordnet"],
    }  # fmt: skip
    for name, typed in readers.items():
        for kind in UNFILES:
            mends = (
                kind in ("missing", "byte order mark", "utf-16", "broken link") or "wordnet" in name or typed is CHECK
            )
            status = CHECKED if mends or typed is TABLE else frozenset({2})
            if typed[0] == "bench" and kind in ("byte order mark", "utf-16"):
                continue  # it would measure for minutes

            def prepare(folder: Path, name: str = name, kind: str = kind) -> None:
                _table_results(folder)
                replace_by(folder / name, kind)

            yield Case(f"answers: {typed[0]}, {name.rpartition('/')[2][-30:]} is {kind}", typed, prepare, status)


def _table_results(folder: Path) -> None:
    answers = [{"question_id": 0, "answer": "cat"}, {"question_id": 1, "answer": "table"}]
    (folder / "table.json").write_text(json.dumps(answers))


def list_cases(score: list[str]) -> Iterator[Case]:
    """Results that are no such list, or of other questions."""
    lists: dict[str, Callable[[Any], Any]] = {
        "nothing": lambda items: [], "a mapping": lambda items: {"a": 1}, "a number": lambda items: 5,
        "text": lambda items: "x", "null": lambda items: None, "lists": lambda items: [[1, "yes"]],
        "numbers": lambda items: [1, 2], "one less": lambda items: items[1:], "one twice": lambda items: [*items,
        items[0]],
        "one more": lambda items: [*items, {"question_id": 10**12, "answer": "x"}],
        "one of 10**30": lambda items: [*items, {"question_id": 10**30, "answer": "x"}],
        "one of a fraction": lambda items: [{"question_id": 1.5, "answer": "x"}, *items[1:]],
        "one of a surrogate": lambda items: [{**items[0], "answer": "\ud800"}, *items[1:]],
        "an answer of 10 MB": lambda items: [{**items[0], "answer": "x" * 10_000_000}, *items[1:]],
        "an answer of NUL": lambda items: [{**items[0], "answer": "\x00"}, *items[1:]],
        "all ids of text": lambda items: [{**one, "question_id": str(one["question_id"])} for one in items],
        "100,000 keys": lambda items: [{**items[0], **{str(i): i for i in range(100_000)}}, *items[1:]],
    }  # fmt: skip
    fine = {
        "one twice",
        "an answer of 10 MB",
        "an answer of NUL",
        "100,000 keys",
        "all ids of text",
        "one of a surrogate",
    }
    for what, change in lists.items():
        yield Case(f"answers: results of {what}", score, edit("results.json", change),
                   EITHER if what in fine else frozenset({2}))  # fmt: skip
    for number, options in enumerate((
        ["--questions", "nowhere"], ["--annotations", "nowhere"], ["--questions", ANNOTATIONS], ["--protocol", "2020"],
        ["--annotations", QUESTIONS], ["--annotations", TRAIN_ANNOTATIONS], ["--questions", "data"],
        ["--questions", "n" * 4000], ["--annotations", "a\x00b"], ["--questions", TEST_QUESTIONS],
    )):  # fmt: skip
        yield Case(f"answers: score, option {number} {options[0]}", [*score, *options])


def table_cases() -> Iterator[Case]:
    """Tables of one's own."""
    head = "image,question,answer\n"
    tables = {
        "no lines": head, "no head": "0.png,what?,cat\n", "a column missing": "image,answer\n0.png,cat\n",
        "a column twice": "image,question,question\n0.png,a,b\n", "an empty question": head + "0.png,,cat\n",
        "an empty image": head + ",what?,cat\n", "an image outside": head + "../../etc/passwd,what?,cat\n",
        "an absolute image": head + "/etc/passwd,what?,cat\n", "an image of NUL": head + "a\x00b.png,what?,cat\n",
        "an over-long image": head + "n" * 5000 + ",what?,cat\n", "an image that is a folder": head + ".,what?,cat\n",
        "a gigantic quote": head + '"' + "x" * 2_000_000,
        "a cell of 2 MB": head + "0.png," + "x" * 2_000_000 + ",cat\n",
        "escape codes": head + "0.png,what \x1b[2Jis[/b]?,\x1b[31mcat\n", "one cell too many": head + "0.png,a,b,c,d\n",
        "one cell too few": head + "0.png,a\n", "an id of text": "image,question,answer,id\n0.png,a,b,x\n",
        "ids twice": "image,question,answer,id\n0.png,a,b,1\n0.png,c,d,1\n",
        "an id of 10**30": f"image,question,answer,id\n0.png,a,b,{10**30}\n", "semicolons": head.replace(",", ";"),
        "a list in a cell that is broken": 'image,question,answers\n0.png,a,"[""b"","\n',
        "a list of numbers": 'image,question,answers\n0.png,a,"[1, null]"\n',
        "a list nested deep": 'image,question,answers\n0.png,a,"' + "[" * 50_000 + '"\n',
        "choices without the answer": "image,question,answer,choices\n0.png,a,b,c|d\n",
        "only returns": "image,question,answer\r0.png,a,b\r", "carriage returns": head + "0.png,a\rb,c\n",
        "100,000 columns": ",".join(f"c{i}" for i in range(100_000)) + "\n",
        "markup in the head": "image,question,answer,[/b]\n0.png,a,b,c\n",
    }  # fmt: skip
    for what, text in tables.items():
        for typed in (TABLE, ["train", "e.yaml", "name=new", "data.format=table", "data.root=table"]):
            if typed is not TABLE and len(what) % 2:
                continue

            def prepare(folder: Path, text: str = text) -> None:
                (folder / "table/train.csv").write_bytes(text.encode())

            yield Case(f"answers: {typed[0]}, a table of {what}", typed, prepare, CHECKED)
    lines = {
        "5": "a number", "[]": "a list", "{}": "an empty mapping", "{": "broken", "null": "null",
        '{"image": 5, "question": "a", "answer": "b"}': "an image that is a number",
        '{"image": "0.png", "question": ["a"], "answer": "b"}': "a question that is a list",
        '{"image": "0.png", "question": "a", "answers": {}}': "answers that are a mapping",
        '{"image": "0.png", "question": "a", "answer": 1e400}': "an answer of infinity",
        '{"image": "0.png", "question": "a", "answer": "\\ud800"}': "a surrogate",
        '{"image": "0.png", "question": "a", "answer": "b", "id": 1e30}': "a huge id",
    }  # fmt: skip
    for line, what in lines.items():

        def jsonl(folder: Path, line: str = line) -> None:
            (folder / "table/train.csv").unlink()
            (folder / "table/train.jsonl").write_text(line + "\n")

        yield Case(f"answers: data, a line of {what}", TABLE, jsonl, CHECKED)


def written_cases() -> Iterator[Case]:
    """Other files."""

    def returns(folder: Path) -> None:
        _table_results(folder)
        for path in (folder / "wordnet").iterdir():
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    yield Case("answers: score-wups, WordNet with CRLF", [*WUPS, "--wordnet", "wordnet"], returns, EITHER)
    for what in ("nowhere", "data", "e.yaml", "/dev/zero"):
        yield Case(f"answers: score-wups --wordnet {what}", [*WUPS, "--wordnet", what], _table_results)
    stored: dict[str, Any] = {"title": "x", "ratios": {"a": {"value": 1.0}}}
    for what, value in damaged(stored, 4):
        if what.startswith(("title", "ratios.a.value is number", "ratios.a.value is fraction")):
            continue  # those are stored benchmarks, and to measure takes minutes

        def write(folder: Path, value: Any = value) -> None:
            (folder / "bench.json").write_bytes(as_json(value))

        typed = ["bench", "score", "--questions", "300", "--repeat", "1", "--against", "bench.json"]
        yield Case(f"answers: bench, {what}", typed, write, CHECKED)

    def empty_questions(folder: Path) -> None:
        edit(QUESTIONS, lambda c: {**c, "questions": [{**c["questions"][0], "question": "  "}, *c["questions"][1:]]})(
            folder
        )

    yield Case("answers: data check, a question of blanks", CHECK, empty_questions, CHECKED)
    for question in ("", "  ", "\x00", "\x1b[31m", "[/b]", "?" * 100_000):
        typed = ["predict", RUN, IMAGE, question]
        status = frozenset({2}) if not question.strip() else EITHER
        yield Case(f"answers: predict {question[:8]!r}", typed, allowed=status)
    for more in (["what?", "--choices", "red"], ["what?", "--choices", ""], ["what?", "red", "blue"],
                 ["what?", "--choices", "[/b]", "\x1b[31m"], ["what?", "--weights", "nowhere"]):  # fmt: skip
        typed = ["predict", RUN, IMAGE, *more]
        yield Case(f"answers: predict {' '.join(more)!r:.40}", typed, allowed=EITHER)
    for more in (["data"], ["--format", "vqa_v2"], ["nowhere", "--format", "vqa_v2"], ["e.yaml", "--format", "vqa_v2"],
                 ["data", "--format", ""], ["data", "--format", "os:system"], ["data", "--format", "table"],
                 ["/dev/zero", "--format", "table"], ["n" * 5000, "--format", "table"], ["a\x00b", "--format", "gqa"],
                 *(["data", "--format", name] for name in ("clevr", "gqa", "daquar", "coco_qa", "vizwiz", "easy_vqa",
                   "abstract", "vqa_v1", "vqa_cp_v2"))):  # fmt: skip
        for verb in ("check", "plan"):
            yield Case(f"answers: data {verb} {' '.join(more)[:40]!r}", ["data", verb, *more], allowed=CHECKED - {0})
