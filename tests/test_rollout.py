"""Rollouts of a fixed shape, and advantages on them."""

import numpy as np
import pytest
import torch

from seqrl.agents.deep import targets
from seqrl.agents.experience.rollout import Rollout
from seqrl.core import tree
from seqrl.core.errors import UsageError
from seqrl.core.types import Transition
from seqrl.training.loop.turns import split
from seqrl.training.runs import checkpoint

GAMMA = 0.5


def turn(obs, start, end="--", valid=(True, True), kind="numpy"):
    """A turn of two environments; `end` has t, c or - for terminated, cut, neither."""
    obs = np.array(obs, np.float32)
    made = Transition(
        obs=obs[:, None],
        start=np.array(start, bool),
        state=None,
        next_state=None,
        action=obs.astype(np.int64),
        log_prob=-obs,
        reward=obs * 1.0,
        terminated=np.array([mark == "t" for mark in end]),
        truncated=np.array([mark == "c" for mark in end]),
        next_obs=obs[:, None] + 1,
        valid=np.array(valid, bool),
    )
    return made if kind == "numpy" else Transition(*tree.map(torch.tensor, tuple(made)))


def value(obs, start, state):
    """Ten times what is seen."""
    return obs[..., 0] * 10


def filled(kind, turns=3):
    store = Rollout(turns, GAMMA, value)
    store.add(turn([1, 11], [1, 1], kind=kind))
    store.add(turn([2, 12], [0, 0], "ct", kind=kind))
    store.add(turn([5, 15], [1, 1], kind=kind))
    return store


def plain(leaf):
    return np.asarray(leaf).tolist()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_turns_become_a_batch_of_a_fixed_shape(kind):
    store = filled(kind)
    assert store.full
    batch = store.take()
    assert len(store) == 0 and not store.full
    assert plain(batch.obs[..., 0]) == [[1, 11], [2, 12], [5, 15], [6, 16]]
    assert plain(batch.log_prob[:3]) == [[-1, -11], [-2, -12], [-5, -15]]
    assert plain(batch.discount[:3]) == [[0.5, 0.5], [0.5, 0], [0.5, 0.5]]
    assert plain(batch.extra["bootstrap"][:3]) == [[0, 0], [30, 0], [0, 0]]
    assert plain(batch.extra["over"][:3]) == [[False, False], [True, True], [False, False]]
    assert plain(batch.valid) == [[True] * 2] * 3 + [[False] * 2] == plain(~batch.final)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_advantages_by_hand(kind):
    batch = filled(kind).take()
    values = value(batch.obs, None, None)
    leaves = batch.reward, batch.discount, batch.final, batch.extra["over"], values
    found = targets.gae(*leaves, batch.extra["bootstrap"], 0.5)
    last = [5 + 0.5 * 60 - 50, 15 + 0.5 * 160 - 150]
    middle = [2 + 0.5 * 30 - 20, 12 + 0 - 120]  # cut: the value of what followed; terminated: 0
    first = [1 + 0.5 * (20 + 0.5 * middle[0]) - 10, 11 + 0.5 * (120 + 0.5 * middle[1]) - 110]
    assert plain(found) == [first, middle, last, [0, 0]]


def test_advantages_with_a_decay_of_one_are_the_returns_less_the_values():
    rng = np.random.default_rng(0)
    shape = 7, 5
    reward, values = rng.normal(size=shape), rng.normal(size=shape)
    over = rng.random(shape) < 0.3
    following = np.where(over, rng.normal(size=shape), 0.0)
    discount = np.where(rng.random(shape) < 0.2, 0.0, 0.9)
    final = np.zeros(shape, bool)
    found = targets.gae(reward, discount, final, over, values, following, 1.0)
    for env in range(5):
        for t in range(6):
            total, weight, k = 0.0, 1.0, t
            while True:
                total += weight * reward[k, env]
                weight *= discount[k, env]
                if over[k, env] or k == 5:
                    break
                k += 1
            total += weight * (following[k, env] if over[k, env] else values[k + 1, env])
            assert found[t, env] == pytest.approx(total - values[t, env])


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("end", ["--", "c-", "-c", "tc"])
def test_a_turn_that_an_exact_end_has_split_is_one_row(kind, end):
    whole, halves = Rollout(3, GAMMA, value), Rollout(3, GAMMA, value)
    for step in (turn([1, 11], [1, 1], end, kind=kind), turn([2, 12], [0, 0], kind=kind)):
        whole.add(step)
        for half in split(step, 1):
            halves.add(half)
    one, other = whole.take(), halves.take()
    for leaf, same in zip(tree.leaves(tuple(one)), tree.leaves(tuple(other)), strict=True):
        assert plain(leaf) == plain(same)


def test_filler_is_a_final_row_and_its_step_before_bootstraps():
    store = Rollout(3, GAMMA, value)
    store.add(turn([1, 11], [1, 1], "c-"))
    store.add(turn([2, 12], [0, 0], valid=[False, True]))
    store.add(turn([5, 13], [1, 0]))
    batch = store.take()
    assert plain(batch.final[:, 0]) == [False, True, False, True]
    leaves = batch.reward, batch.discount, batch.final, batch.extra["over"]
    found = targets.gae(*leaves, value(batch.obs, None, None), batch.extra["bootstrap"], 1.0)
    assert found[0, 0] == 1 + 0.5 * 20 - 10 and found[1, 0] == 0


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("parts", [1, 2])
def test_an_episode_left_for_a_new_one_is_not_bridged(kind, parts):
    """Its last step is of no use, the one before goes on with the value of what was seen then."""
    store = Rollout(4, GAMMA, value)
    store.add(turn([1, 11], [1, 1], kind=kind))
    store.add(turn([2, 12], [0, 0], "-t", kind=kind))
    if parts == 2:  # an exact end has split a turn, and its other steps never come
        store.add(split(turn([3, 13], [0, 1], kind=kind), 1)[0])
    store.add(turn([100, 110], [1, 1], kind=kind))
    batch = store.take()
    assert plain(batch.obs[..., 0]) == [[1, 11], [2, 12], [100, 110], [101, 111]]
    assert plain(batch.valid) == [[True, True], [False, True], [True, True], [False, False]]
    leaves = batch.reward, batch.discount, batch.final, batch.extra["over"]
    found = targets.gae(*leaves, value(batch.obs, None, None), batch.extra["bootstrap"], 1.0)
    assert plain(found[:, 0]) == [1 + GAMMA * 20 - 10, 0, 100 + GAMMA * 1010 - 1000, 0]


def test_a_loaded_rollout_of_other_environments_is_dropped():
    store = Rollout(4, GAMMA, value)
    store.load_state_dict(filled("numpy", turns=4).state_dict())
    store.state = np.zeros((2, 3))
    one = tree.map(lambda leaf: leaf[:1], tuple(turn([7, 8], [1, 1]))[:-1])
    store.add(Transition(*one))
    assert len(store) == 1 and plain(store.take().obs[..., 0]) == [[7], [8]]


def test_a_single_advantage_is_left_as_it_is():
    assert plain(
        targets.normalized(torch.tensor([[3.0], [5.0]]), torch.tensor([[True], [False]]))
    ) == [[3], [0]]


def test_constant_targets_are_explained_by_nothing():
    found = targets.explained_variance(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0 + 1e-6]))
    assert found == 0


def test_a_rollout_is_saved_and_refused_by_name(tmp_path):
    store = filled("numpy", turns=4)
    checkpoint.save(tmp_path / "it", {"store": store.state_dict()})
    saved = checkpoint.load(tmp_path / "it")["store"]
    fresh = Rollout(4, GAMMA, value)
    fresh.load_state_dict(saved)
    for one in (store, fresh):
        one.add(turn([6, 16], [0, 0], "cc"))
    for leaf, same in zip(*(tree.leaves(tuple(s.take())) for s in (store, fresh)), strict=True):
        assert plain(leaf) == plain(same)
    with pytest.raises(UsageError, match="agent/store/rows"):
        Rollout(5, GAMMA, value).load_state_dict(saved)
    with pytest.raises(UsageError, match="agent/store/filled"):
        Rollout(2, GAMMA, value).load_state_dict(saved)
    wrong = Rollout(4, GAMMA, value)
    wrong.load_state_dict(saved)
    with pytest.raises(UsageError, match="agent/store/rows/obs"):
        wrong.add(turn([6, 16], [0, 0])._replace(obs=np.zeros((2, 3), np.float32)))
