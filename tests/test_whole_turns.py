"""A run that ends inside a turn and goes on is the run that never stopped, updates included."""

import copy
from functools import cache

import numpy as np
import pytest

from seqrl.agents import PPO, SAC, DeepMonteCarlo, DeepQ, DeepSarsa, Imitation, Reinforce
from seqrl.agents.arguments import arguments
from seqrl.envs import make
from seqrl.networks import build
from seqrl.training import Interaction
from seqrl.training.runs import checkpoint
from tests.real_actions import wrappers_for


def right(obs):
    """A teacher's answer: after the pole."""
    return int(obs[2] > 0)


EVERY = {"batch_size": 8, "train_every": 4}  # due in the middle of turns of three rows
AGENTS = {
    "replay": (DeepQ, EVERY | {"learning_starts": 10, "target_every": 10}),
    "sarsa": (DeepSarsa, EVERY | {"n_step": 2}),
    "monte carlo": (DeepMonteCarlo, EVERY),
    "reinforce": (Reinforce, {"batch_episodes": 2}),
    "ppo": (PPO, {"rollout": 8, "epochs": 2, "minibatches": 2}),
    "sac": (SAC, EVERY | {"learning_starts": 10, "noise_correlation": 0.5}),
    "imitate": (Imitation, {"batch_size": 2, "own_share": 0.5, "teacher": right}),
}
LAST = 100


def loop_of(name, network):
    cls, numbers = AGENTS[name]
    envs = make("CartPole-v1", 3, max_episode_steps=9, wrappers=wrappers_for(cls))
    space, actions = envs.single_observation_space, envs.single_action_space
    args = {"hidden": 8} if network == "mlp" else {"hidden_size": 8}
    net = build(network, space, seed=0, **args)
    agent = cls(net, actions, space, **arguments(cls, {"seed": 1, **numbers}))
    agent.horizon = LAST
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(2))
    return loop


@cache
def unbroken(name, network):
    loop = loop_of(name, network)
    loop.run(LAST)
    assert loop.agent.updates > 2
    return checkpoint.digest(loop.state_dict())


PAIRS = [(name, net) for net in ("mlp", "gru") for name in AGENTS if (name, net) != ("sac", "gru")]


@pytest.mark.parametrize("name, network", PAIRS)
def test_a_run_may_stop_anywhere(name, network):
    """At each of 12 steps in a row, in memory and from a checkpoint."""
    for stop in range(40, 52):
        loop = loop_of(name, network)
        loop.run(stop)
        again = loop_of(name, network)
        again.load_state_dict(copy.deepcopy(loop.state_dict()))
        for part in (loop, again) if stop % 4 == 0 else (loop,):
            part.run(LAST - stop)
            assert checkpoint.digest(part.state_dict()) == unbroken(name, network), stop
