"""A whole split put to an external model: batched, prepared ahead in threads, resumable.

Legend: `N` questions.
"""

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqa.data.dataset import QADataset, Strings, missing_images
from vqa.data.images import ON_WHITE, Decoding, read_rgb
from vqa.data.missing import missing_sentence
from vqa.errors import InputError, InterruptedRunError
from vqa.evaluation.contamination import UNKNOWN_TRAINING
from vqa.evaluation.judge import SplitAnswers
from vqa.evaluation.results import Task
from vqa.external.answer_file import AnswerFile, Line
from vqa.external.contracts import Batch, ExternalModel
from vqa.progress import console, progress_bar
from vqa.runtime.stopping import StopRequest, stop_signals


def ask(
    model: ExternalModel, dataset: QADataset, tasks: Sequence[Task], folder: Path, *, workers: int, command: str
) -> tuple[SplitAnswers, int]:
    """Put every question of a split to a model, going on where an earlier call with the same settings stopped.

    Returns:
        The answers in the data set's order, and how many of them are new; the others were in the file already.

    Args:
        folder: where the file of answers is, `answers_<split>_<digest>.jsonl`.
        workers: threads that decode and prepare images ahead.
        command: what the user runs to go on, for the message after an interruption.

    Raises:
        InputError: when an image is missing or cannot be read, naming it.
        InterruptedRunError: after a signal of `vqa.runtime.stopping`, with the answers saved.
    """
    missing = missing_images(dataset)
    if missing:
        raise InputError(missing_sentence(dataset.images, missing, dataset.folder))
    belongs_to = identity(model, dataset, tasks)
    digest = hashlib.sha256(json.dumps(belongs_to, sort_keys=True).encode()).hexdigest()[:12]
    plan = plan_batches(model, dataset)
    model.expect(dataset)
    started = time.perf_counter()
    path = folder / f"answers_{dataset.split}_{digest}.jsonl"
    with AnswerFile(path, belongs_to) as file, stop_signals() as stop:
        done = _whole_batches(file, dataset, plan)
        already = sum(len(rows) for rows in plan[:done])
        file.keep(already)
        if already:
            console.print(f"{path}: {already:,} of {len(dataset):,} questions were answered before")
        if done < len(plan):
            decoding = ON_WHITE.of_images(dataset.images.paths[row] for row in np.unique(dataset.image_row_N).tolist())
            session = _AnswerSession(model, dataset, decoding, "multiple-choice" in tasks, workers, command)
            _ask_batches(session, plan[done:], file, stop)
        lines = file.lines
    if new := len(dataset) - already:
        seconds = time.perf_counter() - started
        console.print(f"{new:,} questions in {seconds:.1f} s ({new / max(seconds, 1e-9):.1f} questions/s)")
    return _in_order(model, dataset, tasks, lines, plan), new


def identity(model: ExternalModel, dataset: QADataset, tasks: Sequence[Task]) -> dict[str, Any]:
    """Everything that the answers depend on."""
    import torch
    import transformers

    settings = model.settings
    return {
        "model": model.name,
        "revision": model.revision,
        "prompt": settings.prompt,
        "batch_size": settings.batch_size,
        "max_new_tokens": settings.max_new_tokens,
        "device": settings.device.type,
        "dtype": str(settings.dtype).removeprefix("torch."),
        "tasks": list(tasks),
        "split": dataset.name,
        "questions": split_digest(dataset),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def split_digest(dataset: QADataset) -> str:
    """SHA-256 over ids, images, questions and choices: what the model is asked, whatever the answers."""
    digest = hashlib.sha256(dataset.question_id_N.astype("<i8").tobytes())
    columns = [Strings(dataset.images.ids, dataset.image_row_N), dataset.question]
    columns += [dataset.choices] if dataset.choices else []
    for column in columns:
        digest.update(json.dumps(column.distinct).encode() + column.codes.astype("<i4").tobytes())
    return digest.hexdigest()


def plan_batches(model: ExternalModel, dataset: QADataset) -> list[list[int]]:
    """Rows of the data set, batch by batch: prompts of equal length together, questions about one image neighbours.

    With prompts of equal length nothing is padded: some models attend to padding, or count positions over it, and
    would answer a question differently in different company.
    """
    length_S = np.array([model.prompt_length(question) for question in dataset.question.distinct])
    length_N = length_S[dataset.question.codes]
    order_N = np.lexsort((dataset.image_row_N, length_N))
    cuts = np.flatnonzero(np.diff(length_N[order_N])) + 1
    size = model.settings.batch_size
    return [
        group[begin : begin + size].tolist()
        for group in np.split(order_N, cuts)
        for begin in range(0, len(group), size)
    ]


def _whole_batches(file: AnswerFile, dataset: QADataset, plan: Sequence[Sequence[int]]) -> int:
    """How many batches of the plan the file holds whole, from the first on."""
    expected = dataset.question_id_N[np.concatenate([np.asarray(rows) for rows in plan])].tolist()
    found = [line.question_id for line in file.lines]
    if found != expected[: len(found)]:
        raise InputError(f"{file.path}: its answers are not in the order in which they were asked; move it away")
    ends = np.cumsum([len(rows) for rows in plan])
    return int((ends <= len(found)).sum())


@dataclass(frozen=True)
class _AnswerSession:
    """What one call works with."""

    model: ExternalModel
    dataset: QADataset
    decoding: Decoding
    choosing: bool
    workers: int
    command: str

    def prepare(self, rows: list[int]) -> Batch:
        """Read the images of a batch and put them through the model's processor; runs in a thread."""
        dataset = self.dataset
        images_of = {
            row: read_rgb(dataset.images.paths[row], self.decoding) for row in set(dataset.image_row_N[rows].tolist())
        }
        images = [images_of[row] for row in dataset.image_row_N[rows].tolist()]
        questions = [dataset.question.at(row) for row in rows]
        choices = [dataset.choices.row(row) for row in rows] if self.choosing and dataset.choices else None
        return Batch(rows, images, questions, choices, self.model.encode(images, questions))

    def prepared(self, plan: Sequence[list[int]], pool: ThreadPoolExecutor) -> Iterator[Batch]:
        """The batches in order, some being prepared while one is answered."""
        queue: deque[Future[Batch]] = deque()
        for rows in plan:
            queue.append(pool.submit(self.prepare, rows))
            if len(queue) > self.workers:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()


def _ask_batches(session: _AnswerSession, plan: Sequence[list[int]], file: AnswerFile, stop: StopRequest) -> None:
    """Answer the batches of the plan that are left."""
    total, before, begin = len(session.dataset), len(file.lines), time.perf_counter()
    pool = ThreadPoolExecutor(session.workers, thread_name_prefix="prepare")
    try:
        with progress_bar() as bar:
            task = bar.add_task(session.dataset.name, total=total, completed=before, note="")
            for batch in session.prepared(plan, pool):
                if stop.asked:
                    file.commit()
                    raise InterruptedRunError(
                        f"stopped: {len(file.lines):,} of {total:,} questions are in {file.path}; go on with: "
                        f"{session.command}"
                    )
                ids = session.dataset.question_id_N[batch.rows].tolist()
                answers = zip(ids, session.model.answer(batch), strict=True)
                file.append([Line(number, one.answer, one.probability, one.choice) for number, one in answers])
                rate = (len(file.lines) - before) / (time.perf_counter() - begin)
                bar.update(task, completed=len(file.lines), note=f"{rate:.1f} questions/s")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _in_order(
    model: ExternalModel,
    dataset: QADataset,
    tasks: Sequence[Task],
    lines: Sequence[Line],
    plan: Sequence[Sequence[int]],
) -> SplitAnswers:
    """The lines of the file in the data set's order."""
    place_N = np.argsort(np.concatenate([np.asarray(rows) for rows in plan]))
    ordered = [lines[place] for place in place_N.tolist()]
    open_ended = Strings.of([line.answer for line in ordered])
    by_task: dict[Task, Strings] = {"open-ended": open_ended} if "open-ended" in tasks else {}
    if "multiple-choice" in tasks:
        by_task["multiple-choice"] = Strings.of([line.choice for line in ordered])
    return SplitAnswers(
        name=model.title,
        dataset=dataset,
        by_task=by_task,
        open_ended=open_ended,
        confidence_N=np.array([line.probability for line in ordered], dtype=np.float32),
        vocabulary=model.answers,
        note=UNKNOWN_TRAINING,
    )
