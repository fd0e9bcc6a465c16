"""Settings that are not typed: defaults < preset < --config FILE < flags."""

import os
import re
import tomllib

import pytest

from seqrl.scripts import settings, train
from seqrl.training.runs import folder as runs
from seqrl.training.runs import presets

CODE = "class Net: pass\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(line):
    """What config.toml of a run will hold, and the line about a preset."""
    argv = line.split()
    made = train.make_parser(argv)
    return train.make_config(made.read(argv)), made.note


def refused(line, capsys):
    assert train.main(line.split()) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("name", presets.presets())
def test_every_preset_gives_a_run_that_can_begin(name, here):
    from seqrl.training.runs.parts import build

    preset = presets.presets()[name]
    if "--from RUN" in preset.command:
        words = "--agent imitate --network gru --env seqrl/Translate-v0 --steps 1 --run-dir RUN"
        assert train.main([*words.split(), "--eval-episodes", "0", "--quiet"]) == 0
    words = preset.command.split()
    assert words[:2] == ["seqrl", "train"] and preset.reached
    config, note = config_of(" ".join(words[2:]))
    assert note.startswith(f"preset {name} ") and config["agent"] == preset.agent
    flat = presets.flatten(config)
    tuned = presets.flatten(preset.settings)
    assert {name: x for name, x in tuned.items() if name != "network"}.items() <= flat.items()
    build(config).envs.close()


def test_a_preset_is_used_where_its_agent_plays_its_environment(monkeypatch):
    assert config_of("--env CartPole-v1")[0]["bins"] == 8
    for line in ("--env CartPole-v1 --preset none", "--env MountainCar-v0", "--env Acrobot-v1"):
        config, note = config_of(line)
        assert config["bins"] is None and note == ""
    config, note = config_of("--env MountainCar-v0 --preset cartpole-bins")
    assert config["bins"] == 8
    assert note == "preset cartpole-bins (--preset none leaves it out): bins=8"
    assert config_of("--env CartPole-v1 --bins 8")[1] == ""  # it adds nothing


def test_a_presets_arguments_of_its_network_are_not_those_of_another():
    line = "--agent imitate --env seqrl/Facts-v0"
    assert config_of(line)[0]["network_args"] == {"hops": 2}
    assert config_of(f"{line} --network memory-network")[0]["network_args"] == {"hops": 2}
    config, note = config_of(f"{line} --network gru")
    assert config["network_args"] == {} and "hops" not in note
    assert config["agent_args"]["learning_rate"] == "linear:0.01:0"


def test_the_order_of_precedence(here, monkeypatch):
    (here / "presets.toml").write_text(
        "[mine]\nagent = 'sarsa'\nenv = 'CliffWalking-v1'\nnetwork = false\n"
        "reached = ''\ncommand = ''\n[mine.settings]\nnum_envs = 2\nsteps = 70\n"
        "[mine.settings.agent_args]\ngamma = 0.5\nn_step = 3\nepsilon = 'linear:1:0.2'\n"
    )
    monkeypatch.setattr(presets, "PRESETS", here / "presets.toml")
    (here / "file.toml").write_text(
        "agent = 'sarsa'\nenv = 'CliffWalking-v1'\nsteps = 80\ncompile = false\n"
        "[agent_args]\ngamma = 0.6\nn_step = 4\n[env_args]\nis_slippery = true\n"
    )
    bare, _ = config_of("--agent sarsa --env CliffWalking-v1 --preset none")
    assert (bare["num_envs"], bare["steps"]) == (1, 300_000)
    preset, _ = config_of("--agent sarsa --env CliffWalking-v1")
    assert (preset["num_envs"], preset["steps"], preset["compile"]) == (2, 70, True)
    assert preset["agent_args"] == {
        **bare["agent_args"],
        "gamma": 0.5,
        "n_step": 3,
        "epsilon": "linear:1:0.2",
    }
    both, _ = config_of("--config file.toml")
    assert (both["agent"], both["num_envs"], both["steps"]) == ("sarsa", 2, 80)
    assert both["compile"] is False and both["env_args"] == {"is_slippery": True}
    assert (both["agent_args"]["gamma"], both["agent_args"]["n_step"]) == (0.6, 4)
    assert both["agent_args"]["epsilon"] == "linear:1:0.2"
    typed, _ = config_of("--config file.toml --gamma 0.7 --steps 90 --env-arg is_slippery=False")
    assert (typed["steps"], typed["agent_args"]["gamma"]) == (90, 0.7)
    assert typed["env_args"] == {"is_slippery": False} and typed["agent_args"]["n_step"] == 4


def test_a_runs_own_config_is_such_a_file(here):
    words = "--env CartPole-v1 --bins 4 --bin-range 1=-3:3 --steps 60 --num-envs 2 --double"
    words += " --eval-episodes 0 --quiet --no-compile --gamma 0.9 --epsilon linear:1:0.1"
    assert train.main([*words.split(), "--run-dir", "r"]) == 0
    first = runs.read_config(here / "r")
    assert train.main(["--config", "r/config.toml", "--run-dir", "again", "--quiet"]) == 0
    assert runs.read_config(here / "again") == first
    digests = [tomllib.loads((here / run / "config.toml").read_text()) for run in ("r", "again")]
    assert digests[0] == digests[1]


def test_a_preset_adds_nothing_to_a_runs_own_config(here):
    line = "--agent imitate --network rnn --env seqrl/Waves-v0"
    bare, _ = config_of(f"{line} --preset none")
    (here / "r").mkdir()
    runs.write_config(here / "r", bare)
    for words in ("", " --env seqrl/Waves-v0", " --seed 3"):
        config, note = config_of(f"--config r/config.toml{words}")
        assert config == {**bare, "seed": config["seed"]} and note == ""
    tuned, note = config_of("--config r/config.toml --preset waves")
    assert tuned["agent_args"] != bare["agent_args"] and note.startswith("preset waves ")
    (here / "mine.toml").write_text("agent = 'imitate'\nenv = 'seqrl/Waves-v0'\n")
    assert config_of("--config mine.toml")[1].startswith("preset waves ")


@pytest.mark.parametrize("network", ["--network gru --network-arg hidden=8", "--preset none"])
def test_so_is_that_of_a_run_on_a_network_where_there_is_a_preset(here, network):
    words = f"--agent reinforce --env seqrl/TMaze-v0 --steps 60 --eval-episodes 0 --quiet {network}"
    assert train.main([*words.split(), "--run-dir", "r"]) == 0
    assert train.main(["--config", "r/config.toml", "--run-dir", "again", "--quiet"]) == 0
    assert runs.read_config(here / "again") == runs.read_config(here / "r")


@pytest.mark.parametrize("name", presets.presets())
def test_every_preset_can_be_used_by_its_name_alone(name):
    preset = presets.presets()[name]
    config, _ = config_of(f"--preset {name} --agent {preset.agent}")
    assert bool(config.get("network")) is preset.network


def test_a_temperature_makes_the_epsilon_of_a_preset_void(here):
    line = "--agent q-learning --network gru --env seqrl/TMaze-v0"
    config, note = config_of(f"{line} --temperature 0.5")
    assert config["agent_args"]["temperature"] == 0.5 and "epsilon" not in note
    (here / "file.toml").write_text("[agent_args]\ntemperature = 0.5\n")
    assert config_of(f"{line} --config file.toml")[0]["agent_args"] == config["agent_args"]


def test_the_arguments_of_our_networks_are_not_for_one_of_the_users():
    line = "--agent reinforce --env seqrl/TMaze-v0 --network {} --preset tmaze"
    assert config_of(line.format("gru"))[0]["network_args"] == {"normalize": True}
    config, note = config_of(line.format("torch.nn:Flatten"))
    assert config["network_args"] == {} and "normalize" not in note and "gamma=0.75" in note


def test_the_preset_is_said(here, capsys):
    words = "--env CartPole-v1 --steps 50 --eval-episodes 0 --no-compile"
    assert train.main(words.split()) == 0
    assert "seqrl: preset cartpole-bins (" in capsys.readouterr().err
    assert train.main([*words.split(), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (None, ["--config f.toml", "No such file"]),
        ("a b", ["--config f.toml", "line 1"]),
        ("gama = 1", ["unknown setting gama"]),
        ("[agent_args]\ngama = 1", ["gama", '"gamma"']),
        ("num_envs = 'many'", ["--num-envs", "'many'", "whole number"]),
        ("steps = 0", ["--steps 0", "at least 1"]),
        ("env_args = 3", ["env_args", "table"]),
        ("agent = 'q-lerning'", ["q-lerning", "q-learning"]),
        ("agent = 3", ["agent"]),
        ("network = 'net:Net'\nagent = 'reinforce'", ["imports code", "--network net:Net"]),
        ("env = 'net:Net-v0'", ["imports code", "--env net:Net-v0"]),
        ("resume = 'x'", ["unknown setting resume"]),
        ("n_envs = 4", ["unknown setting n_envs. Here it is --num-envs N"]),
        ("bin_range = [1]", ["bin_range", "table"]),
        (
            "env = 'seqrl/Translate-v0'\n[env_args]\nreward = 'net:score'",
            ["its reward imports code", "--env-arg reward=net:score"],
        ),
        (
            "[[wrappers]]\nname = 'net:Wrap'\nargs = {}",
            ["its wrapper imports code", "--wrapper net:Wrap"],
        ),
    ],
)
def test_what_a_file_may_not_say(here, text, parts, capsys):
    (here / "net.py").write_text(CODE)
    if text is not None:
        (here / "f.toml").write_text(text)
    err = refused("--config f.toml", capsys)
    assert all(part in err for part in parts), err
    assert sorted(os.listdir(here)) == sorted(["net.py"] + ["f.toml"] * (text is not None))


def test_what_is_typed_takes_the_place_of_code_in_a_file(here):
    text = "env = 'net:Net-v0'\nnetwork = 'net:Net'\n[[wrappers]]\nname = 'net:Wrap'\nargs = {}\n"
    (here / "f.toml").write_text(text)
    typed = "--env FrozenLake-v1 --network mlp --wrapper gymnasium.wrappers:Autoreset"
    found, _ = config_of(f"--config f.toml {typed} --preset none")
    assert (found["env"], found["network"]) == ("FrozenLake-v1", "mlp")
    assert [wrapper["name"] for wrapper in found["wrappers"]] == ["gymnasium.wrappers:Autoreset"]


def test_an_unknown_preset(capsys):
    err = refused("--preset cartpole-bin", capsys)
    assert '"cartpole-bins"' in err and "none" in err


@pytest.mark.parametrize("line", ["--env CartPole-v1", "--env FrozenLake-v1 --network mlp"])
def test_an_agents_own_settings_are_a_table(line, here, capsys):
    (here / "file.toml").write_text("agent_args = 3\n")
    assert "agent_args is 3, expected a table" in refused(f"{line} --config file.toml", capsys)


def test_a_preset_of_another_agent_is_refused(capsys):
    err = refused("--preset dqn --agent sarsa --network mlp", capsys)
    assert "--preset dqn: it is of --agent q-learning, not of sarsa" in err


@pytest.mark.parametrize("entry", ["gamma = [1]", "gamma = true", "double = 'no'", "loss = {}"])
def test_an_agents_number_of_another_kind_in_a_file_is_refused(entry, here, capsys):
    (here / "x.toml").write_text(f"[agent_args]\n{entry}\n")
    err = refused("--agent q-learning --network mlp --config x.toml", capsys)
    assert re.search(rf"{entry.split()[0]} .*expected ", err)


def test_an_alias_keeps_its_own_numbers(tmp_path):
    """Those of a file for the agent that it is an alias of are others."""
    file = tmp_path / "run.toml"
    text = 'agent = "{}"\n[agent_args]\nrollout = 128\nepochs = 4\ngae_lambda = 0.9\n'
    own = {"rollout": 8, "epochs": 1, "minibatches": 1, "clip": float("inf"), "gae_lambda": 0.9}
    for agent, expected in (("ppo", own), ("a2c", own | {"rollout": 128, "epochs": 4})):
        file.write_text(text.format(agent))
        found, _ = settings.default_settings(["--agent", "a2c", "--config", str(file)])
        assert found["agent_args"] == expected
    found, _ = settings.default_settings(["--agent", "ppo", "--config", str(file)])
    assert found["agent_args"] == {"gae_lambda": 0.9}
