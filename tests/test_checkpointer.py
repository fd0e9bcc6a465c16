"""Runs that are interrupted, killed and resumed; which checkpoints are kept and which is taken."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import seqrl
from seqrl.agents import QLearning
from seqrl.core import UsageError
from seqrl.envs import make
from seqrl.scripts import evaluate, train
from seqrl.training.loop.evaluation import Evaluator
from seqrl.training.runs import checkpoint, checkpointer, global_state, saved_run
from seqrl.training.runs import folder as runs
from seqrl.training.runs.early_stopping import EarlyStopping

KILLING = Path(__file__).with_name("killing.py")
outcome = runpy.run_path(str(KILLING))["outcome"]
WORDS = "--env CliffWalking-v1 --max-episode-steps 50 --eval-every 3000 --eval-episodes 4".split()
WORDS += ["--quiet", "--no-pictures", "--seed", "4"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    return train.main([*WORDS, *map(str, words)])


def resume(folder, *words):
    return train.main(["--resume", str(folder), *words])


def cut_short(folder, at, *words):
    """A run that vanished at its checkpoint of env step `at`, with the rows written since."""
    assert run("--run-dir", folder, "--checkpoint-every", "2000", *words) == 0
    (folder / "summary.json").unlink()
    for path in runs.checkpoints(folder):
        if path > runs.checkpoint_path(folder, at):
            path.unlink()


def contents(folder):
    """Every file with its bytes and the time it was written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


# going on


@pytest.mark.parametrize("at", [4000, 6000, 8000])
@pytest.mark.parametrize("agent", ["q-learning", "monte-carlo"])
def test_a_resumed_run_leaves_the_same_files(here, at, agent, capsys):
    words = ["--steps", 8000, "--agent", agent, "--num-envs", 3, "--no-compile"]
    assert run("--run-dir", "whole", *words) == 0
    cut_short(here / "cut", at, *words)
    assert resume("cut") == 0
    assert outcome(here / "cut") == outcome(here / "whole")
    assert "going on from env step" in capsys.readouterr().err


def test_a_finished_run_is_left_alone(here, capsys):
    assert run("--run-dir", "r", "--steps", 500) == 0
    before = contents(here / "r")
    assert resume("r") == 0
    assert "r is finished" in capsys.readouterr().out
    assert contents(here / "r") == before


def test_without_a_checkpoint_it_starts_over(here):
    words = ["--steps", 3000, "--no-compile"]
    assert run("--run-dir", "whole", *words) == 0
    cut_short(here / "cut", -1, *words)
    (here / "cut/checkpoint/step-000000000100.ckpt.part").write_bytes(b"half")
    assert resume("cut", "--quiet") == 0
    assert outcome(here / "cut") == outcome(here / "whole")
    assert not list(here.rglob("*.part"))


@pytest.mark.parametrize("damage", ["flipped", "short", "empty"])
def test_an_older_checkpoint_is_taken_where_the_newest_is_damaged(here, damage, caplog):
    words = ["--steps", 8000, "--no-compile"]
    assert run("--run-dir", "whole", *words) == 0
    cut_short(here / "cut", 6000, *words)
    path = runs.checkpoints(here / "cut")[0]
    data = bytearray(path.read_bytes())
    data[-5] ^= 16
    path.write_bytes({"flipped": data, "short": data[:-9], "empty": b""}[damage])
    assert resume("cut", "--debug") == 0
    said = caplog.text
    assert "step-000000006000.ckpt" in said and "step-000000004000.ckpt is taken" in said
    assert outcome(here / "cut") == outcome(here / "whole")


def test_where_all_are_damaged_it_is_refused(here, capsys):
    cut_short(here / "cut", 6000, "--steps", 8000)
    for path in runs.checkpoints(here / "cut"):
        path.write_bytes(b"no")
    assert resume("cut", "--quiet") == 2
    assert "step-000000006000.ckpt" in capsys.readouterr().err


def test_other_settings_are_refused(here, capsys):
    cut_short(here / "cut", 4000, "--steps", 8000)
    config = here / "cut/config.toml"
    config.write_text(config.read_text().replace("gamma = 0.99", "gamma = 0.5"))
    before = (here / "cut/episodes.csv").read_bytes()
    assert resume("cut", "--quiet") == 2
    err = capsys.readouterr().err
    assert "config.toml" in err and "gamma" in err and "0.5" in err and "0.99" in err
    assert (here / "cut/episodes.csv").read_bytes() == before


@pytest.mark.parametrize("word", ["--steps=9", "--gamma", "--run_dir=x", "--no-compile"])
def test_flags_are_not_repeated(here, word, capsys):
    words = [word, "1"] if word == "--gamma" else [word]
    assert train.main(["--resume", "r", *words]) == 2
    assert f"{word.partition('=')[0].replace('_', '-')} with --resume" in capsys.readouterr().err


def test_code_has_to_be_named_again(here, capsys, monkeypatch):
    (here / "mynet.py").write_text(
        "import torch\nclass Net(torch.nn.Linear):\n"
        "    def __init__(self):\n        super().__init__(4, 8)\n"
    )
    words = "--agent reinforce --env CartPole-v1 --network mynet:Net --quiet --eval-episodes 0"
    words = [*words.split(), "--steps", "600", "--checkpoint-every", "200", "--run-dir"]
    assert train.main([*words, "whole"]) == 0
    assert train.main([*words, "r"]) == 0
    (here / "r/summary.json").unlink()
    runs.checkpoints(here / "r")[0].unlink()
    sys.modules.pop("mynet")
    assert resume("r", "--quiet") == 2
    assert "--network mynet:Net" in capsys.readouterr().err and "mynet" not in sys.modules
    assert resume("r", "--network", "mynet:Net", "--quiet") == 0
    assert outcome(here / "r") == outcome(here / "whole")


def test_what_is_no_run_is_refused(here, capsys):
    assert resume("nothing") == 2
    assert "nothing: no config.toml there" in capsys.readouterr().err
    assert run("--run-dir", "many", "--steps", 200, "--seeds", 2) == 2  # evaluations of many
    words = "--env FrozenLake-v1 --seeds 2 --steps 200 --quiet --run-dir many".split()
    assert train.main(words) == 0
    capsys.readouterr()
    assert resume("many") == 2
    assert "many seeds" in capsys.readouterr().err


def test_a_checkpoint_of_schema_1_is_migrated(here):
    """It was the loop's state alone, written at the end of a run."""
    cut_short(here / "r", 4000, "--steps", 4500, "--eval-episodes", 0)
    path = runs.checkpoints(here / "r")[0]
    loop = checkpoint.load(path)["loop"]
    old = {name: part for name, part in loop.items() if name not in ("owed", "metrics")}
    checkpoint.save(path, {**old, "callbacks": [{}]})
    assert resume("r", "--quiet") == 0
    assert json.loads((here / "r/summary.json").read_text())["steps"] == 4500
    assert evaluate.main(["r", "--episodes", "2"]) == 0


def test_a_newer_schema_is_refused_by_number(here):
    checkpoint.save(here / "file", {"schema": saved_run.SCHEMA_VERSION + 1})
    with pytest.raises(
        UsageError,
        match=f"schema is {saved_run.SCHEMA_VERSION + 1}.*up to {saved_run.SCHEMA_VERSION}",
    ):
        saved_run.read(here / "file")


# keeping


def test_the_newest_three_and_the_best_are_kept(here):
    assert run("--run-dir", "r", "--steps", 10_000, "--checkpoint-every", 1000) == 0
    names = [path.name for path in runs.checkpoints(here / "r")]
    assert names == [f"step-0000000{k}.ckpt" for k in ("10000", "09000", "08000")]
    best = saved_run.read(runs.best_path(here / "r"))
    means = [state["mean"] for state in best["loop"]["callbacks"] if "mean" in state]
    assert best["loop"]["steps"] in (3000, 6000, 9000) and len(means) == 1
    assert evaluate.main(["r", "--best", "--episodes", "4", "--max-episode-steps", "50"]) == 0


def test_the_best_agent_is_the_one_that_scored_it(here, capsys):
    """Frozen at -50 by its limit, CliffWalking is solved at -13 in between."""
    words = "--learning-rate 0.5 --epsilon 0.1 --steps 30000 --gamma 1".split()
    assert run("--run-dir", "r", *words) == 0
    best = saved_run.read(runs.best_path(here / "r"))["loop"]
    mean = next(state["mean"] for state in best["callbacks"] if "waited" in state)
    assert mean == -13 and best["steps"] < 30000
    capsys.readouterr()
    assert evaluate.main(["r", "--best", "--episodes", "4"]) == 0
    assert "-13" in capsys.readouterr().out


def test_best_needs_evaluations(here, capsys):
    assert run("--run-dir", "r", "--steps", 100, "--eval-episodes", 0) == 0
    assert evaluate.main(["r", "--best"]) == 2
    assert "--eval-every" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--stop-at", -20], "reached -20"), (["--patience", 2], "no better evaluation")],
)
def test_a_run_ends_early(here, words, said, capsys):
    learning = "--learning-rate 0.5 --epsilon 0.1 --gamma 1 --no-compile".split()
    argv = [word for word in WORDS if word != "--quiet"]
    argv += [*learning, "--steps", "90000", "--run-dir", "r", *map(str, words)]
    assert train.main(argv) == 0
    assert said in capsys.readouterr().out
    summary = json.loads((here / "r/summary.json").read_text())
    assert summary["finished"] and summary["steps"] < 90_000 and summary["steps"] % 3000 == 0
    score = summary["eval_mean_reward"]
    (here / "r/summary.json").unlink()  # killed right before its end
    assert resume("r", "--quiet") == 0
    again = json.loads((here / "r/summary.json").read_text())
    assert (again["digest"], again["eval_mean_reward"]) == (summary["digest"], score)


COIN = {"P": [[[(0.5, 0, 1.0, True), (0.5, 0, -1.0, True)]]], "initial": [1.0]}


def ended_early(seed, **limits):
    """Early stopping and evaluator of a run whose episodes bring 1 or -1, four an evaluation."""
    envs, played = (make("seqrl/FiniteMDP-v0", **COIN) for _ in range(2))
    agent = QLearning(envs.single_observation_space, envs.single_action_space, seed=seed)
    evaluator = Evaluator(played, 4, every=10, seed=np.random.SeedSequence(seed))
    stopping = EarlyStopping(evaluator, lambda loop: None, **limits)
    seqrl.train(agent, envs, 20, seed=seed, callbacks=[evaluator, stopping])
    return stopping, evaluator


def test_the_lucky_evaluation_that_ends_a_run_is_not_the_one_reported():
    """What reached 0.5 is 0.6 in the mean, where the coin's mean is 0."""
    runs = [ended_early(seed, stop_at=0.5) for seed in range(100)]
    lucky = [(stopping, evaluator) for stopping, evaluator in runs if "reached" in stopping.reason]
    reported = [evaluator.last[1].mean for _, evaluator in lucky]
    assert len(reported) > 20 and abs(np.mean(reported)) < 0.3
    for stopping, evaluator in lucky:
        assert stopping.reason.endswith(f"{evaluator.last[1].mean:.6g} on fresh episodes")


def test_an_evaluation_on_fresh_episodes_that_is_interrupted_is_made_again():
    evaluator = SimpleNamespace(every=10, last=(10, SimpleNamespace(mean=1.0)))
    evaluator.again = lambda loop: evaluator.last[1] if loop.going else 1 / 0
    stopping, loop = EarlyStopping(evaluator, print, patience=2), SimpleNamespace(going=False)
    stopping.best_mean, stopping.waited, loop.stopped = 5.0, 1, False
    before = stopping.state_dict()
    with pytest.raises(ZeroDivisionError):
        stopping(loop)
    assert stopping.state_dict() == before and not loop.stopped
    loop.going = True
    stopping(loop)
    assert loop.stopped and stopping.reason == (
        "no better evaluation than 5 in 2, 1 on fresh episodes"
    )


@pytest.mark.parametrize("flag", ["--stop-at", "--patience"])
def test_an_early_end_needs_evaluations(here, flag, capsys):
    assert train.main([flag, "1", "--run-dir", "r"]) == 2
    assert "--eval-every" in capsys.readouterr().err and not (here / "r").exists()


def test_without_an_interval_saving_takes_a_hundredth_of_the_time(here, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(checkpointer.time, "perf_counter", lambda: clock[0])
    saved = []
    monkeypatch.setattr(checkpointer.Checkpointer, "_state", lambda self, loop: {})
    monkeypatch.setattr(
        checkpointer.checkpoint, "save", lambda path, tree: clock.__setitem__(0, clock[0] + 0.02)
    )
    keeper = checkpointer.Checkpointer(here, None, {"steps": 1000})
    assert keeper.every == 10

    class Loop:
        steps = 0

    for _ in range(1000):
        clock[0] += 0.1
        before = clock[0]
        keeper(Loop())
        saved.append(clock[0] > before)
    assert not any(saved[:9]) and 45 <= sum(saved) <= 50


def test_a_full_disk_ends_nothing(here):
    """What RLIMIT_FSIZE forbids to write is missing, the last good checkpoint stays."""
    program = (
        "import resource, signal, sys; from seqrl.scripts import train\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from seqrl.training.runs import checkpoint\n"
        "real, done = checkpoint.save, []\n"
        "def save(path, tree):\n"
        "    limit = (2000, 3000)[len(done) == 1]\n"
        "    done.append(path)\n"
        "    if 1 < len(done) < 4:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, -1))\n"
        "    try:\n"
        "        real(path, tree)\n"
        "    finally:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        "checkpoint.save = save\n"
        "sys.exit(train.main())"
    )
    words = [*WORDS, "--steps", "5000", "--checkpoint-every", "1000", "--run-dir", "r"]
    words[words.index("--eval-episodes") + 1] = "0"
    words = [word for word in words if word != "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no checkpoint could be written") == 1
    names = [int(path.stem[5:]) for path in runs.checkpoints(here / "r")]
    assert names == [5000, 4000, 1000] and not list(here.rglob("*.part"))


# one process a folder


def test_a_folder_in_use_is_refused_and_a_dead_owner_is_not(here, capsys):
    cut_short(here / "r", 2000, "--steps", 4000)
    with runs.locked(here / "r"):
        assert resume("r", "--quiet") == 2
        err = capsys.readouterr().err
        assert f"process {os.getpid()}" in err and "in use" in err
    assert not (here / "r/lock").exists()
    (here / "r/lock").write_text("process 1 on nowhere")
    assert resume("r", "--quiet") == 0


def test_nothing_behind_a_link_is_touched(here, capsys):
    cut_short(here / "r", 6000, "--steps", 8000)
    (here / "r/checkpoint").rename(here / "elsewhere")
    (here / "r/checkpoint").symlink_to(here / "elsewhere")
    before = contents(here / "elsewhere")
    assert resume("r", "--quiet") == 2
    assert "is a link" in capsys.readouterr().err and contents(here / "elsewhere") == before


@pytest.mark.parametrize("entry", ["random", "log", "seconds", "versions", "loop"])
@pytest.mark.parametrize("nonsense", [[], {"torch": 3}, "x", -1])
def test_nonsense_in_a_checkpoint_is_refused(here, entry, nonsense, capsys):
    cut_short(here / "r", 4000, "--steps", 5000, "--no-compile")
    (path,) = [one for one in runs.checkpoints(here / "r") if "4000" in one.name]
    checkpoint.save(path, {**checkpoint.load(path), entry: nonsense})
    before = (here / "r/episodes.csv").read_bytes()
    status = resume("r", "--quiet")
    err = capsys.readouterr().err
    if status:
        assert status == 2 and err.count("\n") == 1 and "Traceback" not in err
        assert (here / "r/episodes.csv").read_bytes() == before
    else:
        assert entry in ("loop", "versions")  # the one before is taken; it is only said


# signals


@pytest.fixture
def started(here):
    """A training process that has begun to learn."""
    processes = []

    def start(folder, *words):
        command = [sys.executable, "-m", "seqrl.scripts.train", *words]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        rows = folder / "episodes.csv"
        while not (rows.exists() and rows.stat().st_size > 2000):
            assert processes[-1].poll() is None, processes[-1].stderr.read()
            time.sleep(0.01)
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_run_goes_on_after_a_signal(here, started, name):
    words = [*WORDS, "--steps", "40000", "--no-compile", "--num-envs", "2"]
    process = started(here / "r", *words, "--run-dir", "r")
    process.send_signal(getattr(signal, name))
    assert process.wait(60) == {"SIGTERM": 143, "SIGINT": 130}[name]
    assert not json.loads((here / "r/summary.json").read_text())["finished"]
    assert resume("r", "--quiet") == 0
    assert train.main([*words, "--run-dir", "whole"]) == 0
    assert outcome(here / "r") == outcome(here / "whole")


def test_sigusr1_saves_and_goes_on(here, started):
    words = [*WORDS, "--steps", "40000", "--no-compile"]
    process = started(here / "r", *words, "--run-dir", "r")
    process.send_signal(signal.SIGUSR1)
    while not (found := runs.checkpoints(here / "r")):
        time.sleep(0.01)
    shutil.copytree(here / "r", here / "copy")
    assert 0 < saved_run.read(found[0])["loop"]["steps"] < 40_000
    assert process.wait(60) == 0
    assert train.main([*words, "--run-dir", "whole"]) == 0
    assert outcome(here / "r") == outcome(here / "whole")


# killed outright


def killed(kind, trials, first=0):
    """What became of runs that were killed at random."""
    command = [sys.executable, str(KILLING), kind, str(trials), str(first)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [trial["problems"] for trial in found] == [[]] * trials
    assert all(trial["lost"] <= trial["every"] + 8 for trial in found)
    return found


@pytest.mark.parametrize("kind", ["stepped", "compiled"])
def test_killed_runs_end_as_if_nothing_had_been(kind):
    assert sum(trial["alive"] for trial in killed(kind, 3)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        *("stepped", "compiled", "lstm", "cnn", "replay", "ppo", "imitate"),
        *("from", "recorded", "recorded values"),
    ],
)
def test_fifty_killed_runs_of_each_kind(kind):
    assert sum(trial["alive"] for trial in killed(kind, 50, 100)) >= 38


@pytest.mark.slow
def test_ten_killed_runs_of_a_language_model():
    pytest.importorskip("transformers")
    assert sum(trial["alive"] for trial in killed("causal-lm", 10, 100)) >= 7


def test_global_random_numbers_go_on(here):
    import torch

    checkpoint.save(here / "file", global_state.global_random_state())
    expected = np.random.random(), float(torch.rand(1))
    global_state.set_global_random_state(checkpoint.load(here / "file"))
    assert (np.random.random(), float(torch.rand(1))) == expected
