"""A wrapper that shows a part of the observations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from seqrl.core.errors import UsageError

Names = str | int | Sequence[str | int]


class Mask(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Shows only the parts to `keep`, or all but those to `hide`; one of the two is given.

    Parts are the keys of a Dict or Tuple space, and the dimensions of a flattened Box,
    MultiDiscrete or MultiBinary, counted from 0. A single key to keep, not in a list, is shown
    without a Dict around it. Raises UsageError for parts that the space does not have.
    """

    def __init__(
        self, env: gym.Env[Any, Any], keep: Names | None = None, hide: Names | None = None
    ):
        RecordConstructorArgs.__init__(self, keep=keep, hide=hide)
        super().__init__(env)
        if (keep is None) == (hide is None):
            raise UsageError("Mask: give the parts to keep, or those to hide")
        space, named = env.observation_space, hide if keep is None else keep
        listed = [named] if isinstance(named, str | int) else list(named or ())
        there = part_names(space)
        for name in listed:
            if name not in there:
                raise UsageError(f"Mask: there is no part {name!r} in {space}")
        self.kept = [name for name in there if (name in listed) == (hide is None)]
        if not self.kept:
            raise UsageError(f"Mask: nothing is left of {space}")
        self.bare = isinstance(keep, str | int) and isinstance(space, spaces.Dict | spaces.Tuple)
        self.observation_space = space[keep] if self.bare else masked(space, self.kept)  # type: ignore[index]

    def observation(self, observation: Any) -> Any:
        """Return the kept parts of an observation."""
        if self.bare:
            return observation[self.kept[0]]
        if isinstance(observation, dict):
            return {name: observation[name] for name in self.kept}
        if isinstance(observation, tuple):
            return tuple(observation[name] for name in self.kept)
        return np.asarray(observation).reshape(-1)[self.kept]


def part_names(space: Any) -> list[Any]:
    """Return the names of a space's parts: keys, or numbers from 0."""
    if isinstance(space, spaces.Dict):
        return list(space.spaces)
    if isinstance(space, spaces.Tuple):
        return list(range(len(space.spaces)))
    if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        return list(range(int(np.prod(space.shape))))
    raise UsageError(f"Mask: {space} has no parts")


def masked(space: Any, kept: list[Any]) -> gym.Space[Any]:
    """Return the space of the kept parts."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: space[name] for name in kept})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([space[name] for name in kept])
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiBinary(len(kept))
    if isinstance(space, spaces.MultiDiscrete):
        start = space.start.ravel()[kept]
        return spaces.MultiDiscrete(space.nvec.ravel()[kept], dtype=space.dtype, start=start)
    return spaces.Box(space.low.ravel()[kept], space.high.ravel()[kept], dtype=space.dtype)
