"""`--device auto`: what is chosen, why, and that a trial leaves no trace."""

import tomllib

import numpy as np
import pytest
import torch

from seqrl.core import UsageError
from seqrl.training import run
from seqrl.training.runs import device_choice
from seqrl.training.runs.config import complete
from seqrl.training.runs.device_choice import by_size, by_speed, choice, size, speed
from seqrl.training.runs.load import load_parts
from seqrl.training.runs.run_one import stored_config

PPO = {"agent": "ppo", "network": "mlp", "env": "seqrl/CartPole-v0", "num_envs": 2, "steps": 600}
PPO |= {"eval_every": 0, "eval_episodes": 0, "agent_args": {"rollout": 32}}


def config(**more):
    return complete({**PPO, **more})


def on_cpu(**more):
    return {**PPO, "agent_args": {**PPO["agent_args"], "device": "cpu"}, **more}


@pytest.fixture
def faulty_gpu(monkeypatch):
    """Let auto find a second device: torch's meta, on which there are no numbers to act by."""
    monkeypatch.setattr(device_choice, "gpu", lambda: "meta")


def test_the_faster_trial_is_taken_and_told():
    assert by_speed(1_000, 3_000, "cuda") == (
        "cuda",
        "1,000 env steps/s in a trial, 3,000 on cuda",
    )
    assert by_speed(3_000, 1_000, "cuda").device == "cpu"
    assert by_speed(1_000, 1_000, "cuda").device == "cpu"


def test_a_trial_that_fails_is_not_taken():
    lost = torch.OutOfMemoryError("CUDA out of memory")
    device, reason = by_speed(1_000, lost, "cuda")
    assert device == "cpu" and reason.startswith("the trial on cuda failed: ")
    assert "CUDA out of memory" in reason
    assert by_speed(lost, 1_000, "cuda").device == "cuda"
    assert by_speed(lost, lost, "cuda").device == "cpu"  # where the run will say what is wrong


def test_much_work_a_turn_takes_a_gpu_by_rule():
    assert by_size(9_999_999, "cuda").device == "cpu"
    device, reason = by_size(10_000_000, "cuda")
    assert device == "cuda" and reason.startswith("10,000,000 weights times environments")


def test_without_a_gpu_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(device_choice, "speed", None)
    assert choice(config()) == ("cpu", "no GPU is there")
    assert choice(complete(on_cpu())) is None
    assert choice(complete({})) is None  # a table


def test_environments_on_a_device_draw_the_agent_there():
    there = choice(config(env_args={"device": "cuda:1"}))
    assert there == ("cuda:1", "the environments are there")


@pytest.mark.parametrize("more", [{"deterministic": True}, {}], ids=["deterministic", "many"])
def test_runs_that_have_to_be_alike_go_by_size(more, monkeypatch, faulty_gpu):
    monkeypatch.setattr(device_choice, "speed", None)
    device, reason = choice(config(**more), many=not more)
    assert device == "cpu" and reason.startswith(f"{size(config()):,} weights times environments")


def test_the_size_is_weights_times_environments():
    hidden = {"hidden": [8]}
    assert size(config(network_args=hidden, num_envs=3)) == 3 * (4 * 8 + 8)


def test_a_trial_leaves_no_trace():
    states = np.random.get_state()[1].copy(), torch.get_rng_state(), torch.get_num_threads()
    tried = config()
    found = speed(tried, "cpu")
    assert found > 0 and tried == config()
    after = np.random.get_state()[1], torch.get_rng_state(), torch.get_num_threads()
    assert all(np.array_equal(*pair) for pair in zip(states, after, strict=True))


def test_a_run_after_a_trial_is_the_same_and_says_why(tmp_path, faulty_gpu):
    tried, told = run(PPO, tmp_path / "tried"), run(on_cpu(), tmp_path / "told")
    assert tried.contents["digest"] == told.contents["digest"]
    assert tried.contents["device"] == "cpu" and not tried.interrupted
    assert "; cpu: the trial on meta failed: " in tried.contents["path"]
    assert any(text.startswith("device cpu: the trial on meta") for text in tried.remarks)
    kept = tomllib.loads((tmp_path / "tried" / "config.toml").read_text())
    assert kept["agent_args"]["device"] == "cpu"


def test_the_choice_is_kept_where_a_run_goes_on(tmp_path):
    folder = tmp_path / "run"
    assert run(PPO, folder).contents["path"].endswith("; cpu: no GPU is there")
    assert stored_config(folder, config())["agent_args"]["device"] == "cpu"
    assert run(PPO, folder, resume=True).contents["steps"] == 600
    other = {**PPO, "agent_args": {"device": "cuda"}}
    with pytest.raises(UsageError, match=r"other settings: device cuda \(then cpu\)"):
        stored_config(folder, other)


def test_a_job_chooses_by_size_as_it_begins(tmp_path, monkeypatch, faulty_gpu):
    from seqrl.training.engines.executor import Job, prepare

    monkeypatch.setattr(device_choice, "speed", None)
    folder = tmp_path / "job"
    assert prepare(Job(PPO, folder))["agent_args"]["device"] == "auto"
    ended = run(PPO, folder, resume=True)
    assert "weights times environments" in ended.contents["path"]
    kept = tomllib.loads((folder / "config.toml").read_text())
    assert kept["agent_args"]["device"] == "cpu"
    assert prepare(Job(PPO, folder))["agent_args"]["device"] == "cpu"  # given again


def test_a_run_of_a_gpu_is_evaluated_where_there_is_none(tmp_path):
    run(PPO, tmp_path / "run")
    kept = tmp_path / "run" / "config.toml"
    kept.write_text(kept.read_text().replace('device = "cpu"', 'device = "cuda:7"'))
    assert str(load_parts(tmp_path / "run", {}).agent.device) == "cpu"
