"""Observations and actions between one environment and a batch of N, and what they must be."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from seqrl.core import Array, RunError, tree


def choose(mask: Array, new: Array, old: Array) -> Array:
    """Rows of `new` where `mask` [N] holds, of `old` elsewhere; arrays or tensors."""
    mask = mask.reshape(mask.shape + (1,) * (old.ndim - 1))
    return np.where(mask, new, old) if isinstance(old, np.ndarray) else new.where(mask, old)


def batcher(space: gym.Space) -> Callable[[list[Any]], Array]:
    """A function from N observations of `space` to one batch, always a copy."""
    if isinstance(space, gym.spaces.Tuple):
        parts = [batcher(part) for part in space.spaces]
        return lambda seen: tuple(p([obs[i] for obs in seen]) for i, p in enumerate(parts))
    if isinstance(space, gym.spaces.Dict):
        named = {key: batcher(part) for key, part in space.spaces.items()}
        return lambda seen: {key: p([obs[key] for obs in seen]) for key, p in named.items()}
    dtype, shape = space.dtype, space.shape
    if not (shape or isinstance(space, gym.spaces.Box)):
        return lambda seen: np.array(seen, dtype)

    def batch(seen: list[Any]) -> Array:
        rows = np.array(seen, dtype)
        if rows.shape[1:] != shape:
            raise ValueError(f"observations of shape {rows.shape[1:]}")
        return finite(rows) if rows.dtype.kind == "f" else rows

    return batch


def finite(obs: np.ndarray) -> np.ndarray:
    """The batch itself; refuses NaN and infinity."""
    if not math.isfinite(total(obs)) and not np.isfinite(obs).all():
        i = int(np.flatnonzero(~np.isfinite(obs.reshape(len(obs), -1)).all(1))[0])
        raise RunError(f"environment {i}: observation {brief(obs[i].tolist())} is not finite")
    return obs


def total(leaf: Array) -> Any:
    """A number that is not finite where one in the leaf is not, or where it overflows.

    The sum of squares: quicker than a sum, and no warning comes with it.
    """
    return np.vdot(leaf, leaf) if isinstance(leaf, np.ndarray) else leaf.sum()


def unbatcher(space: gym.Space) -> Callable[[Array], Any]:
    """A function from a batch of actions to one action an environment; Box actions are clipped."""
    if isinstance(space, gym.spaces.Discrete):
        return lambda action: action.tolist()
    if isinstance(space, gym.spaces.Box):
        return clipper(space)
    return lambda action: list(gym.vector.utils.iterate(space, action))


def clipper(space: gym.Space) -> Callable[[Array], Array]:
    """A function that brings NumPy actions of a Box within its bounds and leaves any others."""
    if not isinstance(space, gym.spaces.Box):
        return lambda action: action
    low, high = space.low, space.high
    return lambda action: np.clip(action, low, high) if isinstance(action, np.ndarray) else action


def check_observation(name: str, space: gym.Space, obs: Any) -> None:
    """Refuse an observation outside its space (looked at once after every reset of all)."""
    if all(isinstance(x, np.ndarray | np.generic) for x in tree.leaves(obs)):
        obs = tree.map(np.asarray, obs)
        if not space.contains(obs):
            raise RunError(f"{name}: {not_of(space, obs)}")


def not_of(space: gym.Space, obs: Any) -> str:
    """What is said of an observation outside its space."""
    shape = f" of shape {obs.shape}" if isinstance(obs, np.ndarray | np.generic) else ""
    return f"observation {brief(obs)}{shape} is not of {space}"


def brief(value: Any) -> str:
    """A value in one short line."""
    return textwrap.shorten(str(value), 200, placeholder=" ...")


def owned(leaf: Array) -> Array:
    """A copy of an array: some environments fill the same buffer at every step.

    Row after row, as it comes from a checkpoint: products depend on the order to the last bit.
    """
    return np.array(leaf, order="C") if isinstance(leaf, np.ndarray) else leaf


def is_float(leaf: Array) -> bool:
    """Whether the array or tensor holds floating-point numbers."""
    return "float" in str(getattr(leaf, "dtype", ""))


def frozen(array: np.ndarray) -> np.ndarray:
    """The array made read-only, so that it can be handed out again and again."""
    array.flags.writeable = False
    return array
