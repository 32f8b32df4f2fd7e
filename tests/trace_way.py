"""How many files a reader has to open to follow a command: those of vqa whose functions run, counted by tracing.

    python tests/trace_way.py train        from the start of `vqa train` to the first optimiser step
    python tests/trace_way.py evaluate     the whole of `vqa evaluate`; likewise extract and predict
    python tests/trace_way.py all          the four counts alone

Prints the count and the files, in the order in which their functions are first called. What runs while a module is
imported, its own lines and classes and the functions that they call, does not count. The world is tiny and made anew,
in a temporary folder, by the commands that come before: 60 synthetic scenes, a cache of SqueezeNet with random weights
at 64 px, one epoch of a two-hop stacked attention network.
"""

import inspect
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from torch.optim.optimizer import register_optimizer_step_pre_hook

import vqa.cli

PACKAGE = f"{Path(vqa.__file__).parent}{os.sep}"
EXPERIMENT = """
name: way
data: {format: vqa_v2, root: data}
features: {cache: cache.h5}
question_encoder: {name: lstm_last, embedding_dim: 8, hidden_dim: 8}
fusion: {name: stacked_attention, hops: 2, attention_dim: 8}
training: {epochs: 1, batch_size: 32, device: cpu}
"""
RUN, IMAGE = "experiments/runs/way/0", "image.jpg"
SPLITS = ["--split", "train", "--split", "val", "--split", "test"]
ENCODER = ["--encoder", "squeezenet1_1", "--image-size", "64", "--weights", "random"]
COMMANDS = {  # in the order in which one needs the other
    "generate": ["data", "generate", "data", "--scenes", "60", "--size", "64"],
    "extract": ["features", "extract", "--data", "data", "--format", "vqa_v2", *SPLITS, *ENCODER, "--out", "cache.h5"],
    "train": ["train", "way.yaml"],
    "evaluate": ["evaluate", RUN],
    "predict": ["predict", RUN, IMAGE, "what is in the image?"],
}
WAYS = ("train", "evaluate", "extract", "predict")


class Trace:
    """Notes the package's files whose functions are called, in order, until it is stopped."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self._running = True

    def stop(self, *_: object) -> None:
        """Note nothing from now on; an optimiser calls this before its first step."""
        self._running = False

    def note(self, frame: FrameType, event: str, argument: Any) -> None:
        """What `sys.setprofile` calls."""
        path = frame.f_code.co_filename
        if not self._running or event != "call" or not path.startswith(PACKAGE):
            return
        # the code of modules and classes is not optimised, that of functions is
        if path not in self.files and frame.f_code.co_flags & inspect.CO_OPTIMIZED and not _importing(frame):
            self.files.append(path)


def _importing(frame: FrameType) -> bool:
    """Whether a module of the package is being imported."""
    outer = frame.f_back
    while outer is not None:
        if outer.f_code.co_name == "<module>" and outer.f_code.co_filename.startswith(PACKAGE):
            return True
        outer = outer.f_back
    return False


@contextmanager
def world_before(way: str) -> Iterator[None]:
    """Work in a new folder in which every command before `way` has been run."""
    with TemporaryDirectory(prefix="vqa-way-") as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            Path("way.yaml").write_text(EXPERIMENT, encoding="utf-8")
            for name, command in COMMANDS.items():
                if name == way:
                    break
                subprocess.run([sys.executable, "-m", "vqa", *command], check=True, stdout=subprocess.DEVNULL)
            Path(IMAGE).symlink_to(next(Path("data").rglob("*.jpg")))
            yield
        finally:
            os.chdir(before)


def trace(way: str) -> list[str]:
    """The files of one command, in the order of their first call."""
    traced = Trace()
    if way == "train":
        register_optimizer_step_pre_hook(traced.stop)
    with world_before(way), redirect_stdout(io.StringIO()):
        sys.argv = ["vqa", *COMMANDS[way]]
        threading.setprofile(traced.note)
        sys.setprofile(traced.note)
        try:
            vqa.cli.main()
        except SystemExit as end:
            if end.code:
                raise
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return [path.removeprefix(PACKAGE) for path in traced.files]


def main() -> None:
    """Print what the command line asks for."""
    if len(sys.argv) != 2 or sys.argv[1] not in (*WAYS, "all"):
        sys.exit(f"usage: python tests/trace_way.py {'|'.join(WAYS)}|all")
    way = sys.argv[1]
    if way == "all":
        for name in WAYS:  # each in a process of its own: what one has imported and kept, the next would not run again
            done = subprocess.run([sys.executable, __file__, name], check=True, stdout=subprocess.PIPE, text=True)
            print(done.stdout.splitlines()[0])
        return
    files = trace(way)
    print(f"{way}: {len(files)} files")
    print("\n".join(files))


if __name__ == "__main__":
    main()
