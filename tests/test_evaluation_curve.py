"""The curve of evaluations that a run has by default, and evaluations that end early."""

import json
import math
import random
import threading
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

import seqrl
from seqrl.agents import QLearning
from seqrl.core.errors import UsageError
from seqrl.envs import make
from seqrl.scripts import train
from seqrl.training.loop.books import Episode
from seqrl.training.loop.evaluation import FEWEST, Evaluation, Evaluator, Player, Share
from seqrl.training.loop.interrupt import Stopped
from seqrl.training.pictures import as_text
from seqrl.training.runs import evaluation_curve
from seqrl.training.runs.evaluation_curve import EvaluationCurve, price_of

SHORT = {"steps": 20_000, "pictures": False, "compile": False}
DEEP = {"agent": "ppo", "env": "CartPole-v1", "num_envs": 2, "steps": 1000, "pictures": False}
DEEP["max_episode_steps"] = 20


@pytest.fixture
def points(monkeypatch):
    """Env steps of the points that are logged, and the episodes of each."""
    found, log = [], Evaluator.log

    def noted(self, loop, evaluation):
        found.append((loop.steps, len(evaluation.returns)))
        return log(self, loop, evaluation)

    monkeypatch.setattr(Evaluator, "log", noted)
    return found


@pytest.mark.parametrize("config", [SHORT, DEEP], ids=["table", "network"])
def test_a_run_has_a_curve_that_changes_nothing_of_what_is_learned(tmp_path, points, config):
    found = [
        seqrl.run({**config, **more}, tmp_path / str(i)).contents
        for i, more in enumerate([{}, {"eval_every": 0}, {"eval_episodes": 0}])
    ]
    assert len({contents["digest"] for contents in found}) == 1
    assert found[0]["eval_mean_reward"] == found[1]["eval_mean_reward"] is not None
    steps = config["steps"]
    curve = [step for step, _ in points if step < steps]
    assert curve and all(step % (steps // 20) < 2 for step in curve)  # after a turn of two
    assert [step for step, _ in points].count(steps) == 2  # the final ones of the first two


class Dice(gym.Env):
    """Draws from NumPy's and Python's global generators."""

    observation_space, action_space = gym.spaces.Discrete(6), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return int(np.random.randint(6)), {}

    def step(self, action):
        return int(np.random.randint(6)), 1.0, random.random() < 0.1, False, {}


gym.register("test/Dice-v0", Dice)


def test_evaluations_leave_global_random_numbers_to_training(tmp_path):
    config = {"env": "test/Dice-v0", "steps": 600}
    wanted = [{}, {"eval_every": 0}, {"eval_every": 100, "eval_episodes": 3}]
    runs = [seqrl.run({**config, **x}, tmp_path / str(i)) for i, x in enumerate(wanted)]
    assert len({one.contents["digest"] for one in runs}) == 1


def test_the_curve_goes_on_behind_an_interruption_as_if_nothing_had_been(tmp_path, points):
    config = {**SHORT, "checkpoint_every": 3_000}
    seqrl.run(config, tmp_path / "whole")
    whole = list(points)
    points.clear()
    stop = threading.Event()

    def stopping(loop):
        if loop.steps >= 9_500:
            stop.set()

    seqrl.run(config, tmp_path / "run", callbacks=[stopping], stop=stop)
    seqrl.run(config, tmp_path / "run", resume=True)
    assert points == whole


class Scripted:
    """An evaluator whose episodes have the lengths that are told."""

    episodes, seed = 100, None

    def __init__(self, lengths):
        self.lengths, self.played, self.logged = iter(lengths), 0, []

    def play(self, loop, player, share, seed, most):
        spent = 0
        while any(share.left):
            length = next(self.lengths)
            if spent + length > most:
                return most
            spent += length
            share.episode(loop, Episode(spent, 0, 1.0, length, False))
        return spent

    def log(self, loop, found):
        self.logged.append((loop.steps, len(found.returns)))


def test_the_episodes_of_a_point_are_settled_before_they_are_played():
    """By hand: a twentieth of 1,000 steps is 50 a point; no limit is known but that of the cut."""
    evaluator = Scripted([5] * 1000)
    envs = make("Blackjack-v1")
    curve = EvaluationCurve(evaluator, envs, steps=20_000)
    loop = SimpleNamespace(steps=0, books=SimpleNamespace(ep_len_mean=math.nan), stopped=False)
    curve.limit = 10_000
    loop.steps = 1_000
    curve(loop)
    assert evaluator.logged == []  # nothing is known: there might not be room
    loop.books.ep_len_mean, loop.steps = 2.0, 2_000
    curve(loop)  # 100 steps: episodes of 2 steps may be 4 long when greedy, and twice that
    assert evaluator.logged == [(2_000, 12)] and curve.spent == 60 and curve.length == 5.0
    loop.steps = 3_000
    curve(loop)  # 90 are left: nine of twice 5
    assert evaluator.logged[1:] == [(3_000, 9)] and curve.spent == 105
    evaluator.lengths = iter([50] * 1000)
    loop.steps = 4_000
    curve(loop)  # 95 are left for nine; the second does not fit
    assert len(evaluator.logged) == 2 and (curve.spent, curve.length) == (200, 95 / 2)
    loop.steps = 20_000
    curve(loop)
    assert len(evaluator.logged) == 2  # the final evaluation stands there


def test_an_env_step_of_many_environments_buys_less():
    agent = SimpleNamespace(device="cpu", passes=4.0)
    assert price_of(agent, 1) == pytest.approx(1.8)
    assert price_of(agent, 16) == pytest.approx((1 + 0.2 * 4 * 16) / 16)
    assert price_of(SimpleNamespace(device="cuda", passes=4.0), 1024) < 0.005


def test_compiled_evaluations_have_the_bits_of_stepped_ones():
    for env in ("FrozenLake-v1", "CliffWalking-v1", "Taxi-v4"):
        envs = make(env, num_envs=3)
        agent = QLearning(envs.single_observation_space, envs.single_action_space, seed=0)
        agent.q[...] = np.random.default_rng(5).random(agent.q.shape)
        agent.horizon = 10
        seed, found = np.random.SeedSequence(3), []
        before = agent.rng.bit_generator.state
        for compiled in (False, True):
            player, share = Player(envs, 150), Share(20, 3, room=900)
            steps = player.play(agent, share, seed, compile=compiled)
            assert (player.turns is not None) == compiled and steps > 0
            found.append(share.evaluation)
        for one, other in zip(*found, strict=True):
            np.testing.assert_array_equal(one, other)
        assert agent.rng.bit_generator.state == before and agent.steps == 0


def test_no_episode_begins_where_there_is_no_room_but_for_the_first():
    loop = SimpleNamespace(stopped=False)
    share = Share(100, 2, room=10)
    for step in range(1, 9):
        share.episode(loop, Episode(step, step % 2, 1.0, 1, False))
    assert not loop.stopped and share.left == [46, 46]
    share.episode(loop, Episode(10, 0, 1.0, 1, False))
    share.episode(loop, Episode(11, 0, 1.0, 1, False))  # has no part any more
    assert not loop.stopped and len(share.episodes) == 9
    share.episode(loop, Episode(19, 1, 1.0, 9, False))  # it was under way
    assert loop.stopped and len(share.episodes) == 10
    few = Share(100, 1, room=1)
    for step in range(FEWEST):
        assert not loop.stopped or step == 0
        few.episode(loop, Episode(50 * (step + 1), 0, 1.0, 50, False))
    assert loop.stopped and len(few.episodes) == FEWEST


def test_the_final_evaluation_is_no_longer_than_the_run_unless_it_was_asked_for(tmp_path, capsys):
    words = "--env CartPole-v1 --bins 4 --steps 200 --no-pictures --eval-every 0 --run-dir".split()
    assert train.main([*words, str(tmp_path / "short")]) == 0
    out = capsys.readouterr().out
    assert (
        "of 100, since more would take longer than the run; --eval-episodes 100 plays them all"
        in out
    )
    found = seqrl.run({}, tmp_path / "short", resume=True).evaluation
    assert FEWEST <= len(found.returns) < 100 and found.lengths[:-1].sum() < 200
    assert train.main([*words, str(tmp_path / "whole"), "--eval-episodes", "100"]) == 0
    assert "over 100 greedy episodes" in capsys.readouterr().out


def test_a_finished_run_still_knows_its_evaluation(tmp_path):
    config = {"steps": 500, "eval_episodes": 7, "pictures": False}
    first = seqrl.run(config, tmp_path / "run")
    again = seqrl.run(config, tmp_path / "run", resume=True)
    assert again.contents == json.loads((tmp_path / "run/summary.json").read_text())
    for one, other in zip(first.evaluation, again.evaluation, strict=True):
        np.testing.assert_array_equal(one, other)
    arrays = first.evaluation._asdict()
    for wrong in (b"none", b"", {"returns": np.array(["a"] * 7)}, {"lengths": np.ones(2, int)}):
        if isinstance(wrong, bytes):
            (tmp_path / "run/evaluation.npz").write_bytes(wrong)
        else:
            np.savez(tmp_path / "run/evaluation.npz", **{**arrays, **wrong})
        with pytest.raises(UsageError, match=r"evaluation\.npz is not what a run writes"):
            seqrl.run(config, tmp_path / "run", resume=True)


@pytest.mark.parametrize("when", ["under way", "at the end"])
def test_a_run_that_is_to_stop_does_so_in_an_evaluation(tmp_path, monkeypatch, when):
    stop, play = threading.Event(), Player.play

    def asked(self, *args, **options):
        stop.set()
        return play(self, *args, **options)

    monkeypatch.setattr(Player, "play", asked)
    config = {"steps": 600, "eval_episodes": 10**6, "pictures": False, "checkpoint_every": 100}
    config["eval_every"] = 200 if when == "under way" else 0
    ended = seqrl.run(config, tmp_path / "run", stop=stop)
    assert ended.interrupted and ended.evaluation is None and ended.saved
    assert ended.contents["steps"] == (200 if when == "under way" else 600)
    monkeypatch.setattr(Player, "play", play)
    monkeypatch.setattr(Evaluator, "play", lambda self, loop, *rest: play_five(loop, rest[1]))
    assert seqrl.run(config, tmp_path / "run", resume=True).contents["steps"] == 600


def play_five(loop, share):
    share.left = [0]
    share.episodes = [Episode(k, 0, 1.0, 1, False) for k in range(5)]
    return 5


def test_what_is_stopped_is_not_half_an_evaluation():
    envs = make("FrozenLake-v1")
    agent = QLearning(envs.single_observation_space, envs.single_action_space, seed=0)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        Player(envs).play(agent, Share(3, 1), None, stop=stop)


def test_a_success_rate_is_what_the_rewards_say():
    once = Evaluation(np.ones(4), np.ones(4, int), np.zeros(4, bool))
    assert as_text.verdict(once, make("FrozenLake-v1")).startswith("success rate 100.0%")
    for env in ("CliffWalking-v1", "Blackjack-v1", "CartPole-v1"):
        assert as_text.verdict(once, make(env)).startswith("mean return 1 (95 % interval 1 to 1)")
    coin = {"P": [[[(0.5, 0, 1.0, True), (0.5, 0, -1.0, True)]]], "initial": [1.0]}
    assert as_text.verdict(once, make("seqrl/FiniteMDP-v0", **coin)).startswith("mean return")
    single = Evaluation(*(part[:1] for part in once))
    assert "nan" not in as_text.verdict(single, make("FrozenLake-v1"))


def test_early_ends_still_need_an_interval():
    with pytest.raises(UsageError, match="add --eval-every 10000"):
        seqrl.run({"stop_at": 1.0}, "nowhere")
    assert evaluation_curve.POINTS == 20
