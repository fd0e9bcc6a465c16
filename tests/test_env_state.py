"""The state of environments of users, and of wrappers: kept where that is proven, else said."""

import copy
import random
from collections import deque, namedtuple
from enum import Enum
from functools import partial
from itertools import count

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.spaces import Box, Discrete

from seqrl.agents import QLearning, TableIndex
from seqrl.core import UsageError
from seqrl.envs import Serial, adapt, get_state, set_state
from seqrl.envs.state import why_unkept
from seqrl.scripts import train
from seqrl.training import Interaction
from seqrl.training.runs import checkpoint

FIRST, SECOND = 35, 24
SEED = np.random.SeedSequence(5)
Place = namedtuple("Place", "x y")


class Mood(Enum):
    CALM, WILD = "calm", "wild"


class Piece:
    def __init__(self, worth):
        self.worth, self.friends = worth, []


class Everything(gym.Env):
    """Every kind of value that is kept changes with each step, and all of them are shown."""

    observation_space = Box(-1e9, 1e9, (1,), np.float64)
    action_space = Discrete(2)

    def __init__(self, ends=9):
        self.ends, self.episode, self.render_hook, self.held = ends, 0, print, None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None or self.episode == 0:
            self.old = np.random.RandomState((seed or 0) % 2**32)
            self.python, self.mine = random.Random(seed), np.random.default_rng(seed)
        self.episode += 1
        self.t, self.board = 0, np.zeros((2, 3), np.float32)
        self.first_row = self.boards = [self.board, self.board]  # one array under three names
        self.small, self.last = np.float32(self.python.random()), deque([0.0], maxlen=3)
        self.mood, self.place, self.by_name = Mood.CALM, Place(0, 1.5), {"a": [1, (2, None)]}
        self.pieces, self.history = [Piece(1)], []
        self.pieces[0].friends.append(self.pieces[0])  # a circle
        return self.look(), {}

    def step(self, action):
        self.t += 1
        draws = self.np_random.random(), self.old.rand(), self.python.random(), self.mine.normal()
        self.boards[1][0] += np.float32(sum(draws))
        self.small *= np.float32(1.1)
        self.last.append(draws[0] + action)
        self.history += [float(action), draws[1]] * 20  # long enough for an array
        self.mood = Mood.WILD if draws[2] < 0.5 else Mood.CALM
        self.place = self.place._replace(y=self.place.y + draws[3])
        self.by_name["a"][0] += 1
        self.pieces.append(Piece(self.t))
        self.pieces[0].friends[0].worth += 1
        self.held = self.pieces[-1] if action else None
        return self.look(), draws[0], self.t >= self.ends, False, {}

    def look(self):
        worth = sum(piece.worth for piece in self.pieces) + (self.held is not None)
        shown = [self.board[0, 0], self.small, sum(self.last), self.mood is Mood.WILD]
        shown += [self.place.y, self.by_name["a"][0], worth, len(self.history), self.episode]
        return np.array([sum(shown)], np.float64)


class Told(gym.Env):
    """Keeps its state where attributes do not reach, and tells it."""

    observation_space, action_space = Discrete(100), Discrete(2)

    def __init__(self, ends=9, forgets=False):
        self.forgets = forgets
        self.ends, self.where = ends, {0: 0}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.where, self.t = {0: int(self.np_random.integers(50))}, 0
        return self.where[0], {}

    def step(self, action):
        self.t += 1
        self.where[0] = int(self.where[0] + self.np_random.integers(2)) % 100
        return self.where[0], float(action), self.t >= self.ends, False, {}

    def get_state(self):
        return {"at": np.array(0 if self.forgets else self.where[0]), "t": (self.t, self.rng())}

    def set_state(self, state):
        self.where = {0: int(state["at"])}
        self.t, self.np_random.bit_generator.state = state["t"]

    def rng(self):
        return self.np_random.bit_generator.state


class Outside(Told):
    """Cannot be copied either."""

    def __init__(self):
        super().__init__()
        self.handle = {0: 0}.items()


def loop_of(envs, bins=8):
    envs = adapt(envs)
    index = TableIndex(envs.single_observation_space, bins)
    agent = QLearning(index, envs.single_action_space, seed=7)
    agent.horizon = 200
    return Interaction(agent, envs)


def check_resumed(make_envs, tmp_path, bins=8):
    whole, first, second = (loop_of(make_envs(), bins) for _ in range(3))
    whole.reset(SEED)
    whole.run(FIRST + SECOND)
    first.reset(SEED)
    first.run(FIRST)
    assert why_unkept(first.envs) == ""
    checkpoint.save(tmp_path / "state", first.state_dict())
    first.run(7)
    second.load_state_dict(checkpoint.load(tmp_path / "state"))
    second.run(SECOND)
    assert checkpoint.digest(whole.fingerprint()) == checkpoint.digest(second.fingerprint())
    assert whole.episodes == second.episodes > 3


@pytest.mark.parametrize("env", [Everything, Told, Outside])
@pytest.mark.parametrize("kind", ["single", "serial", "workers", "sync NextStep", "sync SameStep"])
def test_environments_of_users_resume(env, kind, arrange, tmp_path):
    check_resumed(lambda: arrange(kind, [env] * 3), tmp_path)


class Lanes(gym.vector.VectorEnv):
    """Three walks side by side, of a user."""

    num_envs, single_action_space, single_observation_space = 3, Discrete(2), Discrete(60)
    action_space, observation_space = (gym.spaces.MultiDiscrete([n] * 3) for n in (2, 60))

    def __init__(self):
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.over = self.np_random.integers(0, 9, 3), np.zeros(3, bool)
        return self.x.copy(), {}

    def step(self, actions):
        self.x = np.where(self.over, 0, self.x + self.np_random.integers(0, 9, 3))
        reward, self.over = np.where(self.over, 0.0, actions), self.x > 30
        return self.x.copy(), reward, self.over.copy(), np.zeros(3, bool), {}


def test_a_vector_of_users_resumes(tmp_path):
    check_resumed(lambda: wrappers.vector.RecordEpisodeStatistics(Lanes()), tmp_path)


cart = partial(gym.make, "CartPole-v1", max_episode_steps=9)
WRAPPED = {
    "frame stack": lambda: wrappers.FrameStackObservation(cart(), 2),
    "zero frames": lambda: wrappers.FrameStackObservation(cart(), 3, padding_type="zero"),
    "statistics": lambda: wrappers.RecordEpisodeStatistics(cart()),
    "normalised": lambda: wrappers.NormalizeObservation(wrappers.NormalizeReward(cart())),
    "time": lambda: wrappers.TimeAwareObservation(cart()),
    "delay": lambda: wrappers.DelayObservation(cart(), 2),
    "sticky": lambda: wrappers.StickyAction(cart(), 0.5),
    "skip": lambda: wrappers.MaxAndSkipObservation(cart(), 2),
    "functions": lambda: wrappers.TransformReward(wrappers.ClipReward(cart(), 0), lambda r: 2 * r),
    "limit outside": lambda: wrappers.TimeLimit(wrappers.FlattenObservation(cart()), 4),
}
VECTORS = {
    "statistics": lambda envs: wrappers.vector.RecordEpisodeStatistics(envs),
    "normalised": lambda envs: wrappers.vector.NormalizeObservation(
        wrappers.vector.NormalizeReward(envs)
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_resume(name, tmp_path):
    check_resumed(WRAPPED[name], tmp_path, bins=2)


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("native", [False, True])
def test_wrappers_of_vectors_resume(name, native, tmp_path):
    def envs():
        if native:
            return VECTORS[name](gym.make_vec("CartPole-v1", 3, max_episode_steps=9))
        return VECTORS[name](gym.vector.SyncVectorEnv([cart] * 3))

    check_resumed(envs, tmp_path, bins=2)


class Counter(gym.Env):
    """Shows how many steps were taken, and lets a subclass say where that is written down."""

    observation_space, action_space = Box(0, np.inf, (1,)), Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def step(self, action):
        self.t += 1
        return self.look(), 0.0, self.t >= 9, False, {}

    def look(self):
        return np.float32([self.t])


class OfClass(Counter):
    taken = 0

    def look(self):
        type(self).taken += 1
        return np.float32([self.taken])


class Global(Counter):
    def look(self):
        return np.float32([np.random.rand()])


class Ordered(Counter):
    def __init__(self):
        self.free = {1, 2}


class Running(Counter):
    def __init__(self):
        self.ticks = count()


class Hiding(Counter):
    def __init__(self):
        self.space = Discrete(9)

    def look(self):
        return np.float32([self.space.sample()])


class Chain:
    def __init__(self, length):
        self.next = None
        for _ in range(length):
            link = Chain(0)
            link.next, self.next = self.next, link


class Deep(Counter):
    def __init__(self):
        self.chain = Chain(3_000)


class Failing(Told):
    def get_state(self):
        raise KeyError("where")


class Growing(Counter):
    def __init__(self):
        self.seen = [""] * 200_000


class Fragile(Counter):
    def step(self, action):
        raise ValueError("not this action")


def drawn_from_globals():
    """Where the global generators stand."""
    _, key, position, *gauss = np.random.get_state()
    return key.tolist(), position, gauss, random.getstate()


PLAYED_TWICE = r"20 random steps of \w+, played twice from one state, differ"
UNKEPT = {
    OfClass: PLAYED_TWICE,
    Global: PLAYED_TWICE,
    Hiding: PLAYED_TWICE,
    partial(Told, forgets=True): PLAYED_TWICE,
    Ordered: "Ordered.free is a set",
    Running: "Running.ticks is a count",
    Deep: "Deep holds objects within objects without end",
    Failing: r"Failing.get_state\(\) fails: KeyError: 'where'",
    Growing: "Growing.seen.*: too many values",
    Fragile: "20 random steps fail: .* not this action",
}


@pytest.mark.parametrize("env", UNKEPT)
def test_what_cannot_be_kept_is_named(env):
    envs = adapt(env())
    envs.reset(SEED)
    before = drawn_from_globals()
    with pytest.raises(AssertionError, match=UNKEPT[env]):
        assert not why_unkept(envs)
    assert get_state(envs) is None
    assert drawn_from_globals() == before


def test_every_kind_of_environment_is_looked_at():
    envs = Serial([Counter(), Counter(), Ordered()])
    envs.reset(SEED)
    assert why_unkept(envs) == "Ordered.free is a set"


def test_many_environments_share_what_a_checkpoint_holds(arrange):
    """What one could keep may be too much for thirty; that, too, is said before."""

    class Heavy(Counter):
        def __init__(self):
            self.names = [""] * 5000

    for n, unkept in ((3, False), (30, True)):
        envs = Serial([Heavy() for _ in range(n)])
        envs.reset(SEED)
        assert ("too many values" in why_unkept(envs)) == (get_state(envs) is None) == unkept


def test_looking_changes_nothing():
    """The run that was looked at and the one that was not are the same."""
    seen = []
    for looked in (False, True):
        envs = adapt(wrappers.RecordEpisodeStatistics(Everything()))
        envs.reset(SEED)
        if looked:
            assert why_unkept(envs) == ""
        seen.append([envs.step(np.array([i % 2])).next_obs[0, 0] for i in range(30)])
    assert seen[0] == seen[1]


def test_a_process_of_gymnasiums_own_is_said(arrange):
    envs = adapt(arrange("async NextStep", [cart] * 2))
    envs.reset(SEED)
    assert "vectorization='async'" in why_unkept(envs)


def test_a_history_that_has_grown_is_no_reason_to_stop():
    """What is too long for a checkpoint is left out of it."""
    envs = adapt(Counter())
    envs.reset(SEED)
    assert get_state(envs) is not None
    envs.envs[0].seen = [""] * 200_000
    assert get_state(envs) is None


@pytest.mark.parametrize("name", ["step", "reset", "not a name"])
def test_a_state_replaces_no_method(name):
    envs = adapt(Counter())
    envs.reset(SEED)
    state = copy.deepcopy(get_state(envs))
    state["rows"][0]["inner"][name] = 1
    with pytest.raises(UsageError, match=name):
        set_state(envs, state)


def test_objects_of_no_class_here_begin_new_episodes(caplog):
    """Nothing is imported for them, and the run goes on."""
    first, second = loop_of(Everything()), loop_of(Everything())
    first.reset(SEED)
    first.run(FIRST)
    state = copy.deepcopy(first.state_dict())
    (row,) = state["envs"]["rows"]
    row["inner"]["mood"] = {"$member": ["subprocess.Popen", "WILD"]}
    second.load_state_dict(state)
    assert "mood: there is no subprocess.Popen here; they begin new episodes" in caplog.text
    assert second.steps == FIRST and second.start.all()
    second.run(SECOND)


@pytest.mark.parametrize("env, said", [(Ordered, True), (Everything, False)])
def test_what_cannot_be_kept_is_said_before_training(env, said, tmp_path, monkeypatch, caplog):
    """And the run is what it is without the trial; a resumed one begins new episodes."""
    monkeypatch.chdir(tmp_path)
    gym.register("Mine-v0", env)
    words = ["--env", "Mine-v0", "--bins", "9", "--max-episode-steps", "5", "--eval-episodes", "0"]
    try:
        assert train.main([*words, "--steps", "50", "--agent", "sarsa", "--no-pictures"]) == 0
    finally:
        del gym.registry["Mine-v0"]
    lines = [line for line in caplog.messages if "cannot be kept" in line]
    assert len(lines) == said
    assert not said or ("(Ordered.free is a set)" in lines[0] and "get_state()" in lines[0])
