"""Q-learning on a five-step episode worked out by hand; alpha and gamma 1/2, so all is exact.

S, A, R: (0, 0, 0), (1, 1, 4), (0, 0, 2), (1, 0, -2), (2, 1, 8), and the end.
"""

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from seqrl.agents import EpsilonGreedy, QLearning, TableIndex
from seqrl.agents.tabular.tabular_agent import Step
from seqrl.agents.tabular.td import step_later
from seqrl.core import Transition, UsageError

FIVE = [(0, 0, 0), (1, 1, 4), (0, 0, 2), (1, 0, -2), (2, 1, 8)]


def learner(**options: Any) -> QLearning:
    numbers = dict(learning_rate=0.5, gamma=0.5, **options)
    return QLearning(gym.spaces.Discrete(3), gym.spaces.Discrete(2), **numbers)


def row(s: int, a: int, r: float, after: int, *flags: bool) -> Transition:
    """One step; the flags are start, terminated, truncated, all False where not given."""
    start, terminated, truncated = (np.array([k < len(flags) and flags[k]]) for k in range(3))
    obs, action, reward, next_obs = (np.array([x]) for x in (s, a, float(r), after))
    seen = (obs, start, None, None, action, None, reward, terminated, truncated)
    return Transition(*seen, next_obs, np.array([True]))


def feed(agent: Any, steps: list[tuple[int, int, float]], last: int, cut: bool = False) -> Any:
    """Learn from one episode that ends, or is cut, in `last`."""
    followed = [s for s, _, _ in steps[1:]] + [last]
    for t, ((s, a, r), after) in enumerate(zip(steps, followed, strict=True)):
        over = t == len(steps) - 1
        agent.learn(row(s, a, r, after, t == 0, over and not cut, over and cut))
    return agent


def cells(agent: Any) -> list[float]:
    """Q of (0, 0), (1, 0), (1, 1) and (2, 1); the other two pairs are never met."""
    assert agent.q[0, 1] == agent.q[2, 0] == 0
    return [agent.q[0, 0], agent.q[1, 0], agent.q[1, 1], agent.q[2, 1]]


def test_one_step() -> None:
    """Targets 0, 4, 2 + 2/2, -2, 8."""
    assert cells(feed(learner(), FIVE, 0)) == [1.5, -1, 2, 4]


def test_one_step_when_cut() -> None:
    """The last target is 8 + max Q(0) / 2 = 8.75."""
    assert cells(feed(learner(), FIVE, 0, cut=True)) == [1.5, -1, 2, 4.375]


class Coins:
    """A generator that draws what it is told."""

    def __init__(self, *draws: float) -> None:
        self.draws: Iterator[float] = iter(draws)

    def random(self) -> float:
        return next(self.draws)


def test_double() -> None:
    """Tables 0, 1, 1, 0, 0 learn. Step 2: table 1 likes (1, 1), of which 0 thinks nothing: 2.

    The cut: table 0 has (-1, 0) in state 1 and takes 1, worth 2 in table 1: 8 + 2/2.
    """
    for cut, last, mean in ((False, 4, 2), (True, 4.5, 2.25)):
        agent: Any = learner(double=True)
        agent.rng = Coins(0.0, 0.5, 0.99, 0.49, 0.0)
        feed(agent, FIVE, 1, cut)
        assert agent.arrays.twins[0].tolist() == [[0, 0], [-1, 0], [0, last]]
        assert agent.arrays.twins[1].tolist() == [[1, 0], [0, 2], [0, 0]]
        assert cells(agent) == [0.5, -0.5, 1, mean]


def test_double_acts_by_both_tables() -> None:
    agent: Any = learner(double=True)
    agent.rng = Coins(0.0, 0.9)
    feed(agent, [(0, 1, 4.0)], 1)
    feed(agent, [(0, 0, 6.0)], 1)
    assert agent.q[0].tolist() == [1.5, 1.0]
    decision = agent.act(np.array([0]), np.array([True]), explore=False)
    assert decision.action.tolist() == [0]


def test_three_steps() -> None:
    """Targets 0 + 4/2 + 2/4, 4 + 2/2 - 2/4, 2 - 2/2 + 8/4, -2 + 8/2, 8."""
    assert cells(feed(learner(n_step=3), FIVE, 0)) == [2.125, 1, 2.25, 4]


def test_three_steps_when_cut() -> None:
    """max Q(1) = 2.25 follows: targets 3 + 2.25/8, 2 + 2.25/4, 8 + 2.25/2."""
    agent = feed(learner(n_step=3), FIVE, 1, cut=True)
    assert cells(agent) == [2.265625, 1.28125, 2.25, 4.5625]


def test_three_steps_bootstrap() -> None:
    """With Q(1) = Q(2) = (8, 8) the first two targets have 8/8 more."""
    agent = learner(n_step=3)
    agent.q[1:] = 8
    feed(agent, FIVE[:4], 2, cut=True)
    # (0,0) -> 3.5, (1,1) -> 5.5; then 2 - 1 + 2, -2 + 4 of the cut
    assert agent.q.tolist() == [[1.75 / 2 + 1.5, 0], [5, 6.75], [8, 8]]


def test_more_steps_than_the_episode_has() -> None:
    """All learn at its end: targets 2.75, 5.5, 3, 2, 8."""
    agent = feed(learner(n_step=9), FIVE, 0)
    assert cells(agent) == [2.1875, 1, 2.75, 4]
    waiting = learner(n_step=9)
    for t, (s, a, r) in enumerate(FIVE):
        waiting.learn(row(s, a, r, 0, t == 0))
    assert not waiting.q.any()


def test_what_waits_is_dropped_when_an_episode_opens() -> None:
    """A run that goes on in fresh environments: nothing of the lost episode is credited."""
    agent = learner(n_step=3)
    agent.learn(row(0, 0, 100, 1, True))
    feed(agent, [(2, 1, 8)], 0)
    assert cells(agent) == [0, 0, 0, 4]


def test_n_step_of_one_is_one_step_bit_for_bit() -> None:
    """The waiting machinery with n = 1 against the plain update, over random numbers."""
    rng = np.random.default_rng(5)
    one, other = learner(), learner(n_step=2)
    other.prepare(1)
    options = other.options._replace(n_step=1, gamma=0.9)
    one.options, every = options, range(2)
    for _ in range(300):
        s, after, a = rng.integers(3), rng.integers(3), rng.integers(2)
        r, over = rng.normal(), rng.random() < 0.2
        bootstrap = 0.0 if over else other.q[after].max()
        step = Step(False, (s,), every, a, 0.0, r, (after,), every, bool(over), False)
        one.learn_step(one.arrays, options, 0, step, 0.3, 0.0, one.rng)
        step_later(other.arrays, options, 0, step, bootstrap, 0.3, 0)
    assert one.q.tobytes() == other.q.tobytes()
    assert one.q.any()


def test_watkins_traces() -> None:
    """lambda 1/2, the trace fades by 1/4. TD errors 0, 4, 2.5, -2, 8.

    (1, 0) is not greedy: what came before has no part in its error, only itself in the last.
    """
    agent = feed(learner(trace_decay=0.5), FIVE, 0)
    assert cells(agent) == [0.5 + 1.25 * 1.0625, -1 + 1, 2 + 1.25 / 4, 4]


def test_watkins_traces_that_are_replaced() -> None:
    agent = feed(learner(trace_decay=0.5, trace="replacing"), FIVE, 0)
    assert cells(agent) == [0.5 + 1.25, -1 + 1, 2 + 1.25 / 4, 4]


def test_watkins_traces_when_cut() -> None:
    """The last error is 8 + 2.3125 / 2."""
    agent = feed(learner(trace_decay=0.5), FIVE, 1, cut=True)
    error = 8 + 2.3125 / 2
    assert cells(agent) == [1.828125, -1 + error / 8, 2.3125, error / 2]


def test_traces_end_with_the_episode() -> None:
    agent = learner(trace_decay=0.5)
    feed(agent, [(0, 0, 4)], 1, cut=True)
    feed(agent, [(2, 1, 8)], 1)
    assert cells(agent) == [2, 0, 0, 4]


def test_a_faint_trace_is_nearly_one_step() -> None:
    faint = feed(learner(trace_decay=1e-12), FIVE, 0)
    np.testing.assert_allclose(faint.q, feed(learner(), FIVE, 0).q, atol=1e-9)


def test_tilings_share_a_step() -> None:
    """Two active rows: their mean is the value and moves by alpha times the error, traces too."""
    space = gym.spaces.Box(0, 1, (1,))
    here = np.array([[0.5]], np.float32)
    step = row(0, 1, 1, 0, True, True)._replace(obs=here, next_obs=here)
    for decay in (0.0, 0.5):
        index = TableIndex(space, bins=2, tiles=2)
        agent = QLearning(index, gym.spaces.Discrete(2), learning_rate=0.5, trace_decay=decay)
        for expected in (0.5, 0.75):
            agent.learn(step)
            assert [agent.q[row, 1] for row in index(here)[0]] == [expected, expected]
            assert np.count_nonzero(agent.q) == 2


def test_optimism_tries_everything() -> None:
    """2.6: without exploration, values above all returns send the agent to every action once."""
    space = gym.spaces.Discrete(1)
    numbers = dict(learning_rate=0.5, gamma=0.0, exploration=EpsilonGreedy(0.0))
    agent = QLearning(space, gym.spaces.Discrete(4), initial_value=10.0, seed=0, **numbers)
    tried = []
    for _ in range(4):
        action = agent.act(np.array([0]), np.array([True])).action
        tried.append(int(action[0]))
        feed(agent, [(0, tried[-1], 1.0)], 0)
    assert sorted(tried) == [0, 1, 2, 3]
    assert agent.q.tolist() == [[5.5] * 4]


def test_optimism_of_both_tables() -> None:
    agent = learner(double=True, initial_value=10.0)
    assert (agent.q == 10).all() and (agent.arrays.twins == 10).all()


def test_actions_are_counted_from_the_start_of_their_space() -> None:
    space = gym.spaces.Discrete(2, start=5)
    agent = QLearning(gym.spaces.Discrete(3), space, learning_rate=0.5, gamma=0.5)
    feed(agent, [(s, 5 + a, r) for s, a, r in FIVE], 0)
    assert cells(agent) == [1.5, -1, 2, 4]
    states = np.array([0, 1, 2])
    greedy = agent.act(states, np.ones(3, bool), explore=False).action
    assert greedy.tolist() == [5, 6, 6]
    assert set(agent.act(np.zeros(99, int), np.ones(99, bool)).action.tolist()) == {5, 6}


@pytest.mark.parametrize(
    "options, named",
    [
        (dict(gamma=1.1), "gamma 1.1"),
        (dict(gamma=float("nan")), "gamma nan"),
        (dict(learning_rate=-0.1), "learning_rate -0.1"),
        (dict(learning_rate=float("nan")), "learning_rate nan"),
        (dict(learning_rate=None), "learning_rate 'None'"),
        (dict(n_step=0), "n_step 0"),
        (dict(n_step=1.5), "n_step 1.5"),
        (dict(trace_decay=-1), "trace_decay -1"),
        (dict(trace="dutch"), "'dutch'"),
        (dict(trace_decay=0.5, n_step=2), "choose one"),
        (dict(trace_decay=0.5, double=True), "choose one"),
        (dict(initial_value=float("inf")), "initial_value inf"),
        (dict(seed=1.5), "seed 1.5"),
        (dict(seed=-1), "seed -1"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        QLearning(gym.spaces.Discrete(3), gym.spaces.Discrete(2), **options)


def test_actions_must_be_discrete() -> None:
    with pytest.raises(UsageError, match="action space Box"):
        QLearning(gym.spaces.Discrete(3), gym.spaces.Box(-1, 1))


def test_a_table_too_large_for_memory_is_refused() -> None:
    states = gym.spaces.MultiDiscrete([1000] * 4)
    with pytest.raises(UsageError, match=r"1,000,000,000,000 states x 2 actions takes 14,901"):
        QLearning(states, gym.spaces.Discrete(2))
    with pytest.raises(UsageError, match="10\\^361"):
        QLearning(TableIndex(gym.spaces.Box(0, 1, (400,)), 8), gym.spaces.Discrete(2))


def test_a_saved_table_of_another_shape_is_refused() -> None:
    other = QLearning(gym.spaces.Discrete(4), gym.spaces.Discrete(2))
    with pytest.raises(UsageError, match=r"arrays/q: .*\[4, 2\].*\[3, 2\]"):
        learner().load_state_dict(other.state_dict())
