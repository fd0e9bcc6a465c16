"""Whole episodes, gathered from several environments."""

import numpy as np
import pytest
import torch

from seqrl.agents.experience.episodes import INITIAL_LENGTH, Episodes
from seqrl.core import tree
from seqrl.core.types import Transition
from seqrl.training.loop.turns import split
from seqrl.training.runs import checkpoint

GAMMA = 0.5


def turn(obs, start, reward=None, end="", valid=None, kind="numpy"):
    """A turn of rows that see `obs`; `end` has t, c or - for terminated, cut, neither."""
    n = len(obs)
    obs, end = np.array(obs, np.float32), end or "-" * n
    made = Transition(
        obs=obs[:, None],
        start=np.array(start, bool),
        state=None,
        next_state=None,
        action=obs.astype(np.int64),
        log_prob=None,
        reward=obs * 1.0 if reward is None else np.array(reward, np.float64),
        terminated=np.array([mark == "t" for mark in end]),
        truncated=np.array([mark == "c" for mark in end]),
        next_obs=obs[:, None] + 1,
        valid=np.ones(n, bool) if valid is None else np.array(valid, bool),
    )
    return made if kind == "numpy" else Transition(*tree.map(torch.tensor, tuple(made)))


def plain(values):
    return np.asarray(values).tolist()


def lengths(batch):
    """Of the episodes, whose steps are the valid rows; the one behind them is a final row."""
    assert plain(batch.final) == plain(~batch.valid)
    length = batch.valid.sum(0)
    assert plain(batch.valid) == plain(np.arange(len(batch.valid))[:, None] < np.asarray(length))
    assert plain(batch.start) == plain(
        np.eye(len(batch.valid), 1, dtype=bool) & [True] * len(length)
    )
    return plain(length)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_episodes_of_different_length_become_one_padded_batch(kind):
    store = Episodes(GAMMA)
    for t, (start, end) in enumerate([(1, "--"), (0, "t-"), (0, "-c")]):
        begins = [start or t == 2, start]
        store.add(turn([10 + t, 20 + t], begins, end=end, kind=kind))
    assert len(store) == 2
    batch = store.take()
    assert len(store) == 0
    assert isinstance(batch.obs, np.ndarray if kind == "numpy" else torch.Tensor)
    assert lengths(batch) == [2, 3]
    assert (
        plain(batch.discount[:2, 0]) == [GAMMA, 0] and plain(batch.discount[:3, 1]) == [GAMMA] * 3
    )
    assert plain(batch.obs[:, 0, 0]) == [10, 11, 12, 0]  # with what followed
    assert plain(batch.obs[:, 1, 0]) == [20, 21, 22, 23]
    assert plain(batch.action[:3, 1]) == plain(batch.reward[:3, 1]) == [20, 21, 22]
    store.add(turn([13, 23], [0, 1], end="tt", kind=kind))  # what row 0 began goes on
    batch = store.take()
    assert lengths(batch) == [2, 1]
    assert plain(batch.obs[:, :, 0]) == [[12, 23], [13, 24], [14, 0]]


def test_filler_rows_are_not_kept():
    store = Episodes(GAMMA)
    store.add(turn([1, 5], [1, 1], end="t-"))
    store.add(turn([99, 6], [0, 0], valid=[0, 1]))  # what a NEXT_STEP environment answers
    store.add(turn([2, 7], [1, 0]))
    store.add(turn([3, 8], [0, 0], end="tc"))
    batch = store.take()
    assert lengths(batch) == [1, 2, 4]
    assert plain(batch.obs[:2, 1, 0]) == [2, 3]
    assert plain(batch.obs[:4, 2, 0]) == [5, 6, 7, 8]
    assert 99 not in batch.obs


def test_an_end_on_a_filler_row_is_none():
    store = Episodes(GAMMA)
    store.add(turn([1, 2], [1, 1], end="tt", valid=[0, 1]))
    assert lengths(store.take()) == [1]


def test_an_episode_that_was_never_finished_is_forgotten():
    store = Episodes(GAMMA)
    store.add(turn([1], [1]))
    store.add(turn([2], [1]))
    store.add(turn([3], [0], end="t"))
    assert plain(store.take().obs) == [[[2]], [[3]], [[4]]]


def test_a_turn_that_was_split_brings_the_same_episodes():
    turns = [turn([1, 2, 3], [1, 1, 1]), turn([4, 5, 6], [0, 0, 0], end="tct")]
    whole, halves = Episodes(GAMMA), Episodes(GAMMA)
    for step in turns:
        whole.add(step)
        for half in split(step, 2):
            halves.add(half)
    first, second = whole.take(), halves.take()
    assert lengths(second) == lengths(first) == [2, 2, 2]
    assert plain(second.obs) == plain(first.obs)


def test_columns_grow_with_the_longest_episode():
    store, long = Episodes(GAMMA), 3 * INITIAL_LENGTH
    for t in range(long):
        last = t == long - 1
        store.add(turn([t, -t], [t == 0, t % 10 == 0], end=("t" if last else "-") + "-"))
    batch = store.take()
    assert lengths(batch) == [long]
    assert plain(batch.reward[:-1, 0]) == list(range(long))


def test_columns_do_not_grow_with_the_run():
    store = Episodes(GAMMA)
    for t in range(4 * INITIAL_LENGTH):
        store.add(turn([t], [t % 2 == 0], end="t" if t % 2 else "-"))
    assert len(store.columns["reward"]) == INITIAL_LENGTH and len(store) == 2 * INITIAL_LENGTH


def test_the_number_of_environments_may_change():
    store = Episodes(GAMMA)
    store.add(turn([1, 2], [1, 1]))
    store.add(turn([3], [1], end="t"))
    assert plain(store.take().obs) == [[[3]], [[4]]]


def test_observations_may_be_trees():
    step = turn([1, 2], [1, 1], end="tt")
    parts = {"a": step.obs, "b": (step.action,)}
    store = Episodes(GAMMA)
    store.add(step._replace(obs=parts, next_obs=parts))
    batch = store.take()
    assert plain(batch.obs["b"][0][0]) == [1, 2]
    assert plain(batch.obs["a"]) == [[[1], [2]]] * 2


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_a_copy_goes_on_from_a_file(kind, tmp_path):
    steps = [turn([1, 2], [1, 1], end="t-", kind=kind), turn([3, 4], [1, 0], end="-c", kind=kind)]
    store, copied = Episodes(GAMMA), Episodes(GAMMA)
    store.add(steps[0])
    checkpoint.save(tmp_path / "store", store.state_dict())
    copied.load_state_dict(checkpoint.load(tmp_path / "store"))
    first, second = (one.add(steps[1]) or one.take() for one in (store, copied))
    for a, b in zip(tree.leaves(first[:8]), tree.leaves(second[:8]), strict=True):
        assert type(a) is type(b) and a.dtype == b.dtype and plain(a) == plain(b)
