"""The tables of an ablation, made of what its runs have left in their folders, whoever ran them and in what order."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from vqa.errors import InputError
from vqa.evaluation.report.ablation import AblationPage, write_ablation_page
from vqa.evaluation.report.diagnostics import parse_slices
from vqa.evaluation.wups import WordNet, open_wordnet
from vqa.files import atomic_write, read_json, sha256_unless_read, write_json
from vqa.locks import Lease
from vqa.progress import console
from vqa.runs.evaluate import EvaluationOptions
from vqa.studies.grid import Ablation, AblationFile, CellRun
from vqa.studies.table.against import of_runs, statistics_of
from vqa.studies.table.costs import counted_costs, measured_costs, same_costs
from vqa.studies.table.page import ablation_page
from vqa.studies.table.results import Results
from vqa.tables import Table, render_csv, render_latex, render_markdown
from vqa.training.run_folder import RunFolder, failure_of, read_evaluation

LEASE = ".tables.lease"  # in an ablation's folder: one process at a time reads the runs and writes the tables


@dataclass
class Found:
    """What the runs of an ablation have left.

    Attributes:
        evaluated: by label, the evaluations that are there, in the order of the file's seeds.
        failed: by label and seed, what a run that has none ended with.
        missing: runs that have neither.
    """

    evaluated: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failed: dict[str, dict[int, str]] = field(default_factory=dict)
    missing: list[CellRun] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """A line each."""
        return [message for of_cell in self.failed.values() for message in of_cell.values()]

    @property
    def count(self) -> int:
        """How many runs are evaluated."""
        return sum(map(len, self.evaluated.values()))


def collect(ablation: Ablation) -> Found:
    """Read what is there of each run: the evaluation of its weights as they are now, or what it failed with."""
    found, split, options = Found(), ablation.file.split, wanted_evaluation(ablation)
    for cell in ablation.cells:
        found.evaluated[cell.label] = []
        for run in (CellRun(cell.label, experiment) for experiment in cell.experiments):
            try:
                evaluation, failure = evaluation_of(run.folder, split, options), failure_of(run.folder)
            except InputError as error:  # damaged files
                evaluation, failure = None, str(error)
            if evaluation is not None:
                found.evaluated[cell.label].append(evaluation)
            elif failure is not None:
                found.failed.setdefault(cell.label, {})[run.experiment.seed] = failure
            else:
                found.missing.append(run)
    return found


def wanted_evaluation(ablation: Ablation) -> EvaluationOptions:
    """How the runs of an ablation are evaluated.

    Raises:
        InputError: naming the ablation file, where its `wordnet` is no WordNet corpus or cannot be read.
    """
    return evaluation_options(ablation.path, ablation.file)


def evaluation_options(path: Path, file: AblationFile) -> EvaluationOptions:
    """The same of the file alone."""
    wordnet = None
    if file.wordnet is not None:
        try:
            wordnet = _wordnet(Path(file.wordnet))
        except InputError as error:
            raise InputError(f"{path}: wordnet: {error}") from None
    return EvaluationOptions(
        slices=parse_slices(file.slices), allow_seen=file.allow_seen, exclude_seen=file.exclude_seen, wordnet=wordnet
    )


@cache
def _wordnet(folder: Path) -> WordNet:
    """A corpus is opened once a process."""
    return open_wordnet(folder)


def evaluation_of(folder: RunFolder, split: str, options: EvaluationOptions) -> dict[str, Any] | None:
    """The accuracies of a finished run's weights, in every task and slice that is asked for; None where they are not.

    What an ablation measured is kept, so that evaluating by hand in another way loses nothing.

    Raises:
        InputError: a file is damaged.
    """
    if not (folder.finished.is_file() and folder.evaluation(split).is_file()):
        return None
    weights = sha256_unless_read(folder.model)
    return next((one for one in _evaluations(folder, split) if _is_wanted(one, weights, options)), None)


def keep_evaluation(folder: RunFolder, split: str, evaluation: dict[str, Any]) -> None:
    """Keep what an ablation measured beside what `vqa evaluate` will write over."""
    write_json(folder.ablated(split), evaluation)


def _evaluations(folder: RunFolder, split: str) -> Iterator[dict[str, Any]]:
    yield read_evaluation(folder.evaluation(split))
    if folder.ablated(split).is_file():
        yield read_evaluation(folder.ablated(split))


def _is_wanted(found: dict[str, Any], weights: str, options: EvaluationOptions) -> bool:
    made = (found.get("task"), found.get("protocol"), found.get("choices_outside"), found.get("weights_sha256"))
    seen = found.get("seen_in_training", {})
    allowed = options.allow_seen or not seen.get("contaminated")
    allowed = allowed and (options.exclude_seen or not seen.get("left_out"))
    near = (found.get("near_answers") or {}).get("wordnet")
    measured = options.wordnet is None or near == options.wordnet.version
    sliced = {one["name"]: one.get("pattern") for one in (found.get("beyond_accuracy") or {}).get("slices", [])}
    wanted = (options.task, options.protocol, options.choices_outside, weights)
    return allowed and measured and made == wanted and options.slices.items() <= sliced.items()


def write_failure(folder: RunFolder, error: Exception) -> None:
    """Leave word of a failure for the tables, and for others who work on the same ablation."""
    write_json(folder.failed, {"error": str(error), "kind": type(error).__name__})


def write_tables(ablation: Ablation, json_file: Path | None = None, *, whole: bool = True) -> tuple[Found, list[Table]]:
    """Write `ablation.md`, `.json`, `.csv`, `.tex` and `.html` of what is there now; nothing where no run is evaluated.

    Args:
        json_file: another place for the numbers.
        whole: with statistics and costs, which take time; otherwise with those that were made before, as far as they
            are of the same runs, and without the page where there are none.
    """
    ablation.folder.mkdir(parents=True, exist_ok=True)
    with Lease(ablation.folder / LEASE).held():  # who writes last has read last
        found = collect(ablation)
        if not found.count:
            return found, []
        results = _results(ablation, found, whole=whole)
        tables = results.tables()
        _write(ablation.folder / "ablation.md", "\n".join(map(render_markdown, tables)))
        for target in [ablation.folder / "ablation.json", *([json_file] if json_file else [])]:
            write_json(target, results.as_json())
        measured = measured_costs(ablation)
        wide = results.wide(measured)
        _write(ablation.folder / "ablation.csv", render_csv(wide))
        _write(ablation.folder / "ablation.tex", render_latex(wide))
        if whole:
            _write_page(ablation.folder / "ablation.html", ablation_page(ablation, results, measured))
    return found, [*tables, *results.measured_table(measured)]


def _results(ablation: Ablation, found: Found, *, whole: bool) -> Results:
    """The numbers of the tables, with what was made before where that is of the same runs."""
    before: dict[str, Any] = {}
    with suppress(InputError):  # none yet, or of an earlier version
        before = read_json(ablation.folder / "ablation.json", dict[str, Any])
    statistics, costs = before.get("statistics") or {}, before.get("costs") or {}
    if statistics.get("of") != of_runs(ablation, found.evaluated) or (whole and statistics.get("left_out")):
        statistics = statistics_of(ablation, found.evaluated) if whole else {}
    costs = counted_costs(ablation, costs) if whole else same_costs(ablation, costs)
    file = ablation.file
    return Results(
        file.name, file.seeds, found.evaluated, found.failed, ablation.slices, file.baseline, statistics, costs
    )


def _write_page(path: Path, page: AblationPage) -> None:
    """The page; without its questions where an image of theirs cannot be read, for the numbers need none."""
    try:
        write_ablation_page(path, page)
    except InputError as error:
        if not page.changes:
            raise
        console.print(f"no questions on the page: {error}")
        write_ablation_page(path, replace(page, changes=()))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)
