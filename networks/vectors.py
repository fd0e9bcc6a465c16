"""Encoders of vectors and categories, and of Dict and Tuple spaces of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from seqrl.core.checks import check_numbers, check_parts, check_whole, numbers_of
from seqrl.core.errors import UsageError
from seqrl.core.types import State
from seqrl.networks.base import Encoder
from seqrl.networks.normalize import Normalize
from seqrl.networks.options import initialise

KNOWN = spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary
EXACT = 2**24  # whole numbers up to here are float32 numbers
SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of these"


class Numbers(Encoder):
    """A Box or MultiBinary as a vector of floats; uint8 is divided by its upper bound."""

    scale: Tensor

    def __init__(self, space: spaces.Box | spaces.MultiBinary) -> None:
        super().__init__()
        self.features = int(np.prod(space.shape))
        self.register_buffer("scale", torch.tensor(uint8_scale(space)), persistent=False)
        self.scaled = bool(self.scale != 1)
        self.wide = is_wide(space)

    def encode(self, obs: Tensor) -> Tensor:
        """Map [B, ...] to [B, features]."""
        x = obs.reshape(obs.shape[0], self.features).to(self.scale.dtype)
        return x / self.scale if self.scaled else x

    def forward(self, obs: Tensor, start: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Encode [T, N, ...] in one reshape; `start` is ignored."""
        x = obs.reshape(*start.shape, self.features).to(self.scale.dtype)
        return x / self.scale if self.scaled else x, None


def is_wide(space: Space) -> bool:
    """Return whether numbers may be so large, by their bounds, that float32 rounds them."""
    if not isinstance(space, spaces.Box) or np.can_cast(space.dtype, np.float32):
        return False
    ends = np.concatenate([np.ravel(space.low), np.ravel(space.high)]).astype(np.float64)
    return bool((abs(ends[np.isfinite(ends)]) > EXACT).any())


class OneHot(Encoder):
    """A Discrete or MultiDiscrete one-hot, one block of columns for each number."""

    shift: Tensor
    like: Tensor  # for the dtype and device of the output

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
        super().__init__()
        counts = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
        self.features = int(counts.sum())
        offsets = np.cumsum(counts) - counts  # the first column of each number
        shift = torch.as_tensor(offsets - np.ravel(space.start))
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("like", torch.tensor(1.0), persistent=False)

    def encode(self, obs: Tensor) -> Tensor:
        """Map integers [B] or [B, ...] to [B, features]."""
        columns = obs.reshape(obs.shape[0], -1).long() + self.shift
        return self.like.new_zeros(obs.shape[0], self.features).scatter_(1, columns, 1.0)


class Embedding(Encoder):
    """A Discrete observation as a learned vector of `size` numbers."""

    def __init__(self, space: Space, size: int = 64, *, init: str | float | None = None) -> None:
        super().__init__()
        if not isinstance(space, spaces.Discrete):
            raise UsageError(f"Embedding: expected a Discrete observation space, got {space}")
        self.first = int(space.start)
        self.features = check_whole("size", size)
        self.table = nn.Embedding(int(space.n), size)
        initialise(self.table.weight, init)

    def encode(self, obs: Tensor) -> Tensor:
        """Map integers [B] from `space.start` on to [B, size]."""
        return self.table(obs.long() - self.first)


class TreeEncoder(Encoder):
    """A Dict or Tuple space: an encoder for every part, their features concatenated."""

    def __init__(self, space: spaces.Dict | spaces.Tuple, make: Callable[[Space], Encoder]) -> None:
        super().__init__()
        check_parts(space, lambda part: isinstance(part, KNOWN), f"a network takes {SUPPORTED}")
        check_numbers("observation", space)
        pairs: Any = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        shown = [(key, make(part)) for key, part in pairs if numbers_of(part)]
        self.keys, parts = zip(*shown, strict=True)
        self.parts = nn.ModuleList(parts)
        self.features = sum(part.features for part in parts)

    def encode(self, obs: Any) -> Tensor:
        """Map a dict or tuple with leaves [B, ...] to [B, features]."""
        return torch.cat([part.encode(own_obs) for part, own_obs in self._pairs(obs)], 1)

    def update(self, obs: Any, valid: Tensor) -> None:
        """Update the running statistics of every part with its own observations."""
        for part, own_obs in self._pairs(obs):
            part.update(own_obs, valid)

    def _pairs(self, obs: Any) -> list[tuple[Any, Any]]:
        return [(part, obs[key]) for part, key in zip(self.parts, self.keys, strict=True)]


def flat(space: Space, *, normalize: bool = False) -> Encoder:
    """Return an encoder that flattens: numbers kept (or normalised), categories one-hot."""
    check_numbers("observation", space)
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return TreeEncoder(space, lambda part: flat(part, normalize=normalize))
    if isinstance(space, spaces.Box):
        return Normalize(Numbers(space)) if normalize else Numbers(space)
    if isinstance(space, spaces.MultiBinary):
        return Numbers(space)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return OneHot(space)
    raise UsageError(f"observation space {space}: not supported; supported are {SUPPORTED}")


def numbers(count: int) -> Numbers:
    """Return the encoder of observations that are vectors of `count` numbers."""
    return Numbers(spaces.Box(-np.inf, np.inf, (check_whole("features", count),)))


def uint8_scale(space: Space) -> float:
    """Return the upper bound of a uint8 space, which scales it to [0, 1]; else 1."""
    if isinstance(space, spaces.Box) and space.dtype == np.uint8:
        return float(max(1, space.high.max(initial=1)))
    return 1.0
