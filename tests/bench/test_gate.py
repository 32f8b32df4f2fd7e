"""Stored benchmarks: ratios are compared, times are not."""

from pathlib import Path

import pytest

from vqa.bench.gate import BenchReport, Figure, Ratio, conclude
from vqa.errors import InputError, SlowerError
from vqa.files import read_json, write_json


def report(**ratios: float) -> BenchReport:
    figures = {"gather": Figure(1e6, "rows/s", bound=4e6, bounded_by="copy rate")}
    return BenchReport("Synthetic", "a note", figures, {name: Ratio(value, bar=2.0) for name, value in ratios.items()})


def test_a_report_is_printed_written_and_passes_against_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "b.json"
    conclude(report(data=60, step=3), json_file=file)
    stored = read_json(file)
    assert stored["machine"] and stored["date"] and stored["ratios"]["data"] == {"value": 60, "bar": 2.0}
    conclude(report(data=45, step=30), against=file)  # slower by a quarter is noise
    printed = capsys.readouterr().out
    assert "25%" in printed and "copy rate" in printed and "none of 2 ratios" in printed


def test_a_ratio_that_fell_is_named_and_a_time_that_fell_is_not(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    conclude(report(data=60, step=3, gone=1), json_file=file)
    slower = BenchReport("Synthetic", "", {"gather": Figure(1.0, "rows/s")}, {"data": Ratio(41.9), "step": Ratio(3.0)})
    with pytest.raises(SlowerError, match=r"data: 41\.9, was 60") as error:
        conclude(slower, against=file)
    assert "step" not in str(error.value)


OTHER = {"ratios": {"other": {"value": 1}}}


@pytest.mark.parametrize(
    "content", [{"ratios": [1]}, {"figures": {}}, OTHER | {"title": "Synthetic"}, OTHER | {"title": "Something else"}]
)
def test_a_file_that_is_no_benchmark_of_this_kind_is_refused(tmp_path: Path, content: dict[str, object]) -> None:
    write_json(tmp_path / "b.json", content)
    with pytest.raises(InputError, match=r"b\.json: (.* it must be what|has none of|is of 'Something else')"):
        conclude(report(data=1), against=tmp_path / "b.json")
