"""What is learned from recorded episodes: cloning, the best of them, the return wanted."""

import numpy as np
import pytest

import seqrl
from seqrl.scripts import record, train
from seqrl.training import evaluate, load_recordings

QUIET = ["--eval-episodes", "0", "--no-pictures", "--quiet", "--run-dir"]


def trained(folder, flags):
    assert train.main([*flags.split(), *QUIET, str(folder)]) == 0
    return folder


def played(folder, episodes, home, name, *more):
    argv = [str(folder), "--episodes", str(episodes), "--out", str(home / name), *more]
    assert record.main(argv) == 0
    return f"--dataset {home / name}"


def score(folder, episodes=30):
    """The mean return of greedy episodes."""
    policy = seqrl.load(folder)
    return evaluate(policy.agent, policy.make_envs(), episodes, seed=0).mean


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def expert(home):
    return trained(home / "e", "--agent ppo --env CartPole-v1 --num-envs 8 --steps 100000")


@pytest.fixture(scope="module")
def cart(home, expert):
    """Episodes of CartPole from random to expert."""
    medium = trained(home / "m", "--agent ppo --env CartPole-v1 --num-envs 8 --steps 8000")
    random = trained(home / "r", "--agent ppo --env CartPole-v1 --steps 10")
    runs = {"a": expert, "b": medium, "c": random}
    return " ".join(played(run, 100, home, name, "--explore") for name, run in runs.items())


@pytest.fixture(scope="module")
def maze(home):
    """Episodes of TMaze from random to one that remembers; half of those without luck fail."""
    task = "--env seqrl/TMaze-v0"
    gru = "--network gru --network-arg hidden_size=16"
    best = trained(home / "te", f"--agent imitate {task} {gru} --num-envs 16 --steps 80000")
    blind = f"--agent imitate {task} --network mlp --num-envs 16 --steps 60000"
    runs = {"ta": best, "tb": trained(home / "tm", blind)}
    runs["tc"] = trained(home / "tr", f"--agent ppo {task} --steps 10")
    many = {"ta": 100, "tb": 100, "tc": 300}
    return " ".join(played(run, many[n], home, n, "--explore") for n, run in runs.items())


@pytest.mark.slow
def test_twenty_episodes_of_cartpole_are_enough(home, expert, tmp_path):
    data = played(expert, 20, tmp_path, "d")
    assert load_recordings(data.split()[1]).returns.mean() > 475
    flags = f"--agent imitate {data} --steps 200000"
    found = [score(trained(tmp_path / f"s{s}", f"{flags} --seed {s}")) for s in range(5)]
    assert np.sum(np.array(found) >= 475) >= 4, found


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        "--best-share 0.1",
        "--condition-on return",
        "--condition-on return --network gru --batch-size 4",
    ],
)
def test_the_best_of_mixed_episodes_of_cartpole(cart, tmp_path, how):
    folder = trained(tmp_path / "run", f"--agent imitate {cart} {how} --steps 300000")
    assert score(folder) >= 0.95 * 500


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        "--best-share 0.2 --network gru",
        "--condition-on return --network gru",
        "--condition-on return --network attention",
    ],
)
def test_the_best_of_mixed_episodes_of_a_maze(maze, tmp_path, how):
    folder = trained(tmp_path / "run", f"--agent imitate {maze} {how} --steps 150000")
    assert score(folder, 100) >= 0.95
