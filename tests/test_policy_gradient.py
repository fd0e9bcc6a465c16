"""The gradient that REINFORCE follows against the exact one, where episodes differ in length."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.agents import Reinforce
from seqrl.agents.deep.reinforce import BASELINES
from seqrl.envs import Serial
from seqrl.networks import build
from seqrl.training import train

LENGTH, BAD, GOOD = 20, -0.8, 1.0


class Patience(gym.Env):
    """Action 0 ends with 0. Action 1 loses at once half of the time, else wins much later.

    On the way to a win action 1 pays `toll` more than action 0 at every step.
    """

    def __init__(self, length=LENGTH, toll=0.0):
        self.length, self.toll = length, toll
        self.observation_space = spaces.Discrete(length)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return 0, {}

    def step(self, action):
        self.t += 1
        if self.t > 1:
            over = self.t == self.length
            reward = self.toll * int(action) + GOOD * over
            return 0 if over else self.t, reward, over, False, {}
        if action == 0:
            return 0, 0.0, True, False, {}
        if self.np_random.random() < 0.5:
            return 0, BAD, True, False, {}
        return 1, 0.0, False, False, {}


class OneHot(nn.Module):
    """Features [B, S] of states [B], so that a linear layer is a table."""

    def __init__(self, states):
        super().__init__()
        self.states = states

    def forward(self, obs):
        return nn.functional.one_hot(obs, self.states).float()


def exact_gradient(policy, toll):
    """Of the expected return by the logits [S, 2] of a softmax policy pi(1|s) [S]."""
    ahead = np.append(np.cumsum((toll * policy[1:])[::-1])[::-1], 0.0)  # of the steps to come
    reached = np.full(len(policy), 0.5 * policy[0])
    reached[0] = 1.0
    q = np.zeros((len(policy), 2))
    q[0, 1] = 0.5 * BAD + 0.5 * (GOOD + ahead[0])
    for s in range(1, len(policy)):
        q[s] = GOOD + ahead[s] + np.array([0.0, toll])
    pi = np.stack([1 - policy, policy], 1)
    return reached[:, None] * pi * (q - (pi * q).sum(1, keepdims=True))


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("n", [1, 16])
def test_the_mean_step_is_along_the_exact_gradient(baseline, n, monkeypatch):
    """With frozen weights over many batches; the first has no spread or length before it."""
    length, toll = 6, -0.3
    envs = Serial([Patience(length, toll) for _ in range(n)])
    space, actions = envs.single_observation_space, envs.single_action_space
    agent = Reinforce(
        OneHot(length), actions, space, baseline=baseline, gamma=1.0, entropy_coef=0.0, seed=1
    )
    logits = torch.randn(2, length, generator=torch.Generator().manual_seed(2)) * 0.5
    with torch.no_grad():
        agent.policy.module.layer.weight.copy_(logits)
    found = []

    def gradient_step(loss, part, name):
        if name == "policy loss":
            weight = part.module.layer.weight
            (gradient,) = torch.autograd.grad(loss.total / loss.count, weight)
            found.append(-gradient.T.numpy())
        return 0.0

    monkeypatch.setattr(agent, "gradient_step", gradient_step)
    train(agent, envs, 40_000, seed=3)
    assert len(found) > 100
    mean = np.mean(found[1:], 0)
    exact = exact_gradient(torch.softmax(logits, 0)[1].numpy().astype(float), toll)
    cosine = (mean * exact).sum() / np.linalg.norm(mean) / np.linalg.norm(exact)
    assert cosine >= 0.99
    assert mean[0, 1] * exact[0, 1] > 0


@pytest.mark.parametrize("n", [1, 16])
def test_the_better_action_is_learned_though_its_episodes_are_long(n):
    """By the defaults without discount, which nearly cancels the gain, in 5 of 5 seeds."""
    found = []
    for seed in range(5):
        envs = Serial([Patience() for _ in range(n)])
        space, actions = envs.single_observation_space, envs.single_action_space
        agent = Reinforce(build("mlp", space, seed=seed), actions, space, gamma=1.0, seed=seed)
        train(agent, envs, 20_000 if n == 1 else 60_000, seed=seed)  # a batch waits for all 16
        out, _ = agent.policy.act(np.zeros(1, np.int64), np.ones(1, bool), None)
        found.append(float(torch.softmax(torch.as_tensor(out[0]), -1)[1]))
    assert min(found) > 0.9, found
