"""One of any number of processes that share the runs of a grid, on one machine or on many that share a disk.

A worker takes a run that nobody has, by a lease in the run's folder, trains and evaluates it, gives it back and writes
the tables of what is there by then. What is done or taken is skipped. The lease of a killed worker is found dead, and
its run goes on from its `state.pt`.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vqa.errors import BusyError, FailedRunsError, InputError, InterruptedRunError, NonFiniteLossError
from vqa.experiment import Experiment
from vqa.locks import Lease, acquire, disk_time
from vqa.progress import console
from vqa.runs.evaluate import DEFAULTS, EvaluationOptions, evaluate_run
from vqa.runtime.distributed import Group, joined
from vqa.studies.grid import Ablation
from vqa.studies.summary import evaluation_of, keep_evaluation, wanted_evaluation, write_failure, write_tables
from vqa.training.run_folder import RunFolder, failure_of, read_evaluation
from vqa.training.together import SharedData, sharing_groups, train_group
from vqa.training.train import train

LOOK_SECONDS = 1.0  # between two looks for a run that has become free
NAMED = 3  # runs of others that a message names
MOST_DEATHS = 3  # of workers in a row with one run, of which nothing was saved meanwhile


def run_and_evaluate(
    experiment: Experiment, split: str, command: str, options: EvaluationOptions = DEFAULTS
) -> dict[str, Any]:
    """Train and evaluate one experiment, or read what an earlier call found.

    Raises:
        BusyError: another process is training it.
        InputError: when it was trained on what it is to be evaluated on, unless that is allowed.
    """
    folder = RunFolder(experiment.folder)
    with joined() as group:
        train(experiment, resume=True, command=command)
        if group.from_first(lambda: evaluation_of(folder, split, options)) is None:
            # the run is of this experiment, which is the user's: so is the code that it names
            evaluate_run(folder.path, split, replace(options, allow_code=True))
        evaluation: dict[str, Any] = group.from_first(lambda: _kept(folder, split, options))
    return evaluation


def _kept(folder: RunFolder, split: str, options: EvaluationOptions) -> dict[str, Any]:
    """What was measured, kept from evaluations by hand."""
    evaluation = evaluation_of(folder, split, options) or read_evaluation(folder.evaluation(split))
    keep_evaluation(folder, split, evaluation)
    return evaluation


def progress_of(folder: RunFolder) -> str:
    """What changes whenever a run has saved something."""
    return " ".join(str(one.stat().st_mtime_ns) if one.is_file() else "-" for one in (folder.state, folder.finished))


def _killed(name: str, deaths: int) -> FailedRunsError:
    return FailedRunsError(
        f"{name}: {deaths} workers in a row were killed at this run before they had saved anything: is there memory "
        "enough? Starting the ablation again tries it again"
    )


@dataclass(frozen=True)
class Turn:
    """What is next: runs that this process has taken, by their numbers, or else who has those that are left."""

    taken: tuple[int, ...] = ()
    elsewhere: tuple[str, ...] = ()


class Worker:
    """A process at work on a grid, or the processes of one torchrun, of which the first one takes and gives back.

    Args:
        command: what the user runs to go on after an interruption.
        together: train the runs that see the same batches in one go.
        wait: for runs that other processes have; otherwise leave when nothing is free.
    """

    def __init__(self, ablation: Ablation, command: str, group: Group, *, together: bool, wait: bool) -> None:
        self.ablation, self.command, self.group, self.wait = ablation, command, group, wait
        self.runs, self.options = ablation.runs, wanted_evaluation(ablation)
        self.data = SharedData() if together else None
        self.units: list[tuple[int, ...]] = [(place,) for place in range(len(self.runs))]
        if together:
            place_of = {run.experiment.folder: place for place, run in enumerate(self.runs)}
            groups = sharing_groups([run.experiment for run in self.runs])
            self.units = [tuple(sorted(place_of[one.folder] for one in group)) for group in groups]
        self.leases: dict[int, Lease] = {}
        self.over: set[int] = set()  # done, or failed since this worker began
        self.outside: set[int] = set()  # in the hands of a process that asks for no lease, as `vqa train`
        self.trained: list[int] = []  # together with others, and not evaluated yet
        self.said = ""
        self.began = 0.0

    def work(self) -> None:
        """Do runs until all are done, or until those that are not are with others and it need not wait for them.

        Raises:
            InterruptedRunError: after a signal, with the state of the run saved.
        """
        self.began = self.group.from_first(lambda: disk_time(self.ablation.folder))
        try:
            while (turn := self.group.from_first(self.next_turn)).taken or self.trained or turn.elsewhere:
                if turn.taken:
                    self.do(turn.taken)
                elif self.trained:
                    self.evaluate_trained()
                else:
                    self.say(turn.elsewhere)
                    if not self.wait:
                        break
                    time.sleep(LOOK_SECONDS)
        finally:
            self.give_back(list(self.leases))

    def next_turn(self) -> Turn:
        """Take what is free of the first unit where anything is."""
        elsewhere: list[str] = []
        for unit in self.units:
            taken = []
            for place in unit:
                if place in self.over or place in self.leases:
                    continue
                if holder := self.take(place):
                    elsewhere.append(f"{self.runs[place].name} ({holder})")
                elif place in self.leases:
                    taken.append(place)
            if taken:
                return Turn(taken=tuple(taken))
        return Turn(elsewhere=tuple(elsewhere))

    def take(self, place: int) -> str:
        """Take a run, if it is free and not over; where another process has it, who that is."""
        folder = self.runs[place].folder
        lease = Lease(folder.lease, fatal=True, progress=progress_of(folder))
        if holder := lease.holder() or self.outsider(place):
            return holder
        if self.is_over(place):
            return ""
        folder.path.mkdir(parents=True, exist_ok=True)
        if not lease.take():
            return lease.holder() or "another process"
        if self.is_over(place):  # the process that had it gave it back between the two looks
            lease.release()
            return ""
        folder.failed.unlink(missing_ok=True)  # of an earlier call: it is tried again
        self.leases[place] = lease
        if lease.deaths >= MOST_DEATHS:
            self.fail([place], _killed(self.runs[place].name, lease.deaths))
            self.give_back([place])
        return ""

    def is_over(self, place: int) -> bool:
        """Whether a run is done, or has failed since this worker began: what failed before is tried again."""
        folder = self.runs[place].folder
        try:
            over = evaluation_of(folder, self.ablation.file.split, self.options) is not None
        except InputError:  # a damaged file, which is said when the run is taken up
            over = False
        if over:
            folder.failed.unlink(missing_ok=True)  # of what came after its evaluation
        elif failure_of(folder) is not None:
            over = folder.failed.stat().st_mtime >= self.began
        if over:
            self.over.add(place)
        return over

    def outsider(self, place: int) -> str:
        """Whether a process that asks for no lease still trains a run, in words."""
        if place not in self.outside:
            return ""
        if (held := acquire(self.runs[place].folder.path / ".lock")) is None:
            return "another command"
        held.release()
        self.outside.discard(place)
        return ""

    def say(self, elsewhere: Sequence[str]) -> None:
        """Who has the runs that are left, once for each change."""
        more = f" and {len(elsewhere) - NAMED} more" if len(elsewhere) > NAMED else ""
        said = f"{'waiting for' if self.wait else 'left to others:'} {', '.join(elsewhere[:NAMED])}{more}"
        if said != self.said:
            console.print(said)
        self.said = said

    def do(self, taken: Sequence[int]) -> None:
        """Train and evaluate a run that is taken; of those trained together, leave the evaluation for later."""
        if self.data is None:
            self.finish(taken[0])
            return
        todo = [place for place in taken if not self.runs[place].folder.finished.is_file()]
        failed: dict[Path, str] = {}
        if todo:
            with self.outcome_of(todo):
                failed = train_group([self.runs[place].experiment for place in todo], self.data, self.command)
        for place in [place for place in taken if place in self.leases]:
            said = failed.get(self.runs[place].folder.path)
            if said is None:
                self.trained.append(place)
            else:
                self.fail([place], NonFiniteLossError(said))
                self.give_back([place])

    def evaluate_trained(self) -> None:
        """Evaluate what was trained together, without its features in memory, which evaluation reads for itself."""
        assert self.data is not None
        self.data.forget()
        while self.trained:
            self.finish(self.trained.pop(0))

    def finish(self, place: int) -> None:
        """Train what is left of a run, evaluate it, give it back, and write the tables."""
        run = self.runs[place]
        console.rule(f"{place + 1} of {len(self.runs)}: {run.name}")
        with self.outcome_of([place]):
            run_and_evaluate(run.experiment, self.ablation.file.split, self.command, self.options)
            self.over.add(place)
        self.give_back([place])
        self.group.from_first(lambda: bool(write_tables(self.ablation, whole=False)))

    @contextmanager
    def outcome_of(self, places: Sequence[int]) -> Iterator[None]:
        """Keep what goes wrong with some runs from the others."""
        try:
            yield
        except InterruptedRunError:
            raise
        except BusyError:
            if not self.group.alone:
                raise  # said in the first process alone: the others are in the run's first step
            self.outside |= set(places)
            self.give_back(places)
        except (NonFiniteLossError, InputError) as error:
            if isinstance(error, InputError) and not self.group.alone:
                raise
            self.fail(places, error)
            self.give_back(places)
        except Exception as error:  # a fault of ours; others need not run into it, too
            self.fail(places, error)
            raise

    def fail(self, places: Sequence[int], error: Exception) -> None:
        """Leave word of a failure; raises the error itself where nothing can be written."""
        self.over |= set(places)
        console.print(f"FAILED, the others go on: {error}")
        for place in places if self.group.is_first else ():
            try:
                write_failure(self.runs[place].folder, error)
            except InputError:
                raise error from None

    def give_back(self, places: Sequence[int]) -> None:
        """Release leases; those that are not held are left."""
        for place in places:
            if (lease := self.leases.pop(place, None)) is not None:
                lease.release()
