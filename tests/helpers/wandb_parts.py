"""What W&B wrote offline, read when its own process has written the end, which `finish` of a tracker does not await."""

from pathlib import Path
from typing import Any

from helpers.grids import wait_until
from vqa.training.tracking.wandb_files import wandb_records


def finished_parts(folder: Path) -> list[list[Any]]:
    """The records of each offline part in a run's folder, oldest part first; all of them have been finished."""
    parts = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    assert parts and wait_until(lambda: all(_is_finished(part) for part in parts), 60)
    return [list(wandb_records(part)) for part in parts]


def _is_finished(part: Path) -> bool:
    records = list(wandb_records(part))
    return bool(records) and records[-1].HasField("exit")
