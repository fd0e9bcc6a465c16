"""What an agent does, as arrays: policy and values over a whole task, and one episode."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.toy_text.blackjack import BlackjackEnv
from gymnasium.envs.toy_text.taxi import TaxiEnv

from seqrl.agents import Agent
from seqrl.agents.tabular import Tabular
from seqrl.core import Array, tree
from seqrl.envs import Environments
from seqrl.envs.blackjack import blackjack_model, index
from seqrl.envs.finite import finite_model
from seqrl.envs.grids import Grid, grid_of
from seqrl.training.interaction import Interaction
from seqrl.training.optimum import optimum, reachable
from seqrl.training.oracle import optimal

HORIZON = 10_000  # env steps that the undiscounted optimum looks ahead where nothing cuts episodes
SUMS, CARDS = range(11, 22), range(1, 11)  # of Blackjack's maps, as in Sutton & Barto, Figure 5.2
HAND = 20  # steps of a game of Blackjack at most


class Plan(NamedTuple):
    """Greedy actions [...] over states, and what they are worth [...] where that is known."""

    actions: np.ndarray
    values: np.ndarray | None


class Policy(NamedTuple):
    """What an agent does in every state of a task, and the best there is where it is known."""

    learned: Plan
    best: Plan | None
    wrong: np.ndarray  # bool [...]: a worse action than the best is taken where one is asked for
    asked: np.ndarray  # bool [...]: an action can be asked for; all where no model is known
    gamma: float


def plan(agent: Agent, obs: Array) -> Plan:
    """The greedy actions for observations [N, ...], each as if it opened an episode."""
    start = np.ones(len(next(tree.leaves(obs))), bool)
    return Plan(np.array(agent.act(obs, start, explore=False).action), values(agent, obs, start))


def values(agent: Any, obs: Array, start: Array) -> np.ndarray | None:
    """What the agent expects of observations [N, ...]; None where it has no opinion.

    A table's max Q, else what a method `values(obs, start)` of the agent says.
    """
    if isinstance(agent, Tabular):
        return np.array([agent.q[list(rows)].mean(0).max() for rows in agent.index(obs)])
    return agent.values(obs, start) if hasattr(agent, "values") else None


def gamma_of(agent: Any) -> float:
    """The agent's discount, 1 where it has none."""
    return float(getattr(getattr(agent, "options", agent), "gamma", 1.0))


@lru_cache(4)  # evaluations ask again and again
def best_of(env: gym.Env[Any, Any], gamma: float) -> tuple[Plan, np.ndarray, np.ndarray] | None:
    """The optimum of an environment's model, its Q [S, A], and where an action is asked for."""
    model, found = finite_model(env), optimal(env, gamma, HORIZON)
    if model is None or found is None:
        return None
    policy = found.policy if found.policy.ndim == 1 else found.policy[0]
    return Plan(policy, found.value), found.q, reachable(model)


def discrete_policy(agent: Agent, env: gym.Env[Any, Any], states: int) -> Policy:
    """The policy over observations 0 to states - 1, arrays [S]."""
    learned = plan(agent, np.arange(states))
    known, gamma = best_of(env, gamma_of(agent)), gamma_of(agent)
    if known is None:
        nowhere = np.zeros(states, bool)
        return Policy(learned, None, nowhere, ~nowhere, gamma)
    best, q, asked = known
    return Policy(learned, best, worse(q, learned.actions), asked, gamma)


def worse(q: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Where actions [S] are worth less than the best by q [S, A], beyond rounding."""
    taken = np.take_along_axis(q, actions[:, None], 1)[:, 0]
    return taken < q.max(1) - 1e-9 * (1 + abs(q).max())


def grid_policy(agent: Agent, env: gym.Env[Any, Any]) -> tuple[Grid, Policy] | None:
    """The policy over the cells of a grid world, arrays [rows, columns]; None where there is none.

    Where nothing is decided (holes, goals) no action is asked for.
    """
    grid = grid_of(env)
    cells = "".join(grid.cells) if grid else ""
    if grid is None or env.observation_space != gym.spaces.Discrete(len(cells)):
        return None
    found = discrete_policy(agent, env, len(cells))
    decided = ~np.isin(list(cells), list(grid.ends))
    return grid, _shaped(found, decided, (len(grid.cells), -1))


def taxi_policy(agent: Agent, env: gym.Env[Any, Any]) -> Policy | None:
    """The policy in Taxi, arrays [row, column, passenger, destination]; None elsewhere."""
    if not isinstance(env.unwrapped, TaxiEnv) or env.observation_space != gym.spaces.Discrete(500):
        return None
    return _shaped(discrete_policy(agent, env, 500), True, (5, 5, 5, 4))


def _shaped(found: Policy, decided: Any, shape: tuple[int, ...]) -> Policy:
    """The arrays in the task's own shape."""

    def shaped(x: Any) -> Any:
        return None if x is None else x.reshape(shape)

    learned, best = (p and Plan(*map(shaped, p)) for p in (found.learned, found.best))
    assert learned is not None
    asked = shaped(found.asked & decided)
    return Policy(learned, best, shaped(found.wrong) & asked, asked, found.gamma)


def blackjack_policy(agent: Agent, env: gym.Env[Any, Any]) -> Policy | None:
    """The policy in Blackjack, arrays [usable ace, sum 11-21, dealer's card 1-10]; None elsewhere.

    A usable ace makes at least 12, so its row of 11 is never asked for.
    """
    bare = env.unwrapped
    if not isinstance(bare, BlackjackEnv) or env.observation_space != bare.observation_space:
        return None
    ace, total, card = (x.ravel() for x in np.meshgrid((0, 1), SUMS, CARDS, indexing="ij"))
    learned = plan(agent, (total, card, ace))
    gamma = gamma_of(agent)
    states = [index((t, a), c) for a, t, c in zip(ace, total, card, strict=True)]
    policy, value, q = (x[states] for x in _blackjack(bare.sab, bare.natural, gamma))
    asked = ~((ace == 1) & (total == 11))
    wrong = worse(q, learned.actions)
    return _shaped(Policy(learned, Plan(policy, value), wrong, asked, gamma), True, (2, 11, 10))


@cache
def _blackjack(sab: bool, natural: bool, gamma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best actions, values and Q of a game's first step, from its exact model."""
    found = optimum(blackjack_model(sab, natural), gamma, HAND)
    return found.policy[0], found.value, found.q


class Played(NamedTuple):
    """One greedy episode of T steps."""

    obs: Array  # [T, ...] a tree
    rewards: np.ndarray  # [T]
    over: bool  # it came to its end; else it was left there


def play_episode(
    agent: Agent, envs: Environments, seed: np.random.SeedSequence | None, most: int
) -> Played:
    """The first episode that a seed gives in one environment, its first `most` steps."""
    loop = Interaction(agent, envs, learn=False)
    loop.reset(seed)
    seen: list[Any] = []
    rewards, ended = [], False
    while not ended and len(seen) < most:
        step, _, ended = loop.turn()
        seen.append(tree.row(step.obs, 0))
        rewards.append(float(step.reward[0]))
    obs = tree.map(lambda *leaves: np.stack(leaves), *seen)
    return Played(obs, np.array(rewards), ended)
