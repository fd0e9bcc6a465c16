"""The commands as a user types them: what they do, and what they say to bad input."""

import inspect
import json
import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from seqrl import training
from seqrl.agents.arguments import agent_parameters
from seqrl.agents.factory import build_network
from seqrl.agents.registry import AGENTS, agent_class
from seqrl.agents.schedules import Schedule, linear
from seqrl.agents.tabular import tabular_agent
from seqrl.agents.tabular.policy import EPSILON, TEMPERATURE
from seqrl.core import UsageError
from seqrl.envs.making import time_limit
from seqrl.scripts import command, evaluate, options, running, train, values
from seqrl.scripts import list as listing
from seqrl.training.runs import checkpoint, device_choice
from seqrl.training.runs import folder as runs
from seqrl.training.runs import parts as building
from seqrl.training.runs.tensorboard import TensorBoard

ROOT = Path(__file__).resolve().parents[1]
SHORT = ["--eval-episodes", "0", "--quiet"]
CONSTANT = ["--epsilon", "0.5", "--learning-rate", "0.1"]

MODULE = """
import gymnasium as gym, numpy as np
from gymnasium import spaces

class Env(gym.Env):
    observation_space, action_space = spaces.Discrete(5), spaces.Discrete(2)

    def __init__(self, fault="", at=30):
        self.fault, self.left, self.s = fault, at, 0
        if fault == "made":
            raise OSError("no such device")
        if fault == "huge":
            self.observation_space = spaces.MultiDiscrete([10**6, 10**6])
        if fault == "text":
            self.observation_space = spaces.Text(5)
        if fault in ("nan seen", "inf seen"):
            self.observation_space = spaces.Box(-9, 9, (1,), np.float32)

    def see(self, fault=""):
        if isinstance(self.observation_space, spaces.Box):
            return np.float32([{"nan seen": np.nan, "inf seen": np.inf}.get(fault, self.s)])
        return self.s

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.fault == "reset":
            raise OSError("no door")
        self.s = 0
        return self.see(), {}

    def step(self, action):
        self.left -= 1
        fault = "" if self.left else self.fault
        if fault == "raises":
            raise ZeroDivisionError("division by zero")
        reward = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "none": None}.get(fault, 1.0)
        self.s = max(0, min(4, self.s + 2 * int(action) - 1))
        if fault == "outside":
            self.s = 77
        return self.see(fault), reward, self.s == 4, False, {}

gym.register("Faulty-v0", Env, max_episode_steps=20)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def mine(here):
    """A module of the user's in the current folder, and how to name its environment."""
    (here / "my_envs.py").write_text(MODULE)
    yield "my_envs:Faulty-v0"
    sys.modules.pop("my_envs", None)
    gym.registry.pop("Faulty-v0", None)


@pytest.fixture
def type_(capsys):
    """A function that runs a script in this process: status, stdout, stderr."""

    def typed(script, *words):
        try:
            status = script.main([str(word) for word in words])
        except SystemExit as end:  # --help
            status = end.code
        return status, *capsys.readouterr()

    return typed


def test_scripts_without_an_agents_flags_name_no_agent_that_has_one(type_, here):
    assert "It is a flag of" not in type_(evaluate, "r", "--epsilon", 0.1)[2]


@pytest.mark.parametrize("agent, told", [("reinforce", True), ("ppo", False)])
def test_few_updates_are_told_with_the_way_on(agent, told, type_, here):
    words = "--env Pendulum-v1 --steps 10000 --num-envs 4 --eval-episodes 0 --preset none"
    status, out, _ = type_(train, "--agent", agent, *words.split())
    line = "updates in 10,000 steps; episodes are 200 long: more environments (--num-envs) or "
    assert status == 0 and (line in out) == told


@pytest.mark.parametrize(
    ("agent", "steps", "told"),
    [
        ("sac", 60, ": more --steps, or a smaller --learning-starts (1,000)"),
        ("sac --learning-starts 0 --train-every 100", 60, ": more --steps, or a smaller --train-e"),
        ("ppo", 60, ": more --steps, or a smaller --rollout (128)"),
        ("ppo --episodes 1 --max-episode-steps 9", 60, ": more --episodes, or a smaller --roll"),
        ("ppo", 128, None),
    ],
)
def test_a_run_without_an_update_says_so(agent, steps, told, type_, here):
    words = f"--agent {agent} --env Pendulum-v1 --eval-episodes 0 --preset none --steps {steps}"
    status, out, _ = type_(train, *words.split())
    done = 9 if "--max-episode-steps 9" in agent else steps
    line = f"no update in {done} env steps, nothing was learned"
    assert status == 0 and (f"{line}{told}" in out if told else line not in out)
    assert "smaller --steps" not in out


@pytest.fixture
def process(here):
    """A function that starts a script as a process of its own; none outlives its test."""
    running = ExitStack()

    def start(*words, script="train", **kwargs):
        words = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": here}
        run = running.enter_context(subprocess.Popen(words, **{**pipes, **kwargs}))
        running.callback(run.kill)
        return run

    with running:
        yield start


def in_new_python(code, cwd):
    """What a program prints, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def left_behind(here):
    return sorted(path.name for path in here.iterdir() if path.name != "__pycache__")


def only_run(here):
    (config,) = (here / "runs").rglob("config.toml")
    return config.parent


def q_of(folder):
    return checkpoint.load(runs.checkpoints(folder)[0])["loop"]["agent"]["arrays"]["q"]


def parts_of(*words):
    """What the words are built into."""
    return building.build(train.make_config(train.make_parser(words).read(words)))


# what a run leaves


def test_a_run_leaves_what_the_design_lists(here, type_):
    status, out, err = type_(train, "--steps", 2000, "--seed", 3, "--eval-episodes", 20)
    folder = here / "runs/FrozenLake-v1/q-learning/seed-3"
    names = sorted(path.name for path in folder.iterdir())
    assert [re.sub(r"tfevents\..*", "tfevents", name) for name in names] == [
        "checkpoint",
        "config.toml",
        "episodes.csv",
        "evaluation.npz",
        "events.out.tfevents",
        "summary.json",
    ]
    assert runs.checkpoints(folder)[0].name == "step-000000002000.ckpt"
    assert (status, err) == (0, "")
    assert "success rate" in out and "95 % interval" in out and "20 greedy episodes" in out
    assert re.search("\n(  [←↓→↑HG] [←↓→↑HG] [←↓→↑HG] [←↓→↑HG].*\n){4}\n", out)
    assert "saved in  runs/FrozenLake-v1/q-learning/seed-3\n" in out
    assert re.search(r"see it: +\S*tensorboard --logdir runs\n", out)


def test_the_summary_has_every_key_and_true_numbers(here, type_):
    type_(train, "--steps", 2000, "--seed", 3, "--eval-episodes", 20, "--quiet", "--num-envs", 3)
    folder = only_run(here)
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) >= set(
        "agent env seed steps episodes seconds steps_per_second ep_rew_mean eval_mean_reward "
        "compiled device versions digest".split()
    )
    facts = {"agent": "q-learning", "env": "FrozenLake-v1", "seed": 3, "steps": 2000}
    assert facts.items() <= summary.items()
    rows = [line.split(",") for line in (folder / "episodes.csv").read_text().splitlines()[1:]]
    assert summary["episodes"] == len(rows) > 100
    assert summary["ep_rew_mean"] == np.mean([float(total) for _, total, _ in rows[-100:]])
    speed = summary["steps"] / summary["seconds"]
    assert summary["steps_per_second"] == pytest.approx(speed) and summary["seconds"] > 0
    assert 0 <= summary["eval_mean_reward"] <= 1 and summary["device"] == "cpu"
    assert re.fullmatch("[0-9a-f]{64}", summary["digest"]) and "numpy" in summary["versions"]


def test_the_config_is_written_before_anything_else(here, type_, monkeypatch):
    def spy(self, folder, real=TensorBoard.__init__, **more):
        assert {path.name for path in folder.iterdir()} == {"config.toml", "lock"}
        real(self, folder, **more)

    monkeypatch.setattr(TensorBoard, "__init__", spy)
    words = ["--steps", 50, "--gamma", "0.5", "--env-arg", "map_name=8x8", "--double"]
    assert type_(train, *words, *SHORT)[0] == 0
    config = runs.read_config(only_run(here))
    assert config["agent_args"]["gamma"] == 0.5 and config["agent_args"]["double"] is True
    assert config["agent_args"]["epsilon"] == "linear:1:0.05:0.5"
    assert config["env_args"] == {"map_name": "8x8"}


def test_quiet_prints_nothing_and_no_evaluation_is_said(here, type_):
    assert type_(train, "--steps", 60, *SHORT) == (0, "", "")
    assert json.loads((only_run(here) / "summary.json").read_text())["eval_mean_reward"] is None


def test_a_second_run_gets_a_suffix_and_equals_the_first(here, type_):
    for _ in range(3):
        type_(train, "--steps", 300, *SHORT)
    home = here / "runs/FrozenLake-v1/q-learning"
    assert sorted(path.name for path in home.iterdir()) == ["seed-0", "seed-0.1", "seed-0.2"]
    digests = {json.loads(path.read_text())["digest"] for path in home.glob("*/summary.json")}
    assert len(digests) == 1


def test_run_dir_names_the_folder_and_must_be_new_or_empty(here, type_):
    assert type_(train, "--steps", 50, "--run-dir", "mine", *SHORT)[0] == 0
    assert left_behind(here) == ["mine"] and (here / "mine/summary.json").exists()
    before = (here / "mine/summary.json").read_bytes()
    status, out, err = type_(train, "--steps", 60, "--run-dir", "mine", *SHORT)
    assert (status, out) == (2, "") and "mine is not empty" in err
    assert (here / "mine/summary.json").read_bytes() == before


def test_episodes_stop_a_run_and_steps_are_exact(here, type_):
    type_(train, "--episodes", 7, "--steps", 5000, *SHORT)
    assert json.loads((only_run(here) / "summary.json").read_text())["episodes"] == 7
    type_(train, "--run-dir", "b", "--steps", 101, "--num-envs", 4, *SHORT)
    assert json.loads((here / "b/summary.json").read_text())["steps"] == 101


RUNS_TWICE = {
    "table": "--num-envs 2",
    "processes": "--num-envs 2 --processes",
    "dropout": "--agent reinforce --env CartPole-v1 --network lstm --network-arg dropout=0.3 "
    "--network-arg layers=2 --network-arg hidden_size=8 --deterministic --num-envs 2",
}


@pytest.mark.parametrize("kind", RUNS_TWICE)
def test_same_seed_same_digest_in_fresh_processes(here, process, kind):
    """Whatever the folder, the language and the order of Python's sets."""
    digests = {}
    cases = {
        "a": (5, {"PYTHONHASHSEED": "1"}),
        "deep/er": (5, {"PYTHONHASHSEED": "2", "LC_ALL": "C", "TZ": "Asia/Tokyo"}),
        "c": (6, {}),
    }
    for name, (seed, more) in cases.items():
        (here / name).mkdir(parents=True)
        words = ["--steps", 1500, "--seed", seed, "--run-dir", "r", *SHORT]
        done = process(
            *words, *RUNS_TWICE[kind].split(), cwd=here / name, env={**os.environ, **more}
        )
        assert done.communicate() == ("", "") and done.returncode == 0
        digests[name] = json.loads((here / name / "r/summary.json").read_text())["digest"]
    assert digests["a"] == digests["deep/er"] != digests["c"]


def test_processes_give_the_same_bits(here, type_):
    for name, words in (("a", []), ("b", ["--processes"])):
        type_(train, "--steps", 900, "--num-envs", 3, "--run-dir", name, *words, *SHORT)
    one, other = (json.loads((here / name / "summary.json").read_text()) for name in "ab")
    assert one["digest"] == other["digest"]


def test_the_installed_command_is_the_same_code(here, type_):
    seqrl = Path(sys.executable).with_name("seqrl")
    words = ["train", "--steps", "500", "--run-dir", "a", *SHORT]
    done = subprocess.run([seqrl, *words], cwd=here, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    type_(train, "--steps", 500, "--run-dir", "b", *SHORT)
    one, other = (json.loads((here / name / "summary.json").read_text()) for name in "ab")
    assert one["digest"] == other["digest"]
    listed = subprocess.run([seqrl, "list"], cwd=here, capture_output=True, text=True)
    # other tests have registered environments in this process
    assert set(listed.stdout.splitlines()) <= set(type_(listing)[1].splitlines())


def test_a_run_ended_by_episodes_says_what_its_schedules_ran_over(here, type_):
    words = ["--episodes", 3, "--eval-episodes", 0, "--no-compile"]
    assert "schedules run over --steps 5,000, of which" in type_(train, "--steps", 5000, *words)[1]
    assert "schedules" not in type_(train, "--steps", 5, *words)[1]


# flags

FLAGS = {
    "q-learning": [
        ("--learning-rate 0.25", lambda a: a.learning_rate, Schedule("constant", 0.25, 0.25)),
        ("--learning-rate linear:0.5:0.1", lambda a: a.learning_rate, linear(0.5, 0.1)),
        ("--gamma 0.5", lambda a: a.options.gamma, 0.5),
        ("--epsilon 0.3", lambda a: a.exploration, (EPSILON, Schedule("constant", 0.3, 0.3))),
        (
            "--epsilon exponential:0.9:0.1:0.25",
            lambda a: a.exploration,
            (EPSILON, Schedule("exponential", 0.9, 0.1, 0.25)),
        ),
        (
            "--temperature inverse:2:0.5:1000",
            lambda a: a.exploration,
            (TEMPERATURE, Schedule("inverse", 2, 0.5, 1000)),
        ),
        ("--double", lambda a: a.options.double, True),
        ("--double --no-double", lambda a: a.options.double, False),
        ("--n-step 3", lambda a: a.options.n_step, 3),
        ("--trace-decay 0.7", lambda a: a.options.decay, 0.7),
        ("--trace replacing", lambda a: a.options.replacing, True),
        ("--initial-value -2.5", lambda a: a.q.tolist(), [[-2.5] * 4] * 16),
        ("--initial-value -1e2", lambda a: a.q[3, 1], -100),
    ],
    "sarsa": [
        ("--learning-rate 0.25", lambda a: a.learning_rate, Schedule("constant", 0.25, 0.25)),
        ("--gamma 0.5", lambda a: a.options.gamma, 0.5),
        ("--epsilon 0.3", lambda a: a.exploration, (EPSILON, Schedule("constant", 0.3, 0.3))),
        ("--temperature 2", lambda a: a.exploration, (TEMPERATURE, Schedule("constant", 2, 2))),
        ("--expected", lambda a: a.options.expected, True),
        ("--no-expected", lambda a: a.options.expected, False),
        ("--n-step 4", lambda a: a.options.n_step, 4),
        ("--trace-decay 0.7", lambda a: a.options.decay, 0.7),
        ("--trace replacing", lambda a: a.options.replacing, True),
        ("--initial-value 2", lambda a: a.q.tolist(), [[2] * 4] * 16),
    ],
    "monte-carlo": [
        ("--learning-rate 0.25", lambda a: a.options.average, False),
        ("--learning-rate 0.25", lambda a: a.learning_rate, Schedule("constant", 0.25, 0.25)),
        ("--learning-rate none", lambda a: a.options.average, True),
        ("--gamma 0.5", lambda a: a.options.gamma, 0.5),
        ("--epsilon 0.3", lambda a: a.exploration, (EPSILON, Schedule("constant", 0.3, 0.3))),
        ("--temperature 2", lambda a: a.exploration, (TEMPERATURE, Schedule("constant", 2, 2))),
        ("--no-first-visit", lambda a: a.options.first_visit, False),
        ("--first-visit", lambda a: a.options.first_visit, True),
        ("--off-policy", lambda a: a.options.off_policy, True),
        ("--initial-value 2", lambda a: a.q.tolist(), [[2] * 4] * 16),
    ],
}
CASES = [(agent, *case) for agent, cases in FLAGS.items() for case in cases]


@pytest.mark.parametrize(
    ("agent", "words", "read", "expected"), CASES, ids=[f"{a} {words}" for a, words, *_ in CASES]
)
def test_what_is_typed_reaches_the_agent(agent, words, read, expected):
    assert read(parts_of("--agent", agent, *words.split()).agent) == expected


@pytest.mark.parametrize("agent", FLAGS)
def test_no_flag_of_an_agent_is_missing_above(agent):
    tried = " ".join(words for words, *_ in FLAGS[agent])
    for name in agent_parameters(agent_class(agent)):
        assert "--" + name.replace("_", "-") in tried


@pytest.mark.parametrize("agent", FLAGS)
def test_without_flags_an_agent_is_as_its_class_has_it(agent):
    typed = parts_of("--agent", agent).agent
    cls = agent_class(agent)
    assert type(typed) is cls
    plain = cls(gym.spaces.Discrete(16), gym.spaces.Discrete(4))
    for name in ("options", "exploration", "learning_rate"):
        assert getattr(typed, name) == getattr(plain, name)
    assert np.array_equal(typed.q, plain.q)


def test_shared_flags_reach_the_environments_and_the_index():
    words = "--env CartPole-v1 --num-envs 3 --max-episode-steps 33 --bins 4 --tiles 2 --bin-range"
    parts = parts_of(*words.split(), "1=-2:2", "--env-arg", "sutton_barto_reward=True")
    assert parts.envs.num_envs == 3 and time_limit(parts.envs) == 33
    index = parts.agent.index
    assert (index.bins, index.tiles, index.low[1], index.width[1]) == (4, 2, -2, 1)
    assert parts.envs.envs._sutton_barto_reward is True
    one = parts_of("--env-arg", "map_name=8x8", "--env-arg", "is_slippery=False").envs.envs[0]
    assert one.unwrapped.desc.shape == (8, 8) and one.spec.kwargs["is_slippery"] is False


def test_underscores_equals_signs_and_other_names_mean_the_same():
    plain = "--agent sarsa --env Taxi-v4 --steps 70 --num-envs 2 --learning-rate 0.3 --no-expected"
    other = "--algo=sarsa --env_id Taxi-v4 --total_timesteps=70 --num_envs=2 --learning_rate 0.3"
    third = "--algo sarsa --env-id=Taxi-v4 --total-timesteps 70 --num-envs=2 --learning-rate=0.3"
    read = [
        train.make_config(train.make_parser(words).read(words))
        for words in (plain.split(), [*other.split(), "--no_expected"], third.split())
    ]
    assert read[0] == read[1] == read[2] and read[0]["steps"] == 70


def test_the_last_of_two_agents_counts():
    words = ["--agent", "q-learning", "--agent", "sarsa", "--expected"]
    assert train.make_config(train.make_parser(words).read(words))["agent_args"]["expected"] is True


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("8x8", "8x8"),
        ("3", 3),
        ("1e-3", 1e-3),
        ("True", True),
        ("'True'", "True"),
        ("['SF', 'FG']", ["SF", "FG"]),
        ("(1, 2)", (1, 2)),
        ("{'a': 1}", {"a": 1}),
        ("a=b", "a=b"),
        ("[1", "[1"),
        ("__import__('os')", "__import__('os')"),
    ],
)
def test_environment_arguments_are_python_literals_else_texts(typed, value):
    assert values.pair(f"x={typed}") == ("x", value)


@pytest.mark.parametrize("agent", FLAGS)
def test_help_of_an_agent_has_default_and_meaning_of_every_argument(type_, agent):
    status, out, err = type_(train, "--agent", agent, "--help")
    assert (status, err) == (0, "")
    cls = agent_class(agent)
    flags = dict(re.findall(r"^  (--[a-z-]+)(?: X|, --no-[a-z-]+)\s+(\S.*)$", out, re.M))
    own = set(inspect.signature(cls).parameters) - {"observation_space", "action_space", "seed"}
    for name in own - {"exploration"} | {"epsilon", "temperature"}:
        line = flags["--" + name.replace("_", "-")]
        meaning, default = re.fullmatch(r"(.+) \(default: (.*?)\)", line).groups()
        assert len(meaning) > 10 and "default" not in meaning and meaning[-1] != "."
        if name in own:
            assert default == str(inspect.signature(cls).parameters[name].default)
    assert "--env " in out and "--seed " in out


def test_help_shows_a_default_once_where_a_preset_or_a_file_moves_it(type_, tmp_path):
    words = ("--agent", "q-learning", "--network", "mlp", "--help")
    _, out, _ = type_(train, *words, "--env", "FrozenLake-v1")
    out = " ".join(out.split())
    assert re.search(r"--n-step X [^-]*\) \(default: 1\) --", out) and "(default: 3)" not in out
    (tmp_path / "x.toml").write_text("[agent_args]\ndouble = false\n")
    _, out, _ = type_(train, *words, "--config", tmp_path / "x.toml")
    assert re.search(r"--no-double the [^(]*\(default: False\)", " ".join(out.split()))


def test_plain_help_names_the_shared_flags(type_):
    for words in (["--help"], ["-h"], ["--env", "x", "--help"]):
        status, out, _ = type_(train, *words)
        assert status == 0 and "--agent NAME --help" in out and "--double" not in out
    shared = "agent env steps episodes seed num-envs env-arg max-episode-steps bins bin-range tiles"
    for flag in [*shared.split(), "eval-every", "eval-episodes", "logdir", "run-dir", "quiet"]:
        assert re.search(rf"^  --{flag}\b.* \S", out, re.M), flag
    assert type_(command, "--help")[1].count("\n") >= 4


@pytest.mark.parametrize("script", ["train", "evaluate", "list", "command"])
def test_help_imports_neither_torch_nor_gymnasium(here, script):
    code = f"""
import sys
from seqrl.scripts.{script} import main
try:
    main(["--help"])
except SystemExit:
    pass
print(sorted({{"torch", "gymnasium", "numba", "tensorboard", "tqdm"}} & set(sys.modules)))
"""
    assert in_new_python(code, here).splitlines()[-1] == "[]"


def test_a_tabular_run_its_evaluation_and_the_list_import_no_torch(here):
    code = f"""
import sys
from seqrl.scripts import evaluate, list, train
assert train.main("--steps 200 --run-dir r --eval-episodes 2".split()) == 0
assert evaluate.main(["r", "--episodes", "2"]) == 0 and list.main([]) == 0
print("torch" in sys.modules, {str(here)!r})
"""
    assert in_new_python(code, here).splitlines()[-1].split()[0] == "False"


# evaluate and list


def test_one_episode_has_no_interval(here, type_):
    type_(train, "--steps", 300, *SHORT, "--run-dir", "r")
    _, out, _ = type_(evaluate, "r", "--episodes", 1)
    assert out.startswith("return 0 of one greedy episode") and "nan" not in out


def test_evaluate_prints_mean_interval_extremes_and_cuts(here, type_):
    # an untrained table goes up, into the wall, for ever
    words = "--env CliffWalking-v1 --steps 9 --learning-rate 0 --max-episode-steps 500".split()
    assert type_(train, *words, *SHORT)[0] == 0
    folder = only_run(here)
    status, out, err = type_(evaluate, folder, "--episodes", 7, "--max-episode-steps", 30)
    assert (status, err) == (0, "")
    assert out == (
        "mean return -30 (95 % interval -30 to -30) over 7 greedy episodes, "
        "7 ended by a time limit\n"
        "returns from -30 to -30\n"
        "lengths 30.0 in the mean, 7 cut\n"
    )


def test_evaluate_repeats_itself_and_changes_nothing(here, type_):
    type_(train, "--steps", 3000, *SHORT)
    folder = only_run(here)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    one = type_(evaluate, folder, "--episodes", 40, "--seed", 4)
    assert one == type_(evaluate, folder, "--episodes", 40, "--seed", 4)
    assert "success rate" in one[1]
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_evaluate_as_a_function_checks_its_numbers_and_takes_any_whole_seed():
    parts = parts_of("--steps", "1")
    for numbers in (
        {"episodes": 0},
        {"max_episode_steps": 0},
        {"seed": -1},
        {"seed": np.int64(-1)},
    ):
        with pytest.raises(UsageError, match=r"expected .*at least"):
            training.evaluate(parts.agent, parts.envs, **{"episodes": 1, **numbers})
    one, other = (
        training.evaluate(parts.agent, parts.envs, 9, seed=kind(5)) for kind in (int, np.int64)
    )
    assert one.lengths.tolist() == other.lengths.tolist()


def test_evaluate_shows_the_table(here, type_):
    type_(train, "--steps", 3000, *SHORT)
    status, out, _ = type_(evaluate, only_run(here), "--episodes", 1, "--show")
    assert status == 0
    q = q_of(only_run(here))
    for word in ("policy", "V = max Q", f"{q.max():.3f}", f"{q[14, 2]:9.4f}"):
        assert word in out


def test_evaluate_takes_the_newest_checkpoint(here, type_):
    type_(train, "--steps", 100, *SHORT)
    folder = only_run(here)
    tree = checkpoint.load(runs.checkpoints(folder)[0])
    tree["loop"]["agent"]["arrays"]["q"][:, 1] = 7.5
    checkpoint.save(runs.checkpoint_path(folder, 200), tree)
    assert "7.5000" in type_(evaluate, folder, "--episodes", 1, "--show")[1]


def test_list_names_agents_and_environments_a_line_each(type_):
    status, out, err = type_(listing)
    lines = [line.split() for line in out.splitlines() if line.startswith("  ")]
    found = {words[0]: words for words in lines}
    twice = {"dqn", "r2d2"}  # agents and presets
    assert (status, err) == (0, "") and len(found) == len(lines) - len(twice)
    assert {*AGENTS, "FrozenLake-v1", "CliffWalking-v1", "seqrl/TMaze-v0"} <= set(found)
    assert " ".join(found["FrozenLake-v1"][1:]) == "limit 100, solved at 0.7"
    assert " ".join(found["CliffWalking-v1"][1:]) == "no limit"
    assert command.main(["list"]) == 0


# bad input

BAD = {
    "unknown agent": ("--agent q-lerning", ["q-lerning", 'Did you mean "q-learning"?']),
    "unknown agent, another": (
        "--agent=trpo",
        ["'trpo'", "Nearest here: ppo", "q-learning, sarsa, monte-carlo"],
    ),
    "unknown environment": ("--env FrozenLke-v1", ["FrozenLke-v1", '"FrozenLake-v1"']),
    "unknown version": ("--env FrozenLake-v9", ['Did you mean "FrozenLake-v1"?']),
    "no environment": ("--env nothing", ["nothing", "seqrl list"]),
    "our environment misspelt": ("--env seqrl/TMaz-v0", ['"seqrl/TMaze-v0"']),
    "no module": ("--env nomodule:X-v0", ["nomodule", "cannot be imported"]),
    "relative module": ("--env ..:X-v0", ["'..'", "cannot be imported"]),
    "unknown flag": ("--gama 0.9", ["unknown flag --gama", '"--gamma"']),
    "another agent's flag": ("--agent sarsa --double", ["--double. It is a flag of q-l"]),
    "another agent's switch": ("--agent sarsa --no-double", ["It is a flag of q-learning"]),
    "a flag with a network": ("--batch-size 3", ["It is a flag of q-learning with --network, s"]),
    "abbreviated flag": ("--step 10", ["unknown flag --step", '"--steps"']),
    "one word too many": ("--steps 10 20", ["unknown argument 20"]),
    "old Taxi": ("--env Taxi-v3", ["Taxi-v3", "Taxi-v4"]),
    "old cliff": ("--env CliffWalking-v0", ["CliffWalking-v0", "CliffWalking-v1"]),
    "gamma above 1": ("--gamma 1.1", ["gamma 1.1", "from 0 to 1"]),
    "gamma of words": ("--gamma high", ["--gamma", "'high'", "a number"]),
    "gamma infinite": ("--gamma inf", ["gamma inf", "from 0 to 1"]),
    "epsilon negative": ("--epsilon -1", ["epsilon -1", "from 0 to 1"]),
    "epsilon nan": ("--epsilon nan", ["epsilon nan", "from 0 to 1"]),
    "epsilon too high at the end": ("--epsilon linear:0:2", ["epsilon 2", "from 0 to 1"]),
    "epsilon no schedule": ("--epsilon lin:1:0", ["epsilon 'lin:1:0'", "linear:1:0.05:0.5"]),
    "epsilon to zero": ("--epsilon exponential:1:0", ["epsilon", "both ends above 0"]),
    "learning rate nan": ("--learning-rate nan", ["learning_rate nan", "from 0 to 1"]),
    "learning rate -1e-3": ("--learning-rate -1e-3", ["learning_rate -0.001", "from 0 to 1"]),
    "temperature 0": ("--temperature 0", ["temperature 0"]),
    "two explorations": ("--temperature 1 --epsilon .1", ["--epsilon and --temperature"]),
    "n-step 0": ("--n-step 0", ["n_step 0", "at least 1"]),
    "n-step 1.5": ("--n-step 1.5", ["--n-step", "'1.5'", "whole number"]),
    "traces and double": ("--trace-decay .5 --double", ["trace_decay", "double"]),
    "trace of words": ("--trace long", ["'long'", "accumulating, replacing"]),
    "initial value infinite": ("--initial-value -inf", ["initial_value -inf", "finite"]),
    "no environments": ("--num-envs 0", ["--num-envs 0", "at least 1"]),
    "-2 environments": ("--num-envs -2", ["--num-envs -2", "at least 1"]),
    "10^9 environments": ("--num-envs 1000000000", ["num_envs 1,000,000,000", "10,000"]),
    "no steps": ("--steps 0", ["--steps 0", "at least 1"]),
    "steps of words": ("--steps many", ["--steps", "'many'", "whole number"]),
    "no value": ("--steps", ["--steps", "expected one argument"]),
    "no episodes": ("--episodes 0", ["--episodes 0", "at least 1"]),
    "seed 1.5": ("--seed 1.5", ["--seed", "'1.5'", "whole number"]),
    "seed -1": ("--seed -1", ["--seed -1", "at least 0"]),
    "limit 0": ("--max-episode-steps 0", ["--max-episode-steps 0", "at least 1"]),
    "evaluate -1": ("--eval-episodes -1", ["--eval-episodes -1", "at least 0"]),
    "evaluate every -1": ("--eval-every -1", ["--eval-every -1", "at least 0"]),
    "Box without bins": ("--env MountainCar-v0", ["Box(", "--bins 8"]),
    "Box actions": ("--env Pendulum-v1 --bins 8", ["action space Box", "Discrete"]),
    "no bins": ("--env CartPole-v1 --bins 0", ["--bins 0", "at least 1"]),
    "too many bins": ("--env CartPole-v1 --bins 3000", ["81,000,000,000,000", "GiB", "--bins"]),
    "range turned round": (
        "--env CartPole-v1 --bins 4 --bin-range 1=3:-3",
        ["bin range 1=3:-3", "low < high"],
    ),
    "range of no dimension": (
        "--env CartPole-v1 --bins 4 --bin-range 4=-3:3",
        ["bin range 4=-3:3", "4 real dimensions"],
    ),
    "range of words": ("--bin-range wide", ["--bin-range", "'wide'", "1=-3:3"]),
    "argument of no value": ("--env-arg map_name", ["--env-arg", "'map_name'", "name=value"]),
    "argument none": ("--env-arg map_name=None", ["env_args", "'map_name': None", "numbers"]),
    "argument unknown": ("--env-arg nope=1", ["FrozenLake-v1", "nope"]),
    "argument unknown to ours": (
        "--env seqrl/TMaze-v0 --env-arg lenght=3",
        ["'lenght'", 'Did you mean "length"?'],
    ),
    "argument that is a flag": ("--env-arg max_episode_steps=9", ["--max-episode-steps"]),
    "map unknown": ("--env-arg map_name=9x9", ["FrozenLake-v1", "9x9"]),
    "log folder a file": ("--logdir a_file", ["a_file", "--logdir"]),
    "log folder in no folder": ("--logdir /proc/self/x", ["/proc/self/x", "--logdir"]),
    "run folder a file": ("--run-dir a_file", ["a_file", "--run-dir"]),
    "run folder not empty": ("--run-dir full", ["full is not empty"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_short_line_and_leaves_nothing(here, type_, name):
    (here / "a_file").write_text("")
    (here / "full").mkdir()
    (here / "full/x").write_text("")
    words, parts = BAD[name]
    status, out, err = type_(train, *words.split())
    assert (status, out) == (2, "")
    assert refusal(err, parts)
    assert left_behind(here) == ["a_file", "full"] and left_behind(here / "full") == ["x"]


def refusal(err, parts):
    """Whether stderr is one short line that says all this."""
    assert err.count("\n") == 1 and err.endswith("\n") and len(err) <= 300, err
    assert err.startswith("seqrl: ") and "Traceback" not in err
    return all(part in err for part in parts) or pytest.fail(err)


OWN = {
    "made": (2, ["Faulty-v0", "cannot be made", "no such device"]),
    "huge": (2, ["1,000,000,000,000 states x 2 actions", "14,901.2 GiB"]),
    "text": (2, ["observation space: Text", "Discrete, MultiDiscrete"]),
    "reset": (1, ["Faulty-v0", "OSError: no door at its reset"]),
}


@pytest.mark.parametrize("fault", OWN)
def test_an_environment_of_one_s_own_that_cannot_begin_leaves_nothing(here, type_, mine, fault):
    status, parts = OWN[fault]
    found, out, err = type_(train, "--env", mine, "--env-arg", f"fault={fault}", "--steps", 100)
    assert (found, out) == (status, "") and refusal(err, parts)
    assert left_behind(here) == ["my_envs.py"]


def test_a_module_that_breaks_is_refused(here, type_):
    (here / "broken_module.py").write_text("1 / 0")
    status, _, err = type_(train, "--env", "broken_module:X-v0")
    assert status == 2 and refusal(err, ["broken_module", "ZeroDivisionError"])


def test_a_missing_package_is_named_with_the_line_to_type(here, type_, monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", None)  # as where it is not installed
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    status, _, err = type_(train, "--env", "LunarLander-v3", "--bins", 4)
    assert status == 2 and refusal(err, ["LunarLander-v3", "pip install", "gymnasium[box2d]"])
    assert left_behind(here) == []


def test_a_log_folder_that_cannot_be_written_is_refused_before_training(here, type_, monkeypatch):
    (here / "locked").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith("locked"))
    for words in (["--run-dir", "locked"], ["--logdir", "locked"]):
        status, _, err = type_(train, "--steps", 10**9, *words)
        assert status == 2 and refusal(err, ["locked", "cannot be written to", words[0]])
    assert not list(here.rglob("config.toml"))


def test_memory_is_looked_at_for_all_that_learning_needs(here, type_, monkeypatch):
    # FrozenLake's table takes 512 bytes
    monkeypatch.setattr("seqrl.core.arrays.available_memory", lambda: 1000)
    assert type_(train, "--steps", 10, *SHORT)[0] == 0
    for words in (["--double"], ["--trace-decay", "0.5"]):
        status, _, err = type_(train, "--steps", 10, "--run-dir", "r", *words)
        assert status == 2 and refusal(err, ["16 states x 4 actions"])
    assert left_behind(here) == ["runs"]


def test_debug_shows_the_traceback(type_):
    status, _, err = type_(train, "--gamma", 2, "--debug")
    assert status == 2 and err.startswith("Traceback") and err.endswith("from 0 to 1\n")


def test_a_fault_of_ours_is_one_line_too(type_, monkeypatch):
    def broken(config):
        raise KeyError("a bug\nof two lines " + "x" * 999)

    monkeypatch.setattr(device_choice, "build", broken)
    status, _, err = type_(train)
    assert status == 1 and refusal(err, ["KeyError", "--debug shows where"])
    with pytest.raises(KeyError):
        train.main(["--debug"])


def test_without_a_flag_the_defaults_are_trained(here, type_, monkeypatch):
    monkeypatch.setattr(
        running, "execute", lambda one, *rest, **others: print(one.config["env"]) or 0
    )
    assert type_(train) == (0, "FrozenLake-v1\n", "")
    assert only_run(here) == here / "runs/FrozenLake-v1/q-learning/seed-0"


def test_commands_are_known_or_refused(type_):
    status, _, err = type_(command, "trian")
    assert status == 2 and refusal(err, ["unknown command 'trian'", '"train"', "seqrl --help"])
    status, _, err = type_(command, "train", "--gama", 1)
    assert status == 2 and refusal(err, ["--gama"])
    status, _, err = type_(listing, "--all")
    assert status == 2 and refusal(err, ["unknown flag --all"])


def test_modules_in_the_current_folder_come_last(here, mine, process):
    for name in ("json", "numpy", "gymnasium", "seqrl", "options"):
        (here / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    done = process("--env", mine, "--steps", 40, *SHORT)
    assert done.communicate() == ("", "") and done.returncode == 0


NAMES = ("bystander", "options", "shared")
FOREIGN = "from torch import nn\nclass Net(nn.Flatten):\n    who = {}\n"


@pytest.fixture
def installed(here, monkeypatch):
    """A folder before the current one on the path, as for packages; what is imported is undone."""
    (here / "site").mkdir()
    monkeypatch.setattr(sys, "path", [str(here / "site"), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield here / "site"
    for name in {name for name in sys.modules if name.split(".")[0] in NAMES} - before:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["bystander", "options", "bystander.nets"])
def test_a_module_that_is_named_is_the_one_in_the_current_folder(here, installed, name):
    options.arrange_path()
    for folder, who in ((installed, 1), (here, 2)):
        path = folder / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(FOREIGN.format(who))
    assert build_network(f"{name}:Net", None, {}).who == 2
    assert build_network(f"{name}:Net", None, {}).who == 2  # now that it is loaded


def test_another_module_of_that_name_that_is_loaded_is_refused(here, installed, type_):
    for name in ("types", "shared"):
        (here / f"{name}.py").write_text(FOREIGN.format(2))
    (installed / "shared.py").write_text("")
    __import__("shared")
    for flag in ("--network", "--env"):
        for name in ("types", "shared"):
            status, _, err = type_(train, "--agent", "reinforce", flag, f"{name}:Net")
            assert status == 2 and refusal(
                err, [f"another {name} is loaded already", "another name"]
            )
    assert left_behind(here) == ["shared.py", "site", "types.py"]


def test_outside_a_script_the_path_decides(here, installed, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    for folder, who in ((installed, 1), (here, 2)):
        (folder / "bystander.py").write_text(FOREIGN.format(who))
    assert build_network("bystander:Net", None, {}).who == 1


def test_the_scripts_own_folder_is_not_on_the_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(train.__file__).parent), "elsewhere"])
    options.arrange_path()
    assert sys.path == ["elsewhere", ""]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("runs", ["runs: no config.toml there"]),
        ("missing", ["missing: no config.toml there"]),
        ("good --episodes 0", ["--episodes 0", "at least 1"]),
        ("good --seed -1", ["--seed -1", "at least 0"]),
        ("good --max-episode-steps 0", ["--max-episode-steps 0", "at least 1"]),
        ("good --episode 3", ["unknown flag --episode", '"--episodes"']),
        ("", ["run"]),
        ("no_checkpoint", ["no_checkpoint: nothing was saved there"]),
        ("damaged", ["damaged/checkpoint/step-000000000050.ckpt", "take an older checkpoint"]),
        ("empty_config", ["empty_config", "KeyError"]),
        ("text_config", ["text_config/config.toml"]),
        ("other_env", ["agent/arrays/q: float64 [16, 4]", "float64 [500, 6]"]),
        ("wrong_numbers", ["num_envs 'many'"]),
        ("wrong_parts", ["wrong_parts", "no argument gamme"]),
        ("foreign", ["foreign", "KeyError: 'agent'"]),
        ("foreign_table", ["foreign_table", "entry agent", "KeyError"]),
    ],
)
def test_evaluate_refuses_what_is_no_run(here, type_, words, parts):
    type_(train, "--steps", 50, "--run-dir", "good", *SHORT)
    good = here / "good"
    whole, config = runs.checkpoints(good)[0].read_bytes(), (good / "config.toml").read_text()
    tree = checkpoint.load(runs.checkpoints(good)[0])
    changed = {
        "empty_config": (config[:0], whole),
        "text_config": ("hello", whole),
        "other_env": (config.replace("FrozenLake-v1", "Taxi-v4"), whole),
        "wrong_numbers": (config.replace("num_envs = 1", 'num_envs = "many"'), whole),
        "wrong_parts": (config.replace("gamma", "gamme"), whole),
        "damaged": (config, whole[:-1]),
        "foreign": (config, {"agents": 1}),
        "foreign_table": (config, {"agent": {**tree["loop"]["agent"], "arrays": {}}}),
    }
    for name, (text, saved) in changed.items():
        (made := here / name).mkdir()
        (made / "config.toml").write_text(text)
        path = runs.checkpoint_path(made, 50)
        path.write_bytes(saved) if isinstance(saved, bytes) else checkpoint.save(path, saved)
    (here / "no_checkpoint").mkdir()
    (here / "no_checkpoint/config.toml").write_text(config)
    status, out, err = type_(evaluate, *words.split())
    assert (status, out) == (2, "") and refusal(err, parts)


def test_evaluate_imports_no_module_that_only_the_file_names(here, type_, mine):
    type_(train, "--env", mine, "--steps", 60, *SHORT)
    folder = only_run(here)
    sys.modules.pop("my_envs"), gym.registry.pop("Faulty-v0")
    status, _, err = type_(evaluate, folder.relative_to(here))
    assert status == 2 and refusal(err, ["imports code", f"--env {mine}"])
    assert "my_envs" not in sys.modules
    status, _, err = type_(evaluate, folder.relative_to(here), "--env", "other:Faulty-v0")
    assert status == 2 and "my_envs" not in sys.modules
    assert type_(evaluate, folder, "--env", mine, "--episodes", 3)[0] == 0


# while it runs

FAULTS = {
    "nan": ["environment Faulty-v0 0 (seed", "reward nan"],
    "inf": ["reward inf"],
    "-inf": ["reward -inf"],
    "none": ["reward None: expected one number"],
    "raises": ["ZeroDivisionError: division by zero at action"],
    "outside": ["77", "Discrete(5)"],
    "nan seen": ["observation [nan]"],
    "inf seen": ["observation [inf]"],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_that_fails_keeps_what_was_learned_until_then(here, type_, mine, fault):
    words = ["--env", mine, "--steps", 100, "--seed", 2, *CONSTANT, *SHORT]
    words += ["--bins", 5, "--env-arg", f"fault='{fault}'"]
    status, out, err = type_(train, *words, "--run-dir", "bad")
    assert (status, out) == (1, "")
    assert refusal(err, [*FAULTS[fault], "at env step 30: ", "learned until then is in bad"])
    type_(train, *words, "--run-dir", "good", "--steps", 29)
    assert np.isfinite(q_of(here / "bad")).all() and q_of(here / "bad").any()
    assert np.array_equal(q_of(here / "bad"), q_of(here / "good"))
    assert type_(evaluate, "bad", "--env", mine, "--episodes", 1)[0] == 0


def test_a_failed_run_names_environment_seed_and_step(type_, mine):
    words = ["--env", mine, "--env-arg", "fault=raises", "--num-envs", 3, "--steps", 100, *SHORT]
    err = type_(train, *words)[2]
    assert re.search(r"at env step 88: environment Faulty-v0 0 \(seed \d+\): ", err), err


def test_a_fault_of_an_agent_loses_nothing_either(here, type_, monkeypatch):
    def learn(self, step, real=tabular_agent.TabularAgent.learn):
        if self.steps == 20:
            raise IndexError("a bug")
        return real(self, step)

    monkeypatch.setattr(tabular_agent.TabularAgent, "learn", learn)
    status, _, err = type_(train, "--steps", 50, "--run-dir", "r", *SHORT)
    assert status == 1 and refusal(err, ["IndexError: a bug", "learned until then is in r"])
    assert checkpoint.load(runs.checkpoints(here / "r")[0])["loop"]["agent"]["steps"] == 20
    status, _, err = type_(train, "--steps", 50, "--debug", *SHORT)
    assert status == 1 and "in learn" in err and err.startswith("Traceback")


def test_an_episode_that_has_grown_long_is_told_and_can_be_cut(here, type_, caplog, monkeypatch):
    words = ["--env", "CliffWalking-v1", "--steps", 2000, *SHORT]
    assert type_(train, *words)[::2] == (0, "") and not caplog.records
    monkeypatch.setattr("seqrl.training.loop.long_episodes.LONG", 200)
    assert type_(train, *words[:-1])[0] == 0
    (record,) = caplog.records
    assert refusal(f"{record.getMessage()}\n", ["no step limit", "--max-episode-steps"])
    caplog.clear()
    assert type_(train, *words)[0] == 0 and not caplog.records
    status, _, err = type_(train, *words, "--max-episode-steps", 25, "--run-dir", "cut")
    assert (status, err) == (0, "")
    lengths = np.loadtxt(here / "cut/episodes.csv", delimiter=",", skiprows=1)[:, 2]
    assert lengths.max() == 25 and len(lengths) >= 80
    for env in ("FrozenLake-v1", "Blackjack-v1", "seqrl/TMaze-v0"):
        assert type_(train, "--env", env, "--steps", 30, "--bins", 3, *SHORT)[2] == ""


def started(run, folder):
    """Wait until a run has logged its first point; answers the event file."""
    until = time.monotonic() + 100
    while time.monotonic() < until and run.poll() is None:
        for path in folder.glob("events*"):
            if b"rollout/ep_rew_mean" in path.read_bytes():
                return path
        time.sleep(0.02)
    return pytest.fail("the run did not start")


def settled(path):
    """Wait until nothing has been written to a file for half a second."""
    size = -1
    while size != path.stat().st_size:
        size = path.stat().st_size
        time.sleep(0.5)


STEPPED, COMPILED = "Blackjack-v1", "FrozenLake-v1"
compiled = pytest.param("SIGINT", COMPILED, marks=pytest.mark.slow)  # compiling may take 20 s


@pytest.mark.parametrize(
    ("name", "env"), [("SIGINT", STEPPED), ("SIGTERM", STEPPED), compiled], ids=str
)
def test_a_signal_stops_saves_and_says_where(here, process, name, env):
    run = process("--env", env, "--steps", 10**12, "--run-dir", "r")
    started(run, here / "r")
    sent = time.monotonic()
    run.send_signal(getattr(signal, name))
    out, err = run.communicate(timeout=10)
    assert time.monotonic() - sent < 5
    assert run.returncode == {"SIGINT": 130, "SIGTERM": 143}[name]
    steps = json.loads((here / "r/summary.json").read_text())["steps"]
    assert f"stopped after {steps:,} env steps" in out and "saved in  r\n" in out
    assert "go on:    seqrl train --resume r\n" in out
    assert err == "" or (env == COMPILED and "compiling" in err)
    saved = checkpoint.load(runs.checkpoint_path(here / "r", steps))["loop"]
    assert saved["steps"] == saved["agent"]["steps"] == steps > 0


@pytest.mark.parametrize("when", ["under way", "at the end"])
def test_a_signal_ends_an_evaluation_at_once(here, process, when):
    words = "--env CliffWalking-v1 --learning-rate 0 --eval-episodes 100000 --run-dir r".split()
    words += ["--max-episode-steps", "1000"]
    words += (
        ["--steps", "2000"] if when == "at the end" else "--steps 9000 --eval-every 2000".split()
    )
    run = process(*words)
    settled(started(run, here / "r"))  # it evaluates, for minutes
    sent = time.monotonic()
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=10)
    assert time.monotonic() - sent < 5 and (run.returncode, err) == (130, "")
    assert "stopped after 2,000 env steps" in out and "saved in  r\n" in out
    assert json.loads((here / "r/summary.json").read_text())["eval_mean_reward"] is None
    assert checkpoint.load(runs.checkpoint_path(here / "r", 2000))["loop"]["steps"] == 2000


def test_handlers_are_put_back_after_a_run(type_):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    type_(train, "--steps", 10, *SHORT)
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize(
    ("script", "words"),
    [("list", []), ("train", ["--help"]), ("train", "--steps 50 --eval-episodes 1".split())],
    ids=["list", "help", "train"],
)
def test_a_reader_that_has_seen_enough_is_no_error(process, script, words):
    read, write = os.pipe()
    os.close(read)
    env = {key: x for key, x in os.environ.items() if key != "PYTHONUNBUFFERED"}
    run = process(*words, script=script, stdout=write, env=env)
    os.close(write)
    _, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (0, "")


def test_without_a_terminal_there_is_no_bar(process):
    run = process("--steps", 300, "--eval-episodes", 0)
    assert run.communicate()[1] == "" and run.returncode == 0


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_sees_a_bar_with_return_that_goes_away(process, quiet):
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    words = ["--steps", 15_000, "--eval-episodes", 0, *["--quiet"] * quiet]
    run = process(*words, stderr=terminal)
    seen = b""
    while run.poll() is None or select.select([screen], [], [], 0)[0]:
        if select.select([screen], [], [], 0.05)[0]:
            seen += os.read(screen, 65536)
    run.communicate()
    os.close(terminal), os.close(screen)
    if quiet:
        assert seen == b""
    else:
        assert re.search(rb"\d+%.*15\.0k \[.*steps/s, return 0\.\d+\]", seen)
        assert re.search(rb"\r +\r$", seen)


THREADS = """
from threadpoolctl import threadpool_info
import torch
from seqrl.scripts import train
from seqrl.training.runs.parts import build
words = ["--agent", "reinforce", "--env", "CartPole-v1"]
build(train.make_config(train.make_parser(words).read(words)))
blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
print(blas, torch.get_num_threads())
"""


def test_an_agent_on_a_network_takes_one_thread_unless_told():
    free = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    run = partial(subprocess.run, capture_output=True, text=True, check=True)
    for told, expected in (({}, "[1] 1"), ({"OMP_NUM_THREADS": "2"}, "[2] 2")):
        done = run([sys.executable, "-c", THREADS], env=free | told)
        assert done.stdout.strip() == expected
