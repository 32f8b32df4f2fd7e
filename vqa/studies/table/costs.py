"""What each cell of an ablation costs: counted of its experiment, and measured in its runs.

Counted costs are the same whoever counts; measured ones are of the machine and of what else ran there, so they are in
no file that two workers must write alike.
"""

import hashlib
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqa.errors import InputError
from vqa.experiment import Experiment
from vqa.planning.describe import describe
from vqa.planning.sizes import SizeOptions, Sizes, find_sizes
from vqa.studies.grid import Ablation
from vqa.training.run_folder import RunFolder, is_step, read_metrics

DATA = ("data", "features", "question_encoder", "answers", "loss")  # sections that sizes depend on
COUNTED = ("parameters", "forward_flops")
Measured = Mapping[str, Mapping[str, float | None]]  # by cell, by name of a cost
MEASURED = ("questions_per_second", "memory_gib", "seconds")


def counted_costs(ablation: Ablation, known: Mapping[str, Any]) -> dict[str, Any]:
    """By cell, parameters and forward FLOPs a question; a cell that cannot be counted has None.

    Args:
        known: what was counted before; a cell whose experiment is the same is not counted again.
    """
    found: dict[str, Any] = {}
    sizes: dict[str, Sizes] = {}
    for cell in ablation.cells:
        digest = of_experiment(cell.experiments[0])
        before = known.get(cell.label)
        found[cell.label] = before if before and before["of"] == digest else _count(cell.experiments[0], digest, sizes)
    return found


def same_costs(ablation: Ablation, known: Mapping[str, Any]) -> dict[str, Any]:
    """What was counted before of the cells whose experiment is the same."""
    experiments = {cell.label: cell.experiments[0] for cell in ablation.cells}
    return {
        label: cost
        for label, cost in known.items()
        if label in experiments and cost["of"] == of_experiment(experiments[label])
    }


def of_experiment(experiment: Experiment) -> str:
    """A digest of an experiment but for its seed."""
    resolved = {key: value for key, value in experiment.resolved().items() if key not in ("seed", "tracking")}
    return hashlib.sha256(json.dumps(resolved, sort_keys=True, default=str).encode()).hexdigest()


def _count(experiment: Experiment, digest: str, sizes: dict[str, Sizes]) -> dict[str, Any]:
    """Costs of one experiment; `sizes` keeps what was read of data that several cells share."""
    resolved = experiment.resolved()
    shared = json.dumps([resolved.get(key) for key in DATA], sort_keys=True, default=str)
    try:
        if shared not in sizes:
            sizes[shared] = find_sizes(experiment, SizeOptions())
        known = sizes[shared]
        same = {name: getattr(known, name) for name in SizeOptions.__dataclass_fields__}
        described = describe(experiment, SizeOptions(**same))
    except InputError:
        return {"of": digest} | dict.fromkeys(COUNTED)
    return {"of": digest, "parameters": described.parameters, "forward_flops": described.forward_flops}


def measured_costs(ablation: Ablation) -> dict[str, dict[str, float | None]]:
    """By cell, the mean over its runs of questions/s, of the memory taken in GiB, and of the seconds of training."""
    found: dict[str, dict[str, float | None]] = {}
    for cell in ablation.cells:
        rows = [row for one in cell.experiments if (row := _last_epoch(RunFolder(one.folder).metrics))]
        found[cell.label] = {}
        for key in MEASURED:
            values = [row[key] for row in rows if isinstance(row.get(key), int | float)]
            found[cell.label][key] = statistics.fmean(values) if values else None
    return found


def _last_epoch(metrics: Path) -> dict[str, Any]:
    try:
        rows = [row for row in read_metrics(metrics) if not is_step(row)]
    except InputError:
        return {}
    return rows[-1] if rows else {}
