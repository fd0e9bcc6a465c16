"""Q-learning on a table, with double learning, n steps, or Watkins's traces."""

from __future__ import annotations

from typing import ClassVar

import gymnasium as gym
import numpy as np

from seqrl.agents.schedules import Rate, linear
from seqrl.agents.tabular.indexing import TableIndex
from seqrl.agents.tabular.policy import EpsilonGreedy, Exploration
from seqrl.agents.tabular.table import best, greedy, value
from seqrl.agents.tabular.tabular_agent import Options, Step, TableArrays, TabularAgent
from seqrl.agents.tabular.td import credit, cut, forget, one_step, step_later, td_options
from seqrl.core.seeding import Seed


def q_learning(
    m: TableArrays, o: Options, i: int, s: Step, alpha: float, rate: float, rng: np.random.Generator
) -> None:
    """Q(S,A) <- Q(S,A) + alpha [R + gamma max_a Q(S',a) - Q(S,A)].

    Sutton & Barto (2018), the box of section 6.5, p. 131. Double learning: the box of 6.7, p. 136.
    Watkins's Q(lambda): section 12.10, p. 312; the trace is cut where an epsilon action was taken.
    """
    if s.start:
        forget(m, i)
    coin = int(rng.random() * 2.0) if o.double else 0
    if s.terminated:
        bootstrap = 0.0
    elif o.double:
        action = greedy(m.twins[coin], s.next_active, s.next_actions)
        bootstrap = value(m.twins[1 - coin], s.next_active, action)
    else:
        bootstrap = best(m.q, s.next_active, s.next_actions)
    if o.decay > 0.0:
        if value(m.q, s.active, s.action) < best(m.q, s.active, s.actions):
            cut(m, i)
        credit(m, o, i, s.active, s.action, s.reward + o.gamma * bootstrap, alpha)
    elif o.n_step > 1:
        step_later(m, o, i, s, bootstrap, alpha, coin)
    else:
        one_step(m, o, s.active, s.action, s.reward + o.gamma * bootstrap, alpha, coin)


class QLearning(TabularAgent):
    """Q-learning: off-policy control by one-step bootstrapping (Watkins, 1989).

    Args:
        observation_space: a countable space, or a TableIndex with bins or tiles.
        action_space: Discrete.
        learning_rate: step size alpha in [0, 1], a number or a schedule.
        gamma: discount in [0, 1].
        exploration: `EpsilonGreedy(epsilon)` or `Boltzmann(temperature)`.
        double: learn two tables, each bootstrapping from the other (van Hasselt, 2010).
        n_step: rewards before bootstrapping, at least 1 (uncorrected for exploration).
        trace_decay: lambda in [0, 1] of Watkins's Q(lambda); excludes n_step > 1 and double.
        trace: "accumulating" or "replacing".
        initial_value: of every entry; above all returns it is optimistic (2.6).
        seed: of the agent's own random numbers.
    """

    search_space: ClassVar[dict[str, str]] = {
        "learning_rate": "linear:{log:0.02:1}:0.01",
        "epsilon": "log:0.01:0.5",
        "n_step": "choice:1,2,4,8",
    }

    learn_step = staticmethod(q_learning)
    learns_from_others = True

    def __init__(
        self,
        observation_space: gym.Space | TableIndex,
        action_space: gym.Space,
        *,
        learning_rate: Rate = linear(0.1, 0.01),
        gamma: float = 0.99,
        exploration: Exploration = EpsilonGreedy(),
        double: bool = False,
        n_step: int = 1,
        trace_decay: float = 0.0,
        trace: str = "accumulating",
        initial_value: float = 0.0,
        seed: Seed = None,
    ):
        options = td_options(gamma, exploration.kind, n_step, trace_decay, trace, double=double)
        self.waiting_steps = n_step if n_step > 1 else 0
        numbers = learning_rate, options, exploration, initial_value, seed
        super().__init__(observation_space, action_space, *numbers)
