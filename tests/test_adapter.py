"""The adapter: any environment in any layout, and every way in which one can misbehave."""

import math
import re
import warnings
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from seqrl.agents import QLearning, TableIndex
from seqrl.core import Decision, RunError, UsageError, tree
from seqrl.core.seeding import Streams
from seqrl.envs import Serial, Vector, adapt, make
from seqrl.training import Interaction

SCRIPT = [(3, True, False), (2, False, True), (1, True, True)]
HIGHEST = np.finfo(np.float32).max
SEED = np.random.SeedSequence(9)
several = pytest.mark.parametrize(
    "layout", ["serial", "workers", "sync NextStep", "sync SameStep", "sync Disabled"]
)


def q_learning(envs, bins=None):
    envs = adapt(envs)
    index = TableIndex(envs.single_observation_space, bins)
    return QLearning(index, envs.single_action_space, seed=0)


def play(envs, turns, actions=lambda t, n: np.full(n, t % 3)):
    """The outcomes of some turns of fixed actions, with the first observation before them."""
    envs = adapt(envs)
    first = envs.reset(SEED)
    return first, [envs.step(actions(t, envs.num_envs)) for t in range(turns)]


def valid_rows(envs, turns, **options):
    """For each environment what followed its real steps."""
    _, outcomes = play(envs, turns, **options)
    rows = [[] for _ in outcomes[0].valid]
    for outcome in outcomes:
        for i in np.flatnonzero(outcome.valid):
            what = outcome.next_obs, outcome.reward, outcome.terminated, outcome.truncated
            rows[i].append([leaf.tolist() for leaf in tree.leaves(tree.take(what, i))])
    return rows


# ---- what is accepted


@pytest.mark.parametrize("view", ["box", "nested", "shifted"])
def test_rows_are_of_the_space_and_belong_to_the_outcome(counting, arrange, layout, view):
    envs = arrange(layout, [partial(counting, SCRIPT, view=view)] * 2)
    first, outcomes = play(envs, 9)
    space = adapt(envs).single_observation_space
    seen = [first, *(o.obs for o in outcomes), *(o.next_obs for o in outcomes)]
    before = [[leaf.copy() for leaf in tree.leaves(obs)] for obs in seen]
    for obs in seen:
        for i in range(adapt(envs).num_envs):
            assert space.contains(tree.take(obs, i))
    adapt(envs).reset()
    for obs, copies in zip(seen, before, strict=True):
        assert all(map(np.array_equal, tree.leaves(obs), copies))


@pytest.mark.parametrize("flag", [int, np.bool_, np.array])
def test_flags_of_any_kind(counting, arrange, layout, flag):
    makers = [partial(counting, SCRIPT, flag=kind) for kind in (flag, bool)]
    assert valid_rows(arrange(layout, makers[:1]), 9) == valid_rows(arrange(layout, makers[1:]), 9)
    loop = Interaction(q_learning(makers[0]()), arrange(layout, makers[:1]))
    loop.run(6)
    assert loop.books.episodes == 3
    _, outcomes = play(loop.envs, 9)
    assert all(o.terminated.dtype == o.truncated.dtype == bool for o in outcomes)


@pytest.mark.parametrize(
    "layout", ["single", "serial", "workers", "sync NextStep", "sync Disabled"]
)
def test_a_buffer_that_is_filled_again_does_no_harm(counting, arrange, layout):
    fresh, reused = (partial(counting, SCRIPT, view="box", reuse=reuse) for reuse in (False, True))
    assert valid_rows(arrange(layout, [reused]), 12) == valid_rows(arrange(layout, [fresh]), 12)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_vector_that_fills_its_buffers_again_does_no_harm(counting, mode):
    makers = [partial(counting, SCRIPT, row, view="nested") for row in range(2)]
    fresh, reused = (
        SyncVectorEnv(makers, copy=copy, autoreset_mode=mode) for copy in (True, False)
    )
    assert valid_rows(reused, 12) == valid_rows(fresh, 12)


class OnDevice(gym.vector.VectorWrapper):
    """Shows observations in tensors, in the same ones again and again where `reuse`."""

    def __init__(self, envs, reuse):
        super().__init__(envs)
        self.reuse, self.buffer = reuse, None

    def shown(self, obs):
        tensor = torch.from_numpy(obs.copy())
        if self.buffer is None or not self.reuse:
            self.buffer = tensor
        return self.buffer.copy_(tensor)

    def reset(self, *, seed=None, options=None):
        options = tree.map(np.asarray, options)
        obs, info = self.env.reset(seed=seed, options=options)
        return self.shown(obs), info

    def step(self, actions):
        obs, *outcome = self.env.step(actions.numpy())
        reward, terminated, truncated = map(torch.from_numpy, outcome[:3])
        return self.shown(obs), reward, terminated, truncated, outcome[3]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_tensors_that_are_filled_again_do_no_harm(counting, mode):
    makers = [partial(counting, SCRIPT, row, view="box") for row in range(2)]
    envs = [OnDevice(SyncVectorEnv(makers, autoreset_mode=mode), reuse) for reuse in (False, True)]
    played = []
    for each in envs:
        first, outcomes = play(each, 12, actions=lambda t, n: torch.full((n,), t % 3))
        played.append([leaf.tolist() for o in outcomes for leaf in (o.obs, o.next_obs)])
        assert not np.shares_memory(first.numpy(), outcomes[0].obs.numpy())
    assert played[0] == played[1]


def test_processes_that_we_make_lose_no_last_observation(counting):
    gym.register(
        "Reusing-v0",
        partial(counting, SCRIPT, view="box", reuse=True),
        disable_env_checker=True,
    )
    try:
        found = []
        for vectorization in ("serial", "async"):
            envs = make("Reusing-v0", 2, vectorization=vectorization)
            found.append(valid_rows(envs, 12))
            envs.close()
    finally:
        del gym.registry["Reusing-v0"]
    assert found[0] == found[1]


def test_spaces_that_start_elsewhere(counting, arrange, layout):
    """Shifted by 5 and -1, the same is learned."""
    plain = partial(counting, SCRIPT)
    moved = partial(counting, SCRIPT, view="shifted", first=-1)
    tables = []
    for maker in (plain, moved):
        agent = q_learning(maker())
        Interaction(agent, arrange(layout, [maker])).run(60)
        tables.append(agent.q)
    np.testing.assert_array_equal(*tables)
    assert np.ptp(tables[0]) > 1


class Wheel(gym.Env):
    """Shows the action it was given, whatever its space."""

    def __init__(self, action_space):
        self.action_space = action_space
        self.observation_space = gym.spaces.Box(-9, 9, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        return np.zeros(2), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return np.full(2, np.sum(action), np.float64), 0.0, False, False, {}


@several
@pytest.mark.parametrize(
    ("space", "actions", "seen"),
    [
        (gym.spaces.Discrete(3, start=4), np.array([4, 6]), [4, 6]),
        (gym.spaces.MultiDiscrete([3, 3]), np.array([[1, 2], [0, 1]]), [3, 1]),
        (gym.spaces.MultiBinary(2), np.array([[1, 1], [0, 1]], np.int8), [2, 1]),
        (gym.spaces.Box(-1, 1, (2,), np.float32), np.float32([[0.5, 7], [-7, -7]]), [1.5, -2]),
    ],
    ids=["discrete", "multi-discrete", "multi-binary", "box, clipped"],
)
def test_actions_arrive_in_every_layout(arrange, layout, space, actions, seen):
    envs = adapt(arrange(layout, [partial(Wheel, space)] * 2))
    envs.reset()
    np.testing.assert_array_equal(envs.step(actions).next_obs[:, 0], seen)


@pytest.mark.parametrize("seen", [np.float32(3), np.float32([HIGHEST, -HIGHEST])], ids=repr)
def test_observations_without_a_shape_and_at_the_end_of_what_is_finite(arrange, layout, seen):
    """Large numbers are not infinite: their sum and squares overflow, they do not."""

    class Far(Wheel):
        def __init__(self):
            self.action_space = gym.spaces.Discrete(3)
            self.observation_space = gym.spaces.Box(-np.inf, np.inf, seen.shape, np.float32)

        def step(self, action):
            return seen, 1e300, False, False, {}

        def reset(self, *, seed=None, options=None):
            return 0 * seen, {}

    first, outcomes = play(arrange(layout, [Far] * 2), 3)
    assert not first.any()
    assert outcomes[-1].next_obs[0].tolist() == seen.tolist()


def test_the_same_seed_gives_the_same_in_every_layout(arrange):
    makers = [partial(gym.make, "FrozenLake-v1")] * 3
    layouts = ["serial", "workers", "sync NextStep", "sync SameStep", "sync Disabled"]
    layouts += ["async NextStep", "async SameStep", "async Disabled"]
    found = [
        valid_rows(arrange(layout, makers), 40, actions=lambda t, n: np.full(n, 2))
        for layout in layouts
    ]
    fewest = [min(len(rows[i]) for rows in found) for i in range(3)]
    assert min(fewest) > 20
    for rows in found:
        assert [rows[i][:n] for i, n in enumerate(fewest)] == [
            found[0][i][:n] for i, n in enumerate(fewest)
        ]
    assert found[0][0] != found[0][1]  # each has a seed of its own


def test_runs_share_no_environment_seed():
    seeds = []
    for seed in range(10):
        envs = Serial([gym.make("FrozenLake-v1") for _ in range(8)])
        envs.reset(Streams.of(seed).envs)
        seeds += [env.unwrapped.np_random_seed for env in envs.envs]
        assert seeds[-8:] == envs.seeds
        evaluation = Streams.of(seed).evaluation
        envs.reset(evaluation)
        seeds += envs.seeds
    assert len(set(seeds)) == 160


def test_a_native_vector_takes_one_seed():
    envs = make("CartPole-v1", 4)
    first = envs.reset(SEED)
    assert len(set(envs.seeds)) == 1
    np.testing.assert_array_equal(envs.reset(SEED), first)
    assert not np.array_equal(envs.reset(), first)


@several
def test_rows_can_begin_anew_at_any_turn(counting, arrange, layout):
    """Also those that are over: where a filler was to come, none comes."""
    envs = adapt(arrange(layout, [partial(counting, [(2, True, False)])] * 3))
    envs.reset()
    actions = np.zeros(3, int)
    mask = np.array([True, False, True])
    envs.step(actions)
    outcome = envs.restart(mask, envs.step(actions))
    assert outcome.next_obs.tolist() == [2, 2, 2]
    assert (outcome.obs % 10)[mask].tolist() == [0, 0] and outcome.start[mask].all()
    assert outcome.truncated.tolist() == mask.tolist() and outcome.terminated.all()
    outcome = envs.step(actions)
    assert outcome.valid[mask].all()
    assert (outcome.next_obs % 10)[mask].tolist() == [1, 1]
    assert outcome.valid[1] == (layout != "sync NextStep")


# ---- what is refused


def broken(faulty, kind, row=1, **options):
    """Three makers of environments, of which one breaks at its fourth step."""
    break_ = {
        "reward nan": lambda env, o: (o[0], math.nan, *o[2:]),
        "reward inf": lambda env, o: (o[0], -math.inf, *o[2:]),
        "observation nan": lambda env, o: (np.float32([1, math.nan]), *o[1:]),
        "observation inf": lambda env, o: (np.float32([math.inf, -math.inf]), *o[1:]),
        "last observation nan": lambda env, o: (np.float32([1, math.nan]), 1.0, True, False, {}),
        "raises": lambda env, o: [][1],
        "old signature": lambda env, o: o[:4],
    }[kind]
    makers = [partial(faulty, SCRIPT, break_, at=1000, **options) for _ in range(3)]
    makers[row] = partial(faulty, SCRIPT, break_, **options)
    return makers


@several
@pytest.mark.parametrize("kind", ["reward nan", "reward inf"])
def test_a_reward_that_is_no_number_stops_the_run(faulty, arrange, layout, kind):
    envs = adapt(arrange(layout, broken(faulty, kind)))
    agent, message = stopped(envs)
    assert "reward " in message and kind.split()[1] in message
    assert f" 1 (seed {envs.seeds[1]})" in message
    assert np.isfinite(agent.q).all() and np.ptp(agent.q) > 0


def stopped(envs, agent=None):
    """The agent and the message of a run that stops under way."""
    loop = Interaction(agent or q_learning(envs), envs)
    loop.reset(SEED)
    with pytest.raises(RunError) as caught:
        loop.run(100)
    message = str(caught.value)
    assert message.startswith(f"at env step {loop.steps + 1}: ")
    assert "\n" not in message and len(message) < 300
    if agent is None:
        # the fourth step of row 1 (of no other): the third turn, or the fourth with its filler
        assert loop.agent.steps == loop.steps > 0
    return loop.agent, message


class Still:
    """An agent that learns nothing."""

    horizon = None

    def act(self, obs, start, state=None, *, explore=True):
        return Decision(np.zeros(len(start), int))

    def learn(self, step):
        return {}


@several
@pytest.mark.parametrize("kind", ["observation nan", "observation inf", "last observation nan"])
def test_an_observation_that_is_no_number_stops_the_run(faulty, arrange, layout, kind):
    envs = arrange(layout, broken(faulty, kind, view="box"))
    agent, message = stopped(envs, q_learning(envs, bins=4))
    assert "environment 1" in message or " 1 (seed " in message
    assert np.isfinite(agent.q).all() and np.ptp(agent.q) > 0
    assert "observation [" in message and "not finite" in message


@several
def test_a_first_observation_that_is_no_number(arrange, layout):
    class Bad(Wheel):
        episode = 0

        def reset(self, *, seed=None, options=None):
            self.episode += 1
            return np.array([0.0, math.nan if self.episode == 2 else 0.0]), {}

        def step(self, action):
            return np.zeros(2), 0.0, True, False, {}

    _, message = stopped(arrange(layout, [partial(Bad, gym.spaces.Discrete(2))] * 3), Still())
    assert "observation [0.0, nan]" in message


@pytest.mark.parametrize("answer", [0, (0, 1), ([0], {}, {})], ids=["bare", "pair", "three"])
@pytest.mark.parametrize("layout", ["serial", "workers"])
def test_a_reset_without_info_is_told_in_a_line(arrange, layout, answer):
    class Bare(Wheel):
        def reset(self, *, seed=None, options=None):
            return answer

    envs = arrange(layout, [partial(Bare, gym.spaces.Discrete(2))])
    expected = re.escape(f"reset returned {answer}, expected (obs, info)")
    with pytest.raises(RunError, match=rf"^environment 0 \(seed None\): {expected}"):
        envs.reset()


def test_an_environment_that_raises_is_named(faulty):
    envs = Serial([make() for make in broken(faulty, "raises")])
    agent, message = stopped(envs)
    assert f"environment 1 (seed {envs.seeds[1]})" in message
    assert "IndexError: list index out of range at action " in message
    assert message.split()[-1] in "012"
    assert np.isfinite(agent.q).all()


def test_a_registered_environment_is_named_by_its_id():
    envs = make("FrozenLake-v1", 2)
    with pytest.raises(RunError, match=r"environment FrozenLake-v1 1 \(seed None\): KeyError: 9"):
        envs.reset()
        envs.step(np.array([0, 9]))


@pytest.mark.parametrize("layout", ["sync NextStep", "sync SameStep", "sync Disabled"])
def test_a_vector_that_raises(faulty, arrange, layout):
    envs = adapt(arrange(layout, broken(faulty, "raises")))
    _, message = stopped(envs)
    named = f"environment SyncVectorEnv 1 (seed {envs.seeds[1]}): IndexError: list index out of"
    assert f"{named} range at action " in message


def test_a_process_that_raises(faulty, arrange):
    envs = adapt(arrange("async SameStep", broken(faulty, "raises")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium prints the traceback of the process
        _, message = stopped(envs)
    assert f"environment AsyncVectorEnv 1 (seed {envs.seeds[1]}): IndexError" in message
    assert "list index out of range at action " in message


def test_the_old_signature_is_refused(faulty, arrange, layout):
    _, message = stopped(arrange(layout, broken(faulty, "old signature", row=0)), Still())
    assert "expected 5, got 4" in message


@pytest.mark.parametrize("layout", ["single", "serial", "sync NextStep", "sync Disabled"])
def test_an_environment_that_raises_at_its_reset(arrange, layout):
    class Bad(Wheel):
        def reset(self, *, seed=None, options=None):
            raise OSError("no licence")

    envs = adapt(arrange(layout, [partial(Bad, gym.spaces.Discrete(2))] * 2))
    with pytest.raises(RunError, match="OSError: no licence at its reset"):
        envs.reset(SEED)


@several
def test_an_environment_that_raises_at_a_later_reset(arrange, layout):
    class Bad(Wheel):
        episode = 0

        def reset(self, *, seed=None, options=None):
            self.episode += 1
            if self.episode == 2:
                raise OSError("no licence")
            return np.zeros(2), {}

        def step(self, action):
            return np.zeros(2), 0.0, True, False, {}

    _, message = stopped(arrange(layout, [partial(Bad, gym.spaces.Discrete(2))] * 3), Still())
    assert "OSError: no licence" in message


@pytest.mark.parametrize(
    ("obs", "said"),
    [
        (np.zeros(3), "shape (3,)"),
        (np.float64(0), "shape ()"),
        (np.array([0.0, math.inf]), "inf"),
        ((np.zeros(2), 1), "Box"),
        (None, "None"),
        ("left", "left"),
    ],
    ids=["shape", "scalar", "infinite", "tuple", "none", "text"],
)
@pytest.mark.parametrize("at", ["reset", "step"])
def test_an_observation_of_another_space_is_refused(obs, said, at):
    class Bad(Wheel):
        def reset(self, *, seed=None, options=None):
            return (obs if at == "reset" else np.zeros(2)), {}

        def step(self, action):
            return obs, 0.0, False, False, {}

    envs = adapt(Bad(gym.spaces.Discrete(2)))
    with pytest.raises(RunError) as caught:
        envs.reset(SEED)
        envs.step(np.array([0]))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert "Box(-9.0, 9.0, (2,), float64)" in str(caught.value) or said == "inf"


PAIR = gym.spaces.Tuple((gym.spaces.Discrete(4), gym.spaces.Discrete(3, start=1)))
BOX = gym.spaces.Box(-1, 1, (2,), np.float32)


@pytest.mark.parametrize(
    ("space", "good", "bad", "said"),
    [
        (gym.spaces.Discrete(4), 1, 4, "observation 4"),
        (gym.spaces.Discrete(4), 1, -1, "observation -1"),
        (PAIR, (1, 1), (4, 1), "observation[0] 4 is not of Discrete(4)"),
        (PAIR, (1, 1), (0, 4), "observation[1] 4 is not of Discrete(3, start=1)"),
        (PAIR, (1, 1), (1, 0), "observation[1] 0 is not of Discrete(3, start=1)"),
        (gym.spaces.MultiDiscrete([3, 3]), np.ones(2, int), np.ones(3, int), "observation [1 1 1]"),
        (BOX, np.zeros(2, np.float32), np.zeros(3, np.float32), "observation [0. 0. 0.]"),
        (BOX, np.zeros(2, np.float32), np.float32(0), "observation 0.0"),
    ],
)
def test_a_later_observation_of_another_space_stops_the_run(space, good, bad, said):
    """None is taken for another state of the table."""

    class Later(Wheel):
        left = 6

        def __init__(self):
            self.observation_space, self.action_space = space, gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return good, {}

        def step(self, action):
            self.left -= 1
            return (good if self.left else bad), 1.0, False, False, {}

    agent, message = stopped(Later(), q_learning(Later(), bins=3))
    assert message.startswith("at env step 6: ")
    assert said in message and (space is PAIR or str(space) in message)
    assert (agent.q > 0).any(1).sum() == 1


@pytest.mark.parametrize(
    "reward", [None, "much", "1.5", b"1", [1.0, 2.0], np.ones(2), 1j, 10**400], ids=str
)
def test_a_reward_that_is_no_scalar_is_refused(reward):
    class Bad(Wheel):
        def step(self, action):
            return np.zeros(2), reward, False, False, {}

    envs = adapt(Bad(gym.spaces.Discrete(2)))
    envs.reset()
    with pytest.raises(RunError, match="at action 1"):
        envs.step(np.array([1]))


@pytest.mark.parametrize("flag", ["False", None, 2, 0.5, math.nan, [True, False], []], ids=repr)
@pytest.mark.parametrize("name", ["terminated", "truncated"])
def test_a_flag_that_is_neither_true_nor_false_is_refused(name, flag):
    class Bad(Wheel):
        def step(self, action):
            return np.zeros(2), 0.0, *((flag, False) if name == "terminated" else (False, flag)), {}

    envs = adapt(Bad(gym.spaces.Discrete(2)))
    envs.reset()
    with pytest.raises(RunError, match=rf"{name} .*: expected True or False at action 1"):
        envs.step(np.array([1]))


def test_several_rewards_are_told_what_to_do():
    """Environments of several objectives."""

    class Vectorial(Wheel):
        def step(self, action):
            return np.zeros(2), np.array([1.0, -2.0]), False, False, {}

    bare = Vectorial(gym.spaces.Discrete(2))
    with pytest.raises(
        RunError, match=r"reward \[ ?1. -2.\]: expected one number; of several make"
    ):
        play(bare, 1)
    _, (outcome,) = play(gym.wrappers.TransformReward(bare, sum), 1)
    assert outcome.reward == [-1.0]


ONE = [1, True, np.float32(1), np.array(1.0), np.int8(1), np.array([1]), [1.0], np.float64(1)]


@pytest.mark.parametrize("reward", ONE, ids=repr)
def test_rewards_of_any_kind_of_number(reward):
    class Odd(Wheel):
        def step(self, action):
            return np.zeros(2), reward, False, False, {}

    envs = adapt(Odd(gym.spaces.Discrete(2)))
    envs.reset()
    found = envs.step(np.array([1])).reward
    assert found.tolist() == [1.0] and found.dtype == np.float64


class Answers(gym.vector.VectorEnv):
    """Three rows that answer as told; `change` makes other arrays of rewards and flags."""

    def __init__(self, mode, **change):
        self.num_envs, self.change, self.metadata = 3, change, {"autoreset_mode": mode}
        self.single_observation_space = gym.spaces.Discrete(4)
        self.single_action_space = gym.spaces.Discrete(3)
        self.observation_space = gym.spaces.MultiDiscrete([4] * 3)
        self.action_space = gym.spaces.MultiDiscrete([3] * 3)

    def reset(self, *, seed=None, options=None):
        mask = (options or {}).get("reset_mask", np.full(3, True))
        self.t = np.where(mask, 0, getattr(self, "t", 0))
        return self.t.copy(), {}

    def step(self, actions):
        mode, over = self.metadata["autoreset_mode"], self.t == 3
        if mode is AutoresetMode.NEXT_STEP:
            self.t[over] = -1
        self.t += 1
        seen, info = self.t.copy(), {}
        answers = {"reward": self.t * 0.5, "terminated": self.t == 3, "truncated": self.t > 3}
        if mode is AutoresetMode.SAME_STEP and (self.t == 3).any():
            info, self.t[self.t == 3] = {"final_obs": seen.copy()}, 0
            seen = self.t.copy()
        answers = {name: self.change.get(name, np.array)(x) for name, x in answers.items()}
        return seen, *answers.values(), info


LIKE = {
    "lists": dict.fromkeys(("reward", "terminated", "truncated"), np.ndarray.tolist),
    "columns": dict.fromkeys(("reward", "terminated", "truncated"), lambda x: x[:, None]),
    "bytes": {"terminated": np.int8, "truncated": np.uint8},
    "reals": {"terminated": np.float32, "truncated": np.float64, "reward": np.float32},
    "tensors": {"terminated": torch.as_tensor, "truncated": torch.as_tensor},
}


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("kind", LIKE)
def test_a_vector_may_answer_in_other_arrays(mode, kind):
    plain, other = (valid_rows(Answers(mode, **change), 9) for change in ({}, LIKE[kind]))
    assert plain == other and sum(row[2] for row in plain[0]) >= 2


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_vector_that_fills_its_rewards_and_flags_again_does_no_harm(mode):
    def filled(name, kept={}):  # noqa: B006
        def fill(values):
            kept.setdefault(name, np.zeros_like(values))[:] = values
            return kept[name]

        return fill

    change = {name: filled(name) for name in ("reward", "terminated", "truncated")}
    assert valid_rows(Answers(mode, **change), 9) == valid_rows(Answers(mode), 9)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "reward",
            lambda x: np.stack([x, x], 1),
            "reward of shape [3, 2] .*: expected 3 numbers; of several",
        ),
        ("reward", lambda x: x[:2], "reward of shape [2] .*: expected 3 numbers"),
        ("reward", lambda x: [None] * 3, "reward .* dtype object: expected 3 numbers"),
        ("reward", lambda x: ["1"] * 3, "reward .* dtype <U1: expected 3 numbers"),
        ("reward", lambda x: 1.0, "reward of shape [] .*: expected 3 numbers"),
        ("reward", lambda x: [[1.0], [1.0, 2.0], [1.0]], "reward .*: expected 3 numbers"),
        ("reward", lambda x: [0.0, math.nan, 0.0], "reward nan is not finite"),
        ("terminated", lambda x: [False, "no", False], "terminated .* dtype <U"),
        ("truncated", lambda x: x * 0.5 + 0.25, "truncated .* expected True or False"),
        ("truncated", lambda x: np.full(3, math.nan), "truncated .* expected True or False"),
        ("terminated", lambda x: None, "terminated .*: expected 3 numbers"),
        (
            "truncated",
            lambda x: x[:, None, None],
            "truncated of shape [3, 1, 1] .*: expected 3 numbers",
        ),
    ],
)
@pytest.mark.parametrize("mode", AutoresetMode)
def test_answers_of_a_vector_that_cannot_be_read_are_one_line(mode, name, change, said):
    loop = Interaction(Still(), Answers(mode, **{name: change}))
    said = said.replace("[", "\\[").replace("]", "\\]")
    with pytest.raises(
        RunError, match=rf"^at env step 1: environments? Answers.*: {said}"
    ) as error:
        loop.run(9)
    assert "\n" not in str(error.value)


def test_an_object_that_is_both_env_and_vector_is_a_vector():
    """As EnvPool's are, whose spec has no id."""

    class Pool(Answers, gym.Env):
        spec = object()

    envs = adapt(Pool(AutoresetMode.NEXT_STEP))
    assert (type(envs), envs.num_envs) == (Vector, 3)
    agent = q_learning(envs)
    loop = Interaction(agent, envs)
    loop.run(90)
    assert loop.books.episodes > 20 and agent.q.any()
    with pytest.raises(RunError, match="environments Pool: reward of shape"):
        play(Pool(AutoresetMode.NEXT_STEP, reward=lambda x: x[:2]), 1)


def test_what_is_no_environment_is_refused():
    with pytest.raises(UsageError, match="environments of type str: expected a Gymnasium"):
        adapt("FrozenLake-v1")


def test_a_vector_that_does_not_say_how_it_resets_is_refused():
    with pytest.raises(UsageError, match=r"'Sometimes', expected one of NEXT_STEP, SAME_STEP"):
        adapt(Answers("Sometimes"))


def test_another_vector_of_the_same_environment_changes_no_mode(counting):
    """In Gymnasium 1.3 all vectors of an environment have one dict of metadata."""
    modes = AutoresetMode.DISABLED, AutoresetMode.SAME_STEP
    first, second = (
        SyncVectorEnv([partial(counting, SCRIPT)], autoreset_mode=mode) for mode in modes
    )
    first.metadata = second.metadata
    assert adapt(first).mode is AutoresetMode.DISABLED


def test_a_native_vector_cannot_cut_single_rows():
    loop = Interaction(Still(), make("CartPole-v1", 2), max_episode_steps=3)
    with pytest.raises(UsageError, match="give the environment a time limit of its own"):
        loop.run(10)


def test_closing_closes_all(counting):
    closed = []

    class Closing(counting):
        def close(self):
            closed.append(self)

    for envs in ([Closing(SCRIPT), Closing(SCRIPT)], [Closing(SCRIPT)]):
        Serial(envs).close()
    adapt(SyncVectorEnv([partial(Closing, SCRIPT)] * 2)).close()
    assert len(closed) == 5
