"""The steps of `make gpu` in their order: what each runs, for how long at most, and whether it needs a GPU."""

import sys
from pathlib import Path
from typing import NamedTuple

from helpers.training import PROJECT

from gpu.checks import CHECKS

V2 = "--questions 443757 --val-questions 214354"
FEW = "--questions 300 --batch-size 8 --seconds 0.1"
SMALL_EPOCH = "--questions 200 --val-questions 60 --regions 1 --channels 8 --batch-size 32 --seconds 0.1"
STREAMS = ("tests/features/tables/test_prefetch.py", "tests/features/tables/test_feature_table.py")


class Step(NamedTuple):
    """One process.

    Attributes:
        name: of its results.
        about: one line for those who read them.
        limit: seconds until it is killed, with everything that it started.
        on_gpu, on_cpu: the arguments of Python; None where it cannot be tried without a GPU. `{found}` is the file
            that it writes.
        environment: variables that it needs.
    """

    name: str
    about: str
    limit: int
    on_gpu: str
    on_cpu: str | None
    environment: tuple[tuple[str, str], ...] = ()

    def command(self, found: Path, *, gpu: bool) -> list[str] | None:
        """What to run; None where it needs a GPU and there is none."""
        arguments = self.on_gpu if gpu else self.on_cpu
        return None if arguments is None else [sys.executable, *arguments.format(found=found).split()]

    @property
    def python_path(self) -> str:
        """The tests' own packages, and this vqa."""
        return f"{PROJECT}:{PROJECT / 'tests'}"


def check(name: str, about: str, limit: int, *, needs_gpu: bool = False) -> Step:
    """A step that is one of `CHECKS`."""
    arguments = f"-m gpu --check {name} --out {{found}}"
    assert name in CHECKS
    return Step(name, about, limit, arguments, None if needs_gpu else arguments)


def tests(name: str, about: str, limit: int, files: tuple[str, ...], **environment: str) -> Step:
    """A step that runs tests which are skipped without a GPU."""
    arguments = f"-m pytest -p no:cacheprovider -k gpu {' '.join(str(PROJECT / file) for file in files)}"
    return Step(name, about, limit, arguments, None, tuple(environment.items()))


def bench(name: str, about: str, limit: int, on_gpu: str, on_cpu: str | None) -> Step:
    """A step that is a `vqa bench …`."""
    arguments = [None if one is None else f"-m vqa bench {one} --json {{found}}" for one in (on_gpu, on_cpu)]
    assert arguments[0] is not None
    return Step(name, about, limit, arguments[0], arguments[1])


STEPS = (
    check("machine", "what computes", 60),
    tests("tests", "tests that need a GPU", 180, (*STREAMS, "tests/gpu/test_on_gpu.py")),
    tests("sanitizer", "streams under torch's sanitizer", 120, STREAMS, TORCH_CUDA_SANITIZER="1"),
    check("no_waits", "50 steps in which the host never waits", 90),
    check("recurrent", "types of recurrent layers, and their gradients in float16", 60),
    check("every_fusion", "every fusion, two steps in both precisions", 180),
    check("residencies", "the same batches from wherever the features are", 60),
    check("gathers", "gathering from tables beyond 2^31 numbers", 60),
    check("kill_and_resume", "a training killed and gone on with", 120),
    check("graphs", "losses with CUDA graphs and without", 60, needs_gpu=True),
    bench("bench_product", "steps of product on fc7", 150, "train --part product", f"train --part product {FEW}"),
    bench("bench_san", "steps of stacked attention, 196 x 512", 240, "train --part san", None),
    bench("bench_data", "gathering, beside a DataLoader", 240, "train --part data", None),
    bench("bench_memory", "peak memory of training", 120, "train --part memory", None),
    bench(
        "bench_extract", "VGG16's extraction at 224 px", 180, "extract --layer fc7 --images 1024 --workers 16",
        "extract --encoder squeezenet1_1 --layer features.4 --image-size 32 --images 6 --batch-size 4 --no-compile",
    ),
    bench(
        "epoch_product", "an epoch of vqa train, product on fc7", 240, f"epoch {V2} --epochs 3 --workers 8",
        f"epoch {SMALL_EPOCH}",
    ),
    bench(
        "epoch_san", "an epoch of vqa train, stacked attention, 196 x 512", 300,
        "epoch --model san --regions 196 --questions 443757 --val-questions 20000 --epochs 3 --workers 8", None,
    ),
)  # fmt: skip
