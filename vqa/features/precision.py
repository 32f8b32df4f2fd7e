"""How an image encoder computes: number type, order of the numbers in memory, compiled or not."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from vqa.errors import InputError
from vqa.runtime.device import computes_tf32

CHANNELS_LAST, COMPILED, TF32 = "channels_last", "compiled", "tf32"
NUMBER_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
AUTO = "auto"
# Of two encodings of one image that count as the same: machines, batch sizes and number types round differently;
# another weight file or preprocessing differs far more.
LEAST_COSINE = 0.999
STATED_AS = "arithmetic"  # the attribute of a cache that says which precision made it


@dataclass(frozen=True)
class Precision:
    """One way to compute the same features.

    Attributes:
        number_type: of weights and activations, a key of `NUMBER_TYPES`; pixels are always normalised in float32.
        channels_last: the channels of one place lie side by side in memory, as convolutions like it.
        compiled: by `torch.compile`, for one size of batch.
        tf32: whether float32 was TF32 there (`vqa.runtime.device.state_float32`). It is a note and chooses nothing:
            the device does. Caches from before it was noted lack it.
    """

    number_type: str = "float32"
    channels_last: bool = True
    compiled: bool = False
    tf32: bool = False

    def __str__(self) -> str:
        options = {CHANNELS_LAST: self.channels_last, COMPILED: self.compiled, TF32: self.tf32}
        words = [self.number_type, *(word for word, said in options.items() if said)]
        return " ".join(words)

    @classmethod
    def parse(cls, text: str) -> "Precision":
        """Read what `str` gives.

        Raises:
            InputError: when it is something else.
        """
        number_type, *rest = text.split()
        found = cls(number_type, CHANNELS_LAST in rest, COMPILED in rest, TF32 in rest)
        if number_type not in NUMBER_TYPES or str(found) != text:
            raise InputError(f"precision {text!r} is not known here; was it written by a later version?")
        return found

    @classmethod
    def of_cache(cls, attributes: Mapping[str, Any]) -> "Precision":
        """How the encoder computed whose features a cache holds; raises InputError as `parse`."""
        return cls.parse(attributes.get(STATED_AS) or str(AS_BEFORE))

    def on(self, device: torch.device) -> "Precision":
        """The same, noting whether float32 is TF32 on this device."""
        return replace(self, tf32=self.dtype == torch.float32 and computes_tf32(device))

    @property
    def dtype(self) -> torch.dtype:
        """The number type as torch calls it."""
        return NUMBER_TYPES[self.number_type]

    @property
    def memory_format(self) -> torch.memory_format:
        """The order in memory as torch calls it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


AS_BEFORE = Precision()  # of caches that state none: they were made when this was the only way
