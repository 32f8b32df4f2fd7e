"""What computes: the device, the precision, and beside which other processes."""

from dataclasses import dataclass

import torch

from vqa.errors import InputError
from vqa.runtime.distributed import ALONE, Group, current_group, local_device, local_processes
from vqa.runtime.memory import available_memory, human_bytes


@dataclass(frozen=True)
class Machine:
    """What computes: the device, whether in bfloat16, and beside which other processes."""

    device: torch.device
    bfloat16: bool
    group: Group = ALONE

    def autocast(self) -> torch.autocast:
        """The context in which forward passes run."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

    @property
    def feature_dtype(self) -> torch.dtype:
        """The type in which features reach the model.

        On a CPU in bfloat16 they are converted once, because a cast in every batch costs more than the gather itself;
        a GPU in bfloat16 keeps float16, as stored, and autocast casts on the fly.
        """
        if not self.bfloat16:
            return torch.float32
        return torch.bfloat16 if self.device.type == "cpu" else torch.float16

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        processes = "" if self.group.alone else f", {self.group.size} processes"
        return f"{name}, {'bfloat16 where it helps' if self.bfloat16 else 'float32'}{processes}"


def choose_machine(device: str = "auto", precision: str = "auto") -> Machine:
    """Resolve `device: auto` and `precision: auto`; raises InputError when CUDA is asked for and not there.

    `auto` takes bfloat16 where the hardware multiplies it faster: GPUs since Ampere, CPUs with matrix units (AMX).
    """
    name = device
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("training.device: cuda was asked for, but torch sees no CUDA device; choose auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    own, group = local_device(name), current_group()
    if precision != "auto":
        return Machine(own, precision == "bfloat16", group)
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if name == "cuda" else _cpu_has_matrix_units()
    return Machine(own, fast, group)


def _cpu_has_matrix_units() -> bool:
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())


def free_memory(device: torch.device) -> int:
    """Bytes of a device's memory that this process may still take; of main memory its share of what is free."""
    if device.type != "cuda":
        return available_memory() // local_processes()
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, and not in use
    return torch.cuda.mem_get_info(device)[0] + cached


def memory_name(device: torch.device) -> str:
    """How messages call a device's memory."""
    return "GPU memory" if device.type == "cuda" else "main memory"


def require_memory(needed: int, device: torch.device, what: str, remedy: str) -> None:
    """Refuse what does not fit into what is free now.

    Args:
        needed: bytes.
        what: what needs them, for the message: "32 images of 4,000 px".
        remedy: what to do: "take a smaller --batch-size".

    Raises:
        InputError: with both numbers.
    """
    free = free_memory(device)
    if needed > free:
        raise InputError(
            f"{what} needs {human_bytes(needed)}, and {human_bytes(free)} of {memory_name(device)} are free; {remedy}"
        )
