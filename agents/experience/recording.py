"""Recorded episodes as arrays: what they hold, which are the best, several recordings in one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from seqrl.core import tree
from seqrl.core.arrays import joined
from seqrl.core.checks import check_unit
from seqrl.core.errors import UsageError
from seqrl.core.types import Array

TIMED = ("obs", "action", "reward")  # leaves [R, ...]


class Recording(NamedTuple):
    """E episodes, the rows of one behind those of the other.

    Behind the last step of an episode stands a row with the observation that followed, at which
    nothing was done: an episode takes one row more than it has steps.
    """

    obs: Array  # leaves [R, ...]
    action: np.ndarray  # [R, ...]
    reward: np.ndarray  # [R]
    length: np.ndarray  # [E] steps, at least 1
    terminated: np.ndarray  # bool [E]: it ended by its rules, else it was cut off
    observation_space: Any
    action_space: Any
    about: Mapping[str, Any] = {}  # env, env_args, wrappers, ... as in a run's config

    @property
    def first(self) -> np.ndarray:
        """The row [E] that opens each episode."""
        return np.cumsum(self.length + 1) - self.length - 1

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted returns [E]."""
        return np.add.reduceat(self.reward * ~self.closing, self.first, dtype=np.float64)

    @property
    def closing(self) -> np.ndarray:
        """Whether a row [R] only closes its episode."""
        found = np.zeros(len(self.reward), bool)
        found[self.first + self.length] = True
        return found

    @property
    def steps(self) -> int:
        """Steps of all episodes."""
        return int(self.length.sum())

    def checked(self, name: str) -> Recording:
        """Return it; UsageError, by its name, for what holds no episodes or not all of them."""
        if {np.ndim(x) for x in (self.reward, self.length, self.terminated)} != {1}:
            raise UsageError(
                f"{name}: expected rewards [R], lengths and ends [E], of one axis each"
            )
        if not len(self.length):
            raise UsageError(f"{name}: there is no episode in it; record some")
        rows, episodes = int((self.length + 1).sum()), len(self.length)
        shapes = {len(leaf) for leaf in tree.leaves(tuple(self[:3]))}
        if shapes != {rows} or len(self.terminated) != episodes or self.length.min() < 1:
            found = f"lengths differ: {episodes:,} episodes are {rows:,} rows, those closing each"
            raise UsageError(f"{name}: {found} included; its arrays have {sorted(shapes)}")
        if not np.isfinite(self.reward).all():
            raise UsageError(f"{name}: a reward is not finite; leave that episode out")
        return self

    def of(self, episodes: np.ndarray) -> Recording:
        """Return some of the episodes, by number and in this order."""
        length = self.length[episodes]
        begins = np.cumsum(length + 1) - length - 1
        within = np.arange(int((length + 1).sum())) - np.repeat(begins, length + 1)
        rows = np.repeat(self.first[episodes], length + 1) + within
        obs, action, reward = tree.map(lambda leaf: leaf[rows], tuple(self[:3]))
        ends = {"length": length, "terminated": self.terminated[episodes]}
        return self._replace(obs=obs, action=action, reward=reward, **ends)

    def best(self, share: float) -> Recording:
        """Return the episodes of highest return, so many of all, at least one; in their order."""
        check_unit("best_share", share)
        count = max(1, round(share * len(self.length)))
        return self.of(np.sort(np.argsort(-self.returns, kind="stable")[:count]))

    def returns_to_go(self) -> np.ndarray:
        """Return the sum of the rewards from each row [R] to its episode's end; 0 behind it."""
        reward = np.where(self.closing, 0.0, self.reward).astype(np.float64)
        before = np.cumsum(reward) - reward
        return np.repeat(before[self.first] + self.returns, self.length + 1) - before

    @property
    def digest(self) -> str:
        """SHA-256 of what was recorded."""
        found = hashlib.sha256()
        for leaf in tree.leaves(tuple(self[:5])):
            found.update(f"{leaf.dtype} {leaf.shape}".encode())
            found.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        return found.hexdigest()


def together(recordings: Sequence[Recording], names: Sequence[str]) -> Recording:
    """Return the episodes of several recordings; UsageError, by their names, for other spaces."""
    first, *others = recordings
    for other, name in zip(others, names[1:], strict=True):
        for part in ("observation_space", "action_space"):
            one, two = getattr(first, part), getattr(other, part)
            if one != two:
                raise UsageError(f"{name}: its {part} is {two}, that of {names[0]} {one}")
        if (one := first.about.get("env")) != (two := other.about.get("env")):
            raise UsageError(f"{name}: it is of {two}, {names[0]} of {one}")
    if not others:
        return first
    leaves = [tuple(each[:5]) for each in recordings]
    parts = tree.map(lambda *each: joined(each, 0), *leaves)
    return first._replace(**dict(zip(Recording._fields, parts, strict=False)))
