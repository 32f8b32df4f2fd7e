"""What is checked of an ablation before its first step, so that nothing is trained for a refusal at the end."""

import json
from collections.abc import Callable, Iterable, Sequence

from vqa.errors import InputError
from vqa.evaluation.contamination import DECLARE, overlap, seen_in, without_seen
from vqa.experiment import Experiment
from vqa.features.cache.reader import FeatureCache
from vqa.progress import console
from vqa.runtime.deterministic import deterministic_algorithms
from vqa.runtime.device import choose_machine
from vqa.studies.grid import Ablation, CellRun
from vqa.studies.summary import wanted_evaluation
from vqa.training.inputs.prepare import open_caches
from vqa.training.inputs.splits import read_split, read_train_and_val
from vqa.training.needs import require_known_places, require_room, smallest_sizes
from vqa.training.resume import already_trained


def check_ablation(ablation: Ablation) -> None:
    """Check the models and the data of every cell that has something to train.

    Raises:
        InputError: naming the file, the cell and what is wrong: a run folder that holds another experiment; an option
            that does not fit, or what is too large for the memory that is free; a missing feature cache, image or
            split; a split whose answers are hidden, or that the runs would be trained on.
    """
    wanted_evaluation(ablation)  # opens the WordNet corpus, where one is named
    todo = first_of_each_cell(unfinished(ablation))
    exact = any(run.experiment.training.deterministic for run in todo)
    with deterministic_algorithms(exact, "auto"):  # what they need must be chosen before CUDA starts
        for run in todo:
            _naming_cell(ablation, run, _check_model)
    checked = set()
    for run in todo:
        if (key := _data_key(run.experiment)) not in checked:
            _naming_cell(ablation, run, lambda experiment: _check_data(experiment, ablation))
            checked.add(key)


def unfinished(ablation: Ablation) -> list[CellRun]:
    """The runs that are not trained; raises InputError where a folder holds another experiment, or is damaged."""
    return [run for run in ablation.runs if not already_trained(run.folder, run.experiment, resume=True)]


def first_of_each_cell(runs: Iterable[CellRun]) -> list[CellRun]:
    """One run a cell: seeds change nothing that is checked here."""
    first: dict[str, CellRun] = {}
    for run in runs:
        first.setdefault(run.label, run)
    return list(first.values())


def _naming_cell(ablation: Ablation, run: CellRun, check: Callable[[Experiment], None]) -> None:
    try:
        check(run.experiment)
    except InputError as error:
        raise InputError(f"{ablation.path} ({run.label}): {error}") from None


def _check_model(experiment: Experiment) -> None:
    """Build the model once without its weights."""
    if (sizes := smallest_sizes(experiment)) is None:
        return  # a missing cache has its own message, below
    machine = choose_machine(experiment.training.device, experiment.training.precision)
    require_room(experiment, sizes, machine.device, batch=1)
    require_known_places(experiment, sizes)


def _data_key(experiment: Experiment) -> str:
    """Equal for experiments that read the same splits and caches."""
    values = experiment.resolved()
    return json.dumps([values["data"], values["features"]], sort_keys=True)


def _check_data(experiment: Experiment, ablation: Ablation) -> None:
    """Read the splits, look for their images in the caches, and hold the evaluation's split against the training's."""
    split, caches = ablation.file.split, [] if experiment.features.tune else open_caches(experiment)
    train, val = read_train_and_val(experiment)
    judged = val if split == "val" and val is not None else read_split(experiment, split)
    if judged.answers is None:
        raise InputError(f"split: {judged.no_answers}, so runs cannot be evaluated on it; choose another split")
    if caches:
        for dataset in filter(None, (train, val, judged)):
            _require_images(caches, dataset.images.ids)
    chose = val if experiment.training.keep == "best" else None
    seen = seen_in(train, chose, caches)
    if ablation.file.exclude_seen:
        left_out = without_seen(seen, judged, caches, experiment.data.shares_images)[1].exclusion()
        if left_out:
            console.print(f"{ablation.path}: {left_out}")
        return
    common = overlap(seen, judged, caches, experiment.data.shares_images)
    if common.contaminated and not ablation.file.allow_seen:
        raise InputError(
            f"split: {judged.name}: the runs would be trained on {common.counts()}, so their accuracy there would be "
            f"no test; choose another split, or set exclude_seen: true, which leaves those out, or allow_seen: true, "
            f"which is stamped on every number; {DECLARE}"
        )


def _require_images(caches: Sequence[FeatureCache], image_ids: Sequence[str]) -> None:
    """Raise InputError where no cache holds an image."""
    lacking = list(image_ids)
    for cache in caches[:-1]:
        found = cache.find(lacking)
        lacking = [name for name, row in zip(lacking, found.tolist(), strict=True) if row < 0]
    caches[-1].rows(lacking)
