"""Gradient steps in NumPy take the same steps as those of torch."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.agents import PPO, SAC, Reinforce
from seqrl.agents.arguments import arguments
from seqrl.agents.deep.deep_monte_carlo import DeepMonteCarlo
from seqrl.agents.deep.deep_q import DeepQ
from seqrl.agents.deep.deep_sarsa import DeepSarsa
from seqrl.agents.deep.devices import Draw
from seqrl.agents.deep.outputs import Outputs
from seqrl.agents.deep.value_agent import TargetNetwork
from seqrl.agents.tabular.policy import Boltzmann, EpsilonGreedy
from seqrl.core import tree
from seqrl.core.errors import RunError
from seqrl.core.types import Batch
from seqrl.envs.making import make
from seqrl.networks.mlp import MLP
from seqrl.networks.plain import numpy_adam
from seqrl.networks.plain.numpy_mlp import numpy_mlp
from seqrl.networks.recurrent import GRU
from seqrl.training.loop.interaction import Interaction
from seqrl.training.runs import checkpoint

BOX = spaces.Box(-1, 1, (5,))
SPACES = {
    "box": BOX,
    "bytes": spaces.Box(0, 255, (2, 2), np.uint8),
    "discrete": spaces.Discrete(6, start=2),
    "several": spaces.MultiDiscrete([3, 4]),
    "binary": spaces.MultiBinary(4),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def observations(space, count):
    space.seed(0)
    return torch.tensor(np.stack([space.sample() for _ in range(count)]))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("activation", ["ReLU", "Tanh", "Identity"])
@pytest.mark.parametrize("hidden", [(), (7,), (64, 64)])
def test_a_chain_is_what_torch_makes_of_the_layers(space, activation, hidden):
    network = MLP(SPACES[space], hidden, activation=activation)
    values = Outputs(network, nn.Linear(network.features, 3))
    obs = observations(SPACES[space], 9)
    expected, _ = values(obs[None], torch.zeros((1, 9), dtype=torch.bool))
    mix = torch.randn(1, 9, 3)
    (expected * mix).sum().backward()
    mlp = numpy_mlp(values.network, values.layer)
    activations = mlp.activations(obs.numpy())
    np.testing.assert_allclose(activations[-1], expected.detach().numpy()[0], atol=1e-5)
    found = mlp.views(mlp.backward(activations, mix.numpy()[0].copy()))
    for gradient, weight in zip(found, values.parameters(), strict=True):
        np.testing.assert_allclose(gradient, weight.grad.numpy(), rtol=1e-5, atol=1e-5)
    with torch.no_grad():  # the parameters are the mlp's own
        values.layer.bias += 1.0
    np.testing.assert_allclose(mlp.activations(obs.numpy())[-1], activations[-1] + 1.0, atol=1e-5)


RULES = {
    "plain": {"loss": "squared", "double": False},
    "double": {},
    "huber": {"loss": "huber"},
    "cut": {"max_grad_norm": 0.01},
    "one network": {"target_every": 0},
    "weighted": {"priority": 0.5},
    "sarsa": {"cls": DeepSarsa},
    "expected sarsa": {"cls": DeepSarsa, "expected": True, "target_every": 1},
    "softmax": {"cls": DeepSarsa, "expected": True, "exploration": Boltzmann(0.5)},
    "monte-carlo": {"cls": DeepMonteCarlo},
}


def agent_of(network=None, cls=DeepQ, **options):
    network = MLP(BOX, activation="ReLU") if network is None else network
    numbers = {"learning_rate": 1e-3, "exploration": EpsilonGreedy(0.1), "seed": 0, **options}
    numbers = arguments(cls, {"device": "cpu", **numbers})
    return cls(network, spaces.Discrete(3), BOX, **numbers)


def both(options):
    """An agent that learns in NumPy and one that learns in torch, with the same weights."""
    quick, plain = (agent_of(backend=backend, **options) for backend in ("numpy", "torch"))
    plain.load_state_dict(quick.state_dict())
    assert (quick.learner, plain.learner) == ("NumPy learner", "torch learner")
    for agent in (quick, plain):
        agent.target = TargetNetwork(10, 0.5)
    return quick, plain


def batch_of(weight=None, count=16):
    """Single steps, some without an action behind them."""
    shape, none = (2, count), torch.zeros(2, count, dtype=torch.bool)
    reward, discount = 3.0 * torch.randn(shape), torch.full(shape, 0.9)
    timed = torch.randn(2, count, 5), none, torch.randint(3, shape), None, reward, discount
    extra = {"return": torch.randn(shape)}
    return Batch(*timed, torch.rand(shape) < 0.3, ~none, weight=weight, extra=extra)


def updated(agent, batch):
    """What a gradient step tells of itself: its numbers, and the size of each error."""
    arrays = agent.learner == "NumPy learner"
    agent.update(Batch(*tree.map(np.asarray, tuple(batch))) if arrays else batch)
    return agent.last.numbers(), abs(np.asarray(agent.last.loss.error))


def agree(quick, plain):
    close = partial(np.testing.assert_allclose, atol=1e-5)
    tree.map(close, plain.state_dict()["parts"], quick.state_dict()["parts"])


@pytest.mark.parametrize("name", RULES)
def test_steps_are_those_of_torch(name):
    quick, plain = both(RULES[name])
    for update in range(30):
        batch = batch_of(torch.rand(16) if name == "weighted" else None)
        numbers, errors = zip(*(updated(each, batch) for each in (quick, plain)), strict=True)
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-3)
        np.testing.assert_allclose(*errors, atol=1e-4)
        if update % 10 == 9:
            for each in (quick, plain):
                each._move_target()
    agree(quick, plain)
    assert float(quick.state_dict()["parts"]["values"]["optimizer"]["0"]["step"]) == 30.0


def test_each_goes_on_where_the_other_was():
    quick, plain = both({})
    for agent in (quick, plain):
        updated(agent, batch_of())
    other_quick, other_plain = both({})
    other_quick.load_state_dict(copy.deepcopy(plain.state_dict()))
    other_plain.load_state_dict(copy.deepcopy(quick.state_dict()))
    for _ in range(5):
        batch = batch_of()
        for agent in (quick, plain, other_quick, other_plain):
            updated(agent, batch)
    agree(other_quick, plain)
    agree(quick, other_plain)


def test_weights_that_were_replaced_are_learned():
    quick, plain = both({})
    for _ in range(3):
        batch = batch_of()
        for agent in (quick, plain):
            updated(agent, batch)
        for layer in (quick.network.layers[0], quick.values_part.module.layer):
            layer.weight = nn.Parameter(layer.weight.detach().clone())
    agree(quick, plain)


@pytest.mark.parametrize("plainly", [False, True], ids=["NumPy", "torch"])
def test_weights_that_were_assigned_are_learned(plainly):
    agent = both({})[plainly]
    updated(agent, batch_of())
    agent.network.load_state_dict(copy.deepcopy(agent.network.state_dict()), assign=True)
    before = [weight.detach().clone() for weight in agent.network.parameters()]
    for _ in range(2):
        updated(agent, batch_of())
    after = list(agent.network.parameters())
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(state["step"] == 3 for state in agent.values_part.optimizer.state.values())


@pytest.mark.parametrize("large", [0, numpy_adam.LARGE])
def test_weights_that_were_frozen_stay(large, monkeypatch):
    monkeypatch.setattr(numpy_adam, "LARGE", large)
    for agent in both({}):
        for _ in range(3):
            updated(agent, batch_of())
        agent.network.requires_grad_(False)
        module = agent.values_part.module
        before = copy.deepcopy(module.state_dict())
        updated(agent, batch_of())
        same = {name for name, weight in module.state_dict().items() if weight.equal(before[name])}
        assert same == {name for name in before if name.startswith("network.")}


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("large", [0, numpy_adam.LARGE])
def test_moments_that_die_out_stay_normal_and_the_threads_mode_is_left(large, flushed, monkeypatch):
    monkeypatch.setattr(numpy_adam, "LARGE", large)
    torch.set_flush_denormal(flushed)
    try:
        for agent in both({}):
            updated(agent, batch_of())
            part = agent.values_part
            moments = [state["exp_avg"] for state in part.optimizer.state.values()]
            for moment in moments:
                moment.fill_(2e-38)
            for weight in part.module.parameters():
                weight.grad = torch.zeros_like(weight)
            part.gradient = None if part.gradient is None else 0 * part.gradient
            before = copy.deepcopy(part.module.state_dict())
            for _ in range(6):  # 0.9**6 is 0.53, 2e-38 * 0.53 no normal number
                part.step(1e-3)
            for moment in moments:
                assert ((moment == 0) | (moment >= np.finfo(np.float32).tiny)).all()
            tree.map(np.testing.assert_array_equal, dict(part.module.state_dict()), dict(before))
        assert (float(torch.tensor(1e-42) * 1.0) == 0.0) is flushed
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize(
    "network, options",
    [
        (GRU(BOX, 8), {}),
        (MLP(BOX, dropout=0.5), {}),
        (MLP(BOX, layer_norm=True), {}),
        (MLP(BOX, normalize=True), {}),
        (MLP(BOX, activation="ELU"), {}),
        (MLP(BOX, activation="Maxout"), {}),
        (MLP(BOX, activation="Step"), {}),
        (nn.Linear(5, 4), {}),
        (MLP(BOX), {"dueling": True}),
        (MLP(BOX), {"rescale": True}),
    ],
)
def test_what_is_not_plain_takes_the_way_of_torch(network, options):
    agent = agent_of(network, **options)
    assert agent.learner == "torch learner" and agent.store.device.type == "cpu"


def test_a_gradient_that_is_not_finite_is_named_and_the_weights_are_kept():
    quick, _ = both({})
    module = quick.values_part.module
    first, _, second = list(module.network.layers)[:3]
    with torch.no_grad():  # a value of 0, and a gradient of the first weights beyond float32
        for weight, number in ((second.weight, 1e19), (second.bias, 1.0), (first.weight, 0.0)):
            weight.fill_(number)
        first.bias.fill_(1e-38)
        module.layer.weight.fill_(1e30)
        module.layer.weight[:, 1::2] *= -1.0
    before = copy.deepcopy(module.state_dict())
    batch = batch_of()
    with pytest.raises(RunError, match=r"the gradient of network\.layers\.\d\.\w+ is not finite"):
        updated(quick, batch._replace(discount=batch.discount * 0.0))
    after = module.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    with pytest.raises(RunError, match="the loss is nan at update 1"):
        updated(quick, batch._replace(reward=batch.reward * float("nan")))


# policies: the loss is torch's, what is before and behind it NumPy's


NUMBERS = spaces.Box(-1, 1, (2,), np.float32)
POLICIES = {
    "ppo": (PPO, spaces.Discrete(3), {}),
    "ppo, shared": (PPO, spaces.Discrete(3), {"share": True}),
    "ppo, several": (PPO, spaces.MultiDiscrete([2, 3]), {}),
    "ppo, numbers": (PPO, NUMBERS, {}),  # the head has weights
    "reinforce": (Reinforce, spaces.MultiBinary(2), {}),
    "no critic": (Reinforce, spaces.Discrete(3), {"baseline": "mean"}),
    "sac": (SAC, NUMBERS, {}),
    "sac, fixed entropy": (SAC, NUMBERS, {"entropy_coef": 0.1}),
}


@pytest.mark.parametrize("large", [0, numpy_adam.LARGE])
@pytest.mark.parametrize("name", POLICIES)
def test_policies_step_as_in_torch(name, large, monkeypatch):
    monkeypatch.setattr(numpy_adam, "LARGE", large)
    cls, actions, more = POLICIES[name]
    quick, plain = (
        cls(MLP(BOX), actions, BOX, backend=backend, device="cpu", seed=0, **more)
        for backend in ("auto", "torch")
    )
    plain.load_state_dict(quick.state_dict())
    assert (quick.learner, plain.learner) == ("NumPy learner", "torch learner")
    assert all(part.learns_in_numpy for part in quick.parts.values() if part.optimizer)
    for _ in range(20):
        batch = batch_of()
        out = plain.policy.act(batch.obs[0].numpy(), np.ones(16, bool), None)[0]
        out = out[..., :-1] if plain.shares_network else out
        action = plain.head.sample(torch.tensor(out), Draw(torch.Generator().manual_seed(0)))
        extra = batch.extra | {"advantage": torch.randn(2, 16)}
        timed = {"action": torch.stack([action, action]), "log_prob": torch.full((2, 16), -1.0)}
        batch = batch._replace(**timed, extra=extra)
        batch = batch._replace(noise=torch.randn(2, 16, 2) if cls is SAC else None)
        told = [agent.update(batch) for agent in (quick, plain)]
        numbers = [metrics() if callable(metrics) else metrics for metrics in told]
        for tag in numbers[0]:
            assert float(numbers[0][tag]) == pytest.approx(
                float(numbers[1][tag]), rel=1e-3, abs=1e-5
            )
    agree(quick, plain)
    values = [x.values(batch.obs[0].numpy(), np.ones(16, bool)) for x in (quick, plain)]
    if quick.has_critic:
        np.testing.assert_allclose(*values, atol=1e-4)


def test_weights_written_between_two_updates_of_a_policy_are_those_learned():
    agent = PPO(MLP(BOX), spaces.Discrete(3), BOX, device="cpu", seed=0)
    batch = batch_of()._replace(log_prob=torch.full((2, 16), -1.0))
    batch = batch._replace(extra=batch.extra | {"advantage": torch.randn(2, 16)})
    agent.update(batch)
    with torch.no_grad():
        for weight in agent.policy.module.parameters():
            weight.data = torch.zeros_like(weight)
    out = agent.policy.learn(batch.obs, batch.start)
    assert not out.any()
    agent.update(batch)
    assert any(weight.any() for weight in agent.policy.module.parameters())


# dropout, and values for pictures


def dropping(seed):
    envs = make("CartPole-v1", 2)
    space = envs.single_observation_space
    torch.manual_seed(1)
    numbers = {"learning_starts": 10, "train_every": 2, "batch_size": 4, "buffer_size": 100}
    numbers = arguments(DeepQ, {"device": "cpu", "seed": seed, **numbers})
    agent = DeepQ(MLP(space, 8, dropout=0.5), envs.single_action_space, space, **numbers)
    agent.horizon = 200
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(1))
    return loop


def test_dropout_draws_from_the_agents_own_generator():
    loop, again = dropping(1), dropping(2)
    loop.run(60)
    again.load_state_dict(copy.deepcopy(loop.state_dict()))
    shared = torch.get_rng_state()
    loop.run(60)
    assert torch.equal(torch.get_rng_state(), shared)
    torch.manual_seed(5)
    again.run(60)
    assert checkpoint.digest(again.state_dict()) == checkpoint.digest(loop.state_dict())


@pytest.mark.parametrize("rescale", [False, True])
def test_values_are_those_of_the_best_actions_and_draw_nothing(rescale):
    agent = agent_of(MLP(BOX, 8, dropout=0.5), rescale=rescale)
    module = agent.values_part.module.train()
    obs, start = observations(BOX, 3).numpy(), np.ones(3, bool)
    before = checkpoint.digest(agent.state_dict()), torch.get_rng_state()
    found = agent.values(obs, start)
    assert checkpoint.digest(agent.state_dict()) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    values = copy.deepcopy(module).eval()
    best = values(torch.tensor(obs)[None], torch.ones((1, 3), dtype=torch.bool))[0][0].amax(-1)
    best = best.detach().numpy()
    if rescale:  # the inverse of sign(x) (sqrt(|x| + 1) - 1) + x / 1000
        best = [
            np.sign(x) * (((np.sqrt(1 + 4e-3 * (abs(x) + 1.001)) - 1) / 2e-3) ** 2 - 1)
            for x in best
        ]
    np.testing.assert_allclose(found, best, atol=1e-3 if rescale else 1e-6)
    assert found.shape == (3,)
