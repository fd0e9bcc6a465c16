"""Pendulum: swing a pendulum up and hold it there, by a torque too weak to lift it at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws, between

FASTEST, STEP = 8.0, 0.05  # radians a second, seconds


@dataclass(frozen=True)
class Pendulum:
    """The rules of Gymnasium's Pendulum-v1, for N episodes at once.

    Observation: float32 [3] = (cosine and sine of the angle from upright, angular speed); at first
    any angle, and a speed in [-1, 1]. Action: a torque, Box [-2, 2] of shape (1,). The reward is
    -(angle^2 + 0.1 speed^2 + 0.001 torque^2) of the state before, with the angle in [-pi, pi].
    """

    horizon: ClassVar[None] = None
    time_limit: ClassVar[int] = 200

    @property
    def observation_space(self) -> spaces.Box:
        """Return the space of (cosine, sine, angular speed)."""
        high = np.array([1.0, 1.0, FASTEST], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """Return the space of torques."""
        return spaces.Box(-2.0, 2.0, (1,), np.float32)

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the initial state of N new episodes."""
        angle = between(draws, -math.pi, math.pi, n)
        return {"angle": angle, "speed": between(draws, -1.0, 1.0, n)}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return the observations, float32 [N, 3]."""
        angle = episodes["angle"]
        state = xp.stack([xp.cos(angle), xp.sin(angle), episodes["speed"]], -1)
        return xp.asarray(state, dtype=xp.float32)

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Move by the speed after the torque; the rewards are those of before."""
        angle, speed, torque = episodes["angle"], episodes["speed"], action[:, 0]
        lean = (angle + math.pi) % (2 * math.pi) - math.pi
        cost = lean * lean + 0.1 * (speed * speed) + 0.001 * (torque * torque)
        speed = speed + (15.0 * xp.sin(angle) + 3.0 * torque) * STEP
        speed = speed.clip(-FASTEST, FASTEST)
        moved = {"angle": angle + speed * STEP, "speed": speed}
        return moved, xp.asarray(-cost, dtype=xp.float32), xp.zeros_like(angle, dtype=xp.bool)

    def scores(self) -> dict[str, float]:
        """Return the score of random actions, of 100,000 episodes, standard error 0.9."""
        return {"random": -1229.5}
