"""What was kept and is drawn again, against lists of what happened."""

import copy

import numpy as np
import pytest
import torch

from seqrl.agents.experience.batches import Indices, ranges, sequences, single_steps
from seqrl.agents.experience.columns import Columns, check_replay_memory
from seqrl.agents.experience.packing import pack
from seqrl.agents.experience.replay import Replay
from seqrl.agents.experience.rollout import Rollout
from seqrl.core import Transition, UsageError

GAMMA = 0.5
CPU = torch.device("cpu")


class World:
    """N environments whose every observation is another number; it remembers all steps."""

    def __init__(self, n, seed=0, filler=0.2, over=0.15, cut=0.1):
        self.rng, self.n, self.chances = np.random.default_rng(seed), n, (filler, over, cut)
        self.count = 0
        self.obs, self.start = self.fresh(np.ones(n, bool)), np.ones(n, bool)
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
            self.told[i].append(tuple(part[i].item() for part in row))
        ended = over | cut
        self.obs = np.where(ended, self.fresh(ended), next_obs)
        self.start = ended | (self.start & ~valid)
        return step


def image(ids):
    """Observations that hold a number: uint8 [N, 2, 4]."""
    return np.stack([ids.astype(np.int32)] * 2, 1).view(np.uint8).reshape(-1, 2, 4)


def number(images):
    """The inverse."""
    return np.ascontiguousarray(images).view(np.int32)[..., 0, 0]


def memory(ids):
    return (ids[:, None] + 0.5, {"h": ids.astype(np.float32)})


def packed(picked):
    return type(picked)(*pack(tuple(picked), CPU))


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


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("n_step", [1, 2, 4])
def test_single_steps_are_those_that_happened(n, n_step):
    world, replay, rng = World(n), Replay(n * 50), np.random.default_rng(1)
    for turn in range(130):
        replay.add(world.turn())
        if turn % 13:
            continue
        indices, weight = replay.draw(64, rng)
        assert weight is None
        batch = packed(single_steps(replay.rows, indices, n_step, GAMMA, done=True))
        for j in range(64):
            obs, after = number(batch.obs[0, j].numpy()), number(batch.after[0, j].numpy())
            told = world.told[indices.column[j]]
            at = [row[0] for row in told].index(obs)
            found = (batch.action[0, j], batch.total[0, j], batch.discount[0, j])
            expected = reference(told, at, n_step)
            assert (obs, *(part.item() for part in found), after) == expected
            follower = [row for row in told if row[0] == after]
            assert batch.after_final[0, j].item() == (not follower)
            if follower:
                assert batch.after_action[0, j].item() == follower[0][1]
    assert max(replay.rows.last) > 100  # written over more than once


def test_every_step_still_there_is_drawn_as_often_as_any_other():
    world, replay = World(3, over=0.3), Replay(3 * 40)
    for _ in range(100):
        replay.add(world.turn())
    indices, _ = replay.draw(60_000, np.random.default_rng(0))
    _, counts = np.unique(np.stack(indices), axis=1, return_counts=True)
    real = sum(
        not replay.rows.is_final((np.array([row]), np.array([i])))[0]
        for i, (first, last) in enumerate(zip(replay.rows.oldest, replay.rows.last, strict=True))
        for row in range(first, last)
    )
    assert len(counts) == real
    assert abs(counts / counts.mean() - 1).max() < 5 * np.sqrt(real / 60_000)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stored", [True, False])
def test_sequences_are_what_happened_in_order(n, stored):
    world, replay = World(n), Replay(n * 60, length=6, period=4, stored_state=stored)
    rng = np.random.default_rng(1)
    for turn in range(150):
        replay.add(world.turn())
        if turn % 15 or not len(replay):
            continue
        indices, _ = replay.draw(32, rng)
        batch = packed(sequences(replay.rows, indices, 6, 2))
        assert batch.obs.shape == (7, 32, 2, 4) and batch.obs.dtype == torch.uint8
        assert (indices.row % 4 == 0).all()
        for j in range(32):
            told, seen = world.told[indices.column[j]], number(batch.obs[:, j].numpy()).tolist()
            ids = [row[0] for row in told]
            line = []  # obs, or what followed the last step, with the row it belongs to
            for row in told:
                line.append((row[0], row))
                if row[6] or row is told[-1]:
                    line.append((row[3], None))
            at = [obs for obs, _ in line].index(seen[0])
            assert [obs for obs, _ in line[at : at + 7]] == seen
            for t, (_, row) in enumerate(line[at : at + 7]):
                assert batch.final[t, j].item() == (row is None)
                assert batch.mask[t, j].item() == (row is not None and 2 <= t < 6)
                if row is not None:
                    part = (batch.action, batch.reward, batch.terminated, batch.start)
                    found = tuple(leaf[t, j].item() for leaf in part)
                    assert found == (row[1], row[2], row[4], row[5])
            if not stored:
                assert batch.state is None
            elif seen[0] in ids:  # what entered the first row; nothing is carried over an end
                assert batch.state[0][j].item() == seen[0] + 0.5
                assert batch.state[1]["h"][j].item() == seen[0]
            else:
                assert batch.state[0][j].item() == seen[0] + 0.5


def test_a_fresh_memory_is_kept_as_zeros():
    world, rows = World(2), Columns(20, 1, states=True)
    step = world.turn()._replace(state=None, valid=np.ones(2, bool))
    rows.prepare(step)
    for state in rows.states[0], rows.states[1]["h"]:
        state[:] = 7
    rows.add(step)
    first = pack(rows.entering(np.zeros(2, int), np.arange(2)), CPU)
    after = pack(rows.entering(np.ones(2, int), np.arange(2)), CPU)
    assert first[0].tolist() == [[0], [0]] and first[1]["h"].tolist() == [0, 0]
    assert after[1]["h"].tolist() == step.next_state[1]["h"].tolist()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("length, period", [(1, 1), (5, 2)])
def test_priorities_are_those_last_given(n, length, period):
    """Against a dictionary: what is new has the highest, what was written over none."""
    world, rng = World(n), np.random.default_rng(2)
    replay = Replay(n * 40, length=length, period=period, priority=0.5)
    known, highest = {}, 1.0
    for _ in range(60):
        for _ in range(rng.integers(1, 9)):
            replay.add(world.turn())
        first, stop = replay._range()
        there = {
            (k * period, i)
            for i in range(n)
            for k in range(first[i], stop[i])
            if length > 1 or not replay.rows.is_final((np.array([k]), np.array([i])))[0]
        }
        if not there:
            continue
        known = {item: known.get(item, highest) for item in there}
        indices, chance = replay.draw(16, rng)
        total = sum(known.values())
        for row, column, found in zip(*indices, chance, strict=True):
            assert found == pytest.approx(known[row, column] * len(known) / total)
        assert replay.tree.total == pytest.approx(total)
        error = rng.random(16) * 9
        replay.prioritise(indices, error)
        for row, column, size in zip(*indices, error, strict=True):
            known[row, column] = (size + 1e-6) ** 0.5
        highest = max(highest, max((size + 1e-6) ** 0.5 for size in error))


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("n_step, waits", [(1, False), (1, True), (3, False), (3, True)])
def test_rollouts_hand_out_every_step_once_when_it_is_ready(n, n_step, waits):
    world = World(n)
    rollouts = Rollout(n_step, waits=waits, steps=12, stored_state=False)
    taken = [[] for _ in range(n)]
    for turn in range(200):
        rollouts.add(world.turn())
        if turn % 3:
            continue
        indices = ranges(*rollouts.take())
        real = ~rollouts.rows.is_final(indices)
        picked = Indices(indices.row[real], indices.column[real])
        if not len(picked.row):
            continue
        batch = packed(single_steps(rollouts.rows, picked, n_step, GAMMA, done=True))
        for j, i in enumerate(picked.column):
            obs, told = number(batch.obs[0, j].numpy()), world.told[i]
            at = [row[0] for row in told].index(obs)
            taken[i].append(at)
            assert batch.total[0, j].item() == reference(told, at, n_step)[2]
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
        Replay(12, length=6, period=4).add(World(3).turn())


@pytest.mark.parametrize("turns", [2, 30, 95])
@pytest.mark.parametrize("priority", [0.0, 0.7])
def test_a_replay_goes_on_from_what_was_saved(turns, priority):
    def replay():
        return Replay(3 * 32, length=3, period=2, stored_state=True, priority=priority)

    world, first, second, rng = World(3), replay(), replay(), np.random.default_rng(3)
    for _ in range(turns):
        first.add(world.turn())
        if len(first):
            indices, _ = first.draw(8, rng)
            if priority:
                first.prioritise(indices, rng.random(8))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(20):
        step = world.turn()
        first.add(step)
        second.add(step)
        assert len(first) == len(second)
        if not len(first):
            continue
        drawn = [each.draw(8, np.random.default_rng(9)) for each in (first, second)]
        for one, other in zip(drawn[0][0], drawn[1][0], strict=True):
            assert one.tolist() == other.tolist()
        one = packed(sequences(first.rows, drawn[0][0], 3))
        other = packed(sequences(second.rows, drawn[1][0], 3))
        assert all(torch.equal(a, b) for a, b in zip(one[:7], other[:7], strict=True))
        if priority:
            assert drawn[0][1].tolist() == drawn[1][1].tolist()
