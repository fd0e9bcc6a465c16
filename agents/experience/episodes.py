"""Whole episodes of several environments, kept until they are over."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from seqrl.core import Array, Transition, schema, tree
from seqrl.core.arrays import host_copy, like, zeros

INITIAL_LENGTH = 64  # steps that there is room for at first


class EpisodeBatch(NamedTuple):
    """B finished episodes, each from its first step on, padded to the longest: [T, B, ...]."""

    obs: Any
    action: Array
    reward: Array
    last: Any  # what followed the last step [B, ...]
    terminated: Array  # bool [B]
    length: Array  # [B]


class EpisodeStore:
    """Columns that grow with the episodes under way, one an environment."""

    def __init__(self) -> None:
        self.columns: dict[str, Any] | None = None
        self.length: Any = None  # [N]
        self.bound = 0  # no column is longer; saves asking a device at every turn
        self.finished: list[EpisodeBatch] = []
        self.loaded = False  # from a checkpoint, and no turn has been seen since

    def add(self, step: Transition) -> None:
        """One turn; rows that are not valid are overwritten by the next one."""
        turn = {"obs": step.obs, "action": step.action, "reward": step.reward}
        if self.loaded:
            self._adopt(turn, step)
        if self.length is None or len(self.length) != len(step.valid):
            self.length = step.valid * 0
            self.columns = tree.map(lambda leaf: zeros(INITIAL_LENGTH, leaf), turn)
        # what was never finished is forgotten; a row that is not valid here may be under way, in
        # the other half of a turn that an exact end has split
        self.length = self.length * ~(step.start & step.valid)
        self._make_room()
        every = np.arange(len(self.length))
        length = self.length

        def write(column: Array, leaf: Array) -> None:
            column[length, every] = leaf

        tree.map(write, self.columns, turn)
        self.length = self.length + step.valid
        over = (step.terminated | step.truncated) & step.valid
        if bool(over.any()):
            self._finish(over, step)

    def _adopt(self, turn: dict[str, Any], step: Transition) -> None:
        """Take what was loaded as the turn's kind of arrays, if it fits the turn."""
        row, after = tree.take(turn, 0), tree.take(step.next_obs, 0)
        if self.columns is not None:
            first = tree.map(lambda leaf: leaf[0, 0], self.columns)
            schema.check("agent/store/columns", first, row)
        for i, batch in enumerate(self.finished):
            kept = {name: getattr(batch, name) for name in turn}
            first = tree.map(lambda leaf: leaf[0, 0], kept), tree.take(batch.last, 0)
            schema.check(f"agent/store/finished/{i}", first, (row, after))
        self.loaded, leaf = False, step.valid
        self.columns, self.length = like((self.columns, self.length), leaf)
        self.finished = [EpisodeBatch(*like(tuple(batch), leaf)) for batch in self.finished]

    def _make_room(self) -> None:
        assert self.columns is not None
        room = len(self.columns["reward"])
        if self.bound >= room:
            self.bound = int(self.length.max())
        if self.bound >= room:
            self.columns = tree.map(double, self.columns)
        self.bound += 1

    def _finish(self, over: Array, step: Transition) -> None:
        rows = over.nonzero()[0] if isinstance(over, np.ndarray) else over.nonzero()[:, 0]
        length = self.length[rows]
        longest = int(length.max())
        taken = tree.map(lambda column: column[:longest, rows], self.columns)
        last = tree.map(lambda leaf: leaf[rows], step.next_obs)
        self.finished.append(
            EpisodeBatch(**taken, last=last, terminated=step.terminated[rows], length=length)
        )
        self.length = self.length * ~over

    def __len__(self) -> int:
        """How many finished episodes there are."""
        return sum(len(batch.length) for batch in self.finished)

    def take(self) -> EpisodeBatch:
        """All finished episodes as one batch; they are gone from here."""
        batches, self.finished = self.finished, []
        if len(batches) == 1:
            return batches[0]
        longest = max(len(batch.reward) for batch in batches)
        timed = [
            tree.map(lambda leaf: padded(leaf, longest), (b.obs, b.action, b.reward))
            for b in batches
        ]
        obs, action, reward = tree.map(lambda *parts: join(parts, 1), *timed)
        rest = [(b.last, b.terminated, b.length) for b in batches]
        last, terminated, length = tree.map(lambda *parts: join(parts, 0), *rest)
        return EpisodeBatch(obs, action, reward, last, terminated, length)

    def state_dict(self) -> dict[str, Any]:
        """Episodes under way and finished ones that wait."""
        return {
            "columns": self.columns,
            "length": self.length,
            "finished": [batch._asdict() for batch in self.finished],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse."""
        self.bound, self.loaded = 1 << 60, True
        self.columns, self.length = tree.map(host_copy, (state["columns"], state["length"]))
        self.finished = [EpisodeBatch(**tree.map(host_copy, batch)) for batch in state["finished"]]


def check_episodes(name: str, saved: Any) -> None:
    """Refuse what no store has saved; what an observation is shows only at the next turn."""
    schema.check(name, saved, dict.fromkeys(("columns", "length", "finished"), schema.anything))
    columns, length = saved["columns"], saved["length"]
    if length is None:
        schema.check(f"{name}/columns", columns, None)
    else:
        axes = columns["reward"].shape
        keys = dict.fromkeys(("obs", "action", "reward"), partial(check_axes, axes, 2))
        schema.check(f"{name}/columns", columns, keys)
        check_lengths(axes, 0)(f"{name}/length", length)
    schema.each(check_batch)(f"{name}/finished", saved["finished"])


def check_batch(name: str, saved: Any) -> None:
    """Refuse what is no batch."""
    axes = saved["reward"].shape
    form = dict.fromkeys(EpisodeBatch._fields, partial(check_axes, axes, 2))
    form |= dict.fromkeys(("last", "terminated"), partial(check_axes, axes[1:], 1))
    schema.check(name, saved, form | {"length": check_lengths(axes, 1)})


def check_axes(axes: tuple[int, ...], count: int, name: str, saved: Any) -> None:
    """Refuse leaves whose first axes are others, or fewer than `count` or empty."""
    for leaf in [*tree.leaves(saved)] or [None]:
        shape = tuple(getattr(leaf, "shape", ()))
        if len(axes) < count or 0 in axes or shape[:count] != tuple(axes[:count]):
            schema.refuse(name, f"shape {list(shape)}", f"{count} first axes {list(axes[:count])}")


def check_lengths(axes: tuple[int, ...], least: int) -> schema.Check:
    """Whole numbers [N], none longer than there is room for."""
    room, n = axes

    def checked(name: str, saved: Any) -> None:
        check_axes((n,), 1, name, saved)
        schema.whole(least, room)(name, saved)

    return checked


def double(column: Array) -> Array:
    """The column with twice the room."""
    return join((column, column * 0), 0)


def padded(leaf: Array, length: int) -> Array:
    """[T, ...] with zeros up to `length`."""
    missing = length - len(leaf)
    return join((leaf, zeros(missing, leaf[0])), 0) if missing else leaf


def join(parts: Any, axis: int) -> Array:
    """Concatenate arrays or tensors."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts, axis)
    import torch

    return torch.cat(list(parts), axis)
