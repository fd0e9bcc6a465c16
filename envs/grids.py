"""Maps of grid worlds, for pictures of a policy."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv


class Grid(NamedTuple):
    """A map whose cells are the states in reading order."""

    cells: list[str]  # one string a map row
    arrows: str  # one an action
    ends: str  # letters of cells without a decision


def grid_of(env: gym.Env) -> Grid | None:
    """Return the map of a FrozenLake or CliffWalking environment; None for any other."""
    inner = env.unwrapped
    if isinstance(inner, FrozenLakeEnv):
        return Grid(["".join(row) for row in np.asarray(inner.desc).astype(str)], "←↓→↑", "HG")
    if isinstance(inner, CliffWalkingEnv):
        cliff = [["C" if cell else "." for cell in row] for row in inner._cliff]
        cliff[3][0], cliff[3][11] = "S", "G"
        return Grid(["".join(row) for row in cliff], "↑→↓←", "CG")
    return None
