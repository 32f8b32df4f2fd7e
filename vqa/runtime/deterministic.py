"""`training.deterministic: true`: on a GPU the same command gives the same weights, bit for bit, where torch can.

Many of a GPU's operations add up in whatever order their threads come, so that two runs differ in last digits, and soon
in more. On a CPU every run is exact as it is, and nothing here changes one.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from vqa.errors import InputError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
FIXED_WORKSPACES = (":4096:8", ":16:8")  # those with which matrix products are exact, by cuBLAS' own documentation


@contextmanager
def deterministic_algorithms(asked: bool, device: str) -> Iterator[None]:
    """Let torch take deterministic algorithms only, and raise where it has none (see `refusal`).

    These are switches of the whole process, put back at the end; the workspace of cuBLAS stays.

    Args:
        asked: without it nothing is done.
        device: "auto", "cpu" or "cuda", as `training.device` has it.

    Raises:
        InputError: CUDA has started with another workspace, which cannot be changed any more.
    """
    if not asked or device == "cpu" or not torch.cuda.is_available():
        yield
        return
    require_fixed_workspace(started=torch.cuda.is_initialized())
    with deterministic_switches():
        yield


@contextmanager
def deterministic_switches() -> Iterator[None]:
    """torch's own switches, whatever the device, put back at the end."""
    cudnn, filling = torch.backends.cudnn, torch.utils.deterministic
    with ExitStack() as before:
        asked = torch.are_deterministic_algorithms_enabled()
        warned = torch.is_deterministic_algorithms_warn_only_enabled()
        before.callback(torch.use_deterministic_algorithms, asked, warn_only=warned)
        for owner, switch in ((filling, "fill_uninitialized_memory"), (cudnn, "benchmark"), (cudnn, "deterministic")):
            before.callback(setattr, owner, switch, getattr(owner, switch))
        before.enter_context(sdpa_kernel(SDPBackend.MATH))  # the fused ones' backward passes add up in any order
        torch.use_deterministic_algorithms(True)
        filling.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it is never read, and filling it takes time
        cudnn.benchmark, cudnn.deterministic = False, True
        yield


def require_fixed_workspace(*, started: bool) -> None:
    """Give cuBLAS a workspace with which matrix products are exact.

    Args:
        started: whether CUDA has started, so that a new value would not be read.

    Raises:
        InputError: the environment has another value, or it is too late for one.
    """
    stated = os.environ.get(WORKSPACE)
    if stated in FIXED_WORKSPACES:
        return
    right = " or ".join(FIXED_WORKSPACES)
    if stated is not None:
        raise InputError(f"training.deterministic needs {WORKSPACE}={right} in the environment; it is {stated[:80]!r}")
    if started:
        raise InputError(
            f"training.deterministic: CUDA has started in this process without {WORKSPACE}; set it to {right} in the "
            "environment, or begin a new process with this run"
        )
    os.environ[WORKSPACE] = FIXED_WORKSPACES[0]


def refusal(error: BaseException) -> str | None:
    """What to say where torch has no deterministic algorithm for an operation; None for any other error."""
    found = re.match(r"(\S+) does not have a deterministic implementation", str(error))
    if not isinstance(error, RuntimeError) or found is None:
        return None
    return (
        f"training.deterministic: torch has no deterministic {found[1][:80]}; take another part, or leave the key out"
    )


def exactness(asked: bool, device: torch.device, processes: int) -> str:
    """What the run's first lines say of it: nothing on a CPU, where every run is exact."""
    if device.type != "cuda":
        return ""
    if not asked:
        return "; runs of one seed may differ in last digits (training.deterministic: false)"
    return "; deterministic" if processes == 1 else "; deterministic in each process, the sums over them by NCCL"
