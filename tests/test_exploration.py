"""Exploration: chances by hand, draws by the chances, and nothing drawn without it."""

import math
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrl.agents import Boltzmann, EpsilonGreedy, MonteCarlo, QLearning, Sarsa, linear
from seqrl.agents.tabular.policy import EPSILON, TEMPERATURE, expected, explore, probability
from seqrl.agents.tabular.table import best, value
from seqrl.core import generator

ROW = (0,)


class Draws:
    """A generator that draws what it is told, and complains when asked for more."""

    def __init__(self, *draws: float) -> None:
        self.draws: Iterator[float] = iter(draws)

    def random(self) -> float:
        return next(self.draws)


def chances(kind: int, q: list[float], rate: float) -> list[float]:
    every = range(len(q))
    return [probability(kind, np.array([q]), ROW, every, a, rate) for a in every]


def drawn(kind: int, q: list[float], rate: float, *draws: float) -> int:
    rng: Any = Draws(*draws)
    return explore(kind, np.array([q]), ROW, range(len(q)), rate, rng)


def test_epsilon_greedy_by_hand() -> None:
    """Every action has epsilon / 4; the best share the rest."""
    assert chances(EPSILON, [1, 3, 2, 0], 0.4) == pytest.approx([0.1, 0.7, 0.1, 0.1])
    assert chances(EPSILON, [3, 3, 2, 0], 0.4) == pytest.approx([0.4, 0.4, 0.1, 0.1])
    assert chances(EPSILON, [1, 3, 2, 0], 0.0) == [0, 1, 0, 0]
    assert chances(EPSILON, [1, 3, 2, 0], 1.0) == [0.25] * 4


def test_epsilon_greedy_draws() -> None:
    """First whether to explore, then which; the best needs a draw only where it is not alone."""
    q: list[float] = [1, 3, 2, 3]
    assert [drawn(EPSILON, q, 0.4, 0.39, u) for u in (0, 0.26, 0.5, 0.99)] == [0, 1, 2, 3]
    assert [drawn(EPSILON, q, 0.4, 0.4, u) for u in (0, 0.49, 0.5, 0.99)] == [1, 1, 3, 3]
    assert drawn(EPSILON, [1, 3, 2, 0], 0.4, 0.4) == 1
    assert drawn(EPSILON, [1, 3, 2, 0], 0.0, 0.0) == 1


def test_boltzmann_by_hand() -> None:
    """Weights 1, 2 and 4 at temperature 1; at 2 their square roots."""
    q = [math.log(1), math.log(2), math.log(4)]
    assert chances(TEMPERATURE, q, 1.0) == pytest.approx([1 / 7, 2 / 7, 4 / 7], rel=1e-14)
    roots = np.sqrt([1, 2, 4])
    assert chances(TEMPERATURE, q, 2.0) == pytest.approx(roots / roots.sum(), rel=1e-14)
    worth = expected(TEMPERATURE, np.array([q]), ROW, range(3), 1.0)
    assert worth == pytest.approx(10 / 7 * math.log(2))


def test_boltzmann_draws() -> None:
    """Sevenths: up to 1/7 the first, up to 3/7 the second."""
    q = [math.log(1), math.log(2), math.log(4)]
    found = [drawn(TEMPERATURE, q, 1.0, u) for u in (0, 0.142, 0.143, 0.428, 0.429, 1 - 2**-53)]
    assert found == [0, 0, 1, 1, 2, 2]


def test_extreme_temperatures() -> None:
    """Neither overflows: hot is uniform, cold is greedy, and equally good actions stay equal."""
    wide: list[float] = [-1e9, 1e9, 0]
    assert chances(TEMPERATURE, wide, 1e100) == [1 / 3] * 3
    assert chances(TEMPERATURE, wide, 1e-100) == [0, 1, 0]
    assert chances(TEMPERATURE, [5, 5, 1], 1e-100) == [0.5, 0.5, 0]
    assert expected(TEMPERATURE, np.array([wide]), ROW, range(len(wide)), 1e-100) == 1e9
    assert {drawn(TEMPERATURE, wide, 1e-100, u) for u in (0, 0.5, 1 - 2**-53)} == {1}
    cold = QLearning(gym.spaces.Discrete(1), gym.spaces.Discrete(3), exploration=Boltzmann(1e-100))
    cold.q[0] = wide
    assert set(cold.act(np.zeros(50, int), np.ones(50, bool)).action.tolist()) == {1}


rows_of_values = st.lists(st.floats(-1e3, 1e3) | st.integers(-2, 2), min_size=1, max_size=5)
kinds_and_rates = st.tuples(st.just(EPSILON), st.floats(0, 1)) | st.tuples(
    st.just(TEMPERATURE), st.floats(1e-3, 1e6)
)


@given(rows_of_values, rows_of_values, kinds_and_rates)
def test_chances_are_a_policy(
    first: list[float], second: list[float], policy: tuple[int, float]
) -> None:
    """They sum to 1, and the expected value is the sum of theirs; with two active rows as well."""
    n = min(len(first), len(second))
    q, (kind, rate) = np.array([first[:n], second[:n]], float), policy
    for rows in ((0,), (0, 1)):
        p = [probability(kind, q, rows, range(n), a, rate) for a in range(n)]
        values = [value(q, rows, a) for a in range(n)]
        assert sum(p) == pytest.approx(1, rel=1e-12)
        assert min(p) >= 0
        assert expected(kind, q, rows, range(n), rate) == pytest.approx(np.dot(p, values), abs=1e-9)
        assert expected(kind, q, rows, range(n), rate) <= best(q, rows, range(n)) + 1e-9


@pytest.mark.parametrize("kind, rate", [(EPSILON, 0.3), (EPSILON, 1.0), (TEMPERATURE, 1.5)])
def test_draws_have_the_chances(kind: int, rate: float) -> None:
    """Chi-square of 40,000 draws, 4 degrees of freedom: above 18.5 in one of 1,000 cases."""
    q, rng = [0.0, 2.0, 1.0, 2.0, -1.0], generator(11)
    state = kind, np.array([q]), ROW, range(5), rate
    counts = np.bincount([explore(*state, rng) for _ in range(40_000)])
    awaited = 40_000 * np.array(chances(kind, q, rate))
    assert ((counts - awaited) ** 2 / awaited).sum() < 18.5


AGENTS = [
    (QLearning, dict(double=True)),
    (QLearning, dict(exploration=Boltzmann(1.0))),
    (Sarsa, dict(n_step=2)),
    (MonteCarlo, dict(off_policy=True)),
]


def agent_of(cls: Any, **options: Any) -> Any:
    return cls(gym.spaces.Discrete(4), gym.spaces.Discrete(3), **options)


@pytest.mark.parametrize("cls, options", AGENTS)
def test_without_exploration_nothing_is_drawn(cls: Any, options: dict[str, Any]) -> None:
    """The first of the best actions; the next number of the stream is still the first."""
    agent = agent_of(cls, seed=5, **options)
    agent.q[:] = [[0, 0, 0], [0, 2, 2], [3, 1, 3], [0, 0, 1]]
    before = agent.state_dict()
    decision = agent.act(np.arange(4), np.ones(4, bool), explore=False)
    assert decision.action.tolist() == [0, 1, 0, 2]
    assert decision.log_prob is None
    assert agent.state_dict()["rng"] == before["rng"]
    assert agent.rng.random() == generator(5).random()


@pytest.mark.parametrize("cls, options", AGENTS)
def test_a_seed_is_a_sequence_of_actions(cls: Any, options: dict[str, Any]) -> None:
    """Ties included; another seed is another sequence, and reseeding begins it again."""

    def actions(agent: Any) -> list[int]:
        return agent.act(np.zeros(60, int), np.ones(60, bool)).action.tolist()

    agent = agent_of(cls, seed=1, **options)
    first, more = actions(agent), actions(agent)
    assert first != more
    assert first == actions(agent_of(cls, seed=1, **options))
    assert first != actions(agent_of(cls, seed=2, **options))
    agent.reseed(1)
    assert first == actions(agent)


def test_the_first_actions_are_unbiased() -> None:
    """An empty table ties everywhere: with epsilon 0 every action comes up, and evenly."""
    agent = agent_of(QLearning, exploration=EpsilonGreedy(0.0), seed=2)
    found = agent.act(np.zeros(9000, int), np.ones(9000, bool)).action
    counts = np.bincount(found)
    assert ((counts - 3000) ** 2 / 3000).sum() < 13.8


def test_the_rate_follows_its_schedule() -> None:
    """epsilon falls from 1 to 0 over 10 steps: at 5 a draw below 1/2 explores."""
    agent = agent_of(QLearning, exploration=EpsilonGreedy(linear(1, 0, 10)))
    agent.q[0] = 0, 0, 9
    for steps, draws, action in (
        (0, (0.99, 0), 0),
        (5, (0.49, 0), 0),
        (5, (0.5,), 2),
        (10, (0,), 2),
    ):
        agent.steps, agent.rng = steps, Draws(*draws)
        assert agent.act(np.array([0]), np.array([True])).action.tolist() == [action]
