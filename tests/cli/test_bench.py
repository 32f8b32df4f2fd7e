"""`vqa bench …`: every bench keeps its ratios with their bars, and a fallen one ends it with 1. Times are not tested.

`vqa bench train` has its own test, which makes its tables small first.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

import vqa.cli
from vqa.bench import bounds
from vqa.files import read_json, write_json

EXTRACT = "--encoder squeezenet1_1 --layer features.4 --image-size 32 --images 6 --batch-size 4 --no-compile"
FUSIONS = "sum product --batch 2 --regions 4 --channels 8 --repeat 1 --device cpu --precision float32"
# The command, its report's title, some figures, how ratios with bars begin, their bars, and a ratio without a bar.
BENCHES: list[tuple[str, str, list[str], dict[str, float], str]] = [
    (
        "data --questions 200 --repeat 1",
        "Reading",
        ["json.load: time", "json.load, then dictionaries by id: peak memory"],
        {
            "vqa, first time: time": 1.0,
            "vqa, first time: peak memory": 3.0,
            "vqa, from its cache: time": 10.0,
            "vqa, from its cache: peak memory": 3.0,
        },
        "",
    ),
    (
        "score --questions 200 --repeat 1",
        "Scoring",
        ["json.load of the annotations: processor time"],
        {"vqa score, files read the first time: time": 1.0, "vqa score, files read before: time": 1.0},
        "vqa score, from loaded arrays: time",
    ),
    (
        f"extract {EXTRACT}",
        "Extraction: squeezenet1_1 features.4 at 32 px",
        ["decoding, 2 threads", "encoder, float32", "writing"],
        {
            "whole over slowest stage, ": 0.85,  # the way of computing that was the fastest follows
            "whole over encoder, ": 0.9,
        },
        "encoder float32 channels_last over float32",
    ),
    (
        f"fusions {FUSIONS}",
        "Fusions, forward and backward: batch 2, 4 x 8 regions, question 1024, 8 words; CPU, float32",
        ["sum", "sum: moved", "copy"],
        {},
        "sum / product",
    ),
]


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of `vqa bench …`."""
    monkeypatch.setattr(sys, "argv", ["vqa", "bench", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        vqa.cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("command", "title", "figures", "bars", "barless"), BENCHES, ids=[one[0].split()[0] for one in BENCHES]
)
def test_ratios_are_kept_with_their_bars_and_a_fallen_one_ends_with_1(
    command: str,
    title: str,
    figures: list[str],
    bars: dict[str, float],
    barless: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 1e-6)
    before, now = tmp_path / "before.json", tmp_path / "now.json"
    fallen = barless or next(iter(bars))
    write_json(before, {"title": title, "ratios": {fallen: {"value": 1e9}}})
    assert ended(monkeypatch, *command.split(), "--json", now, "--against", before) == 1
    out, err = capsys.readouterr()
    assert f"{fallen}: " in err and "was 1e+09" in err and "Traceback" not in err
    found: dict[str, Any] = read_json(now)
    assert found["title"] == title and title in out and found["note"][:30] in out
    assert all(name in out for name in [*bars, barless])
    assert all(found["figures"][name]["value"] > 0 for name in figures)
    ratios = found["ratios"]
    assert all(one["value"] > 0 for one in ratios.values())
    for beginning, bar in bars.items():
        assert {one["bar"] for name, one in ratios.items() if name.startswith(beginning)} == {bar}
    assert not barless or ratios[barless]["bar"] is None


@pytest.mark.parametrize("command", ["data", "score", "extract", "train", "epoch", "fusions"])
def test_what_is_no_benchmark_is_refused_before_anything_is_measured(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "other.json", {"accuracy": 1})
    assert ended(monkeypatch, command, "--against", tmp_path / "other.json") == 2
    assert "it must be what `vqa bench … --json` wrote" in capsys.readouterr().err
