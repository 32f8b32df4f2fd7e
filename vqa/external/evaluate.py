"""`vqa evaluate --hf`: a model of transformers over a split, into the same files and tables as a trained run.

What such a model was trained on is not known here: its numbers say so, everywhere.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqa.data.dataset import QADataset
from vqa.data.formats import read_dataset
from vqa.data.formats.table import PLAIN, TableOptions
from vqa.errors import InputError
from vqa.evaluation.contamination import UNKNOWN_TRAINING
from vqa.evaluation.judge import Judgement, JudgeOptions, judge
from vqa.evaluation.report.page import Guess, Report, example_rows
from vqa.external.ask import ask, identity
from vqa.external.contracts import ExternalModel
from vqa.external.load import load_external
from vqa.progress import console
from vqa.runs.evaluate import write_judgement
from vqa.training.run_folder import RunFolder, write_environment

EXTERNAL_RUNS = Path("experiments/runs/external")


@dataclass(frozen=True)
class ExternalOptions(JudgeOptions):
    """How a model of transformers is asked and judged.

    Attributes:
        prompt: what the model reads, with `{question}` in it; None takes the published one of its kind.
        batch_size: questions answered together.
        max_new_tokens: longest generated answer.
        limit: ask only so many questions, a random sample, the same every time; None asks all.
        workers: threads that prepare images ahead.
        table: how a table is read.
    """

    prompt: str | None = None
    batch_size: int = 16
    max_new_tokens: int = 16
    limit: int | None = None
    workers: int = 4
    table: TableOptions = PLAIN


@dataclass(frozen=True)
class ExternalEvaluation:
    """What an external model says of a split, and how good that is.

    Attributes:
        folder: where the files are.
        model: as it was asked.
        judgement: of its answers.
        limit: how many questions were sampled, or None for all.
        asked_now: questions answered by this call; the others were answered before.
    """

    folder: RunFolder
    model: ExternalModel
    judgement: Judgement
    limit: int | None
    asked_now: int

    def summary(self) -> dict[str, Any]:
        """The numbers for `evaluation_<split>.json`: the keys of a trained run's, and how the model was asked."""
        asked = identity(self.model, self.judgement.dataset, list(self.judgement.answers.by_task))
        return {
            **self.judgement.summary(self.folder.path, self.model.title),
            "limit": self.limit,
            "asked": {"kind": self.model.kind, **asked},
        }

    def report(self) -> Report:
        """The page of the model."""
        model, settings, judgement = self.model, self.model.settings, self.judgement
        facts = (
            ("model", f"{model.name}, {model.kind}, revision {model.revision}"),
            ("prompt", settings.prompt),
            *judgement.facts(),
            *([("sample", "random, the same every time")] if self.limit else []),
            ("answers", f"{len(model.answers):,} labels" if model.answers else "generated, decoded greedily"),
            ("machine", f"{settings.device.type}, {settings.dtype}, batches of {settings.batch_size}"),
        )
        confidence_N = judgement.answers.confidence_N
        assert confidence_N is not None
        examples = [
            judgement.example(row, [Guess(judgement.answer(row)[0], float(confidence_N[row]))])
            for row in example_rows(judgement.dataset).tolist()
        ]
        return judgement.report(model.title, facts, examples)


def evaluate_external(
    name: str,
    data: Path,
    format: str,
    split: str = "val",
    options: ExternalOptions | None = None,
    *,
    out: Path | None = None,
    json_file: Path | None = None,
    command: str = "the same command",
) -> ExternalEvaluation:
    """Ask a model every question of a split; writes results files, `evaluation_<split>.json` and `report.html`.

    Args:
        name: of a model on the hub, or its folder.
        data: the data set's folder.
        format: how it is laid out.
        out: the folder of the files, by default one for the model in `experiments/runs/external`.
        json_file: another place for the numbers.
        command: what the user runs to go on after an interruption.

    Raises:
        InputError: naming the file and item.
        InterruptedRunError: after a signal of `vqa.runtime.stopping`, with the answers saved.
    """
    options = options or ExternalOptions()
    dataset = random_sample(read_dataset(format, data, split, options.table), options.limit)
    tasks = options.tasks(dataset)
    model = load_external(
        name, prompt=options.prompt, batch_size=options.batch_size, max_new_tokens=options.max_new_tokens
    )
    settings = model.settings
    console.print(
        f"{name}: {model.kind} model, revision {model.revision[:12]}, on {settings.device.type} in "
        f"{str(settings.dtype).removeprefix('torch.')}\nprompt: {settings.prompt!r}\n{UNKNOWN_TRAINING}",
    )
    folder = RunFolder(out or EXTERNAL_RUNS / re.sub(r"[^A-Za-z0-9._-]+", "-", name.strip("/")).strip("-."))
    answers, new = ask(model, dataset, tasks, folder.path, workers=options.workers, command=command)
    scored = dataset.answers is not None
    judgement = (
        judge(answers, options, _train_split(format, data, options.table)) if scored else Judgement(answers, options)
    )
    evaluation = ExternalEvaluation(folder, model, judgement, options.limit, new)
    write_judgement(
        judgement, folder, split,
        summary=evaluation.summary() if scored else None, page=evaluation.report() if scored else None,
        json_file=json_file,
    )  # fmt: skip
    write_environment(folder.path / "environment.json", settings.device)
    return evaluation


def random_sample(dataset: QADataset, limit: int | None) -> QADataset:
    """So many questions at random, always the same, in the data set's order; all of them where there are no more."""
    if limit is None or limit >= len(dataset):
        return dataset
    return dataset.take(np.sort(np.random.default_rng(0).permutation(len(dataset))[:limit]))


def _train_split(format: str, data: Path, table: TableOptions) -> QADataset | None:
    """What the floors are learned from, or None, which is printed, where there is none beside the split."""
    try:
        return read_dataset(format, data, "train", table)
    except InputError as error:
        console.print(f"no training split, so no floors of most frequent answers: {error}")
        return None
