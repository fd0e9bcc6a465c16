"""Random numbers for action heads, as NumPy arrays or as tensors on a device."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from seqrl.core import Array


class Draw(Protocol):
    """Where random numbers come from, in the kind of array wanted."""

    @property
    def xp(self) -> Any:
        """The module to compute with, numpy or torch."""

    def exponential(self, shape: tuple[int, ...]) -> Array:
        """Exponential with mean 1."""

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Standard normal."""

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """From [0, 1)."""


class NumpyDraw:
    """Random numbers as NumPy arrays."""

    xp: Any = np

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def exponential(self, shape: tuple[int, ...]) -> Array:
        """Exponential with mean 1."""
        return self.rng.standard_exponential(shape)  # never 0 in float64

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Standard normal."""
        return self.rng.standard_normal(shape, np.float32)

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """From [0, 1)."""
        return self.rng.random(shape, np.float32)


class TorchDraw:
    """Random numbers as tensors on a device."""

    xp: Any = torch

    def __init__(self, rng: torch.Generator):
        self.rng = rng

    def exponential(self, shape: tuple[int, ...]) -> Array:
        """Exponential with mean 1."""
        return torch.empty(shape, device=self.rng.device).exponential_(generator=self.rng)

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Standard normal."""
        return torch.randn(shape, device=self.rng.device, generator=self.rng)

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """From [0, 1)."""
        return torch.rand(shape, device=self.rng.device, generator=self.rng)
