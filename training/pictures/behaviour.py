"""What an agent does, as arrays: policy and values over a whole task, and one episode."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.toy_text.blackjack import BlackjackEnv
from gymnasium.envs.toy_text.taxi import TaxiEnv

from seqrl.agents.protocol import Agent
from seqrl.core import tree
from seqrl.core.arrays import host
from seqrl.core.types import Array
from seqrl.envs.adapter import Environments
from seqrl.envs.blackjack import blackjack_model, index
from seqrl.envs.finite import finite_model
from seqrl.envs.grids import Grid, grid_of
from seqrl.envs.optimum import optimum, reachable
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.oracle import optimal

SUMS, CARDS = range(11, 22), range(1, 11)  # axes of Sutton & Barto's Figure 5.2
BLACKJACK_HORIZON = 20  # no game takes more steps


class Policy(NamedTuple):
    """The greedy actions of states [...] and their value estimates [...], None where unknown."""

    actions: np.ndarray
    values: np.ndarray | None


class Policies(NamedTuple):
    """An agent's greedy policy over the states of a task, and the optimal one where known."""

    learned: Policy
    optimal: Policy | None
    suboptimal: np.ndarray  # bool [...]: reachable, and the action is worse than the best
    reachable: np.ndarray  # bool [...]: non-terminal and reachable; all if the model is unknown
    gamma: float


def greedy(agent: Agent, obs: Array) -> Policy:
    """Return the greedy policy at observations [N, ...], each as an episode's first."""
    start = np.ones(len(next(tree.leaves(obs))), bool)
    return Policy(np.array(agent.act(obs, start, explore=False).action), agent.values(obs, start))


@lru_cache(4)  # each evaluation needs it again
def solve(env: gym.Env[Any, Any], gamma: float) -> tuple[Policy, np.ndarray, np.ndarray] | None:
    """Return the optimal policy, its Q [S, A] and the reachable states; None without a model."""
    model, found = finite_model(env), optimal(env, gamma)
    if model is None or found is None:
        return None
    policy = found.policy if found.policy.ndim == 1 else found.policy[0]
    return Policy(policy, found.value), found.q, reachable(model)


def discrete_policy(agent: Agent, env: gym.Env[Any, Any], states: int) -> Policies:
    """Return the policies over observations 0 to states - 1, arrays [S]."""
    learned, gamma = greedy(agent, np.arange(states)), agent.gamma
    solution = solve(env, gamma)
    if solution is None:
        none = np.zeros(states, bool)
        return Policies(learned, None, none, ~none, gamma)
    best, q, mask = solution
    return Policies(learned, best, is_worse(q, learned.actions), mask, gamma)


def is_worse(q: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Return where actions [S] have less than the highest q [S, A], beyond rounding: bool [S]."""
    taken = np.take_along_axis(q, actions[:, None], 1)[:, 0]
    return taken < q.max(1) - 1e-9 * abs(q).max(1)


def grid_policy(agent: Agent, env: gym.Env[Any, Any]) -> tuple[Grid, Policies] | None:
    """Return a grid world's map and policies, arrays [rows, columns]; None if it is no grid world.

    Terminal cells (holes, goals) are not among the reachable ones.
    """
    grid = grid_of(env)
    cells = "".join(grid.cells) if grid else ""
    if grid is None or env.observation_space != gym.spaces.Discrete(len(cells)):
        return None
    found = discrete_policy(agent, env, len(cells))
    decided = ~np.isin(list(cells), list(grid.ends))
    return grid, _reshape(found, decided, (len(grid.cells), -1))


def taxi_policy(agent: Agent, env: gym.Env[Any, Any]) -> Policies | None:
    """Return the policies in Taxi [row, column, passenger, destination]; None if it is not Taxi."""
    if not isinstance(env.unwrapped, TaxiEnv) or env.observation_space != gym.spaces.Discrete(500):
        return None
    return _reshape(discrete_policy(agent, env, 500), True, (5, 5, 5, 4))


def _reshape(found: Policies, decided: Any, shape: tuple[int, ...]) -> Policies:
    """Return the policies reshaped, with only `decided` states reachable."""

    def shaped(x: Any) -> Any:
        return None if x is None else x.reshape(shape)

    learned, best = (p and Policy(*map(shaped, p)) for p in (found.learned, found.optimal))
    assert learned is not None
    mask = shaped(found.reachable & decided)
    return Policies(learned, best, shaped(found.suboptimal) & mask, mask, found.gamma)


def blackjack_policy(agent: Agent, env: gym.Env[Any, Any]) -> Policies | None:
    """Return the policies in Blackjack [usable ace, sum 11-21, dealer's card 1-10], else None.

    A usable ace makes at least 12, so a sum of 11 with one is not reachable.
    """
    bare = env.unwrapped
    if not isinstance(bare, BlackjackEnv) or env.observation_space != bare.observation_space:
        return None
    ace, total, card = (x.ravel() for x in np.meshgrid((0, 1), SUMS, CARDS, indexing="ij"))
    learned, gamma = greedy(agent, (total, card, ace)), agent.gamma
    states = [index((t, a), c) for a, t, c in zip(ace, total, card, strict=True)]
    policy, value, q = (x[states] for x in _blackjack(bare.sab, bare.natural, gamma))
    mask = ~((ace == 1) & (total == 11))
    found = Policies(learned, Policy(policy, value), is_worse(q, learned.actions), mask, gamma)
    return _reshape(found, True, (2, 11, 10))


@cache
def _blackjack(sab: bool, natural: bool, gamma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the optimal actions, values and Q of a game's first step, from its exact model."""
    found = optimum(blackjack_model(sab, natural), gamma, BLACKJACK_HORIZON)
    return found.policy[0], found.value, found.q


class PlayedEpisode(NamedTuple):
    """One greedy episode of T steps."""

    obs: Array  # [T, ...] a tree
    rewards: np.ndarray  # [T]
    ended: bool  # False: left at the limit of steps
    actions: np.ndarray  # [T, ...]


def observed(
    agent: Agent, envs: Environments, seed: np.random.SeedSequence | None, count: int
) -> Array:
    """Return the first observations [count, ...] of a seed in one environment, as it is played."""
    loop = Interaction(agent, envs, learn=False)
    loop.reset(seed)
    seen = [tree.take(loop.stepped.play()[0].obs, 0) for _ in range(count)]
    return tree.map(lambda *leaves: np.stack(leaves), *seen)


def play_episode(
    agent: Agent, envs: Environments, seed: np.random.SeedSequence | None, max_steps: int
) -> PlayedEpisode:
    """Play the first episode of a seed in one environment, `max_steps` of it at most."""
    loop = Interaction(agent, envs, learn=False)
    loop.reset(seed)
    observations: list[Any] = []
    rewards, actions, ended = [], [], False
    while not ended and len(observations) < max_steps:
        step, _, ended = loop.stepped.play()
        observations.append(tree.take(step.obs, 0))
        rewards.append(float(step.reward[0]))
        actions.append(host(step.action)[0])
    obs = tree.map(lambda *leaves: np.stack(leaves), *observations)
    return PlayedEpisode(obs, np.array(rewards), ended, np.stack(actions))
