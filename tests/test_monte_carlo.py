"""Monte Carlo on a five-step episode worked out by hand; gamma 1/2, so all is exact.

S, A, R: (0, 0, 0), (1, 1, 4), (0, 0, 2), (1, 0, -2), (2, 1, 8), and the end. The returns are
2.75, 5.5, 3, 2, 8; (0, 0) is visited twice.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from seqrl.agents import Boltzmann, EpsilonGreedy, MonteCarlo, TableIndex
from seqrl.core import Transition, UsageError
from seqrl.training import train

FIVE = [(0, 0, 0), (1, 1, 4), (0, 0, 2), (1, 0, -2), (2, 1, 8)]
Steps = list[tuple[int, int, float]]


def learner(**options: Any) -> MonteCarlo:
    numbers = dict(gamma=0.5, exploration=EpsilonGreedy(0.5)) | options
    return MonteCarlo(gym.spaces.Discrete(3), gym.spaces.Discrete(2), **numbers)


def turn(s: int, a: int, r: float, after: int, *flags: bool) -> Transition:
    """One step; the flags are start, terminated, truncated, all False where not given."""
    start, terminated, truncated = np.array([[k < len(flags) and flags[k]] for k in range(3)])
    obs, action, next_obs = np.array([[s], [a], [after]])
    seen = (obs, start, None, None, action, None, np.array([float(r)]))
    return Transition(*seen, terminated, truncated, next_obs, np.array([True]))


def feed(
    agent: Any, steps: Steps, last: int = 0, cut: bool = False, chances: tuple[float, ...] = ()
) -> Any:
    """One episode that ends, or is cut, in `last`; `chances` are those of its actions."""
    for t, (s, a, r) in enumerate(steps):
        over = t == len(steps) - 1
        after = last if over else steps[t + 1][0]
        step = turn(s, a, r, after, t == 0, over and not cut, over and cut)
        agent.learn(step._replace(log_prob=np.log([chances[t]]) if chances else None))
    return agent


def cells(agent: Any) -> list[float]:
    """Q of (0, 0), (1, 0), (1, 1) and (2, 1); the other two pairs are never met."""
    assert agent.q[0, 1] == agent.q[2, 0] == 0
    return [agent.q[0, 0], agent.q[1, 0], agent.q[1, 1], agent.q[2, 1]]


def test_first_visit() -> None:
    assert cells(feed(learner(), FIVE)) == [2.75, 2, 5.5, 8]


def test_every_visit() -> None:
    assert cells(feed(learner(first_visit=False), FIVE)) == [(2.75 + 3) / 2, 2, 5.5, 8]


def test_constant_step() -> None:
    """Half of the way from the last step to the first: (0, 0) goes 1.5, then on to 2.125."""
    assert cells(feed(learner(learning_rate=0.5), FIVE)) == [1.375, 1, 2.75, 4]
    every = learner(learning_rate=0.5, first_visit=False)
    assert cells(feed(every, FIVE)) == [2.125, 1, 2.75, 4]


def test_the_average_is_over_episodes() -> None:
    agent = feed(feed(learner(), FIVE), [(2, 1, 0)])
    assert cells(agent) == [2.75, 2, 5.5, 4]
    feed(agent, [(2, 1, 1)])
    assert agent.q[2, 1] == 3
    assert agent.arrays.weight.tolist() == [[1, 0], [1, 1], [0, 3]]


def test_a_first_visit_is_one_of_its_own_episode() -> None:
    """(2, 1) came at time 4 of the episode before and comes at time 0 of this one."""
    agent = feed(learner(), FIVE)
    feed(agent, [(2, 1, 0), (2, 1, 2)])
    assert agent.q[2, 1] == (8 + 1) / 2


def test_nothing_is_learned_before_the_end() -> None:
    """Nor ever from an episode that was lost, when the next one opens."""
    agent = learner()
    for step in (turn(0, 1, 4, 2, True), turn(2, 0, 8, 1)):
        agent.learn(step)
    assert not agent.q.any()
    assert cells(feed(agent, FIVE)) == [2.75, 2, 5.5, 8]


def test_a_cut_return_is_completed_by_the_policy_s_value() -> None:
    """Q(1) = (2, 5.5) is worth 2/4 + 5.5 * 3/4 = 4.625 under epsilon 1/2."""
    agent = feed(learner(), FIVE)
    feed(agent, [(0, 1, 2), (2, 0, 1)], last=1, cut=True)
    assert agent.q[2, 0] == 1 + 4.625 / 2
    assert agent.q[0, 1] == 2 + (1 + 4.625 / 2) / 2


def test_a_cut_return_by_softmax() -> None:
    """Q(1) = (0, ln 3) at temperature 1: weights 1/4 and 3/4."""
    agent = learner(exploration=Boltzmann(1.0))
    agent.q[1, 1] = np.log(3)
    feed(agent, [(2, 0, 1)], last=1, cut=True)
    assert agent.q[2, 0] == pytest.approx(1 + np.log(3) * 3 / 8, rel=1e-14)


CHANCES = (0.5, 0.5, 0.5, 0.25, 0.5)


def test_off_policy() -> None:
    """W from the end 1, 2, 8, 16, 32, every action being greedy when its turn comes.

    (0, 0): 3 with weight 8, then 2.75 with 32: 3 - 32/40 * 1/4 = 2.8.
    """
    agent = feed(learner(off_policy=True), FIVE, chances=CHANCES)
    assert cells(agent) == pytest.approx([2.8, 2, 5.5, 8], rel=1e-12)
    weights = np.array([[40, 0], [2, 16], [0, 1]])
    np.testing.assert_allclose(agent.arrays.weight, weights, rtol=1e-12)


def test_off_policy_goes_no_further_back_than_an_action_that_is_not_greedy() -> None:
    """(2, 1): 8 - 8/2 = 4. (1, 0): weight 2 of 4, 2 - 2/2 = 1, below Q(1, 1): the end."""
    agent = feed(learner(off_policy=True), FIVE, chances=CHANCES)
    feed(agent, [(0, 1, 9), (1, 0, 0), (2, 1, 0)], chances=(0.5, 0.5, 0.5))
    assert cells(agent) == pytest.approx([2.8, 1, 5.5, 4], rel=1e-12)


def test_off_policy_when_cut() -> None:
    """The greedy policy's value, max Q(1) = 5.5, follows."""
    agent = feed(learner(off_policy=True), FIVE, chances=CHANCES)
    feed(agent, [(2, 0, 1)], last=1, cut=True, chances=(0.5,))
    assert agent.q[2, 0] == 1 + 5.5 / 2


def test_off_policy_knows_the_chances_of_its_actions() -> None:
    """epsilon 1/2, two actions: the greedy one has 3/4; two equally good ones 1/2 each."""
    agent = learner(off_policy=True, seed=1)
    agent.q[:2] = [[1, 0], [0, 0]]
    many = np.repeat([0, 1], 50)
    decision = agent.act(many, np.ones(100, bool))
    chance = np.exp(decision.log_prob)
    np.testing.assert_allclose(chance[:50], np.where(decision.action[:50] == 0, 0.75, 0.25))
    np.testing.assert_allclose(chance[50:], 0.5)
    assert set(decision.action[:50]) == {0, 1}
    assert learner().act(many, np.ones(100, bool)).log_prob is None


def test_off_policy_weights_stay_finite() -> None:
    """1,100 steps with chance 1/4 of each action: 4^1100 is beyond what a number can be."""
    agent = learner(off_policy=True, gamma=1.0, learning_rate=None)
    steps = [(t % 3, t % 2, 1.0) for t in range(1100)]
    for _ in range(2):
        feed(agent, steps, chances=(0.25,) * 1100)
    assert np.isfinite(agent.q).all() and np.isfinite(agent.arrays.weight).all()
    assert agent.arrays.weight.max() > 1e200


def test_long_episodes() -> None:
    """Room is made while the episode goes on: 300 steps of reward 1, gamma 1."""
    agent = learner(gamma=1.0, first_visit=False)
    feed(agent, [(t % 3, 0, 1.0) for t in range(300)])
    np.testing.assert_allclose(agent.q[:, 0], [151.5, 150.5, 149.5])
    assert agent.arrays.action.shape[1] >= 300
    assert agent.arrays.waiting.tolist() == [0]


class Noisy(gym.Env[Any, Any]):
    """Three steps, each to a random state and with a random reward; then over."""

    observation_space = gym.spaces.Discrete(5)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 3
        return int(self.np_random.integers(5)), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        state, reward = int(self.np_random.integers(5)), float(self.np_random.normal())
        return state, reward, self.left == 0, False, {}


def test_environments_side_by_side() -> None:
    """Episodes of several environments learn one after the other, and all count."""
    agent = MonteCarlo(Noisy.observation_space, Noisy.action_space, first_visit=False)
    train(agent, gym.vector.SyncVectorEnv([Noisy] * 4), 4 * 3 * 25, seed=0)
    assert agent.arrays.weight.sum() == 4 * 3 * 25


def test_first_visits_of_tiles() -> None:
    """Each tile has its own: the one of both states takes the return of the first, 1 + 1/2."""
    index = TableIndex(gym.spaces.Box(0, 1, (1,)), bins=2, tiles=2)
    agent = MonteCarlo(index, gym.spaces.Discrete(1), gamma=0.5)
    low, high = np.array([[0.1]], np.float32), np.array([[0.3]], np.float32)
    agent.learn(turn(0, 0, 1, 0, True)._replace(obs=low, next_obs=high))
    agent.learn(turn(0, 0, 1, 0, False, True)._replace(obs=high, next_obs=high))
    shared = set(index(low)[0]) & set(index(high)[0])
    only = set(index(high)[0]) - shared
    assert len(shared) == len(only) == 1
    assert agent.q[shared.pop(), 0] == 1.5
    assert agent.q[only.pop(), 0] == 1


def test_numbers_out_of_range_are_refused() -> None:
    for options in (dict(gamma=1.1), dict(learning_rate=2.0), dict(initial_value=float("nan"))):
        name, value = next(iter(options.items()))
        with pytest.raises(UsageError, match=f"{name} {value:g}"):
            learner(**options)
