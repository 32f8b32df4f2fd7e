"""What is compared: runs, several seeds of one, and results files, as answers and accuracies to one split.

Results files that `vqa evaluate` left in a run folder are read while they are of the weights that are there; otherwise
the run is asked again. Each file is read once. Legend: `S` seeds, `N` questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset, Strings
from vqa.data.formats import read_dataset
from vqa.data.formats.official import read_official
from vqa.data.formats.table import TableOptions
from vqa.errors import InputError
from vqa.evaluation.accuracy import AnswerKeys, Protocol, accuracy
from vqa.evaluation.contamination import SEEN_NAME, UNSEEN_NAME, without_seen
from vqa.evaluation.results import Task, read_results
from vqa.experiment import Experiment
from vqa.files import sha256_file
from vqa.progress import console
from vqa.runs.evaluate import EvaluationOptions, evaluate_loaded
from vqa.runs.load import load_run, load_seen
from vqa.training.inputs.prepare import open_caches
from vqa.training.inputs.splits import read_split
from vqa.training.run_folder import RunFolder, open_run, read_evaluation


@dataclass(frozen=True)
class SystemOptions:
    """Which questions, and how they are scored.

    Attributes:
        split: "train", "val", "test" of the experiments, or an official split name.
        task: which of the two tasks.
        protocol: the official program's version.
        caches: feature caches instead of the experiments', for runs that are asked again.
        allow_seen: also questions and images that a run was trained on.
        exclude_seen: without the questions of which anything was seen in training.
        allow_code: see `load_run`.
    """

    split: str = "val"
    task: Task = "open-ended"
    protocol: Protocol = "2021"
    caches: Sequence[Path] = ()
    allow_seen: bool = False
    exclude_seen: bool = False
    allow_code: bool = False

    def evaluation(self) -> EvaluationOptions:
        """The same for `vqa evaluate`."""
        return EvaluationOptions(
            task=self.task,
            protocol=self.protocol,
            caches=self.caches,
            allow_seen=self.allow_seen,
            exclude_seen=self.exclude_seen,
            allow_code=self.allow_code,
            image_matters=False,
        )


@dataclass(frozen=True)
class System:
    """One or more runs that differ in their seed alone, or results files of such.

    Attributes:
        name: how tables call it.
        sources: run folders or results files.
        answers: `[N]` each, one a source.
        accuracy_SN: float64, 0..1, not rounded.
        notes: what a reader must know: what was seen in training, what chose the epoch.
    """

    name: str
    sources: tuple[Path, ...]
    answers: tuple[Strings, ...]
    accuracy_SN: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def run(self) -> Path | None:
        """Its first run, or None where it is results files."""
        return self.sources[0] if is_run(self.sources[0]) else None


def is_run(path: Path) -> bool:
    """Whether a folder is a run's."""
    return (path / "experiment.yaml").is_file()


def sources_of(path: Path) -> tuple[Path, ...]:
    """The runs or results files of one system: itself, or the seeds in a folder.

    Raises:
        InputError: there is neither.
    """
    if path.is_file() or is_run(path):
        return (path,)
    runs = [folder for folder in _sorted(path.glob("*/")) if is_run(folder)]
    trained = tuple(folder for folder in runs if RunFolder(folder).model.is_file())
    if trained:
        left = len(runs) - len(trained)
        if left:
            console.print(f"{path}: {left} of {len(runs)} runs have no weights yet and are left out")
        return trained
    files = tuple(_sorted(path.glob("*.json"))) if path.is_dir() else ()
    if not files:
        raise InputError(
            f"{path}: no run folder, no folder of several seeds (experiments/runs/<name>), no results file and no "
            "folder of results files"
        )
    return files


def _sorted(paths: Any) -> list[Path]:
    """By number where names are numbers, as seeds are."""
    return sorted(paths, key=lambda path: (not path.name.isdigit(), int(path.name) if path.name.isdigit() else 0, path))


def read_split_of(
    sources: Sequence[Path],
    options: SystemOptions,
    *,
    official: tuple[Path, Path] | None = None,
    data: tuple[str, Path, TableOptions] | None = None,
) -> QADataset:
    """The questions with their answers: of the files given, or of the first run.

    Args:
        official: the question and the annotation file.
        data: the format's name, the data set's folder, and how a table is read.

    Raises:
        InputError: there are only results files, and nothing says what they answer; or the answers are hidden.
    """
    runs = [path for path in sources if is_run(path)]
    if official is not None:
        dataset = read_official(*official, as_annotated=True)
    elif data is not None:
        dataset = read_dataset(data[0], data[1], options.split, data[2])
    elif runs:
        dataset = _split_of_run(*open_run(runs[0]), options)
    else:
        raise InputError(
            f"{sources[0]}: a results file needs the questions it answers: --questions and --annotations, or --data "
            "and --format"
        )
    if dataset.answers is None:
        raise InputError(f"{dataset.no_answers}, so nothing can be compared")
    if options.task == "multiple-choice" and dataset.choices is None:
        raise InputError(f"{dataset.name}: has no multiple-choice questions; choose --task open-ended")
    return dataset


def read_systems(systems: Sequence[Sequence[Path]], dataset: QADataset, options: SystemOptions) -> list[System]:
    """Read, or ask for, the answers of every system, and score them.

    Args:
        systems: the sources of each, see `sources_of`.
        dataset: see `read_split_of`.

    Raises:
        InputError: a file does not answer exactly these questions, a run has another split or was trained on it.
    """
    keys = AnswerKeys.of(dataset, options.protocol)
    splits: dict[str, QADataset] = {}
    found = []
    for sources in systems:
        answers, notes = [], []
        for path in sources:
            said, note = _answers_of(path, dataset, options, splits)
            answers.append(said)
            notes += [one for one in note if one]
        accuracy_SN = np.stack([accuracy(keys, one) for one in answers])
        found.append(System(_name(sources), tuple(sources), tuple(answers), accuracy_SN, tuple(notes)))
    return _with_different_names(found)


def _answers_of(
    path: Path, dataset: QADataset, options: SystemOptions, splits: dict[str, QADataset]
) -> tuple[Strings, tuple[str, ...]]:
    """The answers of one run or file, and what must be said of them; `splits` keeps what was read for other runs."""
    if not is_run(path):
        return read_results(path, dataset, options.task), ()
    folder, experiment, recorded = open_run(path)
    held_out = (recorded.get("questions") or {}).get("val_ids_sha256")
    section = f"{experiment.data.model_dump_json()} {held_out}"
    if section not in splits:
        splits[section] = _split_of_run(folder, experiment, recorded, options)
    _require_same(path, splits[section], dataset)
    stored = _stored_answers(folder, dataset, options)
    if stored is not None:
        return stored
    console.print(f"{path}: answers {dataset.name} now, as no results file there is of these weights")
    answers = evaluate_loaded(load_run(path, allow_code=options.allow_code), options.split, options.evaluation())
    said = answers.judgement.answers
    common = said.contamination
    return said.by_task[options.task], ((common.stamp, common.choice()) if common else ())


def _split_of_run(
    folder: RunFolder, experiment: Experiment, recorded: dict[str, Any], options: SystemOptions
) -> QADataset:
    dataset = read_split(experiment, options.split, recorded)
    if not options.exclude_seen:
        return dataset
    caches = [] if experiment.features.tune else open_caches(experiment)
    seen = load_seen(folder, experiment, recorded)
    return without_seen(seen, dataset, caches, experiment.data.shares_images)[0]


def _require_same(path: Path, its: QADataset, dataset: QADataset) -> None:
    """Raise InputError unless a run's split has the questions, about the images, of the data set."""
    same = np.array_equal(its.question_id_N, dataset.question_id_N)
    if same and its.images.ids == dataset.images.ids and np.array_equal(its.image_row_N, dataset.image_row_N):
        return
    raise InputError(
        f"{path}: its split {its.name} has {len(its):,} questions, which are not the {len(dataset):,} of "
        f"{dataset.name} in the same order; systems are compared on the same questions, so choose a --split that they "
        "share"
    )


def _stored_answers(
    folder: RunFolder, dataset: QADataset, options: SystemOptions
) -> tuple[Strings, tuple[str, ...]] | None:
    """What `vqa evaluate` left, where it is of the weights as they are now; None where there is nothing of that kind.

    Raises:
        InputError: the run was trained on the questions, and that is not allowed.
    """
    if options.caches or not folder.evaluation(options.split).is_file():
        return None
    found = read_evaluation(folder.evaluation(options.split))
    results = folder.results(options.split, options.task)
    seen = found["seen_in_training"]
    if seen.get("contaminated"):
        results = results.with_stem(f"{results.stem}_{SEEN_NAME}")
    if seen.get("left_out"):
        results = results.with_stem(f"{results.stem}_{UNSEEN_NAME}")
    made = (found.get("data"), found.get("weights_sha256"), found.get("choices_outside"))
    others = bool(seen.get("left_out")) and not options.exclude_seen
    if others or not results.is_file() or made != (dataset.name, sha256_file(folder.model), True):
        return None
    if seen.get("contaminated") and not options.allow_seen:
        raise InputError(
            f"{folder.path}: {seen['stamp']}, so its accuracy here is no test; choose another --split, or add "
            "--allow-seen"
        )
    return read_results(results, dataset, options.task), (seen["stamp"], found["model_choice"])


def _name(sources: Sequence[Path]) -> str:
    if not is_run(sources[0]):
        return sources[0].stem if len(sources) == 1 else sources[0].parent.name
    experiment = open_run(sources[0])[1]
    return experiment.name if len(sources) > 1 else f"{experiment.name}, seed {experiment.seed}"


def _with_different_names(systems: list[System]) -> list[System]:
    """The same, those of one name called by their paths."""
    names = [system.name for system in systems]
    return [
        replace(one, name=str(one.sources[0] if len(one.sources) == 1 else one.sources[0].parent))
        if names.count(one.name) > 1
        else one
        for one in systems
    ]
