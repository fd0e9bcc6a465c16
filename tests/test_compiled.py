"""Compiled turns against stepped ones: the same run to the last bit, whatever is asked of it."""

import copy
import logging
import signal
import subprocess
import sys
from functools import cache

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.toy_text import FrozenLakeEnv
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from seqrl.agents import Boltzmann, EpsilonGreedy, MonteCarlo, QLearning, Reinforce, Sarsa
from seqrl.core import RunError
from seqrl.core.seeding import Streams
from seqrl.envs import Serial, finite, make
from seqrl.networks import MLP
from seqrl.scripts import train as script
from seqrl.training import Interaction, TensorBoard, run_to, train
from seqrl.training.loop import detect, interaction
from seqrl.training.runs import checkpoint

TASKS = {
    "lake": ("FrozenLake-v1", {}),
    "lake firm": ("FrozenLake-v1", {"is_slippery": False}),
    "lake 8x8": ("FrozenLake8x8-v1", {}),
    "lake 8x8 firm": ("FrozenLake8x8-v1", {"is_slippery": False}),
    "own map": ("FrozenLake-v1", {"desc": ["SFS", "FHF", "FFG"], "max_episode_steps": 7}),
    "own chances": ("FrozenLake-v1", {"success_rate": 0.7, "reward_schedule": (2, -1, -0.1)}),
    "cliff": ("CliffWalking-v1", {"max_episode_steps": 40}),
    "cliff without limit": ("CliffWalking-v1", {}),
    "cliff slippery": ("CliffWalkingSlippery-v1", {"max_episode_steps": 40}),
    "taxi": ("Taxi-v4", {}),
    "taxi in rain": ("Taxi-v4", {"is_rainy": True, "max_episode_steps": 30}),
    "garnet": ("seqrl/Garnet-v0", {"states": 12, "actions": 3, "branching": 2, "seed": 5}),
}
EXPLORATIONS = {
    "epsilon": EpsilonGreedy("linear:1:0.05:0.5"),
    "boltzmann": Boltzmann("exponential:1:0.1"),
}
SCHEDULES = ["0.3", "linear:0.9:0.1:0.5", "exponential:0.9:0.1", "inverse:0.9:0.1:200"]
STEPS = 430
task = pytest.mark.parametrize("task", TASKS)
rows = pytest.mark.parametrize("n", [1, 4])


@pytest.fixture(autouse=True)
def short_runs_are_compiled(monkeypatch):
    monkeypatch.setattr(interaction, "WORTHWHILE", 1)


class Book:
    """Every episode, in the order in which they were heard of."""

    def __init__(self):
        self.episodes = []

    def episode(self, loop, episode):
        self.episodes.append(episode)


@cache
def environments(name, n, role):
    """Environments of a task; who asks again for a role gets the same, as they were left."""
    env, options = TASKS[name]
    return make(env, n, **options)


def loop_of(new_agent, name, n, *, compile, role=0, before=0, **numbers):
    envs = environments(name, n, role)
    agent = new_agent(envs.single_observation_space, envs.single_action_space, **numbers)
    agent.steps = before  # of an earlier call
    agent.horizon = STEPS
    loop = Interaction(agent, envs, recorder=Book(), compile=compile)
    loop.reset(np.random.SeedSequence(3))
    return loop


def pairs_with_a_trace(agent):
    """For each environment, as they are listed; they are those whose trace is not 0."""
    m, found = agent.arrays, []
    for trace, pairs, count in zip(m.trace, m.pairs, m.traced, strict=True):
        found.append(sorted(pairs[:count].tolist()))
        assert found[-1] == np.flatnonzero(trace).tolist()
    return found


def assert_same(one, other):
    """Tables, weights, waiting steps, books, environments and random numbers of two runs."""
    for name, part in one.agent.arrays._asdict().items():
        # an episode's own room may differ: how far it was ever filled is not part of the run
        if name != "pairs":  # which come in another order from a checkpoint
            assert np.array_equal(part, getattr(other.agent.arrays, name)), name
    assert pairs_with_a_trace(one.agent) == pairs_with_a_trace(other.agent)
    assert one.recorder.episodes == other.recorder.episodes
    assert list(one.books.recent) == list(other.books.recent)
    books = [
        checkpoint.digest(
            [
                loop.fingerprint(),
                loop.obs,
                loop.start,
                loop.books.returns,
                loop.books.lengths,
                loop.agent.steps,
            ]
        )
        for loop in (one, other)
    ]
    assert books[0] == books[1]


def check_both_ways(new_agent, name, n, steps=STEPS, **numbers):
    stepped, compiled = (
        loop_of(new_agent, name, n, compile=way, role=way, **numbers) for way in (False, True)
    )
    for loop in (stepped, compiled):
        loop.run(steps)
    assert compiled.compiled and not stepped.compiled, compiled.path
    assert stepped.steps == steps
    assert_same(stepped, compiled)
    return stepped


def q_learning(*spaces, **numbers):
    return QLearning(*spaces, **{"learning_rate": 0.5, "seed": 7, **numbers})


@pytest.mark.parametrize("name, n", [("lake", 4), ("garnet", 1), ("cliff slippery", 1)])
def test_every_agent_is_the_same_compiled(new_agent, name, n):
    assert check_both_ways(new_agent, name, n).episodes > 0


def test_schedules_of_a_second_call_are_the_same_compiled():
    rates = {"learning_rate": "linear:0.9:0.1", "exploration": EpsilonGreedy("linear:1:0.1")}
    loop = check_both_ways(q_learning, "lake", 2, before=STEPS, **rates)
    assert loop.agent.origin == STEPS and loop.agent.steps == 2 * STEPS


@task
@rows
def test_every_task_is_the_same_compiled(task, n):
    check_both_ways(q_learning, task, n, n_step=2, exploration=EXPLORATIONS["epsilon"])


@pytest.mark.slow
@task
@rows
@pytest.mark.parametrize("exploration", EXPLORATIONS)
def test_all_together(new_agent, task, n, exploration):
    check_both_ways(new_agent, task, n, steps=1501, exploration=EXPLORATIONS[exploration])


@pytest.mark.parametrize("exploration", [EpsilonGreedy, Boltzmann])
@pytest.mark.parametrize("rate", SCHEDULES)
def test_every_schedule_is_the_same_compiled(rate, exploration):
    numbers = {"learning_rate": rate, "exploration": exploration(rate), "seed": 7}
    for cls in (Sarsa, MonteCarlo):
        check_both_ways(cls, "lake", 3, **numbers)


PLANS = {
    "compiled, compiled": [(201, True), (229, True)],
    "compiled, stepped": [(201, True), (229, False)],
    "stepped, compiled": [(201, False), (229, True)],
    "in turns": [(1, True), (2, False), (3, True), (5, True), (90, False), (329, True)],
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_run_goes_on_either_way(new_agent, plan):
    """Four rows: 201 steps end in the middle of a turn."""
    whole, parts = (loop_of(new_agent, "garnet", 4, compile=way, role=way) for way in (False, True))
    whole.run(STEPS)
    for steps, parts.compile in plan:
        parts.run(steps)
    assert parts.compiled
    assert_same(whole, parts)


@pytest.mark.parametrize("ways", [(True, False), (False, True), (True, True)])
def test_a_saved_run_goes_on_either_way(new_agent, ways):
    whole, first = (loop_of(new_agent, "cliff", 4, compile=way, role=way) for way in (False, True))
    second = loop_of(new_agent, "cliff", 4, compile=ways[1], role="fresh")
    whole.run(STEPS)
    first.compile = ways[0]
    first.run(201)
    saved = copy.deepcopy(first.state_dict())
    first.run(50)  # what was saved is no longer what the run holds
    second.load_state_dict(saved)
    second.recorder.episodes = first.recorder.episodes[: second.episodes]
    second.run(STEPS - 201)
    assert_same(whole, second)


@rows
@pytest.mark.parametrize("episodes", [1, 2, 13])
def test_episodes_end_a_run_at_the_same_turn(n, episodes):
    loops = [loop_of(q_learning, "lake", n, compile=way, role=way) for way in (False, True)]
    for loop in loops:
        run_to(loop, 10_000, episodes=episodes)
    assert episodes <= loops[0].episodes < episodes + n
    assert_same(*loops)


def test_who_wants_no_more_episodes_gets_one_turn_s():
    """A run that has them already goes on to the next end of an episode, both ways."""
    loops = [loop_of(q_learning, "lake", 1, compile=way, role=way) for way in (False, True)]
    for loop in loops:
        run_to(loop, 300)
        loop.stopped = False
        run_to(loop, 600, episodes=2)
    assert 300 < loops[0].steps < 600
    assert_same(*loops)


class Noting:
    """A callback that notes when it is called and what the run then is."""

    def __init__(self, every):
        self.every, self.noted = every, []

    def __call__(self, loop):
        self.noted.append((loop.steps, loop.books.episodes, checkpoint.digest(loop.fingerprint())))


@rows
def test_callbacks_see_the_same_run_at_the_same_steps(n):
    noted = []
    for way in (False, True):
        loop = loop_of(q_learning, "lake", n, compile=way, role=way)
        loop.callbacks = [Noting(7), Noting(50)]
        loop.run(STEPS)
        noted.append([callback.noted for callback in loop.callbacks])
    assert noted[0] == noted[1]
    assert [step for step, *_ in noted[0][1]][:2] == ([50, 100] if n == 1 else [52, 100])


def points(folder):
    """(step, tag, value) of every scalar but the speed."""
    (file,) = folder.glob("events.*")
    events = (Event.FromString(raw) for raw in RawEventFileLoader(str(file)).Load())
    return [
        (event.step, value.tag, value.simple_value)
        for event in events
        for value in event.summary.value
        if value.HasField("simple_value") and value.tag != "time/fps"
    ]


@rows
@pytest.mark.parametrize("agent", ["q-learning", "sarsa", "monte-carlo"])
def test_the_log_is_the_same(n, agent, tmp_path):
    words = f"--agent {agent} --env FrozenLake-v1 --steps 12001 --num-envs {n} --quiet".split()
    words += "--eval-every 5000 --eval-episodes 5".split()
    for way in ("--no-compile", "--debug"):
        assert script.main([*words, way, "--run-dir", str(tmp_path / way)]) == 0
    stepped, compiled = tmp_path / "--no-compile", tmp_path / "--debug"
    assert (stepped / "episodes.csv").read_bytes() == (compiled / "episodes.csv").read_bytes()
    assert points(stepped) == points(compiled)
    assert len(points(stepped)) > 1000
    ways = [(folder / "summary.json").read_text() for folder in (stepped, compiled)]
    assert ['"compiled": true' in way for way in ways] == [False, True]
    assert ["stepped: as asked for" in way for way in ways] == [True, False]
    digests = [way.partition('"digest": ')[2] for way in ways]
    assert digests[0] == digests[1] != ""
    assert "compile = false" in (stepped / "config.toml").read_text()


def test_a_thinned_spreadsheet_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("seqrl.training.runs.episodes_csv.ROWS", 20)
    texts = []
    for way in (False, True):
        loop = loop_of(q_learning, "lake", 1, compile=way, role=way)
        loop.recorder = logger = TensorBoard(tmp_path / str(way))
        logger.begin(loop, 6000)
        loop.run(6000)
        logger.close()
        texts.append((tmp_path / str(way) / "episodes.csv").read_bytes())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("size", [1, 7, 15, 90, 999])
def test_rows_in_one_go_are_those_one_by_one(size, tmp_path, monkeypatch):
    """Complete to 20, then every tenth, from 200 every hundredth, wherever a batch begins."""
    monkeypatch.setattr("seqrl.training.runs.episodes_csv.ROWS", 20)
    steps = np.arange(1, 1000)
    logger = TensorBoard(tmp_path)
    for part in np.split(steps, range(size, 999, size)):
        logger.episodes(part, part / 8, part % 5)
    logger.close()
    rows = (tmp_path / "episodes.csv").read_text().splitlines()[1:]
    kept = [*range(20), *range(20, 200, 10), *range(200, 999, 100)]
    assert rows == [f"{steps[k]},{float(steps[k]) / 8!r},{steps[k] % 5}" for k in kept]


def test_many_episodes_in_a_call(monkeypatch):
    """More than there is room for at once, and more steps than a call takes."""
    monkeypatch.setattr(detect, "MOST_EPISODES", 5)
    monkeypatch.setattr(detect, "CALL", 33)
    for n in (1, 4):
        check_both_ways(q_learning, "lake", n, steps=2003)


def test_an_episode_longer_than_the_room_for_its_steps():
    """Monte Carlo keeps whole episodes; the cliff's have no end but the goal."""
    envs = environments("cliff without limit", 2, True)
    loop = check_both_ways(
        lambda *spaces, **more: MonteCarlo(*spaces, seed=1, exploration=EpsilonGreedy(1.0)),
        "cliff without limit",
        2,
        steps=3001,
    )
    assert loop.agent.arrays.action.shape[1] > MonteCarlo.waiting_steps
    assert envs.num_envs == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM])
def test_an_interrupt_in_a_compiled_call_loses_nothing(new_agent, number, monkeypatch):
    """Python raises it when the call has come back."""
    from seqrl.training.loop import compiled

    def interrupted(*arguments):
        play(*arguments)
        signal.raise_signal(number)

    play = compiled.turns_each
    monkeypatch.setattr(detect, "CALL", 40)
    whole, parts = (loop_of(new_agent, "lake", 4, compile=True, role=way) for way in (False, True))
    whole.run(STEPS)
    parts.run(20)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(compiled, "turns_each", interrupted)
        parts.run(STEPS - 20)
    signal.signal(signal.SIGALRM, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert parts.steps == parts.agent.steps == 60
    parts.run(STEPS - 60)
    assert_same(whole, parts)


def test_train_has_the_choice(monkeypatch):
    ways = []
    monkeypatch.setattr(detect.CompiledTurns, "check", lambda turns: ways.append(True))
    ends = []
    for way in (False, True):
        envs = environments("lake", 1, way)
        agent = q_learning(envs.single_observation_space, envs.single_action_space)
        assert train(agent, envs, 500, seed=4, compile=way)["steps"] == 500
        assert bool(ways) is way
        ends.append(checkpoint.digest([agent.state_dict(), envs.envs[0].unwrapped.s]))
    assert ends[0] == ends[1]


# what is stepped, and why


def lake(**options):
    return gym.make("FrozenLake-v1", **options)


class OwnLake(FrozenLakeEnv):
    """May draw other numbers."""


class OwnLearning(QLearning):
    """May learn otherwise."""


def table(envs, cls=QLearning, **numbers):
    return cls(envs.single_observation_space, envs.single_action_space, **numbers)


def reason(envs, agent=table):
    envs = Serial(envs) if isinstance(envs, list) else envs
    loop = Interaction(agent(envs), envs)
    loop.run(50)
    assert not loop.compiled
    assert loop.steps == 50
    return loop.path


def other_model():
    env = lake()
    env.unwrapped.P[0][0] = env.unwrapped.P[0][1]
    return env


MODELS = "publishes no model"
STEPPED = {
    "subclass": (lambda: [TimeLimit(OwnLake(), 100)], table, MODELS),
    "unknown wrapper": (lambda: [RecordEpisodeStatistics(lake())], table, MODELS),
    "two limits": (lambda: [TimeLimit(lake(), 3)], table, MODELS),
    "fickle": (lambda: [gym.make("Taxi-v4", fickle_passenger=True)], table, MODELS),
    "blackjack": (lambda: [gym.make("Blackjack-v1")], table, MODELS),
    "vector": (lambda: gym.make_vec("FrozenLake-v1", 2), None, "Vector environments"),
    "models": (lambda: [lake(), other_model()], table, "different models"),
    "limits": (lambda: [lake(), lake(max_episode_steps=3)], table, "different time limits"),
    "some limit": (lambda: [lake(), lake(max_episode_steps=-1)], table, "different time limits"),
    "drawn": (lambda: [lake(render_mode="ansi")], table, "drawn"),
    "agent": (lambda: [lake()], lambda envs: table(envs, OwnLearning), "OwnLearning is no tabular"),
    "stream": (
        lambda: [lake()],
        lambda envs: table(envs, seed=np.random.Generator(np.random.MT19937(1))),
        "PCG64",
    ),
    "larger table": (
        lambda: [lake()],
        lambda envs: QLearning(gym.spaces.Discrete(17), envs.single_action_space),
        "not those of the model",
    ),
    "larger actions": (
        lambda: [lake()],
        lambda envs: Sarsa(
            gym.spaces.Discrete(16), gym.spaces.Discrete(3, start=1), exploration=EpsilonGreedy(0.5)
        ),
        "not those of the model",
    ),
}


@pytest.mark.parametrize("case", STEPPED)
def test_what_may_differ_is_stepped(case):
    envs, agent, why = STEPPED[case]
    envs = envs()
    if agent is None:
        agent = table_of_vector
    assert why in reason(envs, agent)


def table_of_vector(envs):
    return QLearning(envs.single_observation_space, envs.single_action_space)


def test_a_space_with_several_starts_is_no_obstacle(counting):
    """MultiDiscrete has a `start` that is an array."""
    env = counting([(3, True, False)], view="discrete")
    env.observation_space = gym.spaces.MultiDiscrete([40, 2])
    env.view = lambda x: np.array([x, 0])
    assert MODELS in reason([env], lambda envs: table(envs, exploration=EpsilonGreedy(0.5)))


def test_a_table_too_small_is_refused_and_writes_nowhere():
    env = make("FrozenLake8x8-v1")
    agent = QLearning(gym.spaces.Discrete(16), env.single_action_space)
    with pytest.raises(RunError, match="is not of"):
        Interaction(agent, env).run(50_000)


def test_short_runs_and_those_asked_for_are_stepped(monkeypatch):
    monkeypatch.setattr(interaction, "WORTHWHILE", 100)
    envs = make("FrozenLake-v1")
    for compile, why in ((True, "below"), (False, "as asked for")):
        loop = Interaction(table(envs), envs, compile=compile)
        loop.run(99)
        assert not loop.compiled
        assert loop.path.startswith("stepped: ") and why in loop.path
    space = envs.single_observation_space
    policy = Reinforce(MLP(space), envs.single_action_space, space, device="cpu")
    assert "Reinforce is no tabular agent" in Interaction(policy, envs).path


def test_playing_and_cutting_are_stepped():
    envs = make("FrozenLake-v1")
    for options in ({"learn": False}, {"max_episode_steps": 5}):
        loop = Interaction(table(envs), envs, **options)
        loop.run(200)
        assert not loop.compiled


# a model that is no longer the one that was read


def change(env):
    env.unwrapped.P[0][0][0] = (0.5, 0, 0.0, False)


@pytest.mark.parametrize("when", ["between", "under way", "of the second"])
def test_a_model_changed_after_the_start_is_noticed(when):
    envs = make("FrozenLake-v1", 2)
    loop = Interaction(table(envs), envs)
    if when == "under way":

        class Changing(Noting):
            def __call__(self, loop):
                change(envs.envs[0])

        loop.callbacks = [Changing(90)]
    else:
        loop.run(50)
        change(envs.envs[when == "of the second"])
    with pytest.raises(RunError, match="P was changed after the start"):
        loop.run(100)


def test_a_model_is_tabulated_once_and_looked_at_once_a_run(monkeypatch):
    """Of 2,000 states x 16 actions a look takes 0.07 s; to tabulate it twice a run took 0.35."""
    tabulated, looked = [], []
    real_tabulate, real_look = finite.tabulate, detect.check_unchanged
    monkeypatch.setattr(finite, "tabulate", lambda *a: tabulated.append(1) or real_tabulate(*a))
    monkeypatch.setattr(detect, "check_unchanged", lambda *a: looked.append(1) or real_look(*a))
    envs = make("FrozenLake-v1")
    loop = Interaction(table(envs), envs)
    loop.run(50)
    assert loop.compiled and (len(tabulated), len(looked)) == (1, 1)
    loop.run(50)
    assert (len(tabulated), len(looked)) == (1, 3)  # before and after


def test_wrong_models_are_refused_before_a_step():
    envs = make("FrozenLake-v1")
    change(envs.envs[0])
    loop = Interaction(table(envs), envs)
    with pytest.raises(ValueError, match=r"P\[0\]\[0\]: probabilities sum to 1.16"):
        loop.run(100)
    assert loop.steps == 0


# random numbers, compilation, memory


def test_streams_are_numpy_s_to_the_last_bit():
    from seqrl.training.loop import compiled

    rng = Streams.of(5).agent
    theirs, ours = np.random.default_rng(rng), np.random.default_rng(rng)
    words = np.zeros(4, np.uint64)
    compiled.read_stream(ours, words)
    numbers = draw_many(words, 10_000)
    assert np.array_equal(numbers, theirs.random(10_000))
    compiled.write_stream(ours, words)
    assert ours.bit_generator.state == theirs.bit_generator.state


def draw_many(words, n):
    """Draws of the compiled stream: what a call of `turns` would make."""
    import numba

    from seqrl.training.loop import compiled

    @numba.njit
    def fill(words, numbers):
        stream = compiled.Stream(words)
        for i in range(len(numbers)):
            numbers[i] = stream.random()

    numbers = np.zeros(n)
    fill(words, numbers)
    return numbers


def test_the_first_compilation_is_said_once(monkeypatch, caplog):
    from seqrl.training.loop import compiled

    envs = make("FrozenLake-v1")
    with caplog.at_level(logging.WARNING, "seqrl"):
        Interaction(table(envs), envs).run(50)
        caplog.clear()
        Interaction(table(envs), envs).run(50)
        assert not caplog.messages
        monkeypatch.setattr(compiled, "ready", lambda: False)
        Interaction(table(envs), envs).run(50)
    assert caplog.messages == ["seqrl: compiling the loop, once, about 10 s"]


def test_a_change_of_any_compiled_source_is_noticed(monkeypatch):
    """Numba itself would look at one file only."""
    from seqrl.training.loop import compiled

    before = compiled.stamp()
    monkeypatch.setattr(compiled.compilable, "modules", lambda: [table])
    assert 0 < len(compiled.stamp()) < len(before)


SOAK = """
import resource, sys
from seqrl.agents import QLearning
from seqrl.envs import make
from seqrl.training import Interaction, TensorBoard

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * resource.getpagesize()

envs = make("FrozenLake-v1")
agent = QLearning(envs.single_observation_space, envs.single_action_space, seed=0)
logger = TensorBoard(sys.argv[1])
loop = Interaction(agent, envs, recorder=logger)
loop.reset()
agent.horizon = 12_000_000
logger.begin(loop, 12_000_000)
loop.run(2_000_000)
before = resident()
loop.run(10_000_000)
logger.close()
print(loop.compiled, loop.steps, loop.books.episodes, resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_million_steps_take_no_more_memory_and_a_bounded_disk(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SOAK, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    compiled, steps, episodes, grown = done.stdout.split()
    assert (compiled, steps) == ("True", "12000000"), done.stderr
    assert int(grown) < 5_000_000
    written = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert written < 2_000_000 + 20 * min(int(episodes), 1_000_000)
