"""TMaze: a cue seen once, a long corridor, and a turn at its end that the cue determines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from seqrl.core.checks import check_flag, check_whole
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws


@dataclass(frozen=True)
class TMaze:
    """A corridor from the oracle (x = 0) to a junction, with an arm up (y = 1) and one down (-1).

    The junction is `length` cells from the start. Passive: the start is the oracle. `active`: the
    oracle is one cell to the left of the start, and must be visited first.
    Observation: float32 [2] = (1 at the junction and in its arms, else 0; the goal's y at the
    first visit of the oracle, the agent's y in the arms, else 0). Actions: 0 right, 1 up, 2 left,
    3 down; into a wall nothing moves.
    The episode terminates after length+1 steps (active: length+3), just enough; it cannot end
    sooner, and the end is a rule of the task, no truncation. Reward at the last step 1 in
    the goal's arm, else 0; at every other step -1/length where x < t (active: t-1) after t steps,
    that is, for each step behind the fastest way, in all at most 1 (active: 1 + 1/length).
    Source: Ni et al. 2023, "When Do Transformers Shine in RL?", after Bakker 2002.
    """

    length: int = 10
    active: bool = False

    def __post_init__(self) -> None:
        check_whole("length", self.length)
        check_flag("active", self.active)

    @property
    def observation_space(self) -> spaces.Box:
        """Return the space of (at the junction or in its arms, cue or agent's y)."""
        return spaces.Box(-1.0, 1.0, (2,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """Return the space of directions."""
        return spaces.Discrete(4)

    @property
    def start(self) -> int:
        """Return the x where episodes begin; the oracle is at 0."""
        return int(self.active)

    @property
    def junction(self) -> int:
        """Return the x of the junction."""
        return self.start + self.length

    @property
    def horizon(self) -> int:
        """Return the length of every episode."""
        return self.length + 1 + 2 * self.start

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the initial state of N new episodes; the goal is up or down, equally likely."""
        goal = 2 * draws.integers(2, n) - 1
        return {"goal": goal, "cue": 1 * goal, "x": 0 * goal + self.start, "y": 0 * goal}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return the observations, float32 [N, 2]."""
        x = episodes["x"]
        seen = xp.zeros((len(x), 2), dtype=xp.float32, device=x.device)
        seen[:, 0] = x == self.junction
        seen[:, 1] = episodes["y"] + episodes["cue"] * (x == 0)
        return seen

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Move along the corridor, or into and out of the arms; the cue is shown only once."""
        time, x, y = episodes["time"], episodes["x"], episodes["y"]
        vertical = action % 2 == 1
        direction = 1 - action + vertical  # right and up +1, left and down -1
        moved = {
            "cue": episodes["cue"] * (x != 0),
            "x": (x + direction * (~vertical & (y == 0))).clip(0, self.junction),
            "y": (y + direction * (vertical & (x == self.junction))).clip(-1, 1),
        }
        terminated = time == self.horizon
        found = xp.asarray(moved["y"] == episodes["goal"], dtype=xp.float32)
        late = xp.asarray(moved["x"] < time - self.start, dtype=xp.float32)
        return moved, xp.where(terminated, found, 0.0 - late / self.length), terminated

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the way to the goal, by the oracle where it was not visited and there is time.

        Unknown at a junction that was reached without its word: nothing seen tells the arm.
        """
        x, time = episodes["x"], episodes["time"]
        told = (x == 0) | (episodes["cue"] == 0)
        back = ~told & (time + x + self.junction < self.horizon)  # and there is one step more
        there = x == self.junction
        turn = 2 - episodes["goal"]  # up 1, down 3
        return xp.where(there, turn, 2 * back), told | ~there

    def scores(self) -> dict[str, float]:
        """Return exact reference scores.

        Without memory the junction looks the same for both cues, and after a visit of the oracle
        there is time for a single step there: at best half the goals are reached.
        """
        return {"optimum": 1.0, "memoryless": 0.5, "random": self._random()}

    def _random(self) -> float:
        """Return the random policy's expected return, from the distribution of its position."""
        corridor = np.eye(self.junction + 1)[self.start]
        arms, paid = 0.0, 0.0
        for time in range(1, self.horizon + 1):
            quarter = corridor / 4
            corridor = 2 * quarter  # up and down are walls
            corridor[1:] += quarter[:-1]
            corridor[:-1] += quarter[1:]
            corridor[0] += quarter[0]
            corridor[-1] += arms / 4 - quarter[-1]  # of up, down and right only right is a wall
            arms = arms * 3 / 4 + 2 * quarter[-1]
            if time < self.horizon:
                paid += corridor[: max(0, time - self.start)].sum() / self.length
        return float(arms / 2 - paid)
