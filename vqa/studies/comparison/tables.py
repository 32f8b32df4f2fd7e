"""The tables and sentences of `vqa compare`."""

from typing import TYPE_CHECKING

from vqa.evaluation.statistics.differences import FEW_SEEDS, Difference, spread
from vqa.evaluation.statistics.power import POWER, images_needed, seeds_needed, smallest_seen
from vqa.studies.comparison.changes import ALL
from vqa.tables import Column, Row, Table

if TYPE_CHECKING:
    from vqa.studies.comparison.compare import Comparison, Pair


def comparison_tables(found: "Comparison") -> tuple[Table, ...]:
    """The systems, then each pair by type."""
    return (_systems(found), *(_by_type(found, pair) for pair in found.pairs))


def _level(found: "Comparison") -> str:
    return f"{found.options.sampling.level:.0%}"


def _systems(found: "Comparison") -> Table:
    several = len(found.pairs) > 1
    columns = [Column("runs", decimals=0), Column("accuracy"), Column("points", "Difference")]
    columns += [Column(name, "Difference") for name in ("from", "to")]
    columns.append(Column("p, Holm" if several else "p", "Difference", decimals=4))
    rows = []
    for system in found.systems:
        one = found.statistics[system.name]
        against = _cells(one.against) if one.against else (None, None, None, None)
        spread = (None, one.deviation, None, None, None, None)
        rows.append(Row(system.name, (one.seeds, one.mean, *against), spread=spread))
    caption = (
        f"{found.metric}, in percent, {found.dataset.name}, {len(found.dataset):,} questions about "
        f"{len(found.dataset.images.ids):,} images; mean ± standard deviation over runs. Differences in percentage "
        f"points, from … to their {_level(found)} interval."
    )
    return Table("Accuracy and differences", caption, tuple(columns), tuple(rows), _note(found), best="none")


def _note(found: "Comparison") -> str:
    """What the intervals are of, and McNemar's test where it applies."""
    sentences = []
    for pair in found.pairs:
        against = found.statistics[pair.system.name].against
        if pair.mcnemar is not None:
            sentences.append(
                f"McNemar, {pair.system.name}: {pair.mcnemar.fixed:,} fixed, {pair.mcnemar.broken:,} broken, exact p "
                f"{pair.mcnemar.exact_p:.4f} (questions independent), p {pair.mcnemar.clustered_p:.4f} (images "
                "independent)."
            )
        if against is not None and against.over_seeds and min(against.seeds) < FEW_SEEDS:
            sentences.append(f"{pair.system.name}: of two runs the interval is unreliable; train {FEW_SEEDS} or more.")
    return " ".join(sentences)


def _cells(one: Difference) -> tuple[float | None, ...]:
    return (one.points, one.low, one.high, one.p_holm)


def _by_type(found: "Comparison", pair: "Pair") -> Table:
    first = found.systems[0].name
    columns = (
        Column("all", "Questions", decimals=0),
        *(Column(kind, "Questions", decimals=0) for kind in pair.changes.by_kind()),
        *(Column(name, "Score") for name in ("first", "second", "change", "from", "to")),
        Column("p", "Score", decimals=4),
    )
    rows = []
    for name, accuracies in pair.accuracies.items():
        one = found.statistics[pair.system.name].against if name == ALL else pair.by_type[name]
        assert one is not None
        chosen_N = found.chosen(name)
        counts = pair.changes.counts(chosen_N)
        rows.append(Row(name, (int(chosen_N.sum()), *counts.values(), *accuracies, *_cells(one))))
    caption = (
        f"First: {first}. Second: {pair.system.name}. Fixed: only the second is right (accuracy from 0.5 on); broken: "
        f"only the first; flipped: another answer, as right or wrong. Changes in points, from … to their "
        f"{_level(found)} interval; p corrected by Holm among the answer types, and among the question types."
    )
    title = f"{pair.system.name} against {first}, by type"
    return Table(title, caption, columns, tuple(rows), row_heading="Questions", best="none")


def notes_of(found: "Comparison") -> tuple[str, ...]:
    """What a reader must know of runs, each thing once with how many runs it is true of."""
    runs: dict[str, int] = {}
    for system in found.systems:
        for note in system.notes:
            runs[note] = runs.get(note, 0) + 1
    total = sum(len(system.sources) for system in found.systems)
    return tuple(f"{note} ({count} of {total} runs)." for note, count in runs.items())


def findings(found: "Comparison") -> tuple[str, ...]:
    """What may be concluded of each pair, in sentences."""
    sentences = []
    for pair in found.pairs:
        one = found.statistics[pair.system.name].against
        assert one is not None
        sentences.append(_finding(found, pair, one))
        sentences += _power(found, pair, one)
    return tuple(sentences)


def _finding(found: "Comparison", pair: "Pair", one: Difference) -> str:
    names = f"{pair.system.name} against {found.systems[0].name}"
    if one.low is None or one.high is None or one.p_holm is None:
        return f"{names}: {one.points:+.2f} points; with one image nothing says how sure that is."
    numbers = f"{one.points:+.2f} points ({_level(found)} from {one.low:+.2f} to {one.high:+.2f}, p {one.p_holm:.4f})"
    kind = "these methods" if one.over_seeds else "these trained models"
    verdict = (
        f"{kind} differ on images like these"
        if one.sure and one.p_holm <= 1 - found.options.sampling.level
        else f"that is no evidence that {kind} differ"
    )
    more = "" if one.over_seeds else "; what other seeds would have given is not known"
    return f"{names}: {numbers}: {verdict}{more}."


def _power(found: "Comparison", pair: "Pair", one: Difference) -> list[str]:
    """How small a difference these images and runs can show, and what the one seen would take."""
    if one.low is None or one.images < 2:
        return []
    varies = spread(found.systems[0].accuracy_SN, pair.system.accuracy_SN, found.dataset.image_row_N)
    if varies.image + varies.rest == 0:
        return []
    seeds = min(one.seeds) if one.over_seeds else None
    least = smallest_seen(varies, one.images, seeds)
    sentence = f"With {one.images:,} images"
    sentence += f" and {seeds} runs each" if seeds else ""
    sentence += f", a difference of {least:.2f} points is found in {POWER:.0%} of cases"
    if abs(one.points) < least and abs(one.points) >= 0.01:
        images = images_needed(one.points, varies, seeds)
        wanted = [f"{images:,} images"] if images else []
        if seeds and (more := seeds_needed(one.points, varies, one.images)):
            wanted.append(f"{more:,} runs each")
        few = " (or ".join(wanted) + (")" if len(wanted) > 1 else "")
        sentence += f"; one of {abs(one.points):.2f} would take {few}" if wanted else ""
    return [sentence + "."]
