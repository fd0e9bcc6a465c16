"""Observations of a space as batches: what the space cannot hold is refused, never cut or cast.

Kept is what loses nothing in the space's dtype, reals rounded to float32 included. Structure,
shape, NaN, infinity and whole numbers outside of their space raise Misfit; a real number outside of
its bounds is told once, by the logger.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from seqrl.core.checks import check_numbers
from seqrl.core.types import Array
from seqrl.envs.batches import NUMERIC, brief, is_tensor

LOG = logging.getLogger("seqrl")
WHOLE = frozenset((int, np.int64))  # types of most Discrete observations, checked the fast way
ROUNDING = 1e-6  # of the size of a bound: so far beyond it is a rounding error
REPEATED = 1 << 16  # numbers in bounds that are as large as the batch: the fastest to compare
SIMPLE = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary


class Misfit(ValueError):
    """An observation that its space cannot hold: its row in the batch, None for all rows."""

    def __init__(self, row: int | None, text: str):
        super().__init__(text)
        self.row = row


def observations(space: gym.Space, owner: str = "environment") -> Branch | Leaf | Opaque:
    """Return what makes batches of the observations of a space, copies of what they are made of.

    `owner` is who is named where the logger tells of bounds. UsageError for a space of nothing.
    """
    check_numbers("observation", space)
    return part(space, "observation", owner)


def part(space: gym.Space, name: str, owner: str) -> Branch | Leaf | Opaque:
    """Return what makes batches of a part of a space, which errors call `name`."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return Branch(space, name, owner)
    return Leaf(space, name, owner) if isinstance(space, SIMPLE) else Opaque(space, name)


class Branch:
    """A Dict or a Tuple: exactly its parts."""

    def __init__(self, space: spaces.Dict | spaces.Tuple, name: str, owner: str):
        self.space, self.name, self.named = space, name, isinstance(space, spaces.Dict)
        pairs: Iterable[Any] = space.items() if self.named else enumerate(space)  # type: ignore
        self.parts = {key: part(inner, f"{name}[{key!r}]", owner) for key, inner in pairs}
        self.narrow: bool = any(inner.narrow for inner in self.parts.values())

    def stack(self, seen: list[Any]) -> Array:
        """Return N observations as a batch, leaves [N, ...]."""
        rows = [self._split(obs, i) for i, obs in enumerate(seen)]
        columns = map(list, zip(*rows, strict=True))
        pairs = zip(self.parts.values(), columns, strict=True)
        return self._joined([inner.stack(column) for inner, column in pairs])

    def check(self, batch: Any, n: int) -> Array:
        """Return a batch of n observations as one of the space; tensors stay what they are."""
        pairs = zip(self.parts.values(), self._split(batch, None), strict=True)
        return self._joined([inner.check(leaf, n) for inner, leaf in pairs])

    def astray(self, batch: Array) -> Iterable[Array]:
        """Yield for each leaf on a device, as a bool tensor, whether a number does not fit."""
        for key, inner in self.parts.items():
            yield from inner.astray(batch[key])

    def _split(self, obs: Any, row: int | None) -> list[Any]:
        try:
            if len(obs) == len(self.parts):
                return [obs[key] for key in self.parts]
        except (LookupError, TypeError):
            pass
        raise Misfit(row, f"{self.name} {brief(obs)} is not of {brief(self.space)}")

    def _joined(self, values: list[Array]) -> Array:
        return dict(zip(self.parts, values, strict=True)) if self.named else tuple(values)


class Leaf:
    """A simple space: the dtype, the shape and the bounds of its observations.

    `narrow`: Gymnasium would wrap whole numbers when it stacks them.
    """

    def __init__(self, space: Any, name: str, owner: str):
        self.space, self.name, self.owner = space, name, owner
        self.dtype, self.shape, self.size = space.dtype, space.shape, math.prod(space.shape)
        self.real = self.dtype.kind == "f"
        self.narrow = not self.real and self.dtype.itemsize < 8
        self.low, self.high = limits(space)  # [1 or N, *shape]
        self.bounded = self.real or not holds_all(self.dtype, self.low, self.high)
        discrete = isinstance(space, spaces.Discrete)
        self.ends = (self.low.item(), self.high.item()) if discrete else None
        self._on_device: tuple[Any, ...] = (None,)  # device and the bounds there

    def stack(self, seen: list[Any]) -> Array:
        """Return N observations as a batch [N, *shape]."""
        if self.ends is not None:
            first, last = self.ends
            for x in seen:
                if type(x) not in WHOLE or not first <= x <= last:
                    break
            else:
                return np.array(seen, self.dtype)
        try:
            batch = np.array(seen)
        except (ValueError, TypeError):  # of several shapes
            batch = np.array(None)
        if batch.dtype.kind not in NUMERIC:
            row = next((i for i, obs in enumerate(seen) if self._is_odd(obs)), 0)
            self._refuse(row, seen[row])
        return self._fitted(batch, len(seen))

    def check(self, batch: Any, n: int) -> Array:
        """Return a copy of a batch of n observations; a tensor keeps its dtype and device."""
        if not is_tensor(batch):
            # C order, as from a checkpoint: the last bit of a product depends on the memory order
            return self._fitted(np.array(batch, order="C"), n)
        self._check_shape(batch, n)
        if batch.is_floating_point() and not self.real:
            self._refuse(0, batch[0], f": its dtype is {batch.dtype}")
        return batch.clone()

    def astray(self, batch: Array) -> Iterable[Array]:
        """Yield for a leaf on a device, as a bool tensor, whether a number does not fit.

        Bounds of reals are not looked at.
        """
        if not is_tensor(batch):
            return
        if self.real:
            yield ~(abs(batch.sum()) < math.inf)
        elif self.bounded:
            if self.ends is None and self._on_device[0] != batch.device:
                self._on_device = (batch.device, *map(batch.new_tensor, limits(self.space)))
            yield (batch.clamp(*(self.ends or self._on_device[1:])) != batch).any()

    def _fitted(self, batch: np.ndarray, n: int) -> np.ndarray:
        """Return a batch in the space's dtype; Misfit where it does not fit."""
        if batch.shape != self.low.shape or len(batch) != n:
            self._check_shape(batch, n)
            if n * self.size < REPEATED:
                self.low, self.high = (np.repeat(ends[:1], n, 0) for ends in (self.low, self.high))
        same = batch.dtype is self.dtype
        if not same and batch.dtype.kind not in NUMERIC:
            self._refuse(0, batch[0])
        if self.bounded or not same:
            # the fastest way to look for a False among few; NaN is on neither side
            below = b"\0" in (self.low <= batch).tobytes()
            if below or b"\0" in (batch <= self.high).tobytes():
                self._handle_outside(batch)
        return batch if same else self._cast(batch)

    def _is_odd(self, obs: Any) -> bool:
        """Return whether an observation is of another shape or no number."""
        return shape_of(obs) != self.shape or np.asarray(obs).dtype.kind not in NUMERIC

    def _cast(self, batch: np.ndarray) -> np.ndarray:
        cast = batch.astype(self.dtype)
        if not self.real and (lost := cast != batch).any():
            row = first_row(lost)
            self._refuse(row, batch[row], f": as {self.dtype} it would be {brief(cast[row])}")
        return cast

    def _handle_outside(self, batch: np.ndarray) -> None:
        """Raise Misfit, or tell once that real numbers are outside of their bounds."""
        most = np.finfo(self.dtype).max if self.real else 0
        outside = ~((self.low <= batch) & (batch <= self.high))
        if self.real and not np.isfinite(batch).all():
            row = first_row(~np.isfinite(batch))
            raise Misfit(row, f"{self.name} {brief(batch[row].tolist())} is not finite")
        if not self.real or (abs(batch) > most).any():
            row = first_row(outside)
            self._refuse(row, batch[row])
        found = f"{self.name} {batch[outside][0]} is outside of {brief(self.space)}"
        LOG.warning("seqrl: %s: %s; going on, and this is said once", self.owner, found)
        self.low, self.high = np.full_like(self.low, -most), np.full_like(self.high, most)

    def _check_shape(self, batch: Array, n: int) -> None:
        """Raise Misfit for a batch of another shape; of its first row where all rows are there."""
        if batch.shape == (n, *self.shape):
            return
        if len(batch.shape) and len(batch) == n:
            self._refuse(0, batch[0])
        raise Misfit(None, f"{self.name} of shape {list(batch.shape)}: expected {[n, *self.shape]}")

    def _refuse(self, row: int, obs: Any, why: str = "") -> NoReturn:
        shape = shape_of(obs)
        shown = f"{brief(obs)}" if shape in (self.shape, None) else f"{brief(obs)} of shape {shape}"
        raise Misfit(row, f"{self.name} {shown} is not of {brief(self.space)}{why}")


class Opaque:
    """Any other space, such as Text: its observations are kept as they are."""

    narrow = False

    def __init__(self, space: gym.Space, name: str):
        self.space, self.name = space, name

    def stack(self, seen: list[Any]) -> Array:
        """Return N observations as a batch [N]."""
        batch = np.empty(len(seen), object)
        for i, obs in enumerate(seen):
            if not self.space.contains(obs):
                raise Misfit(i, f"{self.name} {brief(obs)} is not of {brief(self.space)}")
            batch[i] = obs
        return batch if self.space.dtype is None else batch.astype(self.space.dtype)

    def check(self, batch: Any, n: int) -> Array:
        """Return a batch of n observations."""
        return self.stack(list(batch))

    def astray(self, batch: Array) -> Iterable[Array]:
        """Yield nothing: these are on no device."""
        return ()


def limits(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest numbers of a simple space [1, *shape].

    Those of reals are wider by a rounding error, and finite.
    """
    if isinstance(space, spaces.Box):
        low, high = space.low, space.high
    elif isinstance(space, spaces.MultiBinary):
        low, high = np.zeros(space.shape), np.ones(space.shape)
    else:
        counts = space.n if isinstance(space, spaces.Discrete) else space.nvec
        low, high = np.asarray(space.start), np.asarray(space.start) + counts - 1
    if space.dtype.kind == "f":
        ends = np.array([low, high], np.float64)
        size = np.where(np.isinf(ends), 1.0, abs(ends)).max(0)
        most = float(np.finfo(space.dtype).max)
        with np.errstate(over="ignore"):
            low, high = np.clip([ends[0] - ROUNDING * size, ends[1] + ROUNDING * size], -most, most)
    return np.asarray(low, space.dtype)[None], np.asarray(high, space.dtype)[None]


def holds_all(dtype: np.dtype, low: np.ndarray, high: np.ndarray) -> bool:
    """Return whether every number of a dtype is within bounds."""
    ends = (False, True) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return bool((low <= ends[0]).all() and (high >= ends[1]).all())


def shape_of(obs: Any) -> tuple[int, ...] | None:
    """Return the shape of an array or of what becomes one; None where it has none."""
    try:
        return tuple(np.shape(obs))
    except ValueError:
        return None


def first_row(mask: np.ndarray) -> int:
    """Return the first row [N, ...] in which a mask holds."""
    return int(mask.reshape(len(mask), -1).any(1).argmax())
