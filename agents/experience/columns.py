"""Steps of N environments in columns that are filled again and again, and batches picked from them.

Every environment has a column of rows, one a time step. Behind the newest step, and behind the last
one of every episode, stands a FINAL row: the observation that followed, with nothing done there. So
the row behind a step is always its successor and no observation is kept twice. Row `a` counts from
the column's first one and lies at place `a` modulo the column's length.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from seqrl.core import schema, tree
from seqrl.core.arrays import arange, as_float32, check_memory, host, hosted, like, seen, zeros
from seqrl.core.packing import Pick, Piece, Summed
from seqrl.core.picking import where
from seqrl.core.types import Array, Batch, Seen, State, Transition

FINAL, START, TERMINATED = np.uint8(1), np.uint8(2), np.uint8(4)  # flags of a row
NAME = "agent/store"  # of a store's entry in a checkpoint
ROWS, TREES = f"{NAME}/rows", ("parts", "states")  # of its columns, and of their trees


class Indices(NamedTuple):
    """Rows [B] and their columns [B]."""

    row: np.ndarray
    column: np.ndarray


class Columns:
    """The columns. `last` [N] is the newest row of each, a FINAL one; -1 where there is none.

    capacity: rows of all columns together.
    period: columns are a multiple of it long, and the memory before a row is kept for every row
        that it divides,
    states: if it is to be kept at all.
    smaller: the flags that capacity comes from.
    """

    def __init__(
        self,
        capacity: int,
        period: int = 1,
        *,
        states: bool = False,
        smaller: str = "--buffer-size",
    ):
        self.smaller = smaller
        self.capacity, self.period, self.keeps_states = capacity, period, states
        self.parts: dict[str, Any] = {}  # name -> tree of [length, N, ...]
        self.states: Any = None  # tree of [length / period, N, ...]
        self.last = np.zeros(0, np.int64)
        self.length = 0
        self.rows: DeviceRows | None = None  # what writes turns of tensors
        self.loaded = False  # from a checkpoint, and no turn has been seen since

    @property
    def count(self) -> int:
        """The number of columns, N."""
        return len(self.last)

    @property
    def oldest(self) -> np.ndarray:
        """The first row [N] of each column that is still there."""
        return np.maximum(self.last - self.length + 1, 0)

    def prepare(self, step: Transition) -> None:
        """Allocate columns for environments such as those of a turn; refused without memory."""
        n = len(step.valid)
        self.length = self._length(n)
        turn, state = self._example(step)
        entries = self.length // self.period
        size = sum(leaf.nbytes for leaf in tree.leaves(turn)) * self.length
        size += sum(leaf.nbytes for leaf in tree.leaves(state)) * entries
        check_memory(size, f"{self.capacity:,} rows", f"take a smaller {self.smaller}")
        self.parts = tree.map(lambda leaf: zeros(self.length, leaf), turn)
        self.states = tree.map(lambda leaf: zeros(entries, leaf), state)
        self.last = np.full(n, -1)
        self._follow(step)

    def _example(self, step: Transition) -> tuple[dict[str, Any], Any]:
        """Return the leaves [N, ...] that a turn adds to the columns, and its memory."""
        turn = {"obs": step.obs, "action": step.action, "reward": as_float32(step.reward)}
        turn["flag"] = np.zeros(len(step.valid), np.uint8)  # on the host, wherever the others are
        if not self.keeps_states:
            return turn, None
        on_host = isinstance(step.valid, np.ndarray)
        return turn, tree.map(host, step.next_state) if on_host else step.next_state

    def _follow(self, step: Transition) -> None:
        """Write turns such as this one from now on, behind the rows that are there."""
        on_host = isinstance(step.valid, np.ndarray)
        self.rows = None if on_host else DeviceRows(like(self.last, step.valid))

    def _length(self, n: int) -> int:
        return self.capacity // (n * self.period) * self.period

    def add(self, step: Transition) -> np.ndarray:
        """Write the valid rows of a turn; return the environments that have one."""
        if self.loaded:
            kept = tree.map(lambda leaf: leaf[0], (self.parts, self.states))
            for name, saved, form in zip(TREES, kept, self._example(step), strict=True):
                schema.check(f"{ROWS}/{name}", saved, form)
            self._adopt(step)
        if self.rows is not None:
            return self._add_on_device(self.rows, step, seen(step))
        if self.count == 1:  # an index that is no array is written to several times faster
            if not step.valid[0]:
                return np.zeros(0, np.int64)
            at = max(int(self.last[0]) + int(step.start[0]), 0)
            self._write(step, (at % self.length,), ((at + 1) % self.length,), slice(None))
            self._keep_state(step, np.array([at]), np.zeros(1, np.int64))
            self.last[0] = at + 1
            return np.zeros(1, np.int64)
        envs = np.flatnonzero(step.valid)
        ats = np.maximum(self.last[envs] + step.start[envs], 0)
        self._write(step, (ats % self.length, envs), ((ats + 1) % self.length, envs), envs)
        self._keep_state(step, ats, envs)
        self.last[envs] = ats + 1
        return envs

    def _adopt(self, step: Transition) -> None:
        """Bring what was loaded into the turn's kind of arrays, but for the flags."""
        flag = self.parts.pop("flag")
        self.parts, self.states = like((self.parts, self.states), step.valid)
        self.parts["flag"], self.loaded = flag, False
        self._follow(step)

    def _add_on_device(self, rows: DeviceRows, step: Transition, known: Seen) -> np.ndarray:
        """Write a turn of tensors: its flags here, the others where they are."""
        envs = np.flatnonzero(known.valid)
        ats = np.maximum(self.last[envs] + known.start[envs], 0)
        flags = START * known.start[envs] + TERMINATED * known.terminated[envs]
        self.parts["flag"][ats % self.length, envs] = flags
        self.parts["flag"][(ats + 1) % self.length, envs] = FINAL
        due = [bool((row % self.period == 0).any()) for row in (ats, ats + 1)]
        rows.write(self, step, len(envs) == len(known.valid), due)
        self.last[envs] = ats + 1
        return envs

    def _write(self, step: Transition, here: Any, behind: Any, envs: Any) -> None:
        """Write a step, and what followed it behind it."""
        parts = self.parts

        def write(column: Array, leaf: Array, following: Array) -> None:
            column[here] = leaf[envs]
            column[behind] = following[envs]

        tree.map(write, parts["obs"], step.obs, step.next_obs)
        parts["action"][here] = step.action[envs]
        parts["reward"][here] = step.reward[envs]
        parts["flag"][here] = START * step.start[envs] + TERMINATED * step.terminated[envs]
        parts["flag"][behind] = FINAL

    def _keep_state(self, step: Transition, at: np.ndarray, envs: np.ndarray) -> None:
        if self.states is None:
            return
        for row, state in ((at, step.state), (at + 1, step.next_state)):
            due = row % self.period == 0
            if due.any():
                self._write_state(row[due] % self.length // self.period, envs[due], state)

    def _write_state(self, entry: np.ndarray, column: np.ndarray, state: State) -> None:
        if state is None:  # an initial one
            for kept in tree.leaves(self.states):
                kept[entry, column] = 0
            return

        def write(kept: Array, leaf: Array) -> None:
            kept[entry, column] = host(leaf)[column]

        tree.map(write, self.states, state)

    def places(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return where rows lie when places and columns are counted as one axis."""
        return rows % self.length * self.count + columns

    def entries(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return where what is kept once a period for rows is, counted in the same way."""
        return rows % self.length // self.period * self.count + columns

    def read(self, name: str, places: np.ndarray) -> np.ndarray:
        """Return what rows hold, a copy [*places.shape, ...]."""
        return flattened(self.parts[name]).take(places, 0)

    def is_final(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return whether rows are FINAL ones."""
        return (self.read("flag", self.places(rows, columns)) & FINAL) > 0

    def pick(self, name: str, places: np.ndarray) -> Any:
        """Return the leaves of rows as a tree of Picks [*places.shape, ...]."""
        return tree.map(lambda leaf: Pick(flattened(leaf), places), self.parts[name])

    # batches

    def steps(self, indices: Indices, n: int, gamma: float) -> Batch:
        """Return steps with n rewards, or fewer where an episode or the column ends (T = 1)."""
        at = self.places(indices.row + np.arange(n + 1)[:, None], indices.column)  # [n + 1, B]
        flag, behind = self.read("flag", at), at[1]
        going, weights = (flag[1] & FINAL) == 0, []
        discount = np.where(flag[0] & TERMINATED, 0.0, gamma).astype(np.float32)
        for k in range(1, n):
            weights.append(discount * going)
            factor = np.where(flag[k] & TERMINATED, 0.0, gamma)
            discount = np.where(going, discount * factor, discount)
            behind = np.where(going, at[k + 1], behind)
            going = going & ((flag[k + 1] & FINAL) == 0)
        factors = np.zeros((2, len(behind)), np.float32)
        start, final, valid = np.zeros((3, 2, len(behind)), bool)
        factors[0], final[1], valid[0] = discount, ~going, True
        reward, at = self._summed(at[:n], weights), np.stack([at[0], behind])
        parts = self.pick("obs", at), start, self.pick("action", at), None, reward, factors
        return Batch(*parts, final, valid)

    def _summed(self, at: np.ndarray, weights: list[np.ndarray]) -> Piece:
        """Return the weighted sums of rewards at [n, B] as row 0 of [2, B]."""
        source = flattened(self.parts["reward"])
        if not isinstance(source, np.ndarray):
            return Summed(source, at, weights)
        rewards, reward = source.take(at, 0), np.zeros((2, at.shape[1]), np.float32)
        total = rewards[0]
        for weight, behind in zip(weights, rewards[1:], strict=True):
            total = total + weight * behind
        reward[0] = total
        return reward

    def sequences(
        self,
        indices: Indices,
        length: int,
        gamma: float,
        burn_in: int = 0,
        stop: np.ndarray | None = None,
    ) -> Batch:
        """Return sequences of `length` steps with the memory before their first row.

        Valid are the steps behind the burn-in and before row `stop` [B]. What would lie behind a
        column's newest row is that row again, which is a FINAL one.
        """
        row = indices.row + np.arange(length + 1)[:, None]
        at = self.places(np.minimum(row, self.last[indices.column]), indices.column)
        memory = self.entries(*indices)
        flag = self.read("flag", at)
        final = (flag & FINAL) > 0
        valid = ~final
        valid[:burn_in] = valid[-1] = False
        if stop is not None:
            valid &= row < stop
        return Batch(
            obs=self.pick("obs", at),
            start=(flag & START) > 0,
            action=self.pick("action", at),
            log_prob=None,
            reward=self._rewards(at),
            discount=np.where(flag & TERMINATED, 0.0, gamma).astype(np.float32),
            final=final,
            valid=valid,
            state=tree.map(lambda leaf: Pick(flattened(leaf), memory), self.states),
            starts=int(((flag[1:] & START) > 0).sum(0).max(initial=0)),
        )

    def _rewards(self, at: np.ndarray) -> Piece:
        """Return the rewards of rows [...]."""
        source = flattened(self.parts["reward"])
        return source.take(at, 0) if isinstance(source, np.ndarray) else Pick(source, at)

    # state

    def state_dict(self) -> dict[str, Any]:
        """Return all that has been written."""
        filled = int(min(self.last.max(initial=-1) + 1, self.length))
        entries = -(-filled // self.period)
        return {
            "parts": tree.map(lambda leaf: leaf[:filled], self.parts),
            "states": tree.map(lambda leaf: leaf[:entries], self.states),
            "last": self.last,
            "length": self.length,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; what an observation is shows only at the next turn."""
        expected = {"last": check_last, "length": schema.whole(0, schema.MAX_COUNTER)}
        schema.check(ROWS, state, expected | dict.fromkeys(TREES, schema.anything))
        self.last, self.length, self.parts, self.states = np.zeros(0, np.int64), 0, {}, None
        last = np.array(state["last"])
        n, newest = len(last), int(last.max(initial=-1))
        if newest < 0:  # no row was written
            return
        length = self._length(n)
        schema.check(f"{ROWS}/length", state["length"], schema.whole(length, length))
        filled = min(newest + 1, length)
        self._check_trees(state, filled, n)
        self.last, self.length, self.loaded = last, length, True
        self.parts = tree.map(lambda leaf: lengthened(leaf, length), state["parts"])
        entries = length // self.period
        self.states = tree.map(lambda leaf: lengthened(leaf, entries), state["states"])

    def _check_trees(self, state: dict[str, Any], filled: int, n: int) -> None:
        """Refuse leaves that do not begin with the rows and columns that were filled."""
        axes = partial(schema.check_axes, (filled, n), 2)
        memory = partial(schema.check_axes, (-(-filled // self.period), n), 2)
        flag = np.empty((filled, n), np.uint8)
        parts = {"obs": axes, "action": axes, "reward": flag.astype(np.float32), "flag": flag}
        schema.check(f"{ROWS}/parts", state["parts"], parts)
        states = schema.maybe(memory) if self.keeps_states else None
        schema.check(f"{ROWS}/states", state["states"], states)


class DeviceRows:
    """Writes turns of tensors, all rows at once, whoever has a step: of a fixed shape.

    last: int64 [N] on the device, the newest row of each column; -1 where there is none.
    """

    def __init__(self, last: Array):
        self.last, self.every = last, arange(len(last), last)

    def write(self, columns: Any, step: Transition, whole: bool, due: list[bool]) -> None:
        """Write a turn and what followed it; `whole`: every row has a step.

        due: whether the memory before the rows, and before those behind, is kept in any column.
        """
        at = (self.last + step.start).clamp(min=0)
        parts = columns.parts
        self._put(columns, parts["obs"], at, step.obs, step.valid, whole)
        self._put(columns, parts["obs"], at + 1, step.next_obs, step.valid, whole)
        done = parts["action"], parts["reward"]
        self._put(columns, done, at, (step.action, step.reward), step.valid, whole)
        if columns.states is not None:
            for row, state, needed in zip(
                (at, at + 1), (step.state, step.next_state), due, strict=True
            ):
                if needed:
                    self._keep(columns, row, state, step.valid)
        self.last = where(step.valid, at + 1, self.last)

    def _put(
        self, columns: Any, kept: Any, row: Array, leaves: Any, valid: Array, whole: bool
    ) -> None:
        here = row % columns.length

        def put(column: Array, leaf: Array) -> None:
            old = leaf if whole else where(valid, leaf, column[here, self.every])
            column[here, self.every] = old.to(column.dtype)

        tree.map(put, kept, leaves)

    def _keep(self, columns: Any, row: Array, state: State, valid: Array) -> None:
        """Keep the memory before rows where the columns' period divides them; None: an initial."""
        entry = row % columns.length // columns.period
        due = (row % columns.period == 0) & valid

        def keep(kept: Array, leaf: Array) -> None:
            kept[entry, self.every] = where(due, leaf, kept[entry, self.every])

        zeros = tree.map(lambda kept: kept[0] * 0, columns.states)
        tree.map(keep, columns.states, zeros if state is None else state)


def check_last(name: str, saved: Any) -> None:
    """Refuse what are not the newest rows [N]."""
    schema.whole(-1, schema.MAX_COUNTER)(name, saved)
    schema.check(name, saved, np.zeros(np.size(saved), np.int64))


def lengthened(leaf: np.ndarray, length: int) -> np.ndarray:
    """Return a copy of a leaf with zeros up to `length`."""
    made = np.zeros((length, *leaf.shape[1:]), leaf.dtype)
    made[: len(leaf)] = leaf
    return made


def flattened(leaf: np.ndarray) -> np.ndarray:
    """Return [T, N, ...] as [T N, ...]."""
    return leaf.reshape(-1, *leaf.shape[2:])


def ranges(low: np.ndarray, high: np.ndarray) -> Indices:
    """Return all rows from low [N] to before high [N], one column after the other."""
    count = np.maximum(high - low, 0)
    column = np.repeat(np.arange(len(low)), count)
    within = np.arange(len(column)) - np.repeat(count.cumsum() - count, count)
    return Indices(low[column] + within, column)


def host_turn(step: Transition) -> Transition:
    """Return a turn as NumPy arrays, but for the memory, which is kept seldom."""
    if isinstance(step.reward, np.ndarray):
        return step
    values = tuple(step._replace(state=None, next_state=None, seen=None))[:-1]
    found = iter(hosted(list(tree.leaves(values))))
    arrays = tree.map(lambda _: next(found), values)
    kept: dict[str, Any] = {"state": step.state, "next_state": step.next_state}
    return Transition(*arrays)._replace(**kept, whole=step.whole)


def check_replay_memory(needed: int, steps: int) -> None:
    """Refuse a replay that does not fit into the memory that is free."""
    what = f"buffer_size {steps:,}: a replay of as many steps"
    check_memory(needed, what, "take a smaller --buffer-size")
