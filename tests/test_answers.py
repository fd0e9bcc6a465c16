"""Right answers of users' environments through the adapter: layouts, wrappers, processes."""

import os
import sys
from functools import partial

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from seqrl import envs as rooms
from seqrl.core import RunError, UsageError
from seqrl.envs import Serial, Workers, adapt, make

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SCRIPT = [(3, True, False), (5, False, True), (2, True, False)]
SEED = np.random.SeedSequence(3)
LAYOUTS = [
    "single",
    "serial",
    "workers",
    *(f"{kind} {mode}" for kind in ("sync", "async") for mode in ("NextStep", "SameStep")),
    "sync Disabled",
    "async Disabled",
]


class Telling(gym.Env):
    """Counts; the right action is the count mod 3, beginning at 5, and unknown at count 1.

    An episode that is over has no answer. `kind` is what an answer is returned as.
    """

    observation_space = spaces.Discrete(100)
    action_space = spaces.Discrete(3, start=5)

    def __init__(self, row=0, kind=int):
        self.row, self.kind, self.episode = row, kind, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        self.length, self.terminated, self.truncated = SCRIPT[(self.episode + self.row) % 3]
        return self.count, {}

    @property
    def count(self):
        return 10 * (self.episode % 3) + self.t

    def step(self, action):
        self.t += 1
        over = self.t == self.length
        return self.count, 0.0, over and self.terminated, over and self.truncated, {}

    def answer(self):
        assert self.t < self.length or self.kind is not int, "the episode is over"
        return None if self.t == 1 else self.kind(5 + self.count % 3)


class Mute(Telling):
    """Shows a number by the name of the method."""

    answer = 42


class Either(Telling):
    """Has actions of a space of ours to choose, and tells what it is given."""

    def __init__(self, space, answer):
        super().__init__()
        self.action_space, self.given = space, answer

    def answer(self):
        return self.given


def makers(cls=Telling, **options):
    return [partial(cls, row=row, **options) for row in range(3)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_answer_belongs_to_what_is_looked_at(arrange, layout):
    """In every layout and autoreset mode, through wrappers."""
    kind = np.int64 if "async" in layout else int  # asks where an episode is over as well
    made = [lambda m=m: gym.wrappers.OrderEnforcing(m()) for m in makers(kind=kind)]
    envs = adapt(arrange(layout, made))
    obs, told, filled = envs.reset(SEED), 0, 0
    for _ in range(20):
        answer, known = envs.answer()
        outcome = envs.step(np.full(envs.num_envs, 5))
        expected = outcome.valid & (obs % 10 != 1)  # a filler step has no action
        assert known.dtype == bool and known.tolist() == expected.tolist()
        assert answer.dtype == np.int64 and envs.single_action_space.contains(answer[0])
        assert (answer == 5 + obs % 3)[known].all()
        told, filled = told + known.sum(), filled + (~outcome.valid).sum()
        obs = outcome.obs
    assert told > 9 * envs.num_envs and bool(filled) == ("NextStep" in layout)


SPACES = [
    (spaces.MultiDiscrete([3, 4]), [1, 2]),
    (spaces.MultiBinary(3), [True, False, True]),
    (spaces.Box(-1, 1, (2,), np.float32), np.array([0.5, -1.0])),
    (spaces.Box(0, 5, (), np.float64), 2),
]
SPACE_NAMES = ["multidiscrete", "multibinary", "box", "number"]


@pytest.mark.parametrize(("space", "answer"), SPACES, ids=SPACE_NAMES)
def test_answers_of_every_space_are_in_its_dtype(space, answer):
    envs = Serial([Either(space, answer), Either(space, None)])
    envs.reset(SEED)
    action, known = envs.answer()
    assert known.tolist() == [True, False] and action.dtype == space.dtype
    np.testing.assert_array_equal(action[0], answer)
    assert space.contains(np.asarray(action[1]))


@pytest.mark.parametrize(
    ("space", "answer", "said"),
    [
        (spaces.Discrete(2), 7, r"answer 7 is not of Discrete\(2\)"),
        (spaces.Discrete(2), 0.5, r"answer 0.5 is not of Discrete\(2\)"),
        (spaces.Discrete(2), [0, 1], r"answer \[0, 1\] of shape \(2,\) is not of Discrete\(2\)"),
        (spaces.MultiBinary(2), [0, 2], r"answer \[0 2\] is not of MultiBinary\(2\)"),
        (spaces.Box(0, 1, (1,)), [np.nan], r"answer \[nan\] is not finite"),
        (spaces.Discrete(2), "left", "answer left is not of"),
    ],
    ids=["beyond", "half", "shape", "binary", "nan", "text"],
)
def test_an_answer_that_is_no_action_is_named(space, answer, said):
    envs = Serial([Either(space, None), Either(space, answer)])
    envs.reset(SEED)
    with pytest.raises(RunError, match=rf"environment 1 \(seed \d+\): {said}"):
        envs.answer()


@pytest.mark.parametrize("layout", ["serial", "workers", "sync SameStep", "async SameStep"])
def test_environments_without_answers_are_refused_in_one_line(arrange, layout):
    envs = adapt(arrange(layout, makers(Mute) if layout != "async SameStep" else [Plain] * 2))
    envs.reset(SEED)
    with pytest.raises(UsageError, match=r"environment .* tells no right answers; give it a") as no:
        envs.answer()
    assert "\n" not in str(no.value)


class Plain(gym.Env):
    """Has nothing to say."""

    observation_space, action_space = spaces.Discrete(3), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 0, 0.0, False, False, {}


@pytest.mark.parametrize("num_envs", [1, 2])
def test_gymnasiums_own_tell_none(num_envs):
    envs = make("CartPole-v1", num_envs)
    envs.reset(SEED)
    with pytest.raises(UsageError, match="environment CartPole-v1 tells no right answers"):
        envs.answer()


def test_answers_of_a_dict_of_actions_are_refused():
    space = spaces.Dict(a=spaces.Discrete(2))
    envs = Serial([Either(space, {"a": 0})])
    envs.reset(SEED)
    with pytest.raises(UsageError, match=r"answers are of Discrete, MultiDiscrete, .* not of Dict"):
        envs.answer()


class Shifted(gym.ActionWrapper):
    """Takes actions that begin at 0; `tells` their answers too."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = spaces.Discrete(3)

    def action(self, action):
        return action + 5


class Telltale(Shifted):
    def answer(self):
        found = self.env.answer()
        return None if found is None else found - 5


@pytest.mark.parametrize("layout", ["serial", "workers", "sync NextStep"])
def test_a_wrapper_of_other_actions_has_to_tell_them_itself(arrange, layout):
    envs = adapt(arrange(layout, [lambda m=m: Shifted(m()) for m in makers()]))
    envs.reset(SEED)
    with pytest.raises(UsageError, match=r"takes actions of Discrete\(3\), the answers are of"):
        envs.answer()
    envs = adapt(arrange(layout, [lambda m=m: Telltale(m()) for m in makers()]))
    obs = envs.reset(SEED)
    answer, known = envs.answer()
    assert known.all() and answer.tolist() == (obs % 3).tolist()


class Broken(Telling):
    def answer(self):
        raise KeyError("page")


@pytest.mark.parametrize("layout", ["serial", "workers", "sync SameStep"])
def test_an_environment_that_fails_at_its_answer_is_named(arrange, layout):
    envs = adapt(arrange(layout, makers(Broken)))
    envs.reset(SEED)
    with pytest.raises(RunError, match=r"environment.*: KeyError: 'page' at its answer"):
        envs.answer()


class Vectorised(gym.vector.VectorEnv):
    """A vector of a user's that tells for all at once."""

    def __init__(self, answer, known):
        self.num_envs, self.told = 2, (answer, known)
        self.single_observation_space, self.single_action_space = Plain.observation_space, SPACE
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.int64), {}

    def step(self, actions):
        done = np.array([True, False])
        return np.zeros(2, np.int64), np.zeros(2), done, ~done & False, {}

    def answer(self):
        return self.told


SPACE = spaces.Discrete(4)


def test_a_vector_of_users_tells_for_all():
    told = np.array([3, 1]), [True, 1]
    envs = adapt(Vectorised(*told))
    envs.reset(SEED)
    answer, known = envs.answer()
    assert (answer.tolist(), known.tolist()) == ([3, 1], [True, True])
    assert not np.shares_memory(answer, told[0])
    envs.step(np.zeros(2, int))  # the episode of row 0 is over: the next step only resets
    assert envs.answer()[1].tolist() == [False, True]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (([3, 4], [True, True]), r"answer 4 is not of Discrete\(4\)"),
        (([3], [True, True]), r"answer of shape \[1\]: expected \[2\]"),
        (([3, 3], [2, 0]), r"known \[2 0\]: expected True or False"),
        (5, "TypeError: cannot unpack .* at its answer"),
    ],
    ids=["beyond", "few", "known", "number"],
)
def test_what_a_vector_tells_is_checked(told, said):
    envs = adapt(Vectorised(*told) if isinstance(told, tuple) else Vectorised(0, 0))
    if not isinstance(told, tuple):
        envs.envs.told = told
    envs.reset(SEED)
    with pytest.raises(RunError, match=said):
        envs.answer()


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("device", [None, "cpu"], ids=["numpy", "torch"])
def test_our_own_tell_through_wrappers_of_vectors(mode, device):
    """RepeatFirst: the answer is the first card, whatever the mode; nothing is cut or lost."""
    inner = gym.make_vec("seqrl/RepeatFirst-v0", 3, device=device, autoreset_mode=mode)
    envs = adapt(gym.vector.VectorWrapper(inner))
    obs, firsts = envs.reset(SEED), None
    start = np.ones(3, bool)
    for _ in range(120):
        firsts = obs if firsts is None else rooms.adapter.where(start, obs, firsts)
        answer, known = envs.answer()
        assert isinstance(answer, torch.Tensor if device else np.ndarray)
        assert bool((answer == firsts)[known].all())
        outcome = envs.step(answer)
        assert known.tolist() == outcome.valid.tolist()
        obs, start = outcome.obs, outcome.start
        assert bool((outcome.reward[outcome.valid] > 0).all())


def test_processes_tell_what_single_ones_do():
    made = [partial(gym.make, "seqrl/TMaze-v0", active=True)] * 2
    ours, theirs = Serial([m() for m in made]), Workers(made)
    try:
        for envs in (ours, theirs):
            envs.reset(SEED)
        for _ in range(30):
            one, two = ours.answer(), theirs.answer()
            assert all(
                a.tolist() == b.tolist() and a.dtype == b.dtype
                for a, b in zip(one, two, strict=True)
            )
            assert ours.step(one[0]).reward.tolist() == theirs.step(two[0]).reward.tolist()
    finally:
        theirs.close()


class Mortal(Telling):
    """In row 1, ends its process where it is asked for the first time."""

    def __init__(self, path, row=0):
        super().__init__(row)
        self.path, self.row = path, row

    def answer(self):
        if self.row == 1 and not self.path.exists():
            self.path.touch()
            os._exit(3)
        return super().answer()


@pytest.mark.parametrize("restarts", [0, 1])
def test_a_process_that_dies_at_its_answer_is_replaced_by_the_next_step(restarts, tmp_path, caplog):
    envs = Workers(makers(Mortal, path=tmp_path / "once"), restarts=restarts)
    try:
        envs.reset(SEED)
        if not restarts:
            with pytest.raises(RunError, match=r"environment 1 \(seed \d+\): its process ended"):
                envs.answer()
            return
        answer, known = envs.answer()
        assert known.tolist() == [True, False, True] and answer[1] == 5
        outcome = envs.step(answer)
        assert outcome.valid.tolist() == [True, False, True] and outcome.start[1]
        assert envs.answer()[1].tolist() == [False, True, False]  # the others are at count 1
        assert [line.count("environment 1 (seed ") for line in caplog.messages] == [1]
    finally:
        envs.close()
