"""The synthetic data set: official structure, true answers, balance, byte identity, and nothing written over."""

import difflib
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from helpers.features import forked
from PIL import Image, ImageDraw

from vqa.data.dataset import missing_images
from vqa.data.formats import read_dataset
from vqa.data.synthetic import generate_dataset
from vqa.data.synthetic.answers import EVERY_TRUTH, MISTAKES, ten_answers
from vqa.data.synthetic.choices import eighteen_choices
from vqa.data.synthetic.images import corners, render_image
from vqa.data.synthetic.plan import plan_splits
from vqa.data.synthetic.question_types import PREFIXES, question_type
from vqa.data.synthetic.questions import MIX, every_question
from vqa.data.synthetic.scenes import COLORS, SHAPES, Scene, Thing, random_scene
from vqa.data.synthetic.write import FEWEST_SCENES, LAYOUTS
from vqa.errors import InputError

SCENES, SIZE = 150, 64
STYLES = ("real", "abstract")


class DataFolder:
    """A generated folder with every JSON file read by the standard library."""

    def __init__(self, folder: Path, style: str, summary: dict[str, Any]):
        self.folder, self.style, self.summary, self.layout = folder, style, summary, LAYOUTS[style]

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def questions(self, split: str, task: str = "OpenEnded") -> dict[str, Any]:
        return self.json(self.layout.questions.format(task=task, split=self.layout.splits[split]))

    def annotations(self, split: str) -> dict[str, Any]:
        return self.json(self.layout.annotations.format(split=self.layout.splits[split]))

    def pairs(self, split: str) -> list[list[int]]:
        return self.json(self.layout.pairs.format(split=self.layout.splits[split]))

    def scenes(self, split: str) -> dict[int, list[dict[str, Any]]]:
        return {row["image_id"]: row["things"] for row in self.json(f"scenes_{self.layout.splits[split]}.json")}

    def texts(self, split: str) -> dict[int, str]:
        return {row["question_id"]: row["question"] for row in self.questions(split)["questions"]}


@pytest.fixture(scope="module", params=STYLES)
def generated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    folder = tmp_path_factory.mktemp("generated") / request.param
    return DataFolder(folder, request.param, generate_dataset(folder, SCENES, seed=3, style=request.param, size=SIZE))


def fingerprint(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# Official files.


def test_file_names_are_the_official_ones(tmp_path: Path, generated: DataFolder) -> None:
    real = {
        f"v2_{task}_mscoco_{split}_questions.json"
        for task in ("OpenEnded", "MultipleChoice")
        for split in ("train2014", "val2014", "test2015")
    } | {
        f"v2_mscoco_{s}_{kind}.json"
        for s in ("train2014", "val2014")
        for kind in ("annotations", "complementary_pairs")
    }
    abstract = {
        f"{task}_abstract_v002_{split}_questions.json"
        for task in ("OpenEnded", "MultipleChoice")
        for split in ("train2015", "val2015", "test2015")
    } | {
        f"abstract_v002_{s}_{kind}.json"
        for s in ("train2015", "val2015")
        for kind in ("annotations", "complementary_pairs")
    }
    expected = real if generated.style == "real" else abstract
    found = {path.name for path in generated.folder.glob("*.json")}
    assert {name for name in found if not name.startswith("scenes_")} == expected | {"summary.json"}
    assert not any("test" in name for name in found - expected), "the test split's answers must not leak"


def test_questions_have_the_official_structure(generated: DataFolder) -> None:
    image_ids: dict[str, set[int]] = {}
    for split, name in generated.layout.splits.items():
        open_ended, multiple_choice = generated.questions(split), generated.questions(split, "MultipleChoice")
        assert open_ended["task_type"] == "Open-Ended" and multiple_choice["task_type"] == "Multiple Choice"
        assert multiple_choice["num_choices"] == 18
        for file in (open_ended, multiple_choice):
            assert file["data_type"] == generated.layout.data_type and file["data_subtype"] == name
            assert set(file["info"]) == {"description", "url", "version", "year", "contributor", "date_created"}
            assert set(file["license"]) == {"url", "name"}
        rows = open_ended["questions"]
        ids = [row["question_id"] for row in rows]
        assert ids == sorted(set(ids))
        assert all(set(row) == {"image_id", "question", "question_id"} for row in rows)
        assert all(row["question_id"] // 1000 == row["image_id"] for row in rows)
        without_choices = [
            {k: v for k, v in row.items() if k != "multiple_choices"} for row in multiple_choice["questions"]
        ]
        assert without_choices == rows
        image_ids[split] = {row["image_id"] for row in rows}
    assert len(set.union(*image_ids.values())) == sum(map(len, image_ids.values())), "image ids are unique over splits"


def test_annotations_have_the_official_structure(generated: DataFolder) -> None:
    for split in ("train", "val"):
        file, texts = generated.annotations(split), generated.texts(split)
        assert (
            file["data_type"] == generated.layout.data_type and file["data_subtype"] == generated.layout.splits[split]
        )
        assert [row["question_id"] for row in file["annotations"]] == list(texts)
        for row in file["annotations"]:
            assert row["image_id"] == row["question_id"] // 1000
            assert [person["answer_id"] for person in row["answers"]] == list(range(1, 11))
            assert {person["answer_confidence"] for person in row["answers"]} <= {"yes", "maybe", "no"}
            (first, votes), *others = Counter(person["answer"] for person in row["answers"]).most_common(2)
            assert row["multiple_choice_answer"] == first
            assert not others or others[0][1] < votes
            kind = "yes/no" if first in ("yes", "no") else "number" if first.isdigit() else "other"
            assert row["answer_type"] == kind
            text = texts[row["question_id"]].lower()
            assert row["question_type"] == "none of the above" or text.startswith(row["question_type"])
        assert {row["answer_type"] for row in file["annotations"]} == {"yes/no", "number", "other"}


def test_images_are_where_the_official_ones_are(generated: DataFolder) -> None:
    counts = {"train": 105, "val": 30, "test": 15}
    for split, name in generated.layout.splits.items():
        for row in generated.questions(split)["questions"]:
            assert (generated.folder / generated.layout.image.format(split=name, id=row["image_id"])).is_file()
        image = generated.folder / generated.layout.image.format(
            split=name, id=generated.questions(split)["questions"][0]["image_id"]
        )
        with Image.open(image) as opened:
            assert opened.size == (SIZE, SIZE) and opened.mode == "RGB"
            assert opened.format == ("JPEG" if generated.style == "real" else "PNG")
        assert len(list(image.parent.iterdir())) == generated.summary["splits"][name]["images"] == counts[split]
    names = {path.relative_to(generated.folder).as_posix() for path in generated.folder.rglob("*000000000001.*")}
    assert names == {
        "images/train2014/COCO_train2014_000000000001.jpg"
        if generated.style == "real"
        else "scene_img_abstract_v002_train2015/abstract_v002_train2015_000000000001.png"
    }


def test_images_have_six_to_ten_questions(generated: DataFolder) -> None:
    for split in generated.layout.splits:
        per_image = Counter(row["image_id"] for row in generated.questions(split)["questions"])
        assert max(per_image.values()) <= 10
        assert 6 <= np.mean(list(per_image.values())) <= 10


def test_the_official_reader_reads_it(generated: DataFolder) -> None:
    for split in generated.layout.splits:
        dataset = read_dataset(generated.summary["format"], generated.folder, split)
        facts = generated.summary["splits"][dataset.split]
        assert len(dataset) == facts["questions"] and len(dataset.images.ids) <= facts["images"]
        assert not missing_images(dataset)
        assert dataset.choices is not None and dataset.choices.codes.shape == (len(dataset), 18)
        assert (dataset.answers is None) == (split == "test")
        if dataset.pairs_P2 is not None:
            assert len(dataset.pairs_P2) == facts["complementary_pairs"]


# Multiple choice.


def test_choices_are_eighteen_with_the_answer_and_the_popular_ones(generated: DataFolder) -> None:
    truths = Counter(row["multiple_choice_answer"] for row in generated.annotations("train")["annotations"])
    tenth = truths.most_common(10)[-1][1]
    popular = {answer for answer, count in truths.items() if count > tenth}
    places: Counter[int] = Counter()
    for split in ("train", "val"):
        choices = {
            row["question_id"]: row["multiple_choices"]
            for row in generated.questions(split, "MultipleChoice")["questions"]
        }
        for row in generated.annotations(split)["annotations"]:
            of_row = choices[row["question_id"]]
            assert len(of_row) == len(set(of_row)) == 18
            assert row["multiple_choice_answer"] in of_row and popular <= set(of_row)
            places[of_row.index(row["multiple_choice_answer"])] += 1
    assert len(places) == 18 and max(places.values()) < 3 * min(places.values()), "the answer's place says nothing"


def test_choices_take_plausible_before_popular_before_random() -> None:
    popular, others = [f"popular {i}" for i in range(10)], [f"other {i}" for i in range(50)]
    choices = eighteen_choices("right", ["right", "p1", "p2", "p1", "p3", "p4"], popular, others, Random(0))
    assert {"right", "p1", "p2", "p3", *popular} <= set(choices) and "p4" not in choices
    assert sum(choice.startswith("other") for choice in choices) == 4
    assert len(set(EVERY_TRUTH)) >= 18, "tiny data sets must have enough answers to fill up"


# Balance.


def test_pairs_ask_the_same_of_two_images_with_different_answers(generated: DataFolder) -> None:
    for split in ("train", "val"):
        texts = generated.texts(split)
        answers = {
            row["question_id"]: row["multiple_choice_answer"] for row in generated.annotations(split)["annotations"]
        }
        pairs = generated.pairs(split)
        for first, second in pairs:
            assert texts[first] == texts[second] and answers[first] != answers[second]
            assert first // 1000 != second // 1000
        assert sorted(question for pair in pairs for question in pair) == sorted(texts)


def bound_of(texts: dict[int, str], annotations: list[dict[str, Any]]) -> float:
    """The best single answer per text, scored by the official leave-one-out sum written out."""
    people = defaultdict(list)
    for row in annotations:
        people[texts[row["question_id"]]].append([person["answer"] for person in row["answers"]])
    total = 0.0
    for questions in people.values():
        candidates = {answer for ten in questions for answer in ten}
        total += max(
            sum(
                float(np.mean([min(1, (ten[:i] + ten[i + 1 :]).count(answer) / 3) for i in range(10)]))
                for ten in questions
                if answer in ten
            )
            for answer in candidates
        )
    return 100 * total / len(annotations)


def test_stated_bound_is_that_of_the_files_and_below_half(generated: DataFolder) -> None:
    for split in ("train", "val"):
        facts = generated.summary["splits"][generated.layout.splits[split]]
        annotations = generated.annotations(split)["annotations"]
        assert facts["question_only_bound"] == pytest.approx(bound_of(generated.texts(split), annotations), abs=0.01)
        assert facts["question_only_bound"] < 50
        assert facts["ceiling"] >= 95
        assert facts["questions"] == len(annotations) and facts["distinct_questions"] == len(
            set(generated.texts(split).values())
        )
        assert facts["answer_types"] == Counter(row["answer_type"] for row in annotations)
    assert (
        generated.summary["question_only_bound"]
        == generated.summary["splits"][generated.layout.splits["val"]]["question_only_bound"]
    )
    assert generated.json("summary.json") == generated.summary


@pytest.mark.parametrize("scenes", [FEWEST_SCENES, 90])
@pytest.mark.parametrize("seed", range(4))
def test_small_sets_are_balanced_too(scenes: int, seed: int) -> None:
    for split in plan_splits(scenes, seed)[:2]:
        texts = {
            question_id: question.text for question_id, question in zip(split.question_ids, split.asked, strict=True)
        }
        rows = [{"question_id": i, "answers": a} for i, a in zip(split.question_ids, split.answers, strict=True)]
        assert bound_of(texts, rows) < 50


def test_mix_is_kept() -> None:
    asked = [question.kind for question in plan_splits(400, 0)[0].asked]
    assert sum(MIX.values()) == pytest.approx(1)
    for kind, share in MIX.items():
        assert asked.count(kind) / len(asked) == pytest.approx(share, abs=0.01)


def test_answers_to_one_text_are_spread() -> None:
    answers: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for question in plan_splits(400, 0)[0].asked:
        answers[question.kind, question.text][question.answer] += 1
    colors = [count for (kind, _), count in answers.items() if kind == "color" and count.total() >= 10]
    assert len(colors) >= 12
    assert all(max(count.values()) <= 0.35 * count.total() for count in colors)
    counts = sum((count for (kind, _), count in answers.items() if kind == "count"), Counter[str]())
    assert max(counts.values()) < 0.35 * counts.total()


# True answers, worked out again from the text of the question alone.

KNOWN_WORDS = sorted(
    {*COLORS, *SHAPES, "shape", "shapes", "color", "picture", "big", "small", "thing"} | {f"{s}s" for s in SHAPES}
)


def corrected(text: str) -> str:
    """Lower-cased text with misspelt words put right by the nearest known word."""
    words = re.findall(r"[a-z]+", text.lower())
    plain = set(re.findall(r"[a-z]+", " ".join(w for q in every_question() for w in q.wordings).lower()))
    return " ".join(
        word if word in plain else difflib.get_close_matches(word, KNOWN_WORDS, 1, 0.6)[0] for word in words
    )


def described(phrase: str, things: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The things that a noun phrase speaks of."""
    wanted = phrase.split()
    assert wanted
    found = things
    for word in wanted:
        singular = word.removesuffix("s")
        if singular in SHAPES:
            found = [thing for thing in found if thing["shape"] == singular]
        elif word in COLORS:
            found = [thing for thing in found if thing["color"] == word]
        elif word in ("big", "small"):
            found = [thing for thing in found if thing["size"] == word]
        else:
            assert singular in ("shape", "thing"), word
    return found


def only(phrase: str, things: list[dict[str, Any]]) -> dict[str, Any]:
    (thing,) = described(phrase, things)
    return thing


def lies(direction: str, thing: dict[str, Any], other: dict[str, Any]) -> bool:
    return {
        "left of": thing["x"] < other["x"],
        "right of": thing["x"] > other["x"],
        "above": thing["y"] < other["y"],
        "below": thing["y"] > other["y"],
    }[direction]


def yes(truth: bool) -> str:
    return "yes" if truth else "no"


def solve(text: str, things: list[dict[str, Any]]) -> str:
    """Answer a synthetic question by reading it; fails where the scene leaves the answer open."""
    side = "(left of|right of|above|below)"

    found: re.Match[str] | None = None

    def match(pattern: str) -> bool:
        nonlocal found
        found = re.fullmatch(pattern, text)
        return found is not None

    def part(number: int) -> str:
        assert found is not None
        return found[number]

    if match(r"(?:are there|do you see) more (.+) than (.+)"):
        first, second = described(part(1), things), described(part(2), things)
        assert first or second
        return yes(len(first) > len(second))
    if match(r"(?:is there an?|are there any) (.+) that (?:is|are) not (.+)"):
        group = described(part(1), things)
        assert group
        return yes(any(thing["color"] != part(2) for thing in group))
    if match(r"how many shapes are not (.+)"):
        return str(sum(thing["color"] != part(1) for thing in things))
    if match(r"what color is the shape that is not an? (.+)"):
        (thing,) = [thing for thing in things if thing["shape"] != part(1)]
        assert len(things) > 1
        return thing["color"]
    if match(r"(?:is there an?|do you see an?|are there any) (.+?)(?: in the picture)?"):
        return yes(bool(described(part(1), things)))
    if match(r"how many (.+) (?:are there|are in the picture|do you see)"):
        return str(len(described(part(1), things)))
    if match(r"(?:what color is the|what is the color of the|name the color of the) (.+?)(?: in the picture)?"):
        return only(part(1), things)["color"]
    if match(r"(?:what is|what shape is)(?: to the)? " + side + " the (.+)"):
        reference = only(part(2), things)
        (thing,) = [
            thing
            for thing in things
            if thing is not reference
            and lies(part(1), thing, reference)
            and (abs(thing["x"] - reference["x"]) if " of" in part(1) else abs(thing["y"] - reference["y"])) > 0.03
        ]
        return thing["shape"]
    if match(r"is the (\w+) " + side + r" the (\w+)"):
        return yes(lies(part(2), only(part(1), things), only(part(3), things)))
    if match(r"where (?:in the picture )?is the (.+)"):
        thing = only(part(1), things)
        if abs(thing["x"] - 0.5) < 0.09 and abs(thing["y"] - 0.5) < 0.09:
            return "middle"
        assert abs(thing["x"] - 0.5) > 0.12 and abs(thing["y"] - 0.5) > 0.12, "in no corner"
        return f"{'top' if thing['y'] < 0.5 else 'bottom'} {'left' if thing['x'] < 0.5 else 'right'}"
    if match(r"is the (\w+) (?:bigger|larger) than the (\w+)"):
        return yes(only(part(1), things)["radius"] > only(part(2), things)["radius"])
    if match(r"which is bigger the (\w+) or the (\w+)"):
        return max(only(part(1), things), only(part(2), things), key=lambda thing: thing["radius"])["shape"]
    if match(r"(?:is the (\w+) big or small|what size is the (\w+)|how big is the (\w+))"):
        (name,) = [group for group in found.groups() if group] if found else [""]
        return "big" if only(name, things)["radius"] > 0.15 else "small"
    if match(r"which shape is (\w+)"):
        return only(part(1), things)["shape"]
    if match(r"(?:what shape is the|what is the) (.+)"):
        return only(part(1), things)["shape"]
    if match(r"is the (\w+) thing an? (\w+)"):
        return yes(only(part(1), things)["shape"] == part(2))
    if match(r"is the (\w+) (\w+)"):
        return yes(only(part(1), things)["color"] == part(2))
    raise AssertionError(f"nobody knows what {text!r} means")


def test_true_answers_follow_from_the_scenes(generated: DataFolder) -> None:
    for split in ("train", "val"):
        texts, scenes = generated.texts(split), generated.scenes(split)
        right = {text: corrected(text) for text in set(texts.values())}
        for row in generated.annotations(split)["annotations"]:
            text = texts[row["question_id"]]
            assert solve(right[text], scenes[row["image_id"]]) == row["multiple_choice_answer"], (text, row["image_id"])


def test_every_template_is_answered_as_read() -> None:
    scenes = [random_scene(Random(seed)) for seed in range(60)]
    as_read = [[vars(thing) for thing in scene.things] for scene in scenes]
    answered: Counter[str] = Counter()
    for question in every_question():
        for wording in question.wordings:
            text = " ".join(re.findall(r"[a-z]+", wording.lower()))
            for scene, things in zip(scenes, as_read, strict=True):
                answer = question.answer(scene)
                if answer is not None:
                    assert solve(text, things) == answer, (wording, scene)
                    answered[question.kind] += 1
    assert set(answered) == set(MIX)


def test_misspellings_occur_and_stay_few() -> None:
    asked = [question.text for split in plan_splits(300, 1) for question in split.asked]
    spelled_right = {wording for question in every_question() for wording in question.wordings}
    wrong = sum(text not in spelled_right for text in asked)
    assert 0.005 < wrong / len(asked) < 0.08


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What color is the star?", "what color is the"),
        ("What coler is the star?", "what"),
        ("What is the color of the heart?", "what is the color of the"),
        ("Is there a red star?", "is there a"),
        ("Is there an orange star?", "is there"),
        ("Are there any stars?", "are there any"),
        ("Are there more stars than circles?", "are there"),
        ("How many shapes are not red?", "how many"),
        ("Whatever", "none of the above"),
        ("Name the color of the star.", "none of the above"),
    ],
)
def test_question_type_is_the_longest_official_prefix(text: str, expected: str) -> None:
    assert question_type(text, "real") == expected
    assert set(PREFIXES) == set(STYLES)


# People.


def test_people_disagree_as_people_do() -> None:
    random = Random(5)
    tens = {truth: [ten_answers(truth, random) for _ in range(300)] for truth in ("gray", "2", "yes", "star")}
    said = {truth: Counter(person["answer"] for ten in several for person in ten) for truth, several in tens.items()}
    assert 0.05 < said["gray"]["grey"] / 3000 < 0.25
    assert set(said["2"]) == {"1", "2", "3"} and said["2"]["1"] and said["2"]["3"]
    assert set(said["yes"]) == {"yes", "no"} and said["yes"]["no"] < 150
    everyone = [person for several in tens.values() for ten in several for person in ten]
    assert Counter(person["answer_confidence"] for person in everyone).most_common(1)[0][0] == "yes"
    assert {person["answer_confidence"] for person in everyone} == {"yes", "maybe", "no"}
    assert all(truth not in mistakes for truth, mistakes in MISTAKES.items())


# Images.


def test_every_thing_stays_visible() -> None:
    """Silhouettes painted in order: at least 60% of each is left, and none is cut by the image's edge."""
    for seed in range(150):
        scene = random_scene(Random(seed))
        side = 200
        top_HW, whole = Image.new("L", (side, side)), []
        for number, thing in enumerate(scene.things, start=1):
            alone = Image.new("L", (side, side))
            points = corners(thing, side)
            assert min(min(point) for point in points) >= 0 and max(max(point) for point in points) <= side
            ImageDraw.Draw(alone).polygon(points, fill=1)
            ImageDraw.Draw(top_HW).polygon(points, fill=number)
            whole.append(np.asarray(alone).sum())
        visible = np.bincount(np.asarray(top_HW).ravel(), minlength=len(whole) + 1)[1:]
        assert (visible / whole > 0.6).all(), scene


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("color", COLORS)
def test_colors_look_like_themselves(style: str, color: str) -> None:
    """The middle of a thing is nearer to its own paint than to any other, whatever the light."""
    paints = {
        "red": (206, 34, 38),
        "orange": (240, 126, 22),
        "yellow": (246, 216, 44),
        "green": (38, 150, 62),
        "blue": (36, 78, 206),
        "purple": (136, 52, 170),
        "gray": (132, 132, 134),
        "black": (26, 26, 28),
    }
    scene = Scene((Thing("square", color, "big", 0.5, 0.5, 0.16, 0.0),))
    for seed in range(12):
        image = render_image(scene, style, 112, np.random.default_rng(seed))
        middle = np.asarray(image, dtype=float)[46:66, 46:66].mean(axis=(0, 1))
        assert min(paints, key=lambda name: float(np.abs(middle - paints[name]).sum())) == color


@pytest.mark.parametrize("style", STYLES)
def test_a_scene_looks_alike_at_every_size(style: str) -> None:
    scene = random_scene(Random(8))
    large = render_image(scene, style, 224, np.random.default_rng(1)).resize((112, 112), Image.Resampling.BOX)
    inside = Image.new("L", (112, 112))
    for thing in scene.things:
        ImageDraw.Draw(inside).polygon(corners(replace(thing, radius=0.8 * thing.radius), 112), fill=1)
    small = render_image(scene, style, 112, np.random.default_rng(1))
    difference = np.abs(np.asarray(large, dtype=float) - np.asarray(small, dtype=float)).mean(axis=2)
    assert difference[np.asarray(inside) == 1].mean() < 25


# Determinism, arguments, files.


def test_same_seed_same_bytes_whatever_the_hash_seed(generated: DataFolder, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from vqa.data.synthetic import generate_dataset; "
        f"generate_dataset(Path(sys.argv[1]), {SCENES}, 3, {generated.style!r}, {SIZE})"
    )
    for hash_seed in ("1", "77"):
        again = tmp_path / hash_seed
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", program, str(again)], check=True, env=environment, capture_output=True)
        assert fingerprint(again) == fingerprint(generated.folder)


def test_seeds_differ(generated: DataFolder, tmp_path: Path) -> None:
    generate_dataset(tmp_path / "other", SCENES, 4, generated.style, SIZE)
    other, this = fingerprint(tmp_path / "other"), fingerprint(generated.folder)
    assert set(other) == set(this)
    assert all(other[name] != this[name] for name in this)


def test_a_finished_folder_is_kept(generated: DataFolder) -> None:
    before = {path: path.stat().st_mtime_ns for path in generated.folder.rglob("*")}
    assert generate_dataset(generated.folder, SCENES, 3, generated.style, SIZE) == generated.summary
    assert {path: path.stat().st_mtime_ns for path in generated.folder.rglob("*")} == before


def test_another_folder_is_never_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="mine: is not empty"):
        generate_dataset(folder, 40, 0, size=32)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        generate_dataset(tmp_path / "file", 40, 0, size=32)
    with pytest.raises(InputError, match="cannot be written"):
        generate_dataset(tmp_path / "file" / "inside", 40, 0, size=32)
    assert fingerprint(tmp_path).keys() == {"mine/thesis.txt", "file"}

    done = tmp_path / "done"
    done.mkdir()  # an empty folder is as good as none
    generate_dataset(done, 40, 0, size=32)
    with pytest.raises(InputError, match="seed 0, not 1"):
        generate_dataset(done, 40, 1, size=32)
    (done / "images/train2014/COCO_train2014_000000000003.jpg").unlink()
    with pytest.raises(InputError, match="holds 27 images, not 28"):
        generate_dataset(done, 40, 0, size=32)
    (done / "v2_mscoco_val2014_annotations.json").unlink()
    with pytest.raises(InputError, match=r"v2_mscoco_val2014_annotations\.json is missing"):
        generate_dataset(done, 40, 0, size=32)
    (done / "summary.json").write_text('{"drawing": 0}')
    with pytest.raises(InputError, match="another version of vqa made"):
        generate_dataset(done, 40, 0, size=32)
    (done / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="style None, not real"):
        generate_dataset(done, 40, 0, size=32)


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    child = forked(lambda: generate_dataset(tmp_path / "out", 100, 0, size=512), tmp_path / "said")
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob(".out.*.part/images/train2014/*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(child, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_message_and_leaves_nothing(tmp_path: Path) -> None:
    def on_a_small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # enough for an image, not for the questions
        generate_dataset(tmp_path / "out", 40, 0, size=32)

    child = forked(on_a_small_disk, tmp_path / "said")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert (tmp_path / "said").read_text() == f"{tmp_path / 'out'}: cannot be made: File too large"
    assert [path.name for path in tmp_path.iterdir()] == ["said"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"style": "abstrct"}, "did you mean 'abstract'"),
        ({"scenes": FEWEST_SCENES - 1}, "too few"),
        ({"seed": -1}, "negative"),
        ({"size": 8}, "8 pixels"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        generate_dataset(tmp_path / "out", **{"scenes": 40, "seed": 0, "size": 32, **arguments})
    assert list(tmp_path.iterdir()) == []
