"""Gradient steps in NumPy take the same steps as those of torch."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.agents.deep.action_values import ActionValues
from seqrl.agents.deep.numpy_learner import NumpyLearner, make_learner
from seqrl.agents.deep.optim import make_optimizer
from seqrl.agents.deep.value_agent import ValueAgent
from seqrl.agents.deep.value_learner import ValueLearner
from seqrl.agents.experience.batches import Steps
from seqrl.core import RunError
from seqrl.envs import make
from seqrl.networks import GRU, MLP
from seqrl.networks.plain.numpy_mlp import numpy_mlp
from seqrl.training import Interaction
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
    values = ActionValues(MLP(SPACES[space], hidden, activation=activation), 3)
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
    "plain": {"double": False},
    "double": {},
    "squared": {"loss": "squared", "double": False},
    "cut": {"max_grad_norm": 0.01},
    "one network": {"target_every": 0},
    "weighted": {"priority": 0.5},
}


def rule_of(**options):
    return ValueAgent(
        MLP(BOX), spaces.Discrete(3), BOX, device="cpu", seed=0, **options
    ).target_args


def both(options):
    """A quick learner and one that takes torch's way, with the same weights."""
    made = []
    slow, target_args = options.get("target_every", 1) > 0, rule_of(**options)
    values = ActionValues(MLP(BOX, activation="ReLU"), 3)
    for made_by in (make_learner, ValueLearner):
        own = copy.deepcopy(values)
        adam = make_optimizer("Adam", own.parameters(), 1e-3, 0.0)
        made.append(made_by(own, adam, target_args, target_network=slow))
    assert [type(learner) for learner in made] == [NumpyLearner, ValueLearner]
    return made


def batch_of(count=16):
    obs, after = torch.randn(2, 1, count, 5)
    action, discount = torch.randint(3, (1, count)), torch.full((1, count), 0.9)
    return Steps(obs, action, 3.0 * torch.randn(1, count), discount, after, None, None)


def agree(quick, plain):
    weights = quick.state_dict(), plain.state_dict()
    assert checkpoint.digest(weights[0]) != ""
    for part in ("values", "target"):
        for name, weight in (weights[0][part] or {}).items():
            np.testing.assert_allclose(weight, weights[1][part][name], atol=1e-5, err_msg=name)
    for index, gathered in weights[1]["optimizer"].items():
        for name, number in gathered.items():
            np.testing.assert_allclose(weights[0]["optimizer"][index][name], number, atol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_steps_are_those_of_torch(name):
    quick, plain = both(RULES[name])
    for update in range(30):
        batch = batch_of()
        weight = torch.rand(16) if name == "weighted" else None
        told = [each.update(batch, weight, 1e-3, 0.1) for each in (quick, plain)]
        for one, other in zip(told[0].numbers().values(), told[1].numbers().values(), strict=True):
            assert one == pytest.approx(other, rel=1e-3)
        np.testing.assert_allclose(told[0].per_item(), told[1].per_item(), atol=1e-4)
        if update % 10 == 9:
            for each in (quick, plain):
                each.follow(0.5)
    agree(quick, plain)
    assert float(quick.state_dict()["optimizer"]["0"]["step"]) == 30.0


def test_each_goes_on_where_the_other_was():
    quick, plain = both({})
    for learner in (quick, plain):
        learner.update(batch_of(), None, 1e-3, 0.1)
    other_quick, other_plain = both({})
    other_quick.load_state_dict(copy.deepcopy(plain.state_dict()))
    other_plain.load_state_dict(copy.deepcopy(quick.state_dict()))
    for _ in range(5):
        batch = batch_of()
        for learner in (quick, plain, other_quick, other_plain):
            learner.update(batch, None, 1e-3, 0.1)
    agree(other_quick, plain)
    agree(quick, other_plain)


@pytest.mark.parametrize(
    "network, options",
    [
        (GRU(BOX, 8), {}),
        (MLP(BOX, dropout=0.5), {}),
        (MLP(BOX, layer_norm=True), {}),
        (MLP(BOX, normalize=True), {}),
        (MLP(BOX, activation="ELU"), {}),
        (nn.Linear(5, 4), {}),
        (MLP(BOX), {"dueling": True}),
        (MLP(BOX), {"rescale": True}),
        (MLP(BOX), {"target": "sarsa"}),
        (MLP(BOX), {"optimizer": "AdamW"}),
        (MLP(BOX), {"weight_decay": 0.1}),
    ],
)
def test_what_is_not_plain_takes_the_way_of_torch(network, options):
    agent = ValueAgent(network, spaces.Discrete(2), BOX, device="cpu", seed=0, **options)
    assert type(agent.learner) is ValueLearner


def test_a_gradient_that_is_not_finite_is_named_and_the_weights_are_kept():
    quick, _ = both({})
    first, _, second = list(quick.values.network.layers)[:3]
    with torch.no_grad():  # a value of 0, and a gradient of the first weights beyond float32
        for weight, number in ((second.weight, 1e19), (second.bias, 1.0), (first.weight, 0.0)):
            weight.fill_(number)
        first.bias.fill_(1e-38)
        quick.values.layer.weight.fill_(1e30)
        quick.values.layer.weight[:, 1::2] *= -1.0
    before = copy.deepcopy(quick.values.state_dict())
    batch = batch_of()
    with pytest.raises(RunError, match=r"the gradient of network\.layers\.\d\.\w+ is not finite"):
        quick.update(batch._replace(discount=batch.discount * 0.0), None, 1e-3, 0.1)
    after = quick.values.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    with pytest.raises(RunError, match="the loss is nan at update 2"):
        quick.update(batch._replace(total=batch.total * float("nan")), None, 1e-3, 0.1)


# dropout, and values for pictures


def dropping(seed):
    envs = make("CartPole-v1", 2)
    space = envs.single_observation_space
    torch.manual_seed(1)
    agent = ValueAgent(
        MLP(space, 8, dropout=0.5),
        envs.single_action_space,
        space,
        device="cpu",
        seed=seed,
        learning_starts=10,
        train_every=2,
        batch_size=4,
        buffer_size=100,
    )
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
    network = MLP(BOX, 8, dropout=0.5)
    agent = ValueAgent(network, spaces.Discrete(2), BOX, device="cpu", seed=0, rescale=rescale)
    agent.learner.values.train()
    obs, start = observations(BOX, 3).numpy(), np.ones(3, bool)
    before = checkpoint.digest(agent.state_dict()), torch.get_rng_state()
    found = agent.values(obs, start)
    assert checkpoint.digest(agent.state_dict()) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    values = copy.deepcopy(agent.learner.values).eval()
    best = values(torch.tensor(obs)[None], torch.ones((1, 3), dtype=torch.bool))[0][0].amax(-1)
    best = best.detach().numpy()
    if rescale:  # the inverse of sign(x) (sqrt(|x| + 1) - 1) + x / 1000
        best = [
            np.sign(x) * (((np.sqrt(1 + 4e-3 * (abs(x) + 1.001)) - 1) / 2e-3) ** 2 - 1)
            for x in best
        ]
    np.testing.assert_allclose(found, best, atol=1e-3 if rescale else 1e-6)
    assert found.shape == (3,)
