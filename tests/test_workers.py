"""Environments in processes: the same bits as in this one, and every way in which one can go."""

import copy
import ctypes
import os
import signal
import subprocess
import sys
import time
import uuid
from functools import partial
from pathlib import Path

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest

from seqrl.agents import QLearning, TableIndex
from seqrl.core import RunError, UsageError
from seqrl.core.seeding import ints
from seqrl.envs import Workers, adapt, get_state, make, may_never_end, set_state, time_limit
from seqrl.training import Interaction
from seqrl.training.runs import checkpoint

cloudpickle.register_pickle_by_value(sys.modules[__name__])
SEED = np.random.SeedSequence(5)
LONG = [(1000, True, False)]


def crash():
    ctypes.string_at(0)


def fork_and_die():
    """Leave behind a copy of the process that holds its pipe."""
    if os.fork():
        os._exit(0)
    time.sleep(1000)


def hang_in_c():
    """Hang where no other thread and no signal handler of this process can run."""
    ctypes.PyDLL(None).sleep(1000)


DEATHS = {
    "killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), "was ended by SIGKILL"),
    "segmentation fault": (crash, "was ended by SIGSEGV"),
    "exit": (lambda: os._exit(3), "ended with exit code 3"),
    "python exit": (lambda: sys.exit(4), "ended with exit code 4"),
    "copied": (fork_and_die, "ended with exit code 0"),
}
HANGS = {
    "asleep": lambda: time.sleep(1000),
    "in C": hang_in_c,
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


class Once:
    """An accident that happens to the first who comes by; it is a file, as memory is not shared."""

    def __init__(self, path, what):
        self.path, self.what = str(path), what

    def __call__(self):
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        self.what()


@pytest.fixture
def hire():
    """A function that makes Workers, closed at the end."""
    opened = []

    def hired(makers, **options):
        opened.append(Workers(makers, **options))
        return opened[-1]

    yield hired
    for envs in opened:
        envs.close()
        assert not any(alive(worker.process.pid) for worker in envs.envs)


@pytest.fixture
def accident(faulty):
    """Makers of three environments; in row 1, at its fourth step, something happens."""

    def makers(what, script=LONG, **options):
        def break_(env, outcome):
            what()
            return outcome

        quiet = partial(faulty, script, lambda env, outcome: outcome, **options)
        return [quiet, partial(faulty, script, break_, **options), quiet]

    return makers


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone, or gone since it was opened
        return False


def loop_of(envs, bins=None, **options):
    index = TableIndex(adapt(envs).single_observation_space, bins)
    agent = QLearning(index, adapt(envs).single_action_space, n_step=3, seed=7)
    return Interaction(agent, envs, compile=False, **options)


def bits(loop):
    return checkpoint.digest(
        [loop.fingerprint(), loop.obs, loop.start, loop.books.returns, loop.books.lengths]
    )


# ---- the same bits


@pytest.mark.parametrize(
    ("env", "bins", "limit"),
    [("FrozenLake-v1", None, None), ("Blackjack-v1", None, None), ("CartPole-v1", 3, 5)],
)
def test_a_run_in_processes_is_the_same_run(env, bins, limit):
    """Also where the loop cuts episodes, and where one goes on from the other's checkpoint."""
    serial, workers = (
        loop_of(make(env, 3, vectorization=way), bins, max_episode_steps=limit)
        for way in ("serial", "async")
    )
    for loop in (serial, workers):
        loop.reset(SEED)
        loop.run(100)
    assert serial.envs.seeds == workers.envs.seeds
    assert serial.episodes == workers.episodes > 5
    assert bits(serial) == bits(workers)
    saved = [copy.deepcopy(loop.state_dict()) for loop in (workers, serial)]
    serial.run(31)
    expected = bits(serial)
    for loop, state in zip((serial, workers), saved, strict=True):
        loop.load_state_dict(state)
        loop.run(31)
        assert bits(loop) == expected
    workers.envs.close()


def test_what_the_environments_tell_of_themselves(hire):
    envs = make("CliffWalking-v1", 2, vectorization="async", max_episode_steps=9)
    assert (envs.num_envs, time_limit(envs), may_never_end(envs)) == (2, 9, False)
    assert envs.single_observation_space == gym.spaces.Discrete(48)
    envs.close()
    envs = make("CliffWalking-v1", vectorization="async")
    assert may_never_end(envs)
    envs.close()


class Restless(gym.Env):
    """What it shows depends on all steps ever taken in its process."""

    observation_space = gym.spaces.Box(0, np.inf, (1,))
    action_space = gym.spaces.Discrete(2)
    taken = np.zeros(1)  # of the class, so in no state

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.float32(self.taken), {}

    def step(self, action):
        self.taken[0] += 1
        return np.float32(self.taken), 0.0, False, False, {}


def test_states_that_are_not_known(hire, caplog):
    envs = hire([Restless])
    envs.reset(SEED)
    assert get_state(envs) is None


def test_a_state_that_does_not_fit_is_refused(hire):
    envs = hire([partial(gym.make, "FrozenLake-v1")] * 2)
    envs.reset(SEED)
    state = copy.deepcopy(get_state(envs))
    state["rows"][1]["inner"]["s"] = 99
    with pytest.raises(UsageError, match="envs"):
        set_state(envs, state)


# ---- death


@pytest.mark.parametrize("kind", DEATHS)
def test_a_dead_worker_is_named_at_once(kind, hire, accident):
    what, said = DEATHS[kind]
    envs = hire(accident(what))
    loop = loop_of(envs)
    loop.reset(SEED)
    began = time.monotonic()
    with pytest.raises(RunError) as caught:
        loop.run(100)
    assert time.monotonic() - began < 2  # a step takes under a millisecond
    message, action = str(caught.value)[:-1], str(caught.value)[-1]
    named = f"at env step 10: environment 1 (seed {envs.seeds[1]}): its process "
    assert message.startswith(named) and said in message
    assert message.endswith(" at action ") and action in "012"
    assert loop.steps == 9
    check_gone(envs, loop)


def check_gone(envs, loop):
    """Nothing is left to talk to, and a checkpoint can still be written."""
    with pytest.raises(RunError, match="have ended; make new ones"):
        envs.step(np.zeros(3, int))
    deadline = time.monotonic() + 2
    while any(alive(worker.process.pid) for worker in envs.envs) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(alive(worker.process.pid) for worker in envs.envs)
    assert get_state(envs) is None
    assert loop.state_dict()["envs"] is None


@pytest.mark.parametrize("kind", HANGS)
def test_a_hung_worker_is_named_in_time(kind, hire, accident):
    envs = hire(accident(HANGS[kind]), timeout=0.5)
    loop = loop_of(envs)
    loop.reset(SEED)
    began = time.monotonic()
    with pytest.raises(RunError, match=r"environment 1 \(seed \d+\): no answer for 0.5 s at act"):
        loop.run(100)
    assert 0.5 <= time.monotonic() - began < 1.5
    check_gone(envs, loop)


def test_a_death_is_noticed_while_another_is_slow(hire, faulty):
    def wait(env, outcome):
        time.sleep(1.5)

    def die(env, outcome):
        os._exit(1)

    envs = hire([partial(faulty, LONG, what, at=1) for what in (wait, die)])
    envs.reset(SEED)
    began = time.monotonic()
    with pytest.raises(RunError, match="environment 1"):
        envs.step(np.zeros(2, int))
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("at", ["reset", "later reset", "making"])
def test_a_death_outside_of_a_step(at, hire, counting):
    class Dying(counting):
        def __init__(self):
            super().__init__([(2, True, False)])
            if at == "making":
                os._exit(7)

        def reset(self, *, seed=None, options=None):
            if self.episode == {"reset": -1, "later reset": 1}.get(at):
                os._exit(7)
            return super().reset(seed=seed)

    with pytest.raises(RunError) as caught:
        envs = hire([partial(counting, [(2, True, False)]), Dying])
        envs.reset(SEED)
        for _ in range(9):
            envs.step(np.zeros(2, int))
    when = "while it was made" if at == "making" else "at "
    assert f": its process ended with exit code 7 {when}" in str(caught.value)
    assert str(caught.value).startswith("environment 1")


def test_what_cannot_be_made(hire, counting):
    class Bad(counting):
        def __init__(self):
            raise OSError("no licence")

    with pytest.raises(UsageError, match="environment 1 cannot be made: OSError: no licence"):
        hire([partial(counting, LONG), Bad])
    for options in ({"timeout": 0}, {"timeout": float("nan")}, {"restarts": -1}, {"restarts": 0.5}):
        with pytest.raises(UsageError, match=f"worker {next(iter(options))} "):
            hire([partial(counting, LONG)], **options)
    with pytest.raises(UsageError, match="restart_workers 2: there are no processes to replace"):
        make("FrozenLake-v1", 2, restart_workers=2)
    with pytest.raises(UsageError, match=r"environment 0 cannot be made: .*unexpected keyword"):
        make("FrozenLake-v1", 2, vectorization="async", colour=1)


class Unreadable:
    def __reduce__(self):
        return int, ("many",)


@pytest.mark.parametrize(
    ("obs", "reward", "said"),
    [
        (lambda: np.zeros(3, np.float32), 1, "observation [0. 0. 0.] of shape (3,) is not of Box"),
        (lambda: np.float32([1, np.nan]), 1, "observation [1.0, nan] is not finite"),
        (lambda: np.zeros(2, np.float32), None, "reward None: expected one number"),
        (lambda: np.zeros(2, np.float32), np.nan, "reward nan"),
        (Unreadable, 1, "ValueError: invalid literal for int()"),
        (lambda: lambda: 0, 1, "Can't pickle"),
    ],
    ids=["shape", "nan", "no reward", "reward", "unreadable", "unwritable"],
)
def test_nonsense_is_named(obs, reward, said, hire, faulty):
    def break_(env, outcome):
        return obs(), reward, False, False, {}

    envs = hire([partial(faulty, LONG, break_, at=at, view="box") for at in (99, 4)])
    envs.reset(SEED)
    with pytest.raises(RunError) as caught:
        for _ in range(9):
            envs.step(np.array([0, 2]))
    assert f"environment 1 (seed {envs.seeds[1]}): " in str(caught.value)
    assert said in str(caught.value) and str(caught.value).endswith(" at action 2")


def test_the_traceback_of_an_error_is_kept(hire, accident):
    def stumble():
        raise LookupError("lost the way")

    envs = hire(accident(stumble))
    envs.reset(SEED)
    with pytest.raises(RunError, match="LookupError: lost the way at action 0") as caught:
        for _ in range(9):
            envs.step(np.zeros(3, int))
    assert "in stumble" in caught.value.__cause__.__notes__[0]


def test_an_interrupted_step_leaves_no_answer_behind(hire, faulty):
    envs = hire([partial(faulty, LONG, lambda env, outcome: time.sleep(0.6), at=1)])
    envs.reset(SEED)

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            envs.step(np.zeros(1, int))
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(RunError, match="have ended"):
        envs.reset(SEED)


def test_a_dead_process_of_gymnasium_is_named(accident, arrange):
    """Theirs raise EOFError or BrokenPipeError, and closing them hangs."""
    for kind in ("killed", "exit"):
        what, said = DEATHS[kind]
        envs = adapt(arrange("async Disabled", accident(what)))
        envs.reset(SEED)
        with pytest.raises(RunError) as caught:
            for _ in range(9):
                envs.step(np.array([0, 2, 0]))
        named = f"environment AsyncVectorEnv 1 (seed {envs.seeds[1]}): its process {said}"
        assert str(caught.value).startswith(named)
        assert str(caught.value).endswith(" at action 2")
        envs.close()


# ---- replacement


class Watching(QLearning):
    """Keeps what it is given."""

    def learn(self, step):
        self.__dict__.setdefault("steps_seen", []).append(step)
        return super().learn(step)


def run_with_restarts(hire, makers, steps=60, **options):
    envs = hire(makers, **options)
    agent = Watching(envs.single_observation_space, envs.single_action_space, n_step=3, seed=7)
    loop = Interaction(agent, envs)
    loop.reset(SEED)
    loop.run(steps)
    return loop


@pytest.mark.parametrize("kind", ["killed", "asleep"])
def test_a_lost_worker_is_replaced(kind, hire, accident, tmp_path, caplog):
    """The step under way is none, the episode is cut, and all of it happens again alike."""
    what = DEATHS[kind][0] if kind in DEATHS else HANGS[kind]
    found = []
    for attempt in range(2):
        once = Once(tmp_path / str(attempt), what)
        makers = accident(once, script=[(6, True, False)])
        loop = run_with_restarts(hire, makers, timeout=0.5, restarts=1)
        found.append(bits(loop))
    assert found[0] == found[1]
    assert loop.steps == 60 == loop.agent.steps and loop.envs.restarts == 0
    old, new = ints(SEED, 3), loop.envs.seeds
    assert new[1] != old[1] and [new[0], new[2]] == [old[0], old[2]]
    lost = [t for t, step in enumerate(loop.agent.steps_seen) if not step.valid.all()]
    assert lost == [3, len(loop.agent.steps_seen) - 1]  # the last turn is cut to 60 steps
    step, after = loop.agent.steps_seen[3:5]
    assert step.valid.tolist() == [True, False, True]
    assert step.truncated.tolist() == after.start.tolist() == [False, True, False]
    assert step.reward[1] == 0 and not step.terminated.any()
    assert {length for _, length in loop.books.recent} == {6}  # none has the lost steps
    assert [line.count("environment 1 (seed ") for line in caplog.messages] == [1, 1]


def test_after_the_last_restart_the_run_fails(hire, accident, caplog):
    """Every replacement dies as the first did."""
    with pytest.raises(RunError, match=r"at env step \d+: environment 1 \(seed \d+\): its process"):
        run_with_restarts(hire, accident(DEATHS["exit"][0]), restarts=2)
    assert [line.rpartition("; ")[2] for line in caplog.messages] == [
        "replaced, 1 more may be",
        "replaced, 0 more may be",
    ]


def test_a_replacement_that_dies_at_its_reset_is_replaced(hire, counting, tmp_path):
    first, second = (Once(tmp_path / name, DEATHS["killed"][0]) for name in "ab")

    class Unlucky(counting):
        def step(self, action):
            first()
            return super().step(action)

        def reset(self, *, seed=None, options=None):
            if os.path.exists(first.path):
                second()
            return super().reset(seed=seed)

    loop = run_with_restarts(hire, [partial(Unlucky, LONG)], steps=10, restarts=2)
    assert loop.envs.restarts == 0 and loop.steps == 10


def test_who_stops_between_two_steps(hire, accident, caplog):
    """Its state cannot be had, which is no reason to end the run; the next step replaces it."""
    envs = hire([partial(gym.make, "FrozenLake-v1")] * 3, timeout=0.3, restarts=1)
    envs.reset(SEED)
    os.kill(envs.envs[1].process.pid, signal.SIGSTOP)
    assert get_state(envs) is None
    outcome = envs.step(np.zeros(3, int))
    assert outcome.valid.tolist() == [True, False, True]
    assert outcome.real == 2 and outcome.ended
    assert get_state(envs) is not None
    assert envs.step(np.zeros(3, int)).valid.all()


def test_an_answer_that_comes_too_late_is_dropped(hire, counting):
    class Slow(counting):
        @property
        def mood(self):
            time.sleep(0.3)
            return "sleepy"

    envs = hire([partial(Slow, LONG)] * 2, restarts=1)
    envs.reset(SEED)
    assert envs.each(getattr, ["mood"] * 2) == ["sleepy"] * 2
    os.kill(envs.envs[0].process.pid, signal.SIGKILL)
    with pytest.raises(RunError, match=r"environment 0 .* between two steps"):
        envs.each(getattr, ["mood"] * 2)
    outcome = envs.step(np.array([1, 2]))
    assert outcome.valid.tolist() == [False, True]
    assert outcome.next_obs.tolist() == [0, 1] and outcome.reward.tolist() == [0, 12]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_for_the_run_to_understand(number, hire, counting):
    """A scheduler sends them to every process of a job, whose run then saves."""
    envs = hire([partial(counting, LONG)])
    envs.reset(SEED)
    for _ in range(3):
        os.kill(envs.envs[0].process.pid, number)
        assert envs.step(np.zeros(1, int)).real == 1


def test_environments_are_closed_before_their_processes_end(hire, counting, tmp_path):
    class Closing(counting):
        def __init__(self, row):
            super().__init__(LONG)
            self.note = tmp_path / str(row)

        def close(self):
            time.sleep(0.3)
            self.note.touch()

    envs = hire([partial(Closing, i) for i in range(2)])
    envs.reset(SEED)
    envs.close()
    assert len(list(tmp_path.iterdir())) == 2


# ---- no orphans

SCRIPT = """
import ctypes, os, signal, subprocess, sys, time
import gymnasium as gym, numpy as np
from seqrl.envs import Workers

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits it ignored

class Own(gym.Env):  # defined in the script, which has no guard either
    observation_space, action_space = gym.spaces.Discrete(2), gym.spaces.Discrete(2)

    def __init__(self, row):
        self.row = row
        self.simulator = subprocess.Popen(["sleep", "1000"])

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        if self.row == 1 and action:
            ctypes.PyDLL(None).sleep(1000)
        if self.row == 2 and action:
            time.sleep(1000)
        return 0, 0.0, False, False, {}

    def close(self):
        self.simulator.terminate()
        self.simulator.wait()

envs = Workers([lambda i=i: Own(i) for i in range(3)], timeout=float(sys.argv[2]))
envs.reset(np.random.SeedSequence(1))
for _ in range(20):
    envs.step(np.zeros(3, int))
print("ready", flush=True)
if sys.argv[1] == "exit":
    sys.exit(0)
if sys.argv[1] == "exception":
    envs.spoil()
if sys.argv[1] == "hung":
    envs.step(np.ones(3, int))
while True:
    envs.step(np.zeros(3, int))
"""


def marked(mark):
    """The processes that carry a mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes() and alive(path.parent.name):
                found.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" "))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass
    return found


def check_no_orphans(tmp_path, how, number=None, timeout=60.0):
    """Run the script, end it in some way; what it wrote to stderr."""
    script, mark = tmp_path / "script.py", uuid.uuid4().hex
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), how, str(timeout)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SEQRL_MARK": mark, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    if number is not None:
        time.sleep(0.3)
        assert len(marked(mark)) >= 8  # the guard, workers, simulators, and what Python adds
        # Ctrl-C and a scheduler mean the group, kill -9 one process
        (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
    process.wait(timeout=10)
    deadline = time.monotonic() + 5
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marked(mark) == []
    with process.stdout, process.stderr:
        return process.stderr.read()


slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize("how", ["exit", slow("exception"), slow("steps"), "hung"])
def test_no_orphans(how, tmp_path):
    """At the end, an error, kill -9 while healthy, and kill -9 while two workers hang."""
    number = signal.SIGKILL if how in ("steps", "hung") else None
    said = check_no_orphans(tmp_path, how, number)
    assert said.count("Traceback") == (how == "exception")


@pytest.mark.slow
def test_a_hung_run_ends_without_orphans(tmp_path):
    said = check_no_orphans(tmp_path, "hung", timeout=0.5)
    assert said.splitlines()[-1].endswith("no answer for 0.5 s at action 1")


@pytest.mark.parametrize("number", [signal.SIGINT, slow(signal.SIGTERM)], ids=["INT", "TERM"])
def test_signals_end_the_run_without_tracebacks_of_workers(number, tmp_path):
    said = check_no_orphans(tmp_path, "steps", number)
    assert said.count("Traceback") == (number == signal.SIGINT)  # the run's own
    assert "forkserver" not in said


def test_close_is_patient_with_nobody(hire, faulty):
    envs = hire([partial(faulty, LONG, lambda env, o: time.sleep(1000), at=1)], timeout=0.2)
    envs.reset()
    with pytest.raises(RunError):
        envs.step(np.zeros(1, int))
    began = time.monotonic()
    envs.close()
    envs.close()
    assert time.monotonic() - began < 1


# ---- figures


@pytest.mark.slow
def test_a_hundred_accidents(faulty, tmp_path, capsys):
    """Dead within 1 s, hung within its timeout + 1 s, at random moments; nobody is left."""
    rng = np.random.default_rng(0)
    dead, hung, pids = [], [], []
    for trial in range(100):
        kinds = {name: what for name, (what, _) in DEATHS.items()} if trial % 2 else HANGS
        what = list(kinds.values())[rng.integers(len(kinds))]
        stamp = time.monotonic  # one clock for all processes

        def break_(env, outcome, what=what, stamp=stamp):
            env.note.write_text(str(stamp()))
            what()
            return outcome

        row, at = rng.integers(3), int(rng.integers(1, 200))
        note = tmp_path / str(trial)

        def maker(i, row=row, at=at, break_=break_, note=note):
            env = faulty(LONG, break_, at=at if i == row else 10**9, view="box")
            env.note = note
            return env

        envs = Workers([partial(maker, i) for i in range(3)], timeout=0.5)
        envs.reset(SEED)
        with pytest.raises(RunError, match=rf"environment {row} "):
            for _ in range(300):
                envs.step(np.zeros(3, int))
        (dead if trial % 2 else hung).append(time.monotonic() - float(note.read_text()))
        pids += [worker.process.pid for worker in envs.envs] + [envs._watchdog.process.pid]
        envs.close()
    time.sleep(1)
    left = [pid for pid in pids if alive(pid)]
    with capsys.disabled():
        print(f"\ndead {max(dead):.3f} s, hung {max(hung) - 0.5:.3f} s + timeout, {left} left")
    assert max(dead) < 1 and max(hung) < 1.5 and not left


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(20))
def test_twenty_kills_of_the_run(trial, tmp_path):
    check_no_orphans(tmp_path, "hung" if trial % 2 else "steps", signal.SIGKILL)
