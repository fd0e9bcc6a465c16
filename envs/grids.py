"""Grid worlds as maps, for whoever draws a policy."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv


class Grid(NamedTuple):
    """A map whose cells are the states in reading order."""

    cells: list[str]  # a string a row
    arrows: str  # one a action
    ends: str  # letters of cells where nothing is decided


def grid_of(env: gym.Env) -> Grid | None:
    """The map of a FrozenLake or CliffWalking environment; None for any other."""
    inner = env.unwrapped
    if isinstance(inner, FrozenLakeEnv):
        return Grid(["".join(row) for row in np.asarray(inner.desc).astype(str)], "←↓→↑", "HG")
    if isinstance(inner, CliffWalkingEnv):
        cliff = [["C" if cell else "." for cell in row] for row in inner._cliff]
        cliff[3][0], cliff[3][11] = "S", "G"
        return Grid(["".join(row) for row in cliff], "↑→↓←", "CG")
    return None
