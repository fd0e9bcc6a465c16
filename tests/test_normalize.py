"""Observations and rewards in running units, for every agent on a network."""

import copy
from functools import reduce

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.agents import PPO, SAC, DeepMonteCarlo, DeepQ, DeepSarsa, Reinforce
from seqrl.agents.arguments import arguments
from seqrl.core import UsageError
from seqrl.core.moments import RewardScale
from seqrl.core.types import Transition
from seqrl.envs import Serial
from seqrl.networks import (
    MLP,
    Normalize,
    Normalized,
    build,
    check_network,
    normalized_space,
    numpy_forward,
)
from seqrl.scripts import evaluate
from seqrl.scripts import train as script
from seqrl.training import Interaction, train
from seqrl.training.runs import checkpoint
from tests.real_actions import wrappers_for

AGENTS = {
    Reinforce: {"batch_episodes": 2},
    PPO: {"rollout": 8, "epochs": 2, "minibatches": 2},
    DeepQ: {"learning_starts": 8, "batch_size": 4, "train_every": 8},
    DeepSarsa: {"batch_size": 8, "train_every": 16},
    DeepMonteCarlo: {"batch_size": 8, "train_every": 16},
    SAC: {"learning_starts": 8, "batch_size": 4, "train_every": 8},
}
every_agent = pytest.mark.parametrize("cls", AGENTS)
PAY = 128.0


class Paying(gym.RewardWrapper):
    """A hundred times the reward."""

    def reward(self, reward):
        return PAY * float(reward)


def agent_of(cls, envs, network="mlp", **more):
    space, actions = envs.single_observation_space, envs.single_action_space
    net = build(network, space, seed=0) if isinstance(network, str) else network
    return cls(net, actions, space, **arguments(cls, {"seed": 1, **AGENTS[cls], **more}))


def cart(wrapper=lambda env: env, n=2, cls=None):
    envs = [wrapper(gym.make("CartPole-v1", max_episode_steps=9)) for _ in range(n)]
    return Serial([reduce(lambda env, wrap: wrap(env), wrappers_for(cls), env) for env in envs])


# rewards


def turn(reward, start, valid=(True, True), whole=True):
    zeros = np.zeros(2)
    return Transition(
        zeros, np.array(start), None, None, zeros, None, np.array(reward), zeros > 0, zeros > 0,
        zeros, np.array(valid), whole=whole,
    )  # fmt: skip


def test_rewards_by_hand():
    scale = RewardScale(0.5)
    scale.follow(turn([4.0, 0.0], [True, True]))
    assert scale.totals.tolist() == [4, 0] and scale.unit == 2
    scale.follow(turn([2.0, 6.0], [False, True]))
    assert scale.totals.tolist() == [4, 6]
    assert scale.unit == pytest.approx(np.std([4, 0, 4, 6]))
    scale.follow(turn([9.0, 1.0], [True, False], [False, True]))  # filler is no reward
    assert scale.totals.tolist() == [4, 4]
    assert scale.unit == pytest.approx(np.std([4, 0, 4, 6, 4]))


def test_filler_does_not_count():
    """A unit is that of the sums alone, whatever rows stand between them."""
    units = []
    for filler in (False, True):
        scale = RewardScale(1.0)
        for _ in range(50):
            for reward, start in ((0.0, True), (1.0, False)):
                scale.follow(turn([reward, reward], [start, start]))
            if filler:
                scale.follow(turn([0.0, 0.0], [False, False], [False, False]))
        units.append(scale.unit)
    assert units == pytest.approx([0.5, 0.5])


def test_a_turn_in_two_parts_is_one():
    one, two = RewardScale(0.9), RewardScale(0.9)
    for scale, parts in (
        (one, [([True, True], True)]),
        (two, [([True, False], False), ([False, True], True)]),
    ):
        for t in range(5):
            for valid, whole in parts:
                scale.follow(turn([1.0 + t, 3.0], [t == 0, t == 2], valid, whole))
    assert checkpoint.digest(one.state_dict()) == checkpoint.digest(two.state_dict())


@every_agent
def test_any_multiple_of_the_reward_is_learned_alike(cls):
    """To the bit where it is a power of two; values are told in the environment's units."""
    units, values, weights = [], [], []
    for wrapper in (lambda env: env, Paying):
        agent = agent_of(cls, cart(wrapper, cls=cls), normalize_reward=True)
        train(agent, cart(wrapper, cls=cls), 400, seed=0)
        units.append(agent.reward_unit)
        values.append(agent.values(np.zeros((1, 4), np.float32), np.ones(1, bool)))
        weights.append(agent.state_dict()["parts"])
    assert units[1] == PAY * units[0] and values[1] == PAY * values[0]
    assert checkpoint.digest(weights[0]) == checkpoint.digest(weights[1])


@every_agent
def test_returns_are_told_as_they_were(cls):
    envs = cart(Paying, cls=cls)
    agent = agent_of(cls, envs, normalize_reward=True)
    assert train(agent, envs, 200, seed=0)["ep_rew_mean"] >= PAY


@every_agent
def test_units_are_saved(cls):
    def loop():
        agent = agent_of(cls, envs := cart(Paying, 3, cls), normalize_reward=True)
        agent.horizon = 200
        made = Interaction(agent, envs)
        made.reset(np.random.SeedSequence(2))
        return made

    once = loop()
    once.run(200)
    first, second = loop(), loop()
    first.run(100)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.run(100)
    assert checkpoint.digest(once.agent.state_dict()) == checkpoint.digest(
        second.agent.state_dict()
    )
    damaged = first.agent.state_dict()
    damaged["reward_scale"]["totals"] = np.zeros((2, 2))
    with pytest.raises(UsageError, match="agent/reward_scale/totals"):
        agent_of(cls, cart(cls=cls)).load_state_dict(damaged)


# observations

BOX = spaces.Box(-5, 5, (3,), np.float32)
BOTH = spaces.Dict({"at": spaces.Box(-5, 5, (2, 2), np.float64), "kind": spaces.Discrete(3)})


def test_a_network_sees_what_is_normalised():
    net = Normalized(nn.Identity(), BOX)
    obs = torch.randn(6, 2, 3) * 3 + 1
    valid = torch.rand(6, 2) < 0.7
    net.update(obs, valid)
    seen = obs[valid]
    expected = (obs - seen.mean(0)) / seen.std(0, correction=0)
    out, _ = net(obs, torch.zeros(6, 2, dtype=torch.bool))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_parts_keep_their_shapes_and_what_is_counted_is_left():
    class Net(nn.Module):
        def forward(self, obs):
            assert obs["at"].shape[1:] == (2, 2) and obs["kind"].dtype == torch.int64
            return torch.cat([obs["at"].flatten(1), obs["kind"][:, None].float()], 1)

    net = Normalized(Net(), BOTH)
    obs = {"at": torch.randn(4, 2, 2, 2) + 9, "kind": torch.ones(4, 2, dtype=torch.int64)}
    net.update(obs, torch.ones(4, 2, dtype=torch.bool))
    out, _ = net(obs, torch.zeros(4, 2, dtype=torch.bool))
    assert out[..., :4].mean().abs() < 1e-5 and (out[..., 4] == 1).all()
    check_network(net, BOTH)


@pytest.mark.parametrize("name", ["mlp", "lstm", "gru", "attention", "frame-stack"])
def test_every_network_can_be_normalised(name):
    net = Normalized(build(name, BOX, seed=0), BOX)
    check_network(net, BOX)


def test_it_acts_in_numpy_as_in_torch():
    net = Normalized(build("gru", BOX, seed=0), BOX)
    net.update(torch.randn(5, 2, 3) * 2, torch.ones(5, 2, dtype=torch.bool))
    plain = numpy_forward(net)
    assert plain is not None
    obs, start = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32), np.ones(4, bool)
    out, state = plain.step(obs, start)
    theirs, memory = net(torch.tensor(obs)[None], torch.tensor(start)[None])
    np.testing.assert_allclose(out, theirs[0].detach(), atol=1e-5)
    np.testing.assert_allclose(state, memory.detach(), atol=1e-5)


def test_twice_or_nothing_is_refused():
    with pytest.raises(UsageError, match="MLP: it normalises observations already"):
        Normalized(MLP(BOX, normalize=True), BOX)
    with pytest.raises(
        UsageError, match=r"Discrete\(4\): no numbers to normalise; leave --normalize-obs out"
    ):
        Normalized(nn.Identity(), spaces.Discrete(4))
    image = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    with pytest.raises(UsageError, match="no numbers to normalise"):
        Normalized(build("cnn", image), image)


def test_numbers_of_bytes_are_normalised_too():
    space = spaces.Box(0, 255, (4,), np.uint8)
    with pytest.raises(UsageError, match="build it for normalized_space"):
        Normalized(MLP(space), space)
    net = Normalized(MLP(normalized_space(space)), space)
    obs = torch.randint(0, 255, (50, 2, 4), dtype=torch.uint8)
    net.update(obs, torch.ones(50, 2, dtype=torch.bool))
    seen = []
    first = next(layer for layer in net.modules() if isinstance(layer, nn.Linear))
    first.register_forward_hook(lambda layer, args, out: seen.append(args[0]))
    net(obs, torch.zeros(50, 2, dtype=torch.bool))
    assert seen[0].std() == pytest.approx(1, rel=0.05)
    both = spaces.Dict({"a": space, "n": spaces.Discrete(3)})
    assert normalized_space(both)["a"].dtype == np.float32
    assert normalized_space(both)["n"] == both["n"]


@every_agent
def test_statistics_move_with_learning_alone(cls):
    envs = cart(cls=cls)
    space = envs.single_observation_space
    agent = agent_of(cls, envs, Normalized(build("mlp", space, seed=0), space))
    train(agent, envs, 200, seed=0)
    (part,) = (one for one in agent.network.modules() if isinstance(one, Normalize))
    assert part.count > 0
    before = part.mean.clone()
    agent.act(np.ones((2, 4), np.float32), np.ones(2, bool), explore=False)
    assert torch.equal(part.mean, before)


def test_by_script(tmp_path, capsys):
    run = str(tmp_path / "run")
    words = "--agent ppo --env CartPole-v1 --num-envs 4 --steps 2000 --eval-episodes 5 --quiet"
    flags = ["--normalize-obs", "--normalize-reward", "--checkpoint-every", "1000"]
    assert script.main([*words.split(), *flags, "--run-dir", run]) == 0
    assert "normalize_obs = true" in (tmp_path / "run/config.toml").read_text()
    assert evaluate.main([run, "--episodes", "3"]) == 0
    again = [*words.split(), *flags, "--run-dir", run + "2", "--network-arg", "normalize=True"]
    assert script.main(again) == 2
    assert "it normalises observations already" in capsys.readouterr().err
    assert script.main(["--agent", "sarsa", "--normalize-obs"]) == 2
    assert "--normalize-obs: sarsa learns a table" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [np.float64, np.int64, np.int32])
def test_wide_numbers_keep_what_they_differ_in(kind):
    """Around 2^29 float32 has one number in 32."""
    space = gym.spaces.Box(0, 2**30, (2,), kind)
    network = Normalized(MLP(normalized_space(space), [4]), space)
    obs = torch.from_numpy((2**29 + np.arange(64).reshape(32, 1, 2)).astype(kind))
    network.update(obs, torch.ones(32, 1, dtype=torch.bool))
    seen = network.normalized(obs)
    assert seen.dtype == torch.float32 and len(seen.unique()) >= 32
    assert seen.mean().abs() < 1e-5 and (seen.std() - 1).abs() < 0.02
    assert network(obs, torch.zeros(32, 1, dtype=torch.bool))[0].dtype == torch.float32
