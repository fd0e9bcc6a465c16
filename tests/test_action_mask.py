"""Action masks: no agent takes, draws or counts on an action that may not be taken."""

import copy
import sys
from functools import partial

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from seqrl import networks
from seqrl.agents import (
    PPO,
    Boltzmann,
    DeepMonteCarlo,
    DeepQ,
    DeepSarsa,
    EpsilonGreedy,
    Imitation,
    MonteCarlo,
    QLearning,
    Reinforce,
    Sarsa,
    Updates,
)
from seqrl.agents.deep import targets
from seqrl.agents.deep.outputs import masked
from seqrl.agents.tabular.indexing import TableIndex
from seqrl.core import Batch, RunError, Transition, UsageError, action_mask
from seqrl.core.arrays import on_device
from seqrl.envs import ActionMask, Serial, make, wrapping
from seqrl.envs.env_check import play
from seqrl.envs.state import why_unkept
from seqrl.training import Interaction, evaluate, train
from seqrl.training.pictures.as_text import draw_policy, show_table
from seqrl.training.runs.checkpoint import digest

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # for worker processes
LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]
BOARD = spaces.MultiDiscrete([3] * 9)


class TicTacToe(gym.Env):
    """Against a player who moves at random; a move to a field that is taken raises."""

    def __init__(self, key="action_mask", told="observation", start=0):
        self.key, self.told = key, told
        self.action_space = spaces.Discrete(9, start=start)
        self.observation_space = BOARD
        if told == "observation":
            self.observation_space = spaces.Dict({"board": BOARD, key: spaces.MultiBinary(9)})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.board = np.zeros(9, int)
        if self.np_random.random() < 0.5:
            self.board[self.np_random.integers(9)] = 2
        return self.look()

    def step(self, action):
        field = int(action) - int(self.action_space.start)
        if self.board[field]:
            raise ValueError(f"field {field} is taken")
        self.board[field] = 1
        if not self.over(1):
            free = np.flatnonzero(self.board == 0)
            self.board[free[self.np_random.integers(len(free))]] = 2
        won, lost = self.won(1), self.won(2)
        return self.look()[0], float(won) - lost, self.over(1) or lost, False, self.look()[1]

    def won(self, player):
        return any(all(self.board[i] == player for i in line) for line in LINES)

    def over(self, player):
        return self.won(player) or bool(self.board.all())

    def look(self):
        mask = (self.board == 0).astype(np.int8) * (not self.over(1))  # of an end: zeros alone
        board = self.board.copy()
        if self.told == "info":
            return board, {"action_mask": mask}
        return {"board": board, self.key: mask}, {}


def register():
    if "Masked-v0" not in gym.registry:
        gym.register("Masked-v0", TicTacToe)


class Lowest:
    """A teacher that takes the lowest free field."""

    def answers(self, obs, start, state=None):
        return obs["action_mask"].argmax(-1), np.ones(len(start), bool), None


register()
SPACE = TicTacToe().observation_space
MEMORY = {"lstm": {"hidden_size": 8}}
AGENTS = {
    "q-learning": (QLearning, {}),
    "double": (QLearning, {"double": True, "exploration": EpsilonGreedy(0.9)}),
    "traces": (QLearning, {"trace_decay": 0.5}),
    "softmax": (QLearning, {"exploration": Boltzmann(2.0)}),
    "sarsa": (Sarsa, {"n_step": 2}),
    "expected": (Sarsa, {"expected": True}),
    "monte-carlo": (MonteCarlo, {}),
    "off-policy": (MonteCarlo, {"off_policy": True, "exploration": EpsilonGreedy(0.8)}),
    "deep q": (DeepQ, {"updates": Updates(16, 8, 1)}),
    "deep q, torch": (DeepQ, {"backend": "torch", "dueling": True, "updates": Updates(16, 8, 1)}),
    "deep q, softmax": (DeepQ, {"exploration": Boltzmann(1.0), "rescale": True}),
    "deep sarsa": (DeepSarsa, {}),
    "deep expected": (DeepSarsa, {"expected": True, "backend": "torch"}),
    "deep monte-carlo": (DeepMonteCarlo, {}),
    "reinforce": (Reinforce, {}),
    "ppo": (PPO, {"rollout": 16}),
    "ppo, torch": (PPO, {"rollout": 16, "backend": "torch"}),
    "ppo, share": (PPO, {"rollout": 16, "share": True}),
    "a2c": (PPO, {"rollout": 8, "epochs": 1, "minibatches": 1, "clip": np.inf}),
    "imitate": (Imitation, {"teacher": Lowest(), "own_share": 0.5, "label_smoothing": 0.1}),
}
WITH_MEMORY = [
    "imitate",
    "deep q",
    "deep sarsa",
    "deep monte-carlo",
    "reinforce",
    "ppo",
    "ppo, share",
]


def agent_of(name, envs, network="mlp"):
    cls, options = AGENTS[name]
    given = envs.single_observation_space, envs.single_action_space
    if cls.__module__.startswith("seqrl.agents.tabular"):
        return cls(*given, seed=1, **options)
    net = networks.build(network, given[0], seed=1, **MEMORY.get(network, {}))
    return cls(net, given[1], given[0], seed=1, **options)


@pytest.mark.parametrize(
    "name, start", [*((name, 0) for name in AGENTS), ("off-policy", 3), ("deep q", 3), ("ppo", 3)]
)
def test_no_agent_makes_an_illegal_move(name, start):
    """It would raise: while training, with filler turns, and greedily."""
    n = 3
    if start:
        one = partial(TicTacToe, start=start)
        envs = SyncVectorEnv([one] * n, autoreset_mode=AutoresetMode.NEXT_STEP)
    else:
        envs = Serial([TicTacToe() for _ in range(n)])
    space = TicTacToe(start=start).action_space
    own = Serial([TicTacToe(start=start) for _ in range(n)])
    agent = agent_of(name, own)
    train(agent, envs, steps=400, seed=2)
    found = evaluate(agent, own, episodes=10, seed=3)
    assert len(found.returns) == 10 and agent.steps == 400 and space.start == start


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_nor_does_one_with_memory(name):
    envs = Serial([TicTacToe() for _ in range(3)])
    agent = agent_of(name, envs, "lstm")
    train(agent, envs, steps=300, seed=2)
    assert len(evaluate(agent, envs, episodes=10, seed=3).returns) == 10


def test_tables_learn_the_game():
    envs = Serial([TicTacToe()])
    agent = QLearning(SPACE, envs.single_action_space, seed=1, learning_rate=0.2)
    train(agent, envs, steps=12_000, seed=1)
    assert evaluate(agent, envs, episodes=300, seed=2).mean > 0.55


def test_policies_learn_the_game():
    envs = Serial([TicTacToe() for _ in range(8)])
    agent = agent_of("ppo", envs)
    train(agent, envs, steps=8_000, seed=1)
    assert evaluate(agent, envs, episodes=300, seed=2).mean > 0.5


@pytest.mark.parametrize("name", ["q-learning", "off-policy", "deep q", "ppo", "imitate"])
def test_a_run_that_stops_goes_on_to_the_same_bits(name):
    def loop():
        envs = make("Masked-v0", 2, wrappers=[ActionMask], told="info")
        agent = agent_of(name, envs)
        agent.horizon = 400
        made = Interaction(agent, envs)
        made.reset(np.random.SeedSequence(4))
        return made

    whole, first = loop(), loop()
    whole.run(400)
    first.run(211)
    second = loop()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.run(189)
    assert digest(second.state_dict()) == digest(whole.state_dict())


# ---- numbers by hand


def two_actions(mask, reward=0.0, terminated=False, action=1):
    """A step from state 0 to state 1 in which `mask` says what may be done there."""
    flags = np.array([terminated]), np.array([False])
    one = {"s": np.array([0]), "action_mask": np.array([[1, 1, 1]])}
    two = {"s": np.array([1]), "action_mask": np.array([mask])}
    start = np.array([True])
    played = np.array([action]), np.array([np.log(0.5)]), np.array([reward])
    return Transition(one, start, None, None, *played, *flags, two, np.array([True]))


PAIR = spaces.Dict({"s": spaces.Discrete(2), "action_mask": spaces.MultiBinary(3)})
THREE = spaces.Discrete(3)
VALUES = [[0.0, 0.0, 0.0], [5.0, 2.0, 1.0]]


@pytest.mark.parametrize(
    "cls, options, worth",
    [
        (QLearning, {}, 2.0),
        (QLearning, {"n_step": 1, "trace_decay": 0.5}, 2.0),
        # .4 (2 + 1) / 2 + .6 2, with two of three that may be taken
        (Sarsa, {"expected": True, "exploration": EpsilonGreedy(0.4)}, 1.8),
        # (2 e^2 + 1 e^1) / (e^2 + e^1)
        (Sarsa, {"expected": True, "exploration": Boltzmann(1.0)}, 1.7310585786300048),
    ],
)
def test_tables_bootstrap_from_what_may_be_taken(cls, options, worth):
    agent = cls(PAIR, THREE, learning_rate=1.0, gamma=1.0, seed=0, **options)
    agent.q[:] = VALUES
    agent.learn(two_actions([0, 1, 1]))
    assert agent.q[0].tolist() == [0, pytest.approx(worth, abs=1e-12), 0]


def test_double_learning_picks_what_may_be_taken():
    agent = QLearning(PAIR, THREE, learning_rate=1.0, gamma=1.0, double=True, seed=0)
    agent.q[:] = agent.arrays.twins[:] = VALUES
    agent.learn(two_actions([0, 1, 1]))
    assert sorted(agent.arrays.twins[:, 0, 1]) == [0, 2]


def test_a_return_that_is_cut_off_goes_on_with_what_may_be_taken():
    for options, worth in (({}, 1.8), ({"off_policy": True}, 2.0)):
        agent = MonteCarlo(PAIR, THREE, seed=0, exploration=EpsilonGreedy(0.4), **options)
        agent.q[:] = VALUES
        agent.learn(two_actions([0, 1, 1])._replace(truncated=np.array([True])))
        assert agent.q[0, 1] == pytest.approx(worth, abs=1e-12)


@pytest.mark.parametrize("forbidden, weight", [(True, 1 / 0.25), (False, None)])
def test_off_policy_an_action_is_greedy_among_those_that_could_be_taken(forbidden, weight):
    """Action 0 is worth more than 1 in state 1: greedy is 1 where 0 was forbidden."""
    agent = MonteCarlo(PAIR, THREE, seed=0, off_policy=True)
    agent.q[:] = VALUES
    first = two_actions([1, 1, 1])
    after = {"s": np.array([1]), "action_mask": np.array([[not forbidden, 1, 1]])}
    second = first._replace(
        obs=after,
        start=np.array([False]),
        log_prob=np.log([0.25]),
        reward=np.array([2.0]),
        terminated=np.array([True]),
        next_obs=after,
    )
    agent.learn(first)
    agent.learn(second)
    assert agent.arrays.weight[1, 1] == 1
    assert agent.arrays.weight[0, 1] == (weight or 0)  # not reached where it was not greedy


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_values_of_what_is_forbidden_count_nowhere(kind):
    q = kind(np.array([[5.0, 2.0, 1.0], [5.0, 2.0, 1.0]], np.float32))
    legal = kind(np.array([[False, True, True], [True, True, True]]))
    seen = masked(q, legal, [3])
    assert targets.highest(seen).tolist() == [2, 5]
    assert targets.double(seen, masked(q * 3, legal, [3])).tolist() == [2, 5]
    expected = targets.expected_greedy(seen, 0.4)
    assert expected.tolist() == pytest.approx([0.4 * 1.5 + 0.6 * 2, 0.4 * 8 / 3 + 0.6 * 5])
    soft = targets.expected_softmax(seen, seen, 1.0)
    weights = np.exp([5.0, 2.0, 1.0])
    whole = float((weights * [5, 2, 1]).sum() / weights.sum())
    assert soft.tolist() == pytest.approx([1.7310586, whole], abs=1e-6)
    hot = targets.expected_softmax(seen, seen, 1e20)
    assert hot.tolist() == pytest.approx([1.5, 8 / 3], abs=1e-6)
    low = kind(np.array([[-1e9, -2e9]], np.float32))  # values that are low are not forbidden
    assert targets.expected_greedy(low, 1.0).tolist() == pytest.approx([-1.5e9])


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("double", [True, False])
def test_values_on_a_network_bootstrap_from_what_may_be_taken(backend, double):
    """The target is 1 + .5 times the largest of the legal numbers, which the network gives."""
    space = spaces.Dict({"x": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(3)})
    options = {"n_step": 1, "gamma": 0.5, "double": double, "backend": backend, "seed": 0}
    agent = DeepQ(networks.build("mlp", space, seed=0), THREE, space, **options)
    whole = np.ones((2, 1), np.float32)
    mask = np.ones((2, 1, 3), np.float32)
    obs = {"x": np.ones((2, 1, 2), np.float32), "action_mask": mask}
    no = whole == 0
    batch = Batch(obs, no, no * 0, None, whole, whole / 2, no, ~no)
    if not agent.values_part.learns_in_numpy:
        batch = on_device(batch, "cpu")
    q = agent.values_part.evaluate(batch.obs, batch.start)[0, 0].tolist()
    best = int(np.argmax(q))
    batch.obs["action_mask"][1, 0, best] = 0
    legal = max(q[a] for a in range(3) if a != best)
    error = agent.loss(batch).error
    assert float(error[0, 0]) + q[0] == pytest.approx(1 + 0.5 * legal, abs=1e-6)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_policy_is_one_over_what_may_be_taken(backend):
    """Probabilities sum to 1 over the legal actions; the learning pass gives the very same."""
    space = spaces.Dict({"x": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(3)})
    net = networks.build("mlp", space, seed=0)
    agent = PPO(net, THREE, space, backend=backend, seed=0)
    n = 400
    mask = np.array([[0, 1, 1]] * n)
    obs = {"x": np.ones((n, 2), np.float32), "action_mask": mask}
    decision = agent.act(obs, np.zeros(n, bool))
    assert set(decision.action.tolist()) == {1, 2}
    chance = {int(a): np.exp(p) for a, p in zip(decision.action, decision.log_prob, strict=True)}
    assert sum(chance.values()) == pytest.approx(1, abs=1e-6)
    rolled = {k: torch.as_tensor(v)[None] for k, v in obs.items()}
    out = agent.policy.learn(rolled, torch.zeros(1, n, dtype=torch.bool))
    again = agent.head.log_prob(out, torch.as_tensor(decision.action)[None])
    assert np.allclose(again.detach().numpy()[0], decision.log_prob, atol=1e-6)
    entropy = agent.head.entropy(out)[0, 0].item()
    assert entropy == pytest.approx(-sum(p * np.log(p) for p in chance.values()), abs=1e-6)
    agent.head.entropy(out).sum().backward()  # nothing that is not finite


def test_a_mask_of_choices_for_several_actions_at_once():
    actions = spaces.MultiDiscrete([2, 3])
    space = spaces.Dict({"x": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(5)})
    agent = PPO(networks.build("mlp", space, seed=0), actions, space, seed=0)
    n = 100
    obs = {"x": np.ones((n, 2), np.float32), "action_mask": np.array([[0, 1, 1, 0, 1]] * n)}
    found = agent.act(obs, np.zeros(n, bool)).action
    assert set(found[:, 0]) == {1} and set(found[:, 1]) == {0, 2}
    one = {"x": obs["x"][0], "action_mask": obs["action_mask"][0]}
    assert {tuple(action_mask.sample(actions, one)) for _ in range(50)} == {(1, 0), (1, 2)}


def test_a_choice_that_may_be_taken_in_no_way_is_free():
    """Of [2, 3] nothing is allowed of the second: its probabilities are those without a mask."""
    out = torch.tensor([[0.5, -0.5, 1.0, 2.0, 3.0]])
    seen = masked(out, torch.tensor([[True, False, False, False, False]]), [2, 3])
    assert seen[0].tolist() == pytest.approx([0.5, action_mask.FORBIDDEN, 1, 2, 3])


@pytest.mark.parametrize("mask", [[[0, 1]], [[0, 1, 1, 1]]])
@pytest.mark.parametrize("cls", [PPO, DeepQ, Reinforce])
def test_without_a_space_a_mask_is_checked_at_the_first_observation(cls, mask):
    agent = cls(networks.build("mlp", spaces.Box(-1, 1, (2,)), seed=0), THREE, seed=0)
    obs = {"x": np.ones((1, 2), np.float32), "action_mask": np.array(mask)}
    with pytest.raises(UsageError, match=r"action_mask of shape .*: expected \(3,\)"):
        agent.act(obs, np.ones(1, bool))


def test_explored_values_on_a_device_are_of_what_may_be_taken():
    """The form for tensors on a device: uniform over the legal actions."""
    space = spaces.Dict({"x": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(4)})
    net = networks.build("mlp", space, seed=0)
    agent = DeepQ(net, spaces.Discrete(4), space, exploration=EpsilonGreedy(1.0), seed=0)
    n = 6_000
    mask = torch.tensor([[0, 1, 0, 1], [1, 1, 1, 0]]).repeat(n // 2, 1)
    obs = {"x": torch.ones(n, 2), "action_mask": mask}
    action = agent.act(obs, torch.zeros(n, dtype=torch.bool)).action
    assert mask.gather(1, action[:, None]).all()
    counts = [np.bincount(action[i::2], minlength=4) / (n / 2) for i in (0, 1)]
    assert np.allclose(counts[0], [0, 0.5, 0, 0.5], atol=0.04)
    assert np.allclose(counts[1], [1 / 3, 1 / 3, 1 / 3, 0], atol=0.04)


def test_a_mask_of_zeros_forbids_nothing():
    seen, legal = action_mask.split({"s": np.array([3, 4]), "action_mask": np.zeros((2, 3))})
    assert seen.tolist() == [3, 4] and legal.all()
    plain = np.array([3, 4])
    assert action_mask.split(plain) == (plain, None)


def test_tiles_are_of_the_rest_of_the_observation():
    box = spaces.Box(0, 1, (2,), np.float32)
    space = spaces.Dict({"x": box, "y": box, "action_mask": spaces.MultiBinary(3)})
    rest = spaces.Dict({"x": box, "y": box})
    half = np.full((1, 2), 0.5, np.float32)
    obs = {"x": half, "y": half / 2, "action_mask": np.array([[1, 0, 1]])}
    own, other = (TableIndex(s, bins=4, tiles=4) for s in (space, rest))
    assert own.total == other.total and own(obs) == other({"x": half, "y": half / 2})


# ---- where it comes from


def test_a_mask_in_info_is_taken_only_where_it_is_asked_for():
    env = gym.make("Taxi-v4")
    assert "action_mask" in env.reset()[1]
    envs = make("Taxi-v4")
    assert envs.single_observation_space == spaces.Discrete(500)
    folded = make("Taxi-v4", wrappers=[ActionMask])
    assert folded.single_observation_space["observation"] == spaces.Discrete(500)
    assert "action_mask" in folded.reset(np.random.SeedSequence(0))
    agent = QLearning(folded.single_observation_space, folded.single_action_space, seed=0)
    assert agent.index.total == 500
    train(agent, folded, steps=200, seed=0)


def test_a_mask_of_another_name_is_shown_by_its_own():
    env = ActionMask(TicTacToe(key="legal"), "legal")
    obs, _ = env.reset(seed=0)
    assert set(obs) == set(env.observation_space.spaces) == {"board", "action_mask"}
    assert env.observation_space.contains(obs)


def test_the_state_of_a_masked_environment_is_kept_and_the_doctor_plays_by_the_rules():
    envs = make("Masked-v0", 2, wrappers=[ActionMask], told="info")
    assert why_unkept(envs) == ""
    assert not play(ActionMask(TicTacToe(told="info")), seed=0, steps=200).error
    assert play(TicTacToe(told="info"), seed=0, steps=200).error  # without: an illegal move


@pytest.mark.parametrize(
    "make_it, message",
    [
        (lambda: ActionMask(TicTacToe(), "legal"), "action mask 'legal': the observations have"),
        (lambda: ActionMask(gym.make("Pendulum-v1")), "of Discrete and MultiDiscrete actions"),
        (
            lambda: QLearning(SPACE, spaces.Discrete(4)),
            r"action_mask of shape \(9,\): expected \(4,\)",
        ),
        (
            lambda: PPO(networks.build("mlp", SPACE), spaces.Box(-1, 1, (9,)), SPACE),
            "of Discrete and MultiDiscrete actions",
        ),
        (
            lambda: networks.build("mlp", spaces.Dict({"action_mask": spaces.MultiBinary(2)})),
            "nothing to see beside",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(make_it, message):
    with pytest.raises(UsageError, match=message) as caught:
        make_it()
    assert "\n" not in str(caught.value)


class Told(gym.Env):
    """Tells in info what it is given for a mask."""

    observation_space, action_space = spaces.Discrete(2), spaces.Discrete(3)

    def __init__(self, mask):
        self.mask = mask

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {"action_mask": self.mask}


@pytest.mark.parametrize("mask", [[1, 0.9, 0], [256, 1, 0], [np.nan, 1, 0], [1, 0], None, "abc", 2])
def test_an_info_with_something_else_is_refused_in_a_line(mask):
    envs = Serial([ActionMask(Told(mask))])
    with pytest.raises(RunError, match="action_mask") as caught:
        envs.reset(np.random.SeedSequence(0))
    assert "\n" not in str(caught.value)
    Serial([ActionMask(Told([True, False, 1.0]))]).reset(np.random.SeedSequence(0))


class Drawing(Told):
    """Draws from its own action space, whose state is not kept."""

    def step(self, action):
        return int(self.action_space.sample() > 1), 0.0, False, False, {}


def test_an_environment_that_draws_from_its_action_space_is_found_out():
    env = Drawing(None)
    env.action_space = spaces.Discrete(3)
    assert "differ" in why_unkept(Serial([env]))


def test_a_config_is_given_the_mask_once():
    given = wrapping.with_action_mask([], "info")
    assert wrapping.with_action_mask(given, "legal") == wrapping.with_action_mask([], "legal")
    assert wrapping.with_action_mask(given, None) == given


def test_a_masked_table_is_shown_without_a_policy():
    envs = make("CliffWalking-v1", wrappers=[Walled])
    agent = QLearning(envs.single_observation_space, envs.single_action_space, seed=0)
    train(agent, envs, steps=2_000, seed=0)
    shown = show_table(agent, envs)
    assert "  ?  " in shown and "policy" not in shown and draw_policy(agent, envs) is None


class Walled(ActionMask):
    """Forbids the first action everywhere."""

    def shown(self, obs, info):
        return super().shown(obs, {"action_mask": np.array([0, 1, 1, 1])})


def test_an_info_without_a_mask_is_named():
    envs = make("FrozenLake-v1", wrappers=[partial(ActionMask, source="info")])
    with pytest.raises(Exception, match=r"info has no 'action_mask', only prob"):
        envs.reset(np.random.SeedSequence(0))
