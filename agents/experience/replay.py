"""What a value agent learns from: steps drawn again and again, or the newest ones once.

An item is a row (see rows.py) and the rows behind it that are learned from together: one step for
a network without memory, a sequence for one with memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.agents.experience.batches import Indices, ranges
from seqrl.agents.experience.columns import Columns
from seqrl.agents.experience.sum_tree import SumTree
from seqrl.core import Transition, UsageError, schema

NAME = "agent/experience"  # of an entry in a checkpoint
SMALLEST = 1e-6  # priority of an item without error: it is drawn again some day


class Replay:
    """The last steps of all environments, drawn uniformly or by priority.

    capacity: rows of all columns together; an episode takes one more than it has steps.
    length: rows of an item, beside the one behind them.
    period: an item begins at every row that this divides.
    priority: alpha in [0, 1], 0 is uniform (Schaul et al., 2016, eq. 1).
    """

    def __init__(
        self,
        capacity: int,
        *,
        length: int = 1,
        period: int = 1,
        stored_state: bool = False,
        priority: float = 0.0,
    ):
        self.rows = Columns(capacity, period, states=stored_state)
        self.length, self.period, self.priority = length, period, priority
        self.highest = 1.0  # priority so far: of what is new
        self.tree: SumTree | None = None
        self.known = np.zeros(0, np.int64)  # the newest row [N] that the tree has been told of

    def add(self, step: Transition) -> None:
        """Keep the valid rows of a turn."""
        if len(step.valid) != self.rows.columns:
            self.rows.prepare(step)
            self._begin()
        self.rows.add(step)

    def _begin(self) -> None:
        """Room for the priorities of empty columns; refuses columns too short for an item."""
        n = self.rows.columns
        if self.rows.length < 2 * self.period + self.length:
            raise UsageError(
                f"buffer_size {self.rows.capacity:,}: too small for {n} environments and items of "
                f"{self.length} steps; expected at least {n * (2 * self.period + self.length):,}"
            )
        self.known = self.rows.last.copy()
        self.tree = SumTree(self.rows.length // self.period * n) if self.priority else None

    def __len__(self) -> int:
        """How many indices there are."""
        first, stop = self._range()
        return int((stop - first).sum())

    def _range(self) -> tuple[np.ndarray, np.ndarray]:
        """The indices [N] of each column, in periods from its first row: from, to before."""
        first = -(-self.rows.oldest // self.period)
        stop = (self.rows.last - self.length) // self.period + 1
        return first, np.maximum(stop, first)

    def draw(self, size: int, rng: np.random.Generator) -> tuple[Indices, np.ndarray | None]:
        """`size` indices and N P(i), the chance of each by that of a uniform draw; None for 1."""
        if self.tree is not None:
            return self._draw_by_priority(self.tree, size, rng)
        indices = self._uniform(size, rng)
        if self.length == 1:
            wrong = self.rows.is_final(indices)
            while wrong.any():
                again = self._uniform(int(wrong.sum()), rng)
                indices.row[wrong], indices.column[wrong] = again
                wrong = self.rows.is_final(indices)
        return indices, None

    def _uniform(self, size: int, rng: np.random.Generator) -> Indices:
        first, stop = self._range()
        ends = (stop - first).cumsum()
        drawn = rng.integers(0, ends[-1], size)
        if len(ends) == 1:
            return Indices((drawn + first[0]) * self.period, np.zeros(size, np.int64))
        column = ends.searchsorted(drawn, "right")
        row = drawn - ends[column] + stop[column]
        return Indices(row * self.period, column)

    # priorities

    def _draw_by_priority(
        self, tree: SumTree, size: int, rng: np.random.Generator
    ) -> tuple[Indices, np.ndarray]:
        """One item from each of `size` equal shares of the sum (Schaul et al., 2016, B.2.1)."""
        self._admit(tree)
        masses = (np.arange(size) + rng.random(size)) * (tree.total / size)
        number = tree.find(masses)
        place, column = np.divmod(number, self.rows.columns)
        row = place * self.period
        newest = self.rows.last[column]  # the row in that place which is still there
        row += (newest - row) // self.rows.length * self.rows.length
        there = np.count_nonzero(tree.priorities)
        return Indices(row, column), tree.priorities[number] * (there / tree.total)

    def prioritise(self, indices: Indices, error: np.ndarray) -> None:
        """The priority of indices is (|error| + epsilon)^alpha."""
        assert self.tree is not None
        value = (error.astype(np.float64) + SMALLEST) ** self.priority
        self.highest = max(self.highest, float(value.max()))
        self.tree.set(self._number(*indices), value)

    def _number(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Where an item's priority stands."""
        return row % self.rows.length // self.period * self.rows.columns + column

    def _admit(self, tree: SumTree) -> None:
        """What is new enters with the highest priority so far; what was written over leaves."""
        last, length = self.rows.last, self.rows.length
        row, column = ranges(np.maximum(self.known, last - length) + 1, last + 1)
        over = row % self.period == 0
        tree.set(self._number(row[over], column[over]), 0.0)
        first, stop = self._range()
        since = np.maximum((self.known - self.length) // self.period + 1, first)
        row, column = ranges(since, stop)
        indices = Indices(row * self.period, column)
        value = np.full(len(row), self.highest)
        if self.length == 1:
            value[self.rows.is_final(indices)] = 0.0
        tree.set(self._number(*indices), value)
        self.known = last.copy()

    # state

    def state_dict(self) -> dict[str, Any]:
        """The rows and the priorities."""
        return {
            "rows": self.rows.state_dict(),
            "known": self.known,
            "highest": self.highest,
            "priorities": None if self.tree is None else self.tree.priorities,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse; refuses a replay of another shape."""
        form = dict.fromkeys(("rows", "known", "priorities"), schema.anything)
        schema.check(NAME, state, form | {"highest": 1.0})
        self.rows.load_state_dict(state["rows"])
        if not self.rows.columns:
            return
        self._begin()
        schema.check(f"{NAME}/known", state["known"], self.known)
        kept = None if self.tree is None else self.tree.priorities
        schema.check(f"{NAME}/priorities", state["priorities"], kept)
        self.known, self.highest = np.array(state["known"]), state["highest"]
        if self.tree is not None:
            self.tree.set(np.arange(self.tree.size), np.array(state["priorities"]))
