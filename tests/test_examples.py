"""The worked examples of docs/design.md: each is one new file, and an entry in one list."""

import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from seqrl.agents.tabular.q_learning import QLearning
from seqrl.envs.making import make
from seqrl.envs.registry import register_all
from seqrl.networks.build import build
from seqrl.networks.diagnosis.check import check_network
from seqrl.scripts import train as script
from seqrl.training.loop.interaction import Interaction

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "design.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def install(monkeypatch):
    """Put an example into its wing, and carry out what the page adds to the file of its list."""
    before = []

    def installed(name, wing, cls, listing):
        path, home = DOCS / "examples" / f"{name}.py", f"seqrl.{wing}.{name}"
        spec = importlib.util.spec_from_file_location(home, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, home, module)
        spec.loader.exec_module(module)
        names = vars(importlib.import_module(f"seqrl.{listing}"))
        lists = (x for name, x in names.items() if name.isupper() and isinstance(x, dict))
        before.extend((entries, dict(entries)) for entries in lists)
        (lines,) = (block for block in BLOCKS if cls in block)
        exec(lines, names | {cls: getattr(module, cls)})
        return module

    yield installed
    for entries, old in before:
        entries.clear()
        entries.update(old)


def run(tmp_path, agent, env, steps, *more):
    """Train by script; return the run's summary."""
    flags = "--agent", agent, "--env", env, "--steps", steps, *more, "--eval-episodes", "20"
    assert script.main([*flags, "--run-dir", str(tmp_path / "run")]) == 0
    return json.loads((tmp_path / "run" / "summary.json").read_text())


def test_a_tabular_agent(install, tmp_path):
    install("hysteretic_q", "agents.tabular", "HystereticQ", "agents.registry")
    flags = "--gamma", "1", "--learning-rate", "0.5"
    summary = run(tmp_path, "hysteretic-q", "CliffWalking-v1", "40000", *flags)
    assert summary["eval_mean_reward"] == -13


def test_with_equal_steps_it_is_q_learning(install, monkeypatch):
    module = install("hysteretic_q", "agents.tabular", "HystereticQ", "agents.registry")
    monkeypatch.setattr(module, "SHARE", 1.0)
    tables = []
    for cls in (module.HystereticQ, QLearning):
        envs = make("FrozenLake-v1", 3)
        agent = cls(envs.single_observation_space, envs.single_action_space, seed=0)
        loop = Interaction(agent, envs, compile=False)
        loop.reset(np.random.SeedSequence(1))
        loop.run(2000)
        tables.append(agent.q)
    np.testing.assert_array_equal(*tables)
    assert tables[0].any()


def test_an_agent_on_a_network(tmp_path):
    flags = "--rollout", "32", "--learning-rate", "0.003", "--num-envs", "4"
    summary = run(tmp_path, "ppo", "CartPole-v1", "4000", *flags)
    assert summary["path"].startswith("stepped, NumPy learner")
    assert summary["eval_mean_reward"] > 40  # 22 at random


def test_a_memory_core(install, tmp_path):
    module = install("averages", "networks", "Averages", "networks.build")
    space = gym.spaces.Box(-1, 1, (3,), np.float32)
    check_network(build("averages", space), space)
    core = module.Averages(1)
    torch.nn.init.zeros_(core.rate)  # a rate of a half
    x = torch.tensor([4.0, 2.0, 6.0])[:, None, None]
    start = torch.tensor([True, False, True])[:, None]
    out, state = core(x, start)
    assert out[:, 0].tolist() == [[4, 2], [2, 2], [6, 3]] and state.tolist() == [[3]]
    flags = "--network", "averages", "--env-arg", "length=2"
    assert run(tmp_path, "reinforce", "seqrl/TMaze-v0", "2000", *flags)["finished"]


def test_a_task(install, tmp_path, monkeypatch, capsys):
    install("match", "envs.tasks", "Match", "envs.registry")
    monkeypatch.setattr(gym, "registry", dict(gym.registry))
    monkeypatch.setattr(gym.envs.registration, "registry", gym.registry)
    register_all()
    envs = make("seqrl/Match-v0", 3, symbols=5)
    shown, obs = [], envs.reset(np.random.SeedSequence(0))
    for _ in range(5):
        shown.append(obs)
        outcome = envs.step(obs)
        assert outcome.reward.tolist() == [1, 1, 1]
        obs = outcome.obs
    assert np.sort(shown, 0).T.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert outcome.terminated.all()
    assert run(tmp_path, "q-learning", "seqrl/Match-v0", "5000")["eval_mean_reward"] == 4
    assert "may never end" not in capsys.readouterr().err  # it is known to be one of ours
