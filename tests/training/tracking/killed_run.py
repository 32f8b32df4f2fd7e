"""Train one run, killed with SIGKILL at random places until it has been killed often enough; then to its end.

    python killed_run.py WORLD RUNS TIMES SEED

Each life is a fork of this process, so that nothing is imported twice.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from helpers.training import experiment
from torch.optim.optimizer import register_optimizer_step_post_hook

from vqa.training import train as loop
from vqa.training.tracking import wandb_tracker

SECTION = {"wandb": "offline", "trackio": True, "tensorboard": True, "every": 2}
PLACES = ("loop", "save", "log", "sent", "opening")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def dies_at(place: str, chance: random.Random) -> None:
    """This process will be killed in a step, in the middle of a save, or before or after a row is handed to W&B."""
    left = chance.randrange(1, 7)

    def counted(act: Callable[..., Any], *, before: bool, half: bool = False) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and half:
                given[1].write(b"half of it")
            if left == 0 and before:
                die()
            result = act(*given, **named)
            if left == 0:
                die()
            return result

        return wrapped

    if place == "loop":
        register_optimizer_step_post_hook(counted(lambda *_: None, before=True))
    elif place == "save":
        torch.save = counted(torch.save, before=True, half=True)
    elif place in ("log", "sent"):
        own = wandb_tracker.WandbTracker
        own.log = counted(own.log, before=place == "log")  # type: ignore[method-assign]
    else:
        left = 1
        wandb_tracker.summary_of = counted(wandb_tracker.summary_of, before=True)


def live(world: Path, runs: Path, place: str, chance: random.Random) -> None:
    """One life, in a process of its own."""
    if place:
        dies_at(place, chance)
    plan = experiment(world, runs, tracking=SECTION, training={"epochs": 8})
    loop.READ_EVERY, loop.SAVE_EVERY = 2, 0
    loop.train(plan, resume=True)


def main(world: Path, runs: Path, times: int, seed: int) -> None:
    chance = random.Random(seed)
    killed = 0
    while True:
        place = PLACES[killed % len(PLACES)] if killed < times else ""
        child = os.fork()
        if not child:
            live(world, runs, place, random.Random(chance.random()))
            os._exit(0)
        chance.random()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            killed += 1
        else:
            assert not status, status
            break
    print(f"killed {killed} times")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
