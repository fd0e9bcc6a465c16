"""Actions of a batched environment: what is taken, and what is refused in one line."""

from __future__ import annotations

from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from seqrl.core.errors import UsageError
from seqrl.core.types import Array
from seqrl.envs.batches import brief, dtype_name
from seqrl.envs.draws import Draws
from seqrl.envs.observations import limits


class Actions:
    """The actions [N, ...] of a space: int64, of a Box its floats. `draws` has array and device."""

    def __init__(self, space: gym.Space[Any], draws: Draws):
        self.space, self._draws = space, draws
        low, high = limits(space)
        single = isinstance(space, spaces.Discrete)  # numbers compare faster than arrays
        self.low, self.high = (end.item() if single else draws.array(end) for end in (low, high))
        real = isinstance(space, spaces.Box)
        binary = isinstance(space, spaces.MultiBinary)
        self._kinds = ["float"] if real else ["int", "bool"] if binary else ["int"]
        self._dtype = str(space.dtype) if real else "int64"

    def read(self, values: Any, n: int) -> Array:
        """Return the user's actions as an array; UsageError for another kind or shape."""
        shape = (n, *(self.space.shape or ()))
        array = checked("actions", values, self._kinds, shape, self._draws)
        return self._draws.xp.asarray(array, dtype=getattr(self._draws.xp, self._dtype))

    def outside(self, action: Array) -> Array:
        """Return where an action is not in the space, bool [N]."""
        fits = (action >= self.low) & (action <= self.high)  # NaN does not
        return ~(fits if fits.ndim == 1 else fits.reshape(len(fits), -1).all(1))

    def refuse(self, action: Array) -> NoReturn:
        """Raise the UsageError that names the first action outside of the space."""
        i = self.outside(action).tolist().index(True)
        expected = brief(self.space)
        if isinstance(self.space, spaces.Discrete):
            expected = f"{self.low} to {self.high}"
        raise UsageError(f"action {action[i].tolist()} in environment {i}: expected {expected}")

    def told(self, answer: Array) -> Array:
        """Return a task's answers in the dtype of the space."""
        return self._draws.xp.asarray(answer, dtype=getattr(self._draws.xp, str(self.space.dtype)))


def checked(
    name: str, values: Any, kinds: list[str], shape: tuple[int, ...], draws: Draws
) -> Array:
    """Return the user's array of a kind of numbers ("int", "bool") and shape, on the device."""
    if not hasattr(values, "dtype"):
        values = np.array(values)
    dtype = dtype_name(values.dtype)
    if not any(kind in dtype for kind in kinds) or tuple(values.shape) != shape:
        got = f"{dtype} {list(values.shape)}"
        raise UsageError(f"{name}: expected {' or '.join(kinds)} {list(shape)}, got {got}")
    return draws.array(values)
