"""What a piece of a model costs: the operations that torch runs, with the arithmetic and the bytes of each.

Matrix products, convolutions and attention count as `torch.utils.flop_counter` counts them (a multiplication and an
addition are 2); everything else, element-wise operations and FFTs among it, counts as no arithmetic, but its bytes
count: what an operation reads and writes, once each, no cache and no operator fusion assumed. On the meta device
nothing is computed and LSTMs run as their matrix products.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Operation(NamedTuple):
    """One operation: its name, floating-point operations, and bytes read and written."""

    name: str
    flops: int
    bytes: int


class OperationCounter(TorchDispatchMode):
    """Notes every operation that runs inside `with OperationCounter() as counter:`, backward passes included.

    Attributes:
        operations: in the order they ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    @property
    def flops(self) -> int:
        """Of all operations."""
        return sum(operation.flops for operation in self.operations)

    @property
    def bytes(self) -> int:
        """Of all operations."""
        return sum(operation.bytes for operation in self.operations)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        count = flop_registry.get(packet)
        flops = 0 if count is None else int(count(*args, **kwargs, out_val=result))
        self.operations.append(Operation(str(packet), flops, _bytes(func, (args, kwargs), result)))
        return result


def _bytes(func: Any, inputs: Any, result: Any) -> int:
    """What an operation reads and writes; a view or an empty tensor costs nothing."""
    returned = func._schema.returns
    if any(value.alias_info is not None and not value.alias_info.is_write for value in returned):
        return 0
    if "empty" in func._schema.name:
        return 0
    return sum(held_bytes(value) for value in tree_leaves((inputs, result)) if isinstance(value, Tensor))


def held_bytes(values: Tensor) -> int:
    """The bytes of a tensor's elements; one that repeats its elements (`expand`) holds each once."""
    distinct = [size for size, stride in zip(values.shape, values.stride(), strict=True) if stride != 0 or size == 0]
    count = 1
    for size in distinct:
        count *= size
    return count * values.element_size()
