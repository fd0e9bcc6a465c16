"""What was kept and is drawn again, against lists of what happened."""

import copy

import numpy as np
import pytest
import torch

from seqrl.agents.experience.columns import Columns, Indices, check_replay_memory
from seqrl.agents.experience.on_policy import OnPolicy
from seqrl.agents.experience.replay import Replay, Sequences
from seqrl.core import tree
from seqrl.core.errors import UsageError
from seqrl.core.packing import pack
from seqrl.core.types import Transition

GAMMA = 0.5
CPU = torch.device("cpu")


class World:
    """N environments whose every observation is another number; it remembers all steps."""

    def __init__(self, n, seed=0, filler=0.2, over=0.15, cut=0.1):
        self.rng, self.n, self.chances = np.random.default_rng(seed), n, (filler, over, cut)
        self.count = 0
        self.obs, self.start = self.fresh(np.ones(n, bool)), np.ones(n, bool)
        self.places = {}  # of each observation: its environment, the number of its step
        self.told = [[] for _ in range(n)]  # (obs, action, reward, next_obs, over, start, ended)

    def fresh(self, rows):
        new = np.arange(self.count, self.count + self.n)
        self.count += self.n
        return new if not hasattr(self, "obs") else np.where(rows, new, self.obs)

    def turn(self):
        filler, over, cut = (self.rng.random(self.n) < chance for chance in self.chances)
        valid = ~(filler & self.start) if self.n > 1 else np.ones(1, bool)
        next_obs, action = self.fresh(valid), self.rng.integers(5, 9, self.n)
        reward, over, cut = self.rng.integers(0, 99, self.n) * 0.25, over & valid, cut & valid
        step = Transition(
            image(self.obs),
            self.start,
            memory(self.obs),
            memory(next_obs),
            action,
            None,
            reward,
            over,
            cut,
            image(next_obs),
            valid,
        )
        for i in np.flatnonzero(valid):
            row = (self.obs, action, reward, next_obs, over, self.start, over | cut)
            self.places[row[0][i]] = i, len(self.told[i])
            self.told[i].append(tuple(part[i].item() for part in row))
        ended = over | cut
        self.obs = np.where(ended, self.fresh(ended), next_obs)
        self.start = ended | (self.start & ~valid)
        return step


def image(ids):
    """Observations that hold a number: uint8 [N, 2, 4]."""
    return np.stack([ids.astype(np.int32)] * 2, 1).view(np.uint8).reshape(-1, 2, 4)


def number(images):
    """The inverse, of arrays or tensors."""
    return np.ascontiguousarray(images).view(np.int32)[..., 0, 0][()]


def memory(ids):
    return (ids[:, None] + 0.5, {"h": ids.astype(np.float32)})


def reference(told, at, n):
    """obs, action, discounted rewards, discount, where the value is taken; step by step."""
    total, discount = 0.0, 1.0
    for k in range(n):
        reward, after, over, _, ended = told[at + k][2:]
        total += discount * reward
        discount *= 0.0 if over else GAMMA
        if ended or at + k + 1 == len(told):
            break
    return told[at][0], told[at][1], total, discount, after


def step_of(batch, j):
    """The same of a column of a batch of steps."""
    obs, after = number(batch.obs[:, j])
    found = (part[0, j].item() for part in (batch.action, batch.reward, batch.discount))
    return obs, *found, after


@pytest.mark.parametrize("device", [None, CPU], ids=["numpy", "torch"])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("n_step", [1, 2, 4])
def test_single_steps_are_those_that_happened(n, n_step, device):
    world, rng = World(n), np.random.default_rng(1)
    replay = Replay(n * 50, n_step=n_step, gamma=GAMMA, device=device)
    for turn in range(130):
        replay.add(world.turn())
        if turn % 13:
            continue
        batch = replay.sample(64, rng)
        assert batch.weight is None and batch.indices is None
        assert isinstance(batch.obs, np.ndarray if device is None else torch.Tensor)
        for j in range(64):
            i, at = world.places[number(batch.obs[0, j])]
            told, after = world.told[i], number(batch.obs[1, j])
            assert step_of(batch, j) == reference(told, at, n_step)
            assert batch.valid[:, j].tolist() == [True, False]
            follower = [row for row in told if row[0] == after]
            assert batch.final[:, j].tolist() == [False, not follower]
            if follower:
                assert batch.action[1, j].item() == follower[0][1]
    assert max(replay.rows.last) > 100  # written over more than once


def test_every_step_still_there_is_drawn_as_often_as_any_other():
    world, replay = World(3, over=0.3), Replay(3 * 40)
    for _ in range(100):
        replay.add(world.turn())
    drawn = number(replay.sample(60_000, np.random.default_rng(0)).obs[0])
    counts = np.unique(drawn, return_counts=True)[1]
    real = sum(
        not replay.rows.is_final(np.array([row]), np.array([i]))[0]
        for i, (first, last) in enumerate(zip(replay.rows.oldest, replay.rows.last, strict=True))
        for row in range(first, last)
    )
    assert len(counts) == real
    assert abs(counts / counts.mean() - 1).max() < 5 * np.sqrt(real / 60_000)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stored", [True, False])
def test_sequences_are_what_happened_in_order(n, stored):
    shape = Sequences(8, burn_in=2, stored_state=stored)  # one begins at every fourth row
    world = World(n)
    replay = Replay(n * 60, n_step=3, gamma=GAMMA, sequences=shape, device=CPU)
    rng = np.random.default_rng(1)
    for turn in range(150):
        replay.add(world.turn())
        if turn % 15 or not len(replay):
            continue
        batch = replay.sample(32, rng)
        assert batch.obs.shape == (11, 32, 2, 4) and batch.obs.dtype == torch.uint8
        lines = []  # obs, or what followed the last step, with the row it belongs to
        for told in world.told:
            lines.append([])
            for row in told:
                lines[-1].append((row[0], row))
                if row[6] or row is told[-1]:
                    lines[-1].append((row[3], None))
        places = {obs: (i, at) for i, line in enumerate(lines) for at, (obs, _) in enumerate(line)}
        for j in range(32):
            seen = number(batch.obs[:, j]).tolist()
            i, at = places[seen[0]]
            line = lines[i][at : at + 11]
            assert at % 4 == 0 and [obs for obs, _ in line] == seen
            for t, (_, row) in enumerate(line):
                assert batch.final[t, j].item() == (row is None)
                assert batch.valid[t, j].item() == (row is not None and 2 <= t < 10)
                if row is not None:
                    part = (batch.action, batch.reward, batch.discount, batch.start)
                    found = tuple(leaf[t, j].item() for leaf in part)
                    assert found == (row[1], row[2], 0.0 if row[4] else GAMMA, row[5])
            if stored:  # what entered the first row; nothing is carried over an end
                assert batch.state[0][j].item() == seen[0] + 0.5
                assert batch.state[1]["h"][j].item() == seen[0]
        assert stored or batch.state is None


def test_a_fresh_memory_is_kept_as_zeros():
    world, rows = World(2), Columns(20, 1, states=True)
    step = world.turn()._replace(state=None, valid=np.ones(2, bool))
    rows.prepare(step)
    for state in rows.states[0], rows.states[1]["h"]:
        state[:] = 7
    rows.add(step)
    first, after = (
        pack(rows.sequences(Indices(np.full(2, at), np.arange(2)), 1, GAMMA).state, CPU)
        for at in (0, 1)
    )
    assert first[0].tolist() == [[0], [0]] and first[1]["h"].tolist() == [0, 0]
    assert after[1]["h"].tolist() == step.next_state[1]["h"].tolist()


class Watched(np.ndarray):
    """Notes the size of the largest array that a function of NumPy goes through."""

    largest = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return self.note(inputs, lambda plain: getattr(ufunc, method)(*plain, **options))

    def __array_function__(self, function, types, inputs, options):
        return self.note(inputs, lambda plain: function(*plain, **options))

    def note(self, inputs, call):
        Watched.largest = max(Watched.largest, *(getattr(x, "size", 1) for x in inputs))
        return call([x.view(np.ndarray) if isinstance(x, Watched) else x for x in inputs])


def test_a_draw_does_not_go_through_all_priorities():
    world, replay = World(2), Replay(40_000, priority=0.5)
    for _ in range(300):
        replay.add(world.turn())
    replay.sample(4, np.random.default_rng(0), beta=0.5)
    replay.add(world.turn())
    tree = replay.tree
    tree.levels[0] = tree.levels[0].view(Watched)
    batch = replay.sample(4, np.random.default_rng(0), beta=0.5)
    replay.prioritise(batch.indices, np.ones(4))
    assert 0 < Watched.largest < 1000 < tree.size


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("shape, period", [(None, 1), (Sequences(4, 1, False), 2)])
def test_priorities_are_those_last_given(n, shape, period):
    """Against a dictionary: what is new has the highest, what was written over none."""
    world, rng = World(n), np.random.default_rng(2)
    replay = Replay(n * 40, sequences=shape, priority=0.5)
    known, highest = {}, 1.0
    for _ in range(60):
        for _ in range(rng.integers(1, 9)):
            replay.add(world.turn())
        first, stop = replay._range()
        there = {
            (k * period, i)
            for i in range(n)
            for k in range(first[i], stop[i])
            if shape or not replay.rows.is_final(np.array([k]), np.array([i]))[0]
        }
        if not there:
            continue
        known = {item: known.get(item, highest) for item in there}
        seed = rng.integers(99)
        indices, chance = replay._draw(16, np.random.default_rng(seed))
        total = sum(known.values())
        for row, column, found in zip(*indices, chance, strict=True):
            assert found == pytest.approx(known[row, column] / total)
        assert replay.tree.total == pytest.approx(total)
        batch = replay.sample(16, np.random.default_rng(seed), beta=0.4)
        assert np.array_equal(batch.indices, indices)
        assert batch.weight == pytest.approx((chance / chance.min()) ** -0.4)
        error = rng.random(16) * 9
        replay.prioritise(indices, error)
        for row, column, size in zip(*indices, error, strict=True):
            known[row, column] = (size + 1e-6) ** 0.5
        highest = max(highest, max((size + 1e-6) ** 0.5 for size in error))


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("n_step, waits", [(1, False), (1, True), (3, False), (3, True)])
def test_steps_are_handed_out_once_when_they_are_ready(n, n_step, waits, memory):
    world = World(n)
    store = OnPolicy(
        n_step, GAMMA, waits=waits, steps=12, memory=memory, stored_state=True, device=CPU
    )
    taken = [[] for _ in range(n)]
    for turn in range(200):
        store.add(world.turn())
        if turn % 3 or not len(store):
            continue
        batch = store.take()
        assert not len(store)
        for t, j in batch.valid.nonzero().tolist():
            i, at = world.places[number(batch.obs[t, j])]
            taken[i].append(at)
            told = world.told[i]
            if memory:
                assert batch.reward[t, j].item() == told[at][2]
                assert batch.state[0][j].item() == number(batch.obs[0, j]) + 0.5
            else:
                assert step_of(batch, j) == reference(told, at, n_step)
            ends = [row[6] for row in told[at : at + n_step]]
            assert any(ends) or at + n_step + waits <= len(told)  # nothing is cut short
    for i in range(n):
        assert taken[i] == list(range(len(taken[i])))
        assert len(world.told[i]) - len(taken[i]) <= n_step + waits + 3


def test_observations_are_kept_once_and_as_they_are():
    rows = Columns(1000)
    step = World(2).turn()
    rows.prepare(step)
    assert rows.parts["obs"].shape == (500, 2, 2, 4) and rows.parts["obs"].dtype == np.uint8
    assert sum(leaf.nbytes for leaf in rows.parts.values()) == 1000 * (8 + 8 + 4 + 1)


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(UsageError, match=r"buffer_size 9: .* takes 1,048,576.0 GiB"):
        check_replay_memory(2**50, 9)
    with pytest.raises(UsageError, match=r"buffer_size 12: too small for 3 environments"):
        Replay(12, sequences=Sequences(4)).add(World(3).turn())
    with pytest.raises(UsageError, match=r"n_step 9: expected at most 4, the rows"):
        Replay(12, n_step=9).add(World(3).turn())
    with pytest.raises(UsageError, match=r"rows takes .* take a smaller --n-step or --train-every"):
        OnPolicy(1, 0.9, waits=True, steps=2**50).add(World(3).turn())


@pytest.mark.parametrize("turns", [2, 30, 95])
@pytest.mark.parametrize("priority", [0.0, 0.7])
def test_a_replay_goes_on_from_what_was_saved(turns, priority):
    def replay():
        return Replay(3 * 32, sequences=Sequences(4), priority=priority, device=CPU)

    def draw(replay):
        batch = replay.sample(8, np.random.default_rng(9), beta=0.5)._replace(extra={})
        return [leaf.tolist() for leaf in tree.leaves(tuple(batch._replace(starts=None)))]

    world, first, second, rng = World(3), replay(), replay(), np.random.default_rng(3)
    for _ in range(turns):
        first.add(world.turn())
        if len(first):
            batch = first.sample(8, rng)
            if priority:
                first.prioritise(batch.indices, rng.random(8))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(20):
        step = world.turn()
        first.add(step)
        second.add(step)
        assert len(first) == len(second)
        assert not len(first) or draw(first) == draw(second)
