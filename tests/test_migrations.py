"""Checkpoints that version 0.1 wrote (schema 2) are read, act as they did and go on.

What they are to give was written down by version 0.1 itself, beside them in tests/data/schema_2.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from seqrl.core.errors import UsageError
from seqrl.training.loop.interaction import Interaction
from seqrl.training.runs import checkpoint, saved_run
from seqrl.training.runs.parts import build

FOLDER = Path(__file__).parent / "data" / "schema_2"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())


@pytest.mark.parametrize("name", EXPECTED)
def test_an_older_checkpoint_acts_as_it_did_and_goes_on(name):
    saved = saved_run.read(FOLDER / f"{name}.ckpt")
    parts = build(saved["config"])
    loop = Interaction(parts.agent, parts.envs)
    loop.load_state_dict(saved["loop"])
    size = parts.envs.single_observation_space.shape[0]
    obs = np.random.default_rng(0).normal(size=(8, size)).astype(np.float32)
    start = np.ones(8, bool)
    action = parts.agent.act(obs, start, explore=False).action
    np.testing.assert_allclose(action, EXPECTED[name]["action"], rtol=1e-5)
    values = parts.agent.values(obs, start)
    np.testing.assert_allclose(values, EXPECTED[name]["values"], rtol=1e-5)
    if hasattr(parts.agent, "optim"):
        assert parts.agent.optim.adam_eps == 1e-8  # as it was
    before = getattr(parts.agent, "updates", 0)
    loop.run(300)
    assert loop.steps == parts.agent.steps == 601
    assert getattr(parts.agent, "updates", 1) > before


@pytest.mark.parametrize("missing", ["rng", "horizon"])
def test_an_older_checkpoint_is_checked_as_a_newer_one(missing, tmp_path):
    damaged = checkpoint.load(FOLDER / "reinforce-lstm.ckpt")
    del damaged["loop"]["agent"][missing]
    checkpoint.save(tmp_path / "it", damaged)
    saved = saved_run.read(tmp_path / "it")
    with pytest.raises(UsageError, match=f"agent/{missing}: missing, expected"):
        build(saved["config"]).agent.load_state_dict(saved["loop"]["agent"])


@pytest.mark.parametrize("modules", [{"policy": 1}, {"policy": 1, "critic": {}}, 1])
def test_an_older_checkpoint_that_is_damaged_is_refused_in_a_line(modules, tmp_path):
    damaged = checkpoint.load(FOLDER / "reinforce-lstm.ckpt")
    damaged["loop"]["agent"]["modules"] = modules
    checkpoint.save(tmp_path / "it", damaged)
    with pytest.raises(UsageError, match="it: it is damaged"):
        saved_run.read(tmp_path / "it")
