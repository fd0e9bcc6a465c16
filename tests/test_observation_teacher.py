"""The observation as the answer: what is played meanwhile, and what begins from it."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import seqrl
from seqrl.agents import Imitation
from seqrl.core.errors import UsageError
from seqrl.envs import Reconstruction, get_state, make, set_state
from seqrl.networks import AutoEncoder
from seqrl.scripts.command import main
from seqrl.training.runs.config import complete
from seqrl.training.runs.folder import read_config
from seqrl.training.runs.saved_run import newest

CATCH = {"env": "seqrl/Catch-v0", "num_envs": 4, "network": "autoencoder", "eval_episodes": 4}


def test_the_reward_is_of_what_was_shown_and_play_is_random():
    envs = make("CartPole-v1", num_envs=1, wrappers=[Reconstruction])
    assert envs.single_action_space == gym.make("CartPole-v1").observation_space
    shown = envs.reset(np.random.SeedSequence(0))
    reach = np.abs(envs.single_observation_space.high)
    reach[[1, 3]] = 1.0  # speeds are not bounded
    outcome = envs.step(shown + reach * np.float32([[0.5, 2, 0.25, 0]]))
    np.testing.assert_allclose(outcome.reward, -(0.5**2 + 2**2 + 0.25**2) / 4, rtol=1e-5)
    assert envs.step(outcome.obs).reward == 0
    # the same seed plays the same, another one another episode
    first, again, other = (lengths(seed) for seed in (1, 1, 2))
    assert first == again != other


def lengths(seed):
    envs = make("CartPole-v1", num_envs=3, wrappers=[Reconstruction])
    obs, found = envs.reset(np.random.SeedSequence(seed)), []
    for _ in range(60):
        outcome = envs.step(obs)
        obs = outcome.obs
        found.append(outcome.terminated.tolist())
    return found


def test_play_goes_on_where_its_state_was_taken():
    first, other = (make("CartPole-v1", 2, wrappers=[Reconstruction]) for _ in range(2))
    obs = first.reset(np.random.SeedSequence(3))
    for _ in range(5):
        first.step(obs)
    other.reset(np.random.SeedSequence(0))
    set_state(other, get_state(first))
    for _ in range(30):  # over the ends of episodes
        mine, theirs = first.step(0 * obs), other.step(0 * obs)
        for one, same in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, same)


def test_pixels_are_given_back_as_real_numbers():
    env = Reconstruction(gym.make("seqrl/Catch-v0"))
    obs, _ = env.reset(seed=0)
    assert env.action_space == spaces.Box(0, 255, (10, 5, 1), np.float32)
    assert env.step(obs.astype(np.float32))[1] == 0
    assert env.step(np.full((10, 5, 1), 127.5, np.float32))[1] == -1


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("FrozenLake-v1", "expected a Box to give back, got Discrete"),
        ("Blackjack-v1", "expected a Box to give back, got Tuple.*FlattenObservation"),
    ],
)
def test_what_is_no_box_is_refused(env, message):
    config = {"agent": "imitate", "env": env, "agent_args": {"teacher": "observation"}}
    with pytest.raises(UsageError, match=message):
        seqrl.run({**config, "steps": 10, "network": "autoencoder"}, "nowhere")


def test_an_environment_that_asks_something_else_is_refused():
    envs = make("seqrl/Catch-v0", num_envs=2)
    network = AutoEncoder(envs.single_observation_space)
    space = Reconstruction(gym.make("seqrl/Catch-v0")).action_space
    agent = Imitation(network, space, teacher="observation")
    with pytest.raises(UsageError, match=r"actions are Discrete\(3\), .*seqrl.envs.Reconstruction"):
        agent.meet(envs)


def test_the_wrapper_comes_with_the_teacher_and_goes_with_it(tmp_path):
    taught = {**CATCH, "agent": "imitate", "agent_args": {"teacher": "observation"}}
    config = complete(taught)
    assert [entry["name"] for entry in config["wrappers"]] == ["seqrl.envs:Reconstruction"]
    assert complete(config)["wrappers"] == config["wrappers"]
    first = tmp_path / "first"
    seqrl.run({**taught, "steps": 200}, first)
    begun = complete({"agent": "ppo", "from": str(first)})
    assert not begun["wrappers"] and begun["network"] == "autoencoder"


@pytest.mark.parametrize("agent", ["q-learning", "ppo", "reinforce"])
def test_any_agent_begins_from_the_encoder(tmp_path, monkeypatch, agent):
    monkeypatch.chdir(tmp_path)
    first = "train --agent imitate --teacher observation --network autoencoder --num-envs 4"
    ends = "--steps 300 --eval-episodes 2 --quiet --run-dir"
    assert main(f"{first} --env seqrl/Catch-v0 {ends} first".split()) == 0
    assert main(f"train --from first --agent {agent} --freeze encoder {ends} then".split()) == 0
    before, after = (weights(tmp_path / name) for name in ("first", "then"))
    kept = [name for name in before if ".encoder." in name]
    assert len(kept) == 8
    for name in kept:
        np.testing.assert_array_equal(before[name], after[name])
    config = read_config(tmp_path / "then")
    assert "wrappers" not in config
    assert not config["agent_args"].get("kl_coef")  # what keeps a policy is not applied


def weights(folder):
    return next(iter(newest(folder)["loop"]["agent"]["parts"].values()))["weights"]


def test_recorded_observations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quiet = "--eval-episodes 2 --quiet --run-dir"
    played = f"train --agent ppo --network mlp --env CartPole-v1 --steps 300 {quiet} played"
    assert main(played.split()) == 0
    assert main("record played --episodes 20 --out seen".split()) == 0
    taught = "train --agent imitate --teacher observation --network vae --dataset seen"
    assert main(f"{taught} --network-arg code=2 --steps 2000 {quiet} first".split()) == 0
    assert main(f"train --from first --agent ppo --steps 300 {quiet} then".split()) == 0
