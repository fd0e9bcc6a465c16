"""From observations to active rows of a table: countable spaces, bins, tile coding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from seqrl.core import tree
from seqrl.core.checks import check_numbers, check_whole
from seqrl.core.errors import RunError, UsageError
from seqrl.core.types import Array

UNBOUNDED = 3.0  # an unbounded dimension is cut to +-3 unless a range is given
LARGEST = 2**48  # rows of a table; far above any memory, and well within the int64 of an index
ZERO = np.int64(0)
SUPPORTED = (
    "Discrete, MultiDiscrete, MultiBinary, Box (with bins or tiles), Tuple and Dict of these"
)


class TableIndex:
    """The active rows of a table for each observation of a space.

    Countable parts are counted in mixed radix. Each dimension of a Box is cut into `bins` equal
    widths; values outside fall into the end bins. `tiles` > 1 lays that many tilings over the
    same space, each shifted by a share of a width (tile coding, Sutton & Barto, 9.5.4), so a state
    has `tiles` active rows. `ranges` bounds dimensions by their number, {1: (-3, 3)}; unbounded
    ones are cut at +-3.
    """

    def __init__(
        self,
        space: gym.Space,
        bins: int | None = None,
        tiles: int = 1,
        ranges: Mapping[int, tuple[float, float]] | None = None,
    ):
        check_numbers("observation", space)
        check_whole("bins", 1 if bins is None else bins)
        check_whole("tiles", tiles)
        self.space, self.parts, self.bins, self.tiles = space, nested(space), bins, tiles
        self.low, self.high, self.width, sizes, counts = measure(space, bins, dict(ranges or {}))
        if not len(self.low):
            self.tiles = 1
        # a shifted tiling needs one more tile a dimension to cover the space
        extra = self.tiles > 1
        self.bins_per_dimension = np.array([n + extra for n in sizes], np.int64)
        self.counts = np.array(counts, np.uint64)
        radix = counts + self.bins_per_dimension.tolist()
        self.size = math.prod(radix)  # rows of one tiling
        self.total = self.size * self.tiles  # rows of the table
        if self.total > LARGEST:
            digits = sum(math.log10(n) for n in radix)
            raise UsageError(f"space {space}: 10^{digits:.0f} states are too many; take fewer bins")
        self.strides = np.array([math.prod(radix[i + 1 :]) for i in range(len(radix))], np.int64)
        self.last = np.nextafter(np.array(sizes, np.float64), 0.0)  # [D] the end, in widths
        self.offsets = offsets(len(self.low), self.tiles)  # [tiles, D] in widths
        self._start = int(space.start) if isinstance(space, spaces.Discrete) else None

    def __call__(self, obs: Array) -> list[tuple[int, ...]]:
        """Return the active rows of N observations, a tuple of `tiles` indices each."""
        if self._start is not None:
            indices = (obs - self._start if self._start else obs).tolist()
            return [(i,) if 0 <= i < self.size else self._refuse(i) for i in indices]
        digits, reals = flatten(self.parts, obs)
        if len(self.counts):
            self._check(digits)
        return [tuple(active) for active in self._active(digits, reals).tolist()]

    def _active(self, digits: np.ndarray, reals: np.ndarray) -> np.ndarray:
        base = digits @ self.strides[: digits.shape[1]]  # [N]
        if not len(self.low):
            return base[:, None]
        inner = np.minimum(np.maximum(reals, self.low), self.high)
        where = np.minimum((inner - self.low) / self.width, self.last)  # [N, D] in widths
        tile = (where[:, None, :] + self.offsets).astype(np.int64)  # [N, tiles, D]
        inside = tile @ self.strides[digits.shape[1] :] + base[:, None]
        return inside + self.size * np.arange(self.tiles)

    def _check(self, digits: np.ndarray) -> None:
        outside = digits.view(np.uint64) >= self.counts  # [N, C]; what is negative is large here
        if outside.any():
            first = digits[outside.any(1).argmax()].tolist()
            raise RunError(f"observation {first} (counted from 0) is not of {self.space}")

    def _refuse(self, index: int) -> tuple[int, ...]:
        raise RunError(f"observation {index + (self._start or 0)} is not of {self.space}")


def offsets(dimensions: int, tilings: int) -> np.ndarray:
    """Return the shift of each tiling [tilings, D] in widths, by odd numbers."""
    odd = 2 * np.arange(dimensions) + 1
    return (np.arange(tilings)[:, None] * odd % tilings) / tilings


def measure(
    space: gym.Space, bins: int | None, ranges: dict[int, tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int], list[int]]:
    """Return ends, widths and bins of the real dimensions, sizes of the countable ones."""
    low: list[float] = []
    high: list[float] = []
    counts: list[int] = []
    for part in tree.leaves(nested(space)):
        if isinstance(part, spaces.Box):
            low += np.asarray(part.low, np.float64).ravel().tolist()
            high += np.asarray(part.high, np.float64).ravel().tolist()
        else:
            counts += radices(part)
    if low and bins is None:
        raise UsageError(
            f"space {space}: a table needs countable states; give --bins 8 (or --tiles 8 --bins 8)"
        )
    for dimension, (bottom, top) in ranges.items():
        if not (0 <= dimension < len(low) and -math.inf < bottom < top < math.inf):
            raise UsageError(
                f"bin range {dimension}={bottom:g}:{top:g}: expected low < high, both finite, for "
                f"one of the {len(low)} real dimensions, counted from 0"
            )
    ends = [ranges.get(i) or bounded(i, low[i], high[i]) for i in range(len(low))]
    bottoms, tops = np.array(ends, np.float64).reshape(-1, 2).T
    widths = (tops - bottoms) / (bins or 1)
    widths[widths == 0.0] = 1.0  # a dimension that is constant
    return bottoms, tops, widths, [bins or 1] * len(low), counts


def bounded(dimension: int, low: float, high: float) -> tuple[float, float]:
    """Return the ends of a dimension, +-3 where one is missing or beyond 1e9."""
    bottom = low if abs(low) < 1e9 else -UNBOUNDED
    top = high if abs(high) < 1e9 else UNBOUNDED
    if bottom > top:
        raise UsageError(
            f"dimension {dimension} of the space runs from {low:g} to {high:g}, outside of +-3: "
            f"give its range, as in --bin-range {dimension}=0:10"
        )
    return bottom, top


def nested(space: gym.Space) -> Any:
    """Return the simple spaces inside nested Tuples and Dicts as a tree like the observations'."""
    if isinstance(space, spaces.Tuple):
        return tuple(map(nested, space.spaces))
    if isinstance(space, spaces.Dict):
        return {key: nested(part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Box):
        return space
    raise UsageError(f"space {space}: a table takes {SUPPORTED}")


def radices(space: gym.Space) -> list[int]:
    """Return how many values each number of a countable space takes."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in np.ravel(space.nvec)]
    assert isinstance(space, spaces.MultiBinary)
    return [2] * math.prod(np.atleast_1d(space.n).tolist())


def flatten(parts: Any, obs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch as digits from 0 [N, C] and reals [N, D], in the order of simple spaces."""
    digits: list[np.ndarray] = []
    reals: list[np.ndarray] = []

    def add(part: gym.Space, leaf: Array) -> None:
        flat = np.asarray(leaf).reshape(len(leaf), -1)
        if isinstance(part, spaces.Box):
            reals.append(flat.astype(np.float64))
        else:
            digits.append(flat.astype(np.int64) - getattr(part, "start", ZERO).ravel())

    tree.map(add, parts, obs)
    n = len((digits or reals)[0])
    empty = np.empty((n, 0))
    countable = np.concatenate(digits, 1) if digits else empty.astype(np.int64)
    return countable, np.concatenate(reals, 1) if reals else empty
