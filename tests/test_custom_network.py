"""A user's own network: on the command line, in Python, and the page that explains it."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from seqrl.scripts import evaluate, train

ROOT = Path(__file__).resolve().parents[1]
MODULE = """
import torch
from torch import nn

class MyNet(nn.Module):
    def __init__(self, hidden=32, fault=""):
        super().__init__()
        if fault == "raises":
            raise ZeroDivisionError("division by zero")
        self.layers, self.fault = nn.Sequential(nn.LazyLinear(hidden), nn.Tanh()), fault

    def forward(self, obs):
        out = self.layers(obs)
        return {"nan": out * float("nan"), "flat": out[0], "pair": (out, out)}.get(self.fault, out)

class Spacious(nn.Module):
    def __init__(self, observation_space):
        super().__init__()
        self.layer = nn.Linear(observation_space.shape[0], 8)

    def forward(self, obs):
        return self.layer(obs)

class Late(MyNet):
    def forward(self, obs):
        out = super().forward(obs)
        return out * float("nan") if torch.is_grad_enabled() else out

def function():
    return 3
"""
RUN = "--agent reinforce --env CartPole-v1 --num-envs 4".split()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A current folder with a module of networks in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "mynets.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("1 / 0")
    forget(monkeypatch)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
    forget(monkeypatch)


def forget(monkeypatch):
    for name in ("mynets", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def run(home, capsys):
    """A function: train with these words, the exit status and what was said."""

    def trained(words, steps=300):
        capsys.readouterr()
        flags = ["--steps", str(steps), "--eval-episodes", "2", "--quiet"]
        status = train.main([*RUN, *words.split(), *flags])
        return status, capsys.readouterr().err

    return trained


def folder(home):
    (found,) = (home / "runs/CartPole-v1").glob("reinforce*/seed-0")
    return found


def test_a_class_of_the_users_is_trained_with_its_arguments_and_stored(run, home):
    assert run("--network mynets:MyNet --network-arg hidden=64 --device cpu") == (0, "")
    config = tomllib.loads((folder(home) / "config.toml").read_text())
    assert config["network"] == "mynets:MyNet"
    assert config["network_args"] == {"hidden": 64}
    summary = json.loads((folder(home) / "summary.json").read_text())
    assert summary["device"] == "cpu" and summary["steps"] == 300


def test_evaluate_imports_nothing_unless_it_is_named_again(run, home, capsys, monkeypatch):
    assert run("--network mynets:MyNet --network-arg hidden=16")[0] == 0
    forget(monkeypatch)
    place = str(folder(home))
    for words in ([], ["--network", "mynets:Spacious"]):
        assert evaluate.main([place, "--episodes", "2", *words]) == 2
        assert "to allow it, add --network mynets:MyNet" in capsys.readouterr().err
        assert "mynets" not in sys.modules
    assert evaluate.main([place, "--episodes", "2", "--network", "mynets:MyNet"]) == 0
    assert "mean return" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--agent reinforce", "--network mynets:MyNet: r is another run, its network is mlp"),
        ("--agent reinforce --network gru", "its network is gru; leave --network out"),
        ("--agent q-learning --bins 3", "it has no network, it learned a table"),
    ],
)
def test_another_network_than_the_runs_is_refused(run, home, capsys, words, said):
    flags = "--env CartPole-v1 --steps 50 --eval-episodes 0 --quiet --run-dir r".split()
    assert train.main([*words.split(), *flags]) == 0
    for command in ([evaluate.main, "r"], [train.main, "--resume", "r"]):
        main, *named = command
        assert main([*named, "--network", "mynets:MyNet"]) == 2
        assert said in capsys.readouterr().err and "mynets" not in sys.modules
        assert main([*named, "--env", "Acrobot-v1"]) == 2
        assert (
            "--env Acrobot-v1: r is another run, its env is CartPole-v1" in capsys.readouterr().err
        )
    assert evaluate.main(["r", "--env", "CartPole-v1", "--episodes", "1"]) == 0


def test_a_network_of_ours_is_evaluated_as_it_is(run, home, capsys):
    assert run("--network lstm --network-arg hidden_size=8") == (0, "")
    assert evaluate.main([str(folder(home)), "--episodes", "2"]) == 0
    text = capsys.readouterr().out
    summary = json.loads((folder(home) / "summary.json").read_text())
    assert summary["steps_per_second"] > 0 and "over 2 greedy episodes" in text


def test_the_same_seed_draws_the_same_weights(run, home):
    for where in ("a", "b", "c"):
        seed = 1 if where == "c" else 0
        assert run(f"--network mynets:MyNet --seed {seed} --run-dir {where}")[0] == 0
    digests = [json.loads((home / x / "summary.json").read_text())["digest"] for x in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_observation_space_is_given_to_whoever_asks_for_it(run):
    assert run("--network mynets:Spacious") == (0, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--network mynets:Missing", "--network mynets:Missing: .*no attribute 'Missing'"),
        ("--network nonets:Net", "--network nonets:Net: .*No module named 'nonets'"),
        ("--network broken:Net", "--network broken:Net: ZeroDivisionError"),
        ("--network :Net", "--network :Net: .*expected module:Class"),
        ("--network mynets:", "--network mynets:: .*expected module:Class"),
        ("--network mynets:function", "expected a torch.nn.Module, got int"),
        ("--network mynets:MyNet --network-arg hiden=3", "unexpected keyword argument 'hiden'"),
        ("--network mynets:MyNet --network-arg fault=raises", "ZeroDivisionError: division by"),
        ("--network mynets:MyNet --network-arg hidden=-3", "negative dimension|hidden|-3"),
        ("--network mynets:MyNet --network-arg fault=nan", "MyNet: expected finite floats"),
        ("--network mynets:MyNet --network-arg fault=flat", r"expected output \[B, features\]"),
        ("--network mynets:MyNet --network-arg fault=pair", "features.* got tuple"),
        ("--network mynets:Spacious --network-arg observation_space=3", "multiple values"),
        (
            "--env FrozenLake-v1 --network mynets:Spacious",
            r"be made of Discrete\(16\): Index",
        ),
        ("--network lstmm", "network 'lstmm': unknown. Did you mean \"lstm\""),
        ("--network cnn", "network cnn: no image in the observation space"),
        ("--network lstm --network-arg hiden_size=3", 'Did you mean "hidden_size"'),
        ("--network lstm --network-arg hidden_size", "expected name=value"),
        ("--network mlp --network-arg activation=tahn", 'Did you mean "tanh"'),
        ("--optimizer Adm", "optimizer 'Adm'. Did you mean \"Adam\""),
        ("--device cuda:99", "device 'cuda:99': expected auto or one of cpu"),
        ("--agent q-learning --bins 4 --network mlp", "--bins: .* network"),
        ("--learning-rate fast", "learning_rate 'fast': expected a number or a schedule"),
        ("--epsilon 0.1", "unknown flag --epsilon"),
        ("--env MountainCar-v0 --network mynets:MyNet --env seqrl/Catch-v1", "Catch"),
    ],
)
def test_what_cannot_be_is_said_in_a_line_and_leaves_no_folder(run, home, words, said):
    if "q-learning" in words:
        words += " --network-arg hidden=3"
    status, error = run(words)
    assert (status, error.count("\n")) == (2, 1), error
    assert re.search(said, error) and len(error) < 300, error
    assert not (home / "runs").exists()


def test_what_breaks_under_way_ends_the_run_with_what_was_learned(run, home):
    status, error = run("--network mynets:Late", steps=2000)
    assert status == 1 and error.count("\n") == 1
    assert re.search(r"at env step \d+: the policy loss is nan at update 1: .*; what was", error)
    assert list((folder(home) / "checkpoint").glob("*.ckpt"))


def blocks(text, kind):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == kind]


def follow(home, text):
    """Do what a page says, with fewer steps: its first block is mynets.py."""
    module, *rest = blocks(text, "python")
    (home / "mynets.py").write_text(module)
    (commands,) = blocks(text, "sh")
    for line in commands.replace("\\\n", " ").splitlines():
        _, script, *words = line.split()
        few = {"scripts/train.py": ["--steps", "300"], "scripts/evaluate.py": ["--episodes", "2"]}
        main = {"scripts/train.py": train.main, "scripts/evaluate.py": evaluate.main}[script]
        more = ["--eval-episodes", "2", "--quiet"] if main is train.main else []
        assert main([*words, *few[script], *more]) == 0, line
    for block in rest:
        exec(compile(block, "page", "exec"), {})


def test_the_page_can_be_followed(home, capsys):
    text = (ROOT / "docs/plug_your_network.md").read_text(encoding="utf-8")
    follow(home, text)
    assert "mean return" in capsys.readouterr().out
    assert len(text.splitlines()) < 60


def test_the_readme_can_be_followed(home):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Plug in a network\n")[1].split("\n## ")[0]
    assert "docs/plug_your_network.md" in section
    follow(home, section)
