"""Searches: spaces, trials told and pruned, interrupted and shared, the best run again."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import FixedTrial

from seqrl.agents.arguments import agent_parameters
from seqrl.agents.registry import AGENTS, agent_class
from seqrl.core import UsageError
from seqrl.scripts import engine, search, train
from seqrl.training.engines.executor import Job, Processes, Result
from seqrl.training.runs import folder as runs
from seqrl.training.runs.config import complete
from seqrl.training.search import search as searches
from seqrl.training.search import study as studies
from seqrl.training.search.again import run_best
from seqrl.training.search.pruning import Report, read_report
from seqrl.training.search.search import Search
from seqrl.training.search.settings import with_values
from seqrl.training.search.space import read_range
from seqrl.training.search.study import Study

CLIFF = "--env CliffWalking-v1 --max-episode-steps 40 --steps 480 --eval-episodes 2".split()
CLIFF += ["--metric", "ep_rew_mean"]
CLIFF += "--search learning_rate=log:0.01:1 --search epsilon=uniform:0.05:0.5".split()
CLIFF += ["--seeds-per-trial", "2"]
AGAIN = ["--best", "2", "--fresh-seeds", "2"]
COMMON = {"config": {}, "metric": "eval_mean_reward"}


class Here:
    """An engine in this process: each job is the command that an executor would start."""

    taken = ()  # names of the jobs so far
    most = 10**6  # of them before Ctrl-C

    def map(self, jobs):
        for job in jobs:
            if len(Here.taken) == Here.most:
                raise KeyboardInterrupt
            Here.taken = (*Here.taken, job.name)
            if not (Path(job.folder) / "config.toml").exists():
                config = complete(job.config)
                runs.write_config(runs.new_folder("", "", "", 0, str(job.folder)), config)
            words = ["--resume", str(job.folder), "--quiet", *job.flags]
            status = train.main(words)
            yield Result(job, f"exit status {status}" if status else "")


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setattr(engine, "executor", lambda args, progress: Here())
    monkeypatch.setattr(Here, "taken", ())
    monkeypatch.setattr(Here, "most", 10**6)
    return Here


@pytest.fixture
def undrawn(monkeypatch):
    """No pictures, which take most of the time."""
    for wing in ("search", "comparison"):
        monkeypatch.setattr(f"seqrl.training.{wing}.files.draw", lambda *args: None)


def searched(home, *words, status=0):
    """The rows of search.csv after a command."""
    assert search.main([*CLIFF, *AGAIN, "--out", str(home), *words]) == status
    return rows_of(home)


def rows_of(home):
    with open(Path(home) / "search.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary(folder):
    return json.loads((Path(folder) / "summary.json").read_text())


# --- spaces --------------------------------------------------------------------------------------


def test_a_range_draws_what_one_would_type():
    log = read_range("linear:{log:1e-4:3e-2}:0")
    assert log.ends == ["linear:0.0001:0", "linear:0.03:0"]
    assert log.draw("x", FixedTrial({"x": 0.00123456})) == "linear:0.001235:0"
    assert log.draw("x", FixedTrial({"x": 0.03})) == "linear:0.03:0"
    assert read_range("uniform:0.9:0.99999").draw("x", FixedTrial({"x": 0.99999})) == "0.99999"
    assert read_range("int:2:9").draw("x", FixedTrial({"x": 3})) == "3"
    assert read_range("int:2:9").ends == ["2", "9"]
    assert read_range("choice:32,64").draw("x", FixedTrial({"x": "64"})) == "64"
    assert read_range("choice:linear:1:0,0.5").ends == ["linear:1:0", "0.5"]


@pytest.mark.parametrize(
    "text, told",
    [
        ("loog:1:2", "expected log:LOW:HIGH, uniform:LOW:HIGH, int:LOW:HIGH or choice:A,B,C"),
        ("log:1", "expected log:LOW:HIGH"),
        ("int:1.5:3", "expected log:LOW:HIGH"),
        ("uniform:2:1", "two finite ends, the lower one first"),
        ("uniform:0:inf", "two finite ends"),
        ("log:0:1", "log takes ends above 0"),
        ("choice:a,a", "no value twice"),
        ("choice:", "no value twice"),
    ],
)
def test_a_range_that_means_nothing_is_refused(text, told):
    with pytest.raises(UsageError, match=told):
        read_range(text)


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_says_what_is_worth_searching(agent, network):
    if network or AGENTS[agent].table:
        cls = agent_class(agent, network)
        assert cls.search_space and cls.search_space.keys() <= agent_parameters(cls).keys()
        env = "seqrl/RepeatFirst-v0" if network else "FrozenLake-v1"
        env = "Pendulum-v1" if agent == "sac" else env
        flags = ["--agent", agent, "--env", env, *(["--network", "mlp"] if network else [])]
        space = search.search_space([], flags)
        search.check_space(space, flags, "eval_mean_reward")
        fixed = next(iter(space))
        assert fixed not in search.search_space([], [*flags, f"--{fixed.replace('_', '-')}=1"])


def test_help_shows_the_space_of_an_agent(capsys):
    with pytest.raises(SystemExit):
        search.main(["--agent", "ppo", "--help"])
    assert "learning_rate=linear:{log:1e-4:3e-2}:0" in capsys.readouterr().out


# --- a search ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A search, in this process: its folder, and the names of its jobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("search"))
        patch.setattr(engine, "executor", lambda args, progress: Here())
        patch.setattr(Here, "taken", ())
        home = Path("out").absolute()
        rows = searched(home, "--trials", "8", "--quiet")
        yield home, rows, Here.taken


def test_trials_are_runs_whose_mean_is_their_score(done):
    home, rows, jobs = done
    states = [row["state"] for row in rows]
    assert [row["trial"] for row in rows] == [*"01234567"]
    assert set(states) == {"complete", "pruned"}
    for row in rows:
        assert row["folder"] == str(home / "trials" / f"{int(row['trial']):04}")
        assert 0.01 <= float(row["learning_rate"]) <= 1 and 0.05 <= float(row["epsilon"]) <= 0.5
        if row["state"] == "complete":
            found = [summary(Path(row["folder"]) / f"seed-{seed}") for seed in (0, 1)]
            mean = np.mean([one["ep_rew_mean"] for one in found])
            assert float(row["score"]) == mean and int(row["steps"]) == 960
    assert sum(name.startswith("trial") for name in jobs) <= 16


def test_a_pruned_trial_is_stopped_and_saved_and_can_go_on(done):
    _, rows, _ = done
    row = next(row for row in rows if row["state"] == "pruned")
    folder = sorted(Path(row["folder"]).glob("seed-?"))[-1]
    before = summary(folder)
    assert not before["finished"] and (folder / "checkpoint").is_dir()
    in_all = before["steps"] + 480 * int(folder.name[-1])
    assert int(row["steps"]) <= in_all < 960
    assert train.main(["--resume", str(folder), "--quiet"]) == 0
    assert summary(folder)["finished"] and summary(folder)["steps"] == 480


def test_a_trial_run_again_by_its_config_alone_has_its_digest(done, tmp_path):
    _, rows, _ = done
    row = next(row for row in rows if row["state"] == "complete")
    first = Path(row["folder"]) / "seed-1"
    assert not {"search_trial", "trial"} & runs.read_config(first).keys()
    words = ["--config", str(first / "config.toml"), "--run-dir", str(tmp_path / "again")]
    assert train.main([*words, "--quiet"]) == 0
    assert summary(tmp_path / "again")["digest"] == summary(first)["digest"]


def test_the_best_are_run_again_over_fresh_seeds(done, tmp_path):
    home, rows, jobs = done
    found = json.loads((home / "best" / "compare.json").read_text())
    seeds = [run["seed"] for row in found["rows"] for run in row["runs"]]
    assert sorted(seeds) == [2, 2, 3, 3]  # the trials had 0 and 1
    best = max(found["rows"], key=lambda row: row["mean"]["value"])
    of_best = runs.read_config(Path(best["runs"][0]["folder"]))
    settings = home / "best.toml"
    assert train.main(["--config", str(settings), "--run-dir", str(tmp_path / "x"), "--quiet"]) == 0
    again = runs.read_config(tmp_path / "x")
    assert {**of_best, "seed": 0} == again
    scores = {(r["learning_rate"], r["epsilon"]): float(r["score"]) for r in rows if r["score"]}
    own = again["agent_args"]
    complete_ones = sorted(float(r["score"]) for r in rows if r["state"] == "complete")
    assert scores[str(own["learning_rate"]), str(own["epsilon"])] in complete_ones[-2:]
    assert len([name for name in jobs if not name.startswith("trial")]) == 4


def test_a_search_has_a_picture_and_rows_under_hparams(done):
    home, rows, _ = done
    assert (home / "search.png").read_bytes().startswith(b"\x89PNG")
    files = [*(home / "hparams").rglob("events.out.tfevents.*")]
    assert len(files) == len(rows)
    text = b"".join(file.read_bytes() for file in files)
    assert text.count(b"search/score") == len(rows) and b"learning_rate" in text


def test_the_same_command_again_runs_nothing(done, capsys, undrawn):
    home, rows, _ = done
    assert searched(home, "--trials", "8") == rows
    assert Here.taken == ()
    out, err = capsys.readouterr()
    assert "8 of 8 trials are there already" in err and "0 runs to do, 4 are there already" in err
    assert "over seeds 2 to 3, which no trial had" in out
    assert f"seqrl train --config {home / 'best.toml'}" in out


def test_a_study_of_other_parameters_is_refused(done, capsys):
    home, _, _ = done
    words = [*CLIFF, "--out", str(home)]
    assert search.main([*words, "--seed", "1", "--gamma", "0.9"]) == 2
    told = capsys.readouterr().err
    assert "begun with other settings: " in told and "name another --study" in told
    assert "gamma 0.9 (then 0.99)" in told and "seed 1 (then 0)" in told
    assert search.main([*words, "--search", "n_step=choice:1,2"]) == 2
    assert "search.n_step choice:1,2 (then None)" in capsys.readouterr().err


def test_values_that_were_tried_are_not_run_again(tmp_path, undrawn):
    words = "--env FrozenLake-v1 --steps 240 --eval-episodes 2 --search n_step=choice:1,2".split()
    words += ["--trials", "6", "--pruner", "none", "--best", "1", "--fresh-seeds", "1", "--quiet"]
    assert search.main([*words, "--out", str(tmp_path / "x"), "--logdir", str(tmp_path)]) == 0
    rows = rows_of(tmp_path / "x")
    assert len({(row["n_step"], row["score"]) for row in rows}) == 2
    assert [row["state"] for row in rows] == ["complete"] * 6
    assert sum(name.startswith("trial") for name in Here.taken) == 2


def test_what_is_searched_together_is_checked_together(tmp_path, undrawn):
    """A table of Acrobot takes --bins; --batch-size and hidden_size take the network."""
    words = (
        "--agent q-learning --steps 60 --eval-episodes 1 --trials 1 --pruner none --best 1".split()
    )
    words += ["--fresh-seeds", "1", "--quiet", "--logdir", str(tmp_path)]
    bins = ["--env", "Acrobot-v1", "--search", "bins=int:2:3", "--out", str(tmp_path / "x")]
    assert search.main([*words, *bins, "--max-episode-steps", "20"]) == 0
    net = "--env FrozenLake-v1 --search network=choice:gru,lstm --search batch_size=int:2:4".split()
    net += ["--search", "hidden_size=choice:4,8", "--out", str(tmp_path / "y")]
    assert search.main([*words, *net]) == 0
    config = runs.read_config(tmp_path / "y" / "trials" / "0000" / "seed-0")
    (row,) = rows_of(tmp_path / "y")
    assert (config["network"], str(config["network_args"]["hidden_size"])) == (
        row["network"],
        row["hidden_size"],
    )
    assert str(config["agent_args"]["batch_size"]) == row["batch_size"]


def test_values_that_no_run_takes_together_fail_alone(tmp_path, capsys, undrawn):
    words = "--env FrozenLake-v1 --steps 240 --eval-episodes 2 --search n_step=choice:1,4".split()
    words += ["--search", "trace_decay=choice:0.0,0.9", "--trials", "8", "--sampler", "random"]
    words += ["--best", "1", "--fresh-seeds", "1", "--quiet", "--logdir", str(tmp_path)]
    assert search.main([*words, "--out", str(tmp_path / "x")]) == 0
    failed = [row for row in rows_of(tmp_path / "x") if row["state"] == "failed"]
    assert failed and {(row["n_step"], row["trace_decay"]) for row in failed} == {("4", "0.9")}
    assert "n_step=4,trace_decay=0.9: " in capsys.readouterr().err


# --- interrupted and shared ----------------------------------------------------------------------


def test_an_interrupted_search_goes_on_and_repeats_nothing(done, tmp_path, monkeypatch, undrawn):
    _, whole, _ = done
    monkeypatch.setattr(Here, "most", 5)
    words = ["--trials", "8", "--quiet", "--out", str(tmp_path / "x"), "--logdir", str(tmp_path)]
    assert search.main([*CLIFF, *AGAIN, *words]) == 130
    assert len(Here.taken) == 5
    monkeypatch.setattr(Here, "most", 10**6)
    assert search.main([*CLIFF, *AGAIN, *words]) == 0
    names = ("trial", "state", "score", "steps", "learning_rate", "epsilon")
    same = [[row[name] for name in names] for row in rows_of(tmp_path / "x")]
    assert same == [[row[name] for name in names] for row in whole]
    assert max(Here.taken.count(f"trial {n}") for n in range(8)) <= 2  # its two seeds


def of_study(home, **more):
    space = {"learning_rate": read_range("log:0.01:1"), "n_step": read_range("choice:1,2,4,8")}
    return Study(str(home / "study.log"), "s", COMMON, space, **more)


def of_search(home, **more):
    config = {"env": "FrozenLake-v1", "steps": 240, "eval_episodes": 2}
    space = {"learning_rate": "log:0.01:1", "n_step": "choice:1,2,4,8"}
    return Search(config, space, home, **{"trials": 3, "pruner": "none", **more})


def test_two_searches_share_trials_and_one_takes_over_what_the_other_has_left(tmp_path):
    first, second = of_search(tmp_path), of_search(tmp_path)
    one, two, three = first.next_trial(), second.next_trial(), first.next_trial()
    assert [x.trial.number for x in (one, two, three)] == [0, 1, 2]
    assert second.next_trial() is None  # all three are under way, and no more are wanted
    values = dict(one.trial.params)
    one.lock.close()  # as the system does where its process is killed
    third = of_search(tmp_path)
    taken = third.next_trial()
    assert taken.trial.number == 0 and taken.trial.params == values
    assert third.next_trial() is None


def test_a_trial_is_taken_over_when_its_run_has_noticed_that_its_search_is_gone(
    tmp_path, monkeypatch
):
    first = of_search(tmp_path, trials=1)
    job = next(first.jobs())
    run = runs.new_folder("", "", "", 0, str(job.folder))
    under_way, waited = ExitStack(), []
    under_way.enter_context(runs.locked(run))
    first.under_way[Path(job.folder)].lock.close()
    monkeypatch.setattr(time, "sleep", lambda s: (waited.append(s), under_way.close()))
    assert of_search(tmp_path, trials=1).next_trial().trial.number == 0
    assert len(waited) == 1


def test_a_run_that_does_not_end_is_told_and_its_trial_left(tmp_path, monkeypatch):
    first, said = of_search(tmp_path, trials=1), []
    job = next(first.jobs())
    first.under_way[Path(job.folder)].lock.close()
    monkeypatch.setattr(searches, "TOLD", 0.0)
    monkeypatch.setattr(searches, "WAIT", 0.05)
    monkeypatch.setattr(searches, "PATIENCE", 0.05)
    with runs.locked(runs.new_folder("", "", "", 0, str(job.folder))):
        assert of_search(tmp_path, trials=2, heard=said.append).next_trial().trial.number == 1
    busy = f"{job.folder} is in use by process {os.getpid()} on "
    assert said[0].startswith(f"trial 0 waits for its run, whose search is gone: {busy}")
    assert said[1].startswith(f"trial 0 is left as it is: {busy}") and len(said) == 2
    assert of_search(tmp_path, trials=2).next_trial().trial.number == 0


def test_of_two_searches_begun_at_once_with_other_settings_one_is_refused(tmp_path, monkeypatch):
    keep = optuna.Study.set_user_attr
    monkeypatch.setattr(optuna.Study, "set_user_attr", lambda *args: (time.sleep(0.3), keep(*args)))
    where = str(tmp_path / "study.log")
    with ThreadPoolExecutor() as pool:
        begun = [pool.submit(Study, where, "s", {**COMMON, "seed": i}, {}) for i in range(2)]
        wrong = [each.exception() for each in begun if each.exception()]
    assert len(wrong) == 1 and "was begun with other settings: seed " in str(wrong[0])


def test_a_study_whose_maker_died_before_it_said_its_settings_is_taken(tmp_path, monkeypatch):
    storage = studies.open_storage(str(tmp_path / "study.log"))
    optuna.create_study(study_name="s", storage=storage)
    monkeypatch.setattr(studies, "BEGINNING", 0.1)
    assert of_study(tmp_path).study.user_attrs == {"parameters": COMMON}


def test_a_trial_under_way_on_another_machine_is_left_alone(tmp_path, monkeypatch):
    first = of_search(tmp_path, trials=1)
    one = first.next_trial()
    one.trial.set_user_attr("place", ["elsewhere", "/dev/null/trials/0000"])
    one.lock.close()
    assert of_search(tmp_path, trials=1).next_trial() is None


def test_what_a_trial_draws_follows_from_seed_and_number(tmp_path):
    def drawn(home, seed):
        (tmp_path / home).mkdir()
        study = of_study(tmp_path / home, sampler="random", seed=seed)
        return [study.draw(study.study.ask())["learning_rate"] for _ in range(3)]

    assert drawn("a", 0) == drawn("b", 0) != drawn("c", 1)
    assert len(set(drawn("d", 0))) == 3


def test_a_run_whose_parent_is_gone_stops_saved(tmp_path, monkeypatch):
    search_of_one = of_search(tmp_path, trials=1)
    job = next(search_of_one.jobs())
    parents = iter([1, 1])  # when the run begins, and at the first call
    monkeypatch.setattr(os, "getppid", lambda: next(parents, 2))
    runs.write_config(runs.new_folder("", "", "", 0, str(job.folder)), complete(job.config))
    assert train.main(["--resume", str(job.folder), "--quiet", *job.flags]) == 0
    assert 0 < summary(job.folder)["steps"] < 240 and not summary(job.folder)["finished"]
    search_of_one.take(Result(job))
    (trial,) = search_of_one.study.trials()
    assert trial.state.name == "FAIL" and "interrupted" in trial.user_attrs["reason"]


def test_what_is_reported_counts_all_seeds_of_a_trial(tmp_path):
    """The second of two runs of 240 steps, after a score of 0.5, with the training mean 0."""
    told = Report("x", "s", 3, "median", "ep_rew_mean", 2, [0.5])
    assert read_report(told.text) == told
    study = of_study(tmp_path)
    trial = study.study.ask()
    config = {"env": "FrozenLake-v1", "steps": 240, "eval_episodes": 2, "pictures": False}
    config |= {"env_args": {"map_name": "8x8"}, "seed": 3}  # no episode there has a reward
    folder = runs.new_folder("", "", "", 0, str(tmp_path / "run"))
    runs.write_config(folder, complete(config))
    report = told._replace(storage=study.where, trial=trial.number)
    assert train.main(["--resume", str(folder), "--quiet", "--search-trial", report.text]) == 0
    (found,) = study.trials()
    assert {*found.intermediate_values.values()} == {0.25}
    steps = sorted(found.intermediate_values)
    assert steps[0] >= 240 and steps[-1] < 480 and all(step % 15 == 0 for step in steps)


def test_a_run_that_has_no_access_to_its_study_says_so(tmp_path, capsys):
    config = {"env": "FrozenLake-v1", "steps": 240, "eval_episodes": 2, "pictures": False}
    folder = runs.new_folder("", "", "", 0, str(tmp_path / "run"))
    runs.write_config(folder, complete(config))
    for where in (tmp_path / "none.log", tmp_path / "none" / "study.log"):
        report = Report(str(where), "s", 0, "median", "ep_rew_mean", 1, [])
        words = ["--resume", str(folder), "--quiet", "--search-trial", report.text]
        assert train.main(words) == 2
        told = f"seqrl: the study {where} is not here: machines without a common folder share a"
        assert capsys.readouterr().err == f"{told} database: --study URL\n"


def test_pruners_are_those_asked_for():
    hyperband = studies.make_pruner("hyperband", 1600)
    assert (hyperband._min_resource, hyperband._max_resource) == (100, 1600)
    median = studies.make_pruner("median", 1600)
    assert median._n_warmup_steps == 100
    assert type(studies.make_pruner("none", 1600)).__name__ == "NopPruner"


# --- from Python ---------------------------------------------------------------------------------


def test_a_search_from_python_finds_a_winner_over_fresh_seeds(tmp_path, undrawn):
    config = {"env": "FrozenLake-v1", "steps": 240, "agent_args": {"gamma": 0.9}}
    space = {"learning_rate": "log:0.01:1", "n_step": "choice:1,2"}
    with pytest.raises(UsageError, match=r'learning_rat: no setting .* Did you mean "learning_rat'):
        Search(config, {"learning_rat": "log:0.01:1"}, tmp_path / "x")
    with pytest.raises(UsageError, match=r"search n_step=0: .*n_step"):
        Search(config, {"n_step": "choice:1,0"}, tmp_path / "x")
    for wrong in ({"space": {}}, {"seed": -1}, {"trials": 0}, {"pruner": "hyper"}, {"metric": "x"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            Search(config, **{"space": space, "folder": tmp_path / "x", **wrong})
    assert not (tmp_path / "x").exists()
    search = Search(config, space, tmp_path / "x", trials=3)
    assert search.run(Here())
    for trial in search.study.trials():
        own = runs.read_config(tmp_path / f"x/trials/{trial.number:04}/seed-0")
        values = search.study.values_of(trial)
        told = own["agent_args"]
        assert {name: str(told[name]) for name in space} == values and told["gamma"] == 0.9
        assert (own["eval_every"], own["eval_episodes"]) == (15, 10)
    with pytest.raises(UsageError, match="seeds 0: expected"):
        run_best(search, Here(), seeds=0)
    winner = run_best(search, Here(), best=2, seeds=2, logdir=str(tmp_path / "runs"))
    scores = {row.group.name: float(row.score["mean"].value) for row in winner.table.rows}
    assert len(scores) == 2 and winner.score.value == max(scores.values())
    assert [x.config["seed"] for row in winner.table.rows for x in row.group.runs] == [1, 2] * 2
    best = runs.read_config((tmp_path / "x" / "best.toml").rename(tmp_path / "config.toml").parent)
    assert {**best, "seed": 1} == runs.as_stored(winner.planned.config)


def test_values_go_to_the_settings_the_agent_and_the_network():
    config = {"agent": "ppo", "network_args": {"hidden_size": 8, "layers": 2}}
    values = {"hidden_size": "16", "network": "gru", "gae_lambda": "0.9", "num_envs": "4"}
    assert with_values(config, {**values, "learning_rate": "linear:0.1:0"}) == {
        **{"agent": "ppo", "network": "gru", "num_envs": 4},
        "network_args": {"hidden_size": 16, "layers": 2},
        "agent_args": {"gae_lambda": 0.9, "learning_rate": "linear:0.1:0"},
    }
    assert config["network_args"]["hidden_size"] == 8


# --- mistakes ------------------------------------------------------------------------------------


def test_without_optuna_the_command_that_installs_it_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert search.main([*CLIFF, "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err == (
        'seqrl: a search takes Optuna: pip install "seqrl[search]"\n'
    )
    assert not (tmp_path / "x").exists()


def test_a_folder_of_something_else_is_not_taken(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert search.main([*CLIFF, "--out", str(tmp_path)]) == 2
    assert "holds something else than a search: name another --out" in capsys.readouterr().err


@pytest.mark.parametrize("study", ["nothing://x", "sqlite:////dev/null/x.db", "/dev/null/x.log"])
def test_a_study_that_cannot_be_opened_is_told(study, tmp_path, capsys):
    assert search.main([*CLIFF, "--out", str(tmp_path / "x"), "--study", study]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"seqrl: --study {study}: ") and err.count("\n") == 1


def test_a_search_without_any_score_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Here, "map", lambda self, jobs: (Result(job, "killed") for job in jobs))
    assert search.main([*CLIFF, "--trials", "2", "--out", str(tmp_path / "x"), "--quiet"]) == 1
    err = capsys.readouterr().err
    assert "trial 1 on CliffWalking-v1, seed 0, failed, killed" in err
    assert "no trial has a score, so there is nothing to run again" in err


def test_a_metric_that_no_run_writes_is_named(tmp_path, capsys):
    """No episode ends within five steps."""
    words = ["--steps", "5", "--trials", "1", "--out", str(tmp_path / "x"), "--quiet"]
    assert search.main([*CLIFF, *words]) == 1
    assert "trial 0 has no ep_rew_mean" in capsys.readouterr().err


# --- real processes ------------------------------------------------------------------------------


def test_a_job_hands_its_flags_to_its_process(tmp_path):
    config = {"env": "FrozenLake-v1", "steps": 60, "pictures": False}
    job = Job(config, tmp_path / "run", flags=["--nonsense"])
    ((_, reason),) = Processes(1).map([job])
    assert "unknown flag --nonsense" in reason


REAL = "--env CliffWalking-v1 --max-episode-steps 40 --steps 12000 --no-compile --eval-episodes 2"
REAL += " --search learning_rate=log:0.01:1 --pruner none --trials 6 --best 1 --fresh-seeds 1"
REAL += " --workers 2 --out out"


@pytest.fixture
def start(tmp_path):
    """A function that begins the search REAL in a process of its own."""
    script = Path(search.__file__)
    going = []

    def begin():
        words = [sys.executable, str(script), *REAL.split()]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        going.append(subprocess.Popen(words, cwd=tmp_path, **pipes))
        return going[-1]

    yield begin
    for process in going:
        process.kill()
        process.wait()


def wait_for(met, seconds=240):
    until = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < until
        time.sleep(0.1)


def processes_in(folder):
    """The processes whose command names a folder."""
    lines = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    return [line for line in lines if str(folder).encode() in line]


def events_of(home):
    """How many runs were begun, or gone on with, in each trial's folder."""
    folders = sorted((home / "trials").glob("*/seed-0"))
    return [len([*folder.glob("events.out.tfevents.*")]) for folder in folders]


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_and_loses_nothing(tmp_path, start):
    home, first = tmp_path / "out", start()

    def done():
        return {file: file.stat().st_mtime_ns for file in home.glob("trials/*/seed-0/summary.json")}

    wait_for(lambda: len(done()) >= 2)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = Study(str(home / "study.log"), "search", parameters(home), {}).trials()
    assert any(trial.state.name == "RUNNING" for trial in before)
    wait_for(lambda: not processes_in(home), 60)  # those under way stop by themselves
    there = {file: at for file, at in done().items() if json.loads(file.read_text())["finished"]}
    second = start()
    out, _ = second.communicate(timeout=400)
    assert second.returncode == 0, out
    assert "over seeds 1 to 1, which no trial had" in out
    rows = rows_of(home)
    assert [row["state"] for row in rows] == ["complete"] * 6
    assert there and there.items() <= done().items()  # not run again
    for trial in before:  # those under way have gone on, with what they drew
        assert float(rows[trial.number]["learning_rate"]) == pytest.approx(
            trial.params["learning_rate"], rel=1e-3
        )
    assert not processes_in(home)


def parameters(home):
    """What the study of a search has kept of its settings."""
    return studies.open_storage(str(home / "study.log")).get_study_user_attrs(0)["parameters"]


@pytest.mark.slow
def test_two_searches_at_once_share_the_trials_and_repeat_none(tmp_path, start):
    first, second = start(), start()
    said = [process.communicate(timeout=500)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    rows = rows_of(tmp_path / "out")
    assert [row["state"] for row in rows] == ["complete"] * 6
    assert len({row["learning_rate"] for row in rows}) == 6
    assert events_of(tmp_path / "out") == [1] * 6
    assert sum("which no trial had" in text for text in said) >= 1


@pytest.mark.slow
def test_a_search_mends_a_learning_rate_that_learns_nothing(tmp_path):
    (tmp_path / "bad.toml").write_text("[agent_args]\nlearning_rate = 1e-6\n")
    words = "--agent ppo --env CartPole-v1 --num-envs 8 --steps 40000 --trials 20".split()
    words += "--search learning_rate=log:1e-6:0.1 --best 1 --fresh-seeds 3 --quiet".split()
    words += ["--config", str(tmp_path / "bad.toml"), "--logdir", str(tmp_path)]
    assert search.main([*words, "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "best" / "compare.json").read_text())
    assert all(run["score"] >= 475 for run in found["rows"][0]["runs"])
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 20
    assert sum(int(row["steps"]) for row in rows) <= 20 * 40_000 / 2
