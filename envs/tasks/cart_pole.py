"""CartPole: keep a pole upright on a cart by pushes to the left and right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws, between

TRACK, LEAN = 2.4, 12 * 2 * math.pi / 360  # where an episode terminates: metres, radians
GRAVITY, POLE, MASS, LENGTH = 9.8, 0.1, 1.1, 0.5  # of the pole, of both; half the pole's length
STEP = 0.02  # seconds


@dataclass(frozen=True)
class CartPole:
    """The rules of Gymnasium's CartPole-v1, for N episodes at once.

    Observation: float32 [4] = (cart's position, speed, pole's angle, angular speed), all uniform in
    [-0.05, 0.05] at first. Actions: 0 push to the left, 1 to the right. The reward is 1 at every
    step; the episode terminates where the cart is more than 2.4 from the middle or the pole leans
    by more than 12 degrees. Source: Barto, Sutton and Anderson 1983, "Neuronlike Adaptive Elements
    That Can Solve Difficult Learning Control Problems".
    """

    horizon: ClassVar[None] = None
    time_limit: ClassVar[int] = 500

    @property
    def observation_space(self) -> spaces.Box:
        """Return the space of (position, speed, angle, angular speed)."""
        high = np.array([2 * TRACK, np.inf, 2 * LEAN, np.inf], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """Return the space of directions."""
        return spaces.Discrete(2)

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the initial state of N new episodes."""
        return {name: between(draws, -0.05, 0.05, n) for name in ("x", "speed", "angle", "spin")}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return the observations, float32 [N, 4]."""
        state = [episodes[name] for name in ("x", "speed", "angle", "spin")]
        return xp.asarray(xp.stack(state, -1), dtype=xp.float32)

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Push, and move by the speeds before the push (Euler's method)."""
        x, speed, angle, spin = (episodes[name] for name in ("x", "speed", "angle", "spin"))
        cos, sin = xp.cos(angle), xp.sin(angle)
        pull = (20.0 * action - 10.0 + POLE * LENGTH * (spin * spin) * sin) / MASS
        inertia = LENGTH * (4.0 / 3.0 - POLE * (cos * cos) / MASS)
        turn = (GRAVITY * sin - cos * pull) / inertia
        push = pull - POLE * LENGTH * turn * cos / MASS
        moved = {
            "x": x + STEP * speed,
            "speed": speed + STEP * push,
            "angle": angle + STEP * spin,
            "spin": spin + STEP * turn,
        }
        terminated = (abs(moved["x"]) > TRACK) | (abs(moved["angle"]) > LEAN)
        return moved, xp.ones_like(x, dtype=xp.float32), terminated

    def scores(self) -> dict[str, float]:
        """Return reference scores; of random actions over 100,000 episodes, standard error 0.04."""
        return {"optimum": 500.0, "memoryless": 500.0, "random": 22.2}
