"""A wrapper that shows an environment's action mask where agents look for it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from seqrl.core.action_mask import NAME, choices
from seqrl.core.errors import RunError, UsageError
from seqrl.envs.batches import brief

INFO = "info"


class ActionMask(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Puts a mask of the actions into the observations, as their entry `action_mask`.

    source: the key of a Dict observation that holds it, or "info" for `info["action_mask"]`. An
        observation that is no Dict becomes the entry `observation` of one.

    Raises UsageError where there is no such key, or actions that have no mask.
    """

    def __init__(self, env: gym.Env[Any, Any], source: str = INFO):
        RecordConstructorArgs.__init__(self, source=source)
        super().__init__(env)
        self.source, space = source, env.observation_space
        self.count = choices(env.action_space)
        parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
        if source == INFO:
            self.observation_space = spaces.Dict({**parts, NAME: spaces.MultiBinary(self.count)})
        elif source in parts and isinstance(space, spaces.Dict):
            mask = parts.pop(source)
            self.observation_space = spaces.Dict({**parts, NAME: mask})
        else:
            known = ", ".join(map(str, parts)) if isinstance(space, spaces.Dict) else "no Dict"
            raise UsageError(f"action mask {source!r}: the observations have {known}; or take info")

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self.shown(obs, info), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self.shown(obs, info), reward, terminated, truncated, info

    def shown(self, obs: Any, info: dict[str, Any]) -> Any:
        """Return an observation with its mask."""
        parts = dict(obs) if isinstance(obs, dict) else {"observation": obs}
        if self.source != INFO:
            mask = parts.pop(self.source)
        elif NAME in info:
            mask = self._flat(info[NAME])
        else:
            raise RunError(f"info has no {NAME!r}, only {', '.join(map(str, info)) or 'nothing'}")
        return {**parts, NAME: mask}

    def _flat(self, mask: Any) -> np.ndarray:
        """Return a mask, or one for each choice, as an array."""
        try:
            return np.hstack(mask)
        except (TypeError, ValueError) as error:
            found = f"info[{NAME!r}] is {brief(mask)}"
            raise RunError(f"{found}: expected {self.count} numbers, 0 or 1") from error
