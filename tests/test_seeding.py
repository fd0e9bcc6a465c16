"""One seed fixes a run: what draws, draws from a stream of its owner."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from seqrl.agents import PPO, SAC, DeepMonteCarlo, DeepQ, DeepSarsa, Imitation, Reinforce, Updates
from seqrl.core import UsageError
from seqrl.core.seeding import Streams, ints
from seqrl.envs import make
from seqrl.networks import build
from seqrl.training import train
from seqrl.training.runs import checkpoint
from tests.real_actions import Pushed

TAUGHT = partial(Imitation, teacher=lambda obs: int(obs[2] > 0), own_share=0.5, batch_size=8)
OFTEN = partial(SAC, updates=Updates(8, 8, 1))
AGENTS = [Reinforce, PPO, DeepQ, DeepSarsa, DeepMonteCarlo, TAUGHT, OFTEN]


def digest(agent_class, network, noise):
    """Of a short run from Python, whatever torch's global generator has drawn before."""
    torch.manual_seed(noise)
    envs = make("CartPole-v1", 2, wrappers=[Pushed] if agent_class is OFTEN else [])
    space, actions = envs.single_observation_space, envs.single_action_space
    made = nn.LazyLinear(4) if network == "lazy" else build(network, space, seed=1)
    agent = agent_class(made, actions, None if network == "lazy" else space, seed=0)
    train(agent, envs, 1200, seed=0)
    assert torch.initial_seed() == noise
    left, expected = torch.rand(1), torch.Generator().manual_seed(noise)
    assert left == torch.rand(1, generator=expected)  # nobody else has drawn from it
    return checkpoint.digest(agent.state_dict())


PAIRS = [(network, cls) for network in ("mlp", "gru", "lazy") for cls in AGENTS]


@pytest.mark.parametrize("network, agent_class", [x for x in PAIRS if x != ("gru", OFTEN)])
def test_a_seed_fixes_a_run_from_python(agent_class, network):
    assert digest(agent_class, network, 5) == digest(agent_class, network, 6)


def test_weights_by_name_differ_from_seed_to_seed_and_a_seed_is_checked():
    space = make("CartPole-v1").single_observation_space
    first, again, other = (build("mlp", space, seed=seed) for seed in (0, 0, 1))
    weights = [next(network.parameters()) for network in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    with pytest.raises(UsageError, match="seed -1"):
        build("mlp", space, seed=-1)


def test_environments_get_seeds_that_every_simulator_takes():
    seeds = ints(Streams.of(0).envs, 1000)
    assert len(set(seeds)) == 1000 and 0 <= min(seeds) and max(seeds) < 2**31
    assert max(seeds) > 2**30
    np.random.RandomState(max(seeds))
