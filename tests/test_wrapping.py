"""Wrappers by flag, file and preset: around every environment of a run, now and when it goes on."""

import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from seqrl.core import UsageError
from seqrl.envs import Mask, Serial, make, time_limit
from seqrl.scripts import compare, doctor, evaluate, train
from seqrl.training.runs import folder as runs
from seqrl.training.runs.parts import build

MODULE = """
import gymnasium as gym
from seqrl.envs import Mask

class Twice(gym.Wrapper):
    def __init__(self, env, times=2):
        super().__init__(env)
        self.times, self.taken = times, 0

    def step(self, action):
        for _ in range(self.times):
            self.taken += 1
            obs, reward, terminated, truncated, info = self.env.step(action)
            if terminated or truncated:
                break
        return obs, reward + self.taken, terminated, truncated, info

def function(env):
    return env
"""
SHORT = ["--steps", "300", "--eval-episodes", "3", "--no-pictures", "--bins", "4"]
MASK = ["--wrapper", "seqrl.envs:Mask", "--wrapper-arg", "hide=[1,3]"]
STACK = ["--wrapper", "gymnasium.wrappers:FrameStackObservation", "--wrapper-arg", "stack_size=2"]
TWICE = ["--wrapper", "twice:Twice", "--wrapper-arg", "times=3"]
CART = ["--env", "CartPole-v1", "--preset", "none", "--agent", "sarsa"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "twice.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("twice", None)


@pytest.fixture
def refused(capsys):
    """A function that runs a script that refuses: its one line."""

    def run(script, *words):
        assert script.main([*map(str, words)]) == 2
        out, err = capsys.readouterr()
        assert err.count("\n") == 1 and out == ""
        return err

    return run


def config_of(*words):
    parser = train.make_parser(words)
    return train.make_config(parser.read(words))


class Showing(gym.Env):
    """An environment of any observation space; it shows what it is told to."""

    action_space = spaces.Discrete(2)

    def __init__(self, space, shown):
        self.observation_space, self.shown = space, shown

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.shown, {}


BOX = spaces.Box(np.array([[0, 1], [2, 3]]), np.array([[9, 8], [7, 6]]), dtype=np.int16)
NAMED = spaces.Dict(image=spaces.Discrete(3), mission=spaces.Text(4), way=spaces.Discrete(4))
WORDS = {"image": 2, "mission": "go", "way": 3}
PAIR = spaces.Tuple((spaces.Discrete(2), spaces.Discrete(5)))
FEW = spaces.Box(np.int16([1, 3]), np.int16([8, 6]), dtype=np.int16)
SHIFTED = spaces.MultiDiscrete([2, 3, 4], start=[5, 6, 7])
MASKS = {
    "hide of a box": (BOX, np.int16([[4, 5], [6, 6]]), {"hide": [0, 2]}, FEW, [5, 6]),
    "keep of a box": (BOX, np.int16([[4, 5], [6, 6]]), {"keep": [3, 1]}, FEW, [5, 6]),
    "one of a box": (spaces.Box(0, 9, (3,)), np.float32([1, 2, 3]), {"keep": 2}, None, [3]),
    "counts": (SHIFTED, np.array([6, 7, 8]), {"hide": 1}, None, [6, 8]),
    "bits": (spaces.MultiBinary(3), np.int8([1, 0, 1]), {"keep": [0, 1]}, None, [1, 0]),
    "a key": (NAMED, WORDS, {"keep": "image"}, spaces.Discrete(3), 2),
    "a key in a list": (NAMED, WORDS, {"keep": ["way"]}, None, {"way": 3}),
    "without text": (NAMED, WORDS, {"hide": "mission"}, None, {"image": 2, "way": 3}),
    "a place": (PAIR, (1, 4), {"keep": 1}, spaces.Discrete(5), 4),
    "places": (PAIR, (1, 4), {"hide": [1]}, spaces.Tuple([spaces.Discrete(2)]), (1,)),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_shows_what_is_kept(name):
    space, shown, args, expected, found = MASKS[name]
    env = Mask(Showing(space, shown), **args)
    assert expected is None or env.observation_space == expected
    obs, _ = env.reset()
    assert env.observation_space.contains(obs)
    assert obs == found if isinstance(found, dict | tuple | int) else obs.tolist() == found


def test_a_mask_shifts_counts_with_their_space():
    env = Mask(Showing(SHIFTED, np.array([6, 7, 8])), hide=1)
    assert env.observation_space == spaces.MultiDiscrete([2, 4], start=[5, 7])


@pytest.mark.parametrize(
    "space, args, said",
    [
        (BOX, {}, "give the parts to keep, or those to hide"),
        (BOX, {"keep": 1, "hide": 2}, "give the parts to keep, or those to hide"),
        (BOX, {"hide": [0, 4]}, "no part 4 in Box"),
        (BOX, {"hide": [0, 1, 2, 3]}, "nothing is left of Box"),
        (NAMED, {"keep": "imag"}, "no part 'imag' in Dict"),
        (spaces.Discrete(3), {"keep": 0}, r"Discrete\(3\) has no parts"),
    ],
)
def test_a_mask_that_fits_nothing_is_refused(space, args, said):
    with pytest.raises(UsageError, match=said):
        Mask(Showing(space, None), **args)


def hiding(env):
    return Mask(env, hide=[1, 3])


@pytest.mark.parametrize("vectorization", ["auto", "serial", "async"])
def test_wrappers_are_around_every_environment(vectorization):
    """Batched versions know no wrappers of single environments, and are not taken."""
    envs = make("CartPole-v1", 2, vectorization=vectorization, wrappers=[hiding])
    assert envs.single_observation_space.shape == (2,)
    seed, bare = np.random.SeedSequence(1), make("CartPole-v1", 2, vectorization="serial")
    assert np.array_equal(envs.reset(seed), bare.reset(seed)[:, [0, 2]])
    envs.close()


def test_a_step_limit_counts_the_steps_of_the_wrappers(here):
    config = config_of("--env", "CliffWalking-v1", *TWICE, "--max-episode-steps", "7")
    envs = build(config).envs
    assert isinstance(envs, Serial) and time_limit(envs) == 7
    envs.reset(np.random.SeedSequence(0))
    taken = [envs.step(np.array([0])).truncated[0] for _ in range(7)]
    assert taken == [False] * 6 + [True] and envs.envs[0].env.taken == 21


def test_a_batch_on_a_device_takes_no_wrappers():
    with pytest.raises(UsageError, match="wrappers are of single environments"):
        make("seqrl/Catch-v0", 2, device="cpu", wrappers=[hiding])


def test_arguments_are_of_the_wrapper_before_them():
    config = config_of(*CART, *STACK, *MASK)
    assert [(x["name"].rpartition(":")[2], x["args"]) for x in config["wrappers"]] == [
        ("FrameStackObservation", {"stack_size": 2}),
        ("Mask", {"hide": [1, 3]}),
    ]
    assert config_of(*CART)["wrappers"] is None  # as before there were any


@pytest.mark.parametrize("more", [[], ["--processes", "--num-envs", "2"]])
def test_a_run_keeps_its_wrappers(here, more, capsys):
    """In config.toml, where it is evaluated, and to the last bit where it is resumed."""
    words = [*CART, *MASK, *STACK, *more, *SHORT]
    assert train.main([*words, "--run-dir", "whole"]) == 0
    whole = runs.read_config(here / "whole")
    assert [len(entry["args"]) for entry in whole["wrappers"]] == [1, 1]
    assert evaluate.main(["whole", "--episodes", "2"]) == 0
    assert train.main(["--config", "whole/config.toml", "--run-dir", "again", *CART[-2:]]) == 0
    assert runs.read_config(here / "again") == whole
    assert digest(here, "again") == digest(here, "whole")


def digest(here, name):
    return runs.read_summary(here / name, runs.read_config(here / name))["digest"]


def test_a_wrapper_of_ones_own_is_named_again(here, capsys, refused, monkeypatch):
    """A folder may be anybody's: what it names is not imported unasked."""
    words = [*CART, *TWICE, *SHORT, "--checkpoint-every", "100"]
    assert train.main([*words, "--run-dir", "whole"]) == 0
    stop = runs.write_summary
    monkeypatch.setattr(runs, "write_summary", lambda *_: None)  # as if it had been killed
    assert train.main([*words, "--run-dir", "run"]) == 0
    for path in runs.checkpoints(here / "run")[:1]:
        path.unlink()
    monkeypatch.setattr(runs, "write_summary", stop)
    capsys.readouterr()
    for script, said in ((evaluate, ("run",)), (train, ("--resume", "run"))):
        assert "its wrapper imports code; to allow it, add --wrapper twice:Twice" in refused(
            script, *said
        )
        assert "the run has no such wrapper" in refused(
            script, *said, "--wrapper", "twice:Twice", "--wrapper", "twice:Mask"
        )
    told = refused(train, "--config", "run/config.toml", *CART[-2:])
    assert "its wrapper imports code; to allow it, add --wrapper twice:Twice" in told
    assert evaluate.main(["run", "--wrapper", "twice:Twice", "--episodes", "2"]) == 0
    assert train.main(["--resume", "run", "--wrapper", "twice:Twice"]) == 0
    assert digest(here, "run") == digest(here, "whole")


def test_typed_wrappers_replace_those_of_a_file(here):
    (here / "file.toml").write_text(
        '[[wrappers]]\nname = "seqrl.envs:Mask"\n[wrappers.args]\nkeep = [0]\n'
    )
    words = ["--config", "file.toml", *CART]
    assert config_of(*words)["wrappers"] == [{"name": "seqrl.envs:Mask", "args": {"keep": [0]}}]
    assert config_of(*words, *STACK)["wrappers"][0]["args"] == {"stack_size": 2}


BAD = {
    "no colon": (["--wrapper", "Mask"], "'Mask', expected module:Class"),
    "argument first": (["--wrapper-arg", "a=1"], "name the --wrapper that takes it first"),
    "no module": (["--wrapper", "nowhere:Mask"], "--wrapper nowhere:Mask: ModuleNotFoundError"),
    "no class": (["--wrapper", "twice:Thrice"], "--wrapper twice:Thrice: AttributeError"),
    "a function": (["--wrapper", "twice:function"], "expected a class of gymnasium.Wrapper"),
    "argument": ([*MASK, "--wrapper-arg", "show=1"], "unexpected keyword argument 'show'; its arg"),
    "missing": (STACK[:2], "missing 1 required positional argument: 'stack_size'"),
    "part": ([*MASK[:3], "hide=9"], "Mask: there is no part 9 in Box"),
    "as an argument": (
        ["--env-arg", "wrappers=1"],
        "--env-arg wrappers: that is a flag of its own",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_wrapper_is_one_line(name, here, refused):
    words, said = BAD[name]
    assert said in refused(train, *CART, *SHORT, *words)
    assert sorted(path.name for path in here.iterdir() if path.name[0] != "_") == ["twice.py"]


@pytest.mark.parametrize(
    "entry", ["wrappers = 3", "wrappers = ['a:B']", "[[wrappers]]\nname = 'a'"]
)
def test_a_file_of_another_shape_is_refused(entry, here, refused):
    (here / "file.toml").write_text(entry)
    assert "wrappers" in refused(train, "--config", "file.toml", *CART, *SHORT)


def test_compare_and_doctor_take_them(here, capsys):
    words = ["--agents", "sarsa", "q-learning", "--seeds", "1", "--env", "CartPole-v1"]
    assert compare.main([*words, "--preset", "none", *MASK, *SHORT, "--workers", "1"]) == 0
    (config, _) = (runs.read_config(path.parent) for path in (here / "runs").rglob("config.toml"))
    assert config["wrappers"] == [{"name": "seqrl.envs:Mask", "args": {"hide": [1, 3]}}]
    capsys.readouterr()
    doctor.main([*CART, *MASK, "--bins", "4"])
    assert "(2,)" in capsys.readouterr().out


def test_scores_that_are_known_are_not_those_of_a_wrapped_environment():
    assert build({**config_of(*CART), "bins": 4}).reference["optimum"] == 500
    assert build({**config_of(*CART, *MASK), "bins": 4}).reference == {}
