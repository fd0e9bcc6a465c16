"""SARSA on a table: sampled or expected, n steps or traces."""

from __future__ import annotations

from typing import ClassVar

import gymnasium as gym
import numpy as np

from seqrl.agents.schedules import Rate, linear
from seqrl.agents.tabular.indexing import TableIndex
from seqrl.agents.tabular.policy import EpsilonGreedy, Exploration
from seqrl.agents.tabular.table import value
from seqrl.agents.tabular.tabular_agent import Options, Step, TableArrays, TabularAgent
from seqrl.agents.tabular.td import (
    credit,
    expected_after,
    forget,
    learn_oldest,
    one_step,
    step_later,
    td_options,
    wait,
)
from seqrl.core.seeding import Seed


def sarsa(
    m: TableArrays, o: Options, i: int, s: Step, alpha: float, rate: float, rng: np.random.Generator
) -> None:
    """Q(S,A) <- Q(S,A) + alpha [R + gamma Q(S',A') - Q(S,A)].

    Sutton & Barto (2018), the box of section 6.4, p. 130; it learns one step late, when the action
    A' that is really taken arrives. Where no action follows (truncation) the policy's expected
    value stands for it.
    """
    if s.start:
        forget(m, i)
    if m.waiting[i] == o.n_step:
        learn_waiting(m, o, i, value(m.q, s.active, s.action), alpha)
    wait(m, i, s)
    if s.terminated or s.truncated:
        bootstrap = 0.0 if s.terminated else expected_after(m, o, s, rate)
        while m.waiting[i] > 0:
            learn_waiting(m, o, i, bootstrap, alpha)


def learn_waiting(m: TableArrays, o: Options, i: int, bootstrap: float, alpha: float) -> None:
    """Learn from the oldest waiting step, by its trace where there is one."""
    if o.decay > 0.0:
        credit(m, o, i, m.active[i, 0], m.action[i, 0], m.reward[i, 0] + o.gamma * bootstrap, alpha)
        m.waiting[i] = 0
    else:
        learn_oldest(m, o, i, bootstrap, alpha, 0)


def expected_sarsa(
    m: TableArrays, o: Options, i: int, s: Step, alpha: float, rate: float, rng: np.random.Generator
) -> None:
    """Q(S,A) <- Q(S,A) + alpha [R + gamma sum_a pi(a|S') Q(S',a) - Q(S,A)].

    Sutton & Barto (2018), eq. 6.9, p. 133; n steps: eq. 7.7, p. 146. It needs no A' and so
    learns at once.
    """
    if s.start:
        forget(m, i)
    bootstrap = 0.0 if s.terminated else expected_after(m, o, s, rate)
    if o.decay > 0.0:
        credit(m, o, i, s.active, s.action, s.reward + o.gamma * bootstrap, alpha)
    elif o.n_step > 1:
        step_later(m, o, i, s, bootstrap, alpha, 0)
    else:
        one_step(m, o, s.active, s.action, s.reward + o.gamma * bootstrap, alpha)


class Sarsa(TabularAgent):
    """SARSA: on-policy control by bootstrapping (Rummery & Niranjan, 1994).

    Args:
        observation_space: a countable space, or a TableIndex with bins or tiles.
        action_space: Discrete.
        learning_rate: step size alpha in [0, 1], a number or a schedule.
        gamma: discount in [0, 1].
        exploration: `EpsilonGreedy(epsilon)` or `Boltzmann(temperature)`.
        expected: bootstrap from the policy's expected value instead of the action taken.
        n_step: rewards before bootstrapping, at least 1.
        trace_decay: lambda in [0, 1] of SARSA(lambda); excludes n_step > 1.
        trace: "accumulating" or "replacing".
        initial_value: of every entry; above all returns it is optimistic (2.6).
        seed: of the agent's own random numbers.
    """

    search_space: ClassVar[dict[str, str]] = {
        "learning_rate": "linear:{log:0.02:1}:0.01",
        "epsilon": "log:0.01:0.5",
        "n_step": "choice:1,2,4,8",
    }

    on_policy = True

    def __init__(
        self,
        observation_space: gym.Space | TableIndex,
        action_space: gym.Space,
        *,
        learning_rate: Rate = linear(0.1, 0.01),
        gamma: float = 0.99,
        exploration: Exploration = EpsilonGreedy(),
        expected: bool = False,
        n_step: int = 1,
        trace_decay: float = 0.0,
        trace: str = "accumulating",
        initial_value: float = 0.0,
        seed: Seed = None,
    ):
        options = td_options(gamma, exploration.kind, n_step, trace_decay, trace, expected=expected)
        self.learn_step = expected_sarsa if expected else sarsa
        self.waiting_steps = n_step
        self.spare = int(expected)  # else the action that follows is waited for
        numbers = learning_rate, options, exploration, initial_value, seed
        super().__init__(observation_space, action_space, *numbers)
