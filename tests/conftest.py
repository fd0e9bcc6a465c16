"""Toy environments, layouts and agents that the conformance suites share, as fixtures."""

import logging
import signal
import sys

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from seqrl.agents import Boltzmann, EpsilonGreedy, MonteCarlo, QLearning, Sarsa
from seqrl.core.errors import UsageError
from seqrl.envs import Serial, Workers, make
from tests import apart

# worker processes cannot import the tests
cloudpickle.register_pickle_by_value(sys.modules[__name__])
# files that take long are begun first by several workers: none is left with one at the end
LONG = ("checkpointer", "docs", "policy_gradient", "hostile", "cases", "scripts", "ppo")


def pytest_collection_modifyitems(config, items):
    if not hasattr(config, "workerinput"):
        return
    names = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: names.get(item.path.name, len(LONG)))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test marked `apart` in a process of its own."""
    if pyfuncitem.get_closest_marker("apart") is None:
        return None
    given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    module = f"tests.{pyfuncitem.path.stem}"
    if found := apart.failure(module, pyfuncitem.originalname, given):
        pytest.fail(found, pytrace=False)
    return True


NESTED = spaces.Dict(
    {
        "a": spaces.Box(0, 100, (1,), np.float32),
        "b": spaces.Tuple((spaces.Discrete(40), spaces.MultiDiscrete([40, 2]))),
    }
)
VIEWS = {
    "discrete": (spaces.Discrete(40), lambda x: x),
    "shifted": (spaces.Discrete(40, start=5), lambda x: x + 5),
    "box": (spaces.Box(0, 100, (2,), np.float32), lambda x: np.array([x, x / 2], np.float32)),
    # the keys come in another order than the space's, as they may
    "nested": (NESTED, lambda x: {"b": (x, np.array([x, x % 2])), "a": np.float32([x])}),
}


class Counting(gym.Env):
    """Counts its steps and ends episodes as a script of (length, terminated, truncated) says.

    Step t of episode e shows 10 (e mod 3) + t and pays 100 e + 10 t + action (counted from 0).
    `row` rotates the script, so that no two rows are alike.
    """

    def __init__(self, script, row=0, view="discrete", flag=bool, reuse=False, first=0):
        self.observation_space, self.view = VIEWS[view]
        self.action_space = spaces.Discrete(3, start=first)
        self.script, self.row, self.flag = script, row, flag
        self.buffer = self.view(0) if reuse else None
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = seed
        self.episode, self.t = self.episode + 1, 0
        self.end = self.script[(self.episode + self.row) % len(self.script)]
        return self.look(), {}

    def step(self, action):
        self.t += 1
        length, terminated, truncated = self.end
        over = self.t == length
        reward = 100 * self.episode + 10 * self.t + int(action - self.action_space.start)
        return (
            self.look(),
            reward,
            self.flag(over and terminated),
            self.flag(over and truncated),
            {},
        )

    def look(self):
        seen = self.view(10 * (self.episode % 3) + self.t)
        if self.buffer is None:
            return seen
        self.buffer[:] = seen
        return self.buffer


class Faulty(Counting):
    """At step `at`, counted over all episodes, `break_(self, outcome)` stands for the outcome."""

    def __init__(self, script, break_, at=4, **options):
        super().__init__(script, **options)
        self.break_, self.left = break_, at

    def step(self, action):
        self.left -= 1
        outcome = super().step(action)
        return outcome if self.left else self.break_(self, outcome)


SYNC = [f"sync {mode.value}" for mode in AutoresetMode]
ASYNC = [f"async {mode.value}" for mode in AutoresetMode]
KINDS = {"sync": SyncVectorEnv, "async": AsyncVectorEnv}
EPSILON, RATE = EpsilonGreedy(0.3), 0.5
AGENTS = {
    "q": (QLearning, {}),
    "q double": (QLearning, {"double": True}),
    "q n-step": (QLearning, {"n_step": 3}),
    "q double n-step": (QLearning, {"double": True, "n_step": 3}),
    "q traces": (QLearning, {"trace_decay": 0.8}),
    "q replacing": (QLearning, {"trace_decay": 0.8, "trace": "replacing"}),
    "q boltzmann": (QLearning, {"exploration": Boltzmann(0.05)}),
    "sarsa": (Sarsa, {}),
    "sarsa expected": (Sarsa, {"expected": True}),
    "sarsa n-step": (Sarsa, {"n_step": 3}),
    "sarsa expected n-step": (Sarsa, {"expected": True, "n_step": 3}),
    "sarsa traces": (Sarsa, {"trace_decay": 0.8}),
    "sarsa expected replacing": (
        Sarsa,
        {"expected": True, "trace_decay": 0.8, "trace": "replacing"},
    ),
    "mc first": (MonteCarlo, {"learning_rate": None}),
    "mc every": (MonteCarlo, {"learning_rate": None, "first_visit": False}),
    "mc constant": (MonteCarlo, {}),
    "mc off-policy": (MonteCarlo, {"learning_rate": None, "off_policy": True}),
}


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C raises KeyboardInterrupt, in the job of a shell too, which ignores it otherwise."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def heard():
    """A script's --quiet sets the level of the logger for whoever comes after."""
    logging.getLogger("seqrl").setLevel(logging.NOTSET)


@pytest.fixture
def counting():
    return Counting


@pytest.fixture
def faulty():
    return Faulty


@pytest.fixture(params=["single", "serial", *SYNC])
def layout(request):
    """How environments are put side by side; a single one is one row."""
    return request.param


@pytest.fixture(scope="module")
def arrange():
    """A function from a layout and makers of single environments to what the loop takes."""
    opened = []

    def arranged(layout, makers):
        if layout == "single":
            envs = makers[0]()
        elif layout == "serial":
            envs = Serial([make() for make in makers])
        elif layout == "workers":
            envs = Workers(makers)
        else:
            kind, mode = layout.split()
            envs = KINDS[kind](makers, autoreset_mode=mode)
        opened.append(envs)
        return envs

    yield arranged
    for envs in opened:
        envs.close()


@pytest.fixture(params=AGENTS)
def new_agent(request):
    """A function that makes every tabular agent and option, in turn."""
    cls, options = AGENTS[request.param]

    def make(observation_space, action_space, **more):
        numbers = {"learning_rate": RATE, "exploration": EPSILON, "seed": 7, **options, **more}
        return cls(observation_space, action_space, **numbers)

    return make


@pytest.fixture
def refused():
    """Check that an environment with such options is refused in one line."""

    def check(said, env_id, **options):
        with pytest.raises(UsageError, match=said) as no:
            make(env_id, 2, **options)
        assert "\n" not in str(no.value)

    return check
