"""One run as a function: from Python, from any thread, with the command's digest; and executors."""

import json
import os
import random
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch

import seqrl
from seqrl.core.errors import RunError, UsageError
from seqrl.envs import Serial
from seqrl.scripts import evaluate, train
from seqrl.training import Job, Processes
from seqrl.training.engines.executor import steps_done
from seqrl.training.runs import folder as runs
from seqrl.training.runs.config import complete
from seqrl.training.runs.defaults import DEFAULTS
from seqrl.training.runs.global_state import one_at_a_time

TABLE = {"steps": 2000, "eval_episodes": 5, "pictures": False}
SHORT = {"steps": 200, "eval_episodes": 0, "pictures": False}
NETWORK = {"agent": "ppo", "env": "CartPole-v1", "steps": 512, "eval_episodes": 2}
NETWORK |= {"network": "rnn", "network_args": {"hidden_size": 8}, "pictures": False}
NETWORK |= {"agent_args": {"rollout": 64, "epochs": 2}}
FLAGS = "--agent ppo --env CartPole-v1 --steps 512 --eval-episodes 2 --network rnn --no-pictures"
FLAGS += " --network-arg hidden_size=8 --rollout 64 --epochs 2 --quiet --preset none"


class Never:
    every = 0

    def __call__(self, loop):
        raise AssertionError


AGENT = """
import numpy as np

class Coin:
    \"\"\"Tosses a coin.

    Args:
        bias: chance of the last action.
    \"\"\"
    gamma, horizon, device, learner = 1.0, None, "cpu", ""

    def __init__(self, observation_space, action_space, seed, bias: float = 0.5, *, fair=True):
        self.n, self.rng = action_space.n, np.random.default_rng(seed)
        self.bias, self.fair, self.seen = bias, fair, 0

    def act(self, obs, start, state=None, *, explore=True):
        from seqrl.core.types import Decision
        heads = self.rng.random(len(obs)) < self.bias if explore else np.zeros(len(obs), bool)
        return Decision(np.where(heads, self.n - 1, 0))

    def learn(self, step):
        self.seen += int(step.valid.sum())
        return {}

    def values(self, obs, start):
        return None

    def reseed(self, seed):
        self.rng = np.random.default_rng(seed)

    def state_dict(self):
        return {"seen": self.seen, "drawn": str(self.rng.bit_generator.state)}

    def load_state_dict(self, state):
        self.seen = state["seen"]

class Half:
    def __init__(self, **_):
        pass

class OnNetwork(Coin):
    def __init__(self, *, network, device, **given):
        super().__init__(**given)
        self.network, self.device = network, device
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The name of a module of agents in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, ""])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "coins.py").write_text(AGENT)
    yield "coins"
    sys.modules.pop("coins", None)


def in_thread(action):
    """The result of an action in another thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(action()))
    thread.start()
    thread.join()
    return found[0]


def test_the_digest_is_that_of_the_command_and_of_a_thread(tmp_path, capfd):
    assert train.main([*FLAGS.split(), "--run-dir", str(tmp_path / "command")]) == 0
    typed = json.loads((tmp_path / "command/summary.json").read_text())
    capfd.readouterr()
    here = seqrl.run(NETWORK, tmp_path / "here")
    there = in_thread(lambda: seqrl.run(NETWORK, tmp_path / "there"))
    assert capfd.readouterr() == ("", "")
    assert here.contents["digest"] == there.contents["digest"] == typed["digest"]
    written = json.loads((tmp_path / "here/summary.json").read_text())
    assert written.keys() == typed.keys() and written["digest"] == typed["digest"]
    assert runs.read_config(tmp_path / "here") == runs.read_config(tmp_path / "command")
    assert (here.folder, here.interrupted, here.saved) == (tmp_path / "here", False, True)
    assert here.evaluation.mean == written["eval_mean_reward"]


def test_what_is_global_is_as_it_was(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    try:
        seen = []

        def look(loop):
            seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
            torch.rand(1), np.random.rand(), random.random()

        look.every = 256
        seqrl.run(NETWORK | {"deterministic": True}, tmp_path / "r", callbacks=[look])
        assert seen == [(1, True)] * 2
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])
        assert random.getstate() == before[2]
    finally:
        torch.set_num_threads(threads)


def test_threads_are_those_of_torch_too(tmp_path):
    seen = []
    look = lambda loop: seen.append(torch.get_num_threads())  # noqa: E731
    look.every = 512
    seqrl.run(NETWORK | {"threads": 2}, tmp_path / "r", callbacks=[look])
    assert seen == [2] and runs.read_config(tmp_path / "r")["threads"] == 2


def test_a_second_run_at_a_time_is_refused_with_what_runs_many(tmp_path):
    refused = []

    def second(loop):
        with pytest.raises(UsageError, match=r"one at a time.*Processes") as error:
            in_thread_raising(lambda: seqrl.run(TABLE, tmp_path / "second"))
        refused.append(error.value)

    second.every = 2000
    seqrl.run(TABLE, tmp_path / "first", callbacks=[second])
    assert refused and not (tmp_path / "second").exists()
    seqrl.run(TABLE, tmp_path / "second")  # and is welcome after it


def in_thread_raising(action):
    """As `in_thread`, with what was raised there raised here."""

    def caught():
        try:
            return action(), None
        except Exception as error:
            return None, error

    found, error = in_thread(caught)
    if error:
        raise error
    return found


def test_stop_ends_after_the_turn_and_resume_gives_the_same_run(tmp_path):
    config = {**TABLE, "agent": "sarsa", "compile": False, "num_envs": 2}
    whole = seqrl.run(config, tmp_path / "whole")
    stop = threading.Event()

    def at_half(loop):
        stop.set()

    at_half.every = 1000
    half = seqrl.run(config, tmp_path / "half", callbacks=[at_half], stop=stop)
    assert half.interrupted and half.evaluation is None and half.contents["steps"] == 1000
    assert half.contents["finished"] is False
    with pytest.raises(UsageError, match=r"other settings: steps 3000 \(then 2000\)"):
        seqrl.run({"steps": 3000}, tmp_path / "half", resume=True)
    on = seqrl.run({"agent": "sarsa"}, tmp_path / "half", resume=True)
    assert on.contents["digest"] == whole.contents["digest"] and not on.interrupted
    again = seqrl.run({}, tmp_path / "half", resume=True)  # nothing left to do
    assert again.contents["digest"] == whole.contents["digest"]
    with pytest.raises(UsageError, match="not empty"):
        seqrl.run(config, tmp_path / "half")


def test_ctrl_c_saves_and_is_raised(tmp_path):
    def press(loop):
        signal.raise_signal(signal.SIGINT)

    press.every = 500
    with pytest.raises(KeyboardInterrupt):
        seqrl.run(TABLE, tmp_path / "r", callbacks=[press])
    assert json.loads((tmp_path / "r/summary.json").read_text())["steps"] == 500
    assert runs.checkpoint_path(tmp_path / "r", 500).exists()
    assert seqrl.run({}, tmp_path / "r", resume=True).contents["finished"] is True


def test_what_fails_on_the_way_is_one_line_and_saved(tmp_path):
    def fail(loop):
        raise ValueError("no\nreason")

    fail.every = 700
    with pytest.raises(RunError, match=r"ValueError: no reason; what was learned until then is in"):
        seqrl.run(TABLE, tmp_path / "r", callbacks=[fail])
    assert runs.checkpoint_path(tmp_path / "r", 700).exists()
    with one_at_a_time(complete({})):
        pass


def test_a_config_is_completed_as_the_flags_have_it():
    for words, config in (("", {}), ("--agent a2c", {"agent": "a2c"}), ("--seeds 4", {"seeds": 4})):
        argv = [*words.split(), "--preset", "none"]
        typed = train.make_config(train.make_parser(argv).read(argv))
        assert complete(config) == typed == complete(typed)
        assert complete(runs.as_stored(typed)) == typed


WRONG = {
    "unknown": ({"agnt": "ppo"}, r"unknown setting 'agnt'\. Did you mean \"agent\"\?"),
    "agent": ({"agent": "pppo"}, r"unknown agent 'pppo'\. Did you mean \"ppo\""),
    "number": ({"agent_args": {"gama": 1}}, r"QLearning has no gama\. Did you mean \"gamma\"\?"),
    "text": ({"steps": "x"}, "--steps 'x': expected a whole number of at least 1"),
    "bool": ({"steps": True}, "--steps True: expected a whole number"),
    "switch": ({"compile": 1}, "--compile 1: expected True or False"),
    "table": ({"env_args": []}, "--env-args .*: expected names and values"),
    "object": ({"env_args": {"x": object()}}, "env_args .*; expected numbers, texts"),
    "seeds": ({"seeds": 3}, "seeds 3: a run has one; see training.train_seeds"),
    "early": ({"stop_at": 1.0}, "--stop-at: it looks at evaluations"),
    "bins": ({"agent": "ppo", "bins": 3}, "--bins: that is for tables"),
    "network": ({"normalize_obs": True}, "--normalize-obs: q-learning learns a table here"),
    "class": ({"agent": "nowhere:Agent"}, "--agent nowhere:Agent: ModuleNotFoundError"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_config_is_said_before_anything_is_made(case, tmp_path):
    config, line = WRONG[case]
    with pytest.raises(UsageError, match=line) as error:
        seqrl.run(config, tmp_path / "r")
    assert "\n" not in str(error.value) and not (tmp_path / "r").exists()


def test_an_executor_yields_results_as_they_finish_and_names_what_failed(tmp_path):
    configs = [TABLE, {**TABLE, "seed": -1}, {**TABLE, "env": "Nowhere-v0"}, {**TABLE, "seed": 1}]
    jobs = [Job(config, tmp_path / str(i)) for i, config in enumerate(configs)]
    results = {job.folder.name: reason for job, reason in Processes(2).map(iter(jobs))}
    assert (results["0"], results["3"]) == ("", "")
    assert results["1"] == "--seed -1: expected a whole number of at least 0"
    assert results["2"].startswith("exit status 2: ") and "Nowhere" in results["2"]
    alone = seqrl.run(TABLE, tmp_path / "alone")
    there = json.loads((tmp_path / "0/summary.json").read_text())
    assert there["digest"] == alone.contents["digest"]
    assert runs.read_config(tmp_path / "0") == runs.read_config(tmp_path / "alone")
    assert not (tmp_path / "0.log").exists() and (tmp_path / "2.log").exists()


def test_an_executor_that_is_closed_ends_its_processes_which_save(tmp_path):
    long = Job({**TABLE, "steps": 10**9, "compile": False}, tmp_path / "long")
    results = Processes(2).map([long, Job({**TABLE, "seed": -1}, tmp_path / "short")])
    assert next(results).reason
    while not steps_done(tmp_path / "long"):
        time.sleep(0.05)
    results.close()
    assert json.loads((tmp_path / "long/summary.json").read_text())["finished"] is False


def test_an_agent_of_the_users_is_called_by_keywords_and_has_its_flags(mine, tmp_path, capfd):
    words = f"--agent {mine}:Coin --steps 300 --eval-episodes 2 --no-pictures --run-dir r".split()
    assert train.main([*words, "--bias", "1", "--no-fair", "--num-envs", "2"]) == 0
    config = runs.read_config(tmp_path / "r")
    assert config["agent_args"] == {"bias": 1.0, "fair": False} and "network" not in config
    assert evaluate.main(["r", "--episodes", "2"]) == 2
    assert train.main(["--resume", "r"]) == 2
    remedy = f"its agent imports code; to allow it, add --agent {mine}:Coin"
    assert capfd.readouterr().err.count(remedy) == 2
    assert evaluate.main(["r", "--episodes", "2", "--agent", f"{mine}:Coin"]) == 0
    assert train.main(["--resume", "r", "--agent", f"{mine}:Coin"]) == 0
    with pytest.raises(SystemExit):
        train.main(["--agent", f"{mine}:Coin", "--help"])
    told = capfd.readouterr().out
    assert "--bias X" in told and "chance of the last action (default: 0.5)" in told
    (result,) = Processes(1).map([Job(config, tmp_path / "again")])
    assert result.reason == ""
    digests = {json.loads((tmp_path / x / "summary.json").read_text())["digest"] for x in "r"}
    assert json.loads((tmp_path / "again/summary.json").read_text())["digest"] in digests


def test_an_agent_of_the_users_gets_a_network_and_a_device_where_it_names_them(mine, tmp_path):
    seen = []
    look = lambda loop: seen.append(loop.agent)  # noqa: E731
    look.every = 50
    config = {"agent": f"{mine}:OnNetwork", "steps": 50, "eval_episodes": 0}
    with pytest.raises(UsageError, match="OnNetwork has no bias"):  # only what its signature names
        seqrl.run(config | {"agent_args": {"bias": 1}}, tmp_path / "no")
    seqrl.run(config | {"network_args": {"hidden": [4]}}, tmp_path / "r", callbacks=[look])
    assert isinstance(seen[0].network, torch.nn.Module) and seen[0].device == "cpu"


def test_an_agent_of_the_users_that_is_none_is_refused_in_a_line(mine, tmp_path):
    for config, line in (
        ({"agent": f"{mine}:Half"}, "coins:Half: it has no act, learn, values"),
        ({"agent": f"{mine}:Coin", "network": "gru"}, "--network: coins:Coin has no argument"),
        ({"agent": f"{mine}:Coin", "bins": 3}, "--bins: that is for tables"),
        ({"agent": f"{mine}:np"}, "expected a class"),
        ({"agent": f"{mine}:Cion"}, "expected module:Class"),
    ):
        with pytest.raises(UsageError, match=line):
            seqrl.run({**config, "steps": 10}, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_every_setting_has_a_default():
    argv = ["--preset", "none"]
    typed = train.make_config(train.make_parser(argv).read(argv))
    assert typed.keys() <= DEFAULTS.keys()
    assert DEFAULTS.keys() - typed.keys() == {"network", "network_args", "normalize_obs"}


def test_a_run_goes_on_by_the_config_that_began_it(tmp_path):
    config = {**SHORT, "agent_args": {"gamma": 0.95}, "seeds": 1, "episodes": None}
    stopped = threading.Event()
    stopped.set()
    assert seqrl.run(config, tmp_path / "run", stop=stopped).interrupted
    assert seqrl.run(config, tmp_path / "run", resume=True).contents["finished"]
    with pytest.raises(UsageError, match=r"begun with other settings: agent_args.*|.*gamma"):
        seqrl.run({**config, "agent_args": {"gamma": 0.5}}, tmp_path / "run", resume=True)
    with pytest.raises(UsageError, match="expected settings by name"):
        seqrl.run(None, tmp_path / "none")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"callbacks": print}, "expected a list of them"),
        ({"callbacks": [Never]}, "expected an object to call with the loop"),
        ({"callbacks": [Never()]}, "Never.every 0: expected a whole number"),
        ({"stop": True}, "stop True: expected a threading.Event"),
    ],
    ids=["no list", "class", "every 0", "stop"],
)
def test_what_cannot_be_called_is_refused_before_there_is_a_folder(more, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        seqrl.run(SHORT, tmp_path / "run", **more)
    assert not (tmp_path / "run").exists()


def test_environments_are_closed_at_the_end(tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(Serial, "close", lambda envs: closed.append(envs))
    seqrl.run({**SHORT, "eval_episodes": 1}, tmp_path / "run")
    assert len(closed) == 3  # of the run, its evaluations and their curve
    with pytest.raises(UsageError, match="not empty"):
        seqrl.run(SHORT, tmp_path / "run")
    assert len(closed) == 4  # made before the folder is refused


def test_one_job_ends_no_other(tmp_path):
    odd = Job({**SHORT, "agent": "builtins:int"}, tmp_path / "odd", "odd")
    one, twin = (Job(SHORT, tmp_path / "one", name) for name in ("one", "twin"))
    found = {result.job.name: result.reason for result in Processes(3).map([odd, one, twin])}
    assert found["one"] == "" and found["odd"]
    assert "a job that is under way has this folder" in found["twin"]
