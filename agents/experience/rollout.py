"""Consecutive turns of all environments in arrays of a fixed shape: what is learned on policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from seqrl.core import schema, tree
from seqrl.core.arrays import as_float32, check_memory, host_copy, like, seen, zeros
from seqrl.core.picking import where
from seqrl.core.types import Array, Batch, State, Transition

NAME = "agent/store"  # of the store's entry in a checkpoint
NEWEST = "valid", "over", "bootstrap"  # of the newest turn, what the next one may change or ask
FLAGS = "valid", "over", "start"
Value = Callable[[Array, Array, State], Array]


class Rollout:
    """T turns of N environments, in the turns' kind of arrays.

    No row is inserted where an episode ends. So "bootstrap" [T + 1, N] of a batch's extra leaves
    holds the value of what followed a truncated step, and "over" where an episode ended. A row
    that is not valid is a `final` one: filler, what an exact end has split from its turn, or the
    last step of an episode that was left for a new one, of which nothing says what followed.

    turns: T, at least 1.
    gamma: of the discounts in a batch.
    value: from observations [N, ...], starts and memory [N, ...] to values [N]; asked at once, of
        what followed a truncated step with the memory after it.
    """

    def __init__(self, turns: int, gamma: float, value: Value):
        self.turns, self.gamma, self.value = turns, gamma, value
        self.rows: dict[str, Any] | None = None  # leaves [T + 1, N, ...]
        self.state: State = None  # memory [N, ...] before the first turn
        self.filled = 0  # turns
        self.told: list[list[np.ndarray]] = []  # of each FLAGS [N], as the host knows them
        self.split = False  # whether the newest one's other steps are still to come
        self.loaded = False  # from a checkpoint, and no turn has been seen since

    def __len__(self) -> int:
        """How many turns there are."""
        return self.filled

    @property
    def full(self) -> bool:
        """Whether all turns are there."""
        return self.filled == self.turns

    def add(self, step: Transition) -> None:
        """Keep a turn, and what followed it behind it."""
        turn = self._turn(step)
        if self.loaded:
            self._adopt(turn, step)
        if self.rows is None or len(self.rows["valid"][0]) != len(step.valid):
            size = sum(leaf.nbytes for leaf in tree.leaves(turn)) * (self.turns + 1)
            check_memory(size, f"a rollout of {self.turns:,} turns", "take a smaller --rollout")
            self.rows = tree.map(lambda leaf: zeros(self.turns + 1, leaf), turn)
            self.filled, self.split, self.told = 0, False, []
        known = seen(step)
        if self.split and (known.valid & self.told[-1][0]).any():
            self.filled, self.split = self.filled - 1, False  # its other steps never came
            self.told.pop()
        valid, over, bootstrap = (self.rows[name][self.filled - 1] for name in NEWEST)
        told = [known.valid, known.terminated | known.truncated, known.start]
        if self.split:
            told[0] = told[0] | self.told.pop()[0]
            turn["valid"] = turn["valid"] | valid
            turn["bootstrap"] = turn["bootstrap"] + bootstrap
            self.filled -= 1
        elif self.filled == 0:
            self.state = step.state
        else:
            self.rows["valid"][self.filled - 1] = valid & (over | ~step.start)
            self.told[-1][0] = self.told[-1][0] & (self.told[-1][1] | ~known.start)
        self.told.append(told)
        tree.put(self.rows, self.filled, turn)
        self.filled, self.split = self.filled + 1, not step.whole
        tree.put(self.rows, self.filled, {"obs": step.next_obs, "start": turn["over"]})

    def _turn(self, step: Transition) -> dict[str, Any]:
        if step.log_prob is None:
            schema.refuse("log_prob", None, "the log-probability of each action")
        reward = as_float32(step.reward)
        return {
            "obs": step.obs,
            "start": step.start,
            "action": step.action,
            "log_prob": as_float32(step.log_prob),
            "reward": reward,
            "noise": step.noise,
            "discount": as_float32(~step.terminated) * self.gamma,
            "valid": step.valid,
            "over": step.terminated | step.truncated,
            "bootstrap": self._bootstrap(step, reward),
        }

    def _bootstrap(self, step: Transition, reward: Array) -> Array:
        """Return the values [N] of what followed truncated steps, 0 elsewhere."""
        known = seen(step)
        if not (known.truncated & ~known.terminated & known.valid).any():
            return reward * 0
        cut = step.truncated & ~step.terminated & step.valid
        value = self.value(step.next_obs, cut & False, step.next_state)
        return as_float32(where(cut, value, cut * 0.0))

    def _adopt(self, turn: dict[str, Any], step: Transition) -> None:
        """Check that what was loaded fits the turn; bring it into the turn's kind of arrays.

        Turns of another number of environments are dropped.
        """
        self.loaded = False
        if self.rows is None or self.rows["valid"].shape[1] != len(step.valid):
            self.rows = self.state = None
        if self.rows is not None:
            first = tree.map(lambda leaf: leaf[0, 0], self.rows)
            schema.check(f"{NAME}/rows", first, tree.take(turn, 0))
        if self.state is not None:  # an initial one
            schema.check(f"{NAME}/state", self.state, step.next_state)
        self.rows, self.state = like((self.rows, self.state), step.valid)

    def take(self) -> Batch:
        """Return the turns that are there; they are gone."""
        rows: Any = tree.map(lambda leaf: leaf[: self.filled + 1], self.rows)
        rows["valid"][self.filled] = False
        extra = {name: rows.pop(name) for name in ("over", "bootstrap")}
        valid, over, start = map(np.array, zip(*self.told, strict=True))
        starts = start[1:].sum(0) + over[-1]
        self.rows, self.filled, self.told = None, 0, []
        known: Any = {"valid_count": int(valid.sum()), "starts": int(starts.max())}
        return Batch(**rows, final=~rows["valid"], state=self.state, extra=extra, **known)

    def state_dict(self) -> dict[str, Any]:
        """Return the turns that are there."""
        names = "rows", "state", "filled", "split"
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; what an observation is shows only at the next turn."""
        expected: dict[str, Any] = dict.fromkeys(("rows", "state"), schema.anything)
        expected |= {"filled": schema.whole(0, self.turns), "split": False}
        schema.check(NAME, state, expected)
        if state["rows"] is not None:
            axes = state["rows"]["valid"].shape
            schema.check_axes((self.turns + 1, *axes[1:]), 2, f"{NAME}/rows", state["rows"])
        self.filled, self.split, self.loaded = state["filled"], state["split"], True
        self.rows, self.state = tree.map(host_copy, (state["rows"], state["state"]))
        rows: Any = self.rows
        self.told = [[rows[name][t] for name in FLAGS] for t in range(self.filled)]
