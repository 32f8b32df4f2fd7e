"""A GPU that is not there: shapes, types and devices of everything that would run on one, and no numbers.

Tensors on "cuda" are torch's fake ones, which have no memory; tensors in host memory are real. What would make the
host wait for the GPU, or compute in a type that nobody asked for, is an error that names the operation and our line.

What this cannot do: torch's backward pass needs a driver as soon as a tensor says that it is on a GPU, so gradients are
made up. `tests/training/test_synchronisation.py` follows the backward pass on a CPU.
"""

import itertools
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import vqa

SOURCE = Path(vqa.__file__).parent
GPU = torch.device("cuda:0")
READING = {  # operations that a GPU can only answer by waiting
    "_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "allclose", "_unique2", "unique",
    "unique_consecutive", "unique_dim", "multinomial", "bincount", "repeat_interleave", "_assert_async",
}  # fmt: skip
COPIES = {"_to_copy", "copy_", "_copy_from", "lift_fresh", "detach"}
# where features and frozen vectors are still of the type that they are stored in
STORING = ("models/standardise.py", "models/question_encoders/pretrained.py", "features/extraction/question_vectors.py")
VIEWS = {"view", "slice", "select", "expand", "unsqueeze", "squeeze", "transpose", "permute", "detach", "alias",
         "_unsafe_view", "unbind", "split", "t"}  # fmt: skip


class GPUError(AssertionError):
    """Something that a step on a GPU must not do."""


class FakeGPU(TorchDispatchMode):
    """Runs what is on "cuda" with fake tensors, the rest for real.

    Attributes:
        strict: whether waiting and undeclared types are errors; off while a training is being set up.
        operations: how many ran on the GPU while strict.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.strict = False
        self.operations = 0
        self.pinned: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        fakes = [tensor for tensor in tensors if isinstance(tensor, FakeTensor)]
        target = kwargs.get("device")
        target = None if target is None else torch.device(target)
        if not fakes and (target is None or target.type != "cuda"):
            return func(*args, **kwargs)
        if name in COPIES and fakes and target is not None and target.type == "cpu":
            self._refuse("copies a tensor back to the host", name)
            return torch.zeros(fakes[0].shape, dtype=kwargs.get("dtype") or fakes[0].dtype)
        if self.strict:
            self.operations += 1
            self._check_waits(name, args, kwargs, tensors)
        special: Any = {"_pack_padded_sequence": _pack, "_pad_packed_sequence": _unpack}.get(name)
        if special is not None:
            return special(*args)
        with self.fake:
            result = func(*args, **kwargs)
        if self.strict:
            self._check_types(name, tensors, result)
        return result

    def _check_waits(self, name: str, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> None:
        if name in READING:
            self._refuse("reads numbers back from the GPU", name)
        indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        if any(isinstance(leaf, Tensor) and leaf.dtype in (torch.bool, torch.uint8) for leaf in tree_leaves(indices)):
            self._refuse("indexes with a mask, whose size is read back", name)
        hosts = [tensor for tensor in tensors if not isinstance(tensor, FakeTensor)]
        if name in COPIES:
            on_the_way = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            for host in hosts:
                if not on_the_way or host.untyped_storage().data_ptr() not in self.pinned:
                    self._refuse("copies from memory that is not pinned, or waits for the copy", name)
        elif name not in ("_pack_padded_sequence", "_pad_packed_sequence") and any(host.ndim for host in hosts):
            self._refuse("finds tensors on two devices", name)

    def _check_types(self, name: str, tensors: list[Tensor], result: Any) -> None:
        given = {tensor.dtype for tensor in tensors}
        if name not in COPIES and {torch.float16, torch.bfloat16} <= given:
            self._refuse("mixes float16 and bfloat16", name)
        made = {leaf.dtype for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        moved = name in COPIES and given == {torch.float16}
        if torch.float16 in made and not moved and name not in VIEWS and not self._line()[0].startswith(STORING):
            self._refuse("computes in float16", name)

    def _line(self) -> tuple[str, str]:
        """The innermost line of ours, as path and number, and as text."""
        for frame in reversed(traceback.extract_stack()):
            if Path(frame.filename).is_relative_to(SOURCE) and not frame.filename.endswith("transfer.py"):
                return f"{Path(frame.filename).relative_to(SOURCE)}:{frame.lineno}", frame.line or ""
        return "no line of ours", ""

    def _refuse(self, what: str, name: str) -> None:
        if self.strict:
            place, line = self._line()
            raise GPUError(f"{name} {what}: vqa/{place}: {line}")

    def pin(self, tensor: Tensor) -> Tensor:
        """A copy in memory that counts as pinned."""
        copied = tensor.clone()
        self.pinned[copied.untyped_storage().data_ptr()] = copied  # kept, so that no other tensor comes to lie there
        return copied


@contextmanager
def fake_gpu() -> Iterator[FakeGPU]:
    """A GPU for this block: `strict` begins off."""
    gpu = FakeGPU()
    with (
        warnings.catch_warnings(),
        patch("torch.cuda._lazy_init"),
        patch("transformers.utils.import_utils.is_fake_tensor", return_value=False),  # or it would not look into masks
        patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        patch("torch.cuda.is_bf16_supported", return_value=True),
        patch.object(torch._VF, "lstm", _recurrent),
        patch.object(torch._VF, "gru", _recurrent),
        patch.object(Tensor, "is_pinned", lambda tensor: tensor.untyped_storage().data_ptr() in gpu.pinned),
        patch.object(Tensor, "pin_memory", lambda tensor: gpu.pin(tensor)),
        patch.object(Tensor, "backward", lambda loss: None),
        gpu,
    ):
        warnings.simplefilter("ignore", UserWarning)  # torch's own layers look for the memory of fake weights
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") then copies where a mode sees it
        try:
            yield gpu
        finally:
            torch._C._set_only_lift_cpu_tensors(before)


def make_up_gradients(model: torch.nn.Module) -> None:
    """A gradient of the right type for every parameter that is trained."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)


def _recurrent(*arguments: Any) -> tuple[Tensor, ...]:
    """What cuDNN makes of an LSTM or GRU, plain or packed: under autocast float16, whatever type autocast is for."""
    lists = [place for place, one in enumerate(arguments) if isinstance(one, list | tuple)]
    weights = arguments[lists[-1]]
    hidden = [
        tensor for one in arguments[1 : lists[-1]] for tensor in (one if isinstance(one, list | tuple) else [one])
    ]
    states = [tensor for tensor in hidden if tensor.ndim == 3]
    values = arguments[0]
    kind = torch.float16 if torch.is_autocast_enabled("cuda") else values.dtype
    if kind == values.dtype and {tensor.dtype for tensor in (*states, *weights)} != {kind}:
        raise GPUError(f"cuDNN got numbers of {values.dtype} and weights of {weights[0].dtype}")
    width = states[0].shape[0] * weights[1].shape[1]
    output = torch.empty((*values.shape[:-1], width), dtype=kind, device=values.device)
    return output, *(torch.empty_like(state, dtype=kind) for state in states)


def _pack(values_BTD: Tensor, length_B: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    assert batch_first and not isinstance(length_B, FakeTensor)
    lengths: Sequence[int] = length_B.tolist()
    sizes = [sum(length > place for length in lengths) for place in range(max(lengths))]
    return values_BTD.new_empty(sum(lengths), values_BTD.shape[2]), torch.tensor(sizes)


def _unpack(
    data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int
) -> tuple[Tensor, Tensor]:
    assert batch_first and not isinstance(batch_sizes, FakeTensor)
    sizes: list[int] = batch_sizes.tolist()
    ends = [count - after for count, after in itertools.pairwise([*sizes, 0])]
    lengths = [place + 1 for place, count in enumerate(ends) for _ in range(count)][::-1]
    return data.new_empty(sizes[0], len(sizes), data.shape[1]), torch.tensor(lengths)
