"""The newest steps of all environments, each learned from once: what is on policy."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.agents.experience.columns import NAME, Columns, Indices, host_turn, ranges
from seqrl.core import schema
from seqrl.core.packing import packed
from seqrl.core.types import Batch, Transition


class OnPolicy:
    """The steps since they were last taken.

    n_step, gamma: of the rewards of a step. A step is taken when n rewards and the action behind
        them are known (`waits`), or at its episode's end.
    steps: env steps of all environments between two calls of `take`, at most.
    memory: steps are taken as sequences, with the memory before them where `stored_state`.
    device: where batches are; None for NumPy arrays.
    """

    def __init__(
        self,
        n_step: int,
        gamma: float,
        *,
        waits: bool,
        steps: int,
        memory: bool = False,
        stored_state: bool = False,
        device: Any = None,
    ):
        self.n_step, self.gamma, self.memory, self.device = n_step, gamma, memory, device
        self.behind, self.steps = n_step - 1 + waits, steps
        smaller = "--n-step or --train-every"
        self.rows = Columns(0, states=memory and stored_state, smaller=smaller)
        self.cursor = self.opened = np.zeros(0, np.int64)  # first row not taken; of the episode

    def add(self, step: Transition) -> None:
        """Keep the valid steps of a turn."""
        step = host_turn(step)
        n = len(step.valid)
        if n != self.rows.count:
            self._set_capacity(n)
            self.rows.prepare(step)
            self.cursor, self.opened = np.zeros(n, np.int64), np.zeros(n, np.int64)
        envs = self.rows.add(step)
        last = self.rows.last[envs]
        over = (step.terminated | step.truncated)[envs]
        opens = step.start[envs] | over
        self.opened[envs[opens]] = np.where(over, last, last - 1)[opens]

    def _set_capacity(self, n: int) -> None:
        """Of four rows a turn two may be filler's, and each of the others be followed by FINAL."""
        self.rows.capacity = n * (4 * -(-self.steps // max(n, 1)) + self.behind + 8)

    def __len__(self) -> int:
        """How many rows can be taken."""
        return int((self._ready() - self.cursor).sum())

    def _ready(self) -> np.ndarray:
        last = self.rows.last
        ready = np.minimum(np.maximum(self.opened, last - self.behind), last)
        return np.maximum(ready, self.cursor)

    def take(self) -> Batch:
        """Return what can be learned from, once: sequences side by side, or steps by time."""
        begin, stop = self.cursor, self._ready()
        self.cursor = stop
        if self.memory:
            length = int((self.rows.last - begin).max())
            every = Indices(begin, np.arange(len(begin)))
            batch = self.rows.sequences(every, length, self.gamma, stop=stop)
            return packed([batch], self.device)[0]
        row, column = ranges(begin, stop)
        real = ~self.rows.is_final(row, column)
        order = np.argsort((row - begin[column])[real], kind="stable")
        steps = Indices(row[real][order], column[real][order])
        return packed([self.rows.steps(steps, self.n_step, self.gamma)], self.device)[0]

    def state_dict(self) -> dict[str, Any]:
        """Return the rows and what was taken of them."""
        return {"rows": self.rows.state_dict(), "cursor": self.cursor, "opened": self.opened}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        counts = dict.fromkeys(("cursor", "opened"), schema.whole(0, schema.MAX_COUNTER))
        schema.check(NAME, state, counts | {"rows": schema.anything})
        self._set_capacity(np.size(state["cursor"]))
        self.rows.load_state_dict(state["rows"])
        if not self.rows.count:
            return
        for name in counts:
            schema.check(f"{NAME}/{name}", state[name], np.zeros(self.rows.count, np.int64))
        self.cursor, self.opened = np.array(state["cursor"]), np.array(state["opened"])
