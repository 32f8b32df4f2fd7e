"""`make gpu` without a GPU: its steps fail alone, its checks can fail, and no bar counts as measured."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from helpers.training import PROJECT

import vqa.cli
from gpu.__main__ import main, run
from gpu.bars import BARS, BEGIN, END, table, verdicts, write_table
from gpu.checks import CHECKS, LayersSeen, check_two_steps
from gpu.runner import run_steps
from gpu.steps import STEPS, Step
from gpu.work import known, on_and_off, plan
from vqa.bench import bounds
from vqa.files import read_json

CPU = torch.device("cpu")
QUICK = ("machine", "no_waits", "gathers", "recurrent", "every_fusion")


def script(folder: Path, name: str, source: str, limit: int = 60, **environment: str) -> Step:
    """A step that runs a program."""
    (folder / f"{name}.py").write_text(source)
    return Step(name, "a try", limit, "", f"{folder / name}.py {{found}}", tuple(environment.items()))


def test_a_step_that_fails_or_hangs_costs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hanging = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "print('waiting', flush=True); time.sleep(60)\n"
    )
    writing = "import os, sys; open(sys.argv[1], 'w').write(os.environ['GIVEN'])"
    steps = [
        script(tmp_path, "fails", "import sys; print('before'); sys.exit('no such kernel')"),
        script(tmp_path, "hangs", hanging, limit=1),
        Step("gpu_only", "a try", 60, "-c pass", None),
        script(tmp_path, "writes", writing, GIVEN='{"a": 1}'),
    ]  # fmt: skip
    out = tmp_path / "out.json"
    run_steps(steps[:1], out, gpu=False)
    assert list(read_json(out)["steps"]) == ["fails"]
    began = time.monotonic()
    found = run_steps(steps[1:], out, gpu=False, keep=True)["steps"]
    assert time.monotonic() - began < 20
    assert read_json(out) == {"gpu": False, "steps": found}
    assert {name: one["status"] for name, one in found.items()} == {
        "fails": "failed", "hangs": "timed out", "gpu_only": "skipped", "writes": "passed"
    }  # fmt: skip
    assert found["fails"]["said"] == ["before", "no such kernel"] and found["hangs"]["said"] == ["waiting"]
    assert found["writes"]["found"] == {"a": 1}
    printed = capsys.readouterr().out
    assert "no such kernel" in printed and "s  small: a try" in printed and "needs a GPU, and there is none" in printed
    child = int((tmp_path / "child").read_text())
    assert not is_running(child)


def is_running(process: int) -> bool:
    """Whether a process is there and no zombie; it may take a moment to go."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("name", QUICK)
def test_checks_pass_small_on_a_cpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 0.0)
    assert CHECKS[name](tmp_path, CPU)


def test_gradients_that_float16_would_lose_are_found() -> None:
    seen = LayersSeen()
    states = torch.zeros(4, dtype=torch.float16, requires_grad=True) + 0
    wide = torch.zeros(4, requires_grad=True) + 0
    seen.note(torch.nn.Identity(), (), (states, (wide, wide.detach())))
    (wide * torch.tensor([1.0, 2.0**-20, 2.0**-26, 0.0])).sum().backward()
    assert seen.facts() == {
        "types": ["float16", "float32"], "median": 2.0**-20, "zero": 0.25,
        "subnormal in float16": pytest.approx(2 / 3), "zero in float16": pytest.approx(1 / 3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rate", "problem"), [(1e-30, "no weight moved in the second step"), (1e30, "the loss of step 1 is not finite")]
)
def test_steps_that_do_not_learn_are_found(rate: float, problem: str, tmp_path: Path) -> None:
    what = plan(tmp_path, CPU, {"optimizer": {"name": "sgd", "learning_rate": rate}})
    with pytest.raises(AssertionError, match=problem):
        check_two_steps(what)


def test_keys_that_this_version_lacks_are_left_out() -> None:
    assert known(epochs=3, levitation=True) == {"epochs": 3}
    assert on_and_off("compile") == (True, False)


def gpu_results(seconds: float, waits: float) -> dict[str, Any]:
    """What a GPU might have given of some steps."""
    figures = {
        "waits of the host a step, product bfloat16": {"value": waits, "bound": None},
        "epoch, product bfloat16": {"value": seconds, "bound": None},
    }
    gathered = {"gather fc7, 1 x 4096": {"value": 30.0, "bound": 40.0}}
    encoders = {
        "encoder, bfloat16": 4000.0,
        "encoder, bfloat16 channels_last compiled": 5600.0,
        "encoder, float32": 9e9,
    }
    found = {
        "machine": {"gpu": "A GPU", "torch": "9.9"},
        "bench_product": {"figures": figures},
        "bench_data": {"figures": gathered},
        "bench_extract": {"figures": {name: {"value": rate, "bound": 1e9} for name, rate in encoders.items()}},
        "epoch_product": {"figures": {}, "ratios": {"training / usual way": {"value": 80.0}}},
    }
    return {"gpu": True, "steps": {name: {"status": "passed", "found": one} for name, one in found.items()}}


def test_bars_are_met_missed_or_not_measured() -> None:
    def said(found: dict[str, Any]) -> dict[str, str]:
        return {one["what"].split(",")[0]: one["verdict"] for one in verdicts(found)}

    fast, slow = said(gpu_results(1.9, 0)), said(gpu_results(2.1, 0.5))
    epoch = "deeper LSTM + product on fc7"
    assert (fast[epoch], slow[epoch]) == ("met", "missed")
    assert fast["gathering a batch of fc7"] == "met" and fast["VGG16 at 224 px in bfloat16"] == "met"
    assert fast["training of product"] == "–" and fast["peak GPU memory"] == "not measured"
    assert fast["stacked attention of two hops on 196 x 512 float16"] == "not measured"
    waits = [one["verdict"] for one in verdicts(gpu_results(2.1, 0.5)) if one["what"].startswith("waits of")]
    assert waits == ["missed", "not measured"]
    for nothing in ({}, {"gpu": False, "steps": {}}, gpu_results(1.0, 0) | {"gpu": False}):
        assert {one["verdict"] for one in verdicts(nothing)} == {"not measured"}
    failed = gpu_results(1.0, 0)
    failed["steps"]["bench_product"]["status"] = "timed out"
    assert said(failed)[epoch] == "not measured"


def test_the_table_is_written_between_its_markers_and_only_where_there_is_a_gpu(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    said: list[str] = []
    write_table(page, {"gpu": False, "steps": {}}, said.append)
    assert "old" in page.read_text() and said == [f"no GPU: {page} stays as it is"]
    for _ in range(2):
        write_table(page, gpu_results(1.9, 0))
    text = page.read_text()
    assert text.startswith(f"# Before\n\n{BEGIN}\nOn one A GPU, torch 9.9.\n") and text.endswith(f"\n{END}\n\nafter\n")
    assert "| at most 2 s | 1.9 s | met |" in text and "old" not in text
    page.write_text(f"{END} {BEGIN}")
    with pytest.raises(ValueError, match="needs one <!--"):
        write_table(page, gpu_results(1.9, 0))


def test_the_benchmarks_have_the_table() -> None:
    """Either nothing was measured on a GPU yet, or the table says on which one."""
    text = (PROJECT / "experiments/BENCHMARKS.md").read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    between = text.split(BEGIN)[1].split(END)[0].strip()
    assert between == table({}) or between.startswith("On one ")
    assert all(one.what in between for one in BARS)


def test_the_benchmarks_that_it_calls_are_there() -> None:
    app: Any = typer.main.get_command(vqa.cli.app)
    called = [arguments.split() for step in STEPS for arguments in (step.on_gpu, step.on_cpu) if arguments]
    benches = [arguments[2:] for arguments in called if arguments[:3] == ["-m", "vqa", "bench"]]
    assert len(benches) == 10
    for _, name, *options in benches:
        command = app.commands["bench"].commands[name]
        command.make_context(name, options)  # raises where an option is not one
    with pytest.raises(Exception, match="No such option"):
        app.commands["bench"].commands["train"].make_context("train", ["--parts", "san"])


def test_without_a_gpu_it_says_what_it_skips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, out = tmp_path / "page.md", tmp_path / "build/out.json"
    page.write_text("as it is")
    assert run(out, page, ["sanitizer", "bench_san"], on_gpu=False) == 0
    printed = capsys.readouterr().out
    assert "no GPU" in printed and "skipped   sanitizer" in printed and "skipped   bench_san" in printed
    found = read_json(out)
    assert list(found["steps"]) == ["sanitizer", "bench_san"] and found["gpu"] is False
    assert [one["verdict"] for one in found["bars"]] == ["not measured"] * len(BARS)
    assert page.read_text() == "as it is"


def test_one_check_writes_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--check", "residencies", "--out", str(tmp_path / "found.json")])
    assert main() == 0
    assert read_json(tmp_path / "found.json") == {"batches": 2 * 3 * 3 * 5}


@pytest.mark.slow
def test_everything_passes_small_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run(tmp_path / "out.json", None, None, on_gpu=False) == 0
    found = read_json(tmp_path / "out.json")["steps"]
    assert {one["status"] for one in found.values()} == {"passed", "skipped"} and len(found) == len(STEPS)
