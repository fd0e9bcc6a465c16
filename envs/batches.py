"""Conversion of observations and actions between environments and batches, and their checks."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from seqrl.core import tree
from seqrl.core.errors import RunError
from seqrl.core.types import Array


def where(mask: Array, new: Array, old: Array) -> Array:
    """Return the items of `new` where `mask` [N] holds, else of `old`; arrays or tensors."""
    mask = mask.reshape(mask.shape + (1,) * (old.ndim - 1))
    return np.where(mask, new, old) if isinstance(old, np.ndarray) else new.where(mask, old)


def batcher(space: gym.Space) -> Callable[[list[Any]], Array]:
    """Return a function from N observations of `space` to one batch, always a copy."""
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
        stacked = np.array(seen, dtype)
        if stacked.shape[1:] != shape:
            raise ValueError(f"observations of shape {stacked.shape[1:]}")
        return finite(stacked) if stacked.dtype.kind == "f" else stacked

    return batch


def finite(obs: np.ndarray) -> np.ndarray:
    """Return the batch itself; RunError for NaN and infinity."""
    if not math.isfinite(total(obs)) and not np.isfinite(obs).all():
        i = int(np.flatnonzero(~np.isfinite(obs.reshape(len(obs), -1)).all(1))[0])
        raise RunError(f"environment {i}: observation {brief(obs[i].tolist())} is not finite")
    return obs


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
    """Return a function that clips NumPy actions of a Box to its bounds and leaves others."""
    if not isinstance(space, gym.spaces.Box):
        return lambda action: action
    low, high = space.low, space.high
    return lambda action: np.clip(action, low, high) if isinstance(action, np.ndarray) else action


def check_observation(name: str, space: gym.Space, obs: Any) -> None:
    """Raise RunError for an observation outside its space (called after a reset of all)."""
    if all(isinstance(x, np.ndarray | np.generic) for x in tree.leaves(obs)):
        obs = tree.map(np.asarray, obs)
        if not space.contains(obs):
            raise RunError(f"{name}: {mismatch(space, obs)}")


def mismatch(space: gym.Space, obs: Any) -> str:
    """Return the error message for an observation outside its space."""
    shape = f" of shape {obs.shape}" if isinstance(obs, np.ndarray | np.generic) else ""
    return f"observation {brief(obs)}{shape} is not of {space}"


def brief(value: Any) -> str:
    """Return a value as one short line of text."""
    return textwrap.shorten(str(value), 200, placeholder=" ...")


def copied(leaf: Array) -> Array:
    """Return a copy of an array or a tensor, as some environments reuse their buffer."""
    # C order, as from a checkpoint: the last bit of a product depends on the memory order
    return np.array(leaf, order="C") if isinstance(leaf, np.ndarray) else leaf.clone()


def is_float(leaf: Array) -> bool:
    """Return whether the array or tensor holds floating-point numbers."""
    return "float" in str(getattr(leaf, "dtype", ""))
