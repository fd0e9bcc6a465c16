"""Real actions within bounds: a normal number, squashed by tanh, whose spread the network gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional

from seqrl.agents.deep.devices import Draw
from seqrl.agents.deep.heads import Real
from seqrl.core.types import Array

LOG_STD = (-20.0, 2.0)  # where the logarithm of the spread is cut
EDGE = 1 - 1e-6  # of an action on its bound the number before tanh is that of this one


class Squashed(Real):
    """Independent actions tanh(u), u normal; mean and spread are the network's, in every state.

    The network's numbers are D means, then the logarithms of D spreads. A dimension without two
    finite bounds is not squashed: it is u itself, and clipped to a bound, if there is one, by the
    environment's adapter; one of a single value is that value. Haarnoja et al. (2018), "Soft
    Actor-Critic Algorithms and Applications", appendix C.
    """

    flags_there: Tensor
    lone_there: Tensor

    def __init__(self, space: spaces.Box):
        super().__init__(space)
        self.size = 2 * self.dimensions
        self.flags = self.bounded.ravel()  # bool [D]
        lone = np.where(self.moving, 0.0, space.low.ravel())
        self.lone = lone.astype(np.float32)  # [D], the value of dimensions that have but one
        for name in ("flags", "lone"):
            there = torch.from_numpy(getattr(self, name))
            self.register_buffer(f"{name}_there", there, persistent=False)

    @property
    def deciding(self) -> int:
        """The means."""
        return self.dimensions

    @property
    def degrees(self) -> int:
        """How many dimensions have more than one value."""
        return int(self.moving.sum())

    @property
    def most_entropy(self) -> float:
        """Of any policy, nats, in the space's own units: the logarithm of their volume."""
        if not self.flags[self.moving].all():
            return math.inf
        return self.degrees * math.log(2.0)

    def sample(self, out: Array, draw: Draw) -> Array:
        """From normal numbers."""
        return self.made_of(out, draw.normal((*out.shape[:-1], self.dimensions)))

    def made_of(self, out: Array, noise: Array) -> Array:
        """Return the actions [..., *shape] that normal numbers [..., D] give."""
        mean, log_std = self._both(out)
        exp = np.exp if isinstance(out, np.ndarray) else torch.exp
        return self.scaled(self._squashed(mean + exp(log_std) * noise))

    def mode(self, out: Array) -> Array:
        """The squashed mean, in the environment's units."""
        return self.scaled(self._squashed(out[..., : self.dimensions]))

    def drawn(self, out: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions [..., D] in the space's own units, and their log-density [...].

        Both can be differentiated by the network's numbers; noise: normal numbers [..., D].
        """
        mean, log_std = self._both(out)
        u = mean + log_std.exp() * noise
        return self._squashed(u), self._log_density(u, noise, log_std)

    def log_prob(self, out: Array, action: Array) -> Array:
        """Log-density in the space's own units, the sum over the dimensions."""
        if isinstance(out, np.ndarray):
            with torch.no_grad():
                return self.log_prob(torch.from_numpy(out), torch.from_numpy(action)).numpy()
        mean, log_std = self._both(out)
        unit = self.units(action)
        u = self._where_bounded(unit.clamp(-EDGE, EDGE).atanh(), unit)
        return self._log_density(u, (u - mean) * (-log_std).exp(), log_std)

    def _both(self, out: Array) -> tuple[Array, Array]:
        """Return the means [..., D] and the logarithms of the spreads, cut."""
        mean, log_std = out[..., : self.dimensions], out[..., self.dimensions :]
        return mean, log_std.clip(*LOG_STD)

    def _squashed(self, u: Array) -> Array:
        on_host = isinstance(u, np.ndarray)
        unit = self._where_bounded(np.tanh(u) if on_host else torch.tanh(u), u)
        if self.moving.all():
            return unit
        if on_host:
            return np.where(self.moving, unit, self.lone)
        return torch.where(self.moving_there, unit, self.lone_there)

    def _log_density(self, u: Tensor, z: Tensor, log_std: Tensor) -> Tensor:
        """Return the log-density [...] of what is made of u = mean + spread z [..., D]."""
        normal = -0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)^2), which for a large u would be the logarithm of a rounded 0
        slope = 2.0 * (math.log(2.0) - u - functional.softplus(-2.0 * u))
        return self.total(normal - self._where_bounded(slope, 0.0))

    def _where_bounded(self, each: Array, free: Any) -> Array:
        """Return [..., D] of the bounded dimensions, and `free` of the others."""
        if self.flags.all():
            return each
        if isinstance(each, np.ndarray):
            return np.where(self.flags, each, free)
        return torch.where(self.flags_there, each, free)
