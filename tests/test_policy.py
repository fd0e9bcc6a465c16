"""A policy from a run's folder: it plays as `evaluate` does, one observation at a time."""

import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import seqrl
from seqrl import training
from seqrl.core.errors import UsageError
from seqrl.core.seeding import ints
from seqrl.scripts import train
from seqrl.training.runs import checkpoint
from seqrl.training.runs import folder as runs

NEW = "--preset none --quiet --eval-episodes 0".split()
RUNS = {
    "table": "--agent q-learning --steps 3000",
    "tiles": "--agent sarsa --env MountainCar-v0 --steps 400 --tiles 4 --bins 4",
    "tuple": "--agent monte-carlo --env Blackjack-v1 --steps 400",
    "masked table": "--agent q-learning --env Taxi-v4 --action-mask info --steps 400",
    "deep q": "--agent q-learning --network mlp --env CartPole-v1 --steps 300",
    "reinforce": "--agent reinforce --network lstm --env CartPole-v1 --steps 300 --num-envs 2",
    "imitate": "--agent imitate --network gru --env seqrl/TMaze-v0 --steps 300 --num-envs 2",
    "ppo": "--agent ppo --env CartPole-v1 --steps 400 --num-envs 2 --rollout 64",
    "memory": "--agent ppo --network lstm --env seqrl/RepeatPrevious-v0 --steps 200 --rollout 64",
    "continuous": "--agent ppo --network gru --env Pendulum-v1 --steps 200 --rollout 64"
    " --normalize-obs",
    "masked": "--agent ppo --env Taxi-v4 --action-mask info --steps 200 --rollout 64 --epochs 1",
    "wrapped": "--agent ppo --env CartPole-v1 --steps 300 --rollout 64 --wrapper seqrl.envs:Mask"
    " --wrapper-arg hide=[1,3]",
}


def trained(folder, words):
    assert train.main([*words.split(), *NEW, "--run-dir", str(folder)]) == 0
    return folder


def episode(policy, seed, explore=False):
    """The return of an episode that begins as the first one of `evaluate` with this seed."""
    env, total, over = policy.make_envs().envs[0], 0.0, False
    obs, _ = env.reset(seed=ints(np.random.SeedSequence(seed), 1)[0])
    policy.reset()
    while not over:
        action = policy.predict(obs, explore=explore)
        assert env.action_space.contains(action)
        obs, reward, terminated, truncated, _ = env.step(action)
        total, over = total + float(reward), terminated or truncated
    return total


@pytest.mark.parametrize("name", RUNS)
def test_an_episode_by_predict_is_the_one_that_evaluate_plays(name, tmp_path):
    policy = seqrl.load(trained(tmp_path / "run", RUNS[name]))
    for seed in (1, 2, 1):
        found = training.evaluate(policy.agent, policy.make_envs(), 1, seed=seed)
        assert episode(policy, seed) == found.returns[0]
    assert episode(policy, 3, explore=True) is not None
    assert training.evaluate(policy.agent, policy.make_envs(3), 3, seed=0).returns.shape == (3,)


def test_reset_forgets_what_was_seen(tmp_path):
    policy = seqrl.load(trained(tmp_path / "run", RUNS["continuous"]))
    obs = np.float32([1.0, 0.0, 0.5])
    first, second = policy.predict(obs), policy.predict(obs)
    assert not np.array_equal(first, second)
    policy.reset()
    assert np.array_equal(policy.predict(obs), first)


def test_only_exploring_draws(tmp_path):
    policy = seqrl.load(trained(tmp_path / "run", RUNS["ppo"]))
    obs = np.zeros(4, np.float32)
    assert len({policy.predict(obs) for _ in range(30)}) == 1
    assert len({policy.predict(obs, explore=True) for _ in range(30)}) == 2


def test_a_batch_is_refused_in_a_line_that_names_act(tmp_path):
    table = seqrl.load(trained(tmp_path / "table", RUNS["table"]))
    masked = seqrl.load(trained(tmp_path / "masked", RUNS["masked table"]))
    ppo = seqrl.load(trained(tmp_path / "ppo", RUNS["ppo"]))
    mask = np.ones((2, 6), np.int8)
    batches = (table, [0, 1]), (table, np.array([3, 4])), (ppo, np.zeros((2, 4), np.float32))
    for policy, batch in (
        *batches,
        (masked, {"observation": np.array([1, 2]), "action_mask": mask}),
    ):
        with pytest.raises(UsageError, match=r"a batch of 2 .* policy\.agent\.act\(obs, "):
            policy.predict(batch)
    for policy, wrong in ((table, 16), (table, 0.5), (ppo, [1.0]), (ppo, "x"), (masked, 3)):
        with pytest.raises(UsageError, match=r"expected one of policy\.observation_space"):
            policy.predict(wrong)
    assert ppo.predict([0.0, 0.0, 0.0, 0.0]) in (0, 1)


def test_environments_are_those_of_the_run(tmp_path):
    wrapped = seqrl.load(trained(tmp_path / "run", RUNS["wrapped"]))
    assert wrapped.observation_space.shape == (2,)
    assert wrapped.config == tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert wrapped.make_envs(3).num_envs == 3
    shown = wrapped.make_envs(render_mode="rgb_array").envs[0]
    shown.reset(seed=0)
    assert shown.render().ndim == 3


def test_the_best_agent_is_another_one(tmp_path):
    words = [*RUNS["table"].split(), "--preset", "none", "--quiet", "--run-dir", str(tmp_path)]
    with pytest.raises(UsageError, match="no best agent was kept"):
        seqrl.load(trained(tmp_path / "x", RUNS["table"]), best=True)
    assert (
        train.main([*words[:-1], str(tmp_path / "y"), "--eval-every", "1000", "--no-pictures"]) == 0
    )
    best, last = (seqrl.load(tmp_path / "y", best=best).agent for best in (True, False))
    assert best.steps <= last.steps == 3000


def test_a_run_of_a_gpu_is_loaded_where_there_is_none(tmp_path):
    folder = trained(tmp_path / "run", RUNS["ppo"])
    config = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(config.replace('device = "cpu"', 'device = "cuda:7"'))
    assert 'device = "cuda:7"' in (folder / "config.toml").read_text()
    assert seqrl.load(folder).predict(np.zeros(4, np.float32)) in (0, 1)


def test_loading_leaves_torch_as_it_was(tmp_path, monkeypatch):
    folder = trained(tmp_path / "run", RUNS["ppo"])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.manual_seed(3)
    threads, drawn = torch.get_num_threads(), torch.rand(2)
    torch.manual_seed(3)
    torch.set_num_threads(2)
    try:
        seqrl.load(folder)
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.rand(2), drawn)
    finally:
        torch.set_num_threads(threads)


MODULE = """
import gymnasium as gym
import torch


class Odd(gym.Env):
    observation_space, action_space = gym.spaces.Discrete(3), gym.spaces.Discrete(2, start=5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        assert action in (5, 6)
        return 1, float(action), True, False, {}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Embedding(3, 4)

    def forward(self, obs):
        return self.layer(obs)


class Wrapped(gym.Wrapper):
    pass


gym.register("Odd-v0", Odd)
"""


def test_code_of_yours_is_named_once_more(tmp_path, monkeypatch):
    (tmp_path / "oddly.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    words = "--agent ppo --network oddly:Net --env oddly:Odd-v0 --steps 40 --rollout 20"
    folder = trained(tmp_path / "run", f"{words} --wrapper oddly:Wrapped")
    named = {"env": "oddly:Odd-v0", "network": "oddly:Net", "wrappers": ["oddly:Wrapped"]}
    for left_out in named:
        given = {name: code for name, code in named.items() if name != left_out}
        with pytest.raises(UsageError, match=rf"in Python {left_out}=\[?'oddly:"):
            seqrl.load(folder, **given)
    policy = seqrl.load(folder, **named)
    assert policy.predict(0) in (5, 6)
    assert episode(policy, 0) in (5.0, 6.0)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no config.toml there; name a run folder"):
        seqrl.load(tmp_path)
    (tmp_path / "config.toml").write_text('env = "CartPole-v1"')
    with pytest.raises(UsageError, match="nothing was saved there"):
        seqrl.load(tmp_path)


def test_the_names_are_the_same_everywhere():
    assert seqrl.load is training.load
    assert training.Policy.__module__ == "seqrl.training.runs.policy"


STORED = Path(__file__).parent / "data" / "runs"  # as they were written when `load` was new
OLDER = STORED.with_name("schema_2")  # checkpoints of version 0.1
EXPECTED = json.loads((STORED / "expected.json").read_text())


@pytest.mark.parametrize("name", EXPECTED)
def test_a_stored_run_is_loaded_and_acts_as_it_did(name):
    """Later versions may write other folders, but people keep the runs that they have."""
    policy = seqrl.load(STORED / name)
    actions = [policy.predict(obs) for obs in EXPECTED[name]["observations"]]
    np.testing.assert_allclose(actions, EXPECTED[name]["actions"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", json.loads((OLDER / "expected.json").read_text()))
def test_a_run_of_version_0_1_is_loaded(name, tmp_path):
    config = checkpoint.load(OLDER / f"{name}.ckpt")["config"]
    runs.write_config(tmp_path, config)
    (tmp_path / "checkpoint").mkdir()
    shutil.copy(OLDER / f"{name}.ckpt", runs.checkpoint_path(tmp_path, config["steps"]))
    policy = seqrl.load(tmp_path)
    expected = json.loads((OLDER / "expected.json").read_text())[name]["action"]
    size = policy.observation_space.shape
    for row, action in zip(np.random.default_rng(0).normal(size=(8, *size)), expected, strict=True):
        policy.reset()
        np.testing.assert_allclose(policy.predict(row), action, rtol=1e-5)
