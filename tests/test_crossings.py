"""How often the host waits for a device, and sends to it: by the pretend one, counted."""

import importlib
import math
from collections import Counter
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from seqrl.agents.deep.deep_monte_carlo import DeepMonteCarlo
from seqrl.agents.deep.deep_q import DeepQ, ReplaySettings
from seqrl.agents.deep.deep_sarsa import DeepSarsa
from seqrl.agents.deep.imitation import Imitation
from seqrl.agents.deep.ppo import PPO
from seqrl.agents.deep.reinforce import Reinforce
from seqrl.agents.deep.sac import SAC
from seqrl.agents.deep.value_agent import Updates
from seqrl.agents.experience.episodes import Episodes
from seqrl.agents.experience.replay import Replay, Sequences
from seqrl.agents.experience.rollout import Rollout
from seqrl.core import tree
from seqrl.core.arrays import host, host_copy
from seqrl.core.errors import RunError, UsageError
from seqrl.core.types import Transition
from seqrl.envs.batched import BatchedEnv
from seqrl.envs.draws import TorchDraws
from seqrl.envs.registry import TASKS, task
from seqrl.envs.tasks.pendulum import Pendulum
from seqrl.envs.tasks.tmaze import TMaze
from seqrl.networks import build
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.turns import split
from seqrl.training.runs import checkpoint

pytestmark = pytest.mark.apart


def pretend():
    """The module, imported where a test runs: it changes torch for good."""
    return importlib.import_module("tests.pretend")


SMALL, LARGE = 64, 1024  # environments
NETWORKS = ("mlp", "gru", "attention")
AGENTS: dict[str, Any] = {
    "ppo": lambda *spaces, **given: PPO(*spaces, rollout=4, epochs=2, **given),
    "reinforce": lambda *spaces, **given: Reinforce(*spaces, batch_episodes=8, **given),
    "q-learning": DeepQ,
    "sac": SAC,
}
REPLAYING = "q-learning", "sac"
OTHERS: dict[str, Any] = {
    "sarsa": DeepSarsa,
    "monte-carlo": DeepMonteCarlo,
    "imitate": lambda *spaces, **given: Imitation(*spaces, batch_size=8, **given),
}


def cases(names, networks):
    """Each agent on each network, but for memory where there is none to learn."""
    return [(name, x) for name in names for x in networks if name != "sac" or x == "mlp"]


# crossings of a turn to the host and to the device, at most: a plain one, one that learns
PLAIN, LEARNING = (1, 0), (3, 1)


def loop_of(name, network, n, device, task=None, backend="torch", **given):
    """A loop of an agent in environments of a task, all on a device."""
    task = task or (Pendulum() if name == "sac" else TMaze(length=2))
    envs = BatchedEnv(task, n, device=device, max_episode_steps=30)
    spaces = envs.single_observation_space, envs.single_action_space
    torch.manual_seed(0)
    made = network if isinstance(network, nn.Module) else build(network, spaces[0])
    given = {"seed": 0, "device": device, "backend": backend, **given}
    agent = (AGENTS | OTHERS)[name](made, spaces[1], spaces[0], **given)
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(0))
    return loop


def counted(loop, turns):
    """The crossings of each turn, and the gradient steps taken in it."""
    n, found = loop.envs.num_envs, []
    for _ in range(turns):
        pretend().crossings.clear()
        before = loop.agent.updates
        loop.run(n)
        both = (
            sum(x.values()) for x in (pretend().crossings.to_host, pretend().crossings.to_device)
        )
        places = Counter(pretend().crossings.to_host) + Counter(pretend().crossings.to_device)
        found.append((*both, loop.agent.updates - before, places))
    return found


def replaying(name, n):
    """Options of a replay by which a turn of n environments takes four gradient steps."""
    if name not in REPLAYING:
        return {}
    settings = ReplaySettings(buffer_size=32 * n, learning_starts=2 * n)
    updates = Updates(batch_size=8, train_every=n // 4, updates=1)
    memory = {} if name == "sac" else {"sequences": Sequences(2)}
    return {"replay": settings, "updates": updates, **memory}


@pytest.mark.parametrize("n", [SMALL, LARGE])
@pytest.mark.parametrize("name, network", cases(AGENTS, NETWORKS))
def test_a_turn_waits_once_and_one_that_learns_twice_more(name, network, n):
    with pretend().device() as device:
        loop = loop_of(name, network, n, device, **replaying(name, n))
        loop.run(n)  # the first turn tries the network
        found = counted(loop, 9)
    assert {bool(updates) for *_, updates, _ in found} == {True, False}
    for waits, sent, updates, places in found:
        most = LEARNING if updates else PLAIN
        assert waits <= most[0] and sent <= most[1], (updates, places)


# the same numbers


def draws_of_a_device():
    """Draw on the CPU as on a device, for all environments a turn: the same numbers then."""
    return mock.patch.object(TorchDraws, "counts", False)


def leaves_of(loop):
    """What a run has come to, as arrays: weights, the last returns, observations."""
    weights = {k: host_copy(x) for k, x in loop.agent.network.state_dict().items()}
    return {**weights, "obs": host_copy(next(tree.leaves(loop.obs)))}, [*loop.books.recent]


@pytest.mark.parametrize("name, network", cases(AGENTS | OTHERS, ["mlp", "gru"]))
def test_numbers_are_those_of_the_cpu(name, network):
    pretend()  # before the first gradient, as torch asks for its devices then
    n, turns, small = 6, 40, {}
    if name in REPLAYING:
        small = {"replay": ReplaySettings(buffer_size=600, learning_starts=30)}
    with draws_of_a_device():
        plain = loop_of(name, network, n, "cpu", **small)
        plain.run(n * turns - 2)  # an exact end splits the last turn
    with pretend().device() as device:
        loop = loop_of(name, network, n, device, **small)
        loop.run(n * turns - 2)
        (found, played), updates = leaves_of(loop), loop.agent.updates
    expected, before = leaves_of(plain)
    assert updates == plain.agent.updates > 1 and len(before) > 4
    assert played == before
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-6)


def turns_of(n, count, seed=0):
    """Turns of n environments: episodes of any length, fillers, and turns that were split."""
    rng, found = np.random.default_rng(seed), []
    start, waits = np.ones(n, bool), np.zeros(n, bool)
    obs = rng.random((n, 2), np.float32)
    for _ in range(count):
        over, cut = rng.random((2, n)) < 0.2
        after, first = rng.random((2, n, 2), np.float32)
        valid = ~waits
        ends = (over | cut) & valid
        numbers = rng.random((3, n), np.float32)
        step = Transition(
            obs, start, numbers[0], numbers[1], rng.integers(0, 4, n), numbers[2],
            numbers[1] - 0.5, over & valid, cut & valid, after, valid,
        )  # fmt: skip
        found += [step] if rng.random() < 0.7 else [*split(step, max(1, int(valid.sum()) // 2))]
        start, waits = waits | False, ends
        obs = np.where(waits[:, None] | start[:, None], first, after)
        start = ~valid | False
    return found


def on_device(step, device):
    """The same turn as tensors there."""
    leaves = tree.map(lambda x: torch.tensor(x, device=device), tuple(step[:11]))
    return Transition(*leaves)._replace(whole=step.whole)


def values(step_obs, start, state):
    """What a critic says of observations [N, 2]."""
    return step_obs.sum(-1)


STORES: dict[str, Any] = {
    "rollout": lambda device: Rollout(7, 0.5, values),
    "episodes": lambda device: Episodes(0.5),
    "replay": lambda device: Replay(200, n_step=3, gamma=0.5, device=device),
    "sequences": lambda device: Replay(
        200, n_step=2, gamma=0.5, sequences=Sequences(6, 2), device=device
    ),
}


def read(name, store, rng):
    """A batch of the store, where it has one now."""
    if name in ("replay", "sequences"):
        return list(store.draws(2, 8, rng)) if len(store) > 4 else []
    ready = store.full if name == "rollout" else len(store) > 5
    return [store.take()] if ready else []


def check_same(expected, found):
    """Of two batches what is in arrays, and what the host knows of it."""
    assert (expected.valid_count, expected.starts) == (found.valid_count, found.starts)
    ones, others = (tree.leaves((*batch[:10], batch.state)) for batch in (expected, found))
    for one, other in zip(ones, others, strict=True):
        assert isinstance(other, torch.Tensor) and other.device.type == pretend().NAME
        np.testing.assert_array_equal(one, host(other))


@pytest.mark.parametrize("name", STORES)
def test_a_store_on_the_device_holds_what_one_of_arrays_does(name):
    plain, rngs, batches = STORES[name](None), [np.random.default_rng(1) for _ in "ab"], 0
    with pretend().device():
        store = STORES[name](pretend().DEVICE)
        for step in turns_of(5, 60):
            plain.add(step)
            store.add(on_device(step, pretend().DEVICE))
            if step.whole:
                ready = [read(name, *both) for both in zip((plain, store), rngs, strict=True)]
                for expected, found in zip(*ready, strict=True):
                    check_same(expected, found)
                    batches += 1
    assert batches > 4


# what is wrong


class Brittle(nn.Module):
    """Breaks at its output or its gradient when it is told to."""

    def __init__(self, inputs=2):
        super().__init__()
        self.first, self.features, self.fault = nn.Linear(inputs, 4), 4, ""

    def forward(self, obs):
        x = self.first(obs.float().reshape(len(obs), -1))
        if self.fault == "gradient":
            x = x + 0.0 * torch.sqrt((x - x).abs())
        return x * float("nan") if self.fault == "output" else x


FAULTS = {
    "gradient": r"the gradient of network\.module\.first\.\w+ is not finite",
    "output": r"the .*loss is nan at update \d+",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", AGENTS)
def test_a_step_that_is_not_finite_is_named_and_undone(name, fault):
    with pretend().device() as device:
        settings = ReplaySettings(buffer_size=400, learning_starts=1)
        small = {"replay": settings} if name in REPLAYING else {}
        loop = loop_of(name, Brittle(3 if name == "sac" else 2), 4, device, **small)
        loop.run(4 * 9)
        agent, network = loop.agent, loop.agent.network.module
        act, learn = agent.act, agent.learn
        kept = {}

        def learning(step):
            """Let the network break while it learns alone."""
            state = agent.parts[next(iter(agent.parts))].state_dict()
            kept.update(weights=tree.map(np.array, state["weights"]), updates=agent.updates)
            network.fault = fault
            try:
                return learn(step)
            finally:
                network.fault = ""

        agent.act, agent.learn = act, learning
        with pytest.raises(RunError, match=FAULTS[fault]):
            loop.run(4 * 40)
        after = agent.parts[next(iter(agent.parts))].state_dict()["weights"]
        for key, value in kept["weights"].items():
            if "layer" not in key or name != "ppo":  # whose values are in other units by then
                np.testing.assert_array_equal(after[key], value)


def test_what_the_network_gives_is_refused_before_it_is_learned_from():
    with pretend().device() as device:
        loop = loop_of("ppo", Brittle(), 4, device)
        loop.run(8)
        loop.agent.network.module.fault, kept = "output", len(loop.agent.store)
        with pytest.raises(RunError, match="at env step 9: the network gave"):
            loop.run(4)
        assert len(loop.agent.store) == kept and loop.steps == 8


class Unpaid(TMaze):
    """A task that pays what is no number in environment 2."""

    def advance(self, xp, episodes, action):
        changed, reward, over = super().advance(xp, episodes, action)
        return (
            changed,
            reward + (xp.arange(len(reward), device=reward.device) == 2) * math.nan,
            over,
        )


def test_a_reward_and_an_action_that_are_wrong_are_named():
    with pretend().device() as device:
        loop = loop_of("reinforce", "mlp", 4, device, Unpaid(length=2))
        with pytest.raises(RunError, match=r"at env step 1: .* 0 .*: reward nan is not finite"):
            loop.run(4)
        loop = loop_of("reinforce", "mlp", 4, device)
        act = loop.agent.act
        loop.agent.act = lambda *given, **more: act(*given, **more)._replace(
            action=torch.tensor([0, 99, 0, 0], device=device)
        )
        with pytest.raises(UsageError, match="action 99 in environment 1"):
            loop.run(4)


def test_two_devices_in_one_operation_are_refused():
    with pretend().device() as device:
        there = torch.ones(2, device=device)
        with pytest.raises(pretend().MixedDevices):
            there + torch.ones(2)


@pytest.mark.parametrize("name", AGENTS)
def test_a_run_goes_on_from_its_checkpoint(name, tmp_path):
    settings = ReplaySettings(buffer_size=400, learning_starts=1)
    small = {"replay": settings} if name in REPLAYING else {}
    network = "mlp" if name == "sac" else "gru"
    with pretend().device() as device:
        loop, again = (loop_of(name, network, 5, device, **small) for _ in "ab")
        loop.run(5 * 13 + 2)  # within a turn
        checkpoint.save(tmp_path / "file", loop.state_dict())
        again.load_state_dict(checkpoint.load(tmp_path / "file"))
        for each in (loop, again):
            each.run(5 * 20)
        assert loop.agent.updates > 3
        assert checkpoint.digest(again.state_dict()) == checkpoint.digest(loop.state_dict())


@pytest.mark.parametrize("env_id", TASKS)
def test_a_task_on_the_device_is_the_one_on_the_cpu_and_waits_for_nothing(env_id):
    def played(device):
        envs = BatchedEnv(task(env_id), 6, device=device)
        envs.action_space.seed(0)
        actions = [envs.action_space.sample() for _ in range(12)]
        chosen = torch.tensor(np.stack(actions), device=device)
        found = [(envs.reset(seed=3)[0],)]
        envs.step(chosen[0])  # constants are sent once
        pretend().crossings.clear()
        steps = [envs.step(action) for action in chosen]
        waits = pretend().crossings.to_host + pretend().crossings.to_device
        found += [step[:4] for step in steps]
        return [tree.map(host_copy, leaves) for leaves in found], waits

    with draws_of_a_device():
        expected, _ = played("cpu")
    with pretend().device() as device:
        found, waits = played(device)
    for one, other in zip(map(tree.leaves, expected), map(tree.leaves, found), strict=True):
        assert all(map(np.array_equal, one, other))
    assert not waits


@pytest.mark.parametrize("network", NETWORKS)
def test_turns_played_together_are_those_one_by_one_and_waited_for_once(network):
    n, rollouts = 6, 5
    with pretend().device() as device:
        stepped, together = (loop_of("ppo", network, n, device) for _ in "ab")
        found = []
        for loop in (stepped, together):
            loop.agent.horizon = 100 * n
            loop.callbacks.append(lambda loop: found.append((loop.steps, loop.episodes)))
            loop.callbacks[-1].every = 3 * n
        for _ in range(rollouts * 4):
            stepped.run(n)
        one_by_one, found[:] = found[:], []
        together.run(n * 8)
        pretend().crossings.clear()
        together.run(n * 4 * (rollouts - 2))
        waits = sum(pretend().crossings.to_host.values())
        assert found == one_by_one and len(found) > 5
        digests = [checkpoint.digest(loop.state_dict()) for loop in (stepped, together)]
        recent = [[*loop.books.recent] for loop in (stepped, together)]
    assert digests[0] == digests[1] and recent[0] == recent[1] != []
    # a rollout is cut in two by the callback at most: two looks, and two more that learn
    assert waits <= (rollouts - 2) * 4
