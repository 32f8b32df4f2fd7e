"""`make gpu`; see the package."""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

import gpu
from gpu.bars import verdicts, write_table
from gpu.checks import CHECKS
from gpu.runner import run_steps
from gpu.steps import STEPS
from vqa.files import write_json


def main() -> int:
    """Run every step, or one check in this process; 1 where a step failed."""
    parser = argparse.ArgumentParser(prog="gpu", description=gpu.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--table", type=Path, help="the page whose table is written, where there is a GPU")
    parser.add_argument("--only", action="append", choices=[step.name for step in STEPS], help="steps; others are kept")
    parser.add_argument("--check", choices=CHECKS, help="one check, in this process")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if given.check:
        with tempfile.TemporaryDirectory(prefix="vqa-gpu-") as folder:
            write_json(given.out, CHECKS[given.check](Path(folder), device))
        return 0
    return run(given.out, given.table, given.only, on_gpu=device.type == "cuda")


def run(out: Path, page: Path | None, only: list[str] | None, *, on_gpu: bool) -> int:
    """Run the steps, say which bars are met, write the table."""
    steps = [step for step in STEPS if not only or step.name in only]
    if not on_gpu:
        print("no GPU: what needs one is skipped, the rest is tried small on the CPU, and no bar is measured")
    found = run_steps(steps, out, gpu=on_gpu, keep=bool(only))
    found["bars"] = verdicts(found)
    write_json(out, found)
    for one in found["bars"]:
        value = "" if one["value"] is None else f"{one['value']:,.4g} {one['unit']}, "
        print(f"{one['verdict']:13} {one['what']}: {value}bar: {one['bar']}")
    if page:
        write_table(page, found)
    return int(any(found["steps"][step.name]["status"] in ("failed", "timed out") for step in steps))


if __name__ == "__main__":
    sys.exit(main())
