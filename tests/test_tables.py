"""The arithmetic of tables, and every tabular update against the book's boxes, in plain dicts.

Sutton & Barto, Reinforcement Learning: An Introduction, 2nd edition (2018).
"""

import copy
import math
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrl.agents import EpsilonGreedy, MonteCarlo, QLearning, Sarsa, TableIndex
from seqrl.agents.tabular import td
from seqrl.agents.tabular.returns import n_step_return
from seqrl.agents.tabular.table import best, greedy, greedy_at_random, move, ties, value
from seqrl.core import Transition, generator, tree
from seqrl.envs import make
from seqrl.envs.finite import garnet
from seqrl.training import Interaction

TABLE = np.array([[1.0, 3.0, 2.0], [5.0, -1.0, 2.0], [0.0, 7.0, 6.0]])


def test_a_value_is_the_mean_of_its_rows() -> None:
    assert value(TABLE, (1,), 0) == 5.0
    assert [value(TABLE, (0, 1), a) for a in range(3)] == [3.0, 1.0, 2.0]
    assert value(TABLE, (0, 1, 2), 1) == 3.0
    assert value(memoryview(TABLE.data), (0, 1, 2), 1) == 3.0


def test_moving_a_value_by_an_amount_whatever_its_rows() -> None:
    table = TABLE.copy()
    move(table, (0, 2), 1, 0.5)
    assert table.tolist() == [[1, 3.5, 2], [5, -1, 2], [0, 7.5, 6]]
    assert value(table, (0, 2), 1) == value(TABLE, (0, 2), 1) + 0.5


def test_the_best_actions() -> None:
    for active, actions, found in [
        ((0,), range(3), (3.0, 1, 1)),
        ((0, 1), range(3), (3.0, 0, 1)),
        ((0,), [0, 2], (2.0, 2, 1)),
    ]:
        state = TABLE, active, actions
        assert (best(*state), greedy(*state), ties(*state)) == found
    flat = np.array([[-2.0, -1.0, -1.0, -3.0, -1.0]])
    for actions, found in [(range(5), (-1.0, 1, 3)), ([0, 2, 3, 4], (-1.0, 2, 2))]:
        state = flat, (0,), actions
        assert (best(*state), greedy(*state), ties(*state)) == found


def test_ties_are_broken_evenly() -> None:
    """Chi-square of 30,000 draws with 2 degrees of freedom: above 13.8 in one of 1,000 cases."""
    flat, rng = np.array([[1.0, 4.0, 4.0, 0.0, 4.0]]), generator(3)
    counts = np.bincount(
        [greedy_at_random(flat, (0,), range(5), rng) for _ in range(30_000)], minlength=5
    )
    assert counts[[0, 3]].tolist() == [0, 0]
    assert ((counts[[1, 2, 4]] - 10_000) ** 2 / 10_000).sum() < 13.8


def test_without_a_tie_nothing_is_drawn() -> None:
    rng = generator(0)
    assert greedy_at_random(TABLE, (2,), range(3), rng) == 1
    assert rng.random() == generator(0).random()


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=6), st.integers(0, 2**32))
def test_a_random_best_action_is_a_best_one(numbers: list[int], seed: int) -> None:
    table = np.array([numbers], float)
    state = table, (0,), range(len(numbers))
    found = greedy_at_random(*state, generator(seed))
    assert numbers[found] == max(numbers)
    assert greedy(*state) == numbers.index(max(numbers))
    assert ties(*state) == numbers.count(max(numbers))


def test_n_step_return_by_hand() -> None:
    """1 + 2/2 + 4/4 + 16/8 = 5."""
    assert n_step_return(np.array([[9.0, 9, 9], [1.0, 2, 4]]), 1, 3, 16.0, 0.5) == 5.0
    assert n_step_return(np.array([[7.0]]), 0, 0, 16.0, 0.5) == 16.0
    assert n_step_return(np.array([[1.0, 2.0]]), 0, 2, 9.0, 0.0) == 1.0


def agent_of(cls: Any, **numbers: Any) -> Any:
    return cls(gym.spaces.Discrete(6), gym.spaces.Discrete(3), **numbers)


def turn(valid: list[bool]) -> Transition:
    """Every row takes (2, 1), earns 1 and ends."""
    n = len(valid)
    yes, no = np.ones(n, bool), np.zeros(n, bool)
    s, a, after = (np.full(n, number) for number in (2, 1, 4))
    real = np.array(valid)
    return Transition(s, yes, None, None, a, None, np.ones(n), yes, no, after, real)


LEARNERS = [(QLearning, {}), (Sarsa, {}), (Sarsa, {"expected": True}), (MonteCarlo, {})]


@pytest.mark.parametrize("cls, options", LEARNERS)
def test_two_rows_on_the_same_pair_both_count(cls: Any, options: dict[str, Any]) -> None:
    """1/2 of the way to 1 twice; a row that is not valid teaches nothing and is no step."""
    agent = agent_of(cls, learning_rate=0.5, **options)
    agent.learn(turn([True, False, True]))
    assert agent.q[2, 1] == 0.75
    assert np.count_nonzero(agent.q) == 1
    assert agent.steps == 2


def test_other_numbers_of_environments_keep_what_was_learned() -> None:
    agent = agent_of(QLearning, learning_rate=0.5, trace_decay=0.5)
    for n in (1, 4, 2):
        agent.learn(turn([True] * n))
    assert agent.q[2, 1] == 1 - 0.5**7


# What follows are the boxes of the book, one row at a time, over recorded turns.

Row = tuple[int, bool, int, int, float, float, int, bool, bool]
Table = defaultdict[int, dict[int, float]]


@cache
def recorded(n: int) -> list[Transition]:
    """400 turns of n random models whose episodes end, or are cut after 6 steps."""
    P, initial = garnet(6, 3, 2, seed=n, terminal=0.15)
    model = dict(P=P, initial=initial, max_episode_steps=6)
    envs = make("seqrl/FiniteMDP-v0", n, vectorization="serial", **model)
    walker = agent_of(MonteCarlo, off_policy=True, exploration=EpsilonGreedy(0.5), seed=n)
    loop = Interaction(walker, envs)
    loop.reset(np.random.SeedSequence(n))
    steps = []
    for _ in range(400):
        steps.append(loop.stepped.play()[0])
        walker.learn(steps[-1])
    return steps


def rows(n: int) -> Iterator[Row]:
    """(environment, start, S, A, log b(A|S), R, S', terminated, truncated)."""
    for step in recorded(n):
        assert step.log_prob is not None
        parts = (step.start, step.obs, step.action, step.log_prob, step.reward, step.next_obs)
        columns = (part.tolist() for part in (*parts, step.terminated, step.truncated))
        yield from zip(range(n), *columns, strict=True)


def table() -> Table:
    return defaultdict(lambda: dict.fromkeys(range(3), 0.0))


def highest(q: dict[int, float]) -> float:
    return max(q.values())


def soft(q: dict[int, float]) -> float:
    """The value under an epsilon of .3."""
    return sum((0.1 + 0.7 * (a == max(q, key=q.__getitem__))) * q[a] for a in q)


def n_step(n: int, envs: int, worth: Callable[..., float], late: bool) -> Table:
    """Section 7.2: at time t the pair of tau = t - n + 1 is updated, `late` when A' is there."""
    Q, episodes = table(), defaultdict[int, list](list)

    def update(tau: int, episode: list, tail: float) -> None:
        s, a, _ = episode[tau]
        g = sum(0.9**k * r for k, (_, _, r) in enumerate(episode[tau:]))
        Q[s][a] += 0.25 * (g + 0.9 ** (len(episode) - tau) * tail - Q[s][a])

    for i, start, s, a, _, r, after, terminated, truncated in rows(envs):
        episode = episodes[i]
        if start:
            episode.clear()
        if late and len(episode) >= n:
            update(len(episode) - n, episode, Q[s][a])
        episode.append((s, a, r))
        tail = 0.0 if terminated else worth(Q[after])
        first = len(episode) - n
        if not late and first >= 0:
            update(first, episode, tail)
            first += 1
        elif late:
            first = max(first, 0)
        if terminated or truncated:
            for tau in range(max(first, 0), len(episode)):
                update(tau, episode, tail)
    return Q


def traces(decay: float, envs: int, replacing: bool, algorithm: str) -> Table:
    """Section 12.7, tabular; Watkins's (12.10) forgets before an action that is not greedy."""
    Q, traces, before = table(), defaultdict[int, dict](dict), {}

    def update(i: int, s: int, a: int, target: float) -> None:
        z = traces[i]
        delta = target - Q[s][a]
        z[s, a] = 1.0 if replacing else z.get((s, a), 0.0) + 1.0
        for x, u in z:
            Q[x][u] += 0.25 * delta * z[x, u]
            z[x, u] *= 0.9 * decay

    for i, start, s, a, _, r, after, terminated, truncated in rows(envs):
        if start:
            traces[i].clear()
        elif algorithm == "sarsa":
            last_s, last_a, last_r = before[i]
            update(i, last_s, last_a, last_r + 0.9 * Q[s][a])
        before[i] = s, a, r
        if algorithm == "watkins" and Q[s][a] < highest(Q[s]):
            traces[i].clear()
        if algorithm != "sarsa" or terminated or truncated:
            worth = highest if algorithm == "watkins" else soft
            update(i, s, a, r + 0.9 * (0.0 if terminated else worth(Q[after])))
    return Q


def double(envs: int, coins: np.random.Generator) -> Table:
    """Section 6.7, with the mean of both tables as the answer."""
    pair = table(), table()
    for _, _, s, a, _, r, after, terminated, _ in rows(envs):
        one, other = pair if coins.random() < 0.5 else pair[::-1]
        chosen = max(one[after], key=one[after].__getitem__)
        tail = 0.0 if terminated else other[after][chosen]
        one[s][a] += 0.25 * (r + 0.9 * tail - one[s][a])
    Q = table()
    for s, a in np.ndindex(6, 3):
        Q[s][a] = (pair[0][s][a] + pair[1][s][a]) / 2
    return Q


def monte_carlo(envs: int, first: bool, average: bool) -> Table:
    """Section 5.4, with the lists of returns that the box keeps."""
    Q, returns = table(), defaultdict[tuple, list](list)
    for episode, tail in whole_episodes(envs, Q, soft):
        pairs = [(s, a) for s, a, *_ in episode]
        for t in reversed(range(len(episode))):
            if first and pairs[t] in pairs[:t]:
                continue
            s, a = pairs[t]
            g = sum(0.9**k * r for k, (_, _, r, _) in enumerate(episode[t:]))
            g += 0.9 ** (len(episode) - t) * tail
            returns[s, a].append(g)
            Q[s][a] = float(np.mean(returns[s, a])) if average else Q[s][a] + 0.25 * (g - Q[s][a])
    return Q


def off_policy(envs: int) -> Table:
    """The box of section 5.7."""
    Q, C = table(), defaultdict[tuple, float](float)
    for episode, g in whole_episodes(envs, Q, highest):
        w = 1.0
        for s, a, r, log_b in reversed(episode):
            g = 0.9 * g + r
            C[s, a] += w
            Q[s][a] += w / C[s, a] * (g - Q[s][a])
            if a != max(Q[s], key=Q[s].__getitem__):
                break
            w /= math.exp(log_b)
    return Q


def whole_episodes(
    envs: int, Q: Table, worth: Callable[..., float]
) -> Iterator[tuple[list[tuple[int, int, float, float]], float]]:
    """Every episode when it is over, and what is to come where it was cut."""
    episodes = defaultdict[int, list](list)
    for i, _, s, a, log_b, r, after, terminated, truncated in rows(envs):
        episodes[i].append((s, a, r, log_b))
        if terminated or truncated:
            yield episodes.pop(i), 0.0 if terminated else worth(Q[after])


AVERAGE = dict(learning_rate=None)
EVERY = dict(first_visit=False)
REPLACING = dict(trace_decay=0.7, trace="replacing")
CASES: dict[str, tuple[Any, dict[str, Any], Callable[[int], Table]]] = {
    "q-learning": (QLearning, {}, lambda n: n_step(1, n, highest, False)),
    "q-learning 3 steps": (QLearning, dict(n_step=3), lambda n: n_step(3, n, highest, False)),
    "q-learning 9 steps": (QLearning, dict(n_step=9), lambda n: n_step(9, n, highest, False)),
    "double": (QLearning, dict(double=True), lambda n: double(n, generator(7))),
    "watkins": (QLearning, dict(trace_decay=0.7), lambda n: traces(0.7, n, False, "watkins")),
    "watkins replacing": (QLearning, REPLACING, lambda n: traces(0.7, n, True, "watkins")),
    "sarsa": (Sarsa, {}, lambda n: n_step(1, n, soft, True)),
    "sarsa 3 steps": (Sarsa, dict(n_step=3), lambda n: n_step(3, n, soft, True)),
    "sarsa 9 steps": (Sarsa, dict(n_step=9), lambda n: n_step(9, n, soft, True)),
    "sarsa(lambda)": (Sarsa, dict(trace_decay=0.7), lambda n: traces(0.7, n, False, "sarsa")),
    "sarsa(lambda) replacing": (Sarsa, REPLACING, lambda n: traces(0.7, n, True, "sarsa")),
    "expected": (Sarsa, dict(expected=True), lambda n: n_step(1, n, soft, False)),
    "expected 3 steps": (
        Sarsa,
        dict(expected=True, n_step=3),
        lambda n: n_step(3, n, soft, False),
    ),
    "expected(lambda)": (
        Sarsa,
        dict(expected=True, trace_decay=0.7),
        lambda n: traces(0.7, n, False, "expected"),
    ),
    "first visit": (MonteCarlo, AVERAGE, lambda n: monte_carlo(n, True, True)),
    "every visit": (MonteCarlo, AVERAGE | EVERY, lambda n: monte_carlo(n, False, True)),
    "first visit, constant": (MonteCarlo, {}, lambda n: monte_carlo(n, True, False)),
    "every visit, constant": (MonteCarlo, EVERY, lambda n: monte_carlo(n, False, False)),
    "off policy": (MonteCarlo, dict(off_policy=True), off_policy),
}


@pytest.mark.parametrize("envs", [1, 3])
@pytest.mark.parametrize("cls, numbers, reference", CASES.values(), ids=CASES)
def test_against_the_box(
    cls: Any, numbers: dict[str, Any], reference: Callable[[int], Table], envs: int
) -> None:
    common = dict(learning_rate=0.25, gamma=0.9, exploration=EpsilonGreedy(0.3), seed=7)
    agent = agent_of(cls, **(common | numbers))
    for step in recorded(envs):
        agent.learn(step)
    Q = reference(envs)
    expected = np.array([[Q[s][a] for a in range(3)] for s in range(6)])
    np.testing.assert_allclose(agent.q, expected, rtol=1e-9, atol=1e-12)
    assert np.abs(agent.q).min() > 0  # every pair was met


def dense(q, trace, pairs, step, decay):
    """What `spread` does, for all pairs of the table."""
    np.asarray(q)[...] += step * trace
    trace *= decay
    trace[trace < td.FAINTEST] = 0.0
    found = np.flatnonzero(trace)
    pairs.base[0, : len(found)] = found
    return len(found)


TRACED = {
    "watkins": (QLearning, {}),
    "replacing": (Sarsa, {"trace": "replacing"}),
    "expected": (Sarsa, {"expected": True}),
}


@pytest.mark.parametrize("decay", [0.9, 1e-60])
@pytest.mark.parametrize("name", TRACED)
def test_traces_of_few_pairs_are_those_of_the_whole_table(name, decay, monkeypatch) -> None:
    """To the bit, with a list of what was visited lately, and of nothing else."""
    cls, options = TRACED[name]
    tables = []
    for spread in (td.spread, dense):
        monkeypatch.setattr(td, "spread", spread)
        envs = make("CartPole-v1")
        index = TableIndex(envs.single_observation_space, bins=4, tiles=4)
        numbers = {"trace_decay": decay, "exploration": EpsilonGreedy(0.2), "seed": 0, **options}
        agent = cls(index, envs.single_action_space, **numbers)
        loop = Interaction(agent, envs)
        loop.reset(np.random.SeedSequence(0))
        for _ in range(40):
            loop.run(7)
            m = agent.arrays
            listed = sorted(m.pairs[0, : m.traced[0]].tolist())
            assert listed == np.flatnonzero(m.trace[0]).tolist()
            lengths = [loop.books.lengths[0], *(length for _, length in loop.books.recent)]
            assert len(listed) <= 4 * (6 if decay < 0.9 else max(lengths))
        tables.append(agent.q.copy())
    assert np.count_nonzero(tables[0]) > 30
    assert tables[0].tobytes() == tables[1].tobytes()


def test_a_saved_trace_is_listed_again_and_what_0_2_saved_besides_is_left() -> None:
    agents = [
        QLearning(gym.spaces.Discrete(9), gym.spaces.Discrete(2), trace_decay=0.5, seed=0)
        for _ in range(2)
    ]
    agents[0].prepare(2)
    agents[0].arrays.trace[1, [3, 5], [1, 0]] = 0.25, 1e-310
    state = copy.deepcopy(agents[0].state_dict())
    assert "pairs" not in state["arrays"]
    state["arrays"]["share"] = np.ones((9, 2))
    agents[1].load_state_dict(state)
    m = agents[1].arrays
    assert m.traced.tolist() == [0, 2] and m.pairs[1, :2].tolist() == [7, 10]


BUFFERS = {
    "number": (gym.spaces.Discrete(3), np.array([0])),
    "numbers": (gym.spaces.MultiDiscrete([3, 2]), np.zeros((1, 2), np.int64)),
    "nested": (
        gym.spaces.Dict(a=gym.spaces.Tuple((gym.spaces.Discrete(3), gym.spaces.MultiBinary(1)))),
        {"a": (np.array([0]), np.zeros((1, 1), np.int8))},
    ),
    "bins": (gym.spaces.Box(0, 3, (1,)), np.zeros((1, 1), np.float32)),
}


@pytest.mark.parametrize("kind", BUFFERS)
def test_a_buffer_that_is_filled_again_is_looked_at_again(kind: str) -> None:
    """State 0 wants action 1, state 2 action 2; learning ends in the state shown last."""
    space, obs = BUFFERS[kind]
    obs = copy.deepcopy(obs)
    index = TableIndex(space, bins=3 if kind == "bins" else None)
    agent = QLearning(index, gym.spaces.Discrete(3), learning_rate=1.0, gamma=0.5)
    start, none = np.array([True]), np.array([False])
    number = next(tree.leaves(obs)).reshape(1, -1)[:, :1]
    ((first,),) = index(obs)
    number[:] = 2
    ((third,),) = index(obs)
    agent.arrays.q[[first, third], [1, 2]] = 1.0, 4.0
    for state, action in ((0, 1), (2, 2), (0, 1)):
        number[:] = state
        assert agent.act(obs, start, explore=False).action.tolist() == [action]
    before = copy.deepcopy(obs)
    number[:] = 2
    step = Transition(
        before, start, None, None, np.array([0]), None, np.array([3.0]), none, none, obs, start
    )
    agent.learn(step)
    assert agent.q[first, 0] == 3 + 0.5 * 4


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda agent: pickle.loads(pickle.dumps(agent))])
@pytest.mark.parametrize("cls", [QLearning, Sarsa, MonteCarlo])
def test_a_copy_learns_on_as_the_original_would_and_leaves_it_alone(cls, copied):
    def going_on(agent):
        envs = make("FrozenLake-v1", 2)
        loop = Interaction(agent, envs, compile=False)
        loop.reset(np.random.SeedSequence(1))
        loop.run(400)
        return [np.array(array) for array in agent.arrays]

    spaces = make("FrozenLake-v1", 2)
    agent = cls(spaces.single_observation_space, spaces.single_action_space, seed=0)
    going_on(agent)
    before = [np.array(array) for array in agent.arrays]
    logged = {name: read() for name, read in agent.last_metrics.items()}
    other = copied(agent)
    of_copy = going_on(other)
    for kept, now in zip(before, agent.arrays, strict=True):
        np.testing.assert_array_equal(kept, now)
    assert logged == {name: read() for name, read in agent.last_metrics.items()}
    for learned, by_copy in zip(going_on(agent), of_copy, strict=True):
        np.testing.assert_array_equal(learned, by_copy)
    assert any((a != b).any() for a, b in zip(before, of_copy, strict=True))
