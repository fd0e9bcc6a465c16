"""Resume: run N, copy all state into fresh objects, run M equals run N + M to the last bit."""

import copy
from functools import cache, partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from seqrl.agents import QLearning, TableIndex
from seqrl.core import Decision
from seqrl.envs import adapt, get_state, make, set_state
from seqrl.training import Interaction
from seqrl.training.loop.evaluation import Evaluator
from seqrl.training.runs import checkpoint

# environment, its arguments, bins of a real dimension
TASKS = {
    "FrozenLake": ("FrozenLake-v1", {}, None),
    "CliffWalking": ("CliffWalking-v1", {"max_episode_steps": 8}, None),
    "Taxi": ("Taxi-v4", {"max_episode_steps": 8, "fickle_passenger": True}, None),
    "Blackjack": ("Blackjack-v1", {}, None),
    "CartPole": ("CartPole-v1", {"max_episode_steps": 9}, 3),
    "MountainCar": ("MountainCar-v0", {"max_episode_steps": 7}, 4),
    "Acrobot": ("Acrobot-v1", {"max_episode_steps": 7}, 2),
}
CONTINUOUS = ["Pendulum-v1", "MountainCarContinuous-v0"]
SHORT = {"short": ("CartPole-v1", {"max_episode_steps": 3}, 3)}
LAYOUTS = ("single", "serial", "workers", "sync NextStep", "sync SameStep", "sync Disabled")
NATIVE = "native"
FIRST, SECOND = 35, 24  # with three environments both end in the middle of a turn
task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module")
def build(arrange):
    """A function that makes the environments of a task in a layout.

    Whoever asks again for the same `role` gets the same, with what was played there before: what
    is left behind may make no difference.
    """

    @cache
    def built(layout, name, role):
        env, options, _ = (TASKS | SHORT)[name]
        if layout == NATIVE:
            return make(env, 3, **options)
        return arrange(layout, [partial(gym.make, env, **options)] * 3)

    return built


def loop_of(new_agent, envs, bins):
    envs = adapt(envs)
    index = TableIndex(envs.single_observation_space, bins)
    agent = new_agent(index, envs.single_action_space)
    agent.horizon = 200
    return Interaction(agent, envs)


def bits(loop):
    """The digest of everything that two equal runs have in common, and of the books beside it."""
    books = [
        loop.obs,
        loop.start,
        loop.books.returns,
        loop.books.lengths,
        [list(pair) for pair in loop.books.recent],
    ]
    return checkpoint.digest([loop.fingerprint(), books])


def check_resumed(new_agent, build, layout, name, carry=copy.deepcopy):
    whole, first, second = (
        loop_of(new_agent, build(layout, name, role), TASKS[name][2]) for role in range(3)
    )
    whole.reset(np.random.SeedSequence(5))
    whole.run(FIRST + SECOND)
    first.reset(np.random.SeedSequence(5))
    first.run(FIRST)
    saved = carry(first.state_dict())
    first.run(7)  # what was saved is no longer what the run holds
    second.load_state_dict(saved)
    second.run(SECOND)
    assert whole.steps == second.steps == FIRST + SECOND
    assert whole.episodes == second.episodes
    assert bits(whole) == bits(second)


@task
def test_a_resumed_run_is_the_same_run(task, layout, new_agent, build):
    check_resumed(new_agent, build, layout, task)


def test_a_native_vector_resumes(new_agent, build):
    check_resumed(new_agent, build, NATIVE, "CartPole")


@task
@pytest.mark.parametrize("layout", ["serial", "sync NextStep"])
def test_a_run_goes_on_from_a_file(task, layout, build, tmp_path):
    def through_a_file(state):
        checkpoint.save(tmp_path / "state", state)
        return checkpoint.load(tmp_path / "state")

    agent = partial(QLearning, n_step=3, seed=7)
    check_resumed(agent, build, layout, task, through_a_file)


def test_the_digest_tells_runs_apart(new_agent, build):
    """By a single step, by the agent's stream and by the environments' seed."""
    digests = []
    for steps, agent_seed, seed in ((50, 7, 5), (50, 7, 5), (51, 7, 5), (50, 8, 5), (50, 7, 6)):
        loop = loop_of(new_agent, build("serial", "FrozenLake", 0), None)
        loop.agent.reseed(agent_seed)
        loop.reset(np.random.SeedSequence(seed))
        loop.run(steps)
        digests.append(checkpoint.digest(loop.fingerprint()))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


class Swinging:
    """Continuous actions of its own making, so that the environments' state is looked at alone."""

    horizon = None

    def __init__(self):
        self.turns = 0
        self.seen = []

    def act(self, obs, start, state=None, *, explore=True):
        self.turns += 1
        return Decision(np.sin(self.turns + np.arange(len(start)))[:, None].astype(np.float32))

    def learn(self, step):
        self.seen += [step.obs.copy(), step.reward.copy(), step.next_obs.copy()]
        return {}

    def state_dict(self):
        return {"turns": self.turns}

    def load_state_dict(self, state):
        self.turns = state["turns"]


@pytest.mark.parametrize("env", CONTINUOUS)
def test_continuous_environments_resume(env, layout, arrange):
    def loop():
        envs = arrange(layout, [partial(gym.make, env, max_episode_steps=20)] * 3)
        return Interaction(Swinging(), envs)

    whole, first, second = loop(), loop(), loop()
    for each in (whole, first):
        each.reset(np.random.SeedSequence(5))
    whole.run(120)
    first.run(60)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.run(60)
    assert whole.episodes == second.episodes > 2
    tail = whole.agent.seen[len(first.agent.seen) :]
    assert len(tail) == len(second.agent.seen) > 0
    assert all(map(np.array_equal, tail, second.agent.seen))


@pytest.mark.parametrize("layout", [*LAYOUTS, NATIVE])
def test_resuming_at_every_step(layout, build):
    """No matter where a run is interrupted, also between an end and its filler."""

    def loop(role):
        made = loop_of(QLearning, build(layout, "short", role), bins=3)
        made.reset(np.random.SeedSequence(role))
        made.agent.reseed(role)
        return made

    whole = loop(0)
    whole.run(25)
    expected = bits(whole)
    for at in range(1, 25):
        first, second = loop(0), loop(1)
        first.run(at)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        second.run(25 - at)
        assert bits(second) == expected, at


class Noting:
    every = 10

    def __init__(self):
        self.called = []

    def __call__(self, loop):
        self.called.append(loop.steps)

    def state_dict(self):
        return {"called": list(self.called)}

    def load_state_dict(self, state):
        self.called = list(state["called"])


@pytest.mark.parametrize("at", [29, 30, 31])
def test_callbacks_go_on_where_they_were(at, build):
    def loop():
        envs = make("FrozenLake-v1", 3)
        agent = QLearning(envs.single_observation_space, envs.single_action_space, seed=0)
        evaluator = Evaluator(build("serial", "FrozenLake", 0), 4, every=20)
        return Interaction(agent, envs, callbacks=[Noting(), evaluator])

    first, second = loop(), loop()
    first.reset(np.random.SeedSequence(5))
    first.run(at)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.run(60 - at)
    assert second.callbacks[0].called == [12, 21, 30, 42, 51, 60]
    assert second.callbacks[1].last[0] == 60


@pytest.mark.parametrize("wrap", [None, "wrapper", "unknown", "async"])
def test_what_is_not_known_begins_new_episodes(wrap, counting, arrange):
    """The agent keeps all it learned, and no step is credited across the gap."""

    def loop():
        script = [(4, False, True)]
        makers = [partial(gym.make, "FrozenLake-v1")] * 2
        if wrap == "wrapper":
            envs = gym.wrappers.TransformReward(gym.make("FrozenLake-v1"), lambda reward: reward)
            envs.seen = {1, 2}  # whose order is not kept
        elif wrap == "unknown":
            envs = counting(script)
            envs.seen = {1, 2}
        else:
            envs = arrange("async SameStep" if wrap else "serial", makers)
        envs = adapt(envs)
        agent = QLearning(envs.single_observation_space, envs.single_action_space, n_step=3, seed=0)
        return Interaction(agent, envs)

    first, second = loop(), loop()
    first.reset(np.random.SeedSequence(5))
    first.run(21)
    assert not first.start.all()
    assert (get_state(first.envs) is None) == (wrap is not None)
    saved = copy.deepcopy(first.state_dict())
    second.load_state_dict(saved)
    assert second.steps == 21 and checkpoint.digest(second.agent.state_dict()) == (
        checkpoint.digest(saved["agent"])
    )
    assert second.start.all() == (wrap is not None)
    second.run(20)
    assert second.steps == 41 == second.agent.steps


def test_a_method_of_that_name_is_not_taken_for_ours(counting):
    """Other people's environments also have a `get_state`, which means something else."""

    class Board(counting):
        def get_state(self, player):
            return [player]

    envs = adapt(Board([(2, True, False)]))
    envs.reset(np.random.SeedSequence(1))
    assert get_state(envs)["rows"][0]["inner"]["episode"] == 0


@task
def test_the_state_holds_nothing_live(task, build):
    """A deep copy of an environment's state does not move on with it."""
    envs = adapt(build("sync Disabled", task, 0))
    envs.reset(np.random.SeedSequence(1))
    saved = copy.deepcopy(get_state(envs))
    seen = []
    for _ in range(2):
        outcomes = [envs.step(np.zeros(3, int)) for _ in range(30)]
        seen.append([checkpoint.digest([o.next_obs, o.reward, o.obs]) for o in outcomes])
        set_state(envs, copy.deepcopy(saved))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_can_begin_anew_right_after(layout, build):
    first, second = (adapt(build(layout, "CliffWalking", role)) for role in range(2))
    n = first.num_envs
    first.reset(np.random.SeedSequence(1))
    second.reset(np.random.SeedSequence(2))
    before = first.step(np.zeros(n, int))
    set_state(second, copy.deepcopy(get_state(first)))
    mask = np.arange(n) == 0
    expected, found = first.restart(mask, before), second.restart(mask, before)
    assert found.obs.tolist() == expected.obs.tolist() == [36] + [24] * (n - 1)


def test_time_limits_inside_one_another():
    def envs():
        return adapt(TimeLimit(TimeLimit(gym.make("CliffWalking-v1").unwrapped, 5), 3))

    first, second = envs(), envs()
    first.reset(np.random.SeedSequence(1))
    first.step(np.array([0]))
    second.reset()
    set_state(second, copy.deepcopy(get_state(first)))
    ends = [second.step(np.array([0])).truncated[0] for _ in range(5)]
    assert ends == [False, True, False, False, True]
