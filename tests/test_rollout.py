"""Rollouts of a fixed shape, advantages on them, and the PPO of docs/examples."""

import inspect
import runpy
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from seqrl.agents.deep import targets
from seqrl.agents.experience.rollout import Rollout
from seqrl.core import tree
from seqrl.core.errors import UsageError
from seqrl.core.types import Transition
from seqrl.envs.making import make
from seqrl.networks.build import build
from seqrl.training.loop.evaluation import evaluate
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.train import train
from seqrl.training.loop.turns import split
from seqrl.training.runs import checkpoint

GAMMA = 0.5
EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
PPO = runpy.run_path(str(EXAMPLES / "ppo.py"))["PPO"]


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


# PPO


def agent_and_envs(network="mlp", env="CartPole-v1", seed=0, n=4, **more):
    envs = make(env, n, **({} if "seqrl" in env else {"max_episode_steps": 12}))
    torch.manual_seed(seed)
    args = {"hidden": [8]} if network == "mlp" else {"hidden_size": 6, "hidden": [8]}
    net = build(network, envs.single_observation_space, **args)
    spaces = envs.single_action_space, envs.single_observation_space
    return PPO(net, *spaces, seed=seed, **more), envs


class Watching(PPO):
    """Notes how far the first minibatch of every rollout is from the policy that acted."""

    def update(self, batch):
        metrics = super().update(batch)
        if self.updates % (self.epochs * self.minibatches) == 1:
            self.gaps = [*getattr(self, "gaps", []), float(metrics["train/ratio_gap"])]
        return metrics


@pytest.mark.parametrize("network", ["mlp", "rnn", "lstm", "gru", "attention"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_the_first_ratio_is_one(network, backend):
    """Log-probabilities of acting against those of learning, over resets and stored memory."""
    args = {} if network == "mlp" else {"hidden": [8]}
    envs = make("CartPole-v1", 4, max_episode_steps=12)
    net = build(network, envs.single_observation_space, **args)
    spaces = envs.single_action_space, envs.single_observation_space
    agent = Watching(net, *spaces, turns=20, backend=backend, seed=0)
    train(agent, envs, 4 * 20 * 4, seed=0)
    assert len(agent.gaps) == 4
    assert max(agent.gaps) < 2e-6


@pytest.mark.parametrize("network", ["mlp", "gru"])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_a_run_goes_on_as_if_it_had_not_stopped(network, env, tmp_path):
    def loop():
        agent, envs = agent_and_envs(network, env, turns=10)
        agent.horizon = 100
        loop = Interaction(agent, envs)
        loop.reset(np.random.SeedSequence(3))
        return loop

    once = loop()
    once.run(4 * 25)
    twice = loop()
    twice.run(4 * 13)
    checkpoint.save(tmp_path / "it", twice.state_dict())
    other = loop()
    other.load_state_dict(checkpoint.load(tmp_path / "it"))
    other.run(4 * 12)
    parts = [x.agent.state_dict()["parts"] for x in (once, other)]
    for leaf, same in zip(*map(tree.leaves, parts), strict=True):
        np.testing.assert_array_equal(leaf, same)
    assert once.agent.updates == other.agent.updates == 2 * 16


def test_ppo_learns_to_balance():
    def score(seed):
        envs = make("CartPole-v1", 8)
        torch.manual_seed(seed)
        net = build("mlp", envs.single_observation_space)
        spaces = envs.single_action_space, envs.single_observation_space
        agent = PPO(net, *spaces, seed=seed)
        train(agent, envs, 30_000, seed=seed)
        return evaluate(agent, envs, 20, seed=1).mean

    assert sorted(score(seed) for seed in range(3))[1] > 200


def test_dropout_leaves_the_random_numbers_of_others_alone():
    envs = make("CartPole-v1", 4)
    observations, actions = envs.single_observation_space, envs.single_action_space
    agent = PPO(build("mlp", observations, dropout=0.5), actions, observations, turns=8)
    before = torch.get_rng_state()
    train(agent, envs, 64, seed=0)
    assert agent.updates and torch.equal(torch.get_rng_state(), before)


def test_an_algorithm_is_its_loss_and_its_batches():
    """`loss` and `batches` in at most 90 lines without docstrings and signature, two files."""

    def lines(method):
        text = inspect.getsource(method).splitlines()
        return len([line for line in text[2:] if line.strip()])

    assert sum(map(lines, (PPO.loss, PPO.value_loss, PPO.batches))) <= 90
    imported = {cls.__module__ for cls in PPO.__mro__ if cls.__module__.startswith("seqrl.agents")}
    bases = "deep.policy_agent", "deep.network_agent", "schedules"
    assert imported == {f"seqrl.agents.{base}" for base in bases}


def test_spaces_of_every_kind_take_part():
    for env in ("seqrl/TMaze-v0", "Pendulum-v1"):
        agent, envs = agent_and_envs(env=env, turns=8)
        train(agent, envs, 4 * 16, seed=0)
        assert agent.updates == 2 * 16
    assert isinstance(envs.single_action_space, gym.spaces.Box)
