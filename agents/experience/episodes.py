"""Whole episodes of several environments, kept until they are over."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from seqrl.core import schema, tree
from seqrl.core.arrays import arange, as_float32, host_copy, joined, like, seen, zeros
from seqrl.core.picking import column_picker, rows_where, sent_to
from seqrl.core.types import Array, Batch, Seen, Transition

INITIAL_LENGTH = 64  # steps that memory is allocated for at first
NAME = "agent/store"  # of the store's entry in a checkpoint
TOLD = ("answer", "noise")  # leaves [T, N, ...] that may be None
TIMED = ("obs", "action", "reward", *TOLD)  # leaves [T, N, ...]
ENDS = ("last", "terminated", "length")  # leaves [N, ...]: what followed, and how long it was


class Episodes:
    """Episodes under way, one an environment, and finished ones, in the turns' kind of arrays.

    gamma: of the discounts in a batch.
    """

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.columns: dict[str, Any] | None = None  # TIMED, of the episodes under way
        self.length: Any = None  # [N] on the host
        self.place: Any = None  # [N] the same on the columns' device, None where that is the host
        self.bound = 0  # no column is longer; saves looking at every turn
        self.older: Any = None  # bool [N] on the host: under way since before the last `take`
        self.finished: list[dict[str, Any]] = []  # TIMED and ENDS, of episodes that ended together
        self.loaded = False  # from a checkpoint, and no turn has been seen since

    def add(self, step: Transition) -> None:
        """Keep a turn; rows that are not valid are overwritten by the next one."""
        turn = {name: getattr(step, name) for name in TIMED}
        if self.loaded:
            self._adopt(turn, step)
        if self.length is None or len(self.length) != len(step.valid):
            self.length, self.older = np.zeros(len(step.valid), np.int64), None
            self.place = self._placed(step)
            self.columns = tree.map(lambda leaf: zeros(INITIAL_LENGTH, leaf), turn)
        # what was never finished is forgotten; a row that is not valid here may be under way, in
        # the other half of a turn that an exact end has split
        known = seen(step)
        self.length = place = self.length * ~(known.start & known.valid)
        if self.place is not None:
            place = self.place * ~(step.start & step.valid)
        if self.older is not None:
            self.older = self.older & (self.length > 0)
        self._reserve()
        every = arange(len(place), place)

        def write(column: Array, leaf: Array) -> None:
            column[place, every] = leaf

        tree.map(write, self.columns, turn)
        self.length = self.length + known.valid
        if self.place is not None:
            self.place = place + step.valid
        if known.over.any():
            self._finish(known, step)

    def _adopt(self, turn: dict[str, Any], step: Transition) -> None:
        """Check that what was loaded fits the turn; bring it into the turn's kind of arrays."""
        row = tree.take(turn, 0)
        if self.columns is not None:
            first = tree.map(lambda leaf: leaf[0, 0], self.columns)
            schema.check(f"{NAME}/columns", first, row)
        for i, ended in enumerate(self.finished):
            first = tree.map(lambda leaf: leaf[0, 0], {name: ended[name] for name in TIMED})
            both = first, tree.take(ended["last"], 0)
            schema.check(f"{NAME}/finished/{i}", both, (row, tree.take(step.next_obs, 0)))
        self.columns = like(self.columns, step.valid)
        for ended in self.finished:
            ended |= like({name: ended[name] for name in (*TIMED, "last")}, step.valid)
        if self.length is not None:
            self.place = self._placed(step)
        self.loaded = False

    def _placed(self, step: Transition) -> Any:
        return None if isinstance(step.valid, np.ndarray) else like(self.length, step.valid)

    def _reserve(self) -> None:
        """Double the columns where one is full."""
        assert self.columns is not None
        allocated = len(self.columns["reward"])
        if self.bound >= allocated:
            self.bound = int(self.length.max())
        if self.bound >= allocated:
            self.columns = tree.map(lambda leaf: padded(leaf, 2 * allocated), self.columns)
        self.bound += 1

    def _finish(self, known: Seen, step: Transition) -> None:
        envs, over = np.flatnonzero(known.over), (step.terminated | step.truncated) & step.valid
        length = self.length[envs]
        longest, pick = int(length.max()), column_picker(rows_where(over, len(envs)), over)
        ended = tree.map(lambda column: pick(column[:longest], 1), self.columns)
        ended["last"] = tree.map(lambda leaf: pick(leaf, 0), step.next_obs)
        self.finished.append(ended | {"terminated": known.terminated[envs], "length": length})
        self.length = self.length * ~known.over
        if self.place is not None:
            self.place = self.place * ~over

    def __len__(self) -> int:
        """How many finished episodes there are."""
        return sum(len(ended["length"]) for ended in self.finished)

    @property
    def steps(self) -> int:
        """How many steps the finished episodes have."""
        return sum(int(ended["length"].sum()) for ended in self.finished)

    @property
    def waits(self) -> bool:
        """Whether an episode is under way that began before the last `take`."""
        return self.older is not None and bool((self.older & (self.length > 0)).any())

    def take(self) -> Batch:
        """Return all finished episodes, each a column from its first step on; they are gone."""
        finished, self.finished = self.finished, []
        self.older = None if self.length is None else self.length > 0
        longest = max(len(ended["reward"]) for ended in finished)

        def side_by_side(*leaves: Array) -> Array:
            return joined([padded(leaf, longest + 1) for leaf in leaves], 1)

        timed = [{name: ended[name] for name in TIMED} for ended in finished]
        found = tree.map(side_by_side, *timed)
        last = tree.map(lambda *leaves: joined(leaves, 0), *(ended["last"] for ended in finished))
        told = [np.concatenate([ended[name] for ended in finished]) for name in ENDS[1:]]
        terminated, length = sent_to(found["reward"], np.stack(told))
        each = arange(len(length), length)

        def close(leaf: Array, last: Array) -> None:
            leaf[length, each] = last

        tree.map(close, found["obs"], last)
        time = arange(longest + 1, length)[:, None]
        inside = time < length
        over = (time == length - 1) & (terminated > 0)
        discount = as_float32(~over) * as_float32(np.array(self.gamma)).item()
        return Batch(
            obs=found["obs"],
            start=(time == 0) & inside,
            action=found["action"],
            log_prob=None,
            reward=as_float32(found["reward"]),
            discount=discount,
            final=~inside,
            valid=inside,
            answer=found["answer"],
            noise=found["noise"],
            valid_count=int(told[1].sum()),
            starts=0,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return episodes under way and finished ones that wait."""
        under_way = {"columns": self.columns, "length": self.length, "older": self.older}
        return {**under_way, "finished": list(self.finished)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; what an observation is shows only at the next turn."""
        check_episodes(NAME, state)
        self.bound, self.loaded = 1 << 60, True
        under_way = state["columns"], state["length"], state["older"]
        self.columns, self.length, self.older = tree.map(host_copy, under_way)
        self.finished = [tree.map(host_copy, ended) for ended in state["finished"]]


def check_episodes(name: str, saved: Any) -> None:
    """Refuse what no store has saved; what an observation is shows only at the next turn."""
    entries = "columns", "length", "older", "finished"
    schema.check(name, saved, dict.fromkeys(entries, schema.anything))
    columns, length = saved["columns"], saved["length"]
    flags = None if length is None else np.zeros(np.shape(length), bool)
    schema.check(f"{name}/older", saved["older"], schema.maybe(flags))
    if length is None:
        schema.check(f"{name}/columns", columns, None)
    else:
        axes = axes_of(f"{name}/columns", columns, TIMED)
        schema.check(f"{name}/columns", columns, timed_schema(axes))
        check_lengths(axes, 0)(f"{name}/length", length)
    schema.each(check_ended)(f"{name}/finished", saved["finished"])


def axes_of(name: str, saved: Any, names: tuple[str, ...]) -> tuple[int, ...]:
    """Return time and number of the columns under these names."""
    schema.check(name, saved, dict.fromkeys(names, schema.anything))
    axes = tuple(getattr(saved["reward"], "shape", ()))
    if len(axes) != 2:
        schema.refuse(f"{name}/reward", saved["reward"], "an array [T, N]")
    return axes


def timed_schema(axes: tuple[int, ...]) -> dict[str, Any]:
    """Return the schema of columns [T, N]; what is TOLD may be missing."""
    each = partial(schema.check_axes, axes, 2)
    return dict.fromkeys(TIMED, each) | dict.fromkeys(TOLD, schema.maybe(each))


def check_ended(name: str, saved: Any) -> None:
    """Refuse what are no episodes that ended together."""
    axes = axes_of(name, saved, (*TIMED, *ENDS))
    ends: dict[str, Any] = {"last": partial(schema.check_axes, axes[1:], 1)}
    ends |= {"terminated": np.zeros(axes[1], bool), "length": check_lengths(axes, 1)}
    schema.check(name, saved, timed_schema(axes) | ends)
    schema.check(f"{name}/last", saved["last"], tree.map(lambda leaf: leaf[0], saved["obs"]))


def check_lengths(axes: tuple[int, ...], least: int) -> schema.Check:
    """Return a check of whole numbers [N], none longer than the columns [T, N]."""
    longest, n = axes
    return schema.whole(least, longest, (n,))


def padded(leaf: Array, length: int) -> Array:
    """Return [T, ...] with zeros up to `length`."""
    missing = length - len(leaf)
    return joined((leaf, zeros(missing, leaf[0])), 0) if missing else leaf
