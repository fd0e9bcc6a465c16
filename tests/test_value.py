"""Action values on networks: against tables, in the loop with every network, saved and resumed."""

import copy
import pickle
import re
from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from torch import nn

from seqrl.agents.arguments import agent_arguments, agent_parameters, argument_lines, arguments
from seqrl.agents.deep import targets
from seqrl.agents.deep.deep_monte_carlo import DeepMonteCarlo
from seqrl.agents.deep.deep_q import DeepQ
from seqrl.agents.deep.deep_sarsa import DeepSarsa
from seqrl.agents.registry import agent_class
from seqrl.agents.tabular.monte_carlo import MonteCarlo
from seqrl.agents.tabular.policy import Boltzmann, EpsilonGreedy
from seqrl.agents.tabular.q_learning import QLearning
from seqrl.agents.tabular.sarsa import Sarsa
from seqrl.core.errors import RunError, UsageError
from seqrl.core.seeding import Streams
from seqrl.core.types import Transition
from seqrl.envs.adapter import Serial, adapt
from seqrl.envs.making import make
from seqrl.envs.optimum import optimum, policy_value
from seqrl.networks.base import Network
from seqrl.networks.build import NETWORKS, SEQUENCES, build
from seqrl.networks.mlp import MLP
from seqrl.scripts import evaluate as evaluate_script
from seqrl.scripts import train
from seqrl.training.loop.evaluation import evaluate
from seqrl.training.loop.interaction import Interaction
from seqrl.training.runs import checkpoint
from seqrl.training.runs.folder import read_config
from seqrl.training.runs.parts import build as scripts_build

BOX, TWO = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def agent_of(network=None, action_space=TWO, observation_space=BOX, cls=DeepQ, **numbers):
    network = MLP(observation_space, 8) if network is None else network
    numbers = arguments(cls, {"seed": 0, "device": "cpu", **numbers})
    return cls(network, action_space, observation_space, **numbers)


# a table


class Beside:
    """The table plays, and both learn from what it does."""

    def __init__(self, table, agent):
        self.table, self.agent, self.horizon = table, agent, None
        self.act = table.act

    def learn(self, step):
        self.table.learn(step)
        self.agent.learn(step)
        return {}


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class QLearningInOrder(DeepSarsa):
    """Q-learning that learns from each step as it comes."""

    double = True
    next_value = DeepQ.next_value


PLAIN = {"optimizer": "SGD", "loss": "squared", "batch_size": 1, "train_every": 1, "updates": 1}
PLAIN |= {"max_grad_norm": 1e9}
IN_ORDER = {"cls": QLearningInOrder, "expected": True}  # it waits for no action
TABLES = {
    "q-learning": (QLearning, {}, {**IN_ORDER, "n_step": 1}),
    "q-learning n-step": (QLearning, {"n_step": 3}, {**IN_ORDER, "n_step": 3}),
    "sarsa": (Sarsa, {}, {"cls": DeepSarsa, "n_step": 1}),
    "sarsa n-step": (Sarsa, {"n_step": 3}, {"cls": DeepSarsa, "n_step": 3}),
    "expected sarsa": (
        Sarsa,
        {"expected": True},
        {"cls": DeepSarsa, "n_step": 1, "expected": True},
    ),
    "monte-carlo": (MonteCarlo, {}, {"cls": DeepMonteCarlo}),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("exploration", [EpsilonGreedy(0.4), Boltzmann(0.5)])
def test_a_linear_network_on_one_hot_states_is_a_table(name, exploration, float64, counting):
    cls, options, own = TABLES[name]
    if name == "monte-carlo":  # no pair comes twice in an episode, so that order does not matter
        envs = adapt(counting([(4, True, False), (6, False, True)], first=1))
    elif "n-step" in name:  # the table takes the value behind a cut once, for all that wait for it
        envs = adapt(counting([(4, True, False), (2, True, False), (7, True, False)]))
    else:
        envs = make("CliffWalking-v1", max_episode_steps=11)
    space, actions = envs.single_observation_space, envs.single_action_space
    shared = {"gamma": 0.9, "learning_rate": 0.1, "exploration": exploration, "seed": 3}
    table = cls(space, actions, **shared, **options)
    agent = agent_of(MLP(space, ()), actions, space, **shared, **PLAIN, **own)
    layer = agent.values_part.module.layer
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    layer.bias.requires_grad_(False)
    loop = Interaction(Beside(table, agent), envs)
    loop.reset(np.random.SeedSequence(1))
    loop.run(400)
    if name in ("sarsa", "q-learning n-step", "sarsa n-step", "monte-carlo"):
        loop._finish = lambda *ended: setattr(loop, "stopped", True)  # leave no step waiting
        loop.run(100)
    expected = table.arrays.q
    assert abs(expected).max() > 1 and np.count_nonzero(expected) > 10
    np.testing.assert_allclose(layer.weight.detach().numpy().T, expected, rtol=1e-6, atol=1e-6)
    assert agent.steps == table.steps


# a batch by hand


def linear_agent(**options):
    """Q(s, a) = w_a s with w = (1, 2, 3), in the target network w = (3, 1, 2); three actions."""
    space = spaces.Box(-9, 9, (1,))
    numbers = {"optimizer": "SGD", "loss": "squared", "learning_rate": 0.0, "target_every": 10**6}
    numbers |= {"gamma": 0.5, "train_every": 1, "batch_size": 1}
    numbers |= {} if "cls" in options else {"learning_starts": 0}
    agent = agent_of(MLP(space, ()), spaces.Discrete(3), space, **{**numbers, **options})
    for part, weight in ((agent.target_part, (3, 1, 2)), (agent.values_part, (1, 2, 3))):
        nn.init.zeros_(part.module.layer.bias)
        part.module.layer.weight.data[-3:, 0] = torch.tensor(weight).float()
    return agent


def turn_of(obs, action, reward, after, over=False, cut=False, start=True, **more):
    one = np.ones(1, bool)
    step = Transition(
        np.array([[obs]], np.float32),
        one & start,
        None,
        None,
        np.array([action]),
        None,
        np.array([reward]),
        one & over,
        one & cut,
        np.array([[after]], np.float32),
        one,
    )
    return step._replace(**more)


HAND = {
    "one network": ({"target_every": 0, "double": False}, 7 + 0.5 * 3 * 4),
    "target network": ({"double": False}, 7 + 0.5 * 3 * 4),
    "double": ({"double": True}, 7 + 0.5 * 2 * 4),  # the third action, by the other network
    "over": ({"double": True, "over": True}, 7.0),
    "cut": ({"double": True, "cut": True}, 7 + 0.5 * 2 * 4),
    "expected sarsa": (
        {"cls": DeepSarsa, "n_step": 1, "expected": True, "exploration": EpsilonGreedy(0.3)},
        7 + 0.5 * (0.3 * 2 + 0.7 * 3) * 4,
    ),
}


@pytest.mark.parametrize("name", HAND)
def test_targets_of_a_single_step_by_hand(name):
    options, expected = HAND[name]
    options = dict(options)
    ends = {key: options.pop(key) for key in ("over", "cut") if key in options}
    agent = linear_agent(**options)
    metrics = agent.learn(turn_of(2.0, 1, 7.0, 4.0, **ends))
    error = expected - 2 * 2.0
    assert float(metrics["train/td_error"]()) == pytest.approx(abs(error))
    assert float(metrics["train/loss"]()) == pytest.approx(0.5 * error**2)
    assert float(metrics["train/grad_norm"]()) == pytest.approx(abs(error) * np.hypot(2.0, 1.0))


def test_the_target_network_follows():
    agent = linear_agent(target_every=3, target_rate=0.25)
    weights = []
    for _ in range(7):
        agent.learn(turn_of(1.0, 0, 0.0, 1.0))
        weights.append(agent.target_part.module.layer.weight[:, 0].tolist())
    assert weights[:2] == [[3, 1, 2]] * 2
    assert weights[2:5] == [[2.5, 1.25, 2.25]] * 3
    assert weights[5] == weights[6] == [2.125, 1.4375, 2.4375]


def test_dueling_values_by_hand():
    agent = linear_agent(dueling=True)
    part = agent.values_part  # Q = w_0 s + w_a s - mean w_a s
    part.module.layer.weight.data[:, 0] = torch.tensor([10.0, 1.0, 2.0, 6.0])
    obs, start = np.array([[2.0]], np.float32), np.ones(1, bool)
    assert part.act(obs, start, None)[0].tolist() == [[16.0, 18.0, 26.0]]
    assert part.act_in_torch(obs, start, None)[0].tolist() == [[16.0, 18.0, 26.0]]
    assert agent.act(obs, start, explore=False).action.tolist() == [2]


def test_n_steps_of_a_replay_by_hand():
    agent = linear_agent(n_step=2, double=False, learning_starts=2)
    agent.learn(turn_of(1.0, 0, 4.0, 2.0))
    agent.learn(turn_of(2.0, 0, 6.0, 3.0, start=False))
    agent.updating = replace(agent.updating, batch_size=2000)
    metrics = agent.learn(turn_of(3.0, 0, 8.0, 5.0, start=False, cut=True))
    errors = [4 + 0.5 * (6 + 0.5 * 9) - 1, 6 + 0.5 * (8 + 0.5 * 15) - 2, 8 + 0.5 * 15 - 3]
    found = set(np.round(agent.last.loss.error[0].numpy(), 4).tolist())
    assert found == set(np.round(np.float32(errors), 4).tolist())
    assert float(metrics["train/td_error"]()) == pytest.approx(np.mean(errors), rel=0.1)


def test_priorities_follow_the_errors_and_weights_make_up_for_them():
    agent = linear_agent(priority=1.0, importance=1.0, batch_size=64, double=False)
    for obs, reward in ((1.0, 0.0), (1.0, 0.0), (1.0, 97.5)):
        agent.learn(turn_of(obs, 0, reward, 1.0, cut=True))
    agent.store.sample(1, agent.rng)  # what is new is noticed
    tree = agent.store.tree
    found = tree.priorities[tree.priorities > 0]
    assert found.tolist() == pytest.approx([0.5, 0.5, 98.0], abs=1e-5)  # |r + .5 * 3 - 1|
    batch = agent.store.sample(64, agent.rng, 1.0)
    large = batch.reward[0] > 50
    assert large.float().mean().item() == pytest.approx(98 / 99, abs=0.02)
    # 1 / (3 P), by the largest that was drawn
    expected = torch.where(large, 0.5 / 98 if not large.all() else 1.0, 1.0)
    torch.testing.assert_close(batch.weight, expected, rtol=1e-4, atol=0)
    each = 0.5 * (batch.reward[0] + 1.5 - 1.0) ** 2  # squared
    loss = agent.loss(batch)
    expected = (each * batch.weight).mean().item()
    assert (loss.total / loss.count).item() == pytest.approx(expected, rel=1e-5)


def test_a_squashed_value_by_hand():
    agent = linear_agent(rescale=True, double=False)
    agent.learn(turn_of(2.0, 1, 7.0, 4.0))

    def h(x):
        return np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + 1e-3 * x

    inner = (np.sqrt(1 + 4e-3 * (12 + 1 + 1e-3)) - 1) / 2e-3
    expected = h(7 + 0.5 * (inner**2 - 1)) - 4
    assert agent.last.loss.error.item() == pytest.approx(expected, rel=1e-4)


def test_what_is_expected_are_values_and_not_their_squashed_form():
    explored = {"epsilon": EpsilonGreedy(0.6), "temperature": Boltzmann(2.0)}
    for name, exploration in explored.items():
        agent = linear_agent(
            cls=DeepSarsa, rescale=True, expected=True, n_step=1, exploration=exploration
        )
        squashed = torch.tensor([12.0, 4.0, 8.0])  # by the target network at 4
        size = squashed + 1 + 1e-3
        value = (((1 + 4e-3 * size).sqrt() - 1) / 2e-3) ** 2 - 1
        chance = torch.tensor([0.6, 0.2, 0.2])
        if name == "temperature":
            chance = torch.softmax(squashed / 2.0, 0)
        found = agent.policy_value(agent._unscaled(squashed))
        assert found.item() == pytest.approx((chance * value).sum().item(), rel=1e-4)


class Shown(Network):
    """Features are the observation; memory is there, and does nothing."""

    features = 1

    def initial_state(self, n):
        return torch.zeros(n, 1)

    def forward(self, obs, start, state=None):
        return obs, torch.zeros(start.shape[1], 1) if state is None else state


MEANS = {
    "expected sarsa": ({"cls": DeepSarsa, "expected": True, "n_step": 1}, {}),
    "expected sarsa, cut": ({"cls": DeepSarsa, "expected": True, "n_step": 1}, {"cut": True}),
    "expected sarsa, n steps, cut": ({"cls": DeepSarsa, "expected": True}, {"cut": True}),
    "sarsa, cut": ({"cls": DeepSarsa, "n_step": 1}, {"cut": True}),
    "monte-carlo, cut": ({"cls": DeepMonteCarlo}, {"cut": True}),
}


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("name", MEANS)
def test_the_mean_of_squashed_values_is_that_of_the_returns(name, memory):
    """Values of 20 and 140 have the mean 80; squashed, averaged and restored it would be 67."""
    options, ends = MEANS[name]
    values = targets.squash(torch.tensor([20.0, 140.0]))
    assert targets.unsquash(values.mean()).item() == pytest.approx(67, abs=0.5)
    numbers = {"optimizer": "SGD", "gamma": 0.5, "train_every": 1, "batch_size": 1, "updates": 1}
    numbers |= {"learning_rate": 0.0, "rescale": True, "exploration": EpsilonGreedy(1.0)}
    network = Shown() if memory else MLP(BOX, ())
    agent = agent_of(network, TWO, BOX, **numbers, **options)
    nn.init.zeros_(agent.values_part.module.layer.bias)
    agent.values_part.module.layer.weight.data[:, 0] = values
    state = torch.zeros(1, 1) if memory else None
    agent.learn(turn_of(0.0, 0, 3.0, 1.0, state=state, next_state=state, **ends))
    error = agent.last.loss.error
    expected = targets.squash(torch.tensor(3 + 0.5 * 80.0)).item()
    assert float(error.ravel()[0]) == pytest.approx(expected, rel=1e-5)


PASSES = {  # of the network, and of the target network, for an update: (without memory, with it)
    "sarsa": ({"cls": DeepSarsa}, (2, 0), (1, 0)),
    "expected sarsa": ({"cls": DeepSarsa, "expected": True}, (2, 0), (1, 0)),
    "sarsa, target network": ({"cls": DeepSarsa, "target_every": 10**6}, (1, 1), (1, 1)),
    "q-learning": ({"learning_starts": 0, "double": False}, (1, 1), (1, 1)),
    "double": ({"learning_starts": 0}, (2, 1), (1, 1)),
    "double, one network": ({"learning_starts": 0, "target_every": 0}, (2, 0), (1, 0)),
}


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("name", PASSES)
def test_an_update_makes_no_forward_pass_for_nothing(name, memory, monkeypatch):
    options, *expected = PASSES[name]
    more = {"train_every": 8, "updates": 1, "backend": "torch", "n_step": 1} | options
    network = Shown() if memory else MLP(BOX, ())
    agent = agent_of(network, TWO, BOX, **more)
    passes = {"values": 0, "target": 0}
    for part, module in {name: part.module for name, part in agent.parts.items()}.items():
        module.register_forward_hook(lambda *_, part=part: passes.update({part: passes[part] + 1}))
    state = torch.zeros(1, 1) if memory else None
    for t in range(32):
        agent.learn(turn_of(0.5, 0, 1.0, 0.5, start=t == 0, state=state, next_state=state))
    assert agent.updates > 1
    assert [n / agent.updates for n in passes.values()] == list(expected[memory])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda agent: pickle.loads(pickle.dumps(agent))])
@pytest.mark.parametrize("network", ["mlp", "gru"])
@pytest.mark.parametrize("cls", [DeepQ, DeepSarsa, DeepMonteCarlo])
def test_a_copy_learns_like_the_agent_and_leaves_it_alone(cls, network, copied):
    envs = make("CartPole-v1")
    observations, actions = envs.single_observation_space, envs.single_action_space
    starts = {"learning_starts": 50} if cls is DeepQ else {}
    agent = agent_of(build(network, observations), actions, observations, cls, **starts)
    Interaction(agent, make("CartPole-v1")).run(300)
    other, before = copied(agent), checkpoint.digest(agent.state_dict())
    Interaction(other, make("CartPole-v1")).run(300)
    assert checkpoint.digest(agent.state_dict()) == before != checkpoint.digest(other.state_dict())


# the loop

LENGTH = 9  # steps after which episodes are cut
SMALL = {"mlp": {"hidden": 8}, "cnn": {}, "frame-stack": {"hidden": 8}, "attention": {"window": 5}}
SMALL["attention"] |= {"hidden_size": 8}
SMALL |= {key: {"hidden": [8], "code": 4} for key in ("autoencoder", "vae")}
REPLAY = {"cls": DeepQ, "buffer_size": 90, "learning_starts": 0}
KINDS = {
    "replay": {**REPLAY, "sequence_length": 6, "burn_in": 2},
    "priorities": {**REPLAY, "sequence_length": 4, "stored_state": False},
    "rollouts": {"cls": DeepSarsa, "train_every": 10, "target_every": 7},
    "episodes": {"cls": DeepMonteCarlo, "train_every": 20, "batch_size": 16},
}
KINDS["priorities"] |= {"priority": 0.6, "dueling": True, "n_step": 2}
networks = pytest.mark.parametrize("name", [x for x in NETWORKS if x not in SEQUENCES])
kinds = pytest.mark.parametrize("kind", KINDS)


def envs_of(name, layout):
    env = "seqrl/Catch-v0" if name == "cnn" else "CartPole-v1"
    if layout == "native":
        return make(env, 3, max_episode_steps=LENGTH)
    one = partial(gym.make, env, max_episode_steps=LENGTH)
    if layout == "single":
        return adapt(one())
    if layout == "serial":
        return Serial([one() for _ in range(3)])
    return adapt(SyncVectorEnv([one] * 3, autoreset_mode=layout.split()[1]))


def loop_of(name, kind="replay", layout="serial", seed=1, **options):
    envs = envs_of(name, layout)
    space = envs.single_observation_space
    torch.manual_seed(seed)
    network = build(name, space, **SMALL.get(name, {"hidden_size": 8}))
    numbers = {"batch_size": 4, "train_every": 8, "seed": seed, **KINDS[kind], **options}
    agent = agent_of(network, envs.single_action_space, space, **numbers)
    agent.horizon = 500
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(seed))
    return loop


@networks
@kinds
def test_every_network_learns_in_every_way(name, kind):
    loop = loop_of(name, kind)
    before = [weight.clone() for weight in loop.agent.values_part.module.parameters()]
    loop.run(110)
    assert loop.steps == loop.agent.steps == 110 and loop.agent.updates > 4
    assert all(np.isfinite(float(x() if callable(x) else x)) for x in loop.metrics.values())
    after = loop.agent.values_part.module.parameters()
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))


RUNS = [("mlp", "single"), ("mlp", "native"), ("lstm", "serial"), ("attention", "serial")]
RUNS += [("cnn", "single"), *((name, "sync NextStep") for name in ("rnn", "gru", "frame-stack"))]


@kinds
@pytest.mark.parametrize("name, layout", RUNS)
def test_a_run_goes_on_bit_for_bit(name, layout, kind, tmp_path):
    first, second = 55, 58  # with three environments neither is at a turn's end
    loop = loop_of(name, kind, layout)
    loop.run(first)
    checkpoint.save(tmp_path / "file", loop.state_dict())
    again = loop_of(name, kind, layout, 2)
    copied = loop_of(name, kind, layout, 3)
    again.load_state_dict(checkpoint.load(tmp_path / "file"))
    copied.load_state_dict(copy.deepcopy(loop.state_dict()))
    assert checkpoint.digest(again.state_dict()) == checkpoint.digest(loop.state_dict())
    for each in (loop, again, copied):
        each.run(second)
    whole = loop_of(name, kind, layout)
    whole.run(first + second)
    digests = {checkpoint.digest(each.state_dict()) for each in (loop, again, copied, whole)}
    assert len(digests) == 1
    assert loop.agent.updates > 4


def test_what_is_logged_goes_on_after_a_resume():
    loop, again = loop_of("mlp"), loop_of("mlp", seed=2)
    assert not loop.agent.state_dict()["last_numbers"]
    loop.run(60)
    again.load_state_dict(copy.deepcopy(loop.state_dict()))
    for each in (loop, again):
        each.run(1)  # no update in between
    shown = [{tag: read() for tag, read in each.metrics.items()} for each in (loop, again)]
    assert shown[0] == shown[1] and shown[0]["train/loss"] > 0
    assert checkpoint.digest(loop.state_dict()) == checkpoint.digest(again.state_dict())


@kinds
def test_a_state_that_was_loaded_is_not_written_to(kind):
    loop, other = loop_of("gru", kind), loop_of("gru", kind, seed=2)
    loop.run(60)
    before = checkpoint.digest(loop.state_dict())
    other.load_state_dict(loop.state_dict())
    other.run(60)
    assert checkpoint.digest(loop.state_dict()) == before


@pytest.mark.parametrize("kind", ["replay", "rollouts"])
def test_a_run_in_single_steps_keeps_the_same(kind):
    """Three environments, so that every turn is split twice."""
    whole, split = (loop_of("gru", kind, train_every=100) for _ in range(2))
    for _ in range(80):
        split.run(1)
    whole.run(80)
    kept = [loop.agent.store.rows.state_dict() for loop in (whole, split)]
    assert checkpoint.digest(kept[0]) == checkpoint.digest(kept[1])


@pytest.mark.parametrize("layout", ["single", "serial", "native"])
def test_updates_are_counted_by_env_steps(layout):
    loop = loop_of("mlp", layout=layout, train_every=2, learning_starts=21, updates=3)
    loop.run(21)
    assert loop.agent.updates == 0
    loop.run(100)
    assert loop.agent.updates == 3 * (121 // 2 - 21 // 2)


@networks
def test_evaluation_changes_nothing(name):
    loop = loop_of(name)
    loop.run(60)
    before = checkpoint.digest(loop.state_dict())
    torch_before = torch.get_rng_state()
    first = evaluate(loop.agent, envs_of(name, "serial"), 4, seed=5)
    second = evaluate(loop.agent, envs_of(name, "serial"), 4, seed=5)
    assert first.returns.tolist() == second.returns.tolist()
    assert checkpoint.digest(loop.state_dict()) == before
    assert torch.equal(torch.get_rng_state(), torch_before)


@networks
@pytest.mark.parametrize("kind", ["replay", "rollouts"])
def test_sequences_give_the_values_of_acting(name, kind, monkeypatch):
    """Before any update: with stored memory a sequence is what was acted on, to the last row."""
    whole = {"burn_in": 0} if kind == "replay" else {}
    loop = loop_of(name, kind, learning_rate=0.0, **whole)
    agent, acted, learned = loop.agent, [], []
    part, act, update = agent.values_part, agent.values_part.act, agent.update

    def acting(obs, start, state):
        out, state = act(obs, start, state)
        acted.append((obs.reshape(len(obs), -1), out))
        return out, state

    monkeypatch.setattr(part, "act", acting)
    monkeypatch.setattr(agent, "_random", lambda *_: None)  # ask the network at every turn
    monkeypatch.setattr(agent, "update", lambda batch: learned.append(batch) or update(batch))
    loop.run(120)
    known = {row.tobytes(): q for obs, out in acted for row, q in zip(obs, out, strict=True)}
    tried = 0
    for batch in learned:
        q = part.evaluate(batch.obs, batch.start, batch.state)[batch.valid]
        rows = torch.as_tensor(batch.obs[batch.valid]).flatten(1).numpy()
        for row, found in zip(rows, np.asarray(q), strict=True):
            if name != "cnn":  # whose images come again
                np.testing.assert_allclose(found, known[row.tobytes()], atol=1e-5)
                tried += 1
    assert tried > 50 or name == "cnn"


def test_a_cut_is_valued_with_the_memory_of_the_episode():
    """A recurrent target behind a truncation, against running the episode by hand."""
    loop = loop_of("gru", "replay", learning_rate=0.0, burn_in=0, double=False, gamma=0.5)
    agent = loop.agent
    turns, learn = [], agent.learn
    agent.learn = lambda step: turns.append(step) or learn(step)
    loop.run(90)
    cut = next(t for t, turn in enumerate(turns) if turn.truncated[0])
    opened = max(t for t in range(cut + 1) if turns[t].start[0])
    obs = [turn.obs[0] for turn in turns[opened : cut + 1]] + [turns[cut].next_obs[0]]
    start = torch.zeros((len(obs), 1), dtype=torch.bool)
    start[0] = True
    obs = torch.tensor(np.stack(obs))[:, None]
    q = agent.target_part.evaluate(obs, start)
    own = agent.values_part.evaluate(obs, start)
    value = 1.0 + 0.5 * q[-1, 0].max()
    expected = (value - own[-2, 0, turns[cut].action[0]]).item()
    found = []
    for _ in range(40):
        batch = agent.store.sample(4, agent.rng)
        loss = agent.loss(batch)
        here = (batch.obs[:-1] == obs[-2]).all(-1) & loss.valid
        found += loss.error[here].tolist()
    assert found and found == pytest.approx([expected] * len(found), abs=1e-5)


def test_where_all_explore_the_network_is_not_asked(monkeypatch):
    """In the random phase of an image agent; the draws are the same, whoever was asked."""
    loops = [loop_of("cnn", exploration=EpsilonGreedy(0.7)) for _ in range(2)]
    asked = []
    for loop in loops:
        part, act = loop.agent.values_part, loop.agent.values_part.act
        counted = partial(lambda act, *leaves: asked[-1].append(1) or act(*leaves), act)
        monkeypatch.setattr(part, "act", counted)
    monkeypatch.setattr(loops[1].agent, "_random", lambda *_: None)
    for loop in loops:
        asked.append([])
        loop.run(60)
    assert checkpoint.digest(loops[0].state_dict()) == checkpoint.digest(loops[1].state_dict())
    fewer, all_turns = map(len, asked)
    assert all_turns == 20 and 8 <= fewer <= 18  # of turns of three, 0.7 ** 3 are all random
    assert loop_of("gru").agent._random(np.ones(3, bool), None) is None


CPU_AND_GPU = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


@kinds
@pytest.mark.parametrize("device", CPU_AND_GPU)
def test_environments_may_hand_out_tensors(kind, device):
    def tensor_loop(seed):
        envs = make("seqrl/RepeatFirst-v0", 8, device=device)
        space = envs.single_observation_space
        torch.manual_seed(seed)
        network = build("gru", space, hidden_size=8)
        numbers = {"train_every": 64, "batch_size": 4, **KINDS[kind], "device": device}
        numbers |= {"buffer_size": 4000} if "buffer_size" in numbers else {}
        agent = agent_of(network, envs.single_action_space, space, **numbers)
        loop = Interaction(agent, envs)
        loop.reset(np.random.SeedSequence(seed))
        return loop

    loop, other = tensor_loop(1), tensor_loop(2)
    loop.run(900)
    other.load_state_dict(copy.deepcopy(loop.state_dict()))
    for each in (loop, other):
        each.run(300)
    assert loop.agent.updates > 3
    assert checkpoint.digest(other.agent.state_dict()) == checkpoint.digest(loop.agent.state_dict())


# the command line

AGENTS = ["q-learning", "sarsa", "monte-carlo"]


@pytest.mark.parametrize("agent", AGENTS)
def test_flags_are_those_that_matter_with_the_classs_defaults(agent):
    cls = agent_class(agent, network=True)
    shown = agent_parameters(cls)
    assert len(argument_lines(cls)) > 15
    assert ("buffer_size" in shown) == ("double" in shown) == (agent == "q-learning")
    assert ("expected" in shown) == (agent == "sarsa")
    assert ("target_every" in shown) == ("n_step" in shown) == (agent != "monte-carlo")
    made = cls(MLP(BOX, 8), TWO, BOX, device="cpu")
    typed = agent_of(cls=cls, **agent_arguments(cls, {}))
    for name in ("optim", "gamma", "exploration", "n_step", "loss_kind", "updating", "target"):
        assert getattr(typed, name) == getattr(made, name)
    if agent == "q-learning":
        assert (typed.replay, typed.sequences) == (made.replay, made.sequences)


@pytest.mark.parametrize("agent", AGENTS)
def test_a_network_is_all_that_is_typed(agent, tmp_path, capsys):
    words = f"--agent {agent} --network gru --env CartPole-v1 --steps 600 --num-envs 2".split()
    words += ["--network-arg", "hidden_size=8", "--eval-episodes", "2", "--temperature", "0.5"]
    words += ["--no-pictures", "--train-every", "50", "--seed", "3", "--run-dir", str(tmp_path)]
    assert train.main(words) == 0
    assert evaluate_script.main([str(tmp_path), "--episodes", "2"]) == 0
    assert "mean return" in capsys.readouterr().out
    parts = scripts_build(read_config(tmp_path))
    assert type(parts.agent) is agent_class(agent, network=True)
    assert parts.agent.exploration == Boltzmann(0.5) and parts.agent.updating.train_every == 50


# errors


class Brittle(nn.Module):
    """Gives NaN, or gradients that are, when told to."""

    def __init__(self):
        super().__init__()
        self.first, self.features, self.fault = nn.Linear(1, 4), 4, None

    def forward(self, obs):
        x = self.first(obs)
        if self.fault == "gradient":
            x = x + 0.0 * torch.sqrt((x - x).abs())
        return x * float("nan") if self.fault == "output" else x


@pytest.mark.parametrize(
    "fault, message",
    [
        ("gradient", r"the gradient of network\.module\.first\.\w+ is not finite"),
        ("output", "the loss is nan at update 1"),
    ],
)
def test_what_is_not_finite_stops_and_keeps_the_weights(fault, message):
    agent = agent_of(Brittle(), learning_starts=0, train_every=1, target_every=0)
    before = copy.deepcopy(agent.values_part.module.state_dict())
    agent.network.module.fault = fault
    with pytest.raises(RunError, match=message):
        agent.learn(turn_of(0.5, 1, 1.0, 0.25))
    after = agent.values_part.module.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    if fault == "output":
        with pytest.raises(RunError, match="the network gave"):  # where it is asked
            agent.act(np.ones((1, 1), np.float32), np.ones(1, bool), explore=False)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"gamma": 1.5}, "gamma 1.5: expected a number from 0 to 1"),
        ({"n_step": 0}, "n_step 0: expected a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size 2.5"),
        ({"burn_in": -1}, "burn_in -1: expected a whole number of at least 0"),
        ({"buffer_size": 0}, "buffer_size 0: expected a whole number of at least 1"),
        ({"loss": "l1"}, "loss 'l1'"),
        ({"target_rate": 0.0}, "target_rate 0.0: expected a number in"),
        ({"learning_rate": "linear:1:inf"}, "learning_rate inf: expected a number of at least 0"),
        ({"weight_decay": float("nan")}, "weight_decay nan: expected a number of at least 0"),
        ({"batch_size": 10**15}, "batch_size .* takes .* GiB, .* take a smaller --batch-size"),
        ({"max_grad_norm": 0.0}, "max_grad_norm 0.0: expected a number above 0"),
        ({"optimizer": "Adm"}, "Adam"),
        ({"action_space": BOX}, "action values take Discrete actions"),
        ({"buffer_size": 10**15}, "takes .* GiB, .* are free; take a smaller --buffer-size"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options, message):
    with pytest.raises(UsageError, match=message) as error:
        agent_of(**options)
    assert "\n" not in str(error.value)


def test_a_state_of_another_agent_is_refused():
    loop = loop_of("mlp")
    loop.run(60)
    saved = loop.state_dict()
    others = [
        loop_of("gru"),
        loop_of("mlp", "priorities"),
        loop_of("mlp", "rollouts"),
        loop_of("mlp", buffer_size=80),
        loop_of("mlp", dueling=True),
    ]
    for other in others:
        with pytest.raises(UsageError):
            other.load_state_dict(copy.deepcopy(saved))
    odd = copy.deepcopy(saved)
    parts = odd["agent"]["store"]["rows"]["parts"]
    parts["obs"] = parts["obs"].astype(np.float64)
    other = loop_of("mlp")
    with pytest.raises(UsageError, match=r"store/rows/parts/obs: float64 .*, expected float32"):
        other.load_state_dict(odd)
        other.run(3)


PLACES = {
    "mlp": ["parts", "parts/values/optimizer", "store", "store/rows", "store/rows/parts"],
    "gru": ["store/rows/parts/obs", "store/rows/parts/flag", "store/rows/last"],
}


@pytest.mark.parametrize("nonsense", [None, {}, (), 3, np.zeros((3, 7, 7)), np.zeros(0)])
@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_store_and_no_part_is_refused_by_name_before_the_next_turn(name, nonsense):
    loop = loop_of(name)
    loop.run(60)
    saved, other = loop.state_dict(), loop_of(name)
    for place in PLACES[name]:
        odd = copy.deepcopy(saved)
        *above, last = place.split("/")
        node = odd["agent"]
        for key in above:
            node = node[key]
        node[last] = nonsense
        if last == "optimizer" and isinstance(nonsense, dict):  # of weights that had no gradient
            continue
        with pytest.raises(UsageError, match=f"entry agent/{place}") as error:
            other.load_state_dict(odd)
        assert "\n" not in str(error.value)


# learning


def learned(env, network, seed, num_envs=1, steps=100_000, episodes=100, **options):
    """Mean return of greedy episodes after training, with defaults."""
    envs = make(env, num_envs)
    space = envs.single_observation_space
    torch.manual_seed(seed)
    agent = agent_of(build(network, space), envs.single_action_space, space, seed=seed, **options)
    agent.horizon = steps
    loop = Interaction(agent, envs)
    loop.reset(Streams.of(seed).envs)
    loop.run(steps)
    return evaluate(agent, make(env, 8), episodes, seed=5).returns.mean()


def test_a_pole_is_balanced_for_a_while():
    assert learned("CartPole-v1", "mlp", 0, 8, 15_000, 20, cls=DeepMonteCarlo) > 60


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, least",
    [
        ({}, 475),
        ({"cls": DeepSarsa, "num_envs": 8}, 195),
        ({"cls": DeepMonteCarlo, "num_envs": 8}, 195),
    ],
    ids=["q-learning", "sarsa", "monte-carlo"],
)
def test_cartpole_is_solved_in_four_of_five_seeds(options, least):
    found = [learned("CartPole-v1", "mlp", seed, **options) for seed in range(5)]
    assert sum(mean >= least for mean in found) >= 4, found


@pytest.mark.slow
def test_catch_is_solved_from_pixels():
    assert learned("seqrl/Catch-v0", "cnn", 0, episodes=1000) >= 0.95


def learned_by_preset(env, seed, steps):
    """The agent after what a user types, the preset included."""
    line = f"--agent q-learning --network mlp --env {env} --seed {seed} --steps {steps}".split()
    made = train.make_parser(line)
    config = train.make_config(made.read(line))
    assert made.note.startswith("preset")
    parts = scripts_build(config)
    parts.agent.horizon = steps
    loop = Interaction(parts.agent, parts.envs)
    loop.reset(parts.streams.envs)
    loop.run(steps)
    return parts.agent


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_frozen_lake_is_crossed_as_well_as_can_be(seed):
    agent = learned_by_preset("FrozenLake-v1", seed, 100_000)
    policy = agent.act(np.arange(16), np.ones(16, bool), explore=False).action
    lake = gym.make("FrozenLake-v1")
    regret = optimum(lake, 1.0).start_value - policy_value(lake, policy, 1.0)[0]
    assert 0 <= regret < 0.05


@pytest.mark.parametrize(
    "name, message",
    [
        ("optim", "optim 3: expected Optim(learning_rate, max_grad_norm, optimizer, "),
        ("updates", "updates 3: expected Updates(batch_size, train_every, updates)"),
        ("target", "target 3: expected TargetNetwork(target_every, target_rate)"),
        ("replay", "replay 3: expected ReplaySettings(buffer_size, learning_starts, "),
        ("sequences", "sequences 3: expected Sequences(sequence_length, burn_in, stored_state)"),
    ],
)
def test_a_number_in_place_of_a_class_of_arguments_is_refused(name, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        DeepQ(nn.Linear(2, 2), spaces.Discrete(2), **{name: 3})


@pytest.mark.parametrize("cls, sizes", [(DeepSarsa, [2, 1]), (DeepMonteCarlo, [2, 1])])
def test_a_batch_of_sequences_is_no_larger_than_asked_for(cls, sizes):
    envs = make("CartPole-v1", 3, max_episode_steps=8)
    net = build("gru", envs.single_observation_space, hidden_size=4, hidden=[4])
    spaces = envs.single_action_space, envs.single_observation_space
    numbers = arguments(cls, {"batch_size": 2, "train_every": 24, "updates": 1})
    agent, seen = cls(net, *spaces, **numbers, seed=0), []
    agent.update = lambda batch: seen.append(batch.reward.shape[1]) or {}
    loop = Interaction(agent, envs)
    loop.run(24)
    assert seen == sizes


@pytest.mark.parametrize("network", ["mlp", "gru"])
@pytest.mark.parametrize("cls", [DeepSarsa, DeepMonteCarlo])
def test_running_statistics_count_a_step_once_whatever_the_passes(cls, network):
    envs = make("CartPole-v1", 2, max_episode_steps=6)
    net = build(network, envs.single_observation_space, normalize=True)
    spaces = envs.single_action_space, envs.single_observation_space
    numbers = arguments(cls, {"batch_size": 4, "train_every": 24, "updates": 3})
    if cls is DeepSarsa:
        numbers |= {"n_step": 1, "expected": True}
    loop = Interaction(cls(net, *spaces, **numbers, seed=0), envs)
    loop.run(24)
    counts = [int(x) for name, x in net.named_buffers() if name.endswith("count")]
    assert counts and counts[0] == 24
