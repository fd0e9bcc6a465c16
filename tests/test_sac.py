"""SAC: the squashed density, the loss and its gradient by hand, what is taken and refused."""

import copy
import itertools
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from seqrl.agents import SAC, Optim, ReplaySettings, Updates
from seqrl.agents.deep.devices import Draw
from seqrl.agents.deep.squashed import Squashed
from seqrl.core.errors import UsageError
from seqrl.core.types import Transition
from seqrl.envs import Serial
from seqrl.networks import build
from seqrl.training import Interaction, train
from seqrl.training.runs import checkpoint

STATES, HALF = spaces.Discrete(3), spaces.Box(0.0, 4.0, (1,))
SMALL = {"updates": Updates(8, 1, 1), "replay": ReplaySettings(200, 8)}
GRID = torch.linspace(-9, 9, 60_001, dtype=torch.float64)  # of the number before tanh
NORMAL = torch.exp(-0.5 * GRID.square()) / math.sqrt(2 * math.pi)


class OneHot(nn.Module):
    """Features [B, 3] of states [B]."""

    def forward(self, obs):
        return nn.functional.one_hot(obs, 3).float()


class Known(nn.Module):
    """Twins whose values of states and actions are known: a square less than a bound."""

    def __init__(self, best, lead):
        super().__init__()
        self.best, self.lead = best, lead

    def forward(self, numbers, action, *, fixed=False):
        value = -3.0 * (action[..., 0] - self.best).square()
        return torch.stack([value, value + self.lead]) + 0.0 * numbers.sum(-1)


def agent_of(actions=HALF, network=None, **options):
    made = OneHot() if network is None else network
    space = STATES if network is None else None
    return SAC(made, actions, space, device="cpu", seed=0, **{**SMALL, **options})


def turn(obs, action, reward, terminated=False, truncated=False, next_obs=0):
    each = [np.array([x]) for x in (obs, reward, terminated, truncated, next_obs)]
    obs, reward, terminated, truncated, next_obs = each
    done = np.array([[action]], np.float32)
    came = reward.astype(np.float64), terminated, truncated, next_obs, np.ones(1, bool)
    return Transition(obs, np.ones(1, bool), None, None, done, None, *came)


def batch_of(agent, *turns, size=1):
    for each in turns:
        agent.store.add(each)
    batch = agent.store.sample(size, np.random.default_rng(0))
    return batch._replace(noise=torch.randn(2, size, 1, generator=torch.Generator().manual_seed(7)))


# the squashed density


@pytest.mark.parametrize("mean", [0.0, -0.7, 3.0])
@pytest.mark.parametrize("log_std", [-2.0, 0.0, 1.0])
def test_the_density_of_actions_is_that_of_numerical_integration(mean, log_std):
    """Its integral over intervals of actions is the share of draws that fall into them."""
    head = Squashed(spaces.Box(-1.0, 1.0, (1,)))
    ends = torch.linspace(-0.99, 0.99, 12, dtype=torch.float64)
    out = torch.tensor([mean, log_std], dtype=torch.float64)
    normal = torch.distributions.Normal(mean, math.exp(log_std))
    for low, high in itertools.pairwise(ends):
        grid = torch.linspace(float(low), float(high), 4001, dtype=torch.float64)
        density = head.log_prob(out.expand(len(grid), 2), grid[:, None]).exp()
        share = normal.cdf(high.atanh()) - normal.cdf(low.atanh())
        assert float(torch.trapezoid(density, grid)) == pytest.approx(float(share), abs=2e-5)


def test_what_is_drawn_has_the_density_of_its_action_and_stays_finite_at_the_bounds():
    head = Squashed(spaces.Box(np.float32([-2, 0]), np.float32([2, 10])))
    rng = torch.Generator().manual_seed(1)
    out, noise = 0.3 * torch.randn(50, 4, generator=rng), torch.randn(50, 2, generator=rng)
    unit, log_prob = head.drawn(out, noise)
    action = head.made_of(out, noise)
    assert torch.allclose(head.units(action), unit, atol=1e-6)
    assert torch.allclose(head.log_prob(out, action), log_prob, atol=0.01)
    assert (action >= torch.tensor([-2.0, 0.0])).all() and (action <= 10).all()
    same = head.made_of(out.numpy(), noise.numpy())
    assert same == pytest.approx(action.numpy(), abs=1e-6)
    assert head.log_prob(out.numpy(), same) == pytest.approx(log_prob.numpy(), abs=0.01)
    far = torch.tensor([[60.0, -60.0, 0.5, 0.5]], requires_grad=True)
    head.drawn(far, torch.zeros(1, 2))[1].sum().backward()
    assert far.grad.isfinite().all() and float(far.grad[0, 0]) == pytest.approx(2.0)


def test_a_dimension_without_two_bounds_is_not_squashed():
    low, high = np.float32([-1, 0, -np.inf]), np.float32([3, np.inf, np.inf])
    head = Squashed(spaces.Box(low, high))
    out = torch.tensor([0.5, 2.5, -7.0, -1.0, 0.3, 0.0])
    noise = torch.tensor([1.0, -1.0, 0.5])
    u = out[:3] + out[3:].exp() * noise
    unit, log_prob = head.drawn(out, noise)
    assert unit.tolist() == pytest.approx([math.tanh(u[0]), float(u[1]), float(u[2])])
    normal = torch.distributions.Normal(out[:3], out[3:].exp()).log_prob(u).sum()
    slope = math.log(1 - math.tanh(u[0]) ** 2)
    assert float(log_prob) == pytest.approx(float(normal) - slope, rel=1e-5)
    assert head.mode(out).tolist() == pytest.approx([1 + 2 * math.tanh(0.5), 2.5, -7.0])
    assert float(head.log_prob(out, head.scaled(unit))) == pytest.approx(float(log_prob), rel=1e-5)
    drawn = head.sample(out[None].expand(4, 6), Draw(torch.Generator().manual_seed(0)))
    assert drawn.shape == (4, 3)


def test_a_dimension_of_one_value_has_no_part_in_density_and_target_entropy():
    ends = np.float32([-1, 2, -1]), np.float32([3, 2, 5])
    head, rest = (Squashed(spaces.Box(low, high)) for low, high in (ends, [x[::2] for x in ends]))
    out, noise = torch.tensor([0.5, 2.5, -0.7, -1.0, 0.3, 0.1]), torch.tensor([1.0, -1.0, 0.5])
    here, there = head.drawn(out, noise)[1], rest.drawn(out[[0, 2, 3, 5]], noise[[0, 2]])[1]
    assert float(here) == pytest.approx(float(there))
    assert head.most_entropy == rest.most_entropy == 2 * math.log(2)
    unit, _ = head.drawn(out.requires_grad_(), noise)
    unit.sum().backward()
    out, unit, grad = out.detach(), unit.detach(), out.grad
    assert float(unit[1]) == 2.0 and grad[[1, 4]].tolist() == [0.0, 0.0]
    assert float(head.mode(out)[1]) == 2.0 == head.mode(out.numpy())[1]
    assert torch.equal(head.units(head.scaled(unit))[1], unit[1])  # as the values see it
    assert agent_of(actions=spaces.Box(*ends)).target_entropy == -2.0


# the loss


def fixed_agent(coef=0.5, **options):
    """One whose target values are known, and whose policy is nearly without spread."""
    agent = agent_of(entropy_coef=coef, gamma=0.9, **options)
    with torch.no_grad():
        agent.policy.module.layer.weight.zero_()
        agent.policy.module.layer.bias[:] = torch.tensor([0.4, -3.0])
    agent.target_part.module.head = Known(best=0.0, lead=2.0)
    return agent


def soft_value(noise, coef):
    """Of what such an agent draws with a normal number, by hand."""
    u = 0.4 + math.exp(-3.0) * noise
    density = -0.5 * noise**2 + 3.0 - 0.5 * math.log(2 * math.pi)
    return -3.0 * math.tanh(u) ** 2 - coef * (density - math.log(1 - math.tanh(u) ** 2))


@pytest.mark.parametrize(
    ("end", "share"), [({}, 0.9), ({"truncated": True}, 0.9), ({"terminated": True}, 0.0)]
)
def test_the_target_is_the_reward_and_the_soft_value_behind_it(end, share):
    """A truncated episode goes on; one that terminated has neither value nor entropy behind it."""
    agent = fixed_agent()
    batch = batch_of(agent, turn(1, 3.0, 2.5, next_obs=2, **end))
    with torch.no_grad():
        target = agent.target(batch, 0.5)
    assert target.shape == (1, 1)
    expected = 2.5 + share * soft_value(float(batch.noise[1, 0, 0]), 0.5)
    assert float(target) == pytest.approx(expected, rel=1e-4)


def test_n_rewards_come_before_the_soft_value():
    agent = fixed_agent(n_step=2)
    agent.store.add(turn(0, 1.0, 1.0, next_obs=1))
    second = turn(1, 1.0, 10.0, truncated=True, next_obs=2)
    agent.store.add(second._replace(start=np.zeros(1, bool)))
    batch = batch_of(agent, size=8)
    two = batch.obs[0] == 0
    with torch.no_grad():
        target = agent.target(batch, 0.0)[0]
    assert two.any() and not two.all()
    value = -3.0 * torch.tanh(0.4 + math.exp(-3.0) * batch.noise[1, :, 0]).square()
    expected = torch.where(two, 1 + 0.9 * 10 + 0.81 * value, 10 + 0.9 * value)
    assert torch.allclose(target, expected, atol=1e-4)


def test_the_values_move_to_the_target_and_the_target_values_follow_them():
    """Both twins; what moves the target is the share of the way that is asked for."""
    agent = agent_of(optim=Optim(0.1, math.inf), target_rate=0.25, gamma=0.0)
    batch = batch_of(agent, turn(1, 1.0, 2.0, terminated=True), size=4)
    before = copy.deepcopy(agent.target_part.module.state_dict())
    for _ in range(120):
        agent.update(batch)
    twins, units = agent.critic.module.head, agent.head.units(batch.action[:1])
    values = twins(agent.critic.evaluate(batch.obs[:1], batch.start[:1]), units)
    assert values.shape == (2, 1, 4) and torch.allclose(values, torch.tensor(2.0), atol=0.05)
    own, online = agent_of(target_rate=0.25), agent_of(target_rate=0.25)
    own.update(batch_of(own, turn(1, 1.0, 2.0)))
    for name, frozen in own.target_part.module.state_dict().items():
        first = online.critic.module.state_dict()[name]
        now = own.critic.module.state_dict()[name]
        assert torch.allclose(frozen, first + 0.25 * (now - first), atol=1e-7)
    assert before.keys() == own.target_part.module.state_dict().keys()


@pytest.mark.parametrize(("options", "hidden"), [({}, 2), ({"value_hidden": 5}, 5)])
def test_each_value_has_as_many_units_as_asked_or_half_the_features(options, hidden):
    """Q_i = w_i . relu(h_i + U_i a) + b_i, by hand, of the three features of OneHot."""
    agent = agent_of(**options)
    agent.act(np.array([1]), np.ones(1, bool))
    layer, twins = agent.critic.module.layer, agent.critic.module.head
    numbers = layer.weight[:, 1] + layer.bias
    units = torch.relu(numbers + twins.inward.weight[:, 0] * 0.25).view(2, hidden)
    by_hand = (units * twins.outward.weight).sum(-1) + twins.outward.bias
    values = twins(numbers.view(1, 1, -1), torch.tensor([[[0.25]]]))
    assert torch.allclose(values[:, 0, 0], by_hand, atol=1e-6)


@pytest.mark.parametrize("mean, log_std, coef", [(0.3, -0.5, 0.2), (-1.0, 0.2, 0.0), (0.8, -1, 1)])
def test_the_policys_gradient_is_that_of_an_enumerated_problem(mean, log_std, coef):
    """One step, the value of each action known: the integral over all draws, differentiated."""
    agent = agent_of(entropy_coef=coef)
    agent.critic.module.head = Known(best=0.5, lead=1.0)
    with torch.no_grad():
        agent.policy.module.layer.weight.zero_()
        agent.policy.module.layer.bias[:] = torch.tensor([mean, log_std])
    batch = batch_of(agent, turn(0, 1.0, 0.0, terminated=True), size=1)._replace(weight=None)
    wide = batch._replace(
        **{
            name: getattr(batch, name).expand(2, len(GRID), *getattr(batch, name).shape[2:])
            for name in ("obs", "start", "action", "reward", "discount", "final", "valid")
        },
        noise=GRID.float()[None, :, None].expand(2, -1, 1),
        weight=(NORMAL * float(GRID[1] - GRID[0]) * len(GRID)).float(),
    )
    loss = agent.loss(wide)
    (loss.total / loss.count).backward()
    found = agent.policy.module.layer.bias.grad

    numbers = torch.tensor([mean, log_std], dtype=torch.float64, requires_grad=True)
    u = numbers[0] + numbers[1].exp() * GRID
    action = torch.tanh(u)
    density = -0.5 * GRID.square() - numbers[1] - torch.log(1 - action.square() + 1e-300)
    gain = -3.0 * (action - 0.5).square() - coef * density
    (-torch.trapezoid(gain * NORMAL, GRID)).backward()
    assert found.tolist() == pytest.approx(numbers.grad.tolist(), abs=2e-3)


def test_the_weight_of_entropy_rises_where_there_is_less_than_its_target():
    agent = agent_of(optim=Optim(0.01, math.inf), target_entropy=-0.5)
    batch = batch_of(agent, turn(1, 1.0, 2.0, terminated=True), size=64)
    for log_std, sign in ((-3.0, 1), (0.0, -1)):
        with torch.no_grad():
            agent.policy.module.layer.bias[1] = log_std
            agent.head.log_coef.zero_()
        metrics = agent.update(batch)()
        assert math.copysign(1, agent.head.log_coef.item()) == sign
        assert metrics["train/entropy_coef"] == pytest.approx(1.0)
        assert (float(metrics["train/entropy"]) < -0.5) == (sign > 0)
    assert agent_of(actions=spaces.Box(-1, 1, (2, 3))).target_entropy == -6


def test_rows_weigh_as_much_as_their_importance():
    agent = agent_of(entropy_coef=0.1)
    batch = batch_of(agent, turn(1, 1.0, 2.0, terminated=True), size=2)
    totals = []
    for weight in ([1.0, 1.0], [0.5, 0.5]):
        totals.append(agent.loss(batch._replace(weight=torch.tensor(weight))).total.item())
    assert totals[1] == pytest.approx(totals[0] / 2)


def test_every_batch_is_learned_from_with_other_noise():
    agent = agent_of(updates=Updates(4, 1, 3), replay=ReplaySettings(200, 0))
    agent.store.add(turn(1, 1.0, 2.0, terminated=True))
    agent.steps = agent.turn_steps = 1
    seen = []
    for batch in agent.batches():
        seen.append(batch.noise)
        agent.update(batch)
    assert [x.shape for x in seen] == [(2, 4, 1)] * 3
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


# what it plays


class Reach(gym.Env):
    """Reward is minus the square of the distance between the action and the goal shown."""

    observation_space = spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, actions=HALF):
        self.action_space = actions

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.goal, {}

    def step(self, action):
        wanted = 2.0 + float(self.goal[0])
        return self.goal, -float((action[0] - wanted) ** 2), True, False, {}


def test_it_learns_what_a_step_asks_for():
    envs = Serial([Reach(), Reach()])
    space = envs.single_observation_space
    agent = SAC(
        build("mlp", space, seed=0, hidden=(32,)),
        envs.single_action_space,
        space,
        optim=Optim(0.01, math.inf),
        updates=Updates(32, 2, 1),
        replay=ReplaySettings(2000, 100),
        seed=0,
        device="cpu",
    )
    train(agent, envs, 600, seed=0)
    obs = np.linspace(-1, 1, 9, dtype=np.float32)[:, None]
    done = agent.act(obs, np.ones(9, bool), explore=False).action
    assert done == pytest.approx(2.0 + obs, abs=0.3)
    assert agent.values(obs, np.ones(9, bool)) == pytest.approx(0.0, abs=0.5)
    assert agent.updates == 250


def test_noise_is_as_correlated_as_asked_and_begins_anew_with_an_episode():
    agent, n = agent_of(noise_correlation=0.9, network=OneHot()), 20_000
    obs, start = np.zeros(n, np.int64), np.ones(n, bool)
    first = agent.act(obs, start)
    second = agent.act(obs, start & False, first.state)
    anew = agent.act(obs, start, second.state)
    u = [np.arctanh(x.action[:, 0] / 2.0 - 1.0) for x in (first, second, anew)]
    assert np.corrcoef(u[0], u[1])[0, 1] == pytest.approx(0.9, abs=0.02)
    assert np.corrcoef(u[1], u[2])[0, 1] == pytest.approx(0.0, abs=0.03)
    assert [np.std(x) for x in u] == pytest.approx([np.std(u[0])] * 3, rel=0.03)
    assert not agent.act(obs, start, second.state, explore=False).state.any()
    assert agent_of(network=OneHot()).act(obs, start).state is None


@pytest.mark.parametrize(
    "options",
    [{}, {"noise_correlation": 0.8}, {"entropy_coef": "linear:0.3:0.1"}, {"n_step": 3}],
    ids=str,
)
def test_a_run_may_stop_anywhere_with_priorities_and_statistics(options):
    def loop():
        envs = Serial([Reach(), Reach(), Reach()])
        space = envs.single_observation_space
        replay = ReplaySettings(90, 10, priority=0.6)
        numbers = {"replay": replay, "updates": Updates(8, 2, 1), "normalize_reward": True}
        network = build("mlp", space, seed=0, hidden=8, normalize=True)
        agent = SAC(network, envs.single_action_space, space, seed=1, **{**numbers, **options})
        agent.horizon = 100
        made = Interaction(agent, envs)
        made.reset(np.random.SeedSequence(2))
        return made

    whole = loop()
    whole.run(100)
    assert whole.agent.updates == 45
    for stop in (31, 50):
        first, second = loop(), loop()
        first.run(stop)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        second.run(100 - stop)
        assert checkpoint.digest(second.state_dict()) == checkpoint.digest(whole.state_dict())
    frozen, trained = (x.module.network for x in (whole.agent.target_part, whole.agent.critic))
    for mine, theirs in zip(frozen.buffers(), trained.buffers(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"actions": spaces.Discrete(2)}, r"Discrete\(2\): sac takes a Box of real numbers; for"),
        ({"actions": spaces.Box(0, 5, (2,), np.int64)}, "sac takes a Box of real numbers"),
        ({"entropy_coef": -1.0}, "entropy_coef -1: expected a number of at least 0"),
        ({"entropy_coef": "self"}, "entropy_coef 'self': expected a number or a schedule"),
        ({"entropy_coef": 0.1, "target_entropy": -1.0}, "target_entropy: no effect on a given"),
        ({"target_entropy": math.inf}, "target_entropy inf: expected a number of nats"),
        ({"target_entropy": 0.7}, "target_entropy 0.7: expected at most 0.693 nats"),
        (
            {"actions": spaces.Box(0.0, 1.0, (0,))},
            "action space .* has nothing in it: expected at least",
        ),
        ({"noise_correlation": 1.0}, r"noise_correlation 1.0: expected a number in \[0, 1\)"),
        ({"target_rate": 0.0}, r"target_rate 0.0: expected a number in \(0, 1\]"),
        ({"n_step": 0}, "n_step 0"),
        ({"value_hidden": 0}, "value_hidden 0: expected"),
    ],
)
def test_what_has_no_effect_or_no_meaning_is_refused_in_a_line(options, told):
    with pytest.raises(UsageError, match=told) as no:
        agent_of(**options)
    assert "\n" not in str(no.value)


def test_a_target_entropy_has_no_limit_without_bounds():
    free = spaces.Box(np.float32([0, -np.inf]), np.float32([1, np.inf]))
    assert agent_of(actions=free, target_entropy=2.0).target_entropy == 2.0


def test_values_beyond_the_memory_are_refused_in_a_line():
    with pytest.raises(UsageError, match=r"value_hidden 10,000,000,000 takes .*smaller --value-h"):
        agent_of(value_hidden=10**10)


def test_a_network_with_memory_is_refused_in_a_line():
    space = spaces.Box(-1.0, 1.0, (2,))
    with pytest.raises(UsageError, match="network LSTM: has memory, and sac learns from single"):
        SAC(build("lstm", space, seed=0), HALF, space)
