"""Runs on recorded episodes: recording, files, settings, resuming, playing what was learned."""

import json
import shutil
import sys
import tomllib
import warnings
import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import seqrl
from seqrl.agents import Imitation, Optim, QLearning
from seqrl.agents.experience.recording import Recording
from seqrl.core import UsageError, tree
from seqrl.core.seeding import Streams
from seqrl.envs import ReturnWanted, make
from seqrl.envs.adapter import adapt
from seqrl.envs.described import described, space_of
from seqrl.envs.return_wanted import shown, shown_space
from seqrl.envs.wrapping import wrappers
from seqrl.networks import MLP
from seqrl.scripts import evaluate, record, train
from seqrl.training import fit, load_recordings
from seqrl.training.runs import offline, recordings
from seqrl.training.runs.config import complete
from seqrl.training.runs.load import load_parts
from seqrl.training.runs.parts import RunParts
from seqrl.training.runs.record import record as play
from seqrl.training.runs.run_one import run

QUIET = ["--eval-episodes", "4", "--no-pictures", "--quiet"]
SMALL = ["--network-arg", "hidden_size=8"]


def trained(folder, flags, *more):
    argv = [*flags.split(), *more, *QUIET, "--run-dir", str(folder)]
    assert train.main(argv) == 0
    return folder


@pytest.fixture(scope="module")
def cart(tmp_path_factory):
    """Thirty episodes of an agent that plays CartPole at random, and its run."""
    home = tmp_path_factory.mktemp("cart")
    source = trained(home / "run", "--agent ppo --env CartPole-v1 --steps 10")
    out = ["--out", str(home / "data")]
    assert record.main([str(source), "--episodes", "30", "--explore", *out]) == 0
    return home


@pytest.fixture(scope="module")
def data(cart):
    return str(cart / "data")


# recording


def test_a_recording_is_what_was_played(cart, data):
    """Each action leads from its observation to the next, in the environment itself."""
    made, env = load_recordings(data), gym.make("CartPole-v1")
    assert len(made.length) == 30 and made.about["env"] == "CartPole-v1"
    assert made.about["explore"] is True and made.about["seed"] == 0
    env.reset()
    for row in np.flatnonzero(~made.closing)[:50]:
        env.unwrapped.state = made.obs[row].astype(np.float64)
        env.unwrapped.steps_beyond_terminated = None
        obs, reward, over, *_ = env.step(int(made.action[row]))
        np.testing.assert_allclose(obs, made.obs[row + 1], atol=1e-4)
        assert reward == made.reward[row] and over == bool(made.closing[row + 1])
    assert made.terminated.all() and (made.returns == made.length).all()


def test_recording_repeats_and_explores_where_asked(cart, tmp_path):
    found = {}
    for name, flags in {"a": [], "b": [], "c": ["--explore"], "d": ["--seed", "1"]}.items():
        out = str(tmp_path / name)
        assert record.main([str(cart / "run"), "--episodes", "3", "--out", out, *flags]) == 0
        found[name] = load_recordings(out).digest
    assert found["a"] == found["b"] and len(set(found.values())) == 3


def test_a_second_recording_has_a_folder_of_its_own(cart, tmp_path, capsys):
    source = shutil.copytree(cart / "run", tmp_path / "run")
    for name in ("recorded", "recorded.1"):
        assert record.main([str(source), "--episodes", "2"]) == 0
        assert str(source / name) in capsys.readouterr().out
    assert record.main([str(source), "--episodes", "2", "--out", str(source / "recorded")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_where_a_recording_cannot_go(cart, data, tmp_path, capsys):
    source = [str(cart / "run"), "--episodes", "2"]
    for out, said in ((data, "is not empty: name a new one"), (f"{data}/dataset.toml", "--out")):
        assert record.main([*source, "--out", out]) == 2
        assert said in (told := capsys.readouterr().err) and "--run-dir" not in told
    argv = f"--agent imitate --dataset {cart / 'run'} --run-dir {tmp_path}/run --quiet"
    assert train.main(argv.split()) == 2
    assert "`seqrl record` makes one of a run" in capsys.readouterr().err


def test_a_recording_that_is_broken_off_leaves_nothing(cart, tmp_path, monkeypatch):
    def broken_off(*given, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("seqrl.training.runs.record.record", broken_off)
    assert record.main([str(cart / "run"), "--out", str(tmp_path / "data")]) == 130
    assert not (tmp_path / "data").exists()


def test_many_environments_give_the_same_share_each(tmp_path):
    flags = "--agent ppo --env seqrl/TMaze-v0 --env-arg length=2 --num-envs 4 --steps 40"
    source = trained(tmp_path / "run", flags, "--network", "gru", *SMALL)
    out = str(tmp_path / "data")
    assert record.main([str(source), "--episodes", "10", "--explore", "--out", out]) == 0
    made = load_recordings(out)
    assert made.length.tolist() == [3] * 10 and made.about["env_args"] == {"length": 2}
    assert record.main([str(source), "--episodes", "4", "--env-arg", "length=5"]) == 0
    made = load_recordings(source / "recorded")
    assert made.length.tolist() == [6] * 4 and made.about["env_args"] == {"length": 5}


def test_real_actions_are_recorded_as_they_were_taken(tmp_path):
    source = trained(tmp_path / "run", "--agent ppo --env Pendulum-v1 --steps 10")
    flags = ["--episodes", "1", "--max-episode-steps", "30", "--explore"]
    assert record.main([str(source), *flags, "--out", str(tmp_path / "data")]) == 0
    made = load_recordings(tmp_path / "data")
    assert abs(made.action).max() <= 2.0 and made.length.tolist() == [30]
    assert not made.terminated.any()
    run = trained(tmp_path / "clone", f"--agent imitate --dataset {tmp_path}/data --steps 60")
    assert seqrl.load(run).predict(np.zeros(3, np.float32)).shape == (1,)


class Numbered(gym.Env):
    """Three steps in which 5 or 6 may be done: 0 is no action."""

    observation_space, action_space = spaces.Discrete(4), spaces.Discrete(2, start=5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return 0, {}

    def step(self, action):
        self.time += 1
        return self.time, 1.0, self.time == 3, False, {}


def test_actions_that_do_not_begin_with_0_are_recorded():
    env = Numbered()
    agent = QLearning(env.observation_space, env.action_space, seed=0)
    made = play(RunParts({}, Streams.of(0), adapt(env), agent), 4, seed=0, explore=True)
    assert made.length.tolist() == [3] * 4 and set(made.action.tolist()) == {5, 6}


# files

SPACES = [
    spaces.Box(np.float32([-np.inf, 0]), np.float32([1, np.inf])),
    spaces.Box(0, 255, (4, 4, 1), np.uint8),
    spaces.Discrete(4, start=-1),
    spaces.MultiDiscrete([2, 3], start=[1, 0]),
    spaces.MultiBinary(3),
    spaces.MultiBinary((2, 2)),
    spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Tuple([spaces.Box(-1, 1, (1,), float)])}),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: str(type(space).__name__))
def test_spaces_are_told_in_plain_values(space):
    told = json.loads(json.dumps(described(space)))
    assert space_of(told) == space and space_of(told).dtype == space.dtype


def test_what_is_no_space_is_refused():
    with pytest.raises(UsageError, match="cannot be recorded"):
        described(spaces.Text(3))
    for wrong in (None, {}, {"type": "Box"}, {"type": "Text"}, {"type": "Discrete", "n": "x"}):
        with pytest.raises(UsageError, match="no description of a space"):
            space_of(wrong)


def test_nested_observations_come_back(tmp_path):
    space = SPACES[-1]
    obs = {"a": np.array([0, 1, 1]), "b": (np.zeros((3, 1)),)}
    ends = np.array([2]), np.array([True])
    made = Recording(obs, np.zeros(3, int), np.zeros(3), *ends, space, spaces.Discrete(2))
    recordings.write(tmp_path, made)
    again = recordings.read(tmp_path)
    assert again.digest == made.digest and again.observation_space == space
    assert [*map(str, tree.leaves(again.obs))] == [*map(str, tree.leaves(obs))]


def damaged(data, folder, change):
    copy = shutil.copytree(data, folder)
    change(copy)
    return copy


def rewrite(folder, **arrays):
    with np.load(folder / recordings.ARRAYS) as stored:
        kept = dict(stored) | arrays
    np.savez(folder / recordings.ARRAYS, **{k: x for k, x in kept.items() if x is not None})


def flip(folder, at=-4000):
    path = folder / recordings.ARRAYS
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def edit(folder, old, new):
    path = folder / recordings.HEADER
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def claim_much(folder):
    """Let an array say that it is larger than any memory."""
    rewrite(folder, reward=None)
    header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 58,)}
    with zipfile.ZipFile(folder / recordings.ARRAYS, "a") as packed:
        with packed.open("reward.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, header)


HARMED = {
    "a bit": (flip, "episodes.npz is damaged or incomplete"),
    "cut off": (
        lambda f: (f / "episodes.npz").write_bytes((f / "episodes.npz").read_bytes()[:500]),
        "episodes.npz is damaged or incomplete",
    ),
    "no arrays": (lambda f: (f / "episodes.npz").unlink(), "episodes.npz is damaged or incomplete"),
    "an array is missing": (lambda f: rewrite(f, reward=None), "damaged or incomplete"),
    "code": (lambda f: rewrite(f, obs=np.array([{}], object)), "damaged or incomplete"),
    "lengths differ": (lambda f: rewrite(f, action=np.zeros(7, int)), "lengths differ"),
    "empty": (
        lambda f: rewrite(f, length=np.zeros(0, int), terminated=np.zeros(0, bool)),
        "there is no episode in it",
    ),
    "real lengths": (lambda f: rewrite(f, length=np.ones(30)), "expected whole lengths"),
    "an action": (
        lambda f: rewrite(f, action=np.full_like(np.load(f / "episodes.npz")["action"], 5)),
        "row 0: action 5 is not of Discrete",
    ),
    "axes": (
        lambda f: rewrite(f, reward=np.load(f / "episodes.npz")["reward"][:, None]),
        "expected rewards [R], lengths and ends [E], of one axis",
    ),
    "a size": (claim_much, "episodes.npz is damaged or incomplete: "),
    "the header": (lambda f: edit(f, "format = 1", "format = "), "dataset.toml: TOMLDecodeError"),
    "the format": (lambda f: edit(f, "format = 1", "format = 9"), "its format is 9"),
    "the space": (lambda f: edit(f, '"Discrete"', '"Text"'), "no description of a space"),
}


@pytest.mark.parametrize("name", HARMED)
def test_damaged_recordings_are_refused_in_a_line(data, tmp_path, name, capsys):
    change, said = HARMED[name]
    folder = damaged(data, tmp_path / "data", change)
    argv = ["--agent", "imitate", "--dataset", str(folder), "--run-dir", str(tmp_path / "run")]
    assert train.main([*argv, "--steps", "10", *QUIET]) == 2
    told = capsys.readouterr().err
    assert said in told and str(folder) in told and told.count("\n") == 1
    assert not (tmp_path / "run").exists()


# settings


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--agent ppo", "PPO with recorded episodes: it learns from its own actions alone"),
        ("--agent sarsa --bins 4", "Sarsa with recorded episodes"),
        ("--agent imitate --num-envs 2", "--num-envs with --dataset: nothing is played but"),
        ("--agent imitate --processes", "--processes with --dataset: nothing is played but"),
        ("--agent imitate --seeds 3", "--seeds with --dataset: a run of these has one seed"),
        ("--agent imitate --own-share 0.1", "own_share: what was recorded goes on"),
        ("--agent imitate --teacher math:sin", "teacher: what was recorded is the answer"),
        ("--agent q-learning --bins 4 --epsilon 0.3", "--epsilon with --dataset: nothing is"),
        ("--agent imitate --env Acrobot-v1", "--env Acrobot-v1: the episodes of"),
        ("--agent imitate --wrapper seqrl.envs:Mask --wrapper-arg keep=[0]", "its observation_sp"),
        ("--agent imitate --best-share 0", "--best-share 0.0: expected a share"),
        ("--agent imitate --best-share 1.5", "--best-share 1.5: expected a share"),
        ("--agent imitate --target-return 9", "--target-return: the agent sees none; add"),
        ("--agent imitate --condition-on luck", "--condition-on: invalid choice"),
        ("--agent imitate --dataset nowhere", "--dataset nowhere: no such folder"),
    ],
)
def test_settings_without_effect_are_refused(data, tmp_path, flags, said, capsys):
    argv = [*flags.split(), "--dataset", data, "--run-dir", str(tmp_path / "run"), *QUIET]
    assert train.main(argv) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


@pytest.mark.parametrize("flag", ["--best-share 0.5", "--condition-on return", "--target-return 3"])
def test_settings_of_recorded_episodes_alone(flag, tmp_path, capsys):
    argv = f"--agent imitate --env CartPole-v1 {flag} --run-dir {tmp_path}/run --quiet"
    assert train.main(argv.split()) == 2
    assert "it is of recorded episodes; add --dataset" in capsys.readouterr().err


def test_several_recordings_have_to_be_of_one_environment(data, tmp_path, capsys):
    other = damaged(data, tmp_path / "other", lambda f: edit(f, "CartPole-v1", "CartPole-v0"))
    argv = f"--agent imitate --dataset {data} --dataset {other} --run-dir {tmp_path}/run"
    assert train.main([*argv.split(), *QUIET]) == 2
    assert "it is of CartPole-v0, " in capsys.readouterr().err


def test_code_that_a_recording_names_is_not_imported_unasked(data, tmp_path, capsys):
    other = damaged(data, tmp_path / "a", lambda f: edit(f, "CartPole-v1", "antigravity:It-v0"))
    argv = ["--agent", "imitate", "--run-dir", str(tmp_path / "run"), *QUIET, "--dataset"]
    assert train.main([*argv, str(other)]) == 2
    assert "to allow it, add --env antigravity:It-v0" in capsys.readouterr().err
    wrapper = '[[wrappers]]\nname = "antigravity:Its"\nargs = {}\n\n[versions]'
    other = damaged(data, tmp_path / "b", lambda f: edit(f, "[versions]", wrapper))
    assert train.main([*argv, str(other)]) == 2
    assert "type its wrappers, as in --wrapper antigravity:Its" in capsys.readouterr().err
    args = 'reward = "antigravity:it"\n[versions]'
    other = damaged(data, tmp_path / "c", lambda f: edit(f, "[versions]", args))
    edit(other, "CartPole-v1", "seqrl/Corpus-v0")
    assert train.main([*argv, str(other)]) == 2
    assert "to allow it, add --env-arg reward=antigravity:it" in capsys.readouterr().err
    assert "antigravity" not in sys.modules


def maze(folder, **env_args):
    """Write an episode of two steps of TMaze, that names these arguments of the environment."""
    envs = make("seqrl/TMaze-v0")
    rows = np.zeros((3, 2), np.float32), np.zeros(3, int), np.zeros(3)
    about = {"env": "seqrl/TMaze-v0", "env_args": env_args}
    spaces_of = envs.single_observation_space, envs.single_action_space
    folder.mkdir()
    recordings.write(folder, Recording(*rows, np.array([2]), np.array([True]), *spaces_of, about))
    return str(folder)


def test_arguments_of_the_environment_are_those_of_the_recording(tmp_path):
    argv = ["--agent", "imitate", "--network", "gru", "--dataset", maze(tmp_path / "a", length=4)]
    argv += ["--steps", "10", *SMALL]
    folder = trained(tmp_path / "run", "", *argv)
    assert tomllib.loads((folder / "config.toml").read_text())["env_args"] == {"length": 4}
    typed = trained(tmp_path / "typed", "--env-arg length=5", *argv)
    assert tomllib.loads((typed / "config.toml").read_text())["env_args"] == {"length": 5}


def test_recordings_of_several_arguments_leave_it_to_the_user(tmp_path, capsys):
    both = [maze(tmp_path / "a", length=4), maze(tmp_path / "b", length=6)]
    argv = ["--agent", "imitate", *(x for each in both for x in ("--dataset", each)), *QUIET]
    argv += ["--steps", "10", "--run-dir", str(tmp_path / "run")]
    assert train.main(argv) == 2
    assert "its env_args have length=6, those of" in (told := capsys.readouterr().err)
    assert "add --env-arg length=VALUE" in told and told.count("\n") == 1
    assert train.main([*argv, "--env-arg", "length=6"]) == 0


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("[env_args]", "[[env_args]]", "env_args [{}]: expected names and values"),
        ("[env_args]", "wrappers = 7\n[env_args]", "wrappers 7: expected a list"),
        ("[env_args]", "max_episode_steps = 'x'\n[env_args]", "max_episode_steps 'x': expected a"),
    ],
)
def test_headers_that_tell_nothing_of_use(data, tmp_path, old, new, said, capsys):
    other = damaged(data, tmp_path / "a", lambda f: edit(f, old, new))
    argv = ["--agent", "imitate", "--run-dir", str(tmp_path / "run"), *QUIET, "--dataset"]
    assert train.main([*argv, str(other)]) == 2
    assert said in (told := capsys.readouterr().err) and told.count("\n") == 1


def test_an_environment_that_is_not_there(data, tmp_path, capsys):
    """Learning goes on without it; evaluations do not."""
    other = damaged(data, tmp_path / "a", lambda f: edit(f, "CartPole-v1", "NotHere-v7"))
    argv = ["--agent", "imitate", "--dataset", str(other), "--steps", "200"]
    argv += ["--no-pictures", "--run-dir", str(tmp_path / "run")]
    assert train.main(argv) == 2
    assert "unknown environment 'NotHere-v7'" in (told := capsys.readouterr().err)
    assert "--eval-episodes 0 learns without evaluations" in told
    assert train.main([*argv, "--eval-episodes", "0"]) == 0


# runs


def test_the_run_names_its_environment_and_its_recordings(data, tmp_path):
    flags = f"--agent imitate --dataset {data} --steps 300 --best-share 0.5"
    argv = [*flags.split(), *QUIET, "--logdir", str(tmp_path)]
    assert train.main(argv) == 0
    folder = tmp_path / "CartPole-v1" / "imitate,dataset=data,best_share=0.5" / "seed-0"
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["dataset"] == [data] and config["best_share"] == 0.5
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 300 and summary["env"] == "CartPole-v1"
    rows = (folder / "episodes.csv").read_text().splitlines()[1:]
    best = load_recordings(data).best(0.5).returns
    assert len(rows) == summary["episodes"] > 5
    assert {float(row.split(",")[1]) for row in rows} <= set(best)


def test_the_end_tells_what_was_recorded(data, tmp_path, capsys):
    argv = f"--agent imitate --dataset {data} --best-share 0.1 --steps 100 --run-dir {tmp_path}/run"
    assert train.main([*argv.split(), "--eval-episodes", "2", "--no-pictures"]) == 0
    returns = load_recordings(data).returns
    least = np.sort(returns)[-3]
    text = f"30 recorded episodes: best return {returns.max():g}, mean {returns.mean():.6g}"
    assert f"{text}; learned from 10%: returns of at least {least:g}" in capsys.readouterr().out


def test_evaluating_needs_no_recording(cart, tmp_path):
    data = shutil.copytree(cart / "data", tmp_path / "data")
    folder = trained(tmp_path / "run", f"--agent imitate --dataset {data} --steps 200")
    shutil.rmtree(data)
    assert evaluate.main([str(folder), "--episodes", "2"]) == 0
    assert seqrl.load(folder).predict(np.zeros(4, np.float32)) in (0, 1)
    (folder / "summary.json").unlink()
    max(folder.glob("checkpoint/step*")).rename(folder / "checkpoint/step-000000000100.ckpt")
    assert train.main(["--resume", str(folder)]) == 2  # but going on does


DATA_RUNS = {
    "imitate": "--agent imitate --network mlp",
    "imitate, memory": "--agent imitate --network gru --batch-size 3 --condition-on return",
    "values": "--agent q-learning --network mlp --learning-starts 50 --priority 0.5",
    "values, memory": "--agent q-learning --network gru --learning-starts 50 --train-every 16",
    "table": "--agent q-learning --bins 4",
}


@pytest.mark.parametrize("name", DATA_RUNS)
def test_a_resumed_run_is_the_whole_run(data, tmp_path, name):
    more = SMALL if "gru" in DATA_RUNS[name] else []
    flags = (
        f"{DATA_RUNS[name]} --dataset {data} --steps 900 --checkpoint-every 130 --eval-every 300"
    )
    whole = trained(tmp_path / "whole", flags, *more)
    part = trained(tmp_path / "part", flags, *more)
    (part / "summary.json").unlink()
    for path in sorted(part.glob("checkpoint/step*"))[-2:]:
        path.unlink()
    assert train.main(["--resume", str(part), "--quiet"]) == 0
    one, two = (json.loads((x / "summary.json").read_text()) for x in (whole, part))
    for key in ("digest", "steps", "episodes", "eval_mean_reward"):
        assert one[key] == two[key]
    assert (whole / "episodes.csv").read_text() == (part / "episodes.csv").read_text()


def test_other_recordings_are_noticed_when_a_run_goes_on(cart, tmp_path, capsys):
    data = shutil.copytree(cart / "data", tmp_path / "data")
    folder = trained(tmp_path / "run", f"--agent imitate --dataset {data} --steps 200")
    (folder / "summary.json").unlink()
    rewrite(data, reward=np.load(data / recordings.ARRAYS)["reward"] + 1.0)
    assert train.main(["--resume", str(folder)]) == 2
    told = "recorded episodes: they are not those that were learned from before; go on with"
    assert told in capsys.readouterr().err
    shutil.rmtree(data)
    shutil.copytree(maze(tmp_path / "other"), data)
    edit(data, "seqrl/TMaze-v0", "CartPole-v1")
    assert train.main(["--resume", str(folder)]) == 2
    assert "that of CartPole-v1 Box" in capsys.readouterr().err


def test_a_run_from_python(data, tmp_path):
    config = {"agent": "imitate", "dataset": [data], "steps": 100, "eval_episodes": 2}
    found = run({**config, "pictures": False}, tmp_path / "run")
    assert found.contents["steps"] == 100 and found.contents["env"] == "CartPole-v1"
    again = run({**config, "pictures": False}, tmp_path / "run", resume=True)
    assert again.contents["digest"] == found.contents["digest"]
    with pytest.raises(UsageError, match="--dataset 'x': expected a list"):
        complete({"agent": "imitate", "dataset": "x"})


def tags_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(folder), {"scalars": 0}).Reload()
    return {tag: [x.step for x in log.Scalars(tag)] for tag in log.Tags()["scalars"]}


def test_the_axis_is_steps_learned_from(data, tmp_path):
    flags = f"--agent imitate --dataset {data} --steps 2000 --eval-every 500"
    tags = tags_of(trained(tmp_path / "run", flags))
    assert tags["eval/mean_reward"] == [512, 1024, 1536, 2000]  # the ends of turns
    assert len(tags["train/loss"]) > 20 and max(tags["train/loss"]) <= 2000
    assert "teacher/ep_rew_mean" in tags and "rollout/ep_rew_mean" not in tags
    assert tags["reference/recorded_best"] == tags["eval/mean_reward"]


# the return wanted


def test_the_return_wanted_falls_by_what_comes():
    env = ReturnWanted(gym.make("CartPole-v1"), target=5.0, scale=10.0)
    obs, _ = env.reset(seed=0)
    assert obs["return_wanted"].tolist() == [0.5] and obs in env.observation_space
    seen = [env.step(0)[0]["return_wanted"].item() for _ in range(3)]
    np.testing.assert_allclose(seen, [0.4, 0.3, 0.2], rtol=1e-6)
    assert env.reset()[0]["return_wanted"].tolist() == [0.5]
    with pytest.raises(UsageError, match="expected numbers"):
        ReturnWanted(gym.make("CartPole-v1"), target=np.nan)


def test_recorded_steps_show_what_was_still_to_come(data):
    config = complete({"agent": "imitate", "dataset": [data], "condition_on": "return"})
    made, plain = offline.learned_from(config)[0], load_recordings(data)
    scale = plain.returns.max()
    (entry,) = config["wrappers"]
    assert entry["args"] == {"target": scale, "scale": scale}
    wanted = made.obs["return_wanted"][:, 0]
    assert wanted[0] == np.float32(plain.returns[0] / scale) and wanted[plain.length[0]] == 0
    assert (made.obs["observation"] == plain.obs).all()
    env = make("CartPole-v1", wrappers=wrappers(config["wrappers"]))
    assert env.single_observation_space == made.observation_space


def test_another_return_is_asked_for(data, tmp_path, capsys):
    flags = f"--agent imitate --dataset {data} --condition-on return --target-return 40 --steps 200"
    folder = trained(tmp_path / "run", flags)
    target = load_parts(folder, {}).envs.envs[0].get_wrapper_attr("target")
    assert target == 40.0
    assert seqrl.load(folder, target_return=7).make_envs().envs[0].target == 7.0
    assert evaluate.main([str(folder), "--episodes", "2", "--target-return", "9"]) == 0
    plain = trained(tmp_path / "plain", f"--agent imitate --dataset {data} --steps 200")
    assert evaluate.main([str(plain), "--target-return", "9"]) == 2
    assert "--target-return 9: the run's agent sees no return wanted" in capsys.readouterr().err


def test_recordings_that_show_what_is_wanted_ask_for_another_return(tmp_path):
    folder = Path(maze(tmp_path / "data"))
    shows = 'wrappers = [{name = "seqrl.envs:ReturnWanted", args = {target = 1.0}}]\n[env_args]'
    edit(folder, "[env_args]", shows)
    given = {"agent": "imitate", "dataset": [str(folder)]}
    assert complete(given)["wrappers"][0]["args"] == {"target": 1.0}
    assert complete({**given, "target_return": 3})["wrappers"][0]["args"] == {"target": 3.0}


def test_settings_from_a_file_keep_what_is_wanted(data, tmp_path):
    flags = f"--agent imitate --dataset {data} --condition-on return --steps 100"
    first = trained(tmp_path / "a", flags)
    again = trained(tmp_path / "b", f"--config {first}/config.toml --target-return 3")
    config = tomllib.loads((again / "config.toml").read_text())
    assert len(config["wrappers"]) == 1 and config["wrappers"][0]["args"]["target"] == 3.0


def test_a_network_does_what_is_wanted():
    """Of episodes that always did 0 or always 1 it repeats those that brought what is wanted."""
    length = np.full(20, 5)
    action = np.repeat(np.arange(20) % 2, 6)
    ends = np.ones(20, bool)
    both = spaces.Discrete(1), spaces.Discrete(2)
    one = Recording(np.zeros(120, int), action, action * 1.0, length, ends, *both)
    obs = shown(one.obs, (one.returns_to_go()[:, None] / 5).astype(np.float32))
    space = shown_space(one.observation_space)
    made = one._replace(obs=obs, observation_space=space)
    agent = Imitation(MLP(space, 16), one.action_space, space, optim=Optim(0.02, 1.0), seed=0)
    fit(agent, made, 20_000, seed=0)
    wanted = {"observation": np.zeros(2, int), "return_wanted": np.float32([[0.0], [1.0]])}
    assert agent.act(wanted, np.ones(2, bool), explore=False).action.tolist() == [0, 1]


# Minari


@pytest.fixture
def minari_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def minari_copy(made, name, **more):
    """The recording as Minari itself writes it."""
    minari = pytest.importorskip("minari")
    from minari.data_collector.episode_buffer import EpisodeBuffer

    buffers = []
    for first, length, over in zip(made.first, made.length, made.terminated, strict=True):
        steps = slice(first, first + length)
        ends = [False] * (length - 1) + [bool(over)]
        cut = [False] * (length - 1) + [not over]
        obs = tree.map(lambda x, a=first, b=first + length + 1: list(x[a:b]), made.obs)
        taken = list(made.action[steps]), made.reward[steps].tolist()
        buffers.append(EpisodeBuffer(None, None, None, obs, *taken, ends, cut, None))
    spaces_of = {name: getattr(made, name) for name in ("observation_space", "action_space")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that nobody reads here
        given = {"data_format": "hdf5", **spaces_of, **more}
        return minari.create_dataset_from_buffers(name, buffers, **given)


def test_a_dataset_of_minari_is_read_by_id_and_by_folder(data, minari_home, tmp_path):
    made = load_recordings(data)
    minari_copy(made, "cart/random-v0", env="CartPole-v1")
    for name in ("cart/random-v0", tmp_path / "cart/random-v0"):
        again = load_recordings(name)
        assert again.about["env"] == "CartPole-v1"
        assert again.digest == made._replace(reward=again.reward).digest
        assert (again.returns == made.returns).all()
    flags = "--agent imitate --dataset cart/random-v0 --steps 100"
    folder = trained(tmp_path / "run", flags)
    assert tomllib.loads((folder / "config.toml").read_text())["env"] == "CartPole-v1"


def test_minari_without_an_environment(data, minari_home, tmp_path, capsys):
    minari_copy(load_recordings(data), "odd/cart-v0")
    argv = ["--agent", "imitate", "--dataset", "odd/cart-v0", "--steps", "50", *QUIET]
    argv += ["--run-dir", str(tmp_path / "run")]
    assert train.main(argv) == 2
    assert "--dataset odd/cart-v0: it names no environment; add --env" in capsys.readouterr().err
    assert train.main([*argv, "--env", "CartPole-v1"]) == 0


def test_minari_of_composite_actions(data, minari_home, tmp_path, capsys):
    minari_copy(load_recordings(data), "cart/both-v0", env="CartPole-v1")
    from minari.serialization import serialize_space

    path = tmp_path / "cart" / "both-v0" / "data" / "metadata.json"
    told = json.loads(path.read_text())
    told["action_space"] = serialize_space(spaces.Tuple([spaces.Discrete(2)]))
    path.write_text(json.dumps(told))
    argv = ["--agent", "imitate", "--run-dir", str(tmp_path / "run"), *QUIET, "--dataset"]
    assert train.main([*argv, "cart/both-v0"]) == 2
    expected = "its actions are of Tuple(Discrete(2)); expected Discrete, MultiDiscrete"
    assert expected in capsys.readouterr().err


def test_minari_that_cannot_be_read(data, minari_home, tmp_path, capsys):
    minari_copy(load_recordings(data), "cart/random-v0", env="CartPole-v1")
    argv = ["--agent", "imitate", "--run-dir", str(tmp_path / "run"), *QUIET, "--dataset"]
    assert train.main([*argv, "cart/nothing-v0"]) == 2
    assert "fetch it by `minari download cart/nothing-v0`" in capsys.readouterr().err
    (main,) = Path(tmp_path / "cart").rglob("*.hdf5")
    main.write_bytes(main.read_bytes()[:1000])
    assert train.main([*argv, "cart/random-v0"]) == 2
    told = capsys.readouterr().err
    assert "--dataset cart/random-v0: it cannot be read" in told and told.count("\n") == 1


def test_without_minari_it_is_named(data, tmp_path, monkeypatch, capsys):
    for name in {"minari", *(x for x in sys.modules if x.startswith("minari."))}:
        monkeypatch.setitem(sys.modules, name, None)
    argv = ["--agent", "imitate", "--run-dir", str(tmp_path / "run"), "--dataset", "some/thing-v0"]
    assert train.main(argv) == 2
    assert 'pip install "seqrl[offline]"' in capsys.readouterr().err
