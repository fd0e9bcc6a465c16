"""SARSA on a five-step episode worked out by hand; alpha and gamma 1/2, so all is exact.

S, A, R: (0, 0, 0), (1, 1, 4), (0, 0, 2), (1, 0, -2), (2, 1, 8), and the end. Where the policy's
expected value is asked for, epsilon is 1/2: 1/4 of the lower value and 3/4 of the higher.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from seqrl.agents import Boltzmann, EpsilonGreedy, MonteCarlo, Sarsa
from seqrl.core import Transition, UsageError

FIVE = [(0, 0, 0), (1, 1, 4), (0, 0, 2), (1, 0, -2), (2, 1, 8)]
Steps = list[tuple[int, int, float]]


def learner(cls: Any = Sarsa, **options: Any) -> Any:
    numbers = dict(learning_rate=0.5, gamma=0.5, exploration=EpsilonGreedy(0.5)) | options
    return cls(gym.spaces.Discrete(3), gym.spaces.Discrete(2), **numbers)


def turns(*episodes: Steps, last: int, cut: bool) -> list[Transition]:
    """Equally long episodes side by side, all of which end, or are cut, in `last`."""
    n, length = len(episodes), len(episodes[0])
    s, a, r = np.array(episodes).transpose(2, 1, 0)  # [T, N]
    after = np.concatenate([s[1:], np.full((1, n), last)])
    start, over = (np.repeat(np.eye(length, dtype=bool)[k, :, None], n, 1) for k in (0, -1))
    ends = over & (not cut), over & cut
    columns = s, start, a, r.astype(float), *ends, after
    return [
        Transition(s, start, None, None, a, None, r, end, stop, after, end | True)
        for s, start, a, r, end, stop, after in zip(*columns, strict=True)
    ]


def feed(agent: Any, *episodes: Steps, last: int = 0, cut: bool = False) -> Any:
    for turn in turns(*episodes, last=last, cut=cut):
        agent.learn(turn)
    return agent


def cells(agent: Any) -> list[float]:
    """Q of (0, 0), (1, 0), (1, 1) and (2, 1); the other two pairs are never met."""
    assert agent.q[0, 1] == agent.q[2, 0] == 0
    return [agent.q[0, 0], agent.q[1, 0], agent.q[1, 1], agent.q[2, 1]]


def test_one_step() -> None:
    """Targets 0, 4, 2 + Q(1, 0)/2 = 2 (not 3: the action taken is not the best), -2, 8."""
    assert cells(feed(learner(), FIVE)) == [1, -1, 2, 4]


def test_it_learns_one_step_late() -> None:
    """Of each pair when the next action is known, of the last at once."""
    agent, seen = learner(), []
    for turn in turns(FIVE, last=0, cut=False):
        agent.learn(turn)
        seen.append(cells(agent))
    assert seen == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0], [1, 0, 2, 0], [1, -1, 2, 4]]


def test_one_step_when_cut() -> None:
    """State 1 is worth -1/4 + 2 * 3/4 = 1.25: the last target is 8 + .625."""
    assert cells(feed(learner(), FIVE, last=1, cut=True)) == [1, -1, 2, 4.3125]


def test_a_cut_draws_nothing() -> None:
    agent = learner(seed=3)
    feed(agent, FIVE, last=1, cut=True)
    assert agent.rng.random() == learner(seed=3).rng.random()


def test_what_waits_is_dropped_when_an_episode_opens() -> None:
    agent = learner()
    agent.learn(turns([(0, 0, 100), (0, 0, 100)], last=0, cut=False)[0])
    assert cells(feed(agent, [(2, 1, 8)])) == [0, 0, 0, 4]


def test_expected() -> None:
    """Targets 0, 4, 2 + (0/4 + 2 * 3/4)/2, -2, 8; when cut 8 + 1.25/2."""
    assert cells(feed(learner(expected=True), FIVE)) == [1.375, -1, 2, 4]
    cut = feed(learner(expected=True), FIVE, last=1, cut=True)
    assert cells(cut) == [1.375, -1, 2, 4.3125]


def test_expected_learns_at_once() -> None:
    agent = learner(expected=True)
    for turn in turns(FIVE, last=0, cut=False)[:2]:
        agent.learn(turn)
    assert agent.q[1, 1] == 2


def test_expected_by_softmax() -> None:
    """Q(1) = (0, ln 3) at temperature 1: weights 1/4 and 3/4."""
    agent = learner(expected=True, exploration=Boltzmann(1.0))
    agent.q[1, 1] = np.log(3)
    feed(agent, [(0, 0, 2)], last=1, cut=True)
    assert agent.q[0, 0] == pytest.approx((2 + np.log(3) * 3 / 8) / 2, rel=1e-14)


def test_the_policy_has_the_rate_of_the_step() -> None:
    """epsilon falls from 1 to 0 over 4 steps; here 2 are done, so 1/2 at the third."""
    agent = learner(expected=True, exploration=EpsilonGreedy("linear:1:0:4"))
    feed(agent, [(1, 1, 8)])
    feed(agent, [(1, 0, 0)])
    feed(agent, [(0, 0, 2)], last=1, cut=True)
    assert agent.q.tolist() == [[(2 + 4 * 0.75 / 2) / 2, 0], [0, 4], [0, 0]]


def test_three_steps() -> None:
    """Targets 0 + 4/2 + 2/4 + 8/8, 4 + 2/2 - 2/4 + 8/8, 2 - 2/2 + 8/4, -2 + 8/2, 8."""
    agent = feed(learner(n_step=3, initial_value=8), FIVE)
    assert agent.q.tolist() == [[4.375, 8], [5, 6.75], [8, 8]]


def test_three_steps_when_cut() -> None:
    """State 1 is worth 6.75/4 + 8 * 3/4: its share is 1/8, 1/4 and 1/2 of that."""
    agent = feed(learner(n_step=3, initial_value=8), FIVE, last=1, cut=True)
    tail = 6.75 / 4 + 6
    late = [(5.75 + 3 + tail / 8) / 2, (8 + 2 + tail / 4) / 2, (8 + 8 + tail / 2) / 2]
    assert agent.q.tolist() == [[late[0], 8], [late[1], 6.75], [8, late[2]]]


def test_three_expected_steps() -> None:
    """(0, 0) learns at once at the third step: 2.5 + (8/4 + 8 * 3/4)/8 = 3.5."""
    agent = learner(n_step=3, initial_value=8, expected=True)
    steps = turns(FIVE, last=0, cut=False)
    for turn in steps[:3]:
        agent.learn(turn)
    assert agent.q[0, 0] == 5.75
    for turn in steps[3:]:
        agent.learn(turn)
    assert agent.q.tolist() == [[4.375, 8], [5, 6.75], [8, 8]]


def test_more_steps_than_the_episode_has() -> None:
    """Whole returns 2.75, 5.5, 3, 2, 8, one after the other: every-visit Monte Carlo forwards."""
    assert cells(feed(learner(n_step=9), FIVE)) == [2.1875, 1, 2.75, 4]


def test_traces() -> None:
    """lambda 1/2, the trace fades by 1/4. TD errors 0, 4, 1.5, -2, 8; no cut where it explores."""
    agent = feed(learner(trace_decay=0.5), FIVE)
    assert cells(agent) == [1.296875, 0, 2.1875, 4]


def test_traces_that_are_replaced() -> None:
    agent = feed(learner(trace_decay=0.5, trace="replacing"), FIVE)
    assert cells(agent) == [1.25, 0, 2.1875, 4]


def test_traces_when_cut() -> None:
    """State 1 is worth -1/4 + 2.125 * 3/4: the last error is 8 and half of that."""
    agent = feed(learner(trace_decay=0.5), FIVE, last=1, cut=True)
    error = 8 + (-0.25 + 2.125 * 0.75) / 2
    assert cells(agent)[1] == -1 + error / 8
    assert cells(agent)[3] == error / 2


def test_traces_end_with_the_episode() -> None:
    agent = learner(trace_decay=0.5)
    feed(agent, [(0, 0, 4)], last=1, cut=True)
    assert cells(feed(agent, [(2, 1, 8)])) == [2, 0, 0, 4]


def test_a_faint_trace_is_nearly_one_step() -> None:
    for expected in (False, True):
        faint = feed(learner(trace_decay=1e-12, expected=expected), FIVE)
        plain = feed(learner(expected=expected), FIVE)
        np.testing.assert_allclose(faint.q, plain.q, atol=1e-9)


def test_a_lasting_trace_is_monte_carlo() -> None:
    """lambda and gamma 1, no pair twice: the TD errors add up to the whole return's.

    On line a pair met again would be credited with its own changes, and only nearly agree.
    """
    path: Steps = [(0, 0, 1), (1, 1, -2), (0, 1, 4), (1, 0, 3)]
    for trace in ("accumulating", "replacing"):
        agents = learner(trace_decay=1, trace=trace, gamma=1), learner(MonteCarlo, gamma=1)
        for agent in agents:
            agent.q[2] = 5, 7
            for cut in (False, True, True):
                feed(agent, path, last=2, cut=cut)
        np.testing.assert_allclose(agents[0].q, agents[1].q, rtol=1e-12)
        assert agents[0].q[0, 0] == (3 + 12.5) / 4 + 12.5 / 2


def test_environments_side_by_side() -> None:
    """Each keeps what waits and its trace to itself; they share the table, so both count."""
    twin = feed(learner(), FIVE, FIVE)
    # 4 -> 2, 3; 2 -> 1, 1.5; then the first row -2 -> -1, 8 -> 4, the second -2 + 4/2, 8
    assert cells(twin) == [1.5, -0.5, 3, 6]
    for options in (dict(trace_decay=0.5), dict(n_step=3), dict(n_step=9)):
        still = [(2, 0, 0)] * 5
        both, alone = feed(learner(**options), FIVE, still), feed(learner(**options), FIVE)
        assert both.q[:2].tolist() == alone.q[:2].tolist()


def test_numbers_out_of_range_are_refused() -> None:
    for options in (dict(gamma=-1), dict(n_step=0), dict(trace_decay=2), dict(trace="x")):
        name, value = next(iter(options.items()))
        with pytest.raises(UsageError, match=f"{name} .*{value}"):
            learner(**options)
    with pytest.raises(UsageError, match="choose one"):
        learner(trace_decay=0.5, n_step=2)
