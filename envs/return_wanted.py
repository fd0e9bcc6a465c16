"""A wrapper that shows, beside each observation, the return that is still wanted."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from seqrl.core.errors import UsageError

NAME = "return_wanted"


class ReturnWanted(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Shows the return wanted of the rest of the episode, in units of `scale`.

    It begins with `target`, and each reward is taken off. An agent that imitates recorded episodes
    beside what these have still brought plays for the return that it is asked for (Decision
    Transformer: Chen et al., 2021; Schmidhuber, 2019, upside-down reinforcement learning).
    Observations become a Dict of `observation` and `return_wanted`; a Dict gets the latter.
    """

    def __init__(self, env: gym.Env[Any, Any], target: float, scale: float = 1.0):
        RecordConstructorArgs.__init__(self, target=target, scale=scale)
        super().__init__(env)
        if not (np.isfinite(target) and np.isfinite(scale) and scale > 0):
            raise UsageError(f"ReturnWanted: target {target}, scale {scale}: expected numbers")
        self.target, self.scale, self.left = float(target), float(scale), float(target)
        self.observation_space = shown_space(env.observation_space)

    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode that is to bring `target`."""
        obs, info = self.env.reset(**given)
        self.left = self.target
        return self._shown(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take what a step has brought off what is wanted."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.left -= float(reward)
        return self._shown(obs), reward, terminated, truncated, info

    def _shown(self, obs: Any) -> dict[str, Any]:
        return shown(obs, np.array([self.left / self.scale], np.float32))


def shown_space(space: gym.Space) -> spaces.Dict:
    """Return the space of observations with the return wanted beside them."""
    if isinstance(space, spaces.Dict) and NAME in space.spaces:
        raise UsageError(f"ReturnWanted: the observations have an entry {NAME} already")
    return spaces.Dict(shown(space, spaces.Box(-np.inf, np.inf, (1,), np.float32)))


def shown(obs: Any, wanted: Any) -> dict[str, Any]:
    """Return an observation, a batch of them or their space with what is wanted beside it."""
    named = isinstance(obs, dict | spaces.Dict)
    return {**(dict(obs) if named else {"observation": obs}), NAME: wanted}
