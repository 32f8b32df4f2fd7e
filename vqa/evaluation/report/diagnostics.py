"""What one accuracy hides, put together for a report: pairs, confidence, kinds of questions.

Legend: `N` questions, `B` bins of confidence, `P` complementary pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import Protocol, protocol_name
from vqa.evaluation.diagnose import (
    Calibration,
    PairReport,
    RiskCoverage,
    Slice,
    calibration,
    compile_slice,
    confidence_interval,
    pair_report,
    risk_coverage,
    slice_by_length,
    slice_by_pattern,
)
from vqa.evaluation.report.figures import Series
from vqa.evaluation.report.page import Chart
from vqa.tables import Column, Row, Table

CURVE_POINTS = 21  # of the risk-coverage curve that are stored and plotted


@dataclass(frozen=True)
class Diagnostics:
    """What one accuracy hides.

    Attributes:
        name: the run.
        data: the split.
        protocol: of every accuracy here.
        pairs: complementary pairs; None where the split has none.
        calibration: confidence against accuracy.
        risk: error against the share of questions answered.
        slices: all questions, then the user's slices, then question lengths.
    """

    name: str
    data: str
    protocol: Protocol
    pairs: PairReport | None
    calibration: Calibration
    risk: RiskCoverage
    slices: tuple[Slice, ...]

    def tables(self) -> tuple[Table, ...]:
        """One table a subject."""
        found = [self._slices(), self._confidence()]
        return (self._pairs(), *found) if self.pairs else tuple(found)

    def charts(self) -> tuple[Chart, ...]:
        """Reliability, and error against coverage."""
        shown_B = self.calibration.count_B > 0
        reliability = (
            Series(
                "this run",
                (100 * self.calibration.confidence_B[shown_B]).tolist(),
                (100 * self.calibration.accuracy_B[shown_B]).tolist(),
            ),
            Series("calibrated", (0, 100), (0, 100)),
        )
        coverage, risk = self._curve()
        error = Series("this run", (100 * coverage).tolist(), (100 * risk).tolist())
        return (
            Chart(
                "Confidence against accuracy",
                f"accuracy of each bin, %, protocol {self.protocol}",
                "confidence, %",
                reliability,
            ),
            Chart(
                "Error of the surest answers",
                f"error, %, protocol {self.protocol}",
                "share of questions answered, %",
                (error,),
            ),
        )

    def as_json(self) -> dict[str, Any]:
        """For `evaluation_<split>.json`: percent, except confidences, coverages and risks, which are 0..1."""
        coverage, risk = self._curve()
        bins = zip(self.calibration.count_B, self.calibration.confidence_B, self.calibration.accuracy_B, strict=True)
        return {
            "task": "open-ended",
            "protocol": self.protocol,
            "complementary_pairs": asdict(self.pairs) if self.pairs else None,
            "calibration": {
                "ece": self.calibration.ece,
                "bins": [
                    {"questions": int(n), "confidence": float(c) if n else None, "accuracy": float(a) if n else None}
                    for n, c, a in bins
                ],
            },
            "risk_coverage": {
                "aurc": self.risk.aurc,
                "best_aurc": self.risk.best_aurc,
                "coverage": coverage.tolist(),
                "risk": risk.tolist(),
            },
            "slices": [asdict(one) for one in self.slices],
        }

    def _curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The risk-coverage curve at `CURVE_POINTS` places or fewer."""
        count = len(self.risk.coverage_N)
        place = np.unique(
            np.linspace(0, count - 1, CURVE_POINTS).round().astype(np.int64)[1 if count > CURVE_POINTS else 0 :]
        )
        return self.risk.coverage_N[place], self.risk.risk_N[place]

    def _caption(self, what: str) -> str:
        return f"{what} Open-ended, {protocol_name(self.protocol)}, {self.data}."

    def _pairs(self) -> Table:
        pairs = self.pairs
        assert pairs is not None
        columns = ("one or both right", "both right", "consistency", "same answer twice")
        values = (pairs.one_right, pairs.both_right, pairs.consistency, pairs.same_answer)
        caption = self._caption(
            f"Percent of {pairs.pairs:,} pairs: one question, two images, two true answers; right from an accuracy "
            "of 50% on. Consistency: both right among those with one right."
        )
        table = tuple(Column(name) for name in columns)
        return Table("Complementary pairs", caption, table, (Row(self.name, values),), best="none")

    def _confidence(self) -> Table:
        columns = (Column("ECE"), Column("area under risk-coverage"), Column("the least possible", kind="floor"))
        values = (self.calibration.ece, self.risk.aurc, self.risk.best_aurc)
        caption = self._caption(
            "Percentage points; lower is better. Confidence is the probability that the model gives to its answer. "
            f"ECE: expected calibration error over {len(self.calibration.count_B)} bins."
        )
        return Table("Confidence", caption, columns, (Row(self.name, values),), best="none")

    def _slices(self) -> Table:
        columns = (Column("questions", decimals=0), Column("accuracy"), Column("from"), Column("to"))
        rows = tuple(Row(one.name, (float(one.count), one.accuracy, one.low, one.high)) for one in self.slices)
        caption = self._caption(
            "Accuracy in percent with its 95% confidence interval (bootstrap over images, 2,000 resamples)."
        )
        return Table("Kinds of questions", caption, columns, rows, row_heading="Questions", best="none")


def diagnose(
    name: str,
    dataset: QADataset,
    predictions: Strings,
    confidence_N: NDArray[np.floating],
    accuracy_N: NDArray[np.float64],
    protocol: Protocol,
    patterns: Mapping[str, str] | None = None,
) -> Diagnostics:
    """Diagnose open-ended answers.

    Args:
        name: the run.
        dataset: a split with answers.
        predictions: `[N]`.
        confidence_N: 0..1.
        accuracy_N: 0..1, by `protocol`.
        patterns: the user's slices, name to regular expression over the question.

    Raises:
        InputError: an expression is not valid.
    """
    low, high = confidence_interval(accuracy_N, dataset.image_row_N)
    everything = Slice("all", len(dataset), 100 * float(accuracy_N.mean()), low, high)
    named = slice_by_pattern(dataset, accuracy_N, patterns or {})
    confidence_N = np.clip(confidence_N, 0, 1)  # a softmax may pass 1 by a rounding
    return Diagnostics(
        name=name,
        data=dataset.name,
        protocol=protocol,
        pairs=pair_report(dataset, accuracy_N, predictions) if has_pairs(dataset) else None,
        calibration=calibration(confidence_N, accuracy_N),
        risk=risk_coverage(confidence_N, accuracy_N),
        slices=(everything, *named, *slice_by_length(dataset, accuracy_N)),
    )


def has_pairs(dataset: QADataset) -> bool:
    """Whether any complementary pair has both its questions in the split."""
    pairs = dataset.pairs_P2
    return pairs is not None and bool(np.isin(pairs, dataset.question_id_N).all(axis=1).any())


def parse_slices(texts: Sequence[str]) -> dict[str, str]:
    """Name and regular expression of each "name=REGEX"; raises InputError for a wrong one.

    >>> parse_slices(["colours=what colou?r"])
    {'colours': 'what colou?r'}
    """
    patterns: dict[str, str] = {}
    for text in texts:
        name, equals, pattern = text.partition("=")
        if not (name.strip() and equals and pattern):
            raise InputError(f"slice {text!r}: write name=REGEX, as in 'colours=what colou?r'")
        if name in patterns:
            raise InputError(f"slice {name!r}: the name is given twice")
        compile_slice(name, pattern)
        patterns[name] = pattern
    return patterns
