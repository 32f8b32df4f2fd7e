"""Write a synthetic data set in the official files, and say how much a question alone gives away."""

import os
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np

from vqa.data.synthetic.answers import EVERY_TRUTH, answer_type
from vqa.data.synthetic.choices import CHOICES, POPULAR, eighteen_choices
from vqa.data.synthetic.images import render_image
from vqa.data.synthetic.plan import QUESTION_IDS, Split, best_accuracy, plan_splits
from vqa.data.synthetic.question_types import question_type
from vqa.errors import InputError, unknown_name
from vqa.files import atomic_folder, read_json
from vqa.progress import progress_bar

REVISION = 2  # goes up whenever the same seed gives something else; `drawing` in summary.json
MOST_SCENES = 1_000_000  # question ids fit into 53 bits, and the data on a disk
FEWEST_SCENES = 40  # fewer cannot be balanced
SMALLEST, LARGEST = 32, 2048  # pixels
DATE = "2026-11-21 00:00:00"  # a constant: the same seed gives the same bytes on every day


@dataclass(frozen=True)
class Layout:
    """The official names of one kind of images; `{}` stands for the split."""

    format: str  # the reader in FORMATS
    data_type: str
    splits: dict[str, str]  # official names
    questions: str
    annotations: str
    pairs: str
    image: str


LAYOUTS = {
    "real": Layout(
        format="vqa_v2",
        data_type="mscoco",
        splits={"train": "train2014", "val": "val2014", "test": "test2015"},
        questions="v2_{task}_mscoco_{split}_questions.json",
        annotations="v2_mscoco_{split}_annotations.json",
        pairs="v2_mscoco_{split}_complementary_pairs.json",
        image="images/{split}/COCO_{split}_{id:012d}.jpg",
    ),
    "abstract": Layout(
        format="abstract",
        data_type="abstract_v002",
        splits={"train": "train2015", "val": "val2015", "test": "test2015"},
        questions="{task}_abstract_v002_{split}_questions.json",
        annotations="abstract_v002_{split}_annotations.json",
        pairs="abstract_v002_{split}_complementary_pairs.json",
        image="scene_img_abstract_v002_{split}/abstract_v002_{split}_{id:012d}.png",
    ),
}


def generate_dataset(out: Path, scenes: int, seed: int, style: str = "real", size: int = 224) -> dict[str, Any]:
    """Make a balanced data set of coloured shapes in the official VQA file formats.

    The same arguments give the same bytes (with the same versions of Python, numpy and Pillow). Everything is written
    beside `out` first and takes its name at the end, so that an interruption leaves nothing half-made.

    Args:
        out: the folder to make. One that already holds just this data set is kept as it is.
        scenes: how many images in all; 70% are for training, 20% for validation, 10% for the test split, whose
            answers are not written.
        seed: not negative; decides everything.
        style: "real" (files named as VQA v2 on COCO, JPEG) or "abstract" (as the abstract scenes, PNG).
        size: the side of an image in pixels.

    Returns:
        The summary, also written to `out/summary.json`: the arguments, the reader's `format`, and for each split with
        answers, computed from the written files, `question_only_bound` (the official accuracy in percent of the best
        single answer to each distinct question text, chosen knowing the answers) and `ceiling` (of the best answer to
        each question).

    Raises:
        InputError: for a wrong argument, or when `out` exists and is not empty and not just this data set.
    """
    settings = {"style": style, "scenes": scenes, "seed": seed, "size": size, "drawing": REVISION}
    _check_arguments(scenes, seed, style, size)
    out = Path(out)
    kept = _already_generated(out, settings)
    if kept is not None:
        return kept
    layout = LAYOUTS[style]
    splits = plan_splits(scenes, seed)
    with atomic_folder(Path(os.path.realpath(out))) as folder:
        _render_images(folder, layout, splits, seed, style, size)
        _write_files(folder, layout, splits, seed, style)
        summary = _summary(folder, layout, splits, settings)
        _write(folder / "summary.json", summary, indent=2)
    return summary


def _check_arguments(scenes: int, seed: int, style: str, size: int) -> None:
    if style not in LAYOUTS:
        raise InputError(unknown_name("style", style, LAYOUTS))
    if scenes < FEWEST_SCENES:
        raise InputError(f"{scenes} scenes are too few to balance the questions; take at least {FEWEST_SCENES}")
    if scenes > MOST_SCENES:
        raise InputError(f"{scenes:,} scenes are too many to name; take at most {MOST_SCENES:,}")
    if seed < 0:
        raise InputError(f"seed {seed} is negative; use 0 or more")
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"an image size of {size} pixels is not between {SMALLEST} and {LARGEST}")


def _already_generated(out: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of a folder that holds just this data set; None where nothing is there yet."""
    if not out.exists() and not out.is_symlink():
        return None
    if not out.is_dir():
        raise InputError(f"{out}: is not a folder; give the name of a new one")
    if not any(out.iterdir()):
        return None
    advice = "nothing was written over; remove the folder or give another name"
    if not (out / "summary.json").is_file():
        raise InputError(f"{out}: is not empty and holds no synthetic data set; {advice}")
    summary = read_json(out / "summary.json", dict[str, Any])
    if summary.get("drawing", REVISION) != REVISION:
        raise InputError(f"{out}: holds a data set that another version of vqa made; {advice}")
    for name, value in settings.items():
        if summary.get(name) != value:
            raise InputError(f"{out}: holds a data set made with {name} {summary.get(name)}, not {value}; {advice}")
    for name in summary["files"]:
        if not (out / name).is_file():
            raise InputError(f"{out}: {name} is missing; {advice}")
    layout = LAYOUTS[settings["style"]]
    for split, facts in summary["splits"].items():
        images = out / layout.image.format(split=split, id=0)
        found = len(list(images.parent.glob(f"*{images.suffix}")))
        expected = facts.get("images", facts.get("pictures"))  # the second is what versions before 0.2 wrote
        if found != expected:
            raise InputError(f"{images.parent}: holds {found} images, not {expected}; {advice}")
    return summary


def _render_images(folder: Path, layout: Layout, splits: list[Split], seed: int, style: str, size: int) -> None:
    with progress_bar() as progress:
        task = progress.add_task("rendering images", total=sum(len(split.scenes) for split in splits), note="")
        for split in splits:
            name = layout.splits[split.short]
            progress.update(task, note=name)
            (folder / layout.image.format(split=name, id=0)).parent.mkdir(parents=True)
            for image_id, scene in enumerate(split.scenes, start=split.first_id):
                rng = np.random.default_rng([seed, image_id])
                image = render_image(scene, style, size, rng)
                path = folder / layout.image.format(split=name, id=image_id)
                image.save(path, quality=int(rng.integers(84, 96)))
                progress.advance(task)


def _write_files(folder: Path, layout: Layout, splits: list[Split], seed: int, style: str) -> None:
    """Write questions, annotations, pairs and scenes of every split; what gives answers away is left out for test."""
    popular = [answer for answer, _ in Counter(question.answer for question in splits[0].asked).most_common(POPULAR)]
    truths = {question.answer for split in splits for question in split.asked}
    others = sorted(truths) + [answer for answer in EVERY_TRUTH if answer not in truths]
    for split in splits:
        name, head = layout.splits[split.short], _head(layout, split)
        rows = [
            {"image_id": question_id // QUESTION_IDS, "question": question.text, "question_id": question_id}
            for question_id, question in zip(split.question_ids, split.asked, strict=True)
        ]
        open_ended = {**head, "task_type": "Open-Ended", "questions": rows}
        _write(folder / layout.questions.format(task="OpenEnded", split=name), open_ended)
        choices = _choices(split, popular, others, seed)
        rows = [{**row, "multiple_choices": of_row} for row, of_row in zip(rows, choices, strict=True)]
        multiple_choice = {**head, "task_type": "Multiple Choice", "num_choices": CHOICES, "questions": rows}
        _write(folder / layout.questions.format(task="MultipleChoice", split=name), multiple_choice)
        if split.short != "test":
            _write(folder / layout.annotations.format(split=name), {**head, "annotations": _annotations(split, style)})
            _write(folder / layout.pairs.format(split=name), split.pairs())
            _write(folder / f"scenes_{name}.json", _scenes(split))


def _head(layout: Layout, split: Split) -> dict[str, Any]:
    return {
        "info": {
            "description": "Drawn shapes in the VQA format: a unit test for visual question answering models.",
            "url": "https://visualqa.org/download.html",
            "version": str(REVISION),
            "year": int(DATE[:4]),
            "contributor": "vqa",
            "date_created": DATE,
        },
        "license": {"url": "https://opensource.org/license/mit", "name": "MIT License"},
        "data_type": layout.data_type,
        "data_subtype": layout.splits[split.short],
    }


def _annotations(split: Split, style: str) -> list[dict[str, Any]]:
    return [
        {
            "question_type": question_type(question.text, style),
            "multiple_choice_answer": question.answer,
            "answers": people,
            "image_id": question_id // QUESTION_IDS,
            "answer_type": answer_type(question.answer),
            "question_id": question_id,
        }
        for question_id, question, people in zip(split.question_ids, split.asked, split.answers, strict=True)
    ]


def _scenes(split: Split) -> list[dict[str, Any]]:
    """What stands in every image, which official data sets do not say."""
    return [
        {"image_id": image_id, "things": [asdict(thing) for thing in scene.things]}
        for image_id, scene in enumerate(split.scenes, start=split.first_id)
    ]


def _choices(split: Split, popular: list[str], others: list[str], seed: int) -> list[list[str]]:
    """Eighteen choices a question; what people would guess unseen is what the same text, or kind, has elsewhere."""
    of_text: dict[str, dict[str, None]] = defaultdict(dict)
    of_kind: dict[str, dict[str, None]] = defaultdict(dict)
    for question in split.asked:
        of_text[question.text][question.answer] = None
        of_kind[question.kind][question.answer] = None
    choices = []
    for question_id, question in zip(split.question_ids, split.asked, strict=True):
        random = Random(f"{seed} choices {question_id}")
        near, far = list(of_text[question.text]), list(of_kind[question.kind])
        random.shuffle(near)
        random.shuffle(far)
        choices.append(eighteen_choices(question.answer, near + far, popular, others, random))
    return choices


def _write(path: Path, value: Any, indent: int = 0) -> None:
    encoded = msgspec.json.encode(value)
    path.write_bytes(msgspec.json.format(encoded, indent=indent) + b"\n" if indent else encoded)


def _summary(folder: Path, layout: Layout, splits: list[Split], settings: dict[str, Any]) -> dict[str, Any]:
    """Describe the data set from its written files."""
    facts = {layout.splits[split.short]: _split_facts(folder, layout, split) for split in splits}
    val = facts[layout.splits["val"]]
    return {
        "format": layout.format,
        **settings,
        "question_only_bound": val["question_only_bound"],
        "ceiling": val["ceiling"],
        "splits": facts,
        "files": sorted(path.name for path in folder.glob("*.json")),
    }


def _split_facts(folder: Path, layout: Layout, split: Split) -> dict[str, Any]:
    name = layout.splits[split.short]
    asked = read_json(folder / layout.questions.format(task="OpenEnded", split=name))["questions"]
    text = {row["question_id"]: row["question"] for row in asked}
    facts: dict[str, Any] = {
        "images": len(split.scenes),
        "questions": len(asked),
        "distinct_questions": len(set(text.values())),
    }
    if split.short == "test":
        return facts
    annotations = read_json(folder / layout.annotations.format(split=name))["annotations"]
    answers, ids = [row["answers"] for row in annotations], [row["question_id"] for row in annotations]
    return facts | {
        "complementary_pairs": len(read_json(folder / layout.pairs.format(split=name))),
        "distinct_answers": len({row["multiple_choice_answer"] for row in annotations}),
        "answer_types": dict(sorted(Counter(row["answer_type"] for row in annotations).items())),
        "question_only_bound": best_accuracy(answers, [text[question_id] for question_id in ids]),
        "ceiling": best_accuracy(answers, ids),
    }
