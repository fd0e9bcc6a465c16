"""Classic control in batches: Gymnasium's rules, step by step from the same states."""

import gymnasium as gym
import numpy as np
import pytest

from seqrl.envs.making import make, may_never_end, time_limit
from seqrl.envs.reference import GYMNASIUM, reference_scores
from seqrl.envs.registry import register_all, task

register_all()

TWINS = {"CartPole": "CartPole-v1", "Pendulum": "Pendulum-v1"}
TWINS |= {"MountainCar": "MountainCar-v0", "Acrobot": "Acrobot-v1"}
# states near which episodes end, or walls and fastest speeds are, and how wide around
PLACES = {
    "CartPole": [([2.3, 1, 0, 0], 0.2), ([-2.3, -1, 0, 0], 0.2), ([0, 0, 0.2, 0.5], 0.1)],
    "Pendulum": [([np.pi, 7.9], 0.1), ([-9, -7.9], 0.1)],
    "MountainCar": [([0.47, 0.03], 0.02), ([-1.18, -0.03], 0.02), ([-0.5, 0.069], 0.01)],
    "Acrobot": [([2.5, 0.5, 2, 1], 0.5), ([-3, 3, -12, 27], 0.5), ([1, -3, 12, -28], 0.5)],
}
twins = pytest.mark.parametrize("name", TWINS)
device = pytest.mark.parametrize("device", [None, "cpu"], ids=["numpy", "torch"])


def ours(name, n, **options):
    envs = gym.make_vec(f"seqrl/{name}-v0", n, **options)
    envs.reset(seed=0)
    envs.action_space.seed(1)
    return envs


def place(envs, state):
    """Put the batch into states [N, ...], in the order of the observation."""
    saved = envs.get_state()
    names = [name for name in saved["episodes"] if name != "time"]
    saved["episodes"].update(zip(names, np.array(state, np.float64).T, strict=True))
    saved["episodes"]["time"][:] = 0
    envs.set_state(saved)


def states(envs):
    episodes = envs.get_state()["episodes"]
    return np.stack([episodes[name] for name in episodes if name != "time"], -1)


def steps_alike(name, envs, steps):
    """Step ours, and Gymnasium's from the state of each before; return how many have ended."""
    theirs, ended = gym.make(TWINS[name]).unwrapped, 0
    theirs.reset(seed=0)
    for _ in range(steps):
        before, action = states(envs), envs.action_space.sample()
        first, reward, terminated, _, info = envs.step(action)
        obs = np.asarray(info.get("final_obs", first))
        for i, state in enumerate(before):
            theirs.state, theirs.steps_beyond_terminated = state, None
            expected = theirs.step(action[i])
            np.testing.assert_allclose(obs[i], expected[0], rtol=1e-6, atol=1e-7)
            assert reward[i] == pytest.approx(expected[1], rel=1e-6, abs=1e-7)
            assert terminated[i] == expected[2]
        ended += int(terminated.sum())
    return ended


@twins
@device
def test_every_step_is_gymnasiums(name, device):
    ended = steps_alike(name, ours(name, 3, device=device, max_episode_steps=None), 250)
    assert (ended > 0) is (name == "CartPole")


@twins
@device
def test_ends_walls_and_fastest_speeds_are_gymnasiums(name, device):
    rng, ended = np.random.default_rng(0), 0
    for middle, wide in PLACES[name]:
        envs = ours(name, 50, device=device)
        place(envs, np.array(middle) + rng.uniform(-wide, wide, (50, len(middle))))
        ended += steps_alike(name, envs, 2)
    assert (ended > 0) is (name != "Pendulum")


@twins
@device
def test_episodes_begin_where_gymnasiums_do(name, device):
    begun = states(ours(name, 2_000, device=device))
    theirs = gym.make(TWINS[name]).unwrapped
    theirs.reset(seed=0)
    expected = []
    for _ in range(2_000):
        theirs.reset()
        expected.append(theirs.state)
    expected = np.array(expected)
    assert begun.dtype == np.float64
    wide = np.ptp(expected, axis=0) + 1e-12
    for of in (np.min, np.max, np.mean, np.std):
        assert (abs(of(begun, axis=0) - of(expected, axis=0)) < 0.03 * wide).all()
    moving = begun[:, np.ptp(begun, axis=0) > 0]
    assert abs(np.corrcoef(moving.T) - np.eye(moving.shape[1])).max() < 0.1


@twins
def test_a_long_episode_is_gymnasiums(name):
    """The same actions from one state lead to the same places, to rounding."""
    envs, theirs = ours(name, 1), gym.make(TWINS[name])
    theirs.reset(seed=0)
    theirs.unwrapped.state = states(envs)[0]
    for _ in range(60):
        (action,) = envs.action_space.sample()
        obs, _, terminated, truncated, info = envs.step(action[None])
        expected = theirs.step(action)
        np.testing.assert_allclose(info.get("final_obs", obs)[0], expected[0], rtol=1e-4, atol=1e-5)
        assert (terminated[0], truncated[0]) == expected[2:4]
        if terminated[0]:
            break


@twins
def test_limits_and_spaces_are_gymnasiums(name):
    spec, one = gym.spec(TWINS[name]), gym.make(TWINS[name])
    rules = task(f"seqrl/{name}-v0")
    assert rules.time_limit == spec.max_episode_steps
    assert rules.observation_space == one.observation_space
    assert rules.action_space == one.action_space
    for n in (1, 2):
        envs = make(f"seqrl/{name}-v0", n)
        assert time_limit(envs) == spec.max_episode_steps and not may_never_end(envs)


def test_an_episode_is_cut_at_its_limit():
    envs = ours("MountainCar", 2)
    for t in range(1, 201):
        _, _, terminated, truncated, info = envs.step(np.ones(2, int))
        assert not terminated.any() and truncated.tolist() == 2 * [t == 200]
    assert info["final_obs"].shape == (2, 2)


@twins
def test_scores_are_of_episodes_to_the_limit(name):
    known, limit = reference_scores(f"seqrl/{name}-v0"), gym.spec(TWINS[name]).max_episode_steps
    assert known == reference_scores(TWINS[name]) == GYMNASIUM[TWINS[name]]().scores()
    assert reference_scores(f"seqrl/{name}-v0", max_episode_steps=limit) == known
    for other in (limit - 1, limit + 1):
        assert reference_scores(f"seqrl/{name}-v0", max_episode_steps=other) is None


@twins
def test_the_random_score_is_that_of_random_actions(name):
    envs = ours(name, 2_000)
    total, playing = np.zeros(2_000), np.ones(2_000, bool)
    while playing.any():
        _, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
        total += np.where(playing, reward, 0)
        playing &= ~(terminated | truncated)
    error = total.std() / 2_000**0.5
    assert abs(total.mean() - envs.task.scores()["random"]) < 4 * error + 1e-9


def test_a_linear_controller_reaches_the_optimum_of_cart_pole():
    envs = ours("CartPole", 200)
    total = np.zeros(200)
    for _ in range(500):
        obs = states(envs)
        _, reward, terminated, _, _ = envs.step((obs @ [0.1, 0.3, 1, 0.4] > 0).astype(int))
        assert not terminated.any()
        total += reward
    assert (total == envs.task.scores()["optimum"]).all()
