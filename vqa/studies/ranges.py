"""The ranges of an ablation file, from which a sweep of Weights & Biases chooses values."""

from typing import Literal

from pydantic import Field, model_validator

from vqa.experiment import Section


class Range(Section):
    """Values that a sweep may choose a key from: between `min` and `max`, as `distribution` says.

    `log_uniform_values` chooses evenly on a logarithmic scale, `int_uniform` whole numbers; those with `q` round to
    multiples of it.
    """

    min: int | float
    max: int | float
    distribution: Literal["uniform", "log_uniform_values", "int_uniform", "q_uniform", "q_log_uniform_values"]
    q: int | float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.min >= self.max:
            raise ValueError(f"min {self.min} must be below max {self.max}")
        if self.distribution.startswith(("log_", "q_log_")) and self.min <= 0:
            raise ValueError(f"{self.distribution} needs a min above 0")
        if self.distribution.startswith("q_") != (self.q is not None):
            raise ValueError("q is for the distributions that begin with q_, and they need it")
        if self.distribution == "int_uniform" and not (isinstance(self.min, int) and isinstance(self.max, int)):
            raise ValueError("int_uniform needs whole numbers")
        return self
