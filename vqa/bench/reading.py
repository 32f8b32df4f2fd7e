"""`vqa bench data`: reading files of the size of the VQA v2 training split, beside what others do with them.

Every way of reading runs in a process of its own, so that its time and peak memory are its own.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from vqa.errors import InputError
from vqa.files import atomic_write
from vqa.progress import progress_bar

V2_QUESTIONS = 443_757
V2_IMAGES = 82_783
QUESTIONS = "v2_OpenEnded_mscoco_train2014_questions.json"
ANNOTATIONS = "v2_mscoco_train2014_annotations.json"
READ_FIRST, READ_AGAIN = "vqa, first time", "vqa, from its cache"

# What each process runs between two looks at the clock; `folder` and the two files' names are given.
WAYS = {
    "json.load": "q = json.load(open(questions)); a = json.load(open(annotations))",
    "json.load, then dictionaries by id": (
        "q = {r['question_id']: r for r in json.load(open(questions))['questions']}; "
        "a = {r['question_id']: r for r in json.load(open(annotations))['annotations']}"
    ),
    READ_FIRST: "d = read_dataset('vqa_v2', folder, 'train')",
    READ_AGAIN: "d = read_dataset('vqa_v2', folder, 'train')",
}
SETUP = "from vqa.data.formats import read_dataset"
CHILD = """
import json, sys, time
from pathlib import Path
from vqa.memory import peak_memory
folder = Path(sys.argv[1])
questions, annotations = folder / sys.argv[2], folder / sys.argv[3]
{setup}
wall, cpu = time.perf_counter(), time.process_time()
{way}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps([wall, cpu, peak_memory()]))
"""


@dataclass(frozen=True)
class ReadMeasurement:
    """How one way of reading did.

    Attributes:
        way: what was done.
        seconds: elapsed, the median of the repetitions.
        cpu_seconds: of the processor, the median; steadier than `seconds` on a busy machine.
        peak_bytes: the largest memory of the process, the interpreter and its modules included.
    """

    way: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def bench_reading(folder: Path | None = None, questions: int = V2_QUESTIONS, repeat: int = 3) -> list[ReadMeasurement]:
    """Read the VQA v2 training split in each of `WAYS`.

    Args:
        folder: where the real files lie; None makes files of the same size and shape for the time of the call.
        questions: how many to make.
        repeat: how often each way is measured; each first time has an empty cache.

    Raises:
        InputError: when a file is missing in `folder`.
    """
    with TemporaryDirectory() as temporary:
        if folder is None:
            folder = Path(temporary)
            write_v2_sized_files(folder, questions)
        for name in (QUESTIONS, ANNOTATIONS):
            if not (folder / name).is_file():
                raise InputError(f"{folder / name}: no such file")
        measured: dict[str, list[tuple[float, float, int]]] = {way: [] for way in WAYS}
        with progress_bar() as bar:
            task = bar.add_task("reading", total=repeat * len(WAYS), note="")
            for turn in range(repeat):
                cache = Path(temporary) / f"cache-{turn}"
                for way in WAYS:
                    bar.update(task, note=way)
                    measured[way].append(run_alone(SETUP, WAYS[way], folder, cache))
                    bar.advance(task)
    return medians(measured)


def medians(measured: dict[str, list[tuple[float, float, int]]]) -> list[ReadMeasurement]:
    """One row a way from the repetitions that `run_alone` measured."""
    return [
        ReadMeasurement(
            way, median(wall for wall, _, _ in runs), median(cpu for _, cpu, _ in runs), max(peak for *_, peak in runs)
        )
        for way, runs in measured.items()
    ]


def run_alone(setup: str, way: str, folder: Path, cache: Path) -> tuple[float, float, int]:
    """Run Python code in a process of its own; returns its seconds, processor seconds and peak memory in bytes.

    Args:
        setup: what is run before the clock starts.
        way: what is measured; both know `folder`, `questions` and `annotations`.
        folder: where the two files are.
        cache: the cache of columns to use.

    Raises:
        InputError: when the code fails.
    """
    command = [sys.executable, "-c", CHILD.format(setup=setup, way=way), str(folder), QUESTIONS, ANNOTATIONS]
    environment = os.environ | {"VQA_CACHE": str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"`{way}` failed on {folder}: {done.stderr.strip().splitlines()[-1]}")
    wall, cpu, peak = json.loads(done.stdout.splitlines()[-1])
    return wall, cpu, peak


def write_v2_sized_files(folder: Path, questions: int = V2_QUESTIONS, seed: int = 0) -> None:
    """Write a questions and an annotations file shaped as those of VQA v2: ten answers a question, long tails."""
    random = np.random.default_rng(seed)
    images = random.permutation(581_929)[:V2_IMAGES] + 1
    words = [f"word{number}" for number in range(12_000)]
    length_N = random.integers(3, 9, questions)
    word_NT = np.minimum(random.zipf(1.3, (questions, 8)), len(words)) - 1
    answer_NA = np.minimum(random.zipf(1.4, (questions, 1)), 22_000) + np.zeros((1, 10), dtype=np.int64)
    differs_NA = random.random((questions, 10)) < 0.3
    answer_NA[differs_NA] = np.minimum(random.zipf(1.2, int(differs_NA.sum())), 120_000)
    head = '{"info": {}, "data_type": "mscoco", "data_subtype": "train2014", "license": {}, '
    with atomic_write(folder / QUESTIONS) as asked, atomic_write(folder / ANNOTATIONS) as answered:
        asked.write(head + '"task_type": "Open-Ended", "questions": [')
        answered.write(head + '"annotations": [')
        for row in range(questions):
            image = int(images[row % V2_IMAGES])
            ids = {"image_id": image, "question_id": image * 1000 + row // V2_IMAGES}
            text = " ".join(words[word] for word in word_NT[row, : length_N[row]]).capitalize() + "?"
            answers = [
                {"answer": f"answer {code}", "answer_confidence": "yes", "answer_id": place}
                for place, code in enumerate(answer_NA[row].tolist(), start=1)
            ]
            annotation = {
                "question_type": f"what {row % 65}",
                "multiple_choice_answer": answers[0]["answer"],
                "answers": answers,
                "answer_type": ("yes/no", "number", "other")[row % 3],
                **ids,
            }
            comma = ", " if row else ""
            asked.write(comma + json.dumps({**ids, "question": text}))
            answered.write(comma + json.dumps(annotation))
        asked.write("]}")
        answered.write("]}")
