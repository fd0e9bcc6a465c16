"""Acrobot: swing the tip of two links up by a torque at the joint between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws, between

FASTEST = 4 * math.pi, 9 * math.pi  # of the first and the second joint, radians a second
GRAVITY, STEP = 9.8, 0.2  # STEP in seconds
NAMES = ("angle", "bend", "spin", "bend_spin")


@dataclass(frozen=True)
class Acrobot:
    """The rules of Gymnasium's Acrobot-v1, for N episodes at once.

    Two links of length and mass 1 hang from a joint. Observation: float32 [6] = (cosine and sine of
    the first link's angle from straight down, and of the second's from the first's; the angular
    speed of both); angles and speeds are in [-0.1, 0.1] at first. Actions: a torque of -1, 0 or 1
    between the links. The reward is -1 at every step but the last one, which is 0: the episode
    terminates where the tip is higher than 1 over the joint. Source: Sutton 1996, "Generalization
    in Reinforcement Learning: Successful Examples Using Sparse Coarse Coding", with the
    equations of Sutton and Barto's book.
    """

    horizon: ClassVar[None] = None
    time_limit: ClassVar[int] = 500

    @property
    def observation_space(self) -> spaces.Box:
        """Return the space of (cosine, sine, cosine, sine, angular speeds)."""
        high = np.array([1.0, 1.0, 1.0, 1.0, *FASTEST], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """Return the space of torques."""
        return spaces.Discrete(3)

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the initial state of N new episodes."""
        return {name: between(draws, -0.1, 0.1, n) for name in NAMES}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return the observations, float32 [N, 6]."""
        angle, bend, *spins = (episodes[name] for name in NAMES)
        seen = [xp.cos(angle), xp.sin(angle), xp.cos(bend), xp.sin(bend), *spins]
        return xp.asarray(xp.stack(seen, -1), dtype=xp.float32)

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Integrate over a step by the classic Runge-Kutta method of fourth order."""
        torque = xp.asarray(action - 1, dtype=xp.float64)
        state = xp.stack([episodes[name] for name in NAMES])
        first = slopes(xp, state, torque)
        second = slopes(xp, state + STEP / 2 * first, torque)
        third = slopes(xp, state + STEP / 2 * second, torque)
        last = slopes(xp, state + STEP * third, torque)
        state = state + STEP / 6 * (first + 2 * second + 2 * third + last)
        angle, bend = (whole - 2 * math.pi * xp.round(whole / (2 * math.pi)) for whole in state[:2])
        spins = (spin.clip(-most, most) for spin, most in zip(state[2:], FASTEST, strict=True))
        terminated = -xp.cos(angle) - xp.cos(bend + angle) > 1.0
        reward = xp.asarray(terminated, dtype=xp.float32) - 1
        return dict(zip(NAMES, (angle, bend, *spins), strict=True)), reward, terminated

    def scores(self) -> dict[str, float]:
        """Return the score of random actions, of 100,000 episodes, standard error 0.1."""
        return {"random": -499.0}


def slopes(xp: Any, state: Array, torque: Array) -> Array:
    """Return what a state [4, N] changes by a second, under a torque [N] between the links."""
    angle, bend, spin, bend_spin = state
    cos, sin = xp.cos(bend), xp.sin(bend)
    both, second = 0.25 + (1.25 + cos) + 2, 0.25 + 0.5 * cos + 1  # inertia around the first joint
    weight = 0.5 * GRAVITY * xp.cos(angle + bend - math.pi / 2)
    load = -0.5 * bend_spin * bend_spin * sin - bend_spin * spin * sin
    load = load + 1.5 * GRAVITY * xp.cos(angle - math.pi / 2) + weight
    bent = torque + second / both * load - 0.5 * spin * spin * sin - weight
    bent = bent / (1.25 - second * second / both)
    return xp.stack([spin, bend_spin, -(second * bent + load) / both, bent])
