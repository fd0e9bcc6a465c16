"""Drawing items in proportion to their priorities, in time that grows with the log of their number.

A tree whose nodes hold the sums of their children. Nodes have many children, so that there are few
levels, each of them a handful of array operations for a whole batch.
"""

from __future__ import annotations

import numpy as np

WIDTH = 64  # children of a node


class SumTree:
    """Priorities of `size` items, 0 at first, and their sums."""

    def __init__(self, size: int):
        self.size = size
        self.levels: list[np.ndarray] = []  # from the items up to one node
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

    def set(self, items: np.ndarray, priorities: np.ndarray | float) -> None:
        """Give items [B] new priorities [B] of at least 0; of an item named twice the last counts.

        Sums are added up anew, so rounding does not pile up.
        """
        self.levels[0][items] = priorities
        for below, level in zip(self.levels, self.levels[1:], strict=False):
            items = items // WIDTH
            level[items] = below.reshape(-1, WIDTH)[items].sum(1)

    def find(self, masses: np.ndarray) -> np.ndarray:
        """The items in whose share of the line from 0 to `total` the masses [B] lie."""
        items = np.zeros(len(masses), np.int64)
        for level in reversed(self.levels[:-1]):
            ends = level.reshape(-1, WIDTH)[items].cumsum(1)
            # rounding may put a mass behind the last share, which it then belongs to
            masses = np.minimum(masses, np.nextafter(ends[:, -1], 0.0))
            child = (ends <= masses[:, None]).sum(1)
            before = ends[np.arange(len(child)), child - 1]
            masses = masses - np.where(child > 0, before, 0.0)
            items = items * WIDTH + child
        return items
