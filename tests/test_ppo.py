"""PPO: its loss by hand, its gradient against the exact one, ratios, saving, learning."""

import copy
import inspect
import math
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.agents import PPO, Reinforce
from seqrl.agents.deep import targets
from seqrl.agents.deep.optim import Optim
from seqrl.core import tree
from seqrl.core.errors import RunError, UsageError
from seqrl.core.moments import measured
from seqrl.core.types import Batch
from seqrl.envs import Serial
from seqrl.envs.making import make
from seqrl.networks.build import build
from seqrl.training.loop.evaluation import evaluate
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.train import train
from seqrl.training.runs import checkpoint

NETWORKS = ["mlp", "rnn", "lstm", "gru", "attention"]


def agent_and_envs(network="mlp", env="CartPole-v1", seed=0, n=4, dropout=0.0, **more):
    envs = make(env, n, **({} if "seqrl" in env else {"max_episode_steps": 12}))
    args = {} if network == "attention" else {"hidden_size": 6}
    args = {"hidden": [8], **({} if network == "mlp" else args)}
    net = build(network, envs.single_observation_space, seed=seed, dropout=dropout, **args)
    actions, space = envs.single_action_space, envs.single_observation_space
    return PPO(net, actions, space, seed=seed, **more), envs


def loop_of(*args, horizon, **more):
    agent, envs = agent_and_envs(*args, **more)
    agent.horizon = horizon
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(3))
    return loop


# the loss


class Bare(nn.Module):
    """One feature, 1."""

    def forward(self, obs):
        return torch.ones((len(obs), 1))


def bare(**more):
    space = spaces.Box(-1, 1, (1,), np.float32)
    agent = PPO(Bare(), spaces.Discrete(2), space, optim=Optim(0.1, max_grad_norm=9.0), **more)
    with torch.no_grad():  # pi is .5 .5, the value 2
        for weight in agent.policy.module.parameters():
            weight.zero_()
        agent.critic.module.layer.weight.zero_()
        agent.critic.module.layer.bias.fill_(2.0)
    return agent


def rows(advantage, odds, returns, valid=None):
    """Single steps with action 0, that the acting policy took with these odds."""
    t = len(advantage)
    valid = [True] * t if valid is None else valid
    one = torch.ones(1, t)
    return Batch(
        obs=torch.zeros(1, t, 1),
        start=one.bool(),
        action=one.long() * 0,
        log_prob=torch.tensor([odds]).log(),
        reward=one,
        discount=one,
        final=~torch.tensor([valid]),
        valid=torch.tensor([valid]),
        extra={"advantage": torch.tensor([advantage]), "return": torch.tensor([returns])},
    )


def test_the_clipped_loss_by_hand():
    agent = bare(clip=0.2, value_coef=0.5, entropy_coef=0.1)
    # ratios 1, 2, 2, .5, .5: gains 3, 1.2 (clipped), -2 (not), .5 (not), -.8 (clipped)
    batch = rows(
        [3.0, 1.0, -1.0, 1.0, -1.0], [0.5, 0.25, 0.25, 1.0, 1.0], [2.0, 3.0, 2.0, 2.0, 0.0]
    )
    loss = agent.loss(batch)
    gain, error, entropy = 3 + 1.2 - 2 + 0.5 - 0.8, 1 + 4, 5 * math.log(2)
    assert loss.total.item() == pytest.approx(0.5 * error - gain - 0.1 * entropy)
    assert loss.count == 5
    logs = [math.log(x) for x in (1, 2, 2, 0.5, 0.5)]
    kl = sum(math.exp(x) - 1 - x for x in logs) / 5
    found = {name: float(number) for name, number in loss.metrics().items()}
    assert found["train/approx_kl"] == pytest.approx(kl)
    assert found["train/clip_fraction"] == pytest.approx(0.8)
    assert found["train/policy_loss"] == pytest.approx(-gain / 5)
    assert found["train/value_loss"] == pytest.approx(1)
    assert found["train/entropy"] == pytest.approx(math.log(2))
    assert found["train/max_ratio"] == pytest.approx(2)


def test_a_clipped_step_has_no_gradient_and_without_clipping_it_has():
    batch = rows([1.0], [0.25], [2.0])
    for clip, gradient in ((0.2, 0.0), (math.inf, -1.0)):  # d ratio / d logit = 2 (1 - pi)
        agent = bare(clip=clip, entropy_coef=0.0)
        agent.loss(batch).total.backward()
        assert agent.policy.module.layer.bias.grad[0].item() == pytest.approx(gradient)


def test_padding_counts_nowhere():
    agent = bare()
    one = agent.loss(rows([1.0, -1.0], [0.5, 0.25], [1.0, 2.0]))
    same = agent.loss(
        rows([1.0, -1.0, 7.0], [0.5, 0.25, 1e-9], [1.0, 2.0, 9.0], [True, True, False])
    )
    assert one.total.item() == pytest.approx(same.total.item()) and one.count == same.count
    numbers, others = one.metrics(), same.metrics()
    for name in numbers:
        assert float(numbers[name]) == pytest.approx(float(others[name]))


def test_without_a_mask_every_step_counts():
    agent, numbers = bare(), ([1.0, -1.0], [0.5, 0.25], [1.0, 2.0])
    one, same = agent.loss(rows(*numbers)), agent.loss(rows(*numbers)._replace(valid=None))
    assert one.total.item() == same.total.item() and one.count == same.count
    assert one.metrics() == same.metrics()


def test_advantages_are_normalised_over_what_is_valid():
    each = torch.tensor([[1.0, 3.0], [2.0, 100.0]])
    valid = torch.tensor([[True, True], [True, False]])
    found = targets.normalized(each, valid)
    rounding = 1000 * (1 + 1e-7 * torch.randn(5, 1))
    assert not targets.normalized(rounding, torch.ones(5, 1).bool()).any()
    root = math.sqrt(1.5)
    torch.testing.assert_close(found, torch.tensor([[-root, root], [0.0, 0.0]]))
    assert (
        targets.normalized(torch.full((3, 1), 5.0), torch.ones(3, 1).bool()).tolist() == [[0]] * 3
    )


def test_explained_variance():
    target = torch.tensor([1.0, 2.0, 3.0])
    assert targets.explained_variance(target, target) == 1
    assert targets.explained_variance(torch.full((3,), 9.0), target) == 0
    assert targets.explained_variance(-target, target) == pytest.approx(-3)


# the gradient


class Fork(gym.Env):
    """Five states in a row; action 1 pays and ends more often. Cut off at random as well."""

    observation_space, action_space = spaces.Discrete(5), spaces.Discrete(2)
    PAY = np.array([[0.0, 0.3], [0.5, -0.2], [-0.4, 0.6], [0.1, 0.0], [1.0, 0.8]])
    STOP = np.array([[0.1, 0.4], [0.2, 0.1], [0.3, 0.3], [0.0, 0.5], [0.3, 0.1]])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = 0
        return 0, {}

    def step(self, action):
        reward, stop = self.PAY[self.state, action], self.STOP[self.state, action]
        over = bool(self.np_random.random() < stop)
        cut = bool(self.np_random.random() < 0.1) and not over
        self.state = (self.state + 1) % 5
        return self.state, float(reward), over, cut, {}


class OneHot(nn.Module):
    def forward(self, obs):
        return nn.functional.one_hot(obs, 5).float()


def exact(logits, gamma):
    """Values [S] and advantages [S, A] of a softmax policy, where a cut episode goes on."""
    pi = torch.softmax(logits, 0).T.double().numpy()
    after = np.roll(np.eye(5), 1, 1)
    going = (1 - Fork.STOP)[:, :, None] * after[:, None, :]
    value = np.linalg.solve(
        np.eye(5) - gamma * np.einsum("sa,sat->st", pi, going), (pi * Fork.PAY).sum(1)
    )
    return value, Fork.PAY + gamma * going @ value - value[:, None], pi


@pytest.mark.parametrize("gae_lambda", [0.0, 0.9, 1.0])
def test_the_first_step_is_along_the_exact_gradient(gae_lambda, monkeypatch):
    """With the exact values, ratios of 1, episodes that end or are cut: many rollouts' mean."""
    gamma = 0.9
    envs = Serial([Fork() for _ in range(16)])
    numbers = {"gamma": gamma, "gae_lambda": gae_lambda, "entropy_coef": 0.0}
    agent = PPO(
        OneHot(), Fork.action_space, Fork.observation_space, seed=1, rollout=64, epochs=1,
        minibatches=1, **numbers,
    )  # fmt: skip
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(2))
    value, advantage, pi = exact(logits, gamma)
    with torch.no_grad():
        agent.policy.module.layer.weight.copy_(logits)
        agent.policy.module.layer.bias.zero_()
        agent.critic.module.layer.weight.copy_(torch.tensor(value)[None])
        agent.critic.module.layer.bias.zero_()
    found, visits = [], np.zeros(5)

    def gradient_step(loss, *parts):
        weight = agent.policy.module.layer.weight
        found.append(-torch.autograd.grad(loss.total, weight)[0].T.numpy())
        return 0.0

    def follow_returns(returns):
        """Leave the values exact."""

    def normalized(each, valid, count=None):
        return each

    monkeypatch.setattr(agent, "gradient_step", gradient_step)
    monkeypatch.setattr(agent, "follow_returns", follow_returns)
    monkeypatch.setattr(targets, "normalized", normalized)
    loss = agent.loss

    def counted(batch):
        np.add.at(visits, batch.obs.numpy().ravel(), 1)
        made = loss(batch)
        assert float(made.metrics()["train/max_ratio"]) == pytest.approx(1, abs=1e-5)
        return made

    monkeypatch.setattr(agent, "loss", counted)
    train(agent, envs, 64 * 16 * 60, seed=3)
    expected = visits[:, None] * pi * advantage  # sum of the score times the advantage
    mean = np.sum(found, 0)
    cosine = (mean * expected).sum() / np.linalg.norm(mean) / np.linalg.norm(expected)
    assert cosine > 0.99
    assert np.linalg.norm(mean) == pytest.approx(np.linalg.norm(expected), rel=0.1)


# ratios, memory, what is shared


class Watching(PPO):
    """Keeps the first ratio of every rollout."""

    def update(self, batch):
        metrics = super().update(batch)
        if self.updates % (self.epochs * self.minibatches) == 1:
            self.gaps = [*getattr(self, "gaps", []), float(metrics()["train/max_ratio"]) - 1]
        return metrics


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("share", [False, True])
def test_the_first_ratio_is_one(network, backend, share):
    """Log-probabilities of acting against those of learning, over resets and stored memory."""
    envs = make("CartPole-v1", 4, max_episode_steps=12)
    net = build(network, envs.single_observation_space, hidden=[8], seed=0)
    actions, space = envs.single_action_space, envs.single_observation_space
    agent = Watching(net, actions, space, rollout=20, backend=backend, share=share, seed=0)
    train(agent, envs, 4 * 20 * 4, seed=0)
    assert len(agent.gaps) == 4
    assert max(agent.gaps) < 1e-5
    assert float(agent.of_rollout["train/first_ratio"]) == pytest.approx(1, abs=1e-5)


def test_what_was_done_is_kept_without_a_graph():
    """A Gaussian's spread is a parameter, and a rollout is learned from several times."""
    space = spaces.Box(-1, 1, (3,))
    agent = PPO(build("mlp", space), spaces.Box(-1, 1, (2,)), space, device="cpu")
    decision = agent.act(torch.zeros(4, 3), torch.ones(4, dtype=torch.bool))
    assert decision.log_prob is not None and not decision.log_prob.requires_grad


def test_an_agent_can_be_copied_after_a_step_that_failed(monkeypatch):
    envs = make("CartPole-v1", 2)
    space = envs.single_observation_space
    agent = PPO(build("mlp", space), envs.single_action_space, space, rollout=8, device="cpu")
    agent.horizon = 64
    loop = Interaction(agent, envs)
    loop.reset()
    loop.run(16)
    monkeypatch.setattr(agent, "gradient_step", lambda *_: (_ for _ in ()).throw(RunError("nan")))
    with pytest.raises(RunError):
        loop.run(16)
    monkeypatch.undo()
    copy.deepcopy(agent)
    pickle.loads(pickle.dumps(agent))


@pytest.mark.parametrize("network", ["mlp", "gru"])
def test_a_shared_network_gives_both(network):
    agent, envs = agent_and_envs(network, share=True, rollout=10)
    assert list(agent.parts) == ["policy"] and agent.critic is agent.policy
    assert agent.policy.module.layer.out_features == 3
    train(agent, envs, 80, seed=0)
    obs, start = np.zeros((2, 4), np.float32), np.ones(2, bool)
    assert agent.values(obs, start).shape == (2,)
    assert agent.act(obs, start, explore=False).action.shape == (2,)


@pytest.mark.parametrize("share", [False, True])
def test_new_units_leave_the_values_as_they_are(share):
    agent, _ = agent_and_envs(share=share)
    obs = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    before = agent.values(obs, np.ones(5, bool))
    agent.follow_returns(measured(torch.tensor([100.0, 300.0, -50.0])))
    assert agent.returns.mean == pytest.approx(350 / 3)
    np.testing.assert_allclose(agent.values(obs, np.ones(5, bool)), before, atol=1e-4)


def test_learning_stops_where_the_policy_has_moved_too_far():
    agent, envs = agent_and_envs(rollout=16, target_kl=1e-9, optim=Optim(0.01, 0.5))
    train(agent, envs, 4 * 16, seed=0)
    assert 1 <= agent.updates <= 2
    far, envs = agent_and_envs(rollout=16)
    train(far, envs, 4 * 16, seed=0)
    assert far.updates == 16


@pytest.mark.parametrize(
    "numbers, message",
    [
        ({"clip": 0.0}, "clip 0.0: expected a number above 0"),
        ({"target_kl": math.nan}, "target_kl nan: expected"),
        ({"value_coef": -1.0}, "value_coef -1.0: expected"),
        ({"value_coef": math.inf}, "value_coef inf: expected"),
        ({"gae_lambda": 1.5}, "gae_lambda 1.5"),
        ({"rollout": 0}, "rollout 0"),
        ({"epochs": 0}, "epochs 0"),
        ({"minibatches": 0}, "minibatches 0"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers, message):
    with pytest.raises(UsageError, match=message):
        agent_and_envs(**numbers)


# runs


@pytest.mark.parametrize("network, share", [("mlp", False), ("gru", False), ("gru", True)])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_a_run_goes_on_as_if_it_had_not_stopped(network, share, env, tmp_path):
    args = {"horizon": 100, "rollout": 10, "share": share}
    once = loop_of(network, env, **args)
    once.run(4 * 25)
    twice = loop_of(network, env, **args)
    twice.run(4 * 13)
    checkpoint.save(tmp_path / "it", twice.state_dict())
    other = loop_of(network, env, **args)
    other.load_state_dict(checkpoint.load(tmp_path / "it"))
    other.run(4 * 12)
    parts = [x.agent.state_dict()["parts"] for x in (once, other)]
    for leaf, same in zip(*map(tree.leaves, parts), strict=True):
        np.testing.assert_array_equal(leaf, same)
    assert once.agent.updates == other.agent.updates == 2 * 16


def test_it_learns_to_balance():
    def score(seed):
        envs = make("CartPole-v1", 8)
        net = build("mlp", envs.single_observation_space, seed=seed)
        agent = PPO(net, envs.single_action_space, envs.single_observation_space, seed=seed)
        train(agent, envs, 30_000, seed=seed)
        return evaluate(agent, envs, 20, seed=1).mean

    assert sorted(score(seed) for seed in range(3))[1] > 200


@pytest.mark.parametrize("network", ["lstm", "gru"])
def test_it_learns_to_remember(network):
    def score(seed):
        envs = make("seqrl/TMaze-v0", 16, length=3)
        net = build(network, envs.single_observation_space, seed=seed)
        agent = PPO(net, envs.single_action_space, envs.single_observation_space, seed=seed)
        train(agent, envs, 40_000, seed=seed)
        return evaluate(agent, envs, 50, seed=1).mean

    assert sorted(score(seed) for seed in range(3))[1] > 0.95  # .5 without memory


def test_dropout_leaves_the_random_numbers_of_others_alone():
    agent, envs = agent_and_envs(dropout=0.5, rollout=8)
    before = torch.get_rng_state()
    train(agent, envs, 64, seed=0)
    assert agent.updates and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("env", ["seqrl/TMaze-v0", "Pendulum-v1"])
def test_spaces_of_every_kind_take_part(env):
    agent, envs = agent_and_envs(env=env, rollout=8)
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(0))
    loop.run(64)
    assert agent.updates == 2 * 16 and loop.steps == 64
    assert {"train/loss", "train/approx_kl", "train/explained_variance"} < set(loop.metrics)
    assert ("train/std" in loop.metrics) == isinstance(envs.single_action_space, gym.spaces.Box)


@pytest.mark.parametrize(
    "actions",
    [
        spaces.Discrete(3, start=1),
        spaces.Discrete(2, start=-3),
        spaces.MultiDiscrete([2, 3], start=[1, 1]),
    ],
    ids=str,
)
@pytest.mark.parametrize("cls", [PPO, Reinforce])
def test_actions_may_begin_anywhere_where_rows_are_padded(actions, cls):
    class Env(gym.Env):
        observation_space, action_space = spaces.Box(-1, 1, (2,), np.float32), actions

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2, np.float32), {}

        def step(self, action):
            assert self.action_space.contains(action)
            return np.zeros(2, np.float32), 1.0, bool(self.np_random.random() < 0.2), False, {}

    space = Env.observation_space
    net = build("gru", space, hidden=[4], hidden_size=4, seed=0)
    more = {"rollout": 8, "minibatches": 2} if cls is PPO else {"batch_episodes": 2}
    agent = cls(net, actions, space, seed=0, **more)
    train(agent, Serial([Env(), Env()]), 64, seed=0)
    assert agent.updates


@pytest.mark.parametrize("network", ["mlp", "gru"])
def test_a_rollout_of_filler_alone_is_left_out(network):
    vector = gym.make_vec("CartPole-v1", num_envs=1, vectorization_mode="vector_entry_point")
    space, actions = vector.single_observation_space, vector.single_action_space
    net = build(network, space, hidden=[4], seed=0)
    agent = PPO(net, actions, space, rollout=1, epochs=1, minibatches=1, seed=0)
    train(agent, vector, 200, seed=0)
    assert agent.updates == 200 and math.isfinite(agent.returns.mean)


@pytest.mark.parametrize("envs, parts", [(1, 1), (3, 3), (4, 4), (5, 4), (6, 4), (9, 4)])
def test_a_pass_has_as_many_minibatches_as_asked_for(envs, parts):
    agent, made = agent_and_envs("gru", n=envs, rollout=6, epochs=1, minibatches=4)
    train(agent, made, envs * 6, seed=0)
    assert agent.updates == parts


def test_a_rollout_beyond_all_memory_is_refused():
    agent, envs = agent_and_envs(rollout=10**12)
    with pytest.raises(UsageError, match="take a smaller --rollout"):
        train(agent, envs, 8, seed=0)


# its place in the house


def test_an_algorithm_is_its_loss_and_its_batches():
    """`loss` and `batches` in at most 90 lines without docstrings and signature, two files."""

    def lines(method):
        text = inspect.getsource(method).splitlines()
        return len([line for line in text[2:] if line.strip()])

    assert lines(PPO.loss) + lines(PPO.batches) <= 90
    imported = {cls.__module__ for cls in PPO.__mro__ if cls.__module__.startswith("seqrl.agents")}
    bases = "deep.ppo", "deep.policy_agent", "deep.network_agent", "schedules"
    assert imported == {f"seqrl.agents.{base}" for base in bases}
