"""The store of recorded episodes, drawn in random order, pass after pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.agents.experience.recording import Recording
from seqrl.core import schema, tree
from seqrl.core.errors import UsageError
from seqrl.core.types import Batch

NAME = "data"  # of its entry in a checkpoint
PARTS = ("digest", "seed", "position", "count")
SEEDS = 2**53  # of orders: a whole number that JSON keeps


class Dataset:
    """Batches of a recording: whole episodes as columns, or single steps for no memory.

    A pass goes through all of them in an order that is drawn for it. It never decides when to
    learn.
    """

    def __init__(self, recording: Recording):
        self.recording = recording.checked("recording")
        self.digest = recording.digest
        rows, ends = len(recording.reward), recording.first + recording.length
        self.opens, self.terminal = np.zeros((2, rows), bool)
        self.opens[recording.first] = True
        self.terminal[ends - 1] = recording.terminated
        self.ends = np.full(rows, -1)  # the episode whose last step a row is
        self.ends[ends - 1] = np.arange(len(ends))
        self.step_rows = np.flatnonzero(~recording.closing)
        self.returns = recording.returns
        self.restart()

    def __len__(self) -> int:
        """How many episodes there are."""
        return len(self.recording.length)

    def restart(self) -> None:
        """Begin a new pass with the next draw."""
        self.seed, self.position = -1, 0  # of the pass; how much of it was drawn
        self._order = np.zeros(0, np.int64)

    def sample(self, size: int, rng: np.random.Generator, *, whole: bool = False) -> Batch:
        """Return the next `size` steps, each a column [2, B], or `whole` episodes [T + 1, B].

        What was done is the answer, and known. `indices` [T + 1, B] are rows of the recording.
        """
        made = self.recording
        if whole:
            episode = self._next(size, rng, len(self))
            first, length = made.first[episode], made.length[episode]
        else:
            first = self.step_rows[self._next(size, rng, len(self.step_rows))]
            length = np.ones(size, np.int64)
        time = np.arange(int(length.max()) + 1)[:, None]
        at, inside = first + np.minimum(time, length), time < length
        obs, action, reward = tree.map(lambda leaf: leaf[at], tuple(made[:3]))
        return Batch(
            obs=obs,
            start=self.opens[at] & inside,
            action=action,
            log_prob=None,
            reward=reward.astype(np.float32),
            discount=(~(self.terminal[at] & inside)).astype(np.float32),
            final=~inside,
            valid=inside,
            answer=(action, inside),
            indices=at,
        )

    def _next(self, size: int, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return the next numbers of the passes through `count`."""
        found = []
        while size:
            if len(self._order) != count or self.position == count:
                self._begin(int(rng.integers(SEEDS)), count)
            part = self._order[self.position : self.position + size]
            self.position += len(part)
            size -= len(part)
            found.append(part)
        return np.concatenate(found)

    def _begin(self, seed: int, count: int) -> None:
        self.seed, self.position = seed, 0
        self._order = np.random.default_rng(seed).permutation(count)

    def state_dict(self) -> dict[str, Any]:
        """Return which data these are, and where in which pass the next draw begins."""
        place = {name: getattr(self, name) for name in ("seed", "position")}
        return {"digest": self.digest, **place, "count": len(self._order)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; refuse other data."""
        schema.check(NAME, state, dict.fromkeys(PARTS, schema.anything))
        if str(state["digest"]) != self.digest:
            found = "they are not those that were learned from before"
            raise UsageError(f"recorded episodes: {found}; go on with the same ones")
        count = state["count"]
        schema.whole(0, len(self.step_rows), ())(f"{NAME}/count", count)
        schema.whole(0, count, ())(f"{NAME}/position", state["position"])
        schema.whole(0 if count else -1, SEEDS, ())(f"{NAME}/seed", state["seed"])
        self.restart()
        if count:
            self._begin(state["seed"], count)
        self.position = state["position"]
