"""Mean and spread of a stream of numbers."""

from __future__ import annotations

import math

from torch import Tensor


class RunningMoments:
    """Mean and spread of all returns so far, weighted by how many there were (Welford)."""

    def __init__(self) -> None:
        self.mean, self.variance, self.count = 0.0, 1.0, 0

    @property
    def std(self) -> float:
        """The spread, never 0."""
        return math.sqrt(self.variance) + 1e-6

    def update(self, values: Tensor) -> None:
        """Take more values [B] in."""
        n, new = len(values), float(values.mean())
        spread = float(values.var(correction=0))
        total = self.count + n
        if self.count == 0:
            self.mean, self.variance = new, spread
        else:
            gap = new - self.mean
            self.mean += gap * n / total
            between = gap * gap * self.count * n / total
            self.variance = (self.variance * self.count + spread * n + between) / total
        self.count = total
