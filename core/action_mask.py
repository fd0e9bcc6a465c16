"""Action masks: which actions may be taken, told by the entry `action_mask` of a Dict observation.

The entry [..., A] is 1 where an action may be taken, else 0; for MultiDiscrete it has one number
for each choice, group behind group. A network or a table sees the rest of the observation, by
itself where a single entry is left.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from seqrl.core.errors import UsageError
from seqrl.core.types import Array

NAME = "action_mask"
HIDE = f"--wrapper seqrl.envs:Mask --wrapper-arg hide={NAME}"
LEAVE_OUT = f"an entry that is no mask is left out by {HIDE}"
FORBIDDEN = -1e30  # what networks' numbers of such actions become: never the largest, of no chance


def rest_space(space: gym.Space) -> gym.Space:
    """Return the space of what is seen beside the mask; the space itself where there is none."""
    if not (isinstance(space, spaces.Dict) and NAME in space.spaces):
        return space
    left = {name: part for name, part in space.spaces.items() if name != NAME}
    if not left:
        raise UsageError(f"observation space {space}: there is nothing to see beside {NAME}")
    return spaces.Dict(left) if len(left) > 1 else next(iter(left.values()))


def split(obs: Any) -> tuple[Any, Array | None]:
    """Return what is seen of observations, and which actions may be taken: bool [..., A] or None.

    A mask of zeros alone, as is usual behind an episode's last step, forbids nothing.
    """
    if not (isinstance(obs, dict) and NAME in obs):
        return obs, None
    left = {name: part for name, part in obs.items() if name != NAME}
    legal = obs[NAME] != 0
    seen = left if len(left) > 1 else next(iter(left.values()), None)
    return seen, legal | ~legal.any(-1)[..., None]


def choices(action_space: gym.Space) -> int:
    """Return how many numbers a mask of these actions has; UsageError where they have none."""
    if isinstance(action_space, spaces.Discrete):
        return int(action_space.n)
    if isinstance(action_space, spaces.MultiDiscrete):
        return int(action_space.nvec.sum())
    raise UsageError(f"{NAME}: of Discrete and MultiDiscrete actions, not of {action_space}")


def check_mask(space: gym.Space | None, action_space: gym.Space) -> None:
    """Refuse a mask in an observation space that does not fit the actions."""
    if not (isinstance(space, spaces.Dict) and NAME in space.spaces):
        return
    mask: Any = space[NAME]
    check_size(mask.shape, action_space)
    if isinstance(mask, spaces.Box) and not (0 <= mask.low.min() and mask.high.max() <= 1):
        raise UsageError(f"{NAME} of {mask}: expected numbers from 0 to 1; {LEAVE_OUT}")


def check_size(shape: Any, action_space: gym.Space) -> None:
    """Refuse a mask of another shape than that of a number for each choice."""
    if shape != (choices(action_space),):
        expected = f"expected ({choices(action_space)},), a number for each choice"
        raise UsageError(f"{NAME} of shape {tuple(shape or ())}: {expected}; {LEAVE_OUT}")


def sample(action_space: gym.Space, obs: Any) -> Any:
    """Draw an action of a space that may be taken at an observation of one environment."""
    if not (isinstance(obs, dict) and NAME in obs):
        return action_space.sample()
    _, legal = split({**obs, NAME: np.asarray(obs[NAME])})
    mask: Any = np.asarray(legal, np.int8)
    if isinstance(action_space, spaces.MultiDiscrete):
        mask = tuple(np.split(mask, np.cumsum(action_space.nvec)[:-1]))
    return action_space.sample(mask)
