"""Options of training, each against torch or a step by hand; neutral values change nothing."""

import copy
import math
from functools import cache

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.agents.arguments import agent_parameters, arguments
from seqrl.agents.deep.adabound import AdaBound
from seqrl.agents.deep.deep_monte_carlo import DeepMonteCarlo
from seqrl.agents.deep.deep_q import DeepQ
from seqrl.agents.deep.deep_sarsa import DeepSarsa
from seqrl.agents.deep.optim import Optim, clip_gradients
from seqrl.agents.deep.outputs import Outputs, Part
from seqrl.agents.deep.ppo import PPO
from seqrl.agents.deep.regularisation import Regularisation, divergence
from seqrl.agents.deep.reinforce import Reinforce
from seqrl.agents.deep.sac import SAC
from seqrl.agents.schedules import schedule
from seqrl.core.errors import UsageError
from seqrl.envs.making import make
from seqrl.networks.mlp import MLP
from seqrl.networks.recurrent import GRU, LSTM
from seqrl.training.loop.evaluation import evaluate
from seqrl.training.loop.interaction import Interaction
from seqrl.training.runs import checkpoint
from tests.real_actions import wrappers_for

CPU = torch.device("cpu")
AGENTS = {
    "q-learning": (DeepQ, {"learning_starts": 20, "train_every": 8, "batch_size": 8}),
    "sarsa": (DeepSarsa, {"train_every": 16}),
    "monte-carlo": (DeepMonteCarlo, {"train_every": 16}),
    "reinforce": (Reinforce, {"batch_episodes": 3}),
    "ppo": (PPO, {"rollout": 16, "epochs": 2, "minibatches": 2}),
    "sac": (SAC, {"learning_starts": 20, "train_every": 8, "batch_size": 8}),
}
MEMORY = [name for name in AGENTS if name != "sac"]  # agents that learn with memory


def weight(*numbers):
    return nn.Parameter(torch.tensor(numbers))


def stepped(optimizer, parameter, gradient, learning_rate):
    optimizer.param_groups[0]["lr"] = learning_rate
    parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()
    return parameter.detach().clone()


def loop_of(name, network=None, env="CartPole-v1", seed=0, **options):
    """A run of an agent, its weights the same each time."""
    cls, small = AGENTS[name]
    short = {} if "seqrl" in env else {"max_episode_steps": 12}
    envs = make(env, 4, **short, wrappers=wrappers_for(cls))
    torch.manual_seed(1)
    space = envs.single_observation_space
    made = MLP(space, 8, activation="Sigmoid") if network is None else network(space)
    numbers = arguments(cls, {**small, "device": "cpu", "seed": seed, **options})
    agent = cls(made, envs.single_action_space, space, **numbers)
    agent.horizon = 400
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(5))
    return loop


def weights_after(steps, *args, **options):
    loop = loop_of(*args, **options)
    loop.run(steps)
    assert loop.agent.updates
    return checkpoint.digest(loop.agent.state_dict()["parts"])


def gru(space):
    return GRU(MLP(space, 8), 8)


# optimisers


@pytest.mark.parametrize("name", ["Momentum", "Nesterov", "SGD", "RMSprop"])
def test_momentum_is_torchs(name):
    mine, theirs = weight(1.0, 2.0), weight(1.0, 2.0)
    known = {"lr": 0.1, "momentum": 0.5}
    known |= {"nesterov": True} if name == "Nesterov" else {}
    cls = torch.optim.RMSprop if name == "RMSprop" else torch.optim.SGD
    one, two = Optim(0.1, 1.0, name, momentum=0.5).make([mine]), cls([theirs], **known)
    for gradient in (1.0, -3.0, 0.5):
        stepped(one, mine, gradient, 0.1)
        stepped(two, theirs, gradient, 0.1)
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 0.9}, "momentum 0.9: Adam takes none; take SGD"),
        ({"momentum": 0.9, "optimizer": "AdaBound"}, "AdaBound takes none"),
        ({"momentum": 1.0, "optimizer": "SGD"}, r"momentum 1.0: expected a number in \[0, 1\)"),
        ({"momentum": 0.0, "optimizer": "Nesterov"}, "optimizer Nesterov: Nesterov momentum requ"),
        ({"max_grad_value": 0.0}, "max_grad_value 0.0: expected a number above 0"),
        ({"max_grad_value": math.nan}, "max_grad_value nan"),
        ({"bptt": -1}, "bptt -1: expected a whole number of at least 0"),
        ({"bptt": 2.5}, "bptt 2.5: expected a whole number"),
        ({"optimizer": "adabound"}, 'Did you mean "AdaBound"'),
        ({"regularisation": 0.1}, "regularisation"),
    ],
)
def test_options_of_optim_that_do_nothing_or_are_none_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Optim(0.1, 1.0, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l1": -1.0}, "l1 -1.0: expected a number of at least 0"),
        ({"l2": math.inf}, "l2 inf"),
        ({"input_noise": math.nan}, "input_noise nan"),
        ({"sparsity": 1.0, "sparsity_rate": 1.0}, r"sparsity_rate 1.0: expected .* in \(0, 1\)"),
        ({"sparsity_rate": 0.2}, "sparsity_rate 0.2: no effect without --sparsity"),
    ],
)
def test_what_is_no_regularisation_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Regularisation(**options)


def test_adabound_is_the_authors():
    """Their code (version 0.0.5), a weight in plain arithmetic; their lr .001, final_lr .1."""
    p, m, v, mine = 0.3, 0.0, 0.0, weight(0.3)
    optimizer = Optim(0.1, 1.0, "AdaBound", weight_decay=0.01).make([mine])
    for t, gradient in enumerate([1.0, -0.2, 3.0, 0.001, 0.5], 1):
        lr, base = 0.001 / t, 0.001  # a schedule moves the bounds
        grad = gradient + 0.01 * p
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad * grad
        step_size = lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        final_lr = 0.1 * lr / base
        lower, upper = final_lr * (1 - 1 / (0.001 * t + 1)), final_lr * (1 + 1 / (0.001 * t))
        p -= min(max(step_size / (math.sqrt(v) + 1e-8), lower), upper) * m
        assert stepped(optimizer, mine, gradient, lr).item() == pytest.approx(p, abs=1e-7)


def test_adabound_begins_as_adam_and_ends_as_sgd():
    bounded, adam = weight(0.0), weight(0.0)
    first = stepped(AdaBound([bounded]), bounded, 0.7, 0.001)
    assert first == pytest.approx(stepped(torch.optim.Adam([adam]), adam, 0.7, 0.001))
    optimizer = AdaBound([bounded], gamma=1e9)  # bounds that are closed at once
    before = bounded.item()
    assert stepped(optimizer, bounded, 0.7, 0.001).item() == pytest.approx(before - 0.1 * 0.07)


@pytest.mark.parametrize("given", ["step:0.8:0.00078125", "step:0.8:0.00078125:200"])
def test_a_learning_rate_that_is_halved_ten_times(given):
    rate, horizon = schedule("learning_rate", given), 200
    found = [rate(step, horizon) for step in range(0, 220, 20)]
    assert found == pytest.approx([0.8 * 0.5**k for k in range(11)])


def test_a_rate_like_1_over_1_plus_kt_and_one_like_exp_kt():
    """A / (1 + k t) and A exp(-k t) with k = .09 and .023 over 100 steps."""
    inverse, falling = schedule("a", "inverse:0.5:0.05"), schedule("b", "exponential:0.5:0.05")
    k = math.log(10) / 100
    for t in (0, 10, 50, 100):
        assert inverse(t, 100) == pytest.approx(0.5 / (1 + 0.09 * t))
        assert falling(t, 100) == pytest.approx(0.5 * math.exp(-k * t))


# gradients


def test_gradients_are_cut_one_by_one_and_then_to_the_norm():
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, -4.0, 0.5]])
    assert clip_gradients(layer, layer.parameters(), math.inf, 1.0)[0].item() == pytest.approx(
        math.sqrt(25.25)
    )
    assert layer.weight.grad.tolist() == [[1.0, -1.0, 0.5]]
    clip_gradients(layer, layer.parameters(), 0.75, 1.0)  # of norm 1.5
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[0.5, -0.5, 0.25]]))


def test_penalties_are_those_that_autograd_has_and_leave_biases_out():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    loss = layers(torch.randn(5, 3)).square().mean()
    weights = list(layers.parameters())
    matrices = [w for w in weights if w.ndim == 2]
    penalty = sum(0.3 * w.abs().sum() + 0.5 * 0.2 * w.square().sum() for w in matrices)
    expected = torch.autograd.grad(loss + penalty, weights, retain_graph=True)
    loss.backward()
    Regularisation(l1=0.3, l2=0.2).add_penalties(weights)
    for w, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(w.grad, gradient)
    before = [w.grad.clone() for w in weights]
    Regularisation().add_penalties(weights)
    assert all(map(torch.equal, before, (w.grad for w in weights)))


def test_a_penalty_enters_before_gradients_are_cut_and_by_plain_sgd_it_is_torchs_decay():
    def after(**options):
        torch.manual_seed(0)
        module = Outputs(MLP(3, 4), nn.Linear(4, 2))
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.requires_grad_(False)
        part = Part(module, Optim(0.1, 1e9, "SGD", **options), CPU, "torch")
        start = torch.ones(1, 6, dtype=torch.bool)
        part.learn(torch.randn(1, 6, 3), start).square().mean().backward()
        norm, _ = part.clip(1e9)
        part.step(0.1)
        return [w.detach().clone() for w in module.parameters()], float(norm)

    (penalised, norm), (decayed, bare) = (
        after(regularisation=Regularisation(l2=0.2)),
        after(weight_decay=0.2),
    )
    for one, other in zip(penalised, decayed, strict=True):
        torch.testing.assert_close(one, other)
    assert norm != bare


# sparse activity


def test_the_divergence_of_activity_by_hand():
    """KL(.1 || .5) = .1 ln .2 + .9 ln 1.8; 0 where the rate is the one wanted."""
    found = divergence(0.1, torch.tensor([0.5, 0.1]))
    by_hand = 0.1 * math.log(0.2) + 0.9 * math.log(1.8)
    torch.testing.assert_close(found, torch.tensor([by_hand, 0.0]), atol=1e-6, rtol=0)
    assert divergence(0.5, torch.tensor([0.0, 1.0])).isfinite().all()


def test_activity_is_the_mean_of_valid_steps_alone():
    regular = Regularisation(sparsity=2.0, sparsity_rate=0.1)
    features = torch.tensor([[[0.2, 0.6], [0.4, 0.8]], [[0.9, 0.9], [0.3, 0.1]]])
    valid = torch.tensor([[True, True], [False, True]])
    expected = 2.0 * divergence(0.1, torch.tensor([0.3, 0.5])).sum()
    torch.testing.assert_close(regular.activity_term(features, valid), expected)
    assert regular.activity_term(features, valid & False) == 0
    with pytest.raises(UsageError, match=r"features go from -0.6 to 0.9, and .*activation=Sigmoid"):
        regular.activity_term(features - 0.7 * (features < 0.3), None)


@pytest.mark.parametrize("name", AGENTS)
def test_sparse_activity_moves_every_agents_features_to_the_rate(name):
    def activity(**options):
        loop = loop_of(name, learning_rate=0.1, **options)
        loop.run(240)
        part = next(iter(loop.agent.parts.values()))
        obs = torch.tensor(loop.obs)[None]
        return part.module.network(obs, torch.tensor(loop.start)[None])[0].mean().item()

    rare, often = (activity(sparsity=30.0, sparsity_rate=rate) for rate in (0.1, 0.9))
    assert rare + 0.1 < often


def test_features_of_tanh_have_no_rate():
    loop = loop_of("q-learning", lambda space: MLP(space, 8), sparsity=1.0)
    with pytest.raises(UsageError, match="sparsity: the network's features go from -"):
        loop.run(100)


# noise, and what draws


def test_noise_is_of_the_learners_pass_of_what_is_no_policy_alone():
    policy, critic = (loop_of("ppo", input_noise=0.5).agent.parts[x] for x in ("policy", "critic"))
    obs, start = torch.zeros(1, 3, 4), torch.ones(1, 3, dtype=torch.bool)
    for part, same in ((policy, True), (critic, False)):
        first, second = (part.learn(obs, start).detach() for _ in range(2))
        assert torch.equal(first, second) == same
        assert torch.equal(part.evaluate(obs, start), part.evaluate(obs, start))


def test_noise_has_its_deviation_and_leaves_whole_numbers_alone():
    torch.manual_seed(0)
    obs = {"x": torch.full((100, 100), 3.0), "n": torch.ones(4, 4, dtype=torch.int64)}
    noisy = Regularisation(input_noise=0.5).noisy(obs)
    assert noisy["n"] is obs["n"] and obs["x"].eq(3).all()
    assert noisy["x"].std().item() == pytest.approx(0.5, rel=0.02)
    assert noisy["x"].mean().item() == pytest.approx(3.0, abs=0.02)
    with pytest.raises(UsageError, match="input_noise: no observed number is real"):
        Regularisation(input_noise=0.5).noisy(obs["n"])


def test_the_first_ratio_is_1_with_noise_and_dropout():
    network = lambda space: MLP(space, 8, dropout=0.5)  # noqa: E731
    loop = loop_of("ppo", network, input_noise=1.0)
    loop.run(64)
    assert float(loop.metrics["train/first_ratio"]) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "options"), [("ppo", {"share": True}), ("reinforce", {"baseline": "none"})]
)
def test_what_draws_is_refused_where_there_is_a_policy_alone(name, options):
    with pytest.raises(UsageError, match=r"input_noise 0.5: no effect, as a policy learns as it"):
        loop_of(name, input_noise=0.5, **options)
    with pytest.raises(UsageError, match=r"dropout 0.3: no effect, as a policy learns as it acts"):
        loop_of(name, lambda space: MLP(space, 8, dropout=0.3), **options)
    own = lambda space: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3))  # noqa: E731
    loop_of(name, own, **options).run(16)  # a user's layer rests


# truncated backpropagation through time


def test_a_truncated_gradient_is_that_of_pieces_with_the_memory_carried():
    torch.manual_seed(0)
    network, layer = LSTM(3, 5), nn.Linear(5, 2)
    module = Outputs(network, layer)
    obs = torch.randn(7, 4, 3)
    start = torch.zeros(7, 4, dtype=torch.bool)
    start[0] = start[2, 1] = start[4, 2] = True
    mix = torch.randn(7, 4, 2)

    def gradients(bptt):
        module.zero_grad()
        part = Part(module, Optim(0.1, 1.0, bptt=bptt), CPU, "torch")
        out = part.learn(obs, start)
        (out * mix).sum().backward()
        return out.detach(), [w.grad.clone() for w in module.parameters()]

    whole, plain = gradients(0)
    for longer in (7, 100):
        out, same = gradients(longer)
        assert torch.equal(out, whole) and all(map(torch.equal, same, plain))
    out, cut = gradients(3)
    torch.testing.assert_close(out, whole)
    module.zero_grad()
    state = None
    for rows in (slice(0, 3), slice(3, 6), slice(6, 7)):  # each learned from by itself
        numbers, (h, c) = module(obs[rows], start[rows], state)
        state = h.detach(), c.detach()
        (numbers * mix[rows]).sum().backward()
    for w, gradient in zip(module.parameters(), cut, strict=True):
        torch.testing.assert_close(w.grad, gradient)
    differ = [not torch.allclose(a, b) for a, b in zip(cut, plain, strict=True)]
    assert differ[:4] == [True] * 4 and differ[4:] == [False] * 2


class Proud(LSTM):
    """Adds the mean of its features over the valid steps to the loss."""

    def study(self, obs, start, state, answer, valid):
        out, state = self(obs, start, state)
        return out, state, {"size": out.mean(-1)[valid].mean()}


def test_a_piece_without_valid_steps_has_no_part_in_a_networks_own_terms():
    """Of steps 0, 1, 2 | 3, 4, 5 | 6 the middle ones are not: the mean is over the other 16."""
    torch.manual_seed(0)
    network = Proud(3, 5)
    module = Outputs(network, nn.Linear(5, 2))
    obs, start = torch.randn(7, 4, 3), torch.zeros(7, 4, dtype=torch.bool)
    valid = torch.ones(7, 4, dtype=torch.bool)
    valid[3:6] = False
    part = Part(module, Optim(0.1, 1.0, bptt=3), CPU, "torch")
    out, terms = part.study(obs, start, None, torch.zeros(7, 4), valid)
    features = network(obs, start)[0].mean(-1)
    torch.testing.assert_close(terms["size"], features[valid].mean())
    torch.testing.assert_close(out, module(obs, start)[0])
    terms["size"].backward()
    assert all(bool(w.grad.isfinite().all()) for w in network.parameters())


def test_truncation_without_memory_is_refused():
    with pytest.raises(UsageError, match="bptt 5: MLP has no memory"):
        loop_of("ppo", bptt=5)


# every agent


USED = {
    "optimizer": "AdaBound",
    "weight_decay": 0.01,
    "max_grad_value": 0.05,
    "l1": 1e-3,
    "l2": 1e-3,
    "input_noise": 0.1,
    "bptt": 4,
}


def test_neutral_values_change_no_bit():
    neutral = {"max_grad_value": math.inf, "bptt": 0, "l1": 0.0, "l2": 0.0, "input_noise": 0.0}
    far = {"max_grad_value": 1e9, "bptt": 1000}
    for name, kind in (("ppo", gru), ("q-learning", None)):
        plain = weights_after(80, name, kind, backend="torch")
        assert plain == weights_after(80, name, kind, backend="torch", **neutral)
        more = far if kind else {"max_grad_value": 1e9}
        assert plain == weights_after(80, name, kind, backend="torch", **more)


@cache
def plain_weights(name, optimizer):
    return weights_after(80, name, gru, optimizer=optimizer)


@pytest.mark.parametrize("option", [*USED, "momentum"])
@pytest.mark.parametrize("name", ["ppo", "q-learning"])
def test_every_option_does_something(name, option):
    base = "SGD" if option == "momentum" else "Adam"
    options = {"optimizer": base, option: USED.get(option, 0.5)}
    assert plain_weights(name, base) != weights_after(80, name, gru, **options)


@pytest.mark.parametrize("name", MEMORY)
def test_a_resumed_run_is_the_same_run_and_evaluation_draws_nothing(name):
    whole, first, second = (loop_of(name, gru, seed=3, **USED) for _ in range(3))
    whole.run(160)
    first.run(90)
    before = checkpoint.digest(first.state_dict()), torch.get_rng_state()
    evaluate(first.agent, make("CartPole-v1", 2), 3, seed=1)
    assert checkpoint.digest(first.state_dict()) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    torch.manual_seed(99)
    second.run(70)
    assert whole.agent.updates > 2
    assert checkpoint.digest(whole.fingerprint()) == checkpoint.digest(second.fingerprint())


@pytest.mark.parametrize("name", MEMORY)
def test_every_agent_on_a_network_has_the_options_as_flags(name):
    shown = agent_parameters(AGENTS[name][0])
    assert {*USED, "momentum", "sparsity", "sparsity_rate"} < set(shown)
    agent = loop_of(name, gru, **USED).agent
    assert agent.optim.bptt == 4 and agent.optim.regularisation == Regularisation(
        1e-3, 1e-3, 0.0, input_noise=0.1
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"optimizer": "AdaBound"}, "AdaBound"),
        ({"weight_decay": 0.1}, "weight_decay"),
        ({"max_grad_value": 1.0}, "max_grad_value"),
        ({"l1": 0.1}, "l1"),
        ({"l2": 0.1, "input_noise": 0.1}, "l2"),
        ({"sparsity": 0.1}, "sparsity"),
        ({"input_noise": 0.1}, "input_noise"),
    ],
)
def test_what_numpy_has_not_is_learned_by_torch_and_the_path_says_so(options, reason):
    tanh = lambda space: MLP(space, 8)  # noqa: E731
    for name in ("q-learning", "ppo"):
        assert ", NumPy learner: " in loop_of(name, tanh).path
        loop = loop_of(name, tanh, **options)
        assert f"torch learner as NumPy has no {reason}: " in loop.path
    space = spaces.Box(-1, 1, (3,))
    dueling = arguments(DeepQ, {"dueling": True, "l1": 0.1, "device": "cpu"})
    assert DeepQ(MLP(space), spaces.Discrete(2), space, **dueling).learner == "torch learner"
