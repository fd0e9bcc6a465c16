"""REINFORCE: its arithmetic by hand, in the loop with every network, and what it learns."""

import copy
import logging
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn

from seqrl.agents.arguments import arguments
from seqrl.agents.deep import targets
from seqrl.agents.deep.reinforce import Reinforce
from seqrl.agents.experience.episodes import TOLD
from seqrl.core import tree
from seqrl.core.errors import RunError, UsageError
from seqrl.core.moments import RunningMoments
from seqrl.core.types import Batch, Transition
from seqrl.envs.adapter import Serial, adapt
from seqrl.envs.making import make
from seqrl.networks.base import Network
from seqrl.networks.build import NETWORKS, SEQUENCES, build
from seqrl.networks.mlp import MLP
from seqrl.networks.recurrent import GRU
from seqrl.training.loop.evaluation import evaluate
from seqrl.training.loop.interaction import Interaction
from seqrl.training.loop.train import train
from seqrl.training.runs import checkpoint

BOX, TWO = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)
CPU_AND_GPU = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def agent_of(network=None, action_space=TWO, observation_space=BOX, **options):
    network = MLP(observation_space, 8) if network is None else network
    numbers = {"seed": 0, "device": "cpu", "learning_rate": 0.01, "batch_episodes": 1, **options}
    return Reinforce(network, action_space, observation_space, **arguments(Reinforce, numbers))


def episodes(*rewards, ends=None, dtype=torch.float32, seed=0):
    """Episodes with these rewards, as they wait in a store; observations are random."""
    length = torch.tensor([len(row) for row in rewards])
    longest, n = int(length.max()), len(rewards)
    random = torch.Generator().manual_seed(seed)
    reward = torch.zeros(longest, n, dtype=dtype)
    for i, row in enumerate(rewards):
        reward[: len(row), i] = torch.tensor(row, dtype=dtype)
    return dict(
        obs=torch.randn((longest, n, 1), generator=random, dtype=dtype),
        action=torch.randint(2, (longest, n), generator=random),
        reward=reward,
        **dict.fromkeys(TOLD),
        last=torch.randn((n, 1), generator=random, dtype=dtype),
        terminated=np.array(ends or [True] * n),
        length=length.numpy(),
    )


def batch_of(agent, waiting):
    agent.store.finished.append(waiting)
    (batch,) = agent.batches()
    return batch


def update(agent, waiting):
    return agent.update(batch_of(agent, waiting))


def weights(agent):
    return {k: v.clone() for k, v in agent.policy.module.state_dict().items()}


# arithmetic


def test_masks_and_means_see_valid_steps_only():
    agent = agent_of(build("gru", BOX, hidden_size=4))
    mask = batch_of(agent, episodes([1, 2, 3], [1.0])).valid
    assert mask.tolist() == [[True, True], [True, False], [True, False], [False, False]]
    numbers = torch.tensor([[1.0, 3.0], [5.0, 99.0], [7.0, 99.0], [99.0, 99.0]])
    assert targets.mean(numbers, mask).item() == 4.0


def test_running_moments_equal_numpy():
    rng, moments, seen = np.random.default_rng(0), RunningMoments(), []
    assert (moments.mean, moments.std) == (0.0, pytest.approx(1.0))
    for n in (1, 5, 300, 2):
        values = rng.normal(40, 3, n)
        seen.extend(values)
        moments.update(torch.tensor(values))
        assert moments.mean == pytest.approx(np.mean(seen), rel=1e-12)
        assert moments.spread == pytest.approx(np.std(seen), rel=1e-9)
        assert moments.std == (moments.spread or 1.0)
    assert moments.count == 308


def test_equal_returns_tell_no_spread_and_do_not_thin_out_the_first_one():
    moments = RunningMoments()
    for _ in range(1000):
        moments.update(torch.full((8,), 0.1))  # equal but for rounding
    assert (moments.spread, moments.std) == (0.0, 1.0)
    moments.update(torch.tensor([0.1] * 7 + [1.1]))
    assert 0.2 < moments.spread < 0.3  # that of 15 equal ones and another
    assert moments.count == 16


def test_the_policy_gradient_is_that_of_the_expected_return():
    """Over all episodes of two steps, weighted by their probability, against differences."""
    network = nn.Sequential(nn.Linear(1, 3), nn.Tanh()).double()
    agent = agent_of(network.float(), baseline="none")
    agent.policy.module.double()
    obs = torch.tensor([[[0.3]], [[-0.8]]]).double()
    payoff = torch.tensor([[1.0, -2.0], [0.5, 3.0]]).double()  # of action at t
    ends = torch.tensor([[False], [False], [True]])

    def expected(batchwise):
        total, start = 0.0, torch.tensor([[True], [False]])
        out, _ = agent.policy.module(obs, start)
        for a in (0, 1):
            for b in (0, 1):
                action = torch.tensor([[a], [b]])
                log_prob = agent.head.log_prob(out, action)
                reward = torch.stack([payoff[0, a], payoff[1, b], payoff[0, 0]])[:, None]
                chance = log_prob.sum().exp()
                gain = targets.discounted(reward, reward * 0 + 1, ends, reward * 0)[:2]
                each = (log_prob * gain).sum() * chance.detach() if batchwise else chance * gain[0]
                total = total + each.sum()
        return total

    parameters = list(agent.network.parameters())
    estimate = torch.autograd.grad(expected(True), parameters)
    for weight, found in zip(parameters, estimate, strict=True):
        for i in range(weight.numel()):
            sides = []
            for sign in (1, -1):
                weight.data.view(-1)[i] += sign * 1e-5
                sides.append(expected(False).item())
                weight.data.view(-1)[i] -= sign * 1e-5
            assert found.view(-1)[i].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=1e-7)


def test_an_update_descends_along_the_surrogate():
    """The step of SGD is the learning rate times the gradient by differences, in float64."""
    options = {"baseline": "none", "optimizer": "SGD", "max_grad_norm": 1e9, "gamma": 0.9}
    network = nn.Sequential(nn.Linear(1, 3), nn.Tanh())
    agent = agent_of(network, **options)
    agent.policy.module.double()
    agent.returns.variance, agent.returns.count, agent.batch_steps = 4.0, 10, 8.0
    waiting = episodes([1, 2, 3], [5.0], dtype=torch.float64)
    returns = torch.tensor([[1 + 0.9 * (2 + 0.9 * 3), 5.0], [2 + 0.9 * 3, 0], [3, 0]]).double()
    frozen, valid = copy.deepcopy(agent), [(0, 0), (1, 0), (2, 0), (0, 1)]
    spread = 2.0  # as the length of 8 of the batches before

    def surrogate():
        out = frozen.policy.module.layer(frozen.network.module(waiting["obs"]))
        logs = torch.log_softmax(out, -1)
        each = [logs[i][waiting["action"][i]] * returns[i] / spread for i in valid]
        entropy = [-(logs[i].exp() * logs[i]).sum() for i in valid]
        return -sum(each) / 8 - 0.01 * sum(entropy) / 8

    before = weights(agent)
    update(agent, waiting)
    for name, weight in frozen.policy.module.named_parameters():
        for i in range(weight.numel()):
            sides = []
            for sign in (1, -1):
                weight.data.view(-1)[i] += sign * 1e-5
                sides.append(surrogate().item())
                weight.data.view(-1)[i] -= sign * 1e-5
            moved = (agent.policy.module.state_dict()[name] - before[name]).view(-1)[i].item()
            assert moved == pytest.approx(-0.01 * (sides[0] - sides[1]) / 2e-5, abs=1e-8), name


def values_of(agent, obs):
    """V(obs) by hand [B]."""
    obs, start = obs[None], torch.ones((1, len(obs)), dtype=torch.bool)
    out, _ = agent.critic.module(obs, start)
    return agent.returns.mean + agent.returns.std * out[0, :, 0]


def learned_from(agent, waiting):
    """The returns and baselined advantages [R] of the steps that are learned from, by time."""
    spread = agent.returns.spread
    batch = batch_of(agent, waiting)
    spread = spread or agent.returns.std
    gain, advantage = batch.extra["return"], batch.extra["advantage"] * spread
    assert not advantage[~batch.valid].any()  # behind an end
    return gain[batch.valid], advantage[batch.valid]


@pytest.mark.parametrize("memory", [False, True])
def test_a_cut_episode_goes_on_with_the_value_of_what_followed_an_ended_one_does_not(memory):
    agent = agent_of(gamma=0.5)
    agent.memory = memory  # whether steps are learned from or episodes
    agent.returns.mean, agent.returns.variance, agent.returns.count = 3.0, 4.0, 10
    waiting = episodes([1, 2], [1, 2], [4.0], ends=[True, False, False])
    with torch.no_grad():
        last = values_of(agent, waiting["last"])
        first = values_of(agent, waiting["obs"][0])
    gain, advantage = learned_from(agent, waiting)
    second = 2 + 0.5 * last[1].item()
    expected = [2, 1 + 0.5 * second, 4 + 0.5 * last[2].item(), 2, second]
    torch.testing.assert_close(gain, torch.tensor(expected))
    assert gain[::3].tolist() == [2, 2]
    torch.testing.assert_close(advantage[:3], gain[:3] - first, atol=1e-5, rtol=1e-5)


def test_the_value_of_what_followed_has_the_memory_of_the_episode():
    agent = agent_of(build("gru", BOX, hidden_size=4), gamma=1.0)
    waiting = episodes([0, 0, 0], [0.0], ends=[False, False])
    whole = torch.cat([waiting["obs"][:, 0], waiting["last"][:1]])[:, None]  # [4, 1, 1]
    start = torch.tensor([True, False, False, False])[:, None]
    with torch.no_grad():
        value = agent.critic.module(whole, start)[0][-1, 0, 0]
    gain, _ = learned_from(agent, waiting)
    torch.testing.assert_close(gain[[0, 2, 3]], value.expand(3))


def test_baselines_none_and_mean():
    for baseline, less in (("none", 0.0), ("mean", 7.0)):
        agent = agent_of(baseline=baseline, gamma=1.0)
        agent.returns.mean, agent.returns.count = 7.0, 10
        _, advantage = learned_from(agent, episodes([1, 2], [5.0], ends=[False, True]))
        torch.testing.assert_close(advantage, torch.tensor([3 - less, 5 - less, 2 - less]))
        assert list(agent.parts) == ["policy"]


def test_without_a_value_network_a_cut_is_said_once(caplog):
    agent = agent_of(baseline="mean")
    with caplog.at_level(logging.WARNING, "seqrl"):
        update(agent, episodes([1.0]))
        assert not caplog.records
        for _ in range(2):
            update(agent, episodes([1.0, 1.0], ends=[False]))
    assert ["cut off" in record.message for record in caplog.records] == [True]


def test_the_value_network_learns_the_returns():
    agent = agent_of(MLP(BOX, 32), gamma=0.0, value_passes=50, learning_rate=0.02)
    waiting = episodes([3.0, -1.0, 2.0])
    for _ in range(6):
        update(agent, waiting)
    found = [values_of(agent, obs).item() for obs in waiting["obs"]]
    assert found == pytest.approx([3, -1, 2], abs=0.2)


@pytest.mark.parametrize("name", ["mlp", "gru"])
def test_padding_changes_nothing(name):
    """The gradient of a batch is the sum of those of its episodes."""
    network = build(name, BOX, hidden_size=4) if name == "gru" else None
    agent = agent_of(network, entropy_coef=0.1, backend="torch")
    waiting = episodes([1, 2, 3, 4, 5], [6.0, 7.0], [8.0, 9.0, 1.0])
    agent.store.finished.append(waiting)
    batch = agent.store.take()
    advantage = torch.randn(6, 3, generator=torch.Generator().manual_seed(9))
    batch = batch._replace(extra={"advantage": advantage})

    def gradient(part):
        loss = agent.loss(part)
        found = torch.autograd.grad(loss.total, agent.policy.module.parameters())
        return torch.cat([g.flatten() for g in found])

    def alone(i, n):
        leaves = [tree.map(lambda leaf: leaf[:n, [i]], leaf) for leaf in batch[:8]]
        return Batch(*leaves, extra={"advantage": advantage[:n, [i]]})

    parts = [gradient(alone(i, n)) for i, n in enumerate((5, 2, 3))]
    expected = sum(parts)
    torch.testing.assert_close(gradient(batch), expected)
    if name == "mlp":
        torch.testing.assert_close(gradient(batch.steps()), expected)


def test_both_networks_normalise_by_what_was_seen():
    agent = agent_of(MLP(BOX, 8, normalize=True))
    waiting = episodes([1.0, 2.0, 3.0], [1.0])
    update(agent, waiting)
    obs = torch.cat([waiting["obs"][:, 0], waiting["obs"][:1, 1]])
    for part in (agent.policy, agent.critic):
        buffers = dict(part.module.network.named_buffers())
        (mean,) = (v for k, v in buffers.items() if k.endswith("mean"))
        torch.testing.assert_close(mean, obs.mean(0))


def test_the_policy_that_learns_is_the_one_that_acted(monkeypatch):
    agent, seen = agent_of(MLP(BOX, 8, normalize=True)), []
    count = next(v for k, v in agent.network.named_buffers() if k.endswith("count"))
    loss = agent.loss
    monkeypatch.setattr(agent, "loss", lambda batch: seen.append(int(count)) or loss(batch))
    update(agent, episodes([1.0, 2.0, 3.0]))
    update(agent, episodes([1.0]))
    assert seen == [0, 3] and count == 4


@pytest.mark.parametrize("name", ["mlp", "gru", "attention"])
def test_a_policy_with_dropout_learns_as_it_acts(name):
    """What draws is off in acting and in learning; the value network's dropout is its own."""
    options = {"hidden": 8} if name == "mlp" else {"layers": 2}
    agent = agent_of(build(name, BOX, dropout=0.5, **options))
    update(agent, episodes([1.0, 2.0, 3.0]))
    obs, start = torch.rand(5, 1, 1), torch.tensor([[True]] + [[False]] * 4)
    state, acted = None, []
    for row, opens in zip(obs.numpy(), start.numpy(), strict=True):
        out, state = agent.policy.act(row, opens, state)
        acted.append(out)
    learned = agent.policy.learn(obs, start).detach()
    torch.testing.assert_close(learned, torch.tensor(np.stack(acted)), atol=1e-6, rtol=1e-5)
    first, second = (agent.critic.learn(obs, start) for _ in range(2))
    assert not torch.equal(first, second)


def test_the_entropy_bonus_follows_its_schedule(monkeypatch):
    agent, losses = agent_of(baseline="none", entropy_coef="linear:0.8:0"), []

    def gradient_step(loss, part, name):
        losses.append((loss.total / loss.count).item())

    monkeypatch.setattr(agent, "gradient_step", gradient_step)
    agent.horizon = 100
    for agent.steps, coefficient in ((0, 0.8), (75, 0.2), (200, 0.0)):
        metrics = update(agent, episodes([1.0, 2.0]))
        policy_loss, entropy = metrics["train/policy_loss"], metrics["train/entropy"]
        assert losses[-1] == pytest.approx(float(policy_loss - coefficient * entropy))


def test_the_mode_of_a_tempered_gaussian_is_its_mean():
    agent = agent_of(action_space=spaces.Box(-1, 1, (1,)), temperature=4.0)
    obs, start = np.full((4000, 1), 0.5, np.float32), np.ones(4000, bool)
    with torch.no_grad():
        agent.policy.module.layer.bias.fill_(2.0)
    drawn = agent.act(obs, start).action
    assert drawn.mean() == pytest.approx(agent.act(obs, start, explore=False).action[0], abs=0.05)
    assert drawn.mean() == pytest.approx(0.5, abs=0.05)


# the loop

MODES = [f"sync {mode.value}" for mode in AutoresetMode]
LAYOUTS = ["single", "serial", *MODES, "native"]
LENGTH = 9  # steps after which episodes are cut
SMALL = {"mlp": {"hidden": 8}, "cnn": {}, "frame-stack": {"hidden": 8}, "attention": {}}
SMALL |= {key: {"hidden": [8], "code": 4} for key in ("autoencoder", "vae")}
OF_ANY_SPACE = [name for name in NETWORKS if name not in SEQUENCES]
networks = pytest.mark.parametrize("name", OF_ANY_SPACE)


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


def loop_of(name, layout="serial", seed=1, reset=True, **options):
    envs = envs_of(name, layout)
    space = envs.single_observation_space
    torch.manual_seed(seed)
    network = build(name, space, **SMALL.get(name, {"hidden_size": 8}))
    agent = agent_of(
        network, envs.single_action_space, space, batch_episodes=3, seed=seed, **options
    )
    agent.horizon = 500
    loop = Interaction(agent, envs)
    if reset:
        loop.reset(np.random.SeedSequence(seed))
    return loop


def taken(loop):
    """The episodes that will be taken from the store to be learned from."""
    kept, take = [], loop.agent.store.take
    loop.agent.store.take = lambda: kept.append(take()) or kept[-1]
    return kept


def steps_seen(loop, kept):
    """How many steps are in `taken`, waiting or under way."""
    store = loop.agent.store
    waiting = sum(int(ended["length"].sum()) for ended in store.finished)
    return sum(int(batch.valid.sum()) for batch in kept) + waiting + int(store.length.sum())


@networks
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_network_runs_in_every_layout(name, layout):
    loop = loop_of(name, layout)
    kept = taken(loop)
    loop.run(100)
    assert loop.steps == 100 and loop.agent.updates == len(kept) > 0
    assert all(np.isfinite(float(value)) for value in loop.metrics.values())
    assert steps_seen(loop, kept) == 100  # every step once, no filler
    assert max(int(batch.valid.sum(0).max()) for batch in kept) <= LENGTH
    for batch in kept:  # an episode's columns are one episode: its time goes up by one
        if name != "cnn":
            assert (batch.reward[batch.valid] == 1).all()


@networks
@pytest.mark.parametrize("layout", ["single", "sync NextStep", "native"])
def test_a_run_goes_on_bit_for_bit(name, layout, tmp_path):
    first, second = 45, 55  # with three environments neither the end nor a start is at a turn's end
    loop = loop_of(name, layout)
    loop.run(first)
    checkpoint.save(tmp_path / "file", loop.state_dict())
    again, copied = loop_of(name, layout, 2), loop_of(name, layout, 3)
    again.load_state_dict(checkpoint.load(tmp_path / "file"))
    copied.load_state_dict(copy.deepcopy(loop.state_dict()))
    assert checkpoint.digest(again.state_dict()) == checkpoint.digest(loop.state_dict())
    for each in (loop, again, copied):
        each.run(second)
    whole = loop_of(name, layout)
    whole.run(first + second)
    digests = {checkpoint.digest(each.state_dict()) for each in (loop, again, copied, whole)}
    assert len(digests) == 1
    assert loop.agent.updates > 2


def test_a_state_that_was_loaded_is_not_written_to():
    loop, other = loop_of("gru"), loop_of("gru", seed=2)
    loop.run(45)
    before = checkpoint.digest(loop.state_dict())
    other.load_state_dict(loop.state_dict())
    other.run(60)
    assert checkpoint.digest(loop.state_dict()) == before


def test_a_run_that_ends_within_a_turn_loses_nothing():
    loop = loop_of("mlp")
    kept = taken(loop)
    for _ in range(50):
        loop.run(1)  # every turn of three is split twice
    assert steps_seen(loop, kept) == loop.agent.steps == 50


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


def test_evaluation_leaves_running_statistics_alone_and_drops_nothing_out():
    network = MLP(BOX, 32, normalize=True, dropout=0.5)
    agent = agent_of(network)
    update(agent, episodes([1.0, 2.0], [3.0]))
    before = weights(agent)
    obs, start = np.ones((2, 1), np.float32), np.ones(2, bool)
    outs = [agent.policy.act(obs, start, None)[0].tolist() for _ in range(3)]
    assert outs[0] == outs[1] == outs[2]
    agent.act(obs, start, explore=False)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(agent).items())


@networks
def test_acting_equals_learning(name):
    """What the policy says step by step is what one call over the episode says."""
    loop = loop_of(name)
    loop.run(60)  # the weights have moved
    agent, env = loop.agent, envs_of(name, "serial")
    obs, state, seen, outs = env.reset(np.random.SeedSequence(3)), None, [], []
    start, starts = np.ones(3, bool), []
    for _ in range(20):
        seen.append(obs), starts.append(start)
        out, state = agent.policy.act(obs, start, state)
        outs.append(out)
        outcome = env.step(agent.head.mode(out))
        obs, start = outcome.obs, outcome.start
    assert np.any(starts[1:])
    whole = agent.policy.evaluate(torch.tensor(np.stack(seen)), torch.tensor(np.stack(starts)))
    np.testing.assert_allclose(np.stack(outs), whole.numpy(), atol=1e-5)


def test_the_fast_path_is_taken_where_there_is_one():
    fast = {name: loop_of(name).agent.policy.plain is not None for name in OF_ANY_SPACE}
    assert [name for name in fast if fast[name]] == ["mlp", "rnn", "lstm", "gru"]


# tensors from the environments


def tensor_loop(name, device, seed=1):
    envs = make("seqrl/RepeatFirst-v0", 64, device=device)
    space = envs.single_observation_space
    torch.manual_seed(seed)
    network = build(name, space, hidden_size=8)
    agent = agent_of(
        network, envs.single_action_space, space, batch_episodes=64, seed=seed, device=device
    )
    loop = Interaction(agent, envs)
    loop.reset(np.random.SeedSequence(seed))
    return loop


@pytest.mark.parametrize("device", CPU_AND_GPU)
@pytest.mark.parametrize("name", ["gru", "attention"])
def test_tensors_stay_on_their_device(name, device, tmp_path, monkeypatch):
    loop = tensor_loop(name, device)
    learn, kinds = loop.agent.learn, set()

    def watched(step: Transition):
        fields = (step.obs, step.start, step.next_state, step.action, step.reward, step.next_obs)
        kinds.update(leaf.device.type for leaf in tree.leaves(fields))
        return learn(step)

    monkeypatch.setattr(loop.agent, "learn", watched)
    loop.run(64 * 60 + 7)  # into the second episode, within a turn
    assert kinds == {device}
    assert loop.agent.updates == 1 and loop.books.episodes == 64
    assert loop.agent.store.columns["obs"].device.type == device
    checkpoint.save(tmp_path / "file", loop.state_dict())
    again = tensor_loop(name, device, 2)
    again.load_state_dict(checkpoint.load(tmp_path / "file"))
    assert again.obs.device.type == device
    for each in (loop, again):
        each.run(64 * 50)
    assert loop.agent.updates == 2
    assert checkpoint.digest(again.state_dict()) == checkpoint.digest(loop.state_dict())


@pytest.mark.parametrize("device", CPU_AND_GPU)
def test_evaluation_takes_tensors(device):
    agent = tensor_loop("gru", device).agent
    envs = make("seqrl/RepeatFirst-v0", 4, device=device)
    first, second = (evaluate(agent, envs, 8, seed=1).returns.tolist() for _ in range(2))
    assert first == second and len(first) == 8


def test_a_run_of_another_kind_of_device_can_be_loaded():
    agent, other = agent_of(), agent_of(seed=3)
    state = {**agent.state_dict(), "torch_rng": np.zeros(16, np.uint8)}  # as of a GPU
    other.load_state_dict(state)
    assert other.rng.bit_generator.state == agent.rng.bit_generator.state


# building


class Odd(Network):
    """A network that does something wrong."""

    def __init__(self, fault, features=4):
        super().__init__()
        self.layer, self.fault, self.features = nn.Linear(1, 4), fault, features

    def forward(self, obs, start, state=None):
        out = self.layer(obs.float())
        if self.fault == "flat":
            return out.flatten(0, 1), None
        if self.fault == "nan":
            return out * float("nan"), None
        return out, None


def first_turn(agent):
    return agent.act(np.zeros((2, 1), np.float32), np.ones(2, bool))


@pytest.mark.parametrize("space", [BOX, None], ids=["at once", "later"])
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: Odd("flat"), r"Odd: expected output \[T, N, features\].*got shape \[2, 4\]"),
        (lambda: Odd("nan"), "Odd: expected finite floats"),
        (lambda: Odd("", 7), r"expected output .*\[1, 2, 7\], got shape \[1, 2, 4\]"),
        (lambda: nn.Flatten(0), r"Flatten: expected output \[B, features\] with B = 2, got"),
    ],
    ids=["flat", "nan", "features", "plain"],
)
def test_what_a_network_does_wrong_is_said_with_expected_and_got(network, message, space):
    with pytest.raises(UsageError, match=message):
        first_turn(agent_of(network(), observation_space=space))


@pytest.mark.parametrize("space", [BOX, None], ids=["at once", "later"])
def test_features_are_read_from_the_result(space):
    for network in (nn.Sequential(nn.LazyLinear(5)), nn.Flatten(), Odd("", 0)):
        agent = agent_of(network, observation_space=space)
        decision = first_turn(agent)
        assert decision.action.shape == (2,)
        assert agent.policy.module.layer.in_features == agent.network.features > 0
        assert agent.policy.module.network is agent.network


def test_lazy_layers_below_a_memory_are_built_by_what_is_seen():
    agent = agent_of(GRU(nn.LazyLinear(5), 4), observation_space=None)
    for _ in range(2):  # the memory of the first is looked up, and its weights
        first_turn(agent)
    assert not any(weight.is_inference() for weight in agent.network.parameters())


def test_a_lazy_network_needs_the_space_to_be_loaded():
    agent = agent_of(nn.Flatten())
    with pytest.raises(UsageError, match="give the agent the observation_space"):
        agent_of(nn.Flatten(), observation_space=None).load_state_dict(agent.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.1}, "gamma 1.1: expected a number from 0 to 1"),
        ({"baseline": "best"}, "baseline 'best': expected one of value, mean, none"),
        ({"batch_episodes": 0}, "batch_episodes 0: expected a whole number of at least 1"),
        ({"value_passes": 1.5}, "value_passes 1.5: expected a whole number"),
        ({"entropy_coef": -1}, "entropy_coef -1: expected a number of at least 0"),
        ({"temperature": 0}, "temperature 0: expected a number from 1e-6 to 1e6"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm nan: expected a number above 0"),
        ({"learning_rate": -0.1}, "learning_rate -0.1: expected a number of at least 0"),
        ({"optimizer": "adam"}, "optimizer 'adam'. Did you mean \"Adam\""),
        ({"weight_decay": -1.0}, "weight_decay -1.0: expected a number of at least 0"),
        ({"device": "tpu"}, "device 'tpu': expected auto or one of cpu"),
        ({"action_space": spaces.Text(2)}, "action space .*expected Discrete"),
        ({"network": MLP}, "expected a torch.nn.Module, built, not a class"),
    ],
)
def test_bad_numbers_are_refused_in_one_line(options, message):
    with pytest.raises(UsageError, match=message) as caught:
        agent_of(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), 1e39])
def test_a_return_that_is_not_finite_stops_at_that_update(bad):
    agent = agent_of()
    update(agent, episodes([1.0, 2.0]))
    before, moments = weights(agent), copy.copy(vars(agent.returns))
    with pytest.raises(RunError, match="a return is not finite at update 2"):
        update(agent, episodes([bad, 2.0], dtype=torch.float64))
    assert agent.updates == 1 and vars(agent.returns) == moments
    assert all(torch.equal(weight, before[name]) for name, weight in weights(agent).items())


class Poison(torch.autograd.Function):
    """The identity, with a gradient that is not a number."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float("nan")


class Brittle(nn.Module):
    """Breaks at its output or its gradient when it is told to."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.fault = nn.Linear(1, 4), nn.Linear(4, 4), ""

    def forward(self, obs):
        x = self.first(obs)
        if self.fault == "gradient":
            x = Poison.apply(x)
        x = self.second(x)
        return x * float("nan") if self.fault == "output" else x


def test_a_gradient_that_is_not_finite_names_the_tensor_and_keeps_the_weights():
    network = Brittle()
    agent = agent_of(network)
    update(agent, episodes([1.0, 2.0]))
    before, network.fault = weights(agent), "gradient"
    with pytest.raises(RunError, match=r"gradient of network\.module\.first\.\w+ is not finite"):
        update(agent, episodes([1.0, 3.0]))
    assert all(torch.equal(weight, before[name]) for name, weight in weights(agent).items())


def test_a_loss_that_is_not_finite_is_named():
    network = Brittle()
    agent = agent_of(network)
    before, network.fault = weights(agent), "output"
    with pytest.raises(RunError, match="the policy loss is nan at update 1"):
        update(agent, episodes([1.0, 3.0]))
    with pytest.raises(RunError, match="the network gave"):
        first_turn(agent)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(agent).items())


# learning


class Track(gym.Env):
    """Say the number that is shown: reward -(a - x)^2, at best 0; always 0 brings -1/3 a step."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def look(self):
        self.x = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.x

    def step(self, action):
        reward = -float((action[0] - self.x[0]) ** 2)
        self.t += 1
        return self.look(), reward, self.t == 10, False, {}


def test_gaussian_actions_track_a_number():
    agent = agent_of(MLP(BOX, 16), Track.action_space, gamma=0.0, learning_rate=0.02)
    train(agent, Serial([Track() for _ in range(8)]), 20_000, seed=0)
    found = evaluate(agent, Track(), 50, seed=1).mean / 10
    assert found > -0.01
    assert agent.head.log_std.item() < -1.0  # it no longer tries much else


@pytest.mark.parametrize("seed", [0, 1])
def test_cartpole_is_balanced(seed):
    envs = make("CartPole-v1", 8)
    torch.manual_seed(seed)
    space = envs.single_observation_space
    agent = Reinforce(MLP(space), envs.single_action_space, space, seed=seed, device="cpu")
    train(agent, envs, 40_000, seed=seed)
    assert evaluate(agent, make("CartPole-v1", 8), 24, seed=9).mean >= 195


def last_mean(loop):
    return np.mean([total for total, _ in loop.books.recent])


class EarlyStopping:
    """The best mean of 100 episodes."""

    best = -np.inf

    def episode(self, loop, episode):
        if len(loop.books.recent) == 100:
            self.best = max(self.best, last_mean(loop))


def played(env, name, steps, seed, **options):
    """A run as the command line makes it, but for the agent's stream."""
    envs = make(env, 16)
    torch.manual_seed(seed)
    space = envs.single_observation_space
    options |= {"device": "cpu", "seed": seed}  # heads are drawn as they are made
    agent = Reinforce(build(name, space), envs.single_action_space, space, **options)
    watch = EarlyStopping()
    loop = Interaction(agent, envs, recorder=watch)
    agent.reseed(seed)
    agent.horizon = steps
    loop.reset(np.random.SeedSequence(seed))
    loop.run(steps)
    return loop, watch.best


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_cartpole_is_solved_and_stays_solved(seed):
    loop, best = played("CartPole-v1", "mlp", 500_000, seed)
    assert best >= 475
    assert last_mean(loop) >= 475


@pytest.mark.slow
def test_catch_is_solved_from_pixels():
    good, options = 0, arguments(Reinforce, {"learning_rate": "linear:0.002:0"})
    for seed in range(5):
        loop, _ = played("seqrl/Catch-v0", "cnn", 200_000, seed, **options)
        good += evaluate(loop.agent, make("seqrl/Catch-v0", 16), 1000, seed=99).mean >= 0.95
    assert good >= 4


@pytest.mark.slow
def test_a_gru_repeats_the_first_card():
    loop, _ = played("seqrl/RepeatFirst-v0", "gru", 1_000_000, 0)
    assert evaluate(loop.agent, make("seqrl/RepeatFirst-v0", 16), 1000, seed=99).mean >= 0.95


def test_dropout_resumes_and_is_the_agents_own():
    """Whatever else draws from torch's shared generator."""

    def loop(noise):
        envs = make("CartPole-v1", 4)
        torch.manual_seed(1)
        network = MLP(envs.single_observation_space, 8, dropout=0.5)
        agent = Reinforce(network, envs.single_action_space, batch_episodes=2, seed=3)
        agent.horizon = 900
        torch.manual_seed(noise)
        made = Interaction(agent, envs)
        made.reset(np.random.SeedSequence(5))
        return made

    whole, first, second = map(loop, (7, 8, 9))
    whole.run(800)
    first.run(400)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.run(400)
    assert whole.agent.updates > 5
    assert checkpoint.digest(whole.fingerprint()) == checkpoint.digest(second.fingerprint())
