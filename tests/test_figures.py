"""What the tabular agents must reach: exact values from the model, and the book's figures.

Sutton & Barto, Reinforcement Learning: An Introduction, 2nd edition (2018).
"""

from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from seqrl.agents import EpsilonGreedy, MonteCarlo, QLearning, Sarsa, TableIndex
from seqrl.envs.blackjack import (
    HIT,
    NUM_OBSERVATIONS,
    SHAPE,
    STICK,
    blackjack_model,
    index,
    observed,
)
from seqrl.envs.finite import FiniteMDP, finite_model, listed_outcomes
from seqrl.envs.optimum import optimum, policy_value, start_value
from seqrl.training import Episode, Interaction, evaluate, train

SEEDS = range(5)
ENOUGH = 10_000_000  # env steps of a run that its number of episodes ends


class Returns:
    """A logger that keeps the return of every episode."""

    def __init__(self) -> None:
        self.totals: list[float] = []

    def begin(self, loop: Interaction, steps: int) -> None:
        pass

    def episode(self, loop: Interaction, episode: Episode) -> None:
        self.totals.append(episode.total)

    def flush(self) -> None:
        pass


def trained(cls: Any, env: gym.Env, steps: int, seed: int, **numbers: Any) -> Any:
    """An agent after `steps` env steps."""
    agent = cls(env.observation_space, env.action_space, **numbers)
    train(agent, env, steps, seed=seed)
    return agent


def greedy_value(env: gym.Env, agent: Any, horizon: int | None = None) -> float:
    """The exact mean undiscounted return of the greedy policy, within the time limit."""
    model = finite_model(env)
    assert model is not None
    return start_value(model, policy_value(env, agent.q.argmax(1), 1.0, horizon))


def test_frozen_lake() -> None:
    """Exact success within the 100 steps; the limit is .7442, the best stationary policy .7402."""
    lake = gym.make("FrozenLake-v1")
    found = [greedy_value(lake, trained(QLearning, lake, 300_000, seed)) for seed in SEEDS]
    assert min(found) >= 0.73, found


def test_taxi() -> None:
    """The exact value of the greedy policy; the optimum is 7.93."""
    taxi = gym.make("Taxi-v4")
    found = [greedy_value(taxi, trained(QLearning, taxi, 300_000, seed)) for seed in SEEDS]
    assert sorted(found)[1] >= 7.85, found


WALKERS = {
    "q-learning": (QLearning, {}),
    "sarsa": (Sarsa, {}),
    "expected sarsa": (Sarsa, {"expected": True}),
}


@cache
def cliff(name: str) -> tuple[float, list[float]]:
    """Mean return of episodes 101-500 over 10 seeds, and the greedy return of each (Example 6.6).

    A greedy policy that does not arrive is worth -100.
    """
    env = gym.make("CliffWalking-v1")
    cls, options = WALKERS[name]
    numbers = dict(learning_rate=0.5, gamma=1.0, exploration=EpsilonGreedy(0.1), **options)
    online, greedy = [], []
    for seed in range(10):
        agent = cls(env.observation_space, env.action_space, **numbers)
        log = Returns()
        train(agent, env, ENOUGH, episodes=500, seed=seed, logger=log)
        online.append(np.mean(log.totals[100:]))
        greedy.append(greedy_value(env, agent, horizon=100))
    return float(np.mean(online)), greedy


def test_cliff_walking_by_q_learning() -> None:
    """Along the edge: the shortest path, and many a fall while exploring."""
    online, greedy = cliff("q-learning")
    assert greedy == [-13.0] * 10
    assert -54 <= online <= -46, online


def test_cliff_walking_by_sarsa() -> None:
    """A safer, longer path, and the better return while exploring."""
    online, greedy = cliff("sarsa")
    assert -32 <= online <= -24, online
    assert np.median(greedy) == -17, greedy
    assert online > cliff("q-learning")[0]


def test_cliff_walking_by_expected_sarsa() -> None:
    online, greedy = cliff("expected sarsa")
    assert greedy == [-15.0] * 10
    assert online > cliff("q-learning")[0]


@pytest.mark.slow
def test_cliff_walking_by_monte_carlo() -> None:
    env = gym.make("CliffWalking-v1", max_episode_steps=200)
    found = [greedy_value(env, trained(MonteCarlo, env, 500_000, seed)) for seed in SEEDS]
    assert sorted(found)[1] > -200, found


@pytest.mark.slow
def test_blackjack_by_monte_carlo() -> None:
    """Close to the optimum -.0431, and the two maps of the book's Figure 5.2.

    Of their 200 cells some ten differ, where both actions are worth nearly the same.
    """
    env = gym.make("Blackjack-v1", sab=True)
    model = blackjack_model(sab=True)
    best = optimum(model, 1.0, 20)
    figure = np.s_[12:22, 1:]  # sums that are decided on, dealer's cards, without and with ace
    values, wrong = [], []
    for seed in SEEDS:
        policy = trained(MonteCarlo, env, 1_000_000, seed).q.argmax(1)
        play = policy[observed()]
        values.append(start_value(model, policy_value(model, play, 1.0, 20)))
        differ = (policy != best.policy[0, :NUM_OBSERVATIONS]).reshape(SHAPE)[figure]
        wrong.append(int(differ.sum()))
    assert sorted(values)[1] >= best.start_value - 0.01, values
    assert sorted(wrong)[3] <= 14, wrong


# Example 5.4: dealer's deuce, 13 with a usable ace; the target policy sticks on 20 and 21 only.
START, FOLLOW, LEAVE = index((13, 1), 2), 0, 1
TARGET = np.where(np.arange(714) < index((20, 0), 0), HIT, STICK)[observed()]
LOST = -10.0  # less than any return


def example() -> FiniteMDP:
    """Blackjack with two actions: 0 does what the target policy does, 1 the other thing.

    What follows 1 has importance ratio 0, so it may as well end the episode at once and cost more
    than anything: the target policy is then the greedy one, as off-policy control learns it.
    """
    P = listed_outcomes(blackjack_model(sab=True))
    left = [(1.0, START, LOST, True)]
    followed = {s: {FOLLOW: P[s][TARGET[s]], LEAVE: left} for s in P}
    return FiniteMDP(followed, np.eye(len(P))[START])


class Weighed(Returns):
    """Also keeps the importance ratio of every episode: 1 / (1/2) a step, 0 where it left."""

    def __init__(self) -> None:
        super().__init__()
        self.ratios: list[float] = []

    def episode(self, loop: Interaction, episode: Episode) -> None:
        super().episode(loop, episode)
        self.ratios.append(0.0 if episode.total == LOST else 2.0**episode.length)


def off_policy(seed: int) -> tuple[float, np.ndarray, np.ndarray]:
    """10,000 episodes that do either with the same chance: the estimate, ratios, returns."""
    env, log = example(), Weighed()
    numbers = dict(off_policy=True, gamma=1.0, exploration=EpsilonGreedy(1.0))
    agent = MonteCarlo(env.observation_space, env.action_space, **numbers)
    agent.q[:, LEAVE] = LOST
    train(agent, env, ENOUGH, episodes=10_000, seed=seed, logger=log)
    return agent.q[START, FOLLOW], np.array(log.ratios), np.array(log.totals)


def test_off_policy_monte_carlo() -> None:
    """The value of Example 5.4, and the table is the weighted average of eq. 5.6.

    The book's -.27726 is the mean of 10^8 episodes, right to some 10^-4. One estimate from 10,000
    has a standard deviation of .033, so that half of all seeds come within .02.
    """
    exact = policy_value(blackjack_model(sab=True), TARGET, 1.0, 20)[START]
    assert exact == pytest.approx(-0.27726, abs=2e-4)
    estimate, ratio, total = off_policy(seed=0)
    assert estimate == pytest.approx(exact, abs=0.02)
    assert estimate == pytest.approx(ratio @ total / ratio.sum(), rel=1e-9)


@pytest.mark.slow
def test_weighted_importance_sampling_errs_less_at_first() -> None:
    """Figure 5.3, 100 runs: the ordinary estimate (eq. 5.5) starts with large errors, then both
    fall together; the mean of the weighted ones is right."""
    estimates, ratios, totals = (
        np.array(part) for part in zip(*map(off_policy, range(100)), strict=True)
    )
    exact = policy_value(blackjack_model(sab=True), TARGET, 1.0, 20)[START]
    assert estimates.mean() == pytest.approx(exact, abs=0.02)
    summed, weight = (ratios * totals).cumsum(1), ratios.cumsum(1)
    ordinary = summed / np.arange(1, 10_001)
    weighted = summed / np.maximum(weight, 1)  # 0 until an episode counts
    errors = [((estimate - exact) ** 2).mean(0) for estimate in (ordinary, weighted)]
    first, last = ([error[part].mean() for error in errors] for part in (np.s_[:10], np.s_[9000:]))
    assert first[0] > 3 * first[1]
    assert max(last) < 0.003
    assert last[0] == pytest.approx(last[1], rel=0.25)


# The 19-state random walk of Example 7.1: 1 ... 19 between -1 on the left and +1 on the right.
TRUE = np.arange(-9, 10) / 10


def random_walk() -> FiniteMDP:
    """One action that goes either way: learning its value is prediction."""
    P: dict[int, Any] = {
        s: {0: [(0.5, s - 1, 0.0, False), (0.5, s + 1, 0.0, False)]} for s in range(19)
    }
    P[0][0][0] = (0.5, 0, -1.0, True)
    P[18][0][1] = (0.5, 18, 1.0, True)
    return FiniteMDP(P, np.eye(19)[9])


def walk_error(learning_rate: float, **options: Any) -> float:
    """Mean RMS error over the states, the first 10 episodes and 100 repetitions."""
    env, errors = random_walk(), []
    for seed in range(100):
        numbers = dict(learning_rate=learning_rate, gamma=1.0, **options)
        agent = Sarsa(env.observation_space, env.action_space, **numbers)
        for episode in range(10):
            train(agent, env, 20_000, episodes=1, seed=None if episode else seed)
            errors.append(np.sqrt(np.mean((agent.q[:, 0] - TRUE) ** 2)))
    return float(np.mean(errors))


@pytest.mark.slow
@pytest.mark.parametrize(
    "learning_rate, options, error",
    [
        (0.8, {"n_step": 1}, 0.344),
        (0.4, {"n_step": 4}, 0.260),
        (0.2, {"n_step": 16}, 0.321),
        (0.6, {"trace_decay": 0.4}, 0.277),
        (0.3, {"trace_decay": 0.8}, 0.259),
        (0.2, {"trace_decay": 0.9}, 0.287),
    ],
)
def test_random_walk(learning_rate: float, options: dict[str, Any], error: float) -> None:
    """Figures 7.2 and 12.8: neither one step nor whole returns, but something in between."""
    assert walk_error(learning_rate, **options) == pytest.approx(error, rel=0.05)


@pytest.mark.slow
def test_cart_pole_in_bins() -> None:
    env = gym.make("CartPole-v1")
    found = []
    for seed in SEEDS:
        agent = QLearning(TableIndex(env.observation_space, bins=8), env.action_space)
        train(agent, env, 1_000_000, seed=seed)
        found.append(evaluate(agent, gym.make("CartPole-v1"), 100, seed=seed).mean)
    assert sorted(found)[1] >= 195, found
