"""Where an agent computes, and random numbers there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from seqrl.core.errors import UsageError
from seqrl.core.types import Array


def pick_device(name: str) -> tuple[torch.device, str]:
    """Return the device behind a name and why; "auto" is cuda where there is one."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), "a GPU is there"
        return torch.device("cpu"), "no GPU is there"
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in (*there, "cuda") or (name == "cuda" and len(there) == 1):
        raise UsageError(f"device {name!r}: expected auto or one of {', '.join(there)}")
    return torch.device(name), "as set"


class Draw:
    """Random numbers in the kind of array, and on the device, of the generator they come from."""

    def __init__(self, rng: Any):
        self.rng = rng
        self.xp: Any = np if isinstance(rng, np.random.Generator) else torch

    def exponential(self, shape: tuple[int, ...]) -> Array:
        """Draw from the exponential distribution with mean 1; never 0 in float64 (NumPy)."""
        if self.xp is np:
            return self.rng.standard_exponential(shape)
        return torch.empty(shape, device=self.rng.device).exponential_(generator=self.rng)

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Draw from the standard normal distribution, float32."""
        if self.xp is np:
            return self.rng.standard_normal(shape, np.float32)
        return torch.randn(shape, device=self.rng.device, generator=self.rng)

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """Draw from [0, 1), float32."""
        if self.xp is np:
            return self.rng.random(shape, np.float32)
        return torch.rand(shape, device=self.rng.device, generator=self.rng)
