"""Networks that are not ours, on every agent: learning and acting are those of the network."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.agents.arguments import arguments
from seqrl.agents.deep.deep_monte_carlo import DeepMonteCarlo
from seqrl.agents.deep.deep_q import DeepQ
from seqrl.agents.deep.deep_sarsa import DeepSarsa
from seqrl.agents.deep.imitation import Imitation
from seqrl.agents.deep.ppo import PPO
from seqrl.agents.deep.reinforce import Reinforce
from seqrl.agents.deep.sac import SAC
from seqrl.core.errors import UsageError
from seqrl.envs.making import make
from seqrl.networks.base import Network, as_network, has_memory
from seqrl.networks.batch_norm import update_statistics
from seqrl.networks.mlp import MLP
from seqrl.networks.recurrent import GRU
from seqrl.training.loop.interaction import Interaction
from tests.real_actions import wrappers_for

BOX = spaces.Box(-1, 1, (4,), np.float32)
NUMBERS = {
    Reinforce: {"batch_episodes": 2},
    PPO: {"rollout": 8, "epochs": 2, "minibatches": 2},
    DeepQ: {"learning_starts": 8, "batch_size": 4, "train_every": 8, "sequence_length": 4},
    DeepSarsa: {"batch_size": 8, "train_every": 16, "updates": 2},
    DeepMonteCarlo: {"batch_size": 8, "train_every": 16, "updates": 2},
    SAC: {"learning_starts": 8, "batch_size": 4, "train_every": 8},
    Imitation: {"batch_size": 2, "own_share": 0.5, "teacher": lambda obs: int(obs[2] > 0)},
}
every_agent = pytest.mark.parametrize("cls", NUMBERS)


def every_agent_on(name, kinds, *args):
    """Each agent with each kind of network; SAC, which learns from single steps, without memory."""
    of_sac = [kind for kind in kinds if not has_memory(as_network(kind(*args)))]
    pairs = [(cls, kind) for cls in NUMBERS for kind in (of_sac if cls is SAC else kinds)]
    return pytest.mark.parametrize(f"cls, {name}", pairs)


def loop_of(cls, network, space=BOX, envs=2):
    torch.manual_seed(3)
    numbers = arguments(cls, NUMBERS[cls])
    envs = make("CartPole-v1", envs, max_episode_steps=9, wrappers=wrappers_for(cls))
    agent = cls(network, envs.single_action_space, space, **numbers, seed=0, device="cpu")
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(1))
    return loop


def learned(cls, network, steps=80, **options):
    loop = loop_of(cls, network, **options)
    loop.run(steps)
    assert loop.agent.updates
    return loop.agent


# the layers


class Shifted(nn.Module):
    """Observations to 5, then batch norm: its mean is 5 if it sees nothing else."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.norm((x != 0).any(-1, keepdim=True) * 5.0 + 0 * x))


class OwnMemory(Network):
    """Batch norm below a memory of the user's own, of all steps at once or of one at a time."""

    features = 4

    def __init__(self, each):
        super().__init__()
        self.below, self.cell, self.each = Shifted(), nn.GRUCell(4, 4), each

    def initial_state(self, n):
        return torch.zeros(n, 4)

    def forward(self, obs, start, state=None):
        state = self.initial_state(start.shape[1]) if state is None else state
        together, out = None, []
        if not self.each:
            together = self.below(obs.flatten(0, 1)).unflatten(0, start.shape)
        for t in range(len(start)):
            x = self.below(obs[t]) if together is None else together[t]
            state = self.cell(x, torch.where(start[t][:, None], 0.0, state))
            out.append(state)
        return torch.stack(out), state


NORMED = {
    "plain": Shifted,
    "gru": lambda: GRU(Shifted(), 4),
    "own": lambda: OwnMemory(False),
    "own, by step": lambda: OwnMemory(True),
}


@every_agent_on("network", NORMED.values())
def test_batch_norm_sees_no_padding(cls, network):
    agent = learned(cls, network(), 160)
    for part in agent.parts.values():
        for norm in part.module.modules():
            if isinstance(norm, nn.BatchNorm1d):
                share = 1 - 0.9 ** int(norm.num_batches_tracked)  # of 5, coming from 0
                torch.testing.assert_close(norm.running_mean, torch.full((4,), 5 * share))
                assert share > 0.2


@pytest.mark.parametrize("name", NORMED)
def test_statistics_are_those_of_the_valid_steps(name):
    """What is not valid shows zeros here, of which a mean below 5 would tell."""
    network = as_network(NORMED[name]())
    valid = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
    obs, start = valid[..., None] * torch.ones(4), torch.zeros(5, 3, dtype=torch.bool)
    update_statistics(network, obs, start, valid)
    (norm,) = (part for part in network.modules() if isinstance(part, nn.BatchNorm1d))
    share = 1 - 0.9 ** int(norm.num_batches_tracked)
    torch.testing.assert_close(norm.running_mean, torch.full((4,), 5 * share))
    assert share > 0


@every_agent
def test_batch_norm_normalises_alike_in_acting_and_learning(cls):
    agent = learned(cls, nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)))
    (part, *_) = agent.parts.values()
    obs, start = torch.randn(3, 4), torch.ones(3, dtype=torch.bool)
    acted = part.act(obs.numpy(), start.numpy(), None)[0]
    before = copy.deepcopy(agent.network.state_dict())
    taught = part.learn(obs[None], start[None])[0]
    np.testing.assert_allclose(acted, taught.detach(), atol=1e-6)
    assert all(torch.equal(x, before[name]) for name, x in agent.network.state_dict().items())


class Halved(nn.Module):
    """Half of the observations, in place or not."""

    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.in_place = nn.Linear(4, 4), in_place

    def forward(self, x):
        return torch.tanh(self.layer(x.mul_(0.5) if self.in_place else x * 0.5))


class HalvedMemory(Halved, Network):
    """The same with a memory that is changed in place, too."""

    features = 4

    def initial_state(self, n):
        return torch.zeros(n, 4)

    def forward(self, obs, start, state=None):
        state = self.initial_state(start.shape[1]) if state is None else state
        state = state.mul_(0.5) if self.in_place else state * 0.5
        seen, out = super().forward(obs), []
        for t in range(len(start)):
            state = torch.where(start[t][:, None], 0.0, state) + seen[t]
            out.append(state)
        return torch.stack(out), state


@every_agent_on("kind", [Halved, HalvedMemory, lambda flag: GRU(Halved(flag), 4)], False)
def test_a_network_that_writes_to_its_inputs_learns_as_one_that_does_not(cls, kind):
    first, second = (learned(cls, kind(flag)).network.state_dict() for flag in (False, True))
    assert all(torch.equal(x, second[name]) for name, x in first.items())


class Doubles(nn.Linear):
    def __init__(self):
        super().__init__(4, 4, dtype=torch.float64)

    def forward(self, x):
        return super().forward(x.double())


@pytest.mark.parametrize("space", [BOX, None], ids=["at once", "later"])
@every_agent_on("network", [Doubles, lambda: MLP(BOX, 4).double(), lambda: GRU(BOX, 4).double()])
def test_float64_weights_are_learned_and_saved(cls, network, space):
    agent = learned(cls, network(), 40, space=space)
    assert {weight.dtype for weight in agent.network.parameters()} == {torch.float64}
    loop_of(cls, network()).agent.load_state_dict(agent.state_dict())


@pytest.mark.parametrize("space", [BOX, None], ids=["at once", "later"])
def test_what_fails_is_said_in_a_line(space):
    with pytest.raises(UsageError, match=r"network Linear: failed on .*: RuntimeError: mat1"):
        learned(DeepQ, nn.Linear(3, 4), space=space)


@pytest.mark.parametrize("cls", [Reinforce, DeepQ])
def test_what_cannot_be_copied_is_said_in_a_line(cls):
    network = Halved(False)
    network.held = (i for i in range(3))
    with pytest.raises(UsageError, match="network Halved: it cannot be copied"):
        loop_of(cls, network)


@every_agent
def test_an_agent_can_be_copied_whose_network_has_kept_an_output(cls):
    class Keeps(Halved):
        def forward(self, x):
            self.kept = [super().forward(x)]
            return self.kept[0]

    agent = learned(cls, Keeps(False))
    agent.network.module(torch.ones(1, 4))
    other = copy.deepcopy(agent)
    assert other.network is not agent.network
    assert not torch.equal(other.network.module.kept[0], torch.zeros(1, 4))


# one home of the weights


def fused_step(network):
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()


def write_in_numpy(network):
    for weight in network.parameters():
        weight.detach().numpy()[...] += 0.5


def write_to_data(network):
    for weight in network.parameters():
        weight.data.add_(0.5)


def replace_data(network):
    for weight in network.parameters():
        weight.data = weight.data + 0.5


def assign(network):
    moved = {name: weight + 0.5 for name, weight in network.state_dict().items()}
    network.load_state_dict(moved, assign=True)


def share(network):
    other = loop_of(DeepQ, network).agent  # it binds the weights to arrays of its own
    other.act(np.ones((1, 4), np.float32), np.ones(1, bool))
    assign(network)
    other.act(np.ones((1, 4), np.float32), np.ones(1, bool))


def weight_normed():
    with pytest.warns(FutureWarning):
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)), nn.Tanh())


def hooked():
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    module[0].register_forward_hook(lambda layer, args, out: out + 1)
    return module


class Scaled(nn.Sequential):
    """A chain of layers with a forward of its own."""

    def forward(self, x):
        return super().forward(x / 3)


def tied():
    module = Scaled(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    module[2].weight, module.spare = module[0].weight, nn.Parameter(torch.zeros(4, 4))
    module.__class__ = nn.Sequential
    return module


NETS = {
    "mlp": lambda: MLP(BOX, 4),
    "gru": lambda: GRU(BOX, 4),
    "normalised": lambda: GRU(MLP(BOX, 4, normalize=True), 4),
    "weight norm": weight_normed,
    "parametrised": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    "hook": hooked,
    "chain": lambda: Scaled(nn.Linear(4, 4), nn.Tanh()),
    "tied": tied,
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("cls", [Reinforce, DeepQ])
def test_an_agent_acts_on_its_networks_weights_whoever_changes_them(cls, name):
    agent = loop_of(cls, NETS[name]()).agent
    (part, *_) = agent.parts.values()
    obs, start = np.float32([[0.3, -0.2, 0.9, 0.1]]), np.ones(1, bool)
    part.act(obs, start, None)
    for change in (fused_step, write_in_numpy, write_to_data, replace_data, assign, share):
        change(agent.network)
        acted = part.act(obs, start, None)[0]
        expected = part.evaluate(torch.tensor(obs)[None], torch.tensor(start)[None])[0]
        np.testing.assert_allclose(acted, expected, atol=1e-5, err_msg=change.__name__)


def test_weights_that_are_tied_stay_so():
    network = tied()
    learned(DeepQ, network)
    assert network[0].weight is network[2].weight
    assert network[0].weight.abs().sum() > 0
