"""From plain spaces to rows of features: numbers, categories, embeddings, and trees of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from seqrl.core import State, UsageError
from seqrl.networks.base import Encoder
from seqrl.networks.normalize import Normalize
from seqrl.networks.options import initialise, whole

SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of these"


class Numbers(Encoder):
    """A Box or MultiBinary as one row of floats; uint8 is divided by its upper bound."""

    unit: Tensor

    def __init__(self, space: spaces.Box | spaces.MultiBinary) -> None:
        super().__init__()
        self.features = int(np.prod(space.shape))
        self.register_buffer("unit", torch.tensor(byte_unit(space)), persistent=False)
        self.scaled = bool(self.unit != 1)

    def encode(self, obs: Tensor) -> Tensor:
        """[B, ...] -> [B, features]."""
        rows = obs.reshape(len(obs), self.features).to(self.unit.dtype)
        return rows / self.unit if self.scaled else rows

    def forward(self, obs: Tensor, start: Tensor, state: State = None) -> tuple[Tensor, State]:
        """The same with time: nothing is to be taken apart and put together."""
        rows = obs.reshape(*start.shape, self.features).to(self.unit.dtype)
        return rows / self.unit if self.scaled else rows, None


class OneHot(Encoder):
    """A Discrete or MultiDiscrete as ones and zeros, one block of columns a number."""

    shift: Tensor
    unit: Tensor

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
        super().__init__()
        counts = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
        self.features = int(counts.sum())
        blocks = np.cumsum(counts) - counts  # where each number's columns begin
        shift = torch.as_tensor(blocks - np.ravel(space.start))
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("unit", torch.tensor(1.0), persistent=False)

    def encode(self, obs: Tensor) -> Tensor:
        """[B] or [B, ...] of integers -> [B, features]."""
        columns = obs.reshape(len(obs), -1).long() + self.shift
        return self.unit.new_zeros(len(obs), self.features).scatter_(1, columns, 1.0)


class Embedding(Encoder):
    """A Discrete observation as a learned row of `size` numbers."""

    def __init__(self, space: Space, size: int = 64, *, init: str | float | None = None) -> None:
        super().__init__()
        if not isinstance(space, spaces.Discrete):
            raise UsageError(f"Embedding: expected a Discrete observation space, got {space}")
        self.first = int(space.start)
        self.features = whole("size", size)
        self.table = nn.Embedding(int(space.n), size)
        initialise(self.table.weight, init)

    def encode(self, obs: Tensor) -> Tensor:
        """[B] of integers from `space.start` on -> [B, size]."""
        return self.table(obs.long() - self.first)


class Parts(Encoder):
    """A Dict or Tuple space: an encoder for every part, their features side by side."""

    def __init__(self, space: spaces.Dict | spaces.Tuple, make: Callable[[Space], Encoder]) -> None:
        super().__init__()
        pairs = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        self.keys, parts = zip(*((key, make(part)) for key, part in pairs), strict=True)
        self.parts = nn.ModuleList(parts)
        self.features = sum(part.features for part in parts)

    def encode(self, obs: Any) -> Tensor:
        """A dict or tuple with leaves [B, ...] -> [B, features]."""
        return torch.cat([part.encode(view) for part, view in self._pairs(obs)], 1)

    def update(self, obs: Any, valid: Tensor) -> None:
        """Every part sees its own observations."""
        for part, view in self._pairs(obs):
            part.update(view, valid)

    def _pairs(self, obs: Any) -> list[tuple[Any, Any]]:
        return [(part, obs[key]) for part, key in zip(self.parts, self.keys, strict=True)]


def flat(space: Space, *, normalize: bool = False) -> Encoder:
    """The space as one row: numbers as they are (or normalised), categories one-hot."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return Parts(space, lambda part: flat(part, normalize=normalize))
    if isinstance(space, spaces.Box):
        return Normalize(Numbers(space)) if normalize else Numbers(space)
    if isinstance(space, spaces.MultiBinary):
        return Numbers(space)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return OneHot(space)
    raise UsageError(f"observation space {space}: not supported; supported are {SUPPORTED}")


def numbers(count: int) -> Numbers:
    """The encoder of rows that are `count` features already."""
    return Numbers(spaces.Box(-np.inf, np.inf, (whole("features", count),)))


def byte_unit(space: Space) -> float:
    """What uint8 values are divided by to lie in [0, 1]: the upper bound; 1 for other types."""
    if isinstance(space, spaces.Box) and space.dtype == np.uint8:
        return float(max(1, space.high.max(initial=1)))
    return 1.0
