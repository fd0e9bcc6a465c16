"""Observations become batches of their space: what would be lost is refused, wherever it occurs."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from seqrl.agents import QLearning, Reinforce, TableIndex
from seqrl.core import RunError, UsageError, tree
from seqrl.envs import adapt
from seqrl.envs.observations import Misfit, observations
from seqrl.networks import GRU, MLP
from seqrl.training import train

UNIT = spaces.Box(0, 1, (2,), np.float32)
BYTES = spaces.Box(0, 255, (2,), np.uint8)
SMALL = spaces.Box(0, 11, (2,), np.int32)
PAIR = spaces.Tuple((spaces.Discrete(3, start=-1), BYTES))
NAMED = spaces.Dict({"a": UNIT, "b": PAIR})
HUGE = np.finfo(np.float32).max


class Row(gym.Env):
    """Shows one thing after the other; an episode takes three steps."""

    action_space = spaces.Discrete(2)

    def __init__(self, space, shown):
        self.observation_space, self.shown, self.at = space, shown, -1

    def look(self):
        self.at += 1
        return self.shown[min(self.at, len(self.shown) - 1)]

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.look(), {}

    def step(self, action):
        self.t += 1
        return self.look(), 1.0, self.t == 3, False, {}


class Rows(VectorEnv):
    """Two rows of answers as they are listed; both episodes end at every third step."""

    def __init__(self, space, shown, mode, final="tree", wrap=lambda leaf: leaf):
        self.num_envs, self.single_observation_space = 2, space
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(space, 2)
        self.action_space = spaces.MultiDiscrete([2, 2])
        self.metadata = {"autoreset_mode": mode}
        self.shown, self.t, self.final, self.wrap = shown, 0, final, wrap

    def look(self):
        shown = self.shown[min(self.t, len(self.shown) - 1)]
        return tree.map(lambda leaf: self.wrap(np.array([leaf, leaf])), shown)

    def reset(self, *, seed=None, options=None):
        return self.look(), {}

    def step(self, actions):
        self.t += 1
        over = np.full(2, self.t % 3 == 0)
        info, obs = {}, self.look()
        if over.any() and self.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP:
            rows = np.array([tree.take(obs, i) for i in range(2)] + [None], object)[:2]
            info = {"tree": {"final_obs": obs}, "rows": {"final_obs": rows}}.get(self.final, {})
            self.t, before = 0, self.t
            obs, self.t = self.look(), before
        over, zeros = self.wrap(over), self.wrap(np.zeros(2, bool))
        return obs, self.wrap(np.ones(2)), over, zeros, info


@pytest.mark.parametrize(
    ("space", "given"),
    [
        (spaces.Discrete(4), 3),
        (spaces.Discrete(4), np.int8(3)),
        (spaces.Discrete(4), np.array(3)),
        (spaces.Discrete(4), 2.0),  # nothing is lost
        (spaces.Discrete(4, start=-2), -2),
        (spaces.MultiDiscrete([2, 3], start=[5, -1]), [6, 1]),
        (spaces.MultiBinary(2), np.array([True, False])),
        (BYTES, np.array([0.0, 255.0])),
        (BYTES, [7, 8]),
        (SMALL, np.array([0, 11])),
        (UNIT, np.array([0.1, 1 / 3])),  # rounded to float32
        (UNIT, [0, 1]),
        (UNIT, np.float16([0, 1])),
        (spaces.Box(-np.inf, np.inf, (2,), np.float32), [HUGE, -HUGE]),
        (spaces.Box(-HUGE, HUGE, (2,), np.float32), [HUGE, -HUGE]),
        (spaces.Box(0, 1, (2,), bool), np.array([True, False])),
        (NAMED, {"b": (1, [1, 2]), "a": np.zeros(2)}),
        (spaces.Tuple((spaces.Discrete(3), spaces.Discrete(3))), np.array([1, 2])),
    ],
    ids=str,
)
def test_what_loses_nothing_is_kept_in_the_dtype_of_the_space(space, given, caplog):
    stacked = observations(space).stack([given, given])
    checked = observations(space).check(tree.map(lambda x: np.array([x, x]), aslist(given)), 2)
    for batch in (stacked, checked):
        for i in range(2):
            assert space.contains(tree.map(np.asarray, tree.take(batch, i)))
        pairs = zip(tree.leaves(batch), tree.leaves(ordered(space, given)), strict=True)
        assert all(np.allclose(leaf[1], seen, rtol=1e-6) for leaf, seen in pairs)
    assert not caplog.records


def aslist(obs):
    """Parts as trees have them: a Tuple may be shown as an array."""
    return tuple(obs) if isinstance(obs, np.ndarray) and obs.tolist() == [1, 2] else obs


def ordered(space, obs):
    """The observation as a tree in the order of the space."""
    if isinstance(space, spaces.Dict):
        return {key: ordered(inner, obs[key]) for key, inner in space.items()}
    return tuple(map(ordered, space, obs)) if isinstance(space, spaces.Tuple) else obs


LOST = [
    (spaces.Discrete(5), 2.7, "observation 2.7 is not of Discrete(5): as int64 it would be 2"),
    (spaces.Discrete(5), 5, "observation 5 is not of Discrete(5)"),
    (spaces.Discrete(5), -1, "observation -1"),
    (spaces.Discrete(5), 2**70, "observation 1180591620717411303424"),
    (spaces.Discrete(5), float("nan"), "observation nan"),
    (spaces.Discrete(5), np.array([1]), "observation [1] of shape (1,)"),
    (spaces.Discrete(5), "3", "observation 3"),
    (spaces.Discrete(5), None, "observation None"),
    (spaces.Discrete(5), 1 + 0j, "observation (1+0j)"),
    (spaces.MultiDiscrete([3, 3]), [3, 0], "observation [3 0]"),
    (spaces.MultiDiscrete([3, 3]), [0, -1], "observation [ 0 -1]"),
    (spaces.MultiDiscrete([3, 3]), [0.5, 1], "as int64 it would be [0 1]"),
    (spaces.MultiDiscrete([3, 3], start=[1, 1]), [0, 1], "observation [0 1]"),
    (spaces.MultiBinary(2), [0, 2], "observation [0 2]"),
    (spaces.MultiBinary(2), [0.3, 1], "as int8 it would be [0 1]"),
    (BYTES, [300, -1], "observation [300 -1]"),
    (BYTES, [0.7, 0.7], "as uint8 it would be [0 0]"),
    (BYTES, [float("inf"), 0], "observation [inf 0.]"),
    (BYTES, np.array([1, 2], object), "observation [1 2]"),
    (BYTES, np.array(["1", "2"]), "observation ['1' '2']"),
    (SMALL, [12, 0], "observation [12 0]"),
    (SMALL, [2**32, 0], "observation [4294967296"),
    (UNIT, [1e300, 0], "observation [1.e+300 0.e+000]"),
    (UNIT, [float("nan"), 0], "observation [nan, 0.0] is not finite"),
    (UNIT, [0, -np.inf], "observation [0.0, -inf] is not finite"),
    (UNIT, [None, 0.0], "observation [None, 0.0]"),
    (UNIT, ["0.5", "0.5"], "observation ['0.5', '0.5']"),
    (UNIT, [0.5], "observation [0.5] of shape (1,)"),
    (UNIT, [[0.5, 0.5]], "of shape (1, 2)"),
    (UNIT, [0.5, [0.5]], "observation [0.5, [0.5]]"),
    (UNIT, np.array([0.5 + 1j, 0]), "observation [0.5+1.j"),
    (UNIT, np.array(["2020-01-01"] * 2, "M8[D]"), "observation ['2020-01-01'"),
    (PAIR, (0, [0, 256]), "observation[1] [ 0 256] is not of Box(0, 255, (2,), uint8)"),
    (PAIR, (2, [0, 0]), "observation[0] 2 is not of Discrete(3, start=-1)"),
    (PAIR, (0, [0, 0], 1), "is not of Tuple("),
    (PAIR, (0,), "is not of Tuple("),
    (PAIR, 7, "observation 7 is not of Tuple("),
    (NAMED, {"a": [0, 0]}, "is not of Dict("),
    (NAMED, {"a": [0, 0], "b": (0, [0, 0]), "c": 1}, "is not of Dict("),
    (NAMED, {"a": [0, 0], "c": (0, [0, 0])}, "is not of Dict("),
    (NAMED, {"a": [0, np.nan], "b": (0, [0, 0])}, "observation['a'] [0.0, nan] is not finite"),
    (NAMED, {"a": [0, 0], "b": (0, [0.5, 0])}, "observation['b'][1] [0.5 0. ]"),
    (spaces.Text(3), "four", "observation four is not of Text("),
]


@pytest.mark.parametrize(("space", "given", "said"), LOST, ids=str)
def test_what_would_be_lost_is_refused_and_its_row_named(space, given, said):
    space.seed(0)
    good = space.sample()
    with pytest.raises(Misfit) as caught:
        observations(space).stack([good, given])
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.row == 1


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize(
    ("space", "given"), [(BYTES, [300, 0]), (BYTES, [0.7, 0]), (UNIT, [9e99, 0])]
)
def test_it_is_refused_at_any_moment_of_a_run(space, given, at):
    """First observations, later ones, the last of an episode, the first of the next."""
    envs = adapt(Row(space, [[0, 0]] * at + [given]))
    with pytest.raises(RunError, match=r"environment 0 .* is not of Box"):
        envs.reset(np.random.SeedSequence(0))
        for _ in range(4):
            envs.step(np.array([1]))


@pytest.mark.parametrize("final", ["tree", "rows"])
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("at", range(4))
def test_a_vector_is_checked_like_single_environments(mode, at, final):
    good, bad = {"a": [0, 0], "b": (0, [0, 0])}, {"a": [0, 0], "b": (0, [0, 300])}
    envs = adapt(Rows(NAMED, [good] * at + [bad], mode, final))
    with pytest.raises(RunError, match=r"environment Rows 0 .*observation\['b'\]\[1\] \[ 0 300\]"):
        envs.reset(np.random.SeedSequence(0))
        for _ in range(3):
            envs.step(np.array([1, 1]))


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize(
    ("space", "bad"),
    [(spaces.Discrete(4), 4), (spaces.Discrete(4), 1.5), (UNIT, [0, np.nan]), (SMALL, [12, 0])],
    ids=str,
)
@pytest.mark.parametrize("at", [0, 2, 3])
def test_tensors_are_checked_too(mode, space, bad, at):
    shown = [tree.map(lambda x: 0 * x, np.asarray(bad, space.dtype))] * at + [np.asarray(bad)]
    envs = adapt(Rows(space, shown, mode, wrap=torch.as_tensor))
    with pytest.raises(RunError, match="observation "):
        envs.reset(np.random.SeedSequence(0))
        for _ in range(3):
            envs.step(torch.tensor([1, 1]))


def test_tensors_that_fit_stay_tensors():
    envs = adapt(Rows(SMALL, [np.int32([3, 11])], AutoresetMode.SAME_STEP, wrap=torch.as_tensor))
    assert envs.reset().dtype == torch.int32
    outcomes = [envs.step(torch.tensor([1, 1])) for _ in range(3)]
    assert all(
        o.next_obs.tolist() == [[3, 11]] * 2 and o.obs.dtype == torch.int32 for o in outcomes
    )
    assert [bool(o.terminated.all()) for o in outcomes] == [False, False, True]


@pytest.mark.parametrize("kind", ["missing", "short", "odd"])
def test_last_observations_that_are_missing_are_told_in_one_line(kind):
    envs = Rows(BYTES, [[1, 2]], AutoresetMode.SAME_STEP, final="none")
    step = envs.step

    def changed(actions):
        *answer, _ = step(actions)
        final = {"missing": {}, "short": {"final_obs": np.zeros((1, 2, 2))}, "odd": [1]}[kind]
        return *answer, final

    envs.step = changed
    envs = adapt(envs)
    envs.reset()
    with pytest.raises(RunError, match=r"SAME_STEP\): expected info\['final_obs'\]|last obs"):
        for _ in range(3):
            envs.step(np.array([1, 1]))


@pytest.mark.parametrize("mode", AutoresetMode)
def test_gymnasiums_own_vector_would_wrap_whole_numbers(mode):
    """It stacks 300 as 44 in uint8 before anyone sees it; its own copies of them are looked at."""
    shown = np.uint16([[1, 1]] * 3 + [[300, 1]])
    makers = [lambda n=n: Row(BYTES, shown[:n]) for n in (3, 4)]
    envs = adapt(gym.vector.SyncVectorEnv(makers, autoreset_mode=mode))
    with pytest.raises(RunError, match=r"environment SyncVectorEnv 1 .*\[300 1\] is not of Box"):
        envs.reset(np.random.SeedSequence(0))
        for _ in range(5):
            envs.step(np.array([1, 1]))


# ---- bounds of reals


@pytest.mark.parametrize("layout", ["single", "vector", "tensors"])
def test_reals_outside_of_their_bounds_are_told_once(layout, caplog):
    shown = [np.float32([0, 1])] + [np.float32([0, 7])] * 5
    envs = {
        "single": lambda: Row(UNIT, shown),
        "vector": lambda: Rows(UNIT, shown, AutoresetMode.NEXT_STEP),
        "tensors": lambda: Rows(UNIT, shown[1:], AutoresetMode.NEXT_STEP, wrap=torch.as_tensor),
    }[layout]()
    envs = adapt(envs)
    envs.reset(np.random.SeedSequence(0))
    actions = torch.ones(2, dtype=int) if layout == "tensors" else np.ones(envs.num_envs, int)
    seen = [envs.step(actions).next_obs[0, 1] for _ in range(4)]
    envs.reset()
    assert seen == [7, 7, 7, 7]
    (record,) = caplog.records
    said = record.getMessage()
    assert "observation 7.0 is outside of Box(0.0, 1.0, (2,), float32); going on" in said


@pytest.mark.parametrize("part", ["a", "b"])
def test_each_part_is_told_and_nan_is_still_refused(part, caplog):
    space = spaces.Dict({"a": UNIT, "b": UNIT})
    root = observations(space, "Walk-v0")
    good, bad = np.zeros(2), np.array([0, -3.0])
    for _ in range(3):
        root.stack([{"a": good, "b": good, part: bad}])
    assert [record.getMessage() for record in caplog.records] == [
        f"seqrl: Walk-v0: observation['{part}'] -3.0 is outside of Box(0.0, 1.0, (2,), float32); "
        "going on, and this is said once"
    ]
    with pytest.raises(Misfit, match="not finite"):
        root.stack([{"a": good, "b": good, part: np.array([0, np.nan])}])
    with pytest.raises(Misfit, match="is not of Box"):
        root.stack([{"a": good, "b": good, part: np.array([0, 1e300])}])


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0, 1, 1.0000000000000002),
        (0, 1, -1e-9),
        (-4.8, 4.8, 4.8000001),
        (0, np.inf, -1e-17),
        (-1e9, 1e9, 1e9 + 64),
        (0, 1e-9, 1.0000001e-9),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_rounding_error_is_no_fault(low, high, shown, dtype, caplog):
    envs = adapt(Row(spaces.Box(low, high, (1,), dtype), [np.array([shown])]))
    envs.reset()
    assert envs.step(np.array([1])).next_obs == np.array([[shown]], dtype)
    assert not caplog.records


def test_a_bound_of_small_numbers_is_a_bound(caplog):
    observations(spaces.Box(0, 1e-9, (1,), np.float64)).stack([np.array([1.1e-9])])
    assert len(caplog.records) == 1


# ---- other things


TAKE = {
    "environment": lambda space: adapt(Row(space, [()])),
    "table": TableIndex,
    "bins": lambda space: TableIndex(space, 4),
    "mlp": MLP,
    "gru": lambda space: GRU(space, 8),
}
EMPTY = [spaces.Tuple(()), spaces.Dict({}), spaces.Box(0, 1, (0,)), spaces.Tuple([spaces.Dict({})])]


@pytest.mark.parametrize("take", TAKE)
@pytest.mark.parametrize("space", EMPTY, ids=str)
def test_a_space_that_shows_nothing_is_refused(space, take):
    with pytest.raises(UsageError, match=r"observation space .* has nothing in it: expected at l"):
        TAKE[take](space)


@pytest.mark.parametrize("nothing", EMPTY, ids=str)
@pytest.mark.parametrize("make", [QLearning, lambda seen, do, seed: Reinforce(MLP(seen), do, seen)])
def test_a_part_of_no_numbers_is_no_harm(nothing, make):
    space = spaces.Dict({"a": nothing, "b": spaces.Discrete(2)})
    nothing.seed(0)
    env = Row(space, [{"a": nothing.sample(), "b": 1}])
    assert train(make(space, env.action_space, seed=0), env, 30, seed=0)["episodes"] == 10


@pytest.mark.parametrize(
    "space",
    [spaces.Text(5), spaces.Sequence(spaces.Discrete(3)), spaces.Graph(UNIT, None)],
    ids=str,
)
def test_other_spaces_are_kept_as_they_are(space):
    space.seed(3)
    shown = [space.sample() for _ in range(3)]
    batch = observations(space).stack(shown)
    assert len(batch) == 3 and all(x is y or x == y for x, y in zip(batch, shown, strict=True))


def test_a_batch_is_a_copy_and_its_maker_can_be_copied():
    one = np.zeros(2, np.float32)
    maker = observations(UNIT)
    for each in (maker, copy.deepcopy(maker), pickle.loads(pickle.dumps(maker))):
        stacked, checked = each.stack([one, one]), each.check(np.stack([one, one]), 2)
        one[:] = 1
        assert not stacked.any() and not checked.any()
        one[:] = 0
