"""Many seeds at once: each the run it would be alone, and their curves as one."""

import json
import math
import threading

import gymnasium as gym
import numpy as np
import pytest

from seqrl.agents import Boltzmann, EpsilonGreedy, MonteCarlo, QLearning, Sarsa
from seqrl.core import RunError, UsageError
from seqrl.envs import make
from seqrl.scripts import train as script
from seqrl.training import train, train_seeds
from seqrl.training.loop import detect
from seqrl.training.loop.books import Episode
from seqrl.training.runs import checkpoint
from seqrl.training.runs import seeds as many
from seqrl.training.runs.seeds import Curve, SeedTrainer
from seqrl.training.runs.tensorboard import TensorBoard

AGENTS = {
    "q": (QLearning, {"double": True}),
    "sarsa": (Sarsa, {"n_step": 3, "exploration": Boltzmann(0.1)}),
    "mc": (MonteCarlo, {"exploration": EpsilonGreedy("linear:1:0.1")}),
}


def maker(cls=QLearning, options=None):
    return lambda envs, seed: cls(
        envs.single_observation_space, envs.single_action_space, **(options or {})
    )


def alone(make_agent, make_envs, steps, seed, **options):
    """The digest of a single stepped run."""
    envs, seen = make_envs(), Seen()
    agent = make_agent(envs, seed)
    train(agent, envs, steps, seed=seed, compile=False, callbacks=[seen], **options)
    return checkpoint.digest(seen.loop.fingerprint())


class Seen:
    """A callback that keeps the loop."""

    every = 1

    def __call__(self, loop):
        self.loop = loop


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n", [1, 3])
def test_every_seed_is_the_run_it_would_be_alone(agent, threads, n):
    """500 steps end in the middle of a turn of three rows."""
    digests = {}

    def finished(seed, loop):
        digests[seed] = checkpoint.digest(loop.fingerprint())

    def envs():
        return make("FrozenLake-v1", n)

    agent = maker(*AGENTS[agent])
    found = train_seeds(agent, envs, 6, steps=500, threads=threads, finished=finished)
    assert digests == {seed: alone(agent, envs, 500, seed) for seed in range(6)}
    assert found.seed.tolist() == list(range(6))
    assert found.steps.tolist() == [500] * 6


def test_episodes_end_each_run():
    def envs():
        return make("CliffWalking-v1")

    agent, digests = maker(), {}
    found = train_seeds(
        agent,
        envs,
        4,
        steps=100_000,
        episodes=5,
        finished=lambda seed, loop: digests.update({seed: checkpoint.digest(loop.fingerprint())}),
    )
    assert found.episodes.tolist() == [5] * 4
    assert len(set(found.steps.tolist())) == 4
    assert digests == {s: alone(agent, envs, 100_000, s, episodes=5) for s in range(4)}


ONE = {"learning_rate": 0.3, "gamma": 0.9, "exploration": EpsilonGreedy(0.2)}
MIXED = [
    *[(QLearning, ONE)] * 3,
    (QLearning, {**ONE, "learning_rate": 0.2}),
    (QLearning, {**ONE, "learning_rate": 0.2, "gamma": 0.8}),
    (Sarsa, {**ONE, "learning_rate": 0.2, "gamma": 0.8}),
    *AGENTS.values(),
]


def mixed(envs, seed):
    """Every agent differs from the one before in a single thing, where it differs."""
    return maker(*MIXED[seed])(envs, seed)


def wandering(envs, seed):
    """Keeps episodes that outgrow the room for them, each in its own time."""
    return maker(MonteCarlo, {"exploration": EpsilonGreedy(1.0)})(envs, seed)


@pytest.mark.parametrize("agent", [mixed, wandering, maker()])
@pytest.mark.parametrize("env, n", [("CliffWalking-v1", 2), ("FrozenLake8x8-v1", 3)])
def test_seeds_in_one_call_are_the_runs_they_would_be_alone(agent, env, n, monkeypatch):
    """Some end in the middle of a turn, and every one takes many calls of few episodes."""
    monkeypatch.setattr(detect, "CALL", 6000)
    monkeypatch.setattr(detect, "MOST_EPISODES", 64)
    digests = {}

    def finished(seed, loop):
        digests[seed] = checkpoint.digest(loop.fingerprint())

    train_seeds(agent, lambda: make(env, n), 9, steps=2005, threads=1, finished=finished)
    assert digests == {s: alone(agent, lambda: make(env, n), 2005, s) for s in range(9)}


def test_an_agent_is_left_alone_once_it_has_ended():
    """What `finished` keeps is not written to by the seeds that come after."""
    agents, then = [], []

    def finished(seed, loop):
        agents.append(loop.agent)
        then.append(checkpoint.digest(loop.agent.state_dict()))

    train_seeds(maker(), lambda: make("FrozenLake-v1"), 40, steps=300, threads=1, finished=finished)
    assert [checkpoint.digest(agent.state_dict()) for agent in agents] == then


@pytest.mark.parametrize("steps, most", [(50, detect.RUNS), (400, 5), (5000, 1)])
def test_short_runs_are_played_together(steps, most, monkeypatch):
    """As many as one call is likely to bring to their end: a stop need not wait for more."""
    monkeypatch.setattr(many, "CALL", 2000)
    sizes, play = [], detect.CompiledTurns.play

    def counted(self, runs, until):
        sizes.append(len(runs))
        return play(self, runs, until)

    monkeypatch.setattr(detect.CompiledTurns, "play", counted)
    found = train_seeds(maker(), lambda: make("FrozenLake-v1"), 40, steps=steps, threads=1)
    assert found.seed.tolist() == list(range(40))
    assert (sizes[0], max(sizes)) == (1, most)


@pytest.mark.parametrize("compile", [True, False])
def test_what_cannot_be_compiled_goes_one_after_the_other(compile):
    env = "Blackjack-v1" if compile else "FrozenLake-v1"
    threads, agent, digests = set(), maker(), {}

    def finished(seed, loop):
        threads.add(threading.get_ident())
        digests[seed] = checkpoint.digest(loop.fingerprint())

    runs = SeedTrainer(agent, lambda: make(env), 300, threads=4, compile=compile, finished=finished)
    assert runs.path.startswith("stepped, one after the other: ")
    assert not runs.compiled and runs.threads == 1
    runs.run(3)
    assert len(threads) == 1
    assert digests == {seed: alone(agent, lambda: make(env), 300, seed) for seed in range(3)}


def test_curves_are_the_running_means_of_each_run():
    """Against the plain definition: the mean of the last 100 returns at each step of the grid."""
    kept = {}

    class Both(Curve):
        def episodes(self, steps, totals, lengths):
            kept.setdefault(self, []).extend(zip(steps.tolist(), totals.tolist(), strict=True))
            super().episodes(steps, totals, lengths)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "Curve", Both)
        agent = maker(options={"learning_rate": 0.5, "exploration": EpsilonGreedy(0.2)})
        found = train_seeds(agent, lambda: make("CliffWalking-v1"), 3, steps=9000, episodes=300)
    by_end = {episodes[-1][0]: episodes for episodes in kept.values()}
    for end, curve in zip(found.steps.tolist(), found.curves, strict=True):
        for step, value in zip(found.grid.tolist(), curve, strict=True):
            last = [total for at, total in by_end[end] if at <= step][-100:]
            if not last or step > end:
                assert math.isnan(value)
            else:
                assert value == pytest.approx(sum(last) / len(last), rel=1e-12)
    assert found.grid[-1] <= found.steps.max() < found.grid[-1] + found.grid[0]
    assert len(found.grid) > many.POINTS / 2


def test_a_curve_by_hand(monkeypatch):
    monkeypatch.setattr(many, "POINTS", 4)
    curve = Curve()
    curve.episode(None, Episode(2, 0, 10.0, 2, False))
    assert np.array_equal(curve.values, [np.nan, 10, 10, 10], equal_nan=True)
    # steps 5 and 7: the grid becomes 2, 4, 6, 8
    curve.episodes(np.array([5, 7]), np.array([20.0, 30.0]), np.array([3, 2]))
    assert curve.spacing == 2
    assert curve.values.tolist() == [10, 10, 15, 20]
    curve.end(17)  # 8, 16, 24, 32
    assert (curve.spacing, curve.every(8)[:2].tolist()) == (8, [20, 20])
    assert np.isnan(curve.every(8)[2:]).all()
    assert np.array_equal(curve.every(16), [20, np.nan, np.nan, np.nan], equal_nan=True)


def test_a_window_of_100_episodes_slides():
    whole, parts = Curve(), Curve()
    steps, totals = np.arange(1, 401), np.arange(400.0) ** 2
    whole.episodes(steps, totals, steps)
    for part in np.array_split(np.arange(400), [1, 7, 120, 121, 300]):
        parts.episodes(steps[part], totals[part], steps[part])
    parts.episodes(*np.zeros((3, 0)))
    assert np.allclose(whole.values, parts.values, rtol=1e-12)
    at = 300 // whole.spacing - 1
    assert whole.values[at] == pytest.approx((np.arange(200, 300.0) ** 2).mean())


def test_a_curve_takes_no_more_room_for_a_long_run():
    curve, many_episodes = Curve(), np.arange(1, 50_001)
    curve.episodes(many_episodes, many_episodes * 1.0, many_episodes)
    held = [x if x.base is None else x.base for x in vars(curve).values() if np.ndim(x)]
    assert sum(x.nbytes for x in held) < 8 * (many.POINTS + 100)


def test_the_summary_has_the_mean_within_its_interval():
    found = train_seeds(maker(), lambda: make("FrozenLake-v1"), 12, steps=3000)
    bands = found.summary()
    assert set(bands) == {"mean", "iqm", "low", "high", "count"}
    assert bands["count"][-1] == 12
    known = bands["count"] > 1
    assert (bands["low"] <= bands["mean"] + 1e-12)[known].all()
    assert (bands["mean"] <= bands["high"] + 1e-12)[known].all()
    assert bands["mean"] == pytest.approx(np.nanmean(found.curves, 0))


def test_a_fault_in_a_run_ends_them_all():
    def finished(seed, loop):
        if seed == 2:
            raise RunError("enough")

    runs = SeedTrainer(maker(), lambda: make("FrozenLake-v1"), 200, threads=2, finished=finished)
    with pytest.raises(RunError, match="enough"):
        runs.run(100_000)
    assert 0 < len(runs.done) < 1000


@pytest.mark.parametrize("env", ["FrozenLake-v1", "Blackjack-v1"])
def test_who_stops_it_keeps_the_seeds_that_are_done(env):
    def finished(seed, loop):
        runs.stopped = runs.stopped or seed == 3

    runs = SeedTrainer(maker(), lambda: make(env), 200, threads=1, finished=finished)
    assert runs.run(1000).seed.tolist() == [0, 1, 2, 3]


def test_a_model_changed_under_way_is_noticed():
    def finished(seed, loop):
        loop.envs.envs[0].unwrapped.P[0][0] = [(1.0, 1, 0.0, False)]

    with pytest.raises(RunError, match="P was changed after the start"):
        train_seeds(
            maker(), lambda: make("FrozenLake-v1"), 2, steps=50, threads=1, finished=finished
        )


@pytest.mark.parametrize("name", ["seeds", "steps", "threads"])
def test_numbers_are_refused(name):
    numbers = {"seeds": 2, "steps": 5, "threads": 1, name: -1}
    with pytest.raises(UsageError, match=f"{name} -1: expected a whole number"):
        train_seeds(maker(), lambda: make("FrozenLake-v1"), **numbers)


# the command line

WORDS = "--env CliffWalking-v1 --max-episode-steps 50 --steps 3000 --learning-rate .5".split()


def typed(*words):
    return script.main([*WORDS, *map(str, words)])


def test_one_command_trains_them_all(tmp_path, capfd):
    assert typed("--seeds", 5, "--threads", 2, "--logdir", tmp_path) == 0
    said = capfd.readouterr()
    assert "5 seeds, 15,000 env steps" in said.out and "compiled" in said.out
    name = "CliffWalking-v1/q-learning,max_episode_steps=50,learning_rate=0.5"
    assert f"{name}/seeds-5" in said.out
    folder = tmp_path / name / "seeds-5"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["seeds"], summary["steps"], summary["threads"]) == (5, 15_000, 2)
    assert summary["compiled"] is True
    with np.load(folder / "curves.npz") as curves:
        assert curves["curves"].shape == (5, len(curves["grid"]))
        assert curves["mean"].shape == curves["high"].shape == curves["grid"].shape
        last = curves["ep_rew_mean"]
    assert typed("--seed", 3, "--eval-episodes", 0, "--quiet", "--logdir", tmp_path) == 0
    one = json.loads((tmp_path / name / "seed-3" / "summary.json").read_text())
    assert one["ep_rew_mean"] == last[3]


def test_the_curves_are_in_tensorboard(tmp_path, monkeypatch):
    seen = {}

    def scalars(self, step, values):
        for tag, value in values.items():
            seen.setdefault(tag, []).append((step, value))

    monkeypatch.setattr(TensorBoard, "scalars", scalars)
    assert typed("--seeds", 4, "--run-dir", tmp_path / "run", "--quiet") == 0
    mean = "rollout/ep_rew_mean"
    assert set(seen) == {mean, f"{mean}/iqm", f"{mean}/low", f"{mean}/high"}
    with np.load(tmp_path / "run" / "curves.npz") as curves:
        steps, values = map(list, zip(*seen[mean], strict=True))
        known = np.isfinite(curves["mean"])
        assert steps == curves["grid"][known].tolist()
        assert values == curves["mean"][known].tolist()


@pytest.mark.parametrize(("steps", "told"), [(60, False), (240, True)])
def test_returns_are_told_where_an_episode_has_ended(steps, told, tmp_path, capfd):
    words = f"--env Pendulum-v1 --agent reinforce --preset none --seeds 2 --steps {steps}".split()
    assert script.main([*words, "--run-dir", str(tmp_path / "r")]) == 0
    out = capfd.readouterr().out
    assert ("mean return of the last" in out) == told and "nan" not in out


def test_threads_change_nothing_and_stepping_neither(tmp_path, capfd):
    digests = []
    for k, words in enumerate((["--threads", 1], ["--threads", 2], ["--no-compile"])):
        assert typed("--seeds", 3, "--run-dir", tmp_path / str(k), *words) == 0
        digests.append(json.loads((tmp_path / str(k) / "summary.json").read_text())["digest"])
    assert len(set(digests)) == 1
    assert "stepped, one after the other: as asked for" in capfd.readouterr().err


@pytest.mark.parametrize(
    "words, said",
    [
        (["--seed", 4], "--seed with --seeds"),
        (["--eval-every", 100], "--eval-every with --seeds"),
        (["--threads", 0], "--threads 0: expected"),
        (["--seeds", 0], "--seeds 0: expected"),
        (
            "--agent imitate --network mlp --env seqrl/Gates-v0".split(),
            "here a teacher's: take `seqrl compare --agents imitate --seeds 3`",
        ),
    ],
)
def test_what_does_not_go_with_seeds_is_refused(words, said, tmp_path, capfd):
    assert typed("--seeds", 3, "--logdir", tmp_path, *words) == 2
    assert said in capfd.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_random_model_from_the_command_line(tmp_path, capfd):
    garnet = "--env seqrl/Garnet-v0 --env-arg states=9 --env-arg actions=2 --env-arg branching=3"
    words = [*garnet.split(), "--steps", "120000", "--run-dir", str(tmp_path / "run")]
    assert script.main(words) == 0
    assert "compiled: tabular agent on a finite model" in capfd.readouterr().out
    assert script.main([*garnet.split(), "--env-arg", "branching=10"]) == 2
    said = capfd.readouterr().err
    assert "branching 10" in said and said.count("\n") == 1


MODEL = "P=[[[(0.5, 0, 1.0, False), ({}, 0, 2.0, True)]]]"


def test_a_model_from_the_command_line(tmp_path, capfd):
    words = ["--env", "seqrl/FiniteMDP-v0", "--env-arg", "initial=[1.0]", "--steps", "120000"]
    words += ["--max-episode-steps", "50", "--run-dir", str(tmp_path / "run"), "--env-arg"]
    assert script.main([*words, MODEL.format(0.6)]) == 2
    said = capfd.readouterr().err
    assert "P[0][0]: probabilities sum to 1.1, expected 1" in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert script.main([*words, MODEL.format(0.5)]) == 0
    assert "compiled" in capfd.readouterr().out


def test_the_environments_are_closed_where_they_are_stepped():
    closed = []

    class Closing(gym.Wrapper):
        def close(self):
            closed.append(self)
            super().close()

    train_seeds(maker(), lambda: Closing(gym.make("FrozenLake-v1")), 3, steps=20)
    assert len(closed) == 3
