"""`vqa compare`: systems on the same questions, how sure their difference is, and what changed from one to the other.

The first system is the baseline. With several runs of both, the difference is that of the methods; with one it is that
of these trained models (`vqa.evaluation.statistics.differences`).

Legend: `N` questions, `S` seeds, `E` examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset, Strings, missing_images
from vqa.data.formats.table import TableOptions
from vqa.errors import InputError
from vqa.evaluation.accuracy import metric_name
from vqa.evaluation.report.boxes import Attention
from vqa.evaluation.report.changes import ChangedQuestion, ChangeGroup, ComparisonPage, Reply, write_comparison
from vqa.evaluation.report.page import human_answers
from vqa.evaluation.statistics.differences import (
    Difference,
    Sampling,
    SystemStatistics,
    compare_systems,
    corrected_by_holm,
    difference,
)
from vqa.evaluation.statistics.mcnemar import McNemar, all_or_nothing, mcnemar
from vqa.files import write_json
from vqa.progress import console
from vqa.runs.asking import ask_run, attention_of
from vqa.runs.load import load_run
from vqa.studies.comparison.changes import ALL, Changes, changes_of, usual_answers
from vqa.studies.comparison.systems import System, SystemOptions, read_split_of, read_systems, sources_of
from vqa.studies.comparison.tables import comparison_tables, findings, notes_of
from vqa.tables import Table, print_table

EXAMPLES = 8  # of each kind of change


@dataclass(frozen=True)
class CompareOptions(SystemOptions):
    """Which questions are compared, and how.

    Attributes:
        sampling: of intervals and tests.
        examples: how many questions of each kind of change the page shows.
    """

    sampling: Sampling = field(default_factory=Sampling)
    examples: int = EXAMPLES


@dataclass(frozen=True)
class Pair:
    """The baseline and another system.

    Attributes:
        system: the other one.
        changes: question by question.
        by_type: the difference by answer type, then question type, Holm-corrected among each kind of type.
        accuracies: of the two, in percent, by the same names and `ALL`.
        mcnemar: where both are single runs and every accuracy is 0 or 1; else None.
    """

    system: System
    changes: Changes
    by_type: Mapping[str, Difference]
    accuracies: Mapping[str, tuple[float, float]]
    mcnemar: McNemar | None


@dataclass(frozen=True)
class Comparison:
    """Systems on the same questions.

    Attributes:
        dataset: the questions.
        options: how they were compared.
        systems: the baseline first.
        statistics: by system.
        pairs: the baseline with every other.
    """

    dataset: QADataset
    options: CompareOptions
    systems: tuple[System, ...]
    statistics: Mapping[str, SystemStatistics]
    pairs: tuple[Pair, ...]

    @property
    def metric(self) -> str:
        """What its accuracies are called."""
        return f"{self.options.task} {metric_name(self.dataset, self.options.protocol)}"

    def chosen(self, name: str) -> NDArray[np.bool_]:
        """The questions of a type, or all of them."""
        return np.ones(len(self.dataset), bool) if name == ALL else _types(self.dataset)[name]

    def tables(self) -> tuple[Table, ...]:
        """The systems, then each pair by type."""
        return comparison_tables(self)

    def as_json(self) -> dict[str, Any]:
        """For `--json`: accuracies in percent, differences in percentage points."""
        return {
            "data": self.dataset.name,
            "questions": len(self.dataset),
            "metric": self.metric,
            "protocol": self.options.protocol,
            "sampling": vars(self.options.sampling),
            "baseline": self.systems[0].name,
            "systems": [self._system_json(system) for system in self.systems],
            "by_type": {
                pair.system.name: {name: self._type_json(pair, name) for name in pair.accuracies} for pair in self.pairs
            },
            "changed_questions": {
                pair.system.name: {
                    kind: self.dataset.question_id_N[rows].tolist() for kind, rows in pair.changes.by_kind().items()
                }
                for pair in self.pairs
            },
        }

    def _system_json(self, system: System) -> dict[str, Any]:
        found = self.statistics[system.name]
        test = next((pair.mcnemar for pair in self.pairs if pair.system is system), None)
        return {
            "name": system.name,
            "sources": [str(path) for path in system.sources],
            "accuracy": found.mean,
            "runs": (100 * system.accuracy_SN.mean(axis=1)).tolist(),
            "standard_deviation": found.deviation,
            "difference": found.against and found.against.as_json(),
            "mcnemar": test and test._asdict(),
            "notes": list(system.notes),
        }

    def _type_json(self, pair: Pair, name: str) -> dict[str, Any]:
        first, second = pair.accuracies[name]
        chosen_N = self.chosen(name)
        found = self.statistics[pair.system.name].against if name == ALL else pair.by_type[name]
        counts = pair.changes.counts(chosen_N)
        return {"accuracy": [first, second], **counts, "difference": found and found.as_json()}


def compare(
    paths: Sequence[Path],
    options: CompareOptions,
    *,
    official: tuple[Path, Path] | None = None,
    data: tuple[str, Path, TableOptions] | None = None,
) -> Comparison:
    """Compare run folders, folders of several seeds, and results files; the first is the baseline.

    Args:
        official: the question and the annotation file that results files answer.
        data: instead, the format's name, the data set's folder, and how a table is read.

    Raises:
        InputError: fewer than two systems, one is there twice, or they do not answer the same questions.
    """
    if len(paths) < 2:
        raise InputError("compare needs two or more: run folders, folders of several seeds, or results files")
    sources = [sources_of(path) for path in paths]
    named = [source.resolve() for one in sources for source in one]
    if len(set(named)) < len(named):
        twice = next(path for path in named if named.count(path) > 1)
        raise InputError(f"{twice}: is named twice; nothing is learnt of a comparison with itself")
    dataset = read_split_of([source for one in sources for source in one], options, official=official, data=data)
    return compare_answers(read_systems(sources, dataset, options), dataset, options)


def compare_answers(systems: Sequence[System], dataset: QADataset, options: CompareOptions) -> Comparison:
    """The same of answers that were read before."""
    how, baseline = options.sampling, systems[0]
    by_name = {system.name: system.accuracy_SN for system in systems}
    statistics = compare_systems(by_name, dataset.image_row_N, baseline.name, how)
    pairs = tuple(_pair(baseline, system, dataset, how) for system in systems[1:])
    return Comparison(dataset, options, tuple(systems), statistics, pairs)


def compare_runs(
    cells: Mapping[str, Sequence[Path]], baseline: str, options: CompareOptions
) -> tuple[QADataset, dict[str, SystemStatistics]]:
    """For a table of an ablation: every cell against one of them, from unrounded accuracies of single questions.

    Args:
        cells: run folders by the name of the cell, one a seed; a cell without a run is left out.
        baseline: the name of a cell with runs.

    Returns:
        The split, and mean, deviation, interval and Holm-corrected p of every cell that has runs, by name.

    Raises:
        InputError: the baseline has no run, the cells were evaluated on different questions, or a run was trained on
            them.
    """
    if not cells.get(baseline):
        done = ", ".join(name for name, runs in cells.items() if runs)
        raise InputError(f"baseline {baseline!r}: has no run to compare with; cells with runs: {done}")
    dataset, accuracies = read_cells(cells, options)
    return dataset, compare_systems(accuracies, dataset.image_row_N, baseline, options.sampling)


def read_cells(
    cells: Mapping[str, Sequence[Path]], options: CompareOptions
) -> tuple[QADataset, dict[str, NDArray[np.float64]]]:
    """The split, and the accuracies 0..1, `[S, N]`, of every cell of an ablation that has runs; see `compare_runs`.

    Raises:
        InputError: the cells were evaluated on different questions, or a run was trained on them.
    """
    done = {name: list(runs) for name, runs in cells.items() if runs}
    dataset = read_split_of([run for runs in done.values() for run in runs], options)
    systems = read_systems(list(done.values()), dataset, options)
    return dataset, {name: system.accuracy_SN for name, system in zip(done, systems, strict=True)}


def changes_between(cells: Mapping[str, Sequence[Path]], options: CompareOptions) -> tuple[ChangeGroup, ...]:
    """The questions that two cells of an ablation, the first as baseline, answer differently.

    Raises:
        InputError: as `read_cells`.
    """
    dataset = read_split_of([run for runs in cells.values() for run in runs], options)
    systems = read_systems(list(cells.values()), dataset, options)
    named = [replace(system, name=name) for name, system in zip(cells, systems, strict=True)]
    return change_groups(named[0], [(other, changes_of(named[0], other)) for other in named[1:]], dataset, options)


def _pair(first: System, second: System, dataset: QADataset, how: Sampling) -> Pair:
    by_type: dict[str, Difference] = {}
    accuracies = {ALL: (100 * float(first.accuracy_SN.mean()), 100 * float(second.accuracy_SN.mean()))}
    for kind in _kinds(dataset):
        found = {}
        for name, chosen_N in kind.items():
            of_first, of_second = first.accuracy_SN[:, chosen_N], second.accuracy_SN[:, chosen_N]
            found[name] = difference(of_first, of_second, dataset.image_row_N[chosen_N], how)
            accuracies[name] = (100 * float(of_first.mean()), 100 * float(of_second.mean()))
        by_type |= corrected_by_holm(found)
    single = len(first.accuracy_SN) == len(second.accuracy_SN) == 1
    test = None
    if single and all_or_nothing(first.accuracy_SN, second.accuracy_SN):
        test = mcnemar(first.accuracy_SN[0], second.accuracy_SN[0], dataset.image_row_N)
    return Pair(second, changes_of(first, second), by_type, accuracies, test)


def _kinds(dataset: QADataset) -> list[dict[str, NDArray[np.bool_]]]:
    """The questions of each answer type, and of each question type that is not one of them."""
    kinds: list[dict[str, NDArray[np.bool_]]] = []
    for column in (dataset.answer_type, dataset.question_type):
        names = [] if column is None else sorted({column.distinct[c] for c in np.unique(column.codes) if c >= 0})
        taken = [name for kind in kinds for name in kind]
        if column is not None and names:
            kinds.append({n: column.codes == column.distinct.index(n) for n in names if n not in (*taken, ALL)})
    return kinds


def _types(dataset: QADataset) -> dict[str, NDArray[np.bool_]]:
    return {name: rows for kind in _kinds(dataset) for name, rows in kind.items()}


def run_compare(
    paths: Sequence[Path],
    options: CompareOptions,
    *,
    official: tuple[Path, Path] | None = None,
    data: tuple[str, Path, TableOptions] | None = None,
    out: Path,
    json_file: Path | None = None,
) -> Comparison:
    """What `vqa compare` does: compare, print the tables, write the page and the numbers.

    Args:
        out: the page, an HTML file.
    """
    found = compare(paths, options, official=official, data=data)
    for note in notes_of(found):
        console.print(note)
    for table in found.tables():
        print_table(table)
    for sentence in findings(found):
        console.print(sentence)
    if json_file is not None:
        write_json(json_file, found.as_json())
    write_comparison(out, comparison_page(found))
    console.print(f"page: {out}")
    return found


def comparison_page(found: Comparison) -> ComparisonPage:
    """The page, with a random sample of what changed and, for runs, where each system's first run looked."""
    title = f"{found.systems[0].name} and {', '.join(pair.system.name for pair in found.pairs)} on {found.dataset.name}"
    said = (*findings(found), *notes_of(found))
    changes = [(pair.system, pair.changes) for pair in found.pairs]
    groups = change_groups(found.systems[0], changes, found.dataset, found.options)
    return ComparisonPage(title, said, found.tables(), groups, _facts(found), found.metric)


def change_groups(
    baseline: System, others: Sequence[tuple[System, Changes]], dataset: QADataset, options: CompareOptions
) -> tuple[ChangeGroup, ...]:
    """A random sample of the questions that each of the others fixes, breaks and flips, with attention."""
    chosen: list[tuple[System, str, int, NDArray[np.int64]]] = []
    random = np.random.default_rng(options.sampling.seed)
    for system, changes in others:
        for kind, rows_N in changes.by_kind().items():
            rows = np.flatnonzero(rows_N)
            chosen.append((system, kind, len(rows), np.sort(random.permutation(rows)[: options.examples])))
    row_E = np.unique(np.concatenate([rows for *_, rows in chosen]))
    systems = [baseline, *(system for system, _ in others)]
    looks = {system.name: _looks(system, dataset, row_E, options) for system in systems}
    usual = {system.name: usual_answers(system) for system in systems}
    groups = []
    for system, kind, count, rows in chosen:
        headings = {
            "fixed": f"Fixed: only {system.name} has them right",
            "broken": f"Broken: only {baseline.name} has them right",
            "flipped": f"Flipped: {system.name} answers otherwise, as right or wrong as {baseline.name}",
        }
        text = f"{count:,} of {len(dataset):,} questions" + (
            f", of which {len(rows)} are shown, chosen at random." if count > len(rows) else "."
        )
        questions = tuple(_changed(int(row), dataset, [baseline, system], usual, looks) for row in rows)
        groups.append(ChangeGroup(headings[kind], text, questions))
    return tuple(groups)


def _changed(
    row: int,
    dataset: QADataset,
    systems: Sequence[System],
    usual: Mapping[str, Strings],
    looks: Mapping[str, Mapping[int, Attention]],
) -> ChangedQuestion:
    replies = []
    for system in systems:
        answer = usual[system.name].at(row)
        runs = sum(said.at(row) == answer for said in system.answers)
        accuracy = float(system.accuracy_SN[:, row].mean())
        replies.append(Reply(system.name, answer, accuracy, runs, len(system.answers), looks[system.name].get(row)))
    kind = "" if dataset.question_type is None else dataset.question_type.at(row)
    image = dataset.images.paths[dataset.image_row_N[row]]
    return ChangedQuestion(image, dataset.question.at(row), kind, human_answers(dataset, row), tuple(replies))


def _looks(
    system: System, dataset: QADataset, row_E: NDArray[np.int64], options: CompareOptions
) -> dict[int, Attention]:
    """Where a system's first run looked, by row; nothing for results files and runs whose features are not there."""
    if system.run is None or not len(row_E):
        return {}
    some = dataset.take(row_E)
    try:
        run = load_run(system.run, allow_code=options.allow_code)
        asked = ask_run(run, some, options.caches, allow_seen=options.allow_seen)
    except InputError as error:
        console.print(f"no attention of {system.name}: {error}")
        return {}
    found = attention_of(run, asked.questions, asked.features, range(len(some)))
    return dict(zip(row_E.tolist(), found, strict=True))


def _facts(found: Comparison) -> tuple[tuple[str, str], ...]:
    how, missing = found.options.sampling, len(missing_images(found.dataset))
    return (
        ("metric", found.metric),
        ("data", f"{found.dataset.name}, {len(found.dataset):,} questions, {len(found.dataset.images.ids):,} images"),
        *((system.name, ", ".join(map(str, system.sources))) for system in found.systems),
        ("intervals", f"{how.level:.0%}, images resampled whole, {how.resamples:,} resamples, seed {how.seed}"),
        ("right", "from an accuracy of 0.5 on, the mean over seeds where there are several"),
        *((("images", f"{missing:,} are not here"),) if missing else ()),
    )
