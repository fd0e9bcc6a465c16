"""Agents as policies that run without seqrl: as a program of torch, or in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from seqrl.agents.npz_policy import npz, read_policy
from seqrl.agents.protocol import Agent
from seqrl.agents.tabular.exported import table_steps
from seqrl.agents.tabular.tabular_agent import TabularAgent
from seqrl.core import tree
from seqrl.core.errors import UsageError
from seqrl.core.types import Array


class Exported(NamedTuple):
    """A greedy policy that runs without seqrl."""

    data: bytes  # of its file
    play: Callable[[Array, np.ndarray], np.ndarray]  # from obs [N, ...], start [N] to actions,
    n: int = 1  # by what is in the file, for so many observations at once
    note: str = ""  # for who uses it


def to_npz(agent: Any, observation_space: gym.Space, action_space: Any) -> Exported:
    """Return the policy of a table or of a small plain network, as `read_policy` reads it."""
    if isinstance(agent, TabularAgent):
        data = npz(*table_steps(agent, action_space))
    else:
        check_network(agent)
        from seqrl.agents.deep.exported import network_steps

        data = npz(*network_steps(agent, observation_space, action_space))
    act = read_policy(BytesIO(data))

    def play(obs: Array, start: np.ndarray) -> np.ndarray:
        return np.stack([act(tree.take(obs, i)) for i in range(len(start))])

    return Exported(data, play)


def to_pt2(agent: Any, action_space: gym.Space, obs: Array) -> Exported:
    """Return the policy of an agent on a network as a program of torch.export.

    obs: a batch of one observation [1, ...].
    """
    if isinstance(agent, TabularAgent):
        raise UsageError("a table is no program of torch; export it to NAME.npz")
    check_network(agent)
    from seqrl.agents.deep.exported import program

    data, play, n = program(agent, action_space, obs)
    alone = "it takes one observation at a time: torch.export could not trace it for any number"
    return Exported(data, play, n, alone if n == 1 else "")


def check_network(agent: Agent) -> None:
    """Refuse an agent that is neither on a table of ours nor on a network."""
    from seqrl.agents.deep.network_agent import NetworkAgent

    own = isinstance(agent, NetworkAgent) and type(agent).greedy is not NetworkAgent.greedy
    if not own:
        problem = f"agent {type(agent).__name__}: how it acts greedily is not known"
        raise UsageError(f"{problem}; give it `greedy`, as agents on networks have, or seqrl.load")
