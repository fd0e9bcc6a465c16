"""Actions, rewards and flags between environments and batches, and their checks."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np

from seqrl.core.arrays import like, to_tensor
from seqrl.core.errors import RunError
from seqrl.core.types import Array

NUMERIC = "biuf"  # kinds of dtypes
FLAGS = frozenset((bool, np.bool_))
SEVERAL = "; of several make one, with TransformReward of gymnasium.wrappers (or .vector)"


def total(leaf: Array) -> Any:
    """Return a number that is not finite where one in the leaf is not, or where it overflows.

    The sum of squares of an array: faster than a sum, and without a warning.
    """
    return np.vdot(leaf, leaf) if isinstance(leaf, np.ndarray) else leaf.sum()


def unbatcher(space: gym.Space) -> Callable[[Array], Any]:
    """Return a function from a batch of actions to one an environment; clips those of a Box."""
    if isinstance(space, gym.spaces.Discrete):
        return lambda action: action.tolist()
    if isinstance(space, gym.spaces.Box):
        return clipper(space)
    return lambda action: list(gym.vector.utils.iterate(space, action))


def clipper(space: gym.Space) -> Callable[[Array], Array]:
    """Return a function that clips a Box's actions to its bounds, in its own type of float."""
    if not isinstance(space, gym.spaces.Box):
        return lambda action: action
    ends = space.low, space.high
    ends_on = cache(lambda device: to_tensor(ends, device))
    real = np.issubdtype(space.dtype, np.floating)

    def clip(action: Array) -> Array:
        if isinstance(action, np.ndarray):
            clipped = np.clip(action, *ends)
            return clipped.astype(space.dtype, copy=False) if real else clipped
        low, high = ends_on(action.device)
        return action.clip(low, high).to(low.dtype) if real else action.clip(low, high)

    return clip


def brief(value: Any) -> str:
    """Return a value as one short line of text."""
    return textwrap.shorten(str(value), 200, placeholder=" ...")


def is_tensor(leaf: Any) -> bool:
    """Return whether a leaf is a torch tensor, without importing torch."""
    return not isinstance(leaf, np.ndarray) and hasattr(leaf, "detach")


def first_obs(made: Any) -> Any:
    """Return the observation of what `reset` returned; RunError where that is no (obs, info)."""
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], dict):
        return made[0]
    raise RunError(f"reset returned {brief(made)}, expected (obs, info), info a dict")


def number(reward: Any) -> float:
    """Return the reward of one environment; RunError unless it is one number."""
    array = np.asarray(reward)
    if array.size != 1 or array.dtype.kind not in NUMERIC:
        raise RunError(f"reward {brief(reward)}: expected one number{SEVERAL * (array.size > 1)}")
    return float(array.item())


def flag(name: str, value: Any) -> bool:
    """Return whether an episode ended; RunError unless that is told by True, False, 1 or 0."""
    if type(value) in FLAGS:
        return bool(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in NUMERIC or array.item() not in (0, 1):
        raise RunError(f"{name} {brief(value)}: expected True or False")
    return bool(array.item())


def column(name: str, values: Any, obs: Array) -> Array:
    """Return one number for each row of `obs` [N, ...], in its kind, copied.

    RunError unless there are N numbers, [N] or [N, 1].
    """
    tensor, n = is_tensor(values), len(obs)
    try:
        found = values.clone() if tensor else np.array(values)
    except ValueError as error:
        raise RunError(f"{name} {brief(values)}: expected {n} numbers") from error
    if found.shape == (n, 1):
        found = found[:, 0]
    if found.shape != (n,) or not (tensor or found.dtype.kind in NUMERIC):
        got = f"{name} of shape {list(found.shape)} and dtype {found.dtype}"
        several = SEVERAL * (name == "reward" and found.ndim > 1)
        raise RunError(f"{got}: expected {n} numbers{several}")
    return found if tensor == is_tensor(obs) else like(found, obs)


def rewards(values: Any, obs: Array) -> Array:
    """Return the reward of each row of `obs`, a float (see `column`)."""
    found = column("reward", values, obs)
    return found if is_float(found) else found * 1.0


def flags(name: str, values: Any, obs: Array) -> Array:
    """Return the flag of each row of `obs`, a bool (see `column`); also from 1 and 0."""
    found = column(name, values, obs)
    if "bool" in dtype_name(found.dtype):
        return found
    if not is_tensor(found) and not np.isin(found, (0, 1)).all():
        raise RunError(f"{name} {brief(found)}: expected True or False in each environment")
    return found != 0


dtype_name = cache(str)  # cached, as the text of a NumPy or torch dtype takes longer than a sum


def is_float(leaf: Array) -> bool:
    """Return whether an array or tensor holds floating-point numbers."""
    return leaf.is_floating_point() if is_tensor(leaf) else leaf.dtype.kind == "f"
