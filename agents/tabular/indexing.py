"""From observations to active rows of a table: countable spaces, bins, tile coding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import cycle, islice, product
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from seqrl.core.action_mask import rest_space, split
from seqrl.core.checks import check_numbers, check_parts, check_whole
from seqrl.core.errors import RunError, UsageError
from seqrl.core.types import Array

UNBOUNDED = 3.0  # an unbounded dimension is cut to +-3 unless a range is given
LARGEST = 2**48  # rows of a table; far above any memory, and well within the int64 of an index
SIMPLE = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Box)
Path = tuple[Any, ...]  # keys and positions
SUPPORTED = "a table takes Discrete, MultiDiscrete, MultiBinary, Box, and Tuple and Dict of these"


class TableIndex:
    """The active rows of a table for each observation of a space.

    Countable parts are counted in mixed radix, and so are whole numbers of a Box without `bins`.
    Each dimension of any other Box is cut into `bins` equal widths; values outside fall into the
    end bins. `tiles` > 1 lays that many tilings over the same space, each shifted by a share of a
    width (tile coding, Sutton & Barto, 9.5.4), so a state has `tiles` active rows. `ranges` bounds
    dimensions by their number, {1: (-3, 3)}; unbounded ones are cut at +-3.
    """

    def __init__(
        self,
        space: gym.Space,
        bins: int | None = None,
        tiles: int = 1,
        ranges: Mapping[int, tuple[float, float]] | None = None,
    ):
        self.given, space = space, rest_space(space)
        self.masked = (
            space is not self.given
        )  # whether observations tell which actions may be taken
        check_numbers("observation", space)
        check_whole("bins", 1 if bins is None else bins)
        check_whole("tiles", tiles)
        check_parts(space, lambda part: isinstance(part, SIMPLE), SUPPORTED)
        self.space, self.bins, self.tiles = space, bins, tiles
        parts = simple(space)
        if bins is None and tiles == 1:
            parts = {path: countable(part) for path, part in parts.items()}
        measured = measure(space, [*parts.values()], bins, dict(ranges or {}))
        self.low, self.high, self.width, sizes, counts = measured
        real = [isinstance(part, spaces.Box) for part in parts.values()]
        self.paths = [path for path, box in zip(parts, real, strict=True) if not box]  # counted
        self.real_paths = [path for path, box in zip(parts, real, strict=True) if box]
        if not len(self.low):
            self.tiles = 1
        # a shifted tiling needs one more tile a dimension to cover the space
        extra = self.tiles > 1
        self.bins_per_dimension = np.array([n + extra for n in sizes], np.int64)
        radix = [count for _, count in counts] + self.bins_per_dimension.tolist()
        self.size = math.prod(radix)  # rows of one tiling
        self.total = self.size * self.tiles  # rows of the table
        if self.total > LARGEST:
            digits = sum(math.log10(n) for n in radix)
            remedy = "take fewer bins" if bins else "give --bins 8, or name a --network"
            raise UsageError(f"space {space}: 10^{digits:.0f} states are too many; {remedy}")
        self.strides = np.array([math.prod(radix[i + 1 :]) for i in range(len(radix))], np.int64)
        strides = self.strides.tolist()
        self.digits = [(*digit, stride) for digit, stride in zip(counts, strides, strict=False)]
        self.last = np.nextafter(np.array(sizes, np.float64), 0.0)  # [D] the end, in widths
        self.offsets = offsets(len(self.low), self.tiles)  # [tiles, D] in widths
        self._start = int(space.start) if isinstance(space, spaces.Discrete) else None

    def __call__(self, obs: Array) -> list[tuple[int, ...]]:
        """Return the active rows of N observations, a tuple of `tiles` indices each."""
        if self.masked:
            obs, _ = split(obs)
        if self._start is not None:
            indices = (obs - self._start if self._start else obs).tolist()
            known = self.size if isinstance(indices[0], int) else 0  # 0.7 is none of them
            return [(i,) if 0 <= i < known else self._refuse(i) for i in indices]
        if not self.real_paths:
            return [(i,) for i in self._number(obs)]
        reals = [np.asarray(reach(obs, path)) for path in self.real_paths]
        rolled = np.concatenate(
            [leaf.reshape(len(leaf), -1) for leaf in reals], 1, dtype=np.float64
        )
        number = self._number(obs) if self.paths else [0] * len(rolled)
        return [tuple(active) for active in self._active(number, rolled).tolist()]

    def _active(self, number: list[int], reals: np.ndarray) -> np.ndarray:
        inner = np.minimum(np.maximum(reals, self.low), self.high)
        where = np.minimum((inner - self.low) / self.width, self.last)  # [N, D] in widths
        tile = (where[:, None, :] + self.offsets).astype(np.int64)  # [N, tiles, D]
        inside = tile @ self.strides[len(self.digits) :] + np.array(number)[:, None]
        return inside + self.size * np.arange(self.tiles)

    def _number(self, obs: Array) -> list[int]:
        """Return the numbers [N] of what is counted, in mixed radix; RunError."""
        numbers = []
        for digits in zip(*self._columns(obs), strict=True):
            number = 0
            for digit, (first, count, stride) in zip(digits, self.digits, strict=True):
                if not (isinstance(digit, int) and 0 <= digit - first < count):
                    raise RunError(f"observation {list(digits)} is not of {self.space}")
                number += (digit - first) * stride
            numbers.append(number)
        return numbers

    def _columns(self, obs: Array) -> list[list[int]]:
        """Return what is counted, a list [N] for each digit."""
        columns: list[list[int]] = []
        for path in self.paths:
            leaf = obs
            for key in path:
                leaf = leaf[key]
            columns += [leaf.tolist()] if leaf.ndim == 1 else leaf.reshape(len(leaf), -1).T.tolist()
        return columns

    def _refuse(self, index: int) -> tuple[int, ...]:
        raise RunError(f"observation {index + (self._start or 0)} is not of {self.space}")


def offsets(dimensions: int, tilings: int) -> np.ndarray:
    """Return the shift of each tiling [tilings, D] in widths.

    Every dimension takes each multiple of 1 / tilings once. By odd numbers, as Sutton & Barto
    (2018) recommend in 9.5.4, unless these have a factor in common with the number of tilings or
    have been used up: then in other orders, no two of them alike as long as there are any.
    """
    found: dict[tuple[int, ...], None] = {}
    for order in orders(tilings):
        if len(found) == dimensions:
            break
        found[order] = None
    return np.array([*islice(cycle(found), dimensions)]).reshape(-1, tilings).T / tilings


def orders(tilings: int) -> Iterator[tuple[int, ...]]:
    """Yield orders of the shifts: how i times an odd number, modulo some q, ranks among the others.

    At q = tilings that is the remainder itself; from 2 tilings - 1 on no order would be new.
    """
    for first, modulus in product(
        range(tilings), range(tilings, max(tilings + 1, 2 * tilings - 1))
    ):
        for odd in range(1, 2 * modulus, 2):
            if math.gcd(odd, modulus) == 1:
                rank = (np.arange(tilings) * odd % modulus).argsort().argsort()
                yield tuple(((rank + first) % tilings).tolist())


def measure(
    space: gym.Space,
    parts: list[gym.Space],
    bins: int | None,
    ranges: dict[int, tuple[float, float]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int], list[tuple[int, int]]]:
    """Return ends, widths and bins of the real dimensions, first values and counts of others."""
    low: list[float] = []
    high: list[float] = []
    counts: list[tuple[int, int]] = []
    for part in parts:
        if isinstance(part, spaces.Box):
            low += np.asarray(part.low, np.float64).ravel().tolist()
            high += np.asarray(part.high, np.float64).ravel().tolist()
        else:
            counts += radices(part)
    if low and bins is None:
        remedy = "give --bins 8 (or --tiles 8 --bins 8)"
        if any(map(is_image, parts)):
            remedy = "an image is for a --network, such as cnn"
        raise UsageError(f"space {space}: a table needs countable states; {remedy}")
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


def simple(space: gym.Space, path: Path = ()) -> dict[Path, gym.Space]:
    """Return the simple spaces inside nested Tuples and Dicts by the keys to their leaves."""
    if not isinstance(space, spaces.Tuple | spaces.Dict):
        return {path: space}
    inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    found: dict[Path, gym.Space] = {}
    for key, part in inner:
        found |= simple(part, (*path, key))
    return found


def countable(space: gym.Space) -> gym.Space:
    """Return a Box of whole numbers that can be counted as a MultiDiscrete, others as they are."""
    if not isinstance(space, spaces.Box) or space.dtype.kind not in "iu" or is_image(space):
        return space
    low, high = (np.ravel(end).tolist() for end in (space.low, space.high))
    counts = [top - bottom + 1 for bottom, top in zip(low, high, strict=True)]
    if counts and max(counts) <= LARGEST and max(high) < 2**63:
        return spaces.MultiDiscrete(counts, start=low)
    return space


def is_image(space: gym.Space) -> bool:
    """Return whether a space is one of images: a Box of three axes, or of two in bytes."""
    shape = space.shape if isinstance(space, spaces.Box) else ()
    return len(shape) > 2 or (len(shape) == 2 and space.dtype == np.uint8)


def radices(space: gym.Space) -> list[tuple[int, int]]:
    """Return the first value of each number of a countable space, and how many it takes."""
    if isinstance(space, spaces.MultiBinary):
        return [(0, 2)] * math.prod(np.atleast_1d(space.n).tolist())
    assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    counts = np.ravel(space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n)
    return list(zip(np.ravel(space.start).tolist(), counts.tolist(), strict=True))


def reach(obs: Array, path: Path) -> Array:
    """Return the leaf of a tree that a path leads to."""
    for key in path:
        obs = obs[key]
    return obs
