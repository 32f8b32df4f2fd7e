"""One piece of work in a process of its own, with its time and peak memory: `python -m vqa.bench.child WAY FOLDER`.

A way prepares, outside of the time measured, and returns the work. It imports what it needs itself: what another way
imports would count as its memory. One line of JSON is printed:
`{"seconds", "cpu_seconds", "peak_bytes", "device_peak_bytes"}`.
"""

import json
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vqa.runtime.memory import peak_memory

QUESTIONS = "v2_OpenEnded_mscoco_train2014_questions.json"
ANNOTATIONS = "v2_mscoco_train2014_annotations.json"
RESULTS = "results.json"
TRAINING = "training.json"  # what `train` is told: cache, device, questions, batch_size
COMMAND = "command.json"  # what `command` is told: the arguments of `vqa`
STEPS = 6

Work = Callable[[], object]


def load_json(folder: Path) -> Work:
    """Both files of questions by Python's own reader."""
    return lambda: (_loaded(folder / QUESTIONS), _loaded(folder / ANNOTATIONS))


def index_json(folder: Path) -> Work:
    """The same, and dictionaries by question id."""

    def work() -> object:
        questions = {one["question_id"]: one for one in _loaded(folder / QUESTIONS)["questions"]}
        annotations = {one["question_id"]: one for one in _loaded(folder / ANNOTATIONS)["annotations"]}
        return questions, annotations

    return work


def load_annotations(folder: Path) -> Work:
    """The annotations alone by Python's own reader."""
    return lambda: _loaded(folder / ANNOTATIONS)


def read(folder: Path) -> Work:
    """Both files by our reader."""
    from vqa.data.formats import read_dataset

    return lambda: read_dataset("vqa_v2", folder, "train")


def score_files(folder: Path) -> Work:
    """`vqa score` of a results file."""
    from vqa.evaluation.score_files import score_files

    return lambda: score_files(folder / RESULTS, folder / QUESTIONS, folder / ANNOTATIONS)


def score_arrays(folder: Path) -> Work:
    """The metric alone, of answers that are in memory."""
    from vqa.data.formats.official import read_official
    from vqa.evaluation.accuracy import score
    from vqa.evaluation.results import read_results

    dataset = read_official(folder / QUESTIONS, folder / ANNOTATIONS)
    predictions = read_results(folder / RESULTS, dataset)
    return lambda: score(dataset, predictions)


def train(folder: Path) -> Work:
    """A few steps of stacked attention, the batch of the longest questions among them, as `TRAINING` says."""
    from vqa.bench.steps.ours import STACKED_ATTENTION, begin, spread, take_steps
    from vqa.bench.synthetic import make_questions, prepare_synthetic
    from vqa.features.cache.reader import FeatureCache
    from vqa.runtime.device import choose_machine
    from vqa.training.inputs.batches import batches

    told = _loaded(folder / TRAINING)
    cache, batch_size = FeatureCache(Path(told["cache"])), told["batch_size"]
    dataset = make_questions(told["questions"], len(cache))
    prepared = prepare_synthetic(dataset, cache, choose_machine(told["device"]), None, residency="device")
    epoch = batches(prepared.train_questions, batch_size, 0, 0)
    chosen = [*spread(epoch, STEPS), max(epoch, key=lambda batch: batch.longest)]
    return lambda: take_steps(begin(prepared, STACKED_ATTENTION, batch_size), chosen)


def command(folder: Path) -> Work:
    """A command of the console, run as `python -m vqa` runs it; one that fails ends the process with its status."""
    arguments = _loaded(folder / COMMAND)

    def work() -> None:
        sys.argv = ["vqa", *arguments]
        try:
            runpy.run_module("vqa", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                raise

    return work


WAYS: dict[str, Callable[[Path], Work]] = {
    "load_json": load_json,
    "index_json": index_json,
    "load_annotations": load_annotations,
    "read": read,
    "score_files": score_files,
    "score_arrays": score_arrays,
    "train": train,
    "command": command,
}


def device_peak() -> int | None:
    """The most bytes that torch's allocator held on this process's GPU; None where no GPU was used."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_reserved())


def _loaded(path: Path) -> Any:
    with path.open() as file:
        return json.load(file)


def main() -> None:
    """Do the work that the command line names, and print what it took."""
    if len(sys.argv) != 3 or sys.argv[1] not in WAYS:
        sys.exit(f"usage: python -m vqa.bench.child WAY FOLDER, where WAY is one of {', '.join(WAYS)}")
    work = WAYS[sys.argv[1]](Path(sys.argv[2]))
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()  # kept: what it frees would be time
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    took = {"seconds": wall, "cpu_seconds": cpu, "peak_bytes": peak_memory(), "device_peak_bytes": device_peak()}
    print(json.dumps(took))
    del result


if __name__ == "__main__":
    main()
