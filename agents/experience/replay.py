"""The last steps of all environments, drawn again and again: uniformly or by priority."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqrl.agents.experience.columns import NAME, Columns, Indices, host_turn, ranges
from seqrl.agents.experience.sum_tree import SumTree
from seqrl.core import schema
from seqrl.core.arrays import is_on_host
from seqrl.core.checked import checked_part
from seqrl.core.checks import check_whole
from seqrl.core.errors import UsageError
from seqrl.core.packing import packed
from seqrl.core.types import Batch, Transition

SMALLEST = 1e-6  # priority of an item without error: it is drawn again some day


@checked_part
@dataclass(frozen=True)
class Sequences:
    """Sequences of steps that a network with memory learns from.

    sequence_length: steps learned from in a sequence, at least 1.
    burn_in: steps before them that only warm the memory up, at least 0.
    stored_state: sequences begin with the memory of then, not with an initial one.
    """

    sequence_length: int = 16
    burn_in: int = 0
    stored_state: bool = True

    def __post_init__(self) -> None:
        check_whole("sequence_length", self.sequence_length)
        check_whole("burn_in", self.burn_in, 0)


class Replay:
    """A ring of steps; an item is one step with n rewards, or a sequence.

    capacity: rows of all columns together; an episode takes one more than it has steps.
    n_step, gamma: of the rewards of a step.
    sequences: items are sequences, which overlap by half; None for single steps.
    priority: alpha in [0, 1], 0 is uniform (Schaul et al., 2016, eq. 1).
    device: where batches are; None for NumPy arrays.
    """

    def __init__(
        self,
        capacity: int,
        *,
        n_step: int = 1,
        gamma: float = 1.0,
        sequences: Sequences | None = None,
        priority: float = 0.0,
        device: Any = None,
    ):
        self.sequences, self.n_step, self.gamma, self.device = sequences, n_step, gamma, device
        self.length = self.period = 1  # rows of an item, and between two items
        if sequences is not None:
            self.length = sequences.burn_in + sequences.sequence_length
            self.period = max(1, sequences.sequence_length // 2)
        stored = sequences is not None and sequences.stored_state
        self.rows = Columns(capacity, self.period, states=stored)
        self.priority = priority
        self.highest = 1.0  # priority so far: of what is new
        self.tree: SumTree | None = None
        self.known = np.zeros(0, np.int64)  # the newest row [N] that the tree has been told of

    def add(self, step: Transition) -> None:
        """Keep the valid steps of a turn."""
        if not self._learns_where(step):
            step = host_turn(step)
        if len(step.valid) != self.rows.count:
            self.rows.prepare(step)
            self._begin()
        self.rows.add(step)

    def _learns_where(self, step: Transition) -> bool:
        """Return whether a turn is on the device of the batches, where its rows may stay."""
        if self.device is None or is_on_host(step.valid):
            return False
        kind, index = step.valid.device.type, step.valid.device.index
        return kind == self.device.type and self.device.index in (None, index)

    def _begin(self) -> None:
        """Allocate the priorities of empty columns; refuse columns too short for an item."""
        n, least = self.rows.count, 2 * self.period + self.length
        if self.rows.length < least:
            raise UsageError(
                f"buffer_size {self.rows.capacity:,}: too small for {n} environments and items of "
                f"{self.length} steps; expected at least {n * least:,}"
            )
        if self.n_step > self.rows.length:
            raise UsageError(
                f"n_step {self.n_step:,}: expected at most {self.rows.length:,}, the rows that the "
                "replay has for an environment; take a smaller --n-step"
            )
        self.known = self.rows.last.copy()
        self.tree = SumTree(self.rows.length // self.period * n) if self.priority else None

    def __len__(self) -> int:
        """How many items there are."""
        first, stop = self._range()
        return int((stop - first).sum())

    def _range(self) -> tuple[np.ndarray, np.ndarray]:
        """The items [N] of each column, in periods from its first row: from, to before."""
        first = -(-self.rows.oldest // self.period)
        stop = (self.rows.last - self.length) // self.period + 1
        return first, np.maximum(stop, first)

    def draws(
        self, count: int, size: int, rng: np.random.Generator, beta: float = 0.0
    ) -> Iterator[Batch]:
        """Yield so many samples; to a device all are sent at once, but where errors change them."""
        if self.tree is not None or self.device is None or self.device.type == "cpu":
            yield from (self.sample(size, rng, beta) for _ in range(count))
        else:
            indices = [self._draw(size, rng)[0] for _ in range(count)]
            yield from packed(map(self._batch, indices), self.device)

    def sample(self, size: int, rng: np.random.Generator, beta: float = 0.0) -> Batch:
        """Draw `size` items; with priorities also their weights (N P(i))^-beta, at most 1.

        Schaul et al. (2016), section 3.4; N is the same for all, so it does not show.
        """
        indices, chance = self._draw(size, rng)
        batch = self._batch(indices)
        if chance is None:
            return packed([batch], self.device)[0]
        weight = chance**-beta
        weight = (weight / weight.max()).astype(np.float32)
        (made,) = packed([batch._replace(weight=weight)], self.device)
        return made._replace(indices=indices)

    def _batch(self, indices: Indices) -> Batch:
        """Return items as a batch of pieces."""
        if self.sequences is None:
            return self.rows.steps(indices, self.n_step, self.gamma)
        return self.rows.sequences(indices, self.length, self.gamma, self.sequences.burn_in)

    def _draw(self, size: int, rng: np.random.Generator) -> tuple[Indices, np.ndarray | None]:
        """Draw items; return also the chance P(i) of each, None where it is the same for all."""
        if self.tree is not None:
            return self._draw_by_priority(self.tree, size, rng)
        indices = self._uniform(size, rng)
        if self.sequences is None:
            wrong = self.rows.is_final(*indices)
            while wrong.any():
                again = self._uniform(int(wrong.sum()), rng)
                indices.row[wrong], indices.column[wrong] = again
                wrong = self.rows.is_final(*indices)
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
        """Draw one item from each of `size` equal shares of the sum (Schaul et al., B.2.1)."""
        self._admit(tree)
        masses = (np.arange(size) + rng.random(size)) * (tree.total / size)
        number = tree.find(masses)
        place, column = np.divmod(number, self.rows.count)
        row = place * self.period
        newest = self.rows.last[column]  # the row in that place which is still there
        row += (newest - row) // self.rows.length * self.rows.length
        return Indices(row, column), tree.priorities[number] / tree.total

    def prioritise(self, indices: Indices, error: np.ndarray) -> None:
        """Set the priority of items to (|error| + epsilon)^alpha."""
        assert self.tree is not None
        value = (error.astype(np.float64) + SMALLEST) ** self.priority
        self.highest = max(self.highest, float(value.max()))
        self.tree.set(self.rows.entries(*indices), value)

    def _admit(self, tree: SumTree) -> None:
        """Give new items the highest priority so far, and those written over none."""
        last, length = self.rows.last, self.rows.length
        row, column = ranges(np.maximum(self.known, last - length) + 1, last + 1)
        over = row % self.period == 0
        tree.set(self.rows.entries(row[over], column[over]), 0.0)
        first, stop = self._range()
        since = np.maximum((self.known - self.length) // self.period + 1, first)
        row, column = ranges(since, stop)
        row = row * self.period
        value = np.full(len(row), self.highest)
        if self.sequences is None:
            value[self.rows.is_final(row, column)] = 0.0
        tree.set(self.rows.entries(row, column), value)
        self.known = last.copy()

    # state

    def state_dict(self) -> dict[str, Any]:
        """Return the rows and the priorities."""
        return {
            "rows": self.rows.state_dict(),
            "known": self.known,
            "highest": self.highest,
            "priorities": None if self.tree is None else self.tree.priorities,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; refuse a replay of another shape."""
        parts = dict.fromkeys(("rows", "known", "priorities"), schema.anything)
        schema.check(NAME, state, parts | {"highest": 1.0})
        self.rows.load_state_dict(state["rows"])
        self.highest = state["highest"]
        if not self.rows.count:
            return
        self._begin()
        schema.check(f"{NAME}/known", state["known"], self.known)
        kept = None if self.tree is None else self.tree.priorities
        schema.check(f"{NAME}/priorities", state["priorities"], kept)
        self.known = np.array(state["known"])
        if self.tree is not None:
            self.tree.set(np.arange(self.tree.size), np.array(state["priorities"]))
