"""Catch: a ball falls down a small board of pixels, a paddle on the bottom row must be under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from seqrl.core.checks import check_whole
from seqrl.core.types import Array
from seqrl.envs.batched import Episodes
from seqrl.envs.draws import Draws


@dataclass(frozen=True)
class Catch:
    """The ball starts on the top row in a random column and falls a row a step.

    Observation: uint8 [rows, columns, 1], 255 where ball and paddle are, else 0. Actions: 0 left,
    1 stay, 2 right; the paddle starts in the middle (column `columns // 2`) and stops at the walls.
    Reward 0 until the ball is on the bottom row after rows-1 steps, then +1 if the paddle is there
    too, else -1, and the episode terminates. Source: bsuite (Osband et al. 2020), after Mnih et
    al. 2014, "Recurrent Models of Visual Attention".
    """

    rows: int = 10
    columns: int = 5

    def __post_init__(self) -> None:
        check_whole("rows", self.rows, 2)
        check_whole("columns", self.columns, 2)

    @property
    def observation_space(self) -> spaces.Box:
        """Return the space of board images, channel last."""
        return spaces.Box(0, 255, (self.rows, self.columns, 1), np.uint8)

    @property
    def action_space(self) -> spaces.Discrete:
        """Return the space of moves."""
        return spaces.Discrete(3)

    @property
    def horizon(self) -> int:
        """Return the length of every episode."""
        return self.rows - 1

    def begin(self, draws: Draws, n: int) -> Episodes:
        """Return the initial state of N new episodes."""
        ball = draws.integers(self.columns, n)
        return {"ball": ball, "paddle": 0 * ball + self.columns // 2}

    def observe(self, xp: Any, episodes: Episodes) -> Array:
        """Return the boards, uint8 [N, rows, columns, 1]."""
        time = episodes["time"]
        shape = len(time), self.rows, self.columns, 1
        boards = xp.zeros(shape, dtype=xp.uint8, device=time.device)
        i = xp.arange(len(time), device=time.device)
        boards[i, time, episodes["ball"]] = 255
        boards[i, self.rows - 1, episodes["paddle"]] = 255
        return boards

    def advance(self, xp: Any, episodes: Episodes, action: Array) -> tuple[Episodes, Array, Array]:
        """Move the paddles and compute the rewards."""
        paddle = (episodes["paddle"] + action - 1).clip(0, self.columns - 1)
        terminated = episodes["time"] == self.horizon
        caught = xp.asarray(paddle == episodes["ball"], dtype=xp.float32)
        return {"paddle": paddle}, xp.where(terminated, 2 * caught - 1, 0.0), terminated

    def answer(self, xp: Any, episodes: Episodes) -> tuple[Array, Array]:
        """Return the move towards the ball's column."""
        ball, paddle = episodes["ball"], episodes["paddle"]
        return (ball - paddle).clip(-1, 1) + 1, ball >= 0

    def scores(self) -> dict[str, float]:
        """Return exact reference scores; memory adds nothing, as the board is fully observed.

        The random paddle moves independently of the ball, which is in any given column with
        probability 1/columns.
        """
        middle = self.columns // 2
        reached = sum(abs(column - middle) <= self.horizon for column in range(self.columns))
        optimum = 2 * reached / self.columns - 1
        return {"optimum": optimum, "memoryless": optimum, "random": 2 / self.columns - 1}
