"""Running mean and spread of numbers, and rewards in units of it."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np

from seqrl.core import schema
from seqrl.core.arrays import host_copy, hosted, seen
from seqrl.core.saved import NUMBER, PART, Kept, Saved, plain
from seqrl.core.types import Array, Batch, Transition

ROUNDING = 1e-5  # of a mean: a spread below it is none


class Measured(NamedTuple):
    """Mean and variance of values, and how many there are."""

    mean: float
    variance: float
    size: int


def measured(values: Array) -> Measured:
    """Return the moments of values [B]; from a device in one copy."""
    n = len(values)
    if not n:
        return Measured(0.0, 0.0, 0)
    on_host = isinstance(values, np.ndarray)
    variance = values.var() if on_host else values.var(correction=0)
    mean, within = (values.mean(), variance) if on_host else hosted([values.mean(), variance])
    return Measured(float(mean), float(within), n)


class RunningMoments(Saved):
    """Mean and spread of all returns so far, weighted by how many there were (Welford)."""

    def __init__(self) -> None:
        self.mean, self.variance, self.count = 0.0, 1.0, 0

    @property
    def spread(self) -> float:
        """The standard deviation; 0 until values have differed by more than rounding."""
        spread = math.sqrt(self.variance)
        return spread if self.count and spread > ROUNDING * abs(self.mean) else 0.0

    @property
    def std(self) -> float:
        """The standard deviation; 1 where there is none."""
        return self.spread or 1.0

    def update(self, values: Array) -> None:
        """Add more values [B] (see `add`)."""
        self.add(measured(values))

    def add(self, found: Measured) -> None:
        """Add more values; those before the first spread weigh no more than they do."""
        new, within, n = found
        if not n:
            return
        before = self.count if self.spread else min(self.count, n)
        total, gap = before + n, new - self.mean
        self.mean += gap * n / total
        between = gap * gap * before * n / total
        self.variance = (self.variance * before + within * n + between) / total
        self.count = total

    def scale(self, factor: float) -> None:
        """Let all values so far have been as many times as large."""
        self.mean, self.variance = factor * self.mean, factor**2 * self.variance

    @staticmethod
    def check_variance(name: str, saved: Any) -> None:
        """Refuse what has no square root."""
        schema.check(name, saved, 0.0)
        if saved < 0:
            schema.refuse(name, saved, "at least 0")

    SAVED: ClassVar[dict[str, Kept]] = {
        "mean": plain(0.0),
        "variance": plain(check_variance),
        "count": NUMBER,
    }


def check_totals(name: str, value: Array, saved: Any) -> None:
    """Refuse what are no totals of some environments."""
    if getattr(saved, "ndim", 0) != 1:
        schema.refuse(name, saved, "float64 of each environment")
    schema.check(name, saved, np.zeros(len(saved)))


def check_met(name: str, value: Array, saved: Any) -> None:
    """Refuse what does not say of each of some environments whether it is."""
    if getattr(saved, "ndim", 0) != 1:
        schema.refuse(name, saved, "bool of each environment")
    schema.check(name, saved, np.zeros(len(saved), bool))


class RewardScale(Saved):
    """Rewards divided by the running standard deviation of the discounted sums of them.

    The sum of an environment is that of its episode's rewards so far, each discounted once more at
    every step. Rewards are kept as they are and divided when they are learned from: by one unit a
    batch, to which its own turns belong. As VecNormalize of Stable-Baselines3, without its limits.

    gamma: discount of the sums in [0, 1].
    """

    def __init__(self, gamma: float):
        self.gamma, self.moments = gamma, RunningMoments()
        self.totals = np.zeros(0)  # of the environments
        self.met = np.zeros(0, bool)  # those of a turn whose other steps are still to come

    @property
    def unit(self) -> float:
        """What rewards are divided by; 1 until sums have differed."""
        return self.moments.std

    def follow(self, step: Transition) -> None:
        """Take a turn into account."""
        start, reward, _, _, valid = seen(step)
        if len(self.totals) != len(valid):
            self.totals, self.met = np.zeros(len(valid)), np.zeros(len(valid), bool)
        grown = self.totals * self.gamma * ~start + reward
        self.totals = grown * valid + self.totals * ~valid
        met = valid | self.met
        if step.whole:
            self.moments.update(self.totals[met])
        self.met = met & (not step.whole)

    def scaled(self, batch: Batch) -> Batch:
        """Return a batch with its rewards in today's unit."""
        return batch._replace(reward=batch.reward / self.unit)

    SAVED: ClassVar[dict[str, Kept]] = {
        "moments": PART,
        "totals": Kept(host_copy, check_totals, lambda value, saved: np.array(saved)),
        "met": Kept(host_copy, check_met, lambda value, saved: np.array(saved)),
    }
