"""MountainCar: swing a car out of a valley whose slope is too steep for its engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws, between

LEFT, RIGHT, GOAL, FASTEST = -1.2, 0.6, 0.5, 0.07


@dataclass(frozen=True)
class MountainCar:
    """The rules of Gymnasium's MountainCar-v0, for N episodes at once.

    Observation: float32 [2] = (position, speed), at first a position in [-0.6, -0.4] at rest.
    Actions: 0 to the left, 1 none, 2 to the right. The reward is -1 at every step; the episode
    terminates at the position 0.5, on the hill to the right. Source: Moore 1990, "Efficient
    Memory-based Learning for Robot Control".
    """

    horizon: ClassVar[None] = None
    time_limit: ClassVar[int] = 200

    @property
    def observation_space(self) -> spaces.Box:
        """Return the space of (position, speed)."""
        low, high = np.array([[LEFT, -FASTEST], [RIGHT, FASTEST]], np.float32)
        return spaces.Box(low, high, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """Return the space of directions."""
        return spaces.Discrete(3)

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the initial state of N new episodes."""
        x = between(draws, -0.6, -0.4, n)
        return {"x": x, "speed": draws.xp.zeros_like(x)}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return the observations, float32 [N, 2]."""
        return xp.asarray(xp.stack([episodes["x"], episodes["speed"]], -1), dtype=xp.float32)

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Accelerate by engine and slope, and move; the wall to the left stops the car."""
        x, engine = episodes["x"], xp.asarray(action - 1, dtype=xp.float64)
        speed = episodes["speed"] + (engine * 0.001 - 0.0025 * xp.cos(3 * x))
        speed = speed.clip(-FASTEST, FASTEST)
        x = (x + speed).clip(LEFT, RIGHT)
        speed = xp.where(x == LEFT, speed.clip(min=0), speed)
        return {"x": x, "speed": speed}, -xp.ones_like(x, dtype=xp.float32), x >= GOAL

    def scores(self) -> dict[str, float]:
        """Return the score of random actions, which do not reach the goal."""
        return {"random": -200.0}
