"""Several processes on one ablation: each run is done once, by whoever is alive, and the tables are those of one."""

import json
import random
from pathlib import Path

import pytest
from helpers.grids import FUSIONS, kill_one_at_work, start_ablate, write_grid
from helpers.training import make_world

from vqa.studies.ablation import ablate

TWO = FUSIONS[:2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def in_folder(folder: Path, **options: bool) -> None:
    """The ablation of a folder, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ablate(Path("grid.yaml"), **options)


def tables(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "runs/grid/ablation.json").read_bytes(), (folder / "runs/grid/ablation.md").read_bytes()


def finished_once(folder: Path) -> None:
    """No run was trained twice over: each has its epochs once, and nothing of leases is left."""
    for metrics in folder.glob("runs/grid/*/*/metrics.jsonl"):
        epochs = [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()]
        assert epochs == list(range(1, len(epochs) + 1)), metrics
    left = [path.name for path in folder.glob("runs/grid/**/.*") if path.name != ".lock"]
    assert left == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_three_workers_of_which_two_are_killed_end_with_the_table_of_one(
    world: Path, tmp_path: Path, seed: int
) -> None:
    one, many = (write_grid(world, tmp_path / name, epochs=4) for name in ("one", "many"))
    in_folder(one)
    choice = random.Random(seed)
    workers = [start_ablate(many, log=f"{number}.log") for number in range(3)]
    left = list(workers)
    for _ in range(2):
        victim = kill_one_at_work(many, left, choice)
        left = [worker for worker in left if worker.pid != victim]
    assert left[0].wait(timeout=300) == 0, (many / f"{workers.index(left[0])}.log").read_text()
    assert sorted(worker.wait() for worker in workers) == [-9, -9, 0]
    assert tables(many) == tables(one)
    finished_once(many)
