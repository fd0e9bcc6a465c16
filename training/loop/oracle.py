"""What an agent could have reached: the exact optimum of its task, where a model is known."""

from __future__ import annotations

from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np

from seqrl.agents.tabular.tabular_agent import TabularAgent
from seqrl.core.errors import UsageError
from seqrl.envs.adapter import Environments, Serial
from seqrl.envs.finite import Model, finite_model, time_limit
from seqrl.envs.optimum import MAX_DENSE_STATES, Optimum, optimum, reachable

EFFORT = 10**9  # products of a backward induction: some seconds
ROOM = 10**7  # numbers in its plan: 80 MB
HORIZON = 10_000  # env steps of the undiscounted optimum where the task has no time limit


class Oracle:
    """Measures agents on one finite model; made by `Oracle.of`."""

    def __init__(self, env: gym.Env[Any, Any], model: Model):
        self.model, self.limit = model, time_limit(env)
        self.seen = reachable(model)
        # the same arrays give the same answers, so every optimum is found once
        self.values = cache(lambda gamma: optimum(model, gamma).value)
        self.optimal_return = cache(self._optimal_return)

    @classmethod
    def of(cls, envs: Environments) -> Oracle | None:
        """The oracle of environments that publish their model, else None."""
        model = finite_model(envs.envs[0]) if isinstance(envs, Serial) else None
        return cls(envs.envs[0], model) if isinstance(envs, Serial) and model else None

    def metrics(self, agent: Any, mean_return: float) -> dict[str, float]:
        """What there is to say of an agent whose episodes brought `mean_return`.

        `optimal_return`: the mean undiscounted return of the best policy under the time limit, and
        `regret`, what is missing to it; both only where there is a limit. `value_error`, for
        tables at gamma < 1: see there.
        """
        found: dict[str, float] = {}
        best = self.optimal_return()
        if best is not None:
            found |= {"optimal_return": best, "regret": best - mean_return}
        error = self.value_error(agent)
        return found if error is None else {**found, "value_error": error}

    def value_error(self, agent: Any) -> float | None:
        """Root of the mean square of max_a Q(s, a) - v*(s), for a table at gamma < 1, else None.

        v* is the optimum discounted by the agent's gamma without end (truncation bootstraps). The
        mean is over the states in which an action can be asked for: those after the end, whose
        values nobody learns, and those that no policy reaches are left out. As in Sutton & Barto
        (2018), eq. 9.1, with equal weights.
        """
        if not (isinstance(agent, TabularAgent) and agent.options.gamma < 1):
            return None
        states = len(self.model.initial)
        if agent.index.space != gym.spaces.Discrete(states) or states > MAX_DENSE_STATES:
            return None
        gap = agent.q.max(1) - self.values(agent.options.gamma)
        return float(np.sqrt(np.mean(gap[self.seen] ** 2)))

    def _optimal_return(self) -> float | None:
        """The undiscounted optimum under the time limit, where it can be had within seconds."""
        size, states = self.model.probability.size, len(self.model.initial)
        if self.limit is None or size * self.limit > EFFORT or states * self.limit > ROOM:
            return None
        return optimum(self.model, 1.0, self.limit).start_value


def optimal(env: gym.Env[Any, Any], gamma: float, horizon: int = HORIZON) -> Optimum | None:
    """The best there is at discount gamma, or None where it cannot be had.

    At gamma 1 under the environment's time limit, or within `horizon` steps.
    """
    model = finite_model(env)
    if model is None:
        return None
    try:
        return optimum(model, gamma, (time_limit(env) or horizon) if gamma == 1 else None)
    except UsageError:  # too many states to be solved
        return None


def optimal_policy(env: gym.Env, gamma: float, horizon: int = HORIZON) -> np.ndarray | None:
    """The best actions [S] at an episode's start, as in `optimal`."""
    found = optimal(env, gamma, horizon)
    if found is None:
        return None
    return found.policy if found.policy.ndim == 1 else found.policy[0]
