"""Adding: the sum of the two numbers that were marked in a long sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from seqrl.core.checks import check_whole
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws, pick


@dataclass(frozen=True)
class Adding:
    """Of `length` numbers one in each half is marked; at the last step their sum is asked for.

    Observation: float32 [2] = (a number from [0, 1), 1 where it is marked, else 0). Action: Box
    [0, 2] of shape (1,). Reward at the last step minus the squared error, else 0; only there an
    answer is known. Source: the adding problem of Hochreiter and Schmidhuber 1997, "Long Short-Term
    Memory", experiment 4, with numbers and targets as in Le et al. 2015, "A Simple Way to
    Initialize Recurrent Networks".
    """

    length: int = 100

    def __post_init__(self) -> None:
        check_whole("length", self.length, 2)

    @property
    def observation_space(self) -> spaces.Box:
        """Return the space of (number, mark)."""
        return spaces.Box(0.0, 1.0, (2,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """Return the space of sums."""
        return spaces.Box(0.0, 2.0, (1,), np.float32)

    @property
    def horizon(self) -> int:
        """Return the length of every episode."""
        return self.length

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return numbers and marks [N, length] of N new episodes, and the sums [N]."""
        half, xp = self.length // 2, draws.xp
        numbers = draws.uniform(n, self.length)
        first, second = draws.integers(half, n), half + draws.integers(self.length - half, n)
        place = xp.arange(self.length, device=first.device)[None]
        marks = (place == first[:, None]) | (place == second[:, None])
        total = pick(xp, numbers, first) + pick(xp, numbers, second)
        return {"numbers": numbers, "marks": marks, "total": total}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return a number and whether it is marked, float32 [N, 2]."""
        time = episodes["time"]
        mark = xp.asarray(pick(xp, episodes["marks"], time), dtype=xp.float32)
        return xp.stack([pick(xp, episodes["numbers"], time), mark], -1)

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Compare with the sum at the end."""
        over = episodes["time"] == self.length
        error = action[:, 0] - episodes["total"]
        return {}, xp.where(over, -error * error, 0.0), over

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the sum, known at the last step alone; 0 before, which tells nothing of it."""
        known = episodes["time"] == self.length - 1
        return xp.where(known, episodes["total"], 0.0)[:, None], known

    def scores(self) -> dict[str, float]:
        """Return exact reference scores.

        The variance of a number is 1/12. Without memory both are unknown at the last step, but
        where its own is marked, one is known. The random sum is of variance 1/3 and mean 1.
        """
        marked = 1 / (self.length - self.length // 2)
        return {"optimum": 0.0, "memoryless": -(2 - marked) / 12, "random": -(1 / 6 + 1 / 3)}
