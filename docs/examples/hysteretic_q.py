"""Hysteretic Q-learning: steps down are smaller than steps up (Matignon et al., 2007, eq. 5)."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from seqrl.agents.schedules import Rate, linear
from seqrl.agents.tabular.indexing import TableIndex
from seqrl.agents.tabular.policy import EpsilonGreedy, Exploration
from seqrl.agents.tabular.table import best, value
from seqrl.agents.tabular.tabular_agent import Options, Step, TableArrays, TabularAgent
from seqrl.agents.tabular.td import one_step
from seqrl.core.seeding import Seed

SHARE = 0.5  # of the step size, for a target below the value


def hysteretic_q(
    m: TableArrays, o: Options, i: int, s: Step, alpha: float, rate: float, rng: np.random.Generator
) -> None:
    """Q(S,A) <- Q(S,A) + (alpha or SHARE alpha) [R + gamma max_a Q(S',a) - Q(S,A)]."""
    target = s.reward
    if not s.terminated:
        target += o.gamma * best(m.q, s.next_active, s.next_actions)
    if target < value(m.q, s.active, s.action):
        alpha *= SHARE
    one_step(m, o, s.active, s.action, target, alpha)


class HystereticQ(TabularAgent):
    """Hysteretic Q-learning, for rewards that other agents spoil.

    Args:
        observation_space: a countable space, or a TableIndex with bins or tiles.
        action_space: Discrete.
        learning_rate: step size alpha in [0, 1], a number or a schedule.
        gamma: discount in [0, 1].
        exploration: `EpsilonGreedy(epsilon)` or `Boltzmann(temperature)`.
        seed: of the agent's own random numbers.
    """

    learn_step = staticmethod(hysteretic_q)

    def __init__(
        self,
        observation_space: gym.Space | TableIndex,
        action_space: gym.Space,
        *,
        learning_rate: Rate = linear(0.1, 0.01),
        gamma: float = 0.99,
        exploration: Exploration = EpsilonGreedy(),
        seed: Seed = None,
    ):
        numbers = learning_rate, Options(gamma, exploration.kind), exploration, 0.0, seed
        super().__init__(observation_space, action_space, *numbers)
