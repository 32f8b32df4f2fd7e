"""What a GPU should reach, and the table of experiments/BENCHMARKS.md that says what it did."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gpu.steps import STEPS
from vqa.bench.gate import number
from vqa.files import atomic_write

BEGIN, END = "<!-- make gpu: begin -->", "<!-- make gpu: end -->"
Verdict = Literal["met", "missed", "not measured", "–"]
Results = Mapping[str, Mapping[str, Any]]
NOT_MEASURED: Literal["not measured"] = "not measured"


class Source(NamedTuple):
    """Where a number is found.

    Attributes:
        step: whose report.
        kind: "figures" or "ratios".
        name: a regular expression for the whole name; of several that fit, the greatest number counts.
        share: of the figure's bound, in percent.
    """

    step: str
    kind: Literal["figures", "ratios"]
    name: str
    share: bool = False

    def read(self, results: Results) -> float | None:
        """The number, or None where it was not measured on a GPU."""
        result = results.get(self.step, {})
        if result.get("status") != "passed":
            return None
        rows = result["found"].get(self.kind, {})
        found = [row for name, row in rows.items() if re.fullmatch(self.name, name)]
        if self.share:
            return max((100 * row["value"] / row["bound"] for row in found if row["bound"]), default=None)
        return max((row["value"] for row in found), default=None)


class Bar(NamedTuple):
    """A number that a GPU should reach.

    Attributes:
        what: it is.
        unit: of it.
        sources: the first one that was measured counts.
        at_most, at_least: the bar; neither where the number is only reported.
    """

    what: str
    unit: str
    sources: tuple[Source, ...]
    at_most: float | None = None
    at_least: float | None = None

    def value(self, results: Results) -> float | None:
        """What was measured."""
        return next((value for one in self.sources if (value := one.read(results)) is not None), None)

    def verdict(self, results: Results) -> Verdict:
        """Whether the bar is met; – where there is none."""
        value = self.value(results)
        if value is None:
            return NOT_MEASURED
        if self.at_most is not None:
            return "met" if value <= self.at_most else "missed"
        if self.at_least is not None:
            return "met" if value >= self.at_least else "missed"
        return "–"

    @property
    def bar(self) -> str:
        """In words."""
        if self.at_most is not None:
            return f"at most {self.at_most:g} {self.unit}".strip()
        return "–" if self.at_least is None else f"at least {self.at_least:,g} {self.unit}".strip()


def figure(step: str, name: str, *, share: bool = False) -> Source:
    """A figure of a step's report."""
    return Source(step, "figures", name, share)


def step_figure(what: str, model: str) -> tuple[Source, ...]:
    """A figure of the steps of a model in bfloat16."""
    return (figure(f"bench_{model}", f"{what}, {model} bfloat16"),)


def gather_share(features: str) -> tuple[Source, ...]:
    """The share of copying that gathering reaches."""
    return (figure("bench_data", f"gather {features}", share=True),)


def over_loader(model: str) -> tuple[Source, ...]:
    """How many times as fast as training over a DataLoader, of one run."""
    return (Source(f"epoch_{model}", "ratios", "training / usual way"),)


def epoch(model: str) -> tuple[Source, ...]:
    """Seconds of `vqa train` itself, or else reckoned from its steps alone."""
    return (figure(f"epoch_{model}", "epoch of training"), *step_figure("epoch", model))


BARS = (
    Bar("deeper LSTM + product on fc7, an epoch of training", "s", epoch("product"), at_most=2),
    Bar("stacked attention of two hops on 196 x 512 float16, an epoch of training", "s", epoch("san"), at_most=3),
    Bar("waiting for data, product", "%", step_figure("waiting for data", "product"), at_most=2),
    Bar("waiting for data, stacked attention", "%", step_figure("waiting for data", "san"), at_most=2),
    Bar("gathering a batch of fc7, share of copying", "%", gather_share("fc7, 1 x 4096"), at_least=60),
    Bar("gathering a batch of 196 x 512, share of copying", "%", gather_share("pool5 at 448 px, .*"), at_least=60),
    Bar(
        "VGG16 at 224 px in bfloat16, without decoding", "images/s",
        (figure("bench_extract", "encoder, bfloat16.*"),), at_least=5000,
    ),
    Bar("training of product, over a DataLoader over HDF5 with 8 workers", "times as fast", over_loader("product")),
    Bar("training of stacked attention, over the same", "times as fast", over_loader("san")),
    Bar("waits of the host a step, product", "", step_figure("waits of the host a step", "product"), at_most=0),
    Bar("waits of the host a step, stacked attention", "", step_figure("waits of the host a step", "san"), at_most=0),
    Bar("kernels a step, product", "", step_figure("kernels a step", "product")),
    Bar("launches a step, product", "", step_figure("launches a step", "product")),
    Bar("peak GPU memory, product", "GiB", step_figure("peak GPU memory", "product")),
    Bar("peak GPU memory, stacked attention", "GiB", step_figure("peak GPU memory", "san")),
)  # fmt: skip


def table(found: Mapping[str, Any]) -> str:
    """The Markdown between the two markers; of what was found without a GPU nothing counts as measured."""
    results: Results = found.get("steps", {}) if found.get("gpu") else {}
    facts = results.get("machine", {}).get("found", {})
    lines = ["| | bar | reached | |", "| --- | --- | --- | --- |"]
    for one in BARS:
        value = one.value(results)
        reached = NOT_MEASURED if value is None else f"{number(value)} {one.unit}".strip()
        lines.append(f"| {one.what} | {one.bar} | {reached} | {'' if value is None else one.verdict(results)} |")
    lines += ["", "| check | result |", "| --- | --- |"]
    for step in STEPS:
        if step.name != "machine" and not step.name.startswith(("bench_", "epoch_")):
            lines.append(f"| {step.about} | {results.get(step.name, {}).get('status', 'not run')} |")
    if facts.get("gpu"):
        lines = [f"On one {facts['gpu']}, torch {facts['torch']}.", "", *lines]
    return "\n".join(lines)


def write_table(page: Path, found: Mapping[str, Any], say: Callable[[str], object] = print) -> None:
    """Put the table between the markers of a page; without a GPU the page stays as it is.

    Raises:
        ValueError: the page has not exactly one pair of markers.
    """
    if not found.get("gpu"):
        say(f"no GPU: {page} stays as it is")
        return
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{page}: needs one {BEGIN} and, after it, one {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    with atomic_write(page) as file:
        file.write(f"{before}{BEGIN}\n{table(found)}\n{END}{after}")


def verdicts(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every bar as JSON has it."""
    results: Results = found.get("steps", {}) if found.get("gpu") else {}
    shown = []
    for one in BARS:
        value, verdict = one.value(results), one.verdict(results)
        shown.append({"what": one.what, "unit": one.unit, "bar": one.bar, "value": value, "verdict": verdict})
    return shown
