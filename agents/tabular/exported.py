"""A table as the steps of a policy that runs without seqrl (see `agents.npz_policy`)."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
import numpy as np

from seqrl.agents.npz_policy import Path, Step, choice, whole_path
from seqrl.agents.tabular.tabular_agent import TabularAgent


def table_steps(
    agent: TabularAgent, action_space: gym.spaces.Discrete
) -> tuple[Sequence[Path], Sequence[Step]]:
    """Return the paths to what is observed, and the steps from there to the greedy action."""
    index = agent.index
    paths = [whole_path(index.given, path) for path in (*index.paths, *index.real_paths)]
    # a digit is a dimension of width 1 that no tiling shifts
    first = np.array([start for start, *_ in index.digits], float)
    count = np.array([count for _, count, _ in index.digits], float)
    shifts = np.concatenate([np.zeros((index.tiles, len(first))), index.offsets], 1)
    ends = (first, index.low), (first + count - 1, index.high)
    spans = (np.ones_like(first), index.width), (count - 1, index.last)
    tile = "tile", *(np.concatenate(pair) for pair in (*ends, *spans)), shifts
    rows = "rows", index.strides, index.size * np.arange(index.tiles)
    best = choice(index.given, [int(action_space.n)], action_space.start)
    return paths, [tile, rows, ("mean", agent.q), best]
