"""Drawing indices in proportion to priorities, in time that grows with the log of their number.

A tree whose nodes hold the sums of their children. Nodes have many children, so that there are few
levels, each of them a handful of array operations for a whole batch.
"""

from __future__ import annotations

import numpy as np

WIDTH = 64  # children of a node


class SumTree:
    """Priorities of `size` indices, 0 at first, and their sums."""

    def __init__(self, size: int):
        self.size = size
        self.levels: list[np.ndarray] = []  # from the indices up to one node
        while not self.levels or size > 1:
            parents = -(-size // WIDTH)
            self.levels.append(np.zeros(parents * WIDTH))
            size = parents
        self.levels.append(np.zeros(1))

    @property
    def total(self) -> float:
        """The sum of all priorities."""
        return float(self.levels[-1][0])

    @property
    def priorities(self) -> np.ndarray:
        """Of every item [size]."""
        return self.levels[0][: self.size]

    def set(self, indices: np.ndarray, priorities: np.ndarray | float) -> None:
        """Give indices [B] new priorities [B] of at least 0; of one named twice the last counts.

        Sums are added up anew, so rounding does not pile up.
        """
        self.levels[0][indices] = priorities
        for below, level in zip(self.levels, self.levels[1:], strict=False):
            indices = indices // WIDTH
            level[indices] = below.reshape(-1, WIDTH)[indices].sum(1)

    def find(self, masses: np.ndarray) -> np.ndarray:
        """The indices in whose share of the line from 0 to `total` the masses [B] lie."""
        indices = np.zeros(len(masses), np.int64)
        for level in reversed(self.levels[:-1]):
            ends = level.reshape(-1, WIDTH)[indices].cumsum(1)
            # rounding may put a mass behind the last share, which it then belongs to
            masses = np.minimum(masses, np.nextafter(ends[:, -1], 0.0))
            child = (ends <= masses[:, None]).sum(1)
            before = ends[np.arange(len(child)), child - 1]
            masses = masses - np.where(child > 0, before, 0.0)
            indices = indices * WIDTH + child
        return indices
