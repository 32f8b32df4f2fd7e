"""What an ablation's tables, files and page say of made-up runs: bold, floors, differences, costs, what is kept."""

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.grids import FUSIONS, write_grid
from helpers.training import make_world

from vqa.evaluation.report.ablation import AblationPage, Band, Bar, Point, write_ablation_page
from vqa.evaluation.statistics.differences import Sampling
from vqa.studies import summary
from vqa.studies.ablation import ablate
from vqa.studies.comparison.compare import CompareOptions, compare, compare_runs
from vqa.studies.grid import Ablation
from vqa.studies.table.figures import Evaluated, bounds, summarise
from vqa.studies.table.page import SHOWN
from vqa.studies.table.results import Results

FLOORS = {"most popular": {"open_ended": {"overall": 30.0, "per_answer_type": {"other": 3.0}}}}


def run(seed: int, accuracy: float, **more: Any) -> dict[str, Any]:
    """An evaluation with an accuracy that is not rounded."""
    both = {"overall": accuracy, "per_answer_type": {"other": accuracy / 2}}
    return {
        "seed": seed, "data": "made up", "questions": 1000, "protocol": "2021", "seen_in_training": {"stamp": ""},
        "model_choice": "Weights: last epoch", "accuracy": {"open_ended": {"overall": round(accuracy, 2),
        "per_answer_type": {"other": round(accuracy / 2, 2)}}}, "unrounded": {"open_ended": both}, "floors": FLOORS,
        "ceilings": {"best": {"open_ended": {"overall": 99.0, "per_answer_type": {}}}}, **more,
    }  # fmt: skip


def results(
    points: dict[str, tuple[float, float, float]] | None, baseline: str | None = "base", **more: Any
) -> Results:
    """Two seeds of `base` at 40 and of each other cell so far above it; with (points, low, p by Holm) of each."""
    shifts = {"base": 0.0} | {label: one[0] for label, one in (points or {"good": (6.0, 1, 0.01)}).items()}
    evaluated = {label: [run(seed, 40 + shift + seed / 3) for seed in (0, 1)] for label, shift in shifts.items()}
    cells: dict[str, Any] = {"base": {"mean": 40.2, "deviation": 0.2, "runs": 2, "difference": None}}
    for label, (shift, low, p) in (points or {}).items():
        high = 2 * shift - low
        sure = (low > 0 or high < 0) and p <= 0.05
        one = {
            "points": shift,
            "low": low,
            "high": high,
            "p_holm": p,
            "sure": sure,
            "over_seeds": True,
            "seeds": [2, 2],
        }
        cells[label] = {"mean": 40 + shift, "deviation": 0.2, "runs": 2, "difference": one}
    statistics = {"cells": cells, "types": {}, "left_out": ""} if points else {}
    return Results("made/up", [0, 1], evaluated, baseline=baseline, statistics=statistics, **more)


@pytest.mark.parametrize(
    ("points", "baseline", "bold", "said"),
    [
        ({"good": (6.0, 1.0, 0.01), "fine": (4.0, 1.0, 0.01)}, "base", "good", "Bold: the greatest mean"),
        ({"good": (6.0, -1.0, 0.2), "fine": (4.0, 1.0, 0.01)}, "base", None, "may be chance"),  # not the best sure one
        ({"good": (6.0, 0.1, 0.06)}, "base", None, "may be chance"),  # not after Holm
        ({"bad": (-6.0, -9.0, 0.01)}, "base", None, "that of base itself"),
        (None, "base", None, "made when the last run is done"),
        (None, None, None, "the file names no baseline"),
    ],
)
def test_bold_needs_more_than_a_greater_mean(
    points: dict[str, tuple[float, float, float]] | None, baseline: str | None, bold: str | None, said: str
) -> None:
    found = results(points, baseline)
    for table in (found.accuracies(), found.wide({})):
        marked = {
            (table.rows[r].name, table.columns[c].full_name)
            for r in range(len(table.rows))
            for c in range(len(table.columns))
            if table.is_best(r, c)
        }
        assert marked == ({(bold, "Open-ended, all")} if bold else set())
        assert said in table.caption


def test_means_are_of_unrounded_values_and_a_failed_comparison_is_said() -> None:
    evaluated = {"a": [run(0, 4.4444), run(1, 4.4446)]}
    figure = summarise(evaluated)["a"]["open-ended"]
    assert figure["mean"] == np.mean([4.4444, 4.4446]) and figure["std"] == pytest.approx(np.std([0, 0.0002], ddof=1))
    old = {"a": [{key: value for key, value in one.items() if key != "unrounded"} for one in evaluated["a"]]}
    assert summarise(old)["a"]["open-ended"]["runs"] == [4.44, 4.44]
    broken = Results("x", [0], evaluated, baseline="a", statistics={"left_out": "files are lost", "cells": {}})
    assert "no comparison with a, as files are lost." in broken.accuracies().caption


def test_floors_and_ceilings_are_rows_and_what_is_below_is_marked() -> None:
    table = results({"bad": (-20.0, -25.0, 0.001)}).accuracies()
    kinds = {row.name: row.kind for row in table.rows}
    assert kinds == {"base": "run", "bad": "run", "most popular": "floor", "best": "ceiling"}
    assert table.text(1, 0).startswith("↓ ") and not table.text(0, 0).startswith("↓")
    assert table.rows[2].values == (30.0, 3.0) and table.rows[3].values == (99.0, None)
    higher = run(0, 50.0, floors={"most popular": {"open_ended": {"overall": 31.0, "per_answer_type": {}}}})
    assert bounds({"a": [run(0, 50.0), higher]}, "floors") == {
        "most popular": {"open-ended": 31.0, "open-ended, other": 3}
    }


def test_the_wide_table_has_one_order_and_every_number() -> None:
    costs = {"base": {"parameters": 2_000_000, "forward_flops": 5_000_000}}
    measured = {"base": {"questions_per_second": 99.0, "memory_gib": None, "seconds": 90.0}}
    table = results({"good": (6.0, 1.0, 0.01)}, costs=costs).wide(measured)
    names = [column.name for column in table.columns]
    assert names == [
        "runs", "all", "other", "points", "from", "to", "p, Holm", "million parameters", "MFLOP a question",
        "questions/s", "GiB", "minutes",
    ]  # fmt: skip
    assert table.rows[0].values[3:] == (None, None, None, None, 2.0, 5.0, 99.0, None, 1.5)
    assert table.rows[1].values[3:7] == (6.0, 1.0, 11.0, 0.01) and table.rows[2].values[0] is None
    assert results({"good": (6.0, 1.0, 0.01)}).conclusions() == [
        "Surely above base: good (+6.00 points, +1.00 to +11.00)."
    ]


class Links(HTMLParser):
    """Every address and script of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [tag] if tag == "script" else []
        self.found += [
            value or "" for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")
        ]


def test_the_page_is_safe_and_draws_many_cells(tmp_path: Path) -> None:
    names = [f"<b>cell</b> {number} $x_1$" for number in range(20)]
    points = tuple(Point(name, 0.0 if i == 0 else 10.0**i, 50 + i % 3, None) for i, name in enumerate(names))
    page = AblationPage(
        "Ablation <i>x</i>", ("one.",), (results({"good": (6.0, 1.0, 0.01)}).accuracies(),),
        (("Time", "minutes", points),),
        (("all (9 questions)", tuple(Bar(name, 0.0, None, None) for name in names)),),
        tuple(Band(name, (1.0,), (30.0,), (29.0,), (31.0,)) for name in names), (("file", "x"),),
    )  # fmt: skip
    write_ablation_page(tmp_path / "page.html", page)
    text = (tmp_path / "page.html").read_text()
    links = Links()
    links.feed(text)
    assert links.found == [] and "<b>cell" not in text and "<i>x" not in text
    assert text.count('<svg class="chart"') == 3 and "cell&lt;/b&gt; 19" in text


def test_an_ablation_with_a_baseline_from_its_runs_to_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are those of `compare_runs`; they are made once, and again when a run is another."""
    folder = write_grid(make_world(tmp_path), tmp_path / "grid", fusions=FUSIONS[:2], seeds=(0, 1), epochs=1)
    with (folder / "grid.yaml").open("a", encoding="utf-8") as file:
        file.write("baseline: question_only\n")
    monkeypatch.chdir(folder)
    made: list[str] = []
    real = summary.statistics_of

    def counted(ablation: Ablation, evaluated: Evaluated) -> dict[str, Any]:
        made.append(ablation.file.name)
        return real(ablation, evaluated)

    monkeypatch.setattr(summary, "statistics_of", counted)
    tables = ablate(Path("grid.yaml"))
    assert len(made) == 1  # not after every run
    assert [table.title.rpartition(": ")[2] for table in tables] == [
        "Ablation grid", "against question_only", "cost", "measured",
    ]  # fmt: skip
    out = Path("runs/grid")
    numbers = json.loads((out / "ablation.json").read_text())
    cells = {label: [out / label / seed for seed in "01"] for label in ("question_only", "concat")}
    _, expected = compare_runs(cells, "question_only", CompareOptions(sampling=Sampling()))
    against = expected["concat"].against
    assert against is not None
    assert {
        key: numbers["statistics"]["cells"]["concat"]["difference"][key] for key in against.as_json()
    } == json.loads(json.dumps(against.as_json()))
    for label, one in expected.items():
        assert numbers["cells"][label]["open-ended"]["mean"] == pytest.approx(one.mean, abs=1e-9)
    assert numbers["costs"]["concat"]["parameters"] > numbers["costs"]["question_only"]["parameters"] > 0
    assert "seconds" not in json.dumps(numbers) and "measured" not in (out / "ablation.md").read_text()
    rows = list(csv.DictReader(io.StringIO((out / "ablation.csv").read_text())))
    assert float(rows[1]["Difference, points"]) == against.points and rows[1]["model"] == "concat"
    assert (out / "ablation.tex").read_text().count(r"\midrule") == 2
    page = (out / "ablation.html").read_text()
    assert "trained on train" in page and "against question_only" in page and "Learning curves" in page
    pair = compare([out / "question_only", out / "concat"], CompareOptions(sampling=Sampling())).pairs[0]
    counts = {kind: int(rows.sum()) for kind, rows in pair.changes.by_kind().items()}
    assert all(f"{count:,} of {numbers['questions']:,} questions" in page for count in counts.values())
    assert page.count("<article") == sum(min(count, SHOWN) for count in counts.values()) > 0

    before = {path.name: path.read_bytes() for path in out.glob("ablation.*")}
    ablate(Path("grid.yaml"), table_only=True)
    assert len(made) == 1 and before == {path.name: path.read_bytes() for path in out.glob("ablation.*")}
    evaluation = json.loads((out / "concat/0/evaluation_val.json").read_text())
    (out / "concat/0/evaluation_val.json").unlink()
    ablate(Path("grid.yaml"), table_only=True)
    assert len(made) == 2 and evaluation["seed"] == 0
    assert json.loads((out / "ablation.json").read_text())["statistics"]["cells"]["concat"]["runs"] == 1
