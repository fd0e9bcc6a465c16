"""The newest steps of all environments, each learned from once: what is on policy."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqrl.agents.experience.columns import Columns
from seqrl.agents.experience.replay import NAME
from seqrl.core import Transition, schema


class Rollout:
    """The steps since they were last taken, each of them once: what is on policy.

    n_step: rows that must follow a step before it is learned from, or its episode's end.
    waits: for one more, so that the action there is known.
    turns: most steps of all environments between two calls of `take`.
    """

    def __init__(self, n_step: int, *, waits: bool, steps: int, stored_state: bool):
        self.behind, self.steps = n_step - 1 + waits, steps
        self.rows = Columns(0, states=stored_state)
        self.cursor = self.opened = np.zeros(0, np.int64)  # first row not taken; of the episode

    def add(self, step: Transition) -> None:
        """Keep the valid rows of a turn."""
        n = len(step.valid)
        if n != self.rows.columns:
            self._make_room(n)
            self.rows.prepare(step)
            self.cursor, self.opened = np.zeros(n, np.int64), np.zeros(n, np.int64)
        told = self.rows.add(step)
        last = self.rows.last[told]
        over = (step.terminated | step.truncated)[told]
        opens = step.start[told] | over
        self.opened[told[opens]] = np.where(over, last, last - 1)[opens]

    def _make_room(self, n: int) -> None:
        """Of four rows a turn two may be filler's, and each of the others be followed by FINAL."""
        self.rows.capacity = n * (4 * -(-self.steps // n) + self.behind + 8)

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows of each column that can be learned from: from [N], to before [N]."""
        last, begin = self.rows.last, self.cursor
        ready = np.minimum(np.maximum(self.opened, last - self.behind), last)
        self.cursor = np.maximum(ready, begin)
        return begin, self.cursor

    def state_dict(self) -> dict[str, Any]:
        """The rows and what was taken of them."""
        return {"rows": self.rows.state_dict(), "cursor": self.cursor, "opened": self.opened}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse."""
        form = dict.fromkeys(("cursor", "opened"), schema.whole(0, schema.MAX_COUNTER))
        schema.check(NAME, state, form | {"rows": schema.anything})
        n = len(state["cursor"])
        self._make_room(n)
        self.rows.load_state_dict(state["rows"])
        for name in form:
            schema.check(f"{NAME}/{name}", state[name], np.zeros(self.rows.columns, np.int64))
        self.cursor, self.opened = np.array(state["cursor"]), np.array(state["opened"])
