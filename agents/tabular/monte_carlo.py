"""Monte Carlo control on a table: whole episodes, on and off policy."""

from __future__ import annotations

import math
from typing import ClassVar

import gymnasium as gym
import numpy as np

from seqrl.agents.schedules import Rate
from seqrl.agents.tabular.indexing import TableIndex
from seqrl.agents.tabular.policy import EpsilonGreedy, Exploration
from seqrl.agents.tabular.table import best, value
from seqrl.agents.tabular.tabular_agent import Options, Step, TableArrays, TabularAgent
from seqrl.agents.tabular.td import expected_after, forget, note, wait
from seqrl.core.checks import check_unit
from seqrl.core.seeding import Seed

HEAVIEST = 1e300  # importance weight: a product beyond 1e308 would be inf, and inf / inf is nan
INITIAL_LENGTH = 64  # steps of an episode that memory is allocated for at first


def monte_carlo(
    m: TableArrays, o: Options, i: int, s: Step, alpha: float, rate: float, rng: np.random.Generator
) -> None:
    """Keep the steps of an episode, and learn from all of them at its end.

    A truncated episode's return is completed with the value of what followed under the policy that
    is learned: the exploring one, off policy the greedy one.
    """
    if s.start:
        forget(m, i)
    wait(m, i, s)
    if not (s.terminated or s.truncated):
        return
    if s.terminated:
        bootstrap = 0.0
    elif o.off_policy:
        bootstrap = best(m.q, s.next_active, s.next_actions)
    else:
        bootstrap = expected_after(m, o, s, rate)
    if o.off_policy:
        learn_off_policy(m, o, i, bootstrap)
    else:
        learn_on_policy(m, o, i, bootstrap, alpha)
    m.waiting[i] = 0


def learn_on_policy(m: TableArrays, o: Options, i: int, bootstrap: float, alpha: float) -> None:
    """G <- gamma G + R, from the last step to the first; Q(S,A) moves towards the mean of G.

    Sutton & Barto (2018), the box of section 5.4, p. 101, with a bootstrap where truncated.
    With `average` the step size is 1 / visits; else it is alpha (eq. 6.1, p. 119).
    """
    last = m.waiting[i] - 1
    if o.first_visit:
        for t in range(last, -1, -1):  # the earliest visit is the last one written
            for j in m.active[i, t]:
                m.first[j, m.action[i, t]] = t
    g = bootstrap
    for t in range(last, -1, -1):
        g = o.gamma * g + m.reward[i, t]
        active, action = m.active[i, t], m.action[i, t]
        delta = g - value(m.q, active, action)
        note(m, delta)
        for j in active:
            if not o.first_visit or m.first[j, action] == t:
                m.weight[j, action] += 1.0
                step = 1.0 / m.weight[j, action] if o.average else alpha
                m.q[j, action] += step * delta


def learn_off_policy(m: TableArrays, o: Options, i: int, bootstrap: float) -> None:
    """Weighted importance sampling towards the greedy policy.

    Sutton & Barto (2018), the box of section 5.7, p. 111: C(S,A) += W, Q(S,A) += W/C [G - Q(S,A)],
    and no further back than the last action that is not greedy.
    """
    g, w = bootstrap, 1.0
    for t in range(m.waiting[i] - 1, -1, -1):
        g = o.gamma * g + m.reward[i, t]
        active, action = m.active[i, t], m.action[i, t]
        delta = g - value(m.q, active, action)
        note(m, delta)
        for j in active:
            m.weight[j, action] += w
            m.q[j, action] += w / m.weight[j, action] * delta
        if not was_greedy(m, i, t):
            return
        w = min(w / math.exp(m.log_prob[i, t]), HEAVIEST)


def was_greedy(m: TableArrays, i: int, t: int) -> bool:
    """Whether the action of a waiting step is the first of highest value that could be taken."""
    active, masked = m.active[i, t], m.forbidden.shape[2] > 0
    chosen, highest = -1, -math.inf
    for action in range(m.q.shape[1]):
        estimate = value(m.q, active, action)
        if estimate > highest and not (masked and m.forbidden[i, t, action]):
            chosen, highest = action, estimate
    return chosen == m.action[i, t]


class MonteCarlo(TabularAgent):
    """Monte Carlo control: learns from whole returns, without bootstrapping.

    Args:
        observation_space: a countable space, or a TableIndex with bins or tiles.
        action_space: Discrete.
        learning_rate: constant step size in [0, 1], or None for the average of all returns.
        gamma: discount in [0, 1]; 1 is the textbook's, and where an episode can wander a discount
            makes wandering look good.
        exploration: `EpsilonGreedy(epsilon)` or `Boltzmann(temperature)`.
        first_visit: learn from the first visit of a pair in an episode only.
        off_policy: learn the greedy policy by weighted importance sampling (every visit).
        initial_value: of every entry.
        seed: of the agent's own random numbers.
    """

    search_space: ClassVar[dict[str, str]] = {
        "epsilon": "log:0.01:0.5",
        "first_visit": "choice:true,false",
    }

    learn_step = staticmethod(monte_carlo)
    on_policy = True
    counts_visits = True
    waiting_steps = INITIAL_LENGTH
    spare = 0

    def __init__(
        self,
        observation_space: gym.Space | TableIndex,
        action_space: gym.Space,
        *,
        learning_rate: Rate | None = None,
        gamma: float = 1.0,
        exploration: Exploration = EpsilonGreedy(0.1),
        first_visit: bool = True,
        off_policy: bool = False,
        initial_value: float = 0.0,
        seed: Seed = None,
    ):
        check_unit("gamma", gamma)
        options = Options(float(gamma), exploration.kind, average=learning_rate is None, grows=True)
        options = options._replace(first_visit=first_visit, off_policy=off_policy)
        alpha = 0.0 if learning_rate is None else learning_rate
        numbers = alpha, options, exploration, initial_value, seed
        super().__init__(observation_space, action_space, *numbers)

    def _learn(self, i: int, step: Step) -> None:
        if self.arrays.waiting[i] == self.arrays.action.shape[1]:
            self.grow(2 * self.arrays.action.shape[1])
        super()._learn(i, step)

    def _length(self, saved: int) -> int:
        return max(saved, INITIAL_LENGTH)

    def grow(self, length: int) -> None:
        """Allocate memory for episodes of `length` steps."""
        m = self.arrays
        more = length - m.action.shape[1]
        if more > 0:
            grown = {
                name: np.pad(part, [(0, 0), (0, more)] + [(0, 0)] * (part.ndim - 2))
                for name, part in m._asdict().items()
                if name in ("active", "action", "reward", "log_prob", "forbidden")
            }
            self.arrays = m._replace(**grown)
