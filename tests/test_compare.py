"""Comparisons: real runs from one command, and the table, picture and TensorBoard made of runs."""

import csv
import json
import math
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import seqrl.core
from seqrl.core import UsageError
from seqrl.scripts import command
from seqrl.scripts import compare as script
from seqrl.training.comparison import plot, report
from seqrl.training.comparison.charts import EVENT_FILES, scalars, write_charts, write_events
from seqrl.training.comparison.compare import compare, curves
from seqrl.training.comparison.recorded import find_runs, labels, read_run, running_mean, varying
from seqrl.training.comparison.scale import score_scale
from seqrl.training.engines import executor
from seqrl.training.runs import folder as folders
from seqrl.training.runs.config import complete
from seqrl.training.runs.event_file import read_scalar
from seqrl.training.runs.folder import read_config

HOME = Path(seqrl.core.__file__).resolve().parents[1]
WRITTEN = {f"compare.{kind}" for kind in ("md", "csv", "json", "png")}
COMMON = "--env FrozenLake-v1 --steps 600 --eval-episodes 3 --workers 2".split()


def recorded(
    home, agent, seed, score=1.0, returns=(1.0,), *, steps=100, until=None, name=None, **config
):
    """A run's folder as if a run had left it; its episodes end evenly spread `until` a step."""
    folder = home / "G-v0" / (name or agent) / f"seed-{seed}"
    folder.mkdir(parents=True)
    config = {"agent": agent, "env": "G-v0", "seed": seed, "steps": steps, **config}
    config.setdefault("agent_args", {"gamma": 0.9})
    folders.write_config(folder, config)
    ends = [(until or steps) * (i + 1) // len(returns) for i in range(len(returns))]
    rows = [f"{end},{x!r},1" for end, x in zip(ends, returns, strict=True)]
    (folder / "episodes.csv").write_text("\n".join(["step,return,length", *rows, ""]))
    summary = {"steps": steps, "episodes": len(returns), "eval_mean_reward": score}
    folders.write_summary(folder, {**summary, "ep_rew_mean": None if score is None else 10 * score})
    return folder


def several(home, agent, scores, **more):
    """Runs of an agent, seed by seed."""
    return [recorded(home, agent, seed, score, **more) for seed, score in enumerate(scores)]


def table_of(home, **more):
    """The comparison of all runs in a folder."""
    return compare([read_run(folder) for folder in find_runs([str(home)])], **more)


def contents(home):
    """Every file but event files, whose times differ."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and "tfevents" not in path.name
    }


# --- runs from one command -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder with q-learning and sarsa compared in two seeds."""
    home = tmp_path_factory.mktemp("runs")
    flags = ["--agents", "q-learning", "sarsa", *COMMON, "--seeds", "2", "--logdir", str(home)]
    assert command.main(["compare", *flags]) == 0
    return home, flags, home / "compare-FrozenLake-v1-q-learning+sarsa"


def test_one_command_leaves_ordinary_runs_and_a_comparison(done):
    home, _, out = done
    for agent in ("q-learning", "sarsa"):
        for seed in (0, 1):
            run = home / "FrozenLake-v1" / agent / f"seed-{seed}"
            summary = json.loads((run / "summary.json").read_text())
            assert (summary["agent"], summary["seed"], summary["steps"]) == (agent, seed, 600)
        assert {p.name for p in run.parent.iterdir()} == {"seed-0", "seed-1"}  # empty logs went
    names = {path.name for path in out.iterdir() if "tfevents" not in path.name}
    assert names == {*WRITTEN, "q-learning", "sarsa", "comparison"}
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_runs_nothing_and_gives_the_same_table(done, monkeypatch, capsys):
    home, flags, out = done
    before = contents(home)
    monkeypatch.setattr(executor, "start", None)
    assert script.main(flags) == 0
    first = capsys.readouterr()
    assert first.err == "seqrl: 0 runs to do, 4 are there already\n"
    assert contents(home) == before
    assert script.main(flags) == 0
    assert capsys.readouterr().out == first.out
    assert f"saved in  {out}\n" in first.out
    assert "only 2 seeds" in first.out and "no difference, however large" in first.out


def test_the_same_seeds_in_another_folder_give_the_same_table(done, tmp_path):
    home, flags, out = done
    again = [str(tmp_path) if word == str(home) else word for word in flags]
    assert script.main([*again, "--quiet"]) == 0
    for name in ("compare.csv", "compare.md", "compare.png"):
        assert (tmp_path / out.name / name).read_bytes() == (out / name).read_bytes()


def test_a_killed_run_is_named_the_others_finish_and_a_restart_runs_only_it(
    tmp_path, monkeypatch, capsys
):
    flags = ["--agents", "sarsa", *COMMON, "--seeds", "2", "--logdir", str(tmp_path)]
    start, started = executor.start, []

    def deadly(job):
        process = start(job)
        started.append(job.config["seed"])
        if job.config["seed"] == 1 and len(started) <= 2:
            process.send_signal(signal.SIGKILL)
        return process

    monkeypatch.setattr(executor, "start", deadly)
    assert script.main(flags) == 1
    found = capsys.readouterr()
    home = tmp_path / "FrozenLake-v1" / "sarsa"
    assert f"sarsa on FrozenLake-v1, seed 1, failed, killed by SIGKILL; log: {home}" in found.err
    assert Path(re.search(r"log: (.*)\n", found.err)[1]).exists()
    assert "1/2" in found.out and "lacks a score for seed 1" in found.out
    half = contents(home / "seed-1")
    assert script.main(flags) == 0
    assert started == [0, 1, 1]
    assert contents(home / "seed-1") == half  # left as it is; the new one has a suffix
    assert (home / "seed-1.1" / "summary.json").exists()
    assert "seed 1" not in capsys.readouterr().out


def test_a_run_that_fails_is_named_with_its_last_word(tmp_path, monkeypatch, capsys):
    (tmp_path / "breaks.py").write_text(
        "import gymnasium as gym, os\n"
        "class Breaks(gym.Env):\n"
        "    observation_space = action_space = gym.spaces.Discrete(2)\n"
        "    def reset(self, **_): return 0, {}\n"
        "    def step(self, action): raise RuntimeError('the rope broke')\n"
        "gym.register('Breaks-v0', 'breaks:Breaks', max_episode_steps=5)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    flags = ["--agents", "sarsa", "--env", "breaks:Breaks-v0", "--steps", "10", "--seeds", "1"]
    assert script.main(flags) == 1
    error = capsys.readouterr().err
    assert "failed, exit status 1: " in error and "the rope broke" in error
    assert "log: runs/breaks-Breaks-v0/sarsa/seed-0.log" in error
    assert error.endswith("seqrl: no run has finished, so there is nothing to compare\n")


def test_an_interrupt_ends_every_process_and_keeps_what_was_learned(tmp_path, monkeypatch):
    flags = "--agents sarsa --steps 1000000000 --no-compile --seeds 3 --workers 2 --quiet".split()
    start, processes = executor.start, []

    def noted(job):
        processes.append((start(job), job.folder))
        return processes[-1][0]

    def interrupted(seconds):
        if all(executor.steps_done(folder) > 0 for _, folder in processes):
            signal.raise_signal(signal.SIGTERM)
        sleep(min(seconds, 0.05))

    sleep = time.sleep
    monkeypatch.setattr(executor, "start", noted)
    monkeypatch.setattr(executor.time, "sleep", interrupted)
    try:
        assert script.main([*flags, "--logdir", str(tmp_path)]) == 130
    finally:
        left = [process for process, _ in processes if process.poll() is None]
        for process in left:
            process.kill()
    assert not left
    assert [process.returncode for process, _ in processes] == [143, 143]
    for _, folder in processes:
        assert 0 < json.loads((folder / "summary.json").read_text())["steps"] < 10**9
        config = read_config(folder)
        assert executor.finished_folder(str(tmp_path), ["sarsa"], config) is None
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_run_from_before_curves_and_newer_settings_is_found(tmp_path):
    """As seqrl 0.1 left it: no eval_every, 100 episodes always, nothing of what is newer."""
    config = complete({"agent": "reinforce", "env": "CartPole-v1", "steps": 100})
    old = {**config, "eval_every": None, "eval_episodes": 100}
    old["agent_args"] = {name: x for name, x in config["agent_args"].items() if name != "sparsity"}
    parent = tmp_path / "CartPole-v1/reinforce"
    (parent / "seed-0-1").mkdir(parents=True)
    folders.write_config(parent / "seed-0-1", old)
    folders.write_summary(parent / "seed-0-1", {"steps": 100, "finished": True})

    def found(**other):
        return executor.finished_folder(str(tmp_path), ["reinforce"], complete({**config, **other}))

    assert found() == found(eval_every=0) == parent / "seed-0-1"
    assert found(eval_episodes=100) == parent / "seed-0-1"
    assert found(eval_episodes=50) is found(eval_every=50) is None
    assert found(agent_args={**config["agent_args"], "sparsity": 0.1}) is None


def test_a_run_whose_device_was_chosen_is_the_one_that_leaves_it_to_us(tmp_path):
    config = complete({"agent": "reinforce", "env": "CartPole-v1", "steps": 100})
    folder = tmp_path / "CartPole-v1/reinforce/seed-0"
    folder.mkdir(parents=True)
    chosen = {**config, "agent_args": {**config["agent_args"], "device": "cpu"}}
    folders.write_config(folder, chosen)
    folders.write_summary(folder, {"steps": 100, "finished": True})

    def found(device):
        wanted = {**config, "agent_args": {**config["agent_args"], "device": device}}
        return executor.finished_folder(str(tmp_path), ["reinforce"], wanted)

    assert config["agent_args"]["device"] == "auto"
    assert found("auto") == found("cpu") == folder and found("cuda") is None


def test_the_run_that_is_wanted_is_known_by_its_settings_not_its_name(tmp_path):
    wanted = {"agent": "sarsa", "env": "G-v0", "steps": 100, "bins": None}
    wanted["agent_args"] = {"gamma": 0.9}

    def found(seed, **other):
        return executor.finished_folder(str(tmp_path), ["sarsa"], {**wanted, "seed": seed, **other})

    assert found(1) is None
    recorded(tmp_path, "sarsa", 10)
    recorded(tmp_path, "sarsa", 1, steps=99)  # another length
    recorded(tmp_path, "sarsa", 1, name="other")
    assert found(1) is None
    first = tmp_path / "G-v0/sarsa/seed-1"
    half = recorded(tmp_path, "sarsa", 2)
    (half / "summary.json").unlink()
    assert found(2) is None
    (half / "config.toml").write_text("not = [")
    assert found(2) is None
    recorded(tmp_path, "sarsa", 1, name="later").rename(first.with_name("seed-1-1"))
    assert found(1) == first.with_name("seed-1-1")
    assert found(1, agent_args={"gamma": 1.0}) is None
    cut = json.loads((first.with_name("seed-1-1") / "summary.json").read_text()) | {"steps": 50}
    (first.with_name("seed-1-1") / "summary.json").write_text(json.dumps(cut))
    assert found(1) is None  # it was ended before its time


# --- what is wanted ------------------------------------------------------------------------------


def jobs_of(text):
    """The plan of a command line."""
    typed, passed = script.make_parser().parse_known_args(text.split())
    script.check_run_flags(typed, passed, script.make_parser())
    return [executor.Job(run.config, "", run.name) for run in script.planned_runs(typed, passed)]


def test_the_plan_is_the_product_of_everything_seed_by_seed():
    jobs = jobs_of(
        "--agents q-learning --env FrozenLake-v1 Taxi-v4 --seeds 2 --steps 50 --double "
        "--grid learning-rate=0.1,0.5 --grid double=False,true"
    )
    assert len(jobs) == 2 * 2 * 2 * 2
    assert [job.config["seed"] for job in jobs] == [0] * 8 + [1] * 8
    assert [job.name for job in jobs[:4]] == [
        "q-learning,learning_rate=0.1,double=False",
        "q-learning,learning_rate=0.1,double=true",
        "q-learning,learning_rate=0.5,double=False",
        "q-learning,learning_rate=0.5,double=true",
    ]
    numbers = [job.config["agent_args"] for job in jobs[:4]]
    assert [n["learning_rate"] for n in numbers] == [0.1, 0.1, 0.5, 0.5]
    assert [n["double"] for n in numbers] == [False, True, False, True]
    assert {job.config["steps"] for job in jobs} == {50}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--agents sarsa q-lerning", 'q-lerning: unknown agent .* Did you mean "q-learning"'),
        ("--agents sarsa sarsa", "--agents sarsa sarsa: one is named twice"),
        ("--env Taxi-v4 Taxi-v4", "--env Taxi-v4 Taxi-v4: one is named twice"),
        ("--env FrozenLak-v1", "unknown environment 'FrozenLak-v1'.*FrozenLake-v1"),
        ("--env MountainCar-v0", "q-learning: .*--bins"),
        ("--double", "sarsa: unknown flag --double"),
        ("--step 5", "q-learning: unknown flag --step"),
        ("--seed 5", "--seed: .* Did you mean --seeds"),
        ("--run-dir x", "--run-dir: .* Did you mean --out"),
        ("--steps 0", "q-learning: --steps 0: expected a whole number of at least 1"),
        ("--eval-episodes 0", "--eval-episodes 0 leaves nothing for --metric eval_mean_reward"),
        ("--grid gamma", "--grid: 'gamma', expected name=value,value"),
        ("--grid gamma=1,,2", "--grid: 'gamma=1,,2', expected name=value,value"),
        ("--grid gamma=1,1", "with no value twice"),
        ("--grid gama=1,2", "q-learning,gama=1: unknown flag --gama=1"),
        ("--grid env-arg=a=1,a:1", "two of its values give the same folder name|env_arg"),
        ("--metric eval", "--metric: invalid choice: 'eval'"),
        ("--runs x --steps 5", "--steps with --runs, which runs nothing"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(text, message):
    with pytest.raises(UsageError, match=message):
        jobs_of(text)


@pytest.mark.parametrize("flags", ["--seeds 0", "--workers 0", "--seeds x"])
def test_bad_numbers_end_with_status_2_and_one_line(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert script.main(flags.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_not_written_to(tmp_path, capsys):
    several(tmp_path / "runs", "a", [1, 2])
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.md").write_text("months of work")
    flags = ["--runs", str(tmp_path / "runs"), "--out"]
    assert script.main([*flags, str(mine)]) == 2
    assert "holds something else than a comparison: name another --out" in capsys.readouterr().err
    assert script.main([*flags, str(mine / "thesis.md")]) == 2
    assert contents(mine) == {"thesis.md": b"months of work"}


def test_help_says_what_goes_to_the_runs(capsys):
    with pytest.raises(SystemExit):
        script.main(["--help"])
    text = capsys.readouterr().out
    assert "--grid" in text and "Every other flag goes to each run" in text


# --- reading -------------------------------------------------------------------------------------


def test_a_running_mean_takes_what_there_is_until_its_window_is_full():
    assert_array_equal(running_mean(np.array([2.0, 4, 6, 9]), 3), [2, 3, 4, 19 / 3])
    assert_array_equal(running_mean(np.array([2.0, 4]), 3), [2, 3])
    assert_array_equal(running_mean(np.array([]), 3), [])
    assert_array_equal(running_mean(np.array([1.0, np.nan, 3, 5]), 2), [1, np.nan, np.nan, 4])


@settings(derandomize=True, database=None, deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e3, 1e3), max_size=30), st.integers(1, 10))
def test_a_running_mean_is_the_mean_of_the_last_ones(values, window):
    expected = [np.mean(values[max(0, i - window + 1) : i + 1]) for i in range(len(values))]
    assert_allclose(running_mean(np.array(values), window), expected, atol=1e-9)


def test_a_run_is_read_with_its_curve_and_scores(tmp_path):
    returns = [0.0] * 100 + [100.0] * 100
    run = read_run(recorded(tmp_path, "a", 3, 7.0, returns, steps=400))
    assert_array_equal(run.steps, np.arange(1, 201) * 2)
    assert_array_equal(run.values[[0, 99, 100, 149, 199]], [0, 0, 1, 50, 100])
    assert run.score("eval_mean_reward") == 7 and run.score("ep_rew_mean") == 70
    # flat 0 to step 200, then up in a line to 100 at step 400
    assert run.score("area") == pytest.approx((200 * 100 / 2) / 400)
    longer = run._replace(summary={"steps": 800})  # 400 steps more, no further episode's end
    assert longer.score("area") == pytest.approx((200 * 100 / 2 + 400 * 100) / 800)


def test_the_curve_of_a_run_is_rollout_ep_rew_mean(done):
    home, *_ = done
    folder = home / "FrozenLake-v1/q-learning/seed-0"
    run = read_run(folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert run.values[-1] == pytest.approx(summary["ep_rew_mean"])
    assert len(run.values) == summary["episodes"]


def test_runs_are_found_by_glob_by_folder_and_inside(tmp_path):
    a0, a1 = several(tmp_path, "a", [1, 2])
    (b0,) = several(tmp_path, "b", [3])
    assert find_runs([str(tmp_path / "G-v0/*/seed-0")]) == [a0, b0]
    assert find_runs([str(a1), str(tmp_path)]) == [a1, a0, b0]
    with pytest.raises(UsageError, match="nothing: no run folder there, one that holds config"):
        find_runs([str(tmp_path / "nothing")])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("episodes.csv", "step,return,length\n5,1.0,1\n6,", "episodes.csv is not what a run"),
        ("episodes.csv", "step,return,length\n5,one,1\n", "episodes.csv is not what a run writes"),
        ("summary.json", "{", "summary.json is not what a run writes"),
        ("summary.json", "{}", "summary.json is not what a run writes: 'steps'"),
        ("summary.json", "[1]", "summary.json is not what a run writes"),
        ("config.toml", "x = 1", "config.toml: no agent, env, seed, steps in it"),
    ],
)
def test_a_damaged_run_is_refused_in_a_line(tmp_path, file, text, message, capsys):
    folder, _ = several(tmp_path, "a", [1, 2])
    (folder / file).write_text(text)
    assert script.main(["--runs", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_many_seeds_in_one_folder_are_left_out_of_a_comparison(tmp_path, capsys):
    several(tmp_path / "runs", "a", [1, 2])
    folder = recorded(tmp_path / "runs", "b", 0, seeds=8)
    words = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert script.main(words) == 0
    told = capsys.readouterr()
    assert f"{folder} holds the curves of many seeds and no evaluation: it is left out" in told.err
    (row,) = json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]
    assert row["agent"] == "a"
    assert script.main(["--runs", str(folder)]) == 2
    assert "no run to compare: compare runs of a seed each" in capsys.readouterr().err


def test_algorithms_are_named_by_what_their_runs_differ_in(tmp_path):
    several(tmp_path, "a", [1, 2], name="a1", agent_args={"gamma": 0.9, "double": True})
    several(tmp_path, "a", [1], name="a2", agent_args={"gamma": 1.0, "double": True})
    several(tmp_path, "a", [1], name="a3", agent_args={"gamma": 0.9, "extra": "x"}, eval_every=9)
    several(tmp_path, "b", [1], steps=7, agent_args={"gamma": 0.5})
    for width in (8, 9):
        several(tmp_path, "c", [1], name=f"c{width}", network="gru", network_args={"size": width})
    runs = [read_run(folder) for folder in find_runs([str(tmp_path)])]
    assert labels(runs) == [
        "a,gamma=0.9,double=True",
        "a,gamma=0.9,double=True",
        "a,gamma=1.0,double=True",
        "a,gamma=0.9,extra=x",
        "b",
        "c,size=8",
        "c,size=9",
    ]


def test_algorithms_begun_from_runs_are_named_by_these_alone(tmp_path):
    """Each has another learning rate, as a preset comes with --from."""
    for i, place in enumerate([{}, {"from": "/x/ppo/seed-0"}, {"from": "/x/e/cloned"}]):
        several(tmp_path, "a", [1], name=f"a{i}", agent_args={"gamma": i}, **place)
    runs = [read_run(folder) for folder in find_runs([str(tmp_path)])]
    assert labels(runs) == ["a", "a,from=ppo-seed-0", "a,from=cloned"]
    several(tmp_path, "b", [1], name="b", **{"from": "/y/e/cloned"})  # of the same short name
    runs = [read_run(folder) for folder in find_runs([str(tmp_path)])]
    assert labels(runs) == ["a", "a,from=/x/ppo/seed-0", "a,from=/x/e/cloned", "b"]


# --- the table -----------------------------------------------------------------------------------


def test_the_table_says_who_is_better_by_how_much(tmp_path):
    several(tmp_path, "a", [1, 2, 3, 4], returns=[1, 3])
    several(tmp_path, "b", [11, 12, 13, 22], returns=[2, 2])
    table = table_of(tmp_path)
    a, b = table.rows
    assert [float(a.score[name].value) for name in ("mean", "median", "iqm")] == [2.5, 2.5, 2.5]
    assert [float(b.score[name].value) for name in ("mean", "median", "iqm")] == [14.5, 12.5, 12.5]
    assert float(a.area.value) == 1.25  # 1 up to step 50, then on to the mean, 2
    assert float(b.area.value) == 2.0
    (pair,) = table.pairs
    assert pair.comparison.difference == -12
    assert pair.comparison.adjusted == pytest.approx(2 / 70)  # the most extreme of C(8, 4) splits
    assert pair.improvement.value == 0
    text = report.terminal(table)
    assert "b is better than a; difference +12, p = 0.029, wins 1.00 (1.00 to 1.00)" in text
    assert "note: only 4 seeds" in text and "however large" not in text


def test_a_threshold_is_held_against_the_mean_of_100_episodes(tmp_path):
    """Not against the first lucky episode, nor the mean of the first few."""
    several(tmp_path, "lucky", [1, 2], returns=[9] * 30 + [0] * 170, steps=400)
    several(tmp_path, "slow", [1, 2], returns=[0] * 100 + [5] * 100, steps=400)
    several(tmp_path, "always", [1, 2], returns=[3] * 100, steps=400)
    several(tmp_path, "short", [1, 2], returns=[9] * 99, steps=99)
    table = table_of(tmp_path, threshold=3.0)
    found = {row.group.name: row.reached.tolist() for row in table.rows}
    assert found["slow"] == [320, 320] and found["always"] == [400, 400]  # the 160th, the 100th
    assert np.isnan([found["lucky"], found["short"]]).all()
    assert any("short: 2 of 2 runs have fewer than 100 episodes" in x for x in table.notes)
    text = report.terminal(table)
    assert "slow reached 3 (mean of 100 episodes) in 2 of 2 runs, the median of them after" in text


@pytest.mark.parametrize("metric", ["eval_mean_reward", "ep_rew_mean", "area"])
def test_identical_algorithms_are_not_distinguishable(tmp_path, metric):
    several(tmp_path, "a", range(10), returns=[1, 2, 4])
    several(tmp_path, "b", range(10), returns=[1, 2, 4])
    table = table_of(tmp_path, metric=metric)
    assert table.pairs[0].comparison.verdict == "not distinguishable"
    assert table.pairs[0].improvement.value == 0.5
    assert "a and b: not distinguishable" in report.terminal(table)
    assert table.notes == []


def test_a_run_without_a_score_is_left_out_of_means_and_its_pairs_are_not_tested(tmp_path):
    several(tmp_path, "a", [1, 2, 3, 4, 5, 6])
    several(tmp_path, "b", [11, 12, 13, 14, 15, 16])
    several(tmp_path, "c", [5, 5, 5, 5, 5, None])
    (tmp_path / "G-v0/b/seed-2/summary.json").unlink()
    table = table_of(tmp_path)
    assert [float(row.score["mean"].value) for row in table.rows] == [3.5, 13.6, 5.0]
    assert [pair.comparison for pair in table.pairs] == [None] * 3
    text = report.terminal(table)
    assert "a and b: not tested, a score is missing" in text and "5/6" in text
    assert "note: b lacks a score for seed 2" in text and "note: c lacks a score for seed 5" in text


def test_one_seed_gives_no_interval_and_no_verdict(tmp_path):
    several(tmp_path, "a", [1])
    several(tmp_path, "b", [2])
    text = report.terminal(table_of(tmp_path))
    assert re.search(r"^a +1 +1 +- +1 +1", text, re.MULTILINE)
    assert "a and b: not distinguishable" in text and "only 1 seed:" in text
    assert "the least possible p is 1; with 4 seeds it can" in text


def test_one_algorithm_alone_is_a_table_too(tmp_path):
    several(tmp_path, "a", [1, 2, 3, 4, 5])
    table = table_of(tmp_path)
    assert (len(table.rows), table.pairs, table.notes) == (1, [], [])


def test_many_pairs_need_more_seeds(tmp_path):
    for agent in "abcd":
        several(tmp_path, agent, [1, 2, 3, 4])
    notes = table_of(tmp_path).notes
    assert any("least possible p is 0.17; with 5 seeds it can" in note for note in notes)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_returns_that_are_not_finite_are_said_and_stay_unknown(tmp_path, bad):
    several(tmp_path, "a", range(5), returns=[1.0, 2.0])
    recorded(tmp_path, "a", 5, 5.0, returns=[1.0, bad, 2.0])
    table = table_of(tmp_path, metric="area")
    assert "a: 1 of 6 learning curves hold returns not finite" in table.notes
    assert "a lacks a score for seed 5: its means leave them out, no test is done" in table.notes
    assert float(table.rows[0].score["mean"].value) == 1.125  # 1 up to step 50, then to 1.5
    assert table_of(tmp_path).rows[0].group.missing == []


def test_a_run_without_an_episode_has_no_curve(tmp_path):
    several(tmp_path, "a", range(5), returns=[])
    table = table_of(tmp_path)
    assert math.isnan(table.rows[0].area.value)
    plot.draw(table, tmp_path / "empty.png")
    write_charts(tmp_path, table, "")
    assert json.loads(report.as_json(table))["rows"][0]["area"]["value"] is None
    with pytest.raises(UsageError, match="no run has a score area"):
        table_of(tmp_path, metric="area")


def test_runs_of_unequal_length_share_a_picture_and_it_is_said(tmp_path):
    recorded(tmp_path, "a", 0, returns=[1, 1], steps=100, until=80)
    recorded(tmp_path, "a", 1, returns=[3, 3], steps=200)
    table = table_of(tmp_path)
    assert any("unequal length, 100 to 200 env steps" in note for note in table.notes)
    grid, found = curves(table, "G-v0")
    assert grid[-1] == 200
    short, long = found["a"]
    assert np.isnan(short[grid > 100]).all() and (short[(40 <= grid) & (grid <= 100)] == 1).all()
    assert (long[grid >= 100] == 3).all() and np.isnan(long[grid < 100]).all()


def test_the_same_seed_twice_is_no_more_evidence(tmp_path):
    several(tmp_path, "a", range(5))
    recorded(tmp_path, "a", 2, 100.0, name="again", steps=200)
    half = recorded(tmp_path, "a", 3, 100.0, name="half", steps=200)
    (half / "summary.json").unlink()
    table = table_of(tmp_path)
    assert sorted(table.rows[0].group.scores) == [0, 1, 3, 4, 100]
    said = [note for note in table.notes if "is left out" in note]
    assert len(said) == 2
    assert said[0].startswith(f"{tmp_path / 'G-v0/a/seed-2'} is left out: ")
    assert said[1].startswith(f"{half} is left out: ")


def test_other_rules_of_the_game_are_refused(tmp_path):
    several(tmp_path, "a", [1, 2], max_episode_steps=200)
    several(tmp_path, "b", [1, 2])
    with pytest.raises(UsageError, match=r"differ in max_episode_steps 200 and None: what they"):
        table_of(tmp_path)


def test_mixed_environments_are_refused(tmp_path):
    several(tmp_path, "a", [1, 2])
    several(tmp_path, "b", [1, 2], env="H-v0")
    with pytest.raises(UsageError, match="a has no run in H-v0, others have"):
        table_of(tmp_path)


def test_no_finished_run_is_refused(tmp_path):
    for folder in several(tmp_path, "a", [1, 2]):
        (folder / "summary.json").unlink()
    with pytest.raises(UsageError, match="no run has a score eval_mean_reward"):
        table_of(tmp_path)


def test_scores_of_several_environments_are_pooled_where_their_scales_are_known(tmp_path):
    for env, low in (("G-v0", 0), ("H-v0", 100)):
        several(tmp_path, "a", [low, low + 10], name=f"{env}a", env=env)
        several(tmp_path, "b", [low + 5, low + 5], name=f"{env}b", env=env)
    scales = {"G-v0": (0.0, 10.0), "H-v0": (100.0, 110.0)}
    table = table_of(tmp_path, scales=scales)
    assert [(entry.name, float(entry.mean.value)) for entry in table.pooled] == [
        ("a", 0.5),
        ("b", 0.5),
    ]
    assert float(table.pooled[0].iqm.value) == 0.5
    assert [float(row.normalized.value) for row in table.rows] == [0.5] * 4
    assert len(table.pairs) == 2  # within an environment only
    assert "all environments: normalised scores" in report.terminal(table)
    table = table_of(tmp_path, scales={"G-v0": (0.0, 10.0)})
    assert table.pooled == [] and any("no mean over the env" in note for note in table.notes)


def test_the_scale_of_an_environment_is_exact_where_its_model_is_known():
    random, best = score_scale({"env": "CliffWalking-v1", "max_episode_steps": 200})
    assert best == pytest.approx(-13) and random == pytest.approx(-2079.1, abs=0.1)
    assert score_scale({"env": "CliffWalking-v1"}) is None  # it may never end
    assert score_scale({"env": "CartPole-v1"}) == (22.2, 500.0)
    assert score_scale({"env": "Nowhere-v0"}) is None
    assert score_scale({"env": "Pendulum-v1"}) is None


def test_algorithms_that_differ_past_the_cut_of_a_name_have_folders_of_their_own(tmp_path):
    for i in range(2):
        several(tmp_path / "runs", "a", [1, 2], name=f"a{i}", agent_args={"b": f"{'x' * 220}{i}"})
    out = tmp_path / "out"
    assert script.main(["--runs", str(tmp_path / "runs"), "--out", str(out), "--quiet"]) == 0
    assert len([*out.glob("a,*/seed-0")]) == 2


# --- text ----------------------------------------------------------------------------------------


def test_the_terminal_table_fits_100_columns(tmp_path):
    for i in range(3):
        rate = f"linear:0.123456789:0.0123456789:{i}"
        numbers = {"learning_rate": rate, "trace": "accumulating" + "-and-more" * 8}
        scores = [-123456.789 * x for x in (1, 2, 3, 4, i)]
        several(tmp_path, "q-learning", scores, name=f"q{i}", agent_args=numbers)
    several(tmp_path, "q-learning", [0, 1], name="q", agent_args={})
    table = table_of(tmp_path, scales={"G-v0": (-1e6, -1.5)}, threshold=0.5)
    lines = report.terminal(table).split("\n")
    assert max(map(len, lines)) <= 100
    whole = "".join(lines)  # a name too long for the table has lines of its own
    assert all(row.group.name in whole for row in table.rows)


def test_csv_and_json_hold_the_numbers(tmp_path):
    several(tmp_path / "runs", "a", [1, 2, 3, 4, None])
    several(tmp_path / "runs", "b", [1])
    out = tmp_path / "out"
    flags = ["--runs", str(tmp_path / "runs/*/*/*"), "--out", str(out), "--threshold", "5"]
    assert script.main([*flags, "--quiet"]) == 0
    with open(out / "compare.csv", newline="") as file:
        a, b = csv.DictReader(file)
    assert (a["agent"], a["runs"], a["mean"], b["mean_low"]) == ("a", "4", "2.5", "")
    found = json.loads((out / "compare.json").read_text(), parse_constant=pytest.fail)
    assert [run["score"] for run in found["rows"][0]["runs"]] == [1, 2, 3, 4, None]
    assert found["rows"][0]["steps_to_threshold"] == [None] * 5
    assert found["pairs"][0]["verdict"] == "not tested"
    above = found["profiles"]["G-v0"]["above"]["a"]["value"]
    assert (above[0], above[-1]) == (0.75, 0.0)
    assert (out / "compare.md").read_text().startswith("## G-v0: eval_mean_reward")
    assert "\n| a | 4/5 | 2.5 |" in (out / "compare.md").read_text()


def test_a_stored_run_cannot_make_the_comparison_import_code(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    several(tmp_path / "runs", "a", [1, 2], env="evil_module:G-v0")
    flags = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--quiet"]
    assert script.main(flags) == 0
    assert "evil_module" not in sys.modules


# --- picture -------------------------------------------------------------------------------------


def test_without_matplotlib_the_rest_is_there_and_the_command_is_named(
    tmp_path, monkeypatch, capsys
):
    several(tmp_path / "runs", "a", [1, 2])
    out = tmp_path / "out"
    flags = ["--runs", str(tmp_path / "runs"), "--out", str(out), "--quiet"]
    assert script.main(flags) == 0 and (out / "compare.png").exists()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert script.main(flags) == 0
    assert "pip install -e .[plot]" in capsys.readouterr().err
    assert not (out / "compare.png").exists() and (out / "compare.json").exists()


def test_names_are_moved_apart_as_little_as_it_takes():
    assert_allclose(plot.spaced(np.array([0.1, 0.5, 0.9]), 0.1), [0.1, 0.5, 0.9])
    assert_allclose(plot.spaced(np.array([0.5, 0.5]), 0.1), [0.45, 0.55])
    middle = (0.4 + (0.5 - 0.1) + (0.52 - 0.2)) / 3
    assert_allclose(plot.spaced(np.array([0.4, 0.5, 0.52]), 0.1), middle + np.array([0, 0.1, 0.2]))
    assert_allclose(plot.spaced(np.array([0.99, 1.0, 1.0]), 0.1), [0.8, 0.9, 1.0])


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).map(sorted))
def test_names_never_overlap_and_stay_in_order(heights):
    moved = plot.spaced(np.array(heights), 0.1)
    assert (np.diff(moved) >= 0.1 - 1e-9).all()
    assert moved[0] >= -1e-9 and moved[-1] <= 1 + 1e-9


def test_the_axis_cuts_only_a_clumsy_beginning():
    def ends(values, scale=None):
        band = plot.Estimate(*[np.asarray(values, dtype=float)] * 3)
        return plot.y_limits([band], scale)

    low, high, cut = ends([-2000, -1000, -100, -50, -20, -20, -20, -20, -20, -20])
    assert cut and -200 < low < -20 < high < 0
    assert ends(np.linspace(0, 10, 50)) == (-0.8, 10.8, False)
    assert ends([5, 5]) == (4, 6, False)
    assert ends([math.nan]) == (0, 1, False)
    assert ends([0, 10], (0.0, 11.0))[1] > 11


MADE = runpy.run_path(str(HOME / "docs/make_pictures.py"))


def commands_in(page):
    """The text of a page, a command in a line."""
    return " ".join((HOME / page).read_text().replace("\\\n", " ").split())


@pytest.mark.parametrize(("name", "jobs"), [("compare", 20), ("compare_networks", 10)])
def test_the_readmes_pictures_are_made_by_its_commands(name, jobs):
    flags, steps = MADE["COMPARISONS"][name]
    readme = commands_in("README.md")
    assert f"scripts/compare.py {flags} --steps {steps}" in readme
    assert f"(docs/{name}.png)" in readme
    assert (HOME / f"docs/{name}.png").stat().st_size < 100_000
    assert len(jobs_of(f"{flags} --steps {steps}")) == jobs


def test_the_picture_of_imitation_and_reward_is_made_by_its_pages_commands():
    name = "imitate_then_reinforce"
    page, (flags, steps) = commands_in(f"docs/{name}.md"), MADE["COMPARISONS"][name]
    assert f"seqrl train {MADE['BEFORE'][name]}" in page
    assert f"seqrl compare {flags} --steps {steps}" in page and f"({name}.png)" in page
    assert (HOME / f"docs/{name}.png").stat().st_size < 100_000


# --- TensorBoard ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ask(done):
    """A function that asks a TensorBoard that looks at the folder of the comparison."""
    words = [sys.executable, "-m", "tensorboard.main", "--logdir", str(done[2]), "--port", "0"]
    words += ["--host", "127.0.0.1", "--load_fast", "false"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        lines = (re.search(r"http://\S+\d", line) for line in process.stderr)
        address = next(found[0] for found in lines if found)

        def asked(path, body=None, **query):
            data = None if body is None else json.dumps(body).encode()
            url = f"{address}/data/{path}?{urlencode(query)}"
            with urlopen(Request(url, data, {"Content-Type": "application/json"})) as answer:
                return json.load(answer)

        until = time.monotonic() + 30
        while len(asked("runs")) < 7 and time.monotonic() < until:
            time.sleep(0.05)
        yield asked
        process.kill()


ROWS = [f"{agent}/seed-{seed}" for agent in ("q-learning", "sarsa") for seed in (0, 1)]


def test_tensorboard_lists_the_algorithms_then_their_seeds_and_no_nameless_run(ask):
    assert ask("runs") == ["q-learning", "sarsa", *ROWS, "comparison"]


def test_tensorboard_shows_means_then_seeds_and_the_intervals_last(ask, done):
    tags = ask("plugin/scalars/tags")
    kinds = ("evaluation", "training")
    means = {f"compare/FrozenLake-v1/{kind}" for kind in kinds}
    ends = {f"seeds_interval/FrozenLake-v1/{k}_{end}" for k in kinds for end in ("low", "high")}
    seeds = {f"seeds/FrozenLake-v1/{kind}" for kind in kinds}
    assert {run: set(found) for run, found in tags.items()} == {
        **dict.fromkeys(("q-learning", "sarsa"), means | ends),
        **dict.fromkeys(ROWS, seeds),
    }
    groups = sorted({tag.partition("/")[0] for found in tags.values() for tag in found})
    assert groups == ["compare", "seeds", "seeds_interval"]  # SCALARS opens the first two
    runs = [read_run(done[0] / f"FrozenLake-v1/sarsa/seed-{seed}") for seed in (0, 1)]
    scores = [run.summary["eval_mean_reward"] for run in runs]
    for kind, ends in (("evaluation", scores), ("training", [run.values[-1] for run in runs])):
        _, step, value = ask(
            "plugin/scalars/scalars", run="sarsa", tag=f"compare/FrozenLake-v1/{kind}"
        )[-1]
        assert step == 600 and value == pytest.approx(np.mean(ends))
        low, high = (
            ask(
                "plugin/scalars/scalars",
                run="sarsa",
                tag=f"seeds_interval/FrozenLake-v1/{kind}{end}",
            )
            for end in ("_low", "_high")
        )
        assert low[-1][2] <= value <= high[-1][2]
        own = ask("plugin/scalars/scalars", run="sarsa/seed-1", tag=f"seeds/FrozenLake-v1/{kind}")
        assert own[-1][1:] == [600, pytest.approx(ends[1])]


def test_tensorboard_has_margin_charts_of_evaluations_and_training(ask):
    (category,) = ask("plugin/custom_scalars/layout")["category"]
    assert category["title"] == "FrozenLake-v1"
    series = [chart["margin"]["series"] for chart in category["chart"]]
    assert series == [
        [
            {
                "value": f"compare/FrozenLake-v1/{kind}",
                "lower": f"seeds_interval/FrozenLake-v1/{kind}_low",
                "upper": f"seeds_interval/FrozenLake-v1/{kind}_high",
            }
        ]
        for kind in ("training", "evaluation")  # it shows the last first
    ]


def test_tensorboard_has_the_table_as_text(ask):
    (page,) = ask("plugin/text/text", run="comparison", tag="comparison")
    assert "<td>sarsa</td>" in page["text"] and "not distinguishable" in page["text"]


def test_tensorboard_has_a_hparams_row_for_every_run_its_score_first(ask, done):
    columns = ask("plugin/hparams/experiment", {"experimentName": ""})
    assert [column["name"] for column in columns["hparamInfos"]] == ["agent", "seed"]
    metrics = [column["name"]["tag"] for column in columns["metricInfos"]]
    assert metrics == ["seeds/FrozenLake-v1/evaluation", "seeds/FrozenLake-v1/training"]
    question = {"experimentName": "", "allowedStatuses": ["STATUS_SUCCESS"], "colParams": []}
    groups = ask("plugin/hparams/session_groups", {**question, "startIndex": 0, "sliceSize": 9})
    rows = {group["name"]: group for group in groups["sessionGroups"]}
    assert sorted(rows) == ROWS
    for name, row in rows.items():
        agent, seed = name.split("/seed-")
        assert row["hparams"] == {"agent": agent, "seed": float(seed)}
        summary = json.loads((done[0] / "FrozenLake-v1" / name / "summary.json").read_text())
        score = next(x["value"] for x in row["metricValues"] if x["name"]["tag"] == metrics[0])
        assert score == pytest.approx(summary["eval_mean_reward"])


def test_each_environment_has_its_own_axes_and_the_charts_of_an_algorithm_one_run(tmp_path):
    for env, scores in (("G-v0", [1.0, 3.0]), ("H-v0", [100.0, 300.0])):
        for agent in "ab":
            several(tmp_path / env, agent, scores, env=env, returns=scores)
    write_charts(tmp_path / "out", table_of(tmp_path), "")
    assert scalar(tmp_path / "out/a", "compare/G-v0/training")[-1] == (100, 2.0)
    assert scalar(tmp_path / "out/a", "compare/H-v0/training")[-1] == (100, 200.0)
    assert scalar(tmp_path / "out/b/seed-1", "seeds/H-v0/training")[-1] == (100, 200.0)


def scalar(folder, tag):
    """A curve in a folder's event files."""
    return list(zip(*(part.tolist() for part in read_scalar(folder, tag)), strict=True))


def test_evaluations_a_few_steps_apart_are_one_step_and_a_lone_run_has_a_band(tmp_path):
    played = [{30: 1.0, 60: 2.0, 100: 3.0}, {32: 5.0, 61: math.inf, 100: 9.0}, {31: 3.0}]
    for seed, (own, steps) in enumerate(zip(played, (100, 100, 31), strict=True)):
        folder = recorded(tmp_path / "runs", "a", seed, [*own.values()][-1], steps=steps)
        points = [(step, scalars({"eval/mean_reward": value})) for step, value in own.items()]
        write_events(folder, points, 1.0)
    out = tmp_path / "out"
    write_charts(out, table_of(tmp_path / "runs"), "")
    assert scalar(out / "a", "compare/G-v0/evaluation") == [(30, 3.0), (60, 2.0), (100, 6.0)]
    for end in ("low", "high"):  # of one run none is known, but the chart needs one
        band = scalar(out / "a", f"seeds_interval/G-v0/evaluation_{end}")
        assert [step for step, _ in band] == [30, 60, 100] and band[1] == (60, 2.0)
    assert scalar(out / "a/seed-1", "seeds/G-v0/evaluation") == [(32, 5.0), (100, 9.0)]


def test_evaluations_at_steps_of_their_own_are_no_single_step(tmp_path):
    played = [{40: 1.0, 70: 2.0, 100: 3.0}, {40: 1.0, 70: 2.0, 80: 4.0, 90: 5.0, 100: 7.0}]
    for seed, own in enumerate(played):
        folder = recorded(tmp_path / "runs", "a", seed, own[100], steps=100)
        points = [(step, scalars({"eval/mean_reward": value})) for step, value in own.items()]
        write_events(folder, points, 1.0)
    write_charts(tmp_path / "out", table_of(tmp_path / "runs"), "")
    found = scalar(tmp_path / "out/a", "compare/G-v0/evaluation")
    assert found == [(40, 1.0), (70, 2.0), (80, 3.0), (90, 3.5), (100, 5.0)]


def driven(home, agent, played, driver="teacher"):
    """Runs of an agent whose training returns are a teacher's, and whose evaluations are given."""
    for seed, own in enumerate(played):
        folder = recorded(home, agent, seed, own[100], returns=[1.0] * 9, steps=100)
        points = [(step, scalars({"eval/mean_reward": value})) for step, value in own.items()]
        write_events(folder, [*points, (9, scalars({f"{driver}/ep_rew_mean": 1.0}))], 1.0)


def test_where_a_teacher_drove_curves_are_of_greedy_evaluations(tmp_path):
    """Also those of an agent beside it that played by itself; the teacher earns 1 throughout."""
    driven(tmp_path, "taught", [{50: 0.0, 100: 0.5}, {50: 0.25, 100: 0.75}])
    driven(tmp_path, "alone", [{50: 0.0, 100: 0.25}] * 2, driver="rollout")
    table = table_of(tmp_path, threshold=0.5)
    areas = {row.group.name: float(row.area.value) for row in table.rows}
    assert areas == {"taught": 0.25, "alone": 0.0625}  # a mean of (0 + .25 / 2) and (.25 + .5) / 2
    assert table.rows[1].reached.tolist() == [100, 100]
    text = report.terminal(table)
    assert "taught reached 0.5 (greedy evaluations) in 2 of 2 runs" in text
    assert "a teacher had a part in training's returns" in text
    _, values = curves(table, "G-v0")
    assert values["taught"][:, -1].tolist() == [0.5, 0.75]
    write_charts(tmp_path / "out", table, "")
    assert scalar(tmp_path / "out/taught", "compare/G-v0/evaluation") == [(50, 0.125), (100, 0.625)]
    assert not scalar(tmp_path / "out/taught", "compare/G-v0/training")


def test_only_settings_in_which_runs_differ_are_compared(tmp_path):
    for name, config in {
        "a": {"agent_args": {"gamma": 0.9, "epsilon": 0.1}},
        "b": {"agent_args": {"gamma": 0.5, "epsilon": 0.1, "clip": 0.2}, "network": "mlp"},
        "c": {"agent_args": {"gamma": 0.5, "epsilon": 0.1, "clip": 0.2}, "network": "gru"},
    }.items():
        recorded(tmp_path, "x" if name == "a" else "y", 0, name=name, **config)
    runs = [read_run(folder) for folder in find_runs([str(tmp_path)])]
    assert varying(runs) == ["agent", "gamma", "network"]
    assert varying(runs[1:]) == ["network"]


def test_an_earlier_comparison_is_replaced_and_nothing_else(tmp_path):
    several(tmp_path / "runs", "a", [1, 2])
    out = tmp_path / "out"
    for stale in (out, out / "gone", out / "gone/seed-0", out / "a"):
        stale.mkdir(exist_ok=True)
        (stale / EVENT_FILES.replace("*", "1")).write_text("old")
        (stale / "events.out.tfevents.1.mine").write_text("mine")
    write_charts(out, table_of(tmp_path / "runs"), "")
    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    mine = {f"{place}events.out.tfevents.1.mine" for place in ("", "gone/", "gone/seed-0/", "a/")}
    assert mine <= left
    assert {name.rpartition("/")[0] for name in left - mine} == {
        *("a", "a/seed-0", "a/seed-1", "comparison"),
    }
