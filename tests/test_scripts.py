"""The commands as a user types them: what they do, and what they say to bad input."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from seqrl.agents import tabular
from seqrl.agents.exploration import EPSILON, TEMPERATURE
from seqrl.agents.registry import AGENTS, agent_class
from seqrl.agents.schedules import Schedule, linear
from seqrl.envs.making import time_limit
from seqrl.scripts import build as building
from seqrl.scripts import command, evaluate, options, train
from seqrl.scripts import list as listing
from seqrl.training import checkpoint
from seqrl.training import folder as runs
from seqrl.training.tensorboard import TensorBoard

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


def process(*words, cwd, script="train", **kwargs):
    """A script as a process of its own."""
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **kwargs}
    return subprocess.Popen(command, cwd=cwd, **pipes)


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
    return checkpoint.load(runs.checkpoints(folder)[0])["agent"]["memory"]["q"]


def parts_of(*words):
    """What the words are built into."""
    return building.build(train.read(train.parser(words).read(words)))


# what a run leaves


def test_a_run_leaves_what_the_design_lists(here, type_):
    status, out, err = type_(train, "--steps", 2000, "--seed", 3, "--eval-episodes", 20)
    folder = here / "runs/FrozenLake-v1/q-learning/seed-3"
    names = sorted(path.name for path in folder.iterdir())
    assert [re.sub(r"tfevents\..*", "tfevents", name) for name in names] == [
        "checkpoint",
        "config.toml",
        "episodes.csv",
        "events.out.tfevents",
        "summary.json",
    ]
    assert [path.name for path in runs.checkpoints(folder)] == ["step-000000002000.ckpt"]
    assert (status, err) == (0, "")
    assert "success rate" in out and "95 % interval" in out and "20 greedy episodes" in out
    assert re.search("\n\n(  [←↓→↑HG] [←↓→↑HG] [←↓→↑HG] [←↓→↑HG]\n){4}\n", out)
    assert "saved in  runs/FrozenLake-v1/q-learning/seed-3\n" in out
    assert re.search(r"see it: +\S*tensorboard --logdir runs\n", out)


def test_the_summary_has_every_key_and_true_numbers(here, type_):
    type_(train, "--steps", 2000, "--seed", 3, "--eval-episodes", 20, "--quiet", "--num-envs", 3)
    folder = only_run(here)
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) == set(
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
    def spy(self, folder, real=TensorBoard.__init__):
        assert [path.name for path in folder.iterdir()] == ["config.toml"]
        real(self, folder)

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
    assert sorted(path.name for path in home.iterdir()) == ["seed-0", "seed-0-1", "seed-0-2"]
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
    type_(train, "--episodes", 7, *SHORT)
    assert json.loads((only_run(here) / "summary.json").read_text())["episodes"] == 7
    type_(train, "--run-dir", "b", "--steps", 101, "--num-envs", 4, *SHORT)
    assert json.loads((here / "b/summary.json").read_text())["steps"] == 101


def test_same_seed_same_digest_in_fresh_processes(here):
    digests = {}
    for name, seed, salt in (("a", 5, "1"), ("b", 5, "2"), ("c", 6, "1")):
        (here / name).mkdir()
        words = ["--steps", 3000, "--seed", seed, "--num-envs", 2, "--run-dir", "r", *SHORT]
        env = {**os.environ, "PYTHONHASHSEED": salt}
        done = process(*words, cwd=here / name, env=env)
        assert done.communicate() == ("", "") and done.returncode == 0
        digests[name] = json.loads((here / name / "r/summary.json").read_text())["digest"]
    assert digests["a"] == digests["b"] != digests["c"]


def test_the_installed_command_is_the_same_code(here, type_):
    seqrl = Path(sys.executable).with_name("seqrl")
    words = ["train", "--steps", "500", "--run-dir", "a", *SHORT]
    done = subprocess.run([seqrl, *words], cwd=here, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    type_(train, "--steps", 500, "--run-dir", "b", *SHORT)
    one, other = (json.loads((here / name / "summary.json").read_text()) for name in "ab")
    assert one["digest"] == other["digest"]
    listed = subprocess.run([seqrl, "list"], cwd=here, capture_output=True, text=True)
    assert listed.stdout == type_(listing)[1]


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


@pytest.mark.parametrize("agent", AGENTS)
def test_no_flag_of_an_agent_is_missing_above(agent):
    tried = " ".join(words for words, *_ in FLAGS[agent])
    for name in options.agent_parameters(agent_class(agent)):
        assert "--" + name.replace("_", "-") in tried


@pytest.mark.parametrize("agent", AGENTS)
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
        train.read(train.parser(words).read(words))
        for words in (plain.split(), [*other.split(), "--no_expected"], third.split())
    ]
    assert read[0] == read[1] == read[2] and read[0]["steps"] == 70


def test_the_last_of_two_agents_counts():
    words = ["--agent", "q-learning", "--agent", "sarsa", "--expected"]
    assert train.read(train.parser(words).read(words))["agent_args"]["expected"] is True


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
    assert options.pair(f"x={typed}") == ("x", value)


@pytest.mark.parametrize("agent", AGENTS)
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


def test_evaluate_prints_mean_interval_extremes_and_cuts(here, type_):
    # an untrained table goes up, into the wall, for ever
    words = "--env CliffWalking-v1 --steps 9 --learning-rate 0 --max-episode-steps 500".split()
    assert type_(train, *words, *SHORT)[0] == 0
    folder = only_run(here)
    status, out, err = type_(evaluate, folder, "--episodes", 7, "--max-episode-steps", 30)
    assert (status, err) == (0, "")
    assert out == (
        "mean return -30 (95 % interval -30 to -30) over 7 greedy episodes, 7 cut\n"
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
    tree["agent"]["memory"]["q"][:, 1] = 7.5
    checkpoint.save(runs.checkpoint_path(folder, 200), tree)
    assert "7.5000" in type_(evaluate, folder, "--episodes", 1, "--show")[1]


def test_list_names_agents_and_environments_a_line_each(type_):
    status, out, err = type_(listing)
    lines = [line.split() for line in out.splitlines() if line.startswith("  ")]
    found = {words[0]: words for words in lines}
    assert (status, err) == (0, "") and len(found) == len(lines)
    assert {*AGENTS, "FrozenLake-v1", "CliffWalking-v1", "seqrl/TMaze-v0"} <= set(found)
    assert " ".join(found["FrozenLake-v1"][1:]) == "limit 100, solved at 0.7"
    assert " ".join(found["CliffWalking-v1"][1:]) == "no limit"
    assert command.main(["list"]) == 0
