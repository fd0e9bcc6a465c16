"""A wrapper that asks for the observation itself, and plays at random meanwhile."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from seqrl.core.checks import own_units
from seqrl.core.errors import UsageError
from seqrl.core.seeding import get_rng_state, set_rng_state


class Reconstruction(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """The action is to be the observation, a Box; the environment is played at random.

    So a representation is learned from observations alone, before any reward. The reward is minus
    the mean squared error of the action, in units in which bounded numbers go from -1 to 1.
    """

    def __init__(self, env: gym.Env[Any, Any]):
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self.action_space = given_back(env.observation_space)
        self.played: Any = copy.deepcopy(env.action_space)  # with random numbers of its own
        self.reach = own_units(self.action_space)[1]
        self.shown: Any = None

    def reset(self, *, seed: int | None = None, **given: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        if seed is not None:
            self.played.seed(seed)
        self.shown, info = self.env.reset(seed=seed, **given)
        return self.shown, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Compare what is given back with what was shown, and play on at random."""
        error = (np.asarray(action, np.float64) - self.shown) / self.reach
        self.shown, _, terminated, truncated, info = self.env.step(self.played.sample())
        return self.shown, -float(np.square(error).mean()), terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        """Return what the next step depends on."""
        return {"rng": get_rng_state(self.played.np_random), "shown": np.array(self.shown)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue where `get_state` was taken."""
        set_rng_state(self.played.np_random, state["rng"])
        self.shown = np.array(state["shown"])


def given_back(space: gym.Space) -> spaces.Box:
    """Return the space of observations as an agent gives them back, real numbers."""
    if not isinstance(space, spaces.Box):
        remedy = "choose one array by --wrapper gymnasium.wrappers:FlattenObservation"
        raise UsageError(f"teacher observation: expected a Box to give back, got {space}; {remedy}")
    low, high = (end.astype(np.float32) for end in (space.low, space.high))
    return spaces.Box(low, high, dtype=np.float32)
