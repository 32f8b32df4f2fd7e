"""What computes: the device, the precision, and beside which other processes."""

import os
from dataclasses import dataclass

import torch

from vqa.errors import InputError
from vqa.runtime.distributed import ALONE, Group, current_group, local_device, local_processes
from vqa.runtime.memory import available_memory, human_bytes

RECURRENT_TYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Machine:
    """What computes: the device, whether in bfloat16, and beside which other processes.

    Attributes:
        recurrent: what LSTMs and GRUs compute in, a key of `RECURRENT_TYPES`. A model is told of it when it is built
            (`vqa.models.precision.set_recurrent_type`); here it is for people.
    """

    device: torch.device
    bfloat16: bool
    group: Group = ALONE
    recurrent: str = "auto"

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
        return f"{name}, {self._arithmetic()}{processes}"

    def _arithmetic(self) -> str:
        """The number types, as they are printed and recorded."""
        single = "float32"
        if computes_tf32(self.device):
            single = "float32 (TF32 in matrix products, convolutions and recurrent layers)"
        recurrent = self.recurrent
        if recurrent == "auto" and self.bfloat16 and self.device.type == "cuda":
            recurrent = "float32"
        usual = "bfloat16 where it helps" if self.bfloat16 else single
        if recurrent == "auto" or (recurrent == "float32" and not self.bfloat16):
            return usual
        if recurrent == "float32" and computes_tf32(self.device):
            recurrent = "float32 (TF32)"
        return f"{usual}, recurrent layers in {recurrent}"


def state_float32() -> None:
    """Say what float32 means on a GPU, once for everything that computes there.

    Since Ampere matrix products, convolutions and recurrent layers all read their float32 numbers as TF32 (10 bits
    after the point, the range of float32) and add up in float32. torch's own setting is that for all but the matrix
    products. The environment variable NVIDIA_TF32_OVERRIDE=0 switches it off in NVIDIA's libraries.
    """
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True  # convolutions and recurrent layers


def computes_tf32(device: torch.device) -> bool:
    """Whether float32 is TF32 on a device."""
    if device.type != "cuda" or os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        return False
    return torch.backends.cuda.matmul.allow_tf32 and torch.cuda.get_device_capability(device) >= (8, 0)


def fastest_device(*, shared: bool = False) -> torch.device:
    """A GPU where there is one (see `local_device`), with `state_float32` said; otherwise the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    state_float32()
    return local_device("cuda", shared=shared)


def choose_machine(device: str = "auto", precision: str = "auto", recurrent: str = "auto") -> Machine:
    """Resolve `device: auto` and `precision: auto`; raises InputError when CUDA is asked for and not there.

    `auto` takes bfloat16 where the hardware multiplies it faster: GPUs since Ampere, CPUs with matrix units (AMX).
    """
    name = device
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("training.device: cuda was asked for, but torch sees no CUDA device; choose auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        state_float32()
    own, group = local_device(name), current_group()
    if precision != "auto":
        return Machine(own, precision == "bfloat16", group, recurrent)
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if name == "cuda" else _cpu_has_matrix_units()
    return Machine(own, fast, group, recurrent)


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
