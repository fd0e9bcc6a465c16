"""Steps of N environments in arrays that are filled again and again, as agents learn from them.

Every environment has a column of rows, one a step. Behind the newest step, and behind the last one
of every episode, comes a FINAL row: what followed, with nothing done there. So what follows a step
is always the next row and no observation is kept twice. Row `a` counts from the column's first
one on and lies in place `a` modulo the column's length.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.agents.experience.packing import Pick
from seqrl.core import Array, State, Transition, schema, tree
from seqrl.core.arrays import check_memory, host, zeros

FINAL, START, TERMINATED = np.uint8(1), np.uint8(2), np.uint8(4)  # flags of a row


class Columns:
    """The columns. `last` [N] is the newest row of each, a FINAL one; -1 where there is none.

    capacity: rows of all columns together.
    period: columns are a multiple of it long, and the memory that entered a row is kept for every
        row that it divides,
    states: if it is to be kept at all.
    """

    def __init__(self, capacity: int, period: int = 1, *, states: bool = False):
        self.capacity, self.period, self.keeps_states = capacity, period, states
        self.parts: dict[str, Any] = {}  # name -> tree of [length, N, ...]
        self.states: Any = None  # tree of [length / period, N, ...]
        self.last = np.zeros(0, np.int64)
        self.length = 0
        self.loaded = False  # from a checkpoint, and no turn has been seen since

    @property
    def columns(self) -> int:
        """N."""
        return len(self.last)

    def add(self, step: Transition) -> np.ndarray:
        """Write the valid rows of a turn of arrays; answers which columns these are."""
        if self.loaded:
            self.adopt(step)
        if self.columns == 1:  # an index that is no array is written to several times faster
            if not step.valid[0]:
                return np.zeros(0, np.int64)
            at = max(int(self.last[0]) + int(step.start[0]), 0)
            self._write(step, (at % self.length,), ((at + 1) % self.length,), slice(None))
            self._keep_state(step, np.array([at]), np.zeros(1, np.int64))
            self.last[0] = at + 1
            return np.zeros(1, np.int64)
        rows = np.flatnonzero(step.valid)
        ats = np.maximum(self.last[rows] + step.start[rows], 0)
        self._write(step, (ats % self.length, rows), ((ats + 1) % self.length, rows), rows)
        self._keep_state(step, ats, rows)
        self.last[rows] = ats + 1
        return rows

    def _write(self, step: Transition, here: Any, behind: Any, rows: Any) -> None:
        """The step, and what followed it behind it, where the episode goes on."""
        parts = self.parts

        def write(column: Array, leaf: Array, following: Array) -> None:
            column[here] = leaf[rows]
            column[behind] = following[rows]

        tree.map(write, parts["obs"], step.obs, step.next_obs)
        parts["action"][here] = step.action[rows]
        parts["reward"][here] = step.reward[rows]
        parts["flag"][here] = START * step.start[rows] + TERMINATED * step.terminated[rows]
        parts["flag"][behind] = FINAL

    def _keep_state(self, step: Transition, at: np.ndarray, rows: np.ndarray) -> None:
        if self.states is None:
            return
        for row, state in ((at, step.state), (at + 1, step.next_state)):
            due = row % self.period == 0
            if due.any():
                self._write_state(row[due] % self.length // self.period, rows[due], state)

    def _write_state(self, entry: np.ndarray, column: np.ndarray, state: State) -> None:
        if state is None:  # a fresh one
            for kept in tree.leaves(self.states):
                kept[entry, column] = 0
            return

        def write(kept: Array, leaf: Array) -> None:
            kept[entry, column] = host(leaf)[column]

        tree.map(write, self.states, state)

    def _length(self, n: int) -> int:
        return self.capacity // (n * self.period) * self.period

    def prepare(self, step: Transition) -> None:
        """Empty columns for environments such as those of a turn; refused without room for them."""
        n = len(step.valid)
        self.length = self._length(n)
        turn = {"obs": step.obs, "action": step.action, "reward": step.reward.astype(np.float32)}
        turn["flag"] = np.zeros(n, np.uint8)
        entries = self.length // self.period
        state = tree.map(host, step.next_state) if self.keeps_states else None
        size = sum(leaf.nbytes for leaf in tree.leaves(turn)) * self.length
        size += sum(leaf.nbytes for leaf in tree.leaves(state)) * entries
        check_replay_memory(size, self.capacity)
        self.parts = tree.map(lambda leaf: zeros(self.length, leaf), turn)
        self.states = tree.map(lambda leaf: zeros(entries, leaf), state)
        self.last = np.full(n, -1)

    @property
    def oldest(self) -> np.ndarray:
        """The first row [N] of each column that is still there."""
        return np.maximum(self.last - self.length + 1, 0)

    def places(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Where rows lie when a column's places and the columns are counted as one axis."""
        return rows % self.length * self.columns + columns

    def read(self, name: str, places: np.ndarray) -> np.ndarray:
        """What rows hold, a copy [*places.shape, ...]."""
        return flattened(self.parts[name]).take(places, 0)

    def is_final(self, indices: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Whether rows of columns are FINAL ones."""
        return (self.read("flag", self.places(*indices)) & FINAL) > 0

    def pick(self, name: str, places: np.ndarray) -> Any:
        """The same as a tree of Picks."""
        return tree.map(lambda leaf: Pick(flattened(leaf), places), self.parts[name])

    def entering(self, rows: np.ndarray, columns: np.ndarray) -> Any:
        """The memory that entered rows [B] which the period divides, as a tree of Picks."""
        at = rows % self.length // self.period * self.columns + columns
        return tree.map(lambda leaf: Pick(flattened(leaf), at), self.states)

    def state_dict(self) -> dict[str, Any]:
        """All that has been written."""
        filled = int(min(self.last.max(initial=-1) + 1, self.length))
        entries = -(-filled // self.period)
        return {
            "parts": tree.map(lambda leaf: leaf[:filled], self.parts),
            "states": tree.map(lambda leaf: leaf[:entries], self.states),
            "last": self.last,
            "length": self.length,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse; what an observation is shows only at the next turn (`adopt`)."""
        counts = {
            "last": schema.whole(-1, schema.MAX_COUNTER),
            "length": schema.whole(0, schema.MAX_COUNTER),
        }
        form = counts | dict.fromkeys(("parts", "states"), schema.anything)
        schema.check(NAME, state, form)
        last = np.array(state["last"])
        self.last, self.length, self.parts, self.states = last, 0, {}, None
        if not len(last):
            return
        self.length = self._length(len(last))
        schema.check(f"{NAME}/length", state["length"], schema.whole(self.length, self.length))
        self.parts = tree.map(self._grown(1), state["parts"])
        names = ("obs", "action", "reward", "flag")
        schema.check(f"{NAME}/parts", self.parts, dict.fromkeys(names, schema.anything))
        self.states = tree.map(self._grown(self.period), state["states"])
        self.loaded = True

    def _grown(self, period: int) -> Any:
        """What makes a copy of saved columns, with zeros up to their length in periods."""
        filled = -(-min(int(self.last.max()) + 1, self.length) // period)

        def grown(leaf: Any) -> np.ndarray:
            shape = (filled, len(self.last))
            if tuple(leaf.shape[:2]) != shape:
                schema.refuse(NAME, f"shape {list(leaf.shape)}", f"first axes {list(shape)}")
            whole = np.zeros((self.length // period, *leaf.shape[1:]), leaf.dtype)
            whole[:filled] = leaf
            return whole

        return grown

    def adopt(self, step: Transition) -> None:
        """Refuse a turn that does not fit what was loaded."""
        now = {"obs": step.obs, "action": step.action, "reward": step.reward.astype(np.float32)}
        now["flag"] = np.zeros(len(step.valid), np.uint8)
        then = tree.map(lambda leaf: leaf[0], (self.parts, self.states))
        state = tree.map(host, step.next_state) if self.keeps_states else None
        schema.check(NAME, then, (now, state))
        self.loaded = False


NAME = "agent/experience/rows"  # of an entry in a checkpoint


def flattened(leaf: np.ndarray) -> np.ndarray:
    """[T, N, ...] as [T N, ...]."""
    return leaf.reshape(-1, *leaf.shape[2:])


def host_turn(step: Transition) -> Transition:
    """A turn as NumPy arrays, but for the memory, which is kept seldom."""
    if isinstance(step.reward, np.ndarray):
        return step
    memory = {"state": step.state, "next_state": step.next_state}
    arrays = step._replace(state=None, next_state=None)
    return Transition(*tree.map(host, tuple(arrays)))._replace(**memory)


def check_replay_memory(needed: int, steps: int) -> None:
    """Refuse a replay that does not fit into the memory that is free."""
    what = f"buffer_size {steps:,}: a replay of as many steps"
    check_memory(needed, what, "take a smaller --buffer-size")
